//! Breakers by hand: one protocol and family is not served, which is counted, and the others are.

use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use aquatic_common::AnnounceEvent;
use tempfile::TempDir;

use crate::support::{Tracker, eventually, metric, torrent};
use crate::tracker::{Addresses, start_all};
use crate::{http, udp, ws};

/// Time after which no reply to a datagram is expected any more.
const NO_REPLY: Duration = Duration::from_millis(300);

/// Announces that are sent to a service that is switched off.
const SENT: u32 = 20;

/// A request for a WebSocket.
const UPGRADE: &str = "GET /announce HTTP/1.1\r\nHost: tracker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

struct Fixture {
    _tracker: Tracker,
    addresses: Addresses,
    metrics: SocketAddr,
    directory: TempDir,
}

impl Fixture {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = format!("state_directory={}", directory.path().display());
        let (mut tracker, addresses) = start_all(None, &["workers=2", &state]);
        // The control socket comes after the others.
        tracker.wait_for_log("ready: ");
        let metrics = tracker.metrics.unwrap();
        Self { _tracker: tracker, addresses, metrics, directory }
    }

    /// Sets breakers: a mode, and options that choose them.
    fn set(&self, words: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatic"));
        command.args(["ctl", "-s"]).arg(self.directory.path().join("control.sock")).arg("breaker");
        let output = command.args(words.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The sum of the series of a metric that have these labels.
    fn sum(&self, name: &str, labels: &str) -> f64 {
        metric(self.metrics, &format!("{name}{{{labels}"))
    }

    /// Datagrams that were dropped because of an open breaker, by the tracker and by the kernel.
    fn dropped(&self, family: &str) -> f64 {
        let labels = format!("protocol=\"udp\",family=\"{family}\"");
        let labels = format!("{labels},reason=\"breaker\"");
        self.sum("aquatic_kernel_filtered_total", &labels) + self.sum("aquatic_dropped_total", &labels)
    }
}

/// Announces for some torrents, spread over the cores, and returns the number of replies.
fn replies(client: &udp::Client) -> u32 {
    for number in 0..SENT {
        client.socket.send(&client.announce_request(torrent(number), 1, AnnounceEvent::None)).unwrap();
    }
    client.socket.set_read_timeout(Some(NO_REPLY)).unwrap();
    let mut received = 0;
    while received < SENT && client.socket.recv(&mut [0; 2048]).is_ok() {
        received += 1;
    }
    received
}

/// Announces every millisecond while something is done.
fn send_meanwhile(client: &udp::Client, act: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    let announce = client.announce_request(torrent(1), 1, AnnounceEvent::None);
    let socket = &client.socket;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = socket.send(&announce);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let outcome = catch_unwind(AssertUnwindSafe(act));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

fn is_served_over_http(address: SocketAddr) -> bool {
    http::Plain::connect(address).get(&http::announce(&torrent(1), 1, "")).announce().complete == Some(0)
}

#[test]
fn udp_of_one_family_is_switched_off_and_on_again() {
    let fixture = Fixture::start();
    let addresses = fixture.addresses;
    let (v4, v6) = (udp::Client::connect(addresses.udp_v4), udp::Client::connect(addresses.udp_v6));
    assert_eq!((replies(&v4), replies(&v6)), (SENT, SENT));
    assert_eq!((fixture.dropped("ipv4"), fixture.dropped("ipv6")), (0.0, 0.0));

    let other = udp::Client::connect(addresses.udp_v4);
    send_meanwhile(&other, || {
        // Until the kernel has its filter, which may be at once, the tracker drops what comes.
        const BREAKER: &str = "protocol=\"udp\",family=\"ipv4\",reason=\"breaker\"";
        let by_the_tracker = || {
            fixture.set("automatic --protocol udp");
            eventually(|| replies(&v4), |replies| *replies == SENT);
            fixture.set("open --protocol udp --family ipv4");
            thread::sleep(Duration::from_secs(1));
            fixture.sum("aquatic_dropped_total", BREAKER)
        };
        eventually(by_the_tracker, |dropped| *dropped > 0.0);
    });
    // Cores learn it one by one, and count what the kernel has dropped twice a second.
    eventually(
        || {
            let before = fixture.dropped("ipv4");
            (replies(&v4), fixture.dropped("ipv4") - before)
        },
        |(replies, dropped)| *replies == 0 && *dropped >= f64::from(SENT),
    );
    let by_the_kernel = || fixture.sum("aquatic_kernel_filtered_total", "protocol=\"udp\",family=\"ipv4\"");
    eventually(|| (replies(&v4), by_the_kernel()).1, |dropped| *dropped > 0.0);
    assert_eq!(replies(&v6), SENT, "the other family is served");
    assert_eq!(fixture.dropped("ipv6"), 0.0);
    assert!(is_served_over_http(addresses.tcp_v4), "and the other protocols");
    ws::Plain::connect(addresses.tcp_v4);

    fixture.set("automatic --protocol udp");
    eventually(|| replies(&v4), |replies| *replies == SENT);
    let after = fixture.dropped("ipv4");
    assert_eq!(replies(&v4), SENT);
    assert_eq!(fixture.dropped("ipv4"), after, "nothing is dropped any more");
}

#[test]
fn webtorrent_of_one_family_is_switched_off_and_on_again() {
    const REFUSED: &str = "protocol=\"ws\",reason=\"breaker\"";
    let fixture = Fixture::start();
    let addresses = fixture.addresses;
    let mut browser = ws::Plain::connect(addresses.tcp_v4);
    assert_eq!(browser.announce(torrent(1), ws::peer(1), 1, &[]).counts(), (0, 1));

    fixture.set("open --protocol ws --family ipv4");
    let refused = |address| {
        let mut client = http::Plain::connect(address);
        client.send(UPGRADE);
        client.head().starts_with("HTTP/1.1 503 ")
    };
    // Cores learn it one by one, and any of them may get a connection.
    eventually(|| (0..8).filter(|_| refused(addresses.tcp_v4)).count(), |count| *count == 8);
    let before = fixture.sum("aquatic_refused_total", REFUSED);
    let mut client = http::Plain::connect(addresses.tcp_v4);
    client.send(UPGRADE);
    let response = client.response();
    assert_eq!(response.status(), 503);
    assert_eq!(response.text(), "WebTorrent is not served over this address family at present\n");
    assert_eq!(fixture.sum("aquatic_refused_total", REFUSED), before + 1.0);
    assert!(is_served_over_http(addresses.tcp_v4), "HTTP of the same port is served");
    assert_eq!(browser.announce(torrent(1), ws::peer(1), 1, &[]).counts(), (0, 1), "who was there stays");
    let mut other = ws::Plain::connect(addresses.tcp_v6);
    assert_eq!(
        other.announce(torrent(1), ws::peer(2), 1, &[]).counts(),
        (0, 2),
        "the other family is served"
    );

    // With HTTP switched off as well, nothing is left that a connection could ask for.
    const CLOSED: &str = "aquatic_connections_refused_total{reason=\"breaker\"";
    assert_eq!(metric(fixture.metrics, CLOSED), 0.0);
    fixture.set("open --protocol http --family ipv4");
    eventually(
        || {
            drop(TcpStream::connect(addresses.tcp_v4));
            metric(fixture.metrics, CLOSED)
        },
        |closed| *closed > 0.0,
    );
    assert!(is_served_over_http(addresses.tcp_v6));

    fixture.set("automatic");
    eventually(|| (0..8).filter(|_| refused(addresses.tcp_v4)).count(), |count| *count == 0);
    ws::Plain::connect(addresses.tcp_v4).announce(torrent(1), ws::peer(3), 1, &[]);
}
