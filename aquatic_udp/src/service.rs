//! The handler, connected to sockets, to the other cores and to the metrics.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::Family;
use aquatic_common::config::NetworkConfig;
use aquatic_net::listen;
use aquatic_net::udp::{Batch, BindOptions, ReturnPath, SendErrors, UdpSocket, bind_group};
use aquatic_runtime::readiness::{Mode, Source};
use aquatic_runtime::{Broadcast, Core, Engine, MailboxReceiver, Outbox, broadcast};
use aquatic_swarm::SwarmCounts;
use aquatic_tracker::{LocalTracker, OwnerResponse, Reason, Respond, RouteError, TrackerSeed, Waiter};
use slab::Slab;

use crate::config::UdpConfig;
use crate::connection_id::ConnectionIds;
use crate::counters::Counters;
use crate::forwarded::{Forwarded, ForwardedAnnounce, ForwardedScrape};
use crate::handler::{Handler, Listener, ReplyLimits};
use crate::socket_counters::SocketCounters;

/// Full batches served before the other tasks of the core run.
const BATCHES_PER_YIELD: usize = 8;

/// A batch smaller than this has probably emptied the socket: to wait costs less than to ask for more, and is
/// over at once if there is more.
const PROBABLY_ALL: usize = 4;

/// Period of reading the kernel's drops.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum number of scrapes of one core that wait for other cores, of 1.6 KB each.
const MAX_PENDING_SCRAPES: usize = 16_384;

/// Changed settings that a core has not received yet.
const MAX_CHANGES: usize = 16;

/// Pause after an error of a socket, so that a lasting one does not take the whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// One core's part of a UDP tracker.
pub struct UdpService {
    sockets: Vec<UdpSocket>,
    limits: ReplyLimits,
    changes: MailboxReceiver<ReplyLimits>,
    ids: ConnectionIds,
}

