//! What the log says of requests.

use aquatic_common::AnnounceEvent;

use crate::support::torrent;
use crate::tracker::start_all;
use crate::{http, udp, ws};

#[test]
fn at_level_trace_every_request_and_refusal_is_logged() {
    let (mut tracker, addresses) = start_all(None, &["log_level=trace", "workers=1"]);
    let torrent = torrent(1);

    let client = udp::Client::connect(addresses.udp_v4);
    client.announce(torrent, 1000, AnnounceEvent::Started);
    client.leechers(torrent);
    client.exchange(&client.announce_request(torrent, 0, AnnounceEvent::Started));
    for text in ["connect", "announce", "scrape"] {
        let line = tracker.wait_for_log(&format!("udp: {text} of 127.0.0.1:"));
        assert_eq!(line.contains(&torrent.to_string()), text != "connect", "{line}");
    }
    tracker.wait_for_log("refused: port_zero");

    let mut client = http::Plain::connect(addresses.tcp_v4);
    client.get(&http::announce(&torrent, 1001, "&left=0"));
    let line = tracker.wait_for_log(&format!("http: announce: torrent {torrent}, peer 127.0.0.1:1001"));
    assert!(line.contains(", seeder, "), "{line}");
    client.get("/announce?info_hash=short");
    tracker.wait_for_log("http: request from 127.0.0.1 refused: info_hash_length");

    let mut browser = ws::Plain::connect(addresses.tcp_v4);
    browser.announce(torrent, ws::peer(1), 1, &[]);
    let line = tracker.wait_for_log(" is 127.0.0.1's");
    let connection = line.split_once("connection ").unwrap().1.split_once(' ').unwrap().0;
    let line = tracker.wait_for_log(&format!("ws: connection {connection}: Announce"));
    assert!(line.contains(&torrent.to_string()), "{line}");
    browser.send_text("[");
    tracker.wait_for_log(&format!("ws: connection {connection}: message refused: not_json"));
}
