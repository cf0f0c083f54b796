//! Metrics as monitoring systems read them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use aquatic_common::config::Limit;
use aquatic_tracker::PeerFault;
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
    // Those of tasks that the cores begin with come a moment later.
    let is_complete = |page: &String| {
        ["torrents{", "expired_peers_total{"]
            .iter()
            .all(|series| page.contains(&format!("\naquatic_{series}")))
    };
    eventually(|| fetch(address, "/metrics"), is_complete)
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

/// The series of a metric, without their values.
fn series<'a>(page: &'a str, metric: &str) -> Vec<&'a str> {
    let lines = page.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series);
    lines.filter(|line| line.strip_prefix(metric).is_some_and(|labels| labels.starts_with('{'))).collect()
}

#[test]
fn protocols_that_are_not_served_have_no_series() {
    for (name, foreign) in [
        ("ws", [r#"protocol="udp""#, r#"protocol="http""#, r#"swarms="bittorrent""#]),
        ("http", [r#"protocol="udp""#, r#"protocol="ws""#, r#"swarms="webtorrent""#]),
        ("udp", [r#"protocol="http""#, r#"protocol="ws""#, r#"swarms="webtorrent""#]),
    ] {
        let page = page(&start(name, 1));
        let found = page.lines().find(|line| foreign.iter().any(|label| line.contains(label)));
        assert_eq!(found, None, "aquatic {name}");
    }
}

#[test]
fn swarms_have_one_scheme_of_labels() {
    for (service, swarms, memory) in [
        ("ws", "webtorrent", &["both"][..]),
        ("http", "bittorrent", &["ipv4", "ipv6"]),
        ("udp", "bittorrent", &["ipv4", "ipv6"]),
    ] {
        let page = page(&start(service, 1));
        let expect = |metric: &str, families: &[&str], further: &[&str]| {
            let labels = |family: &&str| format!(r#"{metric}{{swarms="{swarms}",family="{family}""#);
            let of_family = |family: &&str| {
                let further = further.iter().map(|label| format!(",{label}}}"));
                further.map(|further| labels(family) + &further).collect::<Vec<_>>()
            };
            let mut expected: Vec<String> = if further.is_empty() {
                families.iter().map(|family| labels(family) + "}").collect()
            } else {
                families.iter().flat_map(of_family).collect()
            };
            let mut found = series(&page, metric);
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected, "aquatic {service}");
        };
        let faults = if service == "ws" { &[][..] } else { &PeerFault::ALL };
        let names =
            Limit::ALL.iter().map(|limit| limit.name()).chain(faults.iter().map(|fault| fault.name()));
        let reasons: Vec<_> = names.map(|name| format!(r#"reason="{name}""#)).collect();
        let reasons: Vec<&str> = reasons.iter().map(String::as_str).collect();
        expect("aquatic_torrents", memory, &[]);
        expect("aquatic_store_bytes", memory, &[]);
        expect("aquatic_peers", &["ipv4", "ipv6"], &[r#"role="seeder""#, r#"role="leecher""#]);
        expect("aquatic_not_stored_total", &["ipv4", "ipv6"], &reasons);
        for counter in ["expired_peers", "expired_torrents", "expiry_passes", "expiry_behind"] {
            expect(&format!("aquatic_{counter}_total"), &["both"], &[]);
        }
    }
}
