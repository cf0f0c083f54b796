//! Configuration of the engine.

use std::path::PathBuf;

use aquatic_common::config::{PrivilegesConfig, StatisticsConfig, UpgradeConfig};
use aquatic_common::processors::Processors;

/// The sections and keys that the engine reads.
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    /// Number of cores to use; 0 for one per available processor.
    pub workers: usize,
    /// Processors to pin the cores to, in core order.
    pub cpus: Processors,
    /// Directory in which state is kept for the next process; empty for none.
    pub state_directory: PathBuf,
    /// Section `[privileges]`.
    pub privileges: PrivilegesConfig,
    /// Section `[upgrade]`.
    pub upgrade: UpgradeConfig,
    /// Section `[statistics]`.
    pub statistics: StatisticsConfig,
}
