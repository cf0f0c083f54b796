//! A core's end of the cluster: hands changes of its peers to the thread, applies what other nodes tell, and
//! hands its torrents out, in steps that are too short to delay requests.

mod applying;
mod departed;
mod forwarding;
mod handing;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use aquatic_common::{Family, Seconds, Steering};
use aquatic_metrics::{Counter, Gauge, names};
use aquatic_runtime::{Core, MailboxReceiver, Turns};
use aquatic_tracker::LocalTracker;
use aquatic_tracker::partition::Holders;
use aquatic_tracker::replication::{PartSet, record_length};
use tokio::sync::mpsc;

use crate::pull::What;

pub use handing::Piece;

/// Longest time spent at a stretch, as in expiry. Afterwards the other tasks of the core run.
const STEP: Duration = Duration::from_micros(200);

/// Bytes of changes, torrents and messages that may wait for one core. Beyond it, nothing more is read until
/// it has caught up.
pub(crate) const MAX_WAITING: usize = 8 << 20;

/// Messages from the thread that a core has not received yet.
pub(crate) const MAX_MESSAGES: usize = 4096;

/// What a message that waits for a core counts besides its content, in bytes: so those that fill the mailbox
/// count as much as may wait, and there is room for others.
const MESSAGE_COST: usize = MAX_WAITING / (MAX_MESSAGES / 2);

/// Messages of one core that the thread has not received yet: 16 MB of full batches.
pub(crate) const MAX_QUEUED: usize = 256;

/// Period of updating gauges.
const GAUGES: Duration = Duration::from_secs(1);

/// Number of a node's run in this process.
pub type NodeNumber = u8;

/// Kinds of messages between cores of different nodes, apart from changes of peers with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Offers and answers of WebTorrent peers, to one node.
    Relay,
    /// Requests for torrents of a part that another node holds, and the replies, to one node.
    Parts,
}

/// What a core hands to the thread.
#[derive(Debug)]
pub enum FromCore {
    /// Changes of peers with an address, as records of `aquatic_tracker::replication`.
    Changes {
        /// Family of the records.
        family: Family,
        /// The records, 64 KiB at most.
        records: Vec<u8>,
        /// Seconds ago that their ages count to.
        ago: u32,
    },
    /// Changes of WebTorrent peers, as records of [`WEBTORRENT_RECORD`] bytes that begin with the info hash.
    WebTorrent(Vec<u8>),
    /// Messages to the cores of one node, which its [`Splitter`] divides among them.
    Messages {
        /// The node.
        to: NodeNumber,
        /// What they are.
        channel: Channel,
        /// The messages, 256 KiB at most.
        body: Vec<u8>,
    },
}

/// Hands each of several messages to the cores that have to receive it, by their index. Returns the number of
/// messages that no core has to receive.
pub type Splitter = fn(&[u8], &Steering, &mut dyn FnMut(usize, &[u8])) -> usize;

/// Length of the record of a change of a WebTorrent peer, in bytes.
pub const WEBTORRENT_RECORD: usize = 56;

/// What the thread hands to a core.
#[derive(Debug)]
pub enum ToCore {
    /// Changes of torrents of this core, as records.
    Changes(Waiting),
    /// Remember peers that stop from now on: torrents of another node follow.
    BeginLoading,
    /// Torrents of this core that another node knows, in the encoding of snapshots.
    Load(Waiting),
    /// No more torrents follow.
    EndLoading,
    /// Hand out torrents.
    HandOut(HandOut),
    /// Tell other nodes again of the peers that have left in the last seconds.
    TellDeparted {
        /// Those seconds.
        max_age: u32,
    },
    /// Other nodes hold parts now, or this one holds or keeps others.
    Holders(Box<Holders>),
    /// What concerns WebTorrent, and requests for parts.
    Event(NodeEvent),
}

