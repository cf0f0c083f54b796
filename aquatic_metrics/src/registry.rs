//! Where counters come from and where readers find them.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::histogram::{Cells, Distribution, Histogram};
use crate::names::{Kind, Metric};

/// A label and its value, such as `("protocol", "udp")`.
pub type Label = (&'static str, &'static str);

/// Cells handed out together. Aligned so that no two cores write to the same cache line or to a pair of them
/// that the processor fetches together.
#[repr(align(128))]
struct Chunk([AtomicU64; Self::CELLS]);

impl Chunk {
    const CELLS: usize = 64;
}

/// Cells of a series, each with the core that writes it.
struct Series {
    labels: Arc<[Label]>,
    cells: Vec<(usize, &'static AtomicU64)>,
}

impl Series {
    fn sum(&self) -> u64 {
        self.cells.iter().map(|(_, cell)| cell.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// A metric with all its series, in the order of registration.
struct MetricSeries {
    metric: &'static Metric,
    series: Vec<Series>,
}

impl MetricSeries {
    fn sample(&self, samples: &mut Vec<Sample>) {
        let metric = self.metric;
        let sample =
            |series: &Series, core, value| Sample { metric, labels: Arc::clone(&series.labels), core, value };
        for series in &self.series {
            match metric.kind {
                Kind::GaugePerCore | Kind::CounterPerCore => samples.extend(
                    series
                        .cells
                        .iter()
                        .map(|(core, cell)| sample(series, Some(*core), cell.load(Ordering::Relaxed))),
                ),
                Kind::Counter | Kind::Loss | Kind::Gauge => samples.push(sample(series, None, series.sum())),
                // Kept apart, as they are more than a number.
                Kind::Histogram { .. } => {}
            }
        }
    }
}

/// Cells of a series of a histogram, those of all cores.
struct HistogramSeries {
    metric: &'static Metric,
    labels: Arc<[Label]>,
    cells: Vec<Cells>,
}

/// What a series of a histogram showed at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSample {
    /// What was measured.
    pub metric: &'static Metric,
    /// Which series of it.
    pub labels: Arc<[Label]>,
    /// The values, over all cores.
    pub distribution: Distribution,
}

/// All metrics of the process, in the order of registration.
#[derive(Default)]
struct Metrics {
    all: Vec<MetricSeries>,
    /// Position of each metric, by its name.
    positions: HashMap<&'static str, usize>,
    /// All histograms. Series of a metric are adjacent.
    histograms: Vec<HistogramSeries>,
}

impl Metrics {
    fn get(&self, metric: &Metric) -> Option<&MetricSeries> {
        self.all.get(*self.positions.get(metric.name)?)
    }

    fn get_or_insert(&mut self, metric: &'static Metric) -> Option<&mut MetricSeries> {
        let position = *self.positions.entry(metric.name).or_insert_with(|| {
            self.all.push(MetricSeries { metric, series: Vec::new() });
            self.all.len() - 1
        });
        self.all.get_mut(position)
    }
}

/// What a series showed at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What was counted.
    pub metric: &'static Metric,
    /// Which series of it.
    pub labels: Arc<[Label]>,
    /// Which core, where each is shown by itself.
    pub core: Option<usize>,
    /// The number; over all cores, where they are not shown by themselves.
    pub value: u64,
}

impl Sample {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&'static str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value)
    }
}

/// All series of the process.
#[derive(Clone, Default)]
pub struct Registry {
    metrics: Arc<Mutex<Metrics>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// The source of one core's counters. Call it once per core.
    #[must_use]
    pub fn core(&self, core: usize) -> CoreMetrics {
        CoreMetrics { registry: self.clone(), core, spare: Cell::new(&[]) }
    }

    /// The source of counters for what happens outside the cores, in one thread.
    #[must_use]
    pub fn main_thread(&self) -> CoreMetrics {
        self.core(usize::MAX)
    }

    /// Values of all series. Series of one metric are adjacent, in the order of registration.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let mut samples = Vec::with_capacity(metrics.all.iter().map(|metric| metric.series.len()).sum());
        for metric in &metrics.all {
            metric.sample(&mut samples);
        }
        samples
    }

