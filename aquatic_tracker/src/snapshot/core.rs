//! A core's part: hands its shard out, and takes torrents in, in steps that are too short to delay requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, SyncSender, TrySendError};
use std::time::Duration;

use anyhow::Context;
use aquatic_common::{Family, Seconds};
use aquatic_runtime::clock::thread_cpu_time;
use aquatic_runtime::{Core, MailboxReceiver, Turns};
use aquatic_swarm::{Origin, PeerBuffers, Restored, SaveFilter, SavePass};

use super::format::Kind;
use super::records::{Record, take_record};
use super::run::{Run, TORRENTS_PER_RUN};
use super::stream::{Chunk, Chunks};
use crate::admission::AdmissionRequest;
use crate::local::LocalTracker;

/// Longest time spent at a stretch, as in expiry. Afterwards the other tasks of the core run.
const STEP: Duration = Duration::from_micros(200);

/// The pass of snapshots and hand-overs.
const PASS: (SavePass, SaveFilter<'_>) = (SavePass::Snapshot, SaveFilter::All);

/// Units of work between two looks at the clock.
const SLICE: u64 = 256;

/// Pause while chunks or batches have to be waited for.
const RETRY: Duration = Duration::from_millis(1);

/// How many times as long as requests have taken a hand-over waits after a step, and how long at most.
///
/// The successor waits after another thread has had its processor, which the predecessor serves on: a core
/// that always has something to do would get half of it. The predecessor waits after its other tasks had
/// something to do.
const BACKOFF: u32 = 4;
const MAX_BACKOFF: Duration = Duration::from_millis(10);

/// What the side thread asks of a core.
#[derive(Debug)]
pub(super) enum Command {
    /// Responds with the longest interval in seconds that a client may be waiting for; 0 if none was given
    /// out.
    LongestInterval(Sender<u32>),
    /// Hand out the content.
    Save(Save),
    /// Take in torrents, which follow.
    BeginLoading(Source),
    /// Clients may be waiting for an interval of so many seconds that the predecessor gave out.
    GivenOut(u32),
    /// Take in these torrents.
    Load(Batch),
    /// All have been sent. Responds with what became of them.
    EndLoading(Sender<Loaded>),
    /// Responds when what has been sent before has been taken in.
    Settle(Sender<Loaded>),
    /// Nothing more follows; what has been taken in is kept.
    Close,
    /// Hand out the content, and what changes, to a successor.
    HandOver(Order),
    /// Tell when all that has been applied has been handed out.
    Mark,
}

/// Where torrents come from that are taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// What the clock showed when they were handed out, in seconds since the epoch; it may be before that.
    pub(super) at: i64,
    pub(super) origin: Origin,
}

/// Order to hand out the content and what changes.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Moment that ages are counted to.
    pub(super) at: Seconds,
    pub(super) chunks: SyncSender<FromCore>,
    /// Ends it.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// What a core hands out to a successor.
#[derive(Debug)]
pub(super) enum FromCore {
    /// Torrents.
    Chunk(Chunk),
    /// Announces that it has applied.
    Records(Family, Vec<u8>),
    /// All torrents have been handed out.
    Passed,
    /// All that had been applied when the mark was asked for has been handed out.
    Marked,
    /// There are too many announces; some were left out.
    Overflowed,
}

/// Order to hand out the content.
#[derive(Clone, Debug)]
pub(super) struct Save {
    /// Moment of the snapshot.
    pub(super) at: Seconds,
    /// Takes full chunks, and then `None` from each core.
    pub(super) chunks: SyncSender<Option<Chunk>>,
    /// Ends it before its time.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// Torrents or announces of one core, as they are written.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) kind: Kind,
    pub(super) content: Vec<u8>,
    /// Batches of this core that have not been taken in yet.
    pub(super) waiting: Arc<AtomicUsize>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Release);
    }
}

/// What a core has taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Peers that reached the store.
    pub restored: Restored,
    /// Peers left out because they are too old by now.
    pub too_old: u64,
    /// Peers left out because they have stopped since.
    pub stopped: u64,
    /// Peers left out because their torrent is not served any more.
    pub not_admitted: u64,
    /// Peers left out because the settings refuse their address or port.
    pub refused: u64,
}

