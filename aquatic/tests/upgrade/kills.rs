//! Either process is killed at each step of a hand-over: the other one serves.

use std::fs::{self, DirEntry};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use aquatic_common::AnnounceEvent;

use crate::support::{Tracker, eventually};
use crate::udp::Client;
use crate::{Home, is_running, on_loopback, torrent, until_ended};

/// Messages of the hand-over, by their numbers: those of the predecessor,
const HELLO: u8 = 1;
const SOCKETS: u8 = 2;
const BEGIN: u8 = 3;
const SWITCH: u8 = 6;
const DONE: u8 = 8;
const BY_HAND: u8 = 10;
/// and of the successor.
const STARTED: u8 = 4;
const LOADED: u8 = 5;
const SERVING: u8 = 7;

/// A tracker whose successors can be started through a go-between.
struct Relayed {
    home: Home,
    /// Log of all processes.
    tracker: Tracker,
    /// Name of the file of the process that serves.
    program: String,
    number: u32,
}

impl Relayed {
    /// A tracker on loopback, IPv4 if no address is given.
    fn start(address: Option<SocketAddr>) -> Self {
        let home = Home::new(&on_loopback(address, "workers = 1\n[upgrade]\ndrain_time = 0"));
        let tracker = home.start("udp", 1);
        let relayed = Self { home, tracker, program: "aquatic".to_owned(), number: 0 };
        // So that there is something to hand over that was decided by hand.
        relayed.home.command_by_hand("ban 192.0.2.0/24");
        relayed.announce();
        relayed
    }

    /// A leecher, and a peer that has completed its download.
    fn announce(&self) {
        let client = Client::connect(self.tracker.address());
        client.announce(torrent(1), 1000, AnnounceEvent::None);
        client.announce(torrent(1), 1001, AnnounceEvent::None);
        client.announce_left(torrent(1), 1001, AnnounceEvent::Completed, 0);
    }

    /// Seeders, completed downloads and leechers.
    fn scrape(&self) -> [u32; 3] {
        Client::connect(self.tracker.address()).scrape(torrent(1))
    }

