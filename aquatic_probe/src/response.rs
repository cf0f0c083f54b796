//! Responses over HTTP/1, of bounded size: with a length, chunked, or until the connection ends; plain or
//! gzip. The codec of the tracker's own clients reads neither chunks nor gzip, since no tracker of ours sends
//! them; servers in front of others do.

use std::io::{self, Read};

use flate2::read::GzDecoder;

/// Maximum size of a response's head and body in bytes. newTrackon reads as much.
const MAX_BODY: usize = 1 << 20;
const MAX_HEAD: usize = 16 << 10;

/// Maximum number of header fields.
const MAX_HEADERS: usize = 64;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Whether the body was compressed.
    pub(crate) gzip: bool,
    /// Whether the connection can be used again.
    pub(crate) keep_alive: bool,
    /// Where the client is sent instead.
    pub(crate) location: Option<String>,
    /// Names and values of the header fields, as they were received.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, unpacked.
    pub body: Vec<u8>,
}

/// Whether the request was one whose reply has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyOf {
    /// It has one, if the head says so.
    Reply,
    /// It was a HEAD request.
    Nothing,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

struct Head {
    response: Response,
    framing: Framing,
    length: usize,
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Reads a response from a connection. Bytes behind it are lost: requests are not pipelined.
pub(crate) fn receive(stream: &mut impl Read, expected: BodyOf) -> io::Result<Response> {
    let mut buffer = Vec::new();
    let head = loop {
        if let Some(head) = head(&buffer)? {
            break head;
        }
        if buffer.len() > MAX_HEAD {
            return Err(bad("the head of the response is longer than 16 KiB"));
        }
        if fill(stream, &mut buffer)? == 0 {
            let text = if buffer.is_empty() {
                "the connection ended without a response"
            } else {
                "the response is truncated"
            };
            return Err(bad(text));
        }
    };
    if expected == BodyOf::Nothing {
        return Ok(head.response);
    }
    buffer.drain(..head.length);
    let body = match head.framing {
        Framing::Length(length) if length > MAX_BODY => return Err(too_long()),
        Framing::Length(length) => {
            while buffer.len() < length {
                if fill(stream, &mut buffer)? == 0 {
                    return Err(bad("the response is truncated"));
                }
            }
            buffer.truncate(length);
            buffer
        }
        Framing::UntilEnd => {
            while fill(stream, &mut buffer)? > 0 {
                if buffer.len() > MAX_BODY {
                    return Err(too_long());
                }
            }
            buffer
        }
        Framing::Chunked => chunks(stream, buffer)?,
    };
    let body = if head.response.gzip { unpack(&body)? } else { body };
    Ok(Response { body, ..head.response })
}

fn too_long() -> io::Error {
    bad("the response is longer than 1 MiB")
}

fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 4096];
    let length = stream.read(&mut chunk)?;
    buffer.extend_from_slice(chunk.get(..length).unwrap_or_default());
    Ok(length)
}

fn head(buffer: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(buffer).map_err(|_| bad("the response is not HTTP"))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let mut response = Response {
        status: parsed.code.unwrap_or(0),
        gzip: false,
        keep_alive: parsed.version == Some(1),
        location: None,
        headers: Vec::with_capacity(parsed.headers.len()),
        body: Vec::new(),
    };
    let mut framing = Framing::UntilEnd;
    for header in &*parsed.headers {
        response.headers.push((header.name.to_owned(), header.value.to_vec()));
        let text = String::from_utf8_lossy(header.value).trim().to_lowercase();
        match header.name.to_lowercase().as_str() {
            "content-length" if framing != Framing::Chunked => {
                let length = text.parse().map_err(|_| bad("the length of the response is no number"))?;
                framing = Framing::Length(length);
            }
            "transfer-encoding" => framing = Framing::Chunked,
            "content-encoding" => response.gzip = text == "gzip",
            "connection" => {
                response.keep_alive = text != "close" && (response.keep_alive || text == "keep-alive")
            }
            "location" => response.location = Some(String::from_utf8_lossy(header.value).into_owned()),
            _ => {}
        }
    }
    response.keep_alive &= framing != Framing::UntilEnd;
    Ok(Some(Head { response, framing, length }))
}

/// Reads the chunks of a body, of which `buffer` has what is received already.
fn chunks(stream: &mut impl Read, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(&buffer) {
            Ok(httparse::Status::Complete(chunk)) => chunk,
            Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD => {
                more(stream, &mut buffer)?;
                continue;
            }
            Ok(httparse::Status::Partial) | Err(_) => {
                return Err(bad("a chunk of the response is malformed"));
            }
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size == 0 {
            return Ok(body);
        }
        if size > MAX_BODY || body.len() + size > MAX_BODY {
            return Err(too_long());
        }
        while buffer.len() < start + size + 2 {
            more(stream, &mut buffer)?;
        }
        body.extend_from_slice(buffer.get(start..start + size).unwrap_or_default());
        buffer.drain(..start + size + 2);
    }
}

fn more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    if fill(stream, buffer)? == 0 { Err(bad("the response is truncated")) } else { Ok(()) }
}

fn unpack(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    GzDecoder::new(body).take(MAX_BODY as u64 + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() > MAX_BODY { Err(too_long()) } else { Ok(unpacked) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Hands out a byte at a time.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            buffer[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    fn body(response: &[u8]) -> Result<String, String> {
        let read = receive(&mut Slowly(response), BodyOf::Reply).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&read.body).into_owned())
    }

    #[test]
    fn bodies_end_in_three_ways() {
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ndefg").unwrap(), "de");
        assert_eq!(body(b"HTTP/1.0 200 OK\r\n\r\ndefg").unwrap(), "defg");
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n";
        assert_eq!(body(chunked).unwrap(), "def");
    }

    #[test]
    fn the_head_is_all_that_follows_head_requests() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nReplay-Nonce: Ab\r\n\r\n";
        let response = receive(&mut Slowly(head), BodyOf::Nothing).unwrap();
        assert_eq!((response.status, response.body.len()), (200, 0));
        assert_eq!(response.headers[1], ("Replay-Nonce".to_owned(), b"Ab".to_vec()));
    }

    #[test]
    fn compressed_bodies_are_unpacked() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"de").unwrap();
        let packed = encoder.finish().unwrap();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len());
        assert_eq!(body(&[head.as_bytes(), &packed].concat()).unwrap(), "de");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; MAX_BODY + 1]).unwrap();
        let bomb = encoder.finish().unwrap();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
        assert!(body(&[head.as_bytes(), &bomb].concat()).unwrap_err().contains("longer than 1 MiB"));
    }

    #[test]
    fn what_never_ends_is_refused() {
        let endless = |head: &[u8]| {
            let mut stream = head.chain(io::repeat(b'a'));
            receive(&mut stream, BodyOf::Reply).unwrap_err().to_string()
        };
        assert_eq!(endless(b""), "the response is not HTTP");
        assert!(endless(b"HTTP/1.1 200 OK\r\nA: ").contains("longer than 16 KiB"));
        assert!(endless(b"HTTP/1.1 200 OK\r\n\r\n").contains("longer than 1 MiB"));
        assert!(
            endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").contains("longer than 1 MiB")
        );
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(endless(&[&chunked[..], b"ffffffffffffffff\r\n"].concat()).contains("longer than 1 MiB"));
        assert!(endless(chunked).contains("malformed"));
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nd").unwrap_err(),
            "the response is truncated"
        );
        assert_eq!(body(b"").unwrap_err(), "the connection ended without a response");
    }
}
