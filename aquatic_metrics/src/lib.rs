//! Counters, gauges and their exposition. Each core has cells of its own that only it writes, with plain
//! adds; readers (the metrics endpoint, the statistics in the log) sum over the cores.
//!
//! - [`names`]: every metric's name, help text, unit and kind, in one file.
//! - [`Registry`], [`CoreMetrics`]: where counters are registered and read. [`Histogram`], [`Distribution`]:
//!   times and sizes, and their quantiles.
//! - [`exposition`]: the text that Prometheus scrapes. [`Statistics`] and [`LossLog`]: lines for the log.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod exposition;
mod histogram;
mod losses;
pub mod names;
mod process;
mod registry;
mod statistics;

pub use histogram::{Distribution, Histogram, SampledHistogram};
pub use losses::LossLog;
pub use names::{Kind, Metric, Unit};
pub use process::ProcessFigures;
pub use registry::{CoreMetrics, Counter, Gauge, HistogramSample, Label, Registry, Sample};
pub use statistics::Statistics;
