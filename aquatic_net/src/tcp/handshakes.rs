//! TLS handshakes of a core: a slow client never delays other handshakes. Compared with everything else the
//! tracker does, a handshake takes much processor time, and some memory while it waits for its client.
//!
//! 1. Until the client's first message has been received as a whole, a connection has no TLS session: its
//!    bytes stay in the socket.
//! 2. Then it needs a slot to compute with. There are few, so that other connections are served when many
//!    clients connect at once; without a free slot a handshake is queued, and rejected if the queue is full.
//! 3. The slot is released before the client's next message is waited for. Handshakes that wait for their
//!    client are limited, too, because of their memory: above the limit the oldest is closed. A client that
//!    continues needs one round trip, so the oldest is one whose client has stalled.
//!
//! The time that handshakes take is charged to their sources and the networks around them, and a part of it
//! for those that are rejected. There are three lanes: sources that have asked for next to nothing lately go
//! first, together with handshakes whose client has answered; then those that have taken little; and those
//! that have taken much, which have a shorter queue. Trusted proxies and exempt clients are charged nothing:
//! they go first while that queue has room, and in the second lane else. Where rate limits are off, the
//! second lane is the only one, and where they are tried out, it has those of the third as well. So whoever
//! floods waits for himself, and a client that comes once does not wait for thousands that come again and
//! again.
//!
//! Invariants: no slot is held while waiting for a client. A slot is released by its drop, and goes to the
//! handshake that has waited longest. A handshake that stops waiting leaves nothing behind, a slot that has
//! just been granted included.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aquatic_common::Family;
use aquatic_common::config::RateLimitMode;
use aquatic_common::load_table::{LEVELS, LoadTable, Loads};
use futures_rustls::TlsAcceptor;
use futures_rustls::server::TlsStream;
use rustix::net::RecvFlags;
use rustls::HandshakeKind;

use super::counters::{Counters, Refused};
use super::deadlines::DeadlineHandle;
use super::hello;
use super::indexed_queue::{IndexedQueue, QueueKey};
use super::source_gate::SourceSettings;
use super::stream::Stream;
use super::tls::{BUFFER_LIMIT, Tls};
use super::tls_fault::TlsFault;
use aquatic_runtime::Core;
use aquatic_runtime::readiness::Direction;

/// Slots: handshakes that compute, 0.1 to 1 ms each depending on the kind of key, before other connections
/// get their turn.
const COMPUTE_SLOTS: usize = 4;

/// Time of a core per second above which the handshakes of a source, and of the networks around it, are
/// queued behind those of others, in microseconds: some 60 handshakes of a source.
const LIGHT: Loads = [20_000, 80_000, 160_000];

/// Time of a core per second up to which the handshakes of a source, and of the networks around it, go before
/// all others, in microseconds: those of a source that has not asked for one within about two seconds.
const NEW: Loads = [50, 500, 2000];

/// What a handshake is charged when it asks to begin, whatever becomes of it.
const ATTEMPT: Duration = Duration::from_micros(100);

/// Share of the queue that handshakes of the lanes beside [`Lane::Light`] may fill: a quarter each.
const QUEUE_DIVISOR: usize = 4;

/// Price of a microsecond in the table of loads, which has room for 16 s.
const PRICE: u32 = 256;

/// Binary logarithm of the number of lines of that table: 64 KiB.
const TABLE_LINES_LOG2: u32 = 10;

/// Which queue a handshake waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Of sources that have asked for next to nothing lately: goes first.
    New,
    /// Of sources that have taken little time lately.
    Light,
    /// Of the others.
    Heavy,
}

/// Whose handshake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HandshakeClient {
    /// The client's address in canonical form; `None` behind a unix socket.
    pub(super) address: Option<IpAddr>,
    /// Whether it is charged what it takes; not trusted proxies and exempt clients.
    pub(super) is_limited: bool,
}

impl HandshakeClient {
    fn limited(self) -> Option<IpAddr> {
        self.address.filter(|_| self.is_limited)
    }
}

/// How many handshakes a core may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// Handshakes that wait for their client, of some 12 KiB each. One more, and the one that began first is
    /// closed.
    pub open: usize,
    /// Connections whose handshake waits for its turn to begin. Further ones are refused.
    pub queued: usize,
}

