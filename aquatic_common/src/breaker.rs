//! Breakers: whether a service is served at all. A breaker opens, so that the service is refused, after an
//! overload that lasts, and is closed again on trial. An operator can open or close it by hand.
//!
//! Pure: times and whether the service is overloaded in, state and what has to be told out.

use std::fmt;
use std::time::Duration;

/// Maximum of the binary logarithm of how many times longer a breaker stays open after trials that failed.
const MAX_DOUBLINGS: u32 = 4;

/// Time without an overload after which an earlier one no longer counts: shorter pauses are part of it.
const CALM: Duration = Duration::from_secs(3);

/// Who decides about a breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerMode {
    /// It opens and closes by the load.
    #[default]
    Automatic,
    /// It is open, whatever the load.
    Open,
    /// It is closed, whatever the load.
    Closed,
}

impl BreakerMode {
    /// All modes, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Automatic, Self::Open, Self::Closed];

    /// The word that operators use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// Whether the service is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It is served.
    Closed,
    /// It is refused.
    Open,
    /// It is served on trial: if it is overloaded again, the breaker opens for a longer time.
    HalfOpen,
}

impl BreakerState {
    /// The word that operators use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// When a breaker in the mode [`BreakerMode::Automatic`] opens and closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerRules {
    /// Duration of an overload at which it opens; `None` if it never does.
    pub open_after: Option<Duration>,
    /// Time that it stays open before a trial; doubled for each trial that failed, up to 16 times.
    pub pause: Duration,
    /// Share of its time, in per cent, from which on a core that is busy counts as overloaded; `None` if it
    /// does not, however busy it is.
    pub busy_percent: Option<u32>,
}

/// What has to be told about a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerEvent {
    /// It was opened by hand.
    OpenedByHand,
    /// It was closed by hand.
    ClosedByHand,
    /// It has opened after an overload of this duration. It stays open for `pause`.
    Opened {
        /// Duration of the overload.
        lasted: Duration,
        /// Time until the trial.
        pause: Duration,
    },
    /// A trial has begun after the breaker was open for this time.
    Trial(Duration),
    /// It has closed: there was no overload during the trial.
    Closed,
}

impl fmt::Display for BreakerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OpenedByHand => f.write_str("opened by hand: it is not served"),
            Self::ClosedByHand => f.write_str("closed by hand: it is served, whatever the load"),
            Self::Opened { lasted, pause } => write!(
                f,
                "opened after an overload of {} s: it is not served for {} s",
                lasted.as_secs(),
                pause.as_secs()
            ),
            Self::Trial(open) => write!(f, "half open after {} s: it is served on trial", open.as_secs()),
            Self::Closed => f.write_str("closed: it is served"),
        }
    }
}

/// An overload, by the times at which it was seen first and last.
#[derive(Clone, Copy, Debug)]
struct Overload {
    since: Duration,
    last: Duration,
}

/// The breaker of one service.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    mode: BreakerMode,
    rules: BreakerRules,
    automatic: Automatic,
    overload: Option<Overload>,
    /// Trials that failed, one after the other.
    failed_trials: u32,
    /// When the state changed last.
    since: Duration,
}

