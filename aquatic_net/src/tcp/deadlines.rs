//! Deadlines of connections: one record for each, all of a core in one table, swept by one timer several
//! times a second.
//!
//! Invariants: a record lives exactly as long as its connection; a [`DeadlineHandle`] that outlives it does
//! nothing, because the generation tells. A record expires at most once, and whoever reads or writes the
//! connection is then woken and gets an error. Setting a deadline is a store: no timer, no system call, no
//! read of the clock. Time is counted in sweeps: a core that was kept from working does not blame its clients
//! for that.
//!
//! At the connection limit the connection that has waited longest for its client is evicted. All that wait
//! are queued, and those that no longer wait are removed when they reach the front.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use slab::Slab;

use super::balancer::AddressKey;
use super::counters::Counters;
use super::indexed_queue::{IndexedQueue, QueueKey};

/// Time between two sweeps; deadlines are met this much late at most, and never early.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Longest time anything may take once the process is stopping, so that the stop itself is in time.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Time that upgraded connections have beyond that in which their protocol ends them.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Sweeps that a connection waits for its client before it may be evicted: somewhat more than a packet takes.
const MIN_WAIT: Tick = 2;

/// Connections that no longer wait, at the front of the queue, that are passed over for one that can be
/// evicted.
const MAX_EVICTION_SCAN: usize = 64;

/// Connections in the queue that are compared when an address has too many.
const MAX_ADDRESS_SCAN: usize = 1024;

/// Most bytes taken in by one read.
pub(super) const RECEIVE_SIZE: usize = 16 * 1024;

/// How long a connection may take for each of its [`Phase`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// The PROXY protocol header and the TLS handshake together.
    pub handshake: Duration,
    /// From the preamble of the connection, or of a request, to the end of the request's head.
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
    /// PROXY protocol header or TLS handshake. After it the service finds the connection in [`Phase::Idle`],
    /// but with the time of [`Phase::Head`]: who connects is expected to say something.
    Handshake,
    /// A request has begun to come in.
    Head,
    /// A request is being answered.
    Answer,
    /// Nothing is under way: closed at once when the process stops.
    Idle,
    /// Everything has been said.
    Linger,
    /// Upgraded to another protocol, which watches over its connections itself. Has a deadline only when the
    /// process stops.
    Upgraded,
}

impl Phase {
    /// All phases.
    pub(super) const ALL: [Self; 6] =
        [Self::Handshake, Self::Head, Self::Answer, Self::Idle, Self::Linger, Self::Upgraded];

    /// The value of the label `reason` when the phase took too long.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Answer => "answer",
            Self::Idle => "idle",
            Self::Linger => "linger",
            Self::Upgraded => "upgraded",
        }
    }
}

/// Time that a process which stops gives new connections to be read from for the first time.
const FIRST_READ: Duration = Duration::from_millis(250);

/// Number of sweeps. 32 bits last for 34 years.
type Tick = u32;

#[derive(Debug)]
struct Record {
    deadline: Tick,
    generation: u32,
    phase: Phase,
    /// Another protocol has taken the connection over.
    upgraded: bool,
    expired: bool,
    /// The service has it, and has not received anything. What the client has sent may wait in the socket.
    fresh: bool,
    /// Nothing happens before the client has sent something, or taken something of a reply.
    awaiting_client: bool,
    /// When it was put where it is in the queue.
    queued_at: Tick,
    queue_key: Option<QueueKey>,
    /// The address the connection counts for; `None` if it is exempt.
    address: Option<AddressKey>,
    waker: Option<Waker>,
}

/// The deadlines of one core.
pub(super) struct DeadlineTable {
    limits: Cell<Deadlines>,
    now: Cell<Tick>,
    swept: Cell<Duration>,
    /// No deadline is later than this.
    latest: Cell<Tick>,
    generation: Cell<u32>,
    stopping: Cell<bool>,
    /// Each reply is the last one of its connection.
    leaving: Cell<bool>,
    /// Number of deadlines whose connection has been upgraded.
    upgraded: Cell<usize>,
    table: RefCell<Slab<Record>>,
    /// Whether connections that wait for a request, or for room for a reply, are evicted when there are too
    /// many.
    evict_idle_when_full: bool,
    /// Keys of records, the longest wait first.
    waiting: RefCell<IndexedQueue<usize>>,
    /// The address that was last found to have no connection that can be evicted, and when.
    fully_busy: Cell<Option<(AddressKey, Tick)>>,
    /// Where bytes go until it is known how many there are; borrowed within one poll only.
    pub(super) scratch: RefCell<Box<[u8]>>,
    pub(super) counters: Counters,
}

