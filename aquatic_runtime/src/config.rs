//! What the engine needs to know.

use aquatic_common::config::{PrivilegesConfig, StatisticsConfig};

/// The settings that the engine reads.
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    /// Number of cores to use; 0 for all that are available.
    pub workers: usize,
    /// What to give up after binding.
    pub privileges: PrivilegesConfig,
    /// Statistics in the log.
    pub statistics: StatisticsConfig,
}
