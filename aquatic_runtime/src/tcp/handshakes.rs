//! How many TLS handshakes a core has at the same time. One takes some 20 KiB and, compared with everything else the
//! tracker does, a lot of time.
//!
//! Invariants: a slot is given back by its drop, and goes to whoever has waited longest. Who stops waiting leaves
//! nothing behind, a slot that has just been granted included.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::deadlines::Pace;

/// How many may wait for each that may be under way.
pub(super) const WAITING_PER_SLOT: usize = 4;

/// Handshakes that may begin within a [`TURN`]. Their computing, 0.1 to 1 ms each depending on the kind of key, is the
/// longest that other connections wait for their turn when many clients come at once. More than the processor manages.
const BEGUN_PER_TURN: usize = 8;

/// The time after which others have had their turn.
const TURN: Duration = Duration::from_millis(1);

#[derive(Debug)]
enum Waiter {
    Waiting(Option<Waker>),
    Granted,
}

/// A core's slots.
#[derive(Debug)]
pub(super) struct Handshakes {
    limit: usize,
    turn: Cell<(Duration, usize)>,
    taken: Cell<usize>,
    waiters: RefCell<Slab<Waiter>>,
    order: RefCell<VecDeque<usize>>,
}

impl Handshakes {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self {
            limit,
            turn: Cell::default(),
            taken: Cell::new(0),
            waiters: RefCell::default(),
            order: RefCell::default(),
        }
    }

    /// Whether the computing of one more handshake may begin now, or others should get their turn before.
    pub(super) fn may_compute(&self, now: Duration) -> bool {
        let (mut begin, mut begun) = self.turn.get();
        if now >= begin + TURN {
            (begin, begun) = (now, 0);
        }
        let may = begun < BEGUN_PER_TURN;
        self.turn.set((begin, begun + usize::from(may)));
        may
    }

    /// Handshakes under way and waiting.
    pub(super) fn len(&self) -> usize {
        self.taken.get() + self.order.borrow().len()
    }

    /// Waits for a slot; `None` if too many are waiting.
    pub(super) fn enter(self: &Rc<Self>, pace: Pace) -> Option<Enter> {
        let place = if self.taken.get() < self.limit {
            self.taken.set(self.taken.get() + 1);
            self.waiters.borrow_mut().insert(Waiter::Granted)
        } else if self.order.borrow().len() < self.limit * WAITING_PER_SLOT {
            let place = self.waiters.borrow_mut().insert(Waiter::Waiting(None));
            self.order.borrow_mut().push_back(place);
            place
        } else {
            return None;
        };
        Some(Enter { handshakes: Rc::clone(self), pace, place: Some(place) })
    }

    fn give_back(&self) {
        match self.order.borrow_mut().pop_front() {
            Some(next) => {
                let mut waiters = self.waiters.borrow_mut();
                if let Some(waiter) = waiters.get_mut(next)
                    && let Waiter::Waiting(Some(waker)) = std::mem::replace(waiter, Waiter::Granted)
                {
                    waker.wake();
                }
            }
            None => self.taken.set(self.taken.get() - 1),
        }
    }
}

/// Completes with a slot, or with an error when the connection's time is over.
#[derive(Debug)]
pub(super) struct Enter {
    handshakes: Rc<Handshakes>,
    pace: Pace,
    place: Option<usize>,
}

impl Future for Enter {
    type Output = io::Result<Slot>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.pace.check()?;
        let Some(place) = self.place else { return Poll::Pending };
        let handshakes = Rc::clone(&self.handshakes);
        let mut waiters = handshakes.waiters.borrow_mut();
        match waiters.get_mut(place) {
            Some(Waiter::Waiting(waker)) => {
                *waker = Some(context.waker().clone());
                self.pace.watch(context);
                Poll::Pending
            }
            Some(Waiter::Granted) | None => {
                waiters.remove(place);
                self.place = None;
                drop(waiters);
                Poll::Ready(Ok(Slot(handshakes)))
            }
        }
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let waiter = self.handshakes.waiters.borrow_mut().try_remove(place);
        match waiter {
            Some(Waiter::Granted) => self.handshakes.give_back(),
            Some(Waiter::Waiting(_)) => {
                self.handshakes.order.borrow_mut().retain(|&waiting| waiting != place)
            }
            None => {}
        }
    }
}

/// The right to a handshake.
#[derive(Debug)]
pub(super) struct Slot(Rc<Handshakes>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::Counters;
    use super::super::deadlines::{Deadlines, Records};
    use super::*;
    use crate::metrics::Registry;

    fn poll(enter: &mut Enter) -> Poll<io::Result<Slot>> {
        Pin::new(enter).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn slot(enter: &mut Enter) -> Slot {
        let Poll::Ready(Ok(slot)) = poll(enter) else { panic!("no slot") };
        slot
    }

    fn records() -> Rc<Records> {
        Rc::new(Records::new(Deadlines::default(), Counters::new(&Registry::default().core(0), "test")))
    }

    #[test]
    fn slots_go_to_whoever_has_waited_longest() {
        let (records, handshakes) = (records(), Rc::new(Handshakes::new(1)));
        let enter = || handshakes.enter(records.open()).unwrap();
        let first = slot(&mut enter());
        let mut waiting: Vec<_> = (0..4).map(|_| enter()).collect();
        assert!(handshakes.enter(records.open()).is_none(), "too many are waiting");
        assert!(waiting.iter_mut().all(|enter| poll(enter).is_pending()));
        assert_eq!(handshakes.len(), 5);

        drop(waiting.remove(0));
        drop(first);
        assert!(poll(&mut waiting[1]).is_pending());
        let second = slot(&mut waiting[0]);
        drop(second);
        // The one that is granted stops waiting before it hears of it.
        drop(waiting.remove(1));
        let third = slot(&mut waiting[1]);
        drop(third);
        drop(waiting);
        assert_eq!(handshakes.len(), 0);
        assert!(handshakes.waiters.borrow().is_empty());
    }

    #[test]
    fn many_at_once_let_others_have_their_turn() {
        let handshakes = Handshakes::new(100);
        let at = |microseconds: u64| Duration::from_micros(5000 + microseconds);
        let begun = (0..100).filter(|&n| handshakes.may_compute(at(n))).count();
        assert_eq!(begun, BEGUN_PER_TURN);
        assert!(!handshakes.may_compute(at(999)) && handshakes.may_compute(at(1000)));
    }

    #[test]
    fn waiting_ends_with_the_connection_s_time() {
        let (records, handshakes) = (records(), Rc::new(Handshakes::new(1)));
        let _slot = slot(&mut handshakes.enter(records.open()).unwrap());
        let mut late = handshakes.enter(records.open()).unwrap();
        assert!(poll(&mut late).is_pending());
        (1..60).for_each(|at| records.sweep(Duration::from_secs(at)));
        assert!(matches!(poll(&mut late), Poll::Ready(Err(_))));
        drop(late);
        assert_eq!(handshakes.len(), 1);
    }
}
