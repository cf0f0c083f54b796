//! The handler, connected to sockets, to the other cores and to the metrics.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::config::{NetworkConfig, RateLimitsConfig};
use aquatic_common::{ConfigurationError, Family, Prefix};
use aquatic_net::block_list::BlockList;
use aquatic_net::breaker::{CoreBreakers, Protocol};
use aquatic_net::listen;
use aquatic_net::udp::{
    Batch, BindOptions, Datagrams, DropFilter, QueueState, ReturnPath, SendErrors, UdpSocket, bind_group,
};
use aquatic_runtime::clock::calendar_seconds;
use aquatic_runtime::readiness::{Mode, Source};
use aquatic_runtime::{Broadcast, Core, Engine, MailboxReceiver, Outbox, broadcast};
use aquatic_tracker::{LocalTracker, Reason, TrackerSeed};
use slab::Slab;

use crate::config::UdpConfig;
use crate::connection_id::ConnectionIds;
use crate::counters::Counters;
use crate::fast_path::{self, CoreQueues, ServedQueues};
use crate::forwarded::{Forwarded, ForwardedAnnounce, ForwardedScrape};
use crate::handler::{Handler, Listener, ReplyLimits, Sources};
use crate::overload::{Activity, Change, Event, OverloadControl};
use crate::socket_counters::{FilterReason, Path, SocketCounters};

mod asking;
mod listening;

/// Full batches served before the other tasks of the core run.
pub(crate) const BATCHES_PER_YIELD: usize = 8;

/// Period of reading the kernel's drops.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// Changed settings that a core has not received yet.
const MAX_CHANGES: usize = 16;

/// Pause after an error of a socket, so that a lasting one does not take the whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// The settings of UDP that a reload changes.
#[derive(Clone, Debug)]
pub struct UdpSettings {
    /// Limits of replies.
    pub replies: ReplyLimits,
    /// Limits of sources.
    pub rates: Arc<RateLimitsConfig>,
}

impl UdpSettings {
    /// Those of a configuration.
    #[must_use]
    pub fn new(config: &UdpConfig, rates: &RateLimitsConfig) -> Self {
        Self { replies: ReplyLimits::from(config), rates: Arc::new(rates.clone()) }
    }
}

/// One core's part of a UDP tracker.
pub struct UdpService {
    sockets: Vec<UdpSocket>,
    queues: Option<CoreQueues>,
    settings: UdpSettings,
    changes: MailboxReceiver<UdpSettings>,
    pub(crate) ids: ConnectionIds,
    blocked: Arc<BlockList>,
    /// Key of the tables of loads.
    load_key: [u8; 16],
    counts_clients: bool,
}

impl UdpService {
    /// Binds the sockets of all listeners and returns each core's part, in core order, and the way to change
    /// the settings on all cores.
    ///
    /// # Errors
    /// An address that cannot be listened on, with what to do about it.
    pub fn bind(
        (config, network, rates): (&UdpConfig, &NetworkConfig, &RateLimitsConfig),
        engine: &mut Engine,
        seed: &TrackerSeed,
        blocked: &Arc<BlockList>,
    ) -> anyhow::Result<(Vec<Self>, Broadcast<UdpSettings>)> {
        let key = engine.secrets().derive("aquatic UDP connection ids 1");
        let ids = ConnectionIds::new(config.max_connection_age, key);
        let settings = UdpSettings::new(config, rates);
        let (setting_changes, receivers) =
            broadcast(engine.cores(), MAX_CHANGES).context("cannot make the mailboxes of UDP")?;
        let load_key = engine.secrets().derive("aquatic UDP loads 1");
        let part = |changes| Self {
            sockets: Vec::new(),
            queues: None,
            settings: settings.clone(),
            changes,
            ids: ids.clone(),
            blocked: Arc::clone(blocked),
            load_key,
            counts_clients: false,
        };
        let mut services: Vec<Self> = receivers.into_iter().map(part).collect();
        let options =
            BindOptions { receive_buffer: config.socket_recv_buffer_size, steering: config.steering };
        let mut listeners = 0;
        for (_, address) in network.addresses() {
            let group = match bind_group(address, &options, seed.steering(), engine.listeners()) {
                Ok(group) => group,
                Err(error) if network.may_skip(address) && error.family_unavailable() => {
                    log::warn!("{error}; serving IPv4 only");
                    continue;
                }
                Err(error) => return Err(error.classified()),
            };
            if let Some(first) = group.first() {
                listen::announce("UDP", "udp", first.address());
            }
            services.iter_mut().zip(group).for_each(|(service, socket)| service.sockets.push(socket));
            listeners += 1;
        }
        anyhow::ensure!(
            listeners > 0,
            "no address to listen on is left; set {} = true",
            NetworkConfig::use_ipv4
        );
        let sockets = services.first().map_or(&[][..], |service| &service.sockets);
        let queues = fast_path::open(network, sockets, blocked, engine).map_err(ConfigurationError::new)?;
        services.iter_mut().zip(queues).for_each(|(service, queues)| service.queues = Some(queues));
        Ok((services, setting_changes))
    }

