//! Services that share one core: work of one does not keep another from its own.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::http;
use crate::support::{REPLY, eventually, metric, torrent};
use crate::tracker::{Addresses, start_all};
use crate::udp;

/// Connections over HTTP that keep the core busy, and requests that each sends at once.
const CONNECTIONS: usize = 4;
const PIPELINED: usize = 32;

const BURSTS: usize = 20;
const BURST: usize = 100;

fn keep_busy(addresses: Addresses, is_over: &AtomicBool) {
    let mut client = http::Plain::connect(addresses.tcp_v4);
    let requests = http::request(&http::announce(&torrent(1), 6881, "")).repeat(PIPELINED);
    while !is_over.load(Ordering::Relaxed) {
        client.send(&requests);
        for _ in 0..PIPELINED {
            assert_eq!(client.response().status(), 200);
        }
    }
}

/// Sends UDP requests in bursts and waits for all replies to each.
fn send_bursts(addresses: Addresses) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(addresses.udp_v4).unwrap();
    socket.set_read_timeout(Some(REPLY)).unwrap();
    for _ in 0..BURSTS {
        for _ in 0..BURST {
            assert_eq!(socket.send(&udp::Client::connect_request()).unwrap(), 16);
        }
        for _ in 0..BURST {
            assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 16);
        }
    }
}

#[test]
fn udp_requests_are_received_together_while_http_keeps_the_core_busy() {
    let settings = ["workers=1", "rate_limits.mode=off", "rate_limits.udp_overload_control=false"];
    let (tracker, addresses) = start_all(None, &settings);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| keep_busy(addresses, &is_over));
        }
        send_bursts(addresses);
        is_over.store(true, Ordering::Relaxed);
    });
    let batches = |part: &str| {
        metric(
            tracker.metrics.unwrap(),
            &format!("aquatic_batch_size_{part}{{protocol=\"udp\",family=\"ipv4\""),
        )
    };
    let received = eventually(|| batches("sum"), |sum| *sum >= (BURSTS * BURST) as f64);
    let count = batches("count");
    assert!(received / count > 16.0, "{received} requests in {count} batches");
}
