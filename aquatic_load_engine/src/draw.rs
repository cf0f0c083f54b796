//! Numbers that look random and follow from a seed. Speed matters more than quality: several are drawn per request.

/// Turns numbers that differ in a bit into numbers that differ in about half of theirs.
#[must_use]
pub fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The stream of a seed. Streams of different `stream` numbers have nothing to do with each other.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { state: mix(mix(seed) ^ stream) }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let bits = mix(self.state);
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits
    }

    /// A number below `limit`; 0 when the limit is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        scale(self.bits(), limit)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A number from 0 up to but not including 1.
    pub fn unit(&mut self) -> f64 {
        unit(self.bits())
    }
}

/// Maps 64 random bits to a number below `limit`.
#[must_use]
pub fn scale(bits: u64, limit: u64) -> u64 {
    // The high half of the product is below the limit, so the cast keeps all of it.
    ((u128::from(bits) * u128::from(limit)) >> 64) as u64
}

/// Maps 64 random bits to a number from 0 up to but not including 1.
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
            let mut draw = Draw::new(seed, stream);
            [draw.bits(), draw.bits(), draw.bits()]
        };
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(1, 3));
        assert_ne!(take(1, 2), take(2, 2));
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut draw = Draw::new(7, 0);
        let mut counts = [0_i64; 10];
        for _ in 0..100_000 {
            counts[usize::try_from(draw.below(10)).unwrap()] += 1;
        }
        // The standard deviation of each count is 95.
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 500), "{counts:?}");
        let hits = (0..100_000).filter(|_| draw.chance(0.25)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert_eq!(draw.below(0), 0);
    }
}
