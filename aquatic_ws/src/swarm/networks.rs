//! Networks of peers, each an IPv4 address or an IPv6 /64, and how many peers of a torrent each has.
//!
//! A torrent has counters from the moment on at which it has an index of peer ids: because it is large, or
//! because a network has several of its peers. There are as many counters as there is room for peers, so they
//! take two bytes per peer. A network has the counter that its hash selects, so two may share one. At most
//! one of `max_peers_per_address` counters can be full, however many addresses somebody has, so that is the
//! share of networks that are refused by mistake.

use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// Number of peers of a network up to which they are not too many, however few others there are.
pub(super) const UNCROWDED: usize = 4;

/// A torrent is crowded if more than one of so many of its peers is one beyond [`UNCROWDED`] of its network.
const CROWDED: usize = 8;

/// Minimum number of counters.
const MIN_COUNTERS: usize = 64;

/// Keyed hash of the network of a client: of its IPv4 address, or its IPv6 /64. The hashes of other nodes of
/// a cluster have other keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(u32);

impl Network {
    /// Network of clients whose address is not known, because their proxy does not name it.
    pub const UNKNOWN: Self = Self(0);

    /// Returns the network of an address in canonical form.
    pub(crate) fn of(address: IpAddr, hasher: &SipHasher13) -> Self {
        let hash = match address {
            IpAddr::V4(ip) => hasher.hash(&ip.octets()),
            IpAddr::V6(ip) => hasher.hash(&ip.octets()[..8]),
        };
        Self(((hash >> 32) as u32).max(1))
    }

    /// Returns the number that stands for the network in records; 0 if it is unknown.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// Returns the network with a number.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// Numbers of peers of a torrent by network.
#[derive(Debug)]
pub(super) struct NetworkCounts {
    counts: Box<[u16]>,
    /// Number of peers beyond [`UNCROWDED`] of their counter.
    surplus: u32,
}

impl NetworkCounts {
    /// Returns the counts of the peers of a torrent that has room for so many.
    pub(super) fn new(capacity: usize, networks: impl Iterator<Item = Network>) -> Self {
        let counts = vec![0; capacity.max(MIN_COUNTERS)].into_boxed_slice();
        let mut new = Self { counts, surplus: 0 };
        networks.for_each(|network| new.add(network));
        new
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.counts)
    }

    /// Returns the position of the counter of a network; `None` if it is unknown.
    fn counter(&self, network: Network) -> Option<usize> {
        let at = (u64::from(network.0) * self.counts.len() as u64) >> 32;
        (network != Network::UNKNOWN).then_some(at as usize)
    }

    /// Returns the number of peers of a network and those that share its counter; 0 if it is unknown.
    pub(super) fn count(&self, network: Network) -> usize {
        self.counter(network).map_or(0, |at| self.counts[at].into())
    }

    pub(super) fn add(&mut self, network: Network) {
        if let Some(at) = self.counter(network) {
            self.surplus += u32::from(usize::from(self.counts[at]) >= UNCROWDED);
            self.counts[at] = self.counts[at].saturating_add(1);
        }
    }

    pub(super) fn remove(&mut self, network: Network) {
        if let Some(at) = self.counter(network) {
            self.counts[at] = self.counts[at].saturating_sub(1);
            self.surplus = self.surplus.saturating_sub(u32::from(usize::from(self.counts[at]) >= UNCROWDED));
        }
    }

    /// Returns whether a network has several peers.
    pub(super) fn has_surplus(&self) -> bool {
        self.surplus > 0
    }

    /// Returns whether a few networks have many of so many peers, but that of `one` of them not all.
    pub(super) fn is_crowded(&self, peers: usize, one: Network) -> bool {
        self.surplus as usize * CROWDED > peers && self.count(one) < peers
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn the_clients_of_a_network_have_one_hash() {
        let hasher = SipHasher13::new_with_key(&[1; 16]);
        let of = |ip: &str| Network::of(ip.parse().unwrap(), &hasher);
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("192.0.2.1"), Network::UNKNOWN);
    }

    #[test]
    fn counts_return_to_zero() {
        let mut counts = NetworkCounts::new(0, std::iter::empty());
        let networks = [1, 1, 1, 1, 1, 1 << 31, 0].map(Network);
        networks.iter().for_each(|&network| counts.add(network));
        assert_eq!([1, 1 << 31, 0].map(|bits| counts.count(Network(bits))), [5, 1, 0]);
        let is_crowded = |peers| counts.is_crowded(peers, Network(1));
        assert!(counts.has_surplus() && is_crowded(7) && !is_crowded(8) && !is_crowded(5));
        networks.iter().rev().for_each(|&network| counts.remove(network));
        assert!(!counts.has_surplus() && counts.counts.iter().all(|&count| count == 0));
    }

    #[test]
    fn a_large_torrent_of_many_networks_is_not_crowded() {
        let mut rng = SmallRng::seed_from_u64(1);
        for peers in [33, 64, 1000, 100_000] {
            let networks: Vec<_> = (0..peers).map(|_| Network(rng.random())).collect();
            let counts = NetworkCounts::new(peers, networks.iter().copied());
            assert!(!counts.is_crowded(peers, networks[0]), "{peers}: {}", counts.surplus);
            assert!(networks.iter().all(|&network| counts.count(network) < 12));
        }
    }

    /// The share is that of full counters, here as many as there can be.
    #[test]
    fn few_networks_are_refused_by_mistake() {
        const MAX: usize = 512;
        let mut rng = SmallRng::seed_from_u64(2);
        let mut draw = || Network(rng.random());
        let mut counts = NetworkCounts::new(20_000, std::iter::empty());
        for network in (0..20_000 / MAX).map(|_| draw()) {
            (0..MAX).for_each(|_| counts.add(network));
        }
        let refused = (0..100_000).filter(|_| counts.count(draw()) >= MAX).count();
        assert!((100..300).contains(&refused), "{refused} instead of {}", 100_000 / MAX);
    }
}
