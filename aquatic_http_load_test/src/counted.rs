//! What is counted.

use aquatic_load_engine::returned::Wrong;
use aquatic_load_engine::wire::{Handshake, Trouble};
use aquatic_load_engine::{counted, tally};

counted! {
    /// The kinds of requests.
    pub(crate) enum Kind {
        Announce = "announce",
        Scrape = "scrape",
    }
}

counted! {
    /// Answers that no tracker may give.
    pub(crate) enum Violation {
        NotHttp = "response is not HTTP",
        Length = "response has no valid length",
        Chunked = "response is chunked",
        CutShort = "response is shorter than its Content-Length",
        Unasked = "bytes after the end of a response",
        Status = "status is not 200",
        Malformed = "body is not a reply of a tracker",
        NotCanonical = "bencode is not in its canonical form",
        WrongKind = "reply is of another kind than the request",
        Peers(Wrong),
        ForeignTorrent = "scrape reply names a torrent not asked for",
    }
}

counted! {
    /// Facts worth knowing that are no wrong answers.
    pub(crate) enum Note {
        PeersReturned = "peers in announce replies",
        RepliesChecked = "announce replies with peers checked",
        WithoutLength = "responses without Content-Length",
        Opened = "connections opened",
        Secured(Handshake),
        Closed = "connections the tracker closed between requests",
        ClosedEarly = "connections the tracker closed before a response",
        Failed(Trouble),
        NotDue = "requests due at the end, never sent",
        PeersAnnounced = "peers announced",
        PeersLost = "peers given up",
        Held = "connections open at the end",
    }
}

pub(crate) type Tally = tally::Tally<Kind, Violation, Note>;
