//! The side thread: carries out what the state machine decides, between NATS and the cores.
//!
//! It has one runtime on one thread, and reaches cores through their mailboxes only. It never keeps the
//! tracker from starting, serving or stopping: without NATS the cores go on alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::config::{ClusterConfig, ClusterMode};
use aquatic_common::{Seconds, Steering};
use aquatic_metrics::Registry;
use aquatic_runtime::clock::{Epoch, calendar_seconds};
use aquatic_runtime::{Engine, MailboxSender, Serving, StopHold, mailboxes};
use aquatic_tracker::replication::{HashKey, PartHasher, PartSet};
use aquatic_tracker::snapshot::Restored;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::access::Access;
use crate::cores::{
    Channel, CoreCluster, Dropped, FromCore, HandOut, MAX_MESSAGES, MAX_QUEUED, MAX_WAITING, NodeEvent,
    Piece, Splitter, ToCore, Waiting,
};
use crate::figures::Figures;
use crate::hello::{Holds, NodeName, StreamId, StreamKind};
use crate::machine::{Cluster, Settings, TICK};
use crate::nats::{Change, Nats, prefix, subscribed};
use crate::pull::{Totals, What};
use crate::report::ClusterReport;
use crate::wire::{Kind, Run};

mod actions;
mod notices;
mod parts;

/// Pieces that wait to be sent, of all cores together.
const MAX_PIECES: usize = 2;

/// Longest time for the last messages to leave before the process stops.
const LAST_MESSAGES: Duration = Duration::from_millis(500);

/// Period of reading the counters for hellos and the report.
const FIGURES_PERIOD: Duration = Duration::from_secs(1);

/// Carries out commands, given the name of the node that sent one, and the command.
pub type CommandHook = Box<dyn FnMut(&str, &[u8]) + Send>;

