//! HTTP and WebSocket on one TCP port, with and without TLS.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use aquatic_common::AnnounceEvent;
use aquatic_ws_protocol::{Announce, ClientMessage};
use tungstenite::WebSocket;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::Role;

use crate::support::{REPLY, STOP, Tracker, metric, torrent};
use crate::tracker::{Certificate, start, start_all};
use crate::{http, udp, ws};

#[test]
fn health_is_the_same_over_plain_and_tls() {
    let certificate = Certificate::new();
    let (_tracker, addresses) = start_all(Some(&certificate), &["workers=2"]);
    for address in [addresses.tcp_v4, addresses.tcp_v6] {
        let plain = http::Plain::connect(address).get("/health");
        let encrypted = http::Client::over(certificate.connect(address)).get("/health");
        assert_eq!((plain.status(), plain.text()), (200, "ok\n"));
        assert_eq!(plain, encrypted);
    }
}

#[test]
fn websocket_is_accepted_on_any_path_of_the_announce_port() {
    let certificate = Certificate::new();
    let (_tracker, addresses) = start_all(Some(&certificate), &["workers=2"]);
    for path in ["/", "/announce", "/scrape", "/health", "/any/thing?at=all&info_hash=x", "//"] {
        let request = || format!("ws://tracker.example{path}").into_client_request().unwrap();
        let torrent = torrent(1);
        let mut plain = ws::Client::over(ws::tcp("127.0.0.1", addresses.tcp_v4), request());
        assert_eq!(plain.announce(torrent, ws::peer(1), 1, &[]).counts(), (0, 1), "{path}");
        let mut encrypted = ws::Client::over(certificate.connect(addresses.tcp_v6), request());
        assert_eq!(encrypted.announce(torrent, ws::peer(2), 1, &[]).counts(), (0, 2), "{path}");
        plain.stop(torrent, ws::peer(1));
        encrypted.stop(torrent, ws::peer(2));
    }
}

#[test]
fn plain_requests_to_a_port_with_tls_only_are_told_so() {
    let certificate = Certificate::new();
    let settings = certificate.settings();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    // UDP, https and wss for each family.
    let tracker = start("all", 6, &settings);
    let tcp = tracker.addresses[2];
    for request in [http::request("/health"), http::request(&http::announce(&torrent(1), 1, ""))] {
        let mut plain = http::Plain::connect(tcp);
        plain.send(request);
        let response = plain.response();
        assert_eq!(response.status(), 400);
        assert!(response.text().contains("requires TLS"), "{}", response.text());
        plain.ends_somehow();
    }
    assert_eq!(http::Client::over(certificate.connect(tcp)).get("/health").status(), 200);
    let mut browser = ws::Client::over(certificate.connect(tcp), ws::request());
    assert_eq!(browser.announce(torrent(1), ws::peer(1), 1, &[]).counts(), (0, 1));
}

/// The frame of a client's text with the masking key 0.
fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    assert!(length > 125, "such frames have a length of two bytes");
    [&[0x81, 0x80 | 126][..], &length.to_be_bytes(), &[0; 4], text.as_bytes()].concat()
}

fn announce_text(number: u32) -> String {
    let mut text = String::new();
    ClientMessage::Announce(Announce {
        info_hash: torrent(number),
        peer_id: ws::peer(1),
        left: Some(1),
        event: AnnounceEvent::Started,
        offers: Vec::new(),
        bad_offers: 0,
    })
    .encode(&mut text);
    text
}

/// Sends requests over HTTP, an upgrade and a message, all at once, and asserts that they are answered in
/// order.
fn pipeline<S: Read + Write>(stream: S, first: u32) -> ws::Client<S> {
    let mut client = http::Client::over(stream);
    let info_hashes = [0, 1, 2].map(|number| torrent(first + number));
    let announces = info_hashes.map(|info_hash| http::request(&http::announce(&info_hash, 1, "")));
    let upgrade = "GET /announce HTTP/1.1\r\nHost: tracker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let requests =
        [announces.concat(), http::request(&http::scrape(&info_hashes)), upgrade.to_owned()].concat();
    client.send([requests.as_bytes(), &frame(&announce_text(first))].concat());
    for _ in info_hashes {
        assert_eq!(client.response().announce().incomplete, Some(1));
    }
    assert!(client.response().files().iter().all(|file| file.incomplete == 1));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the example of RFC 6455: {head}");
    let socket = WebSocket::from_partially_read(client.stream, client.received, Role::Client, None);
    let mut browser = ws::Client { socket };
    assert_eq!(browser.next().counts(), (0, 1));
    browser
}

