//! Uniform random samples without replacement and without allocation.

use rand::Rng;

use crate::steps;
use crate::types::MAX_WANTED;

/// A uniform number below `bound`, which is not 0.
pub(crate) fn below(rng: &mut impl Rng, bound: u32) -> u32 {
    let mut product = u64::from(rng.next_u32()) * u64::from(bound);
    // The low half tells where in its interval the draw fell. Only a short stretch at its start, the remainder of
    // 2^32 divided by the bound, would make some results likelier than others.
    if (product as u32) < bound {
        let excess = bound.wrapping_neg() % bound;
        while (product as u32) < excess {
            product = u64::from(rng.next_u32()) * u64::from(bound);
        }
    }
    (product >> 32) as u32
}

/// How many of `count` draws without replacement from two urns fall into the first.
pub(crate) fn share(rng: &mut impl Rng, first: u32, second: u32, count: u32) -> u32 {
    if first == 0 || second == 0 {
        return count.min(first);
    }
    let (mut left, mut all, mut drawn) = (first, first + second, 0);
    for _ in 0..count.min(all) {
        if left > 0 && below(rng, all) < left {
            left -= 1;
            drawn += 1;
        }
        all -= 1;
    }
    drawn
}

/// Visits `count` distinct numbers below `bound`, every such set being equally likely. Visits all of them, in order, if
/// there are no more; and at most [`MAX_WANTED`].
pub(crate) fn distinct(rng: &mut impl Rng, bound: u32, count: u32, visit: impl FnMut(u32)) {
    let count = count.min(MAX_WANTED as u32).min(bound);
    steps::touch(count as usize);
    if count == bound {
        (0..bound).for_each(visit);
    } else if bound <= 512 {
        draw(rng, bound, count, Bits([0_u64; 8]), visit);
    } else if count <= 64 {
        draw(rng, bound, count, Hashed([0_u32; 256]), visit);
    } else if bound <= 16_384 {
        draw(rng, bound, count, Bits([0_u64; 256]), visit);
    } else {
        draw(rng, bound, count, Hashed([0_u32; 4 * MAX_WANTED]), visit);
    }
}

/// Floyd's method: one draw per number. The i-th draw is from a range that is one longer than the last; should it hit a
/// number that is already in the sample, the number at the end of the range cannot be in it yet and is taken instead.
fn draw(rng: &mut impl Rng, bound: u32, count: u32, mut sample: impl Sample, mut visit: impl FnMut(u32)) {
    for end in bound - count..bound {
        let pick = below(rng, end + 1);
        let pick = if sample.add(pick) { pick } else { end };
        if pick == end {
            sample.add(end);
        }
        visit(pick);
    }
}

/// A set of numbers on the stack.
trait Sample {
    /// Adds a number. Returns whether it was not in the set.
    fn add(&mut self, number: u32) -> bool;
}

/// One bit for each number.
struct Bits<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Sample for Bits<WORDS> {
    fn add(&mut self, number: u32) -> bool {
        let word = &mut self.0[number as usize / 64];
        let bit = 1 << (number % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// Open addressing, at most a quarter full; 0 marks a free slot.
struct Hashed<const SLOTS: usize>([u32; SLOTS]);

impl<const SLOTS: usize> Sample for Hashed<SLOTS> {
    fn add(&mut self, number: u32) -> bool {
        let mut at = (number.wrapping_mul(0x9e37_79b1) >> 16) as usize % SLOTS;
        loop {
            match self.0[at] {
                0 => {
                    self.0[at] = number + 1;
                    return true;
                }
                taken if taken == number + 1 => return false,
                _ => at = (at + 1) % SLOTS,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    fn rng() -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(0x5eed)
    }

    /// Chi-square of counts that should all be equal, as standard deviations from its mean.
    fn deviation(counts: &[u64]) -> f64 {
        let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let chi: f64 = counts.iter().map(|&count| (count as f64 - mean).powi(2) / mean).sum();
        let freedom = (counts.len() - 1) as f64;
        (chi - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn numbers_are_equally_likely_below_any_bound() {
        let mut rng = rng();
        for bound in [1, 2, 3, 7, 100, 1000] {
            let mut counts = vec![0; bound as usize];
            (0..200 * bound).for_each(|_| counts[below(&mut rng, bound) as usize] += 1);
            assert!(bound == 1 || deviation(&counts).abs() < 4.0, "{bound}: {}", deviation(&counts));
        }
    }

    #[test]
    fn every_set_is_equally_likely() {
        let mut rng = rng();
        let mut counts = vec![0; 1 << 6];
        for _ in 0..40_000 {
            let mut set = 0_usize;
            distinct(&mut rng, 6, 3, |pick| set |= 1 << pick);
            counts[set] += 1;
        }
        let sets: Vec<u64> = counts.iter().copied().filter(|&count| count > 0).collect();
        assert_eq!(sets.len(), 20);
        assert!(deviation(&sets).abs() < 4.0, "{}", deviation(&sets));
    }

    #[test]
    fn samples_are_distinct_and_of_the_exact_size() {
        let mut rng = rng();
        for bound in [1, 2, 50, 51, 512, 513, 8192, 16_384, 16_385, 1_000_000, 10_000_000] {
            for count in [0, 1, 2, 50, 64, 65, 202, 1000, MAX_WANTED as u32, 2000] {
                let mut picks = Vec::new();
                distinct(&mut rng, bound, count, |pick| picks.push(pick));
                assert_eq!(picks.len() as u32, count.min(bound).min(MAX_WANTED as u32));
                assert!(picks.iter().all(|&pick| pick < bound));
                picks.sort_unstable();
                picks.dedup();
                assert_eq!(picks.len() as u32, count.min(bound).min(MAX_WANTED as u32));
            }
        }
    }

    #[test]
    fn large_ranges_are_covered_evenly() {
        let mut rng = rng();
        for (bound, count) in [(400, 50), (5000, 50), (5000, 202), (20_000, 202), (20_000, 1000)] {
            let mut counts = vec![0; 100];
            for _ in 0..400_000 / count {
                distinct(&mut rng, bound, count, |pick| counts[(pick * 100 / bound) as usize] += 1);
            }
            // Draws without replacement vary less than independent ones, so only excess is suspicious.
            assert!(deviation(&counts) < 4.0, "{bound}, {count}: {}", deviation(&counts));
        }
    }

    #[test]
    fn urns_are_drawn_from_in_proportion() {
        let mut rng = rng();
        let drawn: u32 = (0..20_000).map(|_| share(&mut rng, 30, 10, 20)).sum();
        let mean = f64::from(drawn) / 20_000.0;
        assert!((mean - 15.0).abs() < 0.05, "{mean}");
        assert_eq!((share(&mut rng, 3, 4, 9), share(&mut rng, 0, 4, 2), share(&mut rng, 4, 0, 2)), (3, 0, 2));
    }
}
