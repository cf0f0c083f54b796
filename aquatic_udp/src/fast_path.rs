//! The handler, connected to the queues of an interface (AF_XDP) besides its sockets. Requests come from the
//! queues and replies go back through them; replies that another core has to give, and those that are too
//! long for the interface, go through the sockets.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aquatic_common::config::NetworkConfig;
use aquatic_metrics::{CoreMetrics, Counter, Gauge, names};
use aquatic_net::block_list::BlockList;
use aquatic_net::breaker::Protocol;
use aquatic_net::udp::{BATCH, Datagrams, REPLY_CAPACITY, UdpSocket};
use aquatic_net::xdp::frame::Headers;
use aquatic_net::xdp::{self, MIN_REPLY_ROOM, Mode, Opened, QueueLosses, XdpError, XdpOptions, XdpQueue};
use aquatic_runtime::Engine;
use aquatic_runtime::readiness::{Mode as WatchMode, Source};
use aquatic_tracker::Reason;

use crate::config::MAX_REPLY_SIZE;
use crate::forwarded::Forwarded;
use crate::handler::Listener;
use crate::overload::Change;
use crate::service::{ALL, BATCHES_PER_YIELD, State, wait};
use crate::socket_counters::Path;

mod overload;

use overload::QueueOverload;

const _: () = assert!(MIN_REPLY_ROOM >= MAX_REPLY_SIZE, "every reply fits the frame of its request");
const _: () = assert!(MIN_REPLY_ROOM <= REPLY_CAPACITY, "every reply fits a buffer of the sockets");

/// A core's queues, and how they are read.
pub(crate) struct CoreQueues {
    pub(crate) queues: Vec<XdpQueue>,
    pub(crate) mode: Mode,
}

/// Receives from the interface of the configuration, if one is named. Returns each core's queues, in core
/// order; none if that cannot be done, which is told in the log, since sockets serve everything then.
///
/// # Errors
/// There is no such interface.
pub(crate) fn open(
    network: &NetworkConfig,
    sockets: &[UdpSocket],
    blocked: &Arc<BlockList>,
    engine: &mut Engine,
) -> Result<Vec<CoreQueues>, XdpError> {
    if network.xdp_interface.is_empty() {
        return Ok(Vec::new());
    }
    if engine.serving().is_elsewhere() {
        log::warn!(
            "AF_XDP is not used after an upgrade, because the tracker that runs still uses {}: sockets serve UDP. A \
             restart uses it again",
            network.xdp_interface
        );
        return Ok(Vec::new());
    }
    let listeners: Vec<_> = sockets.iter().map(UdpSocket::address).collect();
    let options = XdpOptions {
        interface: &network.xdp_interface,
        mode: network.xdp_mode,
        listeners: &listeners,
        cores: engine.cores(),
    };
    match xdp::open(options, blocked) {
        Ok(Opened { queues, control, mode }) => {
            engine.add_periodic(control);
            Ok(queues.into_iter().map(|queues| CoreQueues { queues, mode }).collect())
        }
        Err(error @ XdpError::NoInterface(_)) => Err(error),
        Err(error) => {
            log::warn!("AF_XDP is not used, sockets serve UDP: {error}");
            Ok(Vec::new())
        }
    }
}

/// What is counted about a core's queues.
struct QueueCounters {
    responses: Counter,
    blocked: Counter,
    lost: [Counter; 4],
    working: Gauge,
}

impl QueueCounters {
    fn new(metrics: &CoreMetrics, mode: Mode) -> Self {
        let lost = |reason| metrics.counter(&names::XDP_DROPS, &[("reason", reason)]);
        Self {
            responses: metrics.counter(&names::XDP_RESPONSES, &[]),
            blocked: metrics.counter(&names::XDP_BLOCKED, &[]),
            lost: ["ring_full", "no_buffer", "other", "refused"].map(lost),
            working: metrics.gauge(&names::XDP_QUEUES, &[("mode", mode.name())]),
        }
    }

