//! Upgrades while clients are served: every request is answered, and nothing is forgotten.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aquatic_common::AnnounceEvent;

use crate::support::{REPLY, eventually, fetch, metric};
use crate::udp::Client;
use crate::{Home, is_running, on_loopback, signal, torrent, until_ended};

/// Upgrades in a row.
const UPGRADES: u32 = 3;

/// A connection that is kept for as long as the tracker does.
struct Kept {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Kept {
    /// Announces once. A connection that the tracker ended between two requests is replaced, as clients do.
    fn announce(&mut self, number: u32, port: u16) {
        let hash: String = torrent(number).0.iter().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!(
            "/announce?info_hash={hash}&peer_id=aaaaaaaaaaaaaaaaaaaa&port={port}&uploaded=0&downloaded=0&left=1&compact=1"
        );
        let reply = match self.try_announce(&path) {
            Some(reply) => reply,
            None => self.try_announce(&path).expect("a new connection is served"),
        };
        assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("8:complete"), "{reply}");
        if reply.to_lowercase().contains("connection: close") {
            self.stream = None;
        }
    }

    /// `None` if the connection had been ended before the request.
    fn try_announce(&mut self, path: &str) -> Option<String> {
        let is_new = self.stream.is_none();
        let stream = self.stream.get_or_insert_with(|| {
            let stream = TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(REPLY)).unwrap();
            stream
        });
        let mut reply = vec![0; 4096];
        let sent = write!(stream, "GET {path} HTTP/1.1\r\nHost: tracker\r\n\r\n");
        match sent.and_then(|()| stream.read(&mut reply)) {
            Ok(length) if length > 0 => Some(String::from_utf8_lossy(&reply[..length]).into_owned()),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                panic!("no reply within {REPLY:?}")
            }
            outcome => {
                assert!(!is_new, "a new connection was ended: {outcome:?}");
                self.stream = None;
                None
            }
        }
    }
}

/// Runs work until told to stop, and returns how often.
#[allow(clippy::disallowed_methods, reason = "the test measures the longest wait of a client")]
fn repeat(stop: &AtomicBool, longest: &AtomicU64, mut work: impl FnMut(u32)) -> u32 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        work(count);
        longest.fetch_max(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
        count += 1;
    }
    count
}

