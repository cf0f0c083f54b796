//! Histograms with fixed exponential buckets: four for each doubling, so that a quantile is off by at most an
//! eighth. A core adds to cells of its own, as it does to counters.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::names::{Kind, Metric, Unit};

/// Buckets for each doubling of the value.
const STEPS: u32 = 4;

/// Unused cells in front of a histogram's and behind them: 128 bytes, so that no two cores write to the same
/// cache line or to a pair of them that the processor fetches together.
const PADDING: usize = 16;

/// Number of buckets whose values are at most two to the power of `doublings`.
const fn end_of(doublings: u32) -> usize {
    if doublings < 2 { 1 << doublings } else { ((doublings - 1) * STEPS) as usize }
}

/// Bucket of a value. Bounds are inclusive: a power of two is the largest value of its bucket.
fn bucket_of(value: u64) -> usize {
    let below = value.saturating_sub(1);
    if below < u64::from(STEPS) {
        return below as usize;
    }
    let exponent = below.ilog2();
    let step = below >> (exponent - 2) & 3;
    ((exponent - 1) * STEPS) as usize + step as usize
}

/// Largest value of a bucket.
fn bound_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 4 { bucket + 1 } else { (bucket % 4 + 5) << (bucket / 4 - 1) }
}

/// Cells of one histogram on one core: a count for each bucket, the last for values above all bounds, and the
/// sum of all values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cells {
    counts: &'static [AtomicU64],
    sum: &'static AtomicU64,
}

impl Cells {
    /// Cells that start at zero, of a histogram whose largest bound is two to the power of `doublings`.
    pub(crate) fn leak(doublings: u32) -> Self {
        let used = end_of(doublings) + 2;
        let cells = (0..used + 2 * PADDING).map(|_| AtomicU64::new(0));
        let cells: &'static [AtomicU64] = Box::leak(cells.collect());
        let (sum, counts) = (&cells[PADDING], &cells[PADDING + 1..][..used - 1]);
        Self { counts, sum }
    }
}

/// Distribution of what one core measures. Can be moved to that core's thread, not shared. To measure costs
/// two plain adds, once for all requests of a batch.
#[derive(Debug)]
pub struct Histogram {
    cells: Cells,
    one_writer: PhantomData<Cell<()>>,
}

impl Histogram {
    pub(crate) fn new(cells: Cells) -> Self {
        Self { cells, one_writer: PhantomData }
    }

    /// Adds a value, so many times, to a histogram without a unit.
    #[inline]
    pub fn add(&self, value: u64, times: u64) {
        self.add_to(bucket_of(value), value, times);
    }

    /// Adds a time, so many times, to a histogram in [`Unit::Nanoseconds`].
    #[inline]
    pub fn add_time(&self, time: Duration, times: u64) {
        let nanoseconds = time.as_secs().wrapping_mul(1_000_000_000) + u64::from(time.subsec_nanos());
        self.add_to(bucket_of(nanoseconds.div_ceil(1000)), nanoseconds, times);
    }

    #[inline]
    fn add_to(&self, bucket: usize, value: u64, times: u64) {
        let Cells { counts, sum } = self.cells;
        // There is always one for values above all bounds.
        let Some(count) = counts.get(bucket.min(counts.len() - 1)) else { return };
        count.store(count.load(Ordering::Relaxed).wrapping_add(times), Ordering::Relaxed);
        sum.store(sum.load(Ordering::Relaxed).wrapping_add(value.wrapping_mul(times)), Ordering::Relaxed);
    }
}

/// Histogram of one in [`SAMPLED`](Self::SAMPLED) events, so that the clock is read for few of them.
#[derive(Debug)]
pub struct SampledHistogram {
    histogram: Histogram,
    /// Events that are not measured before the next one.
    passes: Cell<u32>,
}

impl SampledHistogram {
    /// Number of events of which one is measured.
    pub const SAMPLED: u32 = 16;

    /// Measures the next event.
    #[must_use]
    pub fn new(histogram: Histogram) -> Self {
        Self { histogram, passes: Cell::new(0) }
    }

