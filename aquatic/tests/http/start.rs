//! How it starts, and why not.

use std::net::TcpListener;
use std::process::Output;

use crate::client::{Plain, command, start};

fn run(settings: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command(settings).output().unwrap();
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
        (&["proxies.proxy_protocol=true"], &["proxies.proxy_protocol: no proxy is trusted"]),
        (&["proxies.trusted_proxies=[\"proxy\"]"], &["proxies.trusted_proxies", "10.0.0.0/8"]),
        (&["network.use_ipv4=false"], &["nothing to listen on"]),
        (&["network.unix_socket_mode=rw"], &["network.unix_socket_mode", "660"]),
        (&["cleaning.max_connection_idle=5"], &["did you mean connections.max_connection_idle?"]),
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
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("cannot read /nonexistent/cert.pem"), "{log}");
    assert!(!log.contains("listening"), "{log}");

    let (code, log) = run(&["network.use_ipv4=false", "network.unix_socket_path=/nonexistent/socket"]);
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("its directory does not exist"), "{log}");
}
