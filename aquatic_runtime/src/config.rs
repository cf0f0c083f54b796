//! What the engine needs to know.

use aquatic_common::config::{
    AccessListConfig, CleaningConfig, LimitsConfig, MetricsConfig, PrivilegesConfig, StatisticsConfig,
};

/// The blocks of settings that the engine reads. A service's configuration contains them and hands them over.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How many cores to use; 0 for all that are available.
    pub workers: usize,
    /// What to give up after binding.
    pub privileges: PrivilegesConfig,
    /// Which torrents are served.
    pub access_list: AccessListConfig,
    /// The metrics endpoint.
    pub metrics: MetricsConfig,
    /// Statistics in the log.
    pub statistics: StatisticsConfig,
    /// How long peers are remembered.
    pub cleaning: CleaningConfig,
    /// How much is remembered.
    pub limits: LimitsConfig,
}
