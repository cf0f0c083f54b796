//! Exports: the file that replaces the previous one, and what is counted by it.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use aquatic_common::{AnnounceEvent, InfoHash};

use crate::support::{Ends, eventually, metric, torrent};
use crate::tracker::start_all;
use crate::{http, udp, ws};

/// Torrents with one peer, which take several pages of a table and batches of entries.
const MANY: u32 = 5000;

type Counts = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, u64>>;

/// A decoder of what a full scrape consists of, independent of the one that is tested elsewhere.
struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn skip(&mut self, byte: u8) -> bool {
        let Some((first, rest)) = self.0.split_first() else { panic!("the file ends early") };
        if *first == byte {
            self.0 = rest;
        }
        *first == byte
    }

    fn until(&mut self, end: u8) -> &'a str {
        let at = self.0.iter().position(|byte| *byte == end).unwrap();
        let (number, rest) = self.0.split_at(at);
        self.0 = &rest[1..];
        str::from_utf8(number).unwrap()
    }

    fn string(&mut self) -> Vec<u8> {
        let length = self.until(b':').parse().unwrap();
        let (string, rest) = self.0.split_at(length);
        self.0 = rest;
        string.to_vec()
    }

    fn number(&mut self) -> u64 {
        assert!(self.skip(b'i'));
        self.until(b'e').parse().unwrap()
    }

    /// A dictionary whose keys are in ascending order and different.
    fn dictionary<T>(&mut self, value: impl Fn(&mut Self) -> T) -> BTreeMap<Vec<u8>, T> {
        assert!(self.skip(b'd'));
        let mut all: BTreeMap<Vec<u8>, T> = BTreeMap::new();
        while !self.skip(b'e') {
            let key = self.string();
            assert!(all.last_key_value().is_none_or(|(last, _)| *last < key), "{key:?} is out of order");
            all.insert(key, value(self));
        }
        all
    }
}

fn decode(bytes: &[u8]) -> Counts {
    let mut decoder = Decoder(bytes);
    let mut top =
        decoder.dictionary(|decoder| decoder.dictionary(|decoder| decoder.dictionary(Decoder::number)));
    assert!(decoder.0.is_empty() && top.len() == 1);
    top.remove(&b"files"[..]).unwrap()
}

/// Complete, incomplete and downloaded of a torrent.
fn counts(files: &Counts, info_hash: InfoHash) -> Option<[u64; 3]> {
    let torrent = files.get(&info_hash.0[..])?;
    assert_eq!(torrent.len(), 3);
    Some([&b"complete"[..], b"incomplete", b"downloaded"].map(|key| torrent[key]))
}

fn read(path: &Path) -> Counts {
    let output = Command::new("gzip").arg("-dc").arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    decode(&output.stdout)
}

fn many(number: u32) -> InfoHash {
    let mut info_hash = InfoHash([b'm'; 20]);
    info_hash.0[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    info_hash
}

#[test]
fn all_torrents_of_all_protocols_are_exported_while_requests_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scrape.gz");
    let setting = format!("exports.path={}", path.display());
    let settings =
        ["workers=2", "exports.interval=1", "statistics.torrent_sizes_interval=1", "statistics.clients=true"];
    let (tracker, addresses) = start_all(None, &[&settings[..], &[&setting]].concat());
    let metrics = tracker.metrics.unwrap();
    let (shared, own) = (torrent(1), many(MANY));
    let over_udp = udp::Client::connect(addresses.udp_v4);
    (1..=3).for_each(|port| drop(over_udp.announce(shared, port, AnnounceEvent::None)));
    udp::Client::connect(addresses.udp_v6).announce(shared, 4, AnnounceEvent::None);
    http::Plain::connect(addresses.tcp_v4).get(&http::announce(&shared, 5, "&left=0"));
    let mut browser = ws::Client::connect(addresses.tcp_v4);
    browser.announce(shared, ws::peer(1), 1, &[]);
    browser.announce(own, ws::peer(1), 0, &[]);

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Requests go on while torrents are handed out.
            let client = udp::Client::connect(addresses.udp_v4);
            while !stop.load(Ordering::Relaxed) {
                client.announce(shared, 1, AnnounceEvent::None);
            }
        });
        (0..MANY).for_each(|number| drop(over_udp.announce(many(number), 6, AnnounceEvent::None)));
        let before = metric(metrics, "aquatic_exports_total");
        eventually(|| metric(metrics, "aquatic_exports_total"), |now| *now >= before + 2.0);
        stop.store(true, Ordering::Relaxed);
    });

    let files = read(&path);
    assert_eq!(files.len() as u32, MANY + 2);
    assert_eq!(counts(&files, shared), Some([1, 5, 0]), "peers of both families and of all protocols");
    assert_eq!(counts(&files, own), Some([1, 0, 0]));
    assert!((0..MANY).all(|number| counts(&files, many(number)) == Some([0, 1, 0])));
    let names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() <= 2, "nothing is left behind but the next file: {names:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o444, 0o444, "readable for a web server");

    let by_peers = |labels: &str| metric(metrics, &format!("aquatic_torrents_by_peers{{{labels}"));
    eventually(|| by_peers("family=\"ipv4\",peers=\"1\""), |count| *count == f64::from(MANY));
    assert_eq!(by_peers("family=\"ipv4\",peers=\"3-4\""), 1.0);
    assert_eq!(by_peers("swarms=\"webtorrent\",peers=\"1\""), 2.0);
    let by_client = |labels: &str| metric(metrics, &format!("aquatic_announces_by_client_total{{{labels}"));
    assert!(by_client("protocol=\"udp\",client=\"other\"") > f64::from(MANY));
    assert_eq!(by_client("protocol=\"http\""), 1.0);
    assert_eq!(by_client("protocol=\"ws\""), 2.0);
}

