//! What is counted on each core about requests. What is counted about connections belongs to `aquatic_runtime::tcp`.

use aquatic_common::Family;
use aquatic_common::config::Limit;
use aquatic_http_protocol::{Fault, HttpFault, Refusal};
use aquatic_runtime::metrics::{CoreMetrics, Counter, Label, names};
use aquatic_runtime::proxy::NoClient;

const PROTOCOL: Label = ("protocol", "http");

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

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It makes no sense to a tracker, or to an HTTP server.
    Bad(Refusal),
    /// The access list does not let the torrent in.
    AccessList,
    /// A trusted proxy did not say whom the request comes from.
    NoClient(NoClient),
    /// The core that owns the torrent could not be asked.
    Overflow,
    /// The core that owns the torrent did not answer in time.
    Timeout,
}

impl Why {
    const NAMES: [&'static str; 18] = [
        "info_hash_missing",
        "info_hash_length",
        "port_missing",
        "port_invalid",
        "not_compact",
        "full_scrape",
        "malformed",
        "version",
        "head_too_long",
        "too_many_headers",
        "body",
        "not_found",
        "method",
        "access_list",
        "client_missing",
        "client_malformed",
        "overflow",
        "timeout",
    ];

    /// Position among the names.
    fn index(self) -> usize {
        match self {
            Self::Bad(Refusal::Tracker(fault)) => match fault {
                Fault::InfoHashMissing => 0,
                Fault::InfoHashLength(_) => 1,
                Fault::PortMissing => 2,
                Fault::PortInvalid => 3,
                Fault::NotCompact => 4,
                Fault::ScrapeOfAll => 5,
            },
            Self::Bad(Refusal::Http(fault)) => match fault {
                HttpFault::Malformed => 6,
                HttpFault::Version => 7,
                HttpFault::HeadTooLong => 8,
                HttpFault::TooManyHeaders => 9,
                HttpFault::Body => 10,
                HttpFault::NotFound => 11,
                HttpFault::Method => 12,
            },
            Self::AccessList => 13,
            Self::NoClient(NoClient::Missing) => 14,
            Self::NoClient(NoClient::Malformed) => 15,
            Self::Overflow => 16,
            Self::Timeout => 17,
        }
    }

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// One core's counters.
#[derive(Debug)]
pub struct Counters {
    requests: [[Counter; 2]; 2],
    responses: [[Counter; 2]; 2],
    refused: [Counter; Why::NAMES.len()],
    pub(crate) health: Counter,
    pub(crate) forwarded: Counter,
    not_stored: [Counter; Limit::ALL.len()],
    no_client: [Counter; 2],
    received: Counter,
    sent: Counter,
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
        let refused = |reason| metrics.counter(&names::REFUSED, &[PROTOCOL, ("reason", reason)]);
        let not_stored =
            |limit: Limit| metrics.counter(&names::NOT_STORED, &[PROTOCOL, ("reason", limit.name())]);
        let no_client =
            |why: NoClient| metrics.counter(&names::CLIENTS_UNKNOWN, &[PROTOCOL, ("reason", why.name())]);
        Self {
            requests: by_family_and_action(&names::REQUESTS),
            responses: by_family_and_action(&names::RESPONSES),
            refused: Why::NAMES.map(refused),
            health: metrics.counter(&names::REQUESTS, &[PROTOCOL, ("action", "health")]),
            forwarded: metrics.counter(&names::FORWARDED, &[PROTOCOL]),
            not_stored: Limit::ALL.map(not_stored),
            no_client: [NoClient::Missing, NoClient::Malformed].map(no_client),
            received: metrics.counter(&names::RECEIVED_BYTES, &[PROTOCOL]),
            sent: metrics.counter(&names::SENT_BYTES, &[PROTOCOL]),
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.add(bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.add(bytes as u64);
    }

    pub(crate) fn request(&self, family: Family, action: Action) {
        self.requests[family.index()][action as usize].add(1);
    }

    pub(crate) fn response(&self, family: Family, action: Action) {
        self.responses[family.index()][action as usize].add(1);
    }

    /// Counts a request of a proxy that names no client, whatever becomes of it.
    pub(crate) fn no_client(&self, why: NoClient) {
        let [missing, malformed] = &self.no_client;
        match why {
            NoClient::Missing => missing.add(1),
            NoClient::Malformed => malformed.add(1),
        }
    }

    /// Counts an announce whose peer was not stored.
    pub(crate) fn not_stored(&self, limit: Limit) {
        self.not_stored[limit as usize].add(1);
    }

    pub(crate) fn refuse(&self, why: Why) {
        self.refused[why.index()].add(1);
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
    pub fn refused(&self, why: Why) -> u64 {
        self.refused[why.index()].get()
    }
}
