//! Typed channels between cores: from each core to each other core a bounded queue of batches. Sending never
//! waits: a full queue gives the batch back to the sender, who answers, keeps or counts it.
//!
//! A channel carries batches, not messages, because handing something to another core costs the same whatever
//! its size. Emptied batches are kept by the receiving core for its own sends, so that forwarding allocates
//! nothing once traffic flows both ways. [`Outbox`] gathers messages and sends them when the tasks that are
//! ready have run.
//!
//! Invariants, each against a known fault of glommio 0.9. Nobody awaits a send, because two cores that wait
//! for room with each other would wait for ever. Channel ends are never cloned, because a clone is a second
//! writer to a queue with room for one. Nobody waits in glommio's reactor, which is not polled
//! (`event_loop`): a queue is asked only if the number of batches sent says that it has
//! one, because asking an empty queue leaves a waker behind that is never taken out.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aquatic_metrics::{Counter, names};
use futures_lite::Stream;
use glommio::channels::shared_channel::{
    self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender,
};
use glommio::{GlommioError, ResourceType};

use crate::core::Core;
use crate::notifier::Notifier;

/// Maximum number of batches in the queue from one core to another.
pub const QUEUE_CAPACITY: usize = 1024;

/// Batches received from one queue before the other tasks of the core run.
const BATCHES_PER_POLL: usize = 16;

/// Maximum number of emptied batches a core keeps per channel.
const MAX_SPARE: usize = 64;

/// Pause before another attempt to send to a core whose queue was full.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Pause between two attempts to connect the ends of queues while the cores start.
const CONNECT_INTERVAL: Duration = Duration::from_millis(1);

/// A batch of messages: what a channel carries.
pub trait Batch: Default + Send + 'static {
    /// Number of messages, or another measure of what the batch holds, in the unit of
    /// [`MAX_WAITING`](Self::MAX_WAITING).
    fn size(&self) -> usize;

    /// Removes all messages and keeps the memory.
    fn clear(&mut self);

    /// Size from which an [`Outbox`] sends a batch at once, without waiting for the other tasks of the core.
    const FULL: usize = 64;

    /// Maximum size of what waits in an [`Outbox`] for one core whose queue is full.
    const MAX_WAITING: usize = 4096;
}

impl<T: Send + 'static> Batch for Vec<T> {
    fn size(&self) -> usize {
        self.len()
    }

    fn clear(&mut self) {
        self.clear();
    }
}

/// A batch that could not be sent because the queue to that core is full, or there is no such core.
#[derive(Debug)]
pub struct Overflow<B>(pub B);

/// A message that was not taken because too much waits for that core already. It has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxFull;

/// Number of batches that have been sent through a queue. Written by the sender only.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Sent(AtomicUsize);

/// The sending end of a queue, before or after it is connected.
struct SendEnd<S> {
    queue: S,
    sent: Arc<Sent>,
}

/// The receiving end of a queue, before or after it is connected.
struct ReceiveEnd<R> {
    queue: R,
    sent: Arc<Sent>,
}

/// One core's ends of all queues of a channel, on the way to that core's thread.
struct Ends<B: Send> {
    /// By index of the other core; none to itself.
    senders: Vec<Option<SendEnd<SharedSender<B>>>>,
    receivers: Vec<Option<ReceiveEnd<SharedReceiver<B>>>>,
}

/// The queues between this many cores: each core's ends, in core order. One core has none.
fn full_mesh<B: Send + 'static>(cores: usize) -> Vec<Ends<B>> {
    let ends = || Ends {
        senders: (0..cores).map(|_| None).collect(),
        receivers: (0..cores).map(|_| None).collect(),
    };
    let mut all: Vec<Ends<B>> = (0..cores).map(|_| ends()).collect();
    for from in 0..cores {
        for to in (0..cores).filter(|&to| to != from) {
            let (sender, receiver) = shared_channel::new_bounded(QUEUE_CAPACITY);
            let sent = Arc::new(Sent::default());
            all[from].senders[to] = Some(SendEnd { queue: sender, sent: Arc::clone(&sent) });
            all[to].receivers[from] = Some(ReceiveEnd { queue: receiver, sent });
        }
    }
    all
}

/// The channels of the process, by name, with the ends that no core has taken yet, and how to wake each core.
#[derive(Clone)]
pub(crate) struct Channels {
    notifiers: Arc<[Notifier]>,
    unclaimed: Arc<Mutex<HashMap<&'static str, Box<dyn Any + Send>>>>,
}

