//! Limits of connections and swarms, and their metrics.

use std::time::{Duration, Instant};

use aquatic_common::{AnnounceEvent, InfoHash};
use aquatic_ws_protocol::{ClientMessage, Scrape};
use socket2::SockRef;

use crate::client::{Client, Got, Plain, peer, request, start, tcp};
use crate::support::{Tracker, eventually, metric, torrent};

impl Plain {
    /// Returns the number of offers that have come before the reply to a scrape.
    fn offers_so_far(&mut self, torrent: InfoHash) -> usize {
        self.send(&ClientMessage::Scrape(Scrape { info_hashes: vec![torrent] }));
        let mut offers = 0;
        loop {
            match self.next() {
                Got::Scrape(_) => return offers,
                offer => {
                    offer.offer();
                    offers += 1;
                }
            }
        }
    }
}

fn start_with_metrics(settings: &[&str]) -> (Tracker, impl Fn(&str) -> f64) {
    let tracker = start(&[&["metrics.enable=true", "metrics.address=127.0.0.1:0"], settings].concat());
    let metrics = tracker.metrics.unwrap();
    (tracker, move |series: &str| metric(metrics, series))
}

#[test]
fn offers_and_peers_of_a_connection_are_limited() {
    let (tracker, metric) =
        start_with_metrics(&["ws.max_offers=2", "ws.client.max_peers=4", "ws.client.max_peer_ids=2"]);
    let mut others: Vec<Plain> = (0..4).map(|_| Plain::connect(tracker.address())).collect();
    for (number, other) in (10..).zip(&mut others) {
        other.announce(torrent(1), peer(number), 1, &[]);
    }
    let mut one = Plain::connect(tracker.address());
    one.announce(torrent(1), peer(1), 1, &["a", "b", "c", "d"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut offered = 0;
    while offered < 2 {
        offered += others.iter_mut().map(|other| other.offers_so_far(torrent(1))).sum::<usize>();
        assert!(Instant::now() < deadline, "{offered} offers");
    }
    offered += others.iter_mut().map(|other| other.offers_so_far(torrent(1))).sum::<usize>();
    assert_eq!(offered, 2);
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
fn one_connection_cannot_fill_a_torrent() {
    let (tracker, metric) = start_with_metrics(&[]);
    let mut one = Plain::connect(tracker.address());
    for number in 1..=4 {
        assert_eq!(one.announce(torrent(1), peer(number), 1, &[]).counts(), (0, number.into()));
    }
    let refused = one.announce(torrent(1), peer(5), 1, &[]);
    assert_eq!(refused.reason(), "too many peers in the torrent over one connection");
    assert_eq!(one.announce(torrent(1), peer(4), 1, &[]).counts(), (0, 4), "known peers are updated");
    one.stop(torrent(1), peer(4));
    assert_eq!(one.announce(torrent(1), peer(5), 1, &[]).counts(), (0, 4));
    // A peer id per torrent is what some clients use.
    for number in 10..30 {
        assert_eq!(one.announce(torrent(number.into()), peer(number), 1, &[]).counts(), (0, 1));
    }
    assert_eq!(metric("aquatic_refused_total{protocol=\"ws\",reason=\"connection_torrent_peers\"}"), 1.0);
}

#[test]
fn at_a_limit_of_the_tracker_it_still_answers() {
    let (tracker, metric) = start_with_metrics(&["ws.limits.max_peers_per_torrent=2"]);
    let mut clients: Vec<Plain> = (0..3).map(|_| Plain::connect(tracker.address())).collect();
    for (number, client) in (1..).zip(&mut clients) {
        assert_eq!(client.announce(torrent(1), peer(number), 1, &[]).counts(), (0, u32::from(number.min(2))));
    }
    assert_eq!(metric("aquatic_not_stored_total{swarms=\"webtorrent\""), 1.0);
    // Offers of a peer that is not stored are not relayed, as no answer could reach it.
    clients[2].announce(torrent(1), peer(3), 1, &["x", "y"]);
    clients[0].announce(torrent(1), peer(1), 1, &["z"]);
    let (from, id) = clients[1].next().offer();
    assert_eq!(from, peer(1));
    clients[1].answer(torrent(1), peer(2), from, &id);
}

/// The store of a core has 2 MiB here: the least.
#[test]
fn memory_is_bounded_and_announces_are_answered_all_the_time() {
    const LIMITS: [&str; 3] = ["limits.max_memory=16MiB", "workers=1", "ws.client.max_message_rate=0"];
    const PEERS: u32 = 1000;
    let (mut tracker, metric) = start_with_metrics(&LIMITS);
    let mut numbers = 0..;
    for _ in 0..20 {
        let mut client = Plain::connect(tracker.address());
        for number in numbers.by_ref().take(PEERS as usize) {
            client.send_announce(torrent(number), peer(1), Some(1), AnnounceEvent::Started, &[]);
        }
        (0..PEERS).for_each(|_| assert!(client.next().counts().1 <= 1));
        // Its peers stay.
        std::mem::forget(client);
    }
    tracker.wait_for_log("no new WebTorrent peers are stored");
    let counted = || {
        (
            metric("aquatic_peers{swarms=\"webtorrent\""),
            metric("aquatic_not_stored_total{reason=\"max_memory\""),
        )
    };
    let all = f64::from(20 * PEERS);
    let (stored, _) = eventually(counted, |(stored, refused)| stored + refused == all);
    assert!((3000.0..15_000.0).contains(&stored), "{stored}");
    assert_eq!(metric("aquatic_memory_degradation{swarms=\"webtorrent\",step=\"new_peers\""), 1.0);
    assert_eq!(metric("aquatic_store_budget_bytes"), f64::from(2 << 20));
}

/// Floods a swarm with offers until a condition holds, while one peer receives all of them.
fn flood(tracker: &Tracker, mut until: impl FnMut(&mut Plain) -> bool) {
    let mut reader = Plain::connect(tracker.address());
    reader.announce(torrent(1), peer(2), 1, &[]);
    let mut flood = Plain::connect(tracker.address());
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(Instant::now() < deadline);
        for _ in 0..200 {
            flood.announce(torrent(1), peer(3), 1, &["a", "b"]);
            assert_eq!(reader.next().offer().0, peer(3));
        }
        if until(&mut flood) {
            return;
        }
    }
}

fn deaf(tracker: &Tracker) -> Plain {
    let stream = tcp("127.0.0.1", tracker.address());
    SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
    let mut deaf: Plain = Client::over(stream, request());
    deaf.announce(torrent(1), peer(1), 1, &[]);
    deaf
}

const DEAF: [&str; 3] =
    ["ws.client.max_message_rate=0", "ws.client.max_unsent_bytes=65536", "ws.client.send_timeout=3"];

#[test]
fn a_client_that_does_not_read_is_disconnected_without_effect_on_others() {
    let (tracker, metric) = start_with_metrics(&DEAF);
    let _deaf = deaf(&tracker);
    flood(&tracker, |flood| flood.leechers(torrent(1)) == 2);
    assert_eq!(metric("aquatic_connections_ended_total{protocol=\"ws\",reason=\"slow_receiver\"}"), 1.0);
    assert!(metric("aquatic_relays_dropped_total{protocol=\"ws\",reason=\"receiver_full\"}") > 0.0);
}

#[test]
fn a_flood_of_offers_does_not_end_the_connection_of_a_slow_client() {
    let (tracker, metric) = start_with_metrics(&DEAF);
    let mut slow = Plain::connect(tracker.address());
    slow.announce(torrent(1), peer(1), 1, &[]);
    flood(&tracker, |_| {
        // It receives one of hundreds of offers.
        slow.next().offer();
        metric("aquatic_relays_dropped_total{protocol=\"ws\",reason=\"receiver_full\"}") > 0.0
    });
    // It is connected, and is served once it has caught up.
    slow.send_announce(torrent(9), peer(1), Some(1), AnnounceEvent::Started, &[]);
    while !matches!(slow.next(), Got::Reply { .. }) {}
}

#[test]
fn a_client_that_sends_requests_without_reading_is_disconnected() {
    let (tracker, metric) = start_with_metrics(&DEAF);
    let mut deaf = deaf(&tracker);
    let mut text = String::new();
    ClientMessage::Scrape(Scrape { info_hashes: (0..60).map(torrent).collect() }).encode(&mut text);
    // At first it is not read from, and then its time is over.
    deaf.socket.get_ref().set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    while deaf.socket.send(tungstenite::Message::text(text.clone())).is_ok() {}
    let ended =
        |reason| metric(&format!("aquatic_connections_ended_total{{protocol=\"ws\",reason=\"{reason}\"}}"));
    assert_eq!((ended("slow_receiver"), ended("send_queue_full")), (1.0, 0.0));
}

#[test]
fn too_many_messages_are_read_more_slowly() {
    let (mut tracker, metric) =
        start_with_metrics(&["ws.client.max_message_rate=10", "ws.client.max_message_burst=10"]);
    let mut client = Plain::connect(tracker.address());
    let mut text = String::new();
    ClientMessage::Scrape(Scrape { info_hashes: vec![torrent(1)] }).encode(&mut text);
    let start = Instant::now();
    (0..45).for_each(|_| client.send_text(&text));
    (0..45).for_each(|_| assert!(matches!(client.next(), Got::Scrape(_))));
    // The burst was served at once. Now it counts against the rate.
    client.send_text(&text);
    assert!(matches!(client.next(), Got::Scrape(_)));
    assert!(start.elapsed() >= Duration::from_millis(1500), "{:?}", start.elapsed());
    assert!(metric("aquatic_connections_throttled_total{protocol=\"ws\"") >= 2.0);
    let line = tracker.wait_for_log("above their message rate");
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn the_access_list_applies_and_is_reloaded() {
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
    let deadline = Instant::now() + Duration::from_secs(60);
    while !matches!(client.announce(torrent(2), peer(1), 1, &[]), Got::Reply { .. }) {
        assert!(Instant::now() < deadline);
    }
}
