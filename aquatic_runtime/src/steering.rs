//! Which core owns a torrent. The kernel's steering program computes the same function over the bytes of a packet, so
//! it is written in the few 32-bit operations that such a program has.

use aquatic_common::InfoHash;
use rand::{Rng, RngExt};

/// By how many bits the product is shifted down before it is mixed with itself: the low bits of a product depend on
/// few bits of its factors, and the modulus looks at the low bits.
pub const MIX_SHIFT: u32 = 16;

/// Maps info hashes to cores. One value for the whole process, drawn at start so that a stranger who chooses info
/// hashes cannot aim at one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    key: u32,
    multiplier: u32,
    cores: u32,
}

impl Steering {
    /// A mapping to this many cores with a fresh key. No cores count as one.
    pub fn new(cores: usize, rng: &mut impl Rng) -> Self {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX).max(1);
        Self { key: rng.random(), multiplier: rng.random::<u32>() | 1, cores }
    }

    /// What the first four bytes of the info hash, as a big-endian number, are mixed with.
    #[must_use]
    pub fn key(&self) -> u32 {
        self.key
    }

    /// An odd number, so that multiplying by it loses nothing.
    #[must_use]
    pub fn multiplier(&self) -> u32 {
        self.multiplier
    }

    /// How many cores there are, at least one.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores as usize
    }

    /// The index of the core that owns the torrent.
    #[must_use]
    pub fn owner(&self, info_hash: &InfoHash) -> usize {
        let [a, b, c, d, ..] = info_hash.0;
        let mut x = u32::from_be_bytes([a, b, c, d]);
        x ^= self.key;
        x = x.wrapping_mul(self.multiplier);
        x ^= x >> MIX_SHIFT;
        (x % self.cores) as usize
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn torrents_spread_evenly_and_stay_put() {
        let mut rng = SmallRng::seed_from_u64(5);
        for cores in [1, 2, 3, 8, 48] {
            let steering = Steering::new(cores, &mut rng);
            let mut owned = vec![0_u32; cores];
            for _ in 0..cores * 10_000 {
                let info_hash = InfoHash(rng.random());
                let owner = steering.owner(&info_hash);
                assert_eq!(owner, steering.owner(&info_hash));
                owned[owner] += 1;
            }
            assert!(owned.iter().all(|&n| (9_400..=10_600).contains(&n)), "{cores} cores own {owned:?}");
        }
    }

    #[test]
    fn counting_hashes_spread_too() {
        let steering = Steering::new(2, &mut SmallRng::seed_from_u64(6));
        let owned: usize = (0..10_000_u32)
            .map(|n| {
                let mut hash = [0; 20];
                hash[..4].copy_from_slice(&n.to_be_bytes());
                steering.owner(&InfoHash(hash))
            })
            .sum();
        assert!((4_000..=6_000).contains(&owned), "core 1 owns {owned} of 10,000");
    }

    #[test]
    fn no_cores_are_one() {
        let steering = Steering::new(0, &mut SmallRng::seed_from_u64(7));
        assert_eq!((steering.cores(), steering.owner(&InfoHash([9; 20]))), (1, 0));
    }
}
