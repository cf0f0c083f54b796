//! The side thread that writes and reads snapshots.

use std::fs::File;
use std::io::{self, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::time::Duration;

use anyhow::Context;
use aquatic_common::Seconds;
use aquatic_metrics::{Counter, Gauge, Registry, names};
use aquatic_runtime::clock::{Epoch, calendar_seconds};
use aquatic_runtime::handover::{StateReceiver, StateSender};
use aquatic_runtime::state_directory::names::{SNAPSHOT, UNUSABLE_SNAPSHOT};
use aquatic_runtime::{Engine, Periodic, StateDirectory, StopHold, mailboxes};
use aquatic_swarm::Origin;

use super::core::{Command, CoreSnapshots, Loaded, Save, Source};
use super::distribution::{CORE_DEADLINE, Cores, Lanes, LoadError, MAX_WAITING, POLL};
use super::format::{Header, Kind, Totals};
use super::handing::Received;
use super::stream::{Damage, ReadError, Reader, Writer};
use crate::seed::TrackerSeed;

/// Commands for a core that it has not received yet: batches, what begins and ends them, and what another
/// thread asks for meanwhile.
const MAX_COMMANDS: usize = MAX_WAITING + 16;

/// Full chunks that wait to be written, for each core.
pub(super) const MAX_CHUNKS_PER_CORE: usize = 4;

/// Size of the buffer that snapshots are read into.
pub(super) const READ_BUFFER: usize = 256 * 1024;

/// Scheduling priority of the thread, as of `nice`, while the tracker does not wait for it.
const NICENESS: i32 = 10;

/// Time between two snapshots in seconds; 0 if one is only saved when the tracker stops. Can be changed by
/// any thread.
#[derive(Clone, Debug)]
pub struct SnapshotInterval(Arc<AtomicU32>);

impl SnapshotInterval {
    /// Replaces the interval.
    pub fn set(&self, seconds: u32) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed).into())
    }
}

/// Requests snapshots; can be used by any thread.
#[derive(Clone, Debug)]
pub struct SnapshotTrigger {
    requests: Sender<Request>,
    busy: Arc<AtomicBool>,
}

impl SnapshotTrigger {
    /// Requests a snapshot. Returns whether the thread can begin at once; otherwise it is loading or saving
    /// one, and nothing has been requested.
    #[must_use]
    pub fn request(&self) -> bool {
        !self.busy.swap(true, Ordering::Relaxed) && self.requests.send(Request::Save).is_ok()
    }

    /// Whether a snapshot is being loaded or saved.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }
}

/// Whether peers that a process before this one had heard have been taken in, from a snapshot or at an
/// upgrade; can be asked by any thread.
#[derive(Clone, Debug, Default)]
pub struct Restored(Arc<AtomicBool>);

