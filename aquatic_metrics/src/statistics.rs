//! The statistics in the log.

use std::time::Duration;

use aquatic_common::Family;

use crate::names::{self, Kind, Metric};
use crate::registry::Sample;

/// Turns samples into lines, with rates since the last time.
#[derive(Debug)]
pub struct Statistics {
    last: Vec<Sample>,
    at: Duration,
}

impl Statistics {
    /// Rates of the first report are taken since this moment.
    #[must_use]
    pub fn new(now: Duration, samples: Vec<Sample>) -> Self {
        Self { last: samples, at: now }
    }

    /// The lines for this moment.
    pub fn report(&mut self, now: Duration, samples: Vec<Sample>) -> Vec<String> {
        let rates = Rates {
            last: &self.last,
            now: &samples,
            seconds: now.saturating_sub(self.at).as_secs_f64().max(0.001),
        };
        let mut lines = vec![format!("requests per second: {}", or_none(rates.of(&names::REQUESTS)))];
        let refused = rates.of(&names::REFUSED);
        if !refused.is_empty() {
            lines.push(format!("refused per second: {}", refused.join(", ")));
        }
        lines.push(swarms(&samples));
        let losses = rates.losses();
        if !losses.is_empty() {
            lines.push(format!("lost per second: {}", losses.join(", ")));
        }
        self.last = samples;
        self.at = now;
        lines
    }
}

fn or_none(parts: Vec<String>) -> String {
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

struct Rates<'a> {
    last: &'a [Sample],
    now: &'a [Sample],
    seconds: f64,
}

impl Rates<'_> {
    fn rate(&self, sample: &Sample) -> f64 {
        let before =
            self.last.iter().find(|last| last.metric == sample.metric && last.labels == sample.labels);
        sample.value.saturating_sub(before.map_or(0, |last| last.value)) as f64 / self.seconds
    }

    /// The series of a metric that have grown: "udp ipv4 announce 12.0".
    fn of(&self, metric: &Metric) -> Vec<String> {
        self.grown(|sample| sample.metric == metric, |_| String::new())
    }

    fn losses(&self) -> Vec<String> {
        self.grown(
            |sample| sample.metric.kind == Kind::Loss,
            |sample| format!("{} ", sample.metric.name.trim_start_matches("aquatic_").replace('_', " ")),
        )
    }

    fn grown(&self, wanted: impl Fn(&Sample) -> bool, prefix: impl Fn(&Sample) -> String) -> Vec<String> {
        self.now
            .iter()
            .filter(|sample| wanted(sample))
            .map(|sample| (sample, self.rate(sample)))
            .filter(|(_, rate)| *rate > 0.0)
            .map(|(sample, rate)| {
                let labels: String = sample.labels.iter().map(|(_, value)| format!("{value} ")).collect();
                format!("{}{labels}{rate:.1}", prefix(sample))
            })
            .collect()
    }
}

/// The swarms that all services share, by family, and those that a service has for itself. There a torrent
/// may have peers of both families.
fn swarms(samples: &[Sample]) -> String {
    let own = samples.iter().filter(|sample| *sample.metric == names::TORRENTS);
    let own = own
        .filter_map(|sample| Some((sample.label("swarms")?, sample.value)))
        .filter(|(swarms, _)| *swarms != names::BITTORRENT);
    let mut parts: Vec<String> = own
        .map(|(swarms, torrents)| {
            let peers = FAMILIES.map(|family| {
                let (peers, seeders) = peers(samples, swarms, family);
                format!("{family} {peers} peers ({seeders} seeders)")
            });
            format!("{swarms} {torrents} torrents with {}", peers.join(" and "))
        })
        .collect();
    let shared = FAMILIES.map(|family| {
        let torrents = total(samples, &names::TORRENTS, names::BITTORRENT, family, |_| true);
        let (peers, seeders) = peers(samples, names::BITTORRENT, family);
        (torrents, format!("{family} {torrents} torrents with {peers} peers ({seeders} seeders)"))
    });
    if parts.is_empty() || shared.iter().any(|(torrents, _)| *torrents > 0) {
        parts.splice(0..0, shared.map(|(_, text)| text));
    }
    let memory = samples.iter().find(|sample| *sample.metric == names::PROCESS_MEMORY);
    let memory = memory.map_or_else(String::new, |sample| format!("; memory {} MiB", sample.value >> 20));
    format!("swarms: {}{memory}", parts.join(", "))
}

