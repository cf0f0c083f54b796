//! Response decoding, for clients.

use std::fmt;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use aquatic_common::InfoHash;
use httparse::{Header, ParserConfig};

use crate::bencode::{BencodeError, Reader};
use crate::head::{self, MAX_HEADERS};
use crate::response::{Retry, ScrapeFile};
use crate::wire::Parsed;

const PEER_LENGTH: usize = 6;
const PEER6_LENGTH: usize = 18;

/// Response of an HTTP server, as it lies in the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// Status code.
    pub status: u16,
    /// Whether the connection persists, so that another request may follow.
    pub keep_alive: bool,
    /// Body of the response.
    pub body: &'a [u8],
    /// Length of the response in the buffer, in bytes. The next response starts there.
    pub length: usize,
}

/// Why bytes are not a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The bytes are not HTTP.
    Malformed,
    /// The length of the body is no number, or there are two.
    Length,
    /// The body is chunked. Trackers have no reason to send it so.
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
    /// Parses the response to a GET at the front of a buffer. `ended` says that no more bytes will come,
    /// which ends a body without a length.
    #[must_use]
    pub fn parse(buffer: &'a [u8], ended: bool) -> Parsed<Self, ResponseError> {
        match Self::read(buffer, ended) {
            Ok(Some(response)) => Parsed::Complete(response),
            Ok(None) if ended => Parsed::Refused(ResponseError::Truncated),
            Ok(None) => Parsed::NeedMore,
            Err(error) => Parsed::Refused(error),
        }
    }

    fn read(buffer: &'a [u8], ended: bool) -> Result<Option<Self>, ResponseError> {
        let mut begin = 0;
        loop {
            let rest = buffer.get(begin..).unwrap_or_default();
            let Some(response) = Self::read_next(rest, ended)? else { return Ok(None) };
            let end = begin + response.length;
            // Something to know in advance (RFC 9110, section 15.2). A change of protocol is a response.
            if matches!(response.status, 100 | 102..=199) {
                begin = end;
            } else {
                return Ok(Some(Self { length: end, ..response }));
            }
        }
    }

    fn read_next(buffer: &'a [u8], ended: bool) -> Result<Option<Self>, ResponseError> {
        let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed =
            ParserConfig::default().parse_response_with_uninit_headers(&mut response, buffer, &mut headers);
        let head = match parsed.map_err(|_| ResponseError::Malformed)? {
            httparse::Status::Complete(head) => head,
            httparse::Status::Partial => return Ok(None),
        };
        let mut keep_alive = response.version == Some(1);
        let mut length = None;
        for header in &*response.headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = str::from_utf8(header.value).map_err(|_| ResponseError::Length)?;
                let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let stated =
                    digits.and_then(|digits| digits.parse::<usize>().ok()).ok_or(ResponseError::Length)?;
                if length.is_some_and(|length| length != stated) {
                    return Err(ResponseError::Length);
                }
                length = Some(stated);
            } else if header.name.eq_ignore_ascii_case("connection") {
                let lists = |word| head::lists(header.value, word);
                keep_alive = !lists(b"close") && (keep_alive || lists(b"keep-alive"));
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(ResponseError::Chunked);
            }
        }
        let rest = buffer.get(head..).unwrap_or_default();
        let status = response.code.ok_or(ResponseError::Malformed)?;
        // There is no body then, whatever its length would be (RFC 9112, section 6.3).
        if matches!(status, 100..=199 | 204 | 304) {
            length = Some(0);
        }
        let body = match length {
            Some(length) => rest.get(..length),
            None => ended.then_some(rest),
        };
        let keep_alive = keep_alive && length.is_some();
        Ok(body.map(|body| Self { status, keep_alive, body, length: head + body.len() }))
    }
}

/// Reply of a tracker: the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Reply to an announce.
    Announce(AnnounceView<'a>),
    /// Reply to a scrape.
    Scrape(ScrapeView<'a>),
    /// Failure reason.
    Failure(FailureView<'a>),
}

/// Why a body is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// It is not bencode.
    Bencode(BencodeError),
    /// There are bytes behind it, other than the end of a line.
    Trailing,
    /// It has neither interval nor files nor failure reason.
    Unknown,
    /// A number is negative or too large.
    Number,
    /// The length of the peers is no multiple of the length of one.
    PeersLength,
    /// An address has neither 4 bytes nor 16.
    AddressLength,
    /// An info hash does not have 20 bytes.
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
            Self::Trailing => "reply has bytes behind its end",
            Self::Unknown => "reply has neither interval nor files nor failure reason",
            Self::Number => "reply has a number that is out of range",
            Self::PeersLength => "peers of the reply are truncated",
            Self::AddressLength => "external ip of the reply has neither 4 nor 16 bytes",
            Self::InfoHashLength => "info hash in the reply does not have 20 bytes",
        })
    }
}

impl std::error::Error for ReplyError {}