impl Restored {
    /// Whether there were such peers.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What has been prepared for snapshots: each core's part, in core order, and what any thread can change and
/// request.
#[derive(Debug)]
pub struct Prepared {
    /// Parts of the cores.
    pub cores: Vec<CoreSnapshots>,
    /// Time between two snapshots.
    pub interval: SnapshotInterval,
    /// Requests snapshots; `None` without a state directory.
    pub trigger: Option<SnapshotTrigger>,
}

/// Has the engine load the snapshot of the previous process, save one when it stops, and in between at an
/// interval in seconds, unless that is 0; all of it with a state directory only. Has it receive the state of
/// a predecessor instead, if there is one, and hand it over to a successor. Returns each core's part, in core
/// order.
///
/// # Errors
/// Too many open files.
pub fn prepare(engine: &mut Engine, seed: &TrackerSeed, interval: u32) -> anyhow::Result<Prepared> {
    let (cores, receivers) =
        mailboxes(engine.cores(), MAX_COMMANDS).context("cannot make the mailboxes of snapshots")?;
    let (sender, requests) = channel();
    let stopping = Arc::new(AtomicBool::new(false));
    let busy = Arc::new(AtomicBool::new(true));
    let thread = SnapshotThread {
        directory: engine.state_directory().cloned(),
        predecessor: engine.take_state_receiver(),
        epoch_id: engine.secrets().derive("aquatic epoch 1"),
        epoch: engine.epoch(),
        cores: Cores {
            senders: cores.into(),
            steering: *seed.steering(),
            epoch: engine.epoch(),
            stopping: Arc::clone(&stopping),
            restored: seed.restored().clone(),
        },
        requests,
        busy: Arc::clone(&busy),
        metrics: Metrics::new(engine.registry()),
        is_failing: false,
    };
    engine.add_side_thread("aquatic-state", move || thread.run());
    let interval = SnapshotInterval(Arc::new(AtomicU32::new(interval)));
    let trigger = engine
        .state_directory()
        .map(|_| SnapshotTrigger { requests: sender.clone(), busy: Arc::clone(&busy) });
    if engine.state_directory().is_some() {
        let shown = engine.registry().main_thread().gauge(&names::SNAPSHOT_INTERVAL, &[]);
        let requests = sender.clone();
        engine.add_periodic(Schedule { interval: interval.clone(), shown, requests, busy, last: None });
    }
    let requests = sender.clone();
    engine.on_hand_over(move |state| {
        // Without the thread the state is dropped, which ends the hand-over.
        let _ = requests.send(Request::HandOver(state));
    });
    engine.before_stop(move |hold| {
        stopping.store(true, Ordering::Relaxed);
        // Without the thread there is nothing to wait for: the hold is dropped.
        let _ = sender.send(Request::SaveAndStop(hold));
    });
    let cores = receivers.into_iter().map(CoreSnapshots).collect();
    Ok(Prepared { cores, interval, trigger })
}

#[derive(Debug)]
enum Request {
    Save,
    SaveAndStop(StopHold),
    HandOver(StateSender),
}

/// Requests snapshots at the interval.
#[derive(Debug)]
struct Schedule {
    interval: SnapshotInterval,
    shown: Gauge,
    requests: Sender<Request>,
    /// Whether the thread is loading or saving.
    busy: Arc<AtomicBool>,
    last: Option<Duration>,
}

impl Periodic for Schedule {
    fn tick(&mut self, now: Duration) {
        let interval = self.interval.get();
        self.shown.set(interval.as_secs());
        let last = *self.last.get_or_insert(now);
        if interval.is_zero() || now.saturating_sub(last) < interval {
            return;
        }
        if !self.busy.swap(true, Ordering::Relaxed) {
            self.last = Some(now);
            // Without the thread the process is stopping.
            let _ = self.requests.send(Request::Save);
        }
    }
}

/// One of the numbers of peers that were loaded.
type NumberOf = fn(&Loaded) -> u64;

struct Metrics {
    saved: Counter,
    failures: Counter,
    time: Gauge,
    duration: Gauge,
    size: Gauge,
    /// Loaded peers by outcome.
    peers: [(Counter, NumberOf); 7],
    damaged: Counter,
    missing: Counter,
    truncated: Counter,
    unusable: Counter,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let metrics = registry.main_thread();
        let peers = |outcome| metrics.counter(&names::SNAPSHOT_PEERS, &[("outcome", outcome)]);
        let damage = |reason| metrics.counter(&names::SNAPSHOT_DAMAGE, &[("reason", reason)]);
        Self {
            saved: metrics.counter(&names::SNAPSHOTS_SAVED, &[]),
            failures: metrics.counter(&names::STATE_WRITE_FAILURES, &[("file", SNAPSHOT)]),
            time: metrics.gauge(&names::SNAPSHOT_TIME, &[]),
            duration: metrics.gauge(&names::SNAPSHOT_DURATION, &[]),
            size: metrics.gauge(&names::SNAPSHOT_SIZE, &[]),
            peers: [
                (peers("stored"), |loaded| loaded.restored.added),
                (peers("known"), |loaded| loaded.restored.known),
                (peers("too_old"), |loaded| loaded.too_old),
                (peers("stopped"), |loaded| loaded.stopped),
                (peers("limit"), |loaded| loaded.restored.limited),
                (peers("not_admitted"), |loaded| loaded.not_admitted),
                (peers("refused_address"), |loaded| loaded.restored.invalid + loaded.refused),
            ],
            damaged: damage("damaged_section"),
            missing: damage("missing_section"),
            truncated: damage("truncated"),
            unusable: damage("unusable"),
        }
    }
}

pub(super) struct SnapshotThread {
    /// `None` where nothing is kept, but state is handed over.
    directory: Option<StateDirectory>,
    pub(super) epoch_id: [u8; 16],
    pub(super) epoch: Epoch,
    pub(super) cores: Cores,
    /// Where the state of a predecessor comes from.
    predecessor: Option<StateReceiver>,
    requests: Receiver<Request>,
    busy: Arc<AtomicBool>,
    metrics: Metrics,
    /// The last snapshot could not be saved.
    is_failing: bool,
}

