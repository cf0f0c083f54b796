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
//! writer to a queue with room for one. Each queue is received from by one task of its own that is woken by
//! that queue only: a task that polled several would leave a waker behind in each at every poll, and a task
//! overflows at 32,767 of them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use aquatic_metrics::{Counter, names};
use futures_lite::Stream;
use glommio::channels::shared_channel::{
    self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender,
};
use glommio::{GlommioError, ResourceType};

use crate::core::Core;

/// Maximum number of batches in the queue from one core to another.
pub const QUEUE_CAPACITY: usize = 1024;

/// Batches received from one queue before the other tasks of the core run.
const BATCHES_PER_POLL: usize = 16;

/// Maximum number of emptied batches a core keeps per channel.
const MAX_SPARE: usize = 64;

/// Pause before another attempt to send to a core whose queue was full.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

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

/// One core's ends of all queues of a channel, on the way to that core's thread.
struct Ends<B: Send> {
    /// By index of the other core; none to itself.
    senders: Vec<Option<SharedSender<B>>>,
    receivers: Vec<Option<SharedReceiver<B>>>,
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
            all[from].senders[to] = Some(sender);
            all[to].receivers[from] = Some(receiver);
        }
    }
    all
}

/// The channels of the process, by name, with the ends that no core has taken yet.
#[derive(Clone, Default)]
pub(crate) struct Channels {
    cores: usize,
    unclaimed: Arc<Mutex<HashMap<&'static str, Box<dyn Any + Send>>>>,
}

impl Channels {
    pub(crate) fn new(cores: usize) -> Self {
        Self { cores, ..Self::default() }
    }

    /// Takes a core's ends. The first core that asks for a name makes the queues of all.
    fn take<B: Batch>(&self, name: &'static str, core: usize) -> Ends<B> {
        let mut unclaimed = self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner);
        let all = unclaimed.entry(name).or_insert_with(|| {
            Box::new(full_mesh::<B>(self.cores).into_iter().map(Some).collect::<Vec<Option<Ends<B>>>>())
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
    senders: Vec<Option<ConnectedSender<B>>>,
    receivers: Cell<Vec<(usize, ConnectedReceiver<B>)>>,
    spare: RefCell<Vec<B>>,
    overflows: Counter,
    received: Counter,
}

impl<B: Batch> Channel<B> {
    /// Connects a core's ends; completes when all other cores have opened the channel, too.
    pub(crate) async fn open(core: &Rc<Core>, channels: &Channels, name: &'static str) -> Self {
        let Ends { senders, receivers } = channels.take::<B>(name, core.index());
        // A sender and its receiver connect when both try at once, so all have to be trying before one is
        // waited for.
        let connecting: Vec<_> = senders
            .into_iter()
            .map(|sender| sender.map(|sender| glommio::spawn_local(sender.connect())))
            .collect();
        let receiving: Vec<_> = receivers
            .into_iter()
            .map(|receiver| receiver.map(|receiver| glommio::spawn_local(receiver.connect())))
            .collect();
        let mut senders = Vec::with_capacity(connecting.len());
        for sender in connecting {
            senders.push(match sender {
                Some(sender) => Some(sender.await),
                None => None,
            });
        }
        let mut receivers = Vec::with_capacity(receiving.len());
        for (from, receiver) in receiving.into_iter().enumerate() {
            if let Some(receiver) = receiver {
                receivers.push((from, receiver.await));
            }
        }
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
        match sender.try_send(batch) {
            Ok(()) => Ok(()),
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
        for (from, mut receiver) in self.inner.receivers.take() {
            let (channel, receive) = (self.clone(), Rc::clone(&receive));
            let receiving = poll_fn(move |context| {
                let core = &channel.inner.core;
                core.begin_messages();
                for _ in 0..BATCHES_PER_POLL {
                    match Pin::new(&mut receiver).poll_next(context) {
                        Poll::Ready(Some(mut batch)) => {
                            channel.inner.received.add(1);
                            (receive.borrow_mut())(from, &mut batch);
                            channel.recycle(batch);
                        }
                        // The queue closes only when the other core's thread ends, which ends the process.
                        done_for_now @ (Poll::Pending | Poll::Ready(None)) => return done_for_now.map(drop),
                    }
                }
                // No waker has been left in the queue by this poll.
                core.wake_behind_others(context);
                Poll::Pending
            });
            glommio::spawn_local(receiving).detach();
        }
    }
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
            flusher.wake();
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
        let channels = Channels::new(2);
        assert_eq!(channels.take::<Vec<u8>>("bytes", 0).senders.len(), 2);
        assert_eq!(channels.take::<Vec<u16>>("numbers", 1).senders.len(), 2);
        assert!(channels.take::<Vec<u8>>("bytes", 1).receivers[0].is_some());
    }
}
