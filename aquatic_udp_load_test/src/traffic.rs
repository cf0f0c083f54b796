//! Choice and encoding of requests.

use aquatic_common::{AnnounceEvent, InfoHash};
use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::rng::Rng;
use aquatic_udp_protocol::{
    AnnounceFields, AnnounceRequest, BufferTooSmall, ConnectRequest, ConnectionId, TransactionId,
    encode_scrape_request,
};

use crate::counters::Kind;
use crate::in_flight::Pending;
use crate::plan::Plan;
use crate::source::Source;

/// Traffic of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Connect requests until each socket has a connection id.
    Connects,
    /// One announce of each peer.
    Prefill,
    /// Mix of requests by the configured weights.
    Mix,
}

/// Chosen request that is not encoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedRequest {
    pub(crate) kind: Kind,
    subject: u32,
    attempt: u8,
}

impl PlannedRequest {
    pub(crate) const CONNECT: Self = Self { kind: Kind::Connect, subject: 0, attempt: 0 };

    /// Pending request, sent now with this intended send time.
    pub(crate) fn pending(self, source: u32, intended: Nanos, now: Nanos) -> Pending {
        let Self { kind, subject, attempt } = self;
        Pending { kind, source, subject, attempt, intended, sent: now }
    }
}

/// Next request of a socket.
pub(crate) fn next(
    traffic: Traffic,
    plan: &Plan,
    source: &mut Source,
    rng: &mut Rng,
) -> Option<PlannedRequest> {
    match traffic {
        Traffic::Connects => None,
        Traffic::Prefill => {
            let (peer, attempt) = source.unannounced.take()?;
            // The bounds of the configuration keep peers below 2^32.
            Some(PlannedRequest { kind: Kind::Announce, subject: peer as u32, attempt })
        }
        Traffic::Mix => Some(mixed(plan, source, rng)),
    }
}

fn mixed(plan: &Plan, source: &Source, rng: &mut Rng) -> PlannedRequest {
    let requests = &plan.config.requests;
    let (connect, announce) = (u64::from(requests.weight_connect), u64::from(requests.weight_announce));
    let choice = rng.below(connect + announce + u64::from(requests.weight_scrape));
    if choice < connect {
        PlannedRequest::CONNECT
    } else if choice < connect + announce {
        let peer = source.peers.start + rng.below(source.peers.end - source.peers.start);
        PlannedRequest { kind: Kind::Announce, subject: peer as u32, attempt: 0 }
    } else {
        PlannedRequest { kind: Kind::Scrape, subject: requests.scrape_torrents as u32, attempt: 0 }
    }
}

/// Encoder of requests.
pub(crate) struct Writer {
    /// Torrents of the scrape being written; reused to avoid allocations.
    torrents: Vec<InfoHash>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { torrents: Vec::new() }
    }

    pub(crate) fn write(
        &mut self,
        plan: &Plan,
        traffic: Traffic,
        (planned, id, connection): (PlannedRequest, TransactionId, ConnectionId),
        rng: &mut Rng,
        buffer: &mut [u8],
    ) -> Result<usize, BufferTooSmall> {
        match planned.kind {
            Kind::Connect => ConnectRequest::new(id).encode(buffer),
            Kind::Announce => announce(plan, traffic, planned.subject, id, connection).encode(buffer),
            Kind::Scrape => {
                self.torrents.clear();
                self.torrents.extend((0..planned.subject).map(|_| {
                    let torrent = plan.topology.population.popular_torrent(rng.next_u64());
                    plan.topology.population.info_hash(torrent)
                }));
                encode_scrape_request(connection, id, &self.torrents, buffer)
            }
        }
    }
}

fn announce(
    plan: &Plan,
    traffic: Traffic,
    peer: u32,
    transaction_id: TransactionId,
    connection_id: ConnectionId,
) -> AnnounceRequest {
    let peer = u64::from(peer);
    let population = &plan.topology.population;
    let prefill = traffic == Traffic::Prefill;
    AnnounceRequest::new(&AnnounceFields {
        connection_id,
        transaction_id,
        info_hash: population.info_hash(population.torrent_of(peer)),
        peer_id: population.peer_id(peer),
        uploaded: 0,
        downloaded: 0,
        left: i64::from(!population.is_seeder(peer)),
        event: if prefill { AnnounceEvent::Started } else { AnnounceEvent::None },
        key: peer as u32,
        numwant: Some(numwant(plan, traffic)),
        port: plan.topology.endpoints.port_of(peer),
    })
}

/// Number of peers that an announce requests.
pub(crate) fn numwant(plan: &Plan, traffic: Traffic) -> u32 {
    if traffic == Traffic::Prefill { 0 } else { plan.config.requests.peers_wanted }
}
