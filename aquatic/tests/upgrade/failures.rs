//! Upgrades that fail leave the tracker in charge, with a reason.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use aquatic_common::AnnounceEvent;

use crate::support::{REPLY, Tracker};
use crate::udp::Client;
use crate::{Home, is_running, on_loopback, signal, torrent, until_ended};

#[test]
fn a_successor_that_fails_at_any_step_changes_nothing() {
    let home = Home::new(&on_loopback(None, "[upgrade]\ntimeout = 4"));
    let mut tracker = home.start("udp", 1);
    let client = Client::connect(tracker.address());
    client.announce(torrent(1), 1000, AnnounceEvent::None);
    for (step, reason) in [
        ("exit", "has ended while starting (exit status: 7)"),
        ("hang", "was still starting after 4 s"),
        ("kill at the start", "has ended while starting (signal: 9"),
        ("garbage", "cannot be understood"),
        ("wrong order", "has sent Serving while Started was awaited"),
        ("refuse", "refuses: another version"),
        ("kill while it receives the state", "has ended while receiving the state (signal: 9"),
        ("kill before it serves", "has ended while taking over (signal: 9"),
        ("hang before it serves", "did not take over in time"),
    ] {
        home.install_failure(step);
        let (upgraded, text) = home.upgrade();
        assert!(!upgraded && text.contains(reason), "{step}: {text}");
        let line = tracker.wait_for_log("upgrade failed");
        assert!(line.contains("ERROR") && line.contains(reason), "{step}: {line}");
        let other = Client::connect_from("127.0.0.2:0", tracker.address());
        assert_eq!(other.leechers(torrent(1)), 1, "{step}");
        assert_eq!(client.announce(torrent(1), 1000, AnnounceEvent::None).1, 1, "{step}");
    }
    // After all of these, an upgrade succeeds.
    home.install();
    let (upgraded, text) = home.upgrade();
    assert!(upgraded, "{text}");
    assert_eq!(client.leechers(torrent(1)), 1);
}

#[test]
fn a_request_during_an_upgrade_is_not_its_outcome() {
    let home = Home::new(&on_loopback(None, "[upgrade]\ntimeout = 4"));
    let mut tracker = home.start("udp", 1);
    home.install_failure("hang");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| home.upgrade());
        tracker.wait_for_log("has been started to take over");
        tracker.signal("USR2");
        let line = tracker.wait_for_log("is ignored");
        assert!(line.contains("WARN"), "{line}");
        let (upgraded, text) = first.join().unwrap();
        assert!(!upgraded && text.contains("was still starting after 4 s"), "{text}");
    });
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let home = Home::new(&on_loopback(None, "workers = 1"));
    let mut tracker = home.start("udp", 1);
    let address = Some(tracker.address());
    let mut refused = |configuration: &str, reason: &str| {
        home.configure(configuration);
        let (upgraded, text) = home.upgrade();
        assert!(!upgraded && text.contains(reason), "{text}");
        tracker.wait_for_log("upgrade failed");
    };
    refused(&on_loopback(address, "nonsense = 1"), "has ended while starting (exit status: 1)");
    refused(&on_loopback(address, "workers = 9999"), "has ended while starting (exit status: 1)");
    if std::thread::available_parallelism().is_ok_and(|number| number.get() > 1) {
        refused(&on_loopback(address, "workers = 2"), "it has 1 worker(s), and this configuration 2");
    }
    home.configure(&on_loopback(address, "workers = 1"));
    assert!(home.upgrade().0);
}

