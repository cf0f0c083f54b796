//! What is counted.

use aquatic_load_engine::returned::Wrong;
use aquatic_load_engine::{counted, tally};

counted! {
    /// The kinds of requests.
    pub(crate) enum Kind {
        Connect = "connect",
        Announce = "announce",
        Scrape = "scrape",
    }
}

counted! {
    /// Answers that no tracker may give.
    pub(crate) enum Violation {
        Malformed = "reply is malformed",
        WrongKind = "reply is of another kind than the request",
        Peers(Wrong),
        WrongNumberOfCounts = "scrape reply does not cover the request",
    }
}

counted! {
    /// Facts worth knowing that are no fault of the tracker.
    pub(crate) enum Note {
        PeersReturned = "peers in announce replies",
        RepliesChecked = "announce replies with peers checked",
        Unexpected = "late or repeated replies",
        NotSent = "packets the kernel did not take",
        Refused = "times nobody listened at the address",
        NotDue = "requests overdue at the end, never sent",
        NotConnected = "sockets that never got a connection id",
        PeersAnnounced = "peers announced",
        PeersLost = "peers given up",
    }
}

pub(crate) type Tally = tally::Tally<Kind, Violation, Note>;
