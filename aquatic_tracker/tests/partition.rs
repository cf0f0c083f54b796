//! Nodes that divide the torrents among themselves, in one process: each has two cores, whose messages and
//! those of nodes wait in queues of the test.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use aquatic_common::config::AccessListConfig;
use aquatic_common::expiry::Expire;
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds, Steering};
use aquatic_metrics::{CoreMetrics, Metric, Registry, names};
use aquatic_runtime::channel::OutboxFull;
use aquatic_swarm::{Announce, Families, FamilySet, HashKey, PARTS, Shard, ShardLimits, SwarmCounts};
use aquatic_tracker::messages::Messages;
use aquatic_tracker::partition::messages::split;
use aquatic_tracker::partition::{DEADLINE, Holders, MAX_LATE, MAX_LATENESS, MAX_SILENCE, NodeNumber, PROBE};
use aquatic_tracker::replication::{Applied, Change, ChangeKind, Completion, PartHasher, PartSet};
use aquatic_tracker::{
    Admission, Forward, IntervalPolicy, OwnerResponse, Owners, PeerRules, Respond, RouteError,
    SharedAccessList, Tracker, Trackers, Waiter,
};
use rand::rngs::{SmallRng, Xoshiro256PlusPlus};
use rand::{RngExt, SeedableRng};

const NODES: NodeNumber = 3;
const CORES: usize = 2;
const ROOM: (u32, u32) = (6 * 50, 18 * 50);

struct OwnTracker(RefCell<Tracker>);

impl Trackers for OwnTracker {
    fn own(&self) -> RefMut<'_, Tracker> {
        self.0.borrow_mut()
    }

    fn with_sleeping<R>(&self, _core: usize, _act: impl FnOnce(&mut Tracker) -> R) -> Option<R> {
        None
    }
}

/// Batches between the cores of a node: from, to.
type Batches = Rc<RefCell<VecDeque<(usize, usize, Messages)>>>;

struct Mesh(usize, Batches);

impl Forward<Messages> for Mesh {
    fn add(&self, core: usize, push: impl FnOnce(&mut Messages)) -> Result<(), OutboxFull> {
        self.add_always(core, push);
        Ok(())
    }

    fn add_always(&self, core: usize, push: impl FnOnce(&mut Messages)) {
        let mut batch = Messages::default();
        push(&mut batch);
        self.1.borrow_mut().push_back((self.0, core, batch));
    }

    fn flush(&self) {}
}

type CoreOwners = Owners<OwnTracker, Mesh>;

struct Node {
    cores: Vec<CoreOwners>,
    batches: Batches,
    steering: Steering,
    metrics: CoreMetrics,
}

fn hasher() -> PartHasher {
    PartHasher::new(&HashKey([8; 16]))
}

impl Node {
    fn new(number: NodeNumber) -> Self {
        // Nodes divide the torrents among their cores each in their own way.
        let steering = Steering::new(CORES, [number as u8; 8]);
        let metrics = Registry::default().core(0);
        let batches = Batches::default();
        let core = |index| {
            let access_list = SharedAccessList::load(&AccessListConfig::default()).unwrap();
            let tracker = Tracker::new(
                (index, steering),
                Shard::new(ShardLimits::default(), HashKey([2; 16])),
                (Admission::new(access_list), PeerRules::default()),
                IntervalPolicy { interval: 1800, jitter: 0 },
                SmallRng::seed_from_u64(1),
                &metrics,
            );
            let tracker = OwnTracker(RefCell::new(tracker));
            Owners::new(tracker, Mesh(index, Rc::clone(&batches)), &metrics)
        };
        Self { cores: (0..CORES).map(core).collect(), batches: Rc::clone(&batches), steering, metrics }
    }

    fn run_cores(&self, now: Duration) {
        loop {
            let next = self.batches.borrow_mut().pop_front();
            let Some((from, to, mut batch)) = next else { return };
            self.cores[to].receive(from, &mut batch, Seconds(now.as_secs() as u32));
        }
    }

