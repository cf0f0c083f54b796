//! What a thread does in one phase of a test, at which pace and for how long.

use crate::clock::{Nanos, seconds};
use crate::pacing::Schedule;
use crate::settings::Mode;

/// What decides when to send.
#[derive(Clone, Debug)]
pub enum Pace {
    /// The tracker.
    Closed,
    /// The clock.
    Open(Schedule),
}

impl Pace {
    /// The pace that was asked for.
    #[must_use]
    pub fn new(mode: Mode, schedule: impl FnOnce() -> Schedule) -> Self {
        match mode {
            Mode::Closed => Self::Closed,
            Mode::Open => Self::Open(schedule()),
        }
    }

    /// Whether something may become due at any time.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }
}

/// One phase for one thread.
#[derive(Clone, Debug)]
pub struct Phase<T, P = Pace> {
    /// What is sent.
    pub traffic: T,
    /// When it is sent.
    pub pace: P,
    /// When measuring begins.
    pub from: Nanos,
    /// When sending and measuring end.
    pub until: Nanos,
}

impl<T, P> Phase<T, P> {
    /// Ends when everything is done.
    #[must_use]
    pub fn until_done(traffic: T, pace: P, now: Nanos) -> Self {
        Self { traffic, pace, from: now, until: Nanos::MAX }
    }

    /// Measures for so many seconds after so many of warm-up.
    #[must_use]
    pub fn timed(traffic: T, pace: P, now: Nanos, (warm_up, duration): (u32, u32)) -> Self {
        let from = now + seconds(warm_up);
        Self { traffic, pace, from, until: from + seconds(duration) }
    }
}

impl<T> Phase<T> {
    /// How many requests were due before the end, and never sent.
    #[must_use]
    pub fn never_sent(&self) -> u64 {
        match &self.pace {
            Pace::Closed => 0,
            Pace::Open(schedule) => schedule.backlog(self.until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::settings::ArrivalsConfig;

    #[test]
    fn measuring_follows_the_warm_up() {
        let schedule = || ArrivalsConfig::Even.schedule(10, (0, 1), 1, 0);
        let pace = Pace::new(Mode::Open, schedule);
        assert!(pace.is_open() && !Pace::new(Mode::Closed, schedule).is_open());
        let phase = Phase::timed((), pace, SECOND, (2, 3));
        assert_eq!((phase.from, phase.until), (3 * SECOND, 6 * SECOND));
        assert_eq!(phase.never_sent(), 60);
        let phase = Phase::until_done((), Pace::Closed, SECOND);
        assert_eq!((phase.from, phase.until, phase.never_sent()), (SECOND, Nanos::MAX, 0));
    }
}
