//! Opening handshake of WebSocket (RFC 6455, section 4): whether a request is upgraded, and the response.
//!
//! Any path and subprotocol is accepted, and any origin unless the configuration lists those that may use the
//! tracker. Clients send those of their announce URL and page.

use std::net::IpAddr;

use aquatic_http_protocol::{Framing, Head, HeaderField, PlainReply, Status, Version};
use aquatic_net::breaker::{CoreBreakers, Protocol};
use aquatic_net::proxy::{Client, ForwardedHeaders, NoClient};
use aquatic_web::WebRequest;
use tungstenite::handshake::derive_accept_key;

/// Maximum length of an accepted subprotocol in bytes.
const MAX_SUBPROTOCOL: usize = 64;

/// Text for requests that are no upgrade, such as those of a browser that opens the announce URL as a page.
const EXPLANATION: &str = "This is a WebTorrent tracker. It speaks WebSocket: use its address as an announce URL, with \
                           ws:// or wss:// in front.\n";

/// Decision on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The connection becomes a WebSocket.
    Upgrade(Accepted),
    /// The client gets a response, and the connection is closed.
    Reply(Vec<u8>, NotUpgraded),
}

/// Accepted upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Response with status 101.
    pub(crate) response: Vec<u8>,
    /// Address of the client. `None` for a connection over a unix socket without client address.
    pub(crate) client: Option<IpAddr>,
    /// Fault of a trusted proxy that did not name its client.
    pub(crate) missing: Option<NoClient>,
}

/// Kind of a request that is not upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotUpgraded {
    /// Health check.
    Health,
    /// Request for something other than an upgrade.
    NoUpgrade,
    /// Upgrade while the breaker for the family of the client is open.
    Breaker,
    /// Upgrade of a client behind a proxy that is on the block list.
    Blocked,
    /// Upgrade by a web page whose origin is not allowed.
    Origin,
    /// Upgrade to an unsupported version of WebSocket.
    Version,
    /// Upgrade without a valid key, or malformed request.
    Malformed,
    /// Request of a trusted proxy that does not name its client.
    NoClient(NoClient),
    /// Request of a client behind a proxy with too many connections.
    TooManyConnections,
    /// A page or `/health`, of a source that asks for too much.
    RateLimit,
}

/// Decides on a request for an upgrade to WebSocket. Clients that are no web pages send no `Origin`, and are
/// not subject to `allowed_origins`, of which an empty list allows all.
pub(crate) fn decide(
    request: &mut WebRequest<'_>,
    forwarded: &ForwardedHeaders,
    allowed_origins: &[String],
    breakers: &CoreBreakers,
) -> Decision {
    let head = request.head;
    let plain =
        |status, fields, text, why| Decision::Reply(encode_reply(head.framing, status, fields, text), why);
    if head.version == Version::Http10 {
        let text = "WebSocket needs HTTP/1.1; a proxy may have sent HTTP/1.0 (proxy_http_version in nginx)\n";
        return plain(Status::BadRequest, &[], text, NotUpgraded::Malformed);
    }
    if head.headers.get("Sec-WebSocket-Version").is_none_or(|version| version != b"13") {
        let fields = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        return plain(
            Status::UpgradeRequired,
            &fields,
            "only version 13 is supported\n",
            NotUpgraded::Version,
        );
    }
    let is_allowed =
        |origin: &[u8]| allowed_origins.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin));
    if !allowed_origins.is_empty() && !head.headers.all("Origin").all(is_allowed) {
        let text = "pages of this origin may not use this tracker\n";
        return plain(Status::Forbidden, &[], text, NotUpgraded::Origin);
    }
    let Some(key) = head.headers.get("Sec-WebSocket-Key").filter(|key| is_key(key)) else {
        let text = "Sec-WebSocket-Key is missing or is not 16 bytes in base64\n";
        return plain(Status::BadRequest, &[], text, NotUpgraded::Malformed);
    };
    let names = head.headers.iter().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, value)));
    let (client, missing) = match forwarded.client(request.peer, names) {
        Client::Known(ip) | Client::Proxy(ip, _) if breakers.refuses(Protocol::Ws, ip) => {
            let text = "WebTorrent is not served over this address family at present\n";
            return plain(Status::Unavailable, &[], text, NotUpgraded::Breaker);
        }
        Client::Known(ip) if !(request.charge_address)(ip) => {
            let text = "too many connections from one address\n";
            return plain(Status::Unavailable, &[], text, NotUpgraded::TooManyConnections);
        }
        Client::Blocked(_) => {
            let text = "clients of this network are not served\n";
            return plain(Status::Forbidden, &[], text, NotUpgraded::Blocked);
        }
        Client::Known(ip) => (Some(ip), None),
        Client::Proxy(ip, why) => (Some(ip), Some(why)),
        Client::Refused(why) => {
            let text = "missing or invalid client address from proxy\n";
            return plain(Status::BadRequest, &[], text, NotUpgraded::NoClient(why));
        }
    };
    Decision::Upgrade(Accepted { response: encode_upgrade(key, subprotocol(head)), client, missing })
}

