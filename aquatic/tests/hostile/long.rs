//! The long version: more connections, the deadlines of the default configuration, and a table.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::http::{self, HttpClient};
use super::lines::Tally;
use super::secure::{self, Authority};
use super::siege::{Latency, Report, besiege};
use super::target::{Target, pause};
use super::ws::{self, Pair};

/// How many times the counts below, as a number; the default is 1.
const SCALE: &str = "HOSTILE_SCALE";

const REQUEST: Duration = Duration::from_secs(10);
const REPLY: Duration = Duration::from_secs(30);
/// For replies that the kernel has taken for a client that does not.
const IDLE: Duration = Duration::from_secs(75);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A healthy client's wait in all but one case of a hundred, under any attack.
const P99: Duration = Duration::from_millis(50);

/// What memory may have grown by when all attacks are over, in KiB, after each of them has been once before.
const GROWTH: u64 = 4096;

/// The tracker looks every five seconds whether a crowd has gone, so that its memory can go back to the
/// system; what is left of one that was just going, at the next look.
const LOOKS: Duration = Duration::from_secs(11);

/// Only limits that attacks from few addresses would run into.
const SETTINGS: [&str; 2] =
    ["connections.max_connections_per_address=0", "connections.max_connections=10000"];

/// The healthy client sends more messages than one that announces.
const WS_SETTINGS: [&str; 3] = [SETTINGS[0], SETTINGS[1], "ws.client.max_message_rate=0"];

type Attack<'a> = (&'static str, Box<dyn Fn(&Target) -> Tally + 'a>);

fn plain_attacks(scale: f64) -> Vec<Attack<'static>> {
    let count = move |count: usize| ((count as f64 * scale) as usize).max(1);
    let second = Duration::from_secs(1);
    vec![
        ("heads at a byte per second", Box::new(move |t| http::dribble(t, count(5000), second, REQUEST))),
        ("silent connections", Box::new(move |t| http::silence(t, count(5000), REQUEST))),
        ("half-closed connections", Box::new(move |t| http::half_closed(t, count(20_000)))),
        ("garbage", Box::new(move |t| http::garbage(t, count(5000), REQUEST))),
        ("requests in single bytes", Box::new(move |t| http::single_bytes(t, count(2000)))),
        ("requests split at each byte", Box::new(move |t| http::split_everywhere(t, count(20)))),
        ("opened and dropped", Box::new(move |t| http::open_and_drop(t, count(100_000)))),
        ("reset at four moments", Box::new(move |t| http::resets(t, count(100_000)))),
        ("header bombs", Box::new(move |t| http::header_bombs(t, count(10_000)))),
        ("odd requests", Box::new(move |t| http::odd_requests(t, count(20_000)))),
        ("pipelining bombs", Box::new(move |t| http::pipelining_bombs(t, count(200), REPLY))),
        ("replies never read", Box::new(move |t| http::never_reading(t, count(500), IDLE))),
        ("a crowd beyond the limit", Box::new(move |t| http::crowd(t, 15_000, 9999))),
    ]
}

fn encrypted_attacks(authority: &Authority, scale: f64) -> Vec<Attack<'_>> {
    let count = move |count: usize| ((count as f64 * scale) as usize).max(1);
    vec![
        ("garbage for TLS", Box::new(move |t| secure::garbage(t, authority, count(5000), HANDSHAKE))),
        ("handshakes that stall", Box::new(move |t| secure::stalled(t, authority, count(5000), HANDSHAKE))),
        ("TLS opened and dropped", Box::new(move |t| http::open_and_drop(t, count(20_000)))),
    ]
}

fn ws_attacks(scale: f64) -> Vec<Attack<'static>> {
    let count = move |count: usize| ((count as f64 * scale) as usize).max(1);
    let second = Duration::from_secs(1);
    vec![
        ("upgrades at a byte per second", Box::new(move |t| http::dribble(t, count(5000), second, REQUEST))),
        ("frames that never end", Box::new(move |t| ws::dribbled_frames(t, count(1000), REQUEST))),
        ("bombs", Box::new(move |t| ws::message_bombs(t, count(20_000)))),
        ("forged peer ids", Box::new(move |t| ws::forged_peer_ids(t, count(20_000)))),
        ("answer floods", Box::new(move |t| ws::answer_floods(t, count(2000)))),
        ("offers to oneself", Box::new(move |t| ws::offers_to_oneself(t, count(10_000)))),
        ("opened and dropped", Box::new(move |t| http::open_and_drop(t, count(100_000)))),
        ("members that are reset", Box::new(move |t| ws::resets(t, count(100_000)))),
        ("members that never read", Box::new(move |t| ws::never_reading(t, count(100), REPLY))),
    ]
}