#[test]
fn text_has_a_line_per_torrent_and_a_directory_that_is_gone_is_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("exports");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("scrape.txt");
    let setting = format!("exports.path={}", path.display());
    let settings = ["exports.interval=1", "exports.format=text", "exports.compression=none", &setting];
    let (mut tracker, addresses) = start_all(None, &settings);
    let metrics = tracker.metrics.unwrap();
    udp::Client::connect(addresses.udp_v4).announce(torrent(7), 1, AnnounceEvent::None);
    let hash: String = torrent(7).0.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!("{hash}\t0\t1\t0\n");
    eventually(|| fs::read_to_string(&path).unwrap_or_default(), |text| *text == line);

    fs::remove_file(&path).unwrap();
    let _ = fs::remove_file(folder.join("scrape.txt.new"));
    fs::remove_dir(&folder).unwrap();
    tracker.wait_for_log("cannot be written");
    eventually(|| metric(metrics, "aquatic_export_failures_total"), |failures| *failures >= 3.0);
    tracker.signal("TERM");
    let (code, _, log) = tracker.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("cannot be written"), "reported once: {log}");
}

#[test]
fn a_path_that_cannot_be_written_to_is_reported_at_the_start() {
    let output = crate::support::service("all", &["exports.path=/nowhere/at/all/scrape.gz"]).ends();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && log.contains("exports.path") && log.contains("/nowhere/at/all"),
        "{log}"
    );
}

#[test]
fn what_is_no_export_is_not_replaced_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("tracker.toml"), "").unwrap();
    fs::write(path("list"), "").unwrap();
    fs::create_dir(path("folder")).unwrap();
    symlink(path("elsewhere"), path("link")).unwrap();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    let list = format!("access_list.path={}", path("list").display());
    for (exported, why) in [
        ("folder", "it is a directory"),
        ("link", "it is a symbolic link"),
        ("socket", "it is a socket"),
        ("../../../../../../dev/null", "it is a device"),
        ("tracker.toml", "is the configuration file as well"),
        ("list", "is access_list.path as well"),
    ] {
        let setting = format!("exports.path={}", path(exported).display());
        for check in [&[][..], &["--check-config"]] {
            let mut command = crate::support::service(
                "all",
                &[&setting, &list, "access_list.mode=deny", "access_list.allow_empty=true"],
            );
            let output = command.arg("-c").arg(path("tracker.toml")).args(check).ends();
            let log = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{exported}: {log}");
            assert!(log.contains("exports.path") && log.contains(why), "{exported}: {log}");
            assert!(log.contains(exported) && log.contains("hoose another path"), "{exported}: {log}");
        }
    }
}

#[test]
fn what_takes_the_place_of_the_export_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("scrape"), directory.path().join("other"));
    let setting = format!("exports.path={}", path.display());
    let (mut tracker, _) = start_all(None, &["exports.interval=1", &setting]);
    eventually(|| path.exists(), |exists| *exists);
    fs::write(&other, "precious").unwrap();
    symlink(&other, directory.path().join("link")).unwrap();
    fs::rename(directory.path().join("link"), &path).unwrap();
    let line = tracker.wait_for_log("cannot be written");
    assert!(line.contains("it is a symbolic link"), "{line}");
    assert_eq!(fs::read_link(&path).unwrap(), other);
    fs::remove_file(&path).unwrap();
    tracker.wait_for_log("exported 0 torrents");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}
