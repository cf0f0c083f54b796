//! The PROXY protocol: what a proxy says about its client in front of everything else, in text (version 1) or
//! bytes (version 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, with the line end.
pub const LONGEST_V1: usize = 107;

/// Longest header of version 2 that is read: addresses and details of the proxy's own encryption, such as
/// certificates of clients, which are skipped. HAProxy sends no longer ones unless its `tune.bufsize` is
/// above the default of 16 KiB.
pub const LONGEST_V2: usize = 16 * 1024;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and protocol, length of the rest.
const FIXED_V2: usize = 16;

/// What the beginning of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Possibly a header, and not all of it.
    NeedMore,
    /// A header of this length, after which the client's bytes begin.
    Complete {
        /// In bytes.
        len: usize,
        /// The client that the proxy names.
        source: Source,
    },
    /// Not a header: the connection begins with something else.
    Absent,
    /// It begins like a header and is none.
    Malformed,
}

/// The client that a proxy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A client; its address is in canonical form.
    Client(SocketAddr),
    /// Itself, as for health checks, or somebody it cannot name.
    Proxy,
}

/// Reads a header from the beginning of a connection. The result for more bytes of the same connection is the
/// same, except that [`Header::NeedMore`] becomes something else at [`LONGEST_V2`] bytes at the latest.
#[must_use]
pub fn parse(bytes: &[u8]) -> Header {
    if begins_alike(bytes, SIGNATURE_V2) {
        parse_v2(bytes)
    } else if begins_alike(bytes, SIGNATURE_V1) {
        parse_v1(bytes)
    } else {
        Header::Absent
    }
}

/// Whether the bytes begin with the signature, as far as both go.
fn begins_alike(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Header {
    let line = bytes.get(..LONGEST_V1).unwrap_or(bytes);
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() < LONGEST_V1 { Header::NeedMore } else { Header::Malformed };
    };
    match (line.get(end), line.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => {}
        (Some(b'\r'), None) if bytes.len() < LONGEST_V1 => return Header::NeedMore,
        _ => return Header::Malformed,
    }
    let words = line.get(SIGNATURE_V1.len()..end).and_then(|words| std::str::from_utf8(words).ok());
    match words.and_then(parse_words) {
        Some(source) => Header::Complete { len: end + 2, source },
        None => Header::Malformed,
    }
}

/// `TCP4 192.0.2.1 198.51.100.1 56324 443`, without the word before it.
fn parse_words(text: &str) -> Option<Source> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(Source::Proxy);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    let (port, _own_port) = (parse_port(words.next()?)?, parse_port(words.next()?)?);
    words.next().is_none().then(|| Source::Client(SocketAddr::new(source.to_canonical(), port)))
}

