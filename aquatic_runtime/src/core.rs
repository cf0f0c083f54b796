//! Per-core context: clock, randomness, sockets, channels to the other cores, and the executor's tasks and
//! timers.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use aquatic_common::Seconds;
use aquatic_metrics::{CoreMetrics, Counter, Gauge, names};
use rand::rngs::SmallRng;

use crate::channel::{Batch, Channel, Channels};
use crate::clock::Clock;
use crate::reactor_poll::ReactorPolls;
use crate::readiness::Readiness;
use crate::stop::StopFlag;

pub use crate::stop::Stopping;

/// What runs on each core. The value is made in the main thread, one per core, with the sockets of that core;
/// then it moves to the core's thread and runs until the process stops.
pub trait CoreService: Send + 'static {
    /// Runs the service. To return before [`Core::stopping`] completes, or to return an error, ends the
    /// process with a message.
    fn run(self, core: Rc<Core>) -> impl Future<Output = anyhow::Result<()>> + 'static;
}

/// One core. Lives on that core's thread only.
pub struct Core {
    index: usize,
    count: usize,
    clock: Clock,
    rng: RefCell<SmallRng>,
    readiness: Readiness,
    metrics: CoreMetrics,
    counts: Counts,
    stop: StopFlag,
    polls: ReactorPolls,
    channels: Channels,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("index", &self.index).finish_non_exhaustive()
    }
}

/// What the engine itself counts on each core.
struct Counts {
    wait_failures: Counter,
    watched: Gauge,
}

impl Counts {
    fn new(metrics: &CoreMetrics) -> Self {
        Self {
            wait_failures: metrics.counter(&names::WAIT_FAILURES, &[]),
            watched: metrics.gauge(&names::WATCHED_FDS, &[]),
        }
    }
}

/// The parts a core is made of.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) count: usize,
    pub(crate) clock: Clock,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: CoreMetrics,
    pub(crate) channels: Channels,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { index, count, clock, readiness, metrics, channels } = parts;
        Self {
            index,
            count,
            clock,
            rng: RefCell::new(rand::make_rng()),
            readiness,
            counts: Counts::new(&metrics),
            metrics,
            stop: StopFlag::default(),
            polls: ReactorPolls::new(),
            channels,
        }
    }

    /// Position of this core among all, from 0: also the position of its sockets.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of cores.
    pub fn count(&self) -> usize {
        self.count
    }

    /// This core's source of randomness: fast, seeded from the operating system, not for secrets. A borrow
    /// must end before the next `.await`.
    pub fn rng(&self) -> RefMut<'_, SmallRng> {
        self.rng.borrow_mut()
    }

    /// Seconds since the tracker's epoch, as of the last [`tick`](Self::tick).
    pub fn now(&self) -> Seconds {
        self.clock.now()
    }

    /// Time since the tracker's epoch, as of the last [`tick`](Self::tick).
    pub fn time(&self) -> Duration {
        self.clock.shown()
    }

    /// Brings the clock up to date and returns the time it then shows. A service does so once per batch; the
    /// engine does so at every wake-up of its own tasks.
    pub fn tick(&self) -> Duration {
        self.clock.tick()
    }

    /// Where descriptors are registered to wait for them.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Where counters of this core come from.
    pub fn metrics(&self) -> &CoreMetrics {
        &self.metrics
    }

    /// Opens this core's end of the channel with this name. Completes when all cores have opened it: each
    /// opens the same channels, in the same order, once.
    pub async fn open_channel<B: Batch>(self: &Rc<Self>, name: &'static str) -> Channel<B> {
        Channel::open(self, &self.channels, name).await
    }

    /// Whether the process is stopping: no new work should be taken on.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_set()
    }

    /// Completes when the process begins to stop. [`CoreService::run`] should then finish what it has begun
    /// and return; a deadline ends the process regardless.
    pub fn stopping(&self) -> Stopping<'_> {
        self.stop.wait()
    }

    pub(crate) fn stop(&self) {
        self.stop.set();
    }

    /// Waits. The executor keeps its timers in a tree: one timer for many things, not many timers.
    pub async fn sleep(&self, duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    /// Lets the other tasks of this core run, and the executor attend to timers and channels. A loop that may
    /// never wait for anything must call it between two units of bounded work.
    pub async fn yield_now(&self) {
        if self.polls.is_due(self.tick()) {
            self.polls.next().await;
            self.polls.note_polled(self.tick());
        } else {
            self.polls.prevent_sleep();
            glommio::executor().yield_task_queue_now().await;
        }
    }

    /// Starts a task on this core. For connections and periodic work; never per request or message, because
    /// starting a task takes a lock that all cores share.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }

    /// The engine's periodic work.
    pub(crate) fn housekeeping(&self) {
        // A timer has brought us here, so the executor has polled its reactor.
        self.polls.note_polled(self.clock.shown());
        self.counts.wait_failures.add(self.readiness.take_failures());
        self.counts.watched.set(self.readiness.len() as u64);
    }

    /// Wakes the executor periodically so that missed events are noticed, see
    /// [`reactor_poll`](crate::reactor_poll). Runs for as long as the core.
    pub(crate) async fn heartbeat(&self) {
        loop {
            self.sleep(self.polls.heartbeat_interval()).await;
        }
    }

    /// Messages of another core are about to be received.
    pub(crate) fn begin_messages(&self) {
        self.tick();
        self.polls.note_activity();
    }

    /// Has the task woken again once the other runnable tasks of the core have run.
    pub(crate) fn wake_behind_others(&self, context: &mut Context<'_>) {
        if self.polls.is_due(self.tick()) {
            self.polls.wake_after_next(context);
        } else {
            self.polls.prevent_sleep();
            context.waker().wake_by_ref();
        }
    }
}
