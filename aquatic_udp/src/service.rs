//! The handler, connected to sockets, to the other cores and to the metrics.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use aquatic_runtime::mesh::{Carries, Overflow};
use aquatic_runtime::readiness::{Mode, Source};
use aquatic_runtime::udp::{BATCH, Batch, BindOptions, ReturnPath, UdpSocket, bind_group};
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig, net};
use rand::rngs::SysRng;
use rand::{RngExt, rand_core::UnwrapErr};

use crate::config::UdpConfig;
use crate::connection_id::ConnectionIds;
use crate::handler::{Handler, Listener, Packets, Turn};
use crate::message::{Away, ForwardedAnnounce, ForwardedScrape};
use crate::report::{Report, SocketCounts};

/// Full batches handled before the other tasks of the core get their turn.
const BATCHES_PER_TURN: usize = 8;

/// How often counts are handed to the metrics, and how often the kernel is asked for drops.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// How long to stay away from a socket that reports an error, so that a lasting one does not take the whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Starts a UDP tracker and runs it until the process is told to stop.
///
/// # Errors
/// Whatever keeps the tracker from starting or running, with what to do about it.
pub fn run(config: UdpConfig) -> anyhow::Result<()> {
    let engine = Engine::prepare(engine_config(&config))?;
    let services = UdpService::bind(&config, &engine)?;
    engine.run(services)?;
    Ok(())
}

fn engine_config(config: &UdpConfig) -> EngineConfig {
    EngineConfig {
        workers: config.workers,
        privileges: config.privileges.clone(),
        access_list: config.access_list.clone(),
        metrics: config.metrics.clone(),
        statistics: config.statistics.clone(),
        cleaning: config.cleaning.clone(),
        limits: config.limits.clone(),
    }
}

/// One core's part of a UDP tracker.
pub struct UdpService {
    sockets: Vec<UdpSocket>,
    handler: Handler,
}

impl UdpService {
    /// Binds the sockets of all listeners and returns each core's part, in core order.
    ///
    /// # Errors
    /// An address that cannot be listened on, with what to do about it.
    pub fn bind(config: &UdpConfig, engine: &Engine) -> anyhow::Result<Vec<Self>> {
        let mut rng = UnwrapErr(SysRng);
        let ids = ConnectionIds::new(config.protocol.max_connection_age, &mut rng);
        let mut services: Vec<Self> = (0..engine.cores())
            .map(|core| Self {
                sockets: Vec::new(),
                handler: Handler::new(config, core, *engine.steering(), ids.clone(), rng.random()),
            })
            .collect();
        let options = BindOptions {
            receive_buffer: config.network.socket_recv_buffer_size,
            steering: config.network.steering,
        };
        let mut listeners = 0;
        for (family, address) in config.listen().addresses() {
            let group = match bind_group(address, &options, engine.steering()) {
                Ok(group) => group,
                Err(error)
                    if config.listen().may_do_without(family, address) && error.family_unavailable() =>
                {
                    log::warn!("{error}; serving IPv4 only");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(first) = group.first() {
                net::announce("UDP", "udp", first.address());
            }
            services.iter_mut().zip(group).for_each(|(service, socket)| service.sockets.push(socket));
            listeners += 1;
        }
        anyhow::ensure!(listeners > 0, "no address to listen on is left; enable network.use_ipv4");
        Ok(services)
    }

    /// Serves until the process stops; generic over the message type so that other services can run beside it.
    async fn serve<M>(self, core: Rc<Core<M>>) -> anyhow::Result<()>
    where
        M: Carries<ForwardedAnnounce> + Send + 'static,
    {
        let report = RefCell::new(Report::new(core.metrics(), &self.sockets));
        let mut listeners = Vec::new();
        for socket in self.sockets {
            let socket =
                core.readiness().register(socket, Mode::OneShot).context("cannot watch a UDP socket")?;
            listeners.push(ListenerState { socket, outbox: RefCell::new(Batch::new()) });
        }
        let state =
            Rc::new(State { handler: RefCell::new(self.handler), listeners, counts: RefCell::default() });
        answer_other_cores(&core, &state);
        for index in 0..state.listeners.len() {
            let (core, state) = (core.clone(), state.clone());
            core.clone().spawn(async move { listen(&core, &state, index).await });
        }
        let ticking = async {
            loop {
                core.sleep(REPORT_INTERVAL).await;
                state.report(&report);
            }
        };
        futures_lite::future::or(ticking, core.stopping()).await;
        state.report(&report);
        Ok(())
    }
}

impl CoreService for UdpService {
    type Message = ForwardedAnnounce;

    fn run(self, core: Rc<Core<ForwardedAnnounce>>) -> impl Future<Output = anyhow::Result<()>> + 'static {
        self.serve(core)
    }
}

/// What the tasks of one core share. Borrowed only between two awaits.
struct State {
    handler: RefCell<Handler>,
    listeners: Vec<ListenerState>,
    counts: RefCell<SocketCounts>,
}

struct ListenerState {
    socket: Source<UdpSocket>,
    /// Replies to requests that other cores received, or that had to ask other cores.
    outbox: RefCell<Batch>,
}

impl State {
    fn report(&self, report: &RefCell<Report>) {
        let handler = self.handler.borrow();
        report.borrow_mut().publish(handler.counters(), &self.counts.borrow());
        for (index, listener) in self.listeners.iter().enumerate() {
            report.borrow_mut().kernel_drops(index, listener.socket.get_ref());
        }
    }

