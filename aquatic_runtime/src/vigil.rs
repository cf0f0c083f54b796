//! What the main thread does about once a second while the cores work: looks whether they move, tells the log what
//! got lost, reports statistics, and reads the access list again when asked to.

use std::sync::Arc;
use std::time::Duration;

use crate::access_list::SharedAccessList;
use crate::clock::Epoch;
use crate::engine::Watch;
use crate::metrics::{Counter, Gauge, LossWatch, ProcessFigures, Registry, Sample, Statistics, names};
use crate::watchdog::{Heartbeats, Watchdog};

/// How many bad lines of the access list are logged one by one.
const LOGGED_LINES: usize = 10;

pub(crate) struct Vigil {
    epoch: Epoch,
    next: Duration,
    registry: Registry,
    process: ProcessFigures,
    losses: LossWatch,
    statistics: Option<(Statistics, Duration)>,
    next_report: Duration,
    heartbeats: Heartbeats,
    watchdog: Watchdog,
    access: Arc<SharedAccessList>,
    watches: Vec<Box<dyn Watch>>,
    counts: Counts,
}

struct Counts {
    stalls: Counter,
    listed: Gauge,
    reloaded: Counter,
    failed: Counter,
    bad_lines: Counter,
}

impl Vigil {
    /// `interval` is the number of seconds between two statistics reports, 0 for none.
    pub(crate) fn new(
        epoch: Epoch,
        interval: u32,
        registry: &Registry,
        process: ProcessFigures,
        heartbeats: Heartbeats,
        access: Arc<SharedAccessList>,
    ) -> Self {
        // The main thread counts like one more core.
        let metrics = registry.core(usize::MAX);
        let counts = Counts {
            stalls: metrics.counter(&names::STALLS, &[]),
            listed: metrics.gauge(&names::ACCESS_LIST, &[]),
            reloaded: metrics.counter(&names::ACCESS_RELOADS, &[("outcome", "done")]),
            failed: metrics.counter(&names::ACCESS_RELOADS, &[("outcome", "failed")]),
            bad_lines: metrics.counter(&names::ACCESS_BAD_LINES, &[]),
        };
        counts.listed.set(access.len() as u64);
        let now = epoch.elapsed();
        let interval = Duration::from_secs(interval.into());
        let statistics = (!interval.is_zero()).then(|| (Statistics::new(now, registry.samples()), interval));
        Self {
            epoch,
            next: now,
            registry: registry.clone(),
            process,
            losses: LossWatch::default(),
            statistics,
            next_report: now + interval,
            heartbeats,
            watchdog: Watchdog::default(),
            access,
            watches: Vec::new(),
            counts,
        }
    }

    /// Looks after these, too.
    pub(crate) fn with_watches(self, watches: Vec<Box<dyn Watch>>) -> Self {
        Self { watches, ..self }
    }

    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Time until the next look, which is at most `interval` after the last one.
    pub(crate) fn until_next(&self, interval: Duration) -> Duration {
        (self.next + interval).saturating_sub(self.now())
    }

    /// Looks after everything once.
    pub(crate) fn look(&mut self) {
        let now = self.now();
        self.next = now;
        let observed = self.watchdog.observe(&self.heartbeats.stalled(now));
        self.counts.stalls.add(observed.new_stalls);
        for line in observed.lines {
            log::warn!("{line}");
        }
        let samples = self.registry.samples();
        for line in self.losses.observe(now, &samples) {
            log::warn!("{line}");
        }
        if now >= self.next_report {
            self.report(now, samples);
        }
        for watch in &mut self.watches {
            watch.look(now);
        }
    }

    /// Reads again what is read from files.
    pub(crate) fn reload(&mut self) {
        self.reload_access_list();
        for watch in &mut self.watches {
            watch.reload();
        }
    }

    fn report(&mut self, now: Duration, mut samples: Vec<Sample>) {
        let Some((statistics, interval)) = &mut self.statistics else { return };
        self.next_report = (self.next_report + *interval).max(now);
        samples.extend(self.process.samples());
        for line in statistics.report(now, samples) {
            log::info!("statistics: {line}");
        }
    }

    /// Reads the access list again and says what came of it.
    fn reload_access_list(&self) {
        match self.access.reload() {
            Ok(reloaded) => {
                self.counts.reloaded.add(1);
                self.counts.listed.set(reloaded.len as u64);
                self.counts.bad_lines.add(reloaded.bad_lines.len() as u64);
                for line in reloaded.bad_lines.iter().take(LOGGED_LINES) {
                    log::warn!("access list, {line}; skipped");
                }
                if let Some(more @ 1..) = reloaded.bad_lines.len().checked_sub(LOGGED_LINES) {
                    log::warn!("access list: {more} more lines skipped");
                }
                log::info!("access list read again: {} info hashes", reloaded.len);
            }
            Err(error) => {
                self.counts.failed.add(1);
                log::error!("the old access list stays in use: {error}");
            }
        }
    }
}