impl fmt::Debug for DeadlineTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineTable").field("open", &self.len()).finish_non_exhaustive()
    }
}

/// The tick at which a deadline this far away is over, for one that begins some time after `now`.
fn due(now: Tick, limit: Duration) -> Tick {
    let ticks = limit.as_millis().div_ceil(SWEEP_INTERVAL.as_millis());
    now.saturating_add(Tick::try_from(ticks).unwrap_or(Tick::MAX)).saturating_add(1)
}

impl DeadlineTable {
    pub(super) fn new(limits: Deadlines, evict_idle_when_full: bool, counters: Counters) -> Self {
        Self {
            limits: Cell::new(limits),
            now: Cell::new(0),
            swept: Cell::new(Duration::ZERO),
            latest: Cell::new(Tick::MAX),
            generation: Cell::new(0),
            stopping: Cell::new(false),
            leaving: Cell::new(false),
            upgraded: Cell::new(0),
            table: RefCell::default(),
            evict_idle_when_full,
            waiting: RefCell::default(),
            fully_busy: Cell::new(None),
            scratch: RefCell::new(vec![0; RECEIVE_SIZE].into_boxed_slice()),
            counters,
        }
    }

    /// Replaces the limits; they apply from the next phase of each connection.
    pub(super) fn set_limits(&self, limits: Deadlines) {
        self.limits.set(limits);
    }

    pub(super) fn len(&self) -> usize {
        self.table.borrow().len()
    }

    fn count_open(&self, open: usize) {
        let upgraded = self.upgraded.get();
        self.counters.protocol.open.set((open - upgraded) as u64);
        self.counters.upgraded.open.set(upgraded as u64);
        self.counters.in_use.set(open as u64);
    }

    fn due(&self, limit: Duration) -> Tick {
        due(self.now.get(), limit).min(self.latest.get())
    }

    /// A record for a new connection.
    pub(super) fn open(self: &Rc<Self>) -> DeadlineHandle {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let deadline = self.due(self.limits.get().handshake);
        let mut table = self.table.borrow_mut();
        let key = table.vacant_key();
        let mut record = Record {
            deadline,
            generation,
            phase: Phase::Handshake,
            upgraded: false,
            expired: false,
            fresh: false,
            awaiting_client: false,
            queued_at: 0,
            queue_key: None,
            address: None,
            waker: None,
        };
        self.queue(&mut record, key);
        table.insert(record);
        self.count_open(table.len());
        DeadlineHandle { deadlines: Rc::clone(self), key, generation }
    }

