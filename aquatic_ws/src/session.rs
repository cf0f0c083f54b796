//! One connection: from its first byte to its end.
//!
//! A task reads and writes within one poll. What is received is served from a buffer that all connections of the core
//! share; what waits to be sent is kept by the tracker, which wakes the task. A connection that is idle holds no buffer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use aquatic_common::Family;
use aquatic_net::tcp::{Connection, Phase};
use aquatic_runtime::channel::Overflow;
use aquatic_runtime::{Channel, Core};
use aquatic_tracker::SharedAccessList;
use aquatic_web::Upgraded;
use aquatic_ws_protocol::{Action, Fault, Refused};
use futures_lite::{AsyncRead, AsyncWrite};

use crate::connections::End;
use crate::forwarding::ForwardedBatch;
use crate::frames::{FrameFault, Incoming, Reader, frame_length, write_close, write_pong};
use crate::send_queue::SendQueue;
use crate::swarm::ConnectionId;
use crate::tracker::{RequestContext, Tracker};

/// Most bytes taken in by one read: announces with their offers come whole.
const READ: usize = 64 * 1024;

/// The share of what may wait for a client that may wait while it is read from, and that is read at once. Replies have up
/// to four times the length of the requests for them, so a client that receives is never sent more than may wait.
const READ_SHARE: usize = 8;

/// Reads of one connection, one after the other, before other tasks of the core get their turn.
const READS_PER_TURN: u32 = 4;

/// What the tasks of a core share. Borrowed within one poll only.
pub(crate) struct CoreState {
    pub(crate) core: Rc<Core>,
    pub(crate) tracker: RefCell<Tracker>,
    access_list: Arc<SharedAccessList>,
    channel: Channel<ForwardedBatch>,
    input: RefCell<Box<[u8]>>,
    /// Wakes the task that sends what waits for other cores.
    flusher: Cell<Option<Waker>>,
}

impl CoreState {
    pub(crate) fn new(
        core: Rc<Core>,
        tracker: Tracker,
        access_list: Arc<SharedAccessList>,
        channel: Channel<ForwardedBatch>,
    ) -> Self {
        let input = RefCell::new(vec![0; READ].into_boxed_slice());
        Self { core, tracker: RefCell::new(tracker), access_list, channel, input, flusher: Cell::new(None) }
    }

