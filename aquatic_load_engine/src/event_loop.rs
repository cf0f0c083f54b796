//! Event loop of a thread: polls while there is work, and waits for events after a quiet time, in open loop
//! until shortly before the next request is due.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::clock::{Clock, MILLISECOND, Nanos, seconds};
use crate::events::Events;
use crate::run_phase::LiveCounters;
use crate::tally::{Counted, Tally};

/// Time without work after which a thread waits instead of polling.
pub const BUSY_POLL_TIME: Nanos = MILLISECOND / 20;
/// Maximum wait while requests may become due.
const MAX_WAIT: Nanos = MILLISECOND;
/// Maximum wait while connections are held idle.
const MAX_HOLD_WAIT: Nanos = 10 * MILLISECOND;

/// Time before a request is due at which a thread stops waiting, so that a late wake-up does not delay the
/// request. With the timer slack of [`precise_timers`], threads wake up 5 to 20 us late on an idle processor.
const WAKE_UP_TIME: Nanos = 50_000;

/// Makes timeouts of the calling thread end within a microsecond instead of the default of 50 (prctl(2),
/// PR_SET_TIMERSLACK).
pub(crate) fn precise_timers() {
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        log::debug!("cannot set the timer slack: {error}");
    }
}

/// Maximum wait after `now` of a thread that has had nothing to do since `busy_at`, if the next request is
/// sent at `due`. Zero to poll.
#[must_use]
pub fn longest_wait(now: Nanos, busy_at: Nanos, due: Option<Nanos>) -> Nanos {
    if now.saturating_sub(busy_at) < BUSY_POLL_TIME {
        return 0;
    }
    due.map_or(MAX_WAIT, |due| due.saturating_sub(now + WAKE_UP_TIME).min(MAX_WAIT))
}

/// Event loop of a thread in one phase.
#[derive(Debug)]
pub struct EventLoop {
    clock: Clock,
    now: Nanos,
    busy_at: Nanos,
}

impl EventLoop {
    /// Starts the first iteration.
    #[must_use]
    pub fn start(clock: Clock) -> Self {
        let now = clock.now();
        Self { clock, now, busy_at: now }
    }

    /// Time at which the current iteration started.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Ends an iteration that did `done` units of work and collects events, waiting for them after a quiet
    /// time. In open loop, `due` is the time at which the next request is sent.
    pub fn wait<K: Counted, V: Counted, N: Counted>(
        &mut self,
        (done, due): (usize, Option<Nanos>),
        events: &mut Events,
        tally: &mut Tally<K, V, N>,
    ) {
        let start = self.now;
        let wait = if done == 0 { longest_wait(start, self.busy_at, due) } else { 0 };
        let happened = events.wait(wait);
        self.now = self.clock.now();
        if done + happened > 0 {
            self.busy_at = self.now;
        }
        if done == 0 && (wait > 0 || happened == 0) {
            tally.idle(start, self.now);
        }
    }
}

/// Period in which connections are kept open and idle.
#[derive(Debug)]
pub struct IdleHold {
    clock: Clock,
    until: Nanos,
    live: Arc<LiveCounters>,
}

impl IdleHold {
    /// Starts the period and logs it.
    #[must_use]
    pub fn start(clock: Clock, (connections, time): (u64, u32), live: Arc<LiveCounters>) -> Self {
        log::info!("holding {connections} connections for {time} s");
        Self { clock, until: clock.now() + seconds(time), live }
    }

    /// Collects events. Returns false when the period is over or the test has been interrupted.
    pub fn wait(&self, events: &mut Events) -> bool {
        let is_running = self.clock.now() < self.until && !self.live.is_interrupted();
        if is_running {
            events.wait(MAX_HOLD_WAIT);
        }
        is_running
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::events::Token;
    use crate::interrupt::Interrupt;

    crate::counted! {
        enum Thing {
            It = "it",
        }
    }

    fn idle_share(done: usize, due: Option<Nanos>, iterations: u32, events: &mut Events) -> (Nanos, f64) {
        let clock = Clock::start();
        let mut event_loop = EventLoop::start(clock);
        let mut tally = Tally::<Thing, Thing, Thing>::new(0, Nanos::MAX);
        tally.note(Thing::It);
        (0..iterations).for_each(|_| event_loop.wait((done, due), events, &mut tally));
        tally.end_at(event_loop.now());
        (event_loop.now(), tally.report("test", 1).idle_share)
    }

    #[test]
    fn a_thread_without_work_waits_and_is_idle() {
        let mut events = Events::new().unwrap();
        let (time, idle) = idle_share(0, None, 100, &mut events);
        assert!(time > 10 * MILLISECOND && idle > 0.5, "{time} {idle}");
        let (_, idle) = idle_share(0, Some(0), 10_000, &mut events);
        assert!(idle > 0.5, "{idle}");
        let (_, idle) = idle_share(1, None, 100, &mut events);
        assert!(idle < 1e-9, "{idle}");
    }

    #[test]
    fn a_wait_ends_before_the_next_request() {
        let quiet = MILLISECOND;
        assert_eq!(longest_wait(quiet, quiet - BUSY_POLL_TIME + 1, None), 0);
        assert_eq!(longest_wait(quiet, 0, None), MAX_WAIT);
        for (after, wait) in [(0, 0), (WAKE_UP_TIME, 0), (WAKE_UP_TIME + 7, 7), (MAX_WAIT * 2, MAX_WAIT)] {
            assert_eq!(longest_wait(quiet, 0, Some(quiet + after)), wait, "{after}");
        }
        // A request that is overdue because no connection can take it.
        assert_eq!(longest_wait(quiet, 0, Some(0)), 0);
    }

    #[test]
    fn events_end_a_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        let mut events = Events::new().unwrap();
        events.watch(&receiver, Token { slot: 1, generation: 2 }).unwrap();
        sender.write_all(b"hello").unwrap();
        let interrupt = Interrupt::default();
        let live = Arc::new(LiveCounters::new(&interrupt));
        let hold = IdleHold::start(Clock::start(), (1, 3600), Arc::clone(&live));
        while events.take().is_none() {
            assert!(hold.wait(&mut events));
        }
        assert!(!IdleHold::start(Clock::start(), (1, 0), live).wait(&mut events));
        interrupt.set();
        assert!(!hold.wait(&mut events));
    }
}
