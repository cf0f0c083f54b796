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
        ForeignPeer = "peer is not in the torrent",
        RequesterReturned = "peer is the one who asked",
        RepeatedPeer = "peer is in the reply twice",
        TooManyPeers = "more peers than asked for",
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

impl From<Wrong> for Violation {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Foreign => Self::ForeignPeer,
            Wrong::Requester => Self::RequesterReturned,
            Wrong::Repeated => Self::RepeatedPeer,
        }
    }
}

pub(crate) type Tally = tally::Tally<Kind, Violation, Note>;
