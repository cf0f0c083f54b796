//! Metrics of each core about messages and swarms. Those about connections before their upgrade belong to
//! `aquatic_net::tcp`.

use aquatic_common::config::Limit;
use aquatic_common::{Family, PeerId};
use aquatic_metrics::{CoreMetrics, Counter, Gauge, Label, SampledHistogram, names};
use aquatic_net::proxy::NoClient;
use aquatic_tracker::{ClientCounters, Reason, RefusalCounters};
use aquatic_ws_protocol::Fault;

use crate::connections::{End, QueueError};
use crate::labels::labels;
use crate::swarm::Stats;
use crate::upgrade::NotUpgraded;

/// Label of all metrics of the service.
const PROTOCOL: Label = ("protocol", "ws");
/// Label of what is not told apart by family.
const BOTH_FAMILIES: Label = ("family", names::BOTH_FAMILIES);
/// Label of the swarms of browsers.
const SWARMS: Label = ("swarms", names::WEBTORRENT);
/// Labels of what is not told apart by family, since the peers of a torrent may be of both.
pub(crate) const SWARMS_OF_BOTH_FAMILIES: [Label; 2] = [SWARMS, BOTH_FAMILIES];

labels! {
    /// Kind of a message from a client.
    pub(crate) enum Request {
        Announce => "announce",
        Answer => "answer",
        Scrape => "scrape",
    }
}

labels! {
    /// Kind of a message to a client.
    pub(crate) enum Response {
        Announce => "announce",
        Scrape => "scrape",
        /// Offer of another peer.
        Offer => "offer",
        /// Answer of another peer.
        Answer => "answer",
        Error => "error",
    }
}

/// Reasons for which messages and requests are refused.
const REFUSED: [Reason; 26] = [
    Reason::Origin,
    Reason::Breaker,
    Reason::RateLimit,
    Reason::Blocked,
    Reason::ClientMissing,
    Reason::ClientMalformed,
    Reason::ClientUnusable,
    Reason::NoUpgrade,
    Reason::Version,
    Reason::Malformed,
    Reason::TooLong,
    Reason::NotUtf8,
    Reason::NotJson,
    Reason::TooDeep,
    Reason::Action,
    Reason::MissingField,
    Reason::WrongType,
    Reason::BadIdentifier,
    Reason::UnsafeToRelay,
    Reason::FullScrape,
    Reason::AccessList,
    Reason::ConnectionPeers,
    Reason::ConnectionTorrentPeers,
    Reason::ConnectionPeerIds,
    Reason::Overflow,
    Reason::Timeout,
];

/// Returns the reason for which a message with a fault is refused.
pub(crate) fn reason_of(fault: Fault) -> Reason {
    match fault {
        Fault::TooLong { .. } => Reason::TooLong,
        Fault::NotUtf8 => Reason::NotUtf8,
        Fault::NotJson { .. } | Fault::NotMessage => Reason::NotJson,
        Fault::TooDeep => Reason::TooDeep,
        Fault::ActionMissing | Fault::ActionUnknown => Reason::Action,
        Fault::Missing(_) => Reason::MissingField,
        Fault::NotString(_) | Fault::NotNumber(_) | Fault::NotArray(_) | Fault::NotObject(_) => {
            Reason::WrongType
        }
        Fault::Length(..) | Fault::NotBytes(_) | Fault::OfferIdTooLong(_) => Reason::BadIdentifier,
        Fault::LoneSurrogate(_) | Fault::NumberRange(_) => Reason::UnsafeToRelay,
        Fault::FullScrape => Reason::FullScrape,
    }
}

labels! {
    /// Reason why a request is dropped without a reply.
    pub(crate) enum DropReason {
        /// The connection of the client has ended before the reply.
        ConnectionGone => "connection_gone",
        /// The reply does not fit into the send queue of the client.
        ReceiverFull => "receiver_full",
        /// The reply does not fit into the outbox for the core of the client.
        Overflow => "overflow",
        /// The source sends more than its rate limit allows.
        RateLimit => "rate_limit",
    }
}