/// Returns whether this is the base64 form of 16 bytes (RFC 6455, section 4.2.1).
fn is_key(key: &[u8]) -> bool {
    let [digits @ .., b'=', b'='] = key else { return false };
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == 22 && digits.iter().all(is_digit)
}

/// Returns the response to a request that is no upgrade, if the listener serves only WebSocket.
pub(crate) fn explanation(head: &Head<'_>) -> Vec<u8> {
    encode_reply(head.framing, Status::UpgradeRequired, &[("Upgrade", "websocket")], EXPLANATION)
}

fn encode_reply(framing: Framing, status: Status, fields: &[HeaderField<'_>], text: &str) -> Vec<u8> {
    let reply = PlainReply::text(status, text).with_headers(fields);
    let mut response = vec![0; reply.length(framing.closing())];
    let encoded = reply.encode(framing.closing(), &mut response);
    debug_assert_eq!(encoded, Ok(response.len()), "the buffer has the length of the response");
    response
}

fn encode_upgrade(key: &[u8], subprotocol: Option<&[u8]>) -> Vec<u8> {
    let mut response =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
            .to_vec();
    response.extend_from_slice(derive_accept_key(key).as_bytes());
    if let Some(subprotocol) = subprotocol {
        response.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        response.extend_from_slice(subprotocol);
    }
    response.extend_from_slice(b"\r\n\r\n");
    response
}

/// Returns the first subprotocol that the client offers. Browsers fail if none of theirs is selected.
fn subprotocol<'a>(head: &Head<'a>) -> Option<&'a [u8]> {
    let offers = head.headers.get("Sec-WebSocket-Protocol")?;
    let first = offers.split(|&byte| byte == b',').next()?.trim_ascii();
    let is_token = first.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
    (is_token && (1..=MAX_SUBPROTOCOL).contains(&first.len())).then_some(first)
}

#[cfg(test)]
mod tests {
    use aquatic_common::Seconds;
    use aquatic_http_protocol::{DEFAULT_MAX_HEAD_LENGTH, Parsed};
    use aquatic_net::proxy::{OnBadHeader, TrustedProxies};

    use super::*;

