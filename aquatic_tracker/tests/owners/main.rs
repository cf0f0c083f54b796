//! Requests to the cores that own torrents, in a running engine. It may be started once per process only, so
//! each test runs this test binary again, with the name of a scenario in the environment.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

#[path = "../../../aquatic_runtime/tests/engine/blocked.rs"]
mod blocked;
#[path = "../../../aquatic_runtime/tests/engine/child.rs"]
mod child;
mod scenarios;

use std::time::Duration;

use child::Child;
use rustix::process::Signal;

/// How long to wait for what happens at once, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test: what the other tests start.
#[test]
#[ignore = "started by the other tests, with a scenario"]
fn child() {
    if let Ok(name) = std::env::var(child::SCENARIO) {
        scenarios::run(&name);
    }
}

fn stop(child: Child) {
    child.signal(Signal::TERM);
    assert_eq!(child.wait(PATIENCE).code, Some(0));
}

#[test]
fn owners_respond_and_counts_keep_the_order_of_the_request() {
    let mut child = Child::start("ask", &[]);
    child.expect("announce from core 0: 13 leechers there, 10 peers of IPv4");
    child.expect("scrape from core 0: [1, 0, 1, 1, 0, 1]");
    child.expect("scrape from core 1: [1, 0, 1, 1, 0, 1]");
    child.expect("scrape of own torrents, at once: [1, 0, 1]");
    stop(child);
}

#[test]
fn too_many_requests_to_an_owner_overflow_and_each_ends_once() {
    let mut child = Child::start("overflow", &[]);
    child.expect("overflowed at once: 100");
    child.expect("ended: 65636, of them responded or late: 65536");
    child.expect("(overflow): 100 new");
    stop(child);
}

#[test]
fn an_owner_that_does_not_respond_in_time_is_an_error() {
    let mut child = Child::start("timeout", &[]);
    child.expect("scrape of a busy core: Timeout");
    child.expect("announce to a busy core: Timeout");
    child.expect("(timeout): 2 new");
    child.expect("scrape of the core when it is free: [1]");
    stop(child);
}

#[test]
fn expiry_follows_the_intervals_that_were_given_out() {
    let mut child = Child::start("load", &[]);
    child.expect("the load is averaged");
    child.expect("interval 3600, maximum age 7200");
    child.expect("2 of 3 peers are remembered");
    stop(child);
}

#[test]
fn the_access_list_is_reloaded_by_signal() {
    let listed = "00000000000000000000000000000000000000aa";
    let other = "00000000000000000000000000000000000000bb";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.txt");
    std::fs::write(&path, listed).unwrap();
    let mut child = Child::start("access", &[("ACCESS_LIST", path.to_str().unwrap())]);
    child.expect("core 0 admits aa, not bb");
    child.expect("core 1 admits aa, not bb");

    std::fs::write(&path, format!("{other}\nnonsense\n")).unwrap();
    child.signal(Signal::USR1);
    child.expect("line 2: expected 40 hexadecimal digits");
    child.expect("core 0 still admits aa, not bb");

    std::fs::write(&path, format!("{other}\n")).unwrap();
    child.signal(Signal::HUP);
    child.expect("access list reloaded: 1 info hashes, 1 added, 1 removed");
    child.expect("core 0 admits bb, not aa");
    child.expect("core 1 admits bb, not aa");

    std::fs::remove_file(&path).unwrap();
    child.signal(Signal::USR1);
    child.expect("cannot read the access list");
    child.expect("core 0 still admits bb, not aa");
    stop(child);
}

#[test]
fn a_bad_access_list_refuses_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.txt");
    std::fs::write(&path, "nonsense\n").unwrap();
    let ended = Child::start("access", &[("ACCESS_LIST", path.to_str().unwrap())]).wait(PATIENCE);
    assert_eq!(ended.code, Some(3), "{}", ended.output);
    assert!(ended.output.contains("line 1: expected 40 hexadecimal digits"), "{}", ended.output);
}
