//! What becomes of the first request on a connection: WebSocket from there on, or a plain answer and the end.
//!
//! Any path, origin and subprotocol will do: clients come with what is in their announce URL, and the tracker has
//! nothing to keep from them.

use std::net::IpAddr;

use aquatic_http_protocol::{Framing, Head, HeaderField, PlainReply, Status};
use aquatic_net::proxy::{Client, ForwardedHeaders, NoClient};
use aquatic_web::WebRequest;
use tungstenite::handshake::derive_accept_key;

/// Longest subprotocol that is agreed to.
const MAX_SUBPROTOCOL: usize = 64;

const EXPLANATION: &str = "This is a WebTorrent tracker. It speaks WebSocket: use its address as an announce URL, with \
                           ws:// or wss:// in front.\n";

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is answered so, and frames follow.
    Upgrade(Accepted),
    /// It is answered so, and the connection ends.
    Answer(Vec<u8>, Plain),
}

/// An upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) response: Vec<u8>,
    /// Where the client is; nothing is known of one behind a proxy that says nothing.
    pub(crate) client: Option<IpAddr>,
    /// What a proxy did not say, for all that.
    pub(crate) missing: Option<NoClient>,
}

/// Why a request is no upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    /// Somebody asks how the tracker is.
    Health,
    /// A request of another kind, such as a browser's visit.
    NoUpgrade,
    /// An upgrade to a version of the protocol that is not in use.
    Version,
    /// An upgrade without what the protocol asks for.
    Malformed,
    /// A proxy does not name its client.
    NoClient(NoClient),
    /// The client that a proxy stands for has too many connections.
    TooMany,
}

/// Decides on a request for an upgrade to WebSocket.
pub(crate) fn decide(request: &mut WebRequest<'_>, forwarded: &ForwardedHeaders) -> Decision {
    let head = request.head;
    let plain = |status, fields, text, why| Decision::Answer(answer(head.framing, status, fields, text), why);
    if head.headers.get("Sec-WebSocket-Version").is_none_or(|version| version != b"13") {
        let fields = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        return plain(Status::UpgradeRequired, &fields, "only version 13 is supported\n", Plain::Version);
    }
    let Some(key) = head.headers.get("Sec-WebSocket-Key").filter(|key| is_key(key)) else {
        let text = "Sec-WebSocket-Key is missing or is not 16 bytes in base64\n";
        return plain(Status::BadRequest, &[], text, Plain::Malformed);
    };
    let names = head.headers.iter().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, value)));
    let (client, missing) = match forwarded.client(request.peer, names) {
        Client::Known(ip) if !(request.charge_address)(ip) => {
            let text = "too many connections from one address\n";
            return plain(Status::Unavailable, &[], text, Plain::TooMany);
        }
        Client::Known(ip) => (Some(ip), None),
        Client::Proxy(ip, why) => (Some(ip), Some(why)),
        Client::Refused(why) => {
            let text = "missing or invalid client address from proxy\n";
            return plain(Status::BadRequest, &[], text, Plain::NoClient(why));
        }
    };
    Decision::Upgrade(Accepted { response: accept(key, subprotocol(head)), client, missing })
}

/// Whether this is the base64 form of 16 bytes (RFC 6455, section 4.2.1).
fn is_key(key: &[u8]) -> bool {
    let [digits @ .., b'=', b'='] = key else { return false };
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == 22 && digits.iter().all(is_digit)
}

/// The reply to a request that is no upgrade, where WebSocket is all that is served.
pub(crate) fn explanation(head: &Head<'_>) -> Vec<u8> {
    answer(head.framing, Status::UpgradeRequired, &[("Upgrade", "websocket")], EXPLANATION)
}

