//! Responses as clients read them.

use std::fmt;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use aquatic_common::InfoHash;
use httparse::{Header, ParserConfig};

use crate::bencode::{BencodeError, Reader};
use crate::head::MAX_HEADERS;
use crate::response::{Retry, ScrapeFile};
use crate::wire::Parsed;

const PEER_LENGTH: usize = 6;
const PEER6_LENGTH: usize = 18;

/// A response of any server, as it lies in the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The number that starts it.
    pub status: u16,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// What it brings.
    pub body: &'a [u8],
    /// How many bytes of the buffer it takes. The next response starts there.
    pub length: usize,
}

/// Why bytes are not a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// This is not HTTP.
    Malformed,
    /// The body has a length that is no number, or two.
    Length,
    /// The body comes in pieces. Trackers have no reason to send it so.
    Chunked,
    /// The connection ended before the response did.
    Truncated,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "response is not HTTP",
            Self::Length => "response has no valid length",
            Self::Chunked => "response is chunked",
            Self::Truncated => "response is truncated",
        })
    }
}

impl std::error::Error for ResponseError {}

impl<'a> Response<'a> {
    /// Takes a response to a GET from the front of a buffer. `ended` says that no more bytes will come, which is the
    /// end of a body whose length the server did not tell.
    #[must_use]
    pub fn parse(buffer: &'a [u8], ended: bool) -> Parsed<Self, ResponseError> {
        match Self::read(buffer, ended) {
            Ok(Some(answer)) => Parsed::Complete(answer),
            Ok(None) if ended => Parsed::Refused(ResponseError::Truncated),
            Ok(None) => Parsed::NeedMore,
            Err(error) => Parsed::Refused(error),
        }
    }

    fn read(buffer: &'a [u8], ended: bool) -> Result<Option<Self>, ResponseError> {
        let mut places = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed =
            ParserConfig::default().parse_response_with_uninit_headers(&mut response, buffer, &mut places);
        let head = match parsed.map_err(|_| ResponseError::Malformed)? {
            httparse::Status::Complete(head) => head,
            httparse::Status::Partial => return Ok(None),
        };
        let mut keep_alive = response.version == Some(1);
        let mut length = None;
        for header in &*response.headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = str::from_utf8(header.value).map_err(|_| ResponseError::Length)?;
                let told = text.parse::<usize>().map_err(|_| ResponseError::Length)?;
                if length.is_some_and(|length| length != told) {
                    return Err(ResponseError::Length);
                }
                length = Some(told);
            } else if header.name.eq_ignore_ascii_case("connection") {
                keep_alive = header.value.eq_ignore_ascii_case(b"keep-alive")
                    || (keep_alive && !header.value.eq_ignore_ascii_case(b"close"));
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(ResponseError::Chunked);
            }
        }
        let rest = buffer.get(head..).unwrap_or_default();
        let body = match length {
            Some(length) => rest.get(..length),
            None => ended.then_some(rest),
        };
        let status = response.code.ok_or(ResponseError::Malformed)?;
        let keep_alive = keep_alive && length.is_some();
        Ok(body.map(|body| Self { status, keep_alive, body, length: head + body.len() }))
    }
}

/// What the body of an answer brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Peers.
    Announce(AnnounceView<'a>),
    /// Counts.
    Scrape(ScrapeView<'a>),
    /// Bad news.
    Failure(FailureView<'a>),
}

/// Why a body is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// It is not bencode.
    Bencode(BencodeError),
    /// There is something behind it, other than the end of a line.
    Trailing,
    /// It has nothing by which replies are told apart.
    Unknown,
    /// A number is negative or too large.
    Number,
    /// The peers do not fill a whole number of places.
    PeersLength,
    /// An address that has neither 4 bytes nor 16.
    AddressLength,
    /// A torrent whose name does not have 20 bytes.
    InfoHashLength,
}

impl From<BencodeError> for ReplyError {
    fn from(error: BencodeError) -> Self {
        Self::Bencode(error)
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bencode(error) => return error.fmt(f),
            Self::Trailing => "reply goes on behind its end",
            Self::Unknown => "reply has neither interval nor files nor failure reason",
            Self::Number => "reply has a number that is out of range",
            Self::PeersLength => "peers of the reply are cut short",
            Self::AddressLength => "external ip of the reply is cut short",
            Self::InfoHashLength => "info hash in the reply does not have 20 bytes",
        })
    }
}

