//! `aquatic probe` against this tracker over all protocols, against trackers of others, and against servers
//! that are none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::cell::{Cell, RefCell};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use support::{Tracker, eventually, service, skip};

/// Exit code and report of `aquatic probe --json`. Certificates of the authority in `root` are trusted.
fn probe(root: Option<&Path>, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aquatic"));
    command.args(["probe", "--json", "--exchanges", "2"]).args(arguments).stdin(Stdio::null());
    if let Some(root) = root {
        command.env("SSL_CERT_FILE", root).env_remove("SSL_CERT_DIR");
    }
    let output = command.output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

/// Checks with a verdict, with their texts.
fn with_verdict(report: &Value, verdict: &str) -> Vec<(String, String)> {
    let rows = report["rows"].as_array().unwrap().iter().filter(|row| row["verdict"] == verdict);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.map(|row| (text(&row["check"]), text(&row["text"]))).collect()
}

fn text<'a>(report: &'a Value, check: &str) -> &'a str {
    let rows = report["rows"].as_array().unwrap();
    let row =
        rows.iter().find(|row| row["check"] == check).unwrap_or_else(|| panic!("no {check}: {report:#}"));
    row["text"].as_str().unwrap()
}

/// Asserts that everything worked and that nobody objects, except to an address instead of a name.
fn assert_liked(report: &Value, url: &str) {
    let accepted = |(check, text): &(String, String)| {
        check == "list_site" && text.contains("host name") || text.contains("ws://")
    };
    assert_eq!(with_verdict(report, "fault"), [], "{url}");
    let advice: Vec<_> = with_verdict(report, "advice").into_iter().filter(|row| !accepted(row)).collect();
    assert_eq!(advice, [], "{url}");
    let target = &report["targets"][0];
    for member in ["works", "second_peer", "stopped_gone", "scrape"] {
        assert_eq!(target[member], true, "{member} of {url}: {report:#}");
    }
    assert_eq!(target["latency_ms"]["exchanges"], 2);
    assert!(target["latency_ms"]["median"].as_f64().unwrap() > 0.0);
}

/// Certificate for `localhost`, signed by itself, and its key.
fn certificate(directory: &Path) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let paths = (directory.join("cert.pem"), directory.join("key.pem"));
    fs::write(&paths.0, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&paths.1, key.serialize_pem()).unwrap();
    paths
}

const IPV4: &str = "network.address_ipv4=127.0.0.1:0";

#[test]
fn this_tracker_is_liked_over_plain_connections() {
    let settings = ["workers=2", IPV4, "network.address_ipv6=[::1]:0"];
    let tracker = Tracker::start(6, &mut service("all", &settings));
    let urls: Vec<String> = tracker
        .start_log
        .split_whitespace()
        .filter(|word| word.contains("://") && word.ends_with("/announce"))
        .map(str::to_owned)
        .collect();
    assert_eq!(urls.len(), 6, "{}", tracker.start_log);
    for url in &urls {
        let (code, report) = probe(None, &[url]);
        assert_liked(&report, url);
        assert_eq!(code, Some(0), "{url}");
    }
    // Several at once, and one family only.
    let words: Vec<&str> = urls.iter().map(String::as_str).collect();
    let (code, report) = probe(None, &words);
    assert_eq!((code, report["targets"].as_array().unwrap().len()), (Some(0), 6));
    let v6 = urls.iter().find(|url| url.contains("[::1]")).unwrap();
    assert_eq!(probe(None, &["-4", v6]).0, Some(1));
}

