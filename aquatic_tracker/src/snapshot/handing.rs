//! The side thread's part of a hand-over: the stream from the snapshot thread of a process to that of its
//! successor. It begins like a snapshot; the announces that are applied meanwhile stand in sections of their
//! own between those with torrents, and go on behind the last one.

use std::io::{self, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use aquatic_common::{Family, Seconds};
use aquatic_runtime::clock::{Epoch, calendar_seconds};
use aquatic_runtime::handover::{StateReceived, StateReceiver, StateRequest, StateSender, StateSent};
use aquatic_swarm::Origin;

use super::core::{Command, FromCore, Order, Source};
use super::distribution::{Cores, Lanes, LoadError};
use super::format::{Header, Kind};
use super::records::record_length;
use super::stream::{CHUNK_LENGTH, Damage, ReadError, Reader, Writer};
use super::thread::{MAX_CHUNKS_PER_CORE, READ_BUFFER, SnapshotThread};

/// Longest wait before the requests of the hand-over are looked at.
const POLL: Duration = Duration::from_millis(2);

/// Longest wait for the predecessor before it is looked whether the process is stopping.
const STOP_POLL: Duration = Duration::from_millis(200);

/// Time after which it is looked whether clients have been told a longer interval.
const INTERVAL_PERIOD: Duration = Duration::from_secs(1);

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
        let interval = self.longest_interval(false)?;
        writer.write_interval(interval)?;
        let (chunks, received) = sync_channel(MAX_CHUNKS_PER_CORE * self.cores.len());
        let at = Seconds(u32::try_from(since_epoch).unwrap_or(u32::MAX));
        let order = Order { at, chunks, cancelled: Arc::clone(cancelled) };
        self.command_all(|| Command::HandOver(order.clone()))?;
        drop(order);
        let (mut passing, mut unmarked) = (self.cores.len(), 0);
        let mut intervals = Intervals::new(interval, self.epoch.elapsed());
        loop {
            intervals.ask(&self.cores, self.epoch.elapsed());
            if let Some(longer) = intervals.longer() {
                writer.write_interval(longer)?;
            }
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
                        writer.write_interval(self.longest_interval(false)?)?;
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
        for (index, core) in self.cores.senders.iter().enumerate() {
            let full = |_| Stopped::Failed(format!("core {index} does not respond"));
            core.try_send(command()).map_err(full)?;
        }
        Ok(())
    }

    /// Receives the state of the predecessor until that hands over, or ends. What it still sends for the
    /// connections that it keeps goes to a thread of its own.
    pub(super) fn receive_state(&self, from: StateReceiver) -> Received {
        let StateReceiver { stream, reports } = from;
        let mut receiving = match self.begin_to_receive(stream, reports.clone()) {
            Ok(Some(receiving)) => receiving,
            Ok(None) => return Received::Nothing,
            Err(why) => {
                let _ = reports.send(StateReceived::Failed(why));
                return Received::Nothing;
            }
        };
        let failed = match receiving.read_to_mark() {
            Ok(Progress::Marked) => {
                receiving.go_on();
                return Received::All;
            }
            Ok(Progress::Ended) => receiving.end().err(),
            Err(error) => why(error),
        };
        if let Some(why) = failed {
            let _ = reports.send(StateReceived::Failed(why));
        }
        if receiving.is_loaded { Received::All } else { Received::Part }
    }

    /// Reads what the stream begins with; `None` if the predecessor has ended before it could send anything.
    fn begin_to_receive(
        &self,
        stream: UnixStream,
        reports: Sender<StateReceived>,
    ) -> Result<Option<Receiving>, String> {
        let begin = self.epoch.elapsed();
        stream.set_read_timeout(Some(STOP_POLL)).map_err(|error| broken(&error.to_string()))?;
        let input = UntilStopping { stream, stopping: Arc::clone(&self.cores.stopping) };
        let reader = match Reader::begin(BufReader::with_capacity(READ_BUFFER, input)) {
            Ok(reader) => reader,
            Err(ReadError::Io(_)) => return Ok(None),
            Err(ReadError::Header(_)) => return Err(broken("is of another version")),
        };
        let source = Source { at: self.moment_of(&reader.header()), origin: Origin::Predecessor };
        let lanes = Lanes::new(&self.cores);
        let epoch = self.epoch;
        let receiving = Receiving { reader, lanes, reports, epoch, begin, is_loaded: false };
        match receiving.lanes.begin(source) {
            Ok(()) => Ok(Some(receiving)),
            Err(error) => Err(why(error).unwrap_or_default()),
        }
    }
}

/// The longest interval that clients have been told, which a successor has to know: it may become longer.
struct Intervals {
    told: u32,
    asked_at: Duration,
    sender: Sender<u32>,
    responses: Receiver<u32>,
}

