//! Metrics of all protocols: their labels, and that no request is lost between the counters.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;

use aquatic_common::AnnounceEvent;
use aquatic_metrics::exposition::exposed_name;
use aquatic_metrics::{Kind, names};

use crate::support::{Tracker, eventually, fetch, skip, sum_of, torrent};
use crate::tracker::{Addresses, start_all};
use crate::{http, udp, ws};

/// Requests that each client sends, of which most are announces.
const ROUNDS: u32 = 400;

fn page(tracker: &Tracker) -> String {
    fetch(tracker.metrics.unwrap(), "/metrics")
}

/// Name and names of labels of a series.
fn parse(line: &str) -> (&str, Vec<&str>) {
    let series = line.rsplit_once(' ').unwrap().0;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
    (name, labels.map(|(name, _)| name).collect())
}

#[test]
fn every_series_is_declared_with_its_labels() {
    let (tracker, _) = start_all(None, &["workers=2"]);
    let page = eventually(|| page(&tracker), |page| page.contains("swarms=\"webtorrent\""));
    let mut declared = BTreeMap::new();
    for metric in names::ALL {
        let (name, mut labels) = (exposed_name(metric), metric.labels.to_vec());
        match metric.kind {
            Kind::Histogram { .. } => {
                declared.insert(format!("{name}_sum"), labels.clone());
                declared.insert(format!("{name}_count"), labels.clone());
                labels.push("le");
                declared.insert(format!("{name}_bucket"), labels);
            }
            Kind::CounterPerCore | Kind::GaugePerCore => {
                labels.push("core");
                declared.insert(name, labels);
            }
            Kind::Counter | Kind::Loss | Kind::Gauge => {
                declared.insert(name, labels);
            }
        }
    }
    let series: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(series.len() > 300, "{page}");
    for line in series {
        let (name, labels) = parse(line);
        assert_eq!(declared.get(name), Some(&labels), "{line}");
    }
}

#[test]
fn promtool_has_no_complaints_about_all_protocols() {
    let version =
        Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_err() {
        return skip("promtool");
    }
    let (tracker, _) = start_all(None, &[]);
    let page = eventually(|| page(&tracker), |page| page.contains("swarms=\"webtorrent\""));
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{page}");
}

/// Sends requests of all kinds over UDP. Returns their number.
fn send_over_udp(tracker: SocketAddr) -> u32 {
    let client = udp::Client::connect(tracker);
    let mut sent = 1;
    for round in 0..ROUNDS {
        let announce = client.announce_request(torrent(round % 60), 1000, AnnounceEvent::None);
        let mut forged = announce;
        forged[0] ^= 1;
        let mut without_port = announce;
        without_port[96..].fill(0);
        let full_scrape = [&announce[..8], &[0, 0, 0, 2, 0, 0, 0, 9]].concat();
        let scrape = [&announce[..8], &[0, 0, 0, 2, 0, 0, 0, 9], &announce[16..36], &[7; 20]].concat();
        let silent: [&[u8]; 3] = [&forged, &[0; 9], &[1; 3000]];
        for request in silent {
            client.socket.send(request).unwrap();
            sent += 1;
        }
        // Whoever waits for replies does not fill the receive buffer.
        let answered: [&[u8]; 5] =
            [&announce, &without_port, &full_scrape, &scrape, &udp::Client::connect_request()];
        for request in answered {
            client.exchange(request);
            sent += 1;
        }
    }
    sent
}

fn send_over_http(tracker: SocketAddr) -> u32 {
    let mut client = http::Plain::connect(tracker);
    for round in 0..ROUNDS {
        let torrents = [torrent(round % 60), torrent(round % 7)];
        let pages = [
            http::announce(&torrents[0], 1000, ""),
            http::scrape(&torrents),
            "/scrape".to_owned(),
            "/health".to_owned(),
        ];
        for page in pages {
            assert_eq!(client.get(&page).status(), 200);
        }
        assert_eq!(client.get("/nothing").status(), 404);
    }
    // What is no HTTP ends the connection.
    client.send("nonsense\r\n\r\n");
    client.response();
    5 * ROUNDS + 1
}

fn send_over_ws(tracker: SocketAddr) -> u32 {
    let mut client = ws::Client::connect(tracker);
    for round in 0..ROUNDS {
        client.announce(torrent(round % 60), ws::peer(1), 1, &[]);
        client.scrape(&[torrent(1), torrent(2)]);
        client.send_text("{\"action\":\"nonsense\"}");
        client.next();
    }
    3 * ROUNDS
}

/// What the counters of a protocol say: requests, and what became of them.
fn balance(page: &str, protocol: &str) -> (f64, f64) {
    let total = |metric: &str, more: &str| {
        sum_of(page, &format!("aquatic_{metric}_total{{protocol=\"{protocol}\"{more}"))
    };
    let responses = total("responses", "") - total("responses", ",action=\"error\"");
    (total("requests", ""), responses + total("refused", "") + total("dropped", ""))
}

#[test]
fn every_request_is_answered_refused_or_dropped_and_counted_so() {
    const CLIENTS: u32 = 3;
    let settings = ["workers=2", "udp.steering=false", "rate_limits.udp_overload_control=false"];
    let (tracker, addresses) = start_all(None, &settings);
    let Addresses { udp_v4, udp_v6, tcp_v4, tcp_v6 } = addresses;
    let clients = (0..CLIENTS).flat_map(|_| {
        [
            thread::spawn(move || ("udp", send_over_udp(udp_v4))),
            thread::spawn(move || ("udp", send_over_udp(udp_v6))),
            thread::spawn(move || ("http", send_over_http(tcp_v4))),
            thread::spawn(move || ("http", send_over_http(tcp_v6))),
            thread::spawn(move || ("ws", send_over_ws(tcp_v4))),
        ]
    });
    let mut sent = BTreeMap::<_, f64>::new();
    for client in clients.collect::<Vec<_>>() {
        let (protocol, requests) = client.join().unwrap();
        *sent.entry(protocol).or_default() += f64::from(requests);
    }
    for (protocol, sent) in sent {
        let balanced = |page: &String| {
            let lost = ["drops", "filtered"]
                .map(|what| sum_of(page, &format!("aquatic_kernel_{what}_total{{protocol=\"{protocol}\"")));
            let lost: f64 = lost.iter().sum();
            let (requests, done) = balance(page, protocol);
            requests == sent - lost && done == requests
        };
        let page = eventually(|| page(&tracker), balanced);
        let count = format!("aquatic_request_duration_seconds_count{{protocol=\"{protocol}\"");
        let measured = sum_of(&page, &count);
        let expected = if protocol == "udp" { balance(&page, protocol).0 } else { sent / 16.0 };
        assert!((measured / expected - 1.0).abs() < 0.1, "{protocol}: {measured} measured of {sent}");
    }
}