    /// Whether the next event is to be measured. Asking does not count as an event: what is begun may turn
    /// out to be none.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.passes.get() == 0
    }

    /// Notes that an event has begun, measured or not.
    #[inline]
    pub fn advance(&self) {
        self.passes.set(self.passes.get().checked_sub(1).unwrap_or(Self::SAMPLED - 1));
    }

    /// Adds the time of a measured event.
    pub fn add_time(&self, time: Duration) {
        self.histogram.add_time(time, 1);
    }
}

/// What a histogram showed at one moment, over all cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// For each bucket, the last for values above all bounds.
    counts: Vec<u64>,
    sum: u64,
    unit: Option<Unit>,
}

impl Distribution {
    /// An empty distribution of a metric, whose kind is a histogram.
    #[must_use]
    pub fn empty(metric: &Metric) -> Self {
        let doublings = if let Kind::Histogram { doublings } = metric.kind { doublings } else { 0 };
        Self { counts: vec![0; end_of(doublings) + 1], sum: 0, unit: metric.unit }
    }

    pub(crate) fn add_cells(&mut self, cells: &Cells) {
        for (count, cell) in self.counts.iter_mut().zip(cells.counts) {
            *count = count.wrapping_add(cell.load(Ordering::Relaxed));
        }
        self.sum = self.sum.wrapping_add(cells.sum.load(Ordering::Relaxed));
    }