    /// Counts announces by the program of the client, or not.
    #[must_use]
    pub fn counting_clients(self, counts_clients: bool) -> Self {
        Self { counts_clients, ..self }
    }

    /// Serves until the process stops.
    ///
    /// # Errors
    /// A socket that cannot be waited for.
    pub async fn serve(
        self,
        core: Rc<Core>,
        tracker: Rc<LocalTracker>,
        breakers: CoreBreakers,
    ) -> anyhow::Result<()> {
        let families: Vec<Family> = self.sockets.iter().map(UdpSocket::family).collect();
        let mut listeners = Vec::new();
        for socket in self.sockets {
            let socket =
                core.readiness().register(socket, Mode::Level).context("cannot watch a UDP socket")?;
            let overload = OverloadControl::new(socket.get_ref().family(), self.load_key);
            listeners.push(ListenerState {
                socket,
                replies: RefCell::new(Batch::new()),
                overload: RefCell::new(overload),
                waits: Cell::new(false),
                has_filter: Cell::new(false),
                refuses_all: Cell::new(false),
            });
        }
        let channel = core.open_channel::<Vec<ForwardedAnnounce>>("udp").await;
        let UdpSettings { replies, rates } = &self.settings;
        let mut sources = Sources { blocked: self.blocked, ..Sources::unlimited(self.load_key) };
        sources.configure(rates, core.count());
        let counters = Counters::new(core.metrics()).counting_clients(core.metrics(), self.counts_clients);
        let state = Rc::new(State {
            handler: RefCell::new(Handler::new(*replies, self.ids, sources, counters)),
            controls_overload: Cell::new(rates.udp_overload_control),
            breakers,
            listeners,
            counters: RefCell::new(SocketCounters::new(core.metrics(), families)),
            queues: OnceCell::new(),
            outbox: Outbox::new(channel.clone()),
            scrapes: RefCell::default(),
            elsewhere: RefCell::default(),
            core: Rc::clone(&core),
            tracker,
        });
        let receiving = Rc::clone(&state);
        channel.receive(move |_from, announces| receiving.answer_forwarded(announces));
        state.handler.borrow_mut().follow_calendar(core.now(), calendar_seconds);
        let changing = Rc::clone(&state);
        self.changes
            .attach(&core, move |settings| changing.configure(&settings))
            .context("cannot wait for changed settings")?;
        for index in 0..state.listeners.len() {
            let listening = Rc::clone(&state);
            core.spawn_inline(async move { listening::listen(&listening, index).await });
        }
        if let Some(queues) = self.queues {
            let served = ServedQueues::start(&state, queues, self.load_key)
                .context("cannot watch a queue of the network interface")?;
            let _is_first = state.queues.set(served);
        }
        let reporting = async {
            loop {
                core.sleep_to_tick(REPORT_INTERVAL).await;
                state.queues.get().into_iter().for_each(|queues| queues.report(&state));
                state.report_kernel_drops();
                state.control_silent_listeners();
                state.handler.borrow_mut().follow_calendar(core.now(), calendar_seconds);
                state.report_rates();
                state.follow_breakers();
            }
        };
        futures_lite::future::or(reporting, core.stopping()).await;
        state.report_kernel_drops();
        Ok(())
    }
}

