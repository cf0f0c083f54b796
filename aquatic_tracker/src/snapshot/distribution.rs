//! Sorting torrents and announces by the core that owns them, for the side threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use aquatic_common::{Family, InfoHash, Steering};
use aquatic_runtime::MailboxSender;
use aquatic_runtime::clock::Epoch;

use super::core::{Batch, Command, Loaded, Source};
use super::format::{Kind, Torrent};
use super::records::record_length;
use super::stream::{CHUNK_LENGTH, interval_of};
use super::thread::Restored;

/// Batches of torrents that wait for one core: 1 MB.
pub(super) const MAX_WAITING: usize = 16;

/// Longest wait for a core to do a step.
pub(super) const CORE_DEADLINE: Duration = Duration::from_secs(20);

/// Longest wait before it is looked whether the process is stopping.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// Pause while a core has as many batches as may wait.
const RETRY: Duration = Duration::from_millis(1);

/// Why loading was not completed.
pub(super) enum LoadError {
    /// The process is stopping.
    Stopping,
    /// A core does not respond.
    Core(usize),
}

/// The cores, as a side thread sees them.
#[derive(Clone)]
pub(super) struct Cores {
    pub(super) senders: Arc<[MailboxSender<Command>]>,
    pub(super) steering: Steering,
    pub(super) epoch: Epoch,
    /// The process is stopping: no time for anything but the last snapshot.
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) restored: Restored,
}

/// Torrents or announces on their way to the cores.
pub(super) struct Lanes {
    cores: Cores,
    lanes: Vec<Lane>,
}

/// What is on its way to one core.
struct Lane {
    core: usize,
    kind: Kind,
    content: Vec<u8>,
    /// Batches that the core has not taken in yet.
    waiting: Arc<AtomicUsize>,
}

impl Cores {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Number of cores.
    pub(super) fn len(&self) -> usize {
        self.senders.len()
    }

    /// Sends a command for which there is always room, unless the core does not receive any.
    fn send(&self, core: usize, command: Command) -> Result<(), LoadError> {
        let sender = self.senders.get(core).ok_or(LoadError::Core(core))?;
        sender.try_send(command).map_err(|_| LoadError::Core(core))
    }

    fn collect(&self, responses: &Receiver<Loaded>) -> Result<Loaded, LoadError> {
        let (mut all, mut count) = (Loaded::default(), 0);
        while count < self.len() {
            match responses.recv_timeout(POLL) {
                Ok(loaded) => {
                    if loaded.restored.added > 0 {
                        self.restored.set();
                    }
                    all.add(loaded);
                    count += 1;
                }
                Err(RecvTimeoutError::Timeout) if !self.is_stopping() => {}
                Err(_) => return Err(LoadError::Stopping),
            }
        }
        Ok(all)
    }

    /// Splits off the first torrent or announce, and returns its owner.
    fn next_item<'a>(&self, kind: Kind, rest: &mut &'a [u8]) -> Option<(usize, &'a [u8])> {
        match kind {
            Kind::Torrents(family) => {
                let torrent = Torrent::take(family, rest).ok()?;
                Some((self.steering.owner(&torrent.saved.info_hash), torrent.bytes))
            }
            Kind::Announces(family) => {
                let (record, others) = rest.split_at_checked(record_length(family))?;
                *rest = others;
                let info_hash = InfoHash(*record.first_chunk()?);
                Some((self.steering.owner(&info_hash), record))
            }
            Kind::End | Kind::Passed | Kind::Mark | Kind::Interval | Kind::Unknown(_) => None,
        }
    }
}

impl Lanes {
    pub(super) fn new(cores: &Cores) -> Self {
        let lane = |core| Lane {
            core,
            kind: Kind::Torrents(Family::V4),
            content: Vec::new(),
            waiting: Arc::default(),
        };
        Self { cores: cores.clone(), lanes: (0..cores.len()).map(lane).collect() }
    }

    /// Has all cores take in what comes from now on.
    pub(super) fn begin(&self, source: Source) -> Result<(), LoadError> {
        self.send_all(|| Command::BeginLoading(source))
    }

    /// Ends loading on all cores, also on those that another one keeps from its end.
    pub(super) fn close(&self) -> Result<(), LoadError> {
        let closed = self.lanes.iter().map(|lane| self.cores.send(lane.core, Command::Close));
        closed.fold(Ok(()), Result::and)
    }

    fn send_all(&self, command: impl Fn() -> Command) -> Result<(), LoadError> {
        self.lanes.iter().try_for_each(|lane| self.cores.send(lane.core, command()))
    }

    /// Tells all cores what interval clients may be waiting for.
    pub(super) fn note_given_out(&self, content: &[u8]) -> Result<(), LoadError> {
        let Some(interval) = interval_of(content) else { return Ok(()) };
        self.send_all(|| Command::GivenOut(interval))
    }

    /// Sorts the content of a section by owner.
    pub(super) fn give(&mut self, kind: Kind, content: &[u8]) -> Result<(), LoadError> {
        let Self { cores, lanes } = self;
        let mut rest = content;
        while let Some((owner, bytes)) = cores.next_item(kind, &mut rest) {
            let Some(lane) = lanes.get_mut(owner) else { continue };
            if lane.kind != kind || lane.content.len() >= CHUNK_LENGTH {
                lane.flush(cores)?;
                lane.kind = kind;
            }
            lane.content.extend_from_slice(bytes);
        }
        if matches!(kind, Kind::Announces(_)) {
            // They are few, and may be the last ones for a while.
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what has been sorted.
    pub(super) fn flush(&mut self) -> Result<(), LoadError> {
        let Self { cores, lanes } = self;
        lanes.iter_mut().try_for_each(|lane| lane.flush(cores))
    }

    /// Has all cores take in what they have been sent, and waits for that.
    pub(super) fn settle(
        &mut self,
        command: impl Fn(Sender<Loaded>) -> Command,
    ) -> Result<Loaded, LoadError> {
        let (sender, responses) = channel();
        let Self { cores, lanes } = self;
        for lane in lanes {
            lane.flush(cores)?;
            cores.send(lane.core, command(sender.clone()))?;
        }
        drop(sender);
        cores.collect(&responses)
    }
}

impl Lane {
    fn flush(&mut self, cores: &Cores) -> Result<(), LoadError> {
        if self.content.is_empty() {
            return Ok(());
        }
        let next = Vec::with_capacity(self.content.capacity());
        let content = std::mem::replace(&mut self.content, next);
        self.wait_for_room(cores)?;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Arc::clone(&self.waiting);
        cores.send(self.core, Command::Load(Batch { kind: self.kind, content, waiting }))
    }

    #[allow(clippy::disallowed_methods, reason = "this is a side thread")]
    fn wait_for_room(&self, cores: &Cores) -> Result<(), LoadError> {
        let (mut before, mut since) = (usize::MAX, cores.epoch.elapsed());
        loop {
            let waiting = self.waiting.load(Ordering::Acquire);
            if waiting < MAX_WAITING {
                return Ok(());
            }
            let now = cores.epoch.elapsed();
            if cores.is_stopping() {
                return Err(LoadError::Stopping);
            }
            if waiting != before {
                (before, since) = (waiting, now);
            } else if now.saturating_sub(since) > CORE_DEADLINE {
                return Err(LoadError::Core(self.core));
            }
            thread::sleep(RETRY);
        }
    }
}