    /// Begins a wait for the client, at the back of the queue.
    fn queue(&self, record: &mut Record, key: usize) {
        let now = self.now.get();
        record.awaiting_client = true;
        // Once per sweep is enough, and cheap for busy connections.
        if record.queue_key.is_some() && record.queued_at == now {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        if let Some(queue_key) = record.queue_key.take() {
            waiting.remove(queue_key);
        }
        record.queue_key = Some(waiting.push_back(key));
        record.queued_at = now;
    }

    /// Ends the connection that has waited longest for its client. Returns whether there was one.
    pub(super) fn evict_oldest_waiter(&self) -> bool {
        let (mut table, mut waiting) = (self.table.borrow_mut(), self.waiting.borrow_mut());
        for _ in 0..MAX_EVICTION_SCAN {
            // A connection that closes is removed from the queue.
            let Some(record) = waiting.front().and_then(|&key| table.get_mut(key)) else { return false };
            let waits = record.is_waiting();
            if waits && self.now.get() < record.queued_at.saturating_add(MIN_WAIT) {
                return false;
            }
            record.queue_key = None;
            waiting.pop_front();
            if waits {
                record.expire(&self.counters, true);
                self.counters.evicted_connections.add(1);
                return true;
            }
        }
        false
    }

    /// Ends the connection of this address that has waited longest for its client, among the first
    /// [`MAX_ADDRESS_SCAN`] connections that wait. Returns whether there was one.
    pub(super) fn evict_oldest_waiter_of(&self, address: AddressKey) -> bool {
        // Until the next sweep no connection becomes one that can be evicted, so an address that floods has
        // the queue searched once a sweep.
        let failed = Some((address, self.now.get()));
        if self.fully_busy.get() == failed {
            return false;
        }
        let (mut table, mut waiting) = (self.table.borrow_mut(), self.waiting.borrow_mut());
        let is_of_address = |key: &&usize| {
            table.get(**key).is_some_and(|record| {
                record.address == Some(address)
                    && record.is_waiting()
                    && self.now.get() >= record.queued_at.saturating_add(MIN_WAIT)
            })
        };
        let found = waiting.iter().take(MAX_ADDRESS_SCAN).find(is_of_address).copied();
        let Some(record) = found.and_then(|key| table.get_mut(key)) else {
            self.fully_busy.set(failed);
            return false;
        };
        if let Some(queue_key) = record.queue_key.take() {
            waiting.remove(queue_key);
        }
        record.expire(&self.counters, true);
        self.counters.evicted_for_address.add(1);
        true
    }

    /// Ends what has taken too long, if it is time for a look. `time` is that since the start of the process.
    pub(super) fn sweep(&self, time: Duration) {
        let due = self.swept.get() + SWEEP_INTERVAL;
        let Some(late) = time.checked_sub(due) else { return };
        // Somewhat late every time, as on a busy machine, does not add up; a core that stood still begins
        // anew.
        self.swept.set(if late < SWEEP_INTERVAL { due } else { time });
        let now = self.now.get().saturating_add(1);
        self.now.set(now);
        self.end(|record| record.deadline <= now);
    }

    /// Time until the next look.
    pub(super) fn until_sweep(&self, time: Duration) -> Duration {
        (self.swept.get() + SWEEP_INTERVAL).saturating_sub(time)
    }

    /// Ends what is idle now; the others end with what they are about.
    pub(super) fn drain(&self) {
        self.stopping.set(true);
        self.end_idle();
    }

    /// Ends what is idle, but for new connections, which have a moment for what waits in their sockets.
    fn end_idle(&self) {
        let soon = self.due(FIRST_READ);
        for (_, record) in self.table.borrow_mut().iter_mut().filter(|(_, record)| record.fresh) {
            record.deadline = record.deadline.min(soon);
        }
        self.end(|record| record.phase == Phase::Idle && !record.fresh);
    }

    /// Ends what is idle now and whatever becomes idle later; everything else has little time left.
    pub(super) fn stop(&self) {
        let latest = due(self.now.get(), STOP_LIMIT);
        self.latest.set(latest);
        self.stopping.set(true);
        for (_, record) in self.table.borrow_mut().iter_mut() {
            record.deadline = record.deadline.min(latest);
        }
        self.end_idle();
    }

    /// Ends all connections within this time: those that wait for a request at random moments, the others
    /// after their next reply. Those that have been upgraded are left to their protocol, and have a second
    /// more. `random` returns numbers from 0 to 1.
    pub(super) fn end_over(&self, time: Duration, mut random: impl FnMut() -> f64) {
        self.leaving.set(true);
        self.latest.set(due(self.now.get(), time + DRAIN_GRACE));
        for (_, record) in self.table.borrow_mut().iter_mut() {
            let own = match record.phase {
                Phase::Idle => due(self.now.get(), time.mul_f64(random())),
                Phase::Handshake | Phase::Head | Phase::Answer | Phase::Linger | Phase::Upgraded => {
                    self.latest.get()
                }
            };
            record.deadline = record.deadline.min(own);
        }
    }

    fn end(&self, which: impl Fn(&Record) -> bool) {
        // Waking only notes the task in the executor's queue; nothing runs before this returns.
        for (_, record) in self.table.borrow_mut().iter_mut() {
            if !record.expired && which(record) {
                record.expire(&self.counters, self.stopping.get() || self.leaving.get());
            }
        }
    }
}

impl Record {
    fn is_waiting(&self) -> bool {
        self.awaiting_client && !self.expired
    }

    fn expire(&mut self, counters: &Counters, stopping: bool) {
        self.expired = true;
        if !stopping {
            let protocol = if self.upgraded { &counters.upgraded } else { &counters.protocol };
            protocol.timeouts[self.phase as usize].add(1);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A connection's hold on its deadline. Clones are for whoever drives the connection through another type,
/// such as a WebSocket; they do nothing once the connection is gone.
#[derive(Clone)]
pub struct DeadlineHandle {
    deadlines: Rc<DeadlineTable>,
    key: usize,
    generation: u32,
}

impl fmt::Debug for DeadlineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineHandle").field("key", &self.key).finish_non_exhaustive()
    }
}

impl DeadlineHandle {
    /// Begins a phase, with the time it has. [`Phase::Idle`] ends the connection at once if the process is
    /// stopping.
    pub fn enter(&self, phase: Phase) {
        let limits = self.deadlines.limits.get();
        let limit = match phase {
            Phase::Handshake => limits.handshake,
            Phase::Head => limits.head,
            Phase::Answer => limits.answer,
            Phase::Idle => limits.idle,
            Phase::Linger => limits.linger,
            Phase::Upgraded => Duration::MAX,
        };
        self.enter_for(phase, limit);
    }

