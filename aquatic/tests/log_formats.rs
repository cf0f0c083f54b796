//! Formats of the log, with a real tracker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{REPLY, Tracker, service};

fn settings<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let common = ["workers=1", "network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0"];
    [&common[..], more].concat()
}

fn scrape(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(REPLY)).unwrap();
    write!(stream, "GET /scrape?info_hash=aaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn json_lines_have_the_documented_keys() {
    let mut tracker = Tracker::start(1, &mut service("http", &settings(&["log_format=json"])));
    let address = tracker.addresses[0];
    scrape(address);
    tracker.signal("TERM");
    tracker.wait_for_log("\"message\":\"stopped\"");
    let lines: Vec<&str> = tracker.start_log.lines().collect();
    assert!(!lines.is_empty());
    for line in lines {
        let value: Value = serde_json::from_str(line).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["level", "message", "target", "time"], "{line}");
        assert!(value["time"].as_str().unwrap().ends_with('Z') && value["message"].is_string());
    }
}

#[test]
fn the_journal_gets_priorities_and_no_time() {
    let mut tracker = Tracker::start(1, &mut service("http", &settings(&["log_format=journal"])));
    assert!(tracker.start_log.lines().all(|line| line.starts_with("<6>") || line.starts_with("<4>")));
    assert!(tracker.start_log.contains("<6>using 1 core(s)"), "{}", tracker.start_log);
    tracker.signal("TERM");
    assert_eq!(tracker.wait_for_log("stopped"), "<6>stopped\n");
}

#[test]
fn the_journal_is_recognized_where_standard_error_is_connected_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let run = |of: &File, variable: String| {
        Command::new(env!("CARGO_BIN_EXE_aquatic"))
            .args(["udp", "-c", "/nonexistent"])
            .env("JOURNAL_STREAM", variable)
            .stderr(Stdio::from(of.try_clone().unwrap()))
            .status()
            .unwrap();
        std::fs::read_to_string(&path).unwrap()
    };
    let journal = File::create(&path).unwrap();
    let data = journal.metadata().unwrap();
    let text = run(&journal, format!("{}:{}", data.dev(), data.ino()));
    assert!(text.starts_with("<3>") && text.contains("/nonexistent"), "{text}");
    journal.set_len(0).unwrap();
    let text = run(&journal, format!("{}:{}", data.dev(), data.ino() + 1));
    assert!(text.trim_start_matches('\0').starts_with("error: "), "{text}");
}

#[test]
fn some_requests_are_logged_with_their_network() {
    let mut tracker = Tracker::start(1, &mut service("http", &settings(&["log_requests=3"])));
    let address = tracker.addresses[0];
    (0..3).for_each(|_| scrape(address));
    let line = tracker.wait_for_log("request: ");
    assert!(line.ends_with("request: http scrape from 127.0.0.0/24: served\n"), "{line}");
    (0..2).for_each(|_| scrape(address));
    tracker.signal("TERM");
    let (_, _, rest) = tracker.end();
    assert!(!rest.contains("request: "), "{rest}");
}

#[test]
fn webtorrent_messages_are_logged_and_their_senders_ranked() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control");
    let path = format!("control.socket_path={}", socket.display());
    let mut tracker = Tracker::start(1, &mut service("ws", &settings(&["log_requests=2", &path])));
    let address = tracker.addresses[0];
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(REPLY)).unwrap();
    let (mut websocket, _) = tungstenite::client(format!("ws://{address}/"), stream).unwrap();
    let mut ask = |message: String| {
        websocket.send(tungstenite::Message::text(message)).unwrap();
        websocket.read().unwrap().into_text().unwrap().to_string()
    };
    let hash = "a".repeat(20);
    let peer_id = "-WW0208-abcdefghijkl";
    let announce = format!(
        "{{\"action\":\"announce\",\"info_hash\":\"{hash}\",\"peer_id\":\"{peer_id}\",\"left\":1,\"numwant\":0}}"
    );
    ask("{}".into());
    assert!(ask(announce.clone()).contains("interval"));
    let line = tracker.wait_for_log("request: ");
    let expected = format!("request: ws announce from 127.0.0.0/24 torrent {}: served\n", "61".repeat(20));
    assert!(line.ends_with(&expected), "{line}");
    ask(announce.clone());
    assert!(ask("{}".into()).contains("failure reason"));
    let line = tracker.wait_for_log("request: ");
    assert!(line.contains("request: ws unknown from 127.0.0.0/24: "), "{line}");
    let ctl = |of: &'static str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatic"));
        command.args(["ctl", "-s"]).arg(&socket).args(["top", of, "--seconds", "2", "--json"]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let [prefixes, clients] = ["prefixes", "clients"].map(|of| {
        let mut ranking = ctl(of);
        while ranking.try_wait().unwrap().is_none() {
            ask(announce.clone());
        }
        let output = ranking.wait_with_output().unwrap().stdout;
        serde_json::from_slice::<Value>(&output).unwrap()
    });
    assert_eq!(prefixes["prefixes"][0]["network"], "127.0.0.0/24", "{prefixes}");
    assert_eq!(clients["clients"][0]["client"], "-WW0208-", "{clients}");
}

#[test]
fn a_start_ends_with_what_to_do_next() {
    let mut tracker = Tracker::start(1, &mut service("udp", &settings(&[])));
    let lines: Vec<String> = ["serving UDP with 1 core", "limits: 100000000 torrents", "set state_directory"]
        .iter()
        .chain(&["metrics.enable = true", "ready: put the announce URLs above"])
        .map(|text| tracker.wait_for_log(text))
        .collect();
    assert_eq!(lines.len(), 5);
}