impl std::error::Error for ReplyError {}

impl<'a> Reply<'a> {
    /// Reads a whole body. Order of keys and unknown ones do not matter here; see
    /// [`is_canonical`](crate::is_canonical).
    ///
    /// # Errors
    /// When it is no reply of a tracker.
    pub fn parse(body: &'a [u8]) -> Result<Self, ReplyError> {
        let mut reader = Reader::new(body);
        let mut parts = Parts::default();
        reader.start_dictionary()?;
        while let Some(key) = reader.key()? {
            parts.read(key, &mut reader)?;
        }
        if !reader.rest().trim_ascii().is_empty() {
            return Err(ReplyError::Trailing);
        }
        parts.into_reply()
    }
}

/// All that any kind of reply can have.
#[derive(Default)]
struct Parts<'a> {
    failure: Option<&'a [u8]>,
    retry: Option<Retry>,
    files: Option<Files<'a>>,
    min_request_interval: Option<u32>,
    complete: Option<u32>,
    downloaded: Option<u32>,
    incomplete: Option<u32>,
    interval: Option<u32>,
    min_interval: Option<u32>,
    external_ip: Option<IpAddr>,
    peers: Option<&'a [u8]>,
    peers6: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn read(&mut self, key: &[u8], reader: &mut Reader<'a>) -> Result<(), ReplyError> {
        match key {
            b"complete" => self.complete = Some(number(reader)?),
            b"downloaded" => self.downloaded = Some(number(reader)?),
            b"incomplete" => self.incomplete = Some(number(reader)?),
            b"interval" => self.interval = Some(number(reader)?),
            b"min interval" => self.min_interval = Some(number(reader)?),
            b"external ip" => self.external_ip = Some(address(reader.string()?)?),
            b"peers" => self.peers = Some(places(reader.string()?, PEER_LENGTH)?),
            b"peers6" => self.peers6 = Some(places(reader.string()?, PEER6_LENGTH)?),
            b"failure reason" => self.failure = Some(reader.string()?),
            b"retry in" => self.retry = Some(retry(reader)?),
            b"files" => self.files = Some(Files::check(reader)?),
            b"flags" => self.flags(reader)?,
            _ => reader.skip()?,
        }
        Ok(())
    }

    fn flags(&mut self, reader: &mut Reader<'a>) -> Result<(), ReplyError> {
        reader.start_dictionary()?;
        while let Some(key) = reader.key()? {
            match key {
                b"min_request_interval" => self.min_request_interval = Some(number(reader)?),
                _ => reader.skip()?,
            }
        }
        Ok(())
    }

    fn into_reply(self) -> Result<Reply<'a>, ReplyError> {
        let Self { interval, min_interval, min_request_interval, .. } = self;
        if let Some(reason) = self.failure {
            return Ok(Reply::Failure(FailureView { reason, interval, min_interval, retry: self.retry }));
        }
        if let Some(files) = self.files {
            return Ok(Reply::Scrape(ScrapeView { files, min_request_interval }));
        }
        Ok(Reply::Announce(AnnounceView {
            complete: self.complete,
            downloaded: self.downloaded,
            incomplete: self.incomplete,
            interval: interval.ok_or(ReplyError::Unknown)?,
            min_interval,
            external_ip: self.external_ip,
            peers: self.peers,
            peers6: self.peers6,
        }))
    }
}

fn number(reader: &mut Reader<'_>) -> Result<u32, ReplyError> {
    u32::try_from(reader.integer()?).map_err(|_| ReplyError::Number)
}

fn address(octets: &[u8]) -> Result<IpAddr, ReplyError> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(octets.into());
    }
    <[u8; 16]>::try_from(octets).map(IpAddr::from).map_err(|_| ReplyError::AddressLength)
}

fn places(peers: &[u8], length: usize) -> Result<&[u8], ReplyError> {
    if peers.len().is_multiple_of(length) { Ok(peers) } else { Err(ReplyError::PeersLength) }
}

