//! One connection: from its first byte to its end, or to its upgrade.
//!
//! Requests are received, served and answered within one poll, in buffers that all connections of the core
//! share: neither allocates for a request that is answered at once, and an idle connection holds no buffer.
//! What cannot go on at once, because a request is incomplete, the client does not receive, or a reply has to
//! be waited for, is kept by the connection itself.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aquatic_http_protocol::{Framing, Head, HttpFault, Parsed, Persistence, Refusal, Refused};
use aquatic_net::tcp::Phase;

use crate::front::{Front, READ_SIZE, Routed, Shared};
use crate::pages::{Body, Events};
use crate::site::{AfterReply, Site, Upgrade, Upgraded, Waiting, WebRequest};
use crate::transport::{Runtime, Transport};

/// Size of a request from which it is parsed again only when an empty line may have ended it, so that clients
/// that send byte by byte, or line by line, stay cheap. Below it each read is parsed, so that what is not
/// HTTP is refused early.
const MIN_RECHECK_BYTES: usize = 32;

/// Maximum number of times that a request of [`MIN_RECHECK_BYTES`] is parsed without being complete. Each
/// takes time in proportion to its length. More than one time means empty lines in front of it.
const MAX_RECHECKS: u32 = 8;

/// Reads of one connection that found something, one after the other, before other tasks of the core run.
const READS_PER_YIELD: u32 = 4;

pub(crate) struct Session<'a, S: Site, U, R, C> {
    front: &'a Front<S, U, R>,
    connection: C,
    peer: Option<IpAddr>,
    state: S::State,
    /// What has been received and not been served.
    kept: Vec<u8>,
    /// Whether what is kept is not a whole request, so that more has to be received.
    reading: bool,
    /// Whether the deadline for the head of a request is running.
    in_head: bool,
    /// Reads since the task last waited for anything.
    reads: u32,
    /// Number of times that the request at the front was parsed again.
    rechecks: u32,
}

/// What is left to do after a poll.
struct Rest<W, A> {
    unsent: Option<Vec<u8>>,
    next: Next<W, A>,
    /// When the read of a request that has to be waited for began, if it is measured.
    measured: Option<Duration>,
}

impl<W, A> Rest<W, A> {
    fn nothing(next: Next<W, A>) -> Self {
        Self { unsent: None, next, measured: None }
    }
}

/// What follows once the replies written so far have been sent.
enum Next<W, A> {
    /// Another request.
    Continue,
    /// A reply that has to be waited for.
    Wait(W),
    /// A body behind the head that has been written.
    Body(Body, AfterReply),
    /// The connection is handed over.
    Upgrade(A),
    /// The connection is closed.
    End(AfterReply),
}

impl<W, A> Next<W, A> {
    fn after(after: AfterReply) -> Self {
        if after == AfterReply::KeepAlive { Self::Continue } else { Self::End(after) }
    }
}

/// What has come of the requests received together.
struct Served<W, A> {
    /// Bytes of requests that have been served.
    taken: usize,
    /// Bytes of replies.
    written: usize,
    next: Next<W, A>,
    /// Whether more bytes are needed to continue.
    incomplete: bool,
}

impl<'a, S: Site, U: Upgrade<C>, R: Runtime, C: Transport> Session<'a, S, U, R, C> {
    pub(crate) fn new(front: &'a Front<S, U, R>, connection: C) -> Self {
        Self {
            peer: connection.peer(),
            front,
            connection,
            state: S::State::default(),
            kept: Vec::new(),
            reading: true,
            in_head: false,
            reads: 0,
            rechecks: 0,
        }
    }

    /// Serves the connection. Returns it if it has been upgraded; otherwise it has been closed.
    pub(crate) async fn run(mut self) -> Option<Upgraded<C, U::Accepted>> {
        // Whatever an error is about, nothing can be sent to the client any more.
        match self.serve().await.ok()? {
            Next::Upgrade(accepted) => {
                self.connection.enter(Phase::Answer);
                Some(Upgraded { connection: self.connection, accepted, received: self.kept })
            }
            Next::End(AfterReply::LingeringClose) => {
                self.connection.close_lingering().await;
                None
            }
            Next::End(_) | Next::Continue | Next::Wait(_) | Next::Body(..) => {
                self.connection.close().await;
                None
            }
        }
    }

