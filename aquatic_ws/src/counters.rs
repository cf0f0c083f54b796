//! What is counted on each core about messages. What is counted about connections before their upgrade belongs to
//! `aquatic_net::tcp`.

use aquatic_common::Family;
use aquatic_common::config::Limit;
use aquatic_metrics::{CoreMetrics, Counter, Gauge, Label, names};
use aquatic_net::proxy::NoClient;
use aquatic_ws_protocol::Fault;

use crate::connections::End;
use crate::swarm::Stats;
use crate::upgrade::Plain;

const PROTOCOL: Label = ("protocol", "ws");

/// Kinds of messages from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Tells about a peer.
    Announce,
    /// Accepts an offer.
    Answer,
    /// Asks for counts.
    Scrape,
}

impl Request {
    const NAMES: [&'static str; 3] = ["announce", "answer", "scrape"];
}

/// Kinds of messages to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    Announce,
    Scrape,
    /// Another peer's.
    Offer,
    /// Another peer's.
    Answer,
    Error,
}

impl Response {
    const NAMES: [&'static str; 5] = ["announce", "scrape", "offer", "answer", "error"];
}

/// Why a message was refused with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It makes no sense to a tracker.
    Bad(Fault),
    /// The access list does not let the torrent in.
    AccessList,
    /// One connection brings too many peers.
    Peers,
    /// One connection brings too many peer ids.
    PeerIds,
    /// The core that owns the torrent could not be asked.
    Overflow,
    /// The core that owns the torrent did not answer in time.
    Timeout,
}

impl Why {
    const NAMES: [&'static str; 15] = [
        "too_long",
        "not_utf8",
        "not_json",
        "too_deep",
        "action",
        "missing_field",
        "wrong_type",
        "bad_identifier",
        "unsafe_to_relay",
        "full_scrape",
        "access_list",
        "connection_peers",
        "connection_peer_ids",
        "overflow",
        "timeout",
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Bad(fault) => fault.name(),
            Self::AccessList => "access_list",
            Self::Peers => "connection_peers",
            Self::PeerIds => "connection_peer_ids",
            Self::Overflow => "overflow",
            Self::Timeout => "timeout",
        }
    }
}

/// What is lost without a word to whom sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// An offer that cannot be relayed, left out of an announce that is served otherwise.
    BadOffer,
    /// An answer to nothing that was offered to this peer, or that was too long ago.
    AnswerWithoutOffer,
    /// An answer to a peer that has gone.
    AnswerToNobody,
    /// An answer about a torrent the access list does not let in.
    AnswerAccessList,
    /// A message to a connection that has ended.
    ConnectionGone,
    /// Something for a client that does not receive as fast as others send to it.
    ReceiverFull,
    /// A message that did not fit into the channel to another core.
    Overflow,
}

impl Dropped {
    const NAMES: [&'static str; 7] = [
        "bad_offer",
        "answer_without_offer",
        "answer_to_nobody",
        "answer_access_list",
        "connection_gone",
        "receiver_full",
        "overflow",
    ];
}

/// One core's counters.
#[derive(Debug)]
pub(crate) struct Counters {
    requests: [[Counter; Request::NAMES.len()]; 2],
    responses: [[Counter; Response::NAMES.len()]; 2],
    refused: [Counter; Why::NAMES.len()],
    pub(crate) dropped: [Counter; Dropped::NAMES.len()],
    ended: [Counter; End::NAMES.len()],
    health: Counter,
    plain: [Counter; 3],
    no_client: [Counter; 2],
    pub(crate) upgrades: Counter,
    pub(crate) contested: Counter,
    pub(crate) throttled: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) not_stored: [Counter; Limit::ALL.len()],
    pub(crate) offers_forgotten: Counter,
    pub(crate) expired_peers: Counter,
    pub(crate) expired_torrents: Counter,
    pub(crate) expiry_passes: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    torrents: Gauge,
    peers: [[Gauge; 2]; 2],
    offers: Gauge,
}

