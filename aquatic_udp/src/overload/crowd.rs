//! Floods from thousands of networks, none of which sends enough to be listed: networks that send more than a
//! rate are flagged, and share what is left to them. The rate is the largest one at which the others alone
//! are not too much. It is read from a histogram, so it falls at once; it rises slowly.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use aquatic_common::load_table::lengths;
use aquatic_common::{Family, Prefix};
use aquatic_net::udp::{NetworkSet, SetKey};
use siphasher::sip::SipHasher13;

/// Position of the prefix length by which networks are flagged: IPv4 /24, IPv6 /56.
pub(super) const LEVEL: usize = 1;

/// Maximum number of networks. With so many, a sixth of all others are taken for one of them at a time; with
/// up to some three thousand none are.
const MAX_NETWORKS: usize = 8192;

/// Least rate at which a network is flagged, in datagrams per second.
const LEAST_RATE: f64 = 20.0;

/// Share of the capacity that the others should take at most.
const MOST_OTHERS: f64 = 0.6;

/// Rise of the rate, and the time between two changes.
const RISE: f64 = 1.1;
const ADAPT_INTERVAL: Duration = Duration::from_millis(60);

/// Datagrams of a network that have to be known, so that nobody is flagged who sends a few.
const LEAST_SEEN: f64 = 4.0;

/// Number of buckets of rates from [`LEAST_RATE`] on, and of those in which rates double.
const BUCKETS: usize = 64;
const BUCKETS_PER_DOUBLING: f64 = 4.0;

/// Time after which a network that is not above half of the rate any more is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

/// Time after which the set gets another key, so that nobody is taken for a flagged network for long.
const REKEY_INTERVAL: Duration = Duration::from_millis(500);

/// Networks that send more than most.
pub(super) struct Crowd {
    hasher: SipHasher13,
    keys: u64,
    /// When each network was above half of the rate last, and whether the kernel knows it.
    networks: HashMap<Prefix, (Duration, bool)>,
    /// Rate from which on a network is flagged.
    rate: f64,
    /// Datagrams since the rate was adapted last, by the rate of their networks.
    histogram: [f64; BUCKETS],
    adapted: Duration,
    built: Duration,
    has_changed: bool,
}

impl Crowd {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            hasher: SipHasher13::new_with_key(&key),
            keys: 0,
            networks: HashMap::new(),
            rate: f64::INFINITY,
            histogram: [0.0; BUCKETS],
            adapted: Duration::ZERO,
            built: Duration::ZERO,
            has_changed: false,
        }
    }

    /// The network around a source.
    pub(super) fn network(source: IpAddr) -> Prefix {
        Prefix::of(source, lengths(source)[LEVEL])
    }

    /// Number of networks that are flagged.
    pub(super) fn len(&self) -> usize {
        self.networks.len()
    }

    /// Whether a network is flagged, and the kernel knows it.
    pub(super) fn find(&self, network: Prefix) -> Option<bool> {
        if self.networks.is_empty() { None } else { self.networks.get(&network).map(|&(_, known)| known) }
    }

    /// Begins with an overload.
    pub(super) fn begin(&mut self, now: Duration) {
        self.clear();
        (self.adapted, self.built) = (now, now);
    }

    /// Takes in a datagram, which stands for `datagrams`, and the rate of its network.
    pub(super) fn observe(&mut self, network: Prefix, (rate, datagrams): (f64, f64), now: Duration) {
        self.histogram[bucket(rate)] += datagrams;
        if rate < self.rate / 2.0 {
            return;
        }
        if let Some((last, _)) = self.networks.get_mut(&network) {
            *last = now;
        } else if rate >= self.rate && self.networks.len() < MAX_NETWORKS {
            self.networks.insert(network, (now, false));
            self.has_changed = true;
        }
    }

    /// Adapts the rate to what the others send, and to what each flagged network is left. `window` are the
    /// seconds for which rates were taken, and `most` is the largest rate of interest.
    pub(super) fn adapt(&mut self, now: Duration, (level, capacity): (f64, f64), window: f64, most: f64) {
        let passed = now.saturating_sub(self.adapted);
        if passed < ADAPT_INTERVAL {
            return;
        }
        self.adapted = now;
        let datagrams = std::mem::replace(&mut self.histogram, [0.0; BUCKETS]);
        let least = LEAST_RATE.max(LEAST_SEEN / window).min(most);
        let rate = rate_above(&datagrams, capacity * MOST_OTHERS * passed.as_secs_f64()).clamp(least, most);
        self.rate = self.rate.min(most);
        if rate < self.rate {
            self.rate = rate;
        } else if self.rate < level {
            self.rate = (self.rate * RISE).min(rate);
        }
    }

    /// The networks as the kernel should know them, if that is not as it does. `interval` is the shortest
    /// time between two changes.
    pub(super) fn rebuild(&mut self, now: Duration, interval: Duration) -> bool {
        let age = now.saturating_sub(self.built);
        if age < interval || !(self.has_changed || !self.networks.is_empty() && age >= REKEY_INTERVAL) {
            return false;
        }
        self.networks.retain(|_, (last, _)| now.saturating_sub(*last) < FORGOTTEN_AFTER);
        self.has_changed = false;
        self.built = now;
        true
    }

    /// All networks, under a new key; `None` without any.
    pub(super) fn set(&mut self, family: Family) -> Option<NetworkSet> {
        if self.networks.is_empty() {
            return None;
        }
        self.keys += 1;
        let word = |number: u64| self.hasher.hash(&(self.keys << 8 | number).to_le_bytes()) as u32;
        let key: SetKey = [word(0), word(1), word(2), word(3)];
        self.networks.values_mut().for_each(|(_, known)| *known = true);
        Some(NetworkSet::new(family, key, self.networks.keys().map(first_address)))
    }

    pub(super) fn clear(&mut self) {
        self.networks = HashMap::new();
        self.rate = f64::INFINITY;
        self.histogram = [0.0; BUCKETS];
        self.has_changed = false;
    }
}

fn bucket(rate: f64) -> usize {
    // Below the least rate it is 0: the conversion saturates.
    (((rate / LEAST_RATE).log2() * BUCKETS_PER_DOUBLING) as usize).min(BUCKETS - 1)
}

/// The largest rate below which there are at most `most` datagrams.
fn rate_above(datagrams: &[f64; BUCKETS], most: f64) -> f64 {
    let mut sum = 0.0;
    let is_too_much = |&in_bucket: &f64| {
        sum += in_bucket;
        sum > most
    };
    let first = datagrams.iter().position(is_too_much);
    first.map_or(f64::INFINITY, |first| LEAST_RATE * (first as f64 / BUCKETS_PER_DOUBLING).exp2())
}

fn first_address(network: &Prefix) -> IpAddr {
    let (first, _) = network.range();
    match network.family() {
        Family::V4 => IpAddr::V4((first as u32).into()),
        Family::V6 => IpAddr::V6(first.into()),
    }
}
