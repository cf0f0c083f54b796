//! Listeners beside the cores: HTTP on an address and a thread of its own, so that it is answered while a
//! core has stalled. They serve a few clients; connections, their duration and their requests are bounded.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use aquatic_http_protocol::{Framing, Head, Parsed, PlainReply, Refusal, Status};
use aquatic_metrics::{Counter, Metric};
use aquatic_net::listen::BindError;
use aquatic_runtime::clock::Epoch;
use aquatic_runtime::{Engine, ListenAddress, ListenSockets, PassedSockets, Serving};

use crate::pages::PageRequest;

/// Maximum number of connections served at the same time; each has a thread. Further ones are closed at once,
/// and counted.
const MAX_CONNECTIONS: usize = 8;

/// Longest time from accepting a connection to closing it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Maximum length of a request's head in bytes.
pub(crate) const MAX_HEAD: usize = 8 * 1024;

/// Pause after an accept that failed, for example because too many files are open.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// What takes over a connection once the head of the reply has been sent.
pub type TakeOver = Box<dyn FnOnce(TcpStream) + Send>;

/// A reply to a request.
pub struct SideReply {
    /// The bytes to be sent.
    pub bytes: Vec<u8>,
    /// What takes the connection over afterwards; it is closed otherwise.
    pub take_over: Option<TakeOver>,
}

impl fmt::Debug for SideReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SideReply").field("length", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl SideReply {
    /// A reply after which the connection is closed.
    #[must_use]
    pub fn whole(bytes: Vec<u8>) -> Self {
        Self { bytes, take_over: None }
    }
}

/// Answers the requests of a listener. Each runs on the thread of its connection.
pub trait Responder: Send + Sync + 'static {
    /// Returns the reply to a request, whose framing closes the connection.
    fn respond(&self, request: &PageRequest<'_>) -> SideReply;
}

