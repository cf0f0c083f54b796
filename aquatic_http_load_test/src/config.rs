//! Configuration of the load test.

use std::net::SocketAddr;

use aquatic_common::config::LogLevel;
use aquatic_common::settings::{Configuration, Problem};
use aquatic_load_engine::settings::{
    Mode, NetworkConfig, OpenConfig, PopulationConfig, TlsConfig, VerdictConfig, check_connections,
    check_weights,
};
use aquatic_load_engine::sources::SourceSettings;

/// Maximum number of requests in flight on a connection.
pub(crate) const MAX_PIPELINING: usize = 16;
/// Maximum number of torrents in a scrape. Most trackers reject request heads of more than 8 KiB.
pub(crate) const MAX_SCRAPE_TORRENTS: usize = 100;

aquatic_common::choice! {
    /// Extent of the verification of responses.
    #[derive(Default)]
    pub enum Verification {
        /// HTTP head and length only.
        Frame = "frame",
        /// Also that the body is a reply to the request.
        Reply = "reply",
        /// Also the peers in the reply.
        #[default]
        Peers = "peers",
    }
}

aquatic_common::settings! {
    /// Connections to the tracker.
    pub struct ConnectionConfig {
        /// Total number of concurrent connections of all threads. The limit of open files must be higher.
        pub count: u32 = 128, unit "connections", in 1..=1_000_000;
        /// Number of requests per connection, the last with `Connection: close`; 0 for no limit (keep-alive),
        /// 1 for a connection per request.
        pub requests: u32 = 0, unit "requests", in 0..=1_000_000_000;
        /// Maximum number of requests in flight on a connection (pipelining).
        pub pipelining: usize = 1, unit "requests", in 1..=16;
        /// Total rate at which all threads open their first connections; 0 for no limit.
        pub ramp: u32 = 0, unit "connections per second", in 0..=10_000_000;
        /// Maximum number of connections per thread that wait for their first response at the start. The
        /// accept queue of a tracker is limited; connections beyond it are delayed by seconds.
        pub opening: u32 = 256, unit "connections", in 1..=1_000_000;
    }
}

aquatic_common::settings! {
    /// Mix of requests.
    pub struct RequestConfig {
        /// Weight of announces in the mix.
        pub weight_announce: u32 = 100, in 0..=1_000_000;
        /// Weight of scrapes in the mix.
        pub weight_scrape: u32 = 1, in 0..=1_000_000;
        /// Number of torrents per scrape.
        pub scrape_torrents: usize = 10, unit "torrents", in 1..=100;
        /// Number of peers requested by an announce (numwant).
        pub peers_wanted: u32 = 50, unit "peers", in 0..=1000;
        /// Time without a response after which a request counts as lost and its connection is closed.
        pub timeout: u32 = 5000, unit "milliseconds", in 10..=600_000;
        /// Extent of the verification: "peers" for everything, "reply" without the origin of peers, "frame"
        /// without the body, for measuring web servers.
        pub verification: Verification = Verification::Peers;
        /// Check the peers in every n-th announce response. 1 checks all, which costs throughput.
        pub check_one_in: u32 = 10, unit "responses", in 1..=1_000_000;
    }
}

aquatic_common::settings! {
    /// Prefill: one announce of each peer before the load.
    pub struct PrefillConfig {
        /// Enable the prefill.
        pub enable: bool = false;
        /// Maximum number of attempts per announce. After that the peer counts as lost.
        pub attempts: u8 = 3, unit "attempts", in 1..=255;
    }
}

aquatic_common::settings! {
    /// Idle connections instead of load, to measure their memory in the tracker.
    pub struct IdleConfig {
        /// Number of connections, each for one announce; 0 for load instead. The limit of open files must be
        /// higher.
        pub connections: u32 = 0, unit "connections", in 0..=1_000_000;
        /// Time for which they are held after all are open. Its start is logged.
        pub hold: u32 = 10, unit "seconds", in 0..=86_400;
    }
}

aquatic_common::settings! {
    /// Load test for HTTP trackers.
    pub struct Config {
        /// Address of the tracker.
        pub server_address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 3000));
        /// Log level.
        pub log_level: LogLevel = LogLevel::Info;
        /// Number of threads, each with its own connections.
        pub threads: u32 = 1, unit "threads", in 1..=1024;
        /// Time under load before the measurement.
        pub warm_up: u32 = 2, unit "seconds", in 0..=3600;
        /// Duration of the measurement; 0 for none, which is allowed with a prefill only.
        pub duration: u32 = 10, unit "seconds", in 0..=86_400;
        /// Load model: "closed" sends as fast as the tracker responds, "open" at a given rate.
        pub mode: Mode = Mode::Closed;
        pub open: OpenConfig<10_000>;
        pub network: NetworkConfig;
        pub connections: ConnectionConfig;
        pub tls: TlsConfig;
        pub population: PopulationConfig;
        pub requests: RequestConfig;
        pub verdict: VerdictConfig;
        pub prefill: PrefillConfig;
        pub idle: IdleConfig;
    }
}

impl Configuration for Config {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        self.population.check_range(problems);
        self.verdict.check_range(problems);
        self.sources().check(problems);
        self.sources().check_threads(problems);
        check_weights(problems, &[self.requests.weight_announce, self.requests.weight_scrape]);
        if self.duration == 0 && !self.prefill.enable && self.idle.connections == 0 {
            problems.push(Problem::new(
                "duration",
                "0 requires prefill.enable or idle.connections: there is nothing to do",
            ));
        }
        check_connections(problems, self.threads, self.connection_count());
        self.tls.check_trust(problems);
    }

    fn log_level(&self) -> LogLevel {
        self.log_level
    }
}

impl Config {
    /// Settings of the source addresses.
    #[must_use]
    pub fn sources(&self) -> SourceSettings<'_> {
        SourceSettings {
            server: self.server_address,
            address: &self.network.source_address,
            addresses: self.network.source_addresses,
            peers: self.population.peers,
            threads: self.threads,
        }
    }

    /// Number of concurrent connections.
    #[must_use]
    pub fn connection_count(&self) -> u32 {
        match self.idle.connections {
            0 => self.connections.count,
            idle => idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.problems().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn declarations_are_complete() {
        assert_eq!(aquatic_cli_helpers::declarations::faults::<Config>(), Vec::<String>::new());
    }

    #[test]
    fn invalid_combinations_are_reported() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(problems(|config| config.duration = 0), ["duration"]);
        assert_eq!(problems(|config| config.threads = 129), ["threads"]);
        assert_eq!(problems(|config| (config.threads, config.population.peers) = (4, 3)), ["threads"]);
        assert_eq!(problems(|config| config.population.zipf_exponent = 4.0), ["population.zipf_exponent"]);
        assert_eq!(
            problems(|config| {
                config.tls.enable = true;
                config.tls.verify_certificate = true;
            }),
            ["tls.ca_path"]
        );
        assert_eq!(
            problems(|config| (config.requests.weight_announce, config.requests.weight_scrape) = (0, 0)),
            ["requests.weight_announce"]
        );
        assert_eq!(
            problems(|config| config.server_address = "[::1]:3000".parse().unwrap()),
            ["population.peers"],
            "one address has too few ports"
        );
    }
}
