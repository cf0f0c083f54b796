//! Nodes, the network between them, clients, and the naive model that nodes are compared with.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use aquatic_cluster::Subject;
use aquatic_common::{AnnounceEvent, InfoHash};
use aquatic_swarm::{Announce, Announced, Families, Stored};
use aquatic_tracker::replication::remote_grace;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::node::{Node, PeerKey, StoredPeer, Traffic, node_name, part_hasher};

/// What a simulation is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) clients: usize,
    pub(crate) torrents: u16,
    /// Seconds.
    pub(crate) max_peer_age: u32,
    /// Longest time between two announces of a client, in milliseconds.
    pub(crate) interval: u64,
    /// Of a thousand announces of a client: moves to another node, completes, stops, vanishes.
    pub(crate) habits: [u32; 4],
    /// Of a thousand messages to a receiver.
    pub(crate) lost: u32,
    pub(crate) repeated: u32,
    /// Of a thousand messages, those that take seconds.
    pub(crate) delayed: u32,
    /// Number of nodes that hold each part of the torrents; all hold everything if there is none.
    pub(crate) replicas: Option<u8>,
    /// Whether nodes and network fail.
    pub(crate) failures: bool,
    /// Milliseconds between two looks at everything.
    pub(crate) step: u64,
}

struct Client {
    key: PeerKey,
    /// Never leaves, so that its torrent is never forgotten.
    steady: bool,
    seeder: bool,
    home: usize,
    present: bool,
    next: u64,
}

