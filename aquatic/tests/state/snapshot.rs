//! Peers and counts survive.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use aquatic_common::AnnounceEvent;

use crate::support::{Tracker, eventually, metric, skip};
use crate::udp::Client;
use crate::{Home, is_root, torrent};

/// Torrents with two peers each.
const TORRENTS: u32 = 300;

/// Longest time to stop after a snapshot has been saved.
const STOP: Duration = Duration::from_secs(20);

fn fill(home: &Home) {
    let (one, other) = (
        Client::connect_from("127.0.0.1:0", home.address),
        Client::connect_from("127.0.0.2:0", home.address),
    );
    for number in 0..TORRENTS {
        one.announce(torrent(number), 1000, AnnounceEvent::None);
        other.announce(torrent(number), 2000, AnnounceEvent::None);
    }
}

/// Number of torrents whose peers are all there.
fn complete(home: &Home) -> usize {
    let client = Client::connect_from("127.0.0.3:0", home.address);
    (0..TORRENTS).filter(|number| client.leechers(torrent(*number)) == 2).count()
}

/// Stops a tracker and returns its log.
fn stop(tracker: Tracker) -> String {
    tracker.signal("TERM");
    let (code, _, log) = tracker.end_within(STOP);
    assert_eq!(code, Some(0), "{log}");
    log
}

fn start_and_load(home: &mut Home, settings: &[&str]) -> (Tracker, String) {
    let mut tracker = home.start(settings);
    let line = tracker.wait_for_log("snapshot loaded in ");
    (tracker, line)
}

#[test]
fn peers_survive_restarts_with_any_number_of_cores() {
    let mut home = Home::new();
    let mut tracker = home.start(&["workers=1"]);
    tracker.wait_for_log("the tracker starts empty");
    fill(&home);
    let log = stop(tracker);
    assert!(log.contains("snapshot saved: 600 peers"), "{log}");
    let cores = thread::available_parallelism().map_or(1, usize::from).min(2);
    for workers in [cores, 1, cores] {
        let (tracker, line) = start_and_load(&mut home, &[&format!("workers={workers}")]);
        assert!(line.contains("600 peers stored, 0 had announced already, 0 were too old"), "{line}");
        eventually(|| complete(&home), |complete| *complete == TORRENTS as usize);
        let client = Client::connect_from("127.0.0.4:0", home.address);
        let (mut peers, _) = client.announce(torrent(3), 3000, AnnounceEvent::None);
        peers.sort_unstable();
        assert_eq!(peers, ["127.0.0.1:1000".parse().unwrap(), "127.0.0.2:2000".parse().unwrap()]);
        client.announce(torrent(3), 3000, AnnounceEvent::Stopped);
        let metrics = tracker.metrics.unwrap();
        assert_eq!(metric(metrics, "aquatic_snapshot_peers_total{outcome=\"stored\"}"), 600.0);
        stop(tracker);
    }
    let names: Vec<_> =
        fs::read_dir(home.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "keys and snapshot: {names:?}");
}

