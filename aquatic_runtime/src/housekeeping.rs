//! The main thread's periodic work while the cores run: stalled cores, losses and statistics for the log, and whatever
//! else has been registered, such as certificates.

use std::fmt;
use std::time::Duration;

use aquatic_metrics::{Counter, LossLog, ProcessFigures, Registry, Sample, Statistics, names};

use crate::clock::Epoch;
use crate::health::{Health, Watchdog};

/// Periodic work of the main thread. It must not take long.
pub trait Periodic: fmt::Debug + Send {
    /// Called about once a second with the time since the epoch.
    fn tick(&mut self, now: Duration);

    /// Called when the process is told to read its files again (SIGHUP, SIGUSR1).
    fn reload(&mut self) {}
}

pub(crate) struct Housekeeper {
    epoch: Epoch,
    last: Duration,
    registry: Registry,
    process: ProcessFigures,
    losses: LossLog,
    statistics: Option<(Statistics, Duration)>,
    next_report: Duration,
    health: Health,
    watchdog: Watchdog,
    stalls: Counter,
    periodic: Vec<Box<dyn Periodic>>,
}

impl Housekeeper {
    /// `interval` is the number of seconds between two statistics reports, 0 for none.
    pub(crate) fn new(
        epoch: Epoch,
        interval: u32,
        registry: &Registry,
        process: ProcessFigures,
        health: Health,
    ) -> Self {
        let now = epoch.elapsed();
        let interval = Duration::from_secs(interval.into());
        let statistics = (!interval.is_zero()).then(|| (Statistics::new(now, registry.samples()), interval));
        Self {
            epoch,
            last: now,
            registry: registry.clone(),
            process,
            losses: LossLog::default(),
            statistics,
            next_report: now + interval,
            health,
            watchdog: Watchdog::default(),
            stalls: registry.main_thread().counter(&names::STALLS, &[]),
            periodic: Vec::new(),
        }
    }

    /// Adds periodic tasks.
    pub(crate) fn with_periodic(self, periodic: Vec<Box<dyn Periodic>>) -> Self {
        Self { periodic, ..self }
    }

    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Time until the next [`tick`](Self::tick), which is due `interval` after the last one.
    pub(crate) fn until_next(&self, interval: Duration) -> Duration {
        (self.last + interval).saturating_sub(self.now())
    }

    /// Does everything once.
    pub(crate) fn tick(&mut self) {
        let now = self.now();
        self.last = now;
        let observed = self.watchdog.observe(&self.health.stalled(now));
        self.stalls.add(observed.new_stalls);
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
        for periodic in &mut self.periodic {
            periodic.tick(now);
        }
    }

    /// Reads files again.
    pub(crate) fn reload(&mut self) {
        for periodic in &mut self.periodic {
            periodic.reload();
        }
    }

    fn report(&mut self, now: Duration, mut samples: Vec<Sample>) {
        let Some((statistics, interval)) = &mut self.statistics else { return };
        self.next_report = (self.next_report + *interval).max(now);
        samples.extend(self.process.samples(now));
        for line in statistics.report(now, samples) {
            log::info!("statistics: {line}");
        }
    }
}