    async fn serve(&mut self) -> io::Result<Next<S::Waiting, U::Accepted>> {
        loop {
            let Rest { unsent, next, measured } = poll_fn(|context| self.poll_requests(context)).await?;
            let sent = self.send_rest(unsent).await;
            let after = match next {
                Next::Wait(waiting) => {
                    let after = self.finish(waiting, measured).await?;
                    sent?;
                    after
                }
                _ if sent.is_err() => return sent.map(|()| next),
                Next::Continue => AfterReply::KeepAlive,
                Next::Body(body, after) => {
                    // Pages cost more than other replies, so they count like reads.
                    self.reads += 1;
                    // In memory of its own, so that connections without pages do not have its size.
                    Box::pin(self.send_body(body)).await?;
                    after
                }
                end @ (Next::Upgrade(_) | Next::End(_)) => return Ok(end),
            };
            if after != AfterReply::KeepAlive {
                return Ok(Next::End(after));
            }
            self.set_deadline();
            if self.reads >= READS_PER_YIELD {
                self.reads = 0;
                self.front.runtime.yield_now().await;
            }
        }
    }

    /// Sets the time within which more has to be received.
    fn set_deadline(&mut self) {
        if self.kept.is_empty() {
            self.enter(Phase::Idle);
        } else if self.reading && !self.in_head {
            self.enter(Phase::Head);
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.in_head = phase == Phase::Head;
        self.connection.enter(phase);
    }

    /// Receives, if more is needed, serves what is complete, and sends the replies.
    fn poll_requests(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Rest<S::Waiting, U::Accepted>>> {
        let mut shared = self.front.shared.borrow_mut();
        let shared = &mut *shared;
        let begin = self.kept.len();
        let mut end = begin;
        let mut measured = None;
        if self.reading {
            measured = shared.measures().then(|| self.front.runtime.tick());
            let read = self.poll_receive(context, &mut shared.input[end..][..READ_SIZE]);
            end += ready!(read)?;
            if end == begin {
                return Poll::Ready(Ok(Rest::nothing(Next::End(AfterReply::Close))));
            }
            shared.count_bytes(end - begin, 0);
            let new = &shared.input[begin..end];
            if begin >= MIN_RECHECK_BYTES && end < shared.max_request_size {
                if !has_empty_line(&self.kept, new) {
                    self.kept.extend_from_slice(new);
                    return Poll::Ready(Ok(Rest::nothing(Next::Continue)));
                }
                self.rechecks += 1;
            }
        }
        shared.input[..begin].copy_from_slice(&self.kept);
        let is_read = self.reading;
        let mut served = self.serve_all(shared, end);
        if served.taken == 0 && self.rechecks >= MAX_RECHECKS {
            served.written += shared.refuse(TOO_MANY_EMPTY_LINES, 0);
            served = Served { taken: end, next: Next::End(AfterReply::LingeringClose), ..served };
        }
        let Served { taken, written, next, incomplete } = served;
        self.reading = incomplete;
        self.in_head &= taken == 0;
        self.rechecks = if taken == 0 { self.rechecks } else { 0 };
        keep(&mut self.kept, &shared.input[taken..end]);
        if let Next::End(_) = next {
            self.connection.announce_end();
        }
        let sent = send_now(&mut self.connection, context, &shared.output[..written]);
        let unsent = match (sent, &next) {
            // The request is counted, and so is its reply, which cannot be sent either.
            (Err(_), Next::Wait(_)) => None,
            (sent, _) => sent?,
        };
        shared.count_bytes(0, written);
        if is_read && taken > 0 {
            shared.note_read();
        } else {
            measured = None;
        }
        if !matches!(next, Next::Wait(_)) {
            self.count_time(shared, measured.take());
        }
        Poll::Ready(Ok(Rest { unsent, next, measured }))
    }

    /// Counts the time since the beginning of a measured read.
    fn count_time(&self, shared: &Shared<S, U>, measured: Option<Duration>) {
        if let Some(since) = measured {
            shared.count_time(self.front.runtime.tick().saturating_sub(since));
        }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.connection).poll_read(context, room);
        if read.is_pending() {
            self.reads = 0;
        } else {
            self.reads += 1;
        }
        read
    }

    /// Serves requests in their order for as long as they are complete, their replies find room, and none has
    /// to be waited for.
    fn serve_all(&mut self, shared: &mut Shared<S, U>, end: usize) -> Served<S::Waiting, U::Accepted> {
        let mut served = Served { taken: 0, written: 0, next: Next::Continue, incomplete: false };
        // Out of the way of the sites, which write to the other buffer.
        let input = std::mem::take(&mut shared.input);
        let received = &input[..end];
        while shared.output.len() - served.written >= shared.longest_reply {
            let rest = &received[served.taken..];
            if rest.is_empty() {
                served.incomplete = true;
                break;
            }
            if !self.serve_one(shared, rest, &mut served) {
                break;
            }
        }
        served.incomplete |= served.taken == end;
        shared.input = input;
        served
    }

    /// Serves the request at the front of what has been received. Returns whether the next one may follow.
    fn serve_one(
        &mut self,
        shared: &mut Shared<S, U>,
        received: &[u8],
        served: &mut Served<S::Waiting, U::Accepted>,
    ) -> bool {
        let head = match Head::parse(received, shared.max_request_size) {
            Parsed::Complete(head) => head,
            Parsed::NeedMore => {
                served.incomplete = true;
                return false;
            }
            Parsed::Refused(refused) => {
                served.taken += received.len();
                served.written += shared.refuse(refused, served.written);
                served.next = Next::End(AfterReply::LingeringClose);
                return false;
            }
        };
        let connection = &mut self.connection;
        let framing = if connection.is_stopping() { head.framing.closing() } else { head.framing };
        let mut request = WebRequest {
            head: &head,
            framing,
            peer: self.peer,
            now: self.front.runtime.now(),
            charge_address: &mut |client| connection.charge_address(client),
        };
        served.taken += head.length;
        served.next = match shared.route(&mut request, &mut self.state, served.written) {
            Routed::Reply(written, after) => {
                served.written += written;
                Next::after(after)
            }
            Routed::Body(written, body, after) => {
                served.written += written;
                Next::Body(body, after)
            }
            Routed::Wait(waiting) => Next::Wait(waiting),
            Routed::Upgrade(written, accepted) => {
                served.written += written;
                Next::Upgrade(accepted)
            }
        };
        matches!(served.next, Next::Continue)
    }

    /// Waits for what a reply depends on, and sends the reply.
    async fn finish(
        &mut self,
        mut waiting: S::Waiting,
        measured: Option<Duration>,
    ) -> io::Result<AfterReply> {
        self.enter(Phase::Answer);
        poll_fn(|context| waiting.poll(context)).await;
        let mut waiting = Some(waiting);
        let send = |context: &mut Context<'_>| {
            let mut shared = self.front.shared.borrow_mut();
            let Shared { site, output, .. } = &mut *shared;
            let (Some(site), Some(waiting)) = (site, waiting.take()) else {
                return Poll::Ready(Ok((None, AfterReply::Close)));
            };
            let (written, after) = site.finish(waiting, output);
            site.count_bytes(0, written);
            if after != AfterReply::KeepAlive {
                self.connection.announce_end();
            }
            let unsent = send_now(&mut self.connection, context, &output[..written]);
            self.count_time(&shared, measured);
            Poll::Ready(unsent.map(|unsent| (unsent, after)))
        };
        let (unsent, after) = poll_fn(send).await?;
        self.send_rest(unsent).await?;
        Ok(after)
    }