#[test]
fn every_request_is_answered_during_upgrades_and_nothing_is_forgotten() {
    let more = "[upgrade]\ndrain_time = 1\n[udp]\nenable = true\n[ws]\nenable = false";
    let home = Home::new(&on_loopback(None, more));
    let tracker = home.start("all", 2);
    let (udp, http) = (tracker.addresses[0], tracker.addresses[1]);
    let early = Client::connect(udp);
    for number in 0..300 {
        early.announce(torrent(number), 1000, AnnounceEvent::None);
    }
    let (stop, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for nth in 0..3_u16 {
        let (stop, longest) = (Arc::clone(&stop), Arc::clone(&longest));
        clients.push(thread::spawn(move || {
            let client = Client::connect_from(&format!("127.0.0.{}:0", 2 + nth), udp);
            repeat(&stop, &longest, |count| {
                client.announce(torrent(count % 300), 2000 + nth, AnnounceEvent::None);
            })
        }));
    }
    for nth in 0..2_u16 {
        let (stop, longest) = (Arc::clone(&stop), Arc::clone(&longest));
        clients.push(thread::spawn(move || {
            let mut kept = Kept { address: http, stream: None };
            repeat(&stop, &longest, |count| kept.announce(count % 300, 3000 + nth))
        }));
    }
    let mut processes = vec![tracker.id()];
    for _ in 0..UPGRADES {
        let (upgraded, text) = home.upgrade();
        assert!(upgraded, "{text}");
        processes.push(home.pid());
    }
    stop.store(true, Ordering::Relaxed);
    let served: Vec<u32> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(served.iter().all(|count| *count > 0), "{served:?}");
    eprintln!("{served:?} requests, the longest took {} ms", longest.load(Ordering::Relaxed));
    // The connection id of the first process still serves, and all torrents have their peers.
    for number in 0..300 {
        assert!(early.leechers(torrent(number)) >= 1, "torrent {number}");
    }
    let count = served.iter().min().unwrap().min(&300);
    for number in 0..*count {
        assert_eq!(early.leechers(torrent(number)), 6, "torrent {number} of {served:?}");
    }
    let last = processes.pop().unwrap();
    processes.into_iter().for_each(until_ended);
    assert!(is_running(last));
}

#[test]
fn a_predecessor_that_is_killed_while_it_drains_is_not_needed() {
    let home = Home::new(&on_loopback(None, "[upgrade]\ndrain_time = 3600\n[udp]\nenable = false"));
    let tracker = home.start("all", 2);
    let mut kept = Kept { address: tracker.address(), stream: None };
    kept.announce(1, 1000);
    let old = tracker.id();
    assert!(home.upgrade().0);
    // A connection of the old process is served once more, and what it announces reaches the new one.
    assert!(is_running(old));
    kept.announce(2, 1000);
    assert!(kept.stream.is_none(), "the reply was the last one");
    kept.announce(3, 1000);
    // The reply of the old process may come before the new one knows of it.
    let known = || scrape(tracker.address(), &[1, 2, 3]).matches("10:incompletei1e").count();
    eventually(known, |known| *known == 3);
    signal("KILL", old);
    until_ended(old);
    let page = scrape(tracker.address(), &[1, 2, 3]);
    assert_eq!(page.matches("10:incompletei1e").count(), 3, "{page}");
}

/// The old process may serve its connections for an hour.
#[test]
fn a_process_that_has_taken_over_works_while_the_one_before_it_drains() {
    let home = Home::new(&on_loopback(None, "[upgrade]\ndrain_time = 3600\n[udp]\nenable = false"));
    let mut tracker = home.start("all", 2);
    let mut kept: Vec<Kept> = (0..2).map(|_| Kept { address: tracker.address(), stream: None }).collect();
    (1..).zip(&mut kept).for_each(|(number, kept)| kept.announce(number, 1000));
    let old = tracker.id();
    assert!(home.upgrade().0);
    assert!(is_running(old));
    let snapshot = || {
        let output = Command::new(env!("CARGO_BIN_EXE_aquatic"))
            .args(["ctl", "-s", home.path("state/control.sock").to_str().unwrap(), "snapshot"])
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(snapshot().starts_with("snapshot saved"), "{}", snapshot());
    // And what is announced to the old one still arrives.
    kept[0].announce(3, 1000);
    eventually(|| scrape(tracker.address(), &[3]).contains("10:incompletei1e"), |known| *known);
    assert!(is_running(old));
    // Whoever stops the process that has taken over stops the tracker.
    signal("TERM", home.pid());
    until_ended(old);
    tracker.wait_for_log("which has taken over, has ended; so does this one");
    // The directory is free, and everything in the snapshot.
    let again = home.start("all", 2);
    eventually(
        || scrape(again.address(), &[1, 2, 3]).matches("10:incompletei1e").count(),
        |known| *known == 3,
    );
}

/// What is announced to the first of three processes gets to the last one through the one between.
#[test]
#[allow(clippy::disallowed_methods, reason = "the test waits for something that must not happen")]
fn a_further_upgrade_leaves_the_connections_of_the_first_process_alone() {
    let home = Home::new(&on_loopback(None, "[upgrade]\ndrain_time = 3600\n[udp]\nenable = false"));
    let tracker = home.start("all", 2);
    let connect = || Kept { address: tracker.address(), stream: None };
    let mut of_first = connect();
    of_first.announce(1, 1000);
    assert!(home.upgrade().0);
    let second = home.pid();
    let mut of_second = connect();
    of_second.announce(2, 1000);
    assert!(home.upgrade().0);
    of_first.announce(3, 1000);
    assert!(of_first.stream.is_none(), "the reply was the last one of the first process");
    until_ended(tracker.id());
    // Its turn has come, but it may not know yet.
    let served = || {
        of_second.announce(4, 1000);
        of_second.stream.is_none()
    };
    eventually(served, |ended| *ended);
    until_ended(second);
    let known = || scrape(tracker.address(), &[1, 2, 3, 4]).matches("10:incompletei1e").count();
    eventually(known, |known| *known == 4);
    // One without connections of its own waits for the one before it all the same.
    let third = home.pid();
    let mut of_third = connect();
    of_third.announce(5, 1000);
    assert!(home.upgrade().0);
    let fourth = home.pid();
    assert!(home.upgrade().0);
    // Time enough for processes that do not wait to end.
    thread::sleep(Duration::from_millis(500));
    assert!(is_running(third) && is_running(fourth));
    of_third.announce(6, 1000);
    assert!(of_third.stream.is_none(), "the reply was the last one of the third process");
    until_ended(third);
    until_ended(fourth);
    eventually(|| scrape(tracker.address(), &[6]).contains("10:incompletei1e"), |known| *known);
}

/// The reply to a scrape of some torrents.
fn scrape(address: SocketAddr, numbers: &[u32]) -> String {
    let hashes = numbers.iter().map(|number| {
        let hash: String = torrent(*number).0.iter().map(|byte| format!("%{byte:02x}")).collect();
        format!("info_hash={hash}")
    });
    let mut stream = TcpStream::connect(address).unwrap();
    let path = format!("/scrape?{}", hashes.collect::<Vec<_>>().join("&"));
    write!(stream, "GET {path} HTTP/1.1\r\nHost: tracker\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test measures when connections end")]
fn websockets_end_one_after_the_other() {
    let home = Home::new(&on_loopback(None, "[upgrade]\ndrain_time = 2"));
    let tracker = home.start("ws", 1);
    let connect = || {
        let mut stream = TcpStream::connect(tracker.address()).unwrap();
        stream.set_read_timeout(Some(REPLY)).unwrap();
        let request = "GET / HTTP/1.1\r\nHost: tracker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = [0; 512];
        assert!(stream.read(&mut reply).unwrap() > 0 && reply.starts_with(b"HTTP/1.1 101"));
        stream
    };
    let streams: Vec<TcpStream> = (0..16).map(|_| connect()).collect();
    let begin = Instant::now();
    assert!(home.upgrade().0);
    let waits = streams.into_iter().map(|mut stream| {
        thread::spawn(move || {
            let _ = stream.read_to_end(&mut Vec::new());
            begin.elapsed()
        })
    });
    let waits: Vec<_> = waits.collect();
    let mut ends: Vec<Duration> = waits.into_iter().map(|wait| wait.join().unwrap()).collect();
    ends.sort_unstable();
    assert!(ends[15].saturating_sub(ends[0]) > Duration::from_millis(1000), "{ends:?}");
    until_ended(tracker.id());
}

#[test]
fn metrics_and_unix_sockets_are_handed_over() {
    let home = Home::new("");
    let path = home.path("socket");
    let network = format!("unix_socket_path = \"{}\"\n", path.display());
    let metrics = "[metrics]\nenable = true\naddress = \"127.0.0.1:0\"\n[upgrade]\ndrain_time = 0";
    home.configure(&format!("{}{network}", on_loopback(None, metrics)));
    let tracker = home.start("http", 1);
    let metrics = tracker.metrics.unwrap();
    for _ in 0..2 {
        let old = home.pid();
        let before = metric(metrics, "aquatic_process_start_time_seconds");
        assert!(home.upgrade().0);
        until_ended(old);
        assert!(metric(metrics, "aquatic_process_start_time_seconds") >= before);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: tracker\r\nConnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert!(fetch(metrics, "/metrics").contains("aquatic_"));
    }
}
