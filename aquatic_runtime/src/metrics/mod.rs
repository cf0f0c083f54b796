//! Counting. Each core has cells of its own that only it writes, with plain adds; readers (the metrics endpoint, the
//! statistics log line) sum over the cores.

mod exposition;
mod losses;
pub mod names;
mod process;
mod registry;
pub(crate) mod server;
mod statistics;

pub use names::{Kind, Metric, Unit};
pub use registry::{CoreMetrics, Counter, Gauge, Label, Registry, Sample};

pub(crate) use losses::LossWatch;
pub(crate) use process::ProcessFigures;
pub(crate) use statistics::Statistics;