fn parse_port(word: &str) -> Option<u16> {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if is_number { word.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Header {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_V2>() else {
        return Header::NeedMore;
    };
    let [.., command, family, high, low] = *fixed;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Header::Malformed,
    };
    if FIXED_V2 + len > LONGEST_V2 {
        return Header::Malformed;
    }
    let Some(addresses) = rest.get(..len) else {
        return Header::NeedMore;
    };
    let source = if is_local { Some(Source::Proxy) } else { parse_addresses(family, addresses) };
    match source {
        Some(source) => Header::Complete { len: FIXED_V2 + len, source },
        None => Header::Malformed,
    }
}

/// Source address, destination address, source port, destination port; what follows them is skipped.
fn parse_addresses(family: u8, bytes: &[u8]) -> Option<Source> {
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    const UNIX_STREAM: u8 = 0x31;
    let client = |ip: IpAddr, port: [u8; 2]| {
        Some(Source::Client(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(port))))
    };
    match family {
        0 => Some(Source::Proxy),
        TCP4 => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *bytes.first_chunk()?;
            client(Ipv4Addr::new(a, b, c, d).into(), [high, low])
        }
        TCP6 => {
            let ports = bytes.get(32..36)?;
            let ip = Ipv6Addr::from(*bytes.first_chunk::<16>()?);
            client(ip.into(), *ports.first_chunk()?)
        }
        // Two paths of 108 bytes each, which say nothing about an address.
        UNIX_STREAM => bytes.get(..216).map(|_| Source::Proxy),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    fn v1(line: &str) -> Header {
        parse(format!("{line}\r\nGET / HTTP/1.1\r\n").as_bytes())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE_V2[..], &[command, family], &len, rest].concat()
    }

    fn tcp4() -> Vec<u8> {
        vec![203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x34, 0, 80]
    }

    fn tcp6(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        [&source.octets()[..], &[0; 16], &[0x12, 0x34, 0, 80]].concat()
    }

    #[test]
    fn version_1_names_the_client() {
        let line = "PROXY TCP4 203.0.113.7 192.0.2.1 56324 443";
        assert_eq!(v1(line), Header::Complete { len: line.len() + 2, source: client("203.0.113.7:56324") });
        let line = "PROXY TCP6 2001:db8::7 2001:db8::1 65535 0";
        assert_eq!(v1(line), Header::Complete { len: line.len() + 2, source: client("[2001:db8::7]:65535") });
        let line = "PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2";
        assert_eq!(v1(line), Header::Complete { len: line.len() + 2, source: client("203.0.113.7:1") });
        let longest = format!("PROXY UNKNOWN {}", "f".repeat(LONGEST_V1 - 16));
        assert_eq!(v1("PROXY UNKNOWN"), Header::Complete { len: 15, source: Source::Proxy });
        assert_eq!(v1(&longest), Header::Complete { len: LONGEST_V1, source: Source::Proxy });
        assert_eq!(v1(&format!("{longest}f")), Header::Malformed);
    }

    #[test]
    fn version_1_is_strict() {
        for line in [
            "PROXY ",
            "PROXY TCP4",
            "PROXY TCP4 203.0.113.7 192.0.2.1 56324",
            "PROXY TCP4 203.0.113.7 192.0.2.1 56324 443 ",
            "PROXY TCP4 203.0.113.7 192.0.2.1 56324 443 x",
            "PROXY TCP4  203.0.113.7 192.0.2.1 56324 443",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2",
            "PROXY TCP6 203.0.113.7 192.0.2.1 1 2",
            "PROXY TCP4 203.0.113.7 192.0.2.1 65536 443",
            "PROXY TCP4 203.0.113.7 192.0.2.1 +1 443",
            "PROXY TCP4 203.0.113.7 192.0.2.1 01 443",
            "PROXY TCP4 203.0.113.07 192.0.2.1 1 443",
            "PROXY TCP4 203.0.113.7 x 1 443",
            "PROXY UDP4 203.0.113.7 192.0.2.1 1 443",
            "PROXY tcp4 203.0.113.7 192.0.2.1 1 443",
            "PROXY TCP4 203.0.113.7 192.0.2.1 1 443\n",
        ] {
            assert_eq!(v1(line), Header::Malformed, "{line}");
        }
        assert_eq!(parse(b"PROXY TCP4 203.0.113.7 192.0.2.1 1 443\n"), Header::Malformed);
        assert_eq!(parse(b"PROXY TCP4 203.0.113.7 192.0.2.1 1 443\rx"), Header::Malformed);
    }

    #[test]
    fn version_2_names_the_client() {
        let source = client("203.0.113.7:4660");
        assert_eq!(parse(&v2(0x21, 0x11, &tcp4())), Header::Complete { len: 28, source });
        let with_more = [&tcp4()[..], b"\x04\x00\x03abc"].concat();
        assert_eq!(parse(&v2(0x21, 0x11, &with_more)), Header::Complete { len: 34, source });
        let source = client("[2001:db8::7]:4660");
        assert_eq!(parse(&v2(0x21, 0x21, &tcp6("2001:db8::7"))), Header::Complete { len: 52, source });
        let source = client("203.0.113.7:4660");
        assert_eq!(parse(&v2(0x21, 0x21, &tcp6("::ffff:203.0.113.7"))), Header::Complete { len: 52, source });
    }

    #[test]
    fn version_2_without_a_client_is_the_proxy_itself() {
        let source = Source::Proxy;
        assert_eq!(parse(&v2(0x20, 0, &[])), Header::Complete { len: 16, source });
        assert_eq!(parse(&v2(0x20, 0xff, &[1, 2, 3])), Header::Complete { len: 19, source });
        assert_eq!(parse(&v2(0x21, 0, &[])), Header::Complete { len: 16, source });
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Header::Complete { len: 232, source });
    }

    #[test]
    fn version_2_is_strict() {
        for (command, family, rest) in [
            (0x11, 0x11, &tcp4()[..]),
            (0x22, 0x11, &tcp4()),
            (0x31, 0x11, &tcp4()),
            (0x21, 0x12, &tcp4()),
            (0x21, 0x41, &tcp4()),
            (0x21, 0x11, &tcp4()[..11]),
            (0x21, 0x21, &tcp6("::1")[..35]),
            (0x21, 0x31, &[0; 215]),
        ] {
            assert_eq!(parse(&v2(command, family, rest)), Header::Malformed, "{command:#x} {family:#x}");
        }
        let longest = v2(0x20, 0, &[0; LONGEST_V2 - FIXED_V2]);
        assert_eq!(parse(&longest), Header::Complete { len: LONGEST_V2, source: Source::Proxy });
        assert_eq!(parse(&v2(0x20, 0, &[0; LONGEST_V2 - FIXED_V2 + 1])), Header::Malformed);
    }

    #[test]
    fn anything_else_is_no_header() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"P0", b"proxy ", b"\r\n\r\n\0\r\nQUIX", b"\n"]
        {
            assert_eq!(parse(bytes), Header::Absent, "{bytes:?}");
        }
        assert_eq!(parse(b""), Header::NeedMore);
    }

    /// The first result other than that more is needed, when bytes come one by one.
    fn byte_by_byte(bytes: &[u8]) -> Header {
        let results = (0..=bytes.len()).map(|len| parse(&bytes[..len]));
        results.into_iter().find(|result| *result != Header::NeedMore).unwrap_or(Header::NeedMore)
    }

    #[test]
    fn wherever_headers_are_split_the_result_is_the_same() {
        let v1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\nGET /";
        let too_long = [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat();
        let v2s = [
            v2(0x21, 0x11, &tcp4()),
            v2(0x21, 0x21, &tcp6("::1")),
            v2(0x20, 0, &[]),
            v2(0x21, 0x12, &tcp4()),
        ];
        for bytes in
            [v1, &too_long, b"PROXY \r", b"PROXY\r\n"].into_iter().chain(v2s.iter().map(Vec::as_slice))
        {
            assert_eq!(byte_by_byte(bytes), parse(bytes), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_splits_do_not_matter(
            signature in 0..3_usize,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            command in 0x1f..0x23_u8,
        ) {
            let begin = [&b""[..], SIGNATURE_V1, &[&SIGNATURE_V2[..], &[command, 0x11, 0]].concat()][signature].to_vec();
            let bytes = [begin, bytes].concat();
            assert_eq!(byte_by_byte(&bytes), parse(&bytes));
        }

        #[test]
        fn lines_of_words_do_not_panic(words in "PROXY [A-Z0-9a-f:. \\r\\n]{0,120}") {
            assert_eq!(byte_by_byte(words.as_bytes()), parse(words.as_bytes()));
        }
    }
}
