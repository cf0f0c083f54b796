//! Hand-over of the whole process to a successor: sockets, keys and state, while clients are served.
//!
//! The predecessor starts the successor, the program at its own path with its own arguments, with a unix
//! socket as standard input. Over it go the listening sockets in core order, the state directory, the keys,
//! and one end of a stream, into which the services write their state and all that changes meanwhile. The
//! successor starts its cores with their intake closed. Once it has received the state, the predecessor
//! closes its own intake and says so; the successor opens its. What arrives in between waits in the sockets,
//! which are the same.
//!
//! Whatever goes wrong before the successor has said that it serves leaves the predecessor in charge. If the
//! predecessor dies in the midst, the successor takes over with what it has.
//!
//! - `message`: the bytes, and which message may follow which. Pure. `connection`: sending and receiving.
//! - `keeper`: the parent of the successor meanwhile, where there is a service manager.
//! - `predecessor`, `successor`: the two sides.

mod connection;
mod keeper;
mod message;
mod predecessor;
#[cfg(test)]
mod properties;
mod successor;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

pub use keeper::keep_successor;
pub(crate) use keeper::leave_keeper;
pub(crate) use predecessor::{HandOver, Successor};
pub use successor::refuse;
pub(crate) use successor::{Offer, Place, Takeover};

/// Name of the file in the state directory with the number of the process that serves.
pub const PID_FILE: &str = "pid";

/// Name of the file in the state directory with the outcome of the last upgrade: `done` and the number of the
/// process, or `failed` and the reason.
pub const OUTCOME_FILE: &str = "upgrade";

/// Environment variable that tells a successor that its standard input leads to its predecessor.
const VARIABLE: &str = "AQUATIC_PREDECESSOR";

/// Longest wait for the end of the other side before another one begins.
const WATCH_PERIOD: Duration = Duration::from_secs(3600);

/// What the predecessor wants of the side that writes the state. If it is gone, the hand-over has failed and
/// everything goes on as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateRequest {
    /// Write a mark behind all that has been applied, once nothing more is taken in.
    Mark,
}

/// What the side that writes the state answers.
#[derive(Debug)]
pub enum StateSent {
    /// The mark has been written.
    Marked,
    /// The state cannot be handed over, for this reason.
    Failed(String),
}

/// What a service hands its state over with.
#[derive(Debug)]
pub struct StateSender {
    /// Where the state is written to.
    pub stream: UnixStream,
    /// What is wanted.
    pub requests: Receiver<StateRequest>,
    /// Where the answers go.
    pub answers: Sender<StateSent>,
}

/// Begins to hand over the state of a service, without waiting.
pub(crate) type StateHook = Arc<dyn Fn(StateSender) + Send + Sync>;

/// What an operator has decided while the process ran, of whatever kind. It goes over as a whole, in a few
/// megabytes at most.
pub trait DecidedByHand: Send + Sync {
    /// Keeps it from changing until [`release`](Self::release), and returns it; empty for nothing.
    fn hold(&self) -> Vec<u8>;

    /// Lets it change again, because the hand-over has failed.
    fn release(&self);

    /// Takes over what [`hold`](Self::hold) of the predecessor has returned.
    ///
    /// # Errors
    /// It cannot be understood; says what.
    fn take_over(&self, bytes: &[u8]) -> Result<(), String>;
}

/// What the side that receives the state reports. If it is gone before, the stream has ended.
#[derive(Debug)]
pub enum StateReceived {
    /// All that there was when the stream began.
    Loaded,
    /// All before the mark.
    Marked,
    /// Something that cannot be understood.
    Failed(String),
}

/// What a service receives its state with.
#[derive(Debug)]
pub struct StateReceiver {
    /// Where the state is read from.
    pub stream: UnixStream,
    /// Where the reports go.
    pub reports: Sender<StateReceived>,
}
