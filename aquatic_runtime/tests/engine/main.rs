//! The engine as a whole. It may be started once per process only and ends it, so each test runs this test binary
//! again, with the name of a scenario in the environment, and looks at the process from outside.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

mod child;
mod scenarios;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use child::Child;

const SIGNALS: [rustix::process::Signal; 2] = [rustix::process::Signal::TERM, rustix::process::Signal::INT];

/// Not a test: what the other tests start.
#[test]
#[ignore = "started by the other tests, with a scenario"]
fn child() {
    if let Ok(name) = std::env::var(child::SCENARIO) {
        scenarios::run(&name);
    }
}

#[test]
fn a_signal_stops_all_cores_cleanly() {
    for signal in SIGNALS {
        let mut child = Child::start("idle", &[]);
        child.expect("core 0 serves");
        child.expect("core 1 serves");
        child.signal(signal);
        let ended = child.wait(Duration::from_secs(2));
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        assert!(ended.output.contains("core 0 was told") && ended.output.contains("core 1 was told"));
    }
}

#[test]
fn a_signal_during_start_stops_cleanly_too() {
    let mut child = Child::start("stopped-early", &[]);
    child.expect("sockets are bound");
    child.signal(SIGNALS[0]);
    let ended = child.wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}

#[test]
fn a_service_that_does_not_stop_is_left_behind_within_five_seconds() {
    let mut child = Child::start("stubborn", &[]);
    child.expect("core 1 serves");
    child.signal(SIGNALS[0]);
    let ended = child.wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(ended.output.contains("core(s) [1] did not finish"), "{}", ended.output);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a signal that follows at once counts as the same")]
fn a_second_signal_ends_the_process_at_once() {
    let mut child = Child::start("stubborn", &[]);
    child.expect("core 1 serves");
    child.signal(SIGNALS[0]);
    child.expect("stopping");
    std::thread::sleep(Duration::from_millis(600));
    child.signal(SIGNALS[0]);
    let ended = child.wait(Duration::from_millis(1000));
    assert_eq!(ended.code, Some(128 + 15), "{}", ended.output);
}

#[test]
fn a_panic_in_a_core_ends_the_process_and_names_the_thread() {
    for scenario in ["panic", "panic-in-task", "panic-in-handler"] {
        let ended = Child::start(scenario, &[]).wait(Duration::from_secs(5));
        assert_eq!(ended.code, Some(101), "{}", ended.output);
        assert!(ended.output.contains("thread aquatic-core-1 panicked at "), "{}", ended.output);
        assert!(ended.output.contains("on purpose"), "{}", ended.output);
    }
}

#[test]
fn a_service_that_ends_by_itself_ends_the_process() {
    let ended = Child::start("return", &[]).wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(ended.output.contains("core 1 has stopped working"), "{}", ended.output);

    let ended = Child::start("error", &[]).wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(
        ended.output.contains("core 1 has stopped working")
            && ended.output.contains("on purpose: root cause")
    );
}

#[test]
fn cores_answer_each_other_in_request_order() {
    let mut child = Child::start("ask", &[]);
    child.expect("announce from core 0: 1 leechers there");
    child.expect("scrape from core 0: [1, 0, 1, 1, 0, 1]");
    child.expect("scrape from core 1: [1, 0, 1, 1, 0, 1]");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}

#[test]
fn a_full_channel_gives_messages_back_and_loses_none() {
    let mut child = Child::start("overflow", &[]);
    child.expect("handed back 904, counted 904");
    child.expect("scrape while full: Err(Overflow)");
    child.expect("core 1 received 4096 in order");
    child.expect("Messages to another core that found its channel full: ");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}

#[test]
fn a_core_that_does_not_answer_in_time_is_an_error() {
    let mut child = Child::start("timeout", &[]);
    child.expect("scrape of a busy core: Err(Timeout)");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}

#[test]
fn the_access_list_is_reloaded_by_signal() {
    let listed = "00000000000000000000000000000000000000aa";
    let other = "00000000000000000000000000000000000000bb";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.txt");
    std::fs::write(&path, listed).unwrap();
    let mut child = Child::start("access", &[("ACCESS_LIST", path.to_str().unwrap())]);
    child.expect("core 0 allows aa, not bb");
    child.expect("core 1 allows aa, not bb");

    std::fs::write(&path, format!("{other}\nnonsense\n")).unwrap();
    child.signal(rustix::process::Signal::USR1);
    child.expect("access list, line 2: expected 40 hexadecimal digits, got 8 characters; skipped");
    child.expect("access list read again: 1 info hashes");
    child.expect("core 0 allows bb, not aa");
    child.expect("core 1 allows bb, not aa");

    std::fs::remove_file(&path).unwrap();
    child.signal(rustix::process::Signal::USR1);
    child.expect("the old access list stays in use: cannot read the access list");
    child.expect("core 0 still allows bb, not aa");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}

#[test]
fn a_bad_access_list_refuses_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.txt");
    std::fs::write(&path, "nonsense\n").unwrap();
    let ended =
        Child::start("access", &[("ACCESS_LIST", path.to_str().unwrap())]).wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(ended.output.contains("line 1: expected 40 hexadecimal digits"), "{}", ended.output);
}