const FAMILIES: [&str; 2] = [Family::V4.name(), Family::V6.name()];

/// Peers of a family, and how many of them are seeders.
fn peers(samples: &[Sample], swarms: &str, family: &str) -> (u64, u64) {
    let of = |roles: &[&str]| {
        let has_role = |sample: &Sample| sample.label("role").is_some_and(|role| roles.contains(&role));
        total(samples, &names::PEERS, swarms, family, has_role)
    };
    (of(&["seeder", "leecher"]), of(&["seeder"]))
}

fn total(
    samples: &[Sample],
    metric: &Metric,
    swarms: &str,
    family: &str,
    wanted: impl Fn(&Sample) -> bool,
) -> u64 {
    let same = |sample: &&Sample| {
        sample.metric == metric
            && sample.label("swarms") == Some(swarms)
            && sample.label("family") == Some(family)
            && wanted(sample)
    };
    samples.iter().filter(same).map(|sample| sample.value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Label;

    fn sample(metric: &'static Metric, labels: &[Label], value: u64) -> Sample {
        Sample { metric, labels: labels.into(), core: None, value }
    }

    #[test]
    fn rates_are_since_the_last_report_and_idle_series_are_left_out() {
        let udp = |action, value| {
            sample(&names::REQUESTS, &[("protocol", "udp"), ("family", "ipv4"), ("action", action)], value)
        };
        let mut statistics =
            Statistics::new(Duration::from_secs(10), vec![udp("announce", 100), udp("scrape", 7)]);
        let lines = statistics.report(
            Duration::from_secs(20),
            vec![
                udp("announce", 225),
                udp("scrape", 7),
                sample(&names::TORRENTS, &[("swarms", "bittorrent"), ("family", "ipv4")], 3),
                sample(&names::PEERS, &[("swarms", "bittorrent"), ("family", "ipv4"), ("role", "seeder")], 4),
                sample(
                    &names::PEERS,
                    &[("swarms", "bittorrent"), ("family", "ipv4"), ("role", "leecher")],
                    5,
                ),
                sample(&names::PROCESS_MEMORY, &[], 64 << 20),
                sample(&names::KERNEL_DROPS, &[("protocol", "udp")], 5),
            ],
        );
        assert_eq!(
            lines,
            [
                "requests per second: udp ipv4 announce 12.5",
                "swarms: ipv4 3 torrents with 9 peers (4 seeders), ipv6 0 torrents with 0 peers (0 seeders); memory \
                 64 MiB",
                "lost per second: kernel drops udp 0.5",
            ]
        );
        let lines = statistics.report(Duration::from_secs(30), vec![udp("announce", 225)]);
        assert_eq!(lines[0], "requests per second: none");
    }

    #[test]
    fn swarms_of_a_service_of_its_own_are_told_under_its_name() {
        let gauge = |metric, labels: &[Label], value| sample(metric, labels, value);
        let ws = ("swarms", "webtorrent");
        let mut samples = vec![
            gauge(&names::TORRENTS, &[("swarms", "bittorrent"), ("family", "ipv4")], 0),
            gauge(&names::PEERS, &[("swarms", "bittorrent"), ("family", "ipv4"), ("role", "seeder")], 0),
            gauge(&names::TORRENTS, &[ws, ("family", "both")], 3),
            gauge(&names::PEERS, &[ws, ("family", "ipv4"), ("role", "seeder")], 1),
            gauge(&names::PEERS, &[ws, ("family", "ipv4"), ("role", "leecher")], 3),
            gauge(&names::PEERS, &[ws, ("family", "ipv6"), ("role", "leecher")], 2),
        ];
        let own = "webtorrent 3 torrents with ipv4 4 peers (1 seeders) and ipv6 2 peers (0 seeders)";
        assert_eq!(swarms(&samples), format!("swarms: {own}"));
        samples[0].value = 5;
        samples[1].value = 7;
        let shared = "ipv4 5 torrents with 7 peers (7 seeders), ipv6 0 torrents with 0 peers (0 seeders)";
        assert_eq!(swarms(&samples), format!("swarms: {shared}, {own}"), "all services in one process");
    }
}