/// One that waits for a slot.
#[derive(Debug, Default)]
struct Waiter {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A core's handshakes.
#[derive(Debug)]
pub(super) struct Handshakes {
    limits: Cell<HandshakeLimits>,
    mode: Cell<RateLimitMode>,
    free: Cell<usize>,
    /// Those that wait for a slot, by lane.
    queues: [RefCell<IndexedQueue<Rc<Waiter>>>; 3],
    /// Processor time of sources.
    loads: RefCell<LoadTable>,
    /// Those that wait for their client, in the order in which they began.
    open: RefCell<IndexedQueue<DeadlineHandle>>,
}

impl Handshakes {
    pub(super) fn new(limits: HandshakeLimits, sources: &SourceSettings) -> Self {
        Self {
            limits: Cell::new(limits),
            mode: Cell::new(sources.handshakes),
            free: Cell::new(COMPUTE_SLOTS),
            queues: Default::default(),
            loads: RefCell::new(LoadTable::new(TABLE_LINES_LOG2, sources.key, 1.0)),
            open: RefCell::default(),
        }
    }

    /// Replaces the limits; handshakes that are under way continue.
    pub(super) fn set_limits(&self, limits: HandshakeLimits, mode: RateLimitMode) {
        self.limits.set(limits);
        self.mode.set(mode);
    }

    /// Handshakes under way and waiting for their turn.
    pub(super) fn len(&self) -> usize {
        let queued: usize = self.queues.iter().map(|queue| queue.borrow().len()).sum();
        self.open.borrow().len() + queued + COMPUTE_SLOTS - self.free.get()
    }

    /// The queue for a client. Without rate limits there is one, and where they are only tried out, those
    /// that would be in the last lane are counted.
    fn lane(&self, client: HandshakeClient, now: Duration, counters: &Counters) -> Lane {
        let lane = self.lane_by_load(client, now);
        match (self.mode.get(), lane) {
            (RateLimitMode::Off, _) => Lane::Light,
            (RateLimitMode::DryRun, Lane::Heavy) => {
                counters.above_in_dry_run.add(1);
                Lane::Light
            }
            (RateLimitMode::DryRun | RateLimitMode::On, lane) => lane,
        }
    }

    fn lane_by_load(&self, client: HandshakeClient, now: Duration) -> Lane {
        let Some(source) = client.limited() else {
            return if self.is_full(Lane::New) { Lane::Light } else { Lane::New };
        };
        let loads = self.loads.borrow_mut().loads(source, now.as_millis() as u64);
        let is_within =
            |limits: Loads| loads.into_iter().zip(limits).all(|(load, most)| load / PRICE <= most);
        if is_within(NEW) && !self.is_full(Lane::New) {
            Lane::New
        } else if is_within(LIGHT) {
            Lane::Light
        } else {
            Lane::Heavy
        }
    }

    /// Charges processor time to a client's source.
    fn charge(&self, client: HandshakeClient, now: Duration, spent: Duration) {
        let Some(source) = client.limited() else { return };
        let price = u32::try_from(spent.as_micros()).unwrap_or(u32::MAX).saturating_mul(PRICE);
        self.loads.borrow_mut().add(source, now.as_millis() as u64, [price; LEVELS]);
    }

    fn is_full(&self, lane: Lane) -> bool {
        let queued = self.limits.get().queued;
        let most = match lane {
            Lane::Light => queued,
            Lane::New | Lane::Heavy => queued.div_ceil(QUEUE_DIVISOR),
        };
        self.queue(lane).borrow().len() >= most
    }

    fn queue(&self, lane: Lane) -> &RefCell<IndexedQueue<Rc<Waiter>>> {
        let [new, light, heavy] = &self.queues;
        match lane {
            Lane::New => new,
            Lane::Light => light,
            Lane::Heavy => heavy,
        }
    }

    /// Goes through a handshake; `None` if the connection is to be closed, which has been counted.
    pub(super) async fn shake(
        self: &Rc<Self>,
        core: &Core,
        stream: Stream,
        tls: &Tls,
        client: HandshakeClient,
    ) -> Option<TlsStream<Stream>> {
        let deadlines = Rc::clone(stream.deadline().deadlines());
        let counters = &deadlines.counters;
        let come = poll_fn(|context| poll_hello(&stream, context)).await;
        stream.deadline().client_has_acted();
        let lane = self.lane(client, core.time(), counters);
        self.charge(client, core.time(), ATTEMPT);
        let shaken = match come {
            Ok(()) if self.is_full(lane) => {
                counters.refuse(Refused::Handshakes);
                if let (Lane::New | Lane::Light, Some(source)) = (lane, client.limited()) {
                    counters.reject_light_handshake(Family::of(source), core.time());
                }
                return None;
            }
            Ok(()) => self.compute(core, stream, tls, (client, lane)).await,
            Err(error) => Err(error),
        };
        let stream = match shaken {
            Ok(stream) => stream,
            Err(error) => {
                counters.handshake_errors.add(1);
                counters.tls_fault(TlsFault::of_handshake(&error));
                return None;
            }
        };
        let (_, session) = stream.get_ref();
        match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => counters.resumed.add(1),
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => {
                counters.handshakes.add(1);
            }
        }
        Some(stream)
    }

