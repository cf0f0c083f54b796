//! Forgetting peers in the background: one pass over the shard takes the configured interval, in small steps that no
//! request notices.

use std::rc::Rc;
use std::time::Duration;

use crate::core::Core;
use crate::metrics::{Counter, names};

/// Longest time spent at a stretch. A batch of packets takes about as long.
const STEP: Duration = Duration::from_micros(200);

/// Units of work between two looks at the clock.
const SLICE: u64 = 256;

/// Shortest and longest pause between two steps. The shortest bounds the share of the core that expiry may take when
/// it is behind: a tenth.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How much work is due, so that a pass takes the interval.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// Work that should have been done by now, in units; below zero when ahead.
    owed: f64,
}

impl Pace {
    fn new(interval: Duration) -> Self {
        Self { interval, owed: 0.0 }
    }

    /// Units per second that make a pass of this much work last the interval.
    fn rate(&self, pass_work: u64) -> f64 {
        (pass_work as f64 / self.interval.as_secs_f64()).max(f64::MIN_POSITIVE)
    }

    /// Adds what has become due; never more than a whole pass, so that a long sleep is not made up for.
    fn accrue(&mut self, pass_work: u64, passed: Duration) {
        self.owed = (self.owed + self.rate(pass_work) * passed.as_secs_f64()).min(pass_work as f64);
    }

    /// The next slice to work off, if one is due.
    fn slice(&self) -> Option<u64> {
        (self.owed >= 1.0).then(|| (self.owed as u64).min(SLICE))
    }

    fn worked(&mut self, units: u64) {
        self.owed -= units as f64;
    }

    /// How long to pause: until a whole slice is due.
    fn pause(&self, pass_work: u64) -> Duration {
        let until_due = (SLICE as f64 - self.owed) / self.rate(pass_work);
        let longest = LONGEST_PAUSE.as_secs_f64();
        Duration::from_secs_f64(until_due.clamp(SHORTEST_PAUSE.as_secs_f64(), longest))
    }
}

/// What expiry counts.
pub(crate) struct ExpiryCounters {
    peers: Counter,
    torrents: Counter,
    passes: Counter,
    out_of_time: Counter,
}

impl ExpiryCounters {
    pub(crate) fn new(metrics: &crate::metrics::CoreMetrics) -> Self {
        Self {
            peers: metrics.counter(&names::EXPIRED_PEERS, &[]),
            torrents: metrics.counter(&names::EXPIRED_TORRENTS, &[]),
            passes: metrics.counter(&names::EXPIRY_PASSES, &[]),
            out_of_time: metrics.counter(&names::EXPIRY_BEHIND, &[]),
        }
    }
}

/// Runs for as long as the core.
pub(crate) async fn run<M: Send + 'static>(core: Rc<Core<M>>, interval: Duration, counters: ExpiryCounters) {
    // Cores begin at different times, so that their steps do not coincide.
    let share = core.index() as f64 / core.count() as f64;
    core.sleep(LONGEST_PAUSE.mul_f64(share).max(SHORTEST_PAUSE)).await;
    let mut pace = Pace::new(interval);
    let mut last = core.tick();
    loop {
        let begin = core.tick();
        pace.accrue(core.shard().pass_work(), begin.saturating_sub(last));
        last = begin;
        step(&core, &mut pace, &counters, begin);
        let pause = pace.pause(core.shard().pass_work());
        core.sleep(pause).await;
    }
}

fn step<M: Send + 'static>(core: &Core<M>, pace: &mut Pace, counters: &ExpiryCounters, begin: Duration) {
    while let Some(budget) = pace.slice() {
        let expired = core.shard().expire(core.now(), budget);
        counters.peers.add(expired.peers);
        counters.torrents.add(expired.torrents);
        counters.passes.add(expired.pass_ended.into());
        // A step that found nothing to do has still used up what was due, or an empty shard would never end it.
        pace.worked(expired.work.max(if expired.pass_ended { budget } else { 1 }));
        if core.tick().saturating_sub(begin) >= STEP {
            counters.out_of_time.add(pace.slice().is_some().into());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(120);

    #[test]
    fn a_pass_takes_the_interval() {
        for pass_work in [0_u64, 7, 10_000, 20_000_000] {
            let mut pace = Pace::new(INTERVAL);
            let (mut time, mut done) = (Duration::ZERO, 0);
            while time < INTERVAL {
                let pause = pace.pause(pass_work);
                assert!((SHORTEST_PAUSE..=LONGEST_PAUSE).contains(&pause), "{pause:?}");
                time += pause;
                pace.accrue(pass_work, pause);
                while let Some(units) = pace.slice() {
                    pace.worked(units);
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
        assert_eq!(pace.pause(20_000_000), SHORTEST_PAUSE);
        assert_eq!(pace.slice(), Some(SLICE));
    }

    #[test]
    fn a_long_sleep_is_not_made_up_for() {
        let mut pace = Pace::new(INTERVAL);
        pace.accrue(1000, Duration::from_secs(3600));
        assert!(pace.owed <= 1000.0);
    }
}
