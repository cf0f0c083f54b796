//! How long connections may take: one record for each, all of a core in one block of memory, looked through by one
//! timer several times a second.
//!
//! Invariants: a record lives exactly as long as its connection; a [`Pace`] that outlives it does nothing, because the
//! generation tells. A record runs out at most once, and whoever reads or writes the connection is then woken and gets
//! an error. Setting a deadline is a store: no timer, no system call, no look at the clock.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use slab::Slab;

use super::counters::Counters;

/// Time between two looks at all records; deadlines are met this much late at most, and never early.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// How long a connection may take for each of its [`Phase`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// The PROXY protocol header and the TLS handshake together.
    pub handshake: Duration,
    /// From the beginning of the connection, or of a request, to the end of the request's head.
    pub head: Duration,
    /// From the end of a request to the moment the client has taken the reply.
    pub answer: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// From the end of the last reply to the client's end of the connection.
    pub linger: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            linger: Duration::from_secs(2),
        }
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// PROXY protocol header or TLS handshake. Connections begin here; the service first sees them in
    /// [`Phase::Head`].
    Handshake,
    /// A request has begun to come in, or the first one is awaited.
    Head,
    /// A request is being answered.
    Answer,
    /// Nothing is under way: closed at once when the process stops.
    Idle,
    /// Everything has been said.
    Linger,
}

impl Phase {
    /// All phases.
    pub(super) const ALL: [Self; 5] = [Self::Handshake, Self::Head, Self::Answer, Self::Idle, Self::Linger];

    /// The value of the label `reason` when the phase took too long.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Answer => "answer",
            Self::Idle => "idle",
            Self::Linger => "linger",
        }
    }
}

/// Sweeps since the start of the core. 32 bits last for 34 years.
type Tick = u32;

#[derive(Debug)]
struct Record {
    deadline: Tick,
    generation: u32,
    phase: Phase,
    ran_out: bool,
    waker: Option<Waker>,
}

/// The records of one core.
pub(super) struct Records {
    limits: Deadlines,
    now: Cell<Tick>,
    generation: Cell<u32>,
    stopping: Cell<bool>,
    records: RefCell<Slab<Record>>,
    pub(super) counters: Counters,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("open", &self.len()).finish_non_exhaustive()
    }
}

/// The tick at which a deadline this far away is over, for one that begins some time after `now`.
fn due(now: Tick, limit: Duration) -> Tick {
    let ticks = limit.as_millis().div_ceil(SWEEP_INTERVAL.as_millis());
    now.saturating_add(Tick::try_from(ticks).unwrap_or(Tick::MAX)).saturating_add(1)
}

impl Records {
    pub(super) fn new(limits: Deadlines, counters: Counters) -> Self {
        Self {
            limits,
            now: Cell::new(0),
            generation: Cell::new(0),
            stopping: Cell::new(false),
            records: RefCell::default(),
            counters,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.borrow().len()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// A record for a new connection.
    pub(super) fn open(self: &Rc<Self>) -> Pace {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let deadline = due(self.now.get(), self.limits.handshake);
        let mut records = self.records.borrow_mut();
        let key = records.insert(Record {
            deadline,
            generation,
            phase: Phase::Handshake,
            ran_out: false,
            waker: None,
        });
        self.counters.open.set(records.len() as u64);
        Pace { records: Rc::clone(self), key, generation }
    }

    /// Ends what has taken too long by `elapsed`, the time since the core started.
    pub(super) fn sweep(&self, elapsed: Duration) {
        let now = Tick::try_from(elapsed.as_millis() / SWEEP_INTERVAL.as_millis()).unwrap_or(Tick::MAX);
        self.now.set(now);
        self.end(|record| record.deadline <= now);
    }

    /// Ends what is idle now and whatever becomes idle later.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.end(|record| record.phase == Phase::Idle);
    }

    fn end(&self, which: impl Fn(&Record) -> bool) {
        // Waking only notes the task in the executor's queue; nothing runs before this returns.
        for (_, record) in self.records.borrow_mut().iter_mut() {
            if !record.ran_out && which(record) {
                record.run_out(&self.counters, self.stopping.get());
            }
        }
    }
}

impl Record {
    fn run_out(&mut self, counters: &Counters, stopping: bool) {
        self.ran_out = true;
        if !stopping {
            counters.timeouts[self.phase as usize].add(1);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A connection's hold on its deadline. Clones are for whoever drives the connection through another type, such as a
/// WebSocket; they do nothing once the connection is gone.
#[derive(Clone)]
pub struct Pace {
    records: Rc<Records>,
    key: usize,
    generation: u32,
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Pace {
    /// Begins a phase, with the time it has. [`Phase::Idle`] ends the connection at once if the process is stopping.
    pub fn enter(&self, phase: Phase) {
        let limits = &self.records.limits;
        let limit = match phase {
            Phase::Handshake => limits.handshake,
            Phase::Head => limits.head,
            Phase::Answer => limits.answer,
            Phase::Idle => limits.idle,
            Phase::Linger => limits.linger,
        };
        self.enter_for(phase, limit);
    }

    /// Begins a phase that may take another time than usual.
    pub fn enter_for(&self, phase: Phase, limit: Duration) {
        let deadline = due(self.records.now.get(), limit);
        let stopping = self.records.is_stopping();
        self.with(|record, counters| {
            record.phase = phase;
            record.deadline = deadline;
            if stopping && phase == Phase::Idle && !record.ran_out {
                record.run_out(counters, true);
            }
        });
    }

    /// Ends the connection: whoever reads or writes it is woken and gets an error.
    pub fn end(&self) {
        self.with(|record, counters| {
            if !record.ran_out {
                record.run_out(counters, true);
            }
        });
    }

    /// Whether the process is stopping, so that this reply should be the connection's last.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.records.is_stopping()
    }

    /// Whether the connection has taken too long, or is gone.
    #[must_use]
    pub fn ran_out(&self) -> bool {
        self.with(|record, _| record.ran_out).unwrap_or(true)
    }

    pub(super) fn records(&self) -> &Rc<Records> {
        &self.records
    }

    /// An error if the time is over.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.ran_out() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Notes who is to be woken when the time is over.
    pub(super) fn watch(&self, context: &Context<'_>) {
        self.with(|record, _| match &mut record.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none @ None => *none = Some(context.waker().clone()),
        });
    }

    /// Removes the record. Called by the connection's drop only.
    pub(super) fn close(&self) {
        let mut records = self.records.records.borrow_mut();
        if records.get(self.key).is_some_and(|record| record.generation == self.generation) {
            records.remove(self.key);
        }
        self.records.counters.open.set(records.len() as u64);
    }

    fn with<R>(&self, act: impl FnOnce(&mut Record, &Counters) -> R) -> Option<R> {
        let mut records = self.records.records.borrow_mut();
        let record = records.get_mut(self.key).filter(|record| record.generation == self.generation)?;
        Some(act(record, &self.records.counters))
    }
}
