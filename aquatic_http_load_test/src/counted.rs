//! What is counted.

use aquatic_load_engine::returned::Wrong;
use aquatic_load_engine::wire::Trouble;
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
        ForeignPeer = "peer is not in the torrent",
        RequesterReturned = "peer is the one who asked",
        RepeatedPeer = "peer is in the reply twice",
        TooManyPeers = "more peers than asked for",
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
        FullHandshakes = "full TLS handshakes",
        ResumedHandshakes = "resumed TLS handshakes",
        Closed = "connections the tracker closed between requests",
        ClosedEarly = "connections the tracker closed before a response",
        Refused = "connections refused",
        Reset = "connections reset",
        TimedOut = "connections given up as a response took too long",
        TlsFailed = "connections with a TLS failure",
        NoPort = "connections for which no port was free",
        Failed = "connections failed for other reasons",
        NotDue = "requests due at the end, never sent",
        PeersAnnounced = "peers announced",
        PeersLost = "peers given up",
        Held = "connections open at the end",
    }
}

impl From<Trouble> for Note {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused => Self::Refused,
            Trouble::Reset => Self::Reset,
            Trouble::TimedOut => Self::TimedOut,
            Trouble::Tls => Self::TlsFailed,
            Trouble::NoPort => Self::NoPort,
            Trouble::Other => Self::Failed,
        }
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