    /// Sends what the client has not taken at once.
    async fn send_rest(&mut self, unsent: Option<Vec<u8>>) -> io::Result<()> {
        let Some(unsent) = unsent else { return Ok(()) };
        self.enter(Phase::Answer);
        self.send_all(&unsent).await
    }

    /// Sends what follows a head. It does not count as sent by the site.
    async fn send_body(&mut self, body: Body) -> io::Result<()> {
        match body {
            Body::Empty => Ok(()),
            Body::Shared(bytes) => {
                self.enter(Phase::Answer);
                self.send_all(&bytes).await
            }
            Body::Events(events) => self.send_events(events).await,
        }
    }

    /// Sends events until the stream ends, the client has gone, or the process stops. The client has the time
    /// of a reply to take each; in between, the connection is idle.
    async fn send_events(&mut self, mut events: Box<dyn Events>) -> io::Result<()> {
        let mut ignored = 0;
        loop {
            self.enter(Phase::Idle);
            let next = poll_fn(|context| {
                if let Poll::Ready(next) = events.poll_next(context) {
                    return Poll::Ready(Ok(next));
                }
                // For the end of the client, and of the time that the connection may be idle.
                let gone = ready!(poll_gone(&mut self.connection, context, &mut ignored));
                Poll::Ready(gone.map(|()| None))
            });
            let Some(bytes) = next.await? else { return Ok(()) };
            if self.connection.is_stopping() {
                return Ok(());
            }
            self.enter(Phase::Answer);
            let sent = self.send_all(&bytes).await;
            if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::TimedOut) {
                events.not_received();
            }
            sent?;
        }
    }

    async fn send_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        poll_fn(|context| {
            while !rest.is_empty() {
                match ready!(Pin::new(&mut self.connection).poll_write(context, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    sent => rest = rest.get(sent..).unwrap_or_default(),
                }
            }
            Pin::new(&mut self.connection).poll_flush(context)
        })
        .await
    }
}

