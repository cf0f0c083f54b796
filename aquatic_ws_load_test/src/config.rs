//! Configuration of the load test.

use std::net::SocketAddr;

use aquatic_common::config::LogLevel;
use aquatic_common::settings::{Configuration, Problem};
use aquatic_load_engine::population::PopulationShape;
use aquatic_load_engine::settings::{
    Mode, NetworkConfig, OpenConfig, TlsConfig, VerdictConfig, check_connections, check_range, check_weights,
};
use aquatic_load_engine::sources::SourceSettings;

/// Maximum number of connections, which have six hexadecimal digits in peer ids.
pub(crate) const MAX_CONNECTIONS: u32 = 1_000_000;
/// Maximum number of torrents per connection.
pub(crate) const MAX_TORRENTS: u8 = 100;
/// Maximum number of offers per announce.
pub(crate) const MAX_OFFERS: u8 = 25;

aquatic_common::choice! {
    /// Way in which clients leave.
    #[derive(Default)]
    pub enum Leave {
        /// Announce with event `stopped`, then a WebSocket close frame.
        Stopped = "stopped",
        /// WebSocket close frame.
        Close = "close",
        /// TCP connection closed without notice.
        Abrupt = "abrupt",
        /// Each of these in turn.
        #[default]
        Mixed = "mixed",
    }
}

aquatic_common::choice! {
    /// WebSocket implementation of the load test.
    #[derive(Default)]
    pub enum WebSocketClient {
        /// Implementation of the load test, with shared buffers.
        #[default]
        Fast = "fast",
        /// `async-tungstenite`.
        Library = "library",
    }
}

aquatic_common::settings! {
    /// Simulated torrents and peers. Each connection is a peer, in one or several torrents.
    pub struct PopulationConfig {
        /// Seed of the pseudo-random population.
        pub seed: u64 = 1, in 0..=9_223_372_036_854_775_807;
        /// Number of torrents.
        pub torrents: u64 = 100, unit "torrents", in 1..=100_000_000;
        /// Share of peers that are seeders, from 0 to 1. Trackers may not relay offers between seeders: some
        /// offers count as lost then.
        pub seeder_share: f64 = 0.0;
        /// Exponent s of the popularity, from 0 (uniform) to 3: the torrent of rank r has the weight r^-s.
        pub zipf_exponent: f64 = 0.5;
    }
}

aquatic_common::settings! {
    /// Connections to the tracker.
    pub struct ConnectionConfig {
        /// Total number of concurrent connections of all threads. The limit of open files must be higher.
        pub count: u32 = 1000, unit "connections", in 1..=1_000_000;
        /// Number of torrents per connection, all different: not more than population.torrents.
        pub torrents: u8 = 1, unit "torrents", in 1..=100;
        /// Total rate at which all threads open their first connections; 0 for no limit.
        pub ramp: u32 = 0, unit "connections per second", in 0..=10_000_000;
        /// Maximum number of connections per thread that wait for the reply to their first announce at the
        /// start. The accept queue of a tracker is limited; connections beyond it are delayed by seconds.
        pub opening: u32 = 128, unit "connections", in 1..=1_000_000;
        /// WebSocket implementation: "fast" for load; "library" (async-tungstenite) to verify the tracker
        /// independently of this project, at four fifths of the throughput.
        pub websocket: WebSocketClient = WebSocketClient::Fast;
        /// Path of the tracker's URL.
        pub path: String = "/announce".to_owned();
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
        pub scrape_torrents: usize = 5, unit "torrents", in 1..=50;
        /// Number of offers per announce.
        pub offers: u8 = 5, unit "offers", in 0..=25;
        /// Probability, from 0 to 1, that a peer answers a relayed offer.
        pub answer_probability: f64 = 1.0;
        /// Length of the session descriptions in offers and answers. Browsers send 1 to 4 KB.
        pub sdp_length: usize = 2000, unit "bytes", in 600..=16_000;
        /// Time without a reply after which an announce or scrape counts as lost and its connection is
        /// closed.
        pub timeout: u32 = 5000, unit "milliseconds", in 10..=600_000;
    }
}

aquatic_common::settings! {
    /// Closed loop.
    pub struct ClosedConfig {
        /// Number of announces and scrapes in flight per thread, each on its own connection. Relays are not
        /// limited.
        pub window: usize = 128, unit "requests", in 1..=1_000_000;
    }
}

aquatic_common::settings! {
    /// Idle connections instead of load, to measure their memory in the tracker.
    pub struct IdleConfig {
        /// Enable idle connections: open them, announce once on each, then only answer offers and pings.
        pub enable: bool = false;
        /// Time for which they are held after all are open. Its start is logged.
        pub hold: u32 = 10, unit "seconds", in 0..=86_400;
    }
}