#[test]
fn certificates_are_judged() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate_file, key) = certificate(directory.path());
    let settings = [
        "udp.enable=false",
        "workers=1",
        IPV4,
        "network.use_ipv6=false",
        "network.enable_tls=true",
        &format!("network.tls_certificate_path={}", certificate_file.display()),
        &format!("network.tls_private_key_path={}", key.display()),
    ];
    let tracker = Tracker::start(2, &mut service("all", &settings));
    let port = tracker.address().port();
    for scheme in ["https", "wss"] {
        let url = format!("{scheme}://127.0.0.1:{port}/announce");
        let (code, report) = probe(Some(&certificate_file), &[&url]);
        assert_liked(&report, &url);
        assert_eq!(code, Some(0));
        assert!(text(&report, "certificate").contains("TLS 1.3"), "{report:#}");
        let (code, report) = probe(None, &[&url]);
        assert_eq!(code, Some(1));
        assert!(text(&report, "certificate").contains("issuer is unknown"), "{report:#}");
        // It goes on, and the fault stays.
        let (code, report) = probe(None, &["--insecure", &url]);
        assert_eq!((code, &report["targets"][0]["works"]), (Some(1), &true.into()), "{report:#}");
        assert_eq!(report["targets"][0]["certificate_trusted"], false);
    }
    let (_, report) = probe(None, &[&format!("http://127.0.0.1:{port}/announce")]);
    assert!(text(&report, "announce").contains("400"), "{report:#}");
}

#[test]
fn objections_are_named() {
    let settings = [
        "workers=1",
        IPV4,
        "network.use_ipv6=false",
        "protocol.peer_announce_interval=120",
        "http.min_announce_interval=60",
        "protocol.announce_interval_jitter=0",
        "limits.local_addresses=\"refuse\"",
        "ws.enable=false",
    ];
    let tracker = Tracker::start(2, &mut service("all", &settings));
    let url = format!("udp://{}/announce", tracker.address());
    let (code, report) = probe(None, &[&url]);
    assert_eq!(code, Some(1));
    // Peers with addresses of loopback are not stored here.
    assert_eq!(report["targets"][0]["second_peer"], false, "{report:#}");
    assert!(text(&report, "list_site").contains("120 s"), "{report:#}");
    let tcp = tracker.addresses[1];
    let url = format!("http://{tcp}/nothing");
    let (code, report) = probe(None, &[&url]);
    assert_eq!(code, Some(1));
    assert!(!with_verdict(&report, "fault").is_empty(), "{report:#}");
    let url = format!("ws://{tcp}/announce");
    let (code, report) = probe(None, &[&url]);
    assert_eq!(code, Some(1));
    assert!(text(&report, "upgrade").contains("instead of a WebSocket"), "{report:#}");
}

/// A server that answers each connection with a text, and then with nothing.
fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer);
            // Kept open until the client goes.
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    address
}

