//! Simulated torrents and peers, computed from their numbers. Nothing is stored per torrent or peer, so a
//! population can have any size, and load tests with the same seed share it.

use aquatic_common::{InfoHash, PeerId};

use crate::rng::{Rng, mix, unit};

/// Points at which the popularity distribution is computed exactly; it is interpolated linearly between them.
const QUANTILES: usize = 4096;

/// Parameters of a population.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PopulationShape {
    /// Seed of all pseudo-random properties.
    pub seed: u64,
    /// Number of torrents; at least 1.
    pub torrents: u64,
    /// Number of peers. If there are at least as many as torrents, every torrent has a peer.
    pub peers: u64,
    /// Share of peers that are seeders, from 0 to 1.
    pub seeder_share: f64,
    /// Exponent s of the popularity: the torrent of rank r has the weight r^-s. 0 gives all torrents the same
    /// weight.
    pub zipf_exponent: f64,
}

/// Population in which each peer is in exactly one torrent. A uniformly chosen peer gives a torrent chosen by
/// popularity.
#[derive(Clone, Debug)]
pub struct Population {
    shape: PopulationShape,
    /// Multiplier, coprime to the number of peers, that spreads peer numbers over the torrents: the number of
    /// a peer is independent of the size of its swarm.
    stride: u64,
    /// Ranks at the quantiles of the popularity, in steps of 1/`QUANTILES`.
    quantiles: Vec<f64>,
}

impl Population {
    /// Creates a population.
    #[must_use]
    pub fn new(shape: PopulationShape) -> Self {
        let peers = shape.peers.max(1);
        // The golden ratio spreads consecutive numbers far apart.
        let mut stride = (peers as f64 * 0.618_033_988_75) as u64 | 1;
        while greatest_common_divisor(stride, peers) != 1 {
            stride += 2;
        }
        let torrents = shape.torrents.max(1) as f64;
        let quantiles = (0..=QUANTILES)
            .map(|step| rank_of_quantile(step as f64 / QUANTILES as f64, torrents, shape.zipf_exponent))
            .collect();
        Self { shape: PopulationShape { torrents: shape.torrents.max(1), ..shape }, stride, quantiles }
    }

    /// Parameters of the population.
    #[must_use]
    pub fn shape(&self) -> &PopulationShape {
        &self.shape
    }

    /// Torrent of a peer.
    #[must_use]
    pub fn torrent_of(&self, peer: u64) -> u64 {
        let position = self.position(peer);
        if position < self.shape.torrents {
            position
        } else {
            self.popular_torrent(mix(self.shape.seed ^ 0x7031 ^ (position << 16)))
        }
    }

    /// Torrent chosen by popularity with 64 random bits. Low numbers are popular torrents.
    #[must_use]
    pub fn popular_torrent(&self, bits: u64) -> u64 {
        let share = unit(bits) * QUANTILES as f64;
        let step = (share as usize).min(QUANTILES - 1);
        let (low, high) = (self.quantiles[step], self.quantiles[step + 1]);
        let rank = low + (high - low) * (share - step as f64);
        (rank as u64).min(self.shape.torrents - 1)
    }

    /// Whether a peer is a seeder.
    #[must_use]
    pub fn is_seeder(&self, peer: u64) -> bool {
        unit(mix(self.shape.seed ^ 0x5eed ^ (peer << 16))) < self.shape.seeder_share
    }

    /// Info hash of a torrent.
    #[must_use]
    pub fn info_hash(&self, torrent: u64) -> InfoHash {
        InfoHash(self.twenty_bytes(torrent.wrapping_mul(2)))
    }

    /// Replaces the contents of `torrents` by the info hashes of a scrape: `count` torrents chosen by
    /// popularity, derived from `subject`.
    pub fn scrape_targets(&self, subject: u64, count: usize, torrents: &mut Vec<InfoHash>) {
        let mut rng = Rng::new(self.shape.seed, subject);
        torrents.clear();
        torrents.extend((0..count).map(|_| self.info_hash(self.popular_torrent(rng.next_u64()))));
    }

    /// Peer id of a peer.
    #[must_use]
    pub fn peer_id(&self, peer: u64) -> PeerId {
        let mut id = self.twenty_bytes(peer.wrapping_mul(2) + 1);
        id[..8].copy_from_slice(b"-AQ0001-");
        PeerId(id)
    }

    fn twenty_bytes(&self, number: u64) -> [u8; 20] {
        let a = mix(self.shape.seed ^ mix(number));
        let b = mix(a ^ number);
        let c = mix(b);
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&a.to_be_bytes());
        bytes[8..16].copy_from_slice(&b.to_be_bytes());
        bytes[16..].copy_from_slice(&c.to_be_bytes()[..4]);
        bytes
    }

    /// Position of a peer in a permutation of all peers.
    fn position(&self, peer: u64) -> u64 {
        let peers = self.shape.peers.max(1);
        match peer.checked_mul(self.stride) {
            Some(product) => product % peers,
            None => (u128::from(peer) * u128::from(self.stride) % u128::from(peers)) as u64,
        }
    }
}