impl Channels {
    /// The channels between this many cores.
    ///
    /// # Errors
    /// Those of `eventfd`, such as too many open files.
    pub(crate) fn new(cores: usize) -> io::Result<Self> {
        let notifiers = (0..cores).map(|_| Notifier::new()).collect::<io::Result<_>>()?;
        Ok(Self { notifiers, unclaimed: Arc::default() })
    }

    /// How to wake each core.
    pub(crate) fn notifiers(&self) -> Arc<[Notifier]> {
        Arc::clone(&self.notifiers)
    }

    /// How to wake a core, which must be one of those there are.
    pub(crate) fn notifier(&self, core: usize) -> &Notifier {
        &self.notifiers[core]
    }

    /// Takes a core's ends. The first core that asks for a name makes the queues of all.
    fn take<B: Batch>(&self, name: &'static str, core: usize) -> Ends<B> {
        let mut unclaimed = self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner);
        let all = unclaimed.entry(name).or_insert_with(|| {
            let all = full_mesh::<B>(self.notifiers.len());
            Box::new(all.into_iter().map(Some).collect::<Vec<Option<Ends<B>>>>())
        });
        let ends = all.downcast_mut::<Vec<Option<Ends<B>>>>().and_then(|all| all.get_mut(core)?.take());
        let Some(ends) = ends else { unreachable!("a core opens each channel once, with one type: {name}") };
        ends
    }
}

/// One core's end of a channel.
pub struct Channel<B: Batch> {
    inner: Rc<Inner<B>>,
}

impl<B: Batch> Clone for Channel<B> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<B: Batch> fmt::Debug for Channel<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

struct Inner<B: Batch> {
    name: &'static str,
    core: Rc<Core>,
    senders: Vec<Option<SendEnd<ConnectedSender<B>>>>,
    receivers: Cell<Vec<(usize, ReceiveEnd<ConnectedReceiver<B>>)>>,
    spare: RefCell<Vec<B>>,
    overflows: Counter,
    received: Counter,
}

impl<B: Batch> Channel<B> {
    /// Connects a core's ends; completes when all other cores have opened the channel, too.
    pub(crate) async fn open(core: &Rc<Core>, channels: &Channels, name: &'static str) -> Self {
        let Ends { senders, receivers } = channels.take::<B>(name, core.index());
        let mut sending: Vec<_> = senders.into_iter().map(|end| end.map(Connecting::sender)).collect();
        let mut receiving: Vec<_> = receivers.into_iter().map(|end| end.map(Connecting::receiver)).collect();
        // A sender and its receiver connect when both have tried, so all have to try before one is waited
        // for.
        while !(try_connect(&mut sending) & try_connect(&mut receiving)) {
            core.sleep(CONNECT_INTERVAL).await;
        }
        let senders = sending.into_iter().map(|end| end.and_then(Connecting::send_end)).collect();
        let receivers =
            receiving.into_iter().enumerate().filter_map(|(from, end)| Some((from, end?.receive_end()?)));
        let receivers = receivers.collect();
        let label = [("channel", name)];
        let inner = Inner {
            name,
            core: Rc::clone(core),
            senders,
            receivers: Cell::new(receivers),
            spare: RefCell::default(),
            overflows: core.metrics().counter(&names::CHANNEL_OVERFLOWS, &label),
            received: core.metrics().counter(&names::CHANNEL_BATCHES, &label),
        };
        Self { inner: Rc::new(inner) }
    }

    /// An empty batch to fill, from those received and emptied earlier.
    #[must_use]
    pub fn spare(&self) -> B {
        self.inner.spare.borrow_mut().pop().unwrap_or_default()
    }

    fn recycle(&self, mut batch: B) {
        let mut spare = self.inner.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            batch.clear();
            spare.push(batch);
        }
    }

    /// Sends a batch to another core; never waits.
    ///
    /// # Errors
    /// The batch, if the queue is full or `to` is this core or no core. The overflow has been counted.
    pub fn try_send(&self, to: usize, batch: B) -> Result<(), Overflow<B>> {
        let overflow = |batch| {
            self.inner.overflows.add(1);
            Err(Overflow(batch))
        };
        let Some(Some(sender)) = self.inner.senders.get(to) else { return overflow(batch) };
        match sender.queue.try_send(batch) {
            Ok(()) => {
                let Sent(sent) = &*sender.sent;
                sent.store(sent.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
                self.inner.core.notifier_of(to).notify();
                Ok(())
            }
            Err(GlommioError::WouldBlock(ResourceType::Channel(batch)))
            | Err(GlommioError::Closed(ResourceType::Channel(batch))) => overflow(batch),
            Err(other) => unreachable!("a send either blocks or finds the queue closed: {}", kind(&other)),
        }
    }

    /// Starts to hand received batches to `receive`, with the index of the sending core. Until then they stay
    /// in their queues. `receive` must neither block nor wait; what it leaves in the batch is dropped. To be
    /// called once.
    pub fn receive(&self, receive: impl FnMut(usize, &mut B) + 'static) {
        let receive = Rc::new(RefCell::new(receive));
        for (from, end) in self.inner.receivers.take() {
            let (channel, receive) = (self.clone(), Rc::clone(&receive));
            self.inner.core.add_inbox(QueueInbox { channel, from, end, received: 0, receive });
        }
    }
}

