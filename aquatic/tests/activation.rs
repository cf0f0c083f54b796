//! Listening sockets that a service manager passes and keeps: socket activation and the descriptor store.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

mod support;

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use socket2::SockRef;
use support::{REPLY, Tracker, eventually, metric, service};

/// A connect request (BEP 15).
const CONNECT: [u8; 16] = [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 1, 2, 3, 4];

/// The command of a service with a descriptor passed to it, as a service manager does.
fn activated(name: &str, socket: impl AsFd, names: &str, settings: &[&str]) -> Command {
    let inner = service(name, settings);
    let mut command = Command::new("sh");
    let script = "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 0</dev/null";
    command.arg("-c").arg(script).arg(inner.get_program()).args(inner.get_args());
    command.stdin(socket.as_fd().try_clone_to_owned().unwrap());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", names);
    command
}

fn client(server: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(server).unwrap();
    client.set_read_timeout(Some(REPLY)).unwrap();
    client
}

fn is_answered(client: &UdpSocket) -> bool {
    let mut reply = [0; 64];
    client.recv(&mut reply).is_ok_and(|length| length == 16 && reply[4..8] == [1, 2, 3, 4])
}

fn setting(address: SocketAddr) -> String {
    format!("network.address_ipv4={address}")
}

#[test]
fn what_waits_in_a_passed_socket_is_answered_whatever_the_number_of_workers() {
    for workers in ["workers=1", "workers=0"] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let client = client(address);
        client.send(&CONNECT).unwrap();
        let settings = ["network.use_ipv6=false", &setting(address), workers];
        let tracker = Tracker::start(1, &mut activated("udp", &socket, "udp", &settings));
        assert!(tracker.start_log.contains("passed by the service manager"), "{}", tracker.start_log);
        assert!(is_answered(&client));
        client.send(&CONNECT).unwrap();
        assert!(is_answered(&client));
        tracker.signal("TERM");
        assert_eq!(tracker.end().0, Some(0));
    }
}

/// What the kernel has dropped at a socket.
fn dropped_at(address: SocketAddr) -> f64 {
    let sockets = fs::read_to_string("/proc/net/udp").unwrap();
    let port = format!(":{:04X} ", address.port());
    let lines = sockets.lines().filter(|line| line.contains(&port));
    lines.map(|line| line.split_whitespace().last().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn drops_at_a_passed_socket_are_counted_once_and_from_the_start_on() {
    const FLOOD: usize = 400;
    for workers in ["workers=1", "workers=0"] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        SockRef::from(&socket).set_recv_buffer_size(20_000).unwrap();
        let address = socket.local_addr().unwrap();
        let client = client(address);
        let flood = || (0..FLOOD).for_each(|_| assert_eq!(client.send(&[0; 8]).unwrap(), 8));
        flood();
        let before = dropped_at(address);
        assert!(before > 0.0);
        let own = ["network.use_ipv6=false", "udp.socket_recv_buffer_size=0", "metrics.enable=true"];
        let at = setting(address);
        let settings = [&own[..], &["metrics.address=127.0.0.1:0", &at, workers]].concat();
        let tracker = Tracker::start(1, &mut activated("udp", &socket, "udp", &settings));
        let metrics = tracker.metrics.unwrap();
        let counted = || metric(metrics, "aquatic_kernel_drops_total");
        let since = || dropped_at(address) - before;
        // It listens a moment before its cores run, and what is dropped until then is not counted.
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let is_served = || client.send(&CONNECT).is_ok() && is_answered(&client);
        eventually(is_served, |served| *served);
        let uncounted = || since() - counted();
        let (missed, quiet) = (eventually(uncounted, |missed| *missed >= 0.0), since());
        tracker.signal("STOP");
        flood();
        tracker.signal("CONT");
        eventually(|| (uncounted(), since()), |(now, since)| *since > quiet && (now - missed).abs() < 0.5);
    }
}

#[test]
fn a_passed_socket_of_both_families_is_refused() {
    let Ok(socket) = UdpSocket::bind("[::]:0") else { return };
    let address = format!("network.address_ipv6={}", socket.local_addr().unwrap());
    let output = activated("udp", &socket, "udp", &["network.use_ipv4=false", &address]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("BindIPv6Only=ipv6-only"), "{text}");
}

fn ask(mut stream: impl Read + Write) -> String {
    let request = "GET /health HTTP/1.1\r\nHost: tracker\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn connections_to_passed_sockets_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = TcpStream::connect(address).unwrap();
    let settings = ["network.use_ipv6=false", &setting(address)];
    let tracker = Tracker::start(1, &mut activated("http", &listener, "tcp", &settings));
    assert!(ask(waiting).starts_with("HTTP/1.1 200"));
    for _ in 0..10 {
        assert!(ask(TcpStream::connect(address).unwrap()).starts_with("HTTP/1.1 200"));
    }
    drop(tracker);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let unix = format!("network.unix_socket_path={}", path.display());
    let settings = ["network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0", &unix];
    let tracker = Tracker::start(1, &mut activated("http", &listener, "", &settings));
    assert!(ask(UnixStream::connect(&path).unwrap()).starts_with("HTTP/1.1 200"));
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
    assert!(path.exists(), "the file belongs to the service manager");
}

#[test]
fn a_socket_for_another_address_and_other_descriptors_are_closed_and_told() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = ["network.use_ipv6=false", "network.address_ipv4=127.0.0.2:0"];
    let mut tracker = Tracker::start(1, &mut activated("udp", &socket, "udp", &own));
    tracker.wait_for_log("the configuration does not listen there");
    let file = fs::File::open("/dev/null").unwrap();
    let tracker = Tracker::start(1, &mut activated("udp", &file, "null", &own));
    assert!(tracker.start_log.contains("is no listening socket"), "{}", tracker.start_log);
}

/// Receives messages of a tracker until it is ready, and returns the descriptors to keep with their names.
fn stored(manager: &UnixDatagram) -> Vec<(String, OwnedFd)> {
    manager.set_read_timeout(Some(REPLY)).unwrap();
    let mut kept = Vec::new();
    loop {
        let mut text = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut text)];
        let length = recvmsg(manager, &mut slices, &mut control, RecvFlags::empty()).unwrap().bytes;
        let text = String::from_utf8(text[..length].to_vec()).unwrap();
        let fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds.collect::<Vec<_>>()),
            _ => None,
        });
        let mut fds: Vec<OwnedFd> = fds.flatten().collect();
        if let Some(name) = text.strip_prefix("FDSTORE=1\nFDNAME=") {
            kept.push((name.to_owned(), fds.pop().unwrap()));
        } else if text.starts_with("READY=1") {
            return kept;
        }
    }
}

#[test]
fn kept_sockets_answer_after_a_restart_what_came_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let own = ["network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0", "workers=1"];
    let mut command = service("udp", &own);
    let tracker = Tracker::start(1, command.env("NOTIFY_SOCKET", &path).env("FDSTORE", "8"));
    let address = tracker.address();
    let mut kept = stored(&manager);
    assert_eq!((kept.len(), kept[0].0.as_str()), (1, "udp-0"));
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
    let client = client(address);
    client.send(&CONNECT).unwrap();
    let (name, socket) = kept.pop().unwrap();
    let settings = ["network.use_ipv6=false", &setting(address), "workers=1"];
    let _tracker = Tracker::start(1, &mut activated("udp", socket, &name, &settings));
    assert!(is_answered(&client));
}