#[test]
fn what_cannot_be_upgraded_is_left_alone() {
    let home = Home::new("");
    let (upgraded, text) = home.upgrade();
    assert!(!upgraded && text.contains("the running tracker is unknown"), "{text}");
    // Any other program would be ended by the signal.
    let mut other = std::process::Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().unwrap();
    std::fs::write(home.path("state/pid"), format!("{}\n", other.id())).unwrap();
    let (upgraded, text) = home.upgrade();
    assert!(!upgraded && text.contains("no tracker has"), "left behind by one that was killed: {text}");
    let state = std::fs::File::open(home.path("state")).unwrap();
    rustix::fs::flock(&state, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (upgraded, text) = home.upgrade();
    assert!(!upgraded && text.contains("is no tracker that can be upgraded"), "{text}");
    assert!(is_running(other.id()));
    other.kill().unwrap();
    other.wait().unwrap();
    // One that does something else with it.
    let script = "trap 'exit 9' USR2; echo ready; while :; do sleep 0.1; done";
    let mut other =
        std::process::Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    other.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    let pid = other.id().to_string();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_aquatic"))
        .args(["upgrade", "--pid", &pid])
        .output()
        .unwrap();
    let text = String::from_utf8(run.stderr).unwrap();
    assert!(!run.status.success() && text.contains("is no tracker that can be upgraded"), "{text}");
    assert!(is_running(other.id()));
    other.kill().unwrap();
    other.wait().unwrap();
    std::fs::remove_file(home.path("state/pid")).unwrap();
}

#[test]
fn a_predecessor_that_dies_leaves_a_successor_that_serves() {
    let home = Home::new(&on_loopback(None, ""));
    let mut tracker = home.start("udp", 1);
    let client = Client::connect(tracker.address());
    // The successor begins only once the predecessor has gone.
    let script = format!("#!/bin/sh\nsleep 1\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_aquatic"));
    std::fs::write(home.path("new"), script).unwrap();
    set_executable(&home.path("new"));
    std::fs::rename(home.path("new"), home.path("aquatic")).unwrap();
    let old = tracker.id();
    tracker.signal("USR2");
    tracker.wait_for_log("has been started to take over");
    signal("KILL", old);
    tracker.wait_for_log("has ended in the midst of handing over");
    tracker.wait_for_log("has taken over from process");
    client.announce(torrent(5), 1000, AnnounceEvent::None);
    assert_ne!(home.pid(), old);
}

fn set_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_tracker_that_is_stopped_during_an_upgrade_stops() {
    let home = Home::new(&on_loopback(None, ""));
    let mut tracker = home.start("udp", 1);
    home.install_failure("hang");
    tracker.signal("USR2");
    let line = tracker.wait_for_log("has been started to take over");
    let successor = line.split("process ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
    until_ended(successor);
}

/// The successor is stopped where it is about to serve.
#[test]
fn a_tracker_that_is_stopped_during_the_switch_leaves_none_behind() {
    let home = Home::new(&on_loopback(None, ""));
    for _ in 0..5 {
        let mut tracker = home.start("udp", 1);
        tracker.signal("USR2");
        let line = tracker.wait_for_log("has been started to take over");
        let successor = line.split("process ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        tracker.wait_for_log("state of the predecessor received");
        signal("STOP", successor);
        tracker.signal("TERM");
        #[allow(clippy::disallowed_methods, reason = "a test may wait")]
        std::thread::sleep(std::time::Duration::from_millis(300));
        signal("CONT", successor);
        assert_eq!(tracker.end().0, Some(0));
        until_ended(successor);
    }
}

#[test]
fn the_service_manager_learns_the_new_process() {
    let home = Home::new(&on_loopback(None, ""));
    let manager = UnixDatagram::bind(home.path("notify")).unwrap();
    manager.set_read_timeout(Some(REPLY)).unwrap();
    let mut command = home.command("udp");
    command.env("NOTIFY_SOCKET", home.path("notify")).env("WATCHDOG_USEC", "3000000");
    command.env("WATCHDOG_PID", "1");
    let _tracker = Tracker::start(1, &mut command);
    let next = || {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert!(next().starts_with("READY=1"));
    let old = home.pid();
    home.configure("nonsense = 1");
    let (upgraded, text) = home.upgrade();
    assert!(!upgraded && text.contains("has ended while starting (exit status: 1)"), "{text}");
    home.configure(&on_loopback(None, ""));
    assert!(home.upgrade().0);
    assert_eq!(next(), format!("MAINPID={}", home.pid()));
    // A process that has another parent than the service manager would be killed at once when it is stopped.
    assert_ne!(parent(home.pid()), old);
    assert!(next().starts_with("READY=1"), "nothing is sent by the old process, or too early");
    assert_eq!(next(), "WATCHDOG=1", "the watchdog of the process that was replaced is that of the new one");
    until_ended(old);
}

/// Number of the process that waits for the end of another one.
fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.unwrap().trim().parse().unwrap()
}
