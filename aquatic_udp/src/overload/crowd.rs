//! Floods from thousands of networks, none of which sends enough to be listed: networks that send more than a
//! rate are flagged, and share what is left to them. The rate is the largest one at which the others alone
//! are not too much. It is read from a histogram, so it falls at once; it rises slowly.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use aquatic_common::Family;
use aquatic_common::load_table::SourceKey;
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
const BUCKETS_PER_DOUBLING: usize = 1 << DOUBLING_BITS;
const DOUBLING_BITS: u32 = 2;

/// Time after which a network that is not above half of the rate any more is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

/// Time after which the set gets another key, so that nobody is taken for a flagged network for long.
const REKEY_INTERVAL: Duration = Duration::from_millis(500);

/// Shortest time between two changes of the networks in the kernel, each of which costs it up to 2 ms: while
/// more than an eighth of them are new, and otherwise.
const BUILDS_OF_MANY: Duration = Duration::from_millis(20);
const BUILDS: Duration = Duration::from_millis(100);
const MANY: usize = 8;

/// A flagged network.
struct Network {
    /// An address of it.
    address: IpAddr,
    /// When it was above half of the rate last.
    last: Duration,
    /// When everything received has passed a filter that knows it.
    known_from: Option<Duration>,
}

/// Networks that send more than most.
pub(super) struct Crowd {
    hasher: SipHasher13,
    keys: u64,
    /// Networks by the hash that the load table knows them by, which nobody else can tell.
    networks: HashMap<u64, Network, BuildHasherDefault<AsItIs>>,
    /// Rate from which on a network is flagged.
    rate: f64,
    /// Datagrams since the rate was adapted last, by the rate of their networks.
    histogram: [f64; BUCKETS],
    adapted: Duration,
    built: Duration,
    /// Networks that have been added since.
    added: usize,
    /// Beginning of the interval.
    since: Duration,
}

