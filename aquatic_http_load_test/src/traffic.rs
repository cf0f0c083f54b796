//! Choice and encoding of requests.

use std::ops::Range;

use aquatic_common::{AnnounceEvent, InfoHash};
use aquatic_http_protocol::{AnnounceFields, BufferTooSmall, ClientHeaders, encode_scrape_request};
use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::prefill::PendingPeers;
use aquatic_load_engine::rng::Rng;

use crate::config::{MAX_PIPELINING, MAX_SCRAPE_TORRENTS};
use crate::counters::Kind;
use crate::plan::Plan;

/// User-Agent of requests.
const USER_AGENT: &str = concat!("aquatic_http_load_test/", env!("CARGO_PKG_VERSION"));
/// Maximum length of a request: a scrape with every byte percent-encoded.
const MAX_REQUEST: usize = 1024 + MAX_SCRAPE_TORRENTS * 71;
/// Buffer for all requests that are written together.
pub(crate) const MAX_BATCH: usize = MAX_PIPELINING * MAX_REQUEST;

/// Traffic of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// One announce of each peer.
    Prefill,
    /// Mix of requests by the configured weights.
    Mix,
    /// One announce per connection.
    Idle,
}

/// Chosen request that is not encoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedRequest {
    kind: Kind,
    subject: u64,
    attempt: u8,
}

/// Request without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) kind: Kind,
    /// Peer of an announce, or seed of the torrents of a scrape.
    pub(crate) subject: u64,
    /// Number of earlier attempts.
    pub(crate) attempt: u8,
    /// Intended send time, from which the latency is measured.
    pub(crate) intended: Nanos,
    /// Send time, from which the timeout is measured.
    pub(crate) sent: Nanos,
}

impl PlannedRequest {
    /// Pending request, sent now with this intended send time.
    pub(crate) fn pending(self, intended: Nanos, now: Nanos) -> Pending {
        let Self { kind, subject, attempt } = self;
        Pending { kind, subject, attempt, intended, sent: now }
    }
}

/// Source address and its peers.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) address: u64,
    peers: Range<u64>,
    /// Peers that a prefill has yet to announce.
    pub(crate) unannounced: PendingPeers,
}

impl Source {
    /// Source addresses of a thread, without those that have no peers.
    pub(crate) fn of_thread(plan: &Plan, thread: u32) -> Vec<Self> {
        let addresses = u64::from(thread)..plan.topology.endpoints.addresses();
        let sources = addresses.step_by(plan.config.threads as usize).map(|address| {
            let peers = plan.topology.endpoints.peers_at(address);
            Self { address, unannounced: PendingPeers::new(peers.clone()), peers }
        });
        sources.filter(|source| !source.peers.is_empty()).collect()
    }

    /// Whether there is a request to send from this address.
    pub(crate) fn has_work(&self, traffic: Traffic) -> bool {
        traffic != Traffic::Prefill || !self.unannounced.is_empty()
    }

    /// Next request.
    pub(crate) fn next(&mut self, traffic: Traffic, plan: &Plan, rng: &mut Rng) -> Option<PlannedRequest> {
        match traffic {
            Traffic::Prefill => {
                let (subject, attempt) = self.unannounced.take()?;
                Some(PlannedRequest { kind: Kind::Announce, subject, attempt })
            }
            Traffic::Idle => Some(self.any_announce(rng)),
            Traffic::Mix => {
                let requests = &plan.config.requests;
                let announce = u64::from(requests.weight_announce);
                let scrape = u64::from(requests.weight_scrape);
                if scrape == 0 || rng.below(announce + scrape) < announce {
                    Some(self.any_announce(rng))
                } else {
                    Some(PlannedRequest { kind: Kind::Scrape, subject: rng.next_u64(), attempt: 0 })
                }
            }
        }
    }

    fn any_announce(&self, rng: &mut Rng) -> PlannedRequest {
        let subject = self.peers.start + rng.below(self.peers.end - self.peers.start);
        PlannedRequest { kind: Kind::Announce, subject, attempt: 0 }
    }
}

/// Encodes a request at the front of a buffer and returns its length.
pub(crate) fn write(
    plan: &Plan,
    traffic: Traffic,
    planned: PlannedRequest,
    keep_alive: bool,
    torrents: &mut Vec<InfoHash>,
    buffer: &mut [u8],
) -> Result<usize, BufferTooSmall> {
    let origin = ClientHeaders { host: &plan.host, user_agent: USER_AGENT, keep_alive };
    match planned.kind {
        Kind::Announce => announce(plan, traffic, planned.subject).encode(&origin, buffer),
        Kind::Scrape => {
            let count = plan.config.requests.scrape_torrents;
            plan.topology.population.scrape_targets(planned.subject, count, torrents);
            encode_scrape_request(&origin, torrents, buffer)
        }
    }
}

fn announce(plan: &Plan, traffic: Traffic, peer: u64) -> AnnounceFields {
    let population = &plan.topology.population;
    AnnounceFields {
        info_hash: population.info_hash(population.torrent_of(peer)),
        peer_id: population.peer_id(peer),
        port: plan.topology.endpoints.port_of(peer),
        uploaded: 0,
        downloaded: 0,
        left: u64::from(!population.is_seeder(peer)),
        event: if traffic == Traffic::Prefill { AnnounceEvent::Started } else { AnnounceEvent::None },
        // Any constant of the peer.
        key: peer as u32,
        numwant: Some(numwant(plan, traffic)),
    }
}

/// Number of peers that an announce requests.
pub(crate) fn numwant(plan: &Plan, traffic: Traffic) -> u32 {
    if traffic == Traffic::Prefill { 0 } else { plan.config.requests.peers_wanted }
}