impl Loaded {
    /// Adds other numbers to these.
    pub fn add(&mut self, other: Self) {
        let Self { restored, too_old, stopped, not_admitted, refused } = other;
        self.restored.add(restored);
        self.too_old += too_old;
        self.stopped += stopped;
        self.not_admitted += not_admitted;
        self.refused += refused;
    }
}

/// One core's end of the snapshot thread.
#[derive(Debug)]
pub struct CoreSnapshots(pub(super) MailboxReceiver<Command>);

impl CoreSnapshots {
    /// Serves the snapshot thread on this core.
    ///
    /// # Errors
    /// The mailbox cannot be waited for.
    pub fn attach(self, core: &Rc<Core>, tracker: &Rc<LocalTracker>) -> anyhow::Result<()> {
        let (core_of_tasks, tracker) = (Rc::clone(core), Rc::clone(tracker));
        // Each load has a queue and each hand-over has marks of its own: the one before it may not have come
        // to its end yet.
        let mut loading = Rc::<Queue>::default();
        let mut marks = Rc::<Cell<u32>>::default();
        let passes = Turns::default();
        let receive = move |command| match command {
            Command::Save(save) => {
                let (core, tracker) = (Rc::clone(&core_of_tasks), Rc::clone(&tracker));
                let passes = passes.clone();
                core_of_tasks.spawn(async move { run_save(&core, &tracker, &passes, save).await });
            }
            Command::BeginLoading(source) => {
                tracker.state().begin_loading();
                let (core, tracker) = (Rc::clone(&core_of_tasks), Rc::clone(&tracker));
                loading = Rc::default();
                let queue = Rc::clone(&loading);
                core_of_tasks.spawn(async move { run_load(&core, &tracker, source, &queue).await });
            }
            Command::LongestInterval(sender) => {
                // Without a receiver nobody waits for it any more.
                let _ = sender.send(tracker.state().longest_given_out());
            }
            Command::GivenOut(interval) => tracker.note_given_out(interval),
            Command::Load(batch) => loading.borrow_mut().push_back(Queued::Batch(batch)),
            Command::EndLoading(sender) => loading.borrow_mut().push_back(Queued::End(sender)),
            Command::Settle(sender) => loading.borrow_mut().push_back(Queued::Settle(sender)),
            Command::Close => loading.borrow_mut().push_back(Queued::Close),
            Command::HandOver(order) => {
                let (core, tracker) = (Rc::clone(&core_of_tasks), Rc::clone(&tracker));
                marks = Rc::default();
                let (passes, marks) = (passes.clone(), Rc::clone(&marks));
                core_of_tasks
                    .spawn(async move { run_hand_over(&core, &tracker, &passes, (&order, &marks)).await });
            }
            Command::Mark => marks.set(marks.get() + 1),
        };
        self.0.attach(core, receive).context("cannot wait for the snapshot thread")
    }
}

async fn run_save(core: &Rc<Core>, tracker: &LocalTracker, passes: &Turns, save: Save) {
    let _turn = passes.next(core).await;
    let mut chunks = Chunks::default();
    tracker.state().begin_saving(SavePass::Snapshot);
    let mut ended = false;
    while !ended {
        let begin = core.tick();
        while !ended && core.tick().saturating_sub(begin) < STEP {
            let ago = core.now().0.saturating_sub(save.at.0);
            ended = tracker.state().save(PASS, (core.now(), ago), SLICE, &mut chunks).ended;
        }
        while let Some(chunk) = chunks.pop_full() {
            if !give(core, (&save.chunks, &save.cancelled), Some(chunk)).await {
                return tracker.state().abandon_saving(SavePass::Snapshot);
            }
        }
        core.yield_now().await;
    }
    // Whether anybody still waits for them is the business of the one who waits.
    let to = (&save.chunks, &*save.cancelled);
    let _ = give(core, to, Some(chunks.finish())).await && give(core, to, None).await;
}

/// Gives something to the side thread, waiting for room. Returns whether it has been taken.
async fn give<T>(core: &Core, (to, cancelled): (&SyncSender<T>, &AtomicBool), item: T) -> bool {
    let mut item = item;
    loop {
        if cancelled.load(Ordering::Relaxed) {
            return false;
        }
        match to.try_send(item) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(back)) => item = back,
        }
        core.sleep(RETRY).await;
    }
}

