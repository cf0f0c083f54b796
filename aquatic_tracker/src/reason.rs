//! Why requests are not served: one list for all protocols, so that a reason has the same name in the metrics
//! of each.

use aquatic_common::Family;
use aquatic_metrics::{CoreMetrics, Counter, Label, Metric, names};

use crate::admission::NotAdmitted;
use crate::gather::RouteError;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a request was not served.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Value of the label `reason` in metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    // The tracker's own.
    /// The access list does not let the torrent in.
    AccessList = "access_list",
    /// Too much waits for the core that owns the torrent.
    Overflow = "overflow",
    /// The core that owns the torrent did not respond in time.
    Timeout = "timeout",
    /// More arrives than can be served, and the client's network sends much of it.
    Overload = "overload",
    /// The client, or the network around it, asks for more than a rate limit allows.
    RateLimit = "rate_limit",
    /// The client's network is on the block list.
    Blocked = "blocked",
    /// The breaker of the protocol and family is open.
    Breaker = "breaker",
    /// A trusted proxy has not named the client.
    ClientMissing = "client_missing",
    /// A trusted proxy has named the client in a form that cannot be read.
    ClientMalformed = "client_malformed",
    /// A trusted proxy has named an address that no peer can have.
    ClientUnusable = "client_unusable",
    /// An announce of port 0, at which no peer can be reached.
    PortZero = "port_zero",
    /// A scrape that names no torrent.
    FullScrape = "full_scrape",

    // UDP.
    /// Fewer bytes than a request's head.
    TooShort = "too_short",
    /// More bytes than any request has.
    TooLong = "too_long",
    /// A connect request without the magic number of the protocol.
    WrongMagic = "wrong_magic",
    /// Sent from port 0, to which nothing can be sent back.
    SourcePortZero = "source_port_zero",
    /// A connection id that is too old, made for another address, or invented.
    BadConnectionId = "bad_connection_id",
    /// An action that trackers do not know.
    UnknownAction = "unknown_action",
    /// An announce that ends early.
    ShortAnnounce = "short_announce",
    /// A scrape that ends within its first info hash.
    ShortScrape = "short_scrape",

    // HTTP.
    /// No info hash.
    InfoHashMissing = "info_hash_missing",
    /// An info hash of another length than 20 bytes.
    InfoHashLength = "info_hash_length",
    /// No port.
    PortMissing = "port_missing",
    /// A port that is no number from 1 to 65535.
    PortInvalid = "port_invalid",
    /// A request for replies in the form of dictionaries.
    NotCompact = "not_compact",
    /// No request of HTTP/1.
    Malformed = "malformed",
    /// A target with a control character.
    BadTarget = "bad_target",
    /// Another version of HTTP.
    Version = "version",
    /// A request line that is too long.
    UriTooLong = "uri_too_long",
    /// Headers that are too long.
    HeadTooLong = "head_too_long",
    /// Too many headers.
    TooManyHeaders = "too_many_headers",
    /// A request with a body.
    Body = "body",
    /// A path that is not served.
    NotFound = "not_found",
    /// An announce or scrape on a path that is not the announce URL's.
    WrongPath = "wrong_path",
    /// A method other than GET and HEAD.
    Method = "method",

    // WebTorrent.
    /// An upgrade to a WebSocket by a web page that may not use the tracker.
    Origin = "origin",
    /// A request that is no upgrade to a WebSocket.
    NoUpgrade = "no_upgrade",
    /// A message that is not UTF-8.
    NotUtf8 = "not_utf8",
    /// A message that is not a JSON object.
    NotJson = "not_json",
    /// A message whose arrays and objects are nested too deep.
    TooDeep = "too_deep",
    /// A message with a missing or unknown action.
    Action = "action",
    /// A message that lacks a member.
    MissingField = "missing_field",
    /// A message with a member of the wrong type.
    WrongType = "wrong_type",
    /// An info hash, peer id or offer id that cannot be valid.
    BadIdentifier = "bad_identifier",
    /// A session description that some clients cannot read.
    UnsafeToRelay = "unsafe_to_relay",
    /// An announce over a connection with the maximum number of peers.
    ConnectionPeers = "connection_peers",
    /// An announce over a connection with the maximum number of peers in the torrent.
    ConnectionTorrentPeers = "connection_torrent_peers",
    /// An announce over a connection with the maximum number of peer ids.
    ConnectionPeerIds = "connection_peer_ids",
}

