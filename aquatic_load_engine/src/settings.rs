//! Settings shared by several load tests.

use std::net::SocketAddr;
use std::path::PathBuf;

use aquatic_common::settings::Problem;

use crate::clock::Nanos;
use crate::pacing::{Arrivals, Schedule};
use crate::population::PopulationShape;
use crate::report::Limits;
use crate::rng::Rng;

aquatic_common::choice! {
    /// Load model.
    #[derive(Default)]
    pub enum Mode {
        /// Closed loop: a bounded number of requests is in flight at any time.
        #[default]
        Closed = "closed",
        /// Open loop: requests are sent at a given rate, independently of the responses.
        Open = "open",
    }
}

aquatic_common::choice! {
    /// Distribution of requests at a given rate.
    #[derive(Default)]
    pub enum ArrivalsConfig {
        /// Equal gaps.
        Even = "even",
        /// Exponentially distributed gaps, as from many independent clients.
        #[default]
        Random = "random",
    }
}

aquatic_common::settings! {
    /// Open loop. Latency is measured from the intended send time of a request.
    pub struct OpenConfig<const RATE: u32> {
        /// Total request rate of all threads.
        pub rate: u32 = RATE, unit "requests per second", in 1..=100_000_000;
        /// Distribution of requests: "even" for equal gaps, "random" for gaps as from many independent
        /// clients.
        pub arrivals: ArrivalsConfig = ArrivalsConfig::Random;
    }
}

impl ArrivalsConfig {
    /// Schedule of one thread, with its share of the rate.
    #[must_use]
    pub fn schedule(self, rate: u32, (thread, threads): (u32, u32), seed: u64, start: Nanos) -> Schedule {
        let arrivals = match self {
            Self::Even => Arrivals::Even,
            Self::Random => Arrivals::Random,
        };
        // The stream with the number of the thread serves other purposes.
        let rng = Rng::new(seed, !u64::from(thread));
        Schedule::new(f64::from(rate) / f64::from(threads.max(1)), arrivals, start, rng)
    }
}

aquatic_common::settings! {
    /// Simulated torrents and peers. Each peer is in one torrent.
    pub struct PopulationConfig {
        /// Seed of the pseudo-random population. Several load tests with the same population can run against
        /// one tracker; restart the tracker before using another population.
        pub seed: u64 = 1, in 0..=9_223_372_036_854_775_807;
        /// Number of torrents.
        pub torrents: u64 = 100_000, unit "torrents", in 1..=4_000_000_000;
        /// Number of peers. Each torrent has a peer if there are at least as many peers as torrents.
        pub peers: u64 = 250_000, unit "peers", in 1..=4_000_000_000;
        /// Share of peers that are seeders, from 0 to 1.
        pub seeder_share: f64 = 0.6;
        /// Exponent s of the popularity, from 0 (uniform) to 3: the torrent of rank r has the weight r^-s.
        pub zipf_exponent: f64 = 0.9;
    }
}

impl PopulationConfig {
    /// Parameters of the population.
    #[must_use]
    pub fn shape(&self) -> PopulationShape {
        let Self { seed, torrents, peers, seeder_share, zipf_exponent } = *self;
        PopulationShape { seed, torrents, peers, seeder_share, zipf_exponent }
    }

    /// Reports values that are out of range.
    pub fn check_range(&self, problems: &mut Vec<Problem>) {
        check_range(problems, "population.seeder_share", self.seeder_share, 1.0);
        check_range(problems, "population.zipf_exponent", self.zipf_exponent, 3.0);
    }
}

aquatic_common::settings! {
    /// Source addresses of connections to the tracker.
    pub struct NetworkConfig {
        /// First source address; the others are consecutive. Empty for 127.0.0.1 if the tracker is on IPv4
        /// loopback, otherwise for the address that the system chooses. Trackers identify peers by source
        /// address and port.
        pub source_address: String = String::new();
        /// Number of source addresses, all of which must be local. 0 for at least 16, or as many as the
        /// population needs, if the tracker is on IPv4 loopback, otherwise for 1. One address suffices for
        /// 64512 peers and for about 28000 connections, including those closed during the last minute.
        pub source_addresses: u32 = 0, unit "addresses", in 0..=65_536;
    }
}