/// What a core hears of other nodes besides changes of peers with an address.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// A node is there. Its peers follow.
    Joined(NodeNumber),
    /// A node is gone.
    Left(NodeNumber),
    /// Something of what a node has published of its WebTorrent peers is missing. It publishes all again.
    Missed(NodeNumber),
    /// Another node has missed something, or has just started: all that is published is to be published
    /// again.
    PublishAgain,
    /// Changes of WebTorrent peers of torrents that belong to this core, as records.
    WebTorrent {
        /// Node whose peers they are.
        from: NodeNumber,
        /// Seconds since the batch was taken.
        age: u32,
        /// Records of [`WEBTORRENT_RECORD`] bytes.
        records: Vec<u8>,
    },
    /// Messages of another node to this core.
    Messages {
        /// The other node.
        from: NodeNumber,
        /// What they are.
        channel: Channel,
        /// The messages.
        body: MessageBody,
    },
}

/// Messages on their way to a core, counted as long as they wait.
#[derive(Debug)]
pub struct MessageBody {
    content: Vec<u8>,
    /// Bytes that wait for the core.
    waiting: Arc<AtomicUsize>,
}

impl MessageBody {
    pub(crate) fn new(content: Vec<u8>, waiting: &Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(content.len() + MESSAGE_COST, Ordering::Release);
        Self { content, waiting: Arc::clone(waiting) }
    }
}

impl Clone for MessageBody {
    fn clone(&self) -> Self {
        Self::new(self.content.clone(), &self.waiting)
    }
}

impl Drop for MessageBody {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.content.len() + MESSAGE_COST, Ordering::Release);
    }
}

impl Deref for MessageBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.content
    }
}

/// Records or torrents on their way to a core, counted as long as they wait.
#[derive(Debug)]
pub struct Waiting {
    pub(crate) family: Family,
    /// When ages count from: milliseconds of this process's time.
    pub(crate) taken: i64,
    pub(crate) content: Vec<u8>,
    /// Bytes that wait for the core.
    pub(crate) waiting: Arc<AtomicUsize>,
    /// Tells when all cores have loaded a chunk.
    #[allow(dead_code, reason = "it tells when it is dropped")]
    pub(crate) loading: Option<Arc<ChunkLoaded>>,
}

/// Tells the thread that a chunk has been loaded, when the last core drops its part.
#[derive(Debug)]
pub(crate) struct ChunkLoaded {
    pub(crate) pull: u32,
    pub(crate) to: mpsc::UnboundedSender<u32>,
}

impl Drop for ChunkLoaded {
    fn drop(&mut self) {
        // Without a receiver the process is ending.
        let _ = self.to.send(self.pull);
    }
}

impl Waiting {
    /// Counts it as waiting.
    pub(crate) fn new(
        (family, taken, content): (Family, i64, Vec<u8>),
        waiting: &Arc<AtomicUsize>,
        loading: Option<&Arc<ChunkLoaded>>,
    ) -> Self {
        waiting.fetch_add(content.len() + MESSAGE_COST, Ordering::Release);
        let (waiting, loading) = (Arc::clone(waiting), loading.map(Arc::clone));
        Self { family, taken, content, waiting, loading }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.content.len() + MESSAGE_COST, Ordering::Release);
    }
}

/// Order to hand out torrents.
#[derive(Clone, Debug)]
pub struct HandOut {
    pub(crate) what: What,
    /// The parts, if some are asked for.
    pub(crate) parts: Option<PartSet>,
    /// Moment that ages count from.
    pub(crate) at: Seconds,
    /// Whether it is the second one at the same time.
    pub(crate) second: bool,
    /// Takes pieces, and one without content from each core at the end.
    pub(crate) pieces: mpsc::Sender<Piece>,
    /// Ends it before its time.
    pub(crate) cancelled: Arc<AtomicBool>,
}

/// A core's way to the thread. Never waits.
#[derive(Clone, Debug)]
pub struct ClusterLink {
    core: u16,
    sender: mpsc::Sender<(u16, FromCore)>,
    /// Batches of each kind of stream that were dropped because the thread does not follow.
    dropped: Arc<Dropped>,
    /// Whether messages leave this machine now.
    is_connected: Arc<AtomicBool>,
}

/// Batches of a core that were dropped on their way to the thread, by kind of stream.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    pub(crate) changes: AtomicUsize,
    pub(crate) webtorrent: AtomicUsize,
    pub(crate) messages: AtomicUsize,
}