fn answer(framing: Framing, status: Status, fields: &[HeaderField<'_>], text: &str) -> Vec<u8> {
    let reply = PlainReply::text(status, text).with_headers(fields);
    let mut response = vec![0; reply.length(framing.closing())];
    let encoded = reply.encode(framing.closing(), &mut response);
    debug_assert_eq!(encoded, Ok(response.len()), "the buffer has the length of the response");
    response
}

fn accept(key: &[u8], subprotocol: Option<&[u8]>) -> Vec<u8> {
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

/// The first subprotocol the client offers: browsers do not connect if none of them is agreed to.
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

    fn forwarded(on_bad: OnBadHeader) -> ForwardedHeaders {
        let trusted = TrustedProxies::parse(&["10.0.0.1"]).unwrap();
        ForwardedHeaders { names: vec!["X-Forwarded-For".to_owned()], trusted, on_bad }
    }

    fn decide_from(peer: &str, request: &str) -> Decision {
        let request = request.replace('\n', "\r\n");
        let Parsed::Complete(head) = Head::parse(request.as_bytes(), DEFAULT_MAX_HEAD_LENGTH) else {
            panic!("{request} is no request")
        };
        if !head.upgrades_to_websocket() {
            return Decision::Answer(explanation(&head), Plain::NoUpgrade);
        }
        let mut request = WebRequest {
            head: &head,
            framing: head.framing,
            peer: peer.parse().ok(),
            now: Seconds(0),
            charge_address: &mut |ip| ip != TOO_MANY,
        };
        decide(&mut request, &forwarded(OnBadHeader::Refuse))
    }

    const UPGRADE: &str = "GET /any HTTP/1.1\nHost: x\nConnection: keep-alive, Upgrade\nUpgrade: WebSocket\n\
                           Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";

    fn response(decision: &Decision) -> String {
        match decision {
            Decision::Upgrade(accepted) => String::from_utf8(accepted.response.clone()).unwrap(),
            Decision::Answer(response, _) => String::from_utf8(response.clone()).unwrap(),
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_there() {
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
    fn the_first_subprotocol_is_agreed_to() {
        let ask =
            |offers| response(&decide_from("::1", &format!("{UPGRADE}Sec-WebSocket-Protocol: {offers}\n\n")));
        assert!(ask("chat, superchat").contains("\r\nSec-WebSocket-Protocol: chat\r\n"));
        assert!(!ask("a b").contains("Protocol:") && !ask("").contains("Protocol:"));
    }

    #[test]
    fn what_is_no_upgrade_is_answered_with_a_reason() {
        let plain = |request: &str, status: &str, expected: Plain| {
            let decision = decide_from("::1", request);
            let text = response(&decision);
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {text}");
            let Decision::Answer(_, why) = decision else { panic!("{request}: {text}") };
            assert_eq!(why, expected, "{request}");
            text
        };
        assert!(plain("GET / HTTP/1.1\n\n", "426", Plain::NoUpgrade).contains("WebTorrent"));
        let other_version = UPGRADE.replace("13", "8");
        let text = plain(&format!("{other_version}\n"), "426", Plain::Version);
        assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"));
        for key in ["abc", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ==="] {
            let other_key = UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
            plain(&format!("{other_key}\n"), "400", Plain::Malformed);
        }
        for name in ["Sec-WebSocket-Key", "Upgrade:", "Connection:"] {
            let without = UPGRADE.replace(name, "X-Other:");
            let why = if name.ends_with(':') { Plain::NoUpgrade } else { Plain::Malformed };
            plain(&format!("{without}\n"), if why == Plain::Malformed { "400" } else { "426" }, why);
        }
    }

    #[test]
    fn proxies_name_their_clients() {
        let Decision::Upgrade(accepted) =
            decide_from("10.0.0.1", &format!("{UPGRADE}x-forwarded-for: 6.6.6.6, 203.0.113.7\n\n"))
        else {
            panic!("no upgrade")
        };
        assert_eq!(accepted.client, "203.0.113.7".parse().ok());
        let decision = decide_from("10.0.0.1", &format!("{UPGRADE}X-Forwarded-For: {TOO_MANY}\n\n"));
        assert!(matches!(decision, Decision::Answer(_, Plain::TooMany)), "{decision:?}");
        let decision = decide_from("10.0.0.1", &format!("{UPGRADE}\n"));
        assert!(matches!(decision, Decision::Answer(_, Plain::NoClient(NoClient::Missing))), "{decision:?}");
    }
}
