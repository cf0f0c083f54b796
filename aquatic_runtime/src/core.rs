//! What a service finds on each core.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use aquatic_common::{AccessList, Family, InfoHash, Seconds};
use aquatic_swarm::{Announce, FamilySet, PeerBuffers, Shard, SwarmCounts};
use rand::rngs::SmallRng;

use crate::access_list::AccessReader;
use crate::clock::Clock;
use crate::look::Looks;
use crate::mesh::{Carries, Mesh, Overflow, Recipient};
use crate::metrics::{CoreMetrics, Counter, Gauge, names};
use crate::readiness::Readiness;
use crate::router::{
    AnnounceAnswer, AnnounceQuestion, Answer, Ended, Outgoing, Question, RouteError, Router, Ticket,
};
use crate::steering::Steering;
use crate::stop::StopFlag;

pub use crate::stop::Stopping;

/// What travels between cores.
#[derive(Debug)]
pub(crate) enum Parcel<M> {
    Ask(Ticket, Question),
    Answer(Ticket, Answer),
    Service(M),
}

/// Takes a message that is its service's, or gives it back.
type Handler<M> = Box<dyn FnMut(usize, M) -> Result<(), M>>;

/// One core: its shard of the torrents, its clock, and its ways to the network and to the other cores. Lives on that
/// core's thread only. `M` is the process's message type, see [`Carries`].
pub struct Core<M: Send + 'static> {
    index: usize,
    steering: Steering,
    clock: Clock,
    shard: RefCell<Shard>,
    rng: RefCell<SmallRng>,
    access: AccessReader,
    readiness: Readiness,
    metrics: CoreMetrics,
    counts: Counts,
    stop: StopFlag,
    looks: Looks,
    mesh: Mesh<Parcel<M>>,
    router: RefCell<Router>,
    handlers: RefCell<Vec<Handler<M>>>,
    flushers: RefCell<Vec<Box<dyn FnMut()>>>,
}

impl<M: Send + 'static> fmt::Debug for Core<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("index", &self.index).finish_non_exhaustive()
    }
}

/// What the engine itself counts on each core.
struct Counts {
    messages: Counter,
    unclaimed: Counter,
    overflows: Counter,
    timeouts: Counter,
    wait_failures: Counter,
    questions: Gauge,
    sources: Gauge,
    /// By family: torrents, seeders, leechers, bytes.
    swarms: [[Gauge; 4]; 2],
}

impl Counts {
    fn new(metrics: &CoreMetrics) -> Self {
        let swarms = Family::ALL.map(|family| {
            let family = ("family", family.name());
            [
                metrics.gauge(&names::TORRENTS, &[family]),
                metrics.gauge(&names::PEERS, &[family, ("role", "seeder")]),
                metrics.gauge(&names::PEERS, &[family, ("role", "leecher")]),
                metrics.gauge(&names::STORE, &[family]),
            ]
        });
        Self {
            messages: metrics.counter(&names::MESH_MESSAGES, &[]),
            unclaimed: metrics.counter(&names::MESH_UNCLAIMED, &[]),
            overflows: metrics.counter(&names::UNANSWERED, &[("reason", "overflow")]),
            timeouts: metrics.counter(&names::UNANSWERED, &[("reason", "timeout")]),
            wait_failures: metrics.counter(&names::WAIT_FAILURES, &[]),
            questions: metrics.gauge(&names::QUESTIONS, &[]),
            sources: metrics.gauge(&names::SOURCES, &[]),
            swarms,
        }
    }
}

/// The parts a core is made of.
pub(crate) struct Parts<M: Send + 'static> {
    pub(crate) index: usize,
    pub(crate) steering: Steering,
    pub(crate) clock: Clock,
    pub(crate) shard: Shard,
    pub(crate) access: AccessReader,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: CoreMetrics,
    pub(crate) mesh: Mesh<Parcel<M>>,
}

