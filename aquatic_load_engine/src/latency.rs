//! How long answers took.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::{Nanos, SECOND};

/// Resolution. What is shorter counts as this.
const LOWEST: Nanos = 1000;
/// What is longer counts as this.
const HIGHEST: Nanos = 60 * SECOND;
/// Precision: the last of this many digits may be off.
const DIGITS: u8 = 3;

/// A distribution of latencies; about 150 KiB whatever it holds.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// What a report says about a distribution, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    /// How many were measured.
    pub count: u64,
    /// Average.
    pub mean_us: f64,
    /// Half took no longer.
    pub p50_us: f64,
    /// 90 % took no longer.
    pub p90_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// 99.9 % took no longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// An empty distribution.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(LOWEST, HIGHEST, DIGITS);
        Self { histogram: histogram.expect("the bounds are constants that fit each other") }
    }

    /// Adds one.
    pub fn record(&mut self, latency: Nanos) {
        self.histogram.saturating_record(latency);
    }

    /// Adds all of another distribution.
    pub fn merge(&mut self, other: &Self) {
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok(), "all distributions have the same bounds");
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// The figures for a report.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        if self.histogram.is_empty() {
            return LatencySummary::default();
        }
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let quantile = |quantile| micros(self.histogram.value_at_quantile(quantile));
        LatencySummary {
            count: self.histogram.len(),
            mean_us: self.histogram.mean() / 1000.0,
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: micros(self.histogram.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_known_values() {
        let (mut all, mut second_half) = (Latencies::new(), Latencies::new());
        (1..=500).for_each(|micros| all.record(micros * 1000));
        (501..=1000).for_each(|micros| second_half.record(micros * 1000));
        all.merge(&second_half);
        let summary = all.summary();
        assert_eq!(summary.count, 1000);
        for (got, expected) in [
            (summary.mean_us, 500.5),
            (summary.p50_us, 500.0),
            (summary.p90_us, 900.0),
            (summary.p99_us, 990.0),
            (summary.p999_us, 999.0),
            (summary.max_us, 1000.0),
        ] {
            assert!((got - expected).abs() <= expected * 0.002 + 0.5, "{got} for {expected}");
        }
        all.clear();
        assert_eq!(all.summary(), LatencySummary::default());
    }

    #[test]
    fn values_out_of_range_count() {
        let mut latencies = Latencies::new();
        latencies.record(0);
        latencies.record(u64::MAX);
        assert_eq!(latencies.summary().count, 2);
        assert!(latencies.summary().max_us >= 60e6);
    }
}
