//! Counters of the load test.

use aquatic_load_engine::{counted, tally};

counted! {
    /// Kinds of requests.
    pub(crate) enum Kind {
        Connect = "connect",
        Announce = "announce",
        Scrape = "scrape",
    }
}

counted! {
    /// Violations of the protocol.
    pub(crate) enum Violation {
        Malformed = "reply is malformed",
        WrongKind = "reply does not match the request",
        WrongNumberOfCounts = "scrape reply has a wrong number of torrents",
    }
}

counted! {
    /// Events that are no violations.
    pub(crate) enum Note {
        PeersReturned = "peers in announce replies",
        RepliesChecked = "announce replies with peers checked",
        Unexpected = "late or duplicate replies",
        NotSent = "packets not accepted by the kernel",
        Refused = "connection refused errors",
        NotDue = "overdue requests never sent",
        NotConnected = "sockets without a connection id",
        PeersAnnounced = "peers announced",
        PeersLost = "peers not announced after all attempts",
    }
}

pub(crate) type Tally = tally::Tally<Kind, Violation, Note>;
