//! The announce interval: how long clients are asked to wait before they announce again.

use aquatic_common::Seconds;
use aquatic_common::time::shorten;
use rand::{Rng, RngExt};

use crate::stretch::{GivenOut, Load, Stretch};

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

/// The intervals that one core gives out, and has given out.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// The usual interval.
    pub policy: IntervalPolicy,
    /// How far it is stretched.
    pub stretch: Stretch,
    load: Load,
    given_out: GivenOut,
}

impl Intervals {
    /// Intervals of a core that has not done anything yet.
    #[must_use]
    pub fn new(policy: IntervalPolicy, stretch: Stretch) -> Self {
        Self { policy, stretch, load: Load::default(), given_out: GivenOut::default() }
    }

    /// Takes in that the core was busy for a share of some seconds.
    pub fn add_load(&mut self, busy: f64, seconds: f64) {
        self.load.add(busy, seconds);
    }

    /// The share of its time that the core is busy, averaged, from 0 to 1.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.load.busy()
    }

    /// The interval for one reply in seconds: stretched by the core's load and the number of peers of the
    /// swarm, then shortened at random.
    #[inline]
    pub fn next(&mut self, swarm: u64, rng: &mut impl Rng) -> u32 {
        let interval = self.stretch.interval(self.policy.interval, &self.load, swarm);
        self.given_out.note(interval);
        IntervalPolicy { interval, ..self.policy }.next(rng)
    }

    /// The longest interval that a client may be waiting for, in seconds.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.policy.longest().max(self.given_out.longest())
    }

    /// The longest interval in seconds that a client may be waiting for; 0 if none was given out.
    #[must_use]
    pub fn longest_given_out(&self) -> u32 {
        self.given_out.longest()
    }

    /// Takes in that a client may be waiting for an interval of so many seconds that a predecessor gave out.
    pub fn note_given_out(&mut self, interval: u32) {
        self.given_out.note(interval);
    }

    /// Age in seconds up to which peers have to be remembered: the configured one, or longer if longer
    /// intervals were given out. To be asked about now and then.
    pub fn peer_age(&mut self, now: Seconds, configured: u32) -> u32 {
        self.given_out.peer_age(now, configured)
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