#[test]
fn servers_that_are_no_trackers_end_in_a_fault() {
    for (answer, check, expected) in [
        (&b""[..], "announce", "no reply within 1 s"),
        (b"\x1b[2J\x1b[1m", "announce", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "announce", "longer than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nd", "announce", "no reply within 1 s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde", "announce", "no reply of a tracker"),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
            "announce",
            "redirects to",
        ),
    ] {
        let url = format!("http://{}/announce", server(answer));
        let timeout = if expected.ends_with("within 1 s") { "1" } else { "60" };
        let (code, report) = probe(None, &["--timeout", timeout, &url]);
        assert_eq!(code, Some(1));
        assert!(text(&report, check).contains(expected), "{expected}: {report:#}");
        assert!(!report.to_string().contains('\x1b'), "{report}");
    }
    let list =
        b"HTTP/1.1 200 OK\r\nContent-Length: 53\r\n\r\nd8:intervali1800e5:peersld2:ip9:127.0.0.14:porti7eeee";
    let (_, report) = probe(None, &[&format!("http://{}/announce", server(list))]);
    assert!(text(&report, "announce").contains("interval 1800 s"), "{report:#}");
    assert!(text(&report, "compact").contains("list of dictionaries"), "{report:#}");
    let url = format!("ws://{}/", server(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"));
    let (_, report) = probe(None, &["--timeout", "60", &url]);
    assert!(text(&report, "upgrade").contains("403"), "{report:#}");
    let url = format!("https://{}/", server(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let (_, report) = probe(None, &["--timeout", "60", &url]);
    assert!(text(&report, "tls").contains("does not speak TLS"), "{report:#}");
}

#[test]
fn silence_and_refusal_are_told_apart() {
    // An address of its own, so that nobody else gets the port once it is free.
    let [.., a, b] = std::process::id().to_be_bytes();
    let silent = UdpSocket::bind((Ipv4Addr::new(127, 77, a, b), 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let (code, report) = probe(None, &["--timeout", "1", &format!("udp://{address}")]);
    assert_eq!(code, Some(1));
    assert!(text(&report, "connect").contains("no reply within 1 s"), "{report:#}");
    drop(silent);
    let (_, report) = probe(None, &[&format!("udp://{address}")]);
    assert!(text(&report, "connect").contains("nothing listens there"), "{report:#}");
    let (_, report) = probe(None, &["udp://no-such-host.invalid:6969/announce"]);
    assert!(text(&report, "name").contains("cannot be resolved"), "{report:#}");
    let output =
        Command::new(env!("CARGO_BIN_EXE_aquatic")).args(["probe", "tracker.example"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("begin with udp://"));
}

/// A tracker of others, ended when dropped.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of loopback that was free a moment ago, over UDP and TCP.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address.port();
        }
    }
}

/// Starts a tracker of others on a free port. Should somebody take that before it does, on another one.
fn start(command: impl Fn(u16) -> Command) -> (Other, u16) {
    let mut told = String::new();
    for _ in 0..5 {
        let port = free_port();
        let mut command = command(port);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut other = Other(command.spawn().unwrap());
        let has_ended = Cell::new(false);
        let child = RefCell::new(&mut other.0);
        let is_there = || {
            has_ended.set(child.borrow_mut().try_wait().unwrap().is_some());
            has_ended.get() || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        };
        eventually(is_there, |is_there| *is_there);
        if !has_ended.get() {
            wait_for_udp(port);
            return (other, port);
        }
        told.clear();
        let mut stderr = other.0.stderr.take().unwrap();
        stderr.read_to_string(&mut told).unwrap();
    }
    panic!("it does not start: {told}");
}

/// Waits until a connect request over UDP (BEP 15) is answered: trackers open their sockets one after
/// another.
fn wait_for_udp(port: u16) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let connect = [&0x0417_2710_1980_u64.to_be_bytes()[..], &[0; 4], &7_u32.to_be_bytes()].concat();
    eventually(|| socket.send(&connect).is_ok() && socket.recv(&mut [0; 64]).is_ok(), |is_there| *is_there);
}

#[test]
fn opentracker_is_understood() {
    if !Path::new("/usr/bin/opentracker").exists() {
        return skip("opentracker");
    }
    // Debian's has a list of allowed torrents.
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    let info_hash = "0123456789abcdef0123456789abcdef01234567";
    fs::write(&list, format!("{info_hash}\n")).unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let (_other, port) = start(|port| {
        let mut command = Command::new("/usr/bin/opentracker");
        let number = port.to_string();
        command.args(["-i", "127.0.0.1", "-p", &number, "-P", &number, "-d", "/", "-w"]).arg(&list);
        command
    });
    for scheme in ["udp", "http"] {
        let url = format!("{scheme}://127.0.0.1:{port}/announce");
        let (_, report) = probe(None, &["--info-hash", info_hash, &url]);
        let target = &report["targets"][0];
        assert_eq!((&target["works"], &target["second_peer"]), (&true.into(), &true.into()), "{report:#}");
        assert_eq!(target["scrape"], true, "{report:#}");
        let (code, report) = probe(None, &["--timeout", "1", &url]);
        assert_eq!(code, Some(1), "{report:#}");
    }
}

/// The tracker of WebTorrent's authors, which `scripts/test` installs from npm.
#[test]
fn bittorrent_tracker_is_understood() {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/webtorrent/node_modules");
    let program = modules.join("bittorrent-tracker/server.js");
    if !program.exists() {
        return skip("bittorrent-tracker of npm");
    }
    let (_other, port) = start(|port| {
        let script = format!(
            "import Server from '{}'; new Server({{ http: true, udp: true, ws: true, stats: false }}).listen({port})",
            program.display()
        );
        let mut command = Command::new("node");
        command.args(["--input-type=module", "--eval", &script]);
        command
    });
    for scheme in ["udp", "http", "ws"] {
        let (_, report) = probe(None, &["-4", &format!("{scheme}://127.0.0.1:{port}/announce")]);
        let target = &report["targets"][0];
        assert_eq!((&target["works"], &target["second_peer"]), (&true.into(), &true.into()), "{report:#}");
    }
}
