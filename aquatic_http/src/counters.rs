//! What is counted on each core about requests. What is counted about connections belongs to `aquatic_net`.

use aquatic_common::{Family, PeerId};
use aquatic_http_protocol::{Fault, HttpFault, Refusal};
use aquatic_metrics::{CoreMetrics, Counter, Gauge, Label, SampledHistogram, names};
use aquatic_net::proxy::NoClient;
use aquatic_tracker::{ClientCounters, Reason, RefusalCounters};

const PROTOCOL: Label = ("protocol", "http");
/// Connections of a proxy have clients of both families.
const BOTH_FAMILIES: Label = ("family", names::BOTH_FAMILIES);

/// Kinds of requests that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tells about a peer.
    Announce,
    /// Asks for counts.
    Scrape,
}

impl Action {
    const ALL: [Self; 2] = [Self::Announce, Self::Scrape];

    fn name(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Scrape => "scrape",
        }
    }
}

/// Reasons that requests are refused for.
const REASONS: [Reason; 25] = [
    Reason::InfoHashMissing,
    Reason::InfoHashLength,
    Reason::PortMissing,
    Reason::PortInvalid,
    Reason::NotCompact,
    Reason::FullScrape,
    Reason::WrongPath,
    Reason::Malformed,
    Reason::BadTarget,
    Reason::Version,
    Reason::UriTooLong,
    Reason::HeadTooLong,
    Reason::TooManyHeaders,
    Reason::Body,
    Reason::NotFound,
    Reason::Method,
    Reason::AccessList,
    Reason::ClientMissing,
    Reason::ClientMalformed,
    Reason::ClientUnusable,
    Reason::RateLimit,
    Reason::Breaker,
    Reason::Blocked,
    Reason::Overflow,
    Reason::Timeout,
];

/// The reason by which a refusal of the codec is counted.
pub(crate) fn reason_of(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Tracker(fault) => match fault {
            Fault::InfoHashMissing => Reason::InfoHashMissing,
            Fault::InfoHashLength(_) => Reason::InfoHashLength,
            Fault::PortMissing => Reason::PortMissing,
            Fault::PortInvalid => Reason::PortInvalid,
            Fault::NotCompact => Reason::NotCompact,
            Fault::FullScrape => Reason::FullScrape,
            Fault::WrongAnnounceUrl => Reason::WrongPath,
        },
        Refusal::Http(fault) => match fault {
            HttpFault::Malformed => Reason::Malformed,
            HttpFault::Target => Reason::BadTarget,
            HttpFault::Version => Reason::Version,
            HttpFault::UriTooLong => Reason::UriTooLong,
            HttpFault::HeadTooLong => Reason::HeadTooLong,
            HttpFault::TooManyHeaders => Reason::TooManyHeaders,
            HttpFault::Body => Reason::Body,
            HttpFault::NotFound => Reason::NotFound,
            HttpFault::Method => Reason::Method,
        },
    }
}

/// One core's counters.
#[derive(Debug)]
pub struct Counters {
    requests: [[Counter; 2]; 2],
    responses: [[Counter; 2]; 2],
    refused: RefusalCounters,
    health: [Counter; 2],
    pub(crate) forwarded: Counter,
    /// Requests above a rate limit that were served all the same.
    pub(crate) above_in_dry_run: Counter,
    /// Whether sources are above their rate limit.
    pub(crate) rate_limiting: Gauge,
    no_client: [Counter; NoClient::ALL.len()],
    received: Counter,
    sent: Counter,
    pub(crate) durations: SampledHistogram,
    clients: Option<ClientCounters>,
}

impl Counters {
    /// Counters that start at zero.
    #[must_use]
    pub fn new(metrics: &CoreMetrics) -> Self {
        let by_family_and_action = |metric| {
            Family::ALL.map(|family| {
                let family = ("family", family.name());
                Action::ALL
                    .map(|action| metrics.counter(metric, &[PROTOCOL, family, ("action", action.name())]))
            })
        };
        let no_client = |why: NoClient| {
            metrics.counter(&names::PROXY_CLIENT_MISSING, &[PROTOCOL, ("reason", why.name())])
        };
        Self {
            requests: by_family_and_action(&names::REQUESTS),
            responses: by_family_and_action(&names::RESPONSES),
            refused: RefusalCounters::new(metrics, PROTOCOL, &REASONS),
            health: [&names::REQUESTS, &names::RESPONSES]
                .map(|metric| metrics.counter(metric, &[PROTOCOL, BOTH_FAMILIES, ("action", "health")])),
            forwarded: metrics.counter(&names::FORWARDED, &[PROTOCOL]),
            above_in_dry_run: metrics.counter(&names::RATE_LIMIT_DRY_RUN, &[PROTOCOL]),
            rate_limiting: metrics.gauge(&names::RATE_LIMITING, &[PROTOCOL]),
            no_client: NoClient::ALL.map(no_client),
            received: metrics.counter(&names::RECEIVED_BYTES, &[PROTOCOL, BOTH_FAMILIES]),
            sent: metrics.counter(&names::SENT_BYTES, &[PROTOCOL, BOTH_FAMILIES]),
            clients: None,
            durations: SampledHistogram::new(metrics.histogram(&names::REQUEST_DURATION, &[PROTOCOL])),
        }
    }

    /// Counts announces by the program of the client as well, or not.
    #[must_use]
    pub fn counting_clients(self, metrics: &CoreMetrics, counts_clients: bool) -> Self {
        let clients = counts_clients.then(|| ClientCounters::new(metrics, PROTOCOL));
        Self { clients, ..self }
    }

    /// Counts the program of a client that announces.
    pub(crate) fn client(&self, peer_id: &PeerId) {
        if let Some(clients) = &self.clients {
            clients.add(peer_id);
        }
    }

    pub(crate) fn bytes(&self, received: usize, sent: usize) {
        self.received.add(received as u64);
        self.sent.add(sent as u64);
    }

    pub(crate) fn request(&self, family: Family, action: Action) {
        self.requests[family.index()][action as usize].add(1);
    }

    pub(crate) fn response(&self, family: Family, action: Action) {
        self.responses[family.index()][action as usize].add(1);
    }

    /// Counts a request of a proxy that names no client, whatever becomes of it.
    pub(crate) fn no_client(&self, why: NoClient) {
        self.no_client[why as usize].add(1);
    }

    /// Counts a request to `/health`, which is always answered.
    pub(crate) fn health(&self) {
        self.health.iter().for_each(|counter| counter.add(1));
    }

    /// Counts a request that is refused: one that has been counted as an announce or scrape, or another one.
    pub(crate) fn refuse(&self, family: Option<Family>, reason: Reason, is_counted: bool) {
        if is_counted {
            self.refused.refuse(family, reason);
        } else {
            self.refused.refuse_other(family, reason);
        }
    }

    /// Requests of a kind so far.
    #[must_use]
    pub fn requests(&self, family: Family, action: Action) -> u64 {
        self.requests[family.index()][action as usize].get()
    }

    /// Replies of a kind so far, failures left out.
    #[must_use]
    pub fn responses(&self, family: Family, action: Action) -> u64 {
        self.responses[family.index()][action as usize].get()
    }

    /// Refusals for a reason so far.
    #[must_use]
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused.get(reason)
    }

    /// Refusals of requests of a family for a reason so far; `None` for those whose family is unknown.
    #[must_use]
    pub fn refused_of(&self, family: Option<Family>, reason: Reason) -> u64 {
        self.refused.of_family(family, reason)
    }
}
