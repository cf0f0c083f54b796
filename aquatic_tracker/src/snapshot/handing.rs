//! The side thread's part of a hand-over: the stream from the snapshot thread of a process to that of its
//! successor. It begins like a snapshot; the announces that are applied meanwhile stand in sections of their
//! own between those with torrents, and go on behind the last one.

use std::io::{self, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, TryRecvError, channel, sync_channel};
use std::time::Duration;

use aquatic_common::{Family, Seconds};
use aquatic_runtime::clock::calendar_seconds;
use aquatic_runtime::handover::{StateReceived, StateReceiver, StateRequest, StateSender, StateSent};
use aquatic_swarm::Origin;

use super::core::{Command, FromCore, Order, Source};
use super::format::{Header, Kind, Torrent};
use super::records::record_length;
use super::stream::{CHUNK_LENGTH, Damage, ReadError, Reader, Writer, interval_of};
use super::thread::{Lane, LoadError, MAX_CHUNKS_PER_CORE, READ_BUFFER, SnapshotThread};

/// Longest wait before the requests of the hand-over are looked at.
const POLL: Duration = Duration::from_millis(2);

/// Longest wait for the predecessor before it is looked whether the process is stopping.
const STOP_POLL: Duration = Duration::from_millis(200);

/// Longest time the successor may take to read what fits into a socket.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);

/// Why the state is no longer sent.
enum Stopped {
    /// Nobody wants it any more.
    Cancelled,
    /// It cannot be.
    Failed(String),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("the state cannot be sent: {error}"))
    }
}

impl SnapshotThread {
    /// Sends the state, and all that changes, until the hand-over fails or the process ends.
    pub(super) fn hand_over(&self, to: StateSender) {
        let cancelled = Arc::new(AtomicBool::new(false));
        let stopped = self.send_state(&to, &cancelled);
        cancelled.store(true, Ordering::Relaxed);
        if let Err(Stopped::Failed(why)) = stopped {
            let _ = to.answers.send(StateSent::Failed(why));
        }
    }

