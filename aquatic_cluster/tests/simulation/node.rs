//! One simulated node: the state machine of the cluster, and the trackers of two cores.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use aquatic_cluster::counters::Counters;
use aquatic_cluster::dividing::{Among, Divided};
use aquatic_cluster::hello::{Holds, NodeName, StreamId, StreamKind};
use aquatic_cluster::pull::{Totals, What};
use aquatic_cluster::seal::Secret;
use aquatic_cluster::wire::{Kind, Run};
use aquatic_cluster::{Action, Cluster, Settings, Status, Subject};
use aquatic_common::config::{AccessListConfig, LimitsConfig};
use aquatic_common::expiry::Expire;
use aquatic_common::{Family, InfoHash, Seconds, Steering};
use aquatic_metrics::{CoreMetrics, Registry};
use aquatic_runtime::channel::OutboxFull;
use aquatic_swarm::{
    Announce, Announced, PeerBuffers, SaveSwarms, SavedPeer, SavedTorrent, Shard, ShardLimits,
};
use aquatic_tracker::messages::Messages;
use aquatic_tracker::partition::messages::split;
use aquatic_tracker::replication::{HashKey, PartHasher, PartSet, Published, record_length, take_record};
use aquatic_tracker::snapshot::format::{Torrent, write_peer, write_torrent};
use aquatic_tracker::{
    Admission, Forward, IntervalPolicy, Origin, OwnerResponse, Owners, PeerRules, Respond, RouteError,
    SaveFilter, SavePass, SharedAccessList, SwarmCounts, Tracker, Trackers, Waiter,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Cores of a node.
pub(crate) const CORES: usize = 2;

/// Bytes after which a chunk is full: small, so that pulls have several.
const CHUNK: usize = 2048;

/// A peer of a torrent.
pub(crate) type PeerKey = (InfoHash, SocketAddr);

/// What a node has stored of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredPeer {
    pub(crate) age: u32,
    pub(crate) seeder: bool,
    pub(crate) remote: bool,
}

/// Division of the torrents into parts, the same at all nodes.
pub(crate) fn part_hasher() -> PartHasher {
    PartHasher::new(&HashKey([8; 16]))
}

struct OwnTracker(RefCell<Tracker>);

impl Trackers for OwnTracker {
    fn own(&self) -> RefMut<'_, Tracker> {
        self.0.borrow_mut()
    }

    fn with_sleeping<R>(&self, _core: usize, _act: impl FnOnce(&mut Tracker) -> R) -> Option<R> {
        None
    }
}

/// Clients ask the core that owns their torrent, so cores have nothing to tell each other.
struct Apart;

impl Forward<Messages> for Apart {
    fn add(&self, _core: usize, _push: impl FnOnce(&mut Messages)) -> Result<(), OutboxFull> {
        panic!("the core owns the torrent");
    }

    fn add_always(&self, _core: usize, _push: impl FnOnce(&mut Messages)) {
        panic!("the core owns the torrent");
    }

    fn flush(&self) {}
}

/// Numbers of announces that were forwarded, by whether they were answered with counts.
#[derive(Default)]
pub(crate) struct Answers(pub(crate) RefCell<[u64; 2]>);

impl Respond for Answers {
    fn announced(&self, _token: u32, response: OwnerResponse<'_>) {
        let counted = response.announced.complete + response.announced.incomplete > 0;
        self.0.borrow_mut()[usize::from(counted)] += 1;
    }

    fn scraped(&self, _token: u32, _counts: &[SwarmCounts]) {}

    fn failed(&self, _token: u32, error: RouteError) {
        panic!("announces are answered in any case: {error}");
    }
}

/// Peers that the cores collect for another node.
struct Pass {
    session: u32,
    what: What,
    /// Core that is collecting.
    core: usize,
    started: Seconds,
    chunks: VecDeque<(Family, Vec<u8>)>,
    totals: Totals,
}

