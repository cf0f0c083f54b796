//! A connection whose reads and writes follow a script, a site that echoes paths, and an executor for one
//! task.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use aquatic_common::Seconds;
use aquatic_http_protocol::{Framing, PlainReply, Refusal, Refused, Status};
use aquatic_metrics::{Registry, SampledHistogram, names};
use aquatic_net::tcp::Phase;
use aquatic_runtime::Health;
use aquatic_runtime::clock::Epoch;
use aquatic_web::{
    AfterReply, Body, Denied, Events, Front, FrontSettings, Outcome, PageReply, PageRequest, Pages, Runtime,
    Site, Transport, Upgrade, UpgradeOutcome, Upgraded, Waiting, WebRequest,
};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Maximum size of a request's head in the tests.
pub(crate) const MAX_REQUEST_SIZE: usize = 256;

/// What the next read of a connection comes to. Without any, there is nothing to read yet.
pub(crate) enum Read {
    Bytes(Vec<u8>),
    /// Nothing is there, but the task is woken.
    Pause,
    End,
    Fail,
}

/// How a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    AtOnce,
    Lingering,
}

/// The other end of a connection.
pub(crate) struct Wire {
    pub(crate) reads: VecDeque<Read>,
    pub(crate) sent: Vec<u8>,
    /// Bytes that the client still receives.
    pub(crate) room: usize,
    /// Maximum number of bytes taken by one write.
    pub(crate) max_write: usize,
    /// The client has gone, so that writing fails.
    pub(crate) broken: bool,
    pub(crate) phases: Vec<Phase>,
    pub(crate) stopping: bool,
    /// Bytes sent before the end was announced.
    pub(crate) end_announced_at: Option<usize>,
    pub(crate) closed: Option<Closed>,
    pub(crate) charged: Vec<IpAddr>,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            reads: VecDeque::new(),
            sent: Vec::new(),
            room: usize::MAX,
            max_write: usize::MAX,
            broken: false,
            phases: Vec::new(),
            stopping: false,
            end_announced_at: None,
            closed: None,
            charged: Vec::new(),
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Script(pub(crate) Rc<RefCell<Wire>>);

impl AsyncRead for Script {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let reads = &mut self.0.borrow_mut().reads;
        match reads.pop_front() {
            None => Poll::Pending,
            Some(Read::Pause) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Read::End) => Poll::Ready(Ok(0)),
            Some(Read::Fail) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(Read::Bytes(mut bytes)) => {
                let len = bytes.len().min(buffer.len());
                let rest = bytes.split_off(len);
                buffer[..len].copy_from_slice(&bytes);
                if !rest.is_empty() {
                    reads.push_front(Read::Bytes(rest));
                }
                Poll::Ready(Ok(len))
            }
        }
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = &mut *self.0.borrow_mut();
        if wire.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = bytes.len().min(wire.room).min(wire.max_write);
        if len == 0 {
            return Poll::Pending;
        }
        wire.room -= len;
        wire.sent.extend_from_slice(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.borrow().room == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Transport for Script {
    fn peer(&self) -> Option<IpAddr> {
        Some([192, 0, 2, 1].into())
    }

    fn enter(&self, phase: Phase) {
        self.0.borrow_mut().phases.push(phase);
    }

    fn is_stopping(&self) -> bool {
        self.0.borrow().stopping
    }

    fn charge_address(&mut self, client: IpAddr) -> bool {
        self.0.borrow_mut().charged.push(client);
        true
    }

    fn announce_end(&self) {
        let mut wire = self.0.borrow_mut();
        wire.end_announced_at = Some(wire.sent.len());
    }

    async fn close(self) {
        self.0.borrow_mut().closed = Some(Closed::AtOnce);
    }

    async fn close_lingering(self) {
        self.0.borrow_mut().closed = Some(Closed::Lingering);
    }
}

/// A core that counts how often tasks let others run.
#[derive(Clone, Default)]
pub(crate) struct CountingRuntime {
    pub(crate) yields: Rc<Cell<usize>>,
    /// Number of times that the clock was read, each a millisecond after the one before.
    pub(crate) ticks: Rc<Cell<u64>>,
}

impl Runtime for CountingRuntime {
    fn now(&self) -> Seconds {
        Seconds(7)
    }

    fn tick(&self) -> Duration {
        self.ticks.set(self.ticks.get() + 1);
        Duration::from_millis(self.ticks.get())
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        self.yields.set(self.yields.get() + 1);
        let mut yielded = false;
        poll_fn(move |context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }
}

/// Times of requests.
pub(crate) struct Durations {
    registry: Registry,
    sampled: SampledHistogram,
}

impl Default for Durations {
    fn default() -> Self {
        let registry = Registry::default();
        let histogram = registry.core(0).histogram(&names::REQUEST_DURATION, &[]);
        Self { registry, sampled: SampledHistogram::new(histogram) }
    }
}

impl Durations {
    /// Number and sum of the times, in milliseconds.
    pub(crate) fn measured(&self) -> (u64, u64) {
        let all = self.registry.distribution(&names::REQUEST_DURATION);
        (all.count(), (all.sum() * 1000.0).round() as u64)
    }
}

/// What the sites of a front have been asked.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) paths: RefCell<Vec<String>>,
    pub(crate) refusals: RefCell<Vec<Refusal>>,
    pub(crate) health: Cell<usize>,
    /// Whether the client has asked for too much.
    pub(crate) denied: Cell<Option<Denied>>,
    pub(crate) bytes: Cell<(usize, usize)>,
    /// Only there where a test asks for it: metrics live as long as the process.
    pub(crate) durations: OnceCell<Durations>,
    /// Whether what is waited for has come.
    pub(crate) released: Cell<bool>,
    /// Waiting replies that have been dropped before they were finished.
    pub(crate) given_up: Cell<usize>,
    pub(crate) upgraded: RefCell<Option<(String, Vec<u8>)>>,
    /// Events that have not been sent; empty ones end the stream.
    pub(crate) events: RefCell<VecDeque<Arc<[u8]>>>,
}

/// Body of `/page`, larger than the buffers of a front.
pub(crate) fn page() -> Arc<[u8]> {
    b"page ".repeat(20_000).into()
}

/// Replies to `/page` and `/events`.
struct FakePages(Rc<Log>);

impl Pages for FakePages {
    fn respond(&self, request: &PageRequest<'_>, reply: &mut [u8]) -> Option<PageReply> {
        let head = b"head\r\n\r\n";
        let body = match request.head.path {
            b"/page" if request.framing.body => Body::Shared(page()),
            b"/page" => Body::Empty,
            b"/events" => Body::Events(Box::new(FakeEvents(Rc::clone(&self.0)))),
            _ => return None,
        };
        reply[..head.len()].copy_from_slice(head);
        let after = match body {
            Body::Events(_) => AfterReply::Close,
            Body::Empty | Body::Shared(_) => AfterReply::of(request.framing),
        };
        Some(PageReply { written: head.len(), body, after })
    }
}

struct FakeEvents(Rc<Log>);

impl Events for FakeEvents {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Arc<[u8]>>> {
        let event = self.0.events.borrow_mut().pop_front();
        event.map_or(Poll::Pending, |event| Poll::Ready((!event.is_empty()).then_some(event)))
    }

    fn not_received(&mut self) {}
}

impl Drop for FakeEvents {
    fn drop(&mut self) {
        self.0.given_up.set(self.0.given_up.get() + 1);
    }
}

/// Replies with the path, or with much more if that begins with `/big`. Replies to `/wait` have to be waited
/// for, and `/charge` counts the connection to an address.
pub(crate) struct Echo(pub(crate) Rc<Log>);

pub(crate) fn text_of(path: &str) -> String {
    // It must fit into a reply.
    if path.starts_with("/big") { path.repeat(200.min(2000 / path.len())) } else { path.to_owned() }
}

pub(crate) struct WaitingEcho {
    log: Rc<Log>,
    path: String,
    framing: Framing,
    finished: bool,
}

impl Drop for WaitingEcho {
    fn drop(&mut self) {
        if !self.finished {
            self.log.given_up.set(self.log.given_up.get() + 1);
        }
    }
}

impl Waiting for WaitingEcho {
    fn poll(&mut self, _: &Context<'_>) -> Poll<()> {
        if self.log.released.get() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Site for Echo {
    type State = usize;
    type Waiting = WaitingEcho;

    fn longest_reply(&self) -> usize {
        4096
    }

    fn respond(
        &mut self,
        request: &mut WebRequest<'_>,
        state: &mut usize,
        reply: &mut [u8],
    ) -> Outcome<WaitingEcho> {
        assert!(reply.len() >= self.longest_reply(), "replies find room");
        let path = String::from_utf8_lossy(request.head.path).into_owned();
        *state += 1;
        self.0.paths.borrow_mut().push(path.clone());
        if path == "/charge" {
            assert!((request.charge_address)([203, 0, 113, 1].into()));
        }
        if path == "/wait" {
            let (log, framing) = (Rc::clone(&self.0), request.framing);
            return Outcome::Wait(WaitingEcho { log, path, framing, finished: false });
        }
        let text = if path == "/nth" { state.to_string() } else { text_of(&path) };
        let plain = PlainReply::text(Status::Ok, &text);
        Outcome::Reply(plain.encode(request.framing, reply).unwrap(), AfterReply::of(request.framing))
    }

    fn finish(&mut self, mut waiting: WaitingEcho, reply: &mut [u8]) -> (usize, AfterReply) {
        waiting.finished = true;
        let plain = PlainReply::text(Status::Ok, &waiting.path);
        (plain.encode(waiting.framing, reply).unwrap(), AfterReply::of(waiting.framing))
    }

    fn refuse(&mut self, refused: Refused, reply: &mut [u8]) -> usize {
        self.0.refusals.borrow_mut().push(refused.refusal);
        PlainReply::text(Status::BadRequest, "refused").encode(refused.framing, reply).unwrap()
    }

    fn admit(&mut self, _: &WebRequest<'_>) -> Result<(), Denied> {
        self.0.denied.get().map_or(Ok(()), Err)
    }

    fn count_health(&self) {
        self.0.health.set(self.0.health.get() + 1);
    }

    fn durations(&self) -> Option<&SampledHistogram> {
        self.0.durations.get().map(|durations| &durations.sampled)
    }

    fn count_bytes(&self, received: usize, sent: usize) {
        let (all_received, all_sent) = self.0.bytes.get();
        self.0.bytes.set((all_received + received, all_sent + sent));
    }
}

/// Takes connections over on `/socket` only, and receives until they end.
pub(crate) struct Sockets(pub(crate) Rc<Log>);

pub(crate) const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

impl Upgrade<Script> for Sockets {
    type Accepted = String;

    fn respond(&mut self, request: &mut WebRequest<'_>, reply: &mut [u8]) -> UpgradeOutcome<String> {
        if request.head.path != b"/socket" {
            let plain = PlainReply::text(Status::NotFound, "no socket");
            let written = plain.encode(request.framing, reply).unwrap();
            return UpgradeOutcome::Reply(written, AfterReply::of(request.framing));
        }
        reply[..SWITCHING.len()].copy_from_slice(SWITCHING);
        UpgradeOutcome::Accepted(SWITCHING.len(), "accepted".to_owned())
    }

    fn explain(&mut self, request: &WebRequest<'_>, reply: &mut [u8]) -> usize {
        let plain = PlainReply::text(Status::NotFound, "sockets only");
        plain.encode(request.framing.closing(), reply).unwrap()
    }

    fn refuse(&mut self, refused: Refused, reply: &mut [u8]) -> usize {
        self.0.refusals.borrow_mut().push(refused.refusal);
        PlainReply::text(Status::BadRequest, "refused").encode(refused.framing, reply).unwrap()
    }

    fn admit(&mut self, _: &WebRequest<'_>) -> Result<(), Denied> {
        self.0.denied.get().map_or(Ok(()), Err)
    }

    fn count_health(&self) {
        self.0.health.set(self.0.health.get() + 1);
    }

    fn serve(&self, upgraded: Upgraded<Script, String>) -> impl Future<Output = ()> + 'static {
        let log = Rc::clone(&self.0);
        async move {
            let Upgraded { mut connection, accepted, received: mut bytes } = upgraded;
            // An error ends it, too.
            let _ = connection.read_to_end(&mut bytes).await;
            log.upgraded.replace(Some((accepted, bytes)));
            connection.close().await;
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One connection being served.
pub(crate) struct Served {
    task: Pin<Box<dyn Future<Output = ()>>>,
    wire: Script,
    pub(crate) log: Rc<Log>,
    pub(crate) runtime: CountingRuntime,
}

/// Which sites a front has.
#[derive(Clone, Copy)]
pub(crate) enum Sites {
    Both,
    OnlySockets,
}

impl Served {
    pub(crate) fn new(sites: Sites, reads: impl IntoIterator<Item = Read>) -> Self {
        let (wire, log, runtime) = (Script::default(), Rc::new(Log::default()), CountingRuntime::default());
        wire.0.borrow_mut().reads.extend(reads);
        let site = match sites {
            Sites::Both => Some(Echo(Rc::clone(&log))),
            Sites::OnlySockets => None,
        };
        let upgrade = Some(Sockets(Rc::clone(&log)));
        let front = Front::new(
            runtime.clone(),
            (site, upgrade),
            Health::new(1, Epoch::start()),
            FrontSettings { max_request_size: MAX_REQUEST_SIZE },
        );
        let front = front.with_pages(Some(Rc::new(FakePages(Rc::clone(&log)))));
        Self { task: Box::pin(front.serve(wire.clone())), wire, log, runtime }
    }

    /// Runs until there is nothing to do. Returns whether the connection has ended.
    pub(crate) fn run(&mut self) -> bool {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        for _ in 0..10_000 {
            if self.task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                return true;
            }
            if !woken.0.swap(false, Ordering::Relaxed) {
                return false;
            }
        }
        panic!("the task wakes itself for ever");
    }

    pub(crate) fn wire(&self) -> std::cell::RefMut<'_, Wire> {
        self.wire.0.borrow_mut()
    }

    pub(crate) fn sent(&self) -> String {
        String::from_utf8(self.wire().sent.clone()).unwrap()
    }
}
