//! Why a request is not served, and what the client gets to read about it.

use std::fmt::{self, Write};

use crate::framing::Framing;

/// What is wrong with a request that reached the tracker. The client reads it in the dictionary it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The announce names no torrent.
    InfoHashMissing,
    /// The announce or scrape names a torrent with this many bytes.
    InfoHashLength(usize),
    /// The announce does not tell where the client listens.
    PortMissing,
    /// The client says it listens at something that is no port, or at port 0.
    PortInvalid,
    /// The client wants its peers as a list of dictionaries.
    NotCompact,
    /// The scrape names no torrent, which elsewhere asks for all of them.
    FullScrape,
}

impl Fault {
    /// What to tell the client.
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

/// A short text that needs no allocation.
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

/// Why something is answered in plain text, with a status that says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// This is not HTTP.
    Malformed,
    /// A version of HTTP other than 1.x.
    Version,
    /// The head does not end within the limit.
    HeadTooLong,
    /// More than [`MAX_HEADERS`](crate::MAX_HEADERS) header fields.
    TooManyHeaders,
    /// The request has a body, or something that says so.
    Body,
    /// Nothing is there.
    NotFound,
    /// Something is there, but not for this method.
    Method,
}

/// Why a request is not served, by the form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A request to a tracker, answered with status 200 and a failure reason: clients show no other answer to the user.
    Tracker(Fault),
    /// Anything else.
    Http(HttpFault),
}

/// A refused request with what is needed to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// How to frame the answer, and whether the connection can go on.
    pub framing: Framing,
    /// How many bytes of the buffer the request takes. Without meaning, and 0, when what follows it cannot be trusted to
    /// be a request; the connection closes then.
    pub length: usize,
}
