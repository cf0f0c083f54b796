//! Background expiry of peers: a pass over a store takes the configured interval, in steps too short to delay
//! requests. The same loop drives the stores of all protocols.

use std::ops::DerefMut;
use std::time::Duration;

use aquatic_common::Seconds;
use aquatic_common::expiry::{Expire, Expired};
use aquatic_metrics::{CoreMetrics, Counter, Label, names};
use aquatic_runtime::Core;
use aquatic_runtime::core::TICK;

/// Longest time spent at a stretch. A batch of packets takes about as long.
const STEP: Duration = Duration::from_micros(200);

/// Units of work between two looks at the clock.
const SLICE: u64 = 256;

/// Shortest and longest pause between two steps. The shortest bounds the share of the core that expiry may
/// take when it is behind: a tenth.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How much work is due, so that a pass takes the interval.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// What the pass takes. Not less than at its beginning, although what is forgotten needs no looking at
    /// any more: the pass would slow down as the shard gets smaller, and a large one take many intervals to
    /// become empty.
    planned: u64,
    /// Work that should have been done by now, in units; below zero when ahead.
    owed: f64,
}

impl Pace {
    fn new(interval: Duration) -> Self {
        Self { interval, planned: 0, owed: 0.0 }
    }

    /// Units per second that make a pass last the interval.
    fn rate(&self) -> f64 {
        (self.planned as f64 / self.interval.as_secs_f64()).max(f64::MIN_POSITIVE)
    }

    /// Adds what has become due in a shard that takes this much work; never more than a whole pass, so that a
    /// long sleep is not made up for.
    fn accrue(&mut self, pass_work: u64, passed: Duration) {
        self.planned = self.planned.max(pass_work);
        self.owed = (self.owed + self.rate() * passed.as_secs_f64()).min(self.planned as f64);
    }

    /// The next slice to work off, if one is due.
    fn slice(&self) -> Option<u64> {
        (self.owed >= 1.0).then(|| (self.owed as u64).min(SLICE))
    }

    /// Takes in what a slice has brought; `pass_work` is what is left for the next pass.
    fn worked(&mut self, slice: u64, expired: &Expired, pass_work: u64) {
        // How many peers will be forgotten is not known in advance, so the pace is set by what it takes to
        // look at all of them. A slice that found nothing to do has been worked off, too, or an empty shard
        // would never end the step.
        let looked = expired.search_work().max(1);
        self.owed -= if expired.pass_ended { slice } else { looked } as f64;
        if expired.pass_ended {
            self.planned = pass_work;
        }
    }

    /// How long to pause: until a whole slice is due.
    fn pause(&self) -> Duration {
        let until_due = (SLICE as f64 - self.owed) / self.rate();
        Duration::from_secs_f64(until_due.clamp(SHORTEST_PAUSE.as_secs_f64(), LONGEST_PAUSE.as_secs_f64()))
    }
}

/// Settings of expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpirySettings {
    /// Duration of a pass over the store.
    pub interval: Duration,
    /// Seconds after its last announce at which a peer is removed.
    pub max_peer_age: u32,
}

/// Metrics of expiry.
struct ExpiryCounters {
    peers: Counter,
    torrents: Counter,
    passes: Counter,
    out_of_time: Counter,
}

impl ExpiryCounters {
    fn new(metrics: &CoreMetrics, labels: &[Label]) -> Self {
        Self {
            peers: metrics.counter(&names::EXPIRED_PEERS, labels),
            torrents: metrics.counter(&names::EXPIRED_TORRENTS, labels),
            passes: metrics.counter(&names::EXPIRY_PASSES, labels),
            out_of_time: metrics.counter(&names::EXPIRY_BEHIND, labels),
        }
    }
}

/// Removes expired peers from the store that `store` borrows for one step at a time. Never ends. The maximum
/// age of peers, in seconds, is read at each step, as it may change. The labels are those of the metrics.
pub async fn run<S: Expire, B: DerefMut<Target = S>>(
    core: &Core,
    (interval, max_peer_age): (Duration, impl Fn() -> u32),
    labels: &[Label],
    store: impl Fn() -> B,
) {
    let counters = ExpiryCounters::new(core.metrics(), labels);
    // Cores begin at different times, so that their steps do not coincide.
    let share = core.index() as f64 / core.count() as f64;
    core.sleep(LONGEST_PAUSE.mul_f64(share).max(SHORTEST_PAUSE)).await;
    let mut pace = Pace::new(interval);
    let mut last = core.tick();
    loop {
        let begin = core.tick();
        pace.accrue(store().pass_work(), begin.saturating_sub(last));
        last = begin;
        let elapsed = || core.tick().saturating_sub(begin);
        // Read before the store is borrowed, which may hold it.
        let max_peer_age = max_peer_age();
        step(&mut *store(), (core.now(), max_peer_age), &mut pace, &counters, elapsed);
        let pause = pace.pause();
        if pause < TICK {
            core.sleep(pause).await;
        } else {
            core.sleep_to_tick(pause).await;
        }
    }
}