#[test]
fn little_locked_memory_is_raised_or_explained() {
    if may_raise_limits() {
        let mut child = Child::start("memlock-privileged", &[]);
        child.expect("core 1 serves");
        child.signal(SIGNALS[0]);
        assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
    }
    let ended = Child::start("memlock", &[]).wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(ended.output.contains("may lock 64 KiB of memory"), "{}", ended.output);
    assert!(ended.output.contains("LimitMEMLOCK=524288"), "{}", ended.output);
}

/// Whether this process has CAP_SYS_RESOURCE, which not every root has.
fn may_raise_limits() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() >> CAP_SYS_RESOURCE & 1 == 1
}

#[test]
fn root_becomes_another_user_in_another_root() {
    if !rustix::process::geteuid().is_root() {
        let ended = Child::start("privileges", &[]).wait(Duration::from_secs(5));
        assert_eq!(ended.code, Some(3), "{}", ended.output);
        assert!(ended.output.contains("was not started as root"), "{}", ended.output);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    let mut child = Child::start("privileges", &[("NEW_ROOT", root)]);
    child.expect("core 1 runs as user 65534, sees 0 files in /");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));

    let ended =
        Child::start("privileges", &[("NEW_USER", "nobody-of-this-name")]).wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(ended.output.contains("cannot become user \"nobody-of-this-name\""), "{}", ended.output);
}

#[test]
fn a_busy_socket_starves_neither_others_nor_timers_nor_messages() {
    let mut child = Child::start("fairness", &[]);
    child.expect("quiet socket answered in time");
    child.expect("timers in time");
    child.expect("messages in time");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}

#[test]
fn a_socket_that_leaves_the_set_misses_nothing() {
    let mut child = Child::start("leaving", &[]);
    child.expect("received after leaving: 200");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}

#[test]
fn waiting_for_sockets_uses_up_no_descriptors() {
    let mut child = Child::start("descriptors", &[]);
    child.expect("descriptors used up by 2000 waits: 0");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}

#[test]
fn connections_are_streams() {
    let mut child = Child::start("echo", &[]);
    let address = child.expect("echo on ").trim_start_matches("echo on ").to_owned();
    let clients: Vec<_> = (0..4_u8)
        .map(|id| {
            let address = address.clone();
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let sent: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(31) >> 3) as u8 ^ id).collect();
                let mut reader = stream.try_clone().unwrap();
                let expected = sent.clone();
                let reading = std::thread::spawn(move || {
                    let mut got = vec![0; expected.len()];
                    reader.read_exact(&mut got).unwrap();
                    got == expected
                });
                stream.write_all(&sent).unwrap();
                reading.join().unwrap()
            })
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}

#[test]
fn the_metrics_endpoint_serves_and_closes() {
    let mut child = Child::start("metrics", &[]);
    let line = child.expect("metrics: http://");
    let address = line.split("http://").nth(1).unwrap().trim_end_matches("/metrics").to_owned();
    child.expect("core 1 has counted");
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    for line in [
        "aquatic_requests_total{protocol=\"udp\",family=\"ipv4\",action=\"announce\"} 30",
        "aquatic_cores 2.0",
        "aquatic_access_list 0.0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "no line {line:?} in\n{metrics}");
    }
    assert!(metrics.contains("aquatic_tick_lag_seconds{core=\"1\"} "), "{metrics}");
    assert!(get("/health").ends_with("ok\n"));
    assert!(get("/else").starts_with("HTTP/1.1 404 "));
    let crowd: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let mut ninth = TcpStream::connect(&address).unwrap();
    ninth.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert_eq!(ninth.read(&mut [0]).unwrap(), 0, "a ninth connection is closed at once");
    drop(crowd);
    child.expect("Requests dropped without a reply (udp, because): 5 more, 5 in all");
    child.expect("not served because too many were open");
    child.expect("statistics: requests per second: udp ipv4 scrape ");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}

#[test]
fn a_core_that_does_not_move_is_told() {
    let mut child = Child::start("stall", &[]);
    child.expect("core 1 has not moved for 3.");
    child.expect("Times a core did not move for several seconds: 1 more, 1 in all");
    child.expect("core 1 moves again");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(Duration::from_secs(5)).code, Some(0));
}
