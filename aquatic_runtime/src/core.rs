//! What a service finds on each core.

use std::cell::{Cell, RefCell, RefMut};
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use aquatic_common::{AccessList, InfoHash, Seconds};
use rand::rngs::SmallRng;

use crate::access_list::AccessReader;
use crate::clock::Clock;
use crate::mesh::{Carries, Overflow};
use crate::metrics::CoreMetrics;
use crate::readiness::Readiness;
use crate::router::RouteError;
use crate::steering::Steering;
use crate::swarm_placeholder::{FamilySet, Shard, SwarmCounts};

/// One core: its shard of the torrents, its clock, and its ways to the network and to the other cores. Lives on that
/// core's thread only. `M` is the process's message type, see [`Carries`].
#[derive(Debug)]
pub struct Core<M> {
    index: usize,
    steering: Steering,
    clock: Clock,
    shard: RefCell<Shard>,
    rng: RefCell<SmallRng>,
    access: AccessReader,
    readiness: Readiness,
    metrics: CoreMetrics,
    stopping: Cell<bool>,
    messages: PhantomData<M>,
}

impl<M: Send + 'static> Core<M> {
    /// Position of this core among all, from 0: also the position of its sockets and its shard.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many cores there are.
    pub fn count(&self) -> usize {
        self.steering.cores()
    }

    /// The core that owns a torrent.
    pub fn owner(&self, info_hash: &InfoHash) -> usize {
        self.steering.owner(info_hash)
    }

    /// Whether this core owns a torrent.
    pub fn owns(&self, info_hash: &InfoHash) -> bool {
        self.owner(info_hash) == self.index
    }

    /// This core's shard. A borrow must end before the next `.await`.
    pub fn shard(&self) -> RefMut<'_, Shard> {
        self.shard.borrow_mut()
    }

    /// This core's source of randomness: fast, seeded from the operating system, not for secrets. A borrow must end
    /// before the next `.await`.
    pub fn rng(&self) -> RefMut<'_, SmallRng> {
        self.rng.borrow_mut()
    }

    /// Seconds since the process started, as of the last [`tick`](Self::tick).
    pub fn now(&self) -> Seconds {
        self.clock.now()
    }

    /// Brings the clock up to date. A service does so once per batch; the engine does so at every wake-up of its own
    /// tasks.
    pub fn tick(&self) -> Duration {
        self.clock.tick()
    }

    /// The coarse clock itself.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether the tracker serves this torrent.
    pub fn allows(&self, info_hash: &InfoHash) -> bool {
        self.access.allows(info_hash)
    }

    /// The access list as it is now, for a whole batch.
    pub fn access_list(&self) -> std::sync::Arc<AccessList> {
        self.access.current()
    }

    /// Where descriptors are registered to wait for them.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Where counters of this core come from.
    pub fn metrics(&self) -> &CoreMetrics {
        &self.metrics
    }

    /// Sends a message to another core; never waits.
    ///
    /// # Errors
    /// The message, if the channel is full or `to` is this core or no core. The overflow has been counted.
    pub fn try_send<T>(&self, to: usize, message: T) -> Result<(), Overflow<T>>
    where
        M: Carries<T>,
    {
        let _ = to;
        Err(Overflow(message))
    }

    /// Calls `handler` with each message of this type from another core: the sender's index and the message. The
    /// handler must not block and must not wait; it may borrow the shard. Register handlers before the first `.await`
    /// of [`CoreService::run`](crate::engine::CoreService::run): messages that no handler takes are counted and lost.
    pub fn on_message<T: 'static>(&self, handler: impl FnMut(usize, T) + 'static)
    where
        M: Carries<T>,
    {
        let _ = handler;
    }

    /// Called after each batch of messages from other cores has been handled: the moment to send the replies that the
    /// handlers have gathered.
    pub fn after_messages(&self, flush: impl FnMut() + 'static) {
        let _ = flush;
    }

    /// Counts of these torrents, in the order asked, from whichever cores own them. `done` is called exactly once:
    /// before this returns if this core owns all of them, otherwise from the task that receives messages.
    pub fn scrape(
        &self,
        info_hashes: &[InfoHash],
        families: FamilySet,
        done: impl FnOnce(Result<&[SwarmCounts], RouteError>) + 'static,
    ) {
        let _ = (info_hashes, families);
        done(Err(RouteError::Timeout));
    }

    /// Whether the process is stopping: no new work should be taken on.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Completes when the process begins to stop. [`CoreService::run`](crate::engine::CoreService::run) should then
    /// finish what it has begun and return; a deadline ends the process regardless.
    pub async fn stopping(&self) {
        std::future::pending::<()>().await;
    }

    /// Waits. There is one timer wheel per core; one timer for many things, not many timers.
    pub async fn sleep(&self, duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    /// Lets the other tasks of this core run, and the executor look after timers and messages. A loop that may never
    /// wait for anything must call it between two turns of bounded work.
    pub async fn yield_now(&self) {
        glommio::executor().yield_task_queue_now().await;
    }

    /// Starts a task on this core. For connections and periodic work; never per request or message.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }
}
