//! Memory that connections no longer need goes back to the system.
//!
//! The C library keeps what is freed and gives back only the end of its heaps. What thousands of connections
//! held lies all over them, so after a crowd has gone the process would stay as large as it was, for good.
//! Whole pages of it can be given back wherever they are, but looking for them takes a while, during which a
//! core that needs memory waits: some milliseconds for a hundred megabytes. So it is done when half of the
//! connections have gone, and not otherwise.

use std::time::Duration;

use crate::housekeeping::Periodic;
use crate::sys;
use aquatic_metrics::{Registry, names};

/// How often the number of connections is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Connections below which there is nothing worth the while.
const SMALL: u64 = 1000;

/// Gives memory back when there are far fewer connections than there were.
#[derive(Debug)]
pub(crate) struct SpareMemory {
    registry: Registry,
    next: Duration,
    crowd: Crowd,
}

impl SpareMemory {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), next: Duration::ZERO, crowd: Crowd::default() }
    }
}

impl Periodic for SpareMemory {
    fn tick(&mut self, now: Duration) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        if self.crowd.has_gone(self.registry.sum(&names::CONNECTIONS)) {
            let given = sys::give_memory_back();
            log::debug!("half of the connections have gone; memory given back: {given}");
        }
    }
}

/// The most connections since memory was given back.
#[derive(Debug, Default)]
struct Crowd(u64);

impl Crowd {
    /// Whether half of it has gone; this is then the crowd.
    fn has_gone(&mut self, connections: u64) -> bool {
        let has_gone = self.0 >= SMALL && connections <= self.0 / 2;
        self.0 = if has_gone { connections } else { self.0.max(connections) };
        has_gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_counts_once() {
        let mut crowd = Crowd::default();
        let gone = [0, 999, 0, 1000, 8000, 4001, 4000, 4000, 2001, 2000, 1900, 3000, 1500, 700, 0, 0]
            .map(|connections| crowd.has_gone(connections));
        let times: Vec<usize> = (0..gone.len()).filter(|at| gone[*at]).collect();
        assert_eq!(times, [6, 9, 12, 13], "at 4000, 2000, 1500 and 700; fewer are not worth it");
    }
}
