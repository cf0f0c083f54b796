//! The one place that reads the operating system's clock.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aquatic_common::Seconds;

/// The moment that the tracker's times are counted from. Copies of it agree, so the times of all cores can be
/// compared. A process that takes over from an earlier one resumes its epoch, so that ages and connection ids
/// keep their meaning.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    resumed: Instant,
    before: Duration,
}

impl Epoch {
    /// An epoch that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self::resume_at(Duration::ZERO)
    }

    /// An epoch that began this long ago.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn resume_at(elapsed: Duration) -> Self {
        Self { resumed: Instant::now(), before: elapsed }
    }

    /// Time since the epoch, read from the operating system now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn elapsed(&self) -> Duration {
        self.before + Instant::now().saturating_duration_since(self.resumed)
    }
}

/// Seconds since 1970 by the machine's calendar, which may be set wrong or be set anew: only for what comes
/// with a date.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn calendar_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Processor time that the calling thread has used.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// A core's coarse clock: shows the time of the last [`tick`](Self::tick). Never goes backwards.
#[derive(Debug)]
pub struct Clock {
    epoch: Epoch,
    shown: Cell<Duration>,
}

impl Clock {
    /// A clock that shows the present.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, shown: Cell::new(epoch.elapsed()) }
    }

    /// Brings the clock up to date and returns what it then shows.
    pub fn tick(&self) -> Duration {
        let now = self.epoch.elapsed().max(self.shown.get());
        self.shown.set(now);
        now
    }

    /// Time since the epoch, as of the last tick.
    #[must_use]
    pub fn shown(&self) -> Duration {
        self.shown.get()
    }

    /// Whole seconds since the epoch, as of the last tick.
    #[must_use]
    pub fn now(&self) -> Seconds {
        Seconds(u32::try_from(self.shown.get().as_secs()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_can_be_resumed() {
        let hour = Duration::from_secs(3600);
        let epoch = Epoch::resume_at(hour);
        assert!(epoch.elapsed() >= hour && epoch.elapsed() < hour * 2);
        assert_eq!(Clock::new(epoch).now(), Seconds(3600));
    }

    #[test]
    fn a_thread_that_works_uses_processor_time() {
        let before = thread_cpu_time();
        let mut sum = 0_u64;
        while thread_cpu_time() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(thread_cpu_time() > before);
    }

    #[test]
    fn shows_the_last_tick_and_never_less() {
        let clock = Clock::new(Epoch::start());
        let first = clock.shown();
        assert_eq!(clock.shown(), first);
        let second = clock.tick();
        assert!(second >= first);
        assert_eq!((clock.shown(), clock.now()), (second, Seconds(0)));
    }
}
