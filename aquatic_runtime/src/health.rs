//! Noticing a core that has stalled: each core leaves the time at every tick, and the main thread compares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Epoch;

/// Time without a tick after which a core counts as stalled. Ticks come several times a second, and no work
/// takes more than milliseconds at a stretch.
pub const STALL: Duration = Duration::from_secs(3);

/// The time of each core's last tick.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeats {
    /// Milliseconds since the process started; 0 for a core that has not started or has stopped.
    beats: Arc<[AtomicU64]>,
}

impl Heartbeats {
    pub(crate) fn new(cores: usize) -> Self {
        Self { beats: (0..cores).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes a tick of a core.
    pub(crate) fn beat(&self, core: usize, now: Duration) {
        if let Some(beat) = self.beats.get(core) {
            beat.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        }
    }

    /// The cores that have stalled, and for how long.
    pub(crate) fn stalled(&self, now: Duration) -> Vec<(usize, Duration)> {
        self.beats
            .iter()
            .enumerate()
            .filter_map(|(core, beat)| {
                let beat = beat.load(Ordering::Relaxed);
                let still = now.saturating_sub(Duration::from_millis(beat));
                (beat != 0 && still > STALL).then_some((core, still))
            })
            .collect()
    }
}

/// Whether the cores respond, for whoever wants to know: `/health`, the log.
#[derive(Clone, Debug)]
pub struct Health {
    draining: Arc<AtomicBool>,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) epoch: Epoch,
}

impl Health {
    /// The health of this many cores, none of which has started.
    #[must_use]
    pub fn new(cores: usize, epoch: Epoch) -> Self {
        Self { draining: Arc::default(), heartbeats: Heartbeats::new(cores), epoch }
    }

    /// Whether the process is about to end and wants no new clients.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_to_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why the process should get no new clients, for load balancers; `None` if it should.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.is_draining() {
            return Some("draining: the tracker is about to stop\n".to_owned());
        }
        let (core, time) = self.first_stalled()?;
        Some(format!("core {core} has not responded for {} s\n", time.as_secs()))
    }

    /// The first core that has stalled, and for how long; `None` while all respond.
    #[must_use]
    pub fn first_stalled(&self) -> Option<(usize, Duration)> {
        self.heartbeats.stalled(self.epoch.elapsed()).first().copied()
    }

    pub(crate) fn stalled(&self, now: Duration) -> Vec<(usize, Duration)> {
        self.heartbeats.stalled(now)
    }
}

/// Which stalls have been reported.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    stalled: Vec<usize>,
}

impl Watchdog {
    /// What to log now. A stall is told when it begins and when it ends.
    pub(crate) fn observe(&mut self, stalled: &[(usize, Duration)]) -> Observed {
        let mut observed = Observed::default();
        self.stalled.retain(|core| {
            let still = stalled.iter().any(|(stalled, _)| stalled == core);
            if !still {
                observed.lines.push(format!("core {core} responds again"));
            }
            still
        });
        for (core, still) in stalled {
            if !self.stalled.contains(core) {
                self.stalled.push(*core);
                observed.new_stalls += 1;
                observed.lines.push(format!(
                    "core {core} has not responded for {:.1} s: its clients get no answers. The processor may be taken \
                     by another program or by the host of a virtual machine",
                    still.as_secs_f64()
                ));
            }
        }
        observed
    }
}

/// What is new about the cores.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) new_stalls: u64,
    pub(crate) lines: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_without_beats_is_stalled_once() {
        let beats = Heartbeats::new(2);
        let mut watchdog = Watchdog::default();
        let at = Duration::from_secs;
        assert_eq!(beats.stalled(at(100)), []);
        beats.beat(0, at(100));
        beats.beat(1, at(100));
        beats.beat(1, at(104));
        let stalled = beats.stalled(at(104));
        assert_eq!(stalled, [(0, at(4))]);
        let first = watchdog.observe(&stalled);
        assert!(
            first.new_stalls == 1 && first.lines[0].starts_with("core 0 has not responded for 4.0 s"),
            "{first:?}"
        );
        assert_eq!(watchdog.observe(&stalled), Observed::default());
        beats.beat(0, at(105));
        let end = watchdog.observe(&beats.stalled(at(105)));
        assert_eq!(end, Observed { new_stalls: 0, lines: vec!["core 0 responds again".to_owned()] });
    }
}