    /// Sum of the series of a metric that have a label with this value.
    fn metric(&self, metric: &Metric, label: &str) -> u64 {
        let mut samples = self.metrics.registry().samples();
        samples.retain(|sample| sample.metric.name == metric.name);
        samples.retain(|sample| sample.labels.iter().any(|(_, value)| *value == label));
        samples.iter().map(|sample| sample.value).sum()
    }

    fn peers(&self) -> usize {
        let stored = |core: &CoreOwners| {
            let tracker = core.state();
            Family::ALL.map(|family| tracker.peers_by_owner(family).0).iter().sum::<u64>()
        };
        self.cores.iter().map(stored).sum::<u64>() as usize
    }
}

/// What became of requests, by token.
#[derive(Default)]
struct Answers {
    announced: RefCell<BTreeMap<u32, (SwarmCounts, usize)>>,
    scraped: RefCell<BTreeMap<u32, Vec<SwarmCounts>>>,
    failed: RefCell<BTreeMap<u32, RouteError>>,
}

impl Respond for Answers {
    fn announced(&self, token: u32, response: OwnerResponse<'_>) {
        let OwnerResponse { announced, v4, v6 } = response;
        assert_eq!((announced.v4_len, announced.v6_len), (v4.len(), v6.len()));
        let counts = SwarmCounts {
            complete: announced.complete,
            incomplete: announced.incomplete,
            downloaded: announced.downloaded,
        };
        let peers = v4.len() / 6 + v6.len() / 18;
        assert_eq!(self.announced.borrow_mut().insert(token, (counts, peers)), None, "answered once");
    }

    fn scraped(&self, token: u32, counts: &[SwarmCounts]) {
        assert_eq!(self.scraped.borrow_mut().insert(token, counts.to_vec()), None, "answered once");
    }

    fn failed(&self, token: u32, error: RouteError) {
        assert_eq!(self.failed.borrow_mut().insert(token, error), None, "answered once");
    }
}

struct Network {
    nodes: Vec<Node>,
    answers: Rc<Answers>,
    now: Duration,
    tokens: Cell<u32>,
    /// Messages are lost.
    is_cut: bool,
    /// Messages to this node are lost.
    silent: Option<NodeNumber>,
}

/// Each part is held by one node.
fn holder(part: u8) -> NodeNumber {
    NodeNumber::from(part) % NODES
}

fn holders_of(node: NodeNumber, ask: impl Fn(u8) -> Option<NodeNumber>) -> Holders {
    let mut own = PartSet::new(hasher());
    (0..=u8::MAX).filter(|part| ask(*part) == Some(node)).for_each(|part| own.add(part));
    Holders::new(hasher(), own, ask)
}

impl Network {
    fn new() -> Self {
        let network = Self {
            nodes: (0..NODES).map(Node::new).collect(),
            answers: Rc::default(),
            now: Duration::from_secs(1000),
            tokens: Cell::new(0),
            is_cut: false,
            silent: None,
        };
        (0..NODES).for_each(|node| network.set_holders(node, |part| Some(holder(part))));
        network
    }

    fn set_holders(&self, node: NodeNumber, ask: impl Fn(u8) -> Option<NodeNumber>) {
        let seen = &self.nodes[usize::from(node)];
        let holders = holders_of(node, ask);
        seen.cores.iter().for_each(|core| core.set_holders(Some(holders.clone()), &seen.metrics));
    }

    fn waiter(&self) -> Waiter {
        self.tokens.set(self.tokens.get() + 1);
        Waiter { respond: Rc::clone(&self.answers) as _, token: self.tokens.get() }
    }