/// What other parts of the tracker provide.
pub struct Hooks {
    /// Divides offers and answers of WebTorrent peers among the cores.
    pub relay: Splitter,
    /// Carries out commands for all nodes.
    pub command: CommandHook,
    /// Whether peers of a process before this one have been taken in.
    pub restored: Restored,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// What has been prepared for the cluster.
#[derive(Debug)]
pub struct Prepared {
    /// Parts of the cores, in core order.
    pub cores: Vec<CoreCluster>,
    /// What there is to say about the cluster.
    pub report: ClusterReport,
    /// Secret that connection ids of UDP are derived from.
    pub connection_ids: [u8; 32],
    /// Sends commands to all nodes.
    pub commands: Commands,
}

/// Sends commands to all other nodes; can be used by any thread.
#[derive(Clone, Debug)]
pub struct Commands(mpsc::UnboundedSender<Request>);

impl Commands {
    /// Sends a command. It may get lost; nodes that are not there do not receive it later.
    pub fn send(&self, command: Vec<u8>) {
        // Without a receiver the process is ending.
        let _ = self.0.send(Request::Command(command));
    }
}

/// What other threads ask for.
#[derive(Debug)]
enum Request {
    Command(Vec<u8>),
    Stop(StopHold),
}

/// Has the engine run the thread. `None` if no cluster is configured. A node that keeps no peers of UDP and
/// HTTP holds no parts.
///
/// # Errors
/// Files that cannot be used, and too many open files. That no NATS server can be reached is none.
pub fn prepare(
    engine: &mut Engine,
    (config, steering): (&ClusterConfig, &Steering),
    keeps_peers: bool,
    hooks: Hooks,
) -> anyhow::Result<Option<Prepared>> {
    if !config.is_enabled() {
        return Ok(None);
    }
    let access = Access::read(config).map_err(aquatic_common::ConfigurationError::new)?;
    for warning in access.warnings() {
        log::warn!("cluster: {warning}");
    }
    let node = config.node_name(&crate::host_name());
    let name = NodeName::new(&node).with_context(|| format!("{node:?} is no name of a node"))?;
    let (mailboxes, receivers) =
        mailboxes(engine.cores(), MAX_MESSAGES).context("cannot make the mailboxes of the cluster")?;
    let (sender, from_cores) = mpsc::channel(MAX_QUEUED * engine.cores());
    let (requests, requested) = mpsc::unbounded_channel();
    let dropped: Vec<Arc<Dropped>> = receivers.iter().map(|_| Arc::default()).collect();
    let interval = Duration::from_millis(config.publish_interval.into());
    let is_connected = Arc::<AtomicBool>::default();
    let ends = (0..).zip(receivers).zip(&dropped).map(|((core, receiver), dropped)| {
        let link = (sender.clone(), Arc::clone(dropped));
        CoreCluster::new(core, receiver, link, Arc::clone(&is_connected), interval)
    });
    let cores: Vec<CoreCluster> = ends.collect();
    let report = ClusterReport::new(&config.name, &node);
    let connection_ids = access.secret.derive("connection ids");
    let hasher = part_hasher(&access.secret.derive("parts"));
    let settings = Settings {
        name,
        run: Run(rand::random()),
        secret: access.secret.clone(),
        cores: u16::try_from(engine.cores()).unwrap_or(u16::MAX),
        holds: if keeps_peers { holds(config) } else { Holds::Nothing },
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let start = Start {
        access,
        prefix: prefix(&config.name),
        node,
        max_pending: config.max_pending as usize,
        settings,
        mailboxes,
        from_cores,
        requested,
        dropped,
        is_connected: Arc::clone(&is_connected),
        steering: *steering,
        hasher,
        hooks,
        registry: engine.registry().clone(),
        report: report.clone(),
        epoch: engine.epoch(),
        serving: engine.serving(),
    };
    engine.add_side_thread("aquatic-cluster", move || start.run());
    let stopping = requests.clone();
    engine.before_stop(move |hold| {
        // Without the thread there is nothing to wait for: the hold is dropped.
        let _ = stopping.send(Request::Stop(hold));
    });
    Ok(Some(Prepared { cores, report, connection_ids, commands: Commands(requests) }))
}

/// What the thread begins with.
struct Start {
    access: Access,
    /// Of all subjects.
    prefix: String,
    node: String,
    max_pending: usize,
    settings: Settings,
    mailboxes: Vec<MailboxSender<ToCore>>,
    from_cores: mpsc::Receiver<(u16, FromCore)>,
    requested: mpsc::UnboundedReceiver<Request>,
    dropped: Vec<Arc<Dropped>>,
    is_connected: Arc<AtomicBool>,
    steering: Steering,
    hasher: PartHasher,
    hooks: Hooks,
    registry: Registry,
    report: ClusterReport,
    epoch: Epoch,
    serving: Serving,
}

impl Start {
    fn run(self) {
        // What a predecessor serves, it tells of itself.
        self.serving.until_begun();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.serve()),
            Err(error) => log::error!("cluster: the thread cannot wait for anything: {error}"),
        }
        // Another process is the node now, or this one stops.
        loop {
            thread::park();
        }
    }

    async fn serve(self) {
        let metrics = self.registry.main_thread();
        let options = (self.max_pending, self.epoch.elapsed());
        let nats = match Nats::open(
            &self.access,
            &self.node,
            &subscribed(&self.prefix, &self.node),
            options,
            &metrics,
        )
        .await
        {
            Ok(nats) => nats,
            Err(error) => return log::error!("cluster: this node serves alone: {error:#}"),
        };
        let now = millis(self.epoch.elapsed());
        let (loaded_sender, loaded) = mpsc::unbounded_channel();
        let cores = self.mailboxes.len();
        let mut thread = ClusterThread {
            machine: Cluster::new(self.settings, now, rand::random()),
            prefix: self.prefix,
            node: self.node,
            waiting: self.mailboxes.iter().map(|_| Arc::default()).collect(),
            mailboxes: self.mailboxes,
            dropped: self.dropped,
            is_connected: self.is_connected,
            sequences: [vec![0; cores], vec![0; cores]],
            steering: self.steering,
            hasher: self.hasher,
            held: None,
            kept: None,
            untold: Vec::new(),
            hooks: self.hooks,
            figures: Figures::new(&self.registry),
            report: self.report,
            epoch: self.epoch,
            loaded: loaded_sender,
            pass: None,
            passes: 0,
            names: HashMap::new(),
            figures_due: Duration::ZERO,
        };
        thread
            .run(
                nats,
                Sources { from_cores: self.from_cores, loaded, requested: self.requested },
                &self.serving,
            )
            .await;
    }
}

