//! Replies whose bodies many clients share, and streams of events.
//!
//! A body is not copied into the buffers of a core or of a connection: a client that does not receive holds
//! a reference to it, whatever its size.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use aquatic_http_protocol::{Framing, Head};

use crate::site::AfterReply;

/// A request that is not one of the tracker protocol.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    /// Request line and header fields.
    pub head: &'a Head<'a>,
    /// Framing of the reply.
    pub framing: Framing,
    /// Address of the client, or of the proxy it comes through; `None` for a proxy on a unix socket.
    pub peer: Option<IpAddr>,
}

/// What follows the head of a reply.
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes that replies share.
    Shared(Arc<[u8]>),
    /// Events, until either end closes the connection.
    Events(Box<dyn Events>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Shared(_) => "Shared",
            Self::Events(_) => "Events",
        })
    }
}

/// A stream of events to one client. Dropping it ends it.
pub trait Events {
    /// The bytes to be sent next; `None` at the end of the stream.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<[u8]>>>;

    /// The client has not taken the last bytes in time, and the stream ends.
    fn not_received(&mut self);
}

/// A reply: its head has been written.
#[derive(Debug)]
pub struct PageReply {
    /// Length of the head in bytes.
    pub written: usize,
    /// What follows it.
    pub body: Body,
    /// What becomes of the connection.
    pub after: AfterReply,
}

/// Answers requests for pages. One value per core.
pub trait Pages {
    /// Writes the head of a reply, of at most 2048 bytes; `None` if the path names no page.
    fn respond(&self, request: &PageRequest<'_>, reply: &mut [u8]) -> Option<PageReply>;
}
