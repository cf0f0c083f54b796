//! The real program serving: start, one exchange, signals, and what happens when it cannot start.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on has failed")]

mod support;

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use support::{Ends, REPLY, STOP, Tracker, in_own_network, service, skip, udp};

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
    let output = command(&address).ends();
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
fn a_port_that_needs_a_privilege_is_a_fault_of_the_configuration() {
    for check in [&[][..], &["--check-config"]] {
        // In a network namespace ports below 1024 need a capability whatever the system allows.
        let Some(mut command) = in_own_network() else { return skip("network namespaces") };
        let drop = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"];
        command.args(drop).args([env!("CARGO_BIN_EXE_aquatic"), "udp", "-s", "workers=1"]);
        command.args(["-s", "network.address_ipv4=0.0.0.0:80", "-s", "network.use_ipv6=false"]).args(check);
        let output = command.ends();
        let log = String::from_utf8(output.stderr).unwrap();
        if log.contains("setpriv:") || log.contains("unshare:") {
            return skip("right to drop capabilities");
        }
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains("0.0.0.0:80"), "{log}");
    }
}

#[test]
fn what_a_start_refuses_a_check_refuses_in_the_same_words() {
    let directory = tempfile::tempdir().unwrap();
    let (file, missing) = (directory.path().join("file"), directory.path().join("none/file"));
    fs::write(&file, "this is no list").unwrap();
    let with = |key: &str, path: &Path| vec![format!("{key}={}", path.display())];
    let allowed = |path| [vec!["access_list.mode=allow".to_owned()], with("access_list.path", path)].concat();
    let user = ["privileges.drop_privileges=true", "privileges.user=nobody-at-all"].map(str::to_owned);
    let cases = [
        (allowed(&missing), "cannot read the access list"),
        (allowed(&file), "cannot use the access list"),
        (with("rate_limits.block_list_path", &missing), "cannot read the block list"),
        (with("rate_limits.block_list_path", &file), "cannot use the block list"),
        (with("exports.path", &missing), "the directory of exports.path"),
        (with("control.socket_path", &missing), "cannot listen on the unix socket"),
        (with("state_directory", &file), "state_directory = "),
        (user.to_vec(), "getent passwd nobody-at-all"),
    ];
    // Only root may become somebody else.
    let count = cases.len() - usize::from(!rustix::process::geteuid().is_root());
    for (settings, text) in cases.into_iter().take(count) {
        for check in [&[][..], &["--check-config"]] {
            let mut start = command("127.0.0.1:0");
            start.args(settings.iter().flat_map(|setting| ["--set", setting])).args(check);
            let Output { status, stderr, .. } = start.ends();
            let told = String::from_utf8(stderr).unwrap();
            assert!(status.code() == Some(1) && told.contains(text), "{settings:?}, {check:?}: {told}");
        }
    }
}

#[test]
fn an_address_of_another_machine_is_explained_with_code_3() {
    let output = command("192.0.2.1:6969").ends();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.contains("no network interface of this machine has the address 192.0.2.1"), "{log}");
}

/// A pipe that is full, so that whoever writes to it waits for the reader.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Starts a tracker whose output goes there, and waits until it answers requests.
#[allow(clippy::disallowed_methods, reason = "the test waits for another process")]
fn start_with_output(output: impl Into<Stdio>, errors: impl Into<Stdio>) -> Child {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let unix = format!("network.unix_socket_path={}", path.display());
    let settings =
        ["workers=1", "network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0", &unix, "log_level=trace"];
    let child = service("http", &settings).stdout(output).stderr(errors).spawn().unwrap();
    let deadline = Instant::now() + 4 * STOP;
    let stream = loop {
        match UnixStream::connect(&path) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "the tracker does not listen: {error}"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    // The kernel accepts connections for a process that waits. Each announce is logged, several times.
    announce_often(stream, 200);
    child
}

/// Announces over one connection, as a client behind a proxy, and checks the replies.
fn announce_often(mut stream: UnixStream, times: u16) {
    stream.set_read_timeout(Some(REPLY)).unwrap();
    let hash = "%aa".repeat(20);
    for port in 1..=times {
        let query = format!("info_hash={hash}&peer_id=-TR0000-abcdefghijkl&port={port}&left=1&compact=1");
        let head = format!("GET /announce?{query} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"e") || !reply.windows(8).any(|bytes| bytes == b"interval") {
            let mut part = [0; 2048];
            let length = stream.read(&mut part).unwrap();
            assert_ne!(length, 0, "no reply to announce {port}: {}", String::from_utf8_lossy(&reply));
            reply.extend_from_slice(&part[..length]);
        }
    }
}

fn ends_on_sigterm(mut child: Child) -> bool {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let deadline = Instant::now() + 4 * STOP;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code() == Some(0);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

#[test]
fn it_serves_and_stops_while_nobody_reads_its_log() {
    let (_reader, writer) = full_pipe();
    assert!(ends_on_sigterm(start_with_output(writer.try_clone().unwrap(), writer)));
}

#[test]
fn it_serves_and_stops_when_its_log_cannot_be_written() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    assert!(ends_on_sigterm(start_with_output(full(), full())));
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    assert!(ends_on_sigterm(start_with_output(writer.try_clone().unwrap(), writer)));
}

#[test]
fn an_error_is_given_up_when_nobody_reads_it() {
    let (_reader, writer) = full_pipe();
    let mut child = command("192.0.2.1:6969").stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    let deadline = Instant::now() + 4 * STOP;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < deadline, "the tracker waits for its reader");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(code, Some(3));
}

#[test]
fn the_file_of_a_unix_socket_is_removed_unless_it_is_not_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let setting = format!("network.unix_socket_path={}", path.display());
    let start = || {
        let settings = ["workers=1", "network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0", &setting];
        let mut tracker = Tracker::start(1, &mut service("http", &settings));
        tracker.wait_for_log("on the unix socket");
        tracker
    };
    let tracker = start();
    assert!(path.exists());
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
    assert!(!path.exists(), "the file is left behind");
    let tracker = start();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
    assert!(path.exists(), "the file of another program is gone");
}

#[test]
fn a_limit_of_locked_memory_that_is_too_low_is_named_with_its_remedy() {
    for (user, limit, remedy) in [
        (&["--reuid=65534", "--clear-groups"][..], "0", "LimitMEMLOCK=524288"),
        (&["--bounding-set=-sys_resource"][..], "65536", "CAP_SYS_RESOURCE"),
    ] {
        let mut command = Command::new("setpriv");
        command.args(user).args(["prlimit", &format!("--memlock={limit}:{limit}")]);
        command.args([env!("CARGO_BIN_EXE_aquatic"), "udp", "-s", "workers=1"]);
        let Ok(output) = command.output() else { return skip("setpriv") };
        let log = String::from_utf8(output.stderr).unwrap();
        if log.contains("setpriv:") || log.contains("prlimit:") {
            return skip("right to change user and limits");
        }
        assert_eq!(output.status.code(), Some(3), "{log}");
        assert!(log.contains("ulimit -l") && log.contains(remedy), "{log}");
    }
}
