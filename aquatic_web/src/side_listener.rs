//! Listeners beside the cores: HTTP on an address and a thread of its own, so that it is answered while a
//! core has stalled. They serve a few clients; connections, their duration and their requests are bounded.
//! Whoever connects and asks for nothing keeps nobody out: at the limit such connections make room.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use aquatic_http_protocol::{Framing, Head, Parsed, PlainReply, Refusal, Status};
use aquatic_metrics::{Counter, Metric};
use aquatic_net::listen::BindError;
use aquatic_runtime::clock::Epoch;
use aquatic_runtime::{Engine, ListenAddress, ListenSockets, PassedSockets, Serving};

use crate::pages::PageRequest;

/// Maximum number of connections served at the same time; each has a thread. For a further one the oldest
/// whose request has not been received is closed; without one, the further one is. Both are counted.
const MAX_CONNECTIONS: usize = 8;

/// Maximum number of threads: those of connections that were closed end a moment later.
const MAX_THREADS: usize = 2 * MAX_CONNECTIONS;

/// Longest time from accepting a connection to the end of its request's head.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);

/// Longest time from accepting a connection to closing it, unless the responder takes it over.
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
    /// connections that were closed without a reply.
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
    let connections = Arc::new(Connections::default());
    serving.until_begun();
    while serving.until_readable(&listener) {
        match listener.accept() {
            Ok((stream, peer)) => {
                unserved.add(accept(stream, peer.ip().to_canonical(), side, &connections));
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

/// The connections of a listener.
#[derive(Default)]
struct Connections(Mutex<OpenConnections>);

#[derive(Default)]
struct OpenConnections {
    /// The oldest first.
    open: Vec<OpenConnection>,
    threads: usize,
    /// Number of connections so far.
    accepted: u64,
}

struct OpenConnection {
    number: u64,
    /// The connection while its request has not been received.
    awaiting_head: Option<Arc<TcpStream>>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a connection, and the number of those that were closed for it; `None` if there is no
    /// room.
    fn acquire(self: &Arc<Self>, stream: &Arc<TcpStream>) -> Option<(ConnectionPermit, u64)> {
        let mut connections = self.lock();
        if connections.threads >= MAX_THREADS {
            return None;
        }
        let is_full = connections.open.len() >= MAX_CONNECTIONS;
        if is_full {
            let oldest = connections.open.iter().position(|open| open.awaiting_head.is_some())?;
            if let Some(stream) = connections.open.remove(oldest).awaiting_head {
                // Its thread then reads the end. Fails if the peer has gone, which is as good.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        let number = connections.accepted;
        connections.accepted += 1;
        connections.threads += 1;
        connections.open.push(OpenConnection { number, awaiting_head: Some(Arc::clone(stream)) });
        Some((ConnectionPermit { connections: Arc::clone(self), number }, is_full.into()))
    }
}

/// Counts a connection, and its thread, while they exist.
struct ConnectionPermit {
    connections: Arc<Connections>,
    number: u64,
}

impl ConnectionPermit {
    /// The connection's request has been received: it no longer makes room for others. Returns whether it
    /// had not done so before.
    fn note_request(&self) -> bool {
        let mut connections = self.connections.lock();
        let own = connections.open.iter_mut().find(|open| open.number == self.number);
        own.is_some_and(|own| own.awaiting_head.take().is_some())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut connections = self.connections.lock();
        connections.threads -= 1;
        connections.open.retain(|open| open.number != self.number);
    }
}

/// Serves a connection on a thread of its own. Returns the number of connections that were closed without a
/// reply because of it.
fn accept(stream: TcpStream, peer: IpAddr, side: &Arc<Side>, connections: &Arc<Connections>) -> u64 {
    let stream = Arc::new(stream);
    let Some((permit, closed)) = connections.acquire(&stream) else { return 1 };
    let side = Arc::clone(side);
    let endpoint = side.endpoint;
    let started = thread::Builder::new().name(format!("aquatic-{endpoint}-connection")).spawn(move || {
        if let Err(error) = serve_connection(stream, peer, (&side, &permit)) {
            log::debug!("{endpoint} endpoint: {error}");
        }
        drop(permit);
    });
    if let Err(error) = &started {
        log::debug!("{endpoint} endpoint: cannot start a thread: {error}");
    }
    closed + u64::from(started.is_err())
}

fn serve_connection(
    stream: Arc<TcpStream>,
    peer: IpAddr,
    (side, permit): (&Side, &ConnectionPermit),
) -> io::Result<()> {
    let begin = side.epoch.elapsed();
    let left = |limit: Duration| (begin + limit).saturating_sub(side.epoch.elapsed());
    let mut head = Vec::with_capacity(1024);
    let reply = loop {
        if let Some(reply) = reply_to(&head, Some(peer), &*side.responder) {
            break reply;
        }
        stream.set_read_timeout(Some(until(left(HEAD_DEADLINE))?))?;
        let mut bytes = [0; 1024];
        match (&*stream).read(&mut bytes)? {
            0 => return Ok(()),
            len => head.extend_from_slice(bytes.get(..len).unwrap_or_default()),
        }
    };
    if !permit.note_request() {
        return Ok(());
    }
    // The list of connections has no longer a share of it.
    let Some(mut stream) = Arc::into_inner(stream) else { return Ok(()) };
    let mut unsent = &*reply.bytes;
    while !unsent.is_empty() {
        stream.set_write_timeout(Some(until(left(DEADLINE))?))?;
        match stream.write(unsent)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            len => unsent = unsent.get(len..).unwrap_or_default(),
        }
    }
    match reply.take_over {
        Some(take_over) => {
            stream.set_write_timeout(Some(DEADLINE))?;
            take_over(stream);
            Ok(())
        }
        None => stream.shutdown(Shutdown::Write),
    }
}

/// What is left of a deadline, or an error if nothing is.
fn until(left: Duration) -> io::Result<Duration> {
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
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

    /// A connection of the listener, and the client's end of it.
    fn connect(listener: &TcpListener) -> (Arc<TcpStream>, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Arc::new(listener.accept().unwrap().0), client)
    }

    #[test]
    fn at_the_limit_the_oldest_connection_without_a_request_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connections = Arc::new(Connections::default());
        let mut open: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| {
                let (stream, client) = connect(&listener);
                let (permit, closed) = connections.acquire(&stream).unwrap();
                assert_eq!(closed, 0);
                (permit, client)
            })
            .collect();
        assert!(open[0].0.note_request());
        let (stream, _client) = connect(&listener);
        let (permit, closed) = connections.acquire(&stream).unwrap();
        assert_eq!((closed, open[1].1.read(&mut [0]).unwrap()), (1, 0), "the second one is closed");
        assert!(!open[1].0.note_request(), "it has made room");
        assert!(permit.note_request());
        assert!(open[2..].iter().all(|(permit, _)| permit.note_request()));
        assert!(connections.acquire(&stream).is_none(), "all are served");
        drop(open.pop());
        assert_eq!(connections.acquire(&stream).map(|(_, closed)| closed), Some(0));
        drop((permit, open));
        let connections = connections.lock();
        assert!(connections.open.is_empty() && connections.threads == 0);
    }

    #[test]
    fn threads_are_limited_while_those_of_closed_connections_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connections = Arc::new(Connections::default());
        let (stream, _client) = connect(&listener);
        let permits: Vec<_> = (0..MAX_THREADS).map(|_| connections.acquire(&stream).unwrap()).collect();
        assert!(connections.acquire(&stream).is_none());
        drop(permits);
        assert!(connections.acquire(&stream).is_some());
    }
}
