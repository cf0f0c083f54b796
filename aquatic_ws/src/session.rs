//! One connection: from its first byte to its end.
//!
//! A task reads and writes within one poll. What is received is served from a buffer that all connections of the core
//! share; what waits to be sent is kept by the tracker, which wakes the task. A connection that is idle holds no buffer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aquatic_common::Family;
use aquatic_http_protocol::{DEFAULT_MAX_HEAD_LENGTH, Head, Taken};
use aquatic_runtime::Core;
use aquatic_runtime::mesh::{Carries, Overflow};
use aquatic_runtime::proxy::ForwardedHeaders;
use aquatic_runtime::tcp::{Connection, Phase};
use aquatic_ws_protocol::{Action, Fault, Refused};
use futures_lite::{AsyncRead, AsyncWrite};

use crate::connections::End;
use crate::frames::{FrameFault, Incoming, Next, Reader, text_length, write_close, write_pong};
use crate::message::Batch;
use crate::outbound::Outbound;
use crate::swarm::ConnectionId;
use crate::tracker::{Tracker, Turn};
use crate::upgrade::{Decision, Plain, decide};

/// Most bytes taken in by one read: announces with their offers come whole.
const READ: usize = 64 * 1024;

/// The share of what may wait for a client that may wait while it is read from, and that is read at once. Replies have up
/// to four times the length of the requests for them, so a client that receives is never sent more than may wait.
const READ_SHARE: usize = 8;

/// Reads of one connection, one after the other, before other tasks of the core get their turn.
const READS_PER_TURN: u32 = 4;

/// The service watches over connections itself; the connection layer's own deadline only has to hold when it stops.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Longest answer to a request that is no HTTP.
const REFUSAL: usize = 512;

/// What the tasks of a core share. Borrowed within one poll only.
pub(crate) struct Place<M: Send + 'static> {
    pub(crate) core: Rc<Core<M>>,
    pub(crate) tracker: RefCell<Tracker>,
    forwarded: ForwardedHeaders,
    input: RefCell<Box<[u8]>>,
    /// Wakes whoever sends what waits for other cores.
    flusher: Cell<Option<Waker>>,
}

impl<M: Carries<Batch> + Send + 'static> Place<M> {
    pub(crate) fn new(core: Rc<Core<M>>, tracker: Tracker, forwarded: ForwardedHeaders) -> Self {
        let input = RefCell::new(vec![0; READ].into_boxed_slice());
        Self { core, tracker: RefCell::new(tracker), forwarded, input, flusher: Cell::new(None) }
    }

    /// Runs something on the tracker, with the time and all it needs, and sees to it that what it has for other cores is
    /// sent.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Tracker, &mut Turn<'_>) -> R) -> R {
        let access_list = self.core.access_list();
        let mut rng = self.core.rng();
        let mut turn = Turn { access_list: &access_list, now: self.core.now(), rng: &mut rng };
        let mut tracker = self.tracker.borrow_mut();
        let result = act(&mut tracker, &mut turn);
        if tracker.has_mail()
            && let Some(flusher) = self.flusher.take()
        {
            flusher.wake();
        }
        result
    }

    /// Sends what waits for other cores. Whether there was room for everything.
    pub(crate) fn flush(&self) -> bool {
        let mut tracker = self.tracker.borrow_mut();
        let mut all = true;
        for core in 0..self.core.count() {
            let Some(mail) = tracker.mail(core) else { continue };
            if let Some(batch) = mail.take()
                && let Err(Overflow(batch)) = self.core.try_send(core, batch)
            {
                mail.put_back(batch);
                all = false;
            }
        }
        all
    }

    /// Completes when there may be something for other cores.
    pub(crate) async fn mail(&self) {
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

/// Serves a connection until it ends.
pub(crate) async fn serve<M>(place: Rc<Place<M>>, connection: Connection)
where
    M: Carries<Batch> + Send + 'static,
{
    // In memory of its own, which is given back when frames begin.
    let begun = Box::pin(begin(&place, connection)).await;
    let Some((connection, family, received)) = begun else { return };
    connection.pace().enter_for(Phase::Answer, FOREVER);
    let id = place.with(|tracker, _| tracker.open(family));
    let membership = Membership { place, id };
    let mut session =
        Session { membership, connection, reader: Reader::default(), close: None, is_flushing: false };
    let end = match session.take_first(received) {
        Some(end) => end,
        None => poll_fn(|context| session.poll(context)).await,
    };
    Box::pin(session.finish(end)).await;
}

/// Reads and answers the first request. Returns the connection, the family of the client and what has been received
/// behind the request, if frames follow.
async fn begin<M>(place: &Place<M>, mut connection: Connection) -> Option<(Connection, Family, Vec<u8>)>
where
    M: Carries<Batch> + Send + 'static,
{
    let mut received = Vec::new();
    loop {
        let is_first = received.is_empty();
        match connection.receive(&mut received, DEFAULT_MAX_HEAD_LENGTH).await {
            Ok(1..) if is_first => connection.pace().enter(Phase::Head),
            Ok(1..) => {}
            Ok(0) => {
                connection.close().await;
                return None;
            }
            Err(_) => return None,
        }
        let (response, plain) = match Head::take(&received, DEFAULT_MAX_HEAD_LENGTH) {
            Taken::NeedMore => continue,
            Taken::Whole(head) => {
                let (peer, length) = (connection.peer().ip(), head.length);
                match decide(&head, peer, &place.forwarded, |client| connection.claim(client)) {
                    Decision::Upgrade(accepted) => {
                        if let Some(why) = accepted.missing {
                            place.tracker.borrow().counters.no_client(why);
                        }
                        connection.pace().enter(Phase::Answer);
                        connection.send(&accepted.response).await.ok()?;
                        received.drain(..length);
                        let family = accepted.client.map_or(Family::V4, Family::of);
                        return Some((connection, family, received));
                    }
                    Decision::Answer(response, plain) => (response, plain),
                }
            }
            Taken::Refused(refused) => {
                let mut response = vec![0; REFUSAL];
                let length = refused.encode(&mut response).unwrap_or_default();
                response.truncate(length);
                (response, Plain::Malformed)
            }
        };
        place.tracker.borrow().counters.plain(plain);
        connection.pace().enter(Phase::Answer);
        connection.send(&response).await.ok()?;
        connection.close_lingering().await;
        return None;
    }
}

/// A connection's place in the tracker; however the connection ends, it is given back.
struct Membership<M: Carries<Batch> + Send + 'static> {
    place: Rc<Place<M>>,
    id: ConnectionId,
}

