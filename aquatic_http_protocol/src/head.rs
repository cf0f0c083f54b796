//! Decoding of request heads: request line and header fields (RFC 9112).

use httparse::EMPTY_HEADER;
use memchr::{memchr, memchr2};

use crate::framing::{Framing, Method, Persistence, Version};
use crate::query::split_at_byte;
use crate::refusal::{HttpFault, Refusal, Refused};
use crate::wire::Parsed;

/// Default of the maximum length of a head in bytes. Scrapes are the longest requests: this is enough for
/// about 100 torrents with every byte percent-encoded.
pub const DEFAULT_MAX_HEAD_LENGTH: usize = 8192;

/// Maximum number of header fields in a request.
pub const MAX_HEADERS: usize = 64;

/// Number of header fields that is enough for nearly all requests. Memory for that many is cheaper to prepare
/// than for [`MAX_HEADERS`].
const USUAL_HEADERS: usize = 12;

/// Maximum length of a method in bytes, longer than any method in use.
const MAX_METHOD_LENGTH: usize = 24;

/// Head of a request without a body, as it lies in the receive buffer.
///
/// Which paths exist is up to the server; [`TrackerRoute::classify`](crate::TrackerRoute::classify) knows
/// those of a tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Method of the request.
    pub method: Method,
    /// Version of HTTP that the client speaks.
    pub version: Version,
    /// Target up to the first question mark, without scheme and host, as it was sent.
    pub path: &'a [u8],
    /// Target behind the first question mark, as it was sent.
    pub query: &'a [u8],
    /// Header fields.
    pub headers: Headers<'a>,
    /// Framing of the response: whether the connection persists, and whether the body is sent.
    pub framing: Framing,
    /// Protocols to which the client wants to upgrade the connection: the `Upgrade` field if `Connection`
    /// lists it, of several ones the last that lists WebSocket, or the first. HTTP/1.0 knows no upgrade.
    pub upgrade: Option<&'a [u8]>,
    /// Length of the head in the buffer in bytes, empty lines in front of it included. The next request
    /// starts there.
    pub length: usize,
}

impl<'a> Head<'a> {
    /// Parses the head at the front of a buffer. It has at most `max_length` bytes.
    ///
    /// Tolerated are empty lines in front, lines that end with a mere line feed, targets with scheme and
    /// host, raw spaces and non-ASCII bytes in targets, and a missing `Host`. Refused, with the connection to
    /// be closed, are methods other than GET and HEAD, control characters in the target, and requests with a
    /// body, so that no body is ever parsed as a request.
    #[must_use]
    pub fn parse(buffer: &'a [u8], max_length: usize) -> Parsed<Self, Refused> {
        let window = buffer.get(..max_length).unwrap_or(buffer);
        match read(window) {
            Ok(Some(head)) => Parsed::Complete(head),
            Ok(None) if window.len() < max_length => Parsed::NeedMore,
            Ok(None) => Parsed::Refused(refused(too_long(window))),
            Err(fault) => Parsed::Refused(refused(fault)),
        }
    }

    /// Whether the connection persists after the response.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        !self.framing.closes()
    }

    /// Whether the client wants to upgrade the connection to WebSocket, in whichever version of HTTP.
    #[must_use]
    pub fn upgrades_to_websocket(&self) -> bool {
        self.method == Method::Get && self.upgrade.is_some_and(|protocols| lists(protocols, b"websocket"))
    }

    /// The refusal of this request; the connection persists if the client wants it.
    #[must_use]
    pub fn refuse(&self, refusal: Refusal) -> Refused {
        Refused { refusal, framing: self.framing, length: self.length }
    }
}

/// A refusal after which nothing in the buffer can be trusted to be the start of a request.
fn refused(fault: HttpFault) -> Refused {
    Refused { refusal: Refusal::Http(fault), framing: Framing::new(Persistence::Close), length: 0 }
}

/// Fault of a head that does not end within the maximum length: the request line is too long if it takes more
/// than half of that, otherwise the header fields are. Transmission halves its scrapes when it learns that
/// the target is too long.
fn too_long(window: &[u8]) -> HttpFault {
    let start = skip_empty_lines(window).ok().flatten().unwrap_or_default();
    let line_length = memchr(b'\n', start).unwrap_or(start.len());
    if line_length > window.len() / 2 { HttpFault::UriTooLong } else { HttpFault::HeadTooLong }
}