/// What a node has sent and received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) changes: u64,
    pub(crate) batches: u64,
    pub(crate) batch_bytes: u64,
    pub(crate) hello_bytes: u64,
    pub(crate) pull_bytes: u64,
    pub(crate) received_bytes: u64,
}

pub(crate) struct Node {
    pub(crate) name: usize,
    pub(crate) cluster: Cluster,
    pub(crate) connected: bool,
    cores: Vec<Owners<OwnTracker, Apart>>,
    metrics: CoreMetrics,
    pub(crate) forwarded: Rc<Answers>,
    pub(crate) announces: u64,
    pub(crate) traffic: Traffic,
    pub(crate) sent: Vec<(Subject, Vec<u8>)>,
    steering: Steering,
    /// Parts that it holds and keeps, if nodes divide the torrents.
    held_and_kept: Option<(PartSet, PartSet)>,
    max_peer_age: u32,
    sequences: [u64; CORES],
    pass: Option<Pass>,
    loading: VecDeque<(u32, Family, Vec<u8>, u32)>,
    /// What its clocks show at the beginning of the simulation: monotonic milliseconds, seconds of the
    /// calendar.
    clocks: (u64, u64),
}

impl Node {
    pub(crate) fn new(
        name: usize,
        (max_peer_age, replicas): (u32, Option<u8>),
        now: u64,
        rng: &mut SmallRng,
    ) -> Self {
        let clocks = (rng.random_range(0..1 << 30), 1_800_000_000 + rng.random_range(0..600));
        let access_list = SharedAccessList::load(&AccessListConfig::default()).unwrap();
        let steering = Steering::new(CORES, rng.random());
        let mut cores = Vec::new();
        let metrics = Registry::default().core(0);
        for core in 0..CORES {
            let limits = LimitsConfig { reserved_for_small_torrents: 0, ..LimitsConfig::default() };
            let mut tracker = Tracker::new(
                (core, steering),
                Shard::new(ShardLimits::share_of(&limits, CORES), HashKey(rng.random())),
                (Admission::new(access_list.clone()), PeerRules::default()),
                IntervalPolicy { interval: 1800, jitter: 10 },
                SmallRng::seed_from_u64(rng.random()),
                &Registry::default().core(core),
            );
            tracker.begin_publishing(max_peer_age);
            cores.push(Owners::new(OwnTracker(RefCell::new(tracker)), Apart, &metrics));
        }
        let settings = Settings {
            name: NodeName::new(&node_name(name)).unwrap(),
            run: Run(rng.random()),
            secret: Secret::new(&[42; 32]).unwrap(),
            cores: CORES as u16,
            holds: replicas.map_or(Holds::Everything, Holds::Parts),
            version: "0.1.0".to_owned(),
        };
        Self {
            name,
            cluster: Cluster::new(settings, now + clocks.0, rng.random()),
            connected: false,
            cores,
            metrics,
            forwarded: Rc::default(),
            announces: 0,
            traffic: Traffic::default(),
            sent: Vec::new(),
            steering,
            held_and_kept: None,
            max_peer_age,
            sequences: [0; CORES],
            pass: None,
            loading: VecDeque::new(),
            clocks,
        }
    }

    /// Milliseconds on the node's monotonic clock.
    fn millis(&self, now: u64) -> u64 {
        now + self.clocks.0
    }

    fn seconds(&self, now: u64) -> Seconds {
        Seconds(u32::try_from(self.millis(now) / 1000).unwrap())
    }

    fn time(&self, now: u64) -> Duration {
        Duration::from_millis(self.millis(now))
    }

    /// Sends requests for torrents that other nodes hold, and replies to theirs.
    fn forward(&mut self, core: usize, now: u64) {
        let time = self.time(now);
        let core = &self.cores[core];
        core.tick(time);
        core.send_late(time, usize::MAX);
        while let Some((node, body)) = core.take_message() {
            self.cluster.send_to(u8::try_from(node).unwrap(), Kind::Parts, &body);
        }
    }

