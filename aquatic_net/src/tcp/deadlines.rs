//! How long connections may take: one record for each, all of a core in one block of memory, looked through by one
//! timer several times a second.
//!
//! Invariants: a record lives exactly as long as its connection; a [`Pace`] that outlives it does nothing, because the
//! generation tells. A record runs out at most once, and whoever reads or writes the connection is then woken and gets
//! an error. Setting a deadline is a store: no timer, no system call, no look at the clock. Time is counted in looks:
//! a core that was kept from working does not blame its clients for that.
//!
//! When there is no room for another connection, one that waits for its client makes room, the longest wait first. All
//! that wait stand in a line, and those that do not wait any more leave it when they get to its front.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use slab::Slab;

use super::counters::Counters;
use super::line::{Key, Line};

/// Time between two looks at all records; deadlines are met this much late at most, and never early.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Longest time anything may take once the process is stopping, so that the stop itself is in time.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Looks that a client's silence lasts before its connection makes room for another one: somewhat more than the time that
/// a packet takes.
const LEAST_WAIT: Tick = 2;

/// Connections that do not wait any more, and are found at the front of the line, for one that has to make room.
const PASSED_OVER: usize = 64;

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
    /// Upgraded to another protocol, which watches over its connections itself. Has a deadline only when the process
    /// stops.
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

/// Number of sweeps. 32 bits last for 34 years.
type Tick = u32;

#[derive(Debug)]
struct Record {
    deadline: Tick,
    generation: u32,
    phase: Phase,
    /// Another protocol has taken the connection over.
    upgraded: bool,
    ran_out: bool,
    /// Nothing happens before the client has spoken.
    waits: bool,
    /// Since when it is where it is in the line.
    since: Tick,
    place: Option<Key>,
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
    /// Number of records whose connection has been upgraded.
    upgraded: Cell<usize>,
    records: RefCell<Slab<Record>>,
    /// Whether connections make room that wait for a request.
    idle_makes_room: bool,
    /// Keys of records, the longest wait first.
    line: RefCell<Line<usize>>,
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
    pub(super) fn new(limits: Deadlines, idle_makes_room: bool, counters: Counters) -> Self {
        Self {
            limits,
            now: Cell::new(0),
            swept: Cell::new(Duration::ZERO),
            latest: Cell::new(Tick::MAX),
            generation: Cell::new(0),
            stopping: Cell::new(false),
            upgraded: Cell::new(0),
            records: RefCell::default(),
            idle_makes_room,
            line: RefCell::default(),
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

    fn count_open(&self, open: usize) {
        let upgraded = self.upgraded.get();
        self.counters.protocol.open.set((open - upgraded) as u64);
        self.counters.upgraded.open.set(upgraded as u64);
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
        let key = records.vacant_key();
        let mut record = Record {
            deadline,
            generation,
            phase: Phase::Handshake,
            upgraded: false,
            ran_out: false,
            waits: false,
            since: 0,
            place: None,
            waker: None,
        };
        self.join(&mut record, key);
        records.insert(record);
        self.count_open(records.len());
        Pace { records: Rc::clone(self), key, generation }
    }

    /// Begins a wait for the client, at the back of the line.
    fn join(&self, record: &mut Record, key: usize) {
        let now = self.now.get();
        record.waits = true;
        // Once per look is enough, and spares busy connections the way.
        if record.place.is_some() && record.since == now {
            return;
        }
        let mut line = self.line.borrow_mut();
        if let Some(place) = record.place.take() {
            line.leave(place);
        }
        record.place = Some(line.join(key));
        record.since = now;
    }

    /// Ends the connection that has waited longest for its client. Whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let (mut records, mut line) = (self.records.borrow_mut(), self.line.borrow_mut());
        for _ in 0..PASSED_OVER {
            // Whoever closes leaves the line.
            let Some(record) = line.front().and_then(|&key| records.get_mut(key)) else { return false };
            let waits = record.waits && !record.ran_out;
            if waits && self.now.get() < record.since.saturating_add(LEAST_WAIT) {
                return false;
            }
            record.place = None;
            line.leave_front();
            if waits {
                record.run_out(&self.counters, true);
                self.counters.displaced_connections.add(1);
                return true;
            }
        }
        false
    }

    /// Ends what has taken too long, if it is time for a look. `time` is that since the start of the process.
    pub(super) fn sweep(&self, time: Duration) {
        let due = self.swept.get() + SWEEP_INTERVAL;
        let Some(late) = time.checked_sub(due) else { return };
        // Somewhat late every time, as on a busy machine, does not add up; a core that stood still begins anew.
        self.swept.set(if late < SWEEP_INTERVAL { due } else { time });
        let now = self.now.get().saturating_add(1);
        self.now.set(now);
        self.end(|record| record.deadline <= now);
    }

    /// Time until the next look.
    pub(super) fn until_sweep(&self, time: Duration) -> Duration {
        (self.swept.get() + SWEEP_INTERVAL).saturating_sub(time)
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
            let protocol = if self.upgraded { &counters.upgraded } else { &counters.protocol };
            protocol.timeouts[self.phase as usize].add(1);
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
            Phase::Upgraded => Duration::MAX,
        };
        self.enter_for(phase, limit);
    }