/// Where the thread hears from the rest of the process.
struct Sources {
    from_cores: mpsc::Receiver<(u16, FromCore)>,
    loaded: mpsc::UnboundedReceiver<u32>,
    requested: mpsc::UnboundedReceiver<Request>,
}

/// A pass of the cores over their torrents.
struct Pass {
    session: u32,
    pieces: mpsc::Receiver<Piece>,
    cancelled: Arc<AtomicBool>,
    /// Cores that have not handed out all.
    running: usize,
    totals: Totals,
}

struct ClusterThread {
    machine: Cluster,
    prefix: String,
    node: String,
    mailboxes: Vec<MailboxSender<ToCore>>,
    /// Bytes that wait for each core.
    waiting: Vec<Arc<AtomicUsize>>,
    dropped: Vec<Arc<Dropped>>,
    /// Whether the cores' messages leave this machine.
    is_connected: Arc<AtomicBool>,
    /// Sequence number of the next batch of each core, by kind of stream.
    sequences: [Vec<u64>; 2],
    steering: Steering,
    hasher: PartHasher,
    /// Parts that this node answers for itself; all if there are none.
    held: Option<PartSet>,
    /// Parts whose torrents are stored, which are those held and some that were; all if there are none.
    kept: Option<PartSet>,
    /// Cores that have not been told who holds parts since that has changed.
    untold: Vec<usize>,
    hooks: Hooks,
    figures: Figures,
    report: ClusterReport,
    epoch: Epoch,
    loaded: mpsc::UnboundedSender<u32>,
    pass: Option<Pass>,
    /// Number of passes so far.
    passes: u32,
    /// Names of nodes by the number of their run.
    names: HashMap<u8, NodeName>,
    figures_due: Duration,
}

/// What the thread has been woken by.
enum Happened {
    Event(async_nats::Event),
    Message(Vec<u8>),
    FromCore(u16, FromCore),
    Piece(Option<Piece>),
    Loaded(u32),
    Sent,
    Tick,
    Request(Request),
}

impl ClusterThread {
    /// Runs until the process stops, or another one serves.
    async fn run(&mut self, mut nats: Nats, mut from: Sources, serving: &Serving) {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !serving.is_elsewhere() {
            let reads = self.cores_have_room();
            let wants_piece = self.wants_piece();
            let pieces = &mut self.pass;
            let happened = tokio::select! {
                event = nats.events.next() => Happened::Event(event),
                message = nats.incoming.next(reads) => Happened::Message(message),
                Some((core, what)) = from.from_cores.recv() => Happened::FromCore(core, what),
                piece = next_piece(pieces), if wants_piece => Happened::Piece(piece),
                Some(pull) = from.loaded.recv() => Happened::Loaded(pull),
                () = nats.outgoing.send_first(), if nats.outgoing.has_queued() => Happened::Sent,
                _ = ticks.tick() => Happened::Tick,
                Some(request) = from.requested.recv() => Happened::Request(request),
            };
            if let Happened::Request(Request::Stop(hold)) = happened {
                self.leave(&mut nats).await;
                drop(hold);
                return;
            }
            self.handle(happened, &mut nats);
            self.perform(&mut nats);
        }
        self.leave(&mut nats).await;
    }

    async fn leave(&mut self, nats: &mut Nats) {
        self.machine.leave(self.now());
        self.perform(nats);
        nats.outgoing.flush(LAST_MESSAGES).await;
        self.end_pass();
    }

