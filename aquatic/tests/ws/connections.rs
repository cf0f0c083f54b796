//! Connections: their beginning, what they may not do, and their end.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::client::{Got, Plain, peer, start, tcp};
use crate::support::{eventually, fetch, metric, torrent};

/// Returns all bytes received in response, up to the end of the connection.
fn exchange(tracker: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = tcp("127.0.0.1", tracker);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn health_counts_for_the_rate_of_a_source() {
    let tracker =
        start(&["workers=1", "rate_limits.ws_messages=1", "rate_limits.ws_burst=4", "rate_limits.exempt=[]"]);
    let last = "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n";
    let requests = "GET /health HTTP/1.1\r\n\r\n".repeat(19) + last;
    let replies = exchange(tracker.address(), requests.as_bytes());
    let count = |text| replies.matches(text).count();
    assert!(count("HTTP/1.1 200 ") >= 4 && count("HTTP/1.1 429 ") >= 5, "{replies}");
    assert_eq!(count("HTTP/1.1 "), 20);
}

#[test]
fn plain_requests_are_answered() {
    let tracker = start(&[]);
    assert_eq!(fetch(tracker.address(), "/health"), "ok\n");
    let visit = exchange(tracker.address(), b"GET /announce HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        visit.starts_with("HTTP/1.1 426 Upgrade Required\r\n") && visit.contains("WebTorrent"),
        "{visit}"
    );
    let garbage = exchange(tracker.address(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
    let bomb = [b"GET / HTTP/1.1\r\n".to_vec(), vec![b'x'; 9000]].concat();
    assert!(exchange(tracker.address(), &bomb).starts_with("HTTP/1.1 431 "));
}

const UPGRADE: &str = "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn upgrades_may_arrive_in_pieces_or_with_the_first_frames() {
    let tracker = start(&[]);
    let mut slow = tcp("127.0.0.1", tracker.address());
    for byte in UPGRADE.as_bytes() {
        slow.write_all(&[*byte]).unwrap();
    }
    let mut head = [0; 12];
    slow.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    // A masked ping with the payload "hi", and a close frame.
    let frames = [0x89, 0x82, 0, 0, 0, 0, b'h', b'i', 0x88, 0x82, 0, 0, 0, 0, 3, 232];
    let answer = exchange(tracker.address(), &[UPGRADE.as_bytes(), &frames].concat());
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    assert!(answer.as_bytes().windows(4).any(|pong| pong[1..] == [2, b'h', b'i']), "{answer:?}");
}

#[test]
fn handshakes_that_are_none_are_refused_and_counted() {
    let settings = [
        "metrics.enable=true",
        "metrics.address=127.0.0.1:0",
        "ws.allowed_origins=[\"https://example.org\"]",
    ];
    let tracker = start(&settings);
    let refused = |reason: &str| {
        let series = format!("aquatic_refused_total{{protocol=\"ws\",reason=\"{reason}\"}}");
        metric(tracker.metrics.unwrap(), &series)
    };
    let with = |what: &str, other: &str| UPGRADE.replace(what, other);
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let origin = |origin: &str| with("Host: x", &format!("Host: x\r\nOrigin: {origin}"));
    for (request, status, reason) in [
        (with(key, "dGhlIHNhbXBsZSBub25j"), "400", Some("malformed")),
        (with(key, "dGhlIHNhbXBsZSBub25jZQAA"), "400", Some("malformed")),
        (with(&format!("Sec-WebSocket-Key: {key}\r\n"), ""), "400", Some("malformed")),
        (with("HTTP/1.1", "HTTP/1.0"), "400", Some("malformed")),
        (with("Upgrade: websocket", "Upgrade: h2c"), "426", Some("no_upgrade")),
        (with("Version: 13", "Version: 12"), "426", Some("version")),
        (origin("https://example.com"), "403", Some("origin")),
        (origin("https://example.org.example.com"), "403", Some("origin")),
        (origin("null"), "403", Some("origin")),
        (origin("https://example.org"), "101", None),
        (UPGRADE.to_owned(), "101", None),
    ] {
        let before = reason.map(&refused);
        let mut stream = tcp("127.0.0.1", tracker.address());
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head[9..], status.as_bytes(), "{request}");
        if let Some(reason) = reason {
            // And the connection is not one for WebSocket.
            let mut rest = Vec::new();
            assert!(stream.read_to_end(&mut rest).is_ok(), "{request}");
            eventually(|| Some(refused(reason)), |now| *now == before.map(|count| count + 1.0));
        }
    }
}

#[test]
fn incomplete_upgrade_requests_time_out() {
    let tracker = start(&["connections.request_timeout=1"]);
    let start = Instant::now();
    for begun in ["", "GET / HT", &UPGRADE[..UPGRADE.len() - 2]] {
        assert_eq!(exchange(tracker.address(), begun.as_bytes()), "", "{begun}");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_bad_message_is_refused_and_the_connection_continues() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    let hash = "aaaaaaaaaaaaaaaaaaaa";
    for (text, action, names_torrent) in [
        ("", "announce", false),
        ("nonsense", "announce", false),
        ("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "announce", false),
        (r#"{"action":"dance"}"#, "announce", false),
        (r#"{"action":"announce"}"#, "announce", false),
        (r#"{"action":"scrape","info_hash":"short"}"#, "scrape", false),
        (&format!(r#"{{"action":"announce","info_hash":"{hash}"}}"#), "announce", true),
        (&format!(r#"{{"action":"announce","info_hash":"{hash}","peer_id":"x"}}"#), "announce", true),
    ] {
        client.send_text(text);
        match client.next() {
            Got::Failure { action: got, torrent, .. } => {
                assert_eq!((got, torrent.is_some()), (action, names_torrent), "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    client.socket.send(Message::binary(vec![0xff, 0xfe])).unwrap();
    assert_eq!(client.next().reason(), "the message is not UTF-8");
    client.announce(torrent(1), peer(1), 1, &[]).counts();
}

#[test]
fn messages_may_be_binary_or_fragmented() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    let text = r#"{"action":"scrape","info_hash":"aaaaaaaaaaaaaaaaaaaa"}"#;
    client.socket.send(Message::binary(text.as_bytes().to_vec())).unwrap();
    assert!(matches!(client.next(), Got::Scrape(_)));
    for (at, byte) in text.bytes().enumerate() {
        let code = if at == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(vec![byte], OpCode::Data(code), at + 1 == text.len());
        client.socket.send(Message::Frame(frame)).unwrap();
        if at == 5 {
            // Control frames may come between fragments.
            client.socket.send(Message::Ping("hello".into())).unwrap();
        }
    }
    assert!(matches!(client.socket.read().unwrap(), Message::Pong(payload) if payload == "hello"));
    assert!(matches!(client.next(), Got::Scrape(_)));
}

#[test]
fn protocol_violations_end_with_a_close_code() {
    let tracker = start(&[]);
    let close = |bytes: &[u8]| {
        let answer = exchange(tracker.address(), &[UPGRADE.as_bytes(), bytes].concat());
        let frame = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        frame.as_bytes().first().copied()
    };
    let unmasked = [0x81, 2, b'h', b'i'];
    let reserved = [0xf1, 0x80, 0, 0, 0, 0];
    let long = [0x81, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let not_text = [0x81, 0x81, 0, 0, 0, 0, 0xff];
    for bytes in [&unmasked[..], &reserved, &long, &not_text] {
        assert!(close(bytes).is_some(), "{bytes:?} is answered with a close frame");
    }
    // Codes that a client receives.
    for (message, code) in [(Message::text("x".repeat(70_000)), 1009), (Message::Close(None), 1005)] {
        let mut client = Plain::connect(tracker.address());
        client.socket.send(message).unwrap();
        match client.next() {
            Got::Close(Some(got)) => assert_eq!(got, code),
            Got::Close(None) => assert_eq!(code, 1005),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn incomplete_messages_time_out() {
    let tracker = start(&["ws.client.message_timeout=1"]);
    let mut stream = tcp("127.0.0.1", tracker.address());
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    stream.write_all(&[0x81, 0xfe, 1, 0, 0, 0, 0, 0]).unwrap();
    let start = Instant::now();
    let mut answer = Vec::new();
    let end = loop {
        let mut bytes = [0; 1000];
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => break start.elapsed(),
            Ok(len) => answer.extend_from_slice(&bytes[..len]),
        }
        // The message continues, but too slowly.
        let _ = stream.write_all(b"x");
    };
    // The default is 10 s.
    assert!(end < Duration::from_secs(9), "{end:?}");
    let reason = b"message took too long";
    assert!(answer.windows(reason.len()).any(|window| window == reason), "{answer:?}");
}

#[test]
fn all_clients_receive_a_close_frame_when_the_tracker_stops() {
    let tracker = start(&["metrics.enable=true", "metrics.address=127.0.0.1:0"]);
    let metrics = tracker.metrics.unwrap();
    let mut clients: Vec<Plain> = (0..20).map(|_| Plain::connect(tracker.address())).collect();
    for (number, client) in (0..).zip(&mut clients) {
        client.announce(torrent(1), peer(number), 1, &[]);
    }
    assert_eq!(metric(metrics, "aquatic_upgrades_total{protocol=\"ws\""), 20.0);
    tracker.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.next(), Got::Close(Some(1001)));
    }
    let (code, _, log) = tracker.end();
    assert_eq!(code, Some(0), "{log}");
}