    /// Writes a reply that is not part of a received batch. `encode` returns its length.
    fn reply_apart(
        &self,
        listener: usize,
        path: ReturnPath,
        encode: impl FnOnce(&mut Handler, &mut [u8]) -> usize,
    ) {
        let Some(listener) = self.listeners.get(listener) else { return };
        let mut outbox = listener.outbox.borrow_mut();
        if outbox.is_full() {
            self.flush(listener, &mut outbox);
        }
        if let Some(at) = outbox.push(path) {
            let len = encode(&mut self.handler.borrow_mut(), outbox.reply_buffer(at));
            outbox.set_reply_len(at, len);
        }
    }

    /// Sends what has gathered in an outbox. These replies have no queue to wait in: what the send buffer cannot take
    /// is counted as an error.
    fn flush(&self, listener: &ListenerState, outbox: &mut Batch) {
        let errors = &mut self.counts.borrow_mut().send_errors;
        if !outbox.send(listener.socket.get_ref(), errors) {
            errors.no_buffers += outbox.unsent() as u64;
        }
        outbox.clear();
    }
}

/// Receives, handles and sends until the executor ends.
async fn listen<M>(core: &Rc<Core<M>>, state: &Rc<State>, index: usize)
where
    M: Carries<ForwardedAnnounce> + Send + 'static,
{
    let listener = &state.listeners[index];
    let socket = listener.socket.get_ref();
    let about = Listener { index, family: socket.family() };
    let mut batch = Batch::new();
    let mut away = Away::default();
    loop {
        let mut waited = false;
        for _ in 0..BATCHES_PER_TURN {
            match batch.receive(socket) {
                Ok(0) => {
                    waited = true;
                    wait(core, state, listener.socket.readable().await).await;
                }
                Ok(_) => {
                    serve_batch(core, state, about, &mut batch, &mut away);
                    while !batch.send(socket, &mut state.counts.borrow_mut().send_errors) {
                        wait(core, state, listener.socket.writable().await).await;
                    }
                }
                Err(error) => wait(core, state, Err(error)).await,
            }
        }
        if !waited {
            listener.socket.leave();
        }
        core.yield_now().await;
    }
}

fn serve_batch<M>(core: &Rc<Core<M>>, state: &Rc<State>, about: Listener, batch: &mut Batch, away: &mut Away)
where
    M: Carries<ForwardedAnnounce> + Send + 'static,
{
    core.tick();
    let access_list = core.access_list();
    let mut shard = core.shard();
    let mut turn = Turn { shard: &mut shard, access_list: &access_list, now: core.now() };
    state.handler.borrow_mut().handle(batch, about, &mut turn, away);
    drop(shard);
    for (owner, announce) in away.announces.drain(..) {
        let family = about.family;
        if let Err(Overflow(_)) = core.try_send(owner, announce) {
            state.handler.borrow_mut().give_up(family);
        }
    }
    for scrape in away.scrapes.drain(..) {
        ask_other_cores(core, state, scrape);
    }
}

/// Gathers the counts of a scrape and answers it once they are there.
fn ask_other_cores<M>(core: &Rc<Core<M>>, state: &Rc<State>, scrape: ForwardedScrape)
where
    M: Carries<ForwardedAnnounce> + Send + 'static,
{
    let families = scrape.family.into();
    let info_hashes = scrape.info_hashes.clone();
    let (state, core_again) = (state.clone(), core.clone());
    core.scrape(&info_hashes, families, move |counts| match counts {
        Ok(counts) => state.reply_apart(scrape.listener, scrape.path, |handler, buffer| {
            handler.finish_scrape(&scrape, counts, &core_again.access_list(), buffer)
        }),
        Err(_) => state.handler.borrow_mut().give_up(scrape.family),
    });
}

/// Answers what other cores received and this one owns.
fn answer_other_cores<M>(core: &Rc<Core<M>>, state: &Rc<State>)
where
    M: Carries<ForwardedAnnounce> + Send + 'static,
{
    let (handler_core, handler_state) = (core.clone(), state.clone());
    core.on_message(move |_from, forwarded: ForwardedAnnounce| {
        let core = &handler_core;
        let access_list = core.access_list();
        let mut shard = core.shard();
        let mut turn = Turn { shard: &mut shard, access_list: &access_list, now: core.now() };
        handler_state.reply_apart(forwarded.listener, forwarded.path, |handler, buffer| {
            handler.handle_forwarded_announce(&forwarded, &mut turn, buffer)
        });
    });
    let state = state.clone();
    core.after_messages(move || {
        for listener in &state.listeners {
            state.flush(listener, &mut listener.outbox.borrow_mut());
        }
    });
}

/// Counts an error of the socket and pauses. The engine logs counts of this kind when they grow.
async fn wait<M: Send + 'static>(core: &Core<M>, state: &State, result: io::Result<()>) {
    if let Err(error) = result {
        log::debug!("UDP socket: {error}");
        state.counts.borrow_mut().receive_errors += 1;
        core.sleep(ERROR_PAUSE).await;
    }
}

impl Packets for Batch {
    fn count(&self) -> usize {
        self.len().min(BATCH)
    }

    fn request(&self, at: usize) -> &[u8] {
        self.request(at)
    }

    fn is_truncated(&self, at: usize) -> bool {
        self.is_truncated(at)
    }

    fn source(&self, at: usize) -> Option<SocketAddr> {
        self.source(at)
    }

    fn return_path(&self, at: usize) -> ReturnPath {
        self.return_path(at)
    }

    fn reply_buffer(&mut self, at: usize) -> &mut [u8] {
        self.reply_buffer(at)
    }

    fn set_reply_len(&mut self, at: usize, len: usize) {
        self.set_reply_len(at, len);
    }
}
