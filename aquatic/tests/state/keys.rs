//! Connection ids stay valid.

use std::fs;
use std::time::Duration;

use aquatic_common::AnnounceEvent;

use crate::support::metric;
use crate::udp::Client;
use crate::{Home, is_root, refused, set_mode, torrent};

/// Clients that hold a connection id when the tracker is killed.
const CLIENTS: u32 = 411;

fn connect(home: &Home, number: u32) -> Client {
    let local = format!("127.0.{}.{}:0", 1 + number / 250, 1 + number % 250);
    Client::connect_from(&local, home.address)
}

#[test]
fn announces_with_connection_ids_of_a_killed_process_are_answered() {
    let mut home = Home::new();
    let mut tracker = home.start(&[]);
    let clients: Vec<Client> = (0..CLIENTS).map(|number| connect(&home, number)).collect();
    tracker.signal("KILL");
    assert_eq!(tracker.end().0, None);

    tracker = home.start(&[]);
    assert!(tracker.start_log.contains("connection ids stay valid"), "{}", tracker.start_log);
    for (number, client) in (0..).zip(&clients) {
        client.announce(torrent(number), 1000, AnnounceEvent::None);
    }
    let dropped = metric(tracker.metrics.unwrap(), "aquatic_dropped_total");
    assert_eq!(dropped, 0.0);
}

#[test]
fn connection_ids_without_a_state_directory_end_with_the_process() {
    let mut home = Home::new();
    let tracker = home.start(&["state_directory="]);
    let client = connect(&home, 0);
    drop(tracker);
    let tracker = home.start(&["state_directory="]);
    client.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    client.socket.send(&client.announce_request(torrent(0), 1000, AnnounceEvent::None)).unwrap();
    assert!(client.socket.recv(&mut [0; 100]).is_err(), "answered");
    drop(tracker);
    assert_eq!(fs::read_dir(home.directory.path()).unwrap().count(), 0);
}

#[test]
fn a_secret_that_cannot_be_used_is_replaced_with_a_warning() {
    let mut home = Home::new();
    drop(home.start(&[]));
    let keys = home.path("keys");
    let mut damaged = fs::read(&keys).unwrap();
    damaged[20] ^= 1;
    for (content, mode, text) in [
        (damaged.clone(), 0o600, "it is damaged"),
        (b"hello".to_vec(), 0o600, "it is no such file"),
        (damaged, 0o644, "its mode 644"),
    ] {
        fs::write(&keys, content).unwrap();
        set_mode(&keys, mode);
        let tracker = home.start(&[]);
        assert!(tracker.start_log.contains(text), "{}", tracker.start_log);
        connect(&home, 0).announce(torrent(0), 1000, AnnounceEvent::None);
    }
    let log = home.start(&[]).start_log.clone();
    assert!(!log.contains("replaced") && log.contains("connection ids stay valid"), "{log}");
}

#[test]
fn a_directory_that_cannot_be_used_ends_the_start_with_a_remedy() {
    let mut home = Home::new();
    let missing = format!("state_directory={}", home.path("none").display());
    for check in [&[][..], &["--check-config"]] {
        let (code, log) = refused(home.command(&[&missing]).args(check));
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("state_directory") && log.contains("Create the directory"), "{log}");
    }
    if is_root() {
        let drop_privileges = ["privileges.drop_privileges=true", "workers=1"];
        set_mode(home.directory.path(), 0o755);
        for check in [&[][..], &["--check-config"]] {
            let (code, log) = refused(home.command(&drop_privileges).args(check));
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains("not writable for nobody") && log.contains("chown nobody"), "{log}");
        }
    }
    let tracker = home.start(&[]);
    let (code, log) = refused(&mut home.command(&[]));
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("is in use by another tracker"), "{log}");
    let (code, log) = refused(home.command(&[]).arg("--check-config"));
    assert_eq!(code, Some(0), "{log}");
    drop(tracker);
}
