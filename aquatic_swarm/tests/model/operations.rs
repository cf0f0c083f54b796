//! Sequences of operations encoded as bytes, for the fuzz target `swarm_operations` and the replay of its
//! corpus.
//!
//! The first six bytes choose limits, the size of the address space and the start time. Each operation is one
//! byte, the kind in its three lowest bits, followed by its operands. The sequence ends with the bytes, or
//! when it has cost [`MAX_COST`].

use std::collections::BTreeSet;

use aquatic_common::{AnnounceEvent, Family};
use aquatic_swarm::{
    Announce, Change, ChangeKind, Completion, Families, FamilySet, HashKey, Intake, ShardLimits,
};

use crate::harness::{Harness, TICK, address, info_hash};

/// Bound on the work per sequence, in peers visited by the model or so, to keep sequences fast.
const MAX_COST: u64 = 15_000;

/// Bound on the time per sequence, in seconds, with which no time stamp can wrap around: together with the
/// largest age it is below 2^17 seconds.
const MAX_TIME: u32 = 40_000;

const TORRENTS: [u32; 4] = [1, 3, 50, 300];
const MAX_TORRENTS: [u64; 8] = [0, 1, 2, 7, 40, 300, 1_000_000, 1_000_000];
const MAX_PEERS: [u64; 8] = [0, 1, 10, 100, 150, 600, 1_000_000, 1_000_000];
const MAX_PEERS_PER_TORRENT: [u32; 8] = [0, 1, 3, 79, 129, 500, 1_000_000, 1_000_000];
const INTAKE: [Intake; 8] = [
    Intake::All,
    Intake::SmallTorrents,
    Intake::Nothing,
    Intake::All,
    Intake::All,
    Intake::SmallTorrents,
    Intake::All,
    Intake::All,
];
const MAX_PEERS_PER_ADDRESS: [u32; 8] = [1_000_000, 512, 3, 16, 1_000_000, 1, 6, 100];
const RESERVED: [u32; 4] = [0, 10, 50, 100];
const AGES: [u32; 8] = [0, 1, 2, 30, 100, 450, 2000, 86_400 / TICK];
const CHANGE_AGES: [u32; 4] = [0, 1, 3, 40];
const STEPS: [u32; 8] = [1, 2, 5, 10, 31, 100, 451, 2001];
const BUDGETS: [u64; 8] = [0, 1, 2, 7, 30, 100, 700, 5000];
const NUMWANT: [usize; 4] = [0, 3, 50, usize::MAX];
const FIT: [usize; 4] = [0, 2, 50, 150];
const EVENTS: [AnnounceEvent; 8] = [
    AnnounceEvent::None,
    AnnounceEvent::Started,
    AnnounceEvent::Completed,
    AnnounceEvent::Stopped,
    AnnounceEvent::Paused,
    AnnounceEvent::None,
    AnnounceEvent::Stopped,
    AnnounceEvent::Stopped,
];
const FAMILY_SETS: [FamilySet; 4] =
    [FamilySet::Both, FamilySet::One(Family::V4), FamilySet::One(Family::V6), FamilySet::Both];

/// Runs the sequence that the bytes encode, and compares the shard with the model all along.
/// Returns the outcomes that were reached.
pub(crate) fn check(bytes: &[u8]) -> BTreeSet<&'static str> {
    let mut bytes = bytes.iter().copied();
    let Some(mut sequence) = Sequence::new(&mut bytes) else { return BTreeSet::new() };
    while sequence.cost < MAX_COST && sequence.step(&mut bytes).is_some() {}
    sequence.harness.finish(30 * TICK);
    sequence.harness.reached
}

/// Chooses from a table of a power of two by the lowest bits of a byte.
fn pick<T: Copy, const N: usize>(table: [T; N], byte: u8) -> T {
    table[usize::from(byte) % N]
}

struct Sequence {
    harness: Harness,
    torrents: u32,
    max_peer_age: u32,
    /// Time that may still pass, in seconds.
    time_left: u32,
    cost: u64,
}

impl Sequence {
    fn new(bytes: &mut impl Iterator<Item = u8>) -> Option<Self> {
        let (seed, space, start) = (bytes.next()?, bytes.next()?, bytes.next()?);
        let limits = limits(bytes)?;
        let now = if start & 1 == 0 { 0 } else { (1 << 17) - u32::from(start) * TICK };
        Some(Self {
            harness: Harness::new(limits, HashKey([seed; 16]), seed.into(), now),
            torrents: pick(TORRENTS, space),
            max_peer_age: 30 * TICK,
            time_left: MAX_TIME,
            cost: 0,
        })
    }

    /// Runs one operation. `None` if the bytes have ended.
    fn step(&mut self, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
        let byte = bytes.next()?;
        let argument = byte >> 3;
        self.cost += 10;
        match byte & 7 {
            0 | 1 => {
                let Decoded { announce, fit, .. } = self.announce(bytes)?;
                self.apply(&announce, fit);
            }
            2 => self.crowd(argument, bytes)?,
            3 => self.spread(argument, bytes)?,
            4 => {
                self.cost += self.harness.model.peers();
                self.harness.expire(self.max_peer_age, pick(BUDGETS, argument));
            }
            5 => {
                let seconds = (pick(STEPS, argument) * TICK).min(self.time_left);
                self.time_left -= seconds;
                self.harness.now += seconds;
            }
            6 => {
                let number = u32::from(bytes.next()?) % self.torrents;
                self.harness.scrape(&info_hash(number), pick(FAMILY_SETS, argument));
            }
            _ => self.control(argument, bytes)?,
        }
        Some(())
    }

