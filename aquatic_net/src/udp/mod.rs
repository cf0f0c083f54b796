//! Batched UDP. A listener is a group of sockets on one address, one per core, bound in core order; a small
//! program in the kernel hands each announce to the socket of the core that owns its torrent. Datagrams come
//! in and go out in batches of up to [`BATCH`], and replies leave from the address the client contacted.
//!
//! What belongs here is the transport: sockets, batches, steering. What the bytes mean belongs to the
//! service.

mod batch;
mod datagrams;
mod drop_filter;
mod network_set;
mod socket;
mod steering_program;
mod sys;
#[cfg(test)]
mod tests;

pub use batch::{BATCH, Batch, REPLY_CAPACITY, REQUEST_CAPACITY, ReturnPath, SendErrors};
pub use datagrams::Datagrams;
pub use drop_filter::{DropFilter, MAX_NETWORKS, Ranges, Share};
pub use network_set::{NetworkSet, SetKey};
pub use socket::{BindOptions, QueueState, UdpSocket, bind_group};