    fn now(&self) -> u64 {
        millis(self.epoch.elapsed())
    }

    fn handle(&mut self, happened: Happened, nats: &mut Nats) {
        let now = self.now();
        match happened {
            Happened::Event(event) => match nats.note(&event, self.epoch.elapsed()) {
                Some(Change::Connected) => {
                    self.is_connected.store(true, Ordering::Relaxed);
                    self.machine.connected(now);
                }
                Some(Change::Disconnected) => {
                    self.is_connected.store(false, Ordering::Relaxed);
                    self.machine.disconnected(now);
                }
                None => {}
            },
            // "aquatic doctor" tries whether messages can be sent.
            Happened::Message(message) if message.is_empty() => {}
            Happened::Message(mut message) => {
                // What is refused has been counted.
                let _ = self.machine.receive(now, &mut message);
            }
            Happened::FromCore(core, what) => self.receive_from(now, core, &what),
            Happened::Piece(piece) => self.piece(piece),
            Happened::Loaded(pull) => self.machine.loaded(now, pull),
            Happened::Sent | Happened::Request(Request::Stop(_)) => {}
            Happened::Tick => self.tick(now, nats),
            Happened::Request(Request::Command(command)) => {
                if !self.machine.send_control(&command) {
                    log::warn!(
                        "cluster: a command was not sent to the other nodes, because there is no connection to NATS"
                    );
                }
            }
        }
    }

    fn tick(&mut self, now: u64, nats: &mut Nats) {
        let time = self.epoch.elapsed();
        nats.tick(time);
        for core in 0..self.dropped.len() {
            self.skip_dropped(core);
        }
        self.tell_holders();
        if time >= self.figures_due {
            self.figures_due = time + FIGURES_PERIOD;
            self.figures.read(calendar_seconds(), self.hooks.restored.get());
            self.figures.show(&self.machine);
            let own = (self.figures.status(), self.figures.requests());
            self.report.update(&self.machine, (nats.is_connected(), now), own);
        }
        self.machine.tick(now, self.figures.status());
    }

    /// Uses up the sequence numbers of batches that a core has dropped, so that other nodes see the gap.
    fn skip_dropped(&mut self, core: usize) {
        let Some(dropped) = self.dropped.get(core) else { return };
        let lost =
            [dropped.changes.swap(0, Ordering::Relaxed), dropped.webtorrent.swap(0, Ordering::Relaxed)];
        let messages = dropped.messages.swap(0, Ordering::Relaxed);
        self.figures.dropped_queue(lost[0] + lost[1] + messages);
        let id = u16::try_from(core).unwrap_or(u16::MAX);
        for ((lost, sequences), kind) in lost.into_iter().zip(&mut self.sequences).zip(KINDS) {
            if let Some(next) = sequences.get_mut(core).filter(|_| lost > 0) {
                *next += lost as u64;
                self.machine.skip(StreamId { kind, core: id }, *next);
            }
        }
    }

    fn receive_from(&mut self, now: u64, core: u16, what: &FromCore) {
        let index = usize::from(core);
        self.skip_dropped(index);
        let (kind, family, records, ago) = match what {
            FromCore::Changes { family, records, ago } => (StreamKind::Changes, Some(*family), records, *ago),
            FromCore::WebTorrent(records) => (StreamKind::WebTorrent, None, records, 0),
            FromCore::Messages { to, channel, body } => {
                let kind = match channel {
                    Channel::Relay => Kind::Relay,
                    Channel::Parts => Kind::Parts,
                };
                if !self.machine.send_to(*to, kind, body) {
                    self.figures.dropped_unknown();
                }
                return;
            }
        };
        let sequences = match kind {
            StreamKind::Changes => &mut self.sequences[0],
            StreamKind::WebTorrent => &mut self.sequences[1],
        };
        let Some(next) = sequences.get_mut(index) else { return };
        let sequence = *next;
        *next += 1;
        let taken = now.saturating_sub(u64::from(ago) * 1000);
        self.machine.publish(StreamId { kind, core }, sequence, taken, (family, records));
    }

