//! Metrics as monitoring systems read them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use support::{Tracker, eventually, fetch, service, skip};

fn start(name: &str, listeners: usize) -> Tracker {
    let settings = [
        "workers=1",
        "network.use_ipv6=false",
        "network.address_ipv4=127.0.0.1:0",
        "metrics.enable=true",
        "metrics.address=127.0.0.1:0",
    ];
    Tracker::start(listeners, &mut service(name, &settings))
}

/// The page once all cores have registered their series.
fn page(tracker: &Tracker) -> String {
    let address = tracker.metrics.unwrap();
    eventually(|| fetch(address, "/metrics"), |page| page.contains("\naquatic_torrents{"))
}

#[test]
fn promtool_has_no_complaints() {
    let promtool =
        Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if promtool.is_err() {
        return skip("promtool");
    }
    let page = page(&start("http", 1));
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{page}");
}

#[test]
fn process_metrics_have_the_names_that_dashboards_expect() {
    let page = page(&start("http", 1));
    for name in ["process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"] {
        let series = page.lines().find_map(|line| line.strip_prefix(name));
        let value: f64 = series.unwrap_or_else(|| panic!("no {name} in\n{page}")).trim().parse().unwrap();
        assert!(value > 0.0, "{name} {value}");
    }
}

#[test]
fn protocols_that_are_not_served_have_no_series_and_swarms_one_scheme_of_labels() {
    for (name, other) in [("ws", "bittorrent"), ("http", "webtorrent")] {
        let page = page(&start(name, 1));
        let labels = ["protocol=\"udp\"".to_owned(), format!("swarms=\"{other}\"")];
        let foreign = page.lines().find(|line| labels.iter().any(|label| line.contains(label)));
        assert_eq!(foreign, None, "aquatic {name}");
        for metric in ["aquatic_torrents{", "aquatic_peers{"] {
            let mut series = page.lines().filter(|line| line.starts_with(metric)).peekable();
            assert!(series.peek().is_some(), "no {metric} in\n{page}");
            assert!(series.all(|line| line.contains("{swarms=\"") && line.contains(",family=\"")), "{page}");
        }
    }
}
