//! The side that hands over: starts the successor, leads it through the hand-over, and ends it if that fails.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, Signal, kill_process};

use super::connection::{Connection, Incoming};
use super::keeper;
use super::message::{Awaited, Hello, MAX_DESCRIPTORS, MAX_PART, Message};
use super::{DecidedByHand, StateHook, StateRequest, StateSender, StateSent, VARIABLE, WATCH_PERIOD};
use crate::clock::{Epoch, Moment};
use crate::executor::Control;
use crate::kept;
use crate::listeners::ListenSocket;
use crate::mailbox::MailboxSender;
use crate::secrets::Secrets;
use crate::state_directory::StateDirectory;
use crate::supervise::Event;

/// Longest wait before it is looked whether the process is stopping.
const POLL: Duration = Duration::from_millis(50);

/// Longest time the cores may take to stop taking anything in.
const PAUSE_DEADLINE: Duration = Duration::from_secs(2);

/// Longest time from then until the successor serves. Clients wait meanwhile.
const SWITCH_DEADLINE: Duration = Duration::from_secs(5);

const TOLD_TO_STOP: &str = "the tracker has been told to stop";

/// Variables that concern one process.
const OWN_VARIABLES: [&str; 5] =
    ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", keeper::VARIABLE];

/// All that a hand-over needs of the process.
pub(crate) struct HandOver {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) listeners: Arc<Vec<ListenSocket>>,
    pub(crate) directory: Option<StateDirectory>,
    pub(crate) secrets: Secrets,
    pub(crate) epoch: Epoch,
    pub(crate) control: Vec<MailboxSender<Control>>,
    pub(crate) state: Option<StateHook>,
    pub(crate) by_hand: Option<Arc<dyn DecidedByHand>>,
    /// Longest time until the successor has the state.
    pub(crate) timeout: Duration,
    /// The process is stopping.
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) events: Sender<Event>,
}

/// A process that has taken over.
pub(crate) struct Successor {
    pub(crate) pid: u32,
    connection: Connection,
    /// Has the changes of connections that this process still serves go to the successor.
    state: Option<Sender<StateRequest>>,
}

/// What a process holds that serves its last connections: has their changes go to the successor.
#[derive(Debug)]
pub(crate) struct Forwarding {
    _state: Option<Sender<StateRequest>>,
}

impl fmt::Debug for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Successor").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Successor {
    /// Tells it that this process has given up its place.
    pub(crate) fn tell_done(&self) {
        // It goes on without, after a while.
        let _ = self.connection.send(&Message::Done, &[]);
    }

    /// Has it stop: it has taken over after this process was told to.
    pub(crate) fn stop(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let signalled = pid.map(|pid| kill_process(pid, Signal::TERM));
        log::info!("process {} has taken over already, and is told to stop", self.pid);
        if let Some(Err(error)) = signalled {
            log::error!("process {} serves on, as it cannot be told to stop: {error}", self.pid);
        }
    }

    /// Has this process stop, with the connections that it still serves, as soon as the successor ends: it
    /// keeps the state directory from others, and whoever stops the successor stops the tracker.
    pub(crate) fn watch(self, events: Sender<Event>) -> Forwarding {
        let Self { pid, connection, state } = self;
        let until_end = move || {
            while let Ok(Incoming::Message(..) | Incoming::Nothing) = connection.receive(WATCH_PERIOD) {}
            log::warn!("process {pid}, which has taken over, has ended; so does this one");
            // Without a receiver the process is ending.
            let _ = events.send(Event::Stop);
        };
        if let Err(error) = thread::Builder::new().name("aquatic-upgrade".to_owned()).spawn(until_end) {
            log::debug!("the end of process {pid} will not be noticed: {error}");
        }
        Forwarding { _state: state }
    }
}

/// The side that writes the state.
struct State {
    requests: Sender<StateRequest>,
    answers: Receiver<StateSent>,
}

impl HandOver {
    /// Does all of it, on a thread that may start programs, and reports the outcome to the main thread.
    pub(crate) fn run(self) {
        let outcome = self.start_and_lead();
        // Without a receiver the process is ending.
        let _ = self.events.send(Event::UpgradeEnded(outcome));
    }

    fn start_and_lead(&self) -> Result<Successor, String> {
        let (connection, theirs) = Connection::pair().map_err(|error| error.to_string())?;
        let streams = self.state.as_ref().map(|_| UnixStream::pair()).transpose();
        let streams = streams.map_err(|error| error.to_string())?;
        let mut child = self.start(theirs)?;
        match self.lead(&connection, &mut child, streams) {
            Ok((pid, state)) => {
                keeper::end_keeper(&mut child, pid);
                Ok(Successor { pid, connection, state: state.map(|state| state.requests) })
            }
            Err(why) => {
                self.abandon(&connection, &mut child, &why);
                Err(why)
            }
        }
    }

