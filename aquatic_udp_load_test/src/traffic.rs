//! What to ask next.

use aquatic_common::{AnnounceEvent, InfoHash};
use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::draw::Draw;
use aquatic_udp_protocol::{
    AnnounceFields, AnnounceRequest, BufferTooSmall, ConnectRequest, ConnectionId, TransactionId,
    encode_scrape_request,
};

use crate::counted::Kind;
use crate::in_flight::Pending;
use crate::plan::Plan;
use crate::source::Source;

/// What a phase sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Connect requests until each socket has a connection id.
    Connects,
    /// An announce of each peer.
    Prefill,
    /// The configured mix.
    Mix,
}

/// A request that has been decided on but not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) kind: Kind,
    subject: u32,
    attempt: u8,
}

impl Wish {
    pub(crate) const CONNECT: Self = Self { kind: Kind::Connect, subject: 0, attempt: 0 };

    /// The request, sent now, but meant to be sent at `intended`.
    pub(crate) fn pending(self, source: u32, intended: Nanos, now: Nanos) -> Pending {
        let Self { kind, subject, attempt } = self;
        Pending { kind, source, subject, attempt, intended, sent: now }
    }
}

/// The next request to send from a socket, if there is one.
pub(crate) fn next(traffic: Traffic, plan: &Plan, source: &mut Source, draw: &mut Draw) -> Option<Wish> {
    match traffic {
        Traffic::Connects => None,
        Traffic::Prefill => {
            let (peer, attempt) = source.unannounced.take()?;
            // The bounds of the configuration keep peers below 2^32.
            Some(Wish { kind: Kind::Announce, subject: peer as u32, attempt })
        }
        Traffic::Mix => Some(mixed(plan, source, draw)),
    }
}

fn mixed(plan: &Plan, source: &Source, draw: &mut Draw) -> Wish {
    let requests = &plan.config.requests;
    let (connect, announce) = (u64::from(requests.weight_connect), u64::from(requests.weight_announce));
    let choice = draw.below(connect + announce + u64::from(requests.weight_scrape));
    if choice < connect {
        Wish::CONNECT
    } else if choice < connect + announce {
        let peer = source.peers.start + draw.below(source.peers.end - source.peers.start);
        Wish { kind: Kind::Announce, subject: peer as u32, attempt: 0 }
    } else {
        Wish { kind: Kind::Scrape, subject: requests.scrape_torrents as u32, attempt: 0 }
    }
}

/// Writes requests.
pub(crate) struct Writer {
    /// Torrents of the scrape being written; kept to save allocations.
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
        (wish, id, connection): (Wish, TransactionId, ConnectionId),
        draw: &mut Draw,
        buffer: &mut [u8],
    ) -> Result<usize, BufferTooSmall> {
        match wish.kind {
            Kind::Connect => ConnectRequest::new(id).encode(buffer),
            Kind::Announce => announce(plan, traffic, wish.subject, id, connection).encode(buffer),
            Kind::Scrape => {
                self.torrents.clear();
                self.torrents.extend((0..wish.subject).map(|_| {
                    let torrent = plan.stage.population.popular_torrent(draw.bits());
                    plan.stage.population.info_hash(torrent)
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
    let population = &plan.stage.population;
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
        numwant: Some(wanted(plan, traffic)),
        port: plan.stage.endpoints.port_of(peer),
    })
}

/// How many peers an announce asks for.
pub(crate) fn wanted(plan: &Plan, traffic: Traffic) -> u32 {
    if traffic == Traffic::Prefill { 0 } else { plan.config.requests.peers_wanted }
}
