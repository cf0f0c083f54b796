//! Loads of sources in fixed memory: how much each address, and each network around it, has asked for lately.
//!
//! A [`LoadTable`] remembers heavy sources and forgets light ones. It consists of lines of one cache line
//! with seven slots each. A slot holds a fingerprint and a load; the loads of a line decay together when it
//! is next used. A key (a prefix length and the bits of the prefix) may be in any slot of two lines that a
//! keyed hash names. A new key takes the slot with the smallest load and starts at zero: whatever others do,
//! a source is never charged for what it did not ask for. A source that is heavy enough to matter keeps its
//! slot, because the newcomers evict each other.
//!
//! One call charges an address at several prefix lengths ([`LENGTHS_V4`], [`LENGTHS_V6`]). The method is that
//! of a leaky bucket with exponential decay: a load is proportional to the rate of a source.

use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// Number of prefix lengths at which a source is charged.
pub const LEVELS: usize = 3;

/// Prefix lengths of IPv4, the longest first.
pub const LENGTHS_V4: [u8; LEVELS] = [32, 24, 20];

/// Prefix lengths of IPv6, the longest first: a household has a /64 or more.
pub const LENGTHS_V6: [u8; LEVELS] = [64, 56, 48];

/// Load of a key, or the price of a request, at each prefix length, the longest first.
pub type Loads = [u32; LEVELS];

/// Number of slots in a line.
const SLOTS: usize = 7;

/// Maximum of the binary logarithm of the number of lines: two indices are taken from 32 bits of a hash.
const MAX_LINES_LOG2: u32 = 16;

/// Milliseconds after which a line that was not used is empty.
const FORGOTTEN_AFTER: u64 = 1 << 18;

/// The prefix lengths for the family of an address.
#[must_use]
pub fn lengths(ip: IpAddr) -> [u8; LEVELS] {
    match ip {
        IpAddr::V4(_) => LENGTHS_V4,
        IpAddr::V6(_) => LENGTHS_V6,
    }
}

/// One cache line: the time of its last decay in milliseconds, and slots of a fingerprint (high half) and a
/// load (low half). A load of zero marks a free slot.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Line {
    updated: u64,
    slots: [u64; SLOTS],
}

const _: () = assert!(size_of::<Line>() == 64, "one look touches two cache lines per prefix length");

/// What is left of a load after a time, as shares of 2^32.
#[derive(Clone, Debug)]
struct Decay {
    /// For 0 to 63 milliseconds.
    fine: [u64; 64],
    /// For multiples of 64 milliseconds.
    medium: [u64; 64],
    /// For multiples of 4096 milliseconds.
    coarse: [u64; 64],
}

impl Decay {
    fn new(per_second: f64) -> Self {
        let powers = |step: f64| {
            std::array::from_fn(|count| {
                let share = (-per_second * step * count as f64 / 1000.0).exp();
                // At most 2^32, for a share of 1.
                (share * (1_u64 << 32) as f64) as u64
            })
        };
        Self { fine: powers(1.0), medium: powers(64.0), coarse: powers(4096.0) }
    }

    /// The share of 2^32 that is left after some milliseconds.
    #[inline]
    fn after(&self, milliseconds: u64) -> u64 {
        if milliseconds >= FORGOTTEN_AFTER {
            return 0;
        }
        let fine = self.fine[(milliseconds & 63) as usize];
        if milliseconds < 64 {
            return fine;
        }
        let medium = self.medium[(milliseconds >> 6 & 63) as usize];
        let coarse = self.coarse[(milliseconds >> 12 & 63) as usize];
        ((((u128::from(fine) * u128::from(medium)) >> 32) * u128::from(coarse)) >> 32) as u64
    }
}

/// Position of a key: line and slot.
#[derive(Clone, Copy, Debug)]
struct Place {
    line: usize,
    slot: usize,
    fingerprint: u64,
    /// The load of the key; 0 if the slot is another's or free.
    load: u32,
}

/// The loads of the heaviest sources that one core sees.
#[derive(Clone, Debug)]
pub struct LoadTable {
    lines: Box<[Line]>,
    hasher: SipHasher13,
    decay: Decay,
}