    fn start(&self, theirs: OwnedFd) -> Result<Child, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::from(theirs));
        command.env(VARIABLE, std::process::id().to_string());
        for variable in OWN_VARIABLES {
            command.env_remove(variable);
        }
        command.spawn().map_err(|error| format!("{} cannot be started: {error}", self.program.display()))
    }

    /// Ends the successor and opens the intake again.
    fn abandon(&self, connection: &Connection, child: &mut Child, why: &str) {
        let _ = connection.send(&Message::Refused(why.to_owned()), &[]);
        // It may have ended already. Another process that it has started learns it from the message, or ends
        // with its keeper.
        let _ = child.kill();
        let _ = child.wait();
        for core in &self.control {
            let _ = core.try_send(Control::Resume);
        }
        if let Some(by_hand) = &self.by_hand {
            by_hand.release();
        }
    }

    fn lead(
        &self,
        connection: &Connection,
        child: &mut Child,
        streams: Option<(UnixStream, UnixStream)>,
    ) -> Result<(u32, Option<State>), String> {
        let (ours, theirs) = streams.unzip();
        self.offer(connection, theirs)
            .map_err(|error| format!("the successor cannot be reached: {error}"))?;
        // From here on it has what it needs, also if this process is killed.
        log::info!("upgrade: process {} has been started to take over", child.id());
        let deadline = self.epoch.elapsed() + self.timeout;
        let mut awaited = Awaited::Started;
        let (mut pid, mut stream, mut state) = (0, ours, None);
        loop {
            self.check(awaited, deadline, state.as_ref()).map_err(|why| explain(why, awaited, child))?;
            let message = match connection.receive(POLL) {
                Ok(Incoming::Nothing) => continue,
                Ok(Incoming::Message(message, _)) => message,
                Ok(Incoming::End) => return Err(describe_end(awaited, child)),
                Err(error) => return Err(format!("the successor cannot be understood: {error}")),
            };
            awaited = awaited.after(&message)?;
            if let Message::Started(number) = message {
                pid = number;
                state = stream.take().and_then(|stream| self.begin_state(stream));
            } else if message == Message::Loaded {
                awaited = self.give_up_place(connection, child, state.as_ref())?;
            }
            if awaited == Awaited::Nothing {
                return Ok((pid, state));
            }
        }
    }

    /// Sends what the successor starts with.
    fn offer(&self, connection: &Connection, stream: Option<UnixStream>) -> io::Result<()> {
        let hello = Hello {
            cores: u32::try_from(self.control.len()).unwrap_or(u32::MAX),
            pid: std::process::id(),
            has_state: stream.is_some(),
            keys: kept::record_of(&self.secrets, self.epoch.elapsed(), Moment::now()),
            directory: self.directory.as_ref().map(|directory| directory.path().to_owned()),
        };
        let stream = stream.iter().map(AsFd::as_fd);
        let descriptors: Vec<_> = stream.chain(self.directory.as_ref().map(AsFd::as_fd)).collect();
        connection.send(&Message::Hello(Box::new(hello)), &descriptors)?;
        for sockets in self.listeners.chunks(MAX_DESCRIPTORS) {
            let cores = sockets.iter().map(|socket| u32::try_from(socket.core).unwrap_or(u32::MAX));
            let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            connection.send(&Message::Sockets(cores.collect()), &descriptors)?;
        }
        connection.send(&Message::Begin, &[])
    }

    /// Has the services begin to write their state.
    fn begin_state(&self, stream: UnixStream) -> Option<State> {
        let begin = self.state.as_ref()?;
        let ((requests, wanted), (answer, answers)) = (channel(), channel());
        begin(StateSender { stream, requests: wanted, answers: answer });
        Some(State { requests, answers })
    }

    /// Finds out whether there is a reason to give up.
    fn check(&self, awaited: Awaited, deadline: Duration, state: Option<&State>) -> Result<(), String> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(TOLD_TO_STOP.to_owned());
        }
        match state.map(|state| state.answers.try_recv()) {
            Some(Ok(StateSent::Failed(why))) => return Err(why),
            Some(Err(TryRecvError::Disconnected)) => return Err("the state is no longer sent".to_owned()),
            Some(Ok(StateSent::Marked) | Err(TryRecvError::Empty)) | None => {}
        }
        if self.epoch.elapsed() >= deadline {
            let (doing, seconds) = (awaited.describe(), self.timeout.as_secs());
            return Err(format!("the successor was still {doing} after {seconds} s"));
        }
        Ok(())
    }

    /// Sends what has been decided by hand, which then no longer changes.
    fn send_by_hand(&self, connection: &Connection) -> io::Result<()> {
        let Some(by_hand) = &self.by_hand else { return Ok(()) };
        let bytes = by_hand.hold();
        let mut parts = bytes.chunks(MAX_PART).peekable();
        while let Some(part) = parts.next() {
            let message = Message::ByHand { is_last: parts.peek().is_none(), part: part.to_vec() };
            connection.send(&message, &[])?;
        }
        Ok(())
    }

    /// Has the successor serve instead of this process.
    fn give_up_place(
        &self,
        connection: &Connection,
        child: &mut Child,
        state: Option<&State>,
    ) -> Result<Awaited, String> {
        let awaited = Awaited::Serving;
        self.send_by_hand(connection)
            .map_err(|error| explain(format!("the successor cannot be told: {error}"), awaited, child))?;
        let begin = self.epoch.elapsed();
        self.switch(connection, state).map_err(|why| explain(why, awaited, child))?;
        let awaited = self.until_serving(connection, child)?;
        let waited = self.epoch.elapsed().saturating_sub(begin);
        log::info!("upgrade: requests have waited in the sockets for {waited:.1?}");
        Ok(awaited)
    }

    /// Stops taking anything in, and tells the successor once it can have all that was applied.
    fn switch(&self, connection: &Connection, state: Option<&State>) -> Result<(), String> {
        let (sender, paused) = channel();
        for (index, core) in self.control.iter().enumerate() {
            let full = |_| format!("core {index} does not respond");
            core.try_send(Control::Pause(sender.clone())).map_err(full)?;
        }
        drop(sender);
        for _ in &self.control {
            let late = |_| "a core does not stop taking requests in".to_owned();
            paused.recv_timeout(PAUSE_DEADLINE).map_err(late)?;
        }
        if let Some(state) = state {
            let gone = || "the state is no longer sent".to_owned();
            state.requests.send(StateRequest::Mark).map_err(|_| gone())?;
            match state.answers.recv_timeout(SWITCH_DEADLINE) {
                Ok(StateSent::Marked) => {}
                Ok(StateSent::Failed(why)) => return Err(why),
                Err(RecvTimeoutError::Timeout) => {
                    return Err("the last changes could not be sent in time".into());
                }
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
        connection
            .send(&Message::Switch, &[])
            .map_err(|error| format!("the successor cannot be told: {error}"))
    }

    /// Waits until the successor serves. After the deadline, or once this process is to stop, the successor
    /// can no longer say so, and then does not serve.
    fn until_serving(&self, connection: &Connection, child: &mut Child) -> Result<Awaited, String> {
        let deadline = self.epoch.elapsed() + SWITCH_DEADLINE;
        let is_cancelled = || self.cancelled.load(Ordering::Relaxed);
        let mut incoming = Ok(Incoming::Nothing);
        while matches!(incoming, Ok(Incoming::Nothing)) && self.epoch.elapsed() < deadline && !is_cancelled()
        {
            incoming = connection.receive(POLL);
        }
        if matches!(incoming, Ok(Incoming::Nothing)) {
            let _ = shutdown(connection, Shutdown::Read);
            incoming = match connection.receive(Duration::ZERO) {
                // That is the end this side has just made.
                Ok(Incoming::End) => Ok(Incoming::Nothing),
                incoming => incoming,
            };
        }
        match incoming {
            Ok(Incoming::Message(message, _)) => Awaited::Serving.after(&message),
            Ok(Incoming::Nothing) if is_cancelled() => Err(TOLD_TO_STOP.to_owned()),
            Ok(Incoming::Nothing) => Err("the successor did not take over in time".to_owned()),
            Ok(Incoming::End) => Err(describe_end(Awaited::Serving, child)),
            Err(error) => Err(format!("the successor cannot be understood: {error}")),
        }
    }
}

/// Why the connection to a successor has ended.
fn describe_end(awaited: Awaited, child: &mut Child) -> String {
    explain(
        format!("the successor has closed its connection, or hangs, while {}", awaited.describe()),
        awaited,
        child,
    )
}

/// The end of the successor if it has ended, which is then the reason for what went wrong, and `why`
/// otherwise.
fn explain(why: String, awaited: Awaited, child: &mut Child) -> String {
    // It closes its connections in ending, so the exit status follows at once, unless it goes on without.
    for _ in 0..8 {
        match child.try_wait() {
            Ok(Some(status)) => {
                return format!(
                    "the successor has ended while {} ({status}); its last lines of the log say why",
                    awaited.describe()
                );
            }
            Ok(None) => pause(),
            Err(_) => break,
        }
    }
    why
}

#[allow(clippy::disallowed_methods, reason = "the thread of an upgrade has nothing else to do")]
fn pause() {
    thread::sleep(POLL);
}
