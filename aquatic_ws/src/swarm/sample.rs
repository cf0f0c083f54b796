//! Uniform random samples of indices.

use std::ops::Range;

use rand::{Rng, RngExt};

/// Appends `count` distinct indices of a range, excluding one, each such set being equally likely; all of
/// them if there are no more. Takes time proportional to the square of `count`, which is small.
pub(super) fn sample_indices(
    rng: &mut impl Rng,
    range: Range<usize>,
    excluding: Option<usize>,
    count: usize,
    sampled: &mut Vec<usize>,
) {
    let excluding = excluding.filter(|at| range.contains(at));
    let eligible = range.len() - usize::from(excluding.is_some());
    // Maps ranks among the eligible indices to indices.
    let index_of = |rank: usize| {
        let at = range.start + rank;
        if excluding.is_some_and(|excluded| at >= excluded) { at + 1 } else { at }
    };
    if count >= eligible {
        sampled.extend((0..eligible).map(index_of));
        return;
    }
    // Floyd's algorithm: one random number per index, from a range that grows by one each time. If the index
    // is in the sample already, the end of its range, which cannot be, is taken instead.
    let start = sampled.len();
    for end in eligible - count..eligible {
        let index = index_of(rng.random_range(0..=end));
        let taken = sampled[start..].contains(&index);
        sampled.push(if taken { index_of(end) } else { index });
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn sample(rng: &mut SmallRng, range: Range<usize>, excluding: Option<usize>, count: usize) -> Vec<usize> {
        let mut sampled = Vec::new();
        sample_indices(rng, range, excluding, count, &mut sampled);
        sampled
    }

    #[test]
    fn samples_are_distinct_and_exclude_one() {
        let mut rng = SmallRng::seed_from_u64(1);
        for len in 0..20 {
            for count in 0..20 {
                for excluding in (0..25).map(Some).chain([None]) {
                    let mut sampled = sample(&mut rng, 3..3 + len, excluding, count);
                    let eligible = len - usize::from(excluding.is_some_and(|at| (3..3 + len).contains(&at)));
                    assert_eq!(sampled.len(), count.min(eligible));
                    assert!(sampled.iter().all(|at| (3..3 + len).contains(at) && Some(*at) != excluding));
                    sampled.sort_unstable();
                    sampled.dedup();
                    assert_eq!(sampled.len(), count.min(eligible));
                }
            }
        }
    }

    #[test]
    fn every_index_is_equally_likely() {
        const ROUNDS: usize = 30_000;
        let mut rng = SmallRng::seed_from_u64(2);
        let mut hits = [0_usize; 12];
        for _ in 0..ROUNDS {
            sample(&mut rng, 0..12, Some(5), 4).into_iter().for_each(|at| hits[at] += 1);
        }
        assert_eq!(hits[5], 0);
        let expected = (ROUNDS * 4) as f64 / 11.0;
        let distance: f64 =
            (0..12).filter(|at| *at != 5).map(|at| (hits[at] as f64 - expected).powi(2) / expected).sum();
        // The 99.9th percentile of chi-square with ten degrees of freedom. Samples without replacement vary
        // less.
        assert!(distance < 29.6, "{hits:?}");
    }
}
