//! Long random sequences of operations on a shard, each result held against a naive model of it.
//!
//! A failure prints its seed. `AQUATIC_SWARM_SEED` runs the sequence of that seed alone, `AQUATIC_SWARM_SEQUENCES` says how
//! many sequences to run otherwise.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds};
use aquatic_swarm::{
    Announce, Announced, Families, FamilySet, HashKey, PeerBuffers, Shard, ShardConfig, Stored, SwarmCounts,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Seeds of sequences that are run first. Those that once failed stay here.
const SEEDS: [u64; 2] = [1, 2];
const SEQUENCES: u64 = 14;
const OPERATIONS: usize = 5_000;

/// Times are multiples of a tick, so that the model knows to the second when a peer is old.
const TICK: u32 = 8;
const MAX_AGE: u32 = 30 * TICK;

#[derive(Clone, Copy, Debug)]
struct Known {
    seeder: bool,
    seen: u32,
}

#[derive(Debug, Default)]
struct ModelSwarm {
    downloaded: u32,
    peers: BTreeMap<SocketAddr, Known>,
}

/// What a shard should hold, kept in the plainest way.
struct Model {
    config: ShardConfig,
    swarms: [BTreeMap<InfoHash, ModelSwarm>; 2],
}

impl Model {
    fn peers(&self) -> u64 {
        self.swarms.iter().flat_map(|swarms| swarms.values()).map(|swarm| swarm.peers.len() as u64).sum()
    }

    fn torrents(&self) -> u64 {
        self.swarms.iter().map(|swarms| swarms.len() as u64).sum()
    }

    fn store(&mut self, announce: &Announce, now: u32) -> Stored {
        let family = Family::of(announce.address.ip()).index();
        let seeder = announce.seeder && announce.event != AnnounceEvent::Paused;
        let (peers, torrents, config) = (self.peers(), self.torrents(), self.config);
        let swarms = &mut self.swarms[family];
        if announce.address.port() == 0 {
            return Stored::RefusedPort;
        }
        if announce.event == AnnounceEvent::Stopped {
            let Some(swarm) = swarms.get_mut(&announce.info_hash) else { return Stored::Absent };
            let gone = swarm.peers.remove(&announce.address).is_some();
            if swarm.peers.is_empty() {
                swarms.remove(&announce.info_hash);
            }
            return if gone { Stored::Removed } else { Stored::Absent };
        }
        let known = Known { seeder, seen: now };
        if let Some(swarm) = swarms.get_mut(&announce.info_hash)
            && let Some(before) = swarm.peers.insert(announce.address, known)
        {
            swarm.downloaded += u32::from(seeder && !before.seeder);
            return Stored::Updated;
        }
        let swarm = swarms.get_mut(&announce.info_hash);
        let already = swarm.as_ref().map_or(0, |swarm| swarm.peers.len() as u64 - 1);
        // The newcomer was inserted above if the torrent exists. It is taken out again when a limit is in the way.
        let refused = if swarm.is_none() && torrents >= config.max_torrents {
            Some(Stored::RefusedTorrents)
        } else if already >= u64::from(config.max_peers_per_torrent) {
            Some(Stored::RefusedPeersPerTorrent)
        } else {
            let reserve = config.max_peers * u64::from(config.reserved_for_small_torrents) / 100;
            let most = if already < 3 { config.max_peers } else { config.max_peers - reserve };
            (peers >= most).then_some(Stored::RefusedPeers)
        };
        match (refused, swarm) {
            (Some(refused), Some(swarm)) => {
                swarm.peers.remove(&announce.address);
                refused
            }
            (Some(refused), None) => refused,
            (None, _) => {
                swarms.entry(announce.info_hash).or_default().peers.insert(announce.address, known);
                Stored::Added
            }
        }
    }

    fn counts(&self, info_hash: &InfoHash, families: FamilySet) -> SwarmCounts {
        let mut counts = SwarmCounts::default();
        for family in Family::ALL.into_iter().filter(|family| families.contains(*family)) {
            if let Some(swarm) = self.swarms[family.index()].get(info_hash) {
                counts.downloaded += swarm.downloaded;
                for known in swarm.peers.values() {
                    counts.complete += u32::from(known.seeder);
                    counts.incomplete += u32::from(!known.seeder);
                }
            }
        }
        counts
    }

    /// Whom a reply may carry, by family.
    fn eligible(&self, announce: &Announce) -> [BTreeSet<SocketAddr>; 2] {
        let own = Family::of(announce.address.ip());
        let seeder = announce.seeder && announce.event != AnnounceEvent::Paused;
        Family::ALL.map(|family| {
            let carried = family == own || announce.families == Families::Both;
            let swarm = self.swarms[family.index()].get(&announce.info_hash).filter(|_| carried);
            let peers = swarm.into_iter().flat_map(|swarm| &swarm.peers);
            peers
                .filter(|(address, known)| **address != announce.address && !(seeder && known.seeder))
                .map(|(address, _)| *address)
                .collect()
        })
    }
}

fn decode(bytes: &[u8], family: Family) -> Vec<SocketAddr> {
    let size = if family == Family::V4 { 6 } else { 18 };
    assert_eq!(bytes.len() % size, 0);
    let peer = |peer: &[u8]| {
        let (ip, port) = peer.split_at(size - 2);
        let ip = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).unwrap())),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).unwrap())),
        };
        SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]))
    };
    bytes.chunks(size).map(peer).collect()
}