impl Counters {
    pub(crate) fn new(metrics: &CoreMetrics) -> Self {
        let counter = |metric, key, value| metrics.counter(metric, &[PROTOCOL, (key, value)]);
        let plain = |metric| metrics.counter(metric, &[PROTOCOL]);
        let by_family = |family: Family, metric, action| {
            metrics.counter(metric, &[PROTOCOL, ("family", family.name()), ("action", action)])
        };
        let peers = |family: Family| {
            let family = ("family", family.name());
            ["leecher", "seeder"]
                .map(|role| metrics.gauge(&names::PEERS, &[PROTOCOL, family, ("role", role)]))
        };
        Self {
            requests: Family::ALL
                .map(|family| Request::NAMES.map(|action| by_family(family, &names::REQUESTS, action))),
            responses: Family::ALL
                .map(|family| Response::NAMES.map(|action| by_family(family, &names::RESPONSES, action))),
            refused: Why::NAMES.map(|reason| counter(&names::REFUSED, "reason", reason)),
            dropped: Dropped::NAMES.map(|reason| counter(&names::DROPPED, "reason", reason)),
            ended: End::NAMES.map(|reason| counter(&names::CONNECTIONS_ENDED, "reason", reason)),
            health: counter(&names::REQUESTS, "action", "health"),
            plain: ["no_upgrade", "version", "malformed"].map(|why| counter(&names::REFUSED, "reason", why)),
            no_client: [NoClient::Missing, NoClient::Malformed]
                .map(|why| counter(&names::CLIENTS_UNKNOWN, "reason", why.name())),
            upgrades: plain(&names::UPGRADES),
            contested: plain(&names::CONTESTED_PEERS),
            throttled: plain(&names::THROTTLED),
            forwarded: plain(&names::FORWARDED),
            not_stored: Limit::ALL.map(|limit| counter(&names::NOT_STORED, "reason", limit.name())),
            offers_forgotten: plain(&names::OFFERS_FORGOTTEN),
            expired_peers: plain(&names::EXPIRED_PEERS),
            expired_torrents: plain(&names::EXPIRED_TORRENTS),
            expiry_passes: plain(&names::EXPIRY_PASSES),
            received: plain(&names::RECEIVED_BYTES),
            sent: plain(&names::SENT_BYTES),
            torrents: metrics.gauge(&names::TORRENTS, &[PROTOCOL]),
            peers: Family::ALL.map(peers),
            offers: metrics.gauge(&names::OFFERS_WAITING, &[PROTOCOL]),
        }
    }

    pub(crate) fn request(&self, family: Family, request: Request) {
        self.requests[family.index()][request as usize].add(1);
    }

    pub(crate) fn response(&self, family: Family, response: Response) {
        self.responses[family.index()][response as usize].add(1);
    }

    pub(crate) fn refuse(&self, why: Why) {
        let name = why.name();
        // A name that is not listed would be a bug of ours; it is counted among those that make no sense.
        let at = Why::NAMES.iter().position(|known| *known == name);
        debug_assert!(at.is_some(), "{name} is not listed");
        self.refused[at.unwrap_or(2)].add(1);
    }

    pub(crate) fn drop_one(&self, dropped: Dropped) {
        self.drop_many(dropped, 1);
    }

    pub(crate) fn drop_many(&self, dropped: Dropped, count: usize) {
        self.dropped[dropped as usize].add(count as u64);
    }

    pub(crate) fn end(&self, end: End) {
        self.ended[end as usize].add(1);
    }

    pub(crate) fn plain(&self, why: Plain) {
        let at = match why {
            Plain::Health => return self.health.add(1),
            Plain::NoUpgrade => 0,
            Plain::Version => 1,
            Plain::Malformed => 2,
            Plain::NoClient(why) => return self.no_client(why),
            // Counted where connections are.
            Plain::TooMany => return,
        };
        self.plain[at].add(1);
    }

    pub(crate) fn no_client(&self, why: NoClient) {
        self.no_client[match why {
            NoClient::Missing => 0,
            NoClient::Malformed => 1,
        }]
        .add(1);
    }

    pub(crate) fn report(&self, stats: &Stats) {
        self.torrents.set(stats.torrents as u64);
        self.offers.set(stats.offers as u64);
        for (gauges, numbers) in self.peers.iter().zip(stats.peers) {
            gauges.iter().zip(numbers).for_each(|(gauge, number)| gauge.set(number as u64));
        }
        self.offers_forgotten.add(stats.offers_dropped.saturating_sub(self.offers_forgotten.get()));
    }
}
