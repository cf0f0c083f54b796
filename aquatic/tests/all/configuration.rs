//! One configuration file for all subcommands.

use std::path::{Path, PathBuf};
use std::process::Command;

use aquatic_common::AnnounceEvent;

use crate::http;
use crate::support::{Ends, STOP, Tracker, service, torrent};
use crate::tracker::Certificate;
use crate::{udp, ws};

/// Settings of every section, apart from ports and paths far from the defaults.
const SHARED: &str = r#"
workers = 1
log_level = "info"
[network]
address_ipv4 = "127.0.0.1:0"
use_ipv6 = false
accept_plain = true
[connections]
max_connections = 2000
[proxies]
trusted_proxies = ["192.0.2.1"]
[protocol]
peer_announce_interval = 900
[cleaning]
max_peer_age = 3000
[limits]
max_torrents = 100000
[metrics]
enable = true
address = "127.0.0.1:0"
[statistics]
interval = 60
[udp]
max_response_peers = 20
[http]
max_scrape_torrents = 20
[ws]
max_offers = 5
"#;

fn write(directory: &Path, certificate: &Certificate) -> PathBuf {
    let mut text = SHARED.to_owned();
    // The settings of the certificate belong to the section [network].
    for setting in certificate.settings() {
        let (key, value) = setting.split_once('=').unwrap();
        let key = key.strip_prefix("network.").unwrap();
        let value = if value == "true" { value.to_owned() } else { format!("{value:?}") };
        text = text.replace("[network]\n", &format!("[network]\n{key} = {value}\n"));
    }
    let path = directory.join("tracker.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn command(subcommand: &str, file: &Path) -> Command {
    let mut command = service(subcommand, &[]);
    command.arg("-c").arg(file);
    command
}

#[test]
fn one_file_works_unchanged_with_all_subcommands() {
    let certificate = Certificate::new();
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), &certificate);
    // With each, how many announce URLs its log has, and which protocols it serves: UDP, HTTP, WebTorrent.
    for (subcommand, urls, serves) in [
        ("all", 5, (true, true, true)),
        ("udp", 1, (true, false, false)),
        ("http", 2, (false, true, false)),
        ("ws", 2, (false, false, true)),
    ] {
        let output = command(subcommand, &file).arg("--check-config").ends();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{subcommand}: {log}");

        let tracker = Tracker::start(urls, &mut command(subcommand, &file));
        let tcp = *tracker.addresses.last().unwrap();
        let (over_udp, over_http, over_ws) = serves;
        if over_udp {
            let client = udp::Client::connect(tracker.address());
            assert_eq!(client.announce(torrent(1), 1, AnnounceEvent::Started), (vec![], 1));
        }
        if over_http {
            // With `all`, UDP has announced the same peer.
            let mut client = http::Client::over(certificate.connect(tcp));
            let response = client.get(&http::announce(&torrent(1), 1, ""));
            assert_eq!(response.announce().incomplete, Some(1));
            let interval = response.announce().interval;
            assert!((800..=900).contains(&interval), "the interval of the file, not {interval}");
        }
        if over_http || over_ws {
            assert_eq!(http::Plain::connect(tcp).get("/health").text(), "ok\n", "{subcommand}");
        }
        if over_ws {
            let mut browser = ws::Client::over(certificate.connect(tcp), ws::request());
            assert_eq!(browser.announce(torrent(1), ws::peer(1), 1, &[]).counts(), (0, 1));
        } else if over_http {
            let mut client = http::Plain::connect(tcp);
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            assert_ne!(client.response().status(), 101);
        }
        tracker.signal("TERM");
        assert_eq!(tracker.end_within(2 * STOP).0, Some(0), "{subcommand}");
    }
}

#[test]
fn protocols_are_switched_off_in_their_sections() {
    let usual = ["workers=1", "network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0"];
    let start = |urls, off: &[&str]| Tracker::start(urls, &mut service("all", &[&usual[..], off].concat()));
    let tracker = start(2, &["udp.enable=false"]);
    assert_eq!(tracker.addresses[0], tracker.addresses[1], "HTTP and WebTorrent share the port");
    assert_eq!(http::Plain::connect(tracker.address()).get("/health").status(), 200);

    let tracker = start(2, &["http.enable=false"]);
    udp::Client::connect(tracker.addresses[0]);
    ws::Plain::connect(tracker.addresses[1]);
    assert_ne!(http::Plain::connect(tracker.addresses[1]).get("/scrape").status(), 200);

    let tracker = start(2, &["ws.enable=false"]);
    udp::Client::connect(tracker.addresses[0]);
    http::Plain::connect(tracker.addresses[1]).get(&http::announce(&torrent(1), 1, "")).announce();

    let output = service("all", &["udp.enable=false", "http.enable=false", "ws.enable=false"]).ends();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is nothing to serve"));
}