impl Intervals {
    fn new(told: u32, now: Duration) -> Self {
        let (sender, responses) = channel();
        Self { told, asked_at: now, sender, responses }
    }

    /// Asks all cores once in a while, without waiting: some may have ended already.
    fn ask(&mut self, cores: &Cores, now: Duration) {
        if now.saturating_sub(self.asked_at) >= INTERVAL_PERIOD {
            self.asked_at = now;
            for core in cores.senders.iter() {
                let _ = core.try_send(Command::LongestInterval(self.sender.clone()));
            }
        }
    }

    /// What a core has given out since if that is longer.
    fn longer(&mut self) -> Option<u32> {
        let longest = self.responses.try_iter().max().filter(|longest| *longest > self.told)?;
        self.told = longest;
        Some(longest)
    }
}

/// What has been received of the state of a predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// All that there was when the stream began, at least.
    All,
    /// A part of it.
    Part,
    /// Nothing.
    Nothing,
}

/// How far a stream has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Marked,
    Ended,
}

/// The stream from a predecessor.
struct Receiving {
    reader: Reader<BufReader<UntilStopping>>,
    lanes: Lanes,
    reports: Sender<StateReceived>,
    epoch: Epoch,
    begin: Duration,
    is_loaded: bool,
}

fn broken(why: &str) -> String {
    format!("the state of the predecessor {why}")
}

/// Why the state is not received; `None` if the process is stopping.
fn why(error: LoadError) -> Option<String> {
    match error {
        LoadError::Stopping => None,
        LoadError::Core(index) => Some(format!("core {index} does not respond")),
    }
}

impl Receiving {
    /// Reads to the next mark or the end.
    fn read_to_mark(&mut self) -> Result<Progress, LoadError> {
        while let Some((kind, content)) = self.reader.next_part() {
            match kind {
                Kind::Torrents(_) | Kind::Announces(_) => self.lanes.give(kind, content)?,
                Kind::Interval => self.lanes.note_given_out(content)?,
                Kind::Passed => {
                    let loaded = self.lanes.settle(Command::EndLoading)?;
                    log::info!(
                        "state of the predecessor received in {:.1?}: {} peers stored, {} had announced meanwhile, {} were \
                         too old",
                        self.epoch.elapsed().saturating_sub(self.begin),
                        loaded.restored.added,
                        loaded.restored.known,
                        loaded.too_old
                    );
                    self.is_loaded = true;
                    let _ = self.reports.send(StateReceived::Loaded);
                }
                Kind::Mark => {
                    self.lanes.settle(Command::Settle)?;
                    let _ = self.reports.send(StateReceived::Marked);
                    return Ok(Progress::Marked);
                }
                Kind::End | Kind::Unknown(_) => {}
            }
        }
        self.lanes.flush()?;
        if !self.is_loaded {
            self.lanes.settle(Command::EndLoading)?;
        }
        Ok(Progress::Ended)
    }

    /// Receives what the predecessor still serves, on a thread of its own: it may take an hour.
    fn go_on(mut self) {
        let read = move || {
            let failed = loop {
                match self.read_to_mark() {
                    Ok(Progress::Marked) => {}
                    Ok(Progress::Ended) => break self.end().err(),
                    Err(error) => break why(error),
                }
            };
            if let Some(why) = failed {
                tell_missing(&why);
            }
        };
        if let Err(error) = thread::Builder::new().name("aquatic-changes".to_owned()).spawn(read) {
            tell_missing(&format!("a thread could not be started: {error}"));
        }
    }

    /// Says what is wrong with what has been read.
    fn end(&self) -> Result<(), String> {
        let whole = Damage { truncated: true, ..Damage::default() };
        if self.reader.damage() == whole { Ok(()) } else { Err(broken("is damaged")) }
    }
}

impl Drop for Receiving {
    /// Ends loading, however far it has come.
    fn drop(&mut self) {
        // A core that does not receive it is noticed as a stalled one.
        let _ = self.lanes.close();
    }
}

fn tell_missing(why: &str) {
    log::warn!(
        "announces over connections that the process before this one still serves are not taken over, because {why}; \
         their clients announce here next time"
    );
}

/// A stream that ends when the process stops.
struct UntilStopping {
    stream: UnixStream,
    stopping: Arc<AtomicBool>,
}

impl Read for UntilStopping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && !self.stopping.load(Ordering::Relaxed) => {}
                read => return read,
            }
        }
    }
}

fn write_records<W: io::Write>(writer: &mut Writer<W>, family: Family, records: &[u8]) -> io::Result<()> {
    let whole = CHUNK_LENGTH / record_length(family) * record_length(family);
    records.chunks(whole).try_for_each(|records| writer.write_announces(family, records))
}