    /// Some node's core receives an announce.
    fn announce(&self, (node, core): (NodeNumber, usize), announce: &Announce) -> u32 {
        let waiter = self.waiter();
        let token = waiter.token;
        let owners = &self.nodes[usize::from(node)].cores[core];
        if owners.state().owns(&announce.info_hash) {
            let (mut v4, mut v6) = (vec![0; ROOM.0 as usize], vec![0; ROOM.1 as usize]);
            let out = aquatic_swarm::PeerBuffers { v4: &mut v4, v6: &mut v6 };
            let announced = owners.state().announce(announce, self.seconds(), out);
            let (v4, v6) = (&v4[..announced.v4_len], &v6[..announced.v6_len]);
            self.answers.announced(token, OwnerResponse { announced, v4, v6 });
        } else {
            owners.announce(self.now, announce, ROOM, waiter);
        }
        token
    }

    fn scrape(&self, (node, core): (NodeNumber, usize), torrents: &[InfoHash]) -> u32 {
        let waiter = self.waiter();
        let token = waiter.token;
        self.nodes[usize::from(node)].cores[core].scrape(self.now, torrents, FamilySet::Both, waiter);
        token
    }

    fn seconds(&self) -> Seconds {
        Seconds(self.now.as_secs() as u32)
    }

    /// Delivers what nodes and cores tell each other, until there is nothing more.
    fn run(&self) {
        let mut is_done = false;
        while !is_done {
            is_done = true;
            for (from, node) in (0..).zip(&self.nodes) {
                node.run_cores(self.now);
                for core in &node.cores {
                    while let Some((to, body)) = core.take_message() {
                        is_done = false;
                        if !self.is_cut && self.silent != Some(to) {
                            self.deliver(from, to, &body);
                        }
                    }
                }
            }
        }
    }

    fn deliver(&self, from: NodeNumber, to: NodeNumber, body: &[u8]) {
        let node = &self.nodes[usize::from(to)];
        let lost = split(body, &node.steering, &mut |core, mut items| {
            node.cores[core].receive_message(from, &mut items, usize::MAX, self.now);
        });
        assert_eq!(lost, 0);
    }

    fn tick(&mut self, passed: Duration) {
        self.now += passed;
        for core in self.nodes.iter().flat_map(|node| &node.cores) {
            core.tick(self.now);
            core.send_late(self.now, usize::MAX);
        }
        self.run();
    }

    fn count(&self, torrent: &InfoHash) -> u32 {
        let counts = |core: &CoreOwners| core.state().counts(torrent).map(|counts| counts.incomplete);
        self.nodes.iter().flat_map(|node| &node.cores).flat_map(counts).sum()
    }
}