/// The state that the load has led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Automatic {
    #[default]
    Closed,
    /// Open, and for how long.
    Open(Duration),
    HalfOpen,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(rules: BreakerRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Replaces the rules. A pause that has begun keeps its length.
    pub fn set_rules(&mut self, rules: BreakerRules) {
        self.rules = rules;
    }

    /// Who decides about it.
    #[must_use]
    pub fn mode(&self) -> BreakerMode {
        self.mode
    }

    /// Whether the service is served.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match (self.mode, self.automatic) {
            (BreakerMode::Open, _) | (BreakerMode::Automatic, Automatic::Open(_)) => BreakerState::Open,
            (BreakerMode::Closed, _) | (BreakerMode::Automatic, Automatic::Closed) => BreakerState::Closed,
            (BreakerMode::Automatic, Automatic::HalfOpen) => BreakerState::HalfOpen,
        }
    }

    /// Whether requests are refused.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state() == BreakerState::Open
    }

    /// Time at which it came into its state.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Sets who decides about it. The load is judged anew afterwards.
    pub fn set_mode(&mut self, mode: BreakerMode, now: Duration) -> Option<BreakerEvent> {
        let before = (self.mode, self.state());
        self.mode = mode;
        self.automatic = Automatic::Closed;
        (self.overload, self.failed_trials) = (None, 0);
        if (self.mode, self.state()) == before {
            return None;
        }
        self.since = now;
        match mode {
            BreakerMode::Open => Some(BreakerEvent::OpenedByHand),
            BreakerMode::Closed => Some(BreakerEvent::ClosedByHand),
            BreakerMode::Automatic => (before.1 != BreakerState::Closed).then_some(BreakerEvent::Closed),
        }
    }

    /// Takes in whether the service is overloaded. To be called about once a second.
    pub fn observe(&mut self, now: Duration, is_overloaded: bool) -> Option<BreakerEvent> {
        let Some(open_after) = self.rules.open_after.filter(|_| self.mode == BreakerMode::Automatic) else {
            self.overload = None;
            // The rules no longer open it.
            let was = std::mem::take(&mut self.automatic);
            return (was != Automatic::Closed && self.mode == BreakerMode::Automatic).then(|| {
                self.since = now;
                BreakerEvent::Closed
            });
        };
        self.overload = match self.overload {
            Some(overload) if is_overloaded => Some(Overload { last: now, ..overload }),
            Some(overload) if now.saturating_sub(overload.last) < CALM => Some(overload),
            _ => is_overloaded.then_some(Overload { since: now, last: now }),
        };
        let lasted = self.overload.map_or(Duration::ZERO, |overload| now.saturating_sub(overload.since));
        let age = now.saturating_sub(self.since);
        match self.automatic {
            Automatic::Closed if is_overloaded && lasted >= open_after => Some(self.open(now, lasted)),
            Automatic::HalfOpen if is_overloaded && lasted >= open_after.min(CALM) => {
                self.failed_trials += 1;
                Some(self.open(now, lasted))
            }
            Automatic::HalfOpen if self.overload.is_none() && age >= open_after.max(CALM) => {
                self.failed_trials = 0;
                self.enter(Automatic::Closed, now);
                Some(BreakerEvent::Closed)
            }
            Automatic::Open(pause) if age >= pause => {
                self.overload = None;
                self.enter(Automatic::HalfOpen, now);
                Some(BreakerEvent::Trial(age))
            }
            Automatic::Closed | Automatic::HalfOpen | Automatic::Open(_) => None,
        }
    }

    fn open(&mut self, now: Duration, lasted: Duration) -> BreakerEvent {
        let pause = self.rules.pause * (1 << self.failed_trials.min(MAX_DOUBLINGS));
        self.overload = None;
        self.enter(Automatic::Open(pause), now);
        BreakerEvent::Opened { lasted, pause }
    }

    fn enter(&mut self, state: Automatic, now: Duration) {
        (self.automatic, self.since) = (state, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(open_after: u64, pause: u64) -> BreakerRules {
        BreakerRules {
            open_after: Some(SECOND * open_after as u32),
            pause: SECOND * pause as u32,
            busy_percent: None,
        }
    }

    /// Observes once a second and returns what was told, with the second.
    fn run(
        breaker: &mut Breaker,
        seconds: std::ops::Range<u32>,
        is_overloaded: impl Fn(u32) -> bool,
    ) -> Vec<(u32, BreakerEvent)> {
        seconds
            .filter_map(|at| {
                // What is refused causes no overload.
                let is_overloaded = is_overloaded(at) && !breaker.is_open();
                Some((at, breaker.observe(SECOND * at, is_overloaded)?))
            })
            .collect()
    }

    #[test]
    fn it_opens_after_an_overload_that_lasts_and_closes_after_a_quiet_trial() {
        let mut breaker = Breaker::new(rules(10, 60));
        let told = run(&mut breaker, 0..200, |at| (20..60).contains(&at) && at % 3 > 0);
        let opened = BreakerEvent::Opened { lasted: SECOND * 11, pause: SECOND * 60 };
        let (trial, closed) = (BreakerEvent::Trial(SECOND * 60), BreakerEvent::Closed);
        assert_eq!(told, [(31, opened), (91, trial), (101, closed)], "gaps of a second are no end");
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.since(), SECOND * 101);
    }

    #[test]
    fn short_overloads_do_not_open_it() {
        let mut breaker = Breaker::new(rules(10, 60));
        assert_eq!(run(&mut breaker, 0..300, |at| at % 15 < 9), []);
    }

    #[test]
    fn trials_that_fail_double_the_pause() {
        let mut breaker = Breaker::new(rules(10, 20));
        let told = run(&mut breaker, 0..3000, |_| true);
        let pauses: Vec<u64> = told
            .iter()
            .filter_map(|(_, event)| {
                if let BreakerEvent::Opened { pause, .. } = event { Some(pause.as_secs()) } else { None }
            })
            .collect();
        assert_eq!(pauses[..7], [20, 40, 80, 160, 320, 320, 320]);
        assert!(run(&mut breaker, 3000..4000, |_| false).iter().any(|told| told.1 == BreakerEvent::Closed));
        let told = run(&mut breaker, 4000..4020, |_| true);
        let first = BreakerEvent::Opened { lasted: SECOND * 10, pause: SECOND * 20 };
        assert_eq!(told, [(4010, first)], "a trial that succeeded ends the doubling");
    }

    #[test]
    fn the_hand_overrides_the_load() {
        let mut breaker = Breaker::new(rules(5, 20));
        assert_eq!(breaker.set_mode(BreakerMode::Automatic, SECOND), None);
        assert_eq!(breaker.set_mode(BreakerMode::Open, SECOND), Some(BreakerEvent::OpenedByHand));
        assert_eq!(breaker.set_mode(BreakerMode::Open, SECOND * 2), None);
        assert_eq!(run(&mut breaker, 2..100, |_| false), []);
        assert_eq!((breaker.state(), breaker.since()), (BreakerState::Open, SECOND));
        assert_eq!(breaker.set_mode(BreakerMode::Closed, SECOND * 100), Some(BreakerEvent::ClosedByHand));
        assert_eq!(run(&mut breaker, 100..200, |_| true), []);
        assert!(!breaker.is_open());
        assert_eq!(breaker.set_mode(BreakerMode::Automatic, SECOND * 200), None, "it was closed anyway");
        assert_eq!(run(&mut breaker, 200..206, |_| true).len(), 1);
        assert!(breaker.is_open());
        assert_eq!(breaker.set_mode(BreakerMode::Automatic, SECOND * 207), Some(BreakerEvent::Closed));
        breaker.set_mode(BreakerMode::Open, SECOND * 208);
        assert_eq!(breaker.set_mode(BreakerMode::Automatic, SECOND * 209), Some(BreakerEvent::Closed));
    }

    #[test]
    fn without_rules_it_never_opens_by_itself() {
        let mut breaker = Breaker::new(BreakerRules { open_after: None, ..rules(5, 20) });
        assert_eq!(run(&mut breaker, 0..1000, |_| true), []);
        breaker.set_rules(rules(5, 1000));
        assert_eq!(run(&mut breaker, 1000..1010, |_| true).len(), 1);
        breaker.set_rules(BreakerRules::default());
        assert_eq!(run(&mut breaker, 1010..1020, |_| true), [(1010, BreakerEvent::Closed)]);
    }
}
