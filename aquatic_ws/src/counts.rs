//! Counts of all torrents, handed out in steps.

use std::cell::Cell;
use std::rc::Rc;

use aquatic_tracker::AdmissionRequest;
use aquatic_tracker::export::{Entry, SwarmKind, TorrentCounts};

use crate::session::CoreState;

/// Counts of the torrents of a core.
pub struct WsCounts {
    state: Rc<CoreState>,
    /// Torrents that the present pass has not visited.
    unvisited: Cell<usize>,
}

impl std::fmt::Debug for WsCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WsCounts").field("unvisited", &self.unvisited).finish_non_exhaustive()
    }
}

impl WsCounts {
    pub(crate) fn new(state: Rc<CoreState>) -> Self {
        Self { state, unvisited: Cell::new(0) }
    }
}

impl TorrentCounts for WsCounts {
    fn begin(&self) {
        self.unvisited.set(usize::MAX);
    }

    fn count(&self, budget: u64, out: &mut dyn FnMut(Entry)) -> bool {
        let most = usize::try_from(budget).unwrap_or(usize::MAX);
        let tracker = self.state.tracker.borrow();
        let left = tracker.swarms().count_torrents(self.unvisited.get(), most, |info_hash, counts| {
            if self.state.admission.check(AdmissionRequest::of(info_hash)).is_err() {
                return;
            }
            out(Entry {
                info_hash: *info_hash,
                kind: SwarmKind::WebTorrent,
                complete: counts.complete,
                incomplete: counts.incomplete,
                downloaded: counts.downloaded,
            });
        });
        self.unvisited.set(left);
        left == 0
    }

    fn abandon(&self) {
        self.unvisited.set(0);
    }
}
