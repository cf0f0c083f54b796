//! Floods of frames and messages from one client.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::client::{Got, Plain, peer, start};
use crate::support::{metric, torrent};

#[test]
fn floods_of_answers_and_pings_are_not_relayed() {
    let tracker = start(&["ws.client.max_message_rate=0"]);
    let [mut one, mut two, mut flooder] = [(); 3].map(|()| Plain::connect(tracker.address()));
    one.announce(torrent(1), peer(1), 1, &[]);
    two.announce(torrent(1), peer(2), 1, &["x"]);
    let (from, id) = one.next().offer();
    for round in 0..2000 {
        flooder.answer(torrent(1), peer(1), from, &id);
        if round % 100 == 0 {
            flooder.socket.send(tungstenite::Message::Ping("x".into())).unwrap();
        }
    }
    two.assert_quiet();
    one.answer(torrent(1), peer(1), from, &id);
    assert!(matches!(two.next(), Got::Answer { .. }));
}

#[test]
fn peers_of_closed_connections_are_removed() {
    let tracker = start(&[]);
    let mut watcher = Plain::connect(tracker.address());
    for round in 0..300_u32 {
        let mut guest = Plain::connect(tracker.address());
        guest.announce(torrent(round % 7), peer(round as u8), 1, &["x"]);
        if round % 2 == 0 {
            let _ = guest.socket.close(None);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    for number in 0..7 {
        while watcher.leechers(torrent(number)) != 0 {
            assert!(Instant::now() < deadline, "torrent {number}");
        }
    }
}

/// A masked frame without payload.
fn empty(first: u8) -> [u8; 6] {
    [first, 0x80, 0, 0, 0, 0]
}

#[test]
fn frames_that_complete_no_message_end_the_connection() {
    let tracker =
        start(&["metrics.enable=true", "metrics.address=127.0.0.1:0", "ws.client.max_message_rate=0"]);
    let metrics = tracker.metrics.unwrap();
    let (fragment, continuation, ping, pong) = (empty(0x01), empty(0x00), empty(0x89), empty(0x8a));
    for (begin, repeated) in [(&fragment[..], continuation), (&[], ping), (&[], pong)] {
        let mut client = Plain::connect(tracker.address());
        client.announce(torrent(1), peer(1), 1, &[]);
        let stream = client.socket.get_mut();
        stream.write_all(begin).unwrap();
        let mut received = Vec::new();
        stream.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        // More than the bound, unless the tracker has ended the connection before.
        for _ in 0..100 {
            let _ = stream.write_all(&repeated.repeat(100));
            let _ = stream.read_to_end(&mut received);
            assert!(Instant::now() < deadline);
        }
        stream.set_nonblocking(false).unwrap();
        let _ = stream.read_to_end(&mut received);
        let reason = b"\x03\xf0too many frames without a message";
        let is_told = received.windows(reason.len()).any(|window| window == reason);
        assert!(is_told, "{begin:?} {repeated:?}: {}", received.escape_ascii());
    }
    assert_eq!(
        metric(metrics, "aquatic_connections_ended_total{protocol=\"ws\",reason=\"frame_flood\"}"),
        3.0
    );
}

#[test]
fn many_fragments_of_one_message_are_accepted() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    let text = br#"{"action":"scrape","info_hash":"aaaaaaaaaaaaaaaaaaaa"}"#;
    let mut frames = Vec::new();
    for (at, byte) in text.iter().enumerate() {
        let first = u8::from(at == 0) | u8::from(at + 1 == text.len()) << 7;
        frames.extend_from_slice(&[first, 0x81, 0, 0, 0, 0, *byte]);
        (0..9).for_each(|_| frames.extend_from_slice(&empty(0x8a)));
    }
    client.socket.get_mut().write_all(&frames).unwrap();
    assert!(matches!(client.next(), Got::Scrape(_)));
}
