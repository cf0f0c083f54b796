//! Uniform random samples of positions.

use std::ops::Range;

use rand::{Rng, RngExt};

/// Adds `count` distinct positions out of a range, without one of them, every such set being equally likely; all of them
/// if there are no more. `count` is small.
pub(super) fn draw(
    rng: &mut impl Rng,
    range: Range<usize>,
    without: Option<usize>,
    count: usize,
    picks: &mut Vec<usize>,
) {
    let without = without.filter(|at| range.contains(at));
    let others = range.len() - usize::from(without.is_some());
    // The others are numbered from 0 on; behind the missing one they stand one further.
    let position = |number: usize| {
        let at = range.start + number;
        if without.is_some_and(|missing| at >= missing) { at + 1 } else { at }
    };
    if count >= others {
        picks.extend((0..others).map(position));
        return;
    }
    // Floyd's method: one draw for each, from a range that is one longer each time. A draw that hits what is already in
    // the sample stands for the end of its range, which cannot be in it yet.
    let start = picks.len();
    for end in others - count..others {
        let pick = position(rng.random_range(0..=end));
        let taken = picks[start..].contains(&pick);
        picks.push(if taken { position(end) } else { pick });
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn drawn(rng: &mut SmallRng, range: Range<usize>, without: Option<usize>, count: usize) -> Vec<usize> {
        let mut picks = Vec::new();
        draw(rng, range, without, count, &mut picks);
        picks
    }

    #[test]
    fn samples_are_distinct_and_leave_one_out() {
        let mut rng = SmallRng::seed_from_u64(1);
        for len in 0..20 {
            for count in 0..20 {
                for without in (0..25).map(Some).chain([None]) {
                    let mut picks = drawn(&mut rng, 3..3 + len, without, count);
                    let others = len - usize::from(without.is_some_and(|at| (3..3 + len).contains(&at)));
                    assert_eq!(picks.len(), count.min(others));
                    assert!(picks.iter().all(|at| (3..3 + len).contains(at) && Some(*at) != without));
                    picks.sort_unstable();
                    picks.dedup();
                    assert_eq!(picks.len(), count.min(others));
                }
            }
        }
    }

    #[test]
    fn every_position_is_equally_likely() {
        const ROUNDS: usize = 30_000;
        let mut rng = SmallRng::seed_from_u64(2);
        let mut hits = [0_usize; 12];
        for _ in 0..ROUNDS {
            drawn(&mut rng, 0..12, Some(5), 4).into_iter().for_each(|at| hits[at] += 1);
        }
        assert_eq!(hits[5], 0);
        let expected = (ROUNDS * 4) as f64 / 11.0;
        let distance: f64 =
            (0..12).filter(|at| *at != 5).map(|at| (hits[at] as f64 - expected).powi(2) / expected).sum();
        // The 99.9th percentile of chi-square with ten degrees of freedom; samples without replacement spread less.
        assert!(distance < 29.6, "{hits:?}");
    }
}
