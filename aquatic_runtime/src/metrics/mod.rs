//! Counting. Each core has cells of its own that only it writes, with plain adds; readers (the metrics endpoint, the
//! statistics log line) sum over the cores.

pub mod names;
mod registry;

pub use names::{Kind, Metric};
pub use registry::{CoreMetrics, Counter, Gauge, Label, Registry};
