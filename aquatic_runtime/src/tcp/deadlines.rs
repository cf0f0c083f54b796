//! How long connections may take: one record for each, all of a core in one block of memory, looked through by one
//! timer several times a second.
//!
//! Invariants: a record lives exactly as long as its connection; a [`Pace`] that outlives it does nothing, because the
//! generation tells. A record runs out at most once, and whoever reads or writes the connection is then woken and gets
//! an error. Setting a deadline is a store: no timer, no system call, no look at the clock. Time is counted in looks:
//! a core that was kept from working does not blame its clients for that.

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

/// Longest time anything may take once the process is stopping, so that the stop itself is in time.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Most bytes taken in by one read.
const RECEIVE_AT_ONCE: usize = 16 * 1024;

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
    /// PROXY protocol header or TLS handshake. After it the service finds the connection in [`Phase::Idle`], but with
    /// the time of [`Phase::Head`]: who connects is expected to say something.
    Handshake,
    /// A request has begun to come in.
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

/// Number of sweeps. 32 bits last for 34 years.
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
    swept: Cell<Duration>,
    /// No deadline is later than this.
    latest: Cell<Tick>,
    generation: Cell<u32>,
    stopping: Cell<bool>,
    records: RefCell<Slab<Record>>,
    /// Where bytes go until it is known how many there are; borrowed within one poll only.
    pub(super) scratch: RefCell<Box<[u8]>>,
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
            swept: Cell::new(Duration::ZERO),
            latest: Cell::new(Tick::MAX),
            generation: Cell::new(0),
            stopping: Cell::new(false),
            records: RefCell::default(),
            scratch: RefCell::new(vec![0; RECEIVE_AT_ONCE].into_boxed_slice()),
            counters,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.borrow().len()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn due(&self, limit: Duration) -> Tick {
        due(self.now.get(), limit).min(self.latest.get())
    }

    /// A record for a new connection.
    pub(super) fn open(self: &Rc<Self>) -> Pace {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let deadline = self.due(self.limits.handshake);
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

    /// Ends what has taken too long, if it is time for a look. `time` is that since the start of the process.
    pub(super) fn sweep(&self, time: Duration) {
        if time < self.swept.get() + SWEEP_INTERVAL {
            return;
        }
        self.swept.set(time);
        let now = self.now.get().saturating_add(1);
        self.now.set(now);
        self.end(|record| record.deadline <= now);
    }

    /// Ends what is idle now and whatever becomes idle later; everything else has little time left.
    pub(super) fn stop(&self) {
        let latest = due(self.now.get(), STOP_LIMIT);
        self.latest.set(latest);
        self.stopping.set(true);
        for (_, record) in self.records.borrow_mut().iter_mut() {
            record.deadline = record.deadline.min(latest);
        }
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

    /// The service takes over.
    pub(super) fn enter_service(&self) {
        self.enter_for(Phase::Idle, self.records.limits.head);
    }

    /// Begins a phase that may take another time than usual.
    pub fn enter_for(&self, phase: Phase, limit: Duration) {
        let deadline = self.records.due(limit);
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

    /// Ends the connection because another one's handshake needs the room.
    pub(super) fn make_room(&self) {
        self.end();
        self.records.counters.displaced_handshakes.add(1);
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

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.with(|record, _| record.phase == Phase::Idle).unwrap_or(false)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::metrics::Registry;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn records() -> Rc<Records> {
        let limits =
            Deadlines { idle: Duration::from_secs(10), head: Duration::from_secs(1), ..Deadlines::default() };
        Rc::new(Records::new(limits, Counters::new(&Registry::default().core(0), "test")))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Lets time pass in the usual steps.
    fn pass(records: &Records, time: Duration) {
        let end = records.swept.get() + time;
        while records.swept.get() + SWEEP_INTERVAL <= end {
            records.sweep(records.swept.get() + SWEEP_INTERVAL);
        }
    }

    #[test]
    fn a_deadline_is_met_late_by_a_sweep_at_most_and_never_early() {
        let records = records();
        records.sweep(seconds(100));
        for (limit, sweeps) in [(1000, 5), (999, 5), (1, 2), (1001, 6), (250, 2)] {
            let pace = records.open();
            pace.enter_for(Phase::Head, Duration::from_millis(limit));
            // The phase may have begun immediately before a sweep, so the first one does not count.
            pass(&records, SWEEP_INTERVAL * (sweeps - 1));
            assert!(!pace.ran_out(), "{limit}");
            pass(&records, SWEEP_INTERVAL);
            assert!(pace.ran_out(), "{limit}");
            pace.close();
        }
    }

    #[test]
    fn a_core_that_stood_still_does_not_end_connections() {
        let records = records();
        let pace = records.open();
        pace.enter(Phase::Head);
        records.sweep(seconds(500));
        for at in 0..100 {
            records.sweep(seconds(500) + Duration::from_millis(at));
        }
        assert!(!pace.ran_out());
    }

    #[test]
    fn running_out_wakes_once_and_is_counted_by_phase() {
        let records = records();
        let (pace, woken) = (records.open(), Arc::new(Woken::default()));
        pace.enter(Phase::Head);
        pace.watch(&Context::from_waker(&Waker::from(Arc::clone(&woken))));
        pace.check().unwrap();
        pass(&records, seconds(10));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(pace.check().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(records.counters.timeouts[Phase::Head as usize].get(), 1);
        pace.enter(Phase::Answer);
        assert!(pace.ran_out(), "what is over stays over");
    }

    #[test]
    fn a_hold_that_outlives_its_connection_does_nothing() {
        let records = records();
        let first = records.open();
        let outliving = first.clone();
        first.close();
        assert!(outliving.ran_out() && records.len() == 0);
        let second = records.open();
        outliving.end();
        outliving.close();
        assert!(!second.ran_out() && records.len() == 1);
        assert_eq!(records.counters.open.get(), 1);
    }

    #[test]
    fn a_stop_ends_what_is_idle_and_hurries_the_rest() {
        let records = records();
        let (idle, busy) = (records.open(), records.open());
        idle.enter(Phase::Idle);
        busy.enter(Phase::Answer);
        pass(&records, seconds(1));
        records.stop();
        assert!(idle.ran_out() && !busy.ran_out() && busy.is_stopping());
        pass(&records, seconds(2));
        assert!(!busy.ran_out());
        busy.enter(Phase::Answer);
        pass(&records, seconds(2));
        assert!(busy.ran_out(), "a new phase gives no more time");
        let late = records.open();
        late.enter(Phase::Idle);
        assert!(late.ran_out());
        assert!(records.counters.timeouts[Phase::Idle as usize].get() == 0, "a stop is no timeout");
    }
}
