//! Random sampling without allocation.

use rand::Rng;

use crate::accesses;
use crate::types::MAX_NUMWANT;

/// Returns a uniformly distributed number below `bound`, which must not be 0.
pub(crate) fn below(rng: &mut impl Rng, bound: u32) -> u32 {
    let mut product = u64::from(rng.next_u32()) * u64::from(bound);
    // The low half is the offset of the random number within the interval of its result. Only offsets below
    // the remainder of 2^32 divided by the bound make some results likelier than others; these are rejected.
    if (product as u32) < bound {
        let excess = bound.wrapping_neg() % bound;
        while (product as u32) < excess {
            product = u64::from(rng.next_u32()) * u64::from(bound);
        }
    }
    (product >> 32) as u32
}

/// Returns how many of `count` to take from the first of two groups, in proportion to their sizes: the exact
/// share, rounded up or down at random so that the expected value is exact. Takes no more from a group than
/// it has, if both together have `count`.
pub(crate) fn proportion(rng: &mut impl Rng, first: u32, second: u32, count: u32) -> u32 {
    if first == 0 || second == 0 {
        return count.min(first);
    }
    let all = first + second;
    let product = u64::from(count) * u64::from(first);
    let (share, rest) = ((product / u64::from(all)) as u32, (product % u64::from(all)) as u32);
    share + u32::from(rest > 0 && below(rng, all) < rest)
}

/// Maximum length of a run of [`runs`].
const MAX_RUN: u32 = 32;

/// Visits `count` distinct numbers below `bound` as runs of consecutive numbers (first number and length).
/// Each number is equally likely. Visits all of them if there are no more than `count`, and at most
/// [`MAX_NUMWANT`].
pub(crate) fn runs(rng: &mut impl Rng, bound: u32, count: u32, mut visit: impl FnMut(u32, u32)) {
    let count = count.min(MAX_NUMWANT as u32).min(bound);
    if count == bound {
        accesses::add(count as usize);
        if count > 0 {
            visit(0, count);
        }
        return;
    }
    // The numbers form a circle with a random origin, which makes all of them equally likely. It is divided
    // into one part per run, each with its share of the skipped numbers; the run has a random offset within
    // its part.
    let (runs, left_out) = (count.div_ceil(MAX_RUN), bound - count);
    let part = |of: u32, run: u32| of / runs + u32::from(run < of % runs);
    let mut origin = below(rng, bound);
    for run in 0..runs {
        let (len, gap) = (part(count, run), part(left_out, run));
        let begin = wrap(origin + below(rng, gap + 1), bound);
        let before_end = len.min(bound - begin);
        accesses::add(len as usize);
        visit(begin, before_end);
        if before_end < len {
            visit(0, len - before_end);
        }
        origin = wrap(origin + len + gap, bound);
    }
}

fn wrap(at: u32, bound: u32) -> u32 {
    if at < bound { at } else { at - bound }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    fn rng() -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(0x5eed)
    }

    /// Returns the chi-square statistic of counts with equal expected values, in standard deviations from its
    /// mean.
    fn deviation(counts: &[u64]) -> f64 {
        let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let chi: f64 = counts.iter().map(|&count| (count as f64 - mean).powi(2) / mean).sum();
        let freedom = (counts.len() - 1) as f64;
        (chi - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn below_is_uniform() {
        let mut rng = rng();
        for bound in [1, 2, 3, 7, 100, 1000] {
            let mut counts = vec![0; bound as usize];
            (0..200 * bound).for_each(|_| counts[below(&mut rng, bound) as usize] += 1);
            assert!(bound == 1 || deviation(&counts).abs() < 4.0, "{bound}: {}", deviation(&counts));
        }
    }

    fn visited(rng: &mut Xoshiro256PlusPlus, bound: u32, count: u32) -> Vec<u32> {
        let mut picks = Vec::new();
        runs(rng, bound, count, |begin, len| picks.extend(begin..begin + len));
        picks.sort_unstable();
        picks
    }

    #[test]
    fn runs_are_distinct_numbers_of_the_exact_count() {
        let mut rng = rng();
        for bound in [0, 1, 2, 15, 16, 17, 33, 50, 51, 512, 1030, 16_384, 10_000_000] {
            for count in [0, 1, 2, 15, 16, 17, 50, 64, 202, 1000, MAX_NUMWANT as u32, 2000] {
                let mut picks = visited(&mut rng, bound, count);
                picks.dedup();
                assert_eq!(
                    picks.len() as u32,
                    count.min(bound).min(MAX_NUMWANT as u32),
                    "{count} of {bound}"
                );
                assert!(picks.iter().all(|&pick| pick < bound));
            }
        }
    }

    #[test]
    fn runs_are_uniform() {
        let mut rng = rng();
        for (bound, count) in [(6, 3), (17, 16), (100, 50), (101, 17), (129, 99), (1000, 50), (1003, 202)] {
            let mut counts = vec![0; bound as usize];
            for _ in 0..1_000_000 / count {
                visited(&mut rng, bound, count).into_iter().for_each(|pick| counts[pick as usize] += 1);
            }
            // Numbers of a run are visited together, which multiplies the variance of the counts by up to the
            // run length.
            let runs = f64::from(MAX_RUN.min(count));
            assert!(
                deviation(&counts) / runs < (f64::from(bound) / 2.0).sqrt() + 4.0,
                "{bound}, {count}: {}",
                deviation(&counts)
            );
        }
    }

    #[test]
    fn proportion_is_exact_on_average() {
        let mut rng = rng();
        for (first, second, count) in [(30, 10, 20), (1, 99, 10), (7, 6, 5), (3, 1000, 1)] {
            let drawn: Vec<u32> = (0..40_000).map(|_| proportion(&mut rng, first, second, count)).collect();
            let (mean, exact) = (
                f64::from(drawn.iter().sum::<u32>()) / 40_000.0,
                f64::from(count * first) / f64::from(first + second),
            );
            assert!((mean - exact).abs() < 0.01, "{mean}, {exact}");
            assert!(drawn.iter().all(|drawn| (f64::from(*drawn) - exact).abs() < 1.0));
        }
        let all = |rng: &mut _, first, second| proportion(rng, first, second, first + second);
        assert_eq!((all(&mut rng, 3, 4), all(&mut rng, 0, 4), all(&mut rng, 4, 0)), (3, 0, 4));
    }
}
