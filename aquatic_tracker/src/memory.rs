//! What the stores of one core may take of the memory budget, and their degradation as they fill it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aquatic_common::config::LimitsConfig;
use aquatic_metrics::{CoreMetrics, Gauge, names};
pub use aquatic_swarm::Intake;

/// A store of torrents and peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// That of UDP and HTTP.
    BitTorrent,
    /// That of WebTorrent.
    WebTorrent,
}

/// The memory that the stores of one core may take together, and what each of them takes. Clones share both.
#[derive(Clone, Debug)]
pub struct CoreBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: AtomicU64,
    /// In the order of [`Store`].
    used: [AtomicU64; 2],
}

impl CoreBudget {
    /// A budget of bytes, of which nothing is used.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Shared { bytes: AtomicU64::new(bytes), used: Default::default() }))
    }

    /// What the stores may take together, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Replaces what the stores may take together, in bytes.
    pub fn set_bytes(&self, bytes: u64) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Notes how many bytes a store takes. Returns how many all take.
    pub fn note(&self, store: Store, bytes: u64) -> u64 {
        if let Some(used) = self.0.used.get(store as usize) {
            used.store(bytes, Ordering::Relaxed);
        }
        self.0.used.iter().map(|used| used.load(Ordering::Relaxed)).sum()
    }
}

/// Steps of degradation and their labels in metrics.
const STEPS: [(Degradation, &str); 3] = [
    (Degradation::LargeTorrents, "large_torrents"),
    (Degradation::OldPeers, "old_peers"),
    (Degradation::NewPeers, "new_peers"),
];

/// The degradation of one store of a core, with its metrics.
#[derive(Debug)]
pub struct StoreDegradation {
    core: usize,
    store: Store,
    budget: Option<CoreBudget>,
    step: Degradation,
    /// In the order of [`STEPS`].
    gauges: [Gauge; 3],
}

impl StoreDegradation {
    /// That of a store without a budget.
    #[must_use]
    pub fn new(core: usize, store: Store, metrics: &CoreMetrics) -> Self {
        let swarms = match store {
            Store::BitTorrent => names::BITTORRENT,
            Store::WebTorrent => names::WEBTORRENT,
        };
        let gauge = |name| metrics.gauge(&names::DEGRADATION, &[("swarms", swarms), ("step", name)]);
        let gauges = STEPS.map(|(_, name)| gauge(name));
        Self { core, store, budget: None, step: Degradation::None, gauges }
    }

    /// Replaces the budget.
    pub fn set_budget(&mut self, budget: Option<CoreBudget>) {
        self.budget = budget;
    }

    /// The present step.
    #[must_use]
    pub fn step(&self) -> Degradation {
        self.step
    }

    /// Compares the memory of all stores of the core with the budget, given what this one takes, and takes
    /// the step that follows. Returns it if it is another one than before.
    pub fn check(&mut self, bytes: u64) -> Option<Degradation> {
        let budget = self.budget.as_ref()?;
        let used = budget.note(self.store, bytes);
        let step = self.step.next(used, budget.bytes());
        if step == self.step {
            return None;
        }
        let level = if step > self.step { log::Level::Warn } else { log::Level::Info };
        let peers = match self.store {
            Store::BitTorrent => "peers",
            Store::WebTorrent => "WebTorrent peers",
        };
        log::log!(
            level,
            "core {}: torrents and peers take {} MiB of {} MiB ({}): {}",
            self.core,
            used >> 20,
            budget.bytes() >> 20,
            LimitsConfig::max_memory,
            step.describe(peers)
        );
        self.step = step;
        for (gauge, (begin, _)) in self.gauges.iter().zip(STEPS) {
            gauge.set(u64::from(step >= begin));
        }
        Some(step)
    }
}

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
const THRESHOLDS: [(u64, Degradation); 3] = [
    (95, Degradation::NewPeers),
    (88, Degradation::OldPeers),
    (Degradation::BEGINS, Degradation::LargeTorrents),
];

/// By how much the filling has to fall below the beginning of a step until it ends, in percent of the budget.
const HYSTERESIS: u64 = 3;

impl Degradation {
    /// Filling at which the first step begins, in percent of the budget.
    pub const BEGINS: u64 = 80;

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

    /// The consequence for peers of a kind, for the log.
    #[must_use]
    pub fn describe(self, peers: &str) -> String {
        match self {
            Self::None => format!("{peers} are stored as configured again"),
            Self::LargeTorrents => format!("only the first two {peers} of a torrent are stored"),
            Self::OldPeers => {
                format!("{peers} expire sooner, and only the first two of a torrent are stored")
            }
            Self::NewPeers => format!("no new {peers} are stored"),
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
