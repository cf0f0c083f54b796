//! The real program under attack: what strangers may send, leave unsent, open and drop, while a healthy
//! client goes on being served. Nobody stays longer than a deadline, nothing of an attack is left behind, and
//! the healthy client hardly notices.
//!
//! The tests attack with few connections and short deadlines. `long` attacks with many, and the deadlines an
//! operator has; `scripts/hostile` runs it and prints a table.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

mod http;
mod lines;
mod long;
mod secure;
mod siege;
mod target;
mod ws;

use std::time::Duration;

use http::HttpClient;
use lines::Tally;
use secure::Authority;
use siege::{Report, besiege};
use target::{PATIENCE, Target};

/// Deadlines of the tests, in seconds.
const DEADLINES: [&str; 9] = [
    "connections.request_timeout=1",
    "connections.reply_timeout=3",
    "connections.handshake_timeout=2",
    "connections.max_connection_idle=2",
    "connections.linger_timeout=1",
    "connections.max_connections_per_address=0",
    "ws.client.message_timeout=1",
    "ws.client.send_timeout=3",
    "ws.client.idle_timeout=2",
];

const REQUEST: Duration = Duration::from_secs(1);
const REPLY: Duration = Duration::from_secs(3);
const HANDSHAKE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(2);

/// Deadlines are never met early, but for how time is rounded here and there.
const EARLY: Duration = Duration::from_millis(20);

/// What a healthy client may have to wait for an answer: in all but one case of a hundred, and at all. All
/// tests of this file share the processor with the tracker, in the slow build. On a machine with more to do,
/// three times the longest wait before the attack.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Memory the tracker may have kept for later, in KiB: lists that have grown once.
const GROWTH: u64 = 4096;

fn start_service(protocol: &'static str, more: &[&str]) -> Target {
    let settings: Vec<_> = ["workers=2"].iter().chain(&DEADLINES).chain(more).copied().collect();
    Target::start(protocol, &settings)
}

fn start(more: &[&str]) -> Target {
    start_service("http", more)
}

/// Attacks a tracker and checks everything that holds for every attack.
fn attacked(target: &Target, attack: impl FnOnce(&Target) -> Tally) -> Report {
    checked(besiege(target, || HttpClient::new(target), attack))
}

fn checked(report: Report) -> Report {
    let Report { before, after, calm, under_attack, .. } = &report;
    let busy = 3 * calm.worst;
    assert!(after.descriptors <= before.descriptors, "{report:?}");
    assert!(after.memory <= before.memory + GROWTH, "{report:?}");
    assert_eq!(under_attack.put_off, 0, "{report:?}");
    assert!(under_attack.p99 <= WAIT.0.max(busy) && under_attack.worst <= WAIT.1.max(busy), "{report:?}");
    report
}

