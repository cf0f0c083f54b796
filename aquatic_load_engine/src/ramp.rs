//! How fast the first connections are made.

use crate::clock::{Nanos, SECOND};

/// The connections of a thread, made at a rate, and so that few wait for the tracker at a time: its queue of connections
/// to accept is limited, and what does not fit is delayed by seconds.
#[derive(Clone, Debug)]
pub struct Ramp {
    per_second: Option<f64>,
    opening: usize,
    begun: usize,
    unproven: usize,
    /// Which of all connections have come to something.
    proven: Vec<bool>,
    start: Option<Nanos>,
}

impl Ramp {
    /// So many connections, at this rate if it is not 0, of which up to `opening` wait for their first response.
    #[must_use]
    pub fn new(all: usize, per_second: f64, opening: u32) -> Self {
        let per_second = Some(per_second).filter(|rate| *rate > 0.0);
        let opening = opening as usize;
        Self { per_second, opening, begun: 0, unproven: 0, proven: vec![false; all], start: None }
    }

    /// How many were begun. They are numbered from 0.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun
    }

    /// Whether all were begun.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.begun == self.proven.len()
    }

    /// The number of a connection to begin now, if there is one. The time counts from the first call.
    pub fn next(&mut self, now: Nanos) -> Option<usize> {
        let time = now - *self.start.get_or_insert(now);
        let allowed = match self.per_second {
            None => self.proven.len(),
            Some(rate) => 1 + (time as f64 / SECOND as f64 * rate) as usize,
        };
        if self.begun == allowed.min(self.proven.len()) || self.unproven >= self.opening {
            return None;
        }
        self.begun += 1;
        self.unproven += 1;
        Some(self.begun - 1)
    }

    /// A connection that was begun has come to something, be it a response or a failure. Counts once for each number.
    pub fn prove(&mut self, number: usize) {
        if !std::mem::replace(&mut self.proven[number], true) {
            self.unproven -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_at_a_time_than_may_wait() {
        let mut ramp = Ramp::new(5, 0.0, 3);
        assert_eq!(std::iter::from_fn(|| ramp.next(7)).collect::<Vec<_>>(), [0, 1, 2]);
        ramp.prove(1);
        ramp.prove(1);
        assert_eq!((ramp.next(7), ramp.next(7), ramp.is_over()), (Some(3), None, false));
        ramp.prove(3);
        assert_eq!((ramp.next(7), ramp.next(7), ramp.is_over()), (Some(4), None, true));
    }

    #[test]
    fn no_faster_than_the_rate() {
        let mut ramp = Ramp::new(10, 2.0, 100);
        let mut begun = |now| std::iter::from_fn(|| ramp.next(now)).count();
        assert_eq!([SECOND, 2 * SECOND, 9 * SECOND / 4, 9 * SECOND].map(&mut begun), [1, 2, 0, 7]);
    }
}
