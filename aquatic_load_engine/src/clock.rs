//! Monotonic time. No other module reads a clock.

use std::time::Instant;

/// Nanoseconds since the clock was started.
pub type Nanos = u64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;
/// One millisecond.
pub const MILLISECOND: Nanos = 1_000_000;

/// Monotonic clock. Copies have the same start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts a clock at 0.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "all other code gets the time from this clock")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Time since the start; monotonic.
    #[must_use]
    pub fn now(&self) -> Nanos {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Periodic task.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    period: Nanos,
    next: Nanos,
}

impl Interval {
    /// Creates a task that is due at once and then once per interval.
    #[must_use]
    pub fn new(period: Nanos) -> Self {
        Self { period, next: 0 }
    }

    /// Whether the task is due; if so, the next interval starts.
    pub fn is_due(&mut self, now: Nanos) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.period;
        }
        due
    }
}

/// Converts seconds to nanoseconds.
#[must_use]
pub fn seconds(count: u32) -> Nanos {
    u64::from(count) * SECOND
}

/// Converts milliseconds to nanoseconds.
#[must_use]
pub fn milliseconds(count: u32) -> Nanos {
    u64::from(count) * MILLISECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_once_per_interval() {
        let mut interval = Interval::new(10);
        let due = [0, 1, 9, 10, 11, 25, 34, 35].map(|now| interval.is_due(now));
        assert_eq!(due, [true, false, false, true, false, true, false, true]);
    }
}
