//! What the tracker tells about itself, from its counters.

use std::time::Duration;

use aquatic_acme::AcmeStatus;
use aquatic_cluster::report::ClusterStatus;
use aquatic_metrics::{Metric, Sample, names};
use aquatic_runtime::clock::calendar_seconds;
use serde_json::{Map, Value, json};

/// The series of a metric, each with its labels and its value under this name. Series that show 0 are left
/// out, as most of the possible reasons never happen.
pub(super) fn series(samples: &[Sample], metric: &Metric, value: &str) -> Value {
    let shown = samples.iter().filter(|sample| sample.metric.name == metric.name && sample.value > 0);
    shown.map(|sample| row(sample, value)).collect()
}

fn row(sample: &Sample, value: &str) -> Value {
    let labels = sample.labels.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    let mut row: Map<String, Value> = labels.collect();
    row.insert(value.to_owned(), sample.value.into());
    Value::Object(row)
}

/// Sum of the series of a metric that have a label.
pub(super) fn sum(samples: &[Sample], metric: &Metric, label: Option<(&str, &str)>) -> u64 {
    let is_meant = |sample: &&Sample| {
        sample.metric.name == metric.name
            && label.is_none_or(|(name, value)| sample.label(name) == Some(value))
    };
    samples.iter().filter(is_meant).map(|sample| sample.value).fold(0, u64::saturating_add)
}

/// Torrents and peers, by kind of swarm and family.
fn swarms(samples: &[Sample]) -> Value {
    let torrents = samples.iter().filter(|sample| sample.metric.name == names::TORRENTS.name);
    let rows = torrents.map(|torrents| {
        // Torrents of WebTorrent have peers of both families.
        let has_both = torrents.label("family").is_none_or(|family| family == names::BOTH_FAMILIES);
        let peers = |role| {
            let is_meant = |sample: &&Sample| {
                sample.metric.name == names::PEERS.name
                    && sample.label("role") == Some(role)
                    && sample.label("swarms") == torrents.label("swarms")
                    && (has_both || sample.label("family") == torrents.label("family"))
            };
            samples.iter().filter(is_meant).map(|sample| sample.value).fold(0, u64::saturating_add)
        };
        let mut row = json!({
            "swarms": torrents.label("swarms"),
            "torrents": torrents.value,
            "seeders": peers("seeder"),
            "leechers": peers("leecher"),
        });
        if let Some(family) = torrents.label("family") {
            row["family"] = family.into();
        }
        row
    });
    rows.collect()
}

/// What the counters say: the part of the status that changes all the time.
pub(super) fn counts(samples: &[Sample], process: &[Sample], now: Duration) -> Value {
    let busy: Vec<Value> = samples
        .iter()
        .filter(|sample| sample.metric.name == names::CORE_BUSY.name)
        .map(|sample| {
            let of_core =
                |time: &&Sample| time.metric.name == names::CORE_BUSY_TIME.name && time.core == sample.core;
            let seconds = samples.iter().find(of_core).map_or(0.0, |time| time.value as f64 / 1e9);
            // An average over a minute, and a counter for what is shorter.
            json!({"core": sample.core, "busy_percent": sample.value as f64 / 10.0, "busy_seconds": seconds})
        })
        .collect();
    json!({
        "time_seconds": now.as_secs_f64(),
        "cores": busy,
        "memory_bytes": sum(process, &names::PROCESS_MEMORY, None),
        "cpu_seconds": sum(process, &names::PROCESS_CPU, None) as f64 / 1e6,
        "swarms": swarms(samples),
        "connections": series(samples, &names::CONNECTIONS, "open"),
        "requests": series(samples, &names::REQUESTS, "count"),
        "responses": series(samples, &names::RESPONSES, "count"),
        "refused": series(samples, &names::REFUSED, "count"),
        "dropped": series(samples, &names::DROPPED, "count"),
        "kernel_drops": sum(samples, &names::KERNEL_DROPS, None),
    })
}

/// The certificate that the tracker obtains.
pub(super) fn certificate(status: &AcmeStatus) -> Value {
    let (text, _) = status.text(calendar_seconds(), aquatic_status::duration);
    let mut value = json!(status);
    value["text"] = text.into();
    value
}

/// The cluster, as this node sees it.
pub(super) fn cluster(status: &ClusterStatus) -> Value {
    let (text, _) = status.text();
    let mut value = json!(status);
    value["text"] = text.into();
    value
}

/// What is known about connections over TCP.
pub(super) fn connections(samples: &[Sample]) -> Value {
    json!({
        "open": series(samples, &names::CONNECTIONS, "open"),
        "handshaking": sum(samples, &names::HANDSHAKING, None),
        "accepted": series(samples, &names::CONNECTIONS_ACCEPTED, "count"),
        "refused": series(samples, &names::CONNECTIONS_REFUSED, "count"),
        "evicted": series(samples, &names::CONNECTIONS_EVICTED, "count"),
        "timed_out": series(samples, &names::CONNECTION_TIMEOUTS, "count"),
        "handshakes": series(samples, &names::HANDSHAKES, "count"),
    })
}

#[cfg(test)]
mod tests {
    use aquatic_metrics::Registry;

    use super::*;

    #[test]
    fn counts_come_with_their_labels() {
        let registry = Registry::default();
        let core = registry.core(0);
        let udp = |action| [("protocol", "udp"), ("family", "ipv4"), ("action", action)];
        core.counter(&names::REQUESTS, &udp("announce")).add(7);
        let _unused = core.counter(&names::REQUESTS, &udp("scrape"));
        let swarms = [("swarms", "bittorrent"), ("family", "ipv6")];
        core.gauge(&names::TORRENTS, &swarms).set(3);
        core.gauge(&names::PEERS, &[swarms[0], swarms[1], ("role", "seeder")]).set(5);
        core.gauge(&names::CORE_BUSY, &[]).set(123);
        core.counter(&names::CORE_BUSY_TIME, &[]).add(2_500_000_000);
        let counts = counts(&registry.samples(), &[], Duration::from_millis(1500));
        assert_eq!(
            counts["requests"],
            json!([{"protocol": "udp", "family": "ipv4", "action": "announce", "count": 7}])
        );
        assert_eq!(
            counts["swarms"],
            json!([{"swarms": "bittorrent", "family": "ipv6", "torrents": 3, "seeders": 5, "leechers": 0}])
        );
        // As WebTorrent has them: its torrents may have peers of both families.
        let both = [("swarms", "webtorrent"), ("family", names::BOTH_FAMILIES)];
        core.gauge(&names::TORRENTS, &both).set(2);
        for (family, role, peers) in [("ipv4", "seeder", 1), ("ipv6", "seeder", 2), ("ipv6", "leecher", 4)] {
            let labels = [both[0], ("family", family), ("role", role)];
            core.gauge(&names::PEERS, &labels).set(peers);
        }
        let rows = super::counts(&registry.samples(), &[], Duration::ZERO)["swarms"].clone();
        let row = rows.as_array().unwrap().iter().find(|row| row["swarms"] == "webtorrent").unwrap();
        assert_eq!([&row["torrents"], &row["seeders"], &row["leechers"]], [2, 3, 4]);
        assert_eq!(counts["cores"], json!([{"core": 0, "busy_percent": 12.3, "busy_seconds": 2.5}]));
        assert_eq!(counts["time_seconds"], 1.5);
    }
}
