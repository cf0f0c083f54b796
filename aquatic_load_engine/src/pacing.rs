//! When to send. In closed loop the tracker sets the pace: a bounded number of requests is under way at any time. In
//! open loop the clock does: each request has a moment it is meant to be sent at, and its latency counts from then, so
//! a stall of the tracker, or of the load test, shows in the latency of all requests that had to wait for it.

use crate::clock::{MILLISECOND, Nanos, SECOND};
use crate::draw::Draw;

/// How requests follow each other in open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Even,
    /// Independently of each other, as from many clients: distances vary around their mean.
    Random,
}

/// Closed loop: how many requests may be sent right now.
#[derive(Clone, Debug)]
pub struct Window {
    limit: usize,
    continue_probability: f64,
    credits: usize,
    next_refill: Nanos,
}

impl Window {
    /// At most `limit` requests under way. Each response is followed by a request in its place with the given
    /// probability; places that stay empty are filled again once a millisecond.
    #[must_use]
    pub fn new(limit: usize, continue_probability: f64) -> Self {
        Self { limit, continue_probability, credits: 0, next_refill: 0 }
    }

    /// Requests that may be sent now with this many under way.
    pub fn due(&mut self, now: Nanos, in_flight: usize) -> usize {
        let room = self.limit.saturating_sub(in_flight);
        if now >= self.next_refill {
            self.next_refill = now + MILLISECOND;
            self.credits = room;
        }
        self.credits.min(room)
    }

    /// Takes note of requests that were sent.
    pub fn sent(&mut self, count: usize) {
        self.credits = self.credits.saturating_sub(count);
    }

    /// Takes note of a response.
    pub fn responded(&mut self, draw: &mut Draw) {
        if self.continue_probability >= 1.0 || draw.chance(self.continue_probability) {
            self.credits += 1;
        }
    }
}

/// Open loop: the moments at which requests are meant to be sent.
#[derive(Clone, Debug)]
pub struct Schedule {
    mean_gap: f64,
    arrivals: Arrivals,
    next: f64,
    draw: Draw,
}

impl Schedule {
    /// Requests at this rate from `start` on.
    #[must_use]
    pub fn new(per_second: f64, arrivals: Arrivals, start: Nanos, draw: Draw) -> Self {
        Self { mean_gap: SECOND as f64 / per_second, arrivals, next: start as f64, draw }
    }

    /// The moment the next request is meant to be sent, once that moment has come.
    pub fn next_due(&mut self, now: Nanos) -> Option<Nanos> {
        let intended = self.next;
        if intended > now as f64 {
            return None;
        }
        self.next += match self.arrivals {
            Arrivals::Even => self.mean_gap,
            // The distance between independent arrivals is distributed exponentially. One minus a number below one is
            // never zero, so the logarithm is finite.
            Arrivals::Random => -self.mean_gap * (1.0 - self.draw.unit()).ln(),
        };
        Some(intended as Nanos)
    }

    /// How many requests are overdue, roughly: those whose moment passed without [`Schedule::next_due`] being asked.
    #[must_use]
    pub fn backlog(&self, now: Nanos) -> u64 {
        ((now as f64 - self.next).max(0.0) / self.mean_gap) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_never_exceeded() {
        let mut window = Window::new(8, 1.0);
        let mut draw = Draw::new(1, 1);
        assert_eq!(window.due(0, 0), 8);
        window.sent(8);
        assert_eq!(window.due(1, 8), 0);
        window.responded(&mut draw);
        assert_eq!(window.due(2, 7), 1);
        window.sent(1);
        // Lost requests free their places at the next refill.
        assert_eq!(window.due(3, 5), 0);
        assert_eq!(window.due(MILLISECOND + 1, 5), 3);
    }

    #[test]
    fn chains_end_with_the_given_probability() {
        let mut draw = Draw::new(1, 1);
        let mut window = Window::new(100_000, 0.25);
        window.due(0, 0);
        window.sent(100_000);
        (0..100_000).for_each(|_| window.responded(&mut draw));
        let due = window.due(1, 0);
        assert!((24_000..26_000).contains(&due), "{due}");
    }

    #[test]
    fn even_arrivals_keep_their_moments_when_asked_late() {
        let mut schedule = Schedule::new(1000.0, Arrivals::Even, 5 * MILLISECOND, Draw::new(1, 1));
        assert_eq!(schedule.next_due(4 * MILLISECOND), None);
        assert_eq!(schedule.backlog(8 * MILLISECOND), 3);
        let due: Vec<_> = std::iter::from_fn(|| schedule.next_due(8 * MILLISECOND)).collect();
        assert_eq!(due, [5, 6, 7, 8].map(|count| count * MILLISECOND));
    }

    #[test]
    fn random_arrivals_keep_the_rate() {
        let mut schedule = Schedule::new(1000.0, Arrivals::Random, 0, Draw::new(1, 1));
        let mut count = 0;
        while schedule.next_due(100 * SECOND).is_some() {
            count += 1;
        }
        // The standard deviation is 316.
        assert!((98_500..101_500).contains(&count), "{count}");
    }
}
