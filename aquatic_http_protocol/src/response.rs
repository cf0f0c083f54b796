//! What trackers send.

use std::net::IpAddr;

use aquatic_common::{BufferTooSmall, InfoHash};

use crate::framing::{Framing, Persistence};
use crate::refusal::{HttpFault, Refusal, Refused};
use crate::wire::{Message, Sink, length, put};

/// An announce reply takes at most this many bytes besides its peers.
pub const ANNOUNCE_REPLY_OVERHEAD: usize = 320;

/// The number and the words that start a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200
    Ok,
    /// 400
    BadRequest,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 408
    RequestTimeout,
    /// 431
    HeadTooLarge,
    /// 503
    Unavailable,
    /// 505
    VersionNotSupported,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "HTTP/1.1 200 OK",
            Self::BadRequest => "HTTP/1.1 400 Bad Request",
            Self::NotFound => "HTTP/1.1 404 Not Found",
            Self::MethodNotAllowed => "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD",
            Self::RequestTimeout => "HTTP/1.1 408 Request Timeout",
            Self::HeadTooLarge => "HTTP/1.1 431 Request Header Fields Too Large",
            Self::Unavailable => "HTTP/1.1 503 Service Unavailable",
            Self::VersionNotSupported => "HTTP/1.1 505 HTTP Version Not Supported",
        }
    }
}

/// A body with what has to stand before it.
struct Framed<'a, B> {
    status: Status,
    framing: Framing,
    body: &'a B,
}

impl<B: Message> Message for Framed<'_, B> {
    #[inline]
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(self.status.line().as_bytes());
        // Clients do not look at the type. This one shows in a browser, for whoever tries the address in one.
        sink.bytes(b"\r\nContent-Type: text/plain\r\nContent-Length: ");
        sink.number(length(self.body) as u64);
        match self.framing.persistence {
            Persistence::Open => sink.bytes(b"\r\n\r\n"),
            Persistence::KeepAlive => sink.bytes(b"\r\nConnection: keep-alive\r\n\r\n"),
            Persistence::Close => sink.bytes(b"\r\nConnection: close\r\n\r\n"),
        }
        if self.framing.body {
            self.body.write(sink);
        }
    }
}

/// Brings peers. Both lists are always sent, also when they are empty: some clients want one, some the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceReply<'a> {
    /// Peers that have everything.
    pub complete: u32,
    /// How often a peer has come to have everything.
    pub downloaded: u32,
    /// Peers that do not have everything.
    pub incomplete: u32,
    /// Seconds until the next announce.
    pub interval: u32,
    /// Seconds that have to pass at least.
    pub min_interval: u32,
    /// The address the announce came from (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// Other peers of the torrent, 6 bytes each, in wire form.
    pub peers: &'a [u8],
    /// Other peers of the torrent, 18 bytes each, in wire form.
    pub peers6: &'a [u8],
}

impl AnnounceReply<'_> {
    /// Writes a whole response to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, framing: Framing, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(&Framed { status: Status::Ok, framing, body: self }, buffer)
    }
}

impl Message for AnnounceReply<'_> {
    #[inline]
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(b"d8:completei");
        sink.number(self.complete.into());
        sink.bytes(b"e10:downloadedi");
        sink.number(self.downloaded.into());
        match self.external_ip {
            Some(IpAddr::V4(address)) => {
                sink.bytes(b"e11:external ip4:");
                sink.bytes(&address.octets());
                sink.bytes(b"10:incompletei");
            }
            Some(IpAddr::V6(address)) => {
                sink.bytes(b"e11:external ip16:");
                sink.bytes(&address.octets());
                sink.bytes(b"10:incompletei");
            }
            None => sink.bytes(b"e10:incompletei"),
        }
        sink.number(self.incomplete.into());
        sink.bytes(b"e8:intervali");
        sink.number(self.interval.into());
        sink.bytes(b"e12:min intervali");
        sink.number(self.min_interval.into());
        sink.bytes(b"e5:peers");
        sink.string(self.peers);
        sink.bytes(b"6:peers6");
        sink.string(self.peers6);
        sink.bytes(b"e");
    }
}

/// What a scrape reply says about one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeFile {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Peers that have everything.
    pub complete: u32,
    /// How often a peer has come to have everything.
    pub downloaded: u32,
    /// Peers that do not have everything.
    pub incomplete: u32,
}

/// Brings counts.
#[derive(Debug, PartialEq, Eq)]
pub struct ScrapeReply<'a> {
    /// The torrents in any order. They are sorted in place, as bencode has it, and of those that occur more than once
    /// only one is sent.
    pub files: &'a mut [ScrapeFile],
    /// Seconds that have to pass until the next scrape.
    pub min_request_interval: Option<u32>,
}