/// Hands out the content and what changes, until that is cancelled or the process ends.
async fn run_hand_over(
    core: &Rc<Core>,
    tracker: &LocalTracker,
    passes: &Turns,
    (order, marks): (&Order, &Cell<u32>),
) {
    let _turn = passes.next(core).await;
    let to = (&order.chunks, &*order.cancelled);
    tracker.state().begin_recording();
    tracker.state().begin_saving(SavePass::Snapshot);
    if pass(core, tracker, order).await {
        while give_changes(core, tracker, order, marks).await {
            core.sleep(RETRY).await;
        }
    } else {
        tracker.state().abandon_saving(SavePass::Snapshot);
    }
    if tracker.state().end_recording() {
        let _ = give(core, to, FromCore::Overflowed).await;
    }
}

/// Hands out the content once, in steps, and what changes meanwhile. Returns whether all was taken.
async fn pass(core: &Rc<Core>, tracker: &LocalTracker, order: &Order) -> bool {
    let to = (&order.chunks, &*order.cancelled);
    let mut chunks = Chunks::default();
    let mut ended = false;
    while !ended {
        // Announces are sent behind the torrents that were handed out before them, and in front of those that
        // are handed out after them: what the latter have counted is not to be counted again.
        let records = take_records(tracker);
        let before = if records.is_empty() { Chunk::default() } else { chunks.finish() };
        let begin = core.tick();
        while !ended && core.tick().saturating_sub(begin) < STEP {
            let ago = core.now().0.saturating_sub(order.at.0);
            ended = tracker.state().save(PASS, (core.now(), ago), SLICE, &mut chunks).ended;
        }
        // Few at a time, and at once: the successor is to have little left to do in the end.
        if !before.is_empty() && !give(core, to, FromCore::Chunk(before)).await
            || !give_records(core, tracker, order, records).await
        {
            return false;
        }
        while let Some(chunk) = chunks.pop_full() {
            if !give(core, to, FromCore::Chunk(chunk)).await {
                return false;
            }
        }
        let used = thread_cpu_time();
        core.yield_now().await;
        back_off(core, thread_cpu_time().saturating_sub(used)).await;
    }
    give(core, to, FromCore::Chunk(chunks.finish())).await && give(core, to, FromCore::Passed).await
}

/// Hands out what has changed, and the marks that were asked for. Returns whether all was taken.
async fn give_changes(core: &Core, tracker: &LocalTracker, order: &Order, marks: &Cell<u32>) -> bool {
    let to = (&order.chunks, &*order.cancelled);
    let wanted = marks.take();
    if !give_records(core, tracker, order, take_records(tracker)).await {
        return false;
    }
    for _ in 0..wanted {
        if !give(core, to, FromCore::Marked).await {
            return false;
        }
    }
    true
}

/// What has been applied since it was last taken, by family.
fn take_records(tracker: &LocalTracker) -> Vec<(Family, Vec<u8>)> {
    let taken = |family| Some((family, tracker.state().take_records(family)?));
    Family::ALL.into_iter().filter_map(taken).collect()
}

/// Hands out what has changed. Returns whether all was taken, and is all there was.
async fn give_records(
    core: &Core,
    tracker: &LocalTracker,
    order: &Order,
    all: Vec<(Family, Vec<u8>)>,
) -> bool {
    for (family, records) in all {
        if !give(core, (&order.chunks, &*order.cancelled), FromCore::Records(family, records)).await {
            return false;
        }
    }
    !order.cancelled.load(Ordering::Relaxed) && !tracker.state().has_overflowed()
}

/// What waits to be taken in.
#[derive(Debug)]
enum Queued {
    Batch(Batch),
    End(Sender<Loaded>),
    Settle(Sender<Loaded>),
    Close,
}

/// What waits for a load.
type Queue = RefCell<VecDeque<Queued>>;

