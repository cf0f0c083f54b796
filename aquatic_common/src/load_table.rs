//! Loads of sources in fixed memory: how much each address, and each network around it, has asked for lately.
//!
//! A [`LoadTable`] remembers heavy sources and forgets light ones. It consists of lines of one cache line
//! with eight slots each. A slot holds a fingerprint and a load. A key (a prefix length and the bits of the
//! prefix) may be in any slot of the line that a keyed hash names. A new key takes the slot with the smallest
//! load and starts at zero: whatever others do, a source is never charged for what it did not ask for. A
//! source that is heavy enough to matter keeps its slot, because the newcomers evict each other.
//!
//! One call charges an address at several prefix lengths ([`LENGTHS_V4`], [`LENGTHS_V6`]). The method is that
//! of a leaky bucket with exponential decay: a load is proportional to the rate of a source. Loads that are
//! stored do not decay one by one. Prices grow instead, and so does the limit; when they have doubled, they
//! and all loads are halved.

use std::hint::black_box;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// Number of prefix lengths at which a source is charged.
pub const LEVELS: usize = 3;

/// Prefix lengths of IPv4, the longest first.
pub const LENGTHS_V4: [u8; LEVELS] = [32, 24, 20];

/// Prefix lengths of IPv6, the longest first: a household has a /64 or more.
pub const LENGTHS_V6: [u8; LEVELS] = [64, 56, 48];

/// Load of a key, or the price of a request, at each prefix length, the longest first. At most [`MAX_LOAD`].
pub type Loads = [u32; LEVELS];

/// Maximum of a load. Stored loads are up to twice as large.
pub const MAX_LOAD: u32 = 1 << MAX_LOAD_LOG2;
const MAX_LOAD_LOG2: u32 = 31;

/// Number of slots in a line. A power of two, as ranks hold the position of a slot in their lowest bits.
const SLOTS: usize = 8;

/// Maximum of the binary logarithm of the number of lines. All of them are halved at once.
const MAX_LINES_LOG2: u32 = 16;

/// The prefix lengths for the family of an address.
#[must_use]
pub fn lengths(ip: IpAddr) -> [u8; LEVELS] {
    match ip {
        IpAddr::V4(_) => LENGTHS_V4,
        IpAddr::V6(_) => LENGTHS_V6,
    }
}

/// One cache line of slots. A load of zero marks a free one.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Line {
    fingerprints: [u32; SLOTS],
    loads: [u32; SLOTS],
}

const _: () = assert!(size_of::<Line>() == 64, "a key is looked for in one cache line");

impl Line {
    const EMPTY: Self = Self { fingerprints: [0; SLOTS], loads: [0; SLOTS] };

    /// The slot of a key and its load, or the slot with about the smallest load and 0. Without branches, so
    /// that compilers look at several slots at once.
    #[inline]
    fn find(&self, fingerprint: u32) -> (usize, u32) {
        const POSITION: i32 = SLOTS as i32 - 1;
        let mut first = i32::MAX;
        for slot in 0..SLOTS {
            // Halved, it has no sign.
            let rank = ((self.loads[slot] >> 1) as i32).max(POSITION + 1) & !POSITION;
            let rank = if self.fingerprints[slot] == fingerprint { 0 } else { rank };
            first = first.min(rank | slot as i32);
        }
        let slot = (first & POSITION) as usize;
        let load = if first <= POSITION { self.loads[slot] } else { 0 };
        (slot, load)
    }
}

/// The scale of stored loads, which grows from 1 to 2 while what they stand for halves.
#[derive(Clone, Copy, Debug)]
struct Scale {
    halvings_per_ms: f64,
    /// Latest time, in milliseconds.
    now: u64,
    /// Part of a halving that has passed: the binary logarithm of the scale.
    passed: f64,
    /// The scale times [`MAX_LOAD`], which is the limit of stored loads, and its inverse.
    limit: u32,
    inverse: f64,
}

impl Scale {
    fn new(decay_per_second: f64) -> Self {
        let halvings_per_ms = halvings_per_ms(decay_per_second);
        Self { halvings_per_ms, now: 0, passed: 0.0, limit: MAX_LOAD, inverse: 1.0 }
    }

    /// Goes on to a time and returns by how many halvings stored loads have to be brought up to it. A clock
    /// that stands still, or goes back, changes nothing.
    #[inline]
    fn advance(&mut self, now: u64) -> u32 {
        if now <= self.now { 0 } else { self.advance_by(now - self.now) }
    }

