//! Seeded pseudo-random numbers (SplitMix64). Speed matters more than quality: a request takes several.

/// EventLoop numbers that differ in a bit into numbers that differ in about half of theirs.
#[must_use]
pub fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Creates a stream. Streams with different numbers are independent of each other.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { state: mix(mix(seed) ^ stream) }
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let bits = mix(self.state);
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits
    }

    /// Returns a number below `limit`, or 0 if the limit is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        scale(self.next_u64(), limit)
    }

    /// Returns true with this probability, from 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Returns a number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        unit(self.next_u64())
    }
}

/// Maps 64 random bits to a number below `limit`.
#[must_use]
pub fn scale(bits: u64, limit: u64) -> u64 {
    // The high half of the product is below the limit, so the cast keeps all of it.
    ((u128::from(bits) * u128::from(limit)) >> 64) as u64
}

/// Maps 64 random bits to a number in [0, 1).
#[must_use]
pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_stream() {
        let take = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            [rng.next_u64(), rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(1, 3));
        assert_ne!(take(1, 2), take(2, 2));
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut rng = Rng::new(7, 0);
        let mut counts = [0_i64; 10];
        for _ in 0..100_000 {
            counts[usize::try_from(rng.below(10)).unwrap()] += 1;
        }
        // The standard deviation of each count is 95.
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 500), "{counts:?}");
        let hits = (0..100_000).filter(|_| rng.chance(0.25)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert_eq!(rng.below(0), 0);
    }
}