    /// Runs something on the tracker, with the time and all it needs, and sees to it that what it has for other cores is
    /// sent.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Tracker, &mut RequestContext<'_>) -> R) -> R {
        let access_list = self.access_list.current();
        let mut rng = self.core.rng();
        let mut context = RequestContext { access_list: &access_list, now: self.core.now(), rng: &mut rng };
        let mut tracker = self.tracker.borrow_mut();
        let result = act(&mut tracker, &mut context);
        if tracker.has_outgoing()
            && let Some(flusher) = self.flusher.take()
        {
            flusher.wake();
        }
        result
    }

    /// Sends what waits for other cores. Returns whether there was room for everything.
    pub(crate) fn flush(&self) -> bool {
        let mut tracker = self.tracker.borrow_mut();
        let mut all = true;
        for core in 0..self.core.count() {
            let Some(outbox) = tracker.outbox(core) else { continue };
            if let Some(batch) = outbox.take()
                && let Err(Overflow(batch)) = self.channel.try_send(core, batch)
            {
                outbox.put_back(batch);
                all = false;
            }
        }
        all
    }

    /// Completes when there may be something for other cores.
    pub(crate) async fn outgoing(&self) {
        let mut is_first = true;
        poll_fn(|context| {
            if !std::mem::take(&mut is_first) {
                return Poll::Ready(());
            }
            self.flusher.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Serves a connection that has become a WebSocket until it ends.
pub(crate) async fn serve(state: Rc<CoreState>, upgraded: Upgraded<Connection, Family>) {
    let Upgraded { connection, accepted: family, received } = upgraded;
    connection.deadline().upgrade();
    let id = state.with(|tracker, _| tracker.open(family));
    let membership = Membership { state, id };
    let mut session =
        Session { membership, connection, reader: Reader::default(), close: None, is_flushing: false };
    let end = match session.take_first(received) {
        Some(end) => end,
        None => poll_fn(|context| session.poll(context)).await,
    };
    Box::pin(session.finish(end)).await;
}

/// A connection's place in the tracker; however the connection ends, it is given back.
struct Membership {
    state: Rc<CoreState>,
    id: ConnectionId,
}

impl Membership {
    fn leave(&self, end: End) -> Option<SendQueue> {
        self.state.with(|tracker, _| tracker.close(self.id, end))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave(End::Broken);
    }
}

struct Session {
    membership: Membership,
    connection: Connection,
    reader: Reader,
    /// The client's close frame, if it has sent one.
    close: Option<Option<u16>>,
    /// Whether something is left in the buffers of TLS.
    is_flushing: bool,
}

impl Session {
    /// Serves what has come together with the upgrade.
    fn take_first(&mut self, mut received: Vec<u8>) -> Option<End> {
        if received.is_empty() { None } else { self.take(&mut received) }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let state = Rc::clone(&self.membership.state);
        state.core.tick();
        for _ in 0..READS_PER_TURN {
            if self.poll_write(context).is_err() {
                return Poll::Ready(End::Broken);
            }
            let most = {
                let mut tracker = state.tracker.borrow_mut();
                let most = tracker.connections.limits().send_queue.max_bytes / READ_SHARE;
                match tracker.connections.get(self.membership.id) {
                    Some(connection) => {
                        if let Some(end) = connection.end {
                            return Poll::Ready(end);
                        }
                        connection.set_waker(context.waker());
                        if !connection.may_read() || connection.send_queue.len() >= most {
                            return Poll::Pending;
                        }
                        most.min(READ)
                    }
                    None => return Poll::Ready(End::Broken),
                }
            };
            let mut input = state.input.borrow_mut();
            match Pin::new(&mut self.connection).poll_read(context, &mut input[..most]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(End::Client),
                Poll::Ready(Ok(len)) => {
                    if let Some(end) = self.take(&mut input[..len]) {
                        return Poll::Ready(end);
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends as much of what waits as the socket takes.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut tracker = self.membership.state.tracker.borrow_mut();
        loop {
            let Some(connection) = tracker.connections.get(self.membership.id) else { return Ok(()) };
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
            tracker.connections.data_sent(self.membership.id, sent);
            tracker.counters.sent.add(sent as u64);
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

    /// Serves what has been received. Returns the end, if this was it.
    fn take(&mut self, received: &mut [u8]) -> Option<End> {
        let Self { membership: Membership { state, id }, reader, close, .. } = self;
        let id = *id;
        state.with(|tracker, context| {
            tracker.counters.received.add(received.len() as u64);
            tracker.connections.set_current(Some(id));
            let mut end = None;
            let max_message = tracker.max_message_length();
            let read = reader.read(received, max_message, &mut |incoming| {
                tracker.connections.frame_received(id, incoming.completes_message());
                match incoming {
                    Incoming::Text(text) => match simdutf8::basic::from_utf8(text) {
                        Ok(text) => tracker.receive(id, text, context),
                        Err(_) => end = Some(End::NotUtf8),
                    },
                    Incoming::Binary(bytes) => match simdutf8::basic::from_utf8(bytes) {
                        Ok(text) => tracker.receive(id, text, context),
                        Err(_) => tracker.refuse_malformed(id, &NOT_UTF8),
                    },
                    Incoming::Ping(payload) => {
                        let length = frame_length(payload.len());
                        // A client that pings on and on without receiving ends.
                        let _ = tracker.connections.push(id, length, |out| write_pong(payload, out));
                    }
                    Incoming::Fragment | Incoming::Pong => {}
                    Incoming::Close(code) => {
                        *close = Some(code);
                        end = Some(End::Client);
                    }
                }
                let has_ended = tracker.connections.get(id).is_none_or(|connection| connection.end.is_some());
                if end.is_some() || has_ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            tracker.connections.data_received(id, reader.has_partial_message());
            tracker.connections.set_current(None);
            match read {
                Ok(()) => end,
                Err(FrameFault::Protocol) => Some(End::Protocol),
                Err(FrameFault::TooLong) => Some(End::TooLong),
            }
        })
    }

    /// Ends the connection; its peers go first.
    async fn finish(self, end: End) {
        let Self { membership, mut connection, close, .. } = self;
        let unsent = membership.leave(end).unwrap_or_default();
        drop(membership);
        let mut frame = Vec::new();
        match (end, close) {
            // Its own code comes back, unless it is none that may be sent.
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
        let sent = match connection.send(unsent.unsent()).await {
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

const NOT_UTF8: Refused = Refused { action: Action::Announce, info_hash: None, fault: Fault::NotUtf8 };