async fn run_load(core: &Rc<Core>, tracker: &LocalTracker, source: Source, queue: &Queue) {
    let mut loaded = Loaded::default();
    let mut is_ended = false;
    loop {
        let next = queue.borrow_mut().pop_front();
        match next {
            None => core.sleep(RETRY).await,
            Some(Queued::Batch(batch)) => match batch.kind {
                Kind::Torrents(family) => {
                    load_batch(core, tracker, (source, family), &batch.content, &mut loaded).await;
                }
                Kind::Announces(family) => apply_batch(core, tracker, family, &batch.content).await,
                Kind::End | Kind::Passed | Kind::Mark | Kind::Interval | Kind::Unknown(_) => {}
            },
            Some(Queued::End(sender)) => {
                tracker.state().end_loading();
                is_ended = true;
                // Without a receiver the process is stopping.
                let _ = sender.send(loaded);
            }
            Some(Queued::Settle(sender)) => {
                let _ = sender.send(Loaded::default());
            }
            Some(Queued::Close) => {
                // Loading was given up.
                if !is_ended {
                    tracker.state().end_loading();
                }
                return;
            }
        }
    }
}

async fn load_batch(
    core: &Rc<Core>,
    tracker: &LocalTracker,
    (source, family): (Source, Family),
    mut content: &[u8],
    loaded: &mut Loaded,
) {
    let mut run = Run::default();
    while !content.is_empty() {
        let begin = core.tick();
        let used = thread_cpu_time();
        let since = i64::from(core.now().0).saturating_sub(source.at);
        let gap = u32::try_from(since.max(0)).unwrap_or(u32::MAX);
        let max_peer_age = tracker.max_peer_age();
        while core.tick().saturating_sub(begin) < STEP && !content.is_empty() {
            // The side thread has verified that the content can be read to its end.
            if !run.take(family, &mut content) {
                return;
            }
            let mut state = tracker.state();
            state.prefetch_scrape(family, &run.info_hashes);
            for torrent in run.torrents.drain(..) {
                loaded.add(state.load(torrent, (gap, max_peer_age), core.now(), source.origin));
            }
        }
        core.yield_now().await;
        if core.intake().is_closed() {
            let passed = core.tick().saturating_sub(begin);
            back_off(core, passed.saturating_sub(thread_cpu_time().saturating_sub(used))).await;
        }
    }
}

/// Waits after a step of a hand-over, if requests have taken some time.
async fn back_off(core: &Core, taken: Duration) {
    let time = backoff(taken);
    if !time.is_zero() {
        core.sleep(time).await;
    }
}

fn backoff(taken: Duration) -> Duration {
    // A turn of the event loop and reading the clocks take time, too.
    if taken < STEP / 10 { Duration::ZERO } else { (taken * BACKOFF).min(MAX_BACKOFF) }
}

/// Applies announces that the predecessor has applied, and what other nodes have told it of.
async fn apply_batch(core: &Rc<Core>, tracker: &LocalTracker, family: Family, mut content: &[u8]) {
    let mut run = Vec::with_capacity(TORRENTS_PER_RUN);
    while !content.is_empty() {
        let begin = core.tick();
        while core.tick().saturating_sub(begin) < STEP && !content.is_empty() {
            while run.len() < TORRENTS_PER_RUN && !content.is_empty() {
                // The side thread has verified the length.
                let Ok(record) = take_record(family, &mut content) else { return };
                run.push(record);
            }
            let mut state = tracker.state();
            let announces = run.iter().filter_map(|record| match record {
                Record::Announce(announce) => Some(announce),
                Record::Change(_) => None,
            });
            state.prefetch(family, announces);
            for record in run.drain(..) {
                match record {
                    Record::Announce(announce) => {
                        if state.admit(AdmissionRequest::of(&announce.info_hash)).is_ok() {
                            let _ = state.announce(&announce, core.now(), PeerBuffers::default());
                        }
                    }
                    Record::Change(change) => {
                        let _ = state.apply_change(&change, change.age.into(), core.now());
                    }
                }
            }
        }
        core.yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_steps_back_for_requests_only() {
        assert_eq!(backoff(Duration::from_micros(15)), Duration::ZERO);
        assert_eq!(backoff(Duration::from_micros(200)), Duration::from_micros(800));
        assert_eq!(backoff(Duration::from_secs(1)), MAX_BACKOFF);
    }
}
