//! The head of an HTTP request: request line and header fields.

use httparse::EMPTY_HEADER;
use memchr::{memchr, memchr2};

use crate::framing::{Framing, Method, Persistence};
use crate::query::split_at_byte;
use crate::refusal::{HttpFault, Refusal, Refused};
use crate::wire::Parsed;

/// How many bytes a head may have, unless the tracker is told otherwise. Scrapes are the longest requests: this is
/// enough for some 100 torrents with every byte percent-coded.
pub const DEFAULT_MAX_HEAD_LENGTH: usize = 8192;

/// How many header fields a request may have.
pub const MAX_HEADERS: usize = 64;

/// Nearly all requests have fewer header fields than this, and room for them is cheaper to prepare than for
/// [`MAX_HEADERS`].
const USUAL_HEADERS: usize = 12;

/// Longer than any method in use.
const MAX_METHOD_LENGTH: usize = 24;

/// What a request is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// `/announce`, also with a slash or `.php` behind it, which old torrents carry.
    Announce,
    /// `/scrape`, with the same liberty: clients make this address from the other.
    Scrape,
    /// `/health`, where monitors ask how the tracker is.
    Health,
    /// Anything else.
    Other,
}

/// The head of a request without a body, as it lies in the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// What the client wants to be done.
    pub method: Method,
    /// The target up to the first question mark, without scheme and host.
    pub path: &'a [u8],
    /// What follows that question mark.
    pub query: &'a [u8],
    /// The header fields.
    pub headers: Headers<'a>,
    /// How to frame the answer.
    pub framing: Framing,
    /// What the client wants to go on with instead of HTTP, if it does.
    pub upgrade: Option<&'a [u8]>,
    /// How many bytes of the buffer it takes, empty lines before it included. The next request starts there.
    pub length: usize,
}

impl<'a> Head<'a> {
    /// Takes a head of at most this many bytes from the front of a buffer.
    ///
    /// Tolerated are empty lines in front, lines that end with a mere line feed, targets with scheme and host, raw bytes
    /// and spaces in targets, and a missing `Host`. Requests with a body are refused and their connection is to be
    /// closed, so that no body is ever taken for a request.
    #[must_use]
    pub fn parse(buffer: &'a [u8], max_length: usize) -> Parsed<Self, Refused> {
        let window = buffer.get(..max_length).unwrap_or(buffer);
        match read(window) {
            Ok(Some(head)) => Parsed::Complete(head),
            Ok(None) if window.len() < max_length => Parsed::NeedMore,
            Ok(None) => Parsed::Refused(refused(HttpFault::HeadTooLong)),
            Err(fault) => Parsed::Refused(refused(fault)),
        }
    }

    /// What the request is addressed to.
    #[must_use]
    pub fn path(&self) -> Path {
        // Some clients send a space before the question mark.
        let path = self.path.trim_ascii_end();
        let path = path.strip_suffix(b"/").or_else(|| path.strip_suffix(b".php")).unwrap_or(path);
        match path {
            b"/announce" => Path::Announce,
            b"/scrape" => Path::Scrape,
            b"/health" => Path::Health,
            _ => Path::Other,
        }
    }

    /// Whether the client wants to go on with WebSocket.
    #[must_use]
    pub fn upgrades_to_websocket(&self) -> bool {
        self.method == Method::Get && self.upgrade.is_some_and(|offers| lists(offers, b"websocket"))
    }
}

/// After any of these faults nothing in the buffer can be trusted to be the start of a request.
fn refused(fault: HttpFault) -> Refused {
    let framing = Framing { persistence: Persistence::Close, body: true };
    Refused { refusal: Refusal::Http(fault), framing, length: 0 }
}

fn read(window: &[u8]) -> Result<Option<Head<'_>>, HttpFault> {
    let Some(start) = skip_empty_lines(window)? else { return Ok(None) };
    check_method(start)?;
    let Some((line, rest)) = split_line(start)? else { return Ok(None) };
    let line = RequestLine::read(line)?;
    let Some((fields, headers, rest)) = read_headers(rest)? else { return Ok(None) };
    if fields.body {
        return Err(if line.method == Method::Other { HttpFault::Method } else { HttpFault::Body });
    }
    let persistence = match (line.persistent, fields.close, fields.keep_alive) {
        (_, true, _) | (false, false, false) => Persistence::Close,
        (true, false, _) => Persistence::Open,
        (false, false, true) => Persistence::KeepAlive,
    };
    let (path, query) = split_at_byte(line.target, memchr(b'?', line.target));
    Ok(Some(Head {
        method: line.method,
        path,
        query,
        headers,
        framing: Framing { persistence, body: line.method != Method::Head },
        upgrade: fields.upgrade.filter(|_| fields.upgrades),
        length: window.len() - rest.len(),
    }))
}