    const TOO_MANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 99));

    /// Clients with this address are subject to a list of origins.
    const RESTRICTED: &str = "192.0.2.77";

    fn forwarded(on_bad: OnBadHeader) -> ForwardedHeaders {
        let trusted = TrustedProxies::parse(&["10.0.0.1"]).unwrap();
        ForwardedHeaders {
            names: vec!["X-Forwarded-For".to_owned()],
            trusted,
            on_bad,
            blocked: std::sync::Arc::default(),
        }
    }

    fn decide_from(peer: &str, request: &str) -> Decision {
        let request = request.replace('\n', "\r\n");
        let Parsed::Complete(head) = Head::parse(request.as_bytes(), DEFAULT_MAX_HEAD_LENGTH) else {
            panic!("{request} is no request")
        };
        if !head.upgrades_to_websocket() {
            return Decision::Reply(explanation(&head), NotUpgraded::NoUpgrade);
        }
        let mut request = WebRequest {
            head: &head,
            framing: head.framing,
            peer: peer.parse().ok(),
            now: Seconds(0),
            charge_address: &mut |ip| ip != TOO_MANY,
        };
        let origins = ["https://page.example".to_owned(), "http://localhost:8000".to_owned()];
        let origins = if peer == RESTRICTED { &origins[..] } else { &[] };
        let breakers = CoreBreakers::default();
        decide(&mut request, &forwarded(OnBadHeader::Refuse), origins, &breakers)
    }

    const UPGRADE: &str = "GET /any HTTP/1.1\nHost: x\nConnection: keep-alive, Upgrade\nUpgrade: WebSocket\n\
                           Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";

    fn response(decision: &Decision) -> String {
        match decision {
            Decision::Upgrade(accepted) => String::from_utf8(accepted.response.clone()).unwrap(),
            Decision::Reply(response, _) => String::from_utf8(response.clone()).unwrap(),
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_upgraded() {
        let decision = decide_from("192.0.2.1", &format!("{UPGRADE}\n"));
        let response = response(&decision);
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(
            response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{response}"
        );
        assert!(!response.contains("Protocol:"), "{response}");
        let Decision::Upgrade(accepted) = decision else { panic!("{response}") };
        assert_eq!((accepted.client, accepted.missing), ("192.0.2.1".parse().ok(), None));
    }

    #[test]
    fn the_first_subprotocol_is_selected() {
        let ask =
            |offers| response(&decide_from("::1", &format!("{UPGRADE}Sec-WebSocket-Protocol: {offers}\n\n")));
        assert!(ask("chat, superchat").contains("\r\nSec-WebSocket-Protocol: chat\r\n"));
        assert!(!ask("a b").contains("Protocol:") && !ask("").contains("Protocol:"));
    }

    #[test]
    fn requests_that_are_not_upgraded_get_a_reason() {
        let plain = |request: &str, status: &str, expected: NotUpgraded| {
            let decision = decide_from("::1", request);
            let text = response(&decision);
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {text}");
            let Decision::Reply(_, why) = decision else { panic!("{request}: {text}") };
            assert_eq!(why, expected, "{request}");
            text
        };
        assert!(plain("GET / HTTP/1.1\n\n", "426", NotUpgraded::NoUpgrade).contains("WebTorrent"));
        let other_version = UPGRADE.replace("13", "8");
        let text = plain(&format!("{other_version}\n"), "426", NotUpgraded::Version);
        assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"));
        for key in ["abc", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ==="] {
            let other_key = UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
            plain(&format!("{other_key}\n"), "400", NotUpgraded::Malformed);
        }
        for name in ["Sec-WebSocket-Key", "Upgrade:", "Connection:"] {
            let without = UPGRADE.replace(name, "X-Other:");
            let why = if name.ends_with(':') { NotUpgraded::NoUpgrade } else { NotUpgraded::Malformed };
            plain(&format!("{without}\n"), if why == NotUpgraded::Malformed { "400" } else { "426" }, why);
        }
    }

    #[test]
    fn origins_can_be_restricted() {
        for (origins, allowed) in [
            (&[][..], true),
            (&["https://page.example"], true),
            (&["HTTPS://Page.Example"], true),
            (&["http://localhost:8000"], true),
            (&["http://page.example"], false),
            (&["https://page.example.org"], false),
            (&["https://page.example:8443"], false),
            (&["null"], false),
            (&[""], false),
            (&["https://page.example", "https://other.example"], false),
        ] {
            let fields: String = origins.iter().map(|origin| format!("Origin: {origin}\n")).collect();
            let request = format!("{UPGRADE}{fields}\n");
            let decision = decide_from(RESTRICTED, &request);
            match &decision {
                Decision::Upgrade(_) => assert!(allowed, "{origins:?}"),
                Decision::Reply(_, why) => {
                    assert_eq!((allowed, *why), (false, NotUpgraded::Origin), "{origins:?}");
                    assert!(response(&decision).starts_with("HTTP/1.1 403 "));
                }
            }
            assert!(
                matches!(decide_from("192.0.2.1", &request), Decision::Upgrade(_)),
                "an empty list allows all"
            );
        }
    }

    #[test]
    fn an_upgrade_of_http_1_0_is_refused() {
        let decision = decide_from("192.0.2.1", &format!("{UPGRADE}\n").replace("HTTP/1.1", "HTTP/1.0"));
        assert!(matches!(decision, Decision::Reply(_, NotUpgraded::Malformed)), "{decision:?}");
        let response = response(&decision);
        assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("needs HTTP/1.1"), "{response}");
    }

    #[test]
    fn trusted_proxies_name_the_client() {
        let Decision::Upgrade(accepted) =
            decide_from("10.0.0.1", &format!("{UPGRADE}x-forwarded-for: 6.6.6.6, 203.0.113.7\n\n"))
        else {
            panic!("no upgrade")
        };
        assert_eq!(accepted.client, "203.0.113.7".parse().ok());
        let decision = decide_from("10.0.0.1", &format!("{UPGRADE}X-Forwarded-For: {TOO_MANY}\n\n"));
        assert!(matches!(decision, Decision::Reply(_, NotUpgraded::TooManyConnections)), "{decision:?}");
        let decision = decide_from("10.0.0.1", &format!("{UPGRADE}\n"));
        assert!(
            matches!(decision, Decision::Reply(_, NotUpgraded::NoClient(NoClient::Missing))),
            "{decision:?}"
        );
    }
}
