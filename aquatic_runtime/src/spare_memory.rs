//! Memory that connections and large swarms no longer need goes back to the system.
//!
//! The C library keeps what is freed and gives back only the end of its heaps. What thousands of connections
//! held lies all over them, so after a crowd has gone the process would stay as large as it was, for good.
//! Whole pages of it can be given back wherever they are, but looking for them takes a while, during which a
//! core that needs memory waits: some milliseconds for a hundred megabytes. So it is done when half of the
//! connections, or of the memory of the store, have gone, and not otherwise. Most of the store is not
//! concerned: its chunks are mapped one by one, see `sys::map_large_allocations`.

use std::time::Duration;

use crate::housekeeping::Periodic;
use crate::sys;
use aquatic_metrics::{Registry, names};

/// How often the number of connections is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Connections below which there is nothing worth the while.
const FEW_CONNECTIONS: u64 = 1000;
/// Bytes of the store below which there is nothing worth the while.
const SMALL_STORE: u64 = 16 << 20;

/// Gives memory back when there are far fewer connections or peers than there were.
#[derive(Debug)]
pub(crate) struct SpareMemory {
    registry: Registry,
    next: Duration,
    connections: Crowd,
    store: Crowd,
}

impl SpareMemory {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            next: Duration::ZERO,
            connections: Crowd::default(),
            store: Crowd::default(),
        }
    }
}

impl Periodic for SpareMemory {
    fn tick(&mut self, now: Duration) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        let connections = self.connections.has_gone(self.registry.sum(&names::CONNECTIONS), FEW_CONNECTIONS);
        let store = self.store.has_gone(self.registry.sum(&names::STORE), SMALL_STORE);
        if connections || store {
            let given = sys::give_memory_back();
            log::debug!("half of the connections or of the store have gone; memory given back: {given}");
        }
    }
}

/// The most connections, or bytes, since memory was given back.
#[derive(Debug, Default)]
struct Crowd(u64);

impl Crowd {
    /// Returns whether half of it has gone, if it was at least `min`; what is left is then the crowd.
    fn has_gone(&mut self, left: u64, min: u64) -> bool {
        let has_gone = self.0 >= min && left <= self.0 / 2;
        self.0 = if has_gone { left } else { self.0.max(left) };
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
            .map(|connections| crowd.has_gone(connections, FEW_CONNECTIONS));
        let times: Vec<usize> = (0..gone.len()).filter(|at| gone[*at]).collect();
        assert_eq!(times, [6, 9, 12, 13], "at 4000, 2000, 1500 and 700; fewer are not worth it");
    }
}
