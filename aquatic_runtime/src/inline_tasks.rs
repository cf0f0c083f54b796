//! Tasks that the event loop polls itself, right after it has looked at the descriptors.
//!
//! To wake a task of the executor, to run it and to find out that no other is runnable takes three rounds of
//! the executor and touches as much code and memory as a request that comes alone does. Tasks that serve such
//! requests are polled here instead: a wake-up sets a flag. If that is all that has happened, the loop waits
//! again without the executor. So a task of the executor that an inline task wakes is to be woken by
//! [`Core::wake`](crate::Core::wake), which notes it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// What an inline task does.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()>>>;

/// The inline tasks of a core. All are looked at in each turn of the event loop, so there should be few.
#[derive(Default)]
pub(crate) struct InlineTasks {
    tasks: Vec<InlineTask>,
    wakes: Arc<AtomicUsize>,
}

struct InlineTask {
    woken: Arc<Woken>,
    waker: Waker,
    work: Work,
}

/// Whether a task has to be polled. Set on the task's own thread: nothing else would end a wait of the core.
#[derive(Debug)]
struct Woken {
    is_woken: AtomicBool,
    /// Wake-ups of all inline tasks.
    wakes: Arc<AtomicUsize>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Relaxed);
        self.wakes.store(self.wakes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

impl fmt::Debug for InlineTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineTasks").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl InlineTasks {
    /// Adds a task, which is polled the next time.
    pub(crate) fn add(&mut self, work: Work) {
        let woken = Arc::new(Woken { is_woken: AtomicBool::new(true), wakes: Arc::clone(&self.wakes) });
        self.tasks.push(InlineTask { waker: Waker::from(Arc::clone(&woken)), woken, work });
    }

    /// Number of times that the tasks have been woken, modulo the size of a word.
    pub(crate) fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Whether a task has to be polled.
    pub(crate) fn are_woken(&self) -> bool {
        self.tasks.iter().any(|task| task.woken.is_woken.load(Ordering::Relaxed))
    }

    /// Polls the tasks that have been woken, each once.
    pub(crate) fn poll_woken(&mut self) {
        self.tasks.retain_mut(|task| {
            if !task.woken.is_woken.load(Ordering::Relaxed) {
                return true;
            }
            task.woken.is_woken.store(false, Ordering::Relaxed);
            task.work.as_mut().poll(&mut Context::from_waker(&task.waker)) == Poll::Pending
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::poll_fn;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_task_is_polled_when_it_is_added_and_when_it_was_woken() {
        let (polls, waker) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None::<Waker>)));
        let (count, shown) = (Rc::clone(&polls), Rc::clone(&waker));
        let mut tasks = InlineTasks::default();
        tasks.add(Box::pin(poll_fn(move |context| {
            count.set(count.get() + 1);
            shown.replace(Some(context.waker().clone()));
            if count.get() < 3 { Poll::Pending } else { Poll::Ready(()) }
        })));
        assert!(tasks.are_woken());
        tasks.poll_woken();
        tasks.poll_woken();
        assert_eq!((polls.get(), tasks.are_woken()), (1, false));
        for expected in [2, 3] {
            waker.borrow().as_ref().unwrap().wake_by_ref();
            assert!(tasks.are_woken());
            assert_eq!(tasks.wakes(), expected - 1);
            tasks.poll_woken();
            assert_eq!(polls.get(), expected);
        }
        waker.take().unwrap().wake();
        assert!(!tasks.are_woken(), "the task has completed");
        tasks.poll_woken();
        assert_eq!(polls.get(), 3);
    }

    #[test]
    fn a_task_that_steps_aside_is_polled_once_per_turn() {
        let polls = Rc::new(Cell::new(0));
        let count = Rc::clone(&polls);
        let mut tasks = InlineTasks::default();
        tasks.add(Box::pin(async move {
            loop {
                count.set(count.get() + 1);
                futures_lite::future::yield_now().await;
            }
        }));
        for turn in 1..4 {
            assert!(tasks.are_woken());
            tasks.poll_woken();
            assert_eq!(polls.get(), turn);
        }
    }
}
