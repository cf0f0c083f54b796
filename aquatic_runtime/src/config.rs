//! Configuration of the engine.

use aquatic_common::config::{PrivilegesConfig, StatisticsConfig};
use aquatic_common::processors::Processors;

/// The sections and keys that the engine reads.
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    /// Number of cores to use; 0 for one per available processor.
    pub workers: usize,
    /// Processors to pin the cores to, in core order.
    pub cpus: Processors,
    /// Section `[privileges]`.
    pub privileges: PrivilegesConfig,
    /// Section `[statistics]`.
    pub statistics: StatisticsConfig,
}
