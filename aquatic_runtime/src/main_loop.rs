//! The main thread's work once the cores run: signals, supervision, housekeeping, upgrades, and the stop.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use aquatic_metrics::Counter;

use crate::clock::Epoch;
use crate::drain::{Drain, DrainStep};
use crate::engine::{BEFORE_STOP_DEADLINE, EngineError, STOP_DEADLINE, StopHook};
use crate::executor::Control;
use crate::handover::{DecidedByHand, HandOver, OUTCOME_FILE, PID_FILE, Place, StateHook, Successor};
use crate::housekeeping::Housekeeper;
use crate::listeners::ListenSocket;
use crate::mailbox::MailboxSender;
use crate::secrets::Secrets;
use crate::serving::Serving;
use crate::state_directory::StateDirectory;
use crate::supervise::{Event, StopHold, Supervisor};

/// Period of the main thread's housekeeping.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for an upgrade to end when the process stops: longer than any step of it that cannot be cut
/// short.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// Time after the last connection for its announces to reach the successor.
const LAST_CHANGES: Duration = Duration::from_millis(100);

/// What it takes to start a successor.
pub(crate) struct Upgrades {
    /// The program, as it was called.
    pub(crate) program: io::Result<PathBuf>,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) secrets: Secrets,
    pub(crate) epoch: Epoch,
    pub(crate) state: Option<StateHook>,
    pub(crate) by_hand: Option<Arc<dyn DecidedByHand>>,
    /// Longest time until the successor has the state.
    pub(crate) timeout: Duration,
    /// Time over which connections are ended.
    pub(crate) drain_time: Duration,
    /// Files are looked up in another root directory.
    pub(crate) has_new_root: bool,
    pub(crate) failures: Counter,
}

/// What the main thread works with.
pub(crate) struct MainLoop {
    pub(crate) housekeeper: Housekeeper,
    pub(crate) supervisor: Supervisor,
    pub(crate) control: Vec<MailboxSender<Control>>,
    pub(crate) before_stop: Vec<StopHook>,
    pub(crate) listeners: Arc<Vec<ListenSocket>>,
    pub(crate) directory: Option<StateDirectory>,
    pub(crate) upgrades: Upgrades,
    pub(crate) serving: Serving,
    /// An upgrade that is under way: set to end it.
    pub(crate) cancel: Option<Arc<AtomicBool>>,
    /// A drain that is under way.
    pub(crate) drain: Option<Drain>,
    /// Another process serves until this one takes over.
    pub(crate) has_predecessor: bool,
    /// The process that this one has taken over from, while it still serves connections.
    pub(crate) draining: Option<u32>,
    /// Whether that one has handed over, which this thread may not have heard of yet.
    pub(crate) place: Arc<Place>,
}

