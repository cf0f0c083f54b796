//! Counters of the load test.

use aquatic_load_engine::{counted, tally};

counted! {
    /// Kinds of messages. An offer or answer is served when it reaches the other peer.
    pub(crate) enum Kind {
        Connect = "connect",
        Announce = "announce",
        Offer = "offer",
        Answer = "answer",
        Scrape = "scrape",
    }
}

counted! {
    /// Violations of the protocol.
    pub(crate) enum Violation {
        NotHttp = "invalid response to the upgrade",
        WrongAccept = "wrong Sec-WebSocket-Accept",
        Framing = "invalid WebSocket frame",
        Malformed = "invalid message",
        ForeignTorrent = "message about a torrent the peer has not joined",
        ForgedOffer = "offer that no peer made",
        OwnOffer = "offer relayed to its sender",
        RepeatedOffer = "offer relayed twice",
        SamePeer = "two offers of an announce relayed to one peer",
        ChangedOffer = "offer modified in transit",
        StrayAnswer = "answer relayed to the wrong peer",
        ForgedAnswer = "answer of a peer without the offer",
        RepeatedAnswer = "answer relayed twice",
        ChangedAnswer = "answer modified in transit",
        Unasked = "scrape reply without a request",
        ForeignScrape = "scrape reply contains a torrent not requested",
    }
}

counted! {
    /// Events that are no violations.
    pub(crate) enum Note {
        Opened = "connections opened",
        NotUpgraded = "upgrades refused",
        Closed = "connections closed by the tracker",
        GivenUp = "connections abandoned after repeated failures",
        Pings = "pings received",
        AnswerReplies = "replies to answers",
        AnswerErrors = "answers refused",
        Beyond = "offers without a receiver in the torrent",
        Unchecked = "relays too late to be verified",
        NotDue = "overdue requests never sent",
        Left = "clients that came and went",
        Held = "connections open at the end",
    }
}

pub(crate) type Tally = tally::Tally<Kind, Violation, Note>;
