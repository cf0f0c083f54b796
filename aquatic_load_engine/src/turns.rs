//! How a thread passes its time: turn by turn while there is something to do, waiting for events while there is not.

use crate::clock::{Clock, MILLISECOND, Nanos, seconds};
use crate::events::Events;
use crate::tally::{Counted, Tally};

/// A thread that had nothing to do for this long stops turning and waits.
pub const PATIENCE: Nanos = MILLISECOND / 20;
/// Longest wait, as something else may become due.
const LONGEST_WAIT: Nanos = MILLISECOND;
/// Longest wait while nothing can become due.
const LONGEST_REST: Nanos = 10 * MILLISECOND;

/// The turns of a thread in a phase.
#[derive(Debug)]
pub struct Turns {
    clock: Clock,
    now: Nanos,
    busy_at: Nanos,
}

impl Turns {
    /// The first turn.
    #[must_use]
    pub fn begin(clock: Clock) -> Self {
        let now = clock.now();
        Self { clock, now, busy_at: now }
    }

    /// When the turn began.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Ends a turn in which so much was done, and lets events come, waiting for them if it has been quiet. Who is eager
    /// does not wait: in open loop, that would delay what is due next.
    pub fn end<K: Counted, V: Counted, N: Counted>(
        &mut self,
        (done, eager): (usize, bool),
        events: &mut Events,
        tally: &mut Tally<K, V, N>,
    ) {
        let start = self.now;
        let waits = done == 0 && !eager && start - self.busy_at >= PATIENCE;
        let happened = events.wait(if waits { LONGEST_WAIT } else { 0 });
        self.now = self.clock.now();
        if done + happened > 0 {
            self.busy_at = self.now;
        }
        if done == 0 && (waits || happened == 0) {
            tally.idle(start, self.now);
        }
    }
}

/// A time in which connections are kept open without being used.
#[derive(Debug)]
pub struct Hold {
    clock: Clock,
    until: Nanos,
}

impl Hold {
    /// Begins, and says so in the log.
    #[must_use]
    pub fn begin(clock: Clock, connections: u64, time: u32) -> Self {
        log::info!("holding {connections} connections for {time} s");
        Self { clock, until: clock.now() + seconds(time) }
    }

    /// Lets events come; returns false once the time is over.
    pub fn goes_on(&self, events: &mut Events) -> bool {
        let goes_on = self.clock.now() < self.until;
        if goes_on {
            events.wait(LONGEST_REST);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::events::Token;

    crate::counted! {
        enum Thing {
            It = "it",
        }
    }

    fn idle_share(done: usize, eager: bool, turns: u32, events: &mut Events) -> (Nanos, f64) {
        let clock = Clock::start();
        let mut all = Turns::begin(clock);
        let mut tally = Tally::<Thing, Thing, Thing>::new(0, Nanos::MAX);
        tally.note(Thing::It);
        (0..turns).for_each(|_| all.end((done, eager), events, &mut tally));
        tally.end_at(all.now());
        (all.now(), tally.report("test", 1).idle_share)
    }

    #[test]
    fn who_has_nothing_to_do_waits_and_is_idle() {
        let mut events = Events::new().unwrap();
        let (time, idle) = idle_share(0, false, 100, &mut events);
        assert!(time > 10 * MILLISECOND && idle > 0.5, "{time} {idle}");
        let (_, idle) = idle_share(0, true, 10_000, &mut events);
        assert!(idle > 0.5, "{idle}");
        let (_, idle) = idle_share(1, false, 100, &mut events);
        assert!(idle < 1e-9, "{idle}");
    }

    #[test]
    fn events_end_a_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        let mut events = Events::new().unwrap();
        events.watch(&receiver, Token { place: 1, generation: 2 }).unwrap();
        sender.write_all(b"hello").unwrap();
        let hold = Hold::begin(Clock::start(), 1, 3600);
        while events.take().is_none() {
            assert!(hold.goes_on(&mut events));
        }
        assert!(!Hold::begin(Clock::start(), 1, 0).goes_on(&mut events));
    }
}