impl LoadTable {
    /// A table of 2^`lines_log2` lines of 64 bytes (at most 2^16), whose loads fall by the factor *e* in 1 /
    /// `decay_per_second` seconds. The key must not be known to clients.
    #[must_use]
    pub fn new(lines_log2: u32, key: [u8; 16], decay_per_second: f64) -> Self {
        let lines = 1 << lines_log2.min(MAX_LINES_LOG2);
        Self {
            lines: vec![Line { updated: 0, slots: [0; SLOTS] }; lines].into_boxed_slice(),
            hasher: SipHasher13::new_with_key(&key),
            decay: Decay::new(decay_per_second),
        }
    }

    /// Replaces the speed of decay. The loads stay.
    pub fn set_decay(&mut self, per_second: f64) {
        self.decay = Decay::new(per_second);
    }

    /// Size in bytes, which never changes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// Charges a source, whose address is in canonical form, and returns its loads at each prefix length,
    /// which end at their maximum. `now` is in milliseconds.
    pub fn add(&mut self, source: IpAddr, now: u64, prices: Loads) -> Loads {
        let places = self.places(source, now);
        std::array::from_fn(|level| {
            let load = places[level].load.saturating_add(prices[level]);
            self.put(places[level], load);
            load
        })
    }

    /// Charges a source if its loads leave room for that, else nothing.
    ///
    /// # Errors
    /// The prefix length, as a position in [`lengths`], at which there is no room, the longest first.
    #[inline]
    pub fn try_add(&mut self, source: IpAddr, now: u64, prices: Loads) -> Result<(), usize> {
        let places = self.places(source, now);
        let mut loads = [0; LEVELS];
        for (level, load) in loads.iter_mut().enumerate() {
            *load = places[level].load.checked_add(prices[level]).ok_or(level)?;
        }
        places.into_iter().zip(loads).for_each(|(place, load)| self.put(place, load));
        Ok(())
    }

    /// The loads of a source at each prefix length.
    #[must_use]
    pub fn loads(&mut self, source: IpAddr, now: u64) -> Loads {
        self.places(source, now).map(|place| place.load)
    }

    #[inline]
    fn places(&mut self, source: IpAddr, now: u64) -> [Place; LEVELS] {
        let hashes = keys(source).map(|key| self.hasher.hash(&key.to_le_bytes()));
        // Where two prefix lengths take the same slot, which is that of a light key, the shorter one keeps
        // it.
        hashes.map(|hash| self.place(hash, now))
    }

    /// The slot of a key, or the one that it may take.
    #[inline]
    fn place(&mut self, hash: u64, now: u64) -> Place {
        let mask = self.lines.len() - 1;
        let fingerprint = hash >> 32;
        let lines = [hash as usize & 0xFFFF & mask, (hash >> 16) as usize & 0xFFFF & mask];
        let mut lightest = Place { line: lines[0], slot: 0, fingerprint, load: 0 };
        let mut least = u32::MAX;
        for line in lines {
            self.bring_up_to(line, now);
            for (slot, &word) in self.lines[line].slots.iter().enumerate() {
                let load = word as u32;
                if word >> 32 == fingerprint && load > 0 {
                    return Place { line, slot, fingerprint, load };
                }
                if load < least {
                    least = load;
                    (lightest.line, lightest.slot) = (line, slot);
                }
            }
        }
        lightest
    }

    /// Lets the loads of a line decay. A clock that stands still, or goes back, changes nothing.
    #[inline]
    fn bring_up_to(&mut self, line: usize, now: u64) {
        let line = &mut self.lines[line];
        let passed = now.saturating_sub(line.updated);
        if passed == 0 {
            return;
        }
        line.updated = now;
        let left = self.decay.after(passed);
        for word in &mut line.slots {
            let load = ((*word & u64::from(u32::MAX)) * left) >> 32;
            *word = *word >> 32 << 32 | load;
        }
    }

    #[inline]
    fn put(&mut self, place: Place, load: u32) {
        self.lines[place.line].slots[place.slot] = place.fingerprint << 32 | u64::from(load);
    }
}

/// What is hashed for a source at each prefix length: family and length in the highest byte, and the bits of
/// the prefix, of which there are at most 64.
#[inline]
fn keys(source: IpAddr) -> [u128; LEVELS] {
    let bits = match source {
        IpAddr::V4(v4) => u64::from(v4.to_bits()) << 32,
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    };
    let family = u128::from(source.is_ipv6()) << 127;
    lengths(source).map(|length| {
        let prefix = bits >> (64 - length) << (64 - length);
        family | u128::from(length) << 64 | u128::from(prefix)
    })
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
            (f64::from(u32::MAX) / (burst + 1.0 + 2.0 * rate * TICK)) as u32
        })
    }
}

#[cfg(test)]
mod tests;