    /// Values of all series of histograms. Series of one metric are adjacent.
    #[must_use]
    pub fn histograms(&self) -> Vec<HistogramSample> {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = |series: &HistogramSeries| {
            let mut distribution = Distribution::empty(series.metric);
            series.cells.iter().for_each(|cells| distribution.add_cells(cells));
            HistogramSample { metric: series.metric, labels: Arc::clone(&series.labels), distribution }
        };
        metrics.histograms.iter().map(sample).collect()
    }

    /// Values of all series of one histogram together.
    #[must_use]
    pub fn distribution(&self, metric: &Metric) -> Distribution {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let mut distribution = Distribution::empty(metric);
        let series = metrics.histograms.iter().filter(|series| series.metric == metric);
        series.flat_map(|series| &series.cells).for_each(|cells| distribution.add_cells(cells));
        distribution
    }

    fn add_histogram(&self, metric: &'static Metric, labels: &[Label], cells: Cells) {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let histograms = &mut metrics.histograms;
        let known = histograms.iter_mut().find(|series| series.metric == metric && *series.labels == *labels);
        if let Some(series) = known {
            return series.cells.push(cells);
        }
        let at = histograms.iter().rposition(|series| series.metric == metric);
        let at = at.map_or(histograms.len(), |last| last + 1);
        histograms.insert(at, HistogramSeries { metric, labels: labels.into(), cells: vec![cells] });
    }

    /// Sum of all series of one metric.
    #[must_use]
    pub fn sum(&self, metric: &Metric) -> u64 {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let series = metrics.get(metric).map_or(&[][..], |metric| &metric.series);
        series.iter().map(Series::sum).fold(0, u64::wrapping_add)
    }

    fn add(&self, metric: &'static Metric, labels: &[Label], core: usize, cell: &'static AtomicU64) {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(MetricSeries { series, .. }) = metrics.get_or_insert(metric) else { return };
        if let Some(known) = series.iter_mut().find(|series| *series.labels == *labels) {
            known.cells.push((core, cell));
        } else {
            series.push(Series { labels: labels.into(), cells: vec![(core, cell)] });
        }
    }
}

/// Makes the counters of one core. Used at start; counting itself goes through the handles it returns.
pub struct CoreMetrics {
    registry: Registry,
    core: usize,
    spare: Cell<&'static [AtomicU64]>,
}

impl fmt::Debug for CoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreMetrics").field("core", &self.core).finish_non_exhaustive()
    }
}

impl CoreMetrics {
    /// All series of the process.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A counter that starts at zero. The same metric and labels on several cores, or several times on one,
    /// are one series: their sum is shown.
    #[must_use]
    pub fn counter(&self, metric: &'static Metric, labels: &[Label]) -> Counter {
        Counter { cell: self.cell(metric, labels), one_writer: PhantomData }
    }

    /// A gauge that starts at zero.
    #[must_use]
    pub fn gauge(&self, metric: &'static Metric, labels: &[Label]) -> Gauge {
        Gauge { cell: self.cell(metric, labels), one_writer: PhantomData }
    }

    /// A histogram without values, of a metric whose kind is [`Kind::Histogram`].
    #[must_use]
    pub fn histogram(&self, metric: &'static Metric, labels: &[Label]) -> Histogram {
        debug_assert!(matches!(metric.kind, Kind::Histogram { .. }), "{metric:?}");
        let doublings = if let Kind::Histogram { doublings } = metric.kind { doublings } else { 0 };
        let cells = Cells::leak(doublings);
        self.registry.add_histogram(metric, labels, cells);
        Histogram::new(cells)
    }

    fn cell(&self, metric: &'static Metric, labels: &[Label]) -> &'static AtomicU64 {
        let (cell, rest) = self.spare.get().split_first().unwrap_or_else(|| {
            let chunk: &'static Chunk =
                Box::leak(Box::new(Chunk([const { AtomicU64::new(0) }; Chunk::CELLS])));
            let [first, rest @ ..] = &chunk.0;
            (first, rest)
        });
        self.spare.set(rest);
        self.registry.add(metric, labels, self.core, cell);
        cell
    }
}

/// A number that one core increases. Can be moved to that core's thread, not shared.
///
/// Adding is a load and a store, without the locked instruction that several writers would need: there is
/// only ever one handle to a cell.
#[derive(Debug)]
pub struct Counter {
    cell: &'static AtomicU64,
    one_writer: PhantomData<Cell<()>>,
}

impl Counter {
    /// Counts `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.cell.store(self.cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// What has been counted so far on this core.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.cell.load(Ordering::Relaxed)
    }
}