aquatic_common::settings! {
    /// Churn instead of load: clients connect, announce and leave.
    pub struct ChurnConfig {
        /// Total number of clients, connections.count at a time; 0 for load instead.
        pub connections: u64 = 0, unit "connections", in 0..=1_000_000_000_000;
        /// Total rate at which all threads start clients; 0 for no limit.
        pub rate: u32 = 0, unit "connections per second", in 0..=10_000_000;
        /// Time for which clients stay after the reply to their announce.
        pub stay: u32 = 0, unit "milliseconds", in 0..=3_600_000;
        /// Way in which clients leave: "stopped" for an announce and a close frame, "close" for a close
        /// frame, "abrupt" for neither, "mixed" for each in turn.
        pub leave: Leave = Leave::Mixed;
    }
}

aquatic_common::settings! {
    /// Load test for WebTorrent trackers.
    pub struct Config {
        /// Address of the tracker.
        pub server_address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 3000));
        /// Log level.
        pub log_level: LogLevel = LogLevel::Info;
        /// Number of threads, each with its own connections.
        pub threads: u32 = 1, unit "threads", in 1..=1024;
        /// Time under load before the measurement.
        pub warm_up: u32 = 2, unit "seconds", in 0..=3600;
        /// Duration of the measurement.
        pub duration: u32 = 10, unit "seconds", in 1..=86_400;
        /// Load model: "closed" sends as fast as the tracker responds, "open" at a given rate.
        pub mode: Mode = Mode::Closed;
        pub closed: ClosedConfig;
        /// Open loop. The rate is that of announces and scrapes, without answers. Latency is measured from
        /// the intended send time of a request, also for its offers.
        pub open: OpenConfig<1000>;
        pub network: NetworkConfig;
        pub connections: ConnectionConfig;
        pub tls: TlsConfig;
        pub population: PopulationConfig;
        pub requests: RequestConfig;
        pub verdict: VerdictConfig;
        pub idle: IdleConfig;
        pub churn: ChurnConfig;
    }
}

impl Configuration for Config {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        check_range(problems, "population.seeder_share", self.population.seeder_share, 1.0);
        check_range(problems, "population.zipf_exponent", self.population.zipf_exponent, 3.0);
        check_range(problems, "requests.answer_probability", self.requests.answer_probability, 1.0);
        self.verdict.check_range(problems);
        self.sources().check(problems);
        check_connections(problems, self.threads, self.connections.count);
        self.tls.check_trust(problems);
        check_weights(problems, &[self.requests.weight_announce, self.requests.weight_scrape]);
        if u64::from(self.connections.torrents) > self.population.torrents {
            problems.push(Problem::new("connections.torrents", "must not be more than population.torrents"));
        }
        if self.idle.enable && self.churn.connections > 0 {
            problems.push(Problem::new("idle.enable", "not together with churn.connections"));
        }
        let path = &self.connections.path;
        if !path.starts_with('/') || path.contains(|character: char| !character.is_ascii_graphic()) {
            problems.push(Problem::new("connections.path", format!("{path:?} is not the path of a URL")));
        }
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
            peers: self.connections.count.into(),
            threads: 1,
        }
    }

    /// Parameters of the population: one peer for each torrent of each connection.
    #[must_use]
    pub fn shape(&self) -> PopulationShape {
        let PopulationConfig { seed, torrents, seeder_share, zipf_exponent } = self.population;
        let peers = u64::from(self.connections.count) * u64::from(self.connections.torrents);
        PopulationShape { seed, torrents, peers, seeder_share, zipf_exponent }
    }
}

const _: () = assert!(
    MAX_CONNECTIONS == 1_000_000 && MAX_TORRENTS == 100 && MAX_OFFERS == 25,
    "the bounds of the settings"
);

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
        assert_eq!(problems(|config| config.threads = 1001), ["threads"]);
        assert_eq!(
            problems(|config| config.requests.answer_probability = 1.5),
            ["requests.answer_probability"]
        );
        assert_eq!(
            problems(|config| (config.requests.weight_announce, config.requests.weight_scrape) = (0, 0)),
            ["requests.weight_announce"]
        );
        assert_eq!(
            problems(|config| (config.connections.torrents, config.population.torrents) = (3, 2)),
            ["connections.torrents"]
        );
        assert_eq!(
            problems(|config| (config.idle.enable, config.churn.connections) = (true, 1)),
            ["idle.enable"]
        );
        for path in ["", "announce", "/a b", "/a\r\nHost: b"] {
            assert_eq!(problems(|config| config.connections.path = path.to_owned()), ["connections.path"]);
        }
    }
}