impl<M: Send + 'static> Core<M> {
    pub(crate) fn new(parts: Parts<M>) -> Self {
        let Parts { index, steering, clock, shard, access, readiness, metrics, mesh } = parts;
        let counts = Counts::new(&metrics);
        Self {
            index,
            steering,
            clock,
            shard: RefCell::new(shard),
            rng: RefCell::new(rand::make_rng()),
            access,
            readiness,
            metrics,
            counts,
            stop: StopFlag::default(),
            looks: Looks::new(),
            mesh,
            router: RefCell::default(),
            handlers: RefCell::default(),
            flushers: RefCell::default(),
        }
    }

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

    /// This core's shard. A borrow must end before the next `.await`, and before questions are asked.
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
    pub fn access_list(&self) -> Arc<AccessList> {
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
        match self.mesh.try_send(to, Parcel::Service(M::pack(message))) {
            Ok(()) => Ok(()),
            Err(Overflow(parcel)) => match parcel {
                Parcel::Service(message) => match message.unpack() {
                    Ok(message) => Err(Overflow(message)),
                    Err(_) => unreachable!("a carrier gives back what it was given"),
                },
                Parcel::Ask(..) | Parcel::Answer(..) => {
                    unreachable!("a full channel gives back what was sent")
                }
            },
        }
    }

    /// Calls `handler` with each message of this type from another core: the sender's index and the message. The
    /// handler must not block and must not wait; it may borrow the shard. Register handlers before the first `.await`
    /// of [`CoreService::run`](crate::engine::CoreService::run): messages that no handler takes are counted and lost.
    pub fn on_message<T: 'static>(&self, mut handler: impl FnMut(usize, T) + 'static)
    where
        M: Carries<T>,
    {
        let handler = move |from, message: M| message.unpack().map(|message| handler(from, message));
        self.handlers.borrow_mut().push(Box::new(handler));
    }

    /// Called after each batch of messages from other cores has been handled: the moment to send the replies that the
    /// handlers, and the callbacks of answered questions, have gathered.
    pub fn after_messages(&self, flush: impl FnMut() + 'static) {
        self.flushers.borrow_mut().push(Box::new(flush));
    }

    /// Counts of these torrents, in the order asked, from whichever cores own them. `done` is called exactly once:
    /// before this returns if this core owns all of them or an owner cannot be asked, otherwise later, from the task
    /// that receives messages or the one that watches deadlines.
    pub fn scrape(
        &self,
        info_hashes: &[InfoHash],
        families: FamilySet,
        done: impl FnOnce(Result<&[SwarmCounts], RouteError>) + 'static,
    ) {
        let asked = self.router.borrow_mut().scrape(
            self.clock.shown(),
            (&self.steering, self.index),
            info_hashes,
            families,
            |info_hash| self.shard.borrow().scrape(info_hash, families),
            Box::new(done),
        );
        match asked {
            Ok(outgoing) => {
                // Once one owner cannot be asked the question has ended, and the other owners need not be bothered.
                let _ = outgoing.into_iter().try_for_each(|question| self.ask(question));
            }
            Err(ended) => ended.tell(),
        }
    }

    /// Applies an announce on whichever core owns the torrent, asking for up to this many bytes of compact IPv4 and
    /// IPv6 peers. `done` is called exactly once, as for [`scrape`](Self::scrape).
    pub fn announce(
        &self,
        announce: Announce,
        (v4_room, v6_room): (usize, usize),
        done: impl FnOnce(Result<AnnounceAnswer, RouteError>) + 'static,
    ) {
        let owner = self.owner(&announce.info_hash);
        let question = AnnounceQuestion { announce, v4_room, v6_room };
        if owner == self.index {
            done(Ok(self.apply(&question)));
            return;
        }
        let asked = self.router.borrow_mut().announce(self.clock.shown(), owner, question, Box::new(done));
        match asked {
            Ok(outgoing) => {
                let _ = self.ask(outgoing);
            }
            Err(ended) => ended.tell(),
        }
    }

    fn apply(&self, question: &AnnounceQuestion) -> AnnounceAnswer {
        let (mut v4, mut v6) = (vec![0; question.v4_room], vec![0; question.v6_room]);
        let out = PeerBuffers { v4: &mut v4, v6: &mut v6 };
        let announced = self.shard.borrow_mut().announce(
            &question.announce,
            self.now(),
            &mut *self.rng.borrow_mut(),
            out,
        );
        v4.truncate(announced.v4_len);
        v6.truncate(announced.v6_len);
        AnnounceAnswer { announced, v4, v6 }
    }

    /// Sends a question; if that fails the asker is told.
    fn ask(&self, Outgoing { to, ticket, question }: Outgoing) -> Result<(), Overflow<()>> {
        self.mesh.try_send(to, Parcel::Ask(ticket, question)).map_err(|_| {
            let ended = self.router.borrow_mut().overflow(ticket);
            self.counts.overflows.add(1);
            ended.into_iter().for_each(Ended::tell);
            Overflow(())
        })
    }

    fn hand_over(&self, from: usize, mut message: M) {
        for handler in self.handlers.borrow_mut().iter_mut() {
            match handler(from, message) {
                Ok(()) => return,
                Err(not_mine) => message = not_mine,
            }
        }
        self.counts.unclaimed.add(1);
    }

    /// Ends a batch of messages, or of answers that did not come.
    pub(crate) fn flush(&self) {
        for flush in self.flushers.borrow_mut().iter_mut() {
            flush();
        }
    }

    /// The engine's periodic work: questions past their deadline, and the gauges.
    pub(crate) fn housekeeping(&self) {
        // A timer has brought us here, so the executor has looked.
        self.looks.done(self.clock.shown());
        let late = self.router.borrow_mut().expire(self.clock.shown());
        self.counts.timeouts.add(late.len() as u64);
        late.into_iter().for_each(Ended::tell);
        self.counts.questions.set(self.router.borrow().len() as u64);
        self.counts.wait_failures.add(self.readiness.take_failures());
        self.counts.sources.set(self.readiness.len() as u64);
        let stats = self.shard.borrow().stats();
        for family in Family::ALL {
            let stats = stats.family(family);
            let values = [stats.torrents, stats.seeders, stats.leechers, stats.bytes];
            for (gauge, value) in self.counts.swarms[family.index()].iter().zip(values) {
                gauge.set(value);
            }
        }
    }

    /// Whether the process is stopping: no new work should be taken on.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_set()
    }

    /// Completes when the process begins to stop. [`CoreService::run`](crate::engine::CoreService::run) should then
    /// finish what it has begun and return; a deadline ends the process regardless.
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

    /// Lets the other tasks of this core run, and the executor look after timers and messages. A loop that may never
    /// wait for anything must call it between two turns of bounded work.
    pub async fn yield_now(&self) {
        if self.looks.is_due(self.tick()) {
            self.looks.next().await;
            self.looks.done(self.tick());
        } else {
            self.looks.stay_awake();
            glommio::executor().yield_task_queue_now().await;
        }
    }

    /// Has the executor do something now and then, see [`look`](crate::look). Runs for as long as the core.
    pub(crate) async fn pulse(&self) {
        loop {
            self.sleep(self.looks.pulse()).await;
        }
    }

    /// Starts a task on this core. For connections and periodic work; never per request or message, because starting a
    /// task takes a lock that all cores share.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }
}

