//! How a connection becomes one of WebSocket.

use anyhow::Context;
use async_tungstenite::tungstenite::handshake::client::{Request, generate_request};

/// The key of the example in RFC 6455, 1.3. Nothing depends on it being a secret.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What a server that takes part makes of the key.
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Most lines in the head of a response.
const MAX_HEADERS: usize = 32;
/// Longest head of a response, in bytes.
const MAX_LENGTH: usize = 8192;
/// The only good status.
const SWITCHING_PROTOCOLS: u16 = 101;

/// What is at the front of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    NeedMore,
    /// The connection is one of WebSocket now; the response has this length.
    Upgraded(usize),
    /// The tracker does not want to, and answers with this status.
    Refused(u16),
    /// The tracker accepts a key that it was not given.
    WrongAccept,
    /// It is not HTTP.
    Malformed,
}

/// Request of the upgrade, in the form that each client needs.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade {
    pub(super) bytes: Vec<u8>,
    pub(super) request: Request,
}

impl Upgrade {
    /// Request for a URL of the tracker.
    ///
    /// # Errors
    /// When host and path do not make a URL.
    pub(crate) fn new(tls: bool, host: &str, path: &str) -> anyhow::Result<Self> {
        let url = format!("{}://{host}{path}", if tls { "wss" } else { "ws" });
        let user_agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        let request = Request::builder()
            .uri(&url)
            .header("Host", host)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", KEY)
            .header("User-Agent", user_agent)
            .body(())
            .with_context(|| format!("{url} is not a URL"))?;
        let (bytes, _) = generate_request(request.clone())?;
        Ok(Self { bytes, request })
    }
}

/// Takes the response from the front.
pub(crate) fn take(bytes: &[u8]) -> Response {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_LENGTH => return Response::NeedMore,
        Ok(httparse::Status::Partial) | Err(_) => return Response::Malformed,
    };
    match response.code {
        Some(SWITCHING_PROTOCOLS) => {}
        Some(status) => return Response::Refused(status),
        None => return Response::Malformed,
    }
    let accepted = |header: &httparse::Header<'_>| {
        header.name.eq_ignore_ascii_case("sec-websocket-accept") && header.value == ACCEPT
    };
    if response.headers.iter().any(accepted) { Response::Upgraded(length) } else { Response::WrongAccept }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "HTTP/1.1 101 Switching Protocols\r\nSEC-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn responses_are_told_apart() {
        assert_eq!(take(format!("{GOOD}more").as_bytes()), Response::Upgraded(GOOD.len()));
        for end in 0..GOOD.len() {
            assert_eq!(take(&GOOD.as_bytes()[..end]), Response::NeedMore);
        }
        assert_eq!(take(b"HTTP/1.1 404 Not Found\r\n\r\n"), Response::Refused(404));
        assert_eq!(take(GOOD.replace("s3p", "S3p").as_bytes()), Response::WrongAccept);
        assert_eq!(take(b"\x81\x05Hello"), Response::Malformed);
        let endless = format!("HTTP/1.1 101 S\r\nA: {}", "a".repeat(MAX_LENGTH));
        assert_eq!(take(endless.as_bytes()), Response::Malformed);
    }

    #[test]
    fn request_is_whole() {
        let request = String::from_utf8(Upgrade::new(false, "h:1", "/a?b").unwrap().bytes).unwrap();
        assert!(request.starts_with("GET /a?b HTTP/1.1\r\nHost: h:1\r\n") && request.ends_with("\r\n\r\n"));
        assert!(Upgrade::new(true, "h:1", "/a|\u{7f}").is_err());
    }
}
