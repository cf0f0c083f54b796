//! Random sequences of operations on a shard, whose results are compared with those of a naive model, and the
//! corpus of the fuzz target `swarm_operations`.
//!
//! A failing random sequence prints its seed. `AQUATIC_SWARM_SEED` runs only the sequence of that seed;
//! `AQUATIC_SWARM_SEQUENCES` sets the number of sequences otherwise.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;
mod operations;
mod reference;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use aquatic_common::{AnnounceEvent, Family, InfoHash};
use aquatic_swarm::{
    Announce, Change, ChangeKind, Completion, Families, FamilySet, HashKey, Intake, ShardLimits,
};
use harness::{Harness, OUTCOMES, TICK};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

/// Seeds that are run first. Seeds of sequences that failed are added here.
const SEEDS: [u64; 2] = [1, 2];
const SEQUENCES: u64 = 14;
const OPERATIONS: usize = 5_000;

/// Seconds.
const MAX_AGE: u32 = 30 * TICK;

/// Frequencies of operations in a part of a sequence.
#[derive(Clone, Copy, Debug)]
struct Phase {
    stopped_percent: u32,
    seeder_percent: u32,
    step_percent: u32,
    expiry_percent: u32,
    changes_percent: u32,
}

struct Sequence {
    rng: Xoshiro256PlusPlus,
    harness: Harness,
    limited: bool,
    torrents: u32,
    addresses: u32,
    v6_percent: u32,
    operation: usize,
}

fn random_limits(rng: &mut impl Rng, limited: bool) -> ShardLimits {
    let mut limit = |low: u64, high: u64| if limited { rng.random_range(low..=high) } else { 1_000_000 };
    ShardLimits {
        max_torrents: limit(1, 300),
        max_peers: limit(1, 900),
        max_peers_per_torrent: limit(1, 200) as u32,
        max_peers_per_address: limit(1, 20) as u32,
        reserved_for_small_torrents: rng.random_range(0..=60),
    }
}

impl Sequence {
    fn new(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let limited = rng.random_bool(0.5);
        let limits = random_limits(&mut rng, limited);
        let key = HashKey(rng.random());
        // Some sequences start shortly before the time stamps wrap around.
        let now = [0, 131_072 - 200 * TICK][rng.random_range(0..2)];
        Self {
            limited,
            torrents: [1, 3, 60, 3000][rng.random_range(0..4)],
            addresses: [4, 60, 500, 900][rng.random_range(0..4)],
            v6_percent: [0, 50, 100][rng.random_range(0..3)],
            harness: Harness::new(limits, key, rng.random(), now),
            rng,
            operation: 0,
        }
    }

    fn run(&mut self) {
        while self.operation < OPERATIONS {
            let phase = Phase {
                stopped_percent: [2, 20, 80][self.rng.random_range(0..3)],
                seeder_percent: [5, 50, 95][self.rng.random_range(0..3)],
                step_percent: [0, 1, 10][self.rng.random_range(0..3)],
                expiry_percent: [0, 1, 3][self.rng.random_range(0..3)],
                changes_percent: [0, 30, 80][self.rng.random_range(0..3)],
            };
            for _ in 0..self.rng.random_range(200..1500) {
                self.operation += 1;
                self.step(phase);
            }
            self.harness.check();
            if self.limited {
                let limits = random_limits(&mut self.rng, true);
                let intake = [Intake::All, Intake::All, Intake::SmallTorrents, Intake::Nothing];
                self.harness.set_limits(limits, intake[self.rng.random_range(0..4)]);
            }
        }
        self.harness.finish(MAX_AGE);
    }

    fn step(&mut self, phase: Phase) {
        if self.rng.random_range(0..100) < phase.step_percent {
            self.harness.now += TICK * self.rng.random_range(1..3);
        }
        if self.rng.random_range(0..100) < phase.expiry_percent {
            let budget = [0, 1, 7, 100, 5000][self.rng.random_range(0..5)];
            self.harness.expire(MAX_AGE, budget);
        } else if self.rng.random_range(0..10) == 0 {
            self.scrape();
        } else if self.rng.random_range(0..100) < phase.changes_percent {
            self.apply_change(phase);
        } else {
            let announce = self.random_announce(phase);
            let fit = [0, 1, 3, 202, 1024, 2000][self.rng.random_range(0..6)];
            self.harness.announce(&announce, fit);
        }
    }

