//! One connection: from its first byte to its end.
//!
//! Requests are read, served and answered within one poll, in buffers that all connections of the core share: neither
//! allocates for a request whose torrent is this core's, and an idle connection holds no buffer. What cannot go on at
//! once, because a request is incomplete, the client does not receive, or another core is asked, is kept by the
//! connection itself.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use aquatic_runtime::Core;
use aquatic_runtime::router::{AnnounceAnswer, RouteError};
use aquatic_runtime::tcp::{Connection, Phase};
use aquatic_swarm::{FamilySet, SwarmCounts};
use futures_lite::{AsyncRead, AsyncWrite};

use crate::handler::{AwayAnnounce, AwayScrape, Handler, Step, Then, Turn};

/// Bytes taken in by one read: some twenty pipelined announces. With the longest request it is the most a connection
/// keeps unserved.
const READ: usize = 8 * 1024;

/// Room for replies to pipelined requests that are sent together. With the longest reply it is the most a connection
/// keeps for a client that does not receive.
const REPLIES: usize = 16 * 1024;

/// Once a request has so many bytes it has been seen whether it may be one. Then it is looked at again only when a line of it
/// ends, so that a client that sends byte by byte does not cost a look at everything for each.
const LOOKED_AT: usize = 32;

/// Reads of one connection that found something, one after the other, before other tasks of the core get their turn.
const READS_PER_TURN: u32 = 4;

/// What the connections of a core share. Borrowed within one poll only.
pub(crate) struct Workplace {
    handler: Handler,
    input: Box<[u8]>,
    output: Box<[u8]>,
}

impl Workplace {
    pub(crate) fn new(handler: Handler) -> Self {
        let input = vec![0; handler.longest_request() + READ].into_boxed_slice();
        let output = vec![0; handler.longest_reply() + REPLIES].into_boxed_slice();
        Self { handler, input, output }
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve<M: Send + 'static>(
    core: Rc<Core<M>>,
    place: Rc<RefCell<Workplace>>,
    connection: Connection,
) {
    let mut session = Session {
        peer: connection.peer().ip(),
        core,
        place,
        connection,
        kept: Vec::new(),
        reading: true,
        in_head: false,
        reads: 0,
        inbox: None,
    };
    // Whatever the error is about, nothing can be said to the client any more.
    let Ok(then) = session.run().await else { return };
    match then {
        Then::CloseLingering => session.connection.close_lingering().await,
        Then::Close | Then::GoOn => session.connection.close().await,
    }
}

struct Session<M: Send + 'static> {
    core: Rc<Core<M>>,
    place: Rc<RefCell<Workplace>>,
    connection: Connection,
    /// Whom it comes from; `None` for a proxy on a unix socket.
    peer: Option<IpAddr>,
    /// What has been received and not been served.
    kept: Vec<u8>,
    /// Whether what is kept is no whole request, so that more has to come.
    reading: bool,
    /// Whether the time for the head of a request is running.
    in_head: bool,
    /// Reads since the task last waited for anything.
    reads: u32,
    /// Where answers of other cores arrive; made when there is one to wait for.
    inbox: Option<Rc<Inbox>>,
}

/// What a turn leaves to be done.
struct Rest {
    unsent: Option<Vec<u8>>,
    next: Next,
}

/// What is to be done after the replies written so far have been sent.
enum Next {
    /// Going on, with what is kept or with what comes.
    GoOn,
    /// A reply that depends on another core.
    Announce(AwayAnnounce),
    /// A reply that depends on other cores.
    Scrape(AwayScrape),
    /// Ending the connection.
    End(Then),
}