/// Works off what is due, for as long as a step may take. `elapsed` is the time since it began.
fn step(
    store: &mut impl Expire,
    (now, max_peer_age): (Seconds, u32),
    pace: &mut Pace,
    counters: &ExpiryCounters,
    elapsed: impl Fn() -> Duration,
) {
    while let Some(budget) = pace.slice() {
        let expired = store.expire(now, max_peer_age, budget);
        counters.peers.add(expired.peers);
        counters.torrents.add(expired.torrents);
        counters.passes.add(expired.pass_ended.into());
        pace.worked(budget, &expired, store.pass_work());
        if elapsed() >= STEP {
            counters.out_of_time.add(pace.slice().is_some().into());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use aquatic_common::config::{AccessListConfig, CleaningConfig, LimitsConfig};
    use aquatic_common::{AnnounceEvent, InfoHash};
    use aquatic_metrics::Registry;
    use aquatic_runtime::Secrets;
    use aquatic_swarm::{Announce, Families, PeerBuffers};
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::access_list::SharedAccessList;
    use crate::interval::IntervalPolicy;
    use crate::peer_rules::PeerRules;
    use crate::seed::{TrackerSeed, TrackerSettings};
    use crate::stretch::Stretch;
    use crate::tracker::Tracker;

    const INTERVAL: Duration = Duration::from_secs(120);

    #[test]
    fn a_pass_takes_the_interval() {
        for pass_work in [0_u64, 7, 10_000, 20_000_000] {
            let mut pace = Pace::new(INTERVAL);
            let (mut time, mut done) = (Duration::ZERO, 0);
            while time < INTERVAL {
                let pause = pace.pause();
                assert!((SHORTEST_PAUSE..=LONGEST_PAUSE).contains(&pause), "{pause:?}");
                time += pause;
                pace.accrue(pass_work, pause);
                while let Some(units) = pace.slice() {
                    // Half of what is looked at is forgotten.
                    let work = units + Expired::WORK_PER_PEER * units / 2;
                    pace.worked(units, &Expired { work, peers: units / 2, ..Expired::default() }, pass_work);
                    done += units;
                }
            }
            let slack = pass_work / 50 + SLICE;
            assert!(done.abs_diff(pass_work) <= slack, "{done} units of {pass_work}");
        }
    }

    #[test]
    fn being_behind_means_short_pauses_not_long_steps() {
        let mut pace = Pace::new(INTERVAL);
        pace.accrue(20_000_000, Duration::from_secs(1));
        assert_eq!(pace.pause(), SHORTEST_PAUSE);
        assert_eq!(pace.slice(), Some(SLICE));
    }

    #[test]
    fn a_long_sleep_is_not_made_up_for() {
        let mut pace = Pace::new(INTERVAL);
        pace.accrue(1000, Duration::from_secs(3600));
        assert!(pace.owed <= 1000.0);
    }

    fn tracker_of(torrents: u32, rng: &mut SmallRng) -> Tracker {
        let settings = TrackerSettings {
            access_list: AccessListConfig::default(),
            cleaning: CleaningConfig::default(),
            limits: LimitsConfig::default(),
            rules: PeerRules::default(),
            interval: IntervalPolicy { interval: 1800, jitter: 0 },
            stretch: Stretch::default(),
        };
        let access_list = SharedAccessList::load(&settings.access_list).unwrap();
        let seed = TrackerSeed::new(&settings, &Secrets::from_bytes(rng.random()), 1, access_list);
        let mut tracker = seed.tracker(0, rng.random(), &Registry::default().core(0));
        for _ in 0..torrents {
            let announce = Announce {
                info_hash: InfoHash(rng.random()),
                address: "198.18.2.1:1000".parse().unwrap(),
                seeder: false,
                event: AnnounceEvent::None,
                numwant: 0,
                families: Families::Own,
            };
            tracker.announce(&announce, Seconds(0), PeerBuffers { v4: &mut [], v6: &mut [] });
        }
        tracker
    }

    #[test]
    fn silent_peers_are_forgotten_within_two_passes() {
        let mut rng = SmallRng::seed_from_u64(11);
        let mut tracker = tracker_of(20_000, &mut rng);
        let counters = ExpiryCounters::new(&Registry::default().core(0), &[]);
        let mut pace = Pace::new(INTERVAL);
        let (mut time, mut largest_step) = (Duration::from_secs(3600 + 60), 0);
        let end = time + INTERVAL * 2;
        while time < end {
            let pause = pace.pause();
            time += pause;
            pace.accrue(tracker.pass_work(), pause);
            let before = counters.peers.get();
            step(&mut tracker, (Seconds(time.as_secs() as u32), 3600), &mut pace, &counters, || {
                Duration::ZERO
            });
            largest_step = largest_step.max(counters.peers.get() - before);
        }
        assert_eq!((counters.peers.get(), counters.torrents.get()), (20_000, 20_000));
        assert!(largest_step < 1_000, "{largest_step} peers forgotten at a stretch");
    }

    #[test]
    fn a_step_ends_when_its_time_is_up() {
        let mut tracker = tracker_of(20_000, &mut SmallRng::seed_from_u64(12));
        let counters = ExpiryCounters::new(&Registry::default().core(0), &[]);
        let mut pace = Pace::new(INTERVAL);
        pace.accrue(tracker.pass_work(), INTERVAL);
        let slices = Cell::new(0);
        let elapsed = || {
            slices.set(slices.get() + 1);
            STEP / 4 * slices.get()
        };
        step(&mut tracker, (Seconds(0), 3600), &mut pace, &counters, elapsed);
        assert_eq!((slices.get(), counters.out_of_time.get()), (4, 1));
    }
}
