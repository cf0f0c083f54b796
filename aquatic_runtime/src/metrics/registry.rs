//! Where counters come from and where readers find them.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::names::Metric;

/// A label and its value, such as `("protocol", "udp")`.
pub type Label = (&'static str, &'static str);

/// Cells handed out together. Aligned so that no two cores write to the same cache line or to a pair of them that the
/// processor fetches together.
#[repr(align(128))]
struct Chunk([AtomicU64; Chunk::CELLS]);

impl Chunk {
    const CELLS: usize = 64;
}

/// One cell of a series and the core that writes it.
struct Series {
    metric: &'static Metric,
    labels: Vec<Label>,
    cells: Vec<(usize, &'static AtomicU64)>,
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

    fn add(&self, metric: &'static Metric, labels: &[Label], core: usize, cell: &'static AtomicU64) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter_mut().find(|series| series.metric == metric && series.labels == labels) {
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
