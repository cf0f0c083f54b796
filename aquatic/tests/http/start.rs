//! How it starts, and why not.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use crate::client::{Plain, command, start};
use crate::support::{Ends, Tracker, eventually, metric};

fn run(settings: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command(settings).ends();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn it_serves_what_it_announces() {
    let tracker = start(&[]);
    assert_ne!(tracker.address().port(), 0);
    assert_eq!(Plain::connect(tracker.address()).get("/health").text(), "ok\n");
    tracker.signal("INT");
    let (code, stdout, log) = tracker.end();
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{log}");
}

#[test]
fn impossible_settings_are_named_before_anything_starts() {
    for (settings, parts) in [
        (
            &["network.enable_tls=true"][..],
            &["network.tls_certificate_path", "network.tls_private_key_path"][..],
        ),
        (
            &["proxies.proxy_protocol=true"],
            &["proxies.proxy_protocol: has no effect because no proxy is trusted"],
        ),
        (&["proxies.trusted_proxies=[\"proxy\"]"], &["proxies.trusted_proxies", "10.0.0.0/8"]),
        (&["network.acme=[\"a.example\"]"], &["network.acme: needs state_directory"]),
        (&["network.acme=[\"*.example\"]"], &["network.acme: \"*.example\" is a wildcard"]),
        (&["network.use_ipv4=false"], &["network.use_ipv4: is false", "no address to listen on"]),
        (&["network.unix_socket_mode=rw"], &["network.unix_socket_mode", "660"]),
        (&["cleaning.max_connection_idle=5"], &["it was replaced by connections.max_connection_idle"]),
    ] {
        let (code, log) = run(settings);
        assert_eq!(code, Some(1), "{settings:?}: {log}");
        assert!(parts.iter().all(|part| log.contains(part)), "{settings:?}: {log}");
        assert!(!log.contains("listening"), "{log}");
    }
}

#[test]
fn what_keeps_it_from_starting_is_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, log) = run(&[&format!("network.address_ipv4={address}")]);
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains(&format!("error: cannot listen on TCP {address}")), "{log}");

    let (code, log) = run(&[
        "network.enable_tls=true",
        "network.tls_certificate_path=/nonexistent/cert.pem",
        "network.tls_private_key_path=/nonexistent/key.pem",
    ]);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("cannot read /nonexistent/cert.pem"), "{log}");
    assert!(!log.contains("listening"), "{log}");
}

#[test]
fn a_unix_socket_that_cannot_be_made_is_a_fault_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("file"), "").unwrap();
    for (path, text) in [
        (path("none/socket"), "its directory does not exist"),
        (path("file/socket"), "its directory does not exist or is no directory"),
        (path(""), "it is a directory"),
        (path("file"), "a file that is no socket"),
        (path(&"x".repeat(108)), "longer than 107 bytes"),
    ] {
        let setting = format!("network.unix_socket_path={path}");
        let settings = ["network.use_ipv4=false", &setting];
        let mut check = command(&settings);
        let Output { status, stderr, .. } = check.arg("--check-config").ends();
        let checked = (status.code(), String::from_utf8(stderr).unwrap());
        for (code, log) in [run(&settings), checked] {
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains(text), "{log}");
        }
    }
    let socket = path("socket");
    let _other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (code, log) = run(&["network.use_ipv4=false", &format!("network.unix_socket_path={socket}")]);
    assert_eq!(code, Some(3), "another start may help: {log}");
    assert!(log.contains("another program"), "{log}");
}

/// The same command with a limit of open files.
fn with_files(files: u32, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n \"$0\" && exec \"$@\""]).arg(files.to_string());
    limited.arg(command.get_program()).args(command.get_args());
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    limited
}

#[test]
fn connections_are_no_more_than_the_limit_of_open_files_allows() {
    let settings = ["workers=1", "connections.max_connections_per_address=0"];
    let Output { status, stderr, .. } = with_files(40, &command(&settings)).ends();
    let log = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("may open 40 files only") && log.contains("LimitNOFILE=100066"), "{log}");
    assert!(!log.contains("listening"), "{log}");

    // There is room for 30. The limit of connections is met before the one of files.
    let settings = [&settings[..], &["metrics.enable=true", "metrics.address=127.0.0.1:0"]].concat();
    let tracker = Tracker::start(1, &mut with_files(96, &command(&settings)));
    let metrics = tracker.metrics.unwrap();
    let mut open: Vec<_> = (0..30).map(|_| Plain::connect(tracker.address())).collect();
    assert!(open.iter_mut().all(|client| client.get("/health").text() == "ok\n"));
    open.extend((0..9).map(|_| {
        let mut client = Plain::connect(tracker.address());
        client.send("GET /health HTTP/1.1\r\n");
        client
    }));
    // Whether a connection is idle for long enough to make room is a matter of time.
    let beyond = || {
        metric(metrics, "aquatic_connections_refused_total{protocol=\"http\",reason=\"limit\"}")
            + metric(metrics, "aquatic_connections_evicted_total{protocol=\"http\",reason=\"limit\"}")
    };
    eventually(beyond, |&beyond| beyond == 9.0);
    eventually(|| metric(metrics, "aquatic_connections{"), |&connections| connections == 30.0);
    for series in
        ["aquatic_accept_errors_total", "aquatic_connections_refused_total{protocol=\"http\",reason=\"desc"]
    {
        assert_eq!(metric(metrics, series), 0.0, "{series}");
    }
    tracker.signal("INT");
    let (code, _, log) = tracker.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(", 30 connections (connections.max_connections)"), "{log}");
}