/// Allows as many connections as an attacker may have. Returns the scale.
fn prepare() -> f64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    std::env::var(SCALE).map_or(1.0, |scale| scale.parse().unwrap())
}

fn print_head() {
    println!(
        "{:<28}{:>9}{:>7}{:>9}{:>9}{:>8}{:>8}{:>11}{:>15}{:>9}{:>22}{:>22}",
        "attack",
        "count",
        "s",
        "answered",
        "refused",
        "cut",
        "left",
        "by server",
        "KiB",
        "fds",
        "calm p50/p99/max ms",
        "then p50/p99/max ms"
    );
}

fn print_row(name: &str, report: &Report) {
    let Report { tally, time, calm, under_attack, before, after, .. } = report;
    let by_server = report.counted(&["connections_refused"]) + report.counted(&["connection_timeouts"]);
    let times = |Latency { median, p99, worst, .. }: &Latency| {
        let [median, p99, worst] = [median, p99, worst].map(|time| time.as_secs_f64() * 1e3);
        format!("{median:.2}/{p99:.2}/{worst:.1}")
    };
    println!(
        "{name:<28}{:>9}{:>7.1}{:>9}{:>9}{:>8}{:>8}{by_server:>11}{:>15}{:>9}{:>22}{:>22}",
        tally.opened,
        time.as_secs_f64(),
        tally.answered,
        tally.refused,
        tally.cut,
        tally.left,
        format!("{}>{}", before.memory, after.memory),
        format!("{}>{}", before.descriptors, after.descriptors),
        times(calm),
        times(under_attack),
    );
}

/// Attacks twice: the first time, lists grow to the size that they keep.
fn attack_all(target: &Target, attacks: &[Attack<'_>], besiege: impl Fn(&Attack<'_>) -> Report) {
    let (mut settled, mut problems) = (0, Vec::<String>::new());
    for round in ["first", "second"] {
        println!("\n{round} time:");
        print_head();
        for attack in attacks {
            let report = besiege(attack);
            print_row(attack.0, &report);
            if report.after.descriptors > report.before.descriptors {
                problems.push(format!("{}: descriptors are left open", attack.0));
            }
            if report.under_attack.put_off > 0 {
                let times = report.under_attack.put_off;
                problems.push(format!("{}: the healthy client was put off {times} times", attack.0));
            }
            if report.under_attack.p99 > P99 {
                problems.push(format!("{}: the healthy client waits for longer than {P99:?}", attack.0));
            }
        }
        pause(LOOKS);
        let memory = target.figures().memory;
        println!("then, and after {} s: {memory} KiB", LOOKS.as_secs());
        if settled != 0 && memory > settled + GROWTH {
            problems.push(format!("memory has grown from {settled} to {memory} KiB"));
        }
        settled = memory;
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
#[ignore = "takes minutes; run by scripts/hostile"]
fn http() {
    let scale = prepare();
    let target = Target::start("http", &SETTINGS);
    attack_all(&target, &plain_attacks(scale), |(_, attack)| {
        besiege(&target, || HttpClient::new(&target), attack)
    });
    super::ends_well(target);
}

#[test]
#[ignore = "takes minutes; run by scripts/hostile"]
fn https() {
    let scale = prepare();
    let authority = Authority::new();
    let settings = authority.settings();
    let settings: Vec<_> = settings.iter().map(String::as_str).chain(SETTINGS).collect();
    let target = Target::start("http", &settings);
    attack_all(&target, &encrypted_attacks(&authority, scale), |(_, attack)| {
        besiege(&target, || HttpClient::on(authority.connect(&target)), attack)
    });
    super::ends_well(target);
}

#[test]
#[ignore = "takes minutes; run by scripts/hostile"]
fn ws() {
    let target = Target::start("ws", &WS_SETTINGS);
    let attacks = ws_attacks(prepare());
    attack_all(&target, &attacks, |(_, attack)| besiege(&target, || Pair::new(&target), attack));
    super::ends_well(target);
}
