//! What an operator has decided with `aquatic ctl` outlasts an upgrade.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use aquatic_common::AnnounceEvent;

use crate::support::eventually;
use crate::udp::Client;
use crate::{Home, on_loopback, torrent, until_ended};

impl Home {
    /// Runs `aquatic ctl`, and returns whether that worked and what it prints.
    fn ctl(&self, words: &str) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatic"));
        command.arg("ctl").arg("-s").arg(self.path("state/control.sock")).args(words.split_whitespace());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    /// Runs a command that works.
    pub(crate) fn command_by_hand(&self, words: &str) -> String {
        let (done, text) = self.ctl(words);
        assert!(done, "{words}: {text}");
        text
    }
}

#[test]
fn decisions_outlast_upgrades_and_failed_ones() {
    let home = Home::new(&on_loopback(None, "workers = 1"));
    let tracker = home.start("udp", 1);
    let client = Client::connect(tracker.address());
    let denied = torrent(1);
    client.announce(denied, 1000, AnnounceEvent::None);
    home.command_by_hand("ban 127.0.0.9");
    home.command_by_hand("ban 192.0.2.0/24 for 2h");
    home.command_by_hand(&format!("deny {denied}"));
    home.command_by_hand(&format!("allow {}", torrent(2)));
    home.command_by_hand("breaker open --protocol udp --family ipv6");
    let before = home.command_by_hand("bans");
    assert!(before.contains("127.0.0.9/32") && before.contains(&denied.to_string()), "{before}");

    // A hand-over that fails at its end changes nothing, and commands are carried out again.
    home.install_failure("kill before it serves");
    assert!(!home.upgrade().0);
    home.command_by_hand("ban 198.51.100.0/24");
    home.install();
    for _ in 0..2 {
        let old = home.pid();
        let (upgraded, text) = home.upgrade();
        assert!(upgraded, "{text}");
        let bans = home.command_by_hand("bans");
        for line in before.lines().filter(|line| !line.contains("192.0.2.0")) {
            assert!(bans.contains(line), "{line} in {bans}");
        }
        assert!(bans.contains("198.51.100.0/24"), "{bans}");
        let left = seconds_left(&home.command_by_hand("bans --json"), "192.0.2.0/24");
        assert!((6000..=7200).contains(&left), "it ends when it would have: in {left} s");
        let breakers = home.command_by_hand("breaker");
        let ipv6 = breakers.lines().find(|line| line.contains("udp") && line.contains("ipv6")).unwrap();
        assert!(ipv6.contains("open"), "{breakers}");
        assert!(home.command_by_hand(&format!("torrent {denied}")).contains("denied by hand"));
        until_ended(old);
    }
    // They are in force, and can be taken back.
    let blocked = UdpSocket::bind("127.0.0.9:0").unwrap();
    blocked.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    blocked.connect(tracker.address()).unwrap();
    let is_answered = || {
        blocked.send(&Client::connect_request()).unwrap();
        blocked.recv(&mut [0; 64]).is_ok()
    };
    assert!(!is_answered());
    home.command_by_hand("unban 127.0.0.9");
    home.command_by_hand(&format!("reset {denied}"));
    eventually(is_answered, |answered| *answered);
    assert_eq!(client.leechers(denied), 1);
}

/// How long a network remains blocked, by the reply to the command that lists them.
fn seconds_left(reply: &str, network: &str) -> u64 {
    let reply: serde_json::Value = serde_json::from_str(reply).unwrap();
    let networks = reply["networks"].as_array().unwrap();
    let ban = networks.iter().find(|ban| ban["network"] == network).unwrap();
    ban["seconds"].as_u64().unwrap()
}