fn torrent(number: u32) -> InfoHash {
    let mut bytes = [5; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    InfoHash(bytes)
}

/// A torrent of a part that a node holds.
fn torrent_of(node: NodeNumber) -> InfoHash {
    (0..).map(torrent).find(|torrent| holder(hasher().part(torrent)) == node).unwrap()
}

fn leecher(info_hash: InfoHash, number: u16) -> Announce {
    let address = SocketAddr::from(([198, 18, (number >> 8) as u8, number as u8], 6881));
    let event = AnnounceEvent::None;
    Announce { info_hash, address, seeder: false, event, numwant: 50, families: Families::Both }
}

#[test]
fn any_node_answers_for_all_torrents() {
    let network = Network::new();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut model: BTreeMap<InfoHash, BTreeSet<SocketAddr>> = BTreeMap::new();
    for nth in 0..3000 {
        let at = (rng.random_range(0..NODES), rng.random_range(0..CORES));
        let mut announce = leecher(torrent(rng.random_range(0..300)), rng.random_range(0..40));
        if announce.address.port().is_multiple_of(2) {
            announce.address = ([0x2001, 2, 0, 0, 0, 0, 0, nth % 40], 6881).into();
        }
        let swarm = model.entry(announce.info_hash).or_default();
        if rng.random_range(0..5) == 0 {
            announce.event = AnnounceEvent::Stopped;
            swarm.remove(&announce.address);
        } else {
            swarm.insert(announce.address);
        }
        let others = swarm.iter().filter(|address| **address != announce.address).count();
        let token = network.announce(at, &announce);
        network.run();
        let (counts, peers) = network.answers.announced.borrow()[&token];
        let peers_wanted = if announce.event == AnnounceEvent::Stopped { 0 } else { others.min(50) };
        assert_eq!((counts.incomplete as usize, peers), (swarm.len(), peers_wanted), "{nth}: {announce}");
    }
    let torrents: Vec<InfoHash> = model.keys().copied().collect();
    for at in (0..NODES).flat_map(|node| [(node, 0), (node, 1)]) {
        for torrents in torrents.chunks(70) {
            let token = network.scrape(at, torrents);
            network.run();
            let counts = network.answers.scraped.borrow()[&token].clone();
            let expected: Vec<_> = torrents.iter().map(|torrent| model[torrent].len() as u32).collect();
            assert_eq!(counts.iter().map(|counts| counts.incomplete).collect::<Vec<_>>(), expected);
        }
    }
    assert!(network.answers.failed.borrow().is_empty());
    let stored: usize = network.nodes.iter().map(Node::peers).sum();
    assert_eq!(stored, model.values().map(BTreeSet::len).sum::<usize>(), "each peer is stored once");
    assert!(network.nodes.iter().all(|node| node.peers() > stored / 5));
}

#[test]
fn announces_that_are_lost_are_answered_in_time_and_arrive_later() {
    let mut network = Network::new();
    let torrent = torrent_of(1);
    network.is_cut = true;
    let token = network.announce((0, 0), &leecher(torrent, 1));
    let scrape = network.scrape((2, 1), &[torrent]);
    network.run();
    network.tick(DEADLINE - Duration::from_millis(1));
    assert!(network.answers.announced.borrow().is_empty(), "there may be a response yet");
    network.is_cut = false;
    network.tick(Duration::from_millis(1));
    assert_eq!(network.answers.announced.borrow()[&token], (SwarmCounts::default(), 0));
    assert_eq!(network.answers.failed.borrow()[&scrape], RouteError::Timeout);
    assert_eq!(network.count(&torrent), 0, "nothing was heard of the holder");
    let of_the_same = (1..).map(self::torrent).find(|other| holder(hasher().part(other)) == 1);
    let other = network.announce((0, 0), &leecher(of_the_same.unwrap(), 1));
    network.run();
    assert_eq!(network.answers.announced.borrow()[&other].0.incomplete, 1);
    network.tick(Duration::from_millis(250));
    assert_eq!(network.count(&torrent), 1, "it has been sent again");
    let token = network.announce((2, 0), &leecher(torrent, 2));
    network.run();
    assert_eq!(network.answers.announced.borrow()[&token].1, 1);
}

#[test]
fn without_a_holder_announces_wait_for_one() {
    let mut network = Network::new();
    let torrent = torrent_of(1);
    let gone = |part| Some(holder(part)).filter(|node| *node != 1);
    network.set_holders(0, gone);
    for number in 0..10 {
        let token = network.announce((0, 0), &leecher(torrent, number));
        assert_eq!(network.answers.announced.borrow()[&token], (SwarmCounts::default(), 0), "at once");
    }
    let scrape = network.scrape((0, 0), &[torrent]);
    assert!(network.answers.failed.borrow().contains_key(&scrape));
    // One of the peers has told the holder meanwhile that it stops.
    let left = Announce { event: AnnounceEvent::Stopped, ..leecher(torrent, 3) };
    network.tick(Duration::from_secs(40));
    network.announce((0, 0), &left);
    assert_eq!(network.count(&torrent), 0);
    network.set_holders(0, |part| Some(holder(part)));
    network.tick(Duration::from_secs(40));
    assert_eq!(network.count(&torrent), 9);
    network.tick(Duration::from_secs(40));
    assert_eq!(network.count(&torrent), 9, "nothing is sent twice");
    // A node that has become a holder takes its own.
    network.set_holders(2, gone);
    network.announce((2, 0), &leecher(torrent, 77));
    network.set_holders(2, |part| Some(if holder(part) == 1 { 2 } else { holder(part) }));
    network.tick(Duration::from_secs(1));
    assert_eq!(
        network.nodes[2].cores.iter().map(|core| core.state().counts(&torrent)[0].incomplete).sum::<u32>(),
        1
    );
}

#[test]
fn a_peer_that_stops_while_there_is_no_holder_is_gone_afterwards() {
    let mut network = Network::new();
    let torrent = torrent_of(1);
    network.set_holders(0, |part| Some(holder(part)));
    network.announce((0, 0), &leecher(torrent, 1));
    network.run();
    assert_eq!(network.count(&torrent), 1);
    network.set_holders(0, |part| Some(holder(part)).filter(|node| *node != 1));
    // The holder counts in ticks of 16 seconds, in which both announces may be.
    let left = Announce { event: AnnounceEvent::Stopped, ..leecher(torrent, 1) };
    network.announce((0, 0), &left);
    network.tick(Duration::from_secs(1));
    network.set_holders(0, |part| Some(holder(part)));
    network.tick(Duration::from_secs(1));
    network.run();
    assert_eq!(network.count(&torrent), 0);
}

#[test]
fn what_waits_for_a_holder_is_bounded_in_number_and_time() {
    let mut network = Network::new();
    let torrent = torrent_of(1);
    network.set_holders(0, |part| Some(holder(part)).filter(|node| *node != 1));
    let count = MAX_LATE as u32 + 100;
    for number in 0..count {
        let address = SocketAddr::from((std::net::Ipv4Addr::from_bits(0xc612_0000 + number), 6881));
        network.announce((0, 0), &Announce { address, ..leecher(torrent, 0) });
    }
    assert_eq!(network.answers.announced.borrow().len(), count as usize);
    network.set_holders(0, |part| Some(holder(part)));
    for _ in 0..20 {
        network.tick(Duration::from_millis(250));
    }
    assert_eq!(network.count(&torrent), MAX_LATE as u32);
    let other = torrent_of(2);
    network.set_holders(0, |_| None);
    network.announce((0, 0), &leecher(other, 1));
    network.tick(Duration::from_secs(u64::from(MAX_LATENESS) + 1));
    network.set_holders(0, |part| Some(holder(part)));
    network.tick(Duration::from_secs(1));
    assert_eq!(network.count(&other), 0, "that was too long ago");
}

/// Two nodes hold each part, and nodes tell each other of changes by other means.
fn hold_twice(network: &Network) {
    for node in 0..NODES {
        let seen = &network.nodes[usize::from(node)];
        let both = |part| [holder(part), (holder(part) + 1) % NODES];
        let mut own = PartSet::new(hasher());
        (0..=u8::MAX).filter(|part| both(*part).contains(&node)).for_each(|part| own.add(part));
        let holders = Holders::new(hasher(), own, both);
        seen.cores.iter().for_each(|core| core.set_holders(Some(holders.clone()), &seen.metrics));
    }
}

#[test]
fn a_scrape_without_a_response_shows_that_its_holder_is_silent() {
    let mut network = Network::new();
    hold_twice(&network);
    // Of two parts, the first of which is held by nodes 1 and 2, and the other by 2 and 0.
    let torrents = [torrent_of(1), torrent_of(2)];
    let counted = |network: &Network, torrents: &[InfoHash]| {
        let token = network.scrape((0, 0), torrents);
        network.run();
        (token, network.answers.scraped.borrow().contains_key(&token))
    };
    assert!(counted(&network, &torrents).1);
    network.silent = Some(1);
    network.tick(Duration::from_millis(10));
    let (first, is_answered) = counted(&network, &torrents);
    assert!(!is_answered);
    network.tick(DEADLINE);
    assert_eq!(network.answers.failed.borrow()[&first], RouteError::Timeout);
    let failed = [&names::PART_REQUESTS, &names::OWNER_REQUESTS_FAILED];
    let failed = failed.map(|metric| network.nodes[0].metric(metric, "timeout"));
    assert_eq!(failed, [1, 0], "of a node, and of no core");
    let (probe, is_answered) = counted(&network, &torrents[..1]);
    assert!(!is_answered, "it is tried again, with one request");
    assert!(counted(&network, &torrents).1, "by the other one");
    let announce = network.announce((0, 0), &leecher(torrents[0], 1));
    network.run();
    assert!(network.answers.announced.borrow().contains_key(&announce), "announces know, too");
    network.silent = None;
    network.tick(DEADLINE);
    assert_eq!(network.answers.failed.borrow()[&probe], RouteError::Timeout);
    // Node 2 has responded, and is not taken for silent.
    network.silent = Some(0);
    assert!(counted(&network, &torrents[1..]).1);
    // What nobody holds is no failure of a core either.
    network.set_holders(0, |_| None);
    let (nobody, _) = counted(&network, &torrents);
    assert!(network.answers.failed.borrow().contains_key(&nobody));
    assert_eq!(network.nodes[0].metric(&names::PART_REQUESTS, "no_holder"), 1);
    assert_eq!(network.nodes[0].metric(&names::OWNER_REQUESTS_FAILED, "overflow"), 0);
}

#[test]
fn what_a_peer_has_announced_before_does_not_arrive_after_its_stop() {
    let mut network = Network::new();
    let torrent = torrent_of(1);
    let gone = |part| Some(holder(part)).filter(|node| *node != 1);
    let left = Announce { event: AnnounceEvent::Stopped, ..leecher(torrent, 1) };
    // Both wait for a holder.
    network.set_holders(0, gone);
    for announce in [leecher(torrent, 1), leecher(torrent, 2), left] {
        network.announce((0, 0), &announce);
    }
    network.tick(Duration::from_secs(40));
    assert_eq!(network.nodes[0].metrics.registry().sum(&names::PART_ANNOUNCES_WAITING), 2);
    network.set_holders(0, |part| Some(holder(part)));
    network.tick(Duration::from_secs(40));
    assert_eq!(network.count(&torrent), 1);
    // There is a holder again when the peer stops.
    network.set_holders(0, gone);
    network.announce((0, 0), &leecher(torrent, 1));
    network.set_holders(0, |part| Some(holder(part)));
    network.announce((0, 0), &left);
    network.run();
    network.tick(Duration::from_secs(40));
    assert_eq!(network.count(&torrent), 1);
}

#[test]
fn what_waits_and_what_is_received_is_handled_in_steps() {
    let network = Network::new();
    let (torrent, other) = (torrent_of(1), torrent_of(2));
    network.set_holders(0, |part| Some(holder(part)).filter(|node| *node != 1));
    // A client of HTTP may be served by any core.
    let other_core = 1 - network.nodes[0].steering.owner(&torrent);
    let core = &network.nodes[0].cores[other_core];
    for number in 0..1000 {
        network.announce((0, other_core), &leecher(torrent, number));
    }
    core.send_late(network.now, 1000);
    assert_eq!(core.take_message(), None, "there is no holder yet");
    network.set_holders(0, |part| Some(holder(part)));
    for step in 1..=3 {
        core.send_late(network.now, 100);
        network.run();
        assert_eq!(network.count(&torrent), 100 * step);
    }
    // This node holds the rest itself by now.
    network.set_holders(0, |part| Some(if holder(part) == 1 { 0 } else { holder(part) }));
    core.send_late(network.now, 600);
    network.run();
    assert_eq!(network.count(&torrent), 900);
    let owner = &network.nodes[0].cores[network.nodes[0].steering.owner(&torrent)];
    let own: u32 = owner.state().counts(&torrent).iter().map(|counts| counts.incomplete).sum();
    assert_eq!(own, 600, "at the core that owns the torrent");
    core.send_late(network.now, 600);
    network.run();
    assert_eq!(network.count(&torrent), 1000);

    for number in 0..100 {
        network.announce((0, other_core), &leecher(other, number));
    }
    let (to, body) = core.take_message().unwrap();
    let (holder, mut items) = (&network.nodes[usize::from(to)], body.as_slice());
    let owner = &holder.cores[holder.steering.owner(&other)];
    for number in [25, 50, 75, 100] {
        owner.receive_message(0, &mut items, 25, network.now);
        assert_eq!((network.count(&other), items.is_empty()), (number, number == 100));
    }
}

#[test]
fn another_holder_is_asked_while_the_first_is_silent() {
    let mut network = Network::new();
    let torrent = torrent_of(1);
    hold_twice(&network);
    let answered = |network: &Network, token| network.answers.announced.borrow().get(&token).copied();
    let asked = |network: &Network, number| {
        let token = network.announce((0, 0), &leecher(torrent, number));
        network.run();
        (token, answered(network, token))
    };
    assert_eq!(asked(&network, 1).1.unwrap().1, 0);
    assert_eq!(asked(&network, 2).1.unwrap().1, 1, "by the same holder");
    network.silent = Some(1);
    network.tick(Duration::from_millis(10));
    let (first, answer) = asked(&network, 3);
    assert_eq!(answer, None);
    network.tick(DEADLINE);
    assert_eq!(answered(&network, first), Some((SwarmCounts::default(), 0)), "in time");
    let (probe, answer) = asked(&network, 4);
    assert_eq!(answer, None, "it is tried again, with one request");
    assert_eq!(asked(&network, 5).1.unwrap().1, 1, "the other one knows the announce that was late");
    assert_eq!(asked(&network, 7).1.unwrap().1, 2);
    network.tick(DEADLINE);
    assert!(answered(&network, probe).is_some());
    network.tick(PROBE);
    assert_eq!(asked(&network, 6).1, None, "and again");
    assert_eq!(asked(&network, 8).1.unwrap().1, 4);
    // It answers again, and is asked again.
    network.silent = None;
    network.tick(PROBE);
    assert_eq!(asked(&network, 1).1.unwrap().1, 1, "the peer that it has heard before");
    assert_eq!(asked(&network, 2).1.unwrap().1, 1);
    // Without any request, nobody is silent for ever.
    network.silent = Some(1);
    network.tick(Duration::from_millis(10));
    assert_eq!(asked(&network, 8).1, None);
    network.tick(DEADLINE);
    assert_eq!(asked(&network, 9).1, None);
    assert_eq!(asked(&network, 10).1.unwrap().1, 6);
    network.silent = None;
    network.tick(MAX_SILENCE);
    assert_eq!(asked(&network, 10).1.unwrap().1, 3, "with the one whose announce was kept for it");
}

#[test]
fn a_part_that_moves_is_answered_for_until_it_is_dropped() {
    let network = Network::new();
    let torrent = torrent_of(1);
    network.announce((0, 0), &leecher(torrent, 1));
    network.run();
    let moved = |part| Some(if holder(part) == 1 { 2 } else { holder(part) });
    let seen = &network.nodes[1];
    let mut kept = PartSet::new(hasher());
    kept.add(hasher().part(&torrent));
    let holders = holders_of(1, moved).keeping(kept);
    seen.cores.iter().for_each(|core| core.set_holders(Some(holders.clone()), &seen.metrics));
    // Another node does not know of the move yet.
    let token = network.announce((0, 0), &leecher(torrent, 2));
    network.run();
    assert_eq!(network.answers.announced.borrow()[&token].1, 1);
    for core in &seen.cores {
        while !core.state().expire(network.seconds(), 3600, 1000).pass_ended {}
        assert!(core.state().keeps(&torrent) && !core.state().holds(&torrent));
    }
    assert_eq!(network.count(&torrent), 2, "the new holder pulls them");
    // Its own clients are answered by the new holder.
    let token = network.announce((1, 0), &leecher(torrent, 3));
    network.nodes[2].cores.iter().for_each(|core| {
        core.set_holders(Some(holders_of(2, moved)), &network.nodes[2].metrics);
    });
    network.run();
    assert_eq!(
        network.answers.announced.borrow()[&token],
        (SwarmCounts { incomplete: 1, ..Default::default() }, 0)
    );
}

#[test]
fn a_part_that_is_given_up_expires_and_is_not_answered_for() {
    let mut network = Network::new();
    let torrent = torrent_of(1);
    for number in 0..500 {
        network.announce((0, 0), &leecher(torrent, number));
        network.announce((1, 1), &leecher(torrent_of(2), number));
        network.run();
    }
    assert_eq!((network.count(&torrent), network.count(&torrent_of(2))), (500, 500));
    // Node 1 gives its parts to node 2, and node 0 does not know yet.
    let moved = |part| Some(if holder(part) == 1 { 2 } else { holder(part) });
    network.set_holders(1, moved);
    network.set_holders(2, moved);
    let token = network.announce((0, 0), &leecher(torrent, 900));
    network.run();
    assert_eq!(network.answers.announced.borrow()[&token], (SwarmCounts::default(), 0));
    network.set_holders(0, moved);
    network.tick(Duration::from_secs(1));
    let at_2 = |network: &Network| {
        let counts = |core: &CoreOwners| core.state().counts(&torrent)[0].incomplete;
        network.nodes[2].cores.iter().map(counts).sum::<u32>()
    };
    assert_eq!(at_2(&network), 1, "the new holder has it");
    for core in &network.nodes[1].cores {
        let mut passes = 0;
        while passes < 2 {
            let expired = core.state().expire(network.seconds(), 3600, 50);
            assert!(expired.work < 50 + 700);
            passes += u32::from(expired.pass_ended);
        }
        let kind = ChangeKind::Present { seeder: false, completion: Completion::None };
        let change = Change { info_hash: torrent, address: leecher(torrent, 1).address, kind, age: 0 };
        assert_eq!(core.state().apply_change(&change, 0, network.seconds()), Applied::NotHeld);
    }
    assert_eq!(network.nodes[1].peers(), 0);
    assert_eq!((network.count(&torrent), network.count(&torrent_of(2))), (1, 500));
    // Without a division all is kept again.
    for core in &network.nodes[1].cores {
        core.set_holders(None, &network.nodes[1].metrics);
    }
    let at = (1, network.nodes[1].steering.owner(&torrent));
    network.announce(at, &leecher(torrent, 5));
    assert_eq!(network.nodes[1].peers(), 1);
}

#[test]
fn no_message_can_do_harm() {
    let network = Network::new();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
    for nth in 0..2000_u16 {
        network.announce((0, 0), &leecher(torrent(nth.into()), nth));
        let Some((to, mut body)) = network.nodes[0].cores[0].take_message() else { continue };
        for _ in 0..rng.random_range(0..3) {
            let at = rng.random_range(0..body.len());
            body[at] = rng.random();
        }
        body.truncate(rng.random_range(0..=body.len()));
        let node = &network.nodes[usize::from(to)];
        split(&body, &node.steering, &mut |core, mut items| {
            if let Some(core) = node.cores.get(core) {
                core.receive_message(9, &mut items, usize::MAX, network.now);
            }
        });
        node.cores[0].receive_message(0, &mut body.as_slice(), usize::MAX, network.now);
    }
    assert_eq!(PARTS, 256);
}
