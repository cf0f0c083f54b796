//! Degradation of one core's store as it fills its share of the memory budget.

use aquatic_swarm::Intake;

/// What a store does without as its memory runs out. Each step includes the ones before. Announces are
/// answered in all of them, and known peers are updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Degradation {
    /// Nothing.
    #[default]
    None,
    /// Peers beyond the first two of a torrent.
    LargeTorrents,
    /// Peers that have not announced for longer than an interval and a quarter.
    OldPeers,
    /// New peers.
    NewPeers,
}

/// Filling at which a step begins, in percent of the budget.
const THRESHOLDS: [(u64, Degradation); 3] =
    [(95, Degradation::NewPeers), (88, Degradation::OldPeers), (80, Degradation::LargeTorrents)];

/// By how much the filling has to fall below the beginning of a step until it ends, in percent of the budget.
const HYSTERESIS: u64 = 3;

impl Degradation {
    /// The step for a filling, given the present step.
    #[must_use]
    pub fn next(self, used: u64, budget: u64) -> Self {
        let reaches = |percent: u64| u128::from(used) * 100 >= u128::from(budget) * u128::from(percent);
        let step = THRESHOLDS
            .iter()
            .find(|(begin, step)| reaches(if *step <= self { begin - HYSTERESIS } else { *begin }));
        step.map_or(Self::None, |(_, step)| *step)
    }

    /// Which new peers are stored.
    #[must_use]
    pub fn intake(self) -> Intake {
        match self {
            Self::None => Intake::All,
            Self::LargeTorrents | Self::OldPeers => Intake::SmallTorrents,
            Self::NewPeers => Intake::Nothing,
        }
    }

    /// The age in seconds at which peers are removed, given the configured one and the longest interval that
    /// clients were given.
    #[must_use]
    pub fn max_peer_age(self, configured: u32, interval: u32) -> u32 {
        match self {
            Self::None | Self::LargeTorrents => configured,
            Self::OldPeers | Self::NewPeers => configured.min(interval.saturating_add(interval / 4)),
        }
    }

    /// The consequence, for the log.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::None => "peers are stored as configured again",
            Self::LargeTorrents => "only the first two peers of a torrent are stored",
            Self::OldPeers => "peers expire sooner, and only the first two of a torrent are stored",
            Self::NewPeers => "no new peers are stored",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_each_other_as_memory_fills_up() {
        let mut step = Degradation::None;
        let mut steps = Vec::new();
        for used in (0..=1000).chain((0..1000).rev()) {
            let next = step.next(used, 1000);
            if next != step {
                steps.push((used, next));
            }
            step = next;
        }
        assert_eq!(
            steps,
            [
                (800, Degradation::LargeTorrents),
                (880, Degradation::OldPeers),
                (950, Degradation::NewPeers),
                (919, Degradation::OldPeers),
                (849, Degradation::LargeTorrents),
                (769, Degradation::None),
            ]
        );
    }

    #[test]
    fn a_store_beyond_its_budget_takes_nothing() {
        assert_eq!(Degradation::None.next(u64::MAX, 1), Degradation::NewPeers);
        assert_eq!(Degradation::None.next(0, 0), Degradation::NewPeers);
        assert_eq!(Degradation::NewPeers.intake(), Intake::Nothing);
    }

    #[test]
    fn peers_that_announce_in_time_never_expire() {
        assert_eq!(Degradation::OldPeers.max_peer_age(3600, 1800), 2250);
        assert_eq!(Degradation::NewPeers.max_peer_age(2000, 1800), 2000, "never longer than configured");
        assert_eq!(Degradation::LargeTorrents.max_peer_age(3600, 1800), 3600);
    }
}