labels! {
    /// Reason why an offer or answer is not relayed to another client.
    pub(crate) enum RelayDrop {
        /// An offer that cannot be relayed, of an announce that is served without it.
        BadOffer => "bad_offer",
        /// An answer to an offer that was not sent to the peer, or that expired.
        AnswerWithoutOffer => "answer_without_offer",
        /// An answer to a peer that left.
        AnswerToNobody => "answer_to_nobody",
        /// An answer in a torrent that the access list excludes.
        AnswerAccessList => "answer_access_list",
        /// A message to a connection that ended.
        ConnectionGone => "connection_gone",
        /// A message to a client whose send queue is full.
        ReceiverFull => "receiver_full",
        /// A message to another core whose outbox is full.
        Overflow => "overflow",
        /// A message to another node, for which too much waits.
        NodeOverflow => "node_overflow",
        /// A message to another node that is longer than one may be.
        NodeTooLong => "node_too_long",
        /// A message to another node that is gone.
        NodeGone => "node_gone",
        /// A message from another node that cannot be decoded, or is not for this core.
        NodeMalformed => "node_malformed",
    }
}

/// Metrics of one core.
#[derive(Debug)]
pub(crate) struct Counters {
    requests: [[Counter; Request::ALL.len()]; 2],
    responses: [[Counter; Response::ALL.len()]; 2],
    refused: RefusalCounters,
    pub(crate) dropped: [Counter; DropReason::ALL.len()],
    pub(crate) relays_dropped: [Counter; RelayDrop::ALL.len()],
    /// Error replies that could not be queued: because the client has gone, or its send queue is full.
    errors_lost: [Counter; 2],
    ended: [Counter; End::ALL.len()],
    health: [Counter; 2],
    no_client: [Counter; NoClient::ALL.len()],
    pub(crate) upgrades: Counter,
    pub(crate) contested: Counter,
    pub(crate) throttled: Counter,
    /// Messages above a rate limit that were served all the same.
    pub(crate) above_in_dry_run: Counter,
    /// Whether sources are above their rate limit.
    pub(crate) rate_limiting: Gauge,
    pub(crate) forwarded: Counter,
    /// By family and limit.
    not_stored: [[Counter; Limit::ALL.len()]; 2],
    pub(crate) offers_evicted: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) durations: SampledHistogram,
    torrents: Gauge,
    /// Torrents and peers: their maxima, and how many there are.
    limits: [(Gauge, Gauge); 2],
    store: Gauge,
    peers: [[Gauge; 2]; 2],
    offers: Gauge,
    scrapes_pending: Gauge,
    clients: Option<ClientCounters>,
    load: Option<Gauge>,
}

impl Counters {
    pub(crate) fn new(metrics: &CoreMetrics) -> Self {
        let counter = |metric, key, value| metrics.counter(metric, &[PROTOCOL, (key, value)]);
        let plain = |metric| metrics.counter(metric, &[PROTOCOL]);
        let by_family = |family: Family, metric, action| {
            metrics.counter(metric, &[PROTOCOL, ("family", family.name()), ("action", action)])
        };
        let not_stored = |family: Family, limit: Limit| {
            let labels = [SWARMS, ("family", family.name()), ("reason", limit.name())];
            metrics.counter(&names::NOT_STORED, &labels)
        };
        let peers = |family: Family| {
            let family = ("family", family.name());
            ["leecher", "seeder"].map(|role| metrics.gauge(&names::PEERS, &[SWARMS, family, ("role", role)]))
        };
        Self {
            requests: Family::ALL
                .map(|family| Request::ALL.map(|kind| by_family(family, &names::REQUESTS, kind.name()))),
            responses: Family::ALL
                .map(|family| Response::ALL.map(|kind| by_family(family, &names::RESPONSES, kind.name()))),
            refused: RefusalCounters::new(metrics, PROTOCOL, &REFUSED),
            dropped: DropReason::ALL.map(|reason| {
                metrics.counter(&names::DROPPED, &[PROTOCOL, BOTH_FAMILIES, ("reason", reason.name())])
            }),
            relays_dropped: RelayDrop::ALL
                .map(|reason| counter(&names::RELAYS_DROPPED, "reason", reason.name())),
            errors_lost: [DropReason::ConnectionGone, DropReason::ReceiverFull]
                .map(|reason| counter(&names::SEND_ERRORS, "reason", reason.name())),
            ended: End::ALL.map(|reason| counter(&names::CONNECTIONS_ENDED, "reason", reason.name())),
            health: [&names::REQUESTS, &names::RESPONSES]
                .map(|metric| metrics.counter(metric, &[PROTOCOL, BOTH_FAMILIES, ("action", "health")])),
            no_client: NoClient::ALL.map(|why| counter(&names::PROXY_CLIENT_MISSING, "reason", why.name())),
            upgrades: plain(&names::UPGRADES),
            contested: plain(&names::CONTESTED_PEERS),
            throttled: plain(&names::THROTTLED),
            above_in_dry_run: plain(&names::RATE_LIMIT_DRY_RUN),
            rate_limiting: metrics.gauge(&names::RATE_LIMITING, &[PROTOCOL]),
            forwarded: plain(&names::FORWARDED),
            not_stored: Family::ALL.map(|family| Limit::ALL.map(|limit| not_stored(family, limit))),
            offers_evicted: plain(&names::OFFERS_FORGOTTEN),
            received: metrics.counter(&names::RECEIVED_BYTES, &[PROTOCOL, BOTH_FAMILIES]),
            sent: metrics.counter(&names::SENT_BYTES, &[PROTOCOL, BOTH_FAMILIES]),
            durations: SampledHistogram::new(metrics.histogram(&names::REQUEST_DURATION, &[PROTOCOL])),
            limits: ["ws.limits.max_torrents", "ws.limits.max_peers"].map(|limit| {
                let gauge = |metric| metrics.gauge(metric, &[("limit", limit)]);
                (gauge(&names::LIMIT), gauge(&names::LIMIT_IN_USE))
            }),
            torrents: metrics.gauge(&names::TORRENTS, &SWARMS_OF_BOTH_FAMILIES),
            store: metrics.gauge(&names::STORE, &SWARMS_OF_BOTH_FAMILIES),
            peers: Family::ALL.map(peers),
            offers: metrics.gauge(&names::OFFERS_WAITING, &[PROTOCOL]),
            scrapes_pending: metrics.gauge(&names::OWNER_REQUESTS_PENDING, &[]),
            clients: None,
            load: None,
        }
    }