/// What a sequence does for a while.
#[derive(Clone, Copy, Debug)]
struct Phase {
    stopped_percent: u32,
    seeder_percent: u32,
    seconds_per_hundred: u32,
    expiry_percent: u32,
}

struct Sequence {
    rng: Xoshiro256PlusPlus,
    shard: Shard,
    model: Model,
    now: u32,
    torrents: u32,
    addresses: u32,
    v6_percent: u32,
    operation: usize,
    /// What was reached, to know that the sequences reach what they are meant to.
    seen: BTreeSet<String>,
}

impl Sequence {
    fn new(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let limited = rng.random_bool(0.5);
        let mut limit = |low: u64, high: u64| if limited { rng.random_range(low..=high) } else { 1_000_000 };
        let config = ShardConfig {
            max_torrents: limit(1, 300),
            max_peers: limit(1, 900),
            max_peers_per_torrent: limit(1, 200) as u32,
            reserved_for_small_torrents: rng.random_range(0..=60),
            max_peer_age: MAX_AGE,
        };
        let key = HashKey(rng.random());
        let torrents = [1, 3, 60, 3000][rng.random_range(0..4)];
        let addresses = [4, 60, 500, 900][rng.random_range(0..4)];
        // Starts close below the wrap of the coarse time, in some sequences.
        let now = [0, 262_144 - 200 * TICK][rng.random_range(0..2)];
        let v6_percent = [0, 50, 100][rng.random_range(0..3)];
        let model = Model { config, swarms: Default::default() };
        let shard = Shard::new(config, key);
        Self { rng, shard, model, now, torrents, addresses, v6_percent, operation: 0, seen: BTreeSet::new() }
    }

    fn run(&mut self) {
        while self.operation < OPERATIONS {
            let phase = Phase {
                stopped_percent: [2, 20, 80][self.rng.random_range(0..3)],
                seeder_percent: [5, 50, 95][self.rng.random_range(0..3)],
                seconds_per_hundred: [0, 1, 10][self.rng.random_range(0..3)] * TICK,
                expiry_percent: [0, 1, 3][self.rng.random_range(0..3)],
            };
            for _ in 0..self.rng.random_range(200..1500) {
                self.operation += 1;
                if self.rng.random_range(0..100) < phase.seconds_per_hundred / TICK {
                    self.now += TICK * self.rng.random_range(1..3);
                }
                if self.rng.random_range(0..100) < phase.expiry_percent {
                    self.expire();
                } else if self.rng.random_range(0..10) == 0 {
                    self.scrape();
                } else {
                    self.announce(phase);
                }
            }
            self.shard.check_invariants().unwrap();
            self.compare_totals();
        }
        self.end();
    }

    fn info_hash(&mut self) -> InfoHash {
        // The smaller of two draws is popular.
        let number = self.rng.random_range(0..self.torrents).min(self.rng.random_range(0..self.torrents));
        let mut bytes = [0x77; 20];
        bytes[8..12].copy_from_slice(&number.to_be_bytes());
        InfoHash(bytes)
    }

