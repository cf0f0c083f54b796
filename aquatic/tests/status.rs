//! The status page of the real program: documents, streams, who is an operator, and what survives a restart.

#![allow(clippy::unwrap_used, clippy::unwrap_in_result, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::Value;
use support::{REPLY, Tracker, eventually, fetch, service};

const OWN: [&str; 3] = ["workers=1", "network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0"];
const TOKEN: &str = "0123456789abcdef";

fn command(name: &str, settings: &[&str]) -> Command {
    service(name, &[&OWN[..], settings].concat())
}

/// Head and body of the response to a request with these header fields.
fn get(address: SocketAddr, target: &str, fields: &str) -> (String, Vec<u8>) {
    let mut stream = connect(address);
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n").unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let body = response.split_off(end);
    (String::from_utf8(response).unwrap(), body)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(REPLY)).unwrap();
    stream
}

fn json(address: SocketAddr, target: &str) -> Value {
    serde_json::from_str(&fetch(address, target)).unwrap()
}

fn announce(address: SocketAddr) {
    let hash = "%01".repeat(20);
    let target = format!("/announce?info_hash={hash}&peer_id={}&port=1000&left=0", "-".repeat(20));
    assert!(fetch(address, &target).starts_with("d8:complete"));
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A stream of events.
struct Events(BufReader<TcpStream>);

impl Events {
    /// Opens a stream and returns it with its head.
    fn open(address: SocketAddr, fields: &str) -> (Self, String) {
        let mut stream = connect(address);
        write!(stream, "GET /events HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        (Self(reader), head)
    }

    /// The number and the figures of the next event; `None` at the end.
    fn next(&mut self) -> Option<(u64, Value)> {
        let mut id = None;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(number) = line.strip_prefix("id: ") {
                id = Some(number.trim().parse().unwrap());
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((id.unwrap(), serde_json::from_str(data).unwrap()));
            }
        }
    }
}

#[test]
fn the_page_is_served_beside_the_tracker() {
    let tracker = Tracker::start(1, &mut command("http", &[]));
    let address = tracker.address();
    let (head, page) = get(address, "/", "");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(field(&head, "Content-Type"), Some("text/html; charset=utf-8"));
    assert!(field(&head, "Content-Security-Policy").unwrap().starts_with("default-src 'none'; "), "{head}");
    let page = String::from_utf8(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"), "{page}");
    assert!(page.contains("data-f=\"requests.per_second\"") && !page.contains("operator"), "{page}");

    let tag = field(&head, "ETag").unwrap();
    let (style, _) = get(address, "/status.css", "");
    let unchanged = format!("If-None-Match: {}\r\n", field(&style, "ETag").unwrap());
    let (head, body) = get(address, "/status.css", &unchanged);
    assert!(head.starts_with("HTTP/1.1 304 ") && body.is_empty() && tag != unchanged, "{head}");
    let (head, packed) = get(address, "/status.js", "Accept-Encoding: br, gzip\r\n");
    assert_eq!(field(&head, "Content-Encoding"), Some("gzip"), "{head}");
    assert!(packed.starts_with(&[0x1f, 0x8b]) && packed.len() < 8000, "{}", packed.len());

    for (target, status) in [
        ("/stats", "404"),
        ("/stats?mode=peer", "404"),
        ("/nothing", "404"),
        ("/stats.json?range=month", "200"),
    ] {
        let (head, _) = get(address, target, "");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {head}");
    }
    // A client whose announce URL is that of the page.
    assert!(fetch(address, "/stats?info_hash=x").starts_with("d14:failure reason"));
    announce(address);
}

#[test]
fn figures_are_those_of_the_metrics() {
    let settings = ["metrics.enable=true", "metrics.address=127.0.0.1:0"];
    let tracker = Tracker::start(1, &mut command("http", &settings));
    let address = tracker.address();
    (0..5).for_each(|_| announce(address));
    assert!(fetch(address, "/announce?port=1").contains("failure reason"));
    let figures = eventually(
        || json(address, "/stats.json?range=minute"),
        |figures| figures["refused"]["all_time"] == 1 && figures["peers"]["seeders"] == 1,
    );
    let counted =
        support::metric(tracker.metrics.unwrap(), "aquatic_requests_total{protocol=\"http\",family");
    assert_eq!(figures["requests"]["all_time"], counted as u64);
    assert_eq!(figures["requests"]["by"][0]["protocol"], "http");
    assert_eq!((&figures["version"], &figures["view"]), (&Value::from(1), &Value::from("public")));
    assert_eq!(figures["history"]["points"].as_array().unwrap().len(), 60);
    assert_eq!(figures.get("operator"), None);
    let xml = fetch(address, "/stats?mode=everything");
    for part in ["<announce>5</announce>", "<seeds>\n    <count>1</count>", "<count_mutex>1</count_mutex>"] {
        assert!(xml.contains(part), "no {part} in {xml}");
    }
    let peer = "info_hash=bbbbbbbbbbbbbbbbbbbb&peer_id=-TR4060-abcdefghijkl&port=7001";
    for role in ["left=1", "left=0&event=completed"] {
        assert!(fetch(address, &format!("/announce?{peer}&{role}")).contains("interval"));
    }
    eventually(
        || fetch(address, "/stats?mode=everything"),
        |xml| xml.contains("<completed>\n    <count>1</count>"),
    );
    let page = fetch(address, "/metrics");
    assert!(page.contains("not found"), "metrics are not for everybody: {page}");
}

#[test]
fn events_come_once_a_second_and_what_was_missed_is_sent_again() {
    let tracker = Tracker::start(1, &mut command("http", &["status.max_streams=2"]));
    let address = tracker.address();
    let (mut events, head) = Events::open(address, "");
    assert_eq!(field(&head, "Content-Type"), Some("text/event-stream"), "{head}");
    let ids: Vec<u64> = (0..3).map(|_| events.next().unwrap().0).collect();
    assert!(ids[0] < ids[1] && ids[1] < ids[2], "{ids:?}");
    let (mut again, _) = Events::open(address, &format!("Last-Event-ID: {}\r\n", ids[0]));
    assert_eq!(again.next().unwrap().0, ids[1]);
    assert_eq!(again.next().unwrap().0, ids[2]);
    let (refused, _) = get(address, "/events", "");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    // A viewer that has gone makes room for another.
    drop(again);
    eventually(
        || get(address, "/stats.json?view=operator", "").1,
        |body| {
            let figures: Value = serde_json::from_slice(body).unwrap();
            let limits = figures["operator"]["limits"].as_array().unwrap().clone();
            limits.iter().any(|limit| limit["name"] == "status.max_streams" && limit["used"] == 1)
        },
    );
    tracker.signal("TERM");
    while events.next().is_some() {}
    let (code, _, log) = tracker.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("did not finish"), "{log}");
}

#[test]
fn what_operators_see_needs_this_machine_or_the_token() {
    let token = format!("status.token={TOKEN}");
    let closed = Tracker::start(1, &mut command("ws", &["status.path=/status/"]));
    let open = Tracker::start(1, &mut command("ws", &["status.path=/status/", &token]));
    let strict =
        Tracker::start(1, &mut command("ws", &["status.path=/status/", "status.trust_loopback=false"]));
    let status = |tracker: &Tracker, fields: &str| {
        let (head, body) = get(tracker.address(), "/status/?view=operator", fields);
        let shows_memory = body.windows(12).any(|window| window == b"Busiest core");
        (head.split(' ').nth(1).unwrap().to_owned(), shows_memory)
    };
    let through_proxy = "X-Forwarded-For: 192.0.2.1\r\n";
    let with = |credentials: &str| format!("{through_proxy}Authorization: {credentials}\r\n");
    // ":0123456789abcdef" in base64.
    let basic = "Basic OjAxMjM0NTY3ODlhYmNkZWY=";
    for (tracker, fields, expected) in [
        (&closed, "", ("200", true)),
        (&closed, through_proxy, ("403", false)),
        (&closed, &with(&format!("Bearer {TOKEN}")), ("403", false)),
        (&strict, "", ("403", false)),
        (&open, through_proxy, ("401", false)),
        (&open, &with(&format!("Bearer {TOKEN}")), ("200", true)),
        (&open, &with(&format!("Bearer {TOKEN}x")), ("401", false)),
        (&open, &with(&format!("Bearer {}", &TOKEN[1..])), ("401", false)),
        (&open, &with(basic), ("200", true)),
        (&open, &with("Basic !!"), ("401", false)),
        (&open, &with("Bearer"), ("401", false)),
    ] {
        let (code, shows) = status(tracker, fields);
        assert_eq!((code.as_str(), shows), expected, "{fields}");
    }
    let (head, _) = get(open.address(), "/status/?view=operator", through_proxy);
    assert!(field(&head, "WWW-Authenticate").is_some(), "{head}");
    // A page of somebody else whose name points here.
    let mut stream = connect(closed.address());
    write!(stream, "GET /status/?view=operator HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    assert!(fetch(closed.address(), "/").contains("WebTorrent tracker"), "the path is another one");
}

#[test]
fn an_address_of_its_own_serves_without_tcp_services() {
    let settings = ["status.own_address=true", "status.address=127.0.0.1:0"];
    let mut tracker = Tracker::start(1, &mut command("udp", &settings));
    let line = tracker.start_log.lines().find(|line| line.contains("status page: ")).map(str::to_owned);
    let line = line.unwrap_or_else(|| tracker.wait_for_log("status page: "));
    let address: SocketAddr =
        line.split("http://").nth(1).unwrap().trim_end().trim_end_matches('/').parse().unwrap();
    assert!(fetch(address, "/").starts_with("<!doctype html>"));
    assert_eq!(fetch(address, "/health"), "ok\n");
    assert!(fetch(address, "/metrics").contains("\naquatic_status_requests_total "));
    let (head, _) = get(address, "/metrics", "X-Forwarded-For: 192.0.2.1\r\n");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let (mut events, _) = Events::open(address, "");
    let first = events.next().unwrap().0;
    assert!(events.next().unwrap().0 > first);
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
}

#[test]
fn totals_survive_a_restart_and_damage_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let state = format!("state_directory={}", directory.path().display());
    let start = || Tracker::start(1, &mut command("http", &[&state]));
    let requests = |tracker: &Tracker| json(tracker.address(), "/stats.json")["requests"]["all_time"].clone();
    for expected in [3, 6] {
        let tracker = start();
        (0..3).for_each(|_| announce(tracker.address()));
        eventually(|| requests(&tracker), |requests| *requests == expected);
        tracker.signal("TERM");
        assert_eq!(tracker.end().0, Some(0));
    }
    let file = directory.path().join("status");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let tracker = start();
    assert_eq!(requests(&tracker), 0);
    tracker.signal("TERM");
    let start_log = tracker.start_log.clone();
    let log = start_log + &tracker.end().2;
    assert!(log.contains("status.unusable") && log.contains("damaged"), "{log}");
    assert_eq!(fs::read(directory.path().join("status.unusable")).unwrap(), bytes);
}

#[test]
fn it_can_be_switched_off() {
    let tracker = Tracker::start(1, &mut command("http", &["status.enable=false"]));
    assert!(fetch(tracker.address(), "/").contains("not found; try /announce"));
}
