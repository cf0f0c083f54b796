//! Messages between cores: a channel from each core to each other core. Sending never waits: a full channel gives the
//! message back to the sender, who answers or counts it.
//!
//! Invariants, each against a known fault of glommio 0.9. Nobody awaits a send, because two cores that wait for room
//! with each other would wait for ever. Channel ends are never cloned, because a clone is a second writer to a queue
//! with room for one. Each channel is received from by one task of its own that is woken by that channel only: a
//! task that looked at several would leave a waker behind in each channel at every look, and a task overflows at
//! 32,767 of them.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_lite::Stream;
use glommio::channels::shared_channel::{
    self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender,
};
use glommio::{GlommioError, ResourceType};

use crate::metrics::Counter;

/// Messages a channel holds. Worst case is this many times the size of a message, for each pair of cores and
/// direction, plus what the messages own.
pub(crate) const CHANNEL_CAPACITY: usize = 4096;

/// Most messages taken from one channel before other tasks of the core run.
const MESSAGES_PER_TURN: usize = 256;

/// A message type that can carry the messages of one service. A process that runs several services has one enum of
/// all their messages; a service is written against `M: Carries<ItsMessage>`.
pub trait Carries<T>: Sized {
    /// Wraps a service's message.
    fn pack(message: T) -> Self;

    /// The message, if it is this service's.
    ///
    /// # Errors
    /// The message, if it belongs to another service.
    fn unpack(self) -> Result<T, Self>;
}

impl<T> Carries<T> for T {
    fn pack(message: T) -> Self {
        message
    }

    fn unpack(self) -> Result<T, Self> {
        Ok(self)
    }
}

/// A message that could not be sent because the channel to that core is full. The overflow has been counted.
#[derive(Debug)]
pub struct Overflow<T>(pub T);

/// One core's ends of all channels, on the way to that core's thread.
pub(crate) struct Ends<T: Send> {
    /// By index of the other core; none to itself.
    senders: Vec<Option<SharedSender<T>>>,
    receivers: Vec<Option<SharedReceiver<T>>>,
}

/// The channels between this many cores: each core's ends, in core order. One core has none.
pub(crate) fn full_mesh<T: Send + 'static>(cores: usize) -> Vec<Ends<T>> {
    let ends = || Ends {
        senders: (0..cores).map(|_| None).collect(),
        receivers: (0..cores).map(|_| None).collect(),
    };
    let mut all: Vec<Ends<T>> = (0..cores).map(|_| ends()).collect();
    for from in 0..cores {
        for to in (0..cores).filter(|&to| to != from) {
            let (sender, receiver) = shared_channel::new_bounded(CHANNEL_CAPACITY);
            all[from].senders[to] = Some(sender);
            all[to].receivers[from] = Some(receiver);
        }
    }
    all
}

/// Connects a core's ends on its own executor; completes when all other cores have done so, too.
pub(crate) async fn connect<T: Send + 'static>(ends: Ends<T>, overflow: Counter) -> (Mesh<T>, Inbox<T>) {
    // A sender and its receiver connect when both try at once, so all have to be trying before one is waited for.
    let senders: Vec<_> = ends
        .senders
        .into_iter()
        .map(|sender| sender.map(|sender| glommio::spawn_local(sender.connect())))
        .collect();
    let receivers: Vec<_> = ends
        .receivers
        .into_iter()
        .map(|receiver| receiver.map(|receiver| glommio::spawn_local(receiver.connect())))
        .collect();
    let mut mesh = Mesh { senders: Vec::with_capacity(senders.len()), overflow };
    for sender in senders {
        mesh.senders.push(match sender {
            Some(connecting) => Some(connecting.await),
            None => None,
        });
    }
    let mut inbox = Inbox { receivers: Vec::with_capacity(receivers.len()) };
    for (from, receiver) in receivers.into_iter().enumerate() {
        if let Some(connecting) = receiver {
            inbox.receivers.push((from, connecting.await));
        }
    }
    (mesh, inbox)
}

/// The sending ends of one core.
pub(crate) struct Mesh<T: Send> {
    senders: Vec<Option<ConnectedSender<T>>>,
    overflow: Counter,
}

impl<T: Send> fmt::Debug for Mesh<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("cores", &self.senders.len()).finish_non_exhaustive()
    }
}

impl<T: Send> Mesh<T> {
    /// Sends, or counts the overflow and gives the message back.
    pub(crate) fn try_send(&self, to: usize, message: T) -> Result<(), Overflow<T>> {
        let Some(Some(sender)) = self.senders.get(to) else {
            self.overflow.add(1);
            return Err(Overflow(message));
        };
        match sender.try_send(message) {
            Ok(()) => Ok(()),
            Err(GlommioError::WouldBlock(ResourceType::Channel(message)))
            | Err(GlommioError::Closed(ResourceType::Channel(message))) => {
                self.overflow.add(1);
                Err(Overflow(message))
            }
            Err(other) => unreachable!("a send either blocks or finds the channel closed: {}", kind(&other)),
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

/// The receiving ends of one core.
pub(crate) struct Inbox<T: Send> {
    receivers: Vec<(usize, ConnectedReceiver<T>)>,
}

/// What happens with messages. Nothing of it may wait.
pub(crate) trait Recipient<T> {
    /// A batch begins.
    fn begin(&self);

    /// A message and the core it is from.
    fn receive(&self, from: usize, message: T);

    /// The batch has ended.
    fn end(&self);

    /// There may be more: have this task woken when the other tasks of the core have had their turn.
    fn wake_again(&self, context: &mut Context<'_>);
}

impl<T: Send + 'static> Inbox<T> {
    /// Starts to hand over messages in batches.
    pub(crate) fn receive(self, recipient: &Rc<impl Recipient<T> + 'static>) {
        for (from, mut receiver) in self.receivers {
            let recipient = Rc::clone(recipient);
            let receive = poll_fn(move |context| {
                recipient.begin();
                for _ in 0..MESSAGES_PER_TURN {
                    match Pin::new(&mut receiver).poll_next(context) {
                        Poll::Ready(Some(message)) => recipient.receive(from, message),
                        // The channel closes only when the other core's thread ends, which ends the process.
                        done_for_now @ (Poll::Pending | Poll::Ready(None)) => {
                            recipient.end();
                            return done_for_now.map(drop);
                        }
                    }
                }
                recipient.end();
                // No waker has been left in the channel in this turn.
                recipient.wake_again(context);
                Poll::Pending
            });
            glommio::spawn_local(receive).detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum All {
        Number(u8),
        Text(&'static str),
    }

    impl Carries<u8> for All {
        fn pack(number: u8) -> Self {
            Self::Number(number)
        }

        fn unpack(self) -> Result<u8, Self> {
            match self {
                Self::Number(number) => Ok(number),
                other @ Self::Text(_) => Err(other),
            }
        }
    }

    #[test]
    fn a_carrier_gives_back_what_is_not_asked_for() {
        assert_eq!(Carries::<u8>::unpack(<All as Carries<u8>>::pack(7)), Ok(7));
        assert_eq!(Carries::<u8>::unpack(All::Text("x")), Err(All::Text("x")));
    }

    #[test]
    fn every_core_has_an_end_to_every_other() {
        let mesh = full_mesh::<u8>(3);
        for (index, ends) in mesh.iter().enumerate() {
            for other in 0..3 {
                assert_eq!(ends.senders[other].is_some(), other != index);
                assert_eq!(ends.receivers[other].is_some(), other != index);
            }
        }
        let alone = full_mesh::<u8>(1);
        assert!(alone[0].senders[0].is_none() && alone[0].receivers[0].is_none());
    }
}