    /// Puts the real program and a go-between in place. Returns the name of the real one.
    fn prepare(&mut self, step: &str) -> String {
        self.number += 1;
        let real = format!("aquatic.{}", self.number);
        let program = env!("CARGO_BIN_EXE_aquatic");
        if fs::hard_link(program, self.home.path(&real)).is_err() {
            fs::copy(program, self.home.path(&real)).unwrap();
        }
        fs::write(self.home.path("step"), step).unwrap();
        fs::write(self.home.path("next"), &real).unwrap();
        let text = format!("#!/usr/bin/env python3\n{}", include_str!("relay.py"));
        fs::write(self.home.path("relay"), text).unwrap();
        fs::set_permissions(self.home.path("relay"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(self.home.path("relay"), self.home.path(&self.program)).unwrap();
        real
    }

    /// Has the hand-over wait before a message, and something happen meanwhile. Returns whether the upgrade
    /// worked, and what was said.
    fn upgrade_during(&mut self, message: u8, meanwhile: impl FnOnce(&mut Self)) -> (bool, String) {
        self.prepare(&format!("nobody before {message}"));
        let mut command = self.home.upgrade_command();
        let upgrade = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually(|| self.home.path("waits").exists(), |waits| *waits);
        meanwhile(self);
        fs::write(self.home.path("go"), "").unwrap();
        let Output { status, stdout, stderr } = upgrade.wait_with_output().unwrap();
        (status.success(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    /// Checks which process serves, its torrents, and what was decided by hand.
    fn check(&self, pid: u32, step: &str) {
        assert_eq!(self.home.pid(), pid, "{step}");
        assert!(is_running(pid), "{step}");
        assert!(self.home.command_by_hand("bans").contains("192.0.2.0/24"), "{step}");
        assert_eq!(self.scrape(), [1; 3], "{step}");
    }
}

/// An access list.
fn lines(torrents: &[u32]) -> String {
    let hex = |number: &u32| torrent(*number).0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    torrents.iter().map(|number| hex(number) + "\n").collect()
}

/// Whether an announce is answered by an error.
fn is_refused(client: &Client, number: u32) -> bool {
    client.exchange(&client.announce_request(torrent(number), 1000, AnnounceEvent::None))[..4] == [0, 0, 0, 3]
}

#[test]
fn what_is_reloaded_during_an_upgrade_is_in_effect_after_it() {
    let home = Home::new("");
    let list = home.path("deny.txt");
    fs::write(&list, lines(&[9])).unwrap();
    let access = format!("[access_list]\nmode = \"deny\"\npath = \"{}\"", list.display());
    home.configure(&on_loopback(None, &format!("workers = 1\n{access}\n[upgrade]\ndrain_time = 0")));
    let tracker = home.start("udp", 1);
    let mut relayed = Relayed { home, tracker, program: "aquatic".to_owned(), number: 0 };
    let before = relayed.home.pid();
    let (upgraded, text) = relayed.upgrade_during(LOADED, |relayed| {
        fs::write(&list, lines(&[9, 1])).unwrap();
        relayed.home.command_by_hand("reload");
        let client = Client::connect(relayed.tracker.address());
        assert!(is_refused(&client, 1), "the predecessor has read it");
    });
    assert!(upgraded, "{text}");
    assert_ne!(relayed.home.pid(), before);
    let client = Client::connect(relayed.tracker.address());
    eventually(|| is_refused(&client, 1), |refused| *refused);
    assert!(!is_refused(&client, 2));
}

#[test]
fn a_successor_that_is_killed_at_any_step_changes_nothing() {
    let mut relayed = Relayed::start(None);
    let pid = relayed.tracker.id();
    for (when, message) in [
        ("before", HELLO),
        ("after", HELLO),
        ("before", SOCKETS),
        ("after", SOCKETS),
        ("before", BEGIN),
        ("after", BEGIN),
        ("before", STARTED),
        ("after", STARTED),
        ("before", LOADED),
        ("after", LOADED),
        ("before", BY_HAND),
        ("after", BY_HAND),
        ("before", SWITCH),
        ("after", SWITCH),
        ("before", SERVING),
    ] {
        let step = format!("successor {when} {message}");
        relayed.prepare(&step);
        let (upgraded, text) = relayed.home.upgrade();
        assert!(!upgraded && text.contains("the successor has ended"), "{step}: {text}");
        relayed.check(pid, &step);
    }
}

#[test]
fn a_predecessor_that_is_killed_at_any_step_leaves_a_successor_that_serves() {
    let mut relayed = Relayed::start(Some("[::1]:0".parse().unwrap()));
    for (when, message) in [
        ("after", BEGIN),
        ("before", STARTED),
        ("after", STARTED),
        ("before", LOADED),
        ("after", LOADED),
        ("before", SWITCH),
        ("after", SWITCH),
        ("before", SERVING),
        ("after", SERVING),
        ("before", DONE),
        ("after", DONE),
    ] {
        let step = format!("predecessor {when} {message}");
        let real = relayed.prepare(&step);
        let old = relayed.home.pid();
        relayed.home.signal("USR2");
        until_ended(old);
        let pid = eventually(|| relayed.home.pid(), |pid| *pid != old);
        relayed.program = real;
        if relayed.scrape() == [0; 3] {
            // It had not been sent. What is announced from now on counts.
            assert!([BEGIN, STARTED, LOADED].contains(&message), "{step}");
            relayed.announce();
        }
        if !relayed.home.command_by_hand("bans").contains("192.0.2.0/24") {
            assert!(![SERVING, DONE].contains(&message), "{step}");
            relayed.home.command_by_hand("ban 192.0.2.0/24");
        }
        relayed.check(pid, &step);
    }
}

#[test]
fn a_predecessor_that_is_killed_before_a_hand_over_begins_leaves_no_process_behind() {
    let mut relayed = Relayed::start(None);
    let address = relayed.tracker.address();
    for (when, message) in
        [("before", HELLO), ("after", HELLO), ("before", SOCKETS), ("after", SOCKETS), ("before", BEGIN)]
    {
        let step = format!("predecessor {when} {message}");
        relayed.prepare(&step);
        let old = relayed.home.pid();
        relayed.home.signal("USR2");
        until_ended(old);
        // The successor does not know whether it has all sockets.
        eventually(|| runs_from(relayed.home.directory.path()), |runs| !runs);
        eventually(|| UdpSocket::bind(address).is_ok(), |is_free| *is_free);

        relayed.home.configure(&on_loopback(Some(address), "workers = 1\n[upgrade]\ndrain_time = 0"));
        relayed.home.install();
        relayed.program = "aquatic".to_owned();
        relayed.tracker = relayed.home.start("udp", 1);
        relayed.announce();
        relayed.home.command_by_hand("ban 192.0.2.0/24");
        relayed.check(relayed.tracker.id(), &step);
    }
}

/// Whether any process, the go-between included, was started from a directory.
fn runs_from(directory: &Path) -> bool {
    let mark = directory.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap();
    let command = |process: DirEntry| fs::read_to_string(process.path().join("cmdline")).ok();
    processes.filter_map(|process| command(process.unwrap())).any(|command| command.contains(mark))
}
