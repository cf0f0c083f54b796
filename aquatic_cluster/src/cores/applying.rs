//! Taking in what other nodes have heard.

use std::rc::Rc;

use aquatic_metrics::CoreMetrics;
use aquatic_metrics::{Counter, names};
use aquatic_runtime::Core;
use aquatic_tracker::replication::{Applied, Change, take_record};
use aquatic_tracker::snapshot::{Loaded, Run};
use aquatic_tracker::{LocalTracker, Origin};

use super::{STEP, Waiting};

/// Changes whose places in the store are loaded together.
const RUN: usize = 32;

/// Number of outcomes of a change.
const OUTCOMES: usize = 8;

/// One of the numbers of peers that were loaded.
type NumberOf = fn(&Loaded) -> u64;

/// What a core counts of other nodes.
pub(super) struct Counters {
    applied: [(Applied, Counter); OUTCOMES],
    loaded: [(Counter, NumberOf); 6],
}

/// Label of an outcome.
fn label(applied: Applied) -> &'static str {
    match applied {
        Applied::Added => "added",
        Applied::Updated => "updated",
        Applied::Older => "older",
        Applied::Removed => "removed",
        Applied::Absent => "absent",
        Applied::Reasserted => "reasserted",
        Applied::Refused => "refused",
        Applied::NotHeld => "not_held",
    }
}

impl Counters {
    pub(super) fn new(metrics: &CoreMetrics) -> Self {
        use Applied::{Absent, Added, NotHeld, Older, Reasserted, Refused, Removed, Updated};
        let applied = |applied| {
            let labels = [("kind", "peers"), ("outcome", label(applied))];
            (applied, metrics.counter(&names::CLUSTER_APPLIED, &labels))
        };
        let loaded = |outcome| metrics.counter(&names::CLUSTER_PULLED_PEERS, &[("outcome", outcome)]);
        Self {
            applied: [Added, Updated, Older, Removed, Absent, Reasserted, NotHeld, Refused].map(applied),
            loaded: [
                (loaded("stored"), |loaded| loaded.restored.added),
                (loaded("known"), |loaded| loaded.restored.known),
                (loaded("too_old"), |loaded| loaded.too_old),
                (loaded("stopped"), |loaded| loaded.stopped),
                (loaded("not_admitted"), |loaded| loaded.not_admitted),
                (loaded("refused"), |loaded| {
                    loaded.restored.limited + loaded.restored.invalid + loaded.refused
                }),
            ],
        }
    }

    fn add(&self, outcomes: &[u64; OUTCOMES]) {
        for ((_, counter), number) in self.applied.iter().zip(outcomes) {
            counter.add(*number);
        }
    }
}

/// Seconds from a moment of this process, in milliseconds, to now.
fn since(core: &Core, taken: i64) -> u32 {
    let now = i64::try_from(core.time().as_millis()).unwrap_or(i64::MAX);
    u32::try_from(now.saturating_sub(taken).max(0) / 1000).unwrap_or(u32::MAX)
}

/// Applies changes in steps.
pub(super) async fn apply(core: &Rc<Core>, tracker: &LocalTracker, changes: &Waiting, counters: &Counters) {
    let mut content = changes.content.as_slice();
    let mut run: Vec<Change> = Vec::with_capacity(RUN);
    let mut outcomes = [0; OUTCOMES];
    while !content.is_empty() {
        let begin = core.tick();
        let ago = since(core, changes.taken);
        while core.tick().saturating_sub(begin) < STEP && !content.is_empty() {
            while run.len() < RUN && !content.is_empty() {
                // The thread has divided the records.
                let Ok(change) = take_record(changes.family, &mut content) else { return };
                run.push(change);
            }
            let mut state = tracker.state();
            state.prefetch_changes(changes.family, &run);
            for change in run.drain(..) {
                let age = ago.saturating_add(change.age.into());
                let applied = state.apply_change(&change, age, core.now());
                if let Some(count) = outcomes.get_mut(applied as usize) {
                    *count += 1;
                }
            }
        }
        if !content.is_empty() {
            core.yield_now().await;
        }
    }
    counters.add(&outcomes);
}

/// Takes in torrents that another node knows, in steps.
pub(super) async fn load(core: &Rc<Core>, tracker: &LocalTracker, torrents: &Waiting, counters: &Counters) {
    let mut content = torrents.content.as_slice();
    let mut run = Run::default();
    let mut loaded = Loaded::default();
    while !content.is_empty() {
        let begin = core.tick();
        let gap = since(core, torrents.taken);
        let max_peer_age = tracker.max_peer_age();
        while core.tick().saturating_sub(begin) < STEP && !content.is_empty() {
            if !run.take(torrents.family, &mut content) {
                return;
            }
            let mut state = tracker.state();
            state.prefetch_scrape(torrents.family, &run.info_hashes);
            for torrent in run.torrents.drain(..) {
                loaded.add(state.load(torrent, (gap, max_peer_age), core.now(), Origin::Other));
            }
        }
        core.yield_now().await;
    }
    for (counter, number) in &counters.loaded {
        counter.add(number(&loaded));
    }
}
