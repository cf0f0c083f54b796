//! Stands in for the UDP service until it is there.

use aquatic_common::config::{CleaningConfig, LogLevel, check_peer_age};
use aquatic_common::settings::{Configuration, Problem};

aquatic_common::settings! {
    /// A UDP tracker.
    pub(crate) struct UdpConfig {
        /// Number of worker threads, each pinned to a core of its own; 0 for one per available core.
        pub workers: usize = 0, unit "threads", in 0..=1024;
        /// How much to log.
        pub log_level: LogLevel = LogLevel::Info;
        /// Where to listen.
        pub network: NetworkConfig;
        /// What to answer.
        pub protocol: ProtocolConfig;
        /// How long peers are remembered, and how they are forgotten.
        pub cleaning: CleaningConfig;
    }
}

aquatic_common::settings! {
    /// Where to listen.
    pub(crate) struct NetworkConfig {
        /// Serve clients over IPv4.
        pub use_ipv4: bool = true;
        /// Serve clients over IPv6.
        pub use_ipv6: bool = true;
    }
}

aquatic_common::settings! {
    /// What to answer.
    pub(crate) struct ProtocolConfig {
        /// Most peers in a reply.
        pub max_response_peers: usize = 50, unit "peers", in 0..=202;
        /// Time clients are asked to wait between two announces.
        pub peer_announce_interval: u32 = 1800, unit "seconds", in 60..=86_400;
    }
}

impl Configuration for UdpConfig {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        check_peer_age(&self.cleaning, self.protocol.peer_announce_interval, problems);
    }

    fn log_level(&self) -> LogLevel {
        self.log_level
    }
}

pub(crate) fn run(_config: UdpConfig) -> anyhow::Result<()> {
    anyhow::bail!("the UDP service is not there yet")
}
