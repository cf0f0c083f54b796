//! Memory that remains when most peers have expired.
//!
//! `GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072 cargo bench -p aquatic_swarm --bench shrink -- [--peers
//! N] [--torrents N]`
//!
//! The tunable is what the tracker sets when it starts. Peers announce for random torrents; a share of them,
//! chosen at random, again half an hour later, and the others expire: 90 % of all, then 99 %, then all. After
//! six passes each, the table shows what the process has resident beyond its start, what the store has asked
//! for, and what a new process takes for the same peers; then the longest calls of expiry.

#![allow(clippy::print_stdout, reason = "the table on standard output is what this program is for")]
#![allow(clippy::unwrap_used, reason = "a wrong argument or a missing /proc ends the measurement")]

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use aquatic_common::expiry::Expire;
use aquatic_common::{AnnounceEvent, InfoHash, Seconds};
use aquatic_swarm::{Announce, Families, HashKey, PeerBuffers, Shard, ShardLimits};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

/// Seconds.
const MAX_PEER_AGE: u32 = 3600;
const TICKS_PER_PASS: u64 = 20 * 120;

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Peer `number`, of a random torrent.
fn announce(number: u32, torrents: u32) -> Announce {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(u64::from(number));
    let torrent = rng.random_range(0..torrents);
    let address = SocketAddr::from((Ipv4Addr::from_bits(rng.next_u32()), rng.random_range(1..=u16::MAX)));
    let mut info_hash = [0; 20];
    Xoshiro256PlusPlus::seed_from_u64(u64::from(torrent) << 32).fill_bytes(&mut info_hash);
    Announce {
        info_hash: InfoHash(info_hash),
        address,
        seeder: number.is_multiple_of(3),
        event: AnnounceEvent::None,
        numwant: 0,
        families: Families::Own,
    }
}

/// Whether a peer is among the share that stays, in thousandths.
fn stays(number: u32, share: u32) -> bool {
    Xoshiro256PlusPlus::seed_from_u64(!u64::from(number)).random_range(0..1000) < share
}

struct Store {
    shard: Shard,
    rng: Xoshiro256PlusPlus,
    peers: u32,
    torrents: u32,
}

impl Store {
    fn new(peers: u32, torrents: u32) -> Self {
        let shard = Shard::new(ShardLimits::default(), HashKey([7; 16]));
        Self { shard, rng: Xoshiro256PlusPlus::seed_from_u64(1), peers, torrents }
    }

    /// A share of the peers announces.
    fn announce(&mut self, share: u32, now: Seconds) {
        for number in (0..self.peers).filter(|number| stays(*number, share)) {
            let announce = announce(number, self.torrents);
            self.shard.announce(&announce, now, &mut self.rng, PeerBuffers::default());
        }
    }

    /// Runs some passes of expiry in ticks, as a tracker does. Returns the longest calls.
    fn expire(&mut self, now: Seconds) -> Vec<Duration> {
        let mut calls = Vec::new();
        for _ in 0..6 {
            let budget = self.shard.pass_work() / TICKS_PER_PASS + 1;
            let mut ended = false;
            while !ended {
                let begin = cpu();
                ended = self.shard.expire(now, MAX_PEER_AGE, budget).pass_ended;
                calls.push(cpu() - begin);
            }
        }
        calls.sort_unstable_by(|a, b| b.cmp(a));
        calls.truncate(3);
        calls
    }
}

fn row(name: &str, store: &Store, (longest, before, fresh): (&[Duration], u64, u64)) {
    let stats = store.shard.stats().v4;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let resident = resident() - before;
    println!(
        "{name:<12} {:>9} peers {:>8} torrents  {:>6.1} MB resident  {:>6.1} MB asked for  {:>6.1} MB in a new process  \
         ratio {:>5.2} {:>5.2}  longest {longest:.0?}",
        stats.seeders + stats.leechers,
        stats.torrents,
        mb(resident),
        mb(stats.bytes),
        mb(fresh),
        resident as f64 / stats.bytes as f64,
        resident as f64 / fresh as f64,
    );
}

fn main() {
    let (mut peers, mut torrents, mut share) = (5_000_000, 2_000_000, None);
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value: u32 = words.next().unwrap().parse().unwrap();
        match word.as_str() {
            "--peers" => peers = value,
            "--torrents" => torrents = value,
            "--fresh" => share = Some(value),
            _ => panic!("unknown argument {word} {value}"),
        }
    }
    let before = resident();
    let mut store = Store::new(peers, torrents);
    if let Some(share) = share {
        store.announce(share, Seconds(0));
        println!("{}", resident() - before);
        return;
    }
    let fresh = |share: u32| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--peers", &peers.to_string(), "--torrents", &torrents.to_string()]);
        let output = command.args(["--fresh", &share.to_string()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u64>().unwrap()
    };
    store.announce(1000, Seconds(0));
    row("full", &store, (&[], before, fresh(1000)));
    for (name, share, time) in [("90 % gone", 100, 1800), ("99 % gone", 10, 5400), ("all gone", 0, 9000)] {
        store.announce(share, Seconds(time));
        let longest = store.expire(Seconds(time + MAX_PEER_AGE / 2 + 60));
        row(name, &store, (&longest, before, fresh(share).max(1)));
    }
}