/// Rank, from 0, at a quantile of the continuous popularity distribution.
fn rank_of_quantile(share: f64, torrents: f64, exponent: f64) -> f64 {
    let last = torrents + 1.0;
    let rank = if (exponent - 1.0).abs() < 1e-9 {
        last.powf(share)
    } else {
        let power = 1.0 - exponent;
        (share * (last.powf(power) - 1.0) + 1.0).powf(1.0 / power)
    };
    rank - 1.0
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn population(torrents: u64, peers: u64, zipf_exponent: f64) -> Population {
        Population::new(PopulationShape { seed: 1, torrents, peers, seeder_share: 0.75, zipf_exponent })
    }

    fn swarm_sizes(population: &Population) -> HashMap<u64, u64> {
        let mut sizes = HashMap::new();
        for peer in 0..population.shape.peers {
            *sizes.entry(population.torrent_of(peer)).or_default() += 1;
        }
        sizes
    }

    #[test]
    fn every_torrent_has_a_peer() {
        for (torrents, peers) in [(1, 1), (1000, 1000), (1000, 2500), (7, 1234)] {
            let sizes = swarm_sizes(&population(torrents, peers, 0.9));
            assert_eq!(sizes.len() as u64, torrents);
            assert!(sizes.keys().all(|&torrent| torrent < torrents));
        }
    }

    #[test]
    fn popularity_falls_with_rank() {
        let sizes = swarm_sizes(&population(1000, 1_000_000, 1.0));
        // With exponent 1, ranks 1 to 3 and 10 to 30 weigh about the same (the logarithm of the quotients).
        let weight = |from: u64, to: u64| (from..to).map(|rank| sizes[&rank]).sum::<u64>() as f64;
        let (head, later) = (weight(0, 2), weight(9, 29));
        assert!((0.9..1.1).contains(&(head / later)), "{head} {later}");
        assert!(sizes[&0] > 50_000 && sizes[&999] < 1000, "{} {}", sizes[&0], sizes[&999]);
    }

    #[test]
    fn exponent_zero_gives_equal_popularity() {
        let sizes = swarm_sizes(&population(100, 1_000_000, 0.0));
        assert!(sizes.values().all(|&size| (9_000..11_000).contains(&size)), "{sizes:?}");
    }

    #[test]
    fn identifiers_are_unique_and_depend_on_the_seed() {
        let population = population(10_000, 10_000, 1.0);
        let hashes: HashSet<_> = (0..10_000).map(|torrent| population.info_hash(torrent)).collect();
        let ids: HashSet<_> = (0..10_000).map(|peer| population.peer_id(peer)).collect();
        assert_eq!((hashes.len(), ids.len()), (10_000, 10_000));
        let other = Population::new(PopulationShape { seed: 2, ..population.shape });
        assert_ne!(population.info_hash(0), other.info_hash(0));
        assert_eq!(population.info_hash(0), population.clone().info_hash(0));
    }

    #[test]
    fn scrape_targets_depend_on_the_subject_and_are_popular() {
        let population = population(1000, 1_000_000, 1.0);
        let scraped = |subject| {
            let mut torrents = vec![population.info_hash(999)];
            population.scrape_targets(subject, 100, &mut torrents);
            torrents
        };
        assert_eq!((scraped(1), scraped(1).len()), (scraped(1), 100));
        assert_ne!(scraped(1), scraped(2));
        let popular: HashSet<_> = (0..31).map(|torrent| population.info_hash(torrent)).collect();
        // The 31 most popular torrents have half of the weight.
        let share = scraped(1).iter().filter(|torrent| popular.contains(torrent)).count();
        assert!((30..70).contains(&share), "{share}");
    }

    #[test]
    fn share_of_seeders_is_as_configured() {
        let population = population(100, 100_000, 1.0);
        let seeders = (0..100_000).filter(|&peer| population.is_seeder(peer)).count();
        assert!((74_000..76_000).contains(&seeders), "{seeders}");
        let none = Population::new(PopulationShape { seeder_share: 0.0, ..population.shape });
        let all = Population::new(PopulationShape { seeder_share: 1.0, ..population.shape });
        assert!((0..1000).all(|peer| !none.is_seeder(peer) && all.is_seeder(peer)));
    }

    #[test]
    fn positions_are_a_permutation_even_where_the_product_overflows() {
        let small = population(10, 5000, 1.0);
        let positions: HashSet<_> = (0..5000).map(|peer| small.position(peer)).collect();
        assert_eq!(positions.len(), 5000);
        let huge = population(10, 1 << 40, 1.0);
        assert!(huge.position((1 << 40) - 1) < 1 << 40);
        assert_ne!(huge.position((1 << 40) - 1), huge.position((1 << 40) - 2));
    }
}