/// What the tasks of one core share. Borrowed only between two awaits.
pub(crate) struct State {
    pub(crate) core: Rc<Core>,
    tracker: Rc<LocalTracker>,
    pub(crate) handler: RefCell<Handler>,
    /// Whether the heaviest networks get less while more arrives than can be served.
    pub(crate) controls_overload: Cell<bool>,
    pub(crate) breakers: CoreBreakers,
    pub(crate) listeners: Vec<ListenerState>,
    pub(crate) counters: RefCell<SocketCounters>,
    /// Queues of a network interface, if there are any.
    queues: OnceCell<ServedQueues>,
    /// Announces on their way to the owners of their torrents.
    outbox: Outbox<Vec<ForwardedAnnounce>>,
    /// Scrapes that wait for other cores; the keys are the tokens of their waiters.
    scrapes: RefCell<Slab<ForwardedScrape>>,
    /// Announces for parts that other nodes hold, which wait for the response.
    elsewhere: RefCell<Slab<ForwardedAnnounce>>,
}

pub(crate) struct ListenerState {
    socket: Source<UdpSocket>,
    /// Replies to requests that other cores received, or that had to ask other cores.
    replies: RefCell<Batch>,
    overload: RefCell<OverloadControl>,
    /// Whether the core waits for datagrams.
    waits: Cell<bool>,
    /// Whether the kernel filters what arrives.
    has_filter: Cell<bool>,
    /// Whether the filter is that of an open breaker.
    refuses_all: Cell<bool>,
}

/// All datagrams of a batch, as bits.
pub(crate) const ALL: u64 = u64::MAX;

impl ListenerState {
    /// Whether all cores have this socket: what the kernel tells of it is then counted by the first one, and
    /// no core can tell its own overload.
    fn is_shared(&self) -> bool {
        self.socket.get_ref().is_shared()
    }

    /// Has the kernel filter nothing, for whoever uses the socket next.
    fn remove_filter(&self) {
        self.refuses_all.set(false);
        if self.has_filter.replace(false)
            && let Err(error) = self.socket.get_ref().remove_filter()
        {
            log::warn!("UDP: a socket filter cannot be removed: {error}");
        }
    }
}

impl State {
    fn configure(&self, UdpSettings { replies, rates }: &UdpSettings) {
        let mut handler = self.handler.borrow_mut();
        handler.set_limits(*replies);
        handler.sources().configure(rates, self.core.count());
        self.controls_overload.set(rates.udp_overload_control);
        drop(handler);
        if !rates.udp_overload_control {
            for (index, listener) in self.listeners.iter().enumerate() {
                let mut control = listener.overload.borrow_mut();
                let change = control.stop(self.core.tick());
                self.apply_change(index, listener, &mut control, change);
            }
        }
    }

    /// Logs when sources begin to be above their rate limit, and when that is over.
    fn report_rates(&self) {
        let [sources, connects] = self.handler.borrow_mut().rate_events(self.core.tick());
        if let Some(event) = sources {
            log::warn!("UDP rate limit of core {}: {event}", self.core.index());
        }
        if let Some(event) = connects {
            log::warn!("UDP rate limit of core {}, connects: {event}", self.core.index());
        }
    }

    /// Has the kernel drop everything where the breaker is open. Until it does, each batch is dropped unread.
    fn follow_breakers(&self) {
        for (index, listener) in self.listeners.iter().enumerate() {
            let family = listener.socket.get_ref().family();
            let is_open = self.breakers.is_open(Protocol::Udp, family);
            if listener.refuses_all.get() == is_open {
                continue;
            }
            // What has been dropped so far had the reason of before.
            self.read_queue(index, listener);
            listener.refuses_all.set(is_open);
            let mut control = listener.overload.borrow_mut();
            let change = control.stop(self.core.tick());
            self.apply_change(index, listener, &mut control, change);
            let filter = is_open.then(|| DropFilter::everything(family));
            self.apply_filter(
                index,
                listener,
                &mut control,
                &filter.unwrap_or_else(|| DropFilter::nothing(family)),
            );
        }
    }

