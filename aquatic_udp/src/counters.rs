//! What is counted on each core about packets and requests.

use aquatic_common::{Family, PeerId};
use aquatic_metrics::{CoreMetrics, Counter, Gauge, Label, Metric, names};
use aquatic_tracker::{ClientCounters, OTHER, Reason, ReasonCounters};

const PROTOCOL: Label = ("protocol", "udp");

/// Kinds of requests that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Request for a connection id.
    Connect,
    /// Announce of a peer.
    Announce,
    /// Request for counts.
    Scrape,
}

impl Action {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Announce, Self::Scrape];

    /// Value of the label `action` in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Announce => "announce",
            Self::Scrape => "scrape",
        }
    }
}

/// Reasons for silence: nothing shows that the sender owns its address, or a reply could not arrive or would
/// be late.
pub(crate) const SILENT: [Reason; 11] = [
    Reason::TooShort,
    Reason::TooLong,
    Reason::WrongMagic,
    Reason::SourcePortZero,
    Reason::BadConnectionId,
    Reason::Overflow,
    Reason::Timeout,
    Reason::Overload,
    Reason::RateLimit,
    Reason::Blocked,
    Reason::Breaker,
];

/// Reasons that the client is told.
pub(crate) const TOLD: [Reason; 6] = [
    Reason::UnknownAction,
    Reason::ShortAnnounce,
    Reason::FullScrape,
    Reason::ShortScrape,
    Reason::PortZero,
    Reason::AccessList,
];

/// One core's counters, for each family.
#[derive(Debug)]
pub struct Counters {
    families: [FamilyCounters; 2],
    /// Announces and scrapes handed to another core.
    pub(crate) forwarded: Counter,
    /// Requests above a rate limit that were served all the same.
    pub(crate) above_in_dry_run: Counter,
    /// Whether sources are above their rate limit.
    pub(crate) rate_limiting: Gauge,
    clients: Option<ClientCounters>,
}

#[derive(Debug)]
struct FamilyCounters {
    requests: [Counter; Action::ALL.len()],
    other: Counter,
    responses: [Counter; Action::ALL.len()],
    errors: Counter,
    dropped: ReasonCounters,
    refused: ReasonCounters,
    received: Counter,
    sent: Counter,
}

impl FamilyCounters {
    fn new(metrics: &CoreMetrics, family: Family) -> Self {
        let labels = [PROTOCOL, ("family", family.name())];
        let with =
            |metric: &'static Metric, label: Label| metrics.counter(metric, &[labels[0], labels[1], label]);
        Self {
            requests: Action::ALL.map(|action| with(&names::REQUESTS, ("action", action.name()))),
            other: with(&names::REQUESTS, ("action", OTHER)),
            responses: Action::ALL.map(|action| with(&names::RESPONSES, ("action", action.name()))),
            errors: with(&names::RESPONSES, ("action", "error")),
            dropped: ReasonCounters::new(metrics, &names::DROPPED, &labels, &SILENT),
            refused: ReasonCounters::new(metrics, &names::REFUSED, &labels, &TOLD),
            received: metrics.counter(&names::RECEIVED_BYTES, &labels),
            sent: metrics.counter(&names::SENT_BYTES, &labels),
        }
    }
}

impl Counters {
    /// Counters that start at zero.
    #[must_use]
    pub fn new(metrics: &CoreMetrics) -> Self {
        Self {
            families: Family::ALL.map(|family| FamilyCounters::new(metrics, family)),
            forwarded: metrics.counter(&names::FORWARDED, &[PROTOCOL]),
            above_in_dry_run: metrics.counter(&names::RATE_LIMIT_DRY_RUN, &[PROTOCOL]),
            rate_limiting: metrics.gauge(&names::RATE_LIMITING, &[PROTOCOL]),
            clients: None,
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

    fn family(&self, family: Family) -> &FamilyCounters {
        &self.families[family.index()]
    }

    /// Counts the bytes of a received packet, without headers of IP and UDP.
    pub(crate) fn received(&self, family: Family, bytes: usize) {
        self.family(family).received.add(bytes as u64);
    }

    /// Counts a well-formed request with a valid connection id.
    pub(crate) fn request(&self, family: Family, action: Action) {
        self.family(family).requests[action as usize].add(1);
    }

    /// Counts a request that is refused or dropped before it has been counted by its action.
    pub(crate) fn other_request(&self, family: Family) {
        self.family(family).other.add(1);
    }

    /// Counts a reply and its bytes.
    pub(crate) fn response(&self, family: Family, action: Action, bytes: usize) {
        self.family(family).responses[action as usize].add(1);
        self.family(family).sent.add(bytes as u64);
    }

    /// Counts a request that gets no reply.
    pub(crate) fn drop_request(&self, family: Family, reason: Reason) {
        self.family(family).dropped.add(reason);
    }

    /// Counts a request that gets an error reply of this many bytes.
    pub(crate) fn refuse(&self, family: Family, reason: Reason, bytes: usize) {
        self.family(family).refused.add(reason);
        self.family(family).errors.add(1);
        self.family(family).sent.add(bytes as u64);
    }

    /// Requests of a kind so far.
    #[must_use]
    pub fn requests(&self, family: Family, action: Action) -> u64 {
        self.family(family).requests[action as usize].get()
    }

    /// Replies of a kind so far.
    #[must_use]
    pub fn responses(&self, family: Family, action: Action) -> u64 {
        self.family(family).responses[action as usize].get()
    }

    /// Error replies so far.
    #[must_use]
    pub fn errors(&self, family: Family) -> u64 {
        self.family(family).errors.get()
    }

    /// Requests not served for a reason so far, with or without an error reply.
    #[must_use]
    pub fn unserved(&self, family: Family, reason: Reason) -> u64 {
        self.family(family).dropped.get(reason) + self.family(family).refused.get(reason)
    }

    /// Bytes received and sent so far, without headers of IP and UDP.
    #[must_use]
    pub fn bytes(&self, family: Family) -> (u64, u64) {
        (self.family(family).received.get(), self.family(family).sent.get())
    }

    /// Requests handed to other cores so far.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.forwarded.get()
    }
}
