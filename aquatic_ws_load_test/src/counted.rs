//! What is counted.

use aquatic_load_engine::wire::{Handshake, Trouble};
use aquatic_load_engine::{counted, tally};

counted! {
    /// What is sent and has to come to something. An offer or answer is served when it reaches the other peer.
    pub(crate) enum Kind {
        Connect = "connect",
        Announce = "announce",
        Offer = "offer",
        Answer = "answer",
        Scrape = "scrape",
    }
}

counted! {
    /// What no tracker may do.
    pub(crate) enum Violation {
        NotHttp = "response to the upgrade is not one",
        WrongAccept = "upgrade accepted with the wrong key",
        Framing = "not a frame that a server may send",
        Malformed = "not a message of a tracker",
        ForeignTorrent = "message about a torrent the peer is not in",
        ForgedOffer = "offer that nobody made",
        OwnOffer = "offer came back to its sender",
        RepeatedOffer = "offer relayed twice",
        SamePeer = "two offers of an announce relayed to one peer",
        ChangedOffer = "offer changed on the way",
        StrayAnswer = "answer relayed to the wrong peer",
        ForgedAnswer = "answer of someone who did not get the offer",
        RepeatedAnswer = "answer relayed twice",
        ChangedAnswer = "answer changed on the way",
        Unasked = "scrape reply without a scrape",
        ForeignScrape = "scrape reply names a torrent not asked for",
    }
}

counted! {
    /// Facts worth knowing that are no wrong answers.
    pub(crate) enum Note {
        Opened = "connections opened",
        Secured(Handshake),
        NotUpgraded = "upgrades refused",
        Closed = "connections the tracker closed",
        Failed(Trouble { TimedOut = "connections given up as a reply took too long" }),
        GivenUp = "places without a connection after several tries",
        Pings = "pings of the tracker",
        AnswerReplies = "replies to answers",
        AnswerErrors = "answers refused",
        Beyond = "offers for which the torrent has no further peer",
        Unchecked = "relays that came too late to be checked",
        NotDue = "requests due at the end, never sent",
        Left = "clients that came and went",
        Held = "connections open at the end",
    }
}

pub(crate) type Tally = tally::Tally<Kind, Violation, Note>;