/// A number that one core sets.
#[derive(Debug)]
pub struct Gauge {
    cell: &'static AtomicU64,
    one_writer: PhantomData<Cell<()>>,
}

impl Gauge {
    /// Shows this value from now on.
    #[inline]
    pub fn set(&self, value: u64) {
        self.cell.store(value, Ordering::Relaxed);
    }

    /// What it shows.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.cell.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::names;

    const V4: Label = ("family", "ipv4");
    const V6: Label = ("family", "ipv6");

    #[test]
    fn cores_are_summed_and_series_kept_apart() {
        let registry = Registry::default();
        let threads: Vec<_> = (0..2)
            .map(|core| {
                let metrics = registry.core(core);
                let v4 = metrics.counter(&names::REQUESTS, &[V4]);
                let v6 = metrics.counter(&names::REQUESTS, &[V6]);
                thread::spawn(move || {
                    for _ in 0..1000 {
                        v4.add(2);
                    }
                    v6.add(1);
                    v4.get()
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 2000);
        }
        let values: Vec<_> =
            registry.samples().into_iter().map(|sample| (sample.label("family"), sample.value)).collect();
        assert_eq!(values, [(Some("ipv4"), 4000), (Some("ipv6"), 2)]);
    }

    #[test]
    fn a_gauge_per_core_shows_each_core() {
        let registry = Registry::default();
        for core in [0, 1] {
            let gauge = registry.core(core).gauge(&names::TICK_LAG, &[]);
            gauge.set(10 + core as u64);
        }
        let values: Vec<_> = registry.samples().iter().map(|sample| (sample.core, sample.value)).collect();
        assert_eq!(values, [(Some(0), 10), (Some(1), 11)]);
    }

    #[test]
    fn series_of_a_metric_are_adjacent_whatever_the_order_of_registration() {
        let registry = Registry::default();
        let metrics = registry.core(0);
        let _cells = [
            metrics.counter(&names::REQUESTS, &[V4]),
            metrics.counter(&names::DROPPED, &[V4]),
            metrics.counter(&names::REQUESTS, &[V6]),
        ];
        let names: Vec<_> = registry.samples().iter().map(|sample| sample.metric.name).collect();
        assert_eq!(names, ["aquatic_requests", "aquatic_requests", "aquatic_dropped"]);
    }

    #[test]
    fn one_metric_is_summed_over_its_series_and_cores() {
        let registry = Registry::default();
        for (core, family) in [(0, V4), (0, V6), (1, V4)] {
            registry.core(core).gauge(&names::CONNECTIONS, &[family]).set(10);
        }
        registry.core(0).counter(&names::REQUESTS, &[V4]).add(1);
        assert_eq!(registry.sum(&names::CONNECTIONS), 30);
        assert_eq!(registry.sum(&names::DROPPED), 0);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the duration is what is tested")]
    fn sampling_many_series_takes_linear_time() {
        let registry = Registry::default();
        let metrics = registry.core(0);
        for n in 0..20_000 {
            let name: &'static str = Box::leak(format!("metric_{n}").into_boxed_str());
            let metric = Box::leak(Box::new(Metric { name, ..names::REQUESTS }));
            let _ = metrics.counter(metric, &[V4]);
        }
        let started = std::time::Instant::now();
        assert_eq!(registry.samples().len(), 20_000);
        let taken = started.elapsed();
        assert!(taken.as_millis() < 2000, "{taken:?}; comparing each with each takes many seconds");
    }

    #[test]
    fn cores_do_not_share_cache_lines() {
        let registry = Registry::default();
        let cell = |core| {
            let counter = registry.core(core).counter(&names::REQUESTS, &[]);
            std::ptr::from_ref(counter.cell).addr() / 128
        };
        assert_ne!(cell(0), cell(1));
    }
}