    /// Everything from the client's first message on.
    async fn compute(
        self: &Rc<Self>,
        core: &Core,
        stream: Stream,
        tls: &Tls,
        (client, lane): (HandshakeClient, Lane),
    ) -> io::Result<TlsStream<Stream>> {
        let deadline = stream.deadline().clone();
        let mut slot = self.enter(deadline.clone(), lane).await?;
        let acceptor = TlsAcceptor::from(tls.config());
        // Apart, because the task would otherwise have room for it while it waits for the first message.
        let mut accepting =
            Box::new(acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(BUFFER_LIMIT))));
        let mut open = None;
        loop {
            core.yield_now().await;
            let since = core.tick();
            let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut *accepting).poll(context))).await;
            self.charge(client, since, core.tick().saturating_sub(since));
            drop(slot);
            if let Poll::Ready(shaken) = polled {
                return shaken;
            }
            open.get_or_insert_with(|| self.open(&deadline));
            deadline.wait();
            until_woken().await;
            deadline.client_has_acted();
            slot = self.enter(deadline.clone(), Lane::New).await?;
        }
    }

    /// Counts a handshake that waits for its client. If there are too many, the first one makes room.
    fn open(self: &Rc<Self>, deadline: &DeadlineHandle) -> Open {
        let mut open = self.open.borrow_mut();
        if open.len() >= self.limits.get().open.max(1)
            && let Some(first) = open.pop_front()
        {
            first.evict_handshake();
        }
        Open { key: open.push_back(deadline.clone()), handshakes: Rc::clone(self) }
    }

    /// Waits for a slot.
    fn enter(self: &Rc<Self>, deadline: DeadlineHandle, lane: Lane) -> Enter {
        let state = match self.free.get().checked_sub(1) {
            Some(free) => {
                self.free.set(free);
                Entering::Granted
            }
            None => {
                let waiter = Rc::<Waiter>::default();
                let key = self.queue(lane).borrow_mut().push_back(Rc::clone(&waiter));
                Entering::Waiting(waiter, key, lane)
            }
        };
        Enter { handshakes: Rc::clone(self), deadline, state }
    }

    fn give_back(&self) {
        let mut waiting = self.queues.iter().filter_map(|queue| queue.borrow_mut().pop_front());
        let Some(next) = waiting.next() else {
            return self.free.set(self.free.get() + 1);
        };
        next.granted.set(true);
        if let Some(waker) = next.waker.take() {
            waker.wake();
        }
    }
}

/// Whether the client's first message is there.
fn poll_hello(stream: &Stream, context: &Context<'_>) -> Poll<io::Result<()>> {
    stream.poll(Direction::Read, context, |socket| {
        let mut scratch = stream.deadline().deadlines().scratch.borrow_mut();
        let (len, _) = rustix::net::recv(socket, &mut scratch[..], RecvFlags::PEEK)?;
        if len == scratch.len() || hello::is_whole(&scratch[..len]) && len > 0 {
            Ok(())
        } else if len == 0 || stream.has_ended() {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    })
}

/// Waits to be woken, by whatever the task has asked to be woken by.
async fn until_woken() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// A handshake's part of the limit.
#[derive(Debug)]
struct Open {
    handshakes: Rc<Handshakes>,
    key: QueueKey,
}

impl Drop for Open {
    fn drop(&mut self) {
        // There is nobody in the place any more if the handshake had to make room.
        self.handshakes.open.borrow_mut().remove(self.key);
    }
}

#[derive(Debug)]
enum Entering {
    Granted,
    Waiting(Rc<Waiter>, QueueKey, Lane),
    Done,
}

/// Completes with a slot, or with an error when the connection's time is over.
#[derive(Debug)]
struct Enter {
    handshakes: Rc<Handshakes>,
    deadline: DeadlineHandle,
    state: Entering,
}

impl Future for Enter {
    type Output = io::Result<Slot>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.deadline.check()?;
        if let Entering::Waiting(waiter, ..) = &self.state
            && !waiter.granted.get()
        {
            waiter.waker.replace(Some(context.waker().clone()));
            self.deadline.watch(context);
            return Poll::Pending;
        }
        self.state = Entering::Done;
        Poll::Ready(Ok(Slot(Rc::clone(&self.handshakes))))
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        match &self.state {
            Entering::Waiting(waiter, key, lane) if !waiter.granted.get() => {
                self.handshakes.queue(*lane).borrow_mut().remove(*key);
            }
            Entering::Granted | Entering::Waiting(..) => self.handshakes.give_back(),
            Entering::Done => {}
        }
    }
}