    fn deliver(&mut self, node: u8, body: &[u8], now: u64) {
        let time = self.time(now);
        let lost = split(body, &self.steering, &mut |core, mut items| {
            self.cores[core].receive_message(node.into(), &mut items, usize::MAX, time);
        });
        assert_eq!(lost, 0);
    }

    fn set_holders(&mut self) {
        let holders = self.cluster.division(part_hasher());
        self.held_and_kept = Some((*holders.own(), *holders.kept()));
        self.cores.iter().for_each(|core| core.set_holders(Some(holders.clone()), &self.metrics));
    }

    pub(crate) fn set_connected(&mut self, connected: bool, now: u64) {
        let millis = self.millis(now);
        match (self.connected, connected) {
            (false, true) => self.cluster.connected(millis),
            (true, false) => self.cluster.disconnected(millis),
            (true, true) | (false, false) => {}
        }
        self.connected = connected;
    }

    /// Nothing is returned if another node holds the torrent.
    pub(crate) fn announce(&mut self, announce: &Announce, now: u64) -> Option<Announced> {
        self.announces += 1;
        let (time, now) = (self.time(now), self.seconds(now));
        let (mut v4, mut v6) = ([0; 60], [0; 180]);
        let owner = self.steering.owner(&announce.info_hash);
        let core = &self.cores[owner];
        if !core.state().owns(&announce.info_hash) {
            let waiter = Waiter { respond: Rc::clone(&self.forwarded) as _, token: 0 };
            core.announce(time, announce, (60, 180), waiter);
            return None;
        }
        Some(core.state().announce(announce, now, PeerBuffers { v4: &mut v4, v6: &mut v6 }))
    }

    pub(crate) fn receive(&mut self, message: &[u8], now: u64) {
        self.traffic.received_bytes += message.len() as u64;
        let _refusal = self.cluster.receive(self.millis(now), &mut message.to_vec());
        self.act(now);
    }

    /// Hands over what the cores have noted, and does what is due.
    pub(crate) fn tick(&mut self, now: u64) {
        let (millis, seconds) = (self.millis(now), self.seconds(now));
        for core in 0..CORES {
            self.forward(core, now);
            loop {
                let published = self.cores[core].state().take_published(seconds);
                let Some(published) = published else { break };
                let stream = StreamId { kind: StreamKind::Changes, core: core as u16 };
                let sequence = self.sequences[core];
                self.sequences[core] += 1;
                let content = (Some(published.family), published.records.as_slice());
                let taken = millis - u64::from(seconds - published.until) * 1000;
                if self.cluster.publish(stream, sequence, taken, content) {
                    let records = published.records.len() / record_length(published.family);
                    self.traffic.changes += records as u64;
                }
            }
        }
        let counters = Counters { announces: self.announces, ..Counters::default() };
        let status = Status { calendar: self.clocks.1 + now / 1000, counters, ..Status::default() };
        self.cluster.tick(millis, &status);
        self.act(now);
        self.load(now);
        self.collect(now);
        self.act(now);
    }

    /// Says goodbye.
    pub(crate) fn leave(&mut self, now: u64) {
        self.cluster.leave(self.millis(now));
        self.act(now);
    }

    /// Removes peers that are too old, at once.
    pub(crate) fn expire(&mut self, now: u64) {
        let (now, max_peer_age) = (self.seconds(now), self.max_peer_age);
        for core in &self.cores {
            while !core.state().expire(now, max_peer_age, 1 << 20).pass_ended {}
        }
    }

