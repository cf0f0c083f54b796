//! What can be set.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aquatic_common::config::LogLevel;
use aquatic_common::settings::{Configuration, Problem};
use aquatic_load_engine::endpoints::{Endpoints, PORTS_PER_ADDRESS};
use aquatic_load_engine::population::PopulationShape;

use crate::sys::MAX_BATCH;

/// Most requests under way per thread: the transaction id has 16 bits to tell them apart.
pub const MAX_IN_FLIGHT: usize = 1 << 16;

/// Source addresses used on loopback unless told otherwise, if the population does not need more.
const USUAL_SOURCE_ADDRESSES: u64 = 16;

aquatic_common::choice! {
    /// What sets the pace.
    #[derive(Default)]
    pub enum Mode {
        /// The tracker: a bounded number of requests is under way at any time.
        #[default]
        Closed = "closed",
        /// The clock: requests are sent at a given rate whatever the tracker does.
        Open = "open",
    }
}

aquatic_common::choice! {
    /// How requests follow each other at a given rate.
    #[derive(Default)]
    pub enum ArrivalsConfig {
        /// At equal distances.
        Even = "even",
        /// Independently of each other, as from many clients.
        #[default]
        Random = "random",
    }
}

aquatic_common::settings! {
    /// Sockets of the load test.
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
    /// The simulated torrents and peers. Each peer is in one torrent.
    pub struct PopulationConfig {
        /// Everything random follows from it. Two load tests with the same population can drive one tracker; for
        /// another population, start the tracker afresh.
        pub seed: u64 = 1;
        /// Number of torrents.
        pub torrents: u64 = 100_000, unit "torrents", in 1..=4_000_000_000;
        /// Number of peers. Torrents without a peer exist only if there are fewer peers than torrents.
        pub peers: u64 = 250_000, unit "peers", in 1..=4_000_000_000;
        /// Share of peers that are seeders, from 0 to 1.
        pub seeder_share: f64 = 0.6;
        /// Popularity: the torrent of rank r weighs r to the power of minus this. From 0 (all alike) to 3.
        pub zipf_exponent: f64 = 0.9;
    }
}

aquatic_common::settings! {
    /// What is asked, in which proportion.
    pub struct RequestConfig {
        /// Weight of connect requests. Clients announce less often than connection ids expire, so there is about one
        /// for each announce.
        pub weight_connect: u32 = 50, in 0..=1_000_000;
        /// Weight of announces.
        pub weight_announce: u32 = 50, in 0..=1_000_000;
        /// Weight of scrapes.
        pub weight_scrape: u32 = 1, in 0..=1_000_000;
        /// Torrents per scrape.
        pub scrape_torrents: usize = 10, unit "torrents", in 1..=70;
        /// Peers asked for in an announce.
        pub peers_wanted: u32 = 50, unit "peers", in 0..=1000;
        /// A request without a response for this long is lost.
        pub timeout: u32 = 1000, unit "milliseconds", in 10..=60_000;
        /// A connection id is renewed after this long.
        pub connection_age: u32 = 60, unit "seconds", in 1..=3600;
        /// The peers in one of so many announce responses are checked; 1 checks all, at some cost in speed.
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
    /// Announcing each peer of the population once before anything else.
    pub struct PrefillConfig {
        /// Do it.
        pub enable: bool = false;
        /// Announces under way, per thread.
        pub window: usize = 128, unit "requests", in 1..=65_536;
        /// An announce without a response is repeated until it was sent this often; then the peer counts as lost.
        pub attempts: u8 = 20, unit "attempts", in 1..=255;
    }
}

aquatic_common::settings! {
    /// Load test for UDP trackers.
    pub struct Config {
        /// The tracker.
        pub server_address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 6969));
        /// How much to log.
        pub log_level: LogLevel = LogLevel::Info;
        /// Threads that send and receive, each on sockets of its own.
        pub threads: u32 = 1, unit "threads", in 1..=1024;
        /// Time before the measurement, under load.
        pub warm_up: u32 = 2, unit "seconds", in 0..=3600;
        /// Time of the measurement; 0 for none, which makes sense after a prefill only.
        pub duration: u32 = 10, unit "seconds", in 0..=86_400;
        /// "closed" sends as fast as the tracker answers, "open" at a given rate.
        pub mode: Mode = Mode::Closed;
        /// Closed loop.
        pub closed: ClosedConfig;
        /// Open loop.
        pub open: OpenConfig;
        /// Sockets.
        pub network: NetworkConfig;
        /// Torrents and peers.
        pub population: PopulationConfig;
        /// Requests.
        pub requests: RequestConfig;
        /// Prefill.
        pub prefill: PrefillConfig;
    }
}