    /// Another protocol takes the connection over: it counts as one of that protocol, and its deadlines are that
    /// protocol's business.
    pub fn upgrade(&self) {
        self.enter(Phase::Upgraded);
        let was_upgraded = self.with(|record, _| std::mem::replace(&mut record.upgraded, true));
        if was_upgraded == Some(false) {
            self.records.upgraded.set(self.records.upgraded.get() + 1);
            self.records.count_open(self.records.len());
        }
    }

    /// The service takes over.
    pub(super) fn enter_service(&self) {
        self.enter_for(Phase::Idle, self.records.limits.head);
    }

    /// Begins a phase that may take another time than usual.
    pub fn enter_for(&self, phase: Phase, limit: Duration) {
        let deadline = self.records.due(limit);
        let stopping = self.records.is_stopping();
        let waits = match phase {
            Phase::Handshake => true,
            Phase::Idle | Phase::Head => self.records.idle_makes_room,
            Phase::Answer | Phase::Linger | Phase::Upgraded => false,
        };
        self.with(|record, counters| {
            record.phase = phase;
            record.deadline = deadline;
            record.waits = waits;
            if waits {
                self.records.join(record, self.key);
            }
            if stopping && phase == Phase::Idle && !record.ran_out {
                record.run_out(counters, true);
            }
        });
    }

    /// The client has spoken, in the midst of a phase.
    pub(super) fn stop_waiting(&self) {
        self.with(|record, _| record.waits = false);
    }

    /// It is the client's turn again.
    pub(super) fn wait(&self) {
        self.with(|record, _| self.records.join(record, self.key));
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
            let record = records.remove(self.key);
            if let Some(place) = record.place {
                self.records.line.borrow_mut().leave(place);
            }
            if record.upgraded {
                self.records.upgraded.set(self.records.upgraded.get() - 1);
            }
        }
        self.records.count_open(records.len());
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
    use crate::tcp::counters::Protocols;
    use aquatic_metrics::Registry;

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
        Rc::new(Records::new(
            limits,
            true,
            Counters::new(&Registry::default().core(0), Protocols { first: "test", upgraded: "test" }),
        ))
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
    fn looks_that_are_late_do_not_put_off_deadlines() {
        let records = records();
        records.sweep(seconds(100));
        let pace = records.open();
        pace.enter_for(Phase::Head, seconds(10));
        let (mut time, late) = (seconds(100), Duration::from_millis(60));
        while !pace.ran_out() {
            time += records.until_sweep(time) + late;
            records.sweep(time);
        }
        let took = time - seconds(100);
        assert!(took >= seconds(10) && took <= seconds(10) + SWEEP_INTERVAL + late, "{took:?}");
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
        assert_eq!(records.counters.protocol.open.get(), 1);
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
    #[test]
    fn the_longest_wait_makes_room() {
        let records = records();
        let paces: Vec<_> = (0..6).map(|_| records.open()).collect();
        let ended = || (0..6).filter(|&nth| paces[nth].ran_out()).collect::<Vec<_>>();
        paces[1].enter(Phase::Answer);
        paces[2].enter(Phase::Linger);
        paces[3].enter(Phase::Idle);
        assert!(!records.make_room(), "all have just come");
        pass(&records, SWEEP_INTERVAL);
        paces[0].enter(Phase::Idle);
        paces[3].stop_waiting();
        pass(&records, SWEEP_INTERVAL);
        paces[2].wait();
        assert!(records.make_room() && records.make_room());
        assert_eq!(ended(), [4, 5], "the others do not wait, or have begun later");
        assert!(!records.make_room());
        pass(&records, SWEEP_INTERVAL);
        assert!(records.make_room() && !records.make_room());
        assert_eq!(ended(), [0, 4, 5]);
        pass(&records, SWEEP_INTERVAL);
        assert!(records.make_room() && !records.make_room());
        assert_eq!(ended(), [0, 2, 4, 5]);
        assert_eq!(records.counters.displaced_connections.get(), 4);
        assert!(records.counters.timeouts.iter().all(|timeouts| timeouts.get() == 0));

        paces[1].enter(Phase::Head);
        paces.iter().for_each(Pace::close);
        assert_eq!(records.line.borrow().len(), 0);
    }

    #[test]
    fn whoever_is_asked_again_is_asked_later() {
        let records = records();
        let paces: Vec<_> = (0..500).map(|_| records.open()).collect();
        for turn in 0..5 {
            paces.iter().skip(turn).step_by(7).for_each(|pace| pace.enter(Phase::Idle));
            pass(&records, SWEEP_INTERVAL);
        }
        pass(&records, SWEEP_INTERVAL);
        let waited = |nth: usize| if nth % 7 < 5 { nth % 7 } else { 0 };
        let mut last = 0;
        for _ in 0..500 {
            let before: Vec<_> = paces.iter().map(Pace::ran_out).collect();
            assert!(records.make_room());
            let ended = (0..500).find(|&nth| paces[nth].ran_out() != before[nth]).unwrap();
            assert!(waited(ended) >= last, "{ended}");
            last = waited(ended);
        }
        assert!(!records.make_room() && records.line.borrow().len() == 0);
    }

    #[test]
    fn where_silence_is_usual_only_handshakes_make_room() {
        let counters =
            Counters::new(&Registry::default().core(0), Protocols { first: "test", upgraded: "test" });
        let records = Rc::new(Records::new(Deadlines::default(), false, counters));
        let (idle, shaking) = (records.open(), records.open());
        idle.enter(Phase::Idle);
        pass(&records, seconds(1));
        assert!(records.make_room() && !records.make_room());
        assert!(shaking.ran_out() && !idle.ran_out());
    }
}
