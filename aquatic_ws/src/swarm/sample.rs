//! Random samples of indices.

use std::ops::Range;

use rand::{Rng, RngExt};

use super::Network;

/// Maximum number of peers that are visited for a sample of a crowded torrent. As many as a reply over UDP
/// visits at least.
const MAX_VISITS: usize = 576;
/// Number of counters of networks.
const COUNTERS: usize = 1024;

/// Appends `count` distinct indices of a range, excluding one, each such set being equally likely; all of
/// them if there are no more. Takes time proportional to the square of `count`, which is small.
pub(super) fn sample_indices(
    rng: &mut impl Rng,
    range: Range<usize>,
    excluding: Option<usize>,
    count: usize,
    sampled: &mut Vec<usize>,
) {
    let (eligible, index_of) = eligible(range, excluding);
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

/// Returns the number of eligible indices of a range, excluding one, and what maps ranks among them to them.
fn eligible(range: Range<usize>, excluding: Option<usize>) -> (usize, impl Fn(usize) -> usize) {
    let excluding = excluding.filter(|at| range.contains(at));
    let index_of = move |rank: usize| {
        let at = range.start + rank;
        if excluding.is_some_and(|excluded| at >= excluded) { at + 1 } else { at }
    };
    (range.len() - usize::from(excluding.is_some()), index_of)
}

/// Appends `count` distinct indices of a range, excluding one, of as many networks as possible: no network
/// has two before each of those visited has one, and so on, and which of its own is up to chance. Takes time
/// proportional to the number of visited peers, which are all, or [`MAX_VISITS`] at random.
#[cold]
#[inline(never)] // Its kilobytes of stack would otherwise be part of every announce's frame.
pub(super) fn spread_indices(
    rng: &mut impl Rng,
    (range, excluding): (Range<usize>, Option<usize>),
    count: usize,
    network_of: impl Fn(usize) -> Network,
    sampled: &mut Vec<usize>,
) {
    let (eligible, index_of) = eligible(range, excluding);
    let visits = eligible.min(MAX_VISITS);
    let mut counts = [0_u8; COUNTERS];
    // Another division of the networks among the counters each time.
    let factor = rng.next_u32() | 1;
    // One of each of as many equal parts, in random order: which peer is the first of its network must not
    // depend on its position.
    let mut parts = [0_u16; MAX_VISITS];
    for at in 0..visits {
        let other = below(rng, at + 1);
        parts[at] = parts[other];
        parts[other] = at as u16;
    }
    // By number of earlier ones of the same network, then at random, as the first of a large network comes
    // early: from the most significant bit, 8 bits, 24 bits, and the index.
    let mut visited = [0_u64; MAX_VISITS];
    for (visited, part) in visited[..visits].iter_mut().zip(parts.map(usize::from)) {
        let [begin, end] = [part, part + 1].map(|part| part * eligible / visits);
        let offset = below(rng, end - begin);
        let index = index_of(begin + offset);
        let rank = match network_of(index) {
            Network::UNKNOWN => 0,
            network => {
                let count = &mut counts[network.to_bits().wrapping_mul(factor) as usize >> 22];
                *count = count.saturating_add(1);
                *count - 1
            }
        };
        let random = u64::from(rng.next_u32() >> 8);
        *visited = u64::from(rank) << 56 | random << 32 | index as u64;
    }
    let visited = &mut visited[..visits];
    let count = count.min(visits);
    if count < visits {
        visited.select_nth_unstable(count);
    }
    sampled.extend(visited[..count].iter().map(|visited| (visited & 0xffff_ffff) as usize));
}

/// A random number below a small one.
fn below(rng: &mut impl Rng, count: usize) -> usize {
    ((u64::from(rng.next_u32()) * count as u64) >> 32) as usize
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
    fn spread_samples_are_distinct_and_have_each_network_once_before_any_twice() {
        let mut rng = SmallRng::seed_from_u64(3);
        for len in [0, 1, 2, 19, 600, 5000] {
            for count in [0, 1, 10, 50] {
                for excluding in [None, Some(3), Some(4)] {
                    // Two of three are of one network, and one of five of an unknown one.
                    let network_of = |at: usize| match at {
                        _ if !at.is_multiple_of(3) => Network::from_bits(1 << 31),
                        _ if at.is_multiple_of(5) => Network::UNKNOWN,
                        _ => Network::from_bits((at as u32).wrapping_mul(0x9e37_79b1) | 1),
                    };
                    let mut sampled = Vec::new();
                    let of = (3..3 + len, excluding);
                    spread_indices(&mut rng, of, count, network_of, &mut sampled);
                    let eligible = len - usize::from(excluding.is_some_and(|at| (3..3 + len).contains(&at)));
                    assert_eq!(sampled.len(), count.min(eligible));
                    assert!(sampled.iter().all(|at| (3..3 + len).contains(at) && Some(*at) != excluding));
                    let of_one = sampled.iter().filter(|at| !at.is_multiple_of(3)).count();
                    // Others that share its counter come second, too.
                    assert!(len < 600 || of_one <= 1 + count / 5, "{of_one} of {count} among {len}");
                    sampled.sort_unstable();
                    sampled.dedup();
                    assert_eq!(sampled.len(), count.min(eligible));
                }
            }
        }
    }

    #[test]
    fn every_index_of_a_network_is_equally_likely() {
        // One network has the first or the last 100 of 120, or 1,000 of 1,200, and each other peer is alone.
        for (len, of_one) in [(120, 0..100), (120, 20..120), (1200, 0..1000)] {
            const ROUNDS: usize = 20_000;
            let mut rng = SmallRng::seed_from_u64(4);
            let network_of = |at: usize| {
                let bits =
                    if of_one.contains(&at) { 1 << 31 } else { (at as u32).wrapping_mul(0x9e37_79b1) | 1 };
                Network::from_bits(bits)
            };
            let mut hits = [0_usize; 10];
            for _ in 0..ROUNDS {
                let mut sampled = Vec::new();
                spread_indices(&mut rng, (0..len, None), len / 12, network_of, &mut sampled);
                let ours = sampled.iter().filter(|at| of_one.contains(at));
                ours.for_each(|at| hits[(at - of_one.start) * 10 / of_one.len()] += 1);
            }
            let expected = hits.iter().sum::<usize>() as f64 / 10.0;
            let distance: f64 = hits.iter().map(|hits| (*hits as f64 - expected).powi(2) / expected).sum();
            // The 99.9th percentile of chi-square with nine degrees of freedom.
            assert!(distance < 27.9 && expected > 500.0, "{hits:?}");
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