impl<'a> Reply<'a> {
    /// Parses a whole body. Keys in the wrong order and unknown keys are accepted; see
    /// [`is_canonical`](crate::is_canonical).
    ///
    /// # Errors
    /// When the body is no reply of a tracker.
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

/// Values of the keys that any kind of reply can have.
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
    listed: Option<ListedPeers<'a>>,
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
            b"peers" if reader.peek()? == b'l' => self.listed = Some(ListedPeers::check(reader)?),
            b"peers" => self.peers = Some(compact_peers(reader.string()?, PEER_LENGTH)?),
            b"peers6" => self.peers6 = Some(compact_peers(reader.string()?, PEER6_LENGTH)?),
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
            listed: self.listed,
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

fn compact_peers(peers: &[u8], length: usize) -> Result<&[u8], ReplyError> {
    if peers.len().is_multiple_of(length) { Ok(peers) } else { Err(ReplyError::PeersLength) }
}

/// Reads the value of `retry in`, which some trackers send as text.
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

/// Reply to an announce as a client reads it. Only the interval is always present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceView<'a> {
    /// Number of seeders.
    pub complete: Option<u32>,
    /// Number of completed downloads.
    pub downloaded: Option<u32>,
    /// Number of leechers.
    pub incomplete: Option<u32>,
    /// Interval until the next announce, in seconds.
    pub interval: u32,
    /// Minimum of that interval, in seconds.
    pub min_interval: Option<u32>,
    /// IP address of the client as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// IPv4 peers of the torrent in compact form, 6 bytes each (BEP 23).
    pub peers: Option<&'a [u8]>,
    /// IPv6 peers of the torrent in compact form, 18 bytes each (BEP 7).
    pub peers6: Option<&'a [u8]>,
    /// Peers as a list of dictionaries (BEP 3). Trackers may send it although clients ask for the compact
    /// form.
    pub listed: Option<ListedPeers<'a>>,
}

impl<'a> AnnounceView<'a> {
    /// Addresses of the IPv4 peers.
    pub fn peers_v4(&self) -> impl ExactSizeIterator<Item = SocketAddrV4> + use<'a> {
        let (peers, _) = self.peers.unwrap_or_default().as_chunks::<PEER_LENGTH>();
        peers.iter().map(|&[a, b, c, d, high, low]| {
            SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))
        })
    }

    /// Addresses of the IPv6 peers.
    pub fn peers_v6(&self) -> impl ExactSizeIterator<Item = SocketAddrV6> + use<'a> {
        let (peers, _) = self.peers6.unwrap_or_default().as_chunks::<PEER6_LENGTH>();
        peers.iter().map(|&[ref octets @ .., high, low]| {
            SocketAddrV6::new(Ipv6Addr::from(*octets), u16::from_be_bytes([high, low]), 0, 0)
        })
    }
}

/// Peers in a list of dictionaries, up to the end of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedPeers<'a> {
    inside: &'a [u8],
}

impl<'a> ListedPeers<'a> {
    /// Addresses of the peers. Those with a host name instead of an address are left out.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let mut reader = Reader::new(self.inside);
        // The list has been parsed once already, so the first error is the end.
        std::iter::from_fn(move || Self::next(&mut reader).ok().flatten()).flatten()
    }

    fn check(reader: &mut Reader<'a>) -> Result<Self, ReplyError> {
        reader.start_list()?;
        let inside = reader.rest();
        while Self::next(reader)?.is_some() {}
        Ok(Self { inside })
    }

    /// Reads the next peer, `None` at the end of the list. Inside is `None` for one without an address.
    fn next(reader: &mut Reader<'a>) -> Result<Option<Option<SocketAddr>>, ReplyError> {
        if reader.ends()? {
            return Ok(None);
        }
        let (mut ip, mut port) = (None, None);
        reader.start_dictionary()?;
        while let Some(key) = reader.key()? {
            match key {
                b"ip" => {
                    let text = str::from_utf8(reader.string()?).ok();
                    ip = text.and_then(|text| text.parse::<IpAddr>().ok());
                }
                b"port" => {
                    port = Some(u16::try_from(reader.integer()?).map_err(|_| ReplyError::Number)?);
                }
                _ => reader.skip()?,
            }
        }
        Ok(Some(ip.zip(port).map(SocketAddr::from)))
    }
}

/// Failure reason as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureView<'a> {
    /// Text of the tracker, not necessarily UTF-8.
    pub reason: &'a [u8],
    /// Interval until the next announce, in seconds.
    pub interval: Option<u32>,
    /// Minimum of that interval, in seconds.
    pub min_interval: Option<u32>,
    /// When the client may retry (BEP 31).
    pub retry: Option<Retry>,
}

/// Reply to a scrape as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeView<'a> {
    files: Files<'a>,
    /// Minimum interval until the next scrape, in seconds.
    pub min_request_interval: Option<u32>,
}

impl<'a> ScrapeView<'a> {
    /// Counts of the torrents in the order of the reply. Missing counts are 0.
    pub fn files(&self) -> impl Iterator<Item = ScrapeFile> + use<'a> {
        let mut reader = Reader::new(self.files.inside);
        // The dictionary has been parsed once already, so the first error is the end.
        std::iter::from_fn(move || Files::next(&mut reader).ok().flatten())
    }
}

/// Content of the dictionary of torrents, its end included.
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
