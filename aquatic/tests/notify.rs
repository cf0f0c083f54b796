//! What the real program tells a service manager.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

mod support;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use support::{Tracker, udp};

/// Longest wait for a message.
const MESSAGE: Duration = Duration::from_secs(20);

struct Manager(UnixDatagram);

impl Manager {
    /// Receives messages until one has this line, and returns that message.
    fn expect(&self, line: &str) -> String {
        self.0.set_read_timeout(Some(MESSAGE)).unwrap();
        let mut buffer = [0; 4096];
        loop {
            let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("no {line}: {error}"));
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if message.lines().any(|other| other == line) {
                return message;
            }
        }
    }
}

fn command(notify_socket: &str, settings: &[&str]) -> Command {
    let own = ["network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0"];
    let mut command = udp(&[&own[..], settings].concat());
    command.env("NOTIFY_SOCKET", notify_socket);
    command
}

#[test]
fn ready_reloading_alive_and_stopping_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    let state = format!("state_directory={}", directory.path().display());
    let mut command = command(path.to_str().unwrap(), &[&state]);
    let tracker = Tracker::start(1, command.env("WATCHDOG_USEC", "5000000"));
    manager.expect("READY=1");
    manager.expect("WATCHDOG=1");
    tracker.signal("HUP");
    let reloading = manager.expect("RELOADING=1");
    let time = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(time.parse::<u64>().unwrap() > 0);
    manager.expect("READY=1");
    tracker.signal("TERM");
    manager.expect("STOPPING=1");
    assert_eq!(tracker.end().0, Some(0));
}

#[test]
fn abstract_sockets_are_reached_and_no_watchdog_is_none_of_ours() {
    let name = format!("aquatic-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager(UnixDatagram::bind_addr(&address).unwrap());
    let mut command = command(&format!("@{name}"), &[]);
    let tracker = Tracker::start(1, command.env("WATCHDOG_USEC", "5000000").env("WATCHDOG_PID", "1"));
    manager.expect("READY=1");
    manager.0.set_read_timeout(Some(Duration::from_millis(2500))).unwrap();
    assert!(manager.0.recv(&mut [0; 100]).is_err(), "a message for the watchdog of another process");
    drop(tracker);
}

#[test]
fn a_service_manager_that_is_not_there_is_told_in_the_log() {
    let tracker = Tracker::start(1, &mut command("/nonexistent/notify", &[]));
    assert!(tracker.start_log.contains("NOTIFY_SOCKET = /nonexistent/notify"), "{}", tracker.start_log);
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
}
