//! The real program serving: start, one exchange, signals, and what happens when it cannot start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use support::{REPLY, Tracker, in_own_network, skip, udp};

/// The settings of a tracker on one core and one address of IPv4 loopback.
fn command(address: &str) -> Command {
    udp(&["workers=1", "network.use_ipv6=false", &format!("network.address_ipv4={address}")])
}

fn start(args: &[&str]) -> Tracker {
    Tracker::start(1, command("127.0.0.1:0").args(args))
}

/// Sends a connect request (BEP 15) and returns the reply.
fn connect(address: SocketAddr) -> Vec<u8> {
    const REQUEST: [u8; 16] = [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 1, 2, 3, 4];
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(REPLY)).unwrap();
    socket.send_to(&REQUEST, address).unwrap();
    let mut reply = [0; 64];
    let (length, from) = socket.recv_from(&mut reply).unwrap();
    assert_eq!(from, address);
    reply[..length].to_vec()
}

#[test]
fn it_serves_what_it_announces_and_stops_on_sigterm() {
    let tracker = start(&[]);
    assert_ne!(tracker.address().port(), 0);
    let reply = connect(tracker.address());
    assert_eq!(reply.len(), 16);
    assert_eq!(&reply[..8], [0, 0, 0, 0, 1, 2, 3, 4]);
    tracker.signal("TERM");
    let (code, stdout, _) = tracker.end();
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
}

#[test]
fn it_stops_on_sigint() {
    let tracker = start(&[]);
    tracker.signal("INT");
    assert_eq!(tracker.end().0, Some(0));
}

#[test]
fn it_prints_the_configuration_in_use_when_asked_to() {
    let tracker = start(&["-P"]);
    tracker.signal("TERM");
    let (_, stdout, log) = tracker.end();
    assert!(stdout.contains("workers = 1 # default: 0\n"), "{stdout}");
    assert!(stdout.contains("address_ipv4 = \"127.0.0.1:0\" # default: \"0.0.0.0:6969\"\n"), "{stdout}");
    assert!(!log.contains("default:"), "{log}");
}

#[test]
fn a_port_in_use_is_explained_with_code_3() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command(&address).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.contains(&format!("error: cannot listen on UDP {address}")), "{log}");
}

#[test]
fn ipv6_that_is_switched_off_is_spoken_of() {
    let Some(mut command) = in_own_network() else { return skip("network namespaces") };
    let mut tracker =
        Tracker::start(2, command.args([env!("CARGO_BIN_EXE_aquatic"), "udp", "-s", "workers=1"]));
    let warning = tracker.wait_for_log("IPv6");
    assert!(warning.contains("WARN") && warning.contains("nobody reaches [::]:6969"), "{warning}");
    assert!(warning.contains("network.use_ipv6 = false"), "{warning}");
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
}

#[test]
fn an_address_of_another_machine_is_explained_with_code_3() {
    let output = command("192.0.2.1:6969").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.contains("no network interface of this machine has the address 192.0.2.1"), "{log}");
}
