//! The one place that reads the time.

use std::time::Instant;

/// Nanoseconds since the clock was started.
pub type Nanos = u64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;
/// One millisecond.
pub const MILLISECOND: Nanos = 1_000_000;

/// Measures from when it was started. Copies measure from the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that shows 0 now.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else is told the time by"
    )]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Time since the start. Does not go back.
    #[must_use]
    pub fn now(&self) -> Nanos {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Something that is to be done once in a while.
#[derive(Clone, Copy, Debug)]
pub struct Every {
    interval: Nanos,
    next: Nanos,
}

impl Every {
    /// Due now, and at least so long after it was done.
    #[must_use]
    pub fn new(interval: Nanos) -> Self {
        Self { interval, next: 0 }
    }

    /// Whether it is due. If so, it is taken for done.
    pub fn is_due(&mut self, now: Nanos) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.interval;
        }
        due
    }
}

/// Whole nanoseconds of a number of seconds.
#[must_use]
pub fn seconds(count: u32) -> Nanos {
    u64::from(count) * SECOND
}

/// Whole nanoseconds of a number of milliseconds.
#[must_use]
pub fn milliseconds(count: u32) -> Nanos {
    u64::from(count) * MILLISECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_in_a_while() {
        let mut every = Every::new(10);
        let due = [0, 1, 9, 10, 11, 25, 34, 35].map(|now| every.is_due(now));
        assert_eq!(due, [true, false, false, true, false, true, false, true]);
    }
}
