//! Settings that several load tests have.

use std::net::SocketAddr;
use std::path::PathBuf;

use aquatic_common::settings::Problem;

use crate::clock::Nanos;
use crate::draw::Draw;
use crate::pacing::{Arrivals, Schedule};
use crate::population::PopulationShape;

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
    /// Open loop. Latency counts from when a request should have been sent.
    pub struct OpenConfig<const RATE: u32> {
        /// Requests per second, all threads together.
        pub rate: u32 = RATE, unit "requests per second", in 1..=100_000_000;
        /// "even" sends at equal distances, "random" as many independent clients do.
        pub arrivals: ArrivalsConfig = ArrivalsConfig::Random;
    }
}

impl ArrivalsConfig {
    /// The share of one of several threads in a rate.
    #[must_use]
    pub fn schedule(self, rate: u32, (thread, threads): (u32, u32), seed: u64, start: Nanos) -> Schedule {
        let arrivals = match self {
            Self::Even => Arrivals::Even,
            Self::Random => Arrivals::Random,
        };
        // What a thread draws for other purposes has its number.
        let draw = Draw::new(seed, !u64::from(thread));
        Schedule::new(f64::from(rate) / f64::from(threads.max(1)), arrivals, start, draw)
    }
}

aquatic_common::settings! {
    /// The simulated torrents and peers. Each peer is in one torrent.
    pub struct PopulationConfig {
        /// Everything random follows from it. Two load tests with the same population can drive one tracker; for
        /// another population, start the tracker afresh.
        pub seed: u64 = 1, in 0..=9_223_372_036_854_775_807;
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

impl PopulationConfig {
    /// The population asked for.
    #[must_use]
    pub fn shape(&self) -> PopulationShape {
        let Self { seed, torrents, peers, seeder_share, zipf_exponent } = *self;
        PopulationShape { seed, torrents, peers, seeder_share, zipf_exponent }
    }

    /// Reports numbers that no population can have.
    pub fn check_range(&self, problems: &mut Vec<Problem>) {
        check_range(problems, "population.seeder_share", self.seeder_share, 1.0);
        check_range(problems, "population.zipf_exponent", self.zipf_exponent, 3.0);
    }
}

aquatic_common::settings! {
    /// Addresses that connections to the tracker are made from.
    pub struct NetworkConfig {
        /// First source address; the others follow it. Empty for 127.0.0.1 if the tracker is on IPv4 loopback, else
        /// for the address the system chooses. Trackers tell peers apart by source address and announced port.
        pub source_address: String = String::new();
        /// Number of source addresses, all of which must be local. 0 for 16, or as many as the population needs, if the
        /// tracker is on IPv4 loopback, else for 1. One address has room for 64512 peers, and for some 28000
        /// connections at a time, among which those count that were closed less than a minute ago.
        pub source_addresses: u32 = 0, unit "addresses", in 0..=65_536;
    }
}

aquatic_common::settings! {
    /// TLS.
    pub struct TlsConfig {
        /// Use it.
        pub enable: bool = false;
        /// Name the tracker's certificate is for. Also sent as the host of requests if TLS is in use.
        pub server_name: String = "localhost".to_owned();
        /// Check the tracker's certificate and its signature. Switched off, the load test has less work for each
        /// handshake, but not the tracker.
        pub verify_certificate: bool = false;
        /// PEM file with the certificates to trust.
        pub ca_path: PathBuf = PathBuf::new();
        /// Resume sessions where the tracker offers it. Without, each connection costs a full handshake.
        pub resumption: bool = false;
    }
}

impl TlsConfig {
    /// The tracker as requests name it.
    #[must_use]
    pub fn host(&self, server: SocketAddr) -> String {
        match self.enable {
            true => format!("{}:{}", self.server_name, server.port()),
            false => server.to_string(),
        }
    }

    /// Reports a certificate that is to be checked against nothing.
    pub fn check_trust(&self, problems: &mut Vec<Problem>) {
        if self.enable && self.verify_certificate && self.ca_path.as_os_str().is_empty() {
            problems.push(Problem::new(
                "tls.ca_path",
                "must be given for tls.verify_certificate: the system's certificates are not looked at",
            ));
        }
    }
}

/// Reports fewer connections than threads.
pub fn check_connections(problems: &mut Vec<Problem>, threads: u32, connections: u32) {
    if connections < threads {
        problems.push(Problem::new(
            "threads",
            format!("{threads} threads need at least as many connections, not {connections}"),
        ));
    }
}

/// Reports weights of requests that are all 0.
pub fn check_weights(problems: &mut Vec<Problem>, weights: &[u32]) {
    if weights.iter().all(|weight| *weight == 0) {
        let all = if weights.len() == 2 { "both weights" } else { "all weights" };
        problems
            .push(Problem::new("requests.weight_announce", format!("{all} are 0: nothing would be sent")));
    }
}

/// Reports a number that is not from 0 to `most`.
pub fn check_range(problems: &mut Vec<Problem>, key: &str, value: f64, most: f64) {
    if !(0.0..=most).contains(&value) {
        problems.push(Problem::new(key, format!("{value} is out of bounds, choose from 0 to {most}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_are_no_shares_are_reported() {
        let mut problems = Vec::new();
        PopulationConfig::default().check_range(&mut problems);
        assert_eq!(problems, []);
        let odd = PopulationConfig { seeder_share: f64::NAN, zipf_exponent: -0.1, ..Default::default() };
        odd.check_range(&mut problems);
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["population.seeder_share", "population.zipf_exponent"]);
    }

    #[test]
    fn weights_of_nothing_are_reported() {
        let keys = |weights: &[u32]| {
            let mut problems = Vec::new();
            check_weights(&mut problems, weights);
            problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&[0, 0, 0]), ["requests.weight_announce"]);
        assert_eq!(keys(&[0, 1]), keys(&[u32::MAX, 1]), "whatever their bounds");
        assert_eq!(keys(&[1, 0]), Vec::<String>::new());
    }

    #[test]
    fn requests_name_the_tracker_as_its_certificate_does() {
        let (mut tls, server) = (TlsConfig::default(), "127.0.0.1:443".parse().unwrap());
        assert_eq!(tls.host(server), "127.0.0.1:443");
        tls.enable = true;
        assert_eq!(tls.host(server), "localhost:443");
    }

    #[test]
    fn threads_share_a_rate() {
        let mut schedule = ArrivalsConfig::Even.schedule(2000, (1, 2), 1, 0);
        let due = std::iter::from_fn(|| schedule.next_due(crate::clock::SECOND)).count();
        assert!((1000..=1001).contains(&due), "{due}");
        let random = |thread| ArrivalsConfig::Random.schedule(2000, (thread, 2), 1, 0);
        let second_moment = |mut schedule: Schedule| {
            schedule.next_due(crate::clock::SECOND);
            schedule.next_due(crate::clock::SECOND)
        };
        assert_ne!(second_moment(random(0)), second_moment(random(1)), "each at moments of its own");
    }
}
