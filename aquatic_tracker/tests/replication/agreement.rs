//! Nodes that exchange what they heard, in any order and more than once, and agree.

use std::collections::BTreeMap;

use aquatic_common::AnnounceEvent;
use aquatic_tracker::replication::{Change, remote_grace};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::AGE;
use crate::node::{Content, Node, address, info_hash};

const NODES: usize = 3;
const TORRENTS: u32 = 4;
const PEERS: u16 = 30;

/// A change on its way.
struct OnTheWay {
    to: usize,
    change: Change,
    /// When it was handed out, and when it arrives.
    sent: u32,
    arrives: u32,
}

/// What the peers said last.
#[derive(Clone, Copy)]
struct Said {
    seeder: bool,
    stopped: bool,
    at: u32,
}

struct Network {
    nodes: Vec<Node>,
    rng: Xoshiro256PlusPlus,
    now: u32,
    on_the_way: Vec<OnTheWay>,
    said: BTreeMap<(u32, u16), Said>,
    /// Longest time that a change takes, in seconds; each takes the same if they arrive in order.
    delay: u32,
    in_order: bool,
}

impl Network {
    fn new(seed: u64, delay: u32, in_order: bool) -> Self {
        Self {
            nodes: (0..NODES).map(|index| Node::new(seed * 10 + index as u64, AGE)).collect(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            now: 100_000,
            on_the_way: Vec::new(),
            said: BTreeMap::new(),
            delay,
            in_order,
        }
    }

    /// Some peer announces to some node, with at least as much time since its last announce as the stamps of
    /// peers can tell apart.
    fn announce(&mut self) {
        let key = (self.rng.random_range(0..TORRENTS), self.rng.random_range(0..PEERS));
        if self.said.get(&key).is_some_and(|said| self.now - said.at < 32) {
            return;
        }
        let stopped = self.rng.random_range(0..5) == 0;
        let seeder = self.rng.random();
        let event = if stopped { AnnounceEvent::Stopped } else { AnnounceEvent::None };
        let node = self.rng.random_range(0..NODES);
        self.nodes[node].announce((key.0, address(key.1)), seeder, event, self.now);
        self.said.insert(key, Said { seeder, stopped, at: self.now });
    }

    fn publish(&mut self) {
        for from in 0..NODES {
            for change in self.nodes[from].published(self.now) {
                for to in (0..NODES).filter(|to| *to != from) {
                    let copies = if self.in_order { 1 } else { self.rng.random_range(1..3) };
                    for _ in 0..copies {
                        let delay =
                            if self.in_order { self.delay } else { self.rng.random_range(0..=self.delay) };
                        let arrives = self.now + delay;
                        self.on_the_way.push(OnTheWay { to, change, sent: self.now, arrives });
                    }
                }
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (arrived, rest) =
            std::mem::take(&mut self.on_the_way).into_iter().partition(|change| change.arrives <= now);
        self.on_the_way = rest;
        let arrived: Vec<OnTheWay> = arrived;
        for OnTheWay { to, change, sent, .. } in arrived {
            self.nodes[to].apply(&change, u32::from(change.age) + now - sent, now);
        }
    }

    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.now += self.rng.random_range(0..4);
            for _ in 0..self.rng.random_range(0..4) {
                self.announce();
            }
            if self.rng.random() {
                self.publish();
            }
            self.deliver();
        }
        self.settle();
    }

    /// Waits until all has arrived, and what that has led to.
    fn settle(&mut self) {
        while {
            self.publish();
            !self.on_the_way.is_empty()
        } {
            self.now += 1;
            self.deliver();
        }
    }

    /// What each node should have, but for whose peers they are.
    fn expected(&self) -> BTreeMap<(u32, u16), bool> {
        let living = self.said.iter().filter(|(_, said)| !said.stopped);
        living.map(|(key, said)| (*key, said.seeder)).collect()
    }

    fn contents(&mut self) -> Vec<Content> {
        let now = self.now;
        self.nodes.iter_mut().map(|node| node.content(now)).collect()
    }
}

fn roles(content: &Content) -> BTreeMap<(u32, u16), bool> {
    let mut roles = BTreeMap::new();
    for torrent in 0..TORRENTS {
        for number in 0..PEERS {
            if let Some((seeder, _)) = content.get(&(info_hash(torrent), address(number))) {
                roles.insert((torrent, number), *seeder);
            }
        }
    }
    assert_eq!(roles.len(), content.len());
    roles
}

#[test]
fn nodes_agree_on_what_arrives_in_order() {
    for seed in 0..9 {
        let mut network = Network::new(seed, [0, 1, 5][seed as usize % 3], true);
        network.run(1500);
        let (expected, contents) = (network.expected(), network.contents());
        for content in &contents {
            assert!(roles(content) == expected, "seed {seed}");
        }
        for key in contents[0].keys() {
            let owners = contents.iter().filter(|content| !content[key].1).count();
            assert_eq!(owners, 1, "seed {seed}: {key:?}");
        }
        let downloaded =
            |node: &Node| (0..TORRENTS).map(|torrent| node.downloaded(torrent)).collect::<Vec<_>>();
        let counts: Vec<_> = network.nodes.iter().map(downloaded).collect();
        assert!(counts.iter().all(|count| *count == counts[0]), "seed {seed}: {counts:?}");
    }
}

#[test]
fn nodes_lose_no_peer_in_whatever_order_changes_arrive() {
    for seed in 100..109 {
        let mut network = Network::new(seed, 40, false);
        network.run(1500);
        let expected = network.expected();
        let contents = network.contents();
        let mut gone = 0;
        for content in &contents {
            let mut roles = roles(content);
            for (key, seeder) in &expected {
                assert_eq!(roles.remove(key), Some(*seeder), "seed {seed}: {key:?}");
            }
            gone += roles.len();
        }
        // A peer whose last announce came behind the news that it had stopped is remembered, until it is as
        // old as that announce may be.
        assert!(gone < 60, "seed {seed}: {gone}");
        network.now += AGE + remote_grace(AGE) + 64;
        let now = network.now;
        network.nodes.iter_mut().for_each(|node| node.expire(now));
        assert!(network.contents().iter().all(Content::is_empty));
    }
}