impl<M: Send + 'static> Session<M> {
    async fn run(&mut self) -> io::Result<Then> {
        loop {
            let Rest { unsent, next } = poll_fn(|context| self.turn(context)).await?;
            self.send_rest(unsent).await?;
            let then = match next {
                Next::GoOn => Then::GoOn,
                Next::Announce(away) => self.ask_announce(away).await?,
                Next::Scrape(away) => self.ask_scrape(away).await?,
                Next::End(then) => return Ok(then),
            };
            if then != Then::GoOn {
                return Ok(then);
            }
            self.set_pace();
            if self.reads >= READS_PER_TURN {
                self.reads = 0;
                self.core.yield_now().await;
            }
        }
    }

    /// Sets the time until more has to come.
    fn set_pace(&mut self) {
        if self.kept.is_empty() {
            self.enter(Phase::Idle);
        } else if self.reading && !self.in_head {
            self.enter(Phase::Head);
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.in_head = phase == Phase::Head;
        self.connection.pace().enter(phase);
    }

    /// Reads what has come, if more is needed, serves what is complete, and sends the replies.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Rest>> {
        let Self { core, connection, kept, .. } = self;
        let mut place = self.place.borrow_mut();
        let Workplace { handler, input, output } = &mut *place;
        let mut end = kept.len();
        input[..end].copy_from_slice(kept);
        if self.reading {
            let room = &mut input[end..][..READ];
            let read = Pin::new(&mut *connection).poll_read(context, room)?;
            if read.is_pending() {
                self.reads = 0;
            }
            let read = ready!(read);
            if read == 0 {
                return Poll::Ready(Ok(Rest { unsent: None, next: Next::End(Then::Close) }));
            }
            self.reads += 1;
            handler.counters().received(read);
            let (new, begun) = (&room[..read], end);
            end += read;
            if begun >= LOOKED_AT && end < handler.longest_request() && !new.contains(&b'\n') {
                kept.extend_from_slice(new);
                return Poll::Ready(Ok(Rest { unsent: None, next: Next::GoOn }));
            }
        }
        let mut turn = Turn {
            shard: &mut core.shard(),
            allows: &|info_hash| core.allows(info_hash),
            now: core.now(),
            peer: self.peer,
            stopping: connection.pace().is_stopping(),
        };
        let Served { taken, written, next, incomplete } =
            serve_all(handler, &input[..end], &mut turn, output);
        self.reading = incomplete;
        self.in_head &= taken == 0;
        keep(kept, &input[taken..end]);
        if let Next::End(_) = next {
            connection.announce_end();
        }
        let unsent = send_now(connection, context, &output[..written])?;
        handler.counters().sent(written);
        Poll::Ready(Ok(Rest { unsent, next }))
    }

    /// Has another core apply an announce, and replies.
    async fn ask_announce(&mut self, away: AwayAnnounce) -> io::Result<Then> {
        self.enter(Phase::Answer);
        let inbox = self.inbox();
        let room = (6 * away.announce.wanted, 18 * away.announce.wanted);
        self.core.announce(away.announce, room, inbox.take_announce());
        let answer = poll_fn(|context| inbox.poll(context)).await;
        let Answer::Announce(answer) = answer else { unreachable!("an announce is answered in kind") };
        let then = Then::after(away.framing);
        self.reply_apart(then, |handler, reply| handler.finish_announce(&away, answer.as_ref(), reply))
            .await?;
        Ok(then)
    }

    /// Has other cores count, and replies.
    async fn ask_scrape(&mut self, away: AwayScrape) -> io::Result<Then> {
        self.enter(Phase::Answer);
        let inbox = self.inbox();
        self.core.scrape(&away.info_hashes, FamilySet::Both, inbox.take_scrape());
        let answer = poll_fn(|context| inbox.poll(context)).await;
        let Answer::Scrape(counts) = answer else { unreachable!("a scrape is answered in kind") };
        let then = Then::after(away.framing);
        self.reply_apart(then, |handler, reply| handler.finish_scrape(&away, counts.as_deref(), reply))
            .await?;
        Ok(then)
    }

    fn inbox(&mut self) -> Rc<Inbox> {
        Rc::clone(self.inbox.get_or_insert_default())
    }

    /// Sends one reply.
    async fn reply_apart(
        &mut self,
        then: Then,
        mut write: impl FnMut(&mut Handler, &mut [u8]) -> usize,
    ) -> io::Result<()> {
        if then != Then::GoOn {
            self.connection.announce_end();
        }
        let send = |context: &mut Context<'_>| {
            let mut place = self.place.borrow_mut();
            let Workplace { handler, output, .. } = &mut *place;
            let written = write(handler, output);
            handler.counters().sent(written);
            Poll::Ready(send_now(&mut self.connection, context, &output[..written]))
        };
        let unsent = poll_fn(send).await?;
        self.send_rest(unsent).await
    }

    /// Sends what the client has not taken at once.
    async fn send_rest(&mut self, unsent: Option<Vec<u8>>) -> io::Result<()> {
        let Some(unsent) = unsent else { return Ok(()) };
        self.enter(Phase::Answer);
        self.connection.send(&unsent).await
    }
}