    fn report_kernel_drops(&self) {
        // Another process has the sockets, and counts.
        if self.core.intake().is_closed() {
            return;
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            self.read_queue(index, listener);
        }
    }

    /// Ends intervals of overload control where nothing arrives, or nothing that the filter lets through.
    fn control_silent_listeners(&self) {
        if !self.controls_overload.get() || self.core.intake().is_closed() {
            return;
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            if !listener.waits.get() || listener.refuses_all.get() || listener.is_shared() {
                continue;
            }
            let mut control = listener.overload.borrow_mut();
            let queue = || self.read_queue(index, listener);
            if let Some(change) = control.interval_of_silence(self.core.time(), queue) {
                self.apply_change(index, listener, &mut control, change);
            }
        }
    }

    /// Begins with a socket that another process may have had before. Returns the state of its receive
    /// buffer.
    fn begin_with(&self, index: usize, listener: &ListenerState) -> QueueState {
        // Where the kernel does not tell, nothing has been dropped.
        let queue = listener.socket.get_ref().queue().unwrap_or_default();
        self.counters.borrow_mut().begin(index, queue);
        listener.overload.borrow_mut().begin_with(queue);
        queue
    }

    /// Reads the state of a receive buffer and counts drops. Where the kernel does not tell, there are none.
    fn read_queue(&self, index: usize, listener: &ListenerState) -> Option<QueueState> {
        let queue = listener.socket.get_ref().queue().ok()?;
        if listener.is_shared() && self.core.index() != 0 {
            return Some(queue);
        }
        let filter = match (listener.has_filter.get(), listener.refuses_all.get()) {
            (false, _) => None,
            (true, false) => Some(FilterReason::Overload),
            (true, true) => Some(FilterReason::Breaker),
        };
        self.counters.borrow_mut().kernel_drops(index, queue, filter);
        Some(queue)
    }

    /// Chooses what of a received batch is dropped unread, and ends an interval of overload control if one is
    /// due. Returns the datagrams to drop as bits.
    fn control_overload(&self, index: usize, batch: &Batch, activity: &mut Activity) -> u64 {
        let Some(listener) = self.listeners.get(index) else { return 0 };
        let mut control = listener.overload.borrow_mut();
        let now = self.core.time();
        let is_controlled = self.controls_overload.get() && !listener.is_shared();
        let dropped = if is_controlled { control.choose(batch, now) } else { 0 };
        activity.received += batch.len() as u32;
        activity.shed += dropped.count_ones();
        if control.is_active()
            && let Some(queue) = self.read_queue(index, listener)
        {
            activity.observe(queue);
        }
        if control.is_due(now, activity) && is_controlled {
            let queue = if activity.was_empty && !control.is_active() {
                None
            } else {
                self.read_queue(index, listener)
            };
            let was_active = control.is_active();
            let change = control.interval(now, std::mem::take(activity), queue);
            if was_active || control.is_active() || change.is_some() {
                self.apply_change(index, listener, &mut control, change);
            }
        }
        dropped
    }

    fn apply_change(
        &self,
        index: usize,
        listener: &ListenerState,
        control: &mut OverloadControl,
        change: Change,
    ) {
        if let Some(filter) = change.filter {
            self.apply_filter(index, listener, control, &filter);
        }
        self.counters.borrow().overloaded(index, Path::Socket, control.is_active());
        self.tell_change(listener.socket.get_ref().family(), change.event);
    }

    /// Logs that an overload has begun or ended.
    pub(crate) fn tell_change(&self, family: Family, event: Option<Event>) {
        match event {
            Some(Event::Began { offered, capacity, heaviest }) => {
                tell_overload(self.core.index(), family, (offered, capacity), heaviest);
            }
            Some(Event::Ended(lasted)) => log::warn!(
                "UDP overload of core {} ({}) has ended after {:.1} s",
                self.core.index(),
                family.name(),
                lasted.as_secs_f64()
            ),
            None => {}
        }
    }

