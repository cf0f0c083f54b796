//! Phases of a test: traffic, load model and duration.

use crate::clock::{Nanos, seconds};
use crate::pacing::Schedule;
use crate::run_phase::LiveCounters;
use crate::settings::Mode;

/// Load model: what triggers a request.
#[derive(Clone, Debug)]
pub enum LoadModel {
    /// A response (closed loop).
    Closed,
    /// The clock (open loop).
    Open(Schedule),
}

impl LoadModel {
    /// Creates the configured load model.
    #[must_use]
    pub fn new(mode: Mode, schedule: impl FnOnce() -> Schedule) -> Self {
        match mode {
            Mode::Closed => Self::Closed,
            Mode::Open => Self::Open(schedule()),
        }
    }

    /// Whether requests become due by time.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Time at which the next request becomes due, if requests become due by time.
    #[must_use]
    pub fn next_due(&self) -> Option<Nanos> {
        match self {
            Self::Closed => None,
            Self::Open(schedule) => Some(schedule.next()),
        }
    }
}

/// Phase of one thread.
#[derive(Clone, Debug)]
pub struct Phase<T, P = LoadModel> {
    /// Kind of traffic.
    pub traffic: T,
    /// Load model.
    pub model: P,
    /// Start of the measurement.
    pub from: Nanos,
    /// End of sending and of the measurement.
    pub until: Nanos,
}

impl<T, P> Phase<T, P> {
    /// Creates a phase that ends when its work is done.
    #[must_use]
    pub fn until_done(traffic: T, model: P, now: Nanos) -> Self {
        Self { traffic, model, from: now, until: Nanos::MAX }
    }

    /// Creates a phase with a warm-up and a measurement, in seconds.
    #[must_use]
    pub fn timed(traffic: T, model: P, now: Nanos, (warm_up, duration): (u32, u32)) -> Self {
        let from = now + seconds(warm_up);
        Self { traffic, model, from, until: from + seconds(duration) }
    }

    /// Ends sending and the measurement now if the test has been interrupted.
    pub fn observe(&mut self, live: &LiveCounters, now: Nanos) {
        if live.is_interrupted() {
            self.until = self.until.min(now);
        }
    }
}

impl<T> Phase<T> {
    /// Number of requests that were due before the end and never sent.
    #[must_use]
    pub fn never_sent(&self) -> u64 {
        match &self.model {
            LoadModel::Closed => 0,
            LoadModel::Open(schedule) => schedule.backlog(self.until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::interrupt::Interrupt;
    use crate::settings::ArrivalsConfig;

    #[test]
    fn an_interrupt_ends_a_phase() {
        let interrupt = Interrupt::default();
        let live = LiveCounters::new(&interrupt);
        let mut phase = Phase::timed((), LoadModel::Closed, 0, (1, 2));
        phase.observe(&live, SECOND);
        assert_eq!(phase.until, 3 * SECOND);
        interrupt.set();
        phase.observe(&live, 2 * SECOND);
        phase.observe(&live, 4 * SECOND);
        assert_eq!(phase.until, 2 * SECOND);
    }

    #[test]
    fn measuring_follows_the_warm_up() {
        let schedule = || ArrivalsConfig::Even.schedule(10, (0, 1), 1, 0);
        let model = LoadModel::new(Mode::Open, schedule);
        assert!(model.is_open() && !LoadModel::new(Mode::Closed, schedule).is_open());
        assert_eq!((model.next_due(), LoadModel::Closed.next_due()), (Some(0), None));
        let phase = Phase::timed((), model, SECOND, (2, 3));
        assert_eq!((phase.from, phase.until), (3 * SECOND, 6 * SECOND));
        assert_eq!(phase.never_sent(), 59, "one has just become due");
        let phase = Phase::until_done((), LoadModel::Closed, SECOND);
        assert_eq!((phase.from, phase.until, phase.never_sent()), (SECOND, Nanos::MAX, 0));
    }
}
