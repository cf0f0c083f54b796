//! The PROXY protocol.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::client::{Server, ask, core_of, pause, read_line, time_to_end};
use crate::secure::{Authority, secure};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x12\x34\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const CLIENT: &str = "Address(203.0.113.7:4660)";

const TRUSTED: (&str, &str) = ("TRUSTED", "127.0.0.0/8");
const REFUSE: (&str, &str) = ("PROXY", "refuse");
const USE: (&str, &str) = ("PROXY", "use");

#[test]
fn both_versions_name_the_client() {
    let server = Server::start(&[TRUSTED, REFUSE]);
    for header in [V1, V2] {
        let mut stream = server.connect();
        // The request comes along in the same segment.
        stream.write_all(&[header, b"who\n"].concat()).unwrap();
        let answer = read_line(&mut stream).unwrap();
        assert!(answer.contains(CLIENT) && answer.contains("Address(127.0.0.1:"), "{answer}");
    }
    let mut stream = server.connect();
    stream.write_all(LOCAL).unwrap();
    assert!(ask(&mut stream, "who").unwrap().contains("Address(127.0.0.1:"), "the proxy speaks for itself");
    server.stop();
}

#[test]
fn headers_in_single_bytes_are_understood() {
    let server = Server::start(&[TRUSTED, REFUSE]);
    for header in [V1, V2] {
        let mut stream = server.connect();
        stream.set_nodelay(true).unwrap();
        for (nth, byte) in [header, b"who\n"].concat().into_iter().enumerate() {
            stream.write_all(&[byte]).unwrap();
            if nth % 8 == 0 {
                pause(Duration::from_millis(5));
            }
        }
        assert!(read_line(&mut stream).unwrap().contains(CLIENT));
    }
    server.stop();
}

#[test]
fn what_a_proxy_tells_of_its_own_encryption_is_skipped() {
    let server = Server::start(&[TRUSTED, REFUSE]);
    let header = |len: u16| {
        let more = vec![b'c'; usize::from(len) - 12 - 3];
        let detail = [&[0x20][..], &(len - 12 - 3).to_be_bytes(), &more].concat();
        let fixed = [&V2[..14], &len.to_be_bytes(), &V2[16..]].concat();
        [fixed, detail, b"who\n".to_vec()].concat()
    };
    // Certificates of clients, and the longest header that HAProxy sends by default.
    for len in [1000, 4096, 16 * 1024 - 16] {
        let mut stream = server.connect();
        // The second half comes by itself.
        let header = header(len);
        let (first, second) = header.split_at(header.len() / 2);
        stream.write_all(first).unwrap();
        pause(Duration::from_millis(20));
        stream.write_all(second).unwrap();
        assert!(read_line(&mut stream).unwrap().contains(CLIENT), "{len}");
    }
    let mut stream = server.connect();
    stream.write_all(&header(16 * 1024 - 15)).unwrap();
    assert_eq!(read_line(&mut stream), None);
    assert_eq!(server.refused("proxy_header_malformed"), 1);
    server.stop();
}

#[test]
fn the_header_comes_before_tls() {
    let authority = Authority::new();
    let server = Server::start(&[TRUSTED, REFUSE, authority.setting()]);
    for header in [V1, V2] {
        let mut stream = server.connect();
        stream.write_all(header).unwrap();
        let mut stream = secure(stream, &authority.client());
        assert!(ask(&mut stream, "who").unwrap().contains(CLIENT));
    }
    let mut stream = secure(server.connect(), &authority.client());
    assert_eq!(core_of(&mut stream), None, "TLS without the header");
    server.stop();
}

