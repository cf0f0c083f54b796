//! Telling the tasks of a core that the process is stopping.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// A core's flag, and the tasks that wait for it.
#[derive(Debug, Default)]
pub(crate) struct StopFlag {
    set: Cell<bool>,
    waiting: RefCell<Slab<Waker>>,
}

impl StopFlag {
    pub(crate) fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Wakes all that wait.
    pub(crate) fn set(&self) {
        self.set.set(true);
        for (_, waker) in self.waiting.borrow().iter() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn wait(&self) -> Stopping<'_> {
        Stopping { flag: self, place: None }
    }
}

/// Completes when the process begins to stop, or to drain.
#[derive(Debug)]
pub struct Stopping<'a> {
    flag: &'a StopFlag,
    place: Option<usize>,
}

impl Future for Stopping<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.flag.is_set() {
            return Poll::Ready(());
        }
        let mut waiting = self.flag.waiting.borrow_mut();
        match self.place.and_then(|place| waiting.get_mut(place)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                let place = waiting.insert(context.waker().clone());
                drop(waiting);
                self.place = Some(place);
            }
        }
        Poll::Pending
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.flag.waiting.borrow_mut().remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn waiting_ends_when_set_and_leaves_nothing_behind() {
        let flag = StopFlag::default();
        let mut context = Context::from_waker(Waker::noop());
        {
            let mut first = pin!(flag.wait());
            let mut second = pin!(flag.wait());
            for _ in 0..3 {
                assert!(first.as_mut().poll(&mut context).is_pending());
                assert!(second.as_mut().poll(&mut context).is_pending());
            }
            assert_eq!(flag.waiting.borrow().len(), 2);
            flag.set();
            assert!(first.as_mut().poll(&mut context).is_ready());
        }
        assert!(flag.is_set() && flag.waiting.borrow().is_empty());
    }
}
