//! Client addresses in request headers.
//!
//! Each proxy appends the address of its own client, so only what stands to the right of everything that
//! untrusted clients have written can be believed: the list is walked from the end, past trusted proxies. The
//! first address that is not one of them is the client. An entry that cannot be parsed is not skipped:
//! everything to its left may be forged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{OnBadHeader, TrustedProxies};
use crate::block_list::BlockList;

/// Longest node identifier that is parsed: `[` IPv6 `]:` port has 47 bytes.
const LONGEST_NODE: usize = 64;

/// The header with a syntax of its own.
const FORWARDED: &str = "forwarded";

/// Why a request from a trusted proxy names no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoClient {
    /// None of the headers is there, or they are empty.
    Missing,
    /// The header is there and cannot be understood, or hides the client.
    Malformed,
    /// The header names an address that no peer can have.
    Unusable,
}

impl NoClient {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Missing, Self::Malformed, Self::Unusable];

    /// The value of the label `reason` in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unusable => "unusable",
        }
    }
}

/// Request headers that name clients, and the proxies that may send them.
#[derive(Clone, Debug)]
pub struct ForwardedHeaders {
    /// Names in order of preference, in any case: the first that the request has is read. "Forwarded" has the
    /// syntax of RFC 7239; all others are taken as lists of addresses, as X-Forwarded-For and X-Real-IP are.
    pub names: Vec<String>,
    /// Proxies that may send them.
    pub trusted: TrustedProxies,
    /// What happens when they do not.
    pub on_bad: OnBadHeader,
    /// Clients that are not served. Those without a proxy are rejected when they connect.
    pub blocked: Arc<BlockList>,
}

/// Client that a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// From here: named by the headers, or the peer itself if it is no trusted proxy. In canonical form.
    Known(IpAddr),
    /// The proxy named no client, and its own address is used as configured. To be counted.
    Proxy(IpAddr, NoClient),
    /// The request is to be refused. To be counted.
    Refused(NoClient),
    /// A client behind a proxy that is on the block list. The request is to be refused.
    Blocked(IpAddr),
}

impl ForwardedHeaders {
    /// Replaces everything but the block list.
    pub fn reconfigure(&mut self, new: Self) {
        *self = Self { blocked: Arc::clone(&self.blocked), ..new };
    }

    /// Returns the client that a request comes from. `peer` is the other end of the connection, `None` for a
    /// unix socket, which is always trusted. `headers` are the request's names and values in their order.
    pub fn client<'a>(
        &self,
        peer: Option<IpAddr>,
        headers: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    ) -> Client {
        let peer = peer.map(|ip| ip.to_canonical());
        if let Some(ip) = peer
            && !self.trusted.contains(ip)
        {
            return Client::Known(ip);
        }
        match (self.named(headers), self.on_bad, peer) {
            (Ok(ip), _, _) if self.blocked.blocks(ip) => Client::Blocked(ip),
            (Ok(ip), _, _) => Client::Known(ip),
            (Err(why), OnBadHeader::UseSocketAddress, Some(ip)) => Client::Proxy(ip, why),
            (Err(why), OnBadHeader::UseSocketAddress | OnBadHeader::Refuse, _) => Client::Refused(why),
        }
    }

    /// Returns the client that the headers name, provided that a trusted proxy has sent them.
    ///
    /// # Errors
    /// Why there is none.
    pub fn named<'a>(
        &self,
        headers: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    ) -> Result<IpAddr, NoClient> {
        for name in &self.names {
            let mut lines = headers
                .clone()
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
                .peekable();
            if lines.peek().is_some() {
                return self.walk(lines, name.eq_ignore_ascii_case(FORWARDED));
            }
        }
        Err(NoClient::Missing)
    }

    /// Several lines with one name are one list. Reading forwards and remembering the last that is not
    /// trusted comes to the same as walking backwards, and the syntax can only be read forwards.
    fn walk<'a>(&self, lines: impl Iterator<Item = &'a [u8]>, has_pairs: bool) -> Result<IpAddr, NoClient> {
        let mut farthest = None;
        let mut nearest_untrusted = None;
        for line in lines {
            for element in (Elements { rest: Some(line), has_quotes: has_pairs }) {
                let element = element.trim_ascii();
                if element.is_empty() {
                    continue;
                }
                let node = if has_pairs { node_of_pairs(element) } else { parse_node(element) };
                farthest.get_or_insert(node);
                if !node.is_some_and(|ip| self.trusted.contains(ip)) {
                    nearest_untrusted = Some(node);
                }
            }
        }
        // If all are trusted proxies, the first of them is the client.
        match nearest_untrusted.or(farthest) {
            Some(Some(ip)) if self.trusted.may_name(ip) => Ok(ip),
            Some(Some(_)) => Err(NoClient::Unusable),
            Some(None) => Err(NoClient::Malformed),
            None => Err(NoClient::Missing),
        }
    }
}