    fn advance_by(&mut self, milliseconds: u64) -> u32 {
        self.now += milliseconds;
        let passed = self.passed + milliseconds as f64 * self.halvings_per_ms;
        let halvings = passed.floor();
        self.passed = passed - halvings;
        // Both conversions saturate.
        self.limit = (self.passed.exp2() * f64::from(MAX_LOAD)) as u32;
        self.inverse = f64::from(MAX_LOAD) / f64::from(self.limit);
        halvings as u32
    }

    /// What a price adds to a stored load.
    #[inline]
    fn scaled(&self, price: u32) -> u32 {
        let scaled = (u64::from(price) * u64::from(self.limit)) >> MAX_LOAD_LOG2;
        u32::try_from(scaled).unwrap_or(u32::MAX)
    }

    /// The load that a stored one stands for.
    #[inline]
    fn unscaled(&self, stored: u32) -> u32 {
        (f64::from(stored) * self.inverse + 0.5) as u32
    }
}

/// Halvings in a millisecond, for loads that fall by the factor *e* in 1 / `decay_per_second` seconds.
fn halvings_per_ms(decay_per_second: f64) -> f64 {
    decay_per_second * std::f64::consts::LOG2_E / 1000.0
}

/// What a table knows a source by: a hash at each prefix length. To be made for all sources of a batch before
/// the first of them is charged.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceKey([u64; LEVELS]);

impl SourceKey {
    /// Hash of the network around the source with the prefix length at this position in [`lengths`]. Without
    /// the table's key nobody can tell which networks have the same.
    #[must_use]
    #[inline]
    pub fn hash(&self, level: usize) -> u64 {
        self.0.get(level).copied().unwrap_or(0)
    }
}

/// Position of a key: line and slot.
#[derive(Clone, Copy, Debug)]
struct Place {
    line: usize,
    slot: usize,
    fingerprint: u32,
    /// The stored load of the key; 0 if the slot is another's or free.
    load: u32,
}

/// The loads of the heaviest sources that one core sees.
#[derive(Clone, Debug)]
pub struct LoadTable {
    lines: Box<[Line]>,
    hasher: SipHasher13,
    scale: Scale,
}

impl LoadTable {
    /// A table of 2^`lines_log2` lines of 64 bytes (at most 2^16), whose loads fall by the factor *e* in 1 /
    /// `decay_per_second` seconds. The key must not be known to clients.
    #[must_use]
    pub fn new(lines_log2: u32, key: [u8; 16], decay_per_second: f64) -> Self {
        let lines = 1 << lines_log2.min(MAX_LINES_LOG2);
        Self {
            lines: vec![Line::EMPTY; lines].into_boxed_slice(),
            hasher: SipHasher13::new_with_key(&key),
            scale: Scale::new(decay_per_second),
        }
    }

    /// Replaces the speed of decay. The loads stay.
    pub fn set_decay(&mut self, per_second: f64) {
        self.scale.halvings_per_ms = halvings_per_ms(per_second);
    }

    /// Size in bytes, which never changes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// The key of a source, whose address is in canonical form. Its lines are loaded into the cache
    /// meanwhile.
    #[must_use]
    #[inline]
    pub fn key(&self, source: IpAddr) -> SourceKey {
        let hashes = self.hashes(source);
        black_box(hashes.iter().fold(0, |sum, &hash| sum ^ self.lines[self.line(hash)].loads[0]));
        SourceKey(hashes)
    }

    /// Charges a source, whose address is in canonical form, and returns its loads at each prefix length,
    /// which end at their maximum. `now` is in milliseconds.
    pub fn add(&mut self, source: IpAddr, now: u64, prices: Loads) -> Loads {
        self.add_by_key(SourceKey(self.hashes(source)), now, prices)
    }

    /// As [`add`](Self::add), for a source whose key is known.
    #[inline]
    pub fn add_by_key(&mut self, source: SourceKey, now: u64, prices: Loads) -> Loads {
        let places = self.places(source, now);
        std::array::from_fn(|level| {
            let price = self.scale.scaled(prices[level]);
            let load = places[level].load.saturating_add(price).min(self.scale.limit);
            self.put(places[level], load);
            self.scale.unscaled(load)
        })
    }

    /// Charges a source if its loads leave room for that, else nothing.
    ///
    /// # Errors
    /// The prefix length, as a position in [`lengths`], at which there is no room, the longest first.
    #[inline]
    pub fn try_add(&mut self, source: IpAddr, now: u64, prices: Loads) -> Result<(), usize> {
        self.try_add_by_key(SourceKey(self.hashes(source)), now, prices)
    }

