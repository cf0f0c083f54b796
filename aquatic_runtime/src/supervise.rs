//! Keeping an eye on threads: which there are, how they end, and what that means for the process.
//!
//! Invariants: every thread is started here. A panic in any thread ends the process at once, from the panic
//! hook, before anything unwinds: unwinding an executor may panic again or wait for other cores. A thread
//! that returns is reported to the main thread, which ends the process. Threads are never joined.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::clock::Epoch;
use crate::handover::Successor;
use crate::sys;

/// Name of the thread that takes signals, which every tracker has.
pub const SIGNAL_THREAD: &str = "aquatic-signals";

/// The exit code after a panic, as Rust programs have it.
pub const PANIC_EXIT_CODE: i32 = 101;

/// Longest wait for the reader of standard error before the process ends at once.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Signals the process reacts to. All threads but one block them, so that no system call of a core is
/// interrupted.
const SIGNALS: [i32; 5] = [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2];

/// A second signal to stop this soon after the first is the same one: terminals and programs like `timeout`
/// signal both the process and its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// What threads tell the main thread.
#[derive(Debug)]
pub(crate) enum Event {
    /// SIGINT or SIGTERM.
    Stop,
    /// SIGHUP or SIGUSR1.
    Reload,
    /// No new connections are wanted, and then the process stops.
    Drain(DrainPlan),
    /// SIGUSR2.
    Upgrade,
    /// A successor has taken over, or why not.
    UpgradeEnded(Result<Successor, String>),
    /// This process has taken over from the process with this number.
    TookOver(u32),
    /// The process that this one has taken over from has ended.
    PredecessorEnded,
    /// What had to be done before the process stops has been done.
    StopReleased,
    /// A core's executor runs, or could not be set up.
    CoreStarted(Result<(), String>),
    /// A core has finished after it was told to stop.
    CoreStopped(usize),
    /// A thread has ended, or its work has, without having been told to.
    Ended {
        /// Which.
        who: String,
        /// Why.
        why: String,
    },
}

/// Starts threads and hears from them.
#[derive(Debug)]
pub(crate) struct Supervisor {
    sender: Sender<Event>,
    pub(crate) events: Receiver<Event>,
}

/// Requests reloads as SIGHUP does.
#[derive(Clone, Debug)]
pub struct ReloadTrigger(Sender<Event>);

impl ReloadTrigger {
    /// Has the main thread read the files of the process again.
    pub fn request(&self) {
        // Without a receiver the process is ending.
        let _ = self.0.send(Event::Reload);
    }
}

/// How a process gets rid of its clients before it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Time in which new connections are still accepted, so that load balancers learn of it first.
    pub notice: Duration,
    /// Longest time for the connections to end after that.
    pub limit: Duration,
}

/// Has the process drain and stop.
#[derive(Clone, Debug)]
pub struct DrainTrigger(Sender<Event>);

impl DrainTrigger {
    /// Begins. A second call replaces the plan of the first.
    pub fn begin(&self, plan: DrainPlan) {
        // Without a receiver the process is ending.
        let _ = self.0.send(Event::Drain(plan));
    }
}

/// Delays the stop of the process until it is dropped, or a deadline has passed.
#[derive(Debug)]
pub struct StopHold(Sender<Event>);

impl StopHold {
    pub(crate) fn new(sender: Sender<Event>) -> Self {
        Self(sender)
    }
}

impl Drop for StopHold {
    fn drop(&mut self) {
        // Without a receiver the process is ending.
        let _ = self.0.send(Event::StopReleased);
    }
}

impl Supervisor {
    /// What requests reloads.
    pub(crate) fn reload_trigger(&self) -> ReloadTrigger {
        ReloadTrigger(self.sender())
    }

    /// What has the process drain.
    pub(crate) fn drain_trigger(&self) -> DrainTrigger {
        DrainTrigger(self.sender())
    }

    /// Makes panics fatal.
    pub(crate) fn new() -> Self {
        panic::set_hook(Box::new(end_process));
        let (sender, events) = channel();
        Self { sender, events }
    }

    /// Where threads report to.
    pub(crate) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Starts a thread that is not expected to end.
    ///
    /// # Errors
    /// Too many threads.
    pub(crate) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let sender = self.sender();
        let who = format!("thread {name}");
        let work = move || {
            work();
            // The main thread may have gone already when the process ends.
            let _ = sender.send(Event::Ended { who, why: "it has ended by itself".to_owned() });
        };
        thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
    }

    /// Blocks the signals for this thread and all it starts, and starts the thread that receives them.
    ///
    /// # Errors
    /// Those of `sigaction` and of starting a thread.
    pub(crate) fn listen_to_signals(&self, epoch: Epoch) -> io::Result<()> {
        let mut signals = Signals::new(SIGNALS)?;
        sys::mask_signals(true, &SIGNALS)?;
        let sender = self.sender();
        self.spawn(SIGNAL_THREAD, move || {
            if sys::mask_signals(false, &SIGNALS).is_err() {
                return;
            }
            let mut told_to_stop = None;
            for signal in signals.forever() {
                let now = epoch.elapsed();
                let event = match (signal, told_to_stop) {
                    (SIGHUP | SIGUSR1, _) => Event::Reload,
                    (SIGUSR2, _) => Event::Upgrade,
                    (_, None) => {
                        told_to_stop = Some(now);
                        Event::Stop
                    }
                    (_, Some(first)) if now.saturating_sub(first) < SAME_SIGNAL => continue,
                    (_, Some(_)) => {
                        write_last("told to stop again: ending at once\n".to_owned());
                        process::exit(128 + signal);
                    }
                };
                if sender.send(event).is_err() {
                    return;
                }
            }
        })
    }
}

/// The panic hook.
fn end_process(panic: &PanicHookInfo<'_>) {
    let current = thread::current();
    let payload = panic.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = panic.location().map_or_else(String::new, |location| format!(" at {location}"));
    let backtrace = Backtrace::capture();
    let mut text = format!(
        "thread {} panicked{place}: {message}\nThis is a bug in the tracker; the process ends.\n",
        current.name().unwrap_or("without a name")
    );
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("{backtrace}\n"));
    }
    write_last(text);
    process::exit(PANIC_EXIT_CODE);
}

/// Writes a text to standard error, behind the log if that gets through, and waits at most [`LAST_WORDS`] for
/// it. A thread of its own writes: the text may come from within the logger, and standard error may be a pipe
/// that nobody reads.
fn write_last(text: String) {
    let (sender, written) = channel();
    let write = move || {
        log::logger().flush();
        let _ = io::stderr().write_all(text.as_bytes());
        let _ = sender.send(());
    };
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = written.recv_timeout(LAST_WORDS);
    }
}
