//! Deadlines of one core's tasks. Pure: the event loop says what time it is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A deadline, and a number that tells those of the same time apart.
type Key = (Duration, u64);

/// The sleeping tasks of a core, by deadline. One timer serves many things, so there are few.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    waiting: RefCell<BTreeMap<Key, Waker>>,
    started: Cell<u64>,
}

impl Timers {
    /// Completes at the first [`fire`](Self::fire) with this time or a later one.
    pub(crate) fn sleep_until(&self, deadline: Duration) -> Sleep<'_> {
        let number = self.started.get();
        self.started.set(number + 1);
        Sleep { timers: self, key: (deadline, number), is_waiting: false }
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.waiting.borrow().keys().next().map(|key| key.0)
    }

    /// Wakes the tasks whose deadline has come. Returns whether there were any.
    pub(crate) fn fire(&self, now: Duration) -> bool {
        let mut fired = false;
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let first = self.waiting.borrow_mut().pop_first();
            if let Some((_, waker)) = first {
                waker.wake();
            }
            fired = true;
        }
        fired
    }
}

/// Waits for a deadline.
#[derive(Debug)]
pub(crate) struct Sleep<'a> {
    timers: &'a Timers,
    key: Key,
    is_waiting: bool,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.timers.waiting.borrow_mut();
        match waiting.get_mut(&self.key) {
            Some(waker) => waker.clone_from(context.waker()),
            None if self.is_waiting => return Poll::Ready(()),
            None => {
                waiting.insert(self.key, context.waker().clone());
                drop(waiting);
                self.is_waiting = true;
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if self.is_waiting {
            let _fired = self.timers.waiting.borrow_mut().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn sleeps_end_in_the_order_of_their_deadlines() {
        let timers = Timers::default();
        assert_eq!(timers.next_deadline(), None);
        let mut context = Context::from_waker(Waker::noop());
        let (mut late, mut early) = (pin!(timers.sleep_until(MS * 7)), pin!(timers.sleep_until(MS * 5)));
        let mut same = pin!(timers.sleep_until(MS * 5));
        for _ in 0..2 {
            assert!(late.as_mut().poll(&mut context).is_pending());
            assert!(early.as_mut().poll(&mut context).is_pending());
            assert!(same.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(timers.next_deadline(), Some(MS * 5));
        assert!(!timers.fire(MS * 4));
        assert!(early.as_mut().poll(&mut context).is_pending());
        assert!(timers.fire(MS * 6));
        assert!(early.as_mut().poll(&mut context).is_ready() && same.as_mut().poll(&mut context).is_ready());
        assert!(late.as_mut().poll(&mut context).is_pending());
        assert!(timers.fire(MS * 7) && !timers.fire(MS * 8));
        assert!(late.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn a_sleep_that_is_given_up_leaves_nothing_behind() {
        let timers = Timers::default();
        {
            let mut sleep = pin!(timers.sleep_until(MS));
            assert!(sleep.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(timers.next_deadline(), Some(MS));
        }
        assert_eq!(timers.next_deadline(), None);
        assert!(!timers.fire(MS));
    }
}
