//! The engine as a whole. It may be started once per process only and ends it, so each test runs this test
//! binary again, with the name of a scenario in the environment, and looks at the process from outside.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

mod blocked;
mod child;
mod inline;
mod scenarios;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use child::Child;

/// How long to wait for what happens at once, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

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
        let ended = child.wait(PATIENCE);
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        assert!(ended.output.contains("core 0 was told") && ended.output.contains("core 1 was told"));
    }
}

#[test]
fn a_signal_during_start_stops_cleanly_too() {
    let mut child = Child::start("stopped-early", &[]);
    child.expect("sockets are bound");
    child.signal(SIGNALS[0]);
    let ended = child.wait(PATIENCE);
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
    std::thread::sleep(Duration::from_millis(1500));
    child.signal(SIGNALS[0]);
    // By itself it would end with another code.
    let ended = child.wait(PATIENCE);
    assert_eq!(ended.code, Some(128 + 15), "{}", ended.output);
}

/// Whatever kind of task or thread it is in: a service, a task of it, one that waits for a socket, what
/// receives messages of cores and of threads; threads beside the cores, and the main thread.
#[test]
fn a_panic_anywhere_ends_the_process_and_names_the_thread() {
    for (scenario, thread) in [
        ("panic", "aquatic-core-1"),
        ("panic-in-task", "aquatic-core-1"),
        ("panic-in-connection", "aquatic-core-1"),
        ("panic-in-handler", "aquatic-core-1"),
        ("panic-in-mailbox", "aquatic-core-1"),
        ("panic-in-side-thread", "aquatic-test"),
        ("panic-in-periodic", "child"),
        ("panic-before-stop", "child"),
    ] {
        let mut child = Child::start(scenario, &[]);
        if scenario == "panic-before-stop" {
            child.expect("core 1 serves");
            child.signal(SIGNALS[0]);
        }
        let ended = child.wait(PATIENCE);
        assert_eq!(ended.code, Some(101), "{scenario}: {}", ended.output);
        assert!(ended.output.contains(&format!("thread {thread} panicked at ")), "{}", ended.output);
        assert!(ended.output.contains("on purpose"), "{}", ended.output);
    }
}

#[test]
fn a_thread_beside_the_cores_that_ends_by_itself_ends_the_process() {
    let ended = Child::start("return-of-side-thread", &[]).wait(PATIENCE);
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(ended.output.contains("thread aquatic-test has stopped working"), "{}", ended.output);
}

#[test]
fn a_service_that_ends_by_itself_ends_the_process() {
    let ended = Child::start("return", &[]).wait(PATIENCE);
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(ended.output.contains("core 1 has stopped working"), "{}", ended.output);

    let ended = Child::start("error", &[]).wait(PATIENCE);
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(
        ended.output.contains("core 1 has stopped working")
            && ended.output.contains("on purpose: root cause")
    );
}

#[test]
fn a_full_queue_gives_batches_back_and_loses_none() {
    let mut child = Child::start("overflow", &[]);
    child.expect("handed back 76, counted 76");
    child.expect("core 1 received 1024 in order");
    child.expect("Attempts to send to another core that found its queue full (test): ");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn a_full_outbox_rejects_messages_and_delivers_what_it_has_taken() {
    let mut child = Child::start("outbox", &[]);
    child.expect("rejected 368, counted 368");
    child.expect("core 1 received 69632 in order");
    child.expect("Messages for another core rejected because too many were waiting for it (test): 368 new");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn a_full_mailbox_gives_messages_back_and_takes_more_once_they_are_received() {
    let mut child = Child::start("mailbox-full", &[]);
    child.expect("core 0 received [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]");
    child.expect("core 1 received [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn a_task_that_an_inline_task_wakes_runs_before_the_next_wait() {
    let mut child = Child::start("inline", &[]);
    child.expect("0 of 30 wake-ups were late");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn a_deadline_is_kept_that_comes_while_an_inline_task_works() {
    let mut child = Child::start("deadline", &[]);
    child.expect("all 5 deadlines were kept");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn an_outbox_sends_by_itself_and_the_memory_of_batches_is_kept() {
    let mut child = Child::start("batches", &[]);
    child.expect("core 1 received [1, 2, 3] from core 0");
    child.expect("memory is kept: true, messages are not: true");
    child.expect("core 0 received [4] from core 1");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn little_locked_memory_is_raised_or_explained() {
    if may_raise_limits() {
        let mut child = Child::start("memlock-privileged", &[]);
        child.expect("core 1 serves");
        child.signal(SIGNALS[0]);
        assert_eq!(child.wait(PATIENCE).code, Some(0));
    }
    let ended = Child::start("memlock", &[]).wait(PATIENCE);
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(ended.output.contains("of this process is 64 KiB"), "{}", ended.output);
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
        let ended = Child::start("privileges", &[]).wait(PATIENCE);
        assert_eq!(ended.code, Some(3), "{}", ended.output);
        assert!(ended.output.contains("was not started as root"), "{}", ended.output);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    let mut child = Child::start("privileges", &[("NEW_ROOT", root)]);
    child.expect("core 1 runs as user 65534, sees 0 files in /");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));

    let ended = Child::start("privileges", &[("NEW_USER", "nobody-of-this-name")]).wait(PATIENCE);
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
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn a_socket_that_leaves_the_set_misses_nothing() {
    let mut child = Child::start("leaving", &[]);
    child.expect("received after leaving: 200");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn waiting_for_sockets_uses_up_no_descriptors() {
    let mut child = Child::start("descriptors", &[]);
    child.expect("descriptors used up by 2000 waits: 0");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
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
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn losses_and_statistics_are_logged() {
    let mut child = Child::start("losses", &[]);
    child.expect("Requests dropped without a reply (udp, because): 5 new, 5 total");
    child.expect("statistics: requests per second: udp ipv4 scrape ");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn a_stalled_core_is_logged() {
    let mut child = Child::start("stall", &[]);
    child.expect("core 1 has not responded for 3.");
    child.expect("Times a core did not respond for several seconds: 1 new, 1 total");
    child.expect("core 1 responds again");
    child.signal(SIGNALS[0]);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}