impl<M: Carries<Batch> + Send + 'static> Membership<M> {
    fn leave(&self, end: End) -> Option<Outbound> {
        self.place.with(|tracker, _| tracker.close(self.id, end))
    }
}

impl<M: Carries<Batch> + Send + 'static> Drop for Membership<M> {
    fn drop(&mut self) {
        self.leave(End::Broken);
    }
}

struct Session<M: Carries<Batch> + Send + 'static> {
    membership: Membership<M>,
    connection: Connection,
    reader: Reader,
    /// The client's close frame, if it has sent one.
    close: Option<Option<u16>>,
    /// Whether something is left in the buffers of TLS.
    is_flushing: bool,
}

impl<M: Carries<Batch> + Send + 'static> Session<M> {
    /// Serves what has come together with the upgrade.
    fn take_first(&mut self, mut received: Vec<u8>) -> Option<End> {
        if received.is_empty() { None } else { self.take(&mut received) }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let place = Rc::clone(&self.membership.place);
        place.core.tick();
        for _ in 0..READS_PER_TURN {
            if self.poll_write(context).is_err() {
                return Poll::Ready(End::Broken);
            }
            let most = {
                let mut tracker = place.tracker.borrow_mut();
                let most = tracker.connections.bounds().outbound.max_bytes / READ_SHARE;
                match tracker.connections.get(self.membership.id) {
                    Some(connection) => {
                        if let Some(end) = connection.end {
                            return Poll::Ready(end);
                        }
                        connection.set_waker(context.waker());
                        if !connection.may_read() || connection.outbound.len() >= most {
                            return Poll::Pending;
                        }
                        most.min(READ)
                    }
                    None => return Poll::Ready(End::Broken),
                }
            };
            let mut input = place.input.borrow_mut();
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
        let mut tracker = self.membership.place.tracker.borrow_mut();
        loop {
            let Some(connection) = tracker.connections.get(self.membership.id) else { return Ok(()) };
            if connection.outbound.is_empty() {
                break;
            }
            let sent = match Pin::new(&mut self.connection).poll_write(context, connection.outbound.unsent())
            {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => sent,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            };
            self.is_flushing = self.connection.is_tls();
            tracker.connections.note_sent(self.membership.id, sent);
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
        let Self { membership: Membership { place, id }, reader, close, .. } = self;
        let id = *id;
        place.with(|tracker, turn| {
            tracker.counters.received.add(received.len() as u64);
            tracker.connections.set_current(Some(id));
            let mut end = None;
            let max_message = tracker.max_message();
            let read = reader.read(received, max_message, &mut |incoming| {
                tracker.connections.note_frame(id);
                match incoming {
                    Incoming::Text(text) => match simdutf8::basic::from_utf8(text) {
                        Ok(text) => tracker.message(id, text, turn),
                        Err(_) => end = Some(End::NotUtf8),
                    },
                    Incoming::Binary(bytes) => match simdutf8::basic::from_utf8(bytes) {
                        Ok(text) => tracker.message(id, text, turn),
                        Err(_) => tracker.refuse(id, &NOT_UTF8),
                    },
                    Incoming::Ping(payload) => {
                        let length = text_length(payload.len());
                        // A client that pings on and on without receiving ends.
                        let _ = tracker.connections.push(id, length, |out| write_pong(payload, out));
                    }
                    Incoming::Pong => {}
                    Incoming::Close(code) => {
                        *close = Some(code);
                        end = Some(End::Client);
                    }
                }
                let has_ended = tracker.connections.get(id).is_none_or(|connection| connection.end.is_some());
                if end.is_some() || has_ended { Next::Nothing } else { Next::Frame }
            });
            tracker.connections.note_heard(id, reader.is_amid());
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
        connection.pace().enter(Phase::Linger);
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
