//! Rate at which the first connections of a thread are opened.

use crate::clock::{Nanos, SECOND};

/// Schedule of first connections, bounded by a rate and by the number of connections without a first
/// response: the tracker's accept queue is limited, and connections beyond it are delayed by seconds.
#[derive(Clone, Debug)]
pub struct Ramp {
    per_second: Option<f64>,
    opening: usize,
    started: usize,
    pending: usize,
    /// Whether each connection has had a response or has failed.
    completed: Vec<bool>,
    start: Option<Nanos>,
}

impl Ramp {
    /// Schedule of `all` connections at a rate (0 for no limit), with at most `opening` of them without a
    /// response.
    #[must_use]
    pub fn new(all: usize, per_second: f64, opening: u32) -> Self {
        let per_second = Some(per_second).filter(|rate| *rate > 0.0);
        let opening = opening as usize;
        Self { per_second, opening, started: 0, pending: 0, completed: vec![false; all], start: None }
    }

    /// Number of connections started. They are numbered from 0.
    #[must_use]
    pub fn started(&self) -> usize {
        self.started
    }

    /// Whether all connections have been started.
    #[must_use]
    pub fn all_started(&self) -> bool {
        self.started == self.completed.len()
    }

    /// Returns the number of a connection to start now. The rate counts from the first call.
    pub fn next(&mut self, now: Nanos) -> Option<usize> {
        let time = now - *self.start.get_or_insert(now);
        let allowed = match self.per_second {
            None => self.completed.len(),
            Some(rate) => 1 + (time as f64 / SECOND as f64 * rate) as usize,
        };
        if self.started == allowed.min(self.completed.len()) || self.pending >= self.opening {
            return None;
        }
        self.started += 1;
        self.pending += 1;
        Some(self.started - 1)
    }

    /// Records that a connection has had a response or has failed. Counts once per connection.
    pub fn complete(&mut self, number: usize) {
        if !std::mem::replace(&mut self.completed[number], true) {
            self.pending -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_connections_are_bounded() {
        let mut ramp = Ramp::new(5, 0.0, 3);
        assert_eq!(std::iter::from_fn(|| ramp.next(7)).collect::<Vec<_>>(), [0, 1, 2]);
        ramp.complete(1);
        ramp.complete(1);
        assert_eq!((ramp.next(7), ramp.next(7), ramp.all_started()), (Some(3), None, false));
        ramp.complete(3);
        assert_eq!((ramp.next(7), ramp.next(7), ramp.all_started()), (Some(4), None, true));
    }

    #[test]
    fn rate_is_bounded() {
        let mut ramp = Ramp::new(10, 2.0, 100);
        let mut started = |now| std::iter::from_fn(|| ramp.next(now)).count();
        assert_eq!([SECOND, 2 * SECOND, 9 * SECOND / 4, 9 * SECOND].map(&mut started), [1, 2, 0, 7]);
    }
}