    /// Has the kernel drop what a filter does not let through.
    fn apply_filter(
        &self,
        index: usize,
        listener: &ListenerState,
        control: &mut OverloadControl,
        filter: &DropFilter,
    ) {
        self.read_queue(index, listener);
        let socket = listener.socket.get_ref();
        let result = match (filter.is_open(), listener.has_filter.get()) {
            (true, false) => Ok(()),
            (true, true) => socket.remove_filter(),
            (false, _) => socket.set_filter(filter),
        };
        match result {
            Ok(()) => listener.has_filter.set(!filter.is_open()),
            Err(error) if control.go_without_filter() => log::warn!(
                "UDP: the kernel refused a large socket filter ({error}); during an overload from thousands of \
                 networks requests are lost at random. sysctl net.core.optmem_max=131072 allows such filters"
            ),
            Err(error) => log::warn!(
                "UDP: the kernel refused a socket filter ({error}); requests that are not to be served are \
                 dropped by this process, which takes more of its time"
            ),
        }
    }

    /// The family of a listener's clients.
    pub(crate) fn family(&self, listener: usize) -> Family {
        self.listeners.get(listener).map_or(Family::V4, |listener| listener.socket.get_ref().family())
    }

    /// Serves a received batch: everything between receiving and sending it. Returns the number of requests
    /// left to other cores.
    fn serve_batch(self: &Rc<Self>, about: Listener, batch: &mut Batch, forwarded: &mut Forwarded) -> usize {
        self.handle(about, batch, forwarded);
        if forwarded.is_empty() { 0 } else { self.pass_on(forwarded) }
    }

    /// Has the handler serve a batch.
    pub(crate) fn handle(&self, about: Listener, batch: &mut impl Datagrams, forwarded: &mut Forwarded) {
        let mut tracker = self.tracker.state();
        let mut handler = self.handler.borrow_mut();
        handler.sources().now = self.core.time();
        handler.handle(batch, about, (&mut tracker, self.core.now()), forwarded);
    }

    /// Passes announces on to the owners of their torrents, and sends replies that are not part of a received
    /// batch. Returns the number of requests left to other cores.
    pub(crate) fn pass_on(self: &Rc<Self>, forwarded: &mut Forwarded) -> usize {
        let mut left = forwarded.scrapes.len();
        let is_divided = !forwarded.announces.is_empty() && self.tracker.state().is_divided();
        for (owner, announce) in forwarded.announces.drain(..) {
            if is_divided && !self.tracker.state().holds(&announce.announce.info_hash) {
                left += 1;
                self.ask_node(announce);
                continue;
            }
            if self.serve_for_sleeping(owner, &announce) {
                continue;
            }
            left += 1;
            let family = self.family(announce.listener);
            if self.outbox.add(owner, |batch| batch.push(announce)).is_err() {
                self.handler.borrow().give_up(family, Reason::Overflow);
            }
        }
        self.outbox.flush();
        self.flush_replies();
        left
    }

    /// Counts requests received at a time whose replies have been sent.
    pub(crate) fn count_served(&self, requests: usize, received: Duration) {
        let time = self.core.tick().saturating_sub(received);
        self.counters.borrow().served(requests, time);
    }

    /// Applies an announce with its owner's tracker, if the owner sleeps. Returns whether that was so.
    fn serve_for_sleeping(&self, owner: usize, announce: &ForwardedAnnounce) -> bool {
        // Not while the owner may have to wait for it.
        self.make_room(announce.listener);
        let now = self.core.now();
        let served = self.tracker.with_sleeping(owner, |tracker| {
            self.reply_apart(announce.listener, announce.path, |handler, buffer| {
                handler.handle_forwarded_announce(announce, (tracker, now), buffer)
            });
        });
        served.is_some()
    }