    fn address(&mut self) -> SocketAddr {
        let number = self.rng.random_range(0..self.addresses);
        let port = if self.rng.random_range(0..200) == 0 { 0 } else { (number % 7 + 1) as u16 };
        let ip: IpAddr = if self.rng.random_range(0..100) < self.v6_percent {
            Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number / 7)).into()
        } else {
            Ipv4Addr::from_bits(number / 7).into()
        };
        SocketAddr::new(ip, port)
    }

    fn announce(&mut self, phase: Phase) {
        let event = match self.rng.random_range(0..100) {
            dice if dice < phase.stopped_percent => AnnounceEvent::Stopped,
            dice if dice % 4 == 0 => AnnounceEvent::Started,
            dice if dice % 4 == 1 => AnnounceEvent::Completed,
            dice if dice % 16 == 2 => AnnounceEvent::Paused,
            _ => AnnounceEvent::None,
        };
        let families = [Families::Own, Families::Both][self.rng.random_range(0..2)];
        let announce = Announce {
            info_hash: self.info_hash(),
            address: self.address(),
            seeder: self.rng.random_range(0..100) < phase.seeder_percent,
            event,
            numwant: [0, 1, 2, 50, 200, 1000, usize::MAX][self.rng.random_range(0..7)],
            families,
        };
        let places = [0, 1, 3, 202, 1024, 2000][self.rng.random_range(0..6)];
        let (mut v4, mut v6) = (vec![0xee; places * 6 + 5], vec![0xee; places * 18 + 17]);
        let buffers = PeerBuffers { v4: &mut v4, v6: &mut v6 };
        let got = self.shard.announce(&announce, Seconds(self.now), &mut self.rng, buffers);
        let stored = self.model.store(&announce, self.now);
        assert_eq!(got.stored, stored, "{announce:?}");
        self.seen.insert(format!("{stored:?}"));
        let own = Family::of(announce.address.ip());
        let set = if families == Families::Both { FamilySet::Both } else { FamilySet::One(own) };
        let counts = self.model.counts(&announce.info_hash, set);
        let got_counts =
            SwarmCounts { complete: got.complete, incomplete: got.incomplete, downloaded: got.downloaded };
        assert_eq!(got_counts, counts, "{announce:?}");
        if counts.downloaded > 0 {
            self.seen.insert("downloaded".to_owned());
        }
        if counts.complete + counts.incomplete > 128 {
            self.seen.insert("large".to_owned());
        }
        self.check_reply(&announce, got, places, &v4, &v6);
    }

    fn check_reply(&self, announce: &Announce, got: Announced, places: usize, v4: &[u8], v6: &[u8]) {
        let eligible = self.model.eligible(announce);
        let replies = [decode(&v4[..got.v4_len], Family::V4), decode(&v6[..got.v6_len], Family::V6)];
        assert!(v4[got.v4_len..].iter().chain(&v6[got.v6_len..]).all(|byte| *byte == 0xee));
        for (reply, eligible) in replies.iter().zip(&eligible) {
            let distinct: BTreeSet<SocketAddr> = reply.iter().copied().collect();
            assert_eq!(distinct.len(), reply.len(), "{announce:?}");
            assert!(distinct.is_subset(eligible), "{announce:?}: {distinct:?} out of {eligible:?}");
        }
        let fit: usize = eligible.iter().map(|peers| peers.len().min(places)).sum();
        let numwant = if announce.event == AnnounceEvent::Stopped { 0 } else { announce.numwant };
        assert_eq!(replies[0].len() + replies[1].len(), numwant.min(1024).min(fit), "{announce:?}");
    }

    fn scrape(&mut self) {
        let info_hash = self.info_hash();
        let set = [FamilySet::Both, FamilySet::One(Family::V4), FamilySet::One(Family::V6)]
            [self.rng.random_range(0..3)];
        assert_eq!(self.shard.scrape(&info_hash, set), self.model.counts(&info_hash, set));
        let announces: Vec<Announce> = (0..self.rng.random_range(0..130))
            .map(|_| Announce {
                info_hash: self.info_hash(),
                address: self.address(),
                seeder: false,
                event: AnnounceEvent::None,
                numwant: 0,
                families: Families::Own,
            })
            .collect();
        let info_hashes: Vec<InfoHash> = announces.iter().map(|announce| announce.info_hash).collect();
        for family in Family::ALL {
            self.shard.prefetch(family, &announces);
            self.shard.prefetch_scrape(family, &info_hashes);
        }
    }

    /// A part of a pass. The model follows what the shard forgot, provided it was old.
    fn expire(&mut self) {
        let budget = [0, 1, 7, 100, 5000][self.rng.random_range(0..5)];
        let done = self.shard.expire(Seconds(self.now), budget);
        assert!(done.work < budget.max(1) + 700, "{done:?} with a budget of {budget}");
        let left = self.content();
        let (before, torrents) = (self.model.peers(), self.model.torrents());
        for swarms in &mut self.model.swarms {
            for (info_hash, swarm) in &mut *swarms {
                swarm.peers.retain(|address, known| {
                    let kept = left.contains_key(&(*info_hash, *address));
                    assert!(
                        kept || self.now - known.seen > MAX_AGE,
                        "{address} of {info_hash} is gone early"
                    );
                    kept
                });
            }
            swarms.retain(|_, swarm| !swarm.peers.is_empty());
        }
        assert_eq!(done.peers, before - self.model.peers());
        assert_eq!(done.torrents, torrents - self.model.torrents());
        if done.peers > 0 {
            self.seen.insert(if done.pass_ended { "expired" } else { "expired in part" }.to_owned());
        }
        self.compare(&left);
    }

    fn content(&self) -> BTreeMap<(InfoHash, SocketAddr), bool> {
        let mut content = BTreeMap::new();
        self.shard.for_each_peer(|info_hash, address, seeder| {
            assert_eq!(content.insert((info_hash, address), seeder), None, "{address} is there twice");
        });
        content
    }

    fn compare(&self, content: &BTreeMap<(InfoHash, SocketAddr), bool>) {
        assert_eq!(content.len() as u64, self.model.peers());
        for (info_hash, swarm) in self.model.swarms.iter().flatten() {
            for (address, known) in &swarm.peers {
                assert_eq!(content.get(&(*info_hash, *address)), Some(&known.seeder));
            }
        }
    }

    fn compare_totals(&self) {
        let stats = self.shard.stats();
        for family in Family::ALL {
            let (stats, swarms) = (stats.family(family), &self.model.swarms[family.index()]);
            let seeders =
                swarms.values().flat_map(|swarm| swarm.peers.values()).filter(|known| known.seeder).count();
            let peers: usize = swarms.values().map(|swarm| swarm.peers.len()).sum();
            assert_eq!(stats.torrents, swarms.len() as u64);
            assert_eq!((stats.seeders, stats.leechers), (seeders as u64, (peers - seeders) as u64));
        }
    }

    /// Two passes forget whatever is old; once everything is, nothing is left.
    fn end(&mut self) {
        self.passes();
        let now = self.now;
        let old = |known: &Known| now - known.seen > MAX_AGE;
        assert!(!self.model.swarms.iter().flatten().any(|(_, swarm)| swarm.peers.values().any(old)));
        self.now += MAX_AGE + TICK;
        self.passes();
        assert_eq!(self.model.peers(), 0);
        self.shard.check_invariants().unwrap();
        let stats = self.shard.stats();
        assert_eq!((stats.v4.torrents, stats.v6.torrents), (0, 0));
    }

    fn passes(&mut self) {
        let mut ended = 0;
        while ended < 3 {
            ended += u32::from(self.shard.expire(Seconds(self.now), 50).pass_ended);
        }
        let left = self.content();
        for swarms in &mut self.model.swarms {
            for (info_hash, swarm) in &mut *swarms {
                let now = self.now;
                swarm.peers.retain(|address, known| {
                    let kept = left.contains_key(&(*info_hash, *address));
                    assert_eq!(kept, now - known.seen <= MAX_AGE);
                    kept
                });
            }
            swarms.retain(|_, swarm| !swarm.peers.is_empty());
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[test]
fn shard_does_what_the_model_does() {
    let seeds: Vec<u64> = match number("AQUATIC_SWARM_SEED") {
        Some(seed) => vec![seed],
        None => SEEDS
            .into_iter()
            .chain(100..100 + number("AQUATIC_SWARM_SEQUENCES").unwrap_or(SEQUENCES))
            .collect(),
    };
    let mut seen = BTreeSet::new();
    for &seed in &seeds {
        let mut sequence = Sequence::new(seed);
        let result = catch_unwind(AssertUnwindSafe(|| sequence.run()));
        if let Err(panic) = result {
            eprintln!("operation {} failed; repeat with AQUATIC_SWARM_SEED={seed}", sequence.operation);
            resume_unwind(panic);
        }
        seen.append(&mut sequence.seen);
    }
    if seeds.len() > 10 {
        let expected = [
            "Absent",
            "Added",
            "RefusedPeers",
            "RefusedPeersPerTorrent",
            "RefusedPort",
            "RefusedTorrents",
            "Removed",
            "Updated",
            "downloaded",
            "expired",
            "expired in part",
            "large",
        ];
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
