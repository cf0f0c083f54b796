//! What a handler of datagrams sees of a batch, however it was received.

use std::net::SocketAddr;

use super::batch::{BATCH, Batch, ReturnPath};

/// A batch of at most [`BATCH`] received datagrams with room for a reply to each.
pub trait Datagrams {
    /// Number of datagrams.
    fn count(&self) -> usize;
    /// Bytes of a datagram.
    fn request(&self, at: usize) -> &[u8];
    /// Whether the datagram was longer than what [`request`](Self::request) returns of it.
    fn is_truncated(&self, at: usize) -> bool;
    /// Address and port of the sender; `None` if that is no IP address.
    fn source(&self, at: usize) -> Option<SocketAddr>;
    /// What another core needs to reply to the datagram.
    fn return_path(&self, at: usize) -> ReturnPath;
    /// Room for the reply.
    fn reply_buffer(&mut self, at: usize) -> &mut [u8];
    /// Sets the length of the reply; 0 for none.
    fn set_reply_len(&mut self, at: usize, len: usize);
}

impl Datagrams for Batch {
    fn count(&self) -> usize {
        self.len().min(BATCH)
    }

    fn request(&self, at: usize) -> &[u8] {
        self.request(at)
    }

    fn is_truncated(&self, at: usize) -> bool {
        self.is_truncated(at)
    }

    fn source(&self, at: usize) -> Option<SocketAddr> {
        self.source(at)
    }

    fn return_path(&self, at: usize) -> ReturnPath {
        self.return_path(at)
    }

    fn reply_buffer(&mut self, at: usize) -> &mut [u8] {
        self.reply_buffer(at)
    }

    fn set_reply_len(&mut self, at: usize, len: usize) {
        self.set_reply_len(at, len);
    }
}