/// What has come of the requests received together.
struct Served {
    /// Bytes of them.
    taken: usize,
    /// Bytes of replies.
    written: usize,
    next: Next,
    /// Whether more bytes are needed to go on.
    incomplete: bool,
}

/// Serves requests in their order for as long as they are complete, their replies find room, and no other core has to be
/// asked.
fn serve_all(handler: &mut Handler, received: &[u8], turn: &mut Turn<'_>, output: &mut [u8]) -> Served {
    let longest_reply = handler.longest_reply();
    let mut served = Served { taken: 0, written: 0, next: Next::GoOn, incomplete: false };
    while let Some(room) = output.get_mut(served.written..).filter(|room| room.len() >= longest_reply) {
        let rest = &received[served.taken..];
        if rest.is_empty() {
            served.incomplete = true;
            break;
        }
        match handler.step(rest, turn, room) {
            Step::NeedMore => {
                served.incomplete = true;
                break;
            }
            Step::Reply { taken, written, then } => {
                served.taken += taken;
                served.written += written;
                if then != Then::GoOn {
                    served.next = Next::End(then);
                    break;
                }
            }
            Step::Announce { taken, away } => {
                served.taken += taken;
                served.next = Next::Announce(away);
                break;
            }
            Step::Scrape { taken, away } => {
                served.taken += taken;
                served.next = Next::Scrape(away);
                break;
            }
        }
    }
    served.incomplete |= served.taken == received.len();
    served
}

/// Keeps bytes until the next turn; without any, no memory either.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        *kept = Vec::new();
    } else {
        kept.clear();
        kept.extend_from_slice(bytes);
    }
}

/// Sends as much as goes without waiting. Returns the rest, which is empty if only flushing is left.
fn send_now(
    connection: &mut Connection,
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

/// What other cores have said.
enum Answer {
    Announce(Result<AnnounceAnswer, RouteError>),
    Scrape(Result<Vec<SwarmCounts>, RouteError>),
}

/// Where the answer to a connection's question arrives. There is one question at a time.
#[derive(Default)]
struct Inbox {
    answer: Cell<Option<Answer>>,
    waker: Cell<Option<Waker>>,
}

impl Inbox {
    fn put(&self, answer: Answer) {
        self.answer.set(Some(answer));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn take_announce(self: &Rc<Self>) -> impl FnOnce(Result<AnnounceAnswer, RouteError>) + use<> {
        let inbox = Rc::clone(self);
        move |answer| inbox.put(Answer::Announce(answer))
    }

    fn take_scrape(self: &Rc<Self>) -> impl FnOnce(Result<&[SwarmCounts], RouteError>) + use<> {
        let inbox = Rc::clone(self);
        move |counts| inbox.put(Answer::Scrape(counts.map(<[SwarmCounts]>::to_vec)))
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Answer> {
        let Some(answer) = self.answer.take() else {
            self.waker.set(Some(context.waker().clone()));
            return Poll::Pending;
        };
        Poll::Ready(answer)
    }
}
