//! A core's part: hands the counts of its torrents out, in steps that are too short to delay requests.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use anyhow::Context;
use aquatic_common::Family;
use aquatic_runtime::{Core, MailboxReceiver, Turns};

use super::{Entry, SwarmKind};
use crate::local::LocalTracker;

/// Longest time spent at a stretch, as in expiry. Afterwards the other tasks of the core run.
const STEP: Duration = Duration::from_micros(200);

/// Units of work between two looks at the clock.
const SLICE: u64 = 256;

/// Entries that are handed over together: 74 KB.
const BATCH: usize = 2048;

/// Pause while the side thread has as much as may wait.
const RETRY: Duration = Duration::from_millis(1);

/// Swarms of a core whose counts can be handed out.
pub trait TorrentCounts {
    /// Begins a pass.
    fn begin(&self);

    /// Hands out the next torrents, for so many units of work that take 50 to 100 ns each. Returns whether
    /// the pass has ended. What is there from its beginning to its end is handed out, some of it twice.
    fn count(&self, budget: u64, out: &mut dyn FnMut(Entry)) -> bool;

    /// Ends a pass before its time.
    fn abandon(&self);
}

impl TorrentCounts for LocalTracker {
    fn begin(&self) {
        self.state().begin_counting();
    }

    fn count(&self, budget: u64, out: &mut dyn FnMut(Entry)) -> bool {
        let mut take = |torrent: aquatic_swarm::CountedTorrent| {
            let kind = match torrent.family {
                Family::V4 => SwarmKind::Ipv4,
                Family::V6 => SwarmKind::Ipv6,
            };
            out(Entry {
                info_hash: torrent.info_hash,
                kind,
                complete: torrent.complete,
                incomplete: torrent.incomplete,
                downloaded: torrent.downloaded,
            });
        };
        self.state().count_torrents(budget, &mut take).ended
    }

    fn abandon(&self) {
        self.state().abandon_counting();
    }
}

/// Order to hand out all counts.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Takes entries, and then `None` from each core.
    pub(super) entries: SyncSender<Option<Vec<Entry>>>,
    /// Ends it before its time.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// One core's end of the export thread.
#[derive(Debug)]
pub struct CoreExports(pub(super) MailboxReceiver<Order>);

impl CoreExports {
    /// Serves the export thread on this core with these swarms.
    ///
    /// # Errors
    /// The mailbox cannot be waited for.
    pub fn attach(self, core: &Rc<Core>, swarms: Vec<Rc<dyn TorrentCounts>>) -> anyhow::Result<()> {
        let (core_of_tasks, swarms) = (Rc::clone(core), Rc::new(swarms));
        let passes = Turns::default();
        let receive = move |order| {
            let (core, swarms) = (Rc::clone(&core_of_tasks), Rc::clone(&swarms));
            let passes = passes.clone();
            core_of_tasks.spawn(async move {
                // Swarms have one position each.
                let _turn = passes.next(&core).await;
                run(&core, &swarms, order).await;
            });
        };
        self.0.attach(core, receive).context("cannot wait for the export thread")
    }
}

async fn run(core: &Core, swarms: &[Rc<dyn TorrentCounts>], order: Order) {
    let mut batch = Vec::with_capacity(BATCH);
    for source in swarms {
        source.begin();
        let mut ended = false;
        while !ended {
            let begin = core.tick();
            while !ended && batch.len() < BATCH && core.tick().saturating_sub(begin) < STEP {
                ended = source.count(SLICE, &mut |entry| batch.push(entry));
            }
            if batch.len() >= BATCH {
                let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                if !hand_over(core, &order, Some(full)).await {
                    return source.abandon();
                }
            }
            core.yield_now().await;
        }
    }
    // Whether anybody still waits for them is the business of the one who waits.
    let _ = hand_over(core, &order, Some(batch)).await && hand_over(core, &order, None).await;
}

/// Hands entries to the side thread, waiting for room. Returns whether they have been taken.
async fn hand_over(core: &Core, order: &Order, entries: Option<Vec<Entry>>) -> bool {
    let mut entries = entries;
    loop {
        if order.cancelled.load(Ordering::Relaxed) {
            return false;
        }
        match order.entries.try_send(entries) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(back)) => entries = back,
        }
        core.sleep(RETRY).await;
    }
}
