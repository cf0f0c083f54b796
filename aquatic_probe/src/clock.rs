//! Monotonic time. No other module reads a clock.

use std::io;
use std::time::{Duration, Instant};

/// A moment in the past, from which time is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "all other code measures time with this")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Time until which something has to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    since: Stopwatch,
    limit: Duration,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self { since: Stopwatch::start(), limit }
    }

    /// Time that is left.
    ///
    /// # Errors
    /// None is left.
    pub(crate) fn left(self) -> io::Result<Duration> {
        let left = self.limit.saturating_sub(self.since.elapsed());
        if left.is_zero() { Err(self.expired()) } else { Ok(left) }
    }

    pub(crate) fn expired(self) -> io::Error {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no reply within {} s", (self.limit.as_secs_f32() * 10.0).round() / 10.0),
        )
    }
}
