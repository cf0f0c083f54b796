//! What answers requests, and what takes connections over.

use std::future::Future;
use std::net::IpAddr;
use std::task::{Context, Poll};

use aquatic_common::Seconds;
use aquatic_http_protocol::{Framing, Head, Refused};
use aquatic_metrics::SampledHistogram;

/// A complete request.
pub struct WebRequest<'a> {
    /// Request line and header fields.
    pub head: &'a Head<'a>,
    /// Framing of the reply. It closes the connection if the client asked for that or the process is
    /// stopping.
    pub framing: Framing,
    /// Address of the client, or of the proxy it comes through; `None` for a proxy on a unix socket.
    pub peer: Option<IpAddr>,
    /// Time of the request.
    pub now: Seconds,
    /// Counts the connection to an address that a proxy has named. Returns whether that address may have
    /// another one.
    pub charge_address: &'a mut dyn FnMut(IpAddr) -> bool,
}

/// What becomes of a connection after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterReply {
    /// It stays open for further requests.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is closed, but what the client is still sending is received for a while, so that the reply is not
    /// lost.
    LingeringClose,
}

impl AfterReply {
    /// What the framing of a reply says.
    #[must_use]
    pub fn of(framing: Framing) -> Self {
        if framing.closes() { Self::Close } else { Self::KeepAlive }
    }
}

/// What a request comes to.
#[derive(Debug)]
pub enum Outcome<W> {
    /// A reply of this many bytes has been written.
    Reply(usize, AfterReply),
    /// The reply depends on something that has to be waited for.
    Wait(W),
}

/// Something that a reply is waiting for. Dropping it gives up.
pub trait Waiting {
    /// Completes when the reply can be written.
    fn poll(&mut self, context: &Context<'_>) -> Poll<()>;
}

/// Why a source gets neither pages nor `/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is on the block list.
    Blocked,
    /// It asks for more than its rate limit allows.
    RateLimit,
}

/// Answers requests. One value per core.
pub trait Site: 'static {
    /// What the site keeps with each connection. It is kept between requests, so it should be small.
    type State: Default;

    /// What it waits for.
    type Waiting: Waiting;

    /// Size of the largest reply in bytes.
    fn longest_reply(&self) -> usize;

    /// Answers a request. `reply` has room for at least [`longest_reply`](Self::longest_reply) bytes.
    fn respond(
        &mut self,
        request: &mut WebRequest<'_>,
        state: &mut Self::State,
        reply: &mut [u8],
    ) -> Outcome<Self::Waiting>;

    /// Writes the reply that has been waited for, once [`Waiting::poll`] has completed. Returns its length.
    fn finish(&mut self, waiting: Self::Waiting, reply: &mut [u8]) -> (usize, AfterReply);

    /// Writes the reply to what is not an HTTP request that can be served. Returns its length.
    fn refuse(&mut self, refused: Refused, reply: &mut [u8]) -> usize;

    /// Charges a request that is neither an announce nor a scrape, such as one for a page, to its source.
    ///
    /// # Errors
    /// It may not be answered, and has been counted.
    fn admit(&mut self, request: &WebRequest<'_>) -> Result<(), Denied>;

    /// Counts a reply to `/health`.
    fn count_health(&self);

    /// Counts received and sent bytes.
    fn count_bytes(&self, received: usize, sent: usize);

    /// Times from receiving requests to giving their replies to the kernel, of a part of the reads.
    fn durations(&self) -> Option<&SampledHistogram> {
        None
    }
}

/// What a request for an upgrade comes to.
#[derive(Debug)]
pub enum UpgradeOutcome<A> {
    /// The response, of this many bytes, has been written; the connection is handed over with what was
    /// accepted.
    Accepted(usize, A),
    /// A reply of this many bytes has been written.
    Reply(usize, AfterReply),
}

/// A connection that has become a WebSocket.
#[derive(Debug)]
pub struct Upgraded<C, A> {
    /// The connection.
    pub connection: C,
    /// What [`Upgrade::respond`] has accepted.
    pub accepted: A,
    /// Bytes received behind the request.
    pub received: Vec<u8>,
}

/// Takes over connections of clients that ask for WebSocket. One value per core.
pub trait Upgrade<C>: 'static {
    /// What is known of a client once its request has been accepted.
    type Accepted;

    /// Answers a request to go on with WebSocket.
    fn respond(&mut self, request: &mut WebRequest<'_>, reply: &mut [u8]) -> UpgradeOutcome<Self::Accepted>;

    /// Answers a request to which no site answers, where WebSocket is all that is served. Returns the reply's
    /// length.
    fn explain(&mut self, request: &WebRequest<'_>, reply: &mut [u8]) -> usize;

    /// Writes the reply to what is not an HTTP request, where WebSocket is all that is served. Returns its
    /// length.
    fn refuse(&mut self, refused: Refused, reply: &mut [u8]) -> usize;

    /// Charges a request for a page or for `/health` to its source, where WebSocket is all that is served.
    ///
    /// # Errors
    /// It may not be answered, and has been counted.
    fn admit(&mut self, request: &WebRequest<'_>) -> Result<(), Denied>;

    /// Counts a reply to `/health`, where WebSocket is all that is served.
    fn count_health(&self);

    /// Serves the connection until it ends.
    fn serve(&self, upgraded: Upgraded<C, Self::Accepted>) -> impl Future<Output = ()> + 'static;
}

/// For fronts that serve no WebSocket.
#[derive(Debug)]
pub enum NoUpgrade {}

impl<C> Upgrade<C> for NoUpgrade {
    type Accepted = ();

    fn respond(&mut self, _request: &mut WebRequest<'_>, _reply: &mut [u8]) -> UpgradeOutcome<()> {
        match *self {}
    }

    fn explain(&mut self, _request: &WebRequest<'_>, _reply: &mut [u8]) -> usize {
        match *self {}
    }

    fn refuse(&mut self, _refused: Refused, _reply: &mut [u8]) -> usize {
        match *self {}
    }

    fn admit(&mut self, _request: &WebRequest<'_>) -> Result<(), Denied> {
        match *self {}
    }

    fn count_health(&self) {
        match *self {}
    }

    fn serve(&self, _upgraded: Upgraded<C, ()>) -> impl Future<Output = ()> + 'static {
        std::future::ready(())
    }
}