    /// Adds the values of another distribution of the same metric.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.wrapping_add(*more);
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The values added since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.wrapping_sub(*then));
        Self { counts: counts.collect(), sum: self.sum.wrapping_sub(earlier.sum), unit: self.unit }
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().copied().fold(0, u64::wrapping_add)
    }

    /// Sum of all values: in seconds, if they are times.
    #[must_use]
    pub fn sum(&self) -> f64 {
        match self.unit {
            Some(Unit::Nanoseconds) => self.sum as f64 / 1e9,
            _ => self.sum as f64,
        }
    }

    /// Value that a share of all values, from 0 to 1, does not exceed: in seconds, if they are times.
    /// Interpolated within a bucket; the largest bound, if it is above that. `None` without values.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = share.clamp(0.0, 1.0) * count as f64;
        let mut before = 0.0;
        let bounded = self.counts.len() - 1;
        for (bucket, &count) in self.counts.iter().enumerate().take(bounded) {
            let count = count as f64;
            if count > 0.0 && before + count >= rank {
                let lower = bucket.checked_sub(1).map_or(0, bound_of) as f64;
                let within = ((rank - before) / count).clamp(0.0, 1.0);
                return Some(self.shown(lower + (bound_of(bucket) as f64 - lower) * within));
            }
            before += count;
        }
        Some(self.shown(bounded.checked_sub(1).map_or(0, bound_of) as f64))
    }

    /// Powers of two that are bounds, with the number of values that do not exceed each: in seconds, if they
    /// are times.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounded = self.counts.len() - 1;
        let ends = (0..).map(|doublings| (doublings, end_of(doublings)));
        let mut summed = (0, 0_u64);
        ends.take_while(move |(_, end)| *end <= bounded).map(move |(doublings, end)| {
            let more = self.counts.get(summed.0..end).unwrap_or_default();
            summed = (end, more.iter().fold(summed.1, |sum, count| sum.wrapping_add(*count)));
            (self.shown((1_u64 << doublings) as f64), summed.1)
        })
    }

    /// A bound in the unit that is shown. Bounds of times are in microseconds.
    fn shown(&self, bound: f64) -> f64 {
        match self.unit {
            Some(Unit::Nanoseconds) => bound / 1e6,
            _ => bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;
    use crate::registry::Registry;

    #[test]
    fn buckets_are_adjacent_and_powers_of_two_are_bounds() {
        let mut last = 0;
        for value in 1..100_000_u64 {
            let bucket = bucket_of(value);
            assert!(bucket == last || bucket == last + 1, "{value}");
            let lower = bucket.checked_sub(1).map_or(0, bound_of);
            assert!(lower < value && value <= bound_of(bucket), "{value}: {lower} {}", bound_of(bucket));
            last = bucket;
        }
        assert_eq!(bucket_of(0), 0);
        for doublings in 0..40 {
            assert_eq!(bound_of(end_of(doublings) - 1), 1 << doublings);
            assert_eq!(bucket_of(1 << doublings), end_of(doublings) - 1);
        }
        assert!(bucket_of(u64::MAX) > bucket_of(1 << 62));
    }

    fn times(registry: &Registry) -> Distribution {
        let mut all = registry.histograms();
        assert_eq!(all.len(), 1);
        all.remove(0).distribution
    }

    #[test]
    fn quantiles_are_close_to_those_of_the_values() {
        let registry = Registry::default();
        for core in 0..2 {
            let histogram = registry.core(core).histogram(&names::REQUEST_DURATION, &[]);
            for value in 1..=5000_u64 {
                histogram.add_time(Duration::from_micros(value), 1);
                histogram.add_time(Duration::from_micros(value + 5000), 1);
            }
        }
        let all = times(&registry);
        assert_eq!(all.count(), 20_000);
        assert!((all.sum() - 2.0 * 10_000.0 * 10_001.0 / 2.0 / 1e6).abs() < 1e-6, "{}", all.sum());
        for (share, expected) in [(0.01, 0.0001), (0.5, 0.005), (0.9, 0.009), (0.99, 0.0099), (1.0, 0.01)] {
            let quantile = all.quantile(share).unwrap();
            assert!((quantile / expected - 1.0).abs() < 0.125, "{share}: {quantile} for {expected}");
        }
    }

    #[test]
    fn values_above_all_bounds_are_counted_and_nothing_has_no_quantile() {
        let registry = Registry::default();
        let histogram = registry.core(0).histogram(&names::REQUEST_DURATION, &[]);
        assert_eq!(times(&registry).quantile(0.5), None);
        histogram.add_time(Duration::MAX, 1);
        histogram.add_time(Duration::from_secs(3600), 2);
        histogram.add_time(Duration::ZERO, 3);
        let all = times(&registry);
        assert_eq!((all.count(), all.quantile(0.99)), (6, Some(8.388_608)));
        assert_eq!(all.cumulative().last(), Some((8.388_608, 3)));
    }

    #[test]
    fn the_difference_of_two_moments_has_what_came_between() {
        let registry = Registry::default();
        let histogram = registry.core(0).histogram(&names::REQUEST_DURATION, &[]);
        histogram.add_time(Duration::from_millis(100), 10);
        let before = times(&registry);
        histogram.add_time(Duration::from_micros(3), 4);
        let mut since = times(&registry).since(&before);
        assert_eq!((since.count(), since.quantile(1.0)), (4, Some(3e-6)));
        since.add(&before);
        assert_eq!(since, times(&registry));
    }

    #[test]
    fn cumulative_counts_are_of_powers_of_two() {
        let registry = Registry::default();
        let histogram = registry.core(0).histogram(&names::BATCH_SIZE, &[]);
        for value in 1..=64 {
            histogram.add(value, 1);
        }
        let counts: Vec<_> = times(&registry).cumulative().collect();
        assert_eq!(counts, [1, 2, 4, 8, 16, 32, 64].map(|bound| (f64::from(bound), u64::from(bound as u32))));
    }

    #[test]
    fn one_event_in_sixteen_is_sampled() {
        let registry = Registry::default();
        let histogram = registry.core(0).histogram(&names::REQUEST_DURATION, &[]);
        let sampled = SampledHistogram::new(histogram);
        for event in 0..160 {
            // Whoever asks several times does not skip any.
            for _ in 0..3 {
                assert_eq!(sampled.is_due(), event % SampledHistogram::SAMPLED == 0);
            }
            if sampled.is_due() {
                sampled.add_time(Duration::from_micros(1));
            }
            sampled.advance();
        }
        assert_eq!(times(&registry).count(), 10);
    }

    #[test]
    fn cores_do_not_share_cache_lines() {
        let [a, b] = [0, 1].map(|_| Cells::leak(6));
        let lines = |cells: &Cells| {
            let first = std::ptr::from_ref(cells.sum).addr() / 128;
            let last = cells.counts.last().map_or(0, |cell| std::ptr::from_ref(cell).addr() / 128);
            first..=last
        };
        assert!(lines(&a).end() < lines(&b).start() || lines(&b).end() < lines(&a).start());
    }
}
