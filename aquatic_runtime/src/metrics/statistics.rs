//! The statistics in the log.

use std::time::Duration;

use super::names::{self, Kind, Metric};
use super::registry::Sample;

/// Turns samples into lines, with rates since the last time.
#[derive(Debug)]
pub(crate) struct Statistics {
    last: Vec<Sample>,
    at: Duration,
}

impl Statistics {
    /// Rates of the first report are taken since this moment.
    pub(crate) fn new(now: Duration, samples: Vec<Sample>) -> Self {
        Self { last: samples, at: now }
    }

    /// The lines for this moment.
    pub(crate) fn report(&mut self, now: Duration, samples: Vec<Sample>) -> Vec<String> {
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

fn swarms(samples: &[Sample]) -> String {
    let total = |metric: &Metric, family: &str, role: Option<&str>| -> u64 {
        samples
            .iter()
            .filter(|sample| sample.metric == metric && sample.label("family") == Some(family))
            .filter(|sample| role.is_none() || sample.label("role") == role)
            .map(|sample| sample.value)
            .sum()
    };
    let families: Vec<_> = ["ipv4", "ipv6"]
        .iter()
        .map(|family| {
            let peers = total(&names::PEERS, family, None);
            let seeders = total(&names::PEERS, family, Some("seeder"));
            let torrents = total(&names::TORRENTS, family, None);
            format!("{family} {torrents} torrents with {peers} peers ({seeders} seeders)")
        })
        .collect();
    let memory = samples.iter().find(|sample| *sample.metric == names::MEMORY);
    let memory = memory.map_or_else(String::new, |sample| format!("; memory {} MiB", sample.value >> 20));
    format!("swarms: {}{memory}", families.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::registry::Label;
    use super::*;

    fn sample(metric: &'static Metric, labels: &[Label], value: u64) -> Sample {
        Sample { metric, labels: labels.to_vec(), core: None, value }
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
                sample(&names::TORRENTS, &[("family", "ipv4")], 3),
                sample(&names::PEERS, &[("family", "ipv4"), ("role", "seeder")], 4),
                sample(&names::PEERS, &[("family", "ipv4"), ("role", "leecher")], 5),
                sample(&names::MEMORY, &[], 64 << 20),
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
}
