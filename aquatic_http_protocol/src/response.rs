//! Response encoding (BEP 3, 7, 23, 24, 31, 48).

use std::net::IpAddr;

use aquatic_common::{BufferTooSmall, InfoHash};

use crate::framing::{Framing, Persistence};
use crate::refusal::{HttpFault, Refusal, Refused};
use crate::wire::{Message, Sink, length, put};

/// Maximum length in bytes of a whole announce reply without its peers.
pub const ANNOUNCE_REPLY_OVERHEAD: usize = 345;

/// Status of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200
    Ok,
    /// 304
    NotModified,
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 414, with the reason phrase of RFC 2616, for which Transmission searches.
    UriTooLong,
    /// 426
    UpgradeRequired,
    /// 429
    TooManyRequests,
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
            Self::NotModified => "HTTP/1.1 304 Not Modified",
            Self::BadRequest => "HTTP/1.1 400 Bad Request",
            Self::Unauthorized => "HTTP/1.1 401 Unauthorized",
            Self::Forbidden => "HTTP/1.1 403 Forbidden",
            Self::NotFound => "HTTP/1.1 404 Not Found",
            Self::MethodNotAllowed => "HTTP/1.1 405 Method Not Allowed",
            Self::UriTooLong => "HTTP/1.1 414 Request-URI Too Long",
            Self::UpgradeRequired => "HTTP/1.1 426 Upgrade Required",
            Self::TooManyRequests => "HTTP/1.1 429 Too Many Requests",
            Self::HeadTooLarge => "HTTP/1.1 431 Request Header Fields Too Large",
            Self::Unavailable => "HTTP/1.1 503 Service Unavailable",
            Self::VersionNotSupported => "HTTP/1.1 505 HTTP Version Not Supported",
        }
    }
}

/// Name and value of a header field.
pub type HeaderField<'a> = (&'a str, &'a str);

/// Type of the bodies of replies. Clients ignore it; browsers show this one.
const REPLY_TYPE: &str = "text/plain";

/// A body with the head in front of it.
struct Framed<'a, B> {
    status: Status,
    content_type: &'a str,
    headers: &'a [HeaderField<'a>],
    framing: Framing,
    body: &'a B,
}

impl<'a, B> Framed<'a, B> {
    /// A reply of the tracker protocol.
    fn reply(framing: Framing, body: &'a B) -> Self {
        Self { status: Status::Ok, content_type: REPLY_TYPE, headers: &[], framing, body }
    }
}

impl<B: Message> Message for Framed<'_, B> {
    #[inline]
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(self.status.line().as_bytes());
        sink.bytes(b"\r\nContent-Type: ");
        sink.bytes(self.content_type.as_bytes());
        sink.bytes(b"\r\nContent-Length: ");
        sink.number(length(self.body) as u64);
        write_fields(self.headers, sink);
        write_end(self.framing, sink);
        if self.framing.body {
            self.body.write(sink);
        }
    }
}

#[inline]
fn write_fields(fields: &[HeaderField<'_>], sink: &mut impl Sink) {
    for (name, value) in fields {
        sink.bytes(b"\r\n");
        sink.bytes(name.as_bytes());
        sink.bytes(b": ");
        sink.bytes(value.as_bytes());
    }
}

/// Writes the header fields about framing and the end of the head.
#[inline]
fn write_end(framing: Framing, sink: &mut impl Sink) {
    if framing.no_store {
        sink.bytes(b"\r\nCache-Control: no-store");
    }
    match framing.persistence {
        Persistence::Default => sink.bytes(b"\r\n\r\n"),
        Persistence::KeepAlive => sink.bytes(b"\r\nConnection: keep-alive\r\n\r\n"),
        Persistence::Close => sink.bytes(b"\r\nConnection: close\r\n\r\n"),
    }
}

/// Head of a response whose body is sent by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// Status of the response.
    pub status: Status,
    /// Header fields, except those about framing.
    pub headers: &'a [HeaderField<'a>],
    /// Length of the body; `None` if it ends with the connection, or if there is none.
    pub content_length: Option<usize>,
}

impl ResponseHead<'_> {
    /// Writes the head to the front of a buffer and returns its length. A body of unknown length needs a
    /// framing that closes the connection.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, framing: Framing, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(&FramedHead { head: *self, framing }, buffer)
    }
}

struct FramedHead<'a> {
    head: ResponseHead<'a>,
    framing: Framing,
}

impl Message for FramedHead<'_> {
    fn write(&self, sink: &mut impl Sink) {
        let ResponseHead { status, headers, content_length } = self.head;
        sink.bytes(status.line().as_bytes());
        if let Some(length) = content_length {
            sink.bytes(b"\r\nContent-Length: ");
            sink.number(length as u64);
        }
        write_fields(headers, sink);
        write_end(self.framing, sink);
    }
}

/// Reply to an announce. Both lists of peers are always sent, even if empty: some clients require the one,
/// some the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceReply<'a> {
    /// Number of seeders.
    pub complete: u32,
    /// Number of completed downloads.
    pub downloaded: u32,
    /// Number of leechers.
    pub incomplete: u32,
    /// Interval until the next announce, in seconds.
    pub interval: u32,
    /// Minimum of that interval, in seconds.
    pub min_interval: u32,
    /// IP address of the client as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// IPv4 peers of the torrent in compact form, 6 bytes each (BEP 23).
    pub peers: &'a [u8],
    /// IPv6 peers of the torrent in compact form, 18 bytes each (BEP 7).
    pub peers6: &'a [u8],
}

