//! Which core owns a torrent. The kernel's steering program computes the same function over the bytes of a
//! packet, so it is written in the few 32-bit operations that such a program has.

use crate::InfoHash;

/// Bits by which the product is shifted down before it is mixed with itself: the low bits of a product depend
/// on few bits of its factors, and the modulus takes the low bits.
pub const MIX_SHIFT: u32 = 16;

/// Maps info hashes to cores. One value for the whole process, with a secret key so that nobody who chooses
/// info hashes can aim at one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    key: u32,
    multiplier: u32,
    cores: u32,
}

impl Steering {
    /// A mapping to this many cores, at least one.
    #[must_use]
    pub fn new(cores: usize, key: [u8; 8]) -> Self {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX).max(1);
        let [a, b, c, d, e, f, g, h] = key;
        let multiplier = u32::from_ne_bytes([e, f, g, h]) | 1;
        Self { key: u32::from_ne_bytes([a, b, c, d]), multiplier, cores }
    }

    /// The number that the first four bytes of the info hash, as a big-endian number, are mixed with.
    #[must_use]
    pub fn key(&self) -> u32 {
        self.key
    }

    /// An odd number, so that multiplying by it loses nothing.
    #[must_use]
    pub fn multiplier(&self) -> u32 {
        self.multiplier
    }

    /// Number of cores, at least one.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores as usize
    }

    /// Index of the core that owns the torrent.
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
    use super::*;

    /// Different info hashes, one for each number.
    fn scattered(n: u64) -> InfoHash {
        let mut hash = [0; 20];
        hash[..8].copy_from_slice(&n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        InfoHash(hash)
    }

    #[test]
    fn torrents_spread_evenly_and_stay_put() {
        for cores in [1, 2, 3, 8, 48] {
            let steering = Steering::new(cores, [3, 1, 4, 1, 5, 9, 2, 6]);
            let mut owned = vec![0_u32; cores];
            for n in 0..cores as u64 * 10_000 {
                let owner = steering.owner(&scattered(n));
                assert_eq!(owner, steering.owner(&scattered(n)));
                owned[owner] += 1;
            }
            assert!(owned.iter().all(|&n| (9_300..=10_700).contains(&n)), "{cores} cores own {owned:?}");
        }
    }

    #[test]
    fn counting_hashes_spread_too() {
        let steering = Steering::new(2, [2, 7, 1, 8, 2, 8, 1, 8]);
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
        let steering = Steering::new(0, [7; 8]);
        assert_eq!((steering.cores(), steering.owner(&InfoHash([9; 20]))), (1, 0));
    }
}