fn read(window: &[u8]) -> Result<Option<Head<'_>>, HttpFault> {
    let Some(start) = skip_empty_lines(window)? else { return Ok(None) };
    check_method(start)?;
    let Some((line, rest)) = split_line(start)? else { return Ok(None) };
    let line = RequestLine::parse(line)?;
    let Some((fields, headers, rest)) = read_headers(rest)? else { return Ok(None) };
    if fields.body {
        return Err(HttpFault::Body);
    }
    let persistence = match (line.version, fields.close, fields.keep_alive) {
        (_, true, _) | (Version::Http10, false, false) => Persistence::Close,
        (Version::Http11, false, _) => Persistence::Default,
        (Version::Http10, false, true) => Persistence::KeepAlive,
    };
    let (path, query) = split_at_byte(line.target, memchr(b'?', line.target));
    Ok(Some(Head {
        method: line.method,
        version: line.version,
        path,
        query,
        headers,
        framing: Framing { body: line.method != Method::Head, ..Framing::new(persistence) },
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

/// Detects what cannot become a request, such as a TLS handshake, before a line of it is complete.
fn check_method(start: &[u8]) -> Result<(), HttpFault> {
    let mut first = start.iter().take(MAX_METHOD_LENGTH + 1).take_while(|&&byte| byte != b' ');
    let length = first.clone().count();
    let is_token = first.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_token && (1..=MAX_METHOD_LENGTH).contains(&length) { Ok(()) } else { Err(HttpFault::Malformed) }
}

type LineAndRest<'a> = (&'a [u8], &'a [u8]);

/// The first line without its end, and the bytes behind it. A carriage return anywhere else is refused, since
/// servers disagree about what it means.
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
    version: Version,
}

impl<'a> RequestLine<'a> {
    /// The target is everything between the first space and the last: clients that do not encode bytes do not
    /// encode spaces either.
    fn parse(line: &'a [u8]) -> Result<Self, HttpFault> {
        let line = line.trim_ascii_end();
        let (method, line) = split_at_byte(line, memchr(b' ', line));
        let (target, version) = split_at_byte(line, memchr::memrchr(b' ', line));
        let version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            // Later minor versions must understand what HTTP/1.1 says.
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Version::Http11,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(HttpFault::Version),
            _ => return Err(HttpFault::Malformed),
        };
        if has_control(target) {
            return Err(HttpFault::Target);
        }
        let method = match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            _ => return Err(HttpFault::Method),
        };
        Ok(Self { method, target: without_origin(target.trim_ascii_start()), version })
    }
}

/// Whether a control character is among the bytes. Eight at a time, as compilers make a loop over single
/// bytes faster or slower by what surrounds it.
fn has_control(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks();
    let found = words.iter().fold(0, |found, &word| found | control_in(u64::from_ne_bytes(word)));
    found != 0 || rest.iter().any(u8::is_ascii_control)
}

/// Not zero if a control character is among the bytes of a word. What it sets beside the highest bit of such
/// a byte is above it, so it sets nothing without one.
fn control_in(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let without_delete = word ^ (ONES * 0x7f);
    let delete = without_delete.wrapping_sub(ONES) & !without_delete;
    (below_space | delete) & (ONES * 0x80)
}

/// Removes scheme and host, which clients of proxies send.
fn without_origin(target: &[u8]) -> &[u8] {
    if target.first() == Some(&b'/') {
        return target;
    }
    for scheme in [b"http://".as_slice(), b"https://"] {
        if let Some((start, rest)) = target.split_at_checked(scheme.len())
            && start.eq_ignore_ascii_case(scheme)
        {
            let path = rest.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            return match rest.get(path..) {
                None | Some([]) => b"/",
                Some(path) => path,
            };
        }
    }
    target
}

/// What the header fields say about connection and body.
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
    let mut buffer = [EMPTY_HEADER; LIMIT];
    let (length, headers) = match httparse::parse_headers(bytes, &mut buffer) {
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
            // Of several fields, which are one list, the one that matters counts.
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                let is_meant = self.upgrade.is_none() || lists(value, b"websocket");
                self.upgrade = if is_meant { Some(value) } else { self.upgrade };
            }
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

/// Whether a comma-separated list has this word, in any case.
pub(crate) fn lists(value: &[u8], word: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|listed| listed.trim_ascii().eq_ignore_ascii_case(word))
}

/// Header fields of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Lines that have been parsed once already, so that each but the last has a name and a value.
    block: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Pairs of name and value of all fields, in their order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        self.block.split(|&byte| byte == b'\n').filter_map(|line| {
            let (name, value) = line.split_at_checked(memchr(b':', line)?)?;
            Some((name, value.get(1..)?.trim_ascii()))
        })
    }

    /// Values of all fields with this name, which is compared in any case, in their order.
    pub fn all<'n>(&self, name: &'n str) -> impl DoubleEndedIterator<Item = &'a [u8]> + Clone + use<'a, 'n> {
        self.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Value of the first field with this name, which is compared in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_found_at_every_place_and_beside_every_byte() {
        for byte in 0..=u8::MAX {
            for length in 1..=24 {
                for at in 0..length {
                    for beside in [b' ', b'~', 0x80, 0xff] {
                        let mut bytes = vec![beside; length];
                        bytes.splice(at..=at, [byte]);
                        assert_eq!(has_control(&bytes), byte.is_ascii_control(), "{bytes:?}");
                    }
                }
            }
        }
        assert!(!has_control(b""));
        for pair in 0..=u16::MAX {
            let [one, two] = pair.to_ne_bytes();
            let bytes = [b' ', 0xff, one, two, 0xa0, 0x9f, 0x80, b'~'];
            assert_eq!(has_control(&bytes), bytes.iter().any(u8::is_ascii_control), "{bytes:?}");
        }
    }
}
