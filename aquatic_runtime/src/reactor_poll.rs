//! Making sure that the executor polls its reactor: channels of other cores, timers, readiness of sockets.
//!
//! glommio's executor does so when no task is runnable, or when a timer in the kernel tells it that tasks
//! have run for long enough. That timer cannot be relied on: beside tasks that are always runnable it
//! sometimes never fires, and the core then hears of nothing any more. So tasks that are always runnable step
//! aside together, once per interval, until the executor has polled its reactor.
//!
//! How to be woken by a poll of the reactor and by nothing else: the future that connects one end of a
//! channel, while the other end is not connected, is woken at each poll. One such future serves all tasks of
//! a core, and the other end of its channel is kept and never connected.
//!
//! A second fault of the executor: if another core's message arrives between a poll of the reactor and the
//! first task that would run, the main loop concludes that no task is runnable, and sleeps. It does not sleep
//! while somebody has asked to be woken by the next poll, so a task that yields but stays runnable leaves a
//! guard that does. For tasks woken by events there is no such way; a heartbeat bounds how long they can be
//! asleep like that.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use glommio::channels::shared_channel::{self, SharedReceiver};

/// Time tasks may run before the executor polls its reactor: under load the longest that messages, timers and
/// sockets wait. A poll costs some microseconds.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Heartbeat of a core that has something to do, and of one that has not: the longest that an event can go
/// unnoticed because of the executor's fault. An idle core should stay idle, and the fault needs two events
/// at once.
const HEARTBEAT: Duration = Duration::from_millis(20);
const IDLE_HEARTBEAT: Duration = Duration::from_millis(250);

/// Keeps the executor awake until the next poll of its reactor.
#[derive(Debug, Default)]
struct Guard {
    armed: AtomicBool,
}

impl Wake for Guard {
    fn wake(self: Arc<Self>) {
        // Only this core's thread reads it; it is atomic because wakers have to be.
        self.armed.store(false, Ordering::Relaxed);
    }
}

/// Lets the tasks of a core wait until the executor has polled its reactor.
pub(crate) struct ReactorPolls {
    connecting: RefCell<Pin<Box<dyn Future<Output = ()>>>>,
    _never_connected: SharedReceiver<()>,
    last: Cell<Duration>,
    guard: Arc<Guard>,
    guarding: Waker,
    busy: Cell<bool>,
}

impl fmt::Debug for ReactorPolls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorPolls").field("last", &self.last.get()).finish_non_exhaustive()
    }
}

impl ReactorPolls {
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

    /// Time until the next heartbeat.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        if self.busy.take() { HEARTBEAT } else { IDLE_HEARTBEAT }
    }

    /// Keeps the executor from sleeping before its next poll, for a task that stays runnable.
    pub(crate) fn prevent_sleep(&self) {
        self.busy.set(true);
        if !self.guard.armed.swap(true, Ordering::Relaxed) {
            self.wake_after_next(&mut Context::from_waker(&self.guarding));
        }
    }

    /// Whether tasks should step aside. `now` is what the core's clock shows.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.last.get()) >= POLL_INTERVAL
    }

    /// Has the task woken by the next poll. It must then return without being woken otherwise.
    pub(crate) fn wake_after_next(&self, context: &mut Context<'_>) {
        let connected = self.connecting.borrow_mut().as_mut().poll(context);
        debug_assert!(connected.is_pending(), "the other end is never connected");
    }

    /// The executor has polled its reactor, at this time.
    pub(crate) fn note_polled(&self, now: Duration) {
        self.last.set(now);
    }

    /// Waits for the next poll.
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