    /// Another protocol takes the connection over: it counts as one of that protocol, and its deadlines are
    /// that protocol's business.
    pub fn upgrade(&self) {
        self.enter(Phase::Upgraded);
        let was_upgraded = self.with(|record, _| std::mem::replace(&mut record.upgraded, true));
        if was_upgraded == Some(false) {
            self.deadlines.upgraded.set(self.deadlines.upgraded.get() + 1);
            self.deadlines.count_open(self.deadlines.len());
        }
    }

    /// The service takes over.
    pub(super) fn enter_service(&self) {
        let limit = if self.deadlines.stopping.get() { FIRST_READ } else { self.deadlines.limits.get().head };
        self.begin(Phase::Idle, limit, true);
    }

    /// Begins a phase that may take another time than usual.
    pub fn enter_for(&self, phase: Phase, limit: Duration) {
        self.begin(phase, limit, false);
    }

    fn begin(&self, phase: Phase, limit: Duration, fresh: bool) {
        let deadline = self.deadlines.due(limit);
        let stopping = self.deadlines.stopping.get();
        let waits = match phase {
            // Nothing is owed to one that lingers.
            Phase::Handshake | Phase::Linger => true,
            Phase::Idle | Phase::Head => self.deadlines.evict_idle_when_full,
            Phase::Answer | Phase::Upgraded => false,
        };
        self.with(|record, counters| {
            record.phase = phase;
            record.fresh = fresh;
            record.deadline = deadline;
            record.awaiting_client = waits;
            if waits {
                self.deadlines.queue(record, self.key);
            } else if phase != Phase::Answer
                && let Some(queue_key) = record.queue_key.take()
            {
                // It does not wait for long, perhaps never, so it must not be in the way of those that do.
                self.deadlines.waiting.borrow_mut().remove(queue_key);
            }
            if stopping && phase == Phase::Idle && !fresh && !record.expired {
                record.expire(counters, true);
            }
        });
    }

    /// Notes the address the connection counts for.
    pub(super) fn set_address(&self, address: AddressKey) {
        self.with(|record, _| record.address = Some(address));
    }

    /// The client has sent or taken something, in the midst of a phase.
    pub(super) fn client_has_acted(&self) {
        self.with(|record, _| record.awaiting_client = false);
    }

    /// The client has to take something of a reply before the rest can be sent. Returns whether it is waited
    /// for.
    pub(super) fn wait_for_room(&self) -> bool {
        let waits = self.with(|record, _| {
            let waits = record.phase == Phase::Answer && self.deadlines.evict_idle_when_full;
            if waits {
                self.deadlines.queue(record, self.key);
            }
            waits
        });
        waits.unwrap_or(false)
    }

    /// The client has to send something again.
    pub(super) fn wait(&self) {
        self.with(|record, _| self.deadlines.queue(record, self.key));
    }

    /// Ends the connection: whoever reads or writes it is woken and gets an error.
    pub fn end(&self) {
        self.with(|record, counters| {
            if !record.expired {
                record.expire(counters, true);
            }
        });
    }

    /// Ends the connection because another one's handshake needs the memory.
    pub(super) fn evict_handshake(&self) {
        self.end();
        self.deadlines.counters.evicted_handshakes.add(1);
    }

    /// Whether the process is stopping, or another one serves, so that this reply should be the connection's
    /// last.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.deadlines.stopping.get() || self.deadlines.leaving.get()
    }

    /// Whether the connection has taken too long, or is gone.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.with(|record, _| record.expired).unwrap_or(true)
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.with(|record, _| record.phase == Phase::Idle).unwrap_or(false)
    }

    pub(super) fn deadlines(&self) -> &Rc<DeadlineTable> {
        &self.deadlines
    }

    /// An error if the time is over.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.expired() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
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
        let mut table = self.deadlines.table.borrow_mut();
        if table.get(self.key).is_some_and(|record| record.generation == self.generation) {
            let record = table.remove(self.key);
            if let Some(queue_key) = record.queue_key {
                self.deadlines.waiting.borrow_mut().remove(queue_key);
            }
            if record.upgraded {
                self.deadlines.upgraded.set(self.deadlines.upgraded.get() - 1);
            }
        }
        self.deadlines.count_open(table.len());
    }

    fn with<R>(&self, act: impl FnOnce(&mut Record, &Counters) -> R) -> Option<R> {
        let mut table = self.deadlines.table.borrow_mut();
        let record = table.get_mut(self.key).filter(|record| record.generation == self.generation)?;
        Some(act(record, &self.deadlines.counters))
    }
}

#[cfg(test)]
mod tests;
