//! What holds for any text that is read as a configuration. For the tests and the fuzz target `config`.

use aquatic_cli_helpers::{load_text, print};
use aquatic_common::config::{
    AccessListConfig, CleaningConfig, ConnectionsConfig, LimitsConfig, LogLevel, MetricsConfig,
    NetworkConfig, PrivilegesConfig, ProtocolConfig, ProxiesConfig, RateLimitsConfig, UpgradeConfig,
};
use aquatic_common::processors::Processors;
use aquatic_common::settings::{Configuration, Problem, Whole};

aquatic_common::settings! {
    /// Sections of the tracker.
    pub(crate) struct Config {
        /// Number of workers.
        pub workers: usize = 0, unit "threads", in 0..=1024;
        /// Processors of the workers.
        pub cpus: Processors = Processors::default();
        /// Level of the log.
        pub log_level: LogLevel = LogLevel::Info;
        /// A share.
        pub share: f64 = 0.5;
        pub network: NetworkConfig;
        pub connections: ConnectionsConfig;
        pub proxies: ProxiesConfig;
        pub protocol: ProtocolConfig;
        pub cleaning: CleaningConfig;
        pub limits: LimitsConfig;
        pub rate_limits: RateLimitsConfig;
        pub access_list: AccessListConfig;
        pub privileges: PrivilegesConfig;
        pub metrics: MetricsConfig;
        pub upgrade: UpgradeConfig;
    }
}

impl Configuration for Config {
    fn check_relations(&self, _problems: &mut Vec<Problem>) {}
}

/// Checks that a text is a configuration that is the same when it is printed and read again, or that each of
/// its problems is told in a line of its own.
pub(crate) fn check_text(text: &str) {
    match load_text::<Config>(text, &Whole) {
        Ok(config) => {
            let printed = print::parsed_config(&config, &Whole).expect("it can be printed");
            let again =
                load_text::<Config>(&printed, &Whole).unwrap_or_else(|error| panic!("{error}\n{printed}"));
            assert_eq!(print::parsed_config(&again, &Whole).expect("it can be printed"), printed);
        }
        Err(error) => {
            let problems = error.problems();
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.is_empty() && !problem.contains('\n'), "{problem:?}");
            }
        }
    }
}