/// What is true of a peer.
#[derive(Clone, Copy, Debug)]
struct Truth {
    /// When it last announced that it is there.
    last: u64,
    present: bool,
    seeder: bool,
    home: usize,
    /// Number of the start of that node.
    start: u32,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Option<Node>>,
    /// Traffic of nodes that have ended.
    pub(crate) past: Traffic,
    rng: SmallRng,
    starts: Vec<u32>,
    /// When each node that is down starts again.
    down_until: Vec<u64>,
    /// Nodes that reach each other have the same number.
    groups: Vec<u8>,
    groups_until: u64,
    cut_until: Vec<u64>,
    network: BinaryHeap<Reverse<(u64, u64, usize)>>,
    messages: BTreeMap<u64, Rc<[u8]>>,
    serial: u64,
    clients: Vec<Client>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    truth: BTreeMap<PeerKey, Truth>,
    completed: BTreeMap<InfoHash, u32>,
    next_port: u16,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut world = Self {
            plan,
            now: 0,
            nodes: Vec::new(),
            past: Traffic::default(),
            rng: SmallRng::seed_from_u64(plan.seed),
            starts: vec![0; plan.nodes],
            down_until: vec![0; plan.nodes],
            groups: vec![0; plan.nodes],
            groups_until: 0,
            cut_until: vec![0; plan.nodes],
            network: BinaryHeap::new(),
            messages: BTreeMap::new(),
            serial: 0,
            clients: Vec::new(),
            due: BinaryHeap::new(),
            truth: BTreeMap::new(),
            completed: BTreeMap::new(),
            next_port: 1,
        };
        world.nodes.resize_with(plan.nodes, || None);
        (0..plan.nodes).for_each(|node| world.start(node));
        for number in 0..plan.clients {
            let torrent = number as u16 % plan.torrents;
            let key = world.new_key(InfoHash(std::array::from_fn(|at| (torrent >> (at % 2 * 8)) as u8)));
            let steady = number < usize::from(plan.torrents);
            let next = world.rng.random_range(8_000..8_000 + plan.interval);
            world.due.push(Reverse((next, number)));
            let seeder = steady || world.rng.random_range(0..4) == 0;
            world.clients.push(Client { key, steady, seeder, home: 0, present: false, next });
        }
        world
    }

    fn new_key(&mut self, info_hash: InfoHash) -> PeerKey {
        self.next_port = self.next_port.checked_add(1).unwrap_or(1);
        let host: u16 = self.rng.random_range(1..4000);
        let ip: IpAddr = if self.rng.random_range(0..4) > 0 {
            Ipv4Addr::new(198, 18, (host >> 8) as u8, host as u8).into()
        } else {
            Ipv6Addr::new(0x2001, 2, 0, host, 0, 0, 0, 1).into()
        };
        (info_hash, SocketAddr::new(ip, 1024 + self.next_port % 60_000))
    }

    pub(crate) fn start(&mut self, at: usize) {
        self.starts[at] += 1;
        let mut node = Node::new(at, (self.plan.max_peer_age, self.plan.replicas), self.now, &mut self.rng);
        node.set_connected(true, self.now);
        self.nodes[at] = Some(node);
    }

    /// Ends a node, which says goodbye.
    pub(crate) fn stop(&mut self, at: usize) {
        if let Some(node) = &mut self.nodes[at] {
            node.leave(self.now);
        }
        self.spread(at);
        if let Some(node) = self.nodes[at].take() {
            self.past.add(&node.traffic);
        }
    }

    /// Divides the network, or heals it: nodes that reach each other have the same number.
    pub(crate) fn divide(&mut self, groups: &[u8]) {
        self.groups.copy_from_slice(groups);
    }

    /// The node.
    pub(crate) fn node(&mut self, at: usize) -> &mut Node {
        self.nodes[at].as_mut().unwrap()
    }

    pub(crate) fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += self.plan.step;
            if self.plan.failures {
                self.fail();
            }
            self.deliver();
            self.announce_due();
            for at in 0..self.nodes.len() {
                let expires = (self.now / self.plan.step + at as u64).is_multiple_of(30_000 / self.plan.step);
                if let Some(node) = &mut self.nodes[at] {
                    node.tick(self.now);
                    if expires {
                        node.expire(self.now);
                    }
                }
                self.spread(at);
            }
        }
    }

    /// Puts what a node has sent onto the network.
    fn spread(&mut self, from: usize) {
        let Some(node) = &mut self.nodes[from] else { return };
        if node.sent.is_empty() {
            return;
        }
        for (subject, message) in std::mem::take(&mut node.sent) {
            let message: Rc<[u8]> = message.into();
            match subject {
                Subject::Pull(name) | Subject::Relay(name) | Subject::Parts(name) => {
                    let to = (0..self.plan.nodes).find(|node| node_name(*node) == name.as_str());
                    self.send(from, to.unwrap(), &message);
                }
                Subject::Changes(_) | Subject::WebTorrent(_) | Subject::Hello | Subject::Control => {
                    let others = (0..self.plan.nodes).filter(|to| *to != from);
                    others.for_each(|to| self.send(from, to, &message));
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &Rc<[u8]>) {
        let Plan { lost, repeated, delayed, .. } = self.plan;
        let roll =
            |rng: &mut SmallRng, of_thousand: u32| of_thousand > 0 && rng.random_range(0..1000) < of_thousand;
        let is_connected = |node: &Option<Node>| node.as_ref().is_some_and(|node| node.connected);
        if self.groups[from] != self.groups[to] || !is_connected(&self.nodes[to]) {
            return;
        }
        for _ in 0..=u32::from(roll(&mut self.rng, repeated)) {
            if roll(&mut self.rng, lost) {
                continue;
            }
            let longest = if roll(&mut self.rng, delayed) { 5_000 } else { 300 };
            self.serial += 1;
            let at = self.now + self.rng.random_range(1..longest);
            self.network.push(Reverse((at, self.serial, to)));
            self.messages.insert(self.serial, Rc::clone(message));
        }
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, serial, to))) = self.network.peek().copied() {
            if at > self.now {
                break;
            }
            self.network.pop();
            let message = self.messages.remove(&serial).unwrap();
            if let Some(node) = self.nodes[to].as_mut().filter(|node| node.connected) {
                node.receive(&message, self.now);
                self.spread(to);
            }
        }
    }

    /// Starts nodes again, and heals the network, when it is time.
    fn repair(&mut self) {
        for at in 0..self.plan.nodes {
            if self.nodes[at].is_none() && self.now >= self.down_until[at] {
                self.start(at);
            }
            let connected = self.now >= self.cut_until[at];
            if let Some(node) = &mut self.nodes[at] {
                node.set_connected(connected, self.now);
            }
        }
        if self.now >= self.groups_until {
            self.groups.fill(0);
        }
    }

    /// Has nodes end, and the network fall apart.
    fn fail(&mut self) {
        self.repair();
        let nodes = self.plan.nodes;
        if self.rng.random_range(0..30_000) >= self.plan.step {
            return;
        }
        let at = self.rng.random_range(0..nodes);
        match self.rng.random_range(0..3) {
            0 if self.nodes.iter().flatten().count() > 1 => {
                if let Some(node) = self.nodes[at].take() {
                    self.past.add(&node.traffic);
                    self.down_until[at] = self.now + self.rng.random_range(1_000..60_000);
                }
            }
            1 => {
                self.groups_until = self.now + self.rng.random_range(5_000..120_000);
                for group in &mut self.groups {
                    *group = self.rng.random_range(0..2);
                }
            }
            _ => self.cut_until[at] = self.now + self.rng.random_range(1_000..120_000),
        }
    }

    /// Ends all failures and has the network deliver everything.
    pub(crate) fn calm(&mut self) {
        self.groups_until = 0;
        self.cut_until.fill(0);
        self.down_until.fill(0);
        self.repair();
        self.plan.failures = false;
        self.plan.lost = 0;
    }

    fn announce_due(&mut self) {
        while let Some(Reverse((at, client))) = self.due.peek().copied() {
            if at > self.now {
                break;
            }
            self.due.pop();
            self.act(client);
            self.due.push(Reverse((self.clients[client].next, client)));
        }
    }

    fn act(&mut self, number: usize) {
        let [moves, completes, stops, vanishes] = self.plan.habits;
        let Client { present, steady, seeder, home, key, .. } = self.clients[number];
        let mut roll = |of_thousand: u32| self.rng.random_range(0..1000) < of_thousand;
        let moved = !present || roll(moves);
        let stopped = present && !steady && roll(stops);
        let completed = present && !stopped && !seeder && roll(completes);
        let vanished = present && !steady && !stopped && roll(vanishes);
        let pause = self.rng.random_range(self.plan.interval / 8..self.plan.interval);
        let rest = self.rng.random_range(self.plan.interval * 9 / 10..=self.plan.interval);
        self.clients[number].next = self.now + if stopped || vanished { pause } else { rest };
        if vanished {
            return self.leave(number);
        }
        let Some(home) = self.home(home, moved) else { return };
        let event = match (stopped, present, completed) {
            (true, _, _) => AnnounceEvent::Stopped,
            (_, false, _) => AnnounceEvent::Started,
            (_, _, true) => AnnounceEvent::Completed,
            _ => AnnounceEvent::None,
        };
        let seeder = seeder || completed;
        let (info_hash, address) = key;
        let announce = Announce { info_hash, address, seeder, event, numwant: 10, families: Families::Own };
        let announced = self.nodes[home].as_mut().unwrap().announce(&announce, self.now);
        let is_stored = |announced: Announced| {
            matches!(announced.stored, Stored::Added | Stored::Updated | Stored::Removed | Stored::Absent)
        };
        assert!(announced.is_none_or(is_stored), "{announced:?}");
        *self.completed.entry(info_hash).or_default() += u32::from(completed);
        let last = if stopped { self.truth[&key].last } else { self.now };
        let truth = Truth { last, present: !stopped, seeder, home, start: self.starts[home] };
        self.truth.insert(key, truth);
        self.clients[number].home = home;
        self.clients[number].seeder = seeder;
        self.clients[number].present = true;
        if stopped {
            self.leave(number);
        }
    }

    /// The client's program ends. Those that have downloaded everything come back as another peer.
    fn leave(&mut self, number: usize) {
        self.clients[number].present = false;
        let key = self.clients[number].key;
        if let Some(truth) = self.truth.get_mut(&key) {
            truth.present = false;
        }
        if self.clients[number].seeder && self.rng.random() {
            self.clients[number].seeder = false;
            self.clients[number].key = self.new_key(key.0);
        }
    }

    fn home(&mut self, home: usize, moves: bool) -> Option<usize> {
        if !moves && self.nodes[home].is_some() {
            return Some(home);
        }
        let up: Vec<usize> = (0..self.plan.nodes).filter(|node| self.nodes[*node].is_some()).collect();
        (!up.is_empty()).then(|| up[self.rng.random_range(0..up.len())])
    }

    /// All clients end without a word.
    pub(crate) fn end_clients(&mut self) {
        self.due.clear();
        self.truth.values_mut().for_each(|truth| truth.present = false);
    }

    /// Checks what holds at any time, whatever fails: no node has a peer longer than its age allows, and the
    /// node that a peer announced to last has it.
    pub(crate) fn check_always(&mut self) {
        let longest = self.plan.max_peer_age + remote_grace(self.plan.max_peer_age);
        // Stamps are rounded at both ends, and old peers are removed every 30 seconds.
        // An announce that is forwarded may be on its way for five seconds.
        let forwarding = if self.plan.replicas.is_some() { 6 } else { 0 };
        let longest = u64::from(longest + 32 + 31 + forwarding) * 1000;
        let own = u64::from(self.plan.max_peer_age) * 1000;
        for at in 0..self.plan.nodes {
            let Some(node) = &mut self.nodes[at] else { continue };
            let (peers, _) = node.content(self.now);
            for key in peers.keys() {
                let age = self.now - self.truth[key].last;
                assert!(age <= longest, "node {at} has {key:?} for {age} ms {:?}", peers[key]);
            }
            if self.plan.replicas.is_some() {
                continue;
            }
            let mine = |truth: &Truth| truth.home == at && truth.start == self.starts[at] && truth.present;
            for (key, truth) in self.truth.iter().filter(|(_, truth)| mine(truth)) {
                if self.now - truth.last < own {
                    let stored = peers.get(key);
                    assert!(stored.is_some(), "node {at} has lost {key:?} {truth:?} at {}", self.now);
                    assert_eq!(stored.unwrap().seeder, truth.seeder, "node {at}: {key:?}");
                }
            }
        }
    }

    /// Checks that all nodes know all living peers. Returns how many others each knows on top.
    pub(crate) fn check_converged(&mut self) -> Vec<usize> {
        let living: Vec<(PeerKey, Truth)> = self
            .truth
            .iter()
            .filter(|(_, truth)| truth.present && self.now - truth.last > 6_000)
            .map(|(key, truth)| (*key, *truth))
            .collect();
        for node in self.nodes.iter_mut().flatten() {
            assert!(node.cluster.complete_since().is_some(), "node {} is complete", node.name);
            let (peers, _) = node.content(self.now);
            let hasher = part_hasher();
            let is_divided = self.plan.replicas.is_some();
            let (held, kept) = (node.cluster.answered_parts(), node.cluster.kept_parts());
            assert!(peers.keys().all(|(info_hash, _)| kept.contains(hasher.part(info_hash))));
            let is_held = |info_hash| !is_divided || held.contains(hasher.part(info_hash));
            for (key, truth) in living.iter().filter(|((info_hash, _), _)| is_held(info_hash)) {
                let stored: Option<&StoredPeer> = peers.get(key);
                assert!(stored.is_some(), "node {} misses {key:?} {truth:?} at {}", node.name, self.now);
                assert_eq!(stored.unwrap().seeder, truth.seeder, "role of {key:?} at node {}", node.name);
            }
        }
        self.others()
    }

    /// How many peers that are gone each node knows.
    pub(crate) fn others(&mut self) -> Vec<usize> {
        let (now, truth) = (self.now, &self.truth);
        let is_gone = |key: &&PeerKey| !truth[key].present;
        let nodes = self.nodes.iter_mut().flatten();
        nodes.map(|node| node.content(now).0.keys().filter(is_gone).count()).collect()
    }

    /// Downloads that each node counts, and how many there were.
    pub(crate) fn downloads(&mut self) -> (Vec<u32>, u32) {
        let now = self.now;
        let counted = self.nodes.iter_mut().flatten().map(|node| node.content(now).1.values().sum());
        (counted.collect(), self.completed.values().sum())
    }

    /// Peers that the nodes store.
    pub(crate) fn stored(&mut self) -> usize {
        let now = self.now;
        self.nodes.iter_mut().flatten().map(|node| node.content(now).0.len()).sum()
    }

    /// Checks that each part is held by as many nodes as wanted, and that all nodes know by whom.
    pub(crate) fn check_holders(&mut self) {
        let nodes: Vec<&Node> = self.nodes.iter().flatten().collect();
        let replicas = usize::from(self.plan.replicas.unwrap()).min(nodes.len());
        for part in 0..=u8::MAX {
            let holders = nodes.iter().filter(|node| node.cluster.own_parts().contains(part)).count();
            assert_eq!(holders, replicas, "part {part}");
            for node in &nodes {
                let others = replicas - usize::from(node.cluster.own_parts().contains(part));
                assert_eq!(node.cluster.asked(part).len(), others, "part {part} at {}", node.name);
            }
        }
    }

    /// Numbers of announces that were forwarded: answered without counts, and with.
    pub(crate) fn forwarded(&self) -> [u64; 2] {
        let forwarded = self.nodes.iter().flatten().map(|node| *node.forwarded.0.borrow());
        forwarded.fold([0; 2], |sum, node| [sum[0] + node[0], sum[1] + node[1]])
    }

    /// Traffic of all nodes, and announces.
    pub(crate) fn traffic(&self) -> (Traffic, u64) {
        let mut sum = self.past;
        let mut announces = 0;
        for node in self.nodes.iter().flatten() {
            sum.add(&node.traffic);
            announces += node.announces;
        }
        (sum, announces)
    }
}

impl Traffic {
    fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        self.batches += other.batches;
        self.batch_bytes += other.batch_bytes;
        self.hello_bytes += other.hello_bytes;
        self.pull_bytes += other.pull_bytes;
        self.received_bytes += other.received_bytes;
    }
}