impl ClusterLink {
    /// Whether there is a connection to NATS. Without one, what is sent is dropped.
    fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Has other nodes see a gap: changes were dropped before they could be handed to the thread.
    fn lose_changes(&self) {
        self.dropped.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands something to the thread. Returns whether there was room; otherwise it is dropped, counted, and
    /// other nodes see a gap.
    pub fn send(&self, what: FromCore) -> bool {
        let counter = match &what {
            FromCore::Changes { .. } => &self.dropped.changes,
            FromCore::WebTorrent(_) => &self.dropped.webtorrent,
            FromCore::Messages { .. } => &self.dropped.messages,
        };
        let sent = self.sender.try_send((self.core, what)).is_ok();
        if !sent {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }
}

/// One core's end of the thread.
#[derive(Debug)]
pub struct CoreCluster {
    pub(crate) receiver: MailboxReceiver<ToCore>,
    pub(crate) link: ClusterLink,
    /// Time between two batches.
    pub(crate) interval: Duration,
}

impl CoreCluster {
    pub(crate) fn new(
        core: u16,
        receiver: MailboxReceiver<ToCore>,
        (sender, dropped): (mpsc::Sender<(u16, FromCore)>, Arc<Dropped>),
        is_connected: Arc<AtomicBool>,
        interval: Duration,
    ) -> Self {
        Self { receiver, link: ClusterLink { core, sender, dropped, is_connected }, interval }
    }

    /// The core's way to the thread, for what else is sent to other nodes.
    #[must_use]
    pub fn link(&self) -> ClusterLink {
        self.link.clone()
    }

    /// Time between two batches.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes part in the cluster on this core. `tracker` is `None` where only WebTorrent is served. `hear` is
    /// told of other nodes, and must neither block nor wait.
    ///
    /// # Errors
    /// The mailbox cannot be waited for.
    pub fn attach(
        self,
        core: &Rc<Core>,
        tracker: Option<&Rc<LocalTracker>>,
        mut hear: impl FnMut(NodeEvent) + 'static,
    ) -> anyhow::Result<()> {
        let end = tracker.map(|tracker| End::new(core, tracker));
        if let Some(tracker) = tracker {
            tracker.begin_publishing();
            let publishing = (Rc::clone(core), Rc::clone(tracker), self.link.clone());
            let interval = self.interval;
            core.spawn(async move { publish(&publishing.0, &publishing.1, &publishing.2, interval).await });
        }
        let link = self.link;
        let receive = move |message| match (message, &end) {
            (ToCore::Event(NodeEvent::Messages { from, channel: Channel::Parts, body }), Some(end)) => {
                end.serve(from, body);
            }
            (ToCore::Event(event), _) => hear(event),
            (_, None) => {}
            (ToCore::HandOut(order), Some(end)) => end.hand_out(order),
            (ToCore::TellDeparted { max_age }, Some(end)) => end.tell_departed(max_age, &link),
            (ToCore::Holders(holders), Some(end)) => end.hold(*holders, &link),
            (message, Some(end)) => end.queue(message),
        };
        self.receiver.attach(core, receive).context("cannot wait for the thread of the cluster")
    }
}

/// Hands changes of this core's peers to the thread for as long as the process runs.
async fn publish(core: &Rc<Core>, tracker: &LocalTracker, link: &ClusterLink, interval: Duration) {
    let gauge =
        |family: Family| core.metrics().gauge(&names::CLUSTER_OWN_PEERS, &[("family", family.name())]);
    let own: [(Family, Gauge); 2] = Family::ALL.map(|family| (family, gauge(family)));
    let published = core.metrics().counter(&names::CLUSTER_PUBLISHED, &[("kind", "peers")]);
    let mut shown = Duration::ZERO;
    loop {
        core.sleep(interval).await;
        loop {
            let batch = tracker.state().take_published(core.now());
            let Some(batch) = batch else { break };
            published.add((batch.records.len() / record_length(batch.family)) as u64);
            let ago = core.now() - batch.until;
            link.send(FromCore::Changes { family: batch.family, records: batch.records, ago });
        }
        if tracker.state().take_dropped() > 0 {
            link.lose_changes();
        }
        if core.time().saturating_sub(shown) >= GAUGES {
            shown = core.time();
            for (family, gauge) in &own {
                let (own, _) = tracker.state().peers_by_owner(*family);
                gauge.set(own);
            }
        }
    }
}

/// What a core applies, in the order in which it came.
#[derive(Debug)]
struct End(Rc<Inner>);

struct Inner {
    core: Rc<Core>,
    tracker: Rc<LocalTracker>,
    queue: RefCell<VecDeque<ToCore>>,
    /// Whether a task works on the queue.
    is_running: Cell<bool>,
    /// Whether a task sends requests to other nodes.
    is_forwarding: Cell<bool>,
    /// Messages of other nodes about torrents that nodes divide, and whether a task works on them.
    messages: RefCell<VecDeque<(NodeNumber, MessageBody)>>,
    is_serving: Cell<bool>,
    /// Number of times that peers that have left were to be told of again: the last one replaces the others.
    telling: Cell<u32>,
    /// Turns of the tasks that hand torrents out, by the pass of the store that they share.
    passes: [Turns; 2],
    told_again: Counter,
    counters: applying::Counters,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl End {
    fn new(core: &Rc<Core>, tracker: &Rc<LocalTracker>) -> Self {
        Self(Rc::new(Inner {
            core: Rc::clone(core),
            tracker: Rc::clone(tracker),
            queue: RefCell::default(),
            is_running: Cell::new(false),
            is_forwarding: Cell::new(false),
            messages: RefCell::default(),
            is_serving: Cell::new(false),
            telling: Cell::new(0),
            passes: Default::default(),
            told_again: core.metrics().counter(&names::CLUSTER_PUBLISHED, &[("kind", "departed")]),
            counters: applying::Counters::new(core.metrics()),
        }))
    }

    /// Has a message worked on after those before it.
    fn queue(&self, message: ToCore) {
        self.0.queue.borrow_mut().push_back(message);
        if !self.0.is_running.replace(true) {
            let inner = Rc::clone(&self.0);
            self.0.core.spawn(async move { inner.work().await });
        }
    }

    /// Takes in who holds which parts.
    fn hold(&self, holders: Holders, link: &ClusterLink) {
        self.0.tracker.set_holders(Some(holders));
        if !self.0.is_forwarding.replace(true) {
            let (inner, link) = (Rc::clone(&self.0), link.clone());
            self.0.core.spawn(async move { forwarding::run(&inner.core, &inner.tracker, &link).await });
        }
    }

    /// Has requests of another node served, and its responses passed on, after those before them.
    fn serve(&self, from: NodeNumber, body: MessageBody) {
        self.0.messages.borrow_mut().push_back((from, body));
        if !self.0.is_serving.replace(true) {
            let inner = Rc::clone(&self.0);
            self.0.core.spawn(async move { forwarding::serve(&inner).await });
        }
    }

    /// Has other nodes told again of the peers that have left in the last seconds.
    fn tell_departed(&self, max_age: u32, link: &ClusterLink) {
        let (inner, link) = (Rc::clone(&self.0), link.clone());
        self.0.core.spawn(async move { departed::tell(&inner, max_age, &link).await });
    }

    fn hand_out(&self, order: HandOut) {
        let inner = Rc::clone(&self.0);
        self.0.core.spawn(async move {
            let [first, second] = &inner.passes;
            let _turn = if order.second { second } else { first }.next(&inner.core).await;
            handing::run(&inner.core, &inner.tracker, order).await;
        });
    }
}

impl Inner {
    async fn work(&self) {
        loop {
            let next = self.queue.borrow_mut().pop_front();
            match next {
                None => {
                    self.is_running.set(false);
                    return;
                }
                Some(ToCore::Changes(changes)) => {
                    applying::apply(&self.core, &self.tracker, &changes, &self.counters).await;
                }
                Some(ToCore::BeginLoading) => self.tracker.state().begin_loading(),
                Some(ToCore::Load(torrents)) => {
                    applying::load(&self.core, &self.tracker, &torrents, &self.counters).await;
                }
                Some(ToCore::EndLoading) => {
                    self.tracker.state().end_loading();
                    departed::sweep(self).await;
                }
                Some(
                    ToCore::HandOut(_) | ToCore::TellDeparted { .. } | ToCore::Holders(_) | ToCore::Event(_),
                ) => {}
            }
        }
    }
}