    /// Counts what was lost since the last time.
    fn losses(&self, now: QueueLosses, before: QueueLosses) {
        let figures =
            |losses: QueueLosses| [losses.ring_full, losses.no_buffer, losses.other, losses.refused];
        for (counter, (now, before)) in self.lost.iter().zip(figures(now).into_iter().zip(figures(before))) {
            counter.add(now.saturating_sub(before));
        }
        self.blocked.add(now.blocked.saturating_sub(before.blocked));
    }
}

/// The queues of a core, while it serves them.
pub(crate) struct ServedQueues {
    queues: Vec<Rc<Queue>>,
    counters: Rc<QueueCounters>,
    /// Replies have been written that the kernel has not been told of.
    has_written: Cell<bool>,
}

impl ServedQueues {
    /// Serves a core's queues until the executor ends.
    ///
    /// # Errors
    /// A queue that cannot be waited for.
    pub(crate) fn start(
        state: &Rc<State>,
        CoreQueues { queues, mode }: CoreQueues,
        load_key: [u8; 16],
    ) -> io::Result<Self> {
        let counters = Rc::new(QueueCounters::new(state.core.metrics(), mode));
        let mut served = Vec::with_capacity(queues.len());
        for queue in queues {
            let watched = state.core.readiness().register(queue.watched()?, WatchMode::Level)?;
            let families = (0..state.listeners.len()).map(|index| state.family(index));
            let queue = Rc::new(Queue {
                watched,
                overload: RefCell::new(QueueOverload::new(families, load_key)),
                counters: Rc::clone(&counters),
                queue: RefCell::new(queue),
                forwarded: RefCell::default(),
                losses: Cell::default(),
                has_failed: Cell::default(),
            });
            served.push(Rc::clone(&queue));
            let serving = Rc::clone(state);
            state.core.spawn_inline(async move { queue.listen(&serving).await });
        }
        let served = Self { queues: served, counters, has_written: Cell::default() };
        served.report(state);
        Ok(served)
    }

    /// Writes a reply to a request that is not part of a batch. `encode` writes it and returns its length. A
    /// reply that is too long for the interface is handed to `elsewhere`; if there is no queue or buffer,
    /// `encode` is handed to `without`.
    pub(crate) fn reply<E: FnOnce(&mut [u8]) -> usize>(
        &self,
        headers: &Headers,
        encode: E,
        elsewhere: impl FnOnce(&[u8]),
        without: impl FnOnce(E),
    ) {
        let works = self.queues.iter().filter(|queue| !queue.has_failed.get());
        let mut queues = works.filter_map(|queue| queue.queue.try_borrow_mut().ok());
        match queues.find(|queue| queue.has_spare()) {
            Some(mut queue) => {
                let was_sent = queue.reply(headers, encode, elsewhere);
                self.counters.responses.add(was_sent.into());
                self.has_written.set(true);
            }
            None => without(encode),
        }
    }

    /// Has the kernel send what [`reply`](Self::reply) has written.
    pub(crate) fn flush(&self) {
        if self.has_written.take() {
            self.queues.iter().filter_map(|queue| queue.queue.try_borrow_mut().ok()).for_each(|mut queue| {
                queue.flush();
            });
        }
    }

    /// Counts losses, and what works. To be called about twice a second.
    pub(crate) fn report(&self, state: &State) {
        self.queues.iter().for_each(|queue| queue.report(state));
        let working = self.queues.iter().filter(|queue| !queue.has_failed.get()).count();
        self.counters.working.set(working as u64);
    }
}

/// A queue and what serves it.
struct Queue {
    watched: Source<OwnedFd>,
    counters: Rc<QueueCounters>,
    /// Borrowed only between two awaits.
    queue: RefCell<XdpQueue>,
    /// Empty, but for its memory.
    forwarded: RefCell<Forwarded>,
    overload: RefCell<QueueOverload>,
    /// Losses that have been counted.
    losses: Cell<QueueLosses>,
    /// The interface is gone.
    has_failed: Cell<bool>,
}

