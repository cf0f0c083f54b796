//! Send times. In closed loop, a bounded number of requests is in flight. In open loop, each request has an
//! intended send time, from which its latency counts: a stall of the tracker, or of the load test, shows in
//! the latency of all requests that it delays.

use crate::clock::{MILLISECOND, Nanos, SECOND};
use crate::rng::Rng;

/// Time after which a request that is due is overdue: threads do other things in between.
const MAX_DELAY: Nanos = 10 * MILLISECOND;

/// Distribution of send times in open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Equal gaps.
    Even,
    /// Exponentially distributed gaps, as from many independent clients.
    Random,
}

/// Closed loop: number of requests that may be sent.
#[derive(Clone, Debug)]
pub struct Window {
    limit: usize,
    continue_probability: f64,
    credits: usize,
    next_refill: Nanos,
}

impl Window {
    /// Allows at most `limit` requests in flight. Each response allows a further request with the given
    /// probability; the remaining room is used once per millisecond.
    #[must_use]
    pub fn new(limit: usize, continue_probability: f64) -> Self {
        Self { limit, continue_probability, credits: 0, next_refill: 0 }
    }

    /// Number of requests that may be sent now, with `in_flight` requests without a response.
    pub fn due(&mut self, now: Nanos, in_flight: usize) -> usize {
        let room = self.limit.saturating_sub(in_flight);
        if now >= self.next_refill {
            self.next_refill = now + MILLISECOND;
            self.credits = room;
        }
        self.credits.min(room)
    }

    /// Records sent requests.
    pub fn sent(&mut self, count: usize) {
        self.credits = self.credits.saturating_sub(count);
    }

    /// Records a response.
    pub fn responded(&mut self, rng: &mut Rng) {
        if self.continue_probability >= 1.0 || rng.chance(self.continue_probability) {
            self.credits += 1;
        }
    }
}

/// Open loop: intended send times.
#[derive(Clone, Debug)]
pub struct Schedule {
    mean_gap: f64,
    arrivals: Arrivals,
    next: f64,
    rng: Rng,
}

impl Schedule {
    /// Creates a schedule at this rate, beginning at `start`.
    #[must_use]
    pub fn new(per_second: f64, arrivals: Arrivals, start: Nanos, rng: Rng) -> Self {
        Self { mean_gap: SECOND as f64 / per_second, arrivals, next: start as f64, rng }
    }

    /// Returns the intended send time of the next request if it has been reached.
    pub fn next_due(&mut self, now: Nanos) -> Option<Nanos> {
        let intended = self.next;
        if intended > now as f64 {
            return None;
        }
        self.next += match self.arrivals {
            Arrivals::Even => self.mean_gap,
            // `unit` is below 1, so the logarithm is finite.
            Arrivals::Random => -self.mean_gap * (1.0 - self.rng.unit()).ln(),
        };
        Some(intended as Nanos)
    }

    /// Intended send time of the next request.
    #[must_use]
    pub fn next(&self) -> Nanos {
        self.next as Nanos
    }

    /// Approximate number of overdue requests: those that [`Schedule::next_due`] has not returned. What
    /// became due a moment ago is not overdue.
    #[must_use]
    pub fn backlog(&self, now: Nanos) -> u64 {
        let overdue = now.saturating_sub(MAX_DELAY) as f64 - self.next;
        (overdue.max(0.0) / self.mean_gap) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_never_exceeded() {
        let mut window = Window::new(8, 1.0);
        let mut rng = Rng::new(1, 1);
        assert_eq!(window.due(0, 0), 8);
        window.sent(8);
        assert_eq!(window.due(1, 8), 0);
        window.responded(&mut rng);
        assert_eq!(window.due(2, 7), 1);
        window.sent(1);
        // Room left by lost requests is used at the next refill.
        assert_eq!(window.due(3, 5), 0);
        assert_eq!(window.due(MILLISECOND + 1, 5), 3);
    }

    #[test]
    fn chains_end_with_the_given_probability() {
        let mut rng = Rng::new(1, 1);
        let mut window = Window::new(100_000, 0.25);
        window.due(0, 0);
        window.sent(100_000);
        (0..100_000).for_each(|_| window.responded(&mut rng));
        let due = window.due(1, 0);
        assert!((24_000..26_000).contains(&due), "{due}");
    }

    #[test]
    fn even_arrivals_keep_their_times_when_polled_late() {
        let mut schedule = Schedule::new(1000.0, Arrivals::Even, 5 * MILLISECOND, Rng::new(1, 1));
        assert_eq!(schedule.next_due(4 * MILLISECOND), None);
        assert_eq!(schedule.backlog(8 * MILLISECOND + MAX_DELAY), 3);
        assert_eq!(schedule.backlog(8 * MILLISECOND), 0, "those have just become due");
        let due: Vec<_> = std::iter::from_fn(|| schedule.next_due(8 * MILLISECOND)).collect();
        assert_eq!(due, [5, 6, 7, 8].map(|count| count * MILLISECOND));
        assert_eq!(schedule.next(), 9 * MILLISECOND);
    }

    #[test]
    fn random_arrivals_keep_the_rate() {
        let mut schedule = Schedule::new(1000.0, Arrivals::Random, 0, Rng::new(1, 1));
        let mut count = 0;
        while schedule.next_due(100 * SECOND).is_some() {
            count += 1;
        }
        // The standard deviation is 316.
        assert!((98_500..101_500).contains(&count), "{count}");
    }
}