impl Configuration for Config {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        let population = &self.population;
        check_range(problems, "population.seeder_share", population.seeder_share, 1.0);
        check_range(problems, "population.zipf_exponent", population.zipf_exponent, 3.0);
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
        let requests = &self.requests;
        if requests.weight_connect + requests.weight_announce + requests.weight_scrape == 0 {
            problems.push(Problem::new(
                "requests.weight_announce",
                "all three weights are 0: nothing would be sent",
            ));
        }
        if self.duration == 0 && !self.prefill.enable {
            problems.push(Problem::new("duration", "0 without prefill.enable: nothing would be done"));
        }
        self.check_sources(problems);
    }

    fn log_level(&self) -> LogLevel {
        self.log_level
    }
}

fn check_range(problems: &mut Vec<Problem>, key: &str, value: f64, most: f64) {
    if !(0.0..=most).contains(&value) {
        problems.push(Problem::new(key, format!("{value} is out of bounds, choose from 0 to {most}")));
    }
}

impl Config {
    fn check_sources(&self, problems: &mut Vec<Problem>) {
        let given = &self.network.source_address;
        match given.parse::<IpAddr>() {
            Ok(ip) if ip.is_ipv4() != self.server_address.is_ipv4() => problems.push(Problem::new(
                "network.source_address",
                format!("{ip} is of another address family than the tracker's {}", self.server_address.ip()),
            )),
            Err(_) if !given.is_empty() => problems.push(Problem::new(
                "network.source_address",
                format!("{given:?} is not an address; write \"192.0.2.1\" or \"2001:db8::1\""),
            )),
            Ok(_) | Err(_) => {}
        }
        let addresses = self.source_count();
        if addresses > 1 && self.first_source().is_none() {
            problems.push(Problem::new("network.source_address", "must be given if there are to be several"));
        }
        if let Err(error) = Endpoints::new(self.population.peers, addresses) {
            problems.push(Problem::new(
                "population.peers",
                format!(
                    "{} peers need {} source addresses ({PORTS_PER_ADDRESS} ports each), not {addresses}: see \
                     network.source_addresses",
                    self.population.peers, error.addresses_needed
                ),
            ));
        }
        if addresses < u64::from(self.threads) {
            problems.push(Problem::new(
                "threads",
                format!("{} threads need at least as many source addresses, not {addresses}", self.threads),
            ));
        }
    }

    /// The first source address, unless the system is to choose it.
    #[must_use]
    pub fn first_source(&self) -> Option<IpAddr> {
        let server = self.server_address.ip();
        let loopback = server.is_ipv4() && server.is_loopback();
        let usual = || loopback.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.network.source_address.parse().ok().or_else(usual)
    }

    /// How many source addresses there are.
    #[must_use]
    pub fn source_count(&self) -> u64 {
        let server = self.server_address.ip();
        match u64::from(self.network.source_addresses) {
            0 if server.is_ipv4() && server.is_loopback() => {
                let needed = self.population.peers.div_ceil(PORTS_PER_ADDRESS);
                needed.max(USUAL_SOURCE_ADDRESSES).max(u64::from(self.threads))
            }
            0 => 1,
            given => given,
        }
    }

    /// The population asked for.
    #[must_use]
    pub fn shape(&self) -> PopulationShape {
        let PopulationConfig { seed, torrents, peers, seeder_share, zipf_exponent } = self.population;
        PopulationShape { seed, torrents, peers, seeder_share, zipf_exponent }
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
    fn default_is_sound_and_uses_loopback_addresses() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(Config::default().source_count(), 16);
        assert_eq!(problems(|config| config.population.peers = 25_000_000), Vec::<String>::new());
    }

    #[test]
    fn impossible_combinations_are_named() {
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
