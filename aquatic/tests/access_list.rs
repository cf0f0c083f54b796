//! Access list files of the running program: which are accepted, and what a bad one does at start and at a
//! reload.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;

use support::{Ends, Tracker, eventually, fetch, metric, service};
use tempfile::TempDir;

const DENIED: &str = "0123456789abcdef0123456789abcdef01234567";

/// A tracker over HTTP with the torrent above on its deny list.
struct Fixture {
    tracker: Tracker,
    metrics: SocketAddr,
    path: PathBuf,
    _directory: TempDir,
}

impl Fixture {
    fn start(text: &str, settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list.txt");
        std::fs::write(&path, text).unwrap();
        let path_setting = format!("access_list.path={}", path.display());
        let usual = [
            "workers=1",
            "network.use_ipv6=false",
            "network.address_ipv4=127.0.0.1:0",
            "metrics.enable=true",
            "metrics.address=127.0.0.1:0",
            "access_list.mode=deny",
            &path_setting,
        ];
        let tracker = Tracker::start(1, &mut service("http", &[&usual[..], settings].concat()));
        let metrics = tracker.metrics.unwrap();
        Self { tracker, metrics, path, _directory: directory }
    }

    /// Reloads and returns the line of the log that begins the outcome.
    fn reload(&mut self) -> String {
        self.tracker.signal("USR1");
        self.tracker.wait_for_log("access list")
    }

    /// Whether announces for the torrent are answered with peers.
    fn serves(&self, info_hash: &str) -> bool {
        let escaped: String = (0..20).map(|at| format!("%{}", &info_hash[2 * at..2 * at + 2])).collect();
        let query = format!("info_hash={escaped}&peer_id=-TR4050-abcdefghijkl&port=1000&left=1&compact=1");
        let reply = fetch(self.tracker.address(), &format!("/announce?{query}"));
        assert_ne!(reply.contains("5:peers"), reply.contains("does not serve this torrent"), "{reply}");
        reply.contains("5:peers")
    }

    fn reloads(&self, outcome: &str) -> f64 {
        metric(self.metrics, &format!("aquatic_access_list_reloads_total{{outcome=\"{outcome}\"}}"))
    }
}

/// Files that are no access list, and what is logged about them.
const BAD: [(&str, &str); 5] = [
    ("<!DOCTYPE html>\n<title>502 Bad Gateway</title>\n", "line 1: expected 40 hexadecimal digits"),
    ("", "no info hash in it"),
    ("# nothing\n", "no info hash in it"),
    ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n0123456789", "line 2: expected 40 hexadecimal digits"),
    ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nnonsense\n", "line 2: expected 40 hexadecimal digits"),
];

#[test]
fn a_bad_file_never_replaces_a_good_list() {
    let mut fixture = Fixture::start(DENIED, &[]);
    assert!(!fixture.serves(DENIED));
    let told = "INFO  access list: 1 torrents, not served (mode \"deny\")";
    assert!(fixture.tracker.start_log.contains(told), "{}", fixture.tracker.start_log);
    for (text, logged) in BAD {
        std::fs::write(&fixture.path, text).unwrap();
        let line = fixture.reload();
        assert!(line.contains("ERROR") && line.contains(logged), "{text:?}: {line}");
        assert!(line.contains("the previous one stays in use (1 info hashes)"), "{line}");
        assert!(!fixture.serves(DENIED), "{text:?}");
    }
    std::fs::remove_file(&fixture.path).unwrap();
    assert!(fixture.reload().contains("ERROR"));
    assert!(!fixture.serves(DENIED));
    let reloads = || (fixture.reloads("failed"), fixture.reloads("done"));
    eventually(reloads, |counted| *counted == (6.0, 0.0));
    let bad_lines = || metric(fixture.metrics, "aquatic_access_list_bad_lines_total");
    eventually(bad_lines, |counted| *counted == 4.0);

    let other = "a".repeat(40);
    std::fs::write(&fixture.path, &other).unwrap();
    let line = fixture.reload();
    assert!(line.contains("access list reloaded: 1 info hashes, 1 added, 1 removed"), "{line}");
    assert!(fixture.serves(DENIED) && !fixture.serves(&other));
    let reloads = || (fixture.reloads("failed"), fixture.reloads("done"));
    eventually(reloads, |counted| *counted == (6.0, 1.0));
    assert_eq!(metric(fixture.metrics, "aquatic_access_list"), 1.0);
}

#[test]
fn a_bad_file_ends_the_start_with_code_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.txt");
    let setting = format!("access_list.path={}", path.display());
    let settings = ["workers=1", "network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0", &setting];
    let run = |name: &str, mode: &str| {
        let mode = format!("access_list.mode={mode}");
        let output = service(name, &[&settings[..], &[&mode]].concat()).ends();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (name, mode) in [("udp", "allow"), ("http", "deny"), ("ws", "deny")] {
        let _ = std::fs::remove_file(&path);
        let (code, log) = run(name, mode);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("error: cannot read the access list"), "{log}");
        for (text, logged) in BAD {
            std::fs::write(&path, text).unwrap();
            let (code, log) = run(name, mode);
            assert_eq!(code, Some(1), "{text:?}: {log}");
            assert!(log.contains(logged) && log.contains("list.txt"), "{text:?}: {log}");
        }
    }
}

#[test]
fn lists_are_read_as_other_programs_write_them() {
    let hashes: Vec<String> = (0..8).map(|number| format!("{number}b").repeat(20)).collect();
    let text = format!(
        "\u{feff}{}\r\n{} some text\n{},name\n; comment\n// comment\n# comment\n\n{}\t// comment\r{}\r\n  {}\n{}\r{}",
        hashes[0],
        hashes[1],
        hashes[2],
        hashes[3],
        hashes[4],
        hashes[5],
        hashes[6],
        hashes[7].to_uppercase(),
    );
    let mut fixture = Fixture::start(&text, &[]);
    assert!(hashes.iter().all(|info_hash| !fixture.serves(info_hash)));
    assert!(fixture.serves(DENIED));
    let line = fixture.reload();
    assert!(line.contains("access list reloaded: 8 info hashes, 0 added, 0 removed"), "{line}");
    assert!(hashes.iter().all(|info_hash| !fixture.serves(info_hash)));
}

#[test]
fn an_empty_list_is_accepted_if_it_is_meant() {
    let mut fixture = Fixture::start("# none\n", &["access_list.allow_empty=true"]);
    assert!(fixture.serves(DENIED));
    std::fs::write(&fixture.path, DENIED).unwrap();
    fixture.reload();
    assert!(!fixture.serves(DENIED));
    std::fs::write(&fixture.path, "").unwrap();
    let line = fixture.reload();
    assert!(line.contains("access list reloaded: 0 info hashes, 0 added, 1 removed"), "{line}");
    assert!(fixture.serves(DENIED));
}

#[test]
fn without_a_list_a_reload_says_so() {
    let mut fixture = Fixture::start("nonsense", &["access_list.mode=off"]);
    let line = fixture.reload();
    assert!(line.contains("there is no access list to reload: access_list.mode is \"off\""), "{line}");
    assert_eq!((fixture.reloads("failed"), fixture.reloads("done")), (0.0, 0.0));
}