impl SnapshotThread {
    fn run(mut self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            log::debug!("the priority of the snapshot thread cannot be lowered: {error}");
        }
        // What a predecessor could not send may be in its last snapshot.
        let received = self.predecessor.take().map(|predecessor| self.receive_state(predecessor));
        let is_loaded = match received {
            Some(Received::All) => true,
            // Downloads that have been received are not to be counted again.
            Some(Received::Part) => self.load(Origin::Predecessor),
            Some(Received::Nothing) | None => self.load(Origin::Own),
        };
        self.busy.store(false, Ordering::Relaxed);
        while let Ok(request) = self.requests.recv() {
            let hold = match request {
                Request::Save => None,
                Request::SaveAndStop(hold) => Some(hold),
                Request::HandOver(state) => {
                    self.busy.store(true, Ordering::Relaxed);
                    self.hand_over(state);
                    self.busy.store(false, Ordering::Relaxed);
                    continue;
                }
            };
            let Some(directory) = self.directory.clone() else { continue };
            if is_loaded {
                self.save(&directory, hold.is_some());
            } else if hold.is_some() {
                log::warn!(
                    "the tracker stops before it has loaded the snapshot, which therefore stays as it is: what has \
                     changed since is lost"
                );
            }
            self.busy.store(false, Ordering::Relaxed);
        }
    }

    fn path(&self) -> String {
        let path = self.directory.as_ref().map(|directory| directory.path().join(SNAPSHOT));
        path.unwrap_or_default().display().to_string()
    }

    /// Seconds since the epoch.
    pub(super) fn now(&self) -> u64 {
        self.epoch.elapsed().as_secs()
    }

    /// Saves a snapshot, the last one or one of several.
    fn save(&mut self, directory: &StateDirectory, is_last: bool) {
        let begin = self.epoch.elapsed();
        let calendar = calendar_seconds();
        let cancelled = Arc::new(AtomicBool::new(false));
        let written =
            directory.replace(SNAPSHOT, |file| self.write(file, (begin, calendar), is_last, &cancelled));
        cancelled.store(true, Ordering::Relaxed);
        match written {
            Ok((totals, bytes)) => {
                let took = self.epoch.elapsed().saturating_sub(begin);
                self.metrics.saved.add(1);
                self.metrics.time.set(u64::try_from(calendar).unwrap_or_default());
                self.metrics.duration.set(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                self.metrics.size.set(bytes);
                if self.is_failing || is_last {
                    log::info!("snapshot saved: {} peers, {bytes} bytes in {took:.1?}", totals.peers);
                } else {
                    log::debug!("snapshot saved: {} peers, {bytes} bytes in {took:.1?}", totals.peers);
                }
                self.is_failing = false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                log::debug!("the snapshot is abandoned in favour of the last one");
            }
            Err(error) => {
                self.metrics.failures.add(1);
                if !self.is_failing || is_last {
                    log::error!(
                        "the snapshot {} cannot be saved: {error}. The previous one, if any, stays. Free some space, \
                         or check that the directory is writable for the tracker's user; it will be tried again",
                        self.path()
                    );
                }
                self.is_failing = true;
            }
        }
    }

    fn write(
        &self,
        file: &mut File,
        (begin, calendar): (Duration, i64),
        is_last: bool,
        cancelled: &Arc<AtomicBool>,
    ) -> io::Result<(Totals, u64)> {
        let header = Header { epoch: self.epoch_id, since_epoch: begin.as_secs(), calendar };
        let mut writer = Writer::begin(file, &header)?;
        writer.write_interval(self.longest_interval(is_last)?)?;
        let (chunks, receiver) = sync_channel(MAX_CHUNKS_PER_CORE * self.cores.len());
        let at = Seconds(u32::try_from(begin.as_secs()).unwrap_or(u32::MAX));
        for (index, core) in self.cores.senders.iter().enumerate() {
            let save = Save { at, chunks: chunks.clone(), cancelled: Arc::clone(cancelled) };
            let refused = |_| io::Error::other(format!("core {index} does not respond"));
            core.try_send(Command::Save(save)).map_err(refused)?;
        }
        drop(chunks);
        let mut running = self.cores.len();
        while running > 0 {
            match self.receive(&receiver, is_last)? {
                Some(chunk) => writer.write(&chunk)?,
                None => running -= 1,
            }
        }
        writer.finish()
    }

    /// The longest interval in seconds that a client may be waiting for.
    pub(super) fn longest_interval(&self, is_last: bool) -> io::Result<u32> {
        let (sender, responses) = channel();
        for (index, core) in self.cores.senders.iter().enumerate() {
            let refused = |_| io::Error::other(format!("core {index} does not respond"));
            core.try_send(Command::LongestInterval(sender.clone())).map_err(refused)?;
        }
        self.cores
            .senders
            .iter()
            .try_fold(0, |longest, _| Ok(self.receive(&responses, is_last)?.max(longest)))
    }

    /// What any core sends next: a chunk, or `None` for a core that has handed everything out.
    fn receive<T>(&self, from: &Receiver<T>, is_last: bool) -> io::Result<T> {
        let begin = self.epoch.elapsed();
        loop {
            if self.cores.is_stopping() && !is_last {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match from.recv_timeout(POLL) {
                Ok(received) => return Ok(received),
                Err(RecvTimeoutError::Timeout)
                    if self.epoch.elapsed().saturating_sub(begin) < CORE_DEADLINE => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a core does not respond"));
                }
            }
        }
    }

    /// Loads the snapshot of the previous process, or of one before it. Returns whether all that can be
    /// loaded has been.
    fn load(&mut self, origin: Origin) -> bool {
        let Some(directory) = self.directory.clone() else { return true };
        let opened = match directory.open_file(SNAPSHOT) {
            Ok(None) => {
                log::info!("there is no snapshot in the state directory yet: the tracker starts empty");
                return true;
            }
            Ok(Some(file)) => Reader::begin(BufReader::with_capacity(READ_BUFFER, file)),
            Err(error) => Err(ReadError::Io(error)),
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => {
                self.metrics.unusable.add(1);
                let kept = keep_unusable(&directory);
                log::error!("the snapshot {} is not used, because {error}. {kept}", self.path());
                return true;
            }
        };
        let begin = self.epoch.elapsed();
        let snapshot = self.moment_of(&reader.header());
        log::info!(
            "loading the snapshot of {} s ago",
            i64::try_from(self.now()).unwrap_or(i64::MAX).saturating_sub(snapshot)
        );
        match self.distribute(&mut reader, Source { at: snapshot, origin }) {
            Ok(loaded) => {
                self.metrics.time.set(u64::try_from(reader.header().calendar).unwrap_or_default());
                self.report(&loaded, &reader, self.epoch.elapsed().saturating_sub(begin));
                true
            }
            Err(LoadError::Stopping) => false,
            Err(LoadError::Core(index)) => {
                self.metrics.unusable.add(1);
                let kept = keep_unusable(&directory);
                log::error!(
                    "the snapshot is not loaded completely: core {index} does not respond. {kept}; what has been loaded is \
                     served, and saved again"
                );
                true
            }
        }
    }

    /// Seconds from the epoch of this process to the moment of a snapshot.
    pub(super) fn moment_of(&self, header: &Header) -> i64 {
        let now = i64::try_from(self.now()).unwrap_or(i64::MAX);
        if header.epoch == self.epoch_id {
            return i64::try_from(header.since_epoch).unwrap_or(i64::MAX).min(now);
        }
        let gap = calendar_seconds().saturating_sub(header.calendar);
        if gap < 0 {
            log::warn!(
                "the clock of the machine has been set back since the snapshot was saved, so the ages of its peers are \
                 unknown: they count as if they had announced later"
            );
        }
        now.saturating_sub(gap.max(0))
    }

    /// Sends all torrents to the cores that own them, and returns what has become of them.
    fn distribute(&self, reader: &mut Reader<impl io::Read>, source: Source) -> Result<Loaded, LoadError> {
        let mut lanes = Lanes::new(&self.cores);
        let loaded = distribute_to(&mut lanes, reader, source);
        let closed = lanes.close();
        loaded.and_then(|loaded| closed.map(|()| loaded))
    }

    fn report(&self, loaded: &Loaded, reader: &Reader<impl io::Read>, took: Duration) {
        for (counter, number) in &self.metrics.peers {
            counter.add(number(loaded));
        }
        let Loaded { restored, too_old, stopped, not_admitted, refused: _ } = loaded;
        log::info!(
            "snapshot loaded in {took:.1?}: {} peers stored, {} had announced already, {too_old} were too old, {stopped} \
             had stopped, {} exceeded limits, {not_admitted} are of torrents that are not served",
            restored.added,
            restored.known,
            restored.limited
        );
        let damage = reader.damage();
        self.metrics.damaged.add(damage.sections);
        self.metrics.missing.add(damage.missing);
        self.metrics.truncated.add(damage.truncated.into());
        if damage != Damage::default() {
            log::error!(
                "the snapshot {} was damaged: {} section(s) with a wrong checksum and {} missing one(s) are left out{}",
                self.path(),
                damage.sections,
                damage.missing,
                if damage.truncated { ", and its end is missing" } else { "" }
            );
        }
    }
}

fn distribute_to(
    lanes: &mut Lanes,
    reader: &mut Reader<impl io::Read>,
    source: Source,
) -> Result<Loaded, LoadError> {
    lanes.begin(source)?;
    while let Some((kind, content)) = reader.next_part() {
        match kind {
            Kind::Torrents(_) => lanes.give(kind, content)?,
            Kind::Interval => lanes.note_given_out(content)?,
            Kind::Announces(_) | Kind::Passed | Kind::Mark | Kind::End | Kind::Unknown(_) => {}
        }
    }
    lanes.settle(Command::EndLoading)
}

/// Renames a snapshot so that the next one does not replace it. Returns what came of that, for the log.
fn keep_unusable(directory: &StateDirectory) -> String {
    match directory.rename(SNAPSHOT, UNUSABLE_SNAPSHOT) {
        Ok(()) => format!("It is kept as {UNUSABLE_SNAPSHOT}"),
        Err(error) => format!("The next one replaces it ({error})"),
    }
}
