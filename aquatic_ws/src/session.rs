//! One WebSocket connection, from the upgrade to its end.
//!
//! Its task reads and writes within one poll. Connections of a core share a receive buffer. Their send queues
//! belong to the tracker, which wakes the task. An idle connection holds no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use aquatic_net::tcp::{Connection, Phase};
use aquatic_runtime::{Core, Outbox};
use aquatic_tracker::Admission;
use aquatic_web::Upgraded;
use futures_lite::{AsyncRead, AsyncWrite};

use crate::connections::End;
use crate::forwarding::ForwardedBatch;
use crate::frames::{Reader, write_close};
use crate::service::UpgradedClient;
use crate::swarm::ConnectionId;
use crate::tracker::{RequestContext, Tracker};

/// Maximum number of bytes per read, so that announces with all their offers are usually read at once.
const READ: usize = 64 * 1024;

/// Maximum number of reads per poll, after which other tasks of the core run.
const READS_PER_POLL: u32 = 4;

/// Tracker whose messages go to the other cores.
pub(crate) type CoreTracker = Tracker<Outbox<ForwardedBatch>>;

/// State that the tasks of a core share. Borrowed within one poll only.
pub(crate) struct CoreState {
    pub(crate) core: Rc<Core>,
    pub(crate) tracker: RefCell<CoreTracker>,
    pub(crate) admission: Admission,
    input: RefCell<Box<[u8]>>,
}

impl CoreState {
    pub(crate) fn new(core: Rc<Core>, tracker: CoreTracker, admission: Admission) -> Self {
        let input = RefCell::new(vec![0; READ].into_boxed_slice());
        Self { core, tracker: RefCell::new(tracker), admission, input }
    }

    /// Calls the tracker with its context.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut CoreTracker, &mut RequestContext<'_>) -> R) -> R {
        let mut rng = self.core.rng();
        let (admission, now, time) = (&self.admission, self.core.now(), self.core.time());
        let mut context = RequestContext { admission, now, time, rng: &mut rng };
        act(&mut self.tracker.borrow_mut(), &mut context)
    }
}

/// Serves a connection after its upgrade, until it ends.
pub(crate) async fn serve(state: Rc<CoreState>, upgraded: Upgraded<Connection, UpgradedClient>) {
    let Upgraded { connection, accepted: client, received } = upgraded;
    connection.deadline().upgrade();
    let id = state.with(|tracker, _| {
        let id = tracker.open(client.family);
        if let Some(source) = client.source {
            tracker.limit_source(id, source);
        }
        id
    });
    match client.source {
        Some(client) => log::trace!("ws: connection {id} is {client}'s"),
        None => log::trace!("ws: connection {id} is of a proxy that names no client"),
    }
    let registration = Registration { state, id };
    let mut session =
        Session { registration, connection, reader: Reader::default(), close: None, is_flushing: false };
    let end = match session.take_first(received) {
        Some(end) => end,
        None => poll_fn(|context| session.poll(context)).await,
    };
    Box::pin(session.finish(end)).await;
}

/// Registration of a connection with the tracker. Dropping it removes the connection and its peers.
struct Registration {
    state: Rc<CoreState>,
    id: ConnectionId,
}

impl Registration {
    fn remove(&self, end: End) -> Option<Vec<u8>> {
        self.state.with(|tracker, _| tracker.close(self.id, end))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.remove(End::Broken);
    }
}

struct Session {
    registration: Registration,
    connection: Connection,
    reader: Reader,
    /// Status code of the client's close frame.
    close: Option<Option<u16>>,
    /// Whether TLS may have buffered data.
    is_flushing: bool,
}

impl Session {
    /// Serves data received together with the upgrade request.
    fn take_first(&mut self, mut received: Vec<u8>) -> Option<End> {
        if received.is_empty() { None } else { self.take(&mut received) }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let state = Rc::clone(&self.registration.state);
        let mut measured = None;
        state.core.tick();
        for _ in 0..READS_PER_POLL {
            if self.poll_write(context).is_err() {
                return Poll::Ready(End::Broken);
            }
            if let Some(since) = measured.take() {
                let time = state.core.tick().saturating_sub(since);
                state.tracker.borrow().counters.durations.add_time(time);
            }
            let most = {
                let mut tracker = state.tracker.borrow_mut();
                let readable = tracker.connections.readable(self.registration.id);
                match tracker.connections.get(self.registration.id) {
                    Some(connection) => {
                        if let Some(end) = connection.end {
                            return Poll::Ready(end);
                        }
                        connection.set_waker(context.waker());
                        if readable == 0 {
                            return Poll::Pending;
                        }
                        readable.min(READ)
                    }
                    None => return Poll::Ready(End::Broken),
                }
            };
            let is_due = state.tracker.borrow().counters.durations.is_due();
            let since = is_due.then(|| state.core.tick());
            let mut input = state.input.borrow_mut();
            match Pin::new(&mut self.connection).poll_read(context, &mut input[..most]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(End::Client),
                Poll::Ready(Ok(len)) => {
                    if let Some(end) = self.take(&mut input[..len]) {
                        return Poll::Ready(end);
                    }
                    state.tracker.borrow().counters.durations.advance();
                    measured = since;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
            }
        }
        if let Some(since) = measured {
            // The reply is sent at the next poll, which comes soon.
            let time = state.core.tick().saturating_sub(since);
            state.tracker.borrow().counters.durations.add_time(time);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends as much of the queue as the socket takes.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut tracker = self.registration.state.tracker.borrow_mut();
        loop {
            let Some(connection) = tracker.connections.get(self.registration.id) else { return Ok(()) };
            if connection.send_queue.is_empty() {
                break;
            }
            let sent =
                match Pin::new(&mut self.connection).poll_write(context, connection.send_queue.unsent()) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(sent)) => sent,
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => return Ok(()),
                };
            self.is_flushing = self.connection.is_tls();
            tracker.sent(self.registration.id, sent);
        }
        if self.is_flushing {
            match Pin::new(&mut self.connection).poll_flush(context) {
                Poll::Ready(flushed) => {
                    self.is_flushing = false;
                    flushed?;
                }
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Serves received data. Returns the reason if the connection ends.
    fn take(&mut self, received: &mut [u8]) -> Option<End> {
        let Self { registration: Registration { state, id }, reader, close, .. } = self;
        let ended = state.with(|tracker, context| tracker.receive_bytes(*id, reader, received, context))?;
        *close = ended.close;
        Some(ended.end)
    }

    /// Ends the connection, after removing its peers.
    async fn finish(self, end: End) {
        let Self { registration, mut connection, reader, close, .. } = self;
        // It may hold a long message, which must not wait for the client.
        drop(reader);
        let unsent = registration.remove(end).unwrap_or_default();
        drop(registration);
        let mut frame = Vec::new();
        match (end, close) {
            // The code of the client is returned if it may be sent (RFC 6455, section 7.4).
            (End::Client, Some(code)) => {
                write_close(
                    code.filter(|code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)),
                    "",
                    &mut frame,
                );
            }
            (End::Client, None) => {}
            _ => match end.close_frame() {
                Some((code, reason)) => write_close(Some(code), reason, &mut frame),
                None => return,
            },
        }
        connection.deadline().enter(Phase::Linger);
        let sent = match connection.send(&unsent).await {
            Ok(()) => connection.send(&frame).await,
            Err(error) => Err(error),
        };
        match (sent, end) {
            (Err(_), _) => {}
            (Ok(()), End::Client) => connection.close().await,
            (Ok(()), _) => connection.close_lingering().await,
        }
    }
}
