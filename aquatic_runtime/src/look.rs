//! Making sure that the executor looks at the outside world: messages of other cores, timers, readiness.
//!
//! glommio's executor does so when no task wants to run, or when a timer in the kernel tells it that the tasks have run
//! for long enough. That timer cannot be relied on: beside tasks that always want to run it sometimes never fires, and
//! the core then hears of nothing any more. So tasks that always want to run step aside together, once per interval,
//! until the executor has looked.
//!
//! How to be woken by a look and by nothing else: the future that connects one end of a channel, while the other end is
//! not connected, asks to be woken at each look. One such future serves all tasks of a core, and the other end of its
//! channel is kept and never connected.
//!
//! A second fault of the executor: if another core's message announces itself between a look and the first task that
//! would run, the main loop takes it that no task wants to run, and sleeps. It does not sleep while somebody asks to be
//! woken by the next look, so a task that steps aside but stays in the queue leaves a guard that does. For tasks woken
//! by events there is no such way; a pulse bounds how long they can be asleep like that.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use glommio::channels::shared_channel::{self, SharedReceiver};

/// How long tasks may go on before the executor looks: under load this is the longest that messages, timers and
/// sockets wait. A look costs some microseconds.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Time between two pulses of a core that has something to do, and of one that has not. The longest that an event can
/// go unnoticed because of the executor's fault; an idle core should stay idle, and the fault needs two events at once.
const PULSE: Duration = Duration::from_millis(20);
const IDLE_PULSE: Duration = Duration::from_millis(250);

/// Keeps the executor awake until the next look.
#[derive(Debug, Default)]
struct Guard {
    armed: AtomicBool,
}

impl Wake for Guard {
    fn wake(self: Arc<Self>) {
        // Only this core's thread looks at it; it is atomic because wakers have to be.
        self.armed.store(false, Ordering::Relaxed);
    }
}

/// Lets the tasks of a core wait for the executor to look.
pub(crate) struct Looks {
    connecting: RefCell<Pin<Box<dyn Future<Output = ()>>>>,
    _never_connected: SharedReceiver<()>,
    last: Cell<Duration>,
    guard: Arc<Guard>,
    guarding: Waker,
    busy: Cell<bool>,
}

impl fmt::Debug for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looks").field("last", &self.last.get()).finish_non_exhaustive()
    }
}

impl Looks {
    /// To be made on the core's executor.
    pub(crate) fn new() -> Self {
        let (sender, receiver) = shared_channel::new_bounded(1);
        let connecting = async move { drop(sender.connect().await) };
        let guard = Arc::new(Guard::default());
        Self {
            connecting: RefCell::new(Box::pin(connecting)),
            _never_connected: receiver,
            last: Cell::new(Duration::ZERO),
            guarding: Arc::clone(&guard).into(),
            guard,
            busy: Cell::new(true),
        }
    }

    /// Something happens on this core.
    pub(crate) fn note_activity(&self) {
        self.busy.set(true);
    }

    /// Time until the next pulse.
    pub(crate) fn pulse(&self) -> Duration {
        if self.busy.take() { PULSE } else { IDLE_PULSE }
    }

    /// Keeps the executor from sleeping before its next look, for a task that stays in the queue.
    pub(crate) fn stay_awake(&self) {
        self.busy.set(true);
        if !self.guard.armed.swap(true, Ordering::Relaxed) {
            self.wake_after_next(&mut Context::from_waker(&self.guarding));
        }
    }

    /// Whether tasks should step aside. `now` is what the core's clock shows.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.last.get()) >= LOOK_INTERVAL
    }

    /// Has the task woken by the next look. It must then return without being woken otherwise.
    pub(crate) fn wake_after_next(&self, context: &mut Context<'_>) {
        let connected = self.connecting.borrow_mut().as_mut().poll(context);
        debug_assert!(connected.is_pending(), "the other end is never connected");
    }

    /// The executor has looked, at this time.
    pub(crate) fn done(&self, now: Duration) {
        self.last.set(now);
    }

    /// Waits for the next look.
    pub(crate) async fn next(&self) {
        let mut asked = false;
        poll_fn(|context| {
            if asked {
                return Poll::Ready(());
            }
            asked = true;
            self.wake_after_next(context);
            Poll::Pending
        })
        .await;
    }
}