impl UdpService {
    /// Binds the sockets of all listeners and returns each core's part, in core order, and the way to change
    /// the limits of replies on all cores.
    ///
    /// # Errors
    /// An address that cannot be listened on, with what to do about it.
    pub fn bind(
        (config, network): (&UdpConfig, &NetworkConfig),
        engine: &Engine,
        seed: &TrackerSeed,
    ) -> anyhow::Result<(Vec<Self>, Broadcast<ReplyLimits>)> {
        let key = engine.secrets().derive("aquatic UDP connection ids 1");
        let ids = ConnectionIds::new(config.max_connection_age, key);
        let limits = ReplyLimits::from(config);
        let (limit_changes, receivers) =
            broadcast(engine.cores(), MAX_CHANGES).context("cannot make the mailboxes of UDP")?;
        let part = |changes| Self { sockets: Vec::new(), limits, changes, ids: ids.clone() };
        let mut services: Vec<Self> = receivers.into_iter().map(part).collect();
        let options =
            BindOptions { receive_buffer: config.socket_recv_buffer_size, steering: config.steering };
        let mut listeners = 0;
        for (_, address) in network.addresses() {
            let group = match bind_group(address, &options, seed.steering()) {
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
        Ok((services, limit_changes))
    }

    /// Serves until the process stops.
    ///
    /// # Errors
    /// A socket that cannot be waited for.
    pub async fn serve(self, core: Rc<Core>, tracker: Rc<LocalTracker>) -> anyhow::Result<()> {
        let families: Vec<Family> = self.sockets.iter().map(UdpSocket::family).collect();
        let mut listeners = Vec::new();
        for socket in self.sockets {
            let socket =
                core.readiness().register(socket, Mode::Level).context("cannot watch a UDP socket")?;
            listeners.push(ListenerState { socket, replies: RefCell::new(Batch::new()) });
        }
        let channel = core.open_channel::<Vec<ForwardedAnnounce>>("udp").await;
        let state = Rc::new(State {
            handler: RefCell::new(Handler::new(self.limits, self.ids, Counters::new(core.metrics()))),
            listeners,
            counters: RefCell::new(SocketCounters::new(core.metrics(), families)),
            outbox: Outbox::new(channel.clone()),
            scrapes: RefCell::default(),
            core: Rc::clone(&core),
            tracker,
        });
        let receiving = Rc::clone(&state);
        channel.receive(move |_from, announces| receiving.answer_forwarded(announces));
        let changing = Rc::clone(&state);
        self.changes
            .attach(&core, move |limits| changing.handler.borrow_mut().set_limits(limits))
            .context("cannot wait for changed settings")?;
        for index in 0..state.listeners.len() {
            let listening = Rc::clone(&state);
            core.spawn(async move { listen(&listening, index).await });
        }
        let reporting = async {
            loop {
                core.sleep(REPORT_INTERVAL).await;
                state.report_kernel_drops();
            }
        };
        futures_lite::future::or(reporting, core.stopping()).await;
        state.report_kernel_drops();
        Ok(())
    }
}

/// What the tasks of one core share. Borrowed only between two awaits.
struct State {
    core: Rc<Core>,
    tracker: Rc<LocalTracker>,
    handler: RefCell<Handler>,
    listeners: Vec<ListenerState>,
    counters: RefCell<SocketCounters>,
    /// Announces on their way to the owners of their torrents.
    outbox: Outbox<Vec<ForwardedAnnounce>>,
    /// Scrapes that wait for other cores; the keys are the tokens of their waiters.
    scrapes: RefCell<Slab<ForwardedScrape>>,
}

struct ListenerState {
    socket: Source<UdpSocket>,
    /// Replies to requests that other cores received, or that had to ask other cores.
    replies: RefCell<Batch>,
}

impl State {
    fn report_kernel_drops(&self) {
        for (index, listener) in self.listeners.iter().enumerate() {
            self.counters.borrow_mut().kernel_drops(index, listener.socket.get_ref());
        }
    }

    /// Serves a received batch: everything between receiving and sending it.
    fn serve_batch(&self, about: Listener, batch: &mut Batch, forwarded: &mut Forwarded) {
        self.core.tick();
        let mut tracker = self.tracker.state();
        self.handler.borrow_mut().handle(batch, about, (&mut tracker, self.core.now()), forwarded);
        drop(tracker);
        for (owner, announce) in forwarded.announces.drain(..) {
            if self.outbox.add(owner, |batch| batch.push(announce)).is_err() {
                self.handler.borrow().give_up(about.family, Reason::Overflow);
            }
        }
        self.outbox.flush();
    }

    /// Asks the owners of the torrents of scrapes.
    fn ask_owners(self: &Rc<Self>, forwarded: &mut Forwarded) {
        for scrape in forwarded.scrapes.drain(..) {
            if self.scrapes.borrow().len() >= MAX_PENDING_SCRAPES {
                self.handler.borrow().give_up(scrape.family, Reason::Overflow);
                continue;
            }
            let slot = self.scrapes.borrow_mut().insert(scrape);
            let waiter = Waiter { respond: Rc::clone(self) as Rc<dyn Respond>, token: slot as u32 };
            self.tracker.scrape(scrape.info_hashes(), scrape.family.into(), waiter);
        }
    }

    fn take_scrape(&self, token: u32) -> Option<ForwardedScrape> {
        self.scrapes.borrow_mut().try_remove(token as usize)
    }

    /// Replies to what other cores received and this one owns.
    fn answer_forwarded(&self, announces: &mut Vec<ForwardedAnnounce>) {
        let now = self.core.now();
        for forwarded in announces.drain(..) {
            self.reply_apart(forwarded.listener, forwarded.path, |handler, buffer| {
                handler.handle_forwarded_announce(&forwarded, (&mut self.tracker.state(), now), buffer)
            });
        }
        self.flush_replies();
    }

    /// Writes a reply that is not part of a received batch. `encode` returns its length.
    fn reply_apart(
        &self,
        listener: usize,
        path: ReturnPath,
        encode: impl FnOnce(&Handler, &mut [u8]) -> usize,
    ) {
        let Some(listener) = self.listeners.get(listener) else { return };
        let mut replies = listener.replies.borrow_mut();
        if replies.is_full() {
            self.send_apart(listener, &mut replies);
        }
        if let Some(at) = replies.push(path) {
            let len = encode(&self.handler.borrow(), replies.reply_buffer(at));
            replies.set_reply_len(at, len);
        }
    }

    fn flush_replies(&self) {
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

impl Respond for State {
    fn announced(&self, _token: u32, _response: OwnerResponse<'_>) {
        debug_assert!(false, "owners reply to announces over UDP by themselves");
    }

    fn scraped(&self, token: u32, counts: &[SwarmCounts]) {
        let Some(scrape) = self.take_scrape(token) else { return };
        self.reply_apart(scrape.listener, scrape.path, |handler, buffer| {
            handler.finish_scrape(&scrape, counts, buffer)
        });
        self.flush_replies();
    }

    fn failed(&self, token: u32, error: RouteError) {
        let Some(scrape) = self.take_scrape(token) else { return };
        self.handler.borrow().give_up(scrape.family, error.into());
    }
}

/// Receives, serves and sends until the executor ends.
async fn listen(state: &Rc<State>, index: usize) {
    let Some(listener) = state.listeners.get(index) else { return };
    let socket = listener.socket.get_ref();
    let about = Listener { index, family: socket.family() };
    let mut batch = Batch::new();
    let mut forwarded = Forwarded::default();
    loop {
        let mut waited = false;
        for _ in 0..BATCHES_PER_YIELD {
            match batch.receive(socket) {
                Ok(0) => {
                    waited = true;
                    wait(state, listener.socket.readable().await).await;
                }
                Ok(received) => {
                    state.serve_batch(about, &mut batch, &mut forwarded);
                    state.ask_owners(&mut forwarded);
                    send(state, listener, &mut batch).await;
                    if received < PROBABLY_ALL {
                        waited = true;
                        wait(state, listener.socket.readable().await).await;
                    }
                }
                Err(error) => wait(state, Err(error)).await,
            }
        }
        if !waited {
            listener.socket.leave();
        }
        state.core.yield_now().await;
    }
}

/// Sends the replies of a batch, waiting for room in the send buffer.
async fn send(state: &State, listener: &ListenerState, batch: &mut Batch) {
    let mut errors = SendErrors::default();
    while !batch.send(listener.socket.get_ref(), &mut errors) {
        wait(state, listener.socket.writable().await).await;
    }
    if errors != SendErrors::default() {
        state.counters.borrow().send_errors(&errors);
    }
}

/// Counts an error of the socket and pauses. The engine logs counts of this kind when they grow.
async fn wait(state: &State, result: io::Result<()>) {
    if let Err(error) = result {
        log::debug!("UDP socket: {error}");
        state.counters.borrow().receive_errors.add(1);
        state.core.sleep(ERROR_PAUSE).await;
    }
}