    fn send_state(&self, to: &StateSender, cancelled: &Arc<AtomicBool>) -> Result<(), Stopped> {
        to.stream.set_write_timeout(Some(WRITE_DEADLINE))?;
        let since_epoch = self.now();
        let header = Header { epoch: self.epoch_id, since_epoch, calendar: calendar_seconds() };
        let mut writer = Writer::begin(&to.stream, &header)?;
        writer.write_interval(self.longest_interval(false)?)?;
        let (chunks, received) = sync_channel(MAX_CHUNKS_PER_CORE * self.cores.len());
        let at = Seconds(u32::try_from(since_epoch).unwrap_or(u32::MAX));
        let order = Order { at, chunks, cancelled: Arc::clone(cancelled) };
        self.command_all(|| Command::HandOver(order.clone()))?;
        drop(order);
        let (mut passing, mut unmarked) = (self.cores.len(), 0);
        loop {
            match to.requests.try_recv() {
                Ok(StateRequest::Mark) => {
                    unmarked = self.cores.len();
                    self.command_all(|| Command::Mark)?;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(Stopped::Cancelled),
            }
            match received.recv_timeout(POLL) {
                Ok(FromCore::Chunk(chunk)) => writer.write(&chunk)?,
                Ok(FromCore::Records(family, records)) => write_records(&mut writer, family, &records)?,
                Ok(FromCore::Passed) => {
                    passing -= 1;
                    if passing == 0 {
                        writer.write_kind(Kind::Passed)?;
                    }
                }
                Ok(FromCore::Marked) => {
                    unmarked -= 1;
                    if unmarked == 0 {
                        writer.write_kind(Kind::Mark)?;
                        let _ = to.answers.send(StateSent::Marked);
                    }
                }
                Ok(FromCore::Overflowed) => {
                    return Err(Stopped::Failed("the successor does not follow the changes".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Stopped::Failed("a core has stopped sending".to_owned()));
                }
            }
        }
    }

    fn command_all(&self, command: impl Fn() -> Command) -> Result<(), Stopped> {
        for (index, core) in self.cores.iter().enumerate() {
            let full = |_| Stopped::Failed(format!("core {index} does not respond"));
            core.try_send(command()).map_err(full)?;
        }
        Ok(())
    }

    /// Receives the state of the predecessor. Returns whether all of it has come.
    pub(super) fn receive_state(&self, from: StateReceiver) -> bool {
        let StateReceiver { stream, reports } = from;
        let mut is_loaded = false;
        let failed = match self.read_state(stream, &reports, &mut is_loaded) {
            Ok(()) | Err(LoadError::Stopping) => None,
            Err(LoadError::Core(index)) => Some(format!("core {index} does not respond")),
            Err(LoadError::Stream(why)) => Some(why),
        };
        if let Some(why) = failed {
            let _ = reports.send(StateReceived::Failed(why));
        }
        is_loaded
    }

    fn read_state(
        &self,
        stream: UnixStream,
        reports: &Sender<StateReceived>,
        is_loaded: &mut bool,
    ) -> Result<(), LoadError> {
        let begin = self.epoch.elapsed();
        let broken = |why: &str| LoadError::Stream(format!("the state of the predecessor {why}"));
        stream.set_read_timeout(Some(STOP_POLL)).map_err(|error| broken(&error.to_string()))?;
        let input = UntilStopping { stream, thread: self };
        let mut reader = match Reader::begin(BufReader::with_capacity(READ_BUFFER, input)) {
            Ok(reader) => reader,
            // The predecessor has ended before it could send anything.
            Err(ReadError::Io(_)) => return Ok(()),
            Err(ReadError::Header(_)) => return Err(broken("is of another version")),
        };
        let mut lanes: Vec<Lane<'_>> = self.cores.iter().map(Lane::new).collect();
        let read = self.read_parts(&mut lanes, &mut reader, (reports, begin), is_loaded);
        let closed = self.close(&lanes);
        read.and(closed)?;
        if reader.damage() == (Damage { truncated: true, ..Damage::default() }) {
            Ok(())
        } else {
            Err(broken("is damaged"))
        }
    }

    fn read_parts(
        &self,
        lanes: &mut [Lane<'_>],
        reader: &mut Reader<impl Read>,
        (reports, begin): (&Sender<StateReceived>, Duration),
        is_loaded: &mut bool,
    ) -> Result<(), LoadError> {
        let snapshot = self.moment_of(&reader.header());
        for lane in lanes.iter() {
            let source = Source { at: snapshot, origin: Origin::Predecessor };
            self.send(lane, Command::BeginLoading(source))?;
        }
        while let Some((kind, content)) = reader.next_part() {
            match kind {
                Kind::Torrents(_) | Kind::Announces(_) => self.give(lanes, kind, content)?,
                Kind::Interval => self.note_given_out(lanes, content)?,
                Kind::Passed => {
                    let loaded = self.settle(lanes, Command::EndLoading)?;
                    log::info!(
                        "state of the predecessor received in {:.1?}: {} peers stored, {} had announced meanwhile, {} were \
                         too old",
                        self.epoch.elapsed().saturating_sub(begin),
                        loaded.restored.added,
                        loaded.restored.known,
                        loaded.too_old
                    );
                    *is_loaded = true;
                    let _ = reports.send(StateReceived::Loaded);
                }
                Kind::Mark => {
                    self.settle(lanes, Command::Settle)?;
                    let _ = reports.send(StateReceived::Marked);
                }
                Kind::End | Kind::Unknown(_) => {}
            }
        }
        lanes.iter_mut().try_for_each(|lane| self.flush(lane))?;
        if !*is_loaded {
            self.settle(lanes, Command::EndLoading)?;
        }
        Ok(())
    }

    /// Tells all cores what interval clients may be waiting for.
    pub(super) fn note_given_out(&self, lanes: &[Lane<'_>], content: &[u8]) -> Result<(), LoadError> {
        let Some(interval) = interval_of(content) else { return Ok(()) };
        lanes.iter().try_for_each(|lane| self.send(lane, Command::GivenOut(interval)))
    }

    /// Sorts the content of a section by owner.
    pub(super) fn give(&self, lanes: &mut [Lane<'_>], kind: Kind, content: &[u8]) -> Result<(), LoadError> {
        let mut rest = content;
        while let Some((owner, bytes)) = self.next_item(kind, &mut rest) {
            let Some(lane) = lanes.get_mut(owner) else { continue };
            if lane.kind != kind || lane.content.len() >= CHUNK_LENGTH {
                self.flush(lane)?;
                lane.kind = kind;
            }
            lane.content.extend_from_slice(bytes);
        }
        if matches!(kind, Kind::Announces(_)) {
            // They are few, and may be the last ones for a while.
            lanes.iter_mut().try_for_each(|lane| self.flush(lane))?;
        }
        Ok(())
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
                let info_hash = aquatic_common::InfoHash(*record.first_chunk()?);
                Some((self.steering.owner(&info_hash), record))
            }
            Kind::End | Kind::Passed | Kind::Mark | Kind::Interval | Kind::Unknown(_) => None,
        }
    }

    /// Has all cores take in what they have been sent, and waits for that.
    fn settle(
        &self,
        lanes: &mut [Lane<'_>],
        command: impl Fn(Sender<super::Loaded>) -> Command,
    ) -> Result<super::Loaded, LoadError> {
        let (sender, responses) = channel();
        for lane in lanes {
            self.flush(lane)?;
            self.send(lane, command(sender.clone()))?;
        }
        drop(sender);
        self.collect(&responses)
    }
}

/// A stream that ends when the process stops.
struct UntilStopping<'a> {
    stream: UnixStream,
    thread: &'a SnapshotThread,
}

impl Read for UntilStopping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.thread.is_stopping() => {}
                read => return read,
            }
        }
    }
}

fn write_records<W: io::Write>(writer: &mut Writer<W>, family: Family, records: &[u8]) -> io::Result<()> {
    let whole = CHUNK_LENGTH / record_length(family) * record_length(family);
    records.chunks(whole).try_for_each(|records| writer.write_announces(family, records))
}