impl From<NotAdmitted> for Reason {
    fn from(not_admitted: NotAdmitted) -> Self {
        match not_admitted {
            NotAdmitted::AccessList => Self::AccessList,
        }
    }
}

impl From<RouteError> for Reason {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::Overflow => Self::Overflow,
            RouteError::Timeout => Self::Timeout,
        }
    }
}

/// One core's counters for some reasons.
#[derive(Debug)]
pub struct ReasonCounters {
    counters: Vec<Option<Counter>>,
}

impl ReasonCounters {
    /// Counters that start at zero, for the reasons a protocol has.
    #[must_use]
    pub fn new(metrics: &CoreMetrics, metric: &'static Metric, labels: &[Label], reasons: &[Reason]) -> Self {
        let counter = |reason: &Reason| {
            let labels = [labels, &[("reason", reason.name())]].concat();
            reasons.contains(reason).then(|| metrics.counter(metric, &labels))
        };
        Self { counters: Reason::ALL.iter().map(counter).collect() }
    }

    /// Counts a request that was not served.
    #[inline]
    pub fn add(&self, reason: Reason) {
        let counter = self.counters.get(reason as usize).and_then(Option::as_ref);
        debug_assert!(counter.is_some(), "{} is not among the protocol's reasons", reason.name());
        if let Some(counter) = counter {
            counter.add(1);
        }
    }

    /// Requests not served for a reason so far.
    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.counters.get(reason as usize).and_then(Option::as_ref).map_or(0, Counter::get)
    }
}

/// Requests that are refused, by reason and by the family of the client if it is known.
#[derive(Debug)]
pub struct RefusalCounters {
    refused: [ReasonCounters; 3],
    /// Requests refused before their kind was known.
    other: [Counter; 3],
}

impl RefusalCounters {
    const FAMILIES: [&'static str; 3] = [Family::V4.name(), Family::V6.name(), names::BOTH_FAMILIES];

    /// Counters that start at zero, for the reasons that a protocol has.
    #[must_use]
    pub fn new(metrics: &CoreMetrics, protocol: Label, reasons: &[Reason]) -> Self {
        let labels = Self::FAMILIES.map(|family| [protocol, ("family", family)]);
        Self {
            refused: labels.map(|labels| ReasonCounters::new(metrics, &names::REFUSED, &labels, reasons)),
            other: labels.map(|[protocol, family]| {
                metrics.counter(&names::REQUESTS, &[protocol, family, ("action", OTHER)])
            }),
        }
    }

    /// Counts a request that has been counted by its kind.
    pub fn refuse(&self, family: Option<Family>, reason: Reason) {
        if let Some(counters) = self.refused.get(index_of(family)) {
            counters.add(reason);
        }
    }

    /// Counts a request that was refused before its kind was known.
    pub fn refuse_other(&self, family: Option<Family>, reason: Reason) {
        self.note_other(family);
        self.refuse(family, reason);
    }

    /// Counts a request that was refused or dropped before its kind was known, without the reason.
    pub fn note_other(&self, family: Option<Family>) {
        if let Some(counter) = self.other.get(index_of(family)) {
            counter.add(1);
        }
    }

    /// Requests refused for a reason so far.
    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.refused.iter().map(|counters| counters.get(reason)).sum()
    }

    /// Requests of a family refused for a reason so far; `None` for those whose family is unknown.
    #[must_use]
    pub fn of_family(&self, family: Option<Family>, reason: Reason) -> u64 {
        self.refused.get(index_of(family)).map_or(0, |counters| counters.get(reason))
    }
}

/// Value of the label `action` for requests that are refused or dropped before their kind is known.
pub const OTHER: &str = "other";

fn index_of(family: Option<Family>) -> usize {
    family.map_or(2, Family::index)
}

#[cfg(test)]
mod tests {
    use aquatic_metrics::Registry;

    use super::*;

    #[test]
    fn names_are_different_and_fit_for_a_label() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')),
            "{names:?}"
        );
        assert!(Reason::ALL.iter().enumerate().all(|(number, reason)| *reason as usize == number));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn reasons_are_counted_apart() {
        let metrics = Registry::default().core(0);
        let counters =
            ReasonCounters::new(&metrics, &names::REFUSED, &[], &[Reason::AccessList, Reason::Timeout]);
        counters.add(Reason::AccessList);
        counters.add(Reason::AccessList);
        counters.add(RouteError::Timeout.into());
        assert_eq!((counters.get(Reason::AccessList), counters.get(Reason::Timeout)), (2, 1));
        assert_eq!(counters.get(Reason::Method), 0);
    }
}
