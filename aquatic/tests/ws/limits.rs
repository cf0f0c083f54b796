//! Limits, and what shows that they were reached.

use std::time::{Duration, Instant};

use aquatic_ws_protocol::{ClientMessage, Scrape};
use socket2::SockRef;

use crate::client::{Client, Got, Plain, peer, request, start, tcp, torrent};
use crate::support::{Tracker, free_address, metric};

fn start_with_metrics(settings: &[&str]) -> (Tracker, impl Fn(&str) -> f64) {
    let metrics = free_address();
    let address = format!("metrics.address={metrics}");
    let tracker = start(&[&["metrics.enable=true", &address], settings].concat());
    (tracker, move |series: &str| metric(metrics, series))
}

#[test]
fn offers_and_peers_of_a_connection_are_limited() {
    let (tracker, metric) =
        start_with_metrics(&["protocol.max_offers=2", "client.max_peers=4", "client.max_peer_ids=2"]);
    let mut others: Vec<Plain> = (0..4).map(|_| Plain::connect(tracker.address())).collect();
    for (number, other) in (10..).zip(&mut others) {
        other.announce(torrent(1), peer(number), 1, &[]);
    }
    let mut one = Plain::connect(tracker.address());
    one.announce(torrent(1), peer(1), 1, &["a", "b", "c", "d"]);
    let offered = others.iter_mut().filter_map(|other| {
        other.socket.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        other.socket.read().ok()
    });
    assert_eq!(offered.count(), 2);
    one.announce(torrent(1), peer(2), 1, &[]).counts();
    assert_eq!(one.announce(torrent(1), peer(3), 1, &[]).reason(), "too many peer ids over one connection");
    for number in 2..4 {
        one.announce(torrent(number), peer(1), 1, &[]).counts();
    }
    let refused = one.announce(torrent(4), peer(1), 1, &[]);
    assert_eq!(refused.reason(), "too many torrents over one connection");
    assert!(
        matches!(refused, Got::Failure { action: "announce", torrent: Some(of), .. } if of == torrent(4))
    );
    one.stop(torrent(2), peer(1));
    one.announce(torrent(4), peer(1), 1, &[]).counts();
    assert_eq!(metric("aquatic_refused_total{protocol=\"ws\",reason=\"connection_peers\"}"), 1.0);
    assert_eq!(metric("aquatic_refused_total{protocol=\"ws\",reason=\"connection_peer_ids\"}"), 1.0);
}

#[test]
fn at_a_limit_of_the_tracker_it_still_answers() {
    let (tracker, metric) = start_with_metrics(&["limits.max_peers_per_torrent=2"]);
    let mut clients: Vec<Plain> = (0..3).map(|_| Plain::connect(tracker.address())).collect();
    for (number, client) in (1..).zip(&mut clients) {
        assert_eq!(client.announce(torrent(1), peer(number), 1, &[]).counts(), (0, u32::from(number.min(2))));
    }
    assert_eq!(metric("aquatic_not_stored_total{protocol=\"ws\""), 1.0);
    // Who is not stored may offer all the same.
    clients[2].announce(torrent(1), peer(3), 1, &["x", "y"]);
    assert_eq!(clients[0].next().offer().0, peer(3));
    let (from, id) = clients[1].next().offer();
    clients[1].answer(torrent(1), peer(2), from, &id);
}

#[test]
fn a_client_that_does_not_read_is_disconnected_and_others_do_not_notice() {
    let (tracker, metric) =
        start_with_metrics(&["client.max_message_rate=0", "client.max_unsent_bytes=65536"]);
    let stream = tcp("127.0.0.1", tracker.address());
    SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
    let mut deaf: Plain = Client::over(stream, request());
    deaf.announce(torrent(1), peer(1), 1, &[]);
    let mut reader = Plain::connect(tracker.address());
    reader.announce(torrent(1), peer(2), 1, &[]);
    let mut flood = Plain::connect(tracker.address());
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut relayed = 0;
    while metric("aquatic_connections_ended_total{protocol=\"ws\",reason=\"overfull\"}") == 0.0 {
        assert!(Instant::now() < deadline, "it is to be disconnected");
        for _ in 0..500 {
            flood.announce(torrent(1), peer(3), 1, &["a", "b"]);
            assert_eq!(reader.next().offer().0, peer(3), "after {relayed}");
            relayed += 1;
        }
    }
    assert_eq!(flood.leechers(torrent(1)), 2, "and its peers have gone");
}

#[test]
fn too_many_messages_are_read_more_slowly() {
    let (tracker, metric) =
        start_with_metrics(&["client.max_message_rate=10", "client.max_message_burst=10"]);
    let mut client = Plain::connect(tracker.address());
    let mut text = String::new();
    ClientMessage::Scrape(Scrape { info_hashes: vec![torrent(1)] }).encode(&mut text);
    let start = Instant::now();
    for _ in 0..35 {
        client.send_text(&text);
        assert!(matches!(client.next(), Got::Scrape(_)));
    }
    assert!(start.elapsed() >= Duration::from_millis(1500), "{:?}", start.elapsed());
    assert!(metric("aquatic_connections_throttled_total{protocol=\"ws\"") >= 2.0);
}

#[test]
fn the_access_list_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    std::fs::write(&path, format!("{}\n", torrent(1))).unwrap();
    let tracker = start(&["access_list.mode=allow", &format!("access_list.path={}", path.display())]);
    let mut client = Plain::connect(tracker.address());
    client.announce(torrent(1), peer(1), 1, &[]).counts();
    let refused = client.announce(torrent(2), peer(1), 1, &[]);
    assert_eq!(refused.reason(), "this tracker does not serve this torrent");
    assert_eq!(client.leechers(torrent(2)), 0);
    std::fs::write(&path, format!("{}\n", torrent(2))).unwrap();
    let mut tracker = tracker;
    tracker.signal("USR1");
    tracker.wait_for_log("access list");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !matches!(client.announce(torrent(2), peer(1), 1, &[]), Got::Reply { .. }) {
        assert!(Instant::now() < deadline);
    }
}
