//! Configuration of the load test.

use std::net::SocketAddr;

use aquatic_common::config::{LogLevel, XdpMode};
use aquatic_common::settings::{Configuration, Problem};
use aquatic_load_engine::settings::{
    ArrivalsConfig, Mode, PopulationConfig, VerdictConfig, check_range, check_weights,
};
use aquatic_load_engine::sources::SourceSettings;

use crate::sys::MAX_BATCH;

/// Maximum number of requests in flight per thread: a transaction id has 16 bits for the entry.
pub const MAX_IN_FLIGHT: usize = 1 << 16;

aquatic_common::settings! {
    /// Sockets and their source addresses.
    pub struct NetworkConfig {
        /// First source address; the others are consecutive. Empty for 127.0.0.1 if the tracker is on IPv4
        /// loopback, otherwise for the address that the system chooses. Trackers identify peers by source
        /// address and port.
        pub source_address: String = String::new();
        /// Number of source addresses, all of which must be local. 0 for at least 16, or as many as the
        /// population needs, if the tracker is on IPv4 loopback, otherwise for 1. One address suffices for
        /// 64512 peers.
        pub source_addresses: u32 = 0, unit "addresses", in 0..=65_536;
        /// Number of sockets per source address. A tracker with several sockets distributes clients by
        /// address and port.
        pub sockets_per_address: u32 = 1, unit "sockets", in 1..=1024;
        /// Maximum number of requests sent in one system call, from one socket.
        pub burst: usize = 32, unit "requests", in 1..=64;
        /// Let the kernel split bursts into packets if it can (UDP_SEGMENT). If a tracker on the same machine
        /// selects a socket by the content of packets, the kernel selects one for the burst as a whole:
        /// disable it to test that.
        pub segmentation_offload: bool = true;
        /// Size of the receive buffer of each socket; 0 for the default of the system.
        pub socket_recv_buffer_size: u32 = 1_000_000, unit "bytes", in 0..=1_000_000_000;
        /// Network interface whose packets bypass the network stack (AF_XDP), so that a request costs less;
        /// empty for none. Needs root. Replies that arrive as fragments count as lost.
        pub xdp_interface: String = String::new();
        /// How packets come from the interface: "auto", "zero_copy", "native" or "generic", as for the
        /// tracker.
        pub xdp_mode: XdpMode = XdpMode::Auto;
    }
}

aquatic_common::settings! {
    /// Mix of requests.
    pub struct RequestConfig {
        /// Weight of connect requests in the mix. Announce intervals exceed the lifetime of a connection id,
        /// so clients send about one connect request per announce.
        pub weight_connect: u32 = 50, in 0..=1_000_000;
        /// Weight of announces in the mix.
        pub weight_announce: u32 = 50, in 0..=1_000_000;
        /// Weight of scrapes in the mix.
        pub weight_scrape: u32 = 1, in 0..=1_000_000;
        /// Number of torrents per scrape.
        pub scrape_torrents: usize = 10, unit "torrents", in 1..=70;
        /// Number of peers requested by an announce (numwant).
        pub peers_wanted: u32 = 50, unit "peers", in 0..=1000;
        /// Time without a response after which a request counts as lost.
        pub timeout: u32 = 1000, unit "milliseconds", in 10..=60_000;
        /// Age at which a connection id is renewed.
        pub connection_age: u32 = 60, unit "seconds", in 1..=3600;
        /// Check the peers in every n-th announce response. 1 checks all, which costs throughput.
        pub check_one_in: u32 = 10, unit "responses", in 1..=1_000_000;
    }
}

aquatic_common::settings! {
    /// Closed loop.
    pub struct ClosedConfig {
        /// Number of requests in flight per thread. A receive buffer of the usual 208 KiB holds about 160
        /// packets; further packets are dropped.
        pub window: usize = 128, unit "requests", in 1..=65_536;
        /// Probability, from 0 to 1, that a response is followed by a further request immediately. Otherwise
        /// that request is delayed by up to a millisecond.
        pub further_request_probability: f64 = 1.0;
    }
}

aquatic_common::settings! {
    /// Open loop. Latency is measured from the intended send time of a request.
    pub struct OpenConfig {
        /// Total request rate of all threads.
        pub rate: u32 = 50_000, unit "requests per second", in 1..=100_000_000;
        /// Distribution of requests: "even" for equal gaps, "random" for gaps as from many independent
        /// clients.
        pub arrivals: ArrivalsConfig = ArrivalsConfig::Random;
        /// Probability, from 0 to 0.99, that a response is followed by a further request immediately, in
        /// addition to the rate.
        pub further_request_probability: f64 = 0.0;
    }
}

aquatic_common::settings! {
    /// Prefill: one announce of each peer before the load.
    pub struct PrefillConfig {
        /// Enable the prefill.
        pub enable: bool = false;
        /// Number of announces in flight per thread.
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
        if !self.network.xdp_interface.is_empty() && self.threads != 1 {
            problems
                .push(Problem::new("threads", "network.xdp_interface requires 1: replies come to any queue"));
        }
        self.verdict.check_range(problems);
        self.sources().check(problems);
        self.sources().check_threads(problems);
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
        assert_eq!(problems(|config| (config.threads, config.population.peers) = (4, 3)), ["threads"]);
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
        let two_threads = |config: &mut Config| {
            config.network.xdp_interface = "eth0".to_owned();
            config.threads = 2;
        };
        assert_eq!(problems(two_threads), ["threads"]);
        assert_eq!(
            problems(|config| config.server_address = "[::1]:6969".parse().unwrap()),
            ["population.peers"],
            "one address has too few ports"
        );
    }
}