impl Crowd {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            hasher: SipHasher13::new_with_key(&key),
            keys: 0,
            networks: HashMap::default(),
            rate: f64::INFINITY,
            histogram: [0.0; BUCKETS],
            adapted: Duration::ZERO,
            built: Duration::ZERO,
            added: 0,
            since: Duration::ZERO,
        }
    }

    /// Number of networks that are flagged.
    pub(super) fn len(&self) -> usize {
        self.networks.len()
    }

    /// Whether the network of a source is flagged, and what is received of it has passed a filter.
    #[inline]
    pub(super) fn find(&self, source: SourceKey) -> Option<bool> {
        let is_known = |network: &Network| network.known_from.is_some_and(|from| from <= self.since);
        self.networks.get(&source.hash(LEVEL)).map(is_known)
    }

    /// Begins an interval.
    pub(super) fn follow(&mut self, now: Duration) {
        self.since = now;
    }

    /// Begins to take datagrams in.
    pub(super) fn begin(&mut self, now: Duration) {
        self.clear();
        (self.adapted, self.built) = (now, now);
    }

    /// Takes in a datagram, which stands for `datagrams`, and the rate of its network. Returns whether that
    /// is flagged.
    pub(super) fn observe(
        &mut self,
        (address, key): (IpAddr, SourceKey),
        (rate, datagrams): (f64, f64),
        now: Duration,
    ) -> bool {
        self.histogram[bucket(rate)] += datagrams;
        if rate < self.rate / 2.0 {
            return false;
        }
        if let Some(network) = self.networks.get_mut(&key.hash(LEVEL)) {
            network.last = now;
            return true;
        }
        let is_flagged = rate >= self.rate && self.networks.len() < MAX_NETWORKS;
        if is_flagged {
            self.networks.insert(key.hash(LEVEL), Network { address, last: now, known_from: None });
            self.added += 1;
        }
        is_flagged
    }

    /// Adapts the rate to what the others send, and to what each flagged network is left. `window` are the
    /// seconds for which rates were taken, `missed` is what is offered as a multiple of what was taken in,
    /// and `most` is the largest rate of interest.
    pub(super) fn adapt(
        &mut self,
        now: Duration,
        (level, capacity): (f64, f64),
        (window, missed): (f64, f64),
        most: f64,
    ) {
        let passed = now.saturating_sub(self.adapted);
        if passed < ADAPT_INTERVAL {
            return;
        }
        self.adapted = now;
        let datagrams = std::mem::replace(&mut self.histogram, [0.0; BUCKETS]);
        let least = LEAST_RATE.max(LEAST_SEEN / window).min(most);
        let most_others = capacity * MOST_OTHERS * passed.as_secs_f64() / missed;
        let rate = rate_above(&datagrams, most_others).clamp(least, most);
        self.rate = self.rate.min(most);
        if rate < self.rate {
            self.rate = rate;
        } else if self.rate < level {
            self.rate = (self.rate * RISE).min(rate);
        }
    }

    /// Whether the kernel should know the networks anew.
    pub(super) fn rebuild(&mut self, now: Duration) -> bool {
        let age = now.saturating_sub(self.built);
        let interval = if self.added * MANY > self.networks.len() { BUILDS_OF_MANY } else { BUILDS };
        if age < interval || !(self.added > 0 || !self.networks.is_empty() && age >= REKEY_INTERVAL) {
            return false;
        }
        self.networks.retain(|_, network| now.saturating_sub(network.last) < FORGOTTEN_AFTER);
        self.added = 0;
        self.built = now;
        true
    }

    /// All networks, under a new key; `None` without any. What is received `from` a time on has passed a
    /// filter with them.
    pub(super) fn set(&mut self, family: Family, from: Duration) -> Option<NetworkSet> {
        if self.networks.is_empty() {
            return None;
        }
        self.keys += 1;
        let word = |number: u64| self.hasher.hash(&(self.keys << 8 | number).to_le_bytes()) as u32;
        let key: SetKey = [word(0), word(1), word(2), word(3)];
        for network in self.networks.values_mut() {
            network.known_from.get_or_insert(from);
        }
        Some(NetworkSet::new(family, key, self.networks.values().map(|network| network.address)))
    }

    pub(super) fn clear(&mut self) {
        self.networks = HashMap::default();
        self.rate = f64::INFINITY;
        self.histogram = [0.0; BUCKETS];
        self.added = 0;
    }
}

/// A hasher for keys that are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0 << 8 | u64::from(byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The bucket of a rate. Within a doubling buckets are equally wide: the exponent of a number and the highest
/// bits behind it tell which it is.
fn bucket(rate: f64) -> usize {
    let above = |rate: f64| (rate.to_bits() >> (f64::MANTISSA_DIGITS - 1 - DOUBLING_BITS)) as usize;
    (above((rate / LEAST_RATE).max(1.0)) - above(1.0)).min(BUCKETS - 1)
}

/// The least rate in a bucket.
fn least_of(bucket: usize) -> f64 {
    let (doublings, part) = (bucket / BUCKETS_PER_DOUBLING, bucket % BUCKETS_PER_DOUBLING);
    LEAST_RATE * (doublings as f64).exp2() * (1.0 + part as f64 / BUCKETS_PER_DOUBLING as f64)
}

/// The largest rate below which there are at most `most` datagrams.
fn rate_above(datagrams: &[f64; BUCKETS], most: f64) -> f64 {
    let mut sum = 0.0;
    let is_too_much = |&in_bucket: &f64| {
        sum += in_bucket;
        sum > most
    };
    datagrams.iter().position(is_too_much).map_or(f64::INFINITY, least_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_divide_the_rates() {
        for at in 0..BUCKETS {
            assert_eq!(bucket(least_of(at)), at);
            assert_eq!(bucket(least_of(at + 1) * 0.999), at);
        }
        assert_eq!((bucket(0.0), bucket(f64::INFINITY)), (0, BUCKETS - 1));
    }
}
