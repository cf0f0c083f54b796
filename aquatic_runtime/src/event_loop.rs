//! The event loop of a core: one task that is always runnable, and waits for the whole core when no other
//! task is.
//!
//! Requests that come alone are served without the executor, by [inline tasks](crate::inline_tasks).
//!
//! A wait is one `epoll_wait` on the core's set, which holds the descriptors of all tasks, a timer for the
//! earliest deadline and the eventfd with which other cores wake this one. glommio's executor never finds
//! itself without a runnable task, so it never waits by itself, which would cost some ten system calls, and
//! its reactor is not polled: no task may wait for a timer, a socket or a channel of glommio.
//!
//! How the task knows that it is the only runnable one: the executor runs tasks first come, first served, and
//! all tasks count their polls. When it is polled twice and no other task was in between, the queue is empty.
//!
//! Two faults of glommio 0.9 are out of reach this way. Both make its main loop sleep although tasks are
//! runnable, and both begin with an event of its own ring, of which there is none after the start: the timer
//! that interrupts running tasks (set to never), and the eventfd that other executors write to when this one
//! sleeps (it never does).

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::epoll::Event;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::core::Core;
use crate::inline_tasks::InlineTasks;
use crate::readiness::{EVENTS_PER_POLL, Wait};

/// Time that tasks run before the loop looks at the descriptors of the others. A look costs less than a
/// microsecond.
const LOOK_INTERVAL: Duration = Duration::from_micros(50);

/// What the loop keeps from turn to turn.
pub(crate) struct EventLoop {
    core: Rc<Core>,
    alarm: Alarm,
    inline: InlineTasks,
    events: Vec<Event>,
    /// Polls of tasks before this task last stepped aside.
    polls_seen: u64,
    last_look: Duration,
    /// The last turn has waited.
    has_waited: bool,
    /// The last turn has woken tasks or received messages.
    has_worked: bool,
    /// Time up to which busy time has been counted.
    counted_to: Duration,
    /// A queue was left with messages in it.
    more_messages: bool,
}

/// What the executor has to run besides the event loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Executor {
    /// No task is runnable.
    Idle,
    MayBeBusy,
}

impl EventLoop {
    /// The loop of a core. Until it runs, nothing on the core is woken.
    ///
    /// # Errors
    /// Those of `timerfd_create` and `epoll_ctl`, such as too many open files.
    pub(crate) fn new(core: Rc<Core>) -> io::Result<Self> {
        let alarm = Alarm::new()?;
        core.readiness().watch_waker(&alarm.timer)?;
        core.readiness().watch_waker(core.notifier())?;
        Ok(Self {
            counted_to: core.tick(),
            core,
            alarm,
            inline: InlineTasks::default(),
            events: Vec::with_capacity(EVENTS_PER_POLL),
            polls_seen: 0,
            last_look: Duration::ZERO,
            has_waited: false,
            has_worked: false,
            more_messages: false,
        })
    }

    /// Runs for as long as the core.
    pub(crate) async fn run(mut self) {
        loop {
            while self.turn() == Executor::Idle {}
            self.polls_seen = self.core.polls();
            futures_lite::future::yield_now().await;
        }
    }

    /// Wakes the tasks that have something to do, or waits if there are none and no task is runnable, and
    /// polls the inline ones. Returns whether the executor has anything to run.
    fn turn(&mut self) -> Executor {
        let is_alone = self.core.polls() == self.polls_seen;
        // Never as of the last turn: a deadline may have come since, and its event may have been taken by a
        // look.
        let now = self.core.tick();
        self.has_worked = self.core.timers().fire(now);
        if self.core.notifier().take() || self.more_messages {
            self.more_messages = self.core.receive_messages();
            self.has_worked = true;
        }
        self.core.take_inline(|work| self.inline.add(work));
        // After a wait the tasks that it has woken may have nothing left to do, and the next turn waits
        // again.
        let may_wait_next = std::mem::take(&mut self.has_waited);
        let go_on = self.inline.are_woken();
        let mut executor = Executor::MayBeBusy;
        if is_alone && !self.has_worked && !go_on {
            executor = self.wait(now);
        } else if (go_on || !may_wait_next) && now.saturating_sub(self.last_look) >= LOOK_INTERVAL {
            self.core.readiness().poll_events(&mut self.events, Wait::No);
            self.last_look = now;
            self.count_busy(now);
        }
        self.inline.poll_woken();
        if self.core.take_woken() || self.inline.are_woken() { Executor::MayBeBusy } else { executor }
    }

    /// Blocks the thread until a descriptor is ready, a deadline has come or another core has woken this one.
    /// Returns whether the executor has anything to run, if it had nothing before.
    fn wait(&mut self, now: Duration) -> Executor {
        let mut executor = Executor::MayBeBusy;
        if let Some(deadline) = self.core.timers().next_deadline() {
            self.alarm.set(now, deadline);
        }
        self.core.release_shared();
        if self.core.notifier().begin_sleep() {
            self.count_busy(now);
            let inline_wakes = self.inline.wakes();
            let woken = self.core.readiness().poll_events(&mut self.events, Wait::Yes);
            if woken == self.inline.wakes().wrapping_sub(inline_wakes) {
                executor = Executor::Idle;
            }
            self.core.notifier().end_sleep();
            self.last_look = self.core.tick();
            self.core.count_slept(self.last_look.saturating_sub(now));
            self.counted_to = self.last_look;
            self.has_waited = true;
        }
        self.core.reclaim_shared();
        executor
    }

    /// Counts the time since the last wait, or since the last call, as busy. Reads no clock.
    fn count_busy(&mut self, now: Duration) {
        self.core.count_busy(now.saturating_sub(self.counted_to));
        self.counted_to = now;
    }
}

/// A timer of the kernel for the earliest deadline. It stays armed while the core wakes and sleeps again, so
/// that a wait needs no timeout of its own, which the kernel would have to set and to take back each time.
struct Alarm {
    timer: OwnedFd,
    armed: Duration,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { timer, armed: Duration::ZERO })
    }

    /// Has it wake the core at the deadline or, if it is armed already, earlier.
    fn set(&mut self, now: Duration, deadline: Duration) {
        if self.armed > now && self.armed <= deadline {
            return;
        }
        // A time of zero would disarm it.
        let left = deadline.saturating_sub(now).max(Duration::from_nanos(1));
        let it_value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let it_interval = Timespec::default();
        // Cannot fail for a valid descriptor and a valid time.
        let _ =
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value });
        self.armed = deadline;
    }
}