    /// As [`try_add`](Self::try_add), for a source whose key is known.
    ///
    /// # Errors
    /// The same.
    #[inline]
    pub fn try_add_by_key(&mut self, source: SourceKey, now: u64, prices: Loads) -> Result<(), usize> {
        let places = self.places(source, now);
        let mut loads = [0; LEVELS];
        for (level, load) in loads.iter_mut().enumerate() {
            let sum = places[level].load.checked_add(self.scale.scaled(prices[level]));
            *load = sum.filter(|&sum| sum <= self.scale.limit).ok_or(level)?;
        }
        places.into_iter().zip(loads).for_each(|(place, load)| self.put(place, load));
        Ok(())
    }

    /// The loads of a source at each prefix length.
    #[must_use]
    pub fn loads(&mut self, source: IpAddr, now: u64) -> Loads {
        self.places(SourceKey(self.hashes(source)), now).map(|place| self.scale.unscaled(place.load))
    }

    #[inline]
    fn places(&mut self, source: SourceKey, now: u64) -> [Place; LEVELS] {
        let halvings = self.scale.advance(now);
        if halvings > 0 {
            self.halve(halvings);
        }
        // Where two prefix lengths take the same slot, which is that of a light key, the shorter one keeps
        // it.
        let [long, middle, short] = source.0;
        [self.place(long), self.place(middle), self.place(short)]
    }

    #[cold]
    fn halve(&mut self, times: u32) {
        for line in &mut self.lines {
            for load in &mut line.loads {
                *load = load.checked_shr(times).unwrap_or(0);
            }
        }
    }

    /// Hashes of a source at each prefix length. That of the shortest prefix is by SipHash, and it is the
    /// secret multiplier for longer ones in it: networks cannot be made to collide, nor can the addresses in
    /// one.
    #[inline]
    fn hashes(&self, source: IpAddr) -> [u64; LEVELS] {
        /// Any numbers, so that a prefix and a longer one with the same bits are different keys.
        const DIFFERENT: [u64; 2] = [0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB];
        let [long, middle, short] = prefixes(source);
        let hash = self.hasher.hash(&short.to_le_bytes());
        let multiplied = |prefix: u64| {
            let product = u128::from(prefix) * u128::from(hash | 1);
            (product >> 64) as u64 ^ product as u64
        };
        [multiplied(long ^ DIFFERENT[0]), multiplied(middle ^ DIFFERENT[1]), hash]
    }

    /// Position of the line in which a key may be.
    #[inline]
    fn line(&self, hash: u64) -> usize {
        hash as usize & (self.lines.len() - 1)
    }

    /// The slot of a key, or the one that it may take.
    #[inline]
    fn place(&self, hash: u64) -> Place {
        let line = self.line(hash);
        let fingerprint = (hash >> 32) as u32;
        let (slot, load) = self.lines[line].find(fingerprint);
        Place { line, slot, fingerprint, load }
    }

    #[inline]
    fn put(&mut self, place: Place, load: u32) {
        let line = &mut self.lines[place.line];
        line.fingerprints[place.slot] = place.fingerprint;
        line.loads[place.slot] = load;
    }
}

/// The bits of a source's prefix at each prefix length, the highest first. The lowest bit of the shortest is
/// the family.
#[inline]
fn prefixes(source: IpAddr) -> [u64; LEVELS] {
    let (bits, family) = match source {
        IpAddr::V4(v4) => (u64::from(v4.to_bits()) << 32, 0),
        IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64, 1),
    };
    let [long, middle, short] = lengths(source);
    let prefix = |length: u8| bits >> (64 - length) << (64 - length);
    [prefix(long), prefix(middle), prefix(short) | family]
}

/// A rate of requests and the number of them that may come at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// Requests per second that are always served. Above 0.
    pub rate: f64,
    /// Requests that are served at once. At least 1.
    pub burst: f64,
    /// What the networks around an address may send, as multiples of both, the longest prefix first.
    pub multiples: [u32; LEVELS],
}

impl Allowance {
    /// The speed at which loads must decay for a full burst to be served again at this rate.
    #[must_use]
    pub fn decay_per_second(&self) -> f64 {
        self.rate / self.burst
    }

    /// Price of a request at each prefix length, for a load whose maximum is the limit.
    ///
    /// Even requests at the rate reach a load of burst + 1/2 prices; within one tick of the clock nothing
    /// decays. Both have room, and what is left is rounded down, in favour of the source.
    #[must_use]
    pub fn prices(&self) -> Loads {
        const TICK: f64 = 0.001;
        self.multiples.map(|multiple| {
            let (rate, burst) = (self.rate * f64::from(multiple), self.burst * f64::from(multiple));
            (f64::from(MAX_LOAD) / (burst + 1.0 + 2.0 * rate * TICK)) as u32
        })
    }
}

#[cfg(test)]
mod tests;
