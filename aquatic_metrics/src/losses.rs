//! Telling the log when something gets lost: the first time at once, then at most once a minute.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{Kind, Metric};
use crate::registry::{Label, Sample};

/// Shortest time between two lines about the same thing.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Told {
    value: u64,
    at: Duration,
}

/// Remembers what the log has been told.
#[derive(Debug, Default)]
pub struct LossLog {
    told: HashMap<(&'static str, Arc<[Label]>), Told>,
}

impl LossLog {
    /// Lines to log at this time.
    pub fn observe(&mut self, now: Duration, samples: &[Sample]) -> Vec<String> {
        let mut lines = Vec::new();
        for sample in samples.iter().filter(|sample| sample.metric.kind == Kind::Loss && sample.value > 0) {
            let told = self.told.entry((sample.metric.name, Arc::clone(&sample.labels)));
            let is_first = matches!(told, std::collections::hash_map::Entry::Vacant(_));
            let told = told.or_default();
            if sample.value > told.value && (is_first || now.saturating_sub(told.at) >= PAUSE) {
                lines.push(line(sample.metric, &sample.labels, sample.value - told.value, sample.value));
                *told = Told { value: sample.value, at: now };
            }
        }
        lines
    }
}

fn line(metric: &Metric, labels: &[Label], more: u64, total: u64) -> String {
    let labels: Vec<_> = labels.iter().map(|(_, value)| *value).collect();
    let what = if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
    format!("{}{what}: {more} new, {total} total", metric.help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    fn sample(metric: &'static Metric, value: u64) -> [Sample; 1] {
        [Sample { metric, labels: [("reason", "connection_id")].into(), core: None, value }]
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_loss_is_told_at_once_and_more_after_a_minute() {
        let mut watch = LossLog::default();
        assert!(watch.observe(at(0), &sample(&names::DROPPED, 0)).is_empty());
        let first = watch.observe(at(1), &sample(&names::DROPPED, 3));
        assert_eq!(first, ["Requests dropped without a reply (connection_id): 3 new, 3 total"]);
        assert!(watch.observe(at(30), &sample(&names::DROPPED, 5)).is_empty());
        let second = watch.observe(at(61), &sample(&names::DROPPED, 9));
        assert!(second[0].ends_with("6 new, 9 total"), "{second:?}");
        assert!(watch.observe(at(200), &sample(&names::DROPPED, 9)).is_empty());
    }

    #[test]
    fn only_losses_are_told() {
        assert!(LossLog::default().observe(at(0), &sample(&names::REQUESTS, 3)).is_empty());
    }
}