#[test]
fn requests_may_be_pipelined_before_an_upgrade() {
    let certificate = Certificate::new();
    let (_tracker, addresses) = start_all(Some(&certificate), &["workers=2"]);
    for attempt in 0..10 {
        pipeline(ws::tcp("127.0.0.1", addresses.tcp_v4), 20 * attempt);
        pipeline(certificate.connect(addresses.tcp_v4), 20 * attempt + 10);
    }
}

/// Waits until metrics have these values.
fn wait_for_metrics(address: SocketAddr, expected: &[(&str, f64)]) {
    let begin = Instant::now();
    loop {
        let values: Vec<f64> = expected.iter().map(|(series, _)| metric(address, series)).collect();
        if expected.iter().zip(&values).all(|((_, expected), value)| expected == value) {
            return;
        }
        assert!(begin.elapsed() < REPLY, "{values:?} instead of {expected:?}");
        http::pause(20);
    }
}

#[test]
fn a_connection_is_counted_as_http_until_its_upgrade() {
    const HTTP: &str = "aquatic_connections{protocol=\"http\"";
    const WS: &str = "aquatic_connections{protocol=\"ws\"";
    let (tracker, addresses) = start_all(None, &["workers=2"]);
    let metrics = tracker.metrics.unwrap();
    let mut idle = http::Plain::connect(addresses.tcp_v4);
    idle.get("/health");
    wait_for_metrics(metrics, &[(HTTP, 1.0), (WS, 0.0)]);
    let mut other = http::Plain::connect(addresses.tcp_v4);
    other.get("/health");
    wait_for_metrics(metrics, &[(HTTP, 2.0), (WS, 0.0)]);
    let browser = pipeline(other.stream, 0);
    wait_for_metrics(metrics, &[(HTTP, 1.0), (WS, 1.0)]);
    let accepted = "aquatic_connections_accepted_total{protocol=\"http\"";
    wait_for_metrics(metrics, &[(accepted, 2.0), ("aquatic_connections_accepted_total", 2.0)]);
    drop(browser);
    wait_for_metrics(metrics, &[(HTTP, 1.0), (WS, 0.0)]);
    drop(idle);
    wait_for_metrics(metrics, &[(HTTP, 0.0), (WS, 0.0)]);
}

/// Time of day of a line of the log, in seconds.
fn time_of(log: &str, text: &str) -> u64 {
    let line = log.lines().find(|line| line.contains(text)).unwrap();
    let time = line.split_once('T').and_then(|(_, rest)| rest.get(..8)).unwrap();
    time.split(':').fold(0, |sum, part| 60 * sum + part.parse::<u64>().unwrap())
}

/// Asserts that a tracker ends in time by its own clock, and with success.
fn assert_stops(tracker: Tracker) {
    tracker.signal("TERM");
    // Clients that say nothing have three seconds; the rest is for machines that are busy otherwise.
    let (code, _, log) = tracker.end_within(2 * STOP);
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("panic"), "{log}");
    let seconds = time_of(&log, "stopped").saturating_sub(time_of(&log, "stopping"));
    assert!(seconds <= STOP.as_secs(), "{log}");
}

#[test]
fn sigterm_ends_all_protocols_in_time() {
    let certificate = Certificate::new();
    let (tracker, addresses) = start_all(Some(&certificate), &["workers=2"]);
    let over_udp = udp::Client::connect(addresses.udp_v4);
    over_udp.announce(torrent(1), 1, AnnounceEvent::Started);
    let mut idle = http::Plain::connect(addresses.tcp_v4);
    idle.get("/health");
    let mut cut = http::Plain::connect(addresses.tcp_v6);
    cut.send("GET /announce?info_hash=");
    let silent = http::Plain::connect(addresses.tcp_v4);
    let mut secure = http::Client::over(certificate.connect(addresses.tcp_v4));
    secure.get("/health");
    let mut handshaking = http::Plain::connect(addresses.tcp_v4);
    handshaking.send([0x16, 3, 1, 2, 0, 1, 0]);
    let mut browser = ws::Plain::connect(addresses.tcp_v4);
    browser.announce(torrent(1), ws::peer(1), 1, &[]);
    let mut secure_browser = ws::Client::over(certificate.connect(addresses.tcp_v6), ws::request());
    secure_browser.announce(torrent(2), ws::peer(2), 1, &[]);

    assert_stops(tracker);
    for end in [browser.next(), secure_browser.next()] {
        assert_eq!(end, ws::Got::Close(Some(1001)));
    }
    drop((idle, cut, silent, secure, handshaking));
}
