//! Latency histograms.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::{Nanos, SECOND};

/// Resolution and lowest recorded latency.
const LOWEST: Nanos = 1000;
/// Highest recorded latency.
const HIGHEST: Nanos = 60 * SECOND;
/// Significant decimal digits.
const DIGITS: u8 = 3;

/// Histogram of latencies; about 150 KiB.
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    histogram: Histogram<u64>,
}

/// Summary of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    /// Number of samples.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Maximum.
    pub max_us: f64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl LatencyHistogram {
    /// Creates an empty histogram.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(LOWEST, HIGHEST, DIGITS);
        Self { histogram: histogram.expect("the bounds are valid constants") }
    }

    /// Records a latency.
    pub fn record(&mut self, latency: Nanos) {
        self.histogram.saturating_record(latency);
    }

    /// Adds the samples of another histogram.
    pub fn merge(&mut self, other: &Self) {
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok(), "all histograms have the same bounds");
    }

    /// Removes all samples.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// Returns the summary.
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
        let (mut all, mut second_half) = (LatencyHistogram::new(), LatencyHistogram::new());
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
        let mut latencies = LatencyHistogram::new();
        latencies.record(0);
        latencies.record(u64::MAX);
        assert_eq!(latencies.summary().count, 2);
        assert!(latencies.summary().max_us >= 60e6);
    }
}