/// Whether an inbox has been left empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Nothing is left.
    All,
    /// Something may be left.
    Some,
}

/// Where messages of another core arrive.
pub(crate) trait Inbox {
    /// Hands on what has arrived, up to a budget.
    fn receive(&mut self) -> Received;
}

/// The receiving end of one queue, and the handler of its batches.
struct QueueInbox<B: Batch, F> {
    channel: Channel<B>,
    from: usize,
    end: ReceiveEnd<ConnectedReceiver<B>>,
    /// Number of batches received so far.
    received: usize,
    receive: Rc<RefCell<F>>,
}

impl<B: Batch, F: FnMut(usize, &mut B)> Inbox for QueueInbox<B, F> {
    fn receive(&mut self) -> Received {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..BATCHES_PER_POLL {
            if self.received == self.end.sent.0.load(Ordering::Acquire) {
                return Received::All;
            }
            let Poll::Ready(Some(mut batch)) = Pin::new(&mut self.end.queue).poll_next(&mut context) else {
                // The queue closes only when the other core's thread ends, which ends the process.
                return Received::All;
            };
            self.received = self.received.wrapping_add(1);
            self.channel.inner.received.add(1);
            (self.receive.borrow_mut())(self.from, &mut batch);
            self.channel.recycle(batch);
        }
        Received::Some
    }
}

/// An end of a queue on the way to being connected, `E`.
struct Connecting<E> {
    future: Pin<Box<dyn Future<Output = E>>>,
    sent: Arc<Sent>,
    connected: Option<E>,
}

impl<B: Batch> Connecting<ConnectedSender<B>> {
    fn sender(end: SendEnd<SharedSender<B>>) -> Self {
        Self { future: Box::pin(end.queue.connect()), sent: end.sent, connected: None }
    }

    fn send_end(self) -> Option<SendEnd<ConnectedSender<B>>> {
        Some(SendEnd { queue: self.connected?, sent: self.sent })
    }
}

impl<B: Batch> Connecting<ConnectedReceiver<B>> {
    fn receiver(end: ReceiveEnd<SharedReceiver<B>>) -> Self {
        Self { future: Box::pin(end.queue.connect()), sent: end.sent, connected: None }
    }

    fn receive_end(self) -> Option<ReceiveEnd<ConnectedReceiver<B>>> {
        Some(ReceiveEnd { queue: self.connected?, sent: self.sent })
    }
}

/// Has each end that is not connected try. Returns whether all are.
fn try_connect<E>(ends: &mut [Option<Connecting<E>>]) -> bool {
    // glommio's reactor would wake whoever waits here, but is not polled.
    let mut context = Context::from_waker(Waker::noop());
    let mut all = true;
    for end in ends.iter_mut().flatten().filter(|end| end.connected.is_none()) {
        match end.future.as_mut().poll(&mut context) {
            Poll::Ready(connected) => end.connected = Some(connected),
            Poll::Pending => all = false,
        }
    }
    all
}

fn kind<T>(error: &GlommioError<T>) -> &'static str {
    match error {
        GlommioError::IoError(_) => "I/O",
        GlommioError::EnhancedIoError { .. } => "enhanced I/O",
        GlommioError::ExecutorError(_) => "executor",
        GlommioError::BuilderError(_) => "builder",
        GlommioError::Closed(_) => "closed",
        GlommioError::CanNotBeClosed(..) => "cannot be closed",
        GlommioError::WouldBlock(_) => "would block",
        GlommioError::ReactorError(_) => "reactor",
        GlommioError::TimedOut(_) => "timed out",
    }
}

/// Gathers messages for each other core and sends them in batches: when a batch is full, when
/// [`flush`](Self::flush) is called, or after the tasks that are ready have run.
pub struct Outbox<B: Batch> {
    state: Rc<OutboxState<B>>,
}

