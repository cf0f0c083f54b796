//! Configuration of the load test.

use std::net::SocketAddr;

use aquatic_common::config::LogLevel;
use aquatic_common::settings::{Configuration, Problem};
use aquatic_load_engine::population::PopulationShape;
use aquatic_load_engine::settings::{
    Mode, NetworkConfig, OpenConfig, TlsConfig, VerdictConfig, check_connections, check_range, check_weights,
};
use aquatic_load_engine::sources::SourceSettings;

/// Most connections: their numbers have six hexadecimal digits in peer ids.
pub(crate) const MAX_CONNECTIONS: u32 = 1_000_000;
/// Most torrents of a connection.
pub(crate) const MAX_TORRENTS: u8 = 100;
/// Most offers in an announce.
pub(crate) const MAX_OFFERS: u8 = 25;

aquatic_common::choice! {
    /// How clients leave.
    #[derive(Default)]
    pub enum Leave {
        /// They announce it, and close the connection when that is answered.
        Stopped = "stopped",
        /// They close the connection as WebSocket asks for.
        Close = "close",
        /// They are gone without a word.
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
        /// Its own, with buffers that all connections of a thread share.
        #[default]
        Fast = "fast",
        /// `async-tungstenite`.
        Library = "library",
    }
}

aquatic_common::settings! {
    /// The simulated torrents and peers. Each connection is a peer, in one torrent or several.
    pub struct PopulationConfig {
        /// Everything random follows from it.
        pub seed: u64 = 1, in 0..=9_223_372_036_854_775_807;
        /// Number of torrents.
        pub torrents: u64 = 100, unit "torrents", in 1..=100_000_000;
        /// Share of peers that are seeders, from 0 to 1. A tracker may choose not to introduce seeders to each other:
        /// then some offers will show as lost.
        pub seeder_share: f64 = 0.0;
        /// Popularity: the torrent of rank r weighs r to the power of minus this. From 0 (all alike) to 3.
        pub zipf_exponent: f64 = 0.5;
    }
}

aquatic_common::settings! {
    /// Connections to the tracker.
    pub struct ConnectionConfig {
        /// How many there are at a time, all threads together. The limit of open files must allow for it.
        pub count: u32 = 1000, unit "connections", in 1..=1_000_000;
        /// Torrents that each of them announces to.
        pub torrents: u8 = 1, unit "torrents", in 1..=100;
        /// First connections per second, all threads together; 0 for as fast as the tracker takes them.
        pub ramp: u32 = 0, unit "connections per second", in 0..=10_000_000;
        /// At the start, so many connections per thread wait for the reply to their first announce at a time. A
        /// tracker's queue of connections to accept is limited; what does not fit is delayed by seconds.
        pub opening: u32 = 128, unit "connections", in 1..=1_000_000;
        /// WebSocket implementation. "library" (async-tungstenite) judges the tracker independently of this project's
        /// code; "fast" sends a quarter more messages with the same processor time.
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
        /// Offers in an announce.
        pub offers: u8 = 5, unit "offers", in 0..=25;
        /// Probability, from 0 to 1, that a peer answers an offer that was relayed to it.
        pub answer_probability: f64 = 1.0;
        /// Length of the session descriptions in offers and answers. Those of browsers have 1 to 4 KB.
        pub sdp_length: usize = 2000, unit "bytes", in 600..=16_000;
        /// An announce or scrape without a reply for this long is lost, and its connection is closed.
        pub timeout: u32 = 5000, unit "milliseconds", in 10..=600_000;
    }
}

aquatic_common::settings! {
    /// Closed loop.
    pub struct ClosedConfig {
        /// Announces and scrapes that wait for their replies at a time, per thread, each on a connection of its own.
        /// Relays are not counted in.
        pub window: usize = 128, unit "requests", in 1..=1_000_000;
    }
}

aquatic_common::settings! {
    /// Holding idle connections instead of load, to see what they cost the tracker.
    pub struct IdleConfig {
        /// Do it: make the connections, announce once on each, and then only answer what comes.
        pub enable: bool = false;
        /// How long to hold them once all are open. The log says when that begins.
        pub hold: u32 = 10, unit "seconds", in 0..=86_400;
    }
}

aquatic_common::settings! {
    /// Clients that come and go instead of load: connect, announce, leave.
    pub struct ChurnConfig {
        /// How many there are, one after the other in the places of connections.count; 0 for load as usual.
        pub connections: u64 = 0, unit "connections", in 0..=1_000_000_000_000;
        /// How many come per second, all threads together; 0 for as fast as the tracker takes them.
        pub rate: u32 = 0, unit "connections per second", in 0..=10_000_000;
        /// How long they stay after the reply to their announce.
        pub stay: u32 = 0, unit "milliseconds", in 0..=3_600_000;
        /// "stopped" announces it first, "close" says goodbye in WebSocket only, "abrupt" does neither; "mixed" has
        /// some of each.
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
        /// Open loop. The rate is that of announces and scrapes; answers come on top. Latency counts from when a request
        /// should have been sent, that of its offers as well.
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

    /// The population: one peer for each torrent of each connection.
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
            problems(|config| (config.idle.enable, config.churn.connections) = (true, 1)),
            ["idle.enable"]
        );
        for path in ["", "announce", "/a b", "/a\r\nHost: b"] {
            assert_eq!(problems(|config| config.connections.path = path.to_owned()), ["connections.path"]);
        }
    }
}