impl AnnounceReply<'_> {
    /// Writes a whole response to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, framing: Framing, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(&Framed::reply(framing, self), buffer)
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

/// Counts of one torrent in a scrape reply (BEP 48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeFile {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Number of seeders.
    pub complete: u32,
    /// Number of completed downloads.
    pub downloaded: u32,
    /// Number of leechers.
    pub incomplete: u32,
}

/// Reply to a scrape (BEP 48).
#[derive(Debug, PartialEq, Eq)]
pub struct ScrapeReply<'a> {
    /// Counts of the torrents in any order. They are sorted in place, as bencode requires, and an info hash
    /// that occurs more than once is sent once.
    pub files: &'a mut [ScrapeFile],
    /// Minimum interval until the next scrape, in seconds.
    pub min_request_interval: Option<u32>,
}

impl ScrapeReply<'_> {
    /// Writes a whole response to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&mut self, framing: Framing, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.files.sort_unstable_by_key(|file| file.info_hash);
        put(&Framed::reply(framing, self), buffer)
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

/// When a client may retry after a failure (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After this many minutes.
    Minutes(u32),
    /// Never.
    Never,
}

/// Failure reason in reply to an announce or a scrape (BEP 3). Its status is 200: clients ignore the body of
/// a response with any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureReply<'a> {
    /// Text for the user of the client.
    pub reason: &'a str,
    /// Interval until the next announce, in seconds, which some clients observe even after a failure.
    pub interval: Option<u32>,
    /// Minimum of that interval, in seconds.
    pub min_interval: Option<u32>,
    /// When the client may retry.
    pub retry: Option<Retry>,
}

impl<'a> FailureReply<'a> {
    /// A failure that does not say when the client may retry.
    #[must_use]
    pub fn new(reason: &'a str) -> Self {
        Self { reason, interval: None, min_interval: None, retry: None }
    }

    /// Writes a whole response to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, framing: Framing, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(&Framed::reply(framing, self), buffer)
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

/// Response for clients other than BitTorrent clients, such as monitors and browsers: a body with a status, a
/// type and header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainReply<'a> {
    /// Status of the response.
    pub status: Status,
    /// `Content-Type` of the body.
    pub content_type: &'a str,
    /// Further header fields, such as `Allow`. Those about framing are added to them.
    pub headers: &'a [HeaderField<'a>],
    /// Body of the response.
    pub body: &'a [u8],
}

impl PlainReply<'static> {
    /// Response to a health check if nothing is wrong.
    pub const HEALTHY: Self = Self::text(Status::Ok, "ok\n");
}

impl<'a> PlainReply<'a> {
    /// A response with a text.
    #[must_use]
    pub const fn text(status: Status, text: &'a str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", headers: &[], body: text.as_bytes() }
    }

    /// The same response with these further header fields.
    #[must_use]
    pub const fn with_headers(self, headers: &'a [HeaderField<'a>]) -> Self {
        Self { headers, ..self }
    }

    /// Length of the whole response in bytes.
    #[must_use]
    pub fn length(&self, framing: Framing) -> usize {
        length(&self.framed(framing))
    }

    /// Writes a whole response to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, framing: Framing, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(&self.framed(framing), buffer)
    }

    fn framed(&self, framing: Framing) -> Framed<'_, &'a [u8]> {
        let Self { status, content_type, headers, ref body } = *self;
        Framed { status, content_type, headers, framing, body }
    }
}

impl Message for &[u8] {
    fn write(&self, sink: &mut impl Sink) {
        sink.bytes(self);
    }
}

impl HttpFault {
    /// Response to a request with this fault.
    #[must_use]
    pub const fn reply(self) -> PlainReply<'static> {
        match self {
            Self::Malformed => PlainReply::text(Status::BadRequest, "this is not an HTTP request\n"),
            Self::Target => PlainReply::text(Status::BadRequest, "the target contains a control character\n"),
            Self::Version => {
                PlainReply::text(Status::VersionNotSupported, "only HTTP/1.0 and HTTP/1.1 are supported\n")
            }
            Self::UriTooLong => PlainReply::text(
                Status::UriTooLong,
                "414 Request-URI Too Long: shorten it; a scrape can ask for fewer torrents at a time\n",
            ),
            Self::HeadTooLong => {
                PlainReply::text(Status::HeadTooLarge, "the head of the request is too long\n")
            }
            Self::TooManyHeaders => {
                PlainReply::text(Status::HeadTooLarge, "the request has more than 64 header fields\n")
            }
            Self::Body => PlainReply::text(Status::BadRequest, "requests with a body are not supported\n"),
            Self::NotFound => PlainReply::text(Status::NotFound, "not found; try /announce or /scrape\n"),
            Self::Method => PlainReply::text(Status::MethodNotAllowed, "only GET and HEAD are supported\n")
                .with_headers(&[("Allow", "GET, HEAD")]),
        }
    }
}

impl Refused {
    /// Writes the response to the front of a buffer and returns its length. A tracker that wants to add when
    /// to retry makes its own [`FailureReply`].
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
