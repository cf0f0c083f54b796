//! Configuration of the load test.

use std::net::SocketAddr;

use aquatic_common::config::LogLevel;
use aquatic_common::settings::{Configuration, Problem};
use aquatic_load_engine::settings::{
    ArrivalsConfig, Mode, PopulationConfig, VerdictConfig, check_range, check_weights,
};
use aquatic_load_engine::sources::SourceSettings;

use crate::sys::MAX_BATCH;

/// Most requests under way per thread: the transaction id has 16 bits to tell them apart.
pub const MAX_IN_FLIGHT: usize = 1 << 16;

aquatic_common::settings! {
    /// Sockets, and the addresses that they send from.
    pub struct NetworkConfig {
        /// First source address; the others follow it. Empty for 127.0.0.1 if the tracker is on IPv4 loopback, else
        /// for the address the system chooses. Trackers tell peers apart by source address and announced port.
        pub source_address: String = String::new();
        /// Number of source addresses, all of which must be local. 0 for 16, or as many as the population needs, if the
        /// tracker is on IPv4 loopback, else for 1. One address has room for 64512 peers.
        pub source_addresses: u32 = 0, unit "addresses", in 0..=65_536;
        /// Sockets per source address. A tracker with several sockets of its own spreads clients by address and port.
        pub sockets_per_address: u32 = 1, unit "sockets", in 1..=1024;
        /// Requests handed to the kernel together, all from one socket.
        pub burst: usize = 32, unit "requests", in 1..=64;
        /// Let the kernel cut bursts into packets, where it can (UDP_SEGMENT). A tracker on the same machine that
        /// chooses a socket by the content of a packet sees each burst as a whole: switch it off to test that.
        pub segmentation_offload: bool = true;
        /// Size of each socket's receive buffer; 0 for the system's default.
        pub socket_recv_buffer_size: u32 = 1_000_000, unit "bytes", in 0..=1_000_000_000;
    }
}

aquatic_common::settings! {
    /// Mix of requests.
    pub struct RequestConfig {
        /// Weight of connect requests. Clients announce less often than connection ids expire, so there is about one
        /// for each announce.
        pub weight_connect: u32 = 50, in 0..=1_000_000;
        /// Weight of announces in the mix.
        pub weight_announce: u32 = 50, in 0..=1_000_000;
        /// Weight of scrapes in the mix.
        pub weight_scrape: u32 = 1, in 0..=1_000_000;
        /// Number of torrents per scrape.
        pub scrape_torrents: usize = 10, unit "torrents", in 1..=70;
        /// Number of peers requested by an announce (numwant).
        pub peers_wanted: u32 = 50, unit "peers", in 0..=1000;
        /// A request without a response for this long is lost.
        pub timeout: u32 = 1000, unit "milliseconds", in 10..=60_000;
        /// A connection id is renewed after this long.
        pub connection_age: u32 = 60, unit "seconds", in 1..=3600;
        /// Check the peers in every n-th announce response. 1 checks all, which costs throughput.
        pub check_one_in: u32 = 10, unit "responses", in 1..=1_000_000;
    }
}

aquatic_common::settings! {
    /// Closed loop.
    pub struct ClosedConfig {
        /// Requests under way, per thread. A receive buffer of the usual 208 KiB holds some 160 packets; what does not
        /// fit is lost.
        pub window: usize = 128, unit "requests", in 1..=65_536;
        /// Probability, from 0 to 1, that a response is followed by a further request at once. Otherwise the place in
        /// the window stays empty for up to a millisecond.
        pub further_request_probability: f64 = 1.0;
    }
}

aquatic_common::settings! {
    /// Open loop. Latency counts from when a request should have been sent.
    pub struct OpenConfig {
        /// Requests per second, all threads together.
        pub rate: u32 = 50_000, unit "requests per second", in 1..=100_000_000;
        /// "even" sends at equal distances, "random" as many independent clients do.
        pub arrivals: ArrivalsConfig = ArrivalsConfig::Random;
        /// Probability, from 0 to below 1, that a response is followed by a further request at once, on top of the rate.
        pub further_request_probability: f64 = 0.0;
    }
}

aquatic_common::settings! {
    /// Prefill: one announce of each peer before the load.
    pub struct PrefillConfig {
        /// Enable the prefill.
        pub enable: bool = false;
        /// Announces under way, per thread.
        pub window: usize = 128, unit "requests", in 1..=65_536;
        /// Maximum number of attempts per announce. After that the peer counts as lost.
        pub attempts: u8 = 20, unit "attempts", in 1..=255;
    }
}

aquatic_common::settings! {
    /// Load test for UDP trackers.
    pub struct Config {
        /// Address of the tracker.
        pub server_address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 6969));
        /// Log level.
        pub log_level: LogLevel = LogLevel::Info;
        /// Number of threads, each with its own sockets.
        pub threads: u32 = 1, unit "threads", in 1..=1024;
        /// Time under load before the measurement.
        pub warm_up: u32 = 2, unit "seconds", in 0..=3600;
        /// Duration of the measurement; 0 for none, which is allowed with a prefill only.
        pub duration: u32 = 10, unit "seconds", in 0..=86_400;
        /// Load model: "closed" sends as fast as the tracker responds, "open" at a given rate.
        pub mode: Mode = Mode::Closed;
        pub closed: ClosedConfig;
        pub open: OpenConfig;
        pub network: NetworkConfig;
        pub population: PopulationConfig;
        pub requests: RequestConfig;
        pub verdict: VerdictConfig;
        pub prefill: PrefillConfig;
    }
}

impl Configuration for Config {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        self.population.check_range(problems);
        check_range(
            problems,
            "closed.further_request_probability",
            self.closed.further_request_probability,
            1.0,
        );
        check_range(
            problems,
            "open.further_request_probability",
            self.open.further_request_probability,
            0.99,
        );
        let RequestConfig { weight_connect, weight_announce, weight_scrape, .. } = self.requests;
        check_weights(problems, &[weight_connect, weight_announce, weight_scrape]);
        if self.duration == 0 && !self.prefill.enable {
            problems.push(Problem::new("duration", "0 requires prefill.enable: there is nothing to do"));
        }
        self.verdict.check_range(problems);
        self.sources().check(problems);
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
}

const _: () = assert!(MAX_BATCH == 64, "the bounds of network.burst");

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
    fn defaults_are_valid_and_use_loopback_addresses() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(Config::default().sources().count(), 16);
        assert_eq!(problems(|config| config.population.peers = 25_000_000), Vec::<String>::new());
    }

    #[test]
    fn invalid_combinations_are_reported() {
        assert_eq!(
            problems(|config| config.network.source_address = "::1".to_owned()),
            ["network.source_address"]
        );
        assert_eq!(
            problems(|config| config.network.source_address = "x".to_owned()),
            ["network.source_address"]
        );
        assert_eq!(problems(|config| config.network.source_addresses = 3), ["population.peers",]);
        assert_eq!(problems(|config| config.population.seeder_share = f64::NAN), ["population.seeder_share"]);
        assert_eq!(problems(|config| config.duration = 0), ["duration"]);
        assert_eq!(
            problems(|config| config.server_address = "[::1]:6969".parse().unwrap()),
            ["population.peers"],
            "one address has too few ports"
        );
    }
}