/// The parts of a list between commas, and with quotes those outside of them.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
    has_quotes: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        match find_outside_quotes(rest, b',', self.has_quotes) {
            Some(at) => {
                self.rest = rest.get(at + 1..);
                rest.get(..at)
            }
            None => {
                self.rest = None;
                Some(rest)
            }
        }
    }
}

fn find_outside_quotes(text: &[u8], wanted: u8, has_quotes: bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if has_quotes => quoted = !quoted,
            _ if byte == wanted && !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The node named "for" in an element of RFC 7239, such as `for="[2001:db8::1]:4711";proto=https`.
fn node_of_pairs(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = element;
    loop {
        let end = find_outside_quotes(rest, b';', true);
        let pair = rest.get(..end.unwrap_or(rest.len()))?.trim_ascii();
        if pair.is_empty() {
            // There may be semicolons without a pair between them.
            match end {
                Some(at) => rest = rest.get(at + 1..)?,
                None => return found,
            }
            continue;
        }
        let (name, value) = split_once(pair, b'=')?;
        // A quote that begins elsewhere, or is open at the end, was forged to have what the proxy has
        // appended taken for text.
        if !name.iter().all(is_token) || !is_whole(value) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"for") {
            // Twice in one element is not allowed, and one of them may have been forged.
            if found.replace(parse_value(value)?).is_some() {
                return None;
            }
        }
        match end {
            Some(at) => rest = rest.get(at + 1..)?,
            None => return found,
        }
    }
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = text.iter().position(|&byte| byte == at)?;
    Some((text.get(..position)?, text.get(position + 1..)?))
}

/// Whether a byte may occur in a name (RFC 9110).
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Whether quotes are around all of the value or nowhere in it.
fn is_whole(value: &[u8]) -> bool {
    let [b'"', inner @ .., b'"'] = value else { return !value.contains(&b'"') };
    let mut escaped = false;
    for &byte in inner {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => return false,
            _ => escaped = false,
        }
    }
    // A backslash at the end would have escaped the closing quote.
    !escaped
}

/// A node as it stands, or in quotes; the value is whole.
fn parse_value(value: &[u8]) -> Option<IpAddr> {
    let [b'"', inner @ .., b'"'] = value else { return parse_node(value) };
    let mut plain = [0; LONGEST_NODE];
    let mut len = 0;
    let mut escaped = false;
    for &byte in inner {
        if byte == b'\\' && !escaped {
            escaped = true;
        } else {
            *plain.get_mut(len)? = byte;
            len += 1;
            escaped = false;
        }
    }
    parse_node(plain.get(..len)?)
}