impl ScrapeReply<'_> {
    /// Writes a whole response to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&mut self, framing: Framing, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.files.sort_unstable_by_key(|file| file.info_hash);
        put(&Framed { status: Status::Ok, framing, body: self }, buffer)
    }
}

impl Message for ScrapeReply<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(b"d5:filesd");
        for same in self.files.chunk_by(|file, next| file.info_hash == next.info_hash) {
            let Some(file) = same.first() else { continue };
            sink.bytes(b"20:");
            sink.bytes(&file.info_hash.0);
            sink.bytes(b"d8:completei");
            sink.number(file.complete.into());
            sink.bytes(b"e10:downloadedi");
            sink.number(file.downloaded.into());
            sink.bytes(b"e10:incompletei");
            sink.number(file.incomplete.into());
            sink.bytes(b"ee");
        }
        sink.bytes(b"e");
        if let Some(seconds) = self.min_request_interval {
            sink.bytes(b"5:flagsd20:min_request_interval");
            sink.integer(seconds);
            sink.bytes(b"e");
        }
        sink.bytes(b"e");
    }
}

/// When a refused client may try again (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// In so many minutes.
    Minutes(u32),
    /// Never.
    Never,
}

/// Says in words why a request was not served. The status is 200 nevertheless: with any other, clients do not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureReply<'a> {
    /// For the eyes of the user.
    pub reason: &'a str,
    /// Seconds until the next announce. Some clients wait as long even after a failure.
    pub interval: Option<u32>,
    /// Seconds that have to pass at least.
    pub min_interval: Option<u32>,
    /// When to try again.
    pub retry: Option<Retry>,
}

impl<'a> FailureReply<'a> {
    /// A reply that does not say when to come back.
    #[must_use]
    pub fn new(reason: &'a str) -> Self {
        Self { reason, interval: None, min_interval: None, retry: None }
    }

    /// Writes a whole response to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, framing: Framing, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(&Framed { status: Status::Ok, framing, body: self }, buffer)
    }
}

impl Message for FailureReply<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(b"d14:failure reason");
        sink.string(self.reason.as_bytes());
        if let Some(seconds) = self.interval {
            sink.bytes(b"8:interval");
            sink.integer(seconds);
        }
        if let Some(seconds) = self.min_interval {
            sink.bytes(b"12:min interval");
            sink.integer(seconds);
        }
        match self.retry {
            Some(Retry::Minutes(minutes)) => {
                sink.bytes(b"8:retry in");
                sink.integer(minutes);
            }
            Some(Retry::Never) => sink.bytes(b"8:retry in5:never"),
            None => {}
        }
        sink.bytes(b"e");
    }
}

/// Says something to whoever is not a BitTorrent client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainReply<'a> {
    /// What kind of answer it is.
    pub status: Status,
    /// The body.
    pub text: &'a str,
}

impl PlainReply<'static> {
    /// The answer of a tracker that is well.
    pub const HEALTHY: Self = Self { status: Status::Ok, text: "ok\n" };
}

impl PlainReply<'_> {
    /// Writes a whole response to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, framing: Framing, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(&Framed { status: self.status, framing, body: self }, buffer)
    }
}

impl Message for PlainReply<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(self.text.as_bytes());
    }
}

impl HttpFault {
    /// The answer.
    #[must_use]
    pub fn reply(self) -> PlainReply<'static> {
        let (status, text) = match self {
            Self::Malformed => (Status::BadRequest, "this is not an HTTP request\n"),
            Self::Version => (Status::VersionNotSupported, "only HTTP/1.0 and HTTP/1.1 are supported\n"),
            Self::HeadTooLong => (Status::HeadTooLarge, "the head of the request is too long\n"),
            Self::TooManyHeaders => (Status::HeadTooLarge, "the request has more than 64 header fields\n"),
            Self::Body => (Status::BadRequest, "requests with a body are not supported\n"),
            Self::NotFound => (Status::NotFound, "not found; try /announce or /scrape\n"),
            Self::Method => (Status::MethodNotAllowed, "only GET and HEAD are supported\n"),
        };
        PlainReply { status, text }
    }
}

impl Refused {
    /// Writes the answer to the front of a buffer and returns its length. A tracker that wants to add when to come back
    /// makes its own [`FailureReply`].
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        match self.refusal {
            Refusal::Tracker(fault) => {
                FailureReply::new(fault.reason().as_str()).encode(self.framing, buffer)
            }
            Refusal::Http(fault) => fault.reply().encode(self.framing, buffer),
        }
    }
}