    /// Counts announces by the program of the client as well, or not.
    #[must_use]
    pub(crate) fn counting_clients(self, metrics: &CoreMetrics, counts_clients: bool) -> Self {
        let clients = counts_clients.then(|| ClientCounters::new(metrics, PROTOCOL));
        Self { clients, ..self }
    }

    /// Shows the load of the core as well, or not.
    #[must_use]
    pub(crate) fn showing_load(self, metrics: &CoreMetrics, shows_load: bool) -> Self {
        Self { load: shows_load.then(|| metrics.gauge(&names::CORE_BUSY, &[])), ..self }
    }

    /// Shows the share of its time that the core is busy, from 0 to 1, if that is wanted.
    pub(crate) fn show_load(&self, busy: f64) {
        if let Some(load) = &self.load {
            load.set((busy * 1000.0) as u64);
        }
    }

    /// Counts the program of a client that announces.
    pub(crate) fn client(&self, peer_id: &PeerId) {
        if let Some(clients) = &self.clients {
            clients.add(peer_id);
        }
    }

    pub(crate) fn request(&self, family: Family, request: Request) {
        self.requests[family.index()][request as usize].add(1);
    }

    pub(crate) fn response(&self, family: Family, response: Response) {
        self.responses[family.index()][response as usize].add(1);
    }

    /// Counts a refused message that has been counted as a request.
    pub(crate) fn refuse(&self, family: Option<Family>, reason: Reason) {
        self.refused.refuse(family, reason);
    }

    /// Counts a refused message or request for an upgrade whose kind was not known.
    pub(crate) fn refuse_other(&self, family: Option<Family>, reason: Reason) {
        self.refused.refuse_other(family, reason);
    }

    pub(crate) fn not_stored(&self, family: Family, limit: Limit) {
        self.not_stored[family.index()][limit as usize].add(1);
    }

    /// Counts a dropped message of a client whose kind is not known.
    pub(crate) fn drop_unread(&self, reason: DropReason) {
        self.refused.note_other(None);
        self.drop_one(reason);
    }

    pub(crate) fn drop_one(&self, reason: DropReason) {
        self.dropped[reason as usize].add(1);
    }

    pub(crate) fn drop_relay(&self, reason: RelayDrop) {
        self.drop_relays(reason, 1);
    }

    pub(crate) fn drop_relays(&self, reason: RelayDrop, count: usize) {
        self.relays_dropped[reason as usize].add(count as u64);
    }

    /// Counts a message that could not be queued for a client.
    pub(crate) fn not_queued(&self, why: QueueError, response: Response) {
        match (response, why) {
            (Response::Announce | Response::Scrape, QueueError::Closed) => {
                self.drop_one(DropReason::ConnectionGone);
            }
            (Response::Announce | Response::Scrape, QueueError::Full) => {
                self.drop_one(DropReason::ReceiverFull);
            }
            (Response::Offer | Response::Answer, QueueError::Closed) => {
                self.drop_relay(RelayDrop::ConnectionGone);
            }
            (Response::Offer | Response::Answer, QueueError::Full) => {
                self.drop_relay(RelayDrop::ReceiverFull);
            }
            // Its request is counted as refused.
            (Response::Error, QueueError::Closed) => self.errors_lost[0].add(1),
            (Response::Error, QueueError::Full) => self.errors_lost[1].add(1),
        }
    }