/// An address, with or without port and, for IPv6, brackets. "unknown" and hidden names are no addresses.
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    if node.len() > LONGEST_NODE {
        return None;
    }
    let text = std::str::from_utf8(node).ok()?;
    let bracketed = |text: &str| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    // RFC 7239, 6: a port may be hidden behind a name.
    let with_hidden_port = || {
        let (node, port) = text.rsplit_once(":_")?;
        let is_name = !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let v4 = node.parse().ok().map(IpAddr::V4);
        if is_name { v4.or_else(|| bracketed(node)) } else { None }
    };
    let known = text.parse().ok().or_else(|| bracketed(text)).or_else(with_port).or_else(with_hidden_port);
    known.map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::block_list::Ban;

    fn headers(on_bad: OnBadHeader) -> ForwardedHeaders {
        ForwardedHeaders {
            names: ["Forwarded", "X-Forwarded-For", "x-real-ip"].map(str::to_owned).to_vec(),
            trusted: TrustedProxies::parse(&["10.0.0.0/8", "192.0.2.1", "fd00::/8"]).unwrap(),
            on_bad,
            blocked: Arc::default(),
        }
    }

    /// What the header lines, sent by a trusted proxy, come to.
    fn read(lines: &[(&str, &str)]) -> Result<IpAddr, NoClient> {
        let lines = lines.iter().map(|&(name, value)| (name, value.as_bytes()));
        headers(OnBadHeader::Refuse).named(lines)
    }

    fn xff(value: &str) -> Result<IpAddr, NoClient> {
        read(&[("X-Forwarded-For", value)])
    }

    fn forwarded(value: &str) -> Result<IpAddr, NoClient> {
        read(&[("Forwarded", value)])
    }

    #[allow(clippy::unwrap_in_result, reason = "the addresses are right; it is the result that is expected")]
    fn ip(text: &str) -> Result<IpAddr, NoClient> {
        Ok(text.parse().unwrap())
    }

    const MALFORMED: Result<IpAddr, NoClient> = Err(NoClient::Malformed);
    const MISSING: Result<IpAddr, NoClient> = Err(NoClient::Missing);

    #[test]
    fn the_list_is_walked_from_the_right_past_trusted_proxies() {
        assert_eq!(xff("203.0.113.7"), ip("203.0.113.7"));
        assert_eq!(xff("6.6.6.6, 203.0.113.7"), ip("203.0.113.7"), "what the client wrote itself is ignored");
        assert_eq!(xff("6.6.6.6, 203.0.113.7, 10.1.2.3,192.0.2.1"), ip("203.0.113.7"));
        assert_eq!(xff("10.9.9.9, 10.1.2.3"), ip("10.9.9.9"), "a client in the proxies' network");
        assert_eq!(xff("2001:db8::7, fd00::1"), ip("2001:db8::7"));
        assert_eq!(xff(" ,, 203.0.113.7 ,, "), ip("203.0.113.7"));
    }

    #[test]
    fn addresses_come_in_many_forms() {
        for form in ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:4711"] {
            assert_eq!(xff(form), ip("2001:db8::7"), "{form}");
        }
        assert_eq!(xff("203.0.113.7:4711"), ip("203.0.113.7"));
        assert_eq!(xff("::ffff:203.0.113.7"), ip("203.0.113.7"));
        for form in
            ["unknown", "_hidden", "203.0.113", "203.0.113.7:x", "[::1", "::1]", "\u{e9}", "a=b", "\"::1\""]
        {
            assert_eq!(xff(form), MALFORMED, "{form}");
        }
    }

    #[test]
    fn nothing_is_believed_beyond_what_cannot_be_understood() {
        assert_eq!(xff("203.0.113.7, unknown"), MALFORMED);
        assert_eq!(xff("203.0.113.7, unknown, 10.0.0.1"), MALFORMED);
        assert_eq!(xff("unknown, 203.0.113.7, 10.0.0.1"), ip("203.0.113.7"));
        assert_eq!(forwarded("for=203.0.113.7, proto=https"), MALFORMED);
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [("x-forwarded-for", "6.6.6.6, 203.0.113.7"), ("X-FORWARDED-FOR", "10.0.0.1")];
        assert_eq!(read(&lines), ip("203.0.113.7"));
        assert_eq!(
            read(&[("x-forwarded-for", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.7")]),
            ip("203.0.113.7")
        );
    }

    #[test]
    fn the_first_name_the_request_has_is_read() {
        let lines = [("X-Real-IP", "203.0.113.1"), ("X-Forwarded-For", "203.0.113.2")];
        assert_eq!(read(&lines), ip("203.0.113.2"));
        assert_eq!(read(&[("x-REAL-ip", "203.0.113.1")]), ip("203.0.113.1"));
        assert_eq!(read(&[("X-Other", "203.0.113.1")]), MISSING);
        assert_eq!(read(&[("X-Forwarded-For", ""), ("X-Real-IP", "203.0.113.1")]), MISSING);
        assert_eq!(read(&[("X-Forwarded-For", " , ")]), MISSING);
    }

    #[test]
    fn rfc_7239_is_understood() {
        assert_eq!(forwarded("for=203.0.113.7"), ip("203.0.113.7"));
        assert_eq!(forwarded("For=\"[2001:db8::7]:4711\""), ip("2001:db8::7"));
        assert_eq!(forwarded("proto=http;for=203.0.113.7;by=203.0.113.43"), ip("203.0.113.7"));
        assert_eq!(forwarded("for=6.6.6.6, for=203.0.113.7;host=\"a,b;c\", for=10.0.0.1"), ip("203.0.113.7"));
        assert_eq!(forwarded("for=203.0.113.7;;proto=https;"), ip("203.0.113.7"), "pairs may be empty");
        assert_eq!(forwarded("for=\"203.0.113.7:_abc\""), ip("203.0.113.7"), "a hidden port");
        assert_eq!(forwarded("for=\"[2001:db8::7]:_a.b\""), ip("2001:db8::7"));
        assert_eq!(forwarded("for=\"203\\.0.113.7\""), ip("203.0.113.7"), "an escaped character");
        assert_eq!(forwarded("by=\"\\\"\"; for=203.0.113.7"), ip("203.0.113.7"), "an escaped quote");
        for hidden in
            ["for=unknown", "for=_secret", "for=\"_secret:_port\"", "proto=https", "for=", "for", ";"]
        {
            assert_eq!(forwarded(hidden), MALFORMED, "{hidden}");
        }
    }

    #[test]
    fn an_open_quote_does_not_forge_an_address() {
        // The proxy has appended ", for=203.0.113.7" to what the client sent.
        let sent = [
            "for=\"6.6.6.6",
            "for=6.6.6.6, for=\"x",
            "for=6.6.6.6;by=\"",
            "for=6.6.6.6;by[\"",
            "for=6.6.6.6;by=\"\";host=\"",
            "for=6.6.6.6, by=\"x\\",
            "for=6.6.6.6;for=",
        ];
        for sent in sent {
            for appended in ["for=203.0.113.7", "for=\"[2001:db8::7]\"", "for=203.0.113.7;by=\"10.0.0.1\""] {
                let outcome = forwarded(&format!("{sent}, {appended}"));
                assert_ne!(outcome, ip("6.6.6.6"), "{sent}, {appended}");
            }
        }
        assert_eq!(forwarded("for=6.6.6.6;for=203.0.113.7"), MALFORMED);
    }

    #[test]
    fn addresses_that_no_peer_can_have_name_nobody() {
        for unusable in
            ["0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.1.2.3", "127.0.0.1", "127.9.9.9"]
                .into_iter()
                .chain(["::", "::1", "ff02::1", "ff0e::1", "::ffff:0.0.0.0", "::ffff:127.0.0.1"])
        {
            assert_eq!(xff(unusable), Err(NoClient::Unusable), "{unusable}");
            assert_eq!(xff(&format!("6.6.6.6, {unusable}")), Err(NoClient::Unusable), "{unusable}");
            assert_eq!(xff(&format!("{unusable}, 203.0.113.7")), ip("203.0.113.7"), "{unusable}");
        }
        // Clients on the host of a proxy.
        let trusted = TrustedProxies::parse(&["127.0.0.1", "::1"]).unwrap();
        let local = ["127.0.0.1", "::1", "127.0.0.2"].map(|ip| trusted.may_name(ip.parse().unwrap()));
        assert_eq!(local, [true, true, false]);
        for usable in ["100.64.0.1", "169.254.1.1", "192.168.0.1", "fe80::1", "fd00:1::1"] {
            assert!(trusted.may_name(usable.parse().unwrap()), "{usable}");
        }
    }

    #[test]
    fn untrusted_clients_are_not_believed_and_proxies_must_name_theirs() {
        let none: [(&str, &[u8]); 0] = [];
        let spoofed: [(&str, &[u8]); 1] = [("X-Forwarded-For", b"6.6.6.6")];
        let untrusted: IpAddr = "203.0.113.9".parse().unwrap();
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let client = |on_bad, peer, lines: &[(&'static str, &'static [u8])]| {
            headers(on_bad).client(peer, lines.iter().copied())
        };
        let (refuse, fall_back) = (OnBadHeader::Refuse, OnBadHeader::UseSocketAddress);
        assert_eq!(client(refuse, Some(untrusted), &spoofed), Client::Known(untrusted));
        assert_eq!(client(refuse, Some(proxy), &spoofed), Client::Known("6.6.6.6".parse().unwrap()));
        assert_eq!(
            client(refuse, Some("::ffff:10.0.0.1".parse().unwrap()), &none),
            Client::Refused(NoClient::Missing)
        );
        assert_eq!(client(fall_back, Some(proxy), &none), Client::Proxy(proxy, NoClient::Missing));
        assert_eq!(
            client(fall_back, None, &none),
            Client::Refused(NoClient::Missing),
            "a unix socket has no address"
        );
        assert_eq!(client(fall_back, None, &spoofed), Client::Known("6.6.6.6".parse().unwrap()));
    }

    #[test]
    fn clients_behind_proxies_can_be_blocked() {
        let mut settings = headers(OnBadHeader::Refuse);
        let (blocked, other) = ("6.6.6.6".parse().unwrap(), "6.6.6.7".parse().unwrap());
        settings.blocked.ban(Ban { prefix: "6.6.6.6".parse().unwrap(), until: None }).unwrap();
        let proxy = Some("10.0.0.1".parse().unwrap());
        let names = |line: &'static [u8]| [("X-Forwarded-For", line)].into_iter();
        assert_eq!(settings.client(proxy, names(b"6.6.6.6")), Client::Blocked(blocked));
        assert_eq!(settings.client(None, names(b"6.6.6.6")), Client::Blocked(blocked));
        assert_eq!(settings.client(proxy, names(b"6.6.6.7")), Client::Known(other));
        settings.reconfigure(headers(OnBadHeader::Refuse));
        assert_eq!(settings.client(proxy, names(b"6.6.6.6")), Client::Blocked(blocked));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let headers = headers(OnBadHeader::Refuse);
            for name in ["forwarded", "x-forwarded-for"] {
                let _ = headers.named([(name, value.as_slice())].into_iter());
            }
        }

        #[test]
        fn what_stands_to_the_left_does_not_matter(
            sent in "[a-z0-9.:=;, \\[\\]_]{0,60}",
            address in any::<[u8; 4]>(),
        ) {
            let appended = IpAddr::from(address);
            let trusted = headers(OnBadHeader::Refuse).trusted;
            let named = if trusted.may_name(appended) { Ok(appended) } else { Err(NoClient::Unusable) };
            if !trusted.contains(appended) {
                assert_eq!(xff(&format!("{sent}, {appended}")), named);
                assert_eq!(forwarded(&format!("{sent}, for={appended}")), named);
            }
        }
    }
}