impl<M: Send + 'static> Recipient<Parcel<M>> for Core<M> {
    fn begin(&self) {
        self.tick();
        self.looks.note_activity();
    }

    fn receive(&self, from: usize, parcel: Parcel<M>) {
        self.counts.messages.add(1);
        match parcel {
            Parcel::Ask(ticket, question) => {
                let answer = match question {
                    Question::Scrape { info_hashes, families } => {
                        let shard = self.shard.borrow();
                        Answer::Scrape(info_hashes.iter().map(|hash| shard.scrape(hash, families)).collect())
                    }
                    Question::Announce(question) => Answer::Announce(Box::new(self.apply(&question))),
                };
                // If the way back is full the asker runs into its deadline; the overflow has been counted.
                let _ = self.mesh.try_send(from, Parcel::Answer(ticket, answer));
            }
            Parcel::Answer(ticket, answer) => {
                let ended = self.router.borrow_mut().answer(ticket, answer);
                ended.into_iter().for_each(Ended::tell);
            }
            Parcel::Service(message) => self.hand_over(from, message),
        }
    }

    fn end(&self) {
        self.flush();
    }

    fn wake_again(&self, context: &mut Context<'_>) {
        if self.looks.is_due(self.tick()) {
            self.looks.wake_after_next(context);
        } else {
            self.looks.stay_awake();
            context.waker().wake_by_ref();
        }
    }
}