impl<B: Batch> Clone for Outbox<B> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<B: Batch> fmt::Debug for Outbox<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("channel", &self.state.channel).finish_non_exhaustive()
    }
}

struct OutboxState<B: Batch> {
    channel: Channel<B>,
    waiting: Box<[RefCell<B>]>,
    /// Something waits, and the task that flushes has not run since.
    dirty: Cell<bool>,
    flusher: Cell<Option<Waker>>,
    rejected: Counter,
}

impl<B: Batch> Outbox<B> {
    /// An outbox for a channel, and the task that flushes it. One per channel and core.
    #[must_use]
    pub fn new(channel: Channel<B>) -> Self {
        let core = Rc::clone(&channel.inner.core);
        let waiting = (0..core.count()).map(|_| RefCell::default()).collect();
        let label = [("channel", channel.inner.name)];
        let rejected = core.metrics().counter(&names::CHANNEL_REJECTED, &label);
        let state =
            OutboxState { channel, waiting, dirty: Cell::new(false), flusher: Cell::new(None), rejected };
        let outbox = Self { state: Rc::new(state) };
        let flushing = outbox.clone();
        let task_core = Rc::clone(&core);
        core.spawn(async move { flushing.run(&task_core).await });
        outbox
    }

    /// Adds a message for another core by having `add` put it into the batch that waits for it.
    ///
    /// # Errors
    /// As much waits for that core as may ([`Batch::MAX_WAITING`]), or there is no such core.
    pub fn add(&self, to: usize, add: impl FnOnce(&mut B)) -> Result<(), OutboxFull> {
        let Some(waiting) = self.state.waiting.get(to) else { return Err(OutboxFull) };
        if waiting.borrow().size() >= B::MAX_WAITING {
            self.state.rejected.add(1);
            return Err(OutboxFull);
        }
        self.add_always(to, add);
        Ok(())
    }

    /// Adds a message for another core however much waits for it. For what must arrive, and of which the
    /// sender bounds the amount. Nothing is added if there is no such core.
    pub fn add_always(&self, to: usize, add: impl FnOnce(&mut B)) {
        let Some(waiting) = self.state.waiting.get(to) else { return };
        let mut batch = waiting.borrow_mut();
        add(&mut batch);
        if batch.size() >= B::FULL {
            self.send(to, &mut batch);
        }
        if batch.size() > 0
            && !self.state.dirty.replace(true)
            && let Some(flusher) = self.state.flusher.take()
        {
            self.state.channel.inner.core.wake(flusher);
        }
    }

    fn send(&self, to: usize, batch: &mut B) -> bool {
        let full = std::mem::replace(batch, self.state.channel.spare());
        match self.state.channel.try_send(to, full) {
            Ok(()) => true,
            Err(Overflow(full)) => {
                self.state.channel.recycle(std::mem::replace(batch, full));
                false
            }
        }
    }

    /// Sends what waits. Returns whether the queues had room for everything; if not, the outbox tries again
    /// by itself.
    pub fn flush(&self) -> bool {
        let mut all = true;
        for (to, waiting) in self.state.waiting.iter().enumerate() {
            let mut batch = waiting.borrow_mut();
            if batch.size() > 0 {
                all &= self.send(to, &mut batch);
            }
        }
        all
    }

    /// Flushes whenever something waits, for as long as the core runs.
    async fn run(&self, core: &Core) {
        loop {
            poll_fn(|context| {
                if self.state.dirty.replace(false) {
                    return Poll::Ready(());
                }
                self.state.flusher.set(Some(context.waker().clone()));
                Poll::Pending
            })
            .await;
            while !self.flush() {
                core.sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_has_an_end_to_every_other() {
        let mesh = full_mesh::<Vec<u8>>(3);
        for (index, ends) in mesh.iter().enumerate() {
            for other in 0..3 {
                assert_eq!(ends.senders[other].is_some(), other != index);
                assert_eq!(ends.receivers[other].is_some(), other != index);
            }
        }
        let alone = full_mesh::<Vec<u8>>(1);
        assert!(alone[0].senders[0].is_none() && alone[0].receivers[0].is_none());
    }

    #[test]
    fn channels_are_told_apart_by_name() {
        let channels = Channels::new(2).unwrap();
        assert_eq!(channels.take::<Vec<u8>>("bytes", 0).senders.len(), 2);
        assert_eq!(channels.take::<Vec<u16>>("numbers", 1).senders.len(), 2);
        assert!(channels.take::<Vec<u8>>("bytes", 1).receivers[0].is_some());
    }
}
