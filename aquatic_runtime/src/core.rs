//! Per-core context: clock, randomness, sockets, channels to the other cores, and the executor's tasks and
//! timers.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aquatic_common::Seconds;
use aquatic_metrics::{CoreMetrics, Counter, Gauge, names};
use pin_project_lite::pin_project;
use rand::rngs::SmallRng;

use crate::channel::{Batch, Channel, Channels, Inbox, Received};
use crate::clock::Clock;
use crate::core_state::Shared;
use crate::inline_tasks::Work;
use crate::intake::Intake;
use crate::notifier::Notifier;
use crate::readiness::Readiness;
use crate::stop::StopFlag;
use crate::timers::Timers;

pub use crate::stop::Stopping;

/// Period of each core's housekeeping.
pub const TICK: Duration = Duration::from_millis(250);

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
    drain: StopFlag,
    /// Time over which connections are ended, if another process serves.
    drain_time: Cell<Option<Duration>>,
    intake: Rc<Intake>,
    timers: Timers,
    /// Polls of this core's tasks so far.
    polls: Rc<Cell<u64>>,
    /// Inline tasks that the event loop has not taken over yet.
    inline: RefCell<Vec<Work>>,
    /// A task of the executor has been woken or started, other than by the event loop.
    has_woken: Cell<bool>,
    /// Time spent waiting so far.
    slept: Cell<Duration>,
    channels: Channels,
    /// Where messages of the other cores arrive.
    inboxes: RefCell<Vec<Box<dyn Inbox>>>,
    /// What other cores may use while this one sleeps.
    shared: RefCell<Vec<Rc<dyn Shared>>>,
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
    busy: Counter,
}

impl Counts {
    fn new(metrics: &CoreMetrics) -> Self {
        Self {
            wait_failures: metrics.counter(&names::WAIT_FAILURES, &[]),
            watched: metrics.gauge(&names::WATCHED_FDS, &[]),
            busy: metrics.counter(&names::CORE_BUSY_TIME, &[]),
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
    pub(crate) intake: Rc<Intake>,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { index, count, clock, readiness, metrics, channels, intake } = parts;
        Self {
            index,
            count,
            clock,
            rng: RefCell::new(rand::make_rng()),
            readiness,
            counts: Counts::new(&metrics),
            metrics,
            stop: StopFlag::default(),
            drain: StopFlag::default(),
            drain_time: Cell::new(None),
            intake,
            timers: Timers::default(),
            polls: Rc::default(),
            inline: RefCell::default(),
            has_woken: Cell::default(),
            slept: Cell::default(),
            channels,
            inboxes: RefCell::default(),
            shared: RefCell::default(),
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

    /// How long this core has waited so far, with nothing to do. If it grows while a task waits for a socket,
    /// the socket had nothing to tell when that began.
    pub fn slept(&self) -> Duration {
        self.slept.get()
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

    /// Whether no new connections should be taken on, because the process drains or is stopping.
    pub fn is_draining(&self) -> bool {
        self.drain.is_set()
    }

    /// Completes when the process begins to drain or to stop.
    pub fn draining(&self) -> Stopping<'_> {
        self.drain.wait()
    }

    pub(crate) fn drain(&self) {
        self.drain.set();
    }

    /// Time over which connections are to be ended, if the process stops because another one serves. `None`
    /// if they are to be ended at once.
    pub fn drain_time(&self) -> Option<Duration> {
        self.drain_time.get()
    }

    /// Whether datagrams and connections are taken in. Each task that does so joins it.
    pub fn intake(&self) -> &Rc<Intake> {
        &self.intake
    }

    pub(crate) fn stop(&self, drain_time: Option<Duration>) {
        self.drain_time.set(drain_time);
        if drain_time.is_none() {
            self.drain.set();
        }
        self.stop.set();
    }

    /// Waits at least so long. One timer for many things, not many timers.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + '_ {
        self.timers.sleep_until(self.tick() + duration)
    }

    /// Waits about so long: until the core's housekeeping that is nearest in time, but not before the next.
    /// For periodic work of at least [`TICK`], which then never wakes an idle core by itself.
    pub fn sleep_to_tick(&self, duration: Duration) -> impl Future<Output = ()> + '_ {
        self.timers.sleep_until(self.tick_near(duration))
    }

    /// Time of the core's housekeeping that is nearest to the end of a duration, but not before the next.
    pub(crate) fn tick_near(&self, duration: Duration) -> Duration {
        // Cores keep house at different times, so that they do not slow each other down.
        let share = self.index as f64 / self.count as f64;
        tick_near(self.tick(), duration, TICK.mul_f64(share))
    }

    /// Lets the other tasks of this core run, and the event loop attend to descriptors, deadlines and
    /// messages. A loop that may never wait for anything must call it between two units of bounded work.
    pub async fn yield_now(&self) {
        futures_lite::future::yield_now().await;
    }

    /// Starts a task on this core. For connections and periodic work; never per request or message, because
    /// starting a task takes a lock that all cores share.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(self.counted(task)).detach();
        self.has_woken.set(true);
    }