/// Bytes that are ignored of a client that is sent events.
const MAX_IGNORED: usize = 4096;

/// Waits until a client has gone, or has sent more than is ignored.
fn poll_gone<C: Transport>(
    connection: &mut C,
    context: &mut Context<'_>,
    ignored: &mut usize,
) -> Poll<io::Result<()>> {
    let mut scratch = [0; 256];
    while *ignored <= MAX_IGNORED {
        match ready!(Pin::new(&mut *connection).poll_read(context, &mut scratch))? {
            0 => break,
            received => *ignored += received,
        }
    }
    Poll::Ready(Ok(()))
}

/// Refusal of a request with many empty lines in front of it that come one by one.
const TOO_MANY_EMPTY_LINES: Refused = Refused {
    refusal: Refusal::Http(HttpFault::Malformed),
    framing: Framing::new(Persistence::Close),
    length: 0,
};

/// Whether an empty line ends in what has been received last, which the bytes kept precede.
fn has_empty_line(kept: &[u8], new: &[u8]) -> bool {
    let mut line_begins = matches!(kept, [.., b'\n'] | [.., b'\n', b'\r']);
    for &byte in new {
        match byte {
            b'\n' if line_begins => return true,
            b'\n' => line_begins = true,
            b'\r' => {}
            _ => line_begins = false,
        }
    }
    false
}

/// Retains unconsumed bytes; frees the memory when there are none.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        *kept = Vec::new();
    } else {
        kept.clear();
        kept.extend_from_slice(bytes);
    }
}

/// Sends as much as is possible without waiting. Returns the rest, which is empty if only flushing is left.
fn send_now<C: Transport>(
    connection: &mut C,
    context: &mut Context<'_>,
    mut bytes: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    while !bytes.is_empty() {
        match Pin::new(&mut *connection).poll_write(context, bytes)? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Poll::Pending => return Ok(Some(bytes.to_vec())),
        }
    }
    let flushed = Pin::new(connection).poll_flush(context)?;
    Ok(flushed.is_pending().then(Vec::new))
}