    /// Whether every core keeps up with what is received.
    fn cores_have_room(&self) -> bool {
        self.waiting.iter().all(|waiting| waiting.load(Ordering::Acquire) < MAX_WAITING)
    }

    fn wants_piece(&self) -> bool {
        let wanted = self.machine.wants_chunk();
        self.pass.as_ref().is_some_and(|pass| pass.running == 0 || wanted == Some(pass.session))
    }

    /// Has the cores hand out torrents.
    fn start_pass(&mut self, session: u32, what: What) {
        if self.pass.is_some() {
            return self.machine.pass_refused(session);
        }
        let (sender, pieces) = mpsc::channel(MAX_PIECES);
        let cancelled = Arc::new(AtomicBool::new(false));
        self.passes = self.passes.wrapping_add(1);
        let at = Seconds(u32::try_from(self.epoch.elapsed().as_secs()).unwrap_or(u32::MAX));
        let order = HandOut {
            what,
            parts: match what {
                What::Parts(parts) => Some(PartSet::from_bitmap(self.hasher, &parts)),
                What::All | What::Own { .. } => None,
            },
            at,
            second: self.passes.is_multiple_of(2),
            pieces: sender,
            cancelled: Arc::clone(&cancelled),
        };
        let running = self.mailboxes.len();
        for core in &self.mailboxes {
            if core.try_send(ToCore::HandOut(order.clone())).is_err() {
                cancelled.store(true, Ordering::Relaxed);
                return self.machine.pass_refused(session);
            }
        }
        self.pass = Some(Pass { session, pieces, cancelled, running, totals: Totals::default() });
        // Ages count from the beginning of that second.
        self.machine.pass_started(u64::from(at.0) * 1000, session);
    }

    fn piece(&mut self, piece: Option<Piece>) {
        let Some(pass) = &mut self.pass else { return };
        match piece {
            Some(piece) if piece.content.is_empty() => pass.running = pass.running.saturating_sub(1),
            Some(piece) => {
                pass.totals.torrents += piece.totals.torrents;
                pass.totals.peers += piece.totals.peers;
                let session = pass.session;
                self.machine.supply(session, piece.family, piece.content);
            }
            // The cores have no more to give.
            None => pass.running = 0,
        }
        if let Some(pass) = self.pass.take_if(|pass| pass.running == 0) {
            self.machine.pass_ended(pass.session, pass.totals);
        }
    }

    fn end_pass(&mut self) {
        if let Some(pass) = self.pass.take() {
            pass.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Hands an event to all cores.
    fn tell_all(&self, event: &NodeEvent) {
        for core in 0..self.mailboxes.len() {
            self.tell(core, event.clone());
        }
    }

    fn tell(&self, core: usize, event: NodeEvent) {
        let Some(mailbox) = self.mailboxes.get(core) else { return };
        if mailbox.try_send(ToCore::Event(event)).is_err() {
            self.figures.dropped_mailbox();
        }
    }
}

/// Kinds of streams, in the order of [`ClusterThread::sequences`].
const KINDS: [StreamKind; 2] = [StreamKind::Changes, StreamKind::WebTorrent];

/// The next piece of a pass. May be dropped at any time.
async fn next_piece(pass: &mut Option<Pass>) -> Option<Piece> {
    match pass {
        Some(pass) => pass.pieces.recv().await,
        None => std::future::pending().await,
    }
}

/// Which peers a node holds that serves UDP or HTTP.
fn holds(config: &ClusterConfig) -> Holds {
    match config.mode {
        ClusterMode::Replicate => Holds::Everything,
        ClusterMode::Partition => Holds::Parts(u8::try_from(config.replicas).unwrap_or(u8::MAX)),
    }
}

/// Division of the torrents into parts. All nodes have the same.
fn part_hasher(key: &[u8; 32]) -> PartHasher {
    PartHasher::new(&HashKey(std::array::from_fn(|at| key[at])))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