aquatic_common::settings! {
    /// TLS.
    pub struct TlsConfig {
        /// Enable TLS.
        pub enable: bool = false;
        /// Server name in the tracker's certificate, also used as the host of requests with TLS.
        pub server_name: String = "localhost".to_owned();
        /// Verify the tracker's certificate and its signature. Disabling it saves the load test work in each
        /// handshake; the tracker's work is the same.
        pub verify_certificate: bool = false;
        /// PEM file with the trusted certificates.
        pub ca_path: PathBuf = PathBuf::new();
        /// Resume TLS sessions if the tracker offers it. Otherwise each connection takes a full handshake.
        pub resumption: bool = false;
    }
}

impl TlsConfig {
    /// Host of requests.
    #[must_use]
    pub fn host(&self, server: SocketAddr) -> String {
        match self.enable {
            true => format!("{}:{}", self.server_name, server.port()),
            false => server.to_string(),
        }
    }

    /// Reports certificate verification without trusted certificates.
    pub fn check_trust(&self, problems: &mut Vec<Problem>) {
        if self.enable && self.verify_certificate && self.ca_path.as_os_str().is_empty() {
            problems.push(Problem::new(
                "tls.ca_path",
                "required by tls.verify_certificate: the certificates of the system are not used",
            ));
        }
    }
}

aquatic_common::settings! {
    /// Conditions under which the test fails, in addition to protocol violations.
    pub struct VerdictConfig {
        /// Maximum share of the requests of each kind, from 0 to 1, that the tracker may refuse. 1 allows any
        /// number.
        pub max_refused_share: f64 = 0.01;
        /// Maximum share of the requests of each kind, from 0 to 1, that may be lost: without a response
        /// before their timeout, or for WebTorrent offers not relayed. 1 allows any number. By default only a
        /// kind without responses fails, because trackers drop requests under overload.
        pub max_lost_share: f64 = 0.99;
        /// Minimum number of replies whose content is verified: announce replies with peers, or relayed
        /// offers. 0 by default, because a small population, or verification of few replies, may give none.
        pub min_replies_checked: u64 = 0, unit "replies", in 0..=1_000_000_000_000;
    }
}

impl VerdictConfig {
    /// Reports values that are out of range.
    pub fn check_range(&self, problems: &mut Vec<Problem>) {
        check_range(problems, "verdict.max_refused_share", self.max_refused_share, 1.0);
        check_range(problems, "verdict.max_lost_share", self.max_lost_share, 1.0);
    }

    /// Limits that the verdict applies.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let Self { max_refused_share, max_lost_share, min_replies_checked } = *self;
        Limits { max_refused_share, max_lost_share, min_replies_checked }
    }
}

/// Reports fewer connections than threads.
pub fn check_connections(problems: &mut Vec<Problem>, threads: u32, connections: u32) {
    if connections < threads {
        problems.push(Problem::new(
            "threads",
            format!("{threads} threads need at least as many connections, but there are {connections}"),
        ));
    }
}

/// Reports request weights that are all 0.
pub fn check_weights(problems: &mut Vec<Problem>, weights: &[u32]) {
    if weights.iter().all(|weight| *weight == 0) {
        let all = if weights.len() == 2 { "both weights" } else { "all weights" };
        problems
            .push(Problem::new("requests.weight_announce", format!("{all} are 0, so nothing would be sent")));
    }
}

/// Reports a number outside of 0 to `max`.
pub fn check_range(problems: &mut Vec<Problem>, key: &str, value: f64, max: f64) {
    if !(0.0..=max).contains(&value) {
        problems
            .push(Problem::new(key, format!("{value} is out of range, allowed are values from 0 to {max}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_out_of_range_are_reported() {
        let mut problems = Vec::new();
        PopulationConfig::default().check_range(&mut problems);
        assert_eq!(problems, []);
        let odd = PopulationConfig { seeder_share: f64::NAN, zipf_exponent: -0.1, ..Default::default() };
        odd.check_range(&mut problems);
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["population.seeder_share", "population.zipf_exponent"]);
        problems.clear();
        let odd = VerdictConfig { max_refused_share: -0.1, max_lost_share: 1.1, ..Default::default() };
        odd.check_range(&mut problems);
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["verdict.max_refused_share", "verdict.max_lost_share"]);
    }

    #[test]
    fn weights_that_are_all_zero_are_reported() {
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
    fn host_is_the_server_name_with_tls() {
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
