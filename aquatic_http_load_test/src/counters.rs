//! Counters of the load test.

use aquatic_load_engine::{counted, tally};

counted! {
    /// Kinds of requests.
    pub(crate) enum Kind {
        Announce = "announce",
        Scrape = "scrape",
    }
}

counted! {
    /// Violations of the protocol.
    pub(crate) enum Violation {
        NotHttp = "response is not HTTP",
        Length = "response has no valid length",
        Chunked = "response is chunked",
        CutShort = "response is shorter than its Content-Length",
        Unasked = "bytes after the end of a response",
        Status = "status is not 200",
        Malformed = "body is not a tracker reply",
        NotCanonical = "bencode is not canonical",
        WrongKind = "reply does not match the request",
        ForeignTorrent = "scrape reply contains a torrent not requested",
    }
}

counted! {
    /// Events that are no violations.
    pub(crate) enum Note {
        PeersReturned = "peers in announce replies",
        RepliesChecked = "announce replies with peers checked",
        WithoutLength = "responses without Content-Length",
        Opened = "connections opened",
        Closed = "connections closed by the tracker between requests",
        ClosedEarly = "connections closed by the tracker before a response",
        NotDue = "overdue requests never sent",
        PeersAnnounced = "peers announced",
        PeersLost = "peers not announced after all attempts",
        Held = "connections open at the end",
    }
}

pub(crate) type Tally = tally::Tally<Kind, Violation, Note>;
