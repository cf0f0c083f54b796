//! Where counters come from and where readers find them.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::names::{Kind, Metric};

/// A label and its value, such as `("protocol", "udp")`.
pub type Label = (&'static str, &'static str);

/// Cells handed out together. Aligned so that no two cores write to the same cache line or to a pair of them that the
/// processor fetches together.
#[repr(align(128))]
struct Chunk([AtomicU64; Self::CELLS]);

impl Chunk {
    const CELLS: usize = 64;
}

/// One cell of a series and the core that writes it.
struct Series {
    metric: &'static Metric,
    labels: Vec<Label>,
    cells: Vec<(usize, &'static AtomicU64)>,
}

impl Series {
    fn sample(&self, samples: &mut Vec<Sample>) {
        let Self { metric, labels, cells } = self;
        let sample = |core, value| Sample { metric, labels: labels.clone(), core, value };
        match metric.kind {
            Kind::GaugePerCore => samples
                .extend(cells.iter().map(|(core, cell)| sample(Some(*core), cell.load(Ordering::Relaxed)))),
            Kind::Counter | Kind::Loss | Kind::Gauge => {
                let all = cells.iter().map(|(_, cell)| cell.load(Ordering::Relaxed));
                samples.push(sample(None, all.fold(0, u64::wrapping_add)));
            }
        }
    }
}

/// What a series showed at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What was counted.
    pub metric: &'static Metric,
    /// Which series of it.
    pub labels: Vec<Label>,
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
    series: Arc<Mutex<Vec<Series>>>,
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

    /// What all series show now. Series of one metric are next to each other, in the order of registration.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut samples = Vec::with_capacity(series.len());
        for (at, one) in series.iter().enumerate() {
            if series.iter().take(at).any(|earlier| earlier.metric == one.metric) {
                continue;
            }
            for same in series.iter().skip(at).filter(|other| other.metric == one.metric) {
                same.sample(&mut samples);
            }
        }
        samples
    }

    fn add(&self, metric: &'static Metric, labels: &[Label], core: usize, cell: &'static AtomicU64) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter_mut().find(|series| series.metric == metric && series.labels == labels)
        {
            known.cells.push((core, cell));
        } else {
            all.push(Series { metric, labels: labels.to_vec(), cells: vec![(core, cell)] });
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

    /// A counter that starts at zero. The same metric and labels on several cores, or several times on one, are one
    /// series: their sum is shown.
    #[must_use]
    pub fn counter(&self, metric: &'static Metric, labels: &[Label]) -> Counter {
        Counter { cell: self.cell(metric, labels), one_writer: PhantomData }
    }

    /// A gauge that starts at zero.
    #[must_use]
    pub fn gauge(&self, metric: &'static Metric, labels: &[Label]) -> Gauge {
        Gauge { cell: self.cell(metric, labels), one_writer: PhantomData }
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
/// Adding is a load and a store, without the locked instruction that several writers would need: there is only ever
/// one handle to a cell.
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
    fn cores_do_not_share_cache_lines() {
        let registry = Registry::default();
        let cell = |core| {
            let counter = registry.core(core).counter(&names::REQUESTS, &[]);
            std::ptr::from_ref(counter.cell).addr() / 128
        };
        assert_ne!(cell(0), cell(1));
    }
}
