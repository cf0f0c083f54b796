//! Messages between cores: a channel from each core to each other core. Sending never waits: a full channel gives the
//! message back to the sender, who answers or counts it.

/// A message type that can carry the messages of one service. A process that runs several services has one enum of
/// all their messages; a service is written against `M: Carries<ItsMessage>`.
pub trait Carries<T>: Sized {
    /// Wraps a service's message.
    fn wrap(message: T) -> Self;

    /// The message, if it is this service's.
    ///
    /// # Errors
    /// The message, if it belongs to another service.
    fn unwrap(self) -> Result<T, Self>;
}

impl<T> Carries<T> for T {
    fn wrap(message: T) -> Self {
        message
    }

    fn unwrap(self) -> Result<T, Self> {
        Ok(self)
    }
}

/// A message that could not be sent because the channel to that core is full. The overflow has been counted.
#[derive(Debug)]
pub struct Overflow<T>(pub T);