    fn info_hash(&mut self) -> InfoHash {
        // The minimum of two numbers makes some torrents popular.
        let number = self.rng.random_range(0..self.torrents).min(self.rng.random_range(0..self.torrents));
        harness::info_hash(number)
    }

    fn address(&mut self) -> SocketAddr {
        let number = self.rng.random_range(0..self.addresses);
        let v6 = self.rng.random_range(0..100) < self.v6_percent;
        let mut address = harness::address(number, if v6 { Family::V6 } else { Family::V4 });
        if self.rng.random_range(0..200) == 0 {
            address.set_port(0);
        }
        address
    }

    fn random_announce(&mut self, phase: Phase) -> Announce {
        let event = match self.rng.random_range(0..100) {
            dice if dice < phase.stopped_percent => AnnounceEvent::Stopped,
            dice if dice % 4 == 0 => AnnounceEvent::Started,
            dice if dice % 4 == 1 => AnnounceEvent::Completed,
            dice if dice % 16 == 2 => AnnounceEvent::Paused,
            _ => AnnounceEvent::None,
        };
        Announce {
            info_hash: self.info_hash(),
            address: self.address(),
            seeder: self.rng.random_range(0..100) < phase.seeder_percent,
            event,
            numwant: [0, 1, 2, 50, 200, 1000, usize::MAX][self.rng.random_range(0..7)],
            families: [Families::Own, Families::Both][self.rng.random_range(0..2)],
        }
    }

    fn apply_change(&mut self, phase: Phase) {
        let seeder = self.rng.random_range(0..100) < phase.seeder_percent;
        let completion = match self.rng.random_range(0..8) {
            0 => Completion::Counted,
            1 if seeder => Completion::Now,
            _ => Completion::None,
        };
        let left = self.rng.random_range(0..100) < phase.stopped_percent;
        let present = ChangeKind::Present { seeder, completion };
        let stop = if seeder { ChangeKind::LeftAfter } else { ChangeKind::Left };
        let kind = if left { stop } else { present };
        let change = Change { info_hash: self.info_hash(), address: self.address(), kind, age: 0 };
        self.harness.apply_change(&change, [0, 0, 1, 2, 5][self.rng.random_range(0..5)] * TICK);
    }

    fn scrape(&mut self) {
        let info_hash = self.info_hash();
        let families = [FamilySet::Both, FamilySet::One(Family::V4), FamilySet::One(Family::V6)];
        self.harness.scrape(&info_hash, families[self.rng.random_range(0..3)]);
        let phase = Phase {
            stopped_percent: 0,
            seeder_percent: 50,
            step_percent: 0,
            expiry_percent: 0,
            changes_percent: 0,
        };
        let announces: Vec<Announce> =
            (0..self.rng.random_range(0..130)).map(|_| self.random_announce(phase)).collect();
        self.harness.prefetch(&announces);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[test]
fn random_sequences_match_the_model() {
    let seeds: Vec<u64> = match number("AQUATIC_SWARM_SEED") {
        Some(seed) => vec![seed],
        None => SEEDS
            .into_iter()
            .chain(100..100 + number("AQUATIC_SWARM_SEQUENCES").unwrap_or(SEQUENCES))
            .collect(),
    };
    let mut reached = BTreeSet::new();
    for &seed in &seeds {
        let mut sequence = Sequence::new(seed);
        let result = catch_unwind(AssertUnwindSafe(|| sequence.run()));
        if let Err(panic) = result {
            eprintln!("operation {} failed; repeat with AQUATIC_SWARM_SEED={seed}", sequence.operation);
            resume_unwind(panic);
        }
        reached.append(&mut sequence.harness.reached);
    }
    if seeds.len() > 10 {
        assert_eq!(reached.into_iter().collect::<Vec<_>>(), OUTCOMES);
    }
}

#[test]
fn the_corpus_of_the_fuzz_target_matches_the_model() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/swarm_operations");
    let mut reached = BTreeSet::new();
    let mut files = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        reached.append(&mut operations::check(&fs::read(entry.unwrap().path()).unwrap()));
        files += 1;
    }
    assert!(files >= 20, "only {files} files in {}", corpus.display());
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), OUTCOMES);
}
