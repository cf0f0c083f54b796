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

/// Whole nanoseconds of a number of seconds.
#[must_use]
pub fn seconds(count: u32) -> Nanos {
    u64::from(count) * SECOND
}
