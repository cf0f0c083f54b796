//! The announce interval: how long clients are asked to wait before they announce again.

use aquatic_common::time::shorten;
use rand::{Rng, RngExt};

/// Interval and jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntervalPolicy {
    /// Longest interval in seconds.
    pub interval: u32,
    /// Share by which it is shortened at random, in percent.
    pub jitter: u32,
}

impl IntervalPolicy {
    /// The interval for one reply in seconds. Jitter only shortens it, so that a peer age of twice the
    /// interval keeps its meaning.
    #[inline]
    pub fn next(&self, rng: &mut impl Rng) -> u32 {
        shorten(self.interval, self.jitter, rng.random())
    }

    /// The longest interval that [`next`](Self::next) returns, in seconds.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.interval
    }

    /// The shortest interval that [`next`](Self::next) returns, in seconds.
    #[must_use]
    pub fn shortest(&self) -> u32 {
        shorten(self.interval, self.jitter, u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn intervals_stay_between_the_shortest_and_the_configured() {
        let policy = IntervalPolicy { interval: 1800, jitter: 10 };
        assert_eq!(policy.shortest(), 1620);
        let mut rng = SmallRng::seed_from_u64(1);
        let drawn: Vec<u32> = (0..1000).map(|_| policy.next(&mut rng)).collect();
        assert!(drawn.iter().all(|interval| (1620..=1800).contains(interval)));
        assert!(
            drawn.iter().any(|&interval| interval < 1650) && drawn.iter().any(|&interval| interval > 1770)
        );
    }
}