    fn act(&mut self, now: u64) {
        while let Some(action) = self.cluster.next_action() {
            match action {
                Action::Send { subject, message } => self.send(subject, message),
                Action::Apply { family, records, age, .. } => self.apply(family, &records, age, now),
                Action::TellDeparted { max_age } => self.tell_departed(max_age, now),
                Action::StartPass { session, what } => self.start_pass(session, what, now),
                Action::EndPass { session } => {
                    if self.pass.take_if(|pass| pass.session == session).is_some() {
                        self.cores.iter().for_each(|core| core.state().abandon_saving(SavePass::FirstPull));
                    }
                }
                Action::BeginLoading { .. } => {
                    self.cores.iter().for_each(|core| core.state().begin_loading())
                }
                Action::EndLoading { .. } => {
                    let now = self.seconds(now);
                    for core in &self.cores {
                        let mut state = core.state();
                        state.end_loading();
                        let (mut cursor, _) = state.begin_telling_departed(u32::MAX, now);
                        while state.tell_departed(&mut cursor, now, 10).is_some() {}
                    }
                }
                Action::Load { pull, family, torrents, gap, .. } => {
                    self.loading.push_back((pull, family, torrents, gap));
                }
                Action::HoldersChanged => self.set_holders(),
                Action::Deliver { node, body, .. } => self.deliver(node, &body, now),
                Action::ApplyWebTorrent { .. } | Action::PublishAgain | Action::Notice(_) => {}
            }
        }
    }

    fn send(&mut self, subject: Subject, message: Vec<u8>) {
        let length = message.len() as u64;
        match subject {
            Subject::Changes(_) => {
                self.traffic.batches += 1;
                self.traffic.batch_bytes += length;
            }
            Subject::Hello => self.traffic.hello_bytes += length,
            Subject::Pull(_) => self.traffic.pull_bytes += length,
            Subject::WebTorrent(_) | Subject::Control | Subject::Relay(_) | Subject::Parts(_) => {}
        }
        self.sent.push((subject, message));
    }

    fn apply(&mut self, family: Family, records: &[u8], age: u32, now: u64) {
        let now = self.seconds(now);
        let kept = self.held_and_kept.map(|(_, kept)| kept);
        let Divided { by_core, .. } = self.among(kept.as_ref()).divide_changes(family, records);
        for (core, records) in self.cores.iter().zip(by_core) {
            let mut records = records.as_slice();
            while !records.is_empty() {
                let change = take_record(family, &mut records).unwrap();
                core.state().apply_change(&change, age + u32::from(change.age), now);
            }
        }
    }

    fn among<'a>(&'a self, parts: Option<&'a PartSet>) -> Among<'a> {
        Among { steering: &self.steering, cores: CORES, parts }
    }

    fn tell_departed(&mut self, max_age: u32, now: u64) {
        let (millis, now) = (self.millis(now), self.seconds(now));
        for core in 0..CORES {
            let (mut cursor, is_lost) = self.cores[core].state().begin_telling_departed(max_age, now);
            assert!(!is_lost);
            loop {
                let told = self.cores[core].state().tell_departed(&mut cursor, now, 10);
                let Some(Published { family, records, until }) = told else { break };
                let taken = millis - u64::from(now - until) * 1000;
                let stream = StreamId { kind: StreamKind::Changes, core: core as u16 };
                if !records.is_empty() {
                    self.cluster.publish(stream, self.sequences[core], taken, (Some(family), &records));
                    self.sequences[core] += 1;
                }
            }
        }
    }

    fn start_pass(&mut self, session: u32, what: What, now: u64) {
        if self.pass.is_some() {
            return self.cluster.pass_refused(session);
        }
        self.cores.iter().for_each(|core| core.state().begin_saving(SavePass::FirstPull));
        let (started, millis) = (self.seconds(now), self.millis(now));
        let (chunks, totals) = (VecDeque::new(), Totals::default());
        self.pass = Some(Pass { session, what, core: 0, started, chunks, totals });
        self.cluster.pass_started(millis, session);
    }

    /// Supplies the chunks that are wanted, with a few steps of the cores.
    fn collect(&mut self, now: u64) {
        let now = self.seconds(now);
        for _ in 0..4 {
            let Some(session) = self.cluster.wants_chunk() else { return };
            let Some(pass) = self.pass.as_mut().filter(|pass| pass.session == session) else { return };
            if let Some((family, torrents)) = pass.chunks.pop_front() {
                self.cluster.supply(session, family, torrents);
            } else if pass.core == CORES {
                let totals = pass.totals;
                self.pass = None;
                self.cluster.pass_ended(session, totals);
            } else if Self::step(&mut self.cores[pass.core].state(), pass, now) {
                pass.core += 1;
            }
        }
    }

