//! The real program serving: start, one exchange, signals, and what happens when it cannot start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longest time a tracker may take to stop.
const STOP: Duration = Duration::from_secs(5);

/// Longest wait for a reply on loopback.
const REPLY: Duration = Duration::from_secs(5);

/// A tracker on one core and a free port of IPv4 loopback.
struct Tracker {
    child: Child,
    address: SocketAddr,
    stdout: ChildStdout,
    log: BufReader<std::process::ChildStderr>,
}

impl Tracker {
    fn start(args: &[&str]) -> Self {
        let mut child = command("127.0.0.1:0").args(args).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let address = loop {
            let start = seen.len();
            assert_ne!(log.read_line(&mut seen).unwrap(), 0, "the tracker ended: {seen}");
            let url = seen[start..].split_whitespace().find_map(|word| word.strip_prefix("udp://"));
            if let Some(address) = url.and_then(|url| url.strip_suffix("/announce")) {
                break address.parse().unwrap();
            }
        };
        Self { child, address, stdout, log }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end and returns exit code, standard output and the rest of the log.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (sender, receiver) = mpsc::channel();
        let pid = self.child.id().to_string();
        thread::spawn(move || {
            let (mut stdout, mut log) = (String::new(), String::new());
            self.stdout.read_to_string(&mut stdout).unwrap();
            self.log.read_to_string(&mut log).unwrap();
            let _ = sender.send((self.child.wait().unwrap().code(), stdout, log));
        });
        receiver.recv_timeout(STOP).unwrap_or_else(|_| {
            let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
            panic!("the tracker did not stop within {STOP:?}");
        })
    }
}

fn command(address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aquatic"));
    command
        .args(["udp", "--set", "workers=1", "--set", "network.use_ipv6=false"])
        .arg("--set")
        .arg(format!("network.address_ipv4={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
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
    let tracker = Tracker::start(&[]);
    assert_ne!(tracker.address.port(), 0);
    let reply = connect(tracker.address);
    assert_eq!(reply.len(), 16);
    assert_eq!(&reply[..8], [0, 0, 0, 0, 1, 2, 3, 4]);
    tracker.signal("TERM");
    let (code, stdout, _) = tracker.end();
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
}

#[test]
fn it_stops_on_sigint() {
    let tracker = Tracker::start(&[]);
    tracker.signal("INT");
    assert_eq!(tracker.end().0, Some(0));
}

#[test]
fn it_prints_the_configuration_in_use_when_asked_to() {
    let tracker = Tracker::start(&["-P"]);
    tracker.signal("TERM");
    let (_, stdout, log) = tracker.end();
    assert!(stdout.contains("workers = 1 # default: 0\n"), "{stdout}");
    assert!(stdout.contains("address_ipv4 = \"127.0.0.1:0\" # default: \"0.0.0.0:6969\"\n"), "{stdout}");
    assert!(!log.contains("default:"), "{log}");
}

#[test]
fn it_goes_on_with_the_old_access_list_if_the_new_one_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.txt");
    std::fs::write(&path, "0123456789012345678901234567890123456789\n").unwrap();
    let set_path = format!("access_list.path={}", path.display());
    let mut tracker = Tracker::start(&["--set", "access_list.mode=allow", "--set", &set_path]);
    std::fs::remove_file(&path).unwrap();
    tracker.signal("USR1");
    let mut line = String::new();
    tracker.log.read_line(&mut line).unwrap();
    assert!(line.contains("list.txt"), "{line}");
    assert_eq!(connect(tracker.address).len(), 16);
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
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
fn an_access_list_with_a_bad_line_keeps_it_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.txt");
    std::fs::write(&path, "# fine\nnonsense\n").unwrap();
    let set_path = format!("access_list.path={}", path.display());
    let output =
        command("127.0.0.1:0").args(["-s", "access_list.mode=deny", "-s", &set_path]).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.contains("line 2"), "{log}");
}