#[test]
fn seeders_leechers_and_completed_downloads_survive_over_ipv6() {
    let mut home = Home::on("[::1]:0");
    let tracker = home.start(&["workers=1"]);
    let client = Client::connect(home.address);
    client.announce(torrent(1), 1000, AnnounceEvent::Started);
    client.announce_left(torrent(1), 2000, AnnounceEvent::Started, 0);
    client.announce(torrent(1), 3000, AnnounceEvent::Started);
    client.announce_left(torrent(1), 3000, AnnounceEvent::Completed, 0);
    assert_eq!(client.scrape(torrent(1)), [2, 1, 1]);
    stop(tracker);
    for _ in 0..2 {
        let (tracker, line) = start_and_load(&mut home, &["workers=1"]);
        assert!(line.contains("3 peers stored"), "{line}");
        let client = Client::connect(home.address);
        assert_eq!(client.scrape(torrent(1)), [2, 1, 1]);
        let (mut peers, _) = client.announce(torrent(1), 4000, AnnounceEvent::None);
        peers.sort_unstable();
        assert_eq!(peers, [1000, 2000, 3000].map(|port| SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
        client.announce(torrent(1), 4000, AnnounceEvent::Stopped);
        stop(tracker);
    }
}

#[test]
fn a_killed_tracker_goes_on_from_its_last_snapshot() {
    let mut home = Home::new();
    let tracker = home.start(&["snapshot_interval=1"]);
    fill(&home);
    let metrics = tracker.metrics.unwrap();
    let saved = metric(metrics, "aquatic_snapshots_saved_total");
    eventually(|| metric(metrics, "aquatic_snapshots_saved_total"), |now| *now >= saved + 2.0);
    tracker.signal("KILL");
    assert_eq!(tracker.end().0, None);
    let (_tracker, line) = start_and_load(&mut home, &[]);
    assert!(line.contains("600 peers stored"), "{line}");
    eventually(|| complete(&home), |complete| *complete == TORRENTS as usize);
}

/// Makes the snapshot one of so many seconds before.
fn be_away(home: &Home, seconds: i64) {
    let path = home.path("snapshot");
    let mut bytes = fs::read(&path).unwrap();
    let calendar = i64::from_le_bytes(bytes[40..48].try_into().unwrap());
    bytes[16..32].fill(1);
    bytes[40..48].copy_from_slice(&(calendar - seconds).to_le_bytes());
    let checksum = *blake3::hash(&bytes[..48]).as_bytes();
    bytes[48..80].copy_from_slice(&checksum);
    fs::write(&path, bytes).unwrap();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "peers are to expire meanwhile, or not")]
fn peers_that_were_asked_to_wait_for_long_are_kept_for_long() {
    let intervals = [
        "protocol.peer_announce_interval=60",
        "protocol.max_announce_interval=3600",
        "cleaning.max_peer_age=120",
        "cleaning.interval=1",
    ];
    let stretched = [&intervals[..], &["protocol.max_interval_swarm_size=1"]].concat();
    for (settings, expected) in [(&intervals[..], 0), (&stretched, TORRENTS as usize)] {
        let mut home = Home::new();
        let tracker = home.start(settings);
        fill(&home);
        stop(tracker);
        be_away(&home, 1000);
        let (tracker, line) = start_and_load(&mut home, settings);
        assert!(line.contains(&format!("{} peers stored", 2 * expected)), "{line}");
        thread::sleep(Duration::from_secs(3));
        assert_eq!(complete(&home), expected);
        stop(tracker);
    }
}

#[test]
fn limits_and_ages_apply_to_what_is_loaded() {
    let mut home = Home::new();
    let tracker = home.start(&[]);
    fill(&home);
    stop(tracker);
    let (tracker, line) = start_and_load(&mut home, &["limits.max_torrents=100", "workers=1"]);
    assert!(line.contains("200 peers stored") && line.contains("400 exceeded limits"), "{line}");
    tracker.signal("KILL");
    tracker.end();
    be_away(&home, 7200);
    let (_tracker, line) = start_and_load(&mut home, &[]);
    assert!(line.contains("0 peers stored") && line.contains("600 were too old"), "{line}");
}

#[test]
fn files_that_are_no_snapshot_or_damaged_are_told_and_harmless() {
    let mut home = Home::new();
    let tracker = home.start(&["workers=1"]);
    fill(&home);
    stop(tracker);
    let path = home.path("snapshot");
    let whole = fs::read(&path).unwrap();
    let middle = whole.len() / 2;
    let flipped: Vec<u8> =
        whole.iter().enumerate().map(|(at, byte)| if at == middle { byte ^ 4 } else { *byte }).collect();
    let mut version = whole.clone();
    version[8] = 200;
    for (bytes, text) in [
        (&whole[..30], "it is too short"),
        (&whole[..middle], "its end is missing"),
        (&flipped, "1 section(s) with a wrong checksum"),
        (&version, "its version, 200, is unknown"),
        (b"hello", "it is too short"),
        (&[7; 5000], "it is no snapshot of the tracker"),
        (&[], "it is too short"),
    ] {
        fs::write(&path, bytes).unwrap();
        let mut tracker = home.start(&[]);
        let line = tracker.wait_for_log("ERROR");
        assert!(line.contains(text), "{line}");
        let client = Client::connect_from("127.0.0.1:0", home.address);
        client.announce(torrent(1), 1000, AnnounceEvent::None);
        let damage = metric(tracker.metrics.unwrap(), "aquatic_snapshot_damage_total");
        assert!(damage > 0.0);
        if line.contains("snapshot.unusable") {
            assert_eq!(fs::read(home.path("snapshot.unusable")).unwrap(), bytes);
            assert!(!path.exists());
        }
        tracker.signal("KILL");
        tracker.end();
    }
}

#[test]
fn a_snapshot_that_cannot_be_saved_is_told_once_and_leaves_the_previous_one() {
    let mut home = Home::new();
    let tracker = home.start(&[]);
    fill(&home);
    stop(tracker);
    let before = fs::read(home.path("snapshot")).unwrap();
    // Not even root can replace a directory that is not empty by a file.
    fs::create_dir_all(home.path("snapshot.new/full")).unwrap();
    let (mut tracker, _) = start_and_load(&mut home, &["snapshot_interval=1"]);
    let metrics = tracker.metrics.unwrap();
    let failures = || metric(metrics, "aquatic_state_write_failures_total{file=\"snapshot\"}");
    tracker.wait_for_log("cannot be saved: ");
    eventually(failures, |failures| *failures >= 2.0);
    fs::remove_dir_all(home.path("snapshot.new")).unwrap();
    let mut between = Vec::new();
    loop {
        let line = tracker.wait_for_log("snapshot");
        if line.contains("snapshot saved: 600 peers") {
            break;
        }
        between.push(line);
    }
    assert!(between.iter().all(|line| !line.contains("cannot be saved")), "{between:?}");
    assert_eq!(before.len(), fs::read(home.path("snapshot")).unwrap().len());
}

#[test]
fn a_limit_of_the_size_of_files_is_told_like_a_full_disk() {
    let mut home = Home::new();
    let started = home.command(&[]);
    // 512 bytes: enough for the keys, not for a snapshot of so many peers.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -f 1; exec \"$0\" \"$@\""])
        .arg(started.get_program())
        .args(started.get_args());
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tracker = Tracker::start(1, &mut limited);
    home.address = tracker.address();
    fill(&home);
    let ask = || {
        let mut ctl = Command::new(started.get_program());
        let output = ctl.args(["ctl", "-s"]).arg(home.path("control.sock")).arg("snapshot").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // At first it may still be loading one.
    let (code, text) = eventually(ask, |(_, text)| !text.contains("try again"));
    assert!(code == Some(3) && text.contains("the log says why"), "{code:?} {text}");
    let line = tracker.wait_for_log("cannot be saved");
    assert!(line.contains("File too large"), "{line}");
    fill(&home);
    tracker.signal("TERM");
    assert_eq!(tracker.end_within(STOP).0, Some(0));
}

#[test]
fn the_state_is_kept_after_privileges_and_root_directory_are_given_up() {
    if !is_root() {
        return skip("root");
    }
    let mut home = Home::new();
    let nobody = "getent passwd nobody | cut -d: -f3,4";
    let give = format!("chown $({nobody}) \"$0\"");
    let given = Command::new("sh").arg("-c").arg(give).arg(home.directory.path()).status().unwrap();
    assert!(given.success());
    let new_root = tempfile::tempdir().unwrap();
    let chroot = format!("privileges.chroot_path={}", new_root.path().display());
    let settings = ["privileges.drop_privileges=true", &chroot, "snapshot_interval=1"];
    let tracker = home.start(&settings);
    fill(&home);
    let log = stop(tracker);
    assert!(log.contains("snapshot saved: 600 peers"), "{log}");
    let (tracker, line) = start_and_load(&mut home, &settings);
    assert!(line.contains("600 peers stored"), "{line}");
    assert!(tracker.start_log.contains("connection ids stay valid"), "{}", tracker.start_log);
    eventually(|| complete(&home), |complete| *complete == TORRENTS as usize);
}