    /// Replies to what other cores received and this one owns.
    fn answer_forwarded(&self, announces: &mut Vec<ForwardedAnnounce>) {
        let now = self.core.now();
        let count = announces.len();
        let Some(received) = announces.iter().map(|announce| announce.received).min() else { return };
        for forwarded in announces.drain(..) {
            self.reply_apart(forwarded.listener, forwarded.path, |handler, buffer| {
                handler.handle_forwarded_announce(&forwarded, (&mut self.tracker.state(), now), buffer)
            });
        }
        self.flush_replies();
        self.count_served(count, received);
    }

    /// Writes a reply that is not part of a received batch. `encode` returns its length.
    fn reply_apart(
        &self,
        listener: usize,
        path: ReturnPath,
        encode: impl FnOnce(&Handler, &mut [u8]) -> usize,
    ) {
        if let Some(headers) = path.headers()
            && let Some(queues) = self.queues.get()
        {
            let encode = |buffer: &mut [u8]| encode(&self.handler.borrow(), buffer);
            let elsewhere = |reply: &[u8]| {
                self.reply_by_socket(listener, path, |_, buffer| fast_path::copy(buffer, reply));
            };
            return queues.reply(headers, encode, elsewhere, |encode| {
                self.reply_by_socket(listener, path, |_, buffer| encode(buffer));
            });
        }
        self.reply_by_socket(listener, path, encode);
    }

    /// As [`reply_apart`](Self::reply_apart), through the socket in any case.
    pub(crate) fn reply_by_socket(
        &self,
        listener: usize,
        path: ReturnPath,
        encode: impl FnOnce(&Handler, &mut [u8]) -> usize,
    ) {
        self.make_room(listener);
        let Some(listener) = self.listeners.get(listener) else { return };
        let mut replies = listener.replies.borrow_mut();
        if let Some(at) = replies.push(path) {
            let len = encode(&self.handler.borrow(), replies.reply_buffer(at));
            replies.set_reply_len(at, len);
        }
    }

    /// Sends the replies that are not part of a received batch if there is no room for another.
    fn make_room(&self, listener: usize) {
        let Some(listener) = self.listeners.get(listener) else { return };
        let mut replies = listener.replies.borrow_mut();
        if replies.is_full() {
            self.send_apart(listener, &mut replies);
        }
    }

    pub(crate) fn flush_replies(&self) {
        if let Some(queues) = self.queues.get() {
            queues.flush();
        }
        for listener in &self.listeners {
            let mut replies = listener.replies.borrow_mut();
            if !replies.is_empty() {
                self.send_apart(listener, &mut replies);
            }
        }
    }

    /// Sends replies that are not part of a received batch. They have no queue to wait in: what the send
    /// buffer cannot take is counted as an error.
    fn send_apart(&self, listener: &ListenerState, replies: &mut Batch) {
        let mut errors = SendErrors::default();
        if !replies.send(listener.socket.get_ref(), &mut errors) {
            errors.no_buffers += replies.unsent() as u64;
        }
        self.counters.borrow().send_errors(&errors);
        replies.clear();
    }
}

/// Logs that an overload has begun.
fn tell_overload(
    core: usize,
    family: Family,
    (offered, capacity): (f64, f64),
    heaviest: Option<(Prefix, f64)>,
) {
    let family_name = family.name();
    let heaviest_text = match heaviest {
        Some((prefix, rate)) => format!("most from {prefix} ({rate:.0}/s), which gets less"),
        None => "from many networks, none of which stands out".to_owned(),
    };
    log::warn!(
        "UDP overload of core {core} ({family_name}): {offered:.0} requests/s arrive, {capacity:.0}/s can be served; \
         {heaviest_text}"
    );
}

/// Counts an error of the socket and pauses. The engine logs counts of this kind when they grow.
pub(crate) async fn wait(state: &State, result: io::Result<()>) {
    if let Err(error) = result {
        log::debug!("UDP socket: {error}");
        state.counters.borrow().receive_errors.add(1);
        state.core.sleep(ERROR_PAUSE).await;
    }
}