    pub(crate) fn end(&self, end: End) {
        self.ended[end as usize].add(1);
    }

    pub(crate) fn not_upgraded(&self, why: NotUpgraded) {
        match why {
            NotUpgraded::Health => self.health.iter().for_each(|counter| counter.add(1)),
            NotUpgraded::NoUpgrade => self.refuse_other(None, Reason::NoUpgrade),
            NotUpgraded::Origin => self.refuse_other(None, Reason::Origin),
            NotUpgraded::Breaker => self.refuse_other(None, Reason::Breaker),
            NotUpgraded::RateLimit => self.refuse_other(None, Reason::RateLimit),
            NotUpgraded::Blocked => self.refuse_other(None, Reason::Blocked),
            NotUpgraded::Version => self.refuse_other(None, Reason::Version),
            NotUpgraded::Malformed => self.refuse_other(None, Reason::Malformed),
            NotUpgraded::NoClient(why) => {
                self.no_client(why);
                let reason = match why {
                    NoClient::Missing => Reason::ClientMissing,
                    NoClient::Malformed => Reason::ClientMalformed,
                    NoClient::Unusable => Reason::ClientUnusable,
                };
                self.refuse_other(None, reason);
            }
            // Counted by the connection layer.
            NotUpgraded::TooManyConnections => {}
        }
    }

    pub(crate) fn no_client(&self, why: NoClient) {
        self.no_client[why as usize].add(1);
    }

    /// Updates the gauges.
    pub(crate) fn report(&self, stats: &Stats, scrapes_pending: usize) {
        self.scrapes_pending.set(scrapes_pending as u64);
        self.torrents.set(stats.torrents as u64);
        self.offers.set(stats.offers as u64);
        self.store.set(stats.bytes as u64);
        let peers = stats.peers.iter().flatten().sum::<usize>();
        let values = [(stats.max_torrents, stats.torrents), (stats.max_peers, peers)];
        for ((maximum, used), gauges) in values.into_iter().zip(&self.limits) {
            gauges.0.set(maximum as u64);
            gauges.1.set(used as u64);
        }
        for (gauges, numbers) in self.peers.iter().zip(stats.peers) {
            gauges.iter().zip(numbers).for_each(|(gauge, number)| gauge.set(number as u64));
        }
        self.offers_evicted.add(stats.offers_evicted.saturating_sub(self.offers_evicted.get()));
    }
}

#[cfg(test)]
mod tests {
    use aquatic_metrics::Registry;
    use aquatic_ws_protocol::Field;

    use super::*;

    #[test]
    fn every_fault_is_counted_by_its_own_reason() {
        let field = Field::Offers;
        for (fault, name) in [
            (Fault::TooLong { limit: 1 }, "too_long"),
            (Fault::NotUtf8, "not_utf8"),
            (Fault::NotJson { at: 0 }, "not_json"),
            (Fault::NotMessage, "not_json"),
            (Fault::TooDeep, "too_deep"),
            (Fault::ActionMissing, "action"),
            (Fault::ActionUnknown, "action"),
            (Fault::Missing(field), "missing_field"),
            (Fault::NotString(field), "wrong_type"),
            (Fault::NotNumber(field), "wrong_type"),
            (Fault::NotArray(field), "wrong_type"),
            (Fault::NotObject(field), "wrong_type"),
            (Fault::Length(field, 1), "bad_identifier"),
            (Fault::NotBytes(field), "bad_identifier"),
            (Fault::OfferIdTooLong(65), "bad_identifier"),
            (Fault::LoneSurrogate(field), "unsafe_to_relay"),
            (Fault::NumberRange(field), "unsafe_to_relay"),
            (Fault::FullScrape, "full_scrape"),
        ] {
            let counters = Counters::new(&Registry::default().core(0));
            counters.refuse(None, reason_of(fault));
            let counted: Vec<_> =
                REFUSED.into_iter().filter(|&reason| counters.refused.get(reason) > 0).collect();
            assert_eq!(counted.iter().map(|reason| reason.name()).collect::<Vec<_>>(), [name], "{fault:?}");
        }
    }
}