    /// Rare operations: other limits, another age, prefetches, verification of everything.
    fn control(&mut self, argument: u8, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
        self.cost += self.harness.model.peers();
        match argument & 3 {
            0 if argument & 4 != 0 => self.changes(argument, bytes)?,
            0 => {
                let limits = limits(bytes)?;
                let intake = pick(INTAKE, bytes.next()?);
                self.harness.set_limits(limits, intake);
            }
            1 => self.max_peer_age = pick(AGES, argument >> 2) * TICK,
            2 => {
                let Decoded { announce, .. } = self.announce(bytes)?;
                let other = |number: u32| Announce {
                    info_hash: info_hash(number % self.torrents),
                    address: address(number, Family::of(announce.address.ip())),
                    ..announce
                };
                let others: Vec<Announce> = (0..u32::from(argument >> 2) * 20).map(other).collect();
                self.harness.prefetch(&others);
            }
            _ => self.harness.check(),
        }
        Some(())
    }

    /// Changes that another node has heard of, of one peer or of as many as a large swarm has.
    fn changes(&mut self, argument: u8, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
        let Decoded { announce, number, .. } = self.announce(bytes)?;
        let (how, age) = (bytes.next()?, pick(CHANGE_AGES, argument >> 3) * TICK);
        let seeder = announce.seeder;
        let completion = match how & 3 {
            0 | 1 => Completion::None,
            2 => Completion::Counted,
            _ => Completion::Now,
        };
        let left = announce.event == AnnounceEvent::Stopped;
        let present = ChangeKind::Present { seeder, completion };
        let stop = if seeder { ChangeKind::LeftAfter } else { ChangeKind::Left };
        let kind = if left { stop } else { present };
        let family = Family::of(announce.address.ip());
        let change = Change { info_hash: announce.info_hash, address: announce.address, kind, age: 0 };
        self.harness.apply_change(&change, age);
        for nth in 1..=u32::from(how >> 2) * 4 {
            if self.cost >= MAX_COST {
                break;
            }
            self.cost += 1 + self.harness.model.torrents() / 16;
            let change = Change { address: address(number + nth, family), ..change };
            self.harness.apply_change(&change, age);
        }
        Some(())
    }

    fn apply(&mut self, announce: &Announce, fit: usize) {
        let len = self.harness.model.counts(&announce.info_hash, FamilySet::Both);
        let peers = u64::from(len.complete + len.incomplete);
        self.cost += 1 + (peers + self.harness.model.torrents()) / 16;
        self.harness.announce(announce, fit);
    }

    /// Announces of many peers to one torrent.
    fn crowd(&mut self, argument: u8, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
        let Decoded { announce: first, fit, number } = self.announce(bytes)?;
        let family = Family::of(first.address.ip());
        for nth in 0..(u32::from(argument) + 1) * 8 {
            if self.cost >= MAX_COST {
                break;
            }
            // A third has the other role.
            let seeder = first.seeder != nth.is_multiple_of(3);
            self.apply(&Announce { address: address(number + nth, family), seeder, ..first }, fit);
        }
        Some(())
    }

    /// Announces of one peer to many torrents.
    fn spread(&mut self, argument: u8, bytes: &mut impl Iterator<Item = u8>) -> Option<()> {
        let Decoded { announce: first, fit, .. } = self.announce(bytes)?;
        let number = u32::from(bytes.next()?) * 4;
        for nth in 0..(u32::from(argument) + 1) * 8 {
            if self.cost >= MAX_COST {
                break;
            }
            let info_hash = info_hash((number + nth) % self.torrents);
            self.apply(&Announce { info_hash, ..first }, fit);
        }
        Some(())
    }

    fn announce(&self, bytes: &mut impl Iterator<Item = u8>) -> Option<Decoded> {
        let (torrent, peer, flags, reply) = (bytes.next()?, bytes.next()?, bytes.next()?, bytes.next()?);
        let family = if flags & 1 == 0 { Family::V4 } else { Family::V6 };
        let number = u32::from(flags >> 6) << 8 | u32::from(peer);
        let mut address = address(number, family);
        if reply & 0xe0 == 0xe0 {
            address.set_port(0);
        }
        let announce = Announce {
            info_hash: info_hash(u32::from(torrent) % self.torrents),
            address,
            seeder: flags & 2 != 0,
            event: pick(EVENTS, flags >> 2),
            numwant: pick(NUMWANT, reply),
            families: if reply & 0x10 == 0 { Families::Own } else { Families::Both },
        };
        Some(Decoded { announce, fit: pick(FIT, reply >> 2), number })
    }
}

/// A decoded announce.
struct Decoded {
    announce: Announce,
    /// Number of peers of each family that fit into the reply.
    fit: usize,
    /// Number of the announcing peer.
    number: u32,
}

fn limits(bytes: &mut impl Iterator<Item = u8>) -> Option<ShardLimits> {
    let (torrents, peers, per_torrent) = (bytes.next()?, bytes.next()?, bytes.next()?);
    Some(ShardLimits {
        max_torrents: pick(MAX_TORRENTS, torrents),
        max_peers: pick(MAX_PEERS, peers),
        max_peers_per_torrent: pick(MAX_PEERS_PER_TORRENT, per_torrent),
        max_peers_per_address: pick(MAX_PEERS_PER_ADDRESS, per_torrent >> 5),
        reserved_for_small_torrents: pick(RESERVED, per_torrent >> 3),
    })
}
