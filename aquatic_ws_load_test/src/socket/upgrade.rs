//! Upgrade of connections to WebSocket (RFC 6455, 4.1).

use anyhow::Context;
use async_tungstenite::tungstenite::handshake::client::{Request, generate_request};

/// Sec-WebSocket-Key of the example in RFC 6455, 1.3. It need not be secret.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Sec-WebSocket-Accept that belongs to the key.
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Maximum number of header fields in a response.
const MAX_HEADERS: usize = 32;
/// Maximum length of the head of a response, in bytes.
const MAX_LENGTH: usize = 8192;
/// Status of a successful upgrade.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Result of parsing received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    NeedMore,
    /// Upgraded, by a response of this length.
    Upgraded(usize),
    /// Refused with this status.
    Refused(u16),
    /// `Sec-WebSocket-Accept` does not match the key.
    WrongAccept,
    /// Not an HTTP response.
    Malformed,
}

/// Request of the upgrade, in the forms that the two clients need.
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

/// Parses the response at the front.
pub(crate) fn parse(bytes: &[u8]) -> Response {
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
    fn responses_are_classified() {
        assert_eq!(parse(format!("{GOOD}more").as_bytes()), Response::Upgraded(GOOD.len()));
        for end in 0..GOOD.len() {
            assert_eq!(parse(&GOOD.as_bytes()[..end]), Response::NeedMore);
        }
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\n\r\n"), Response::Refused(404));
        assert_eq!(parse(GOOD.replace("s3p", "S3p").as_bytes()), Response::WrongAccept);
        assert_eq!(parse(b"\x81\x05Hello"), Response::Malformed);
        let endless = format!("HTTP/1.1 101 S\r\nA: {}", "a".repeat(MAX_LENGTH));
        assert_eq!(parse(endless.as_bytes()), Response::Malformed);
    }

    #[test]
    fn request_is_complete() {
        let request = String::from_utf8(Upgrade::new(false, "h:1", "/a?b").unwrap().bytes).unwrap();
        assert!(request.starts_with("GET /a?b HTTP/1.1\r\nHost: h:1\r\n") && request.ends_with("\r\n\r\n"));
        assert!(Upgrade::new(true, "h:1", "/a|\u{7f}").is_err());
    }
}
