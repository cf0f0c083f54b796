//! Datagrams that bypass the network stack (AF_XDP). A program in the kernel picks the frames for the tracker
//! from what an interface receives and puts them into a socket for each of its queues; a reply is written
//! into the frame of its request, which then goes back to where it came from. What the program does not know
//! well goes to the ordinary sockets.
//!
//! - [`open`]: attaches the program and opens the sockets, with the privileges that this needs.
//! - [`XdpQueue`]: a queue on its core; [`XdpBatch`] is what handlers see of it.
//! - [`XdpControl`]: the main thread's part: addresses that come and go, blocked networks.
//! - [`frame`]: frames, pure.

mod assembler;
mod control;
mod endpoints;
pub mod frame;
mod program;
mod queue;
mod setup;
mod sys;

pub use control::XdpControl;
pub use queue::{MIN_REPLY_ROOM, QUEUE_ROOM, QueueLosses, XdpBatch, XdpQueue};
pub use setup::{Mode, Opened, XdpError, XdpOptions, is_missing, memory_of, open};
