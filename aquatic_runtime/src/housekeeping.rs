//! The main thread's periodic work while the cores run: stalled cores, losses and statistics for the log, and
//! whatever else has been registered, such as certificates.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aquatic_metrics::{Counter, LossLog, ProcessFigures, Registry, Sample, Statistics, names};

use crate::clock::{Epoch, Moment};
use crate::drain::Drain;
use crate::health::{Health, Watchdog};
use crate::notify::Notifier;
use crate::supervise::DrainPlan;

/// Periodic work of the main thread. It must not take long.
pub trait Periodic: fmt::Debug + Send {
    /// Called about once a second with the time since the epoch.
    fn tick(&mut self, now: Duration);

    /// Called when the process is told to read its files again (SIGHUP, SIGUSR1), before
    /// [`reload`](Self::reload) of any periodic work: applies changed settings, which name the other files.
    fn reload_configuration(&mut self) {}

    /// Called when the process is told to read its files again (SIGHUP, SIGUSR1).
    fn reload(&mut self) {}
}

/// Time between two statistics reports in the log, in seconds; 0 for no reports. Can be changed by any
/// thread.
#[derive(Clone, Debug)]
pub struct StatisticsInterval(Arc<AtomicU32>);

impl StatisticsInterval {
    pub(crate) fn new(seconds: u32) -> Self {
        Self(Arc::new(AtomicU32::new(seconds)))
    }

    /// Replaces the interval.
    pub fn set(&self, seconds: u32) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed).into())
    }
}

/// Statistics reports at an interval.
struct Reports {
    statistics: Statistics,
    interval: Duration,
    next: Duration,
}

impl Reports {
    /// Reports from `now` on; `None` if the interval is 0.
    fn begin(interval: Duration, now: Duration, samples: Vec<Sample>) -> Option<Self> {
        let statistics = Statistics::new(now, samples);
        (!interval.is_zero()).then(|| Self { statistics, interval, next: now + interval })
    }
}

pub(crate) struct Housekeeper {
    epoch: Epoch,
    last: Duration,
    registry: Registry,
    process: ProcessFigures,
    losses: LossLog,
    interval: StatisticsInterval,
    reports: Option<Reports>,
    health: Health,
    watchdog: Watchdog,
    stalls: Counter,
    periodic: Vec<Box<dyn Periodic>>,
    notifier: Notifier,
}

impl Housekeeper {
    pub(crate) fn new(
        epoch: Epoch,
        interval: StatisticsInterval,
        registry: &Registry,
        process: ProcessFigures,
        health: Health,
    ) -> Self {
        let now = epoch.elapsed();
        Self {
            epoch,
            last: now,
            registry: registry.clone(),
            process,
            losses: LossLog::default(),
            reports: Reports::begin(interval.get(), now, registry.samples()),
            interval,
            health,
            watchdog: Watchdog::default(),
            stalls: registry.main_thread().counter(&names::STALLS, &[]),
            periodic: Vec::new(),
            notifier: Notifier::default(),
        }
    }

    /// Adds periodic tasks.
    pub(crate) fn with_periodic(self, periodic: Vec<Box<dyn Periodic>>) -> Self {
        Self { periodic, ..self }
    }

    /// Adds the way to the service manager.
    pub(crate) fn with_notifier(self, notifier: Notifier) -> Self {
        Self { notifier, ..self }
    }

    /// The way to the service manager.
    pub(crate) fn notifier(&mut self) -> &mut Notifier {
        &mut self.notifier
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
        let stalled = self.health.stalled(now);
        if stalled.is_empty() {
            self.notifier.alive();
        }
        let observed = self.watchdog.observe(&stalled);
        self.stalls.add(observed.new_stalls);
        for line in observed.lines {
            log::warn!("{line}");
        }
        let samples = self.registry.samples();
        for line in self.losses.observe(now, &samples) {
            log::warn!("{line}");
        }
        self.report(now, samples);
        for periodic in &mut self.periodic {
            periodic.tick(now);
        }
    }

    /// Reads files again.
    pub(crate) fn reload(&mut self) {
        self.notifier.reloading(Moment::now().monotonic);
        self.read_files_again();
        self.notifier.ready();
    }

    /// The same without telling the service manager, which has not asked for it.
    pub(crate) fn read_files_again(&mut self) {
        for periodic in &mut self.periodic {
            periodic.reload_configuration();
        }
        for periodic in &mut self.periodic {
            periodic.reload();
        }
    }

    /// Tells load balancers that the process is about to stop.
    pub(crate) fn begin_to_drain(&self, plan: DrainPlan) -> Drain {
        let DrainPlan { notice, limit } = plan;
        log::info!(
            "draining: new connections are accepted for {} s, then those there are have {} s to end",
            notice.as_secs(),
            limit.as_secs()
        );
        self.health.begin_to_drain();
        Drain::begin(plan, self.now())
    }

    /// Open connections of all cores.
    pub(crate) fn connections(&self) -> u64 {
        self.registry.sum(&names::CONNECTIONS)
    }

    /// Writes a report if one is due. After a change of the interval, rates are taken since the change.
    fn report(&mut self, now: Duration, mut samples: Vec<Sample>) {
        let interval = self.interval.get();
        if self.reports.as_ref().map_or(Duration::ZERO, |reports| reports.interval) != interval {
            self.reports = Reports::begin(interval, now, samples);
            return;
        }
        let Some(Reports { statistics, next, .. }) =
            self.reports.as_mut().filter(|reports| now >= reports.next)
        else {
            return;
        };
        *next = (*next + interval).max(now);
        samples.extend(self.process.samples());
        for line in statistics.report(now, samples) {
            log::info!("statistics: {line}");
        }
    }
}