impl Queue {
    /// Receives, serves and sends until the executor ends.
    async fn listen(&self, state: &Rc<State>) {
        let intake = state.core.intake().join();
        self.set_open(!intake.is_closed());
        loop {
            if intake.is_closed() {
                // What comes from now on goes to the sockets, which the successor has as well.
                self.set_open(false);
                while self.serve(state) > 0 {
                    state.core.yield_now().await;
                }
                intake.opened().await;
                self.set_open(true);
            }
            let mut waited = false;
            for _ in 0..BATCHES_PER_YIELD {
                if intake.is_closed() {
                    break;
                }
                if self.serve(state) == 0 {
                    waited = true;
                    let since = state.core.time();
                    if let Some(Err(error)) = intake.unless_closed(self.watched.readable()).await {
                        wait(state, Err(error)).await;
                    }
                    self.overload.borrow_mut().waited(state.core.tick().saturating_sub(since));
                }
            }
            if !waited {
                self.watched.leave();
            }
            state.core.yield_now().await;
        }
    }

    fn set_open(&self, is_open: bool) {
        self.queue.borrow().set_open(is_open);
    }

    /// Receives a batch, serves it and sends the replies. Returns the number of frames.
    fn serve(&self, state: &Rc<State>) -> usize {
        let mut queue = self.queue.borrow_mut();
        let received = queue.receive();
        if received == 0 {
            queue.retry();
            return 0;
        }
        let at = state.core.tick();
        let mut overload = self.overload.borrow_mut();
        overload.received(received == BATCH, queue.waiting());
        let mut forwarded = self.forwarded.take();
        let mut requests = 0;
        for index in 0..state.listeners.len() {
            let about = Listener { index, family: state.family(index) };
            let mut batch = queue.of_listener(index);
            let count = batch.count();
            if count == 0 {
                continue;
            }
            requests += count;
            state.counters.borrow().batch(index, count);
            let (dropped, reason) = if state.breakers.is_open(Protocol::Udp, about.family) {
                (ALL, Reason::Breaker)
            } else {
                (overload.choose(index, &batch, at), Reason::Overload)
            };
            state.handler.borrow_mut().drop_unread(dropped, reason);
            state.handle(about, &mut batch, &mut forwarded);
        }
        let sent = queue.send(|listener, path, reply| {
            state.reply_by_socket(listener, path, |_, buffer| copy(buffer, reply));
        });
        self.control_overload(state, &mut overload, &queue);
        // Replies to what is passed on may leave through this queue.
        drop((queue, overload));
        self.counters.responses.add(sent as u64);
        let left = state.pass_on(&mut forwarded);
        state.ask_owners(&mut forwarded);
        self.forwarded.replace(forwarded);
        state.count_served(requests - left, at);
        received
    }

    /// Ends an interval of overload control if one is due.
    fn control_overload(&self, state: &State, overload: &mut QueueOverload, queue: &XdpQueue) {
        let now = state.core.time();
        let tell = |listener: usize, change: Change, is_overloaded: bool| {
            state.counters.borrow().overloaded(listener, Path::Queue(queue.index()), is_overloaded);
            state.tell_change(state.family(listener), change.event);
        };
        if state.controls_overload.get() {
            overload.follow(now, || queue.losses().unwrap_or_default(), tell);
        } else {
            overload.stop(now, tell);
        }
    }

    fn report(&self, state: &State) {
        let mut queue = self.queue.borrow_mut();
        queue.retry();
        if queue.waiting() == 0 {
            // Without frames nothing else ends an overload.
            let mut overload = self.overload.borrow_mut();
            overload.waited(Duration::ZERO);
            self.control_overload(state, &mut overload, &queue);
        }
        if let Ok(losses) = queue.losses() {
            self.counters.losses(losses, self.losses.replace(losses));
        }
        if let Some(error) = queue.take_error() {
            self.has_failed.set(true);
            log::warn!(
                "AF_XDP: queue {} does not work any longer ({error}), sockets serve its requests. If the interface \
                 was removed and is back, restart the tracker to use it again",
                queue.index()
            );
        }
    }
}

/// Copies a reply and returns its length.
pub(crate) fn copy(buffer: &mut [u8], reply: &[u8]) -> usize {
    let len = reply.len().min(buffer.len());
    buffer.iter_mut().zip(reply).for_each(|(to, from)| *to = *from);
    len
}
