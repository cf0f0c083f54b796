//! Mailboxes: from any thread to one core. Commands of the control plane (stop, reload, limits) and
//! connections handed to another core come this way.
//!
//! A mailbox is a bounded queue behind a lock and an eventfd in the core's epoll set, so a message is noticed
//! like any packet. It is meant for what is rare or large: channels between cores have no lock.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::core::Core;
use crate::readiness::{Mode, Source};

/// Messages handled before the other tasks of the core run.
const MESSAGES_PER_POLL: usize = 64;

/// Pause after the eventfd could not be waited for.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A message that was not taken because the mailbox is full.
#[derive(Debug)]
pub struct MailboxFull<T>(pub T);

struct Shared<T> {
    capacity: usize,
    queue: Mutex<VecDeque<T>>,
    wake: OwnedFd,
}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending side of a mailbox: can be cloned and used by any thread.
pub struct MailboxSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for MailboxSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxSender").field("capacity", &self.shared.capacity).finish_non_exhaustive()
    }
}

impl<T> MailboxSender<T> {
    /// Puts a message into the mailbox; never waits for the core.
    ///
    /// # Errors
    /// The message, if the mailbox is full.
    pub fn try_send(&self, message: T) -> Result<(), MailboxFull<T>> {
        let mut queue = self.shared.queue();
        if queue.len() >= self.shared.capacity {
            return Err(MailboxFull(message));
        }
        queue.push_back(message);
        let is_first = queue.len() == 1;
        drop(queue);
        if is_first {
            // Fails only if the eventfd's counter is full, and then the core has been woken long since.
            let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        }
        Ok(())
    }
}

/// The receiving side of a mailbox, on the way to its core.
pub struct MailboxReceiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> fmt::Debug for MailboxReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxReceiver").field("capacity", &self.shared.capacity).finish_non_exhaustive()
    }
}

/// A mailbox for up to `capacity` messages.
///
/// # Errors
/// Those of `eventfd`, such as too many open files.
pub fn mailbox<T>(capacity: usize) -> io::Result<(MailboxSender<T>, MailboxReceiver<T>)> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let shared = Arc::new(Shared { capacity, queue: Mutex::default(), wake });
    Ok((MailboxSender { shared: Arc::clone(&shared) }, MailboxReceiver { shared }))
}

/// One mailbox per core, in core order: the senders for every thread that needs them, and each core's
/// receiver.
pub type Mailboxes<T> = (Vec<MailboxSender<T>>, Vec<MailboxReceiver<T>>);

/// Makes one mailbox per core.
///
/// # Errors
/// As [`mailbox`].
pub fn mailboxes<T>(cores: usize, capacity: usize) -> io::Result<Mailboxes<T>> {
    (0..cores).map(|_| mailbox(capacity)).collect()
}

/// The sending sides of one mailbox per core, for what every core is told.
#[derive(Clone, Debug)]
pub struct Broadcast<T> {
    cores: Vec<MailboxSender<T>>,
}

impl<T: Clone> Broadcast<T> {
    /// Sends a message to every core; never waits. Returns the cores whose mailbox is full.
    pub fn send(&self, message: &T) -> Vec<usize> {
        let is_full = |sender: &MailboxSender<T>| sender.try_send(message.clone()).is_err();
        let full = self.cores.iter().enumerate().filter(|(_, sender)| is_full(sender));
        full.map(|(core, _)| core).collect()
    }
}

/// One mailbox per core for what every core is told: the sending side, and each core's receiver, in core
/// order.
///
/// # Errors
/// As [`mailbox`].
pub fn broadcast<T>(cores: usize, capacity: usize) -> io::Result<(Broadcast<T>, Vec<MailboxReceiver<T>>)> {
    let (cores, receivers) = mailboxes(cores, capacity)?;
    Ok((Broadcast { cores }, receivers))
}

impl<T: 'static> MailboxReceiver<T> {
    /// Starts to hand messages to `receive` on this core, in the order they were sent. `receive` must neither
    /// block nor wait.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn attach(self, core: &Rc<Core>, receive: impl FnMut(T) + 'static) -> io::Result<()> {
        let source = core.readiness().register(WakeFd { shared: self.shared }, Mode::Edge)?;
        let core_of_task = Rc::clone(core);
        core.spawn(run(core_of_task, source, receive));
        Ok(())
    }
}

async fn run<T>(core: Rc<Core>, source: Source<WakeFd<T>>, mut receive: impl FnMut(T)) {
    loop {
        let mut count = [0; 8];
        if source.try_read(|wake| Ok(rustix::io::read(wake, &mut count)?)).is_err() {
            if source.readable().await.is_err() {
                core.sleep(RETRY_INTERVAL).await;
            }
            continue;
        }
        core.tick();
        let messages = std::mem::take(&mut *source.get_ref().shared.queue());
        for (nth, message) in messages.into_iter().enumerate() {
            receive(message);
            if nth % MESSAGES_PER_POLL == MESSAGES_PER_POLL - 1 {
                core.yield_now().await;
            }
        }
    }
}

/// The eventfd that wakes the core.
struct WakeFd<T> {
    shared: Arc<Shared<T>>,
}

impl<T> AsFd for WakeFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wakes<T>(receiver: &MailboxReceiver<T>) -> Option<u64> {
        let mut count = [0; 8];
        rustix::io::read(&receiver.shared.wake, &mut count).ok().map(|_| u64::from_ne_bytes(count))
    }

    #[test]
    fn a_broadcast_reaches_every_core_that_has_room() {
        let (broadcast, receivers) = broadcast(2, 1).unwrap();
        assert_eq!(broadcast.send(&1), [0; 0]);
        receivers[1].shared.queue().clear();
        assert_eq!(broadcast.send(&2), [0]);
        let received: Vec<Vec<i32>> =
            receivers.iter().map(|receiver| receiver.shared.queue().iter().copied().collect()).collect();
        assert_eq!(received, [[1], [2]]);
    }

    #[test]
    fn a_burst_of_messages_wakes_the_core_once() {
        let (sender, receiver) = mailbox(3).unwrap();
        assert_eq!(wakes(&receiver), None);
        let second = sender.clone();
        for message in 0..3 {
            if message % 2 == 0 { &sender } else { &second }.try_send(message).unwrap();
        }
        assert_eq!(wakes(&receiver), Some(1));
        let MailboxFull(message) = sender.try_send(9).unwrap_err();
        assert_eq!(message, 9, "what is not taken is given back");
        assert_eq!(std::mem::take(&mut *receiver.shared.queue()), [0, 1, 2]);
        sender.try_send(4).unwrap();
        assert_eq!(wakes(&receiver), Some(1), "the next burst wakes again");
    }
}
