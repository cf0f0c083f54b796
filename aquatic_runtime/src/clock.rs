//! The one place that reads the operating system's clock.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aquatic_common::Seconds;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The moment that the tracker's times are counted from. Copies of it agree, so the times of all cores can be
/// compared. A process that takes over from an earlier one resumes its epoch, so that ages and connection ids
/// keep their meaning.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    /// By `CLOCK_MONOTONIC`.
    resumed: Duration,
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
    pub fn resume_at(elapsed: Duration) -> Self {
        Self { resumed: monotonic(), before: elapsed }
    }

    /// Time since the epoch, read from the operating system now.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.before + monotonic().saturating_sub(self.resumed)
    }
}

/// Time by `CLOCK_MONOTONIC`, read with as little as possible around it: a request reads it twice.
fn monotonic() -> Duration {
    from_timespec(clock_gettime(ClockId::Monotonic))
}

fn from_timespec(time: Timespec) -> Duration {
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
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
    from_timespec(clock_gettime(ClockId::ThreadCPUTime))
}

/// Measures how busy the calling thread is.
#[derive(Clone, Copy, Debug)]
pub struct BusyMeter {
    since: Duration,
    used: Duration,
}

impl BusyMeter {
    /// Begins to measure.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { since: now, used: thread_cpu_time() }
    }

    /// The share of the time since the last call, or the beginning, that the thread has used, and that time
    /// in seconds; `None` if no time has passed.
    pub fn measure(&mut self, now: Duration) -> Option<(f64, f64)> {
        let before = std::mem::replace(self, Self::new(now));
        let passed = now.saturating_sub(before.since).as_secs_f64();
        (passed > 0.0).then(|| (self.used.saturating_sub(before.used).as_secs_f64() / passed, passed))
    }
}

/// A moment by both clocks of the machine, so that a later process can tell how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Identifies the boot of the machine, within which `monotonic` means something; `None` if it is unknown.
    pub boot: Option<[u8; 16]>,
    /// `CLOCK_MONOTONIC`: starts anew when the machine does, and is never set.
    pub monotonic: Duration,
    /// Seconds since 1970 by the calendar, which may have been set meanwhile.
    pub calendar: i64,
}

impl Moment {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok();
        Self {
            boot: boot.and_then(|text| blake3::hash(&text).as_bytes().first_chunk().copied()),
            monotonic: monotonic(),
            calendar: calendar_seconds(),
        }
    }

    /// Time from this moment to a later one. The monotonic clock decides if the machine has not been
    /// restarted in between, otherwise the calendar, which is rounded up. `None` if the clock that decides
    /// has gone backwards.
    #[must_use]
    pub fn until(&self, later: &Self) -> Option<Duration> {
        let same_boot = self.boot.is_some() && self.boot == later.boot;
        if let (true, Some(passed)) = (same_boot, later.monotonic.checked_sub(self.monotonic)) {
            return Some(passed);
        }
        let passed = later.calendar.checked_sub(self.calendar)?;
        u64::try_from(passed).ok().map(|passed| Duration::from_secs(passed.saturating_add(1)))
    }
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
    fn the_meter_tells_the_share_of_the_time_that_the_thread_was_busy() {
        let mut meter = BusyMeter::new(Duration::ZERO);
        let before = thread_cpu_time();
        while thread_cpu_time() < before + Duration::from_millis(20) {}
        let (busy, seconds) = meter.measure(Duration::from_millis(40)).unwrap();
        assert!(seconds == 0.04 && (0.5..0.9).contains(&busy), "{busy} of {seconds} s");
        assert_eq!(meter.measure(Duration::from_millis(40)), None);
        let (busy, _) = meter.measure(Duration::from_secs(10)).unwrap();
        assert!(busy < 0.01, "{busy}");
    }

    #[test]
    fn the_clock_that_has_not_been_set_decides_how_much_time_has_passed() {
        let at =
            |boot, monotonic, calendar| Moment { boot, monotonic: Duration::from_secs(monotonic), calendar };
        let (boot, other) = (Some([1; 16]), Some([2; 16]));
        let start = at(boot, 1000, 5000);
        let until = |later: Moment| start.until(&later).map(|passed| passed.as_secs());
        assert_eq!(until(at(boot, 1010, 5010)), Some(10));
        assert_eq!(until(at(boot, 1010, 1)), Some(10), "the calendar was set back");
        assert_eq!(until(at(boot, 1010, 1 << 40)), Some(10), "the calendar was set ahead");
        assert_eq!(until(at(other, 3, 5010)), Some(11), "the machine was restarted");
        assert_eq!(until(at(other, 2000, 5010)), Some(11));
        assert_eq!(until(at(other, 3, 4999)), None, "restarted with a calendar that was set back");
        assert_eq!(until(at(boot, 3, 5010)), Some(11), "a container with a clock of its own");
        assert_eq!(at(None, 1000, 5000).until(&at(None, 1010, 6000)), Some(Duration::from_secs(1001)));
        let now = Moment::now();
        assert!(now.boot.is_some() && now.until(&Moment::now()).unwrap() < Duration::from_secs(60));
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