impl MainLoop {
    /// Runs until the process is told to stop, or has handed over. `early` has happened before.
    pub(crate) fn run(mut self, early: Vec<Event>) -> Result<(), EngineError> {
        let mut early = early.into_iter();
        if !self.has_predecessor {
            self.begin_serving();
        }
        loop {
            let next = match early.next() {
                Some(event) => Ok(event),
                None => self.next_event(),
            };
            match next {
                Ok(Event::Stop) => break,
                // Once it takes over.
                Ok(Event::Reload) if self.has_predecessor => {}
                Ok(Event::Reload) => self.housekeeper.reload(),
                Ok(Event::Upgrade) => self.begin_upgrade(),
                Ok(Event::Drain(plan)) => {
                    self.drain = Some(self.housekeeper.begin_to_drain(plan));
                    if let Some(cancel) = &self.cancel {
                        cancel.store(true, Ordering::Relaxed);
                    }
                }
                Ok(Event::UpgradeEnded(Ok(successor))) => {
                    if self.drain.is_some() {
                        log::warn!(
                            "process {} has taken over before this one could drain: drain that one",
                            successor.pid
                        );
                    }
                    return self.leave_to(successor);
                }
                Ok(Event::UpgradeEnded(Err(why))) => self.end_upgrade(&why),
                Ok(Event::TookOver(pid)) => self.take_over(pid),
                Ok(Event::PredecessorEnded) => self.draining = None,
                Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
                Ok(Event::CoreStarted(_) | Event::CoreStopped(_) | Event::StopReleased) => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.housekeeper.tick();
                    if self.has_drained() {
                        break;
                    }
                }
                // The supervisor itself holds a sender, so the channel stays open.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        log::info!("stopping");
        self.housekeeper.notifier().stopping();
        if let Some(successor) = self.cancel_upgrade() {
            successor.stop();
            return self.leave_to(successor);
        }
        if !self.has_predecessor || self.place.stop() {
            self.remove_pid();
            self.run_before_stop()?;
        }
        // From now on nobody but the cores has them open, and perhaps the service manager.
        self.listeners = Arc::default();
        self.stop_cores(STOP_DEADLINE)?;
        log::info!("stopped");
        Ok(())
    }

    fn next_event(&self) -> Result<Event, RecvTimeoutError> {
        self.supervisor.events.recv_timeout(self.housekeeper.until_next(HOUSEKEEPING_INTERVAL))
    }

    /// Tells everybody that this process serves.
    fn begin_serving(&mut self) {
        self.serving.begin();
        self.write_file(PID_FILE, &format!("{}\n", std::process::id()));
        let notifier = self.housekeeper.notifier();
        notifier.unmute();
        notifier.store(&self.listeners);
        notifier.ready();
    }

    /// Replaces a small file in the state directory, for other programs.
    fn write_file(&self, name: &str, text: &str) {
        let Some(directory) = &self.directory else { return };
        if let Err(error) = directory.replace(name, |file| file.write_all(text.as_bytes())) {
            log::warn!("{} cannot be written: {error}", directory.path().join(name).display());
        }
    }

    /// Another program is to take no other process for this one, once its number is that of one.
    fn remove_pid(&self) {
        let Some(directory) = &self.directory else { return };
        if let Err(error) = directory.remove(PID_FILE) {
            log::warn!("{} cannot be removed: {error}", directory.path().join(PID_FILE).display());
        }
    }

    fn take_over(&mut self, predecessor: u32) {
        self.has_predecessor = false;
        self.draining = Some(predecessor);
        self.begin_serving();
        self.write_file(OUTCOME_FILE, &format!("done {}\n", std::process::id()));
        log::info!(
            "upgrade: this process, {}, has taken over from process {predecessor}",
            std::process::id()
        );
        // Files may have changed since they were read. The predecessor has read them again if it was told to.
        self.housekeeper.read_files_again();
    }

    fn begin_upgrade(&mut self) {
        if self.has_predecessor || self.cancel.is_some() {
            // That is no outcome: whoever requested the first one waits for its own.
            return log::warn!("upgrade: one is under way, the request for another is ignored");
        }
        let upgrades = &self.upgrades;
        let program = match &upgrades.program {
            _ if self.drain.is_some() => Err("this process drains and then stops".to_owned()),
            _ if upgrades.has_new_root => {
                let why =
                    "the program cannot be reached from privileges.chroot_path; restart the tracker instead";
                Err(why.to_owned())
            }
            Ok(program) => Ok(program.clone()),
            Err(error) => Err(format!("the path of the program is unknown: {error}")),
        };
        let program = match program {
            Ok(program) => program,
            Err(why) => return self.tell_failure(&why),
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let hand_over = HandOver {
            program,
            arguments: upgrades.arguments.clone(),
            listeners: Arc::clone(&self.listeners),
            directory: self.directory.clone(),
            secrets: upgrades.secrets.clone(),
            epoch: upgrades.epoch,
            control: self.control.clone(),
            state: upgrades.state.clone(),
            by_hand: upgrades.by_hand.clone(),
            timeout: upgrades.timeout,
            cancelled: Arc::clone(&cancelled),
            events: self.supervisor.sender(),
        };
        // Not under supervision: it ends when the hand-over does.
        match thread::Builder::new().name("aquatic-upgrade".to_owned()).spawn(move || hand_over.run()) {
            Ok(_) => self.cancel = Some(cancelled),
            Err(error) => self.tell_failure(&format!("a thread could not be started: {error}")),
        }
    }

    fn end_upgrade(&mut self, why: &str) {
        self.cancel = None;
        self.tell_failure(why);
    }

    fn tell_failure(&mut self, why: &str) {
        self.upgrades.failures.add(1);
        log::error!("upgrade failed, this process goes on serving: {why}");
        self.write_file(OUTCOME_FILE, &format!("failed {why}\n"));
    }

    /// Ends an upgrade that is under way. Returns the successor if it has taken over all the same.
    fn cancel_upgrade(&mut self) -> Option<Successor> {
        self.cancel.take()?.store(true, Ordering::Relaxed);
        let deadline = self.housekeeper.now() + CANCEL_DEADLINE;
        loop {
            let left = deadline.saturating_sub(self.housekeeper.now());
            match self.supervisor.events.recv_timeout(left) {
                Ok(Event::UpgradeEnded(outcome)) => return outcome.ok(),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Lets a successor serve: ends the connections of this process over some time, and leaves everything
    /// else to it. What is announced to a process before this one gets to it through this one.
    fn leave_to(mut self, successor: Successor) -> Result<(), EngineError> {
        let window = self.upgrades.drain_time;
        self.housekeeper.notifier().give_up_to(successor.pid);
        self.serving.end();
        successor.tell_done();
        log::info!(
            "upgrade: process {} serves; connections of this one, {}, end within {} s",
            successor.pid,
            std::process::id(),
            window.as_secs()
        );
        let _forwarding = successor.watch(self.supervisor.sender());
        self.listeners = Arc::default();
        let command = match self.until_predecessor_ends(window + STOP_DEADLINE)? {
            StopSignal::Heed => Control::Leave(window),
            StopSignal::Ignore => Control::Stop,
        };
        for core in &self.control {
            // As with a stop: the deadline ends a core that does not receive it.
            let _ = core.try_send(command.clone());
        }
        let stopped = self.wait_for_cores(window + STOP_DEADLINE, StopSignal::Heed);
        match self.supervisor.events.recv_timeout(LAST_CHANGES) {
            Ok(_) | Err(_) => {}
        }
        log::info!("stopped");
        stopped
    }

    /// Waits until the predecessor has ended its connections, if there is one: it ends with this process.
    /// Returns what a signal to stop means after that.
    fn until_predecessor_ends(&mut self, limit: Duration) -> Result<StopSignal, EngineError> {
        let Some(pid) = self.draining else { return Ok(StopSignal::Heed) };
        log::info!("upgrade: connections of process {pid} come first");
        let deadline = self.housekeeper.now() + limit;
        loop {
            let left = deadline.saturating_sub(self.housekeeper.now());
            match self.supervisor.events.recv_timeout(left) {
                Ok(Event::PredecessorEnded) => return Ok(StopSignal::Heed),
                Ok(Event::Stop) => return Ok(StopSignal::Ignore),
                Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
                Ok(_) => {}
                Err(_) => {
                    log::warn!("process {pid} did not end within {} s", limit.as_secs());
                    return Ok(StopSignal::Heed);
                }
            }
        }
    }

    /// Goes on with a drain. Returns whether it is time to stop.
    fn has_drained(&mut self) -> bool {
        let (now, connections) = (self.housekeeper.now(), self.housekeeper.connections());
        let Some(drain) = &mut self.drain else { return false };
        match drain.step(now, connections) {
            DrainStep::Wait => return false,
            DrainStep::Close => {
                log::info!("draining: no new connections are accepted");
                for core in &self.control {
                    // Without room, the core has stalled, and accepts nothing either.
                    let _ = core.try_send(Control::Drain);
                }
                // Nobody else may keep them open either: clients would connect and wait.
                let listeners = std::mem::take(&mut self.listeners);
                let streams = listeners.iter().filter(|socket| socket.is_stream());
                let names: Vec<String> = streams.map(ListenSocket::name).collect();
                drop(listeners);
                self.housekeeper.notifier().forget(names.iter().map(String::as_str));
                return false;
            }
            DrainStep::Drained => log::info!("drained: no connection is left"),
            DrainStep::TimedOut(left) => log::warn!("{left} connections are left after the time to drain"),
        }
        true
    }

    /// Does what is to be done before the cores stop.
    fn run_before_stop(&mut self) -> Result<(), EngineError> {
        let before_stop = std::mem::take(&mut self.before_stop);
        let mut holds = before_stop.len();
        for begin in before_stop {
            begin(StopHold::new(self.supervisor.sender()));
        }
        let deadline = self.housekeeper.now() + BEFORE_STOP_DEADLINE;
        while holds > 0 {
            if self.housekeeper.now() >= deadline {
                log::error!(
                    "what is saved before a stop is not finished after {} s, so it is abandoned",
                    BEFORE_STOP_DEADLINE.as_secs()
                );
                break;
            }
            match self.next_event() {
                Ok(Event::StopReleased) => holds -= 1,
                Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.housekeeper.notifier().still_stopping();
                    self.housekeeper.tick();
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    /// Has the cores finish what they have begun.
    fn stop_cores(&mut self, limit: Duration) -> Result<(), EngineError> {
        for core in &self.control {
            // A core that has not received its last commands would not hear of this one either; the deadline
            // ends it.
            let _ = core.try_send(Control::Stop);
        }
        self.wait_for_cores(limit, StopSignal::Ignore)
    }

    /// Waits until all cores have stopped.
    fn wait_for_cores(&mut self, limit: Duration, signal: StopSignal) -> Result<(), EngineError> {
        let mut deadline = self.housekeeper.now() + limit;
        let mut running: Vec<usize> = (0..self.control.len()).collect();
        while !running.is_empty() {
            let left = deadline.saturating_sub(self.housekeeper.now());
            match self.supervisor.events.recv_timeout(left) {
                Ok(Event::CoreStopped(index)) => running.retain(|&core| core != index),
                Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
                Ok(Event::Stop) if signal == StopSignal::Heed => {
                    deadline = self.housekeeper.now() + STOP_DEADLINE;
                    for core in &self.control {
                        let _ = core.try_send(Control::Stop);
                    }
                }
                Ok(_) => {}
                Err(_) => {
                    log::warn!("core(s) {running:?} did not finish within {} s", limit.as_secs());
                    break;
                }
            }
        }
        Ok(())
    }
}

/// What a signal to stop means while cores are waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StopSignal {
    /// They are to stop at once.
    Heed,
    /// They have been told to already.
    Ignore,
}