/// A bound listener.
#[derive(Debug)]
pub struct SideListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl SideListener {
    /// Takes a socket that was passed to the process, or makes one, and keeps a duplicate to be passed on.
    ///
    /// # Errors
    /// Those of `bind`.
    pub fn bind(address: SocketAddr, sockets: &mut ListenSockets) -> Result<Self, BindError> {
        let explain = |error: io::Error| BindError::new("TCP", address, &error);
        let passed = match sockets.take(&ListenAddress::Stream(address)) {
            PassedSockets::None => None,
            PassedSockets::Shared(fd) => Some(fd),
            PassedSockets::PerCore(fds) => fds.into_iter().next(),
        };
        let listener =
            passed.map_or_else(|| TcpListener::bind(address), |fd| Ok(fd.into())).map_err(explain)?;
        let address = listener.local_addr().map_err(explain)?;
        listener.set_nonblocking(true).map_err(explain)?;
        sockets.keep(ListenAddress::Stream(address), 0, &listener).map_err(explain)?;
        Ok(Self { listener, address })
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has the engine serve connections on a thread. `endpoint` is its name in the log; `unserved` counts
    /// connections that were closed at once.
    pub fn serve(
        self,
        engine: &mut Engine,
        (endpoint, unserved): (&'static str, &'static Metric),
        responder: Arc<dyn Responder>,
    ) {
        let unserved = engine.registry().main_thread().counter(unserved, &[]);
        let side = Side { endpoint, responder, epoch: engine.epoch() };
        let serving = engine.serving();
        engine.add_side_thread(&format!("aquatic-{endpoint}"), move || {
            serve(self.listener, (&Arc::new(side), &serving), &unserved);
        });
    }
}

/// What the connections of a listener share.
struct Side {
    endpoint: &'static str,
    responder: Arc<dyn Responder>,
    epoch: Epoch,
}

/// Serves for as long as the process does.
fn serve(listener: TcpListener, (side, serving): (&Arc<Side>, &Serving), unserved: &Counter) -> ! {
    let connections = Arc::new(AtomicUsize::new(0));
    serving.until_begun();
    while serving.until_readable(&listener) {
        match listener.accept() {
            Ok((stream, peer)) => {
                if !accept(stream, peer.ip().to_canonical(), side, &connections) {
                    unserved.add(1);
                }
            }
            Err(error) if [ErrorKind::ConnectionAborted, ErrorKind::WouldBlock].contains(&error.kind()) => {}
            Err(error) => {
                log::debug!("{} endpoint: cannot accept a connection: {error}", side.endpoint);
                unserved.add(1);
                pause();
            }
        }
    }
    drop(listener);
    loop {
        thread::park();
    }
}

#[allow(clippy::disallowed_methods, reason = "the thread of a side listener has nothing else to do")]
fn pause() {
    thread::sleep(PAUSE_AFTER_ERROR);
}

/// Counts a connection while it exists.
struct ConnectionPermit(Arc<AtomicUsize>);

impl ConnectionPermit {
    fn acquire(connections: &Arc<AtomicUsize>) -> Option<Self> {
        let permit = Self(Arc::clone(connections));
        (connections.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS).then_some(permit)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection on a thread of its own. Returns whether there was room for it.
fn accept(stream: TcpStream, peer: IpAddr, side: &Arc<Side>, connections: &Arc<AtomicUsize>) -> bool {
    let Some(permit) = ConnectionPermit::acquire(connections) else { return false };
    let side = Arc::clone(side);
    let endpoint = side.endpoint;
    let started = thread::Builder::new().name(format!("aquatic-{endpoint}-connection")).spawn(move || {
        if let Err(error) = serve_connection(stream, peer, &side) {
            log::debug!("{endpoint} endpoint: {error}");
        }
        drop(permit);
    });
    if let Err(error) = &started {
        log::debug!("{endpoint} endpoint: cannot start a thread: {error}");
    }
    started.is_ok()
}

fn serve_connection(mut stream: TcpStream, peer: IpAddr, side: &Side) -> io::Result<()> {
    let deadline = side.epoch.elapsed() + DEADLINE;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut head = Vec::with_capacity(1024);
    let reply = loop {
        if let Some(reply) = reply_to(&head, Some(peer), &*side.responder) {
            break reply;
        }
        let left = deadline.saturating_sub(side.epoch.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            len => head.extend_from_slice(bytes.get(..len).unwrap_or_default()),
        }
    };
    stream.write_all(&reply.bytes)?;
    match reply.take_over {
        Some(take_over) => {
            take_over(stream);
            Ok(())
        }
        None => stream.shutdown(Shutdown::Write),
    }
}

/// Reply to what has been received; `None` while the head is incomplete.
pub(crate) fn reply_to(
    received: &[u8],
    peer: Option<IpAddr>,
    responder: &dyn Responder,
) -> Option<SideReply> {
    match Head::parse(received, MAX_HEAD) {
        Parsed::NeedMore => None,
        Parsed::Complete(head) => {
            let framing = head.framing.closing();
            Some(responder.respond(&PageRequest { head: &head, framing, peer }))
        }
        Parsed::Refused(refused) => {
            let framing = refused.framing.closing();
            Some(SideReply::whole(match refused.refusal {
                Refusal::Http(fault) => encode(&fault.reply(), framing),
                Refusal::Tracker(fault) => {
                    encode(&PlainReply::text(Status::BadRequest, fault.reason().as_str()), framing)
                }
            }))
        }
    }
}

/// A whole response.
#[must_use]
pub fn encode(reply: &PlainReply<'_>, framing: Framing) -> Vec<u8> {
    let mut bytes = vec![0; reply.length(framing)];
    // The buffer is as long as the reply.
    let written = reply.encode(framing, &mut bytes).unwrap_or_default();
    bytes.truncate(written);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_and_permits_given_back() {
        let connections = Arc::new(AtomicUsize::new(0));
        let mut permits: Vec<_> =
            (0..MAX_CONNECTIONS).map(|_| ConnectionPermit::acquire(&connections).unwrap()).collect();
        assert!(ConnectionPermit::acquire(&connections).is_none());
        permits.pop();
        assert!(ConnectionPermit::acquire(&connections).is_some());
        drop(permits);
        assert_eq!(connections.load(Ordering::Relaxed), 0);
    }
}