/// The right to compute.
#[derive(Debug)]
struct Slot(Rc<Handshakes>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::deadlines::{DeadlineTable, Deadlines};
    use super::*;
    use crate::tcp::counters::Protocols;
    use aquatic_metrics::Registry;

    fn poll(enter: &mut Enter) -> Poll<io::Result<Slot>> {
        Pin::new(enter).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn slot(mut enter: Enter) -> Slot {
        let Poll::Ready(Ok(slot)) = poll(&mut enter) else { panic!("no slot") };
        slot
    }

    fn deadlines() -> Rc<DeadlineTable> {
        Rc::new(DeadlineTable::new(
            Deadlines::default(),
            false,
            Counters::new(&Registry::default().core(0), Protocols { first: "test", upgraded: "test" }),
        ))
    }

    fn handshakes(open: usize) -> Rc<Handshakes> {
        Rc::new(Handshakes::new(HandshakeLimits { open, queued: 10 }, &SourceSettings::default()))
    }

    #[test]
    fn slots_go_to_whoever_has_waited_longest() {
        let (deadlines, handshakes) = (deadlines(), handshakes(1));
        let enter = || handshakes.enter(deadlines.open(), Lane::Light);
        let mut slots: Vec<_> = (0..COMPUTE_SLOTS).map(|_| slot(enter())).collect();
        let mut waiting: Vec<_> = (0..4).map(|_| enter()).collect();
        assert!(waiting.iter_mut().all(|enter| poll(enter).is_pending()));
        assert_eq!(handshakes.len(), COMPUTE_SLOTS + 4);

        drop(waiting.remove(0));
        slots.pop();
        assert!(poll(&mut waiting[1]).is_pending());
        slots.push(slot(waiting.remove(0)));
        slots.pop();
        // The one that is granted stops waiting before it hears of it.
        drop(waiting.remove(0));
        slots.push(slot(waiting.remove(0)));
        drop(slots);
        assert_eq!((handshakes.len(), handshakes.free.get()), (0, COMPUTE_SLOTS));
    }

    #[test]
    fn sources_go_by_what_they_have_asked_for_and_heavy_ones_have_a_shorter_queue() {
        let (deadlines, handshakes) = (deadlines(), handshakes(1));
        let enter = |lane| handshakes.enter(deadlines.open(), lane);
        let mut slots: Vec<_> = (0..COMPUTE_SLOTS).map(|_| slot(enter(Lane::Light))).collect();
        let mut heavy: Vec<_> = (0..3).map(|_| enter(Lane::Heavy)).collect();
        assert!(handshakes.is_full(Lane::Heavy) && !handshakes.is_full(Lane::Light));
        let (mut light, mut new) = (enter(Lane::Light), enter(Lane::New));
        slots.pop();
        assert!(poll(&mut heavy[0]).is_pending() && poll(&mut light).is_pending());
        slots.push(slot_of(&mut new));
        slots.pop();
        assert!(poll(&mut heavy[0]).is_pending());
        slots.push(slot_of(&mut light));
        slots.pop();
        slots.push(slot_of(&mut heavy[0]));
        assert!(poll(&mut heavy[1]).is_pending());
        drop((slots, heavy, light, new));
        assert_eq!((handshakes.len(), handshakes.free.get()), (0, COMPUTE_SLOTS));
    }

    fn slot_of(enter: &mut Enter) -> Slot {
        let Poll::Ready(Ok(slot)) = poll(enter) else { panic!("no slot") };
        slot
    }

    #[test]
    fn sources_and_networks_are_heavy_by_the_time_they_take() {
        let handshakes = handshakes(1);
        let (now, handshake) = (Duration::from_secs(5), Duration::from_micros(500));
        let exempt = |number: u32| HandshakeClient {
            address: Some(Ipv4Addr::from_bits(0xC000_0200 + number).into()),
            is_limited: false,
        };
        let source = |number| HandshakeClient { is_limited: true, ..exempt(number) };
        let charge =
            |number, count| (0..count).for_each(|_| handshakes.charge(source(number), now, handshake));
        assert_eq!(handshakes.lane_by_load(source(1), now), Lane::New);
        charge(1, 1);
        assert_eq!(handshakes.lane_by_load(source(1), now), Lane::Light);
        assert_eq!(handshakes.lane_by_load(source(2), now), Lane::New);
        charge(1, 38);
        assert_eq!(handshakes.lane_by_load(source(1), now), Lane::Light);
        charge(1, 5);
        assert_eq!(handshakes.lane_by_load(source(1), now), Lane::Heavy);
        assert_eq!(handshakes.lane_by_load(source(2), now), Lane::Light, "its network is not new");
        (3..100).for_each(|number| charge(number, 2));
        assert_eq!(handshakes.lane_by_load(source(2), now), Lane::Heavy, "its network is heavy");
        assert_eq!(handshakes.lane_by_load(source(0x1_0000), now), Lane::New);
        (0..1000).for_each(|_| handshakes.charge(exempt(0x2_0000), now, handshake));
        assert_eq!(handshakes.lane_by_load(source(0x2_0000), now), Lane::New, "nothing is charged to it");
        assert_eq!(handshakes.lane_by_load(exempt(2), now), Lane::New);
        assert_eq!(handshakes.lane_by_load(source(1), now * 4), Lane::New, "fifteen seconds later");
    }

    #[test]
    fn without_rate_limits_nobody_is_heavy() {
        let (deadlines, handshakes) = (deadlines(), handshakes(1));
        let counters = &deadlines.counters;
        let now = Duration::from_secs(5);
        let client = HandshakeClient { address: Some(Ipv4Addr::LOCALHOST.into()), is_limited: true };
        let lane = |mode| {
            handshakes.set_limits(handshakes.limits.get(), mode);
            (handshakes.lane(client, now, counters), counters.above_in_dry_run.get())
        };
        assert_eq!(lane(RateLimitMode::On), (Lane::New, 0));
        assert_eq!(lane(RateLimitMode::DryRun), (Lane::New, 0));
        assert_eq!(lane(RateLimitMode::Off), (Lane::Light, 0));
        handshakes.charge(client, now, Duration::from_secs(1));
        assert_eq!(lane(RateLimitMode::On), (Lane::Heavy, 0));
        assert_eq!(lane(RateLimitMode::DryRun), (Lane::Light, 1));
        assert_eq!(lane(RateLimitMode::Off), (Lane::Light, 1));
    }

    #[test]
    fn waiting_ends_with_the_connection_s_time() {
        let (deadlines, handshakes) = (deadlines(), handshakes(1));
        let _slots: Vec<_> =
            (0..COMPUTE_SLOTS).map(|_| slot(handshakes.enter(deadlines.open(), Lane::Light))).collect();
        let mut late = handshakes.enter(deadlines.open(), Lane::Light);
        assert!(poll(&mut late).is_pending());
        (1..60).for_each(|at| deadlines.sweep(Duration::from_secs(at)));
        assert!(matches!(poll(&mut late), Poll::Ready(Err(_))));
        drop(late);
        assert_eq!(handshakes.len(), COMPUTE_SLOTS);
    }

    #[test]
    fn the_one_that_began_first_makes_room() {
        let (deadlines, handshakes) = (deadlines(), handshakes(3));
        let handles: Vec<_> = (0..6).map(|_| deadlines.open()).collect();
        let mut open: Vec<_> = handles.iter().take(4).map(|deadline| handshakes.open(deadline)).collect();
        let ended = || handles.iter().map(DeadlineHandle::expired).collect::<Vec<_>>();
        assert_eq!(ended(), [true, false, false, false, false, false]);
        // The first one's place has been taken by the fourth, which stays when the first has gone; the second
        // ends.
        drop(open.drain(..2));
        open.push(handshakes.open(&handles[4]));
        assert_eq!((handshakes.len(), ended()), (3, vec![true, false, false, false, false, false]));
        open.push(handshakes.open(&handles[5]));
        assert_eq!((handshakes.len(), ended()), (3, vec![true, false, true, false, false, false]));
        assert_eq!(deadlines.counters.evicted_handshakes.get(), 2);
        drop(open);
        assert_eq!(handshakes.len(), 0);
    }
}