    /// Starts a task that the event loop polls itself, without the executor. For the few that serve requests
    /// which come alone. It must only be woken on this thread, and wakes tasks of the executor by
    /// [`Core::wake`].
    pub fn spawn_inline(&self, task: impl Future<Output = ()> + 'static) {
        self.inline.borrow_mut().push(Box::pin(task));
    }

    /// Wakes a task from where an inline task (see [`Core::spawn_inline`]) may run.
    pub fn wake(&self, task: Waker) {
        self.has_woken.set(true);
        task.wake();
    }

    /// Whether a task of the executor has been woken by [`wake`](Self::wake) or started since the last call.
    pub(crate) fn take_woken(&self) -> bool {
        self.has_woken.take()
    }

    /// Hands over the inline tasks that were started since the last call.
    pub(crate) fn take_inline(&self, mut add: impl FnMut(Work)) {
        if !self.inline.borrow().is_empty() {
            self.inline.take().into_iter().for_each(&mut add);
        }
    }

    /// A task whose polls are counted, as those of all tasks must be, see [`event_loop`](crate::event_loop).
    pub(crate) fn counted<F: Future>(&self, task: F) -> Counted<F> {
        Counted { polls: Rc::clone(&self.polls), task }
    }

    /// Polls of this core's tasks so far.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.get()
    }

    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// How other cores wake this one.
    pub(crate) fn notifier(&self) -> &Notifier {
        self.channels.notifier(self.index)
    }

    /// How to wake each core.
    pub(crate) fn notifiers(&self) -> Arc<[Notifier]> {
        self.channels.notifiers()
    }

    /// How to wake another core.
    pub(crate) fn notifier_of(&self, core: usize) -> &Notifier {
        self.channels.notifier(core)
    }

    /// The engine's periodic work.
    pub(crate) fn housekeeping(&self) {
        self.counts.wait_failures.add(self.readiness.take_failures());
        self.counts.watched.set(self.readiness.len() as u64);
    }

    /// Counts time that was spent waiting.
    pub(crate) fn count_slept(&self, time: Duration) {
        self.slept.set(self.slept.get() + time);
    }

    /// Counts time that was not spent waiting.
    pub(crate) fn count_busy(&self, time: Duration) {
        self.counts.busy.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Has the event loop share this while the core sleeps.
    pub(crate) fn add_shared(&self, shared: Rc<dyn Shared>) {
        self.shared.borrow_mut().push(shared);
    }

    /// Lets other cores use what this one shares.
    pub(crate) fn release_shared(&self) {
        self.shared.borrow().iter().for_each(|shared| shared.release());
    }

    /// Takes back what other cores were allowed to use.
    pub(crate) fn reclaim_shared(&self) {
        self.shared.borrow().iter().for_each(|shared| shared.reclaim());
    }

    /// Has the event loop look for messages here from now on.
    pub(crate) fn add_inbox(&self, inbox: impl Inbox + 'static) {
        self.inboxes.borrow_mut().push(Box::new(inbox));
        // What has come before is waiting in it.
        self.notifier().notify();
    }

    /// Hands the messages of other cores to their handlers, up to a budget for each queue. Returns whether
    /// some are left.
    pub(crate) fn receive_messages(&self) -> bool {
        // A handler may open another channel.
        let mut inboxes = self.inboxes.take();
        let mut more = false;
        for inbox in &mut inboxes {
            more |= inbox.receive() == Received::Some;
        }
        let mut added = self.inboxes.borrow_mut();
        inboxes.append(&mut added);
        *added = inboxes;
        more
    }
}

/// See [`Core::tick_near`]. The first tick is at `offset`, which is shorter than [`TICK`].
fn tick_near(now: Duration, duration: Duration, offset: Duration) -> Duration {
    let ticks_until = |time: Duration| (time + TICK - offset).as_nanos() / TICK.as_nanos();
    let ticks = ticks_until(now + duration + TICK / 2).max(ticks_until(now) + 1);
    TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)) + offset - TICK
}

pin_project! {
    /// See [`Core::counted`].
    pub(crate) struct Counted<F> {
        polls: Rc<Cell<u64>>,
        #[pin]
        task: F,
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.polls.set(this.polls.get().wrapping_add(1));
        this.task.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_nearest_to_the_end_of_a_duration_is_found() {
        let ms = Duration::from_millis;
        for (now, duration, offset, at) in [
            (1_000, 250, 0, 1_250),
            (1_001, 250, 0, 1_250),
            (1_124, 250, 0, 1_250),
            (1_126, 250, 0, 1_500),
            (1_001, 500, 0, 1_500),
            (999, 0, 0, 1_000),
            (1_000, 0, 0, 1_250),
            (1_001, 1_000, 125, 2_125),
            (1_126, 250, 125, 1_375),
            (3, 250, 125, 375),
            (3, 20, 125, 125),
            (0, 0, 0, 250),
        ] {
            let found = tick_near(ms(now), ms(duration), ms(offset));
            assert_eq!(found, ms(at), "{duration} ms after {now} ms, ticks {offset} ms late");
        }
    }
}