/// The tracker has not said anything to worry about, and ends in order.
fn ends_well(target: Target) {
    let (status, log) = target.stop();
    assert!(status.success(), "{status}: {log}");
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

fn assert_between(tally: &Tally, deadline: Duration) {
    assert!(tally.shortest + EARLY >= deadline && tally.longest <= deadline + http::SLACK, "{tally:?}");
}

#[test]
fn heads_that_dribble_are_cut_off_at_the_deadline() {
    let target = start(&[]);
    let every = Duration::from_millis(100);
    let report = attacked(&target, |target| http::dribble(target, 200, every, REQUEST));
    assert_eq!(report.tally.cut, 200, "{report:?}");
    assert_between(&report.tally, REQUEST);
    assert_eq!(report.counted(&["timeouts", "\"head\""]), 200);
    ends_well(target);
}

#[test]
fn who_never_says_anything_is_sent_away() {
    let target = start(&[]);
    let report = attacked(&target, |target| http::silence(target, 500, REQUEST));
    assert_eq!(report.tally.cut, 500, "{report:?}");
    assert!(report.tally.shortest + EARLY >= REQUEST, "{report:?}");
    ends_well(target);
}

#[test]
fn half_closed_connections_get_what_they_are_owed() {
    let target = start(&[]);
    let report = attacked(&target, |target| http::half_closed(target, 1000));
    assert_eq!((report.tally.answered, report.tally.left), (500, 0), "{report:?}");
    ends_well(target);
}

#[test]
fn garbage_is_answered_or_cut_off() {
    let target = start(&[]);
    let report = attacked(&target, |target| http::garbage(target, 1000, REQUEST));
    assert_eq!((report.tally.answered, report.tally.left), (0, 0), "{report:?}");
    assert!(report.tally.refused > 500, "{report:?}");
    ends_well(target);
}

#[test]
fn requests_in_pieces_are_answered() {
    let target = start(&["connections.request_timeout=10"]);
    let report = attacked(&target, |target| http::single_bytes(target, 50));
    assert_eq!(report.tally.answered, 50, "{report:?}");
    let report = attacked(&target, |target| http::split_everywhere(target, 1));
    assert!(report.tally.opened > 150 && report.tally.answered == report.tally.opened, "{report:?}");
    ends_well(target);
}

#[test]
fn connections_opened_and_dropped_leave_nothing_behind() {
    const COUNT: usize = 4000;
    let target = start(&[]);
    for attack in [http::open_and_drop, http::resets] {
        attacked(&target, |target| attack(target, COUNT));
        let report = attacked(&target, |target| attack(target, COUNT));
        // Lists have grown before. What is left is less than the smallest thing that one connection could
        // leave.
        let left = report.after.memory.saturating_sub(report.before.memory) * 1024;
        assert!(left < 64 * COUNT as u64, "{report:?}");
    }
    ends_well(target);
}

#[test]
fn heads_that_are_too_long_are_refused_politely() {
    let target = start(&[]);
    let report = attacked(&target, |target| http::header_bombs(target, 200));
    assert_eq!(report.tally.refused, 200, "{report:?}");
    ends_well(target);
}

#[test]
fn odd_requests_are_answered() {
    let target = start(&[]);
    let report = attacked(&target, |target| http::odd_requests(target, 320));
    assert_eq!((report.tally.left, report.tally.cut), (0, 0), "{report:?}");
    ends_well(target);
}

#[test]
fn clients_that_never_read_are_cut_off_at_the_deadline() {
    let target = start(&[]);
    for attack in [http::pipelining_bombs, http::never_reading] {
        let report = attacked(&target, |target| attack(target, 50, REPLY));
        assert_eq!(report.tally.cut, 50, "{report:?}");
        assert!(report.tally.shortest + EARLY >= REPLY.min(IDLE), "{report:?}");
    }
    ends_well(target);
}

#[test]
fn a_crowd_beyond_the_limit_is_turned_away() {
    let target = start(&["connections.max_connections=200", "connections.request_timeout=60"]);
    let report = attacked(&target, |target| http::crowd(target, 500, 199));
    assert_eq!((report.tally.cut, report.tally.left), (301, 199), "{report:?}");
    // Those that have waited for a while make room, but not at once.
    let [refused, evicted] = ["refused", "evicted"].map(|what| report.counted(&[what, "\"limit\""]));
    assert_eq!(refused + evicted, 301, "{report:?}");
    ends_well(target);
}

#[test]
fn handshakes_that_go_wrong_hurt_nobody_else() {
    let authority = Authority::new();
    let settings = authority.settings();
    let mut settings: Vec<_> = settings.iter().map(String::as_str).collect();
    settings.push("connections.max_tls_handshakes=20");
    let target = start(&settings);
    let healthy = || HttpClient::on(authority.connect(&target));
    let attack = |target: &Target| secure::garbage(target, &authority, 400, HANDSHAKE);
    let report = checked(besiege(&target, healthy, attack));
    assert_eq!((report.tally.left, report.tally.answered), (0, 0), "{report:?}");

    // Half of them stop where only 20 may wait on each of the two cores.
    let attack = |target: &Target| secure::stalled(target, &authority, 200, HANDSHAKE);
    let report = checked(besiege(&target, healthy, attack));
    assert_eq!(report.tally.left, 0, "{report:?}");
    assert!(report.tally.longest < HANDSHAKE + http::SLACK, "{report:?}");
    assert_eq!(report.counted(&["evicted", "\"handshakes\""]), 60, "{report:?}");
    assert_eq!(report.counted(&["timeouts", "\"handshake\""]), 140, "{report:?}");
    ends_well(target);
}

#[test]
fn empty_tls_records_end_their_connection_and_delay_nobody() {
    let authority = Authority::new();
    let settings = authority.settings();
    let mut settings: Vec<_> = settings.iter().map(String::as_str).collect();
    // None of them ends because of a deadline.
    settings.extend(["connections.max_connection_idle=60", "connections.request_timeout=60"]);
    let target = start(&settings);
    let healthy = || HttpClient::on(authority.connect(&target));
    let report = checked(besiege(&target, healthy, |target| secure::empty_records(target, &authority, 20)));
    // With an alert: the TLS library takes 32 in a row.
    assert_eq!((report.tally.refused, report.tally.left), (20, 0), "{report:?}");
    ends_well(target);
}

#[test]
fn idle_connections_end() {
    let target = start(&[]);
    let report = attacked(&target, |target| http::idle(target, 500, IDLE));
    assert_eq!(report.tally.answered, 500, "{report:?}");
    assert_between(&report.tally, IDLE);
    ends_well(target);
}

type Attack = fn(&Target, usize) -> Tally;

/// Attacks a WebTorrent tracker in turn with what its members may not suffer from.
fn attacked_ws(attacks: &[(Attack, usize)]) {
    let target = start_service("ws", &["ws.client.max_message_rate=0"]);
    for &(attack, count) in attacks {
        let report = checked(besiege(&target, || ws::Pair::new(&target), |target| attack(target, count)));
        assert!(report.tally.opened == count && report.tally.longest < PATIENCE, "{report:?}");
    }
    ends_well(target);
}

#[test]
fn bombs_in_messages_and_frames_hurt_nobody() {
    attacked_ws(&[(ws::message_bombs, 300)]);
}

#[test]
fn strangers_cannot_take_the_place_of_peers_that_stay() {
    attacked_ws(&[(ws::forged_peer_ids, 500), (ws::answer_floods, 100), (ws::offers_to_oneself, 200)]);
}

#[test]
fn members_that_are_reset_leave_nothing_behind() {
    attacked_ws(&[(ws::resets, 2000), (ws::resets, 2000), (http::open_and_drop, 2000)]);
}

#[test]
fn upgrades_and_frames_that_dribble_are_cut_off() {
    let target = start_service("ws", &["ws.client.max_message_rate=0"]);
    let every = Duration::from_millis(100);
    let attack = |target: &Target| http::dribble(target, 200, every, REQUEST);
    let report = checked(besiege(&target, || ws::Pair::new(&target), attack));
    assert_eq!(report.tally.left, 0, "{report:?}");
    let attack = |target: &Target| ws::dribbled_frames(target, 200, REQUEST);
    let report = checked(besiege(&target, || ws::Pair::new(&target), attack));
    assert_eq!(report.tally.left, 0, "{report:?}");
    ends_well(target);
}

#[test]
fn members_that_never_read_are_cut_off() {
    let target = start_service("ws", &["ws.client.max_message_rate=0"]);
    let attack = |target: &Target| ws::never_reading(target, 20, REPLY);
    // What waited for them the first time is memory that is used again.
    besiege(&target, || ws::Pair::new(&target), attack);
    let report = checked(besiege(&target, || ws::Pair::new(&target), attack));
    assert_eq!((report.tally.cut, report.tally.left), (20, 0), "{report:?}");
    ends_well(target);
}
