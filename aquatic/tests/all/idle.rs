//! A tracker that is asked nothing sleeps.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::thread;
use std::time::{Duration, Instant};

use aquatic_common::AnnounceEvent;

use crate::http;
use crate::support::torrent;
use crate::tracker::start_all;
use crate::udp;

/// Steps of the clock by which all that a core does now and then is aligned, per second.
const TICKS: u64 = 4;

/// How often each thread of the cores of a process has waited, by the thread's number.
fn waits(process: u32) -> BTreeMap<OsString, u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let wait = |thread: DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        let is_core = status.starts_with("Name:\taquatic-core-");
        is_core.then(|| (thread.file_name(), count.trim().parse().unwrap()))
    };
    threads.filter_map(|thread| wait(thread.unwrap())).collect()
}

#[test]
fn idle_cores_wake_up_four_times_a_second() {
    const SLEEP: Duration = Duration::from_secs(4);
    let (tracker, addresses) = start_all(None, &["workers=2"]);
    // Torrents to be looked through, and connections whose time runs out later.
    let over_udp = udp::Client::connect(addresses.udp_v4);
    (0..100).for_each(|number| drop(over_udp.announce(torrent(number), 1000, AnnounceEvent::Started)));
    let mut kept: Vec<_> = (0..20).map(|_| http::Plain::connect(addresses.tcp_v4)).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/health").status(), 200));
    thread::sleep(Duration::from_secs(2));

    let (before, since) = (waits(tracker.id()), Instant::now());
    thread::sleep(SLEEP);
    let after = waits(tracker.id());
    assert_eq!(before.len(), 4, "each core has two threads");
    let woken: Vec<u64> = before.iter().map(|(thread, before)| after[thread] - before).collect();
    // The test may have been held up itself.
    let seconds = since.elapsed().as_secs() + 2;
    assert!(woken.iter().all(|woken| *woken <= seconds * TICKS), "{woken:?} times in less than {seconds} s");
    assert!(woken.iter().any(|woken| *woken > 0), "the sweeps go on: {woken:?}");
}