/// Some trackers send the number as text.
fn retry(reader: &mut Reader<'_>) -> Result<Retry, ReplyError> {
    if reader.peek()? == b'i' {
        return number(reader).map(Retry::Minutes);
    }
    match reader.string()? {
        b"never" => Ok(Retry::Never),
        text => {
            let minutes = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            minutes.map(Retry::Minutes).ok_or(ReplyError::Number)
        }
    }
}

/// An announce reply as a client reads it. Only the interval is there in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceView<'a> {
    /// Peers that have everything.
    pub complete: Option<u32>,
    /// How often a peer has come to have everything.
    pub downloaded: Option<u32>,
    /// Peers that do not have everything.
    pub incomplete: Option<u32>,
    /// Seconds until the next announce.
    pub interval: u32,
    /// Seconds that have to pass at least.
    pub min_interval: Option<u32>,
    /// Where the tracker saw the client.
    pub external_ip: Option<IpAddr>,
    /// Other peers of the torrent, a multiple of 6 bytes.
    pub peers: Option<&'a [u8]>,
    /// Other peers of the torrent, a multiple of 18 bytes.
    pub peers6: Option<&'a [u8]>,
}

impl<'a> AnnounceView<'a> {
    /// Where the peers listen that have IPv4 addresses.
    pub fn peers_v4(&self) -> impl ExactSizeIterator<Item = SocketAddrV4> + use<'a> {
        let (peers, _) = self.peers.unwrap_or_default().as_chunks::<PEER_LENGTH>();
        peers.iter().map(|&[a, b, c, d, high, low]| {
            SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))
        })
    }

    /// Where the peers listen that have IPv6 addresses.
    pub fn peers_v6(&self) -> impl ExactSizeIterator<Item = SocketAddrV6> + use<'a> {
        let (peers, _) = self.peers6.unwrap_or_default().as_chunks::<PEER6_LENGTH>();
        peers.iter().map(|&[ref octets @ .., high, low]| {
            SocketAddrV6::new(Ipv6Addr::from(*octets), u16::from_be_bytes([high, low]), 0, 0)
        })
    }
}

/// A failure as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureView<'a> {
    /// Whatever the tracker wrote; nothing says it is UTF-8.
    pub reason: &'a [u8],
    /// Seconds until the next announce.
    pub interval: Option<u32>,
    /// Seconds that have to pass at least.
    pub min_interval: Option<u32>,
    /// When to try again.
    pub retry: Option<Retry>,
}

/// A scrape reply as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeView<'a> {
    files: Files<'a>,
    /// Seconds that have to pass until the next scrape.
    pub min_request_interval: Option<u32>,
}

impl<'a> ScrapeView<'a> {
    /// The torrents in the order of the reply. Missing counts are 0.
    pub fn files(&self) -> impl Iterator<Item = ScrapeFile> + use<'a> {
        let mut reader = Reader::new(self.files.inside);
        // All of it has been read once already, so the first error is the end.
        std::iter::from_fn(move || Files::next(&mut reader).ok().flatten())
    }
}

/// The inside of the dictionary of torrents, up to and with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files<'a> {
    inside: &'a [u8],
}

impl<'a> Files<'a> {
    fn check(reader: &mut Reader<'a>) -> Result<Self, ReplyError> {
        reader.start_dictionary()?;
        let inside = reader.rest();
        while Self::next(reader)?.is_some() {}
        Ok(Self { inside })
    }

    fn next(reader: &mut Reader<'a>) -> Result<Option<ScrapeFile>, ReplyError> {
        let Some(name) = reader.key()? else { return Ok(None) };
        let info_hash = InfoHash(name.try_into().map_err(|_| ReplyError::InfoHashLength)?);
        let mut file = ScrapeFile { info_hash, complete: 0, downloaded: 0, incomplete: 0 };
        reader.start_dictionary()?;
        while let Some(key) = reader.key()? {
            match key {
                b"complete" => file.complete = number(reader)?,
                b"downloaded" => file.downloaded = number(reader)?,
                b"incomplete" => file.incomplete = number(reader)?,
                _ => reader.skip()?,
            }
        }
        Ok(Some(file))
    }
}
