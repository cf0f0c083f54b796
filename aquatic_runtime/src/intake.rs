//! Intake of a core: whether its tasks take in datagrams and connections. It is closed in a process that is
//! about to take over from another one, until that has stopped, and in one that hands over. What is under way
//! goes on.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Whether the tasks of a core take anything in.
#[derive(Default)]
pub struct Intake {
    closed: Cell<bool>,
    tasks: RefCell<Slab<Member>>,
    /// Called once no task takes anything in any more.
    when_idle: RefCell<Vec<Box<dyn FnOnce()>>>,
}

/// A task that takes something in.
#[derive(Default)]
struct Member {
    waker: Option<Waker>,
    /// It waits for the intake to open.
    waits: bool,
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("closed", &self.closed.get()).finish_non_exhaustive()
    }
}

impl Intake {
    pub(crate) fn new(open: bool) -> Rc<Self> {
        Rc::new(Self { closed: Cell::new(!open), ..Self::default() })
    }

    /// Adds a task that takes something in.
    pub fn join(self: &Rc<Self>) -> IntakeTask {
        let key = self.tasks.borrow_mut().insert(Member::default());
        IntakeTask { intake: Rc::clone(self), key }
    }

    /// Whether nothing may be taken in now.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) fn open(&self) {
        self.closed.set(false);
        self.when_idle.borrow_mut().clear();
        self.wake();
    }

    /// Has all tasks stop taking anything in, and calls `when_idle` once they have.
    pub(crate) fn close(&self, when_idle: impl FnOnce() + 'static) {
        self.closed.set(true);
        self.when_idle.borrow_mut().push(Box::new(when_idle));
        self.wake();
        self.note_idle();
    }

    fn wake(&self) {
        for (_, member) in self.tasks.borrow_mut().iter_mut() {
            if let Some(waker) = member.waker.take() {
                waker.wake();
            }
        }
    }

    fn note_idle(&self) {
        if self.closed.get() && self.tasks.borrow().iter().all(|(_, member)| member.waits) {
            for call in self.when_idle.take() {
                call();
            }
        }
    }

    fn watch(&self, key: usize, context: &Context<'_>) {
        let mut tasks = self.tasks.borrow_mut();
        let Some(member) = tasks.get_mut(key) else { return };
        match &mut member.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none @ None => *none = Some(context.waker().clone()),
        }
    }
}

/// A task's hold on the intake of its core.
#[derive(Debug)]
pub struct IntakeTask {
    intake: Rc<Intake>,
    key: usize,
}

impl IntakeTask {
    /// Whether nothing may be taken in now.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.intake.is_closed()
    }

    /// Completes when something may be taken in. Until then the task counts as one that takes nothing in.
    pub async fn opened(&self) {
        poll_fn(|context| {
            let waits = self.is_closed();
            if let Some(member) = self.intake.tasks.borrow_mut().get_mut(self.key) {
                member.waits = waits;
            }
            if !waits {
                return Poll::Ready(());
            }
            self.intake.watch(self.key, context);
            self.intake.note_idle();
            Poll::Pending
        })
        .await;
    }

    /// Completes as `wait` does, or with `None` when nothing may be taken in any more.
    pub async fn unless_closed<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let closed = poll_fn(|context| {
            if self.is_closed() {
                return Poll::Ready(None);
            }
            self.intake.watch(self.key, context);
            Poll::Pending
        });
        futures_lite::future::or(async { Some(wait.await) }, closed).await
    }
}

impl Drop for IntakeTask {
    fn drop(&mut self) {
        self.intake.tasks.borrow_mut().remove(self.key);
        self.intake.note_idle();
    }
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::pin::pin;

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn closing_is_over_once_all_tasks_wait() {
        let intake = Intake::new(true);
        let (one, other) = (intake.join(), intake.join());
        let mut waiting = Box::pin(one.unless_closed(future::pending::<()>()));
        assert!(poll(waiting.as_mut()).is_pending());
        assert_eq!(poll(pin!(other.unless_closed(future::ready(5)))), Poll::Ready(Some(5)));
        let idle = Rc::new(Cell::new(0));
        let count = Rc::clone(&idle);
        intake.close(move || count.set(count.get() + 1));
        assert_eq!(poll(waiting.as_mut()), Poll::Ready(None));
        drop(waiting);
        {
            let mut opened = pin!(one.opened());
            assert!(poll(opened.as_mut()).is_pending());
            assert_eq!(idle.get(), 0, "the other one is at work");
            drop(other);
            assert_eq!(idle.get(), 1);
            intake.open();
            assert!(poll(opened.as_mut()).is_ready());
        }
        let count = Rc::clone(&idle);
        intake.close(move || count.set(count.get() + 1));
        intake.open();
        intake.close(|| ());
        drop(one);
        assert_eq!(idle.get(), 1, "what was closed before it opened again is not told");
    }

    #[test]
    fn without_tasks_closing_is_over_at_once() {
        let intake = Intake::new(false);
        let idle = Rc::new(Cell::new(false));
        let told = Rc::clone(&idle);
        intake.close(move || told.set(true));
        assert!(idle.get());
    }
}