fn skip_empty_lines(mut bytes: &[u8]) -> Result<Option<&[u8]>, HttpFault> {
    loop {
        bytes = match bytes {
            [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Ok(None),
            [b'\r', ..] => return Err(HttpFault::Malformed),
            _ => return Ok(Some(bytes)),
        }
    }
}

/// Makes out what cannot become a request, such as a TLS handshake, before a line of it is complete.
fn check_method(start: &[u8]) -> Result<(), HttpFault> {
    let mut first = start.iter().take(MAX_METHOD_LENGTH + 1).take_while(|&&byte| byte != b' ');
    let length = first.clone().count();
    let is_token = first.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_token && (1..=MAX_METHOD_LENGTH).contains(&length) { Ok(()) } else { Err(HttpFault::Malformed) }
}

type LineAndRest<'a> = (&'a [u8], &'a [u8]);

/// The first line without its end, and what is behind it. A carriage return anywhere else is refused: what other
/// software makes of it varies.
fn split_line(bytes: &[u8]) -> Result<Option<LineAndRest<'_>>, HttpFault> {
    let Some((line, end)) = memchr2(b'\r', b'\n', bytes).and_then(|at| bytes.split_at_checked(at)) else {
        return Ok(None);
    };
    match end {
        [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] => Ok(Some((line, rest))),
        [b'\r'] => Ok(None),
        _ => Err(HttpFault::Malformed),
    }
}

struct RequestLine<'a> {
    method: Method,
    target: &'a [u8],
    /// Whether connections stay open by default.
    persistent: bool,
}

impl<'a> RequestLine<'a> {
    /// The target is all between the first space and the last: clients that do not code bytes do not code spaces.
    fn read(line: &'a [u8]) -> Result<Self, HttpFault> {
        let line = line.trim_ascii_end();
        let (method, line) = split_at_byte(line, memchr(b' ', line));
        let (target, version) = split_at_byte(line, memchr::memrchr(b' ', line));
        let persistent = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            // Later minor versions must understand what HTTP/1.1 says.
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => true,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(HttpFault::Version),
            _ => return Err(HttpFault::Malformed),
        };
        let method = match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            _ => Method::Other,
        };
        Ok(Self { method, target: without_origin(target.trim_ascii_start()), persistent })
    }
}

/// Leaves out scheme and host, which clients of proxies send.
fn without_origin(target: &[u8]) -> &[u8] {
    if target.first() == Some(&b'/') {
        return target;
    }
    for scheme in [b"http://".as_slice(), b"https://"] {
        if let Some((start, rest)) = target.split_at_checked(scheme.len())
            && start.eq_ignore_ascii_case(scheme)
        {
            let path = rest.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            return rest.get(path..).unwrap_or_default();
        }
    }
    target
}

/// What header fields say about the message itself.
#[derive(Default)]
struct Fields<'a> {
    close: bool,
    keep_alive: bool,
    upgrades: bool,
    upgrade: Option<&'a [u8]>,
    body: bool,
}

type ReadHeaders<'a> = (Fields<'a>, Headers<'a>, &'a [u8]);

fn read_headers(bytes: &[u8]) -> Result<Option<ReadHeaders<'_>>, HttpFault> {
    match read_headers_up_to::<USUAL_HEADERS>(bytes) {
        Err(HttpFault::TooManyHeaders) => read_headers_up_to::<MAX_HEADERS>(bytes),
        other => other,
    }
}

fn read_headers_up_to<const LIMIT: usize>(bytes: &[u8]) -> Result<Option<ReadHeaders<'_>>, HttpFault> {
    let mut places = [EMPTY_HEADER; LIMIT];
    let (length, headers) = match httparse::parse_headers(bytes, &mut places) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpFault::TooManyHeaders),
        Err(_) => return Err(HttpFault::Malformed),
    };
    let mut fields = Fields::default();
    for header in headers {
        fields.note(header.name.as_bytes(), header.value);
    }
    let (block, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
    Ok(Some((fields, Headers { block }, rest)))
}

impl<'a> Fields<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) {
        // Lengths first: most names are none of these.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = Some(value),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.close |= lists(value, b"close");
                self.keep_alive |= lists(value, b"keep-alive");
                self.upgrades |= lists(value, b"upgrade");
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.body |= value.is_empty() || value.iter().any(|&byte| byte != b'0');
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.body = true,
            _ => {}
        }
    }
}

/// Whether a list of words separated by commas has this one, in whatever case.
fn lists(value: &[u8], word: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|listed| listed.trim_ascii().eq_ignore_ascii_case(word))
}

/// The header fields of a request, to be looked through as often as needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Lines that have been read once already, so that each but the last has a name and a value.
    block: &'a [u8],
}

impl<'a> Headers<'a> {
    /// All fields as pairs of name and value, in their order or from the last to the first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        self.block.split(|&byte| byte == b'\n').filter_map(|line| {
            let (name, value) = line.split_at_checked(memchr(b':', line)?)?;
            Some((name, value.get(1..)?.trim_ascii()))
        })
    }

    /// The values of all fields with this name, in whatever case it was sent, in their order or from the last to the
    /// first.
    pub fn all<'n>(&self, name: &'n str) -> impl DoubleEndedIterator<Item = &'a [u8]> + Clone + use<'a, 'n> {
        self.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The value of the first field with this name, in whatever case it was sent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }
}
