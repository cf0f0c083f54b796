//! Replies as text for people.

use std::fmt::Write;

use aquatic_status::duration;
use serde_json::Value;

use crate::control::{Request, TopOf};

/// The text of a reply.
pub(super) fn reply(request: &Request, reply: &Value) -> String {
    match request {
        Request::Status {} => status(reply),
        Request::Top { of: TopOf::Torrents, .. } => torrents(reply),
        Request::Top { of, .. } => sources(*of, reply),
        Request::Torrent { .. } => torrent(reply),
        Request::Ban { .. } => {
            let network = text(reply, "network");
            match reply["seconds"].as_u64() {
                Some(seconds) => format!("{network} is blocked for {}\n", duration(seconds)),
                None => format!("{network} is blocked until the tracker stops\n"),
            }
        }
        Request::Unban { .. } => format!("{} is not blocked by hand any more\n", text(reply, "network")),
        Request::Bans {} => bans(reply),
        Request::Allow { .. } | Request::Deny { .. } | Request::Reset { .. } => {
            let not = if reply["served"] == true { "" } else { "not " };
            format!("{} is {not}served from now on\n", text(reply, "info_hash"))
        }
        Request::Log { .. } => format!("the level is {} until the next reload\n", text(reply, "level")),
        Request::Reload {} => {
            let files: Vec<&str> =
                reply["reloaded"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let and = if files.is_empty() { "" } else { "; reloaded as well: " };
            format!(
                "configuration: {}{and}{}\n",
                text(reply, "configuration"),
                files.join(", ").replace('_', " ")
            )
        }
        Request::Snapshot {} => format!(
            "snapshot saved: {} in {:.1} s\n",
            bytes(number(reply, "bytes")),
            reply["seconds"].as_f64().unwrap_or_default()
        ),
        Request::Connections {} => connections(reply),
        Request::Breaker { .. } => breakers(reply),
        Request::Cluster { request } => format!("sent to all nodes; here: {}", self::reply(request, reply)),
        Request::Drain { .. } => format!(
            "draining {} connections: new ones are accepted for {}, then those there are have {}\n",
            number(reply, "connections"),
            duration(number(reply, "notice")),
            duration(number(reply, "limit"))
        ),
    }
}

/// A member that is a text.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A member that is a number.
pub(super) fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

/// The elements of a member that is a list.
pub(super) fn rows<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// A size in its largest unit.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while size >= 1024.0
        && let Some(next) = units.next()
    {
        size /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

/// A number with thin separators, so that millions can be read.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The labels of a row in the order in which they are read.
pub(super) fn labels(row: &Value) -> String {
    let names = ["protocol", "swarms", "family", "action", "reason", "outcome"];
    let labels: Vec<&str> = names.iter().filter_map(|name| row[*name].as_str()).collect();
    labels.join(" ").replace('_', " ")
}

/// Lines of rows with a number each, below a title.
fn counted(out: &mut String, title: &str, value: &Value, key: &str, name: &str) {
    let mut rows = rows(value, key).peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "{title}");
    for row in rows {
        let _ = writeln!(out, "  {:<44} {:>16}", labels(row), grouped(number(row, name)));
    }
}

fn status(reply: &Value) -> String {
    let mut out = String::new();
    let busy: Vec<String> = rows(reply, "cores")
        .map(|core| format!("{:.0} %", core["busy_percent"].as_f64().unwrap_or_default()))
        .collect();
    let list = &reply["access_list"];
    for (name, value) in [
        (
            "tracker",
            format!("aquatic {} {}, process {}", text(reply, "version"), text(reply, "mode"), reply["pid"]),
        ),
        ("state", format!("{} for {}", text(reply, "state"), duration(number(reply, "uptime_seconds")))),
        ("memory", bytes(number(reply, "memory_bytes"))),
        ("cores busy", busy.join(", ")),
        ("log level", text(reply, "log_level").to_owned()),
        (
            "access list",
            format!(
                "{}, {} entries, {} decided by hand",
                text(list, "mode"),
                grouped(number(list, "entries")),
                number(list, "by_hand")
            ),
        ),
        ("blocked by hand", format!("{} networks", number(reply, "bans"))),
    ] {
        let _ = writeln!(out, "{name:<16} {value}");
    }
    if reply["certificate"].is_object() {
        let _ = writeln!(out, "{:<16} {}", "certificate", text(&reply["certificate"], "text"));
    }
    if reply["cluster"].is_object() {
        let _ = writeln!(out, "{:<16} {}", "cluster", text(&reply["cluster"], "text"));
    }
    for row in rows(reply, "swarms") {
        let _ = writeln!(
            out,
            "{:<16} {} torrents, {} seeders, {} leechers",
            labels(row),
            grouped(number(row, "torrents")),
            grouped(number(row, "seeders")),
            grouped(number(row, "leechers"))
        );
    }
    counted(&mut out, "connections", reply, "connections", "open");
    counted(&mut out, "requests", reply, "requests", "count");
    counted(&mut out, "refused", reply, "refused", "count");
    counted(&mut out, "dropped", reply, "dropped", "count");
    let kernel = number(reply, "kernel_drops");
    if kernel > 0 {
        let _ = writeln!(out, "{:<46} {:>16}", "dropped by the kernel", grouped(kernel));
    }
    out
}

fn torrents(reply: &Value) -> String {
    let mut out = format!("{:<40} {:>10} {:>10} {:>10}\n", "info hash", "peers", "seeders", "leechers");
    let mut any = false;
    for row in rows(reply, "torrents") {
        any = true;
        let (seeders, leechers) = (number(row, "seeders"), number(row, "leechers"));
        let _ = writeln!(
            out,
            "{:<40} {:>10} {:>10} {:>10}",
            text(row, "info_hash"),
            grouped(seeders + leechers),
            grouped(seeders),
            grouped(leechers)
        );
    }
    if any { out } else { "no torrent has peers yet\n".to_owned() }
}

fn sources(of: TopOf, reply: &Value) -> String {
    let (key, name, title) = match of {
        TopOf::Clients => ("clients", "client", "client (peer id)"),
        TopOf::Prefixes | TopOf::Torrents => ("prefixes", "network", "network"),
    };
    let (total, seconds) = (number(reply, "total"), number(reply, "seconds"));
    let mut out = format!("{title:<30} {:>12} {:>8}\n", "per second", "share");
    for row in rows(reply, key) {
        let count = number(row, "count");
        let rate = count as f64 / seconds.max(1) as f64;
        let share = count as f64 * 100.0 / total.max(1) as f64;
        let _ = writeln!(out, "{:<30} {rate:>12.1} {share:>6.1} %", text(row, name));
    }
    let _ = writeln!(out, "{} requests in {seconds} s", grouped(total));
    out
}

fn torrent(reply: &Value) -> String {
    let mut out = format!("{}\n", text(reply, "info_hash"));
    let served = match (reply["served"] == true, reply["by_hand"].as_str()) {
        (true, Some(_)) => "served, allowed by hand",
        (true, None) => "served",
        (false, Some(_)) => "not served, denied by hand",
        (false, None) => "not served: the access list excludes it",
    };
    let _ = writeln!(out, "{served}; on core {}", reply["core"]);
    if reply["held"] == false {
        let _ = writeln!(out, "UDP and HTTP peers are held by other nodes of the cluster");
    }
    let mut peers = 0;
    for row in rows(reply, "swarms") {
        let (seeders, leechers) = (number(row, "seeders"), number(row, "leechers"));
        peers += seeders + leechers;
        let _ = writeln!(
            out,
            "{:<18} {} seeders, {} leechers, {} completed",
            labels(row),
            grouped(seeders),
            grouped(leechers),
            grouped(number(row, "downloaded"))
        );
    }
    if peers == 0 {
        out.push_str("no peer has announced it, or all have left or expired\n");
    }
    out
}

fn bans(reply: &Value) -> String {
    let mut out = String::new();
    for row in rows(reply, "networks") {
        let left = row["seconds"].as_u64().map_or_else(
            || "until the tracker stops".to_owned(),
            |seconds| format!("for another {}", duration(seconds)),
        );
        let _ = writeln!(out, "blocked  {:<42} {left}", text(row, "network"));
    }
    for (key, word) in [("denied", "denied "), ("allowed", "allowed")] {
        for hash in rows(reply, key).filter_map(Value::as_str) {
            let _ = writeln!(out, "{word}  {hash}");
        }
    }
    if out.is_empty() { "nothing is blocked, denied or allowed by hand\n".to_owned() } else { out }
}

fn breakers(reply: &Value) -> String {
    let mut out = format!("{:<10} {:<8} {:<10} {:<12} since\n", "protocol", "family", "state", "mode");
    for row in rows(reply, "breakers") {
        let _ = writeln!(
            out,
            "{:<10} {:<8} {:<10} {:<12} {}",
            text(row, "protocol"),
            text(row, "family"),
            text(row, "state").replace('_', " "),
            text(row, "mode"),
            duration(number(row, "seconds"))
        );
    }
    out
}

fn connections(reply: &Value) -> String {
    let mut out = String::new();
    counted(&mut out, "open", reply, "open", "open");
    let _ = writeln!(out, "{:<46} {:>16}", "in a TLS handshake", grouped(number(reply, "handshaking")));
    for (title, key) in [
        ("accepted", "accepted"),
        ("refused", "refused"),
        ("evicted in favour of others", "evicted"),
        ("timed out", "timed_out"),
        ("TLS handshakes", "handshakes"),
    ] {
        counted(&mut out, title, reply, key, "count");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_can_be_read() {
        assert_eq!([0, 999, 1000, 25_000_000].map(grouped), ["0", "999", "1,000", "25,000,000"]);
        assert_eq!([5, 65, 3700, 90_000].map(duration), ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
        assert_eq!([5, 2048, 3 << 30].map(bytes), ["5 B", "2.0 KiB", "3.0 GiB"]);
    }

    #[test]
    fn texts_fit_80_columns() {
        let hash = "0".repeat(40);
        let status = json!({
            "version": "0.1.0", "mode": "all", "pid": 4_000_000, "state": "serving",
            "uptime_seconds": 90_000, "memory_bytes": 661_234_567,
            "cores": [{"core": 0, "busy_percent": 43.2}, {"core": 1, "busy_percent": 7.0}],
            "log_level": "info", "access_list": {"mode": "deny", "entries": 5_000_000, "by_hand": 2}, "bans": 1,
            "swarms": [{"swarms": "bittorrent", "family": "ipv4", "torrents": 10_000_000,
                "seeders": 15_000_000, "leechers": 10_000_000}],
            "requests": [{"protocol": "udp", "family": "ipv4", "action": "announce", "count": 123_456_789_012_u64}],
            "dropped": [{"protocol": "udp", "family": "ipv6", "reason": "bad_connection_id", "count": 7}],
            "kernel_drops": 3,
            "certificate": {"expires": 1_800_000_000, "text": "The certificate for a.org expires in 9 d 3 h."},
            "cluster": {"text": "3 node(s) of the cluster aquatic are live."},
        });
        let torrent = json!({
            "info_hash": hash, "served": false, "by_hand": "deny", "core": 1, "held": false,
            "swarms": [{"swarms": "webtorrent", "seeders": 0, "leechers": 0, "downloaded": 0}],
        });
        let top = json!({"torrents": [{"info_hash": hash, "seeders": 1_000_000, "leechers": 2_000_000}]});
        let top_request: Request = serde_json::from_str(r#"{"command":"top","of":"torrents"}"#).unwrap();
        for (request, value, part) in [
            (Request::Status {}, &status, "10,000,000 torrents, 15,000,000 seeders"),
            (Request::Status {}, &status, "cluster          3 node(s) of the cluster aquatic are live."),
            (Request::Status {}, &status, "certificate      The certificate for a.org expires in 9 d 3 h."),
            (Request::Torrent { info_hash: hash.clone() }, &torrent, "not served, denied by hand; on core 1"),
            (
                Request::Torrent { info_hash: hash.clone() },
                &torrent,
                "are held by other nodes of the cluster",
            ),
            (top_request, &top, "3,000,000"),
            (Request::Bans {}, &json!({}), "nothing is blocked"),
        ] {
            let text = reply(&request, value);
            assert!(text.contains(part), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }
}
