//! Reasons for which requests are refused.

use std::fmt::{self, Write};

use crate::framing::Framing;

/// Fault of a request to a tracker. The client gets it as a bencoded failure reason with status 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The announce has no info hash.
    InfoHashMissing,
    /// An info hash of the announce or scrape has this many bytes instead of 20.
    InfoHashLength(usize),
    /// The announce has no port.
    PortMissing,
    /// The port of the announce is no number from 1 to 65535.
    PortInvalid,
    /// The client asks for peers as a list of dictionaries (`compact=0`).
    NotCompact,
    /// The scrape has no info hash, which elsewhere asks for all torrents.
    FullScrape,
    /// The request has an info hash, but its path is neither that of announces nor that of scrapes.
    WrongAnnounceUrl,
}

impl Fault {
    /// Failure reason for the client.
    #[must_use]
    pub fn reason(self) -> FailureReason {
        let mut reason = FailureReason { bytes: [0; FailureReason::CAPACITY], length: 0 };
        let written = match self {
            Self::InfoHashMissing => reason.write_str("info_hash is missing"),
            Self::InfoHashLength(got) => write!(reason, "info_hash must be 20 bytes, got {got}"),
            Self::PortMissing => reason.write_str("port is missing"),
            Self::PortInvalid => reason.write_str("port must be a number from 1 to 65535"),
            Self::NotCompact => {
                reason.write_str("compact=0 is not supported, peers come in compact form only")
            }
            Self::FullScrape => reason.write_str("full scrapes are not supported"),
            Self::WrongAnnounceUrl => reason.write_str("wrong announce URL: its path must end in /announce"),
        };
        debug_assert!(written.is_ok(), "the capacity is enough for all reasons");
        reason
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason().as_str())
    }
}

impl std::error::Error for Fault {}

/// Short text that is stored inline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FailureReason {
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl FailureReason {
    const CAPACITY: usize = 64;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only whole texts are ever added, so this is always UTF-8.
        self.bytes.get(..self.length).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl Write for FailureReason {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl fmt::Debug for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Fault of a request to an HTTP server. The client gets a response in plain text with a status that says the
/// same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// The bytes are not HTTP.
    Malformed,
    /// The target contains a control character, such as NUL.
    Target,
    /// The version of HTTP is not 1.x.
    Version,
    /// The head is longer than the maximum, and its request line takes more than half of that.
    UriTooLong,
    /// The head is longer than the maximum because of its header fields.
    HeadTooLong,
    /// There are more than [`MAX_HEADERS`](crate::MAX_HEADERS) header fields.
    TooManyHeaders,
    /// The request has a body, or header fields that announce one.
    Body,
    /// The target names no resource.
    NotFound,
    /// The method is neither GET nor HEAD.
    Method,
}

/// Why a request is refused, by the form of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fault of a request to a tracker, answered with status 200 and a failure reason: BitTorrent clients
    /// show their users no other text.
    Tracker(Fault),
    /// Any other fault, answered with its status and plain text.
    Http(HttpFault),
}

/// A refused request with what its response depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why the request is refused.
    pub refusal: Refusal,
    /// Framing of the response, and whether the connection persists.
    pub framing: Framing,
    /// Length of the request in the receive buffer, in bytes. 0 if the bytes behind it cannot be trusted to
    /// be a request; the connection closes then.
    pub length: usize,
}