#[test]
fn a_missing_header_is_refused_or_made_up_for() {
    let server = Server::start(&[TRUSTED, REFUSE]);
    assert_eq!(core_of(&mut server.connect()), None);
    assert_eq!(server.refused("proxy_header_missing"), 1);
    let mut silent = server.connect();
    assert!(time_to_end(&mut silent) > Duration::from_millis(1400));
    assert_eq!((server.timeouts("handshake"), server.refused("proxy_header_missing")), (1, 1));
    for part in [&V1[..8], &V2[..17]] {
        let mut ended = server.connect();
        ended.write_all(part).unwrap();
        ended.shutdown(Shutdown::Write).unwrap();
        assert!(time_to_end(&mut ended) < Duration::from_millis(700), "nothing more can come");
    }
    assert_eq!((server.timeouts("handshake"), server.refused("proxy_header_missing")), (1, 3));
    server.stop();

    let server = Server::start(&[TRUSTED, USE]);
    assert!(ask(&mut server.connect(), "who").unwrap().contains("Address(127.0.0.1:"));
    assert_eq!(server.metric("aquatic_proxy_headers_unused_total{protocol=\"lines\"}"), 1);
    // What begins like a header has to be one: nobody knows where it ends.
    let mut stream = server.connect();
    stream.write_all(b"PROXY TCP4 nonsense\r\nwho\n").unwrap();
    assert_eq!(read_line(&mut stream), None);
    assert_eq!(server.refused("proxy_header_malformed"), 1);
    server.until(Server::OPEN, 0);
    server.stop();
}

#[test]
fn an_address_that_no_peer_can_have_names_nobody() {
    let v4 = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.9.9.9"];
    let v6 = ["100::1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "2002:e000:1::"];
    let hosts = || v4.into_iter().chain(v6);
    let header = |host: &str| match host.contains(':') {
        false => format!("PROXY TCP4 {host} 192.0.2.1 4660 443\r\nwho\n"),
        true => format!("PROXY TCP6 {host} 2001:db8::1 4660 443\r\nwho\n"),
    };
    let own = ("TRUSTED", "127.0.0.1");
    let server = Server::start(&[own, REFUSE]);
    for host in hosts() {
        let mut stream = server.connect();
        stream.write_all(header(host).as_bytes()).unwrap();
        assert_eq!(read_line(&mut stream), None, "{host}");
    }
    assert_eq!(server.refused("proxy_header_unusable"), hosts().count() as u64);
    let mut stream = server.connect();
    stream.write_all(header("127.0.0.1").as_bytes()).unwrap();
    assert!(read_line(&mut stream).unwrap().contains("Address(127.0.0.1:4660)"), "on the proxy's host");
    server.stop();

    let server = Server::start(&[own, USE]);
    let mut stream = server.connect();
    stream.write_all(header("224.0.0.1").as_bytes()).unwrap();
    assert!(read_line(&mut stream).unwrap().contains("Address(127.0.0.1:"));
    assert_eq!(server.metric("aquatic_proxy_headers_unused_total{protocol=\"lines\"}"), 1);
    server.stop();
}

#[test]
fn strangers_cannot_name_anybody() {
    let server = Server::start(&[("TRUSTED", "192.0.2.0/24"), REFUSE]);
    let mut stream = server.connect();
    stream.write_all(V1).unwrap();
    assert_eq!(read_line(&mut stream).as_deref(), Some("what?"), "the header is their request");
    assert!(ask(&mut stream, "who").unwrap().contains("Address(127.0.0.1:"));
    server.stop();
}

#[test]
fn the_limit_per_address_is_for_clients_not_for_their_proxy() {
    let server = Server::start(&[TRUSTED, REFUSE, ("PER_ADDRESS", "2")]);
    let connect = |last: u8| {
        let mut stream = server.connect();
        write!(stream, "PROXY TCP4 203.0.113.{last} 192.0.2.1 1 2\r\n").unwrap();
        core_of(&mut stream).map(|_| stream)
    };
    let open: Vec<_> = [1, 1, 2, 2, 3].map(connect).into_iter().flatten().collect();
    assert_eq!(open.len(), 5);
    assert!(connect(1).is_none());
    assert_eq!(server.refused("limit_per_address"), 1);
    drop(open);
    server.until(Server::OPEN, 0);
    assert!(connect(1).is_some());
    server.stop();
}

#[test]
fn proxies_on_a_unix_socket_are_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lines.sock");
    let server = Server::start(&[("UNIX", path.to_str().unwrap()), REFUSE]);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(V2).unwrap();
    let answer = ask(&mut stream, "who").unwrap();
    assert!(answer.ends_with(&format!("{CLIENT} Local")), "{answer}");
    assert!(core_of(&mut server.connect()).is_some(), "over TCP nobody is trusted");
    server.stop();
}