    /// Returns whether the core has no more.
    fn step(tracker: &mut Tracker, pass: &mut Pass, now: Seconds) -> bool {
        let parts;
        let filter = match pass.what {
            What::All => SaveFilter::All,
            What::Own { max_age } => SaveFilter::Own { max_age },
            What::Parts(bitmap) => {
                parts = PartSet::from_bitmap(part_hasher(), &bitmap);
                SaveFilter::Parts(&parts)
            }
        };
        let mut collected = Collected::default();
        let mut ended = false;
        while !ended && collected.bytes.iter().all(|bytes| bytes.len() < CHUNK) {
            let moment = (now, now - pass.started);
            ended = tracker.save((SavePass::FirstPull, filter), moment, 50, &mut collected).ended;
        }
        pass.totals.torrents += collected.totals.torrents;
        pass.totals.peers += collected.totals.peers;
        for (family, bytes) in Family::ALL.into_iter().zip(collected.bytes) {
            if !bytes.is_empty() {
                pass.chunks.push_back((family, bytes));
            }
        }
        ended
    }

    /// Loads one chunk per tick.
    fn load(&mut self, now: u64) {
        let Some((pull, family, torrents, gap)) = self.loading.pop_front() else { return };
        let held = self.held_and_kept.map(|(held, _)| held);
        let Divided { by_core, .. } = self.among(held.as_ref()).divide_torrents(family, &torrents);
        for (core, torrents) in self.cores.iter().zip(by_core) {
            let mut rest = torrents.as_slice();
            while !rest.is_empty() {
                let torrent = Torrent::take(family, &mut rest).unwrap();
                let (now, ages) = (self.seconds(now), (gap, self.max_peer_age));
                core.state().load(torrent, ages, now, Origin::Other);
            }
        }
        self.cluster.loaded(self.millis(now), pull);
    }

    /// Everything that is stored, and the downloads of each torrent.
    pub(crate) fn content(&mut self, now: u64) -> (BTreeMap<PeerKey, StoredPeer>, BTreeMap<InfoHash, u32>) {
        let now = self.seconds(now);
        let mut all = Content::default();
        for core in &self.cores {
            let mut tracker = core.state();
            tracker.begin_saving(SavePass::Snapshot);
            let pass = (SavePass::Snapshot, SaveFilter::All);
            while !tracker.save(pass, (now, 0), 1 << 20, &mut all).ended {}
        }
        (all.peers, all.downloaded)
    }
}

/// Name of a node by its number.
pub(crate) fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// Torrents as they are sent.
#[derive(Default)]
struct Collected {
    family: usize,
    bytes: [Vec<u8>; 2],
    totals: Totals,
}

impl SaveSwarms for Collected {
    fn torrent(&mut self, torrent: SavedTorrent) {
        self.family = torrent.family.index();
        self.totals.torrents += 1;
        write_torrent(&torrent, &mut self.bytes[self.family]);
    }

    fn peer(&mut self, peer: SavedPeer) {
        self.totals.peers += 1;
        write_peer(&peer, &mut self.bytes[self.family]);
    }
}

/// Everything that is stored.
#[derive(Default)]
struct Content {
    torrent: Option<InfoHash>,
    peers: BTreeMap<PeerKey, StoredPeer>,
    downloaded: BTreeMap<InfoHash, u32>,
}

impl SaveSwarms for Content {
    fn torrent(&mut self, torrent: SavedTorrent) {
        self.torrent = Some(torrent.info_hash);
        *self.downloaded.entry(torrent.info_hash).or_default() += torrent.downloaded;
    }

    fn peer(&mut self, peer: SavedPeer) {
        let stored = StoredPeer { age: peer.age, seeder: peer.seeder, remote: peer.remote };
        self.peers.insert((self.torrent.unwrap(), peer.address), stored);
    }
}
