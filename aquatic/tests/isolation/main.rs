//! The overload of one protocol does not starve another: response times of a polite client while others flood
//! the same process. `scripts/bench/isolation` measures the same with the load tests.

#![allow(clippy::print_stdout, reason = "tables and figures for whoever runs it with --nocapture")]
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed, and measures and waits for another process"
)]

#[allow(dead_code, reason = "shared with the tests of aquatic http")]
#[path = "../http/client.rs"]
mod http;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "shared with the tests of aquatic all")]
#[path = "../all/tracker.rs"]
mod tracker;
#[allow(dead_code, reason = "shared with the tests of aquatic all")]
#[path = "../all/udp.rs"]
mod udp;
#[allow(dead_code, reason = "shared with the tests of aquatic ws")]
#[path = "../ws/client.rs"]
mod ws;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aquatic_common::AnnounceEvent;
use tungstenite::client;

use support::torrent;
use tracker::{Addresses, start_all};

/// Requests of the polite client, and the time between two.
const REQUESTS: u32 = 600;
const PERIOD: Duration = Duration::from_millis(3);

/// Maximum 99th percentile of the response times during a flood. On machines that are busy otherwise, a
/// multiple of the undisturbed one.
const MAX_P99: Duration = Duration::from_millis(50);
const MAX_RATIO: u32 = 4;

/// Attempts, because somebody else may flood the machine, and the pause after the first, which grows.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_secs(1);

/// Requests or connections of the floods.
static FLOODED: AtomicU64 = AtomicU64::new(0);

type Flood = fn(&Addresses);

/// One connection per request, with its end.
fn connections(addresses: &Addresses) {
    let Ok(mut stream) = TcpStream::connect(addresses.tcp_v4) else { return };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        http::announce(&torrent(1), 1, "")
    );
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut Vec::new());
}

/// A connection over which requests are pipelined.
fn pipelined(addresses: &Addresses) {
    let mut client = http::Plain::connect(addresses.tcp_v4);
    let requests: String =
        (0..16).map(|number| http::request(&http::announce(&torrent(number), 1, ""))).collect();
    for _ in 0..50 {
        client.send(&requests);
        (0..16).for_each(|_| drop(client.response()));
    }
}

/// A connection that is upgraded and ends.
fn upgrades(addresses: &Addresses) {
    let _ = client(ws::request(), ws::tcp("127.0.0.1", addresses.tcp_v4));
}

/// Datagrams whose responses nobody reads.
fn datagrams(addresses: &Addresses) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(addresses.udp_v4).unwrap();
    let request = udp::Client::connect_request();
    (0..1000).for_each(|_| drop(socket.send(&request)));
}

/// Runs `measure` while others flood the tracker.
fn while_flooded<T>(addresses: &Addresses, floods: &[Flood], measure: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for flood in floods {
            scope.spawn(|| {
                // A flood comes from other machines: it must not take the processor from the tracker.
                rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    flood(addresses);
                    FLOODED.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let result = measure();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// The 99th percentile of the response times of a polite client.
fn p99(mut request: impl FnMut(u32)) -> Duration {
    let mut times: Vec<Duration> = (0..REQUESTS)
        .map(|number| {
            thread::sleep(PERIOD);
            let begin = Instant::now();
            request(number);
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn p99_over_udp(tracker: SocketAddr) -> Duration {
    let client = udp::Client::connect(tracker);
    p99(|number| drop(client.announce(torrent(number % 50), 1, AnnounceEvent::None)))
}

fn p99_over_http(tracker: SocketAddr) -> Duration {
    let mut client = http::Plain::connect(tracker);
    p99(|number| drop(client.get(&http::announce(&torrent(number % 50), 1, ""))))
}

fn assert_isolated(name: &str, floods: &[Flood], probe: fn(&Addresses) -> Duration) {
    // One core, on which all meet.
    let (_tracker, addresses) = start_all(None, &["workers=1"]);
    for attempt in 1..=ATTEMPTS {
        let undisturbed = probe(&addresses);
        FLOODED.store(0, Ordering::Relaxed);
        let flooded = while_flooded(&addresses, floods, || probe(&addresses));
        let rounds = FLOODED.load(Ordering::Relaxed);
        println!("{name}: p99 {undisturbed:?} undisturbed, {flooded:?} during {rounds} rounds of the flood");
        assert!(rounds > 0, "there was no flood");
        if flooded < MAX_P99.max(MAX_RATIO * undisturbed) {
            return;
        }
        assert!(attempt < ATTEMPTS, "{name}: p99 {flooded:?} instead of {undisturbed:?}");
        thread::sleep(attempt * PAUSE);
    }
}

#[test]
fn floods_of_one_protocol_leave_the_others_their_time() {
    let tcp: [Flood; 3] = [connections, pipelined, upgrades];
    assert_isolated("UDP during HTTP and WebSocket", &tcp, |addresses| p99_over_udp(addresses.udp_v4));
    let udp: [Flood; 1] = [datagrams];
    assert_isolated("HTTP during UDP", &udp, |addresses| p99_over_http(addresses.tcp_v4));
}
