//! Fills a shard with millions of torrents and reports memory, time and longest calls.
//!
//! `cargo bench -p aquatic_tracker --bench fill -- [--torrents N] [--peers N] [--popularity zipf|flat]
//! [--minutes N] [--rounds N]`
//!
//! Popularity "zipf": half of the torrents get one peer. Each other peer chooses a torrent of the other half,
//! with probability 1/2 uniformly, otherwise by a power law (the probability of rank r is proportional to r
//! to the power of -0.8). "flat": peers choose uniformly. With 2.5 times as many peers as torrents that is
//! the worst case for memory per peer at that ratio.
//!
//! Peers are added in random order while the clock advances. Expiry runs as in a tracker: 20 ticks per
//! second, two minutes per pass. The fill simulates `--minutes` of uptime.
//!
//! A tracker's main thread turns memory in use into large pages, 32 MiB per second. What is measured when the
//! shard is full is measured before that and afterwards.

#![allow(clippy::print_stdout, reason = "the table on standard output is what this program is for")]
#![allow(clippy::unwrap_used, reason = "a wrong argument or a missing /proc ends the measurement")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use aquatic_common::expiry::Expire;
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds};
use aquatic_runtime::{LargePages, Periodic};
use aquatic_swarm::{
    Announce, Change, ChangeKind, Completion, Families, HashKey, PeerBuffers, Shard, ShardLimits,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

const TICKS_PER_SECOND: u64 = 20;
const PASS_SECONDS: u64 = 120;
/// Seconds.
const MAX_PEER_AGE: u32 = 3600;
const NUMWANT: usize = 50;

#[derive(Clone, Copy, PartialEq)]
enum Popularity {
    Zipf,
    Flat,
}

struct Arguments {
    torrents: u32,
    peers: u32,
    popularity: Popularity,
    minutes: u64,
    rounds: usize,
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        torrents: 1_000_000,
        peers: 2_500_000,
        popularity: Popularity::Zipf,
        minutes: 30,
        rounds: 7,
    };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().unwrap();
        match word.as_str() {
            "--torrents" => arguments.torrents = value.parse().unwrap(),
            "--peers" => arguments.peers = value.parse().unwrap(),
            "--rounds" => arguments.rounds = value.parse().unwrap(),
            "--minutes" => arguments.minutes = value.parse().unwrap(),
            "--popularity" if value == "zipf" => arguments.popularity = Popularity::Zipf,
            "--popularity" if value == "flat" => arguments.popularity = Popularity::Flat,
            _ => panic!("unknown argument {word} {value}"),
        }
    }
    arguments
}

#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn clock() -> Instant {
    Instant::now()
}

/// Returns the processor time of this thread, which does not include interruptions by other threads.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Returns how much of this process lies in large pages, in bytes.
fn in_large_pages() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Does what a tracker's main thread does over minutes, without the pauses.
fn make_large_pages() {
    // Without a change for so long, each block has been looked at.
    const TICKS_WITHOUT_CHANGE: u32 = 16;
    let mut pages = LargePages::of_this_process();
    let (mut made, mut unchanged) = (in_large_pages(), 0);
    let mut now = Duration::ZERO;
    while unchanged < TICKS_WITHOUT_CHANGE {
        now += Duration::from_secs(1);
        pages.tick(now);
        let before = std::mem::replace(&mut made, in_large_pages());
        unchanged = if made == before { unchanged + 1 } else { 0 };
    }
    println!(
        "large pages: {:.1} of {:.1} MB, which takes a tracker {} s",
        made as f64 / 1e6,
        resident() as f64 / 1e6,
        now.as_secs() - u64::from(unchanged)
    );
}

/// A bijection on 32 bits, so that peers can be added in random order without a list of them.
fn scatter(number: u32, salt: u32) -> u32 {
    let mut mixed = number ^ salt;
    mixed = (mixed ^ mixed >> 16).wrapping_mul(0x7feb_352d);
    mixed = (mixed ^ mixed >> 15).wrapping_mul(0x846c_a68b);
    mixed ^ mixed >> 16
}

fn info_hash(torrent: u32) -> InfoHash {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(u64::from(torrent));
    let mut bytes = [0; 20];
    rng.fill_bytes(&mut bytes);
    InfoHash(bytes)
}

/// Returns the torrent of a peer, always the same one.
fn torrent_of(arguments: &Arguments, peer: u32) -> u32 {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(u64::from(peer) ^ 0x7077);
    let half = arguments.torrents / 2;
    match arguments.popularity {
        Popularity::Flat => rng.random_range(0..arguments.torrents),
        Popularity::Zipf if peer < half => peer,
        Popularity::Zipf if rng.random() => half + rng.random_range(0..arguments.torrents - half),
        Popularity::Zipf => {
            // The inverse of the distribution function of the continuous power law with exponent -0.8.
            let end = f64::from(arguments.torrents - half).powf(0.2);
            let rank = (1.0 + rng.random::<f64>() * (end - 1.0)).powf(5.0);
            half + (rank as u32 - 1).min(arguments.torrents - half - 1)
        }
    }
}

fn announce(arguments: &Arguments, peer: u32) -> Announce {
    let address = SocketAddr::from((Ipv4Addr::from_bits(scatter(peer, 7)), 6881));
    Announce {
        info_hash: info_hash(torrent_of(arguments, peer)),
        address,
        seeder: scatter(peer, 9).is_multiple_of(3),
        event: AnnounceEvent::None,
        numwant: NUMWANT,
        families: Families::Own,
    }
}

/// Processor times of calls.
#[derive(Default)]
struct Calls {
    count: u64,
    total: Duration,
    longest: Vec<Duration>,
}

impl Calls {
    /// Number of longest calls that are kept, to distinguish quantiles from outliers.
    const KEPT: usize = 4096;

    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.total += time;
        self.longest.push(time);
        if self.longest.len() >= 2 * Self::KEPT {
            self.trim();
        }
    }

    fn trim(&mut self) {
        self.longest.sort_unstable_by(|a, b| b.cmp(a));
        self.longest.truncate(Self::KEPT);
    }

    fn row(&mut self, name: &str) {
        self.trim();
        // Exact as long as the 99.9th percentile is among the calls kept.
        let rank = ((self.count / 1000) as usize).min(self.longest.len() - 1);
        let note = if self.count / 1000 > Self::KEPT as u64 { "<" } else { "" };
        println!(
            "{name:<28} {:>10} calls  mean {:>8.2?}  p99.9 {note}{:>8.1?}  longest {:?}",
            self.count,
            self.total / self.count as u32,
            self.longest[rank],
            self.longest.iter().take(4).collect::<Vec<_>>(),
        );
    }
}

struct Benchmark {
    shard: Shard,
    rng: Xoshiro256PlusPlus,
    buffer: [u8; 6 * NUMWANT],
}

impl Benchmark {
    fn announce(&mut self, announce: &Announce, now: Seconds) {
        let out = PeerBuffers { v4: &mut self.buffer, v6: &mut [] };
        black_box(self.shard.announce(announce, now, &mut self.rng, out));
    }

    fn tick(&mut self, now: Seconds, calls: &mut Calls) -> u64 {
        let budget = self.shard.pass_work() / (TICKS_PER_SECOND * PASS_SECONDS) + 1;
        let begin = cpu();
        let done = self.shard.expire(now, MAX_PEER_AGE, budget);
        calls.add(cpu() - begin);
        done.work
    }
}

fn fill(arguments: &Arguments, bench: &mut Benchmark) -> Seconds {
    let (mut growth, mut expiry) = (Calls::default(), Calls::default());
    let ticks = arguments.minutes * 60 * TICKS_PER_SECOND;
    let bits = arguments.peers.next_power_of_two().ilog2();
    let mut done = 0_u64;
    let mut tick = 0;
    for number in 0..1_u32 << bits {
        // An odd multiplier permutes the numbers below a power of two.
        let peer = number.wrapping_mul(0x9e37_79b1).wrapping_add(12_345) & ((1 << bits) - 1);
        if peer >= arguments.peers {
            continue;
        }
        while tick < done * ticks / u64::from(arguments.peers) {
            tick += 1;
            bench.tick(Seconds((tick / TICKS_PER_SECOND) as u32), &mut expiry);
        }
        let announce = announce(arguments, peer);
        let now = Seconds((tick / TICKS_PER_SECOND) as u32);
        let begin = cpu();
        bench.announce(&announce, now);
        growth.add(cpu() - begin);
        done += 1;
    }
    growth.row("announce while growing");
    expiry.row("expiry tick while growing");
    Seconds((tick / TICKS_PER_SECOND) as u32)
}

/// Announces of known peers in batches; a batch of 0 means without prefetch. Reports the median of several
/// rounds.
fn full(arguments: &Arguments, bench: &mut Benchmark, now: Seconds, batch: usize, numwant: usize) {
    const CALLS: usize = 1 << 18;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(batch as u64 + numwant as u64);
    let mut rates: Vec<f64> = (0..arguments.rounds)
        .map(|_| {
            let peers = (0..CALLS).map(|_| rng.random_range(0..arguments.peers));
            let requests: Vec<Announce> =
                peers.map(|peer| Announce { numwant, ..announce(arguments, peer) }).collect();
            let begin = cpu();
            for requests in requests.chunks(batch.max(1)) {
                if batch > 0 {
                    bench.shard.prefetch(Family::V4, requests);
                }
                requests.iter().for_each(|request| bench.announce(request, now));
            }
            CALLS as f64 / (cpu() - begin).as_secs_f64() / 1e6
        })
        .collect();
    rates.sort_unstable_by(f64::total_cmp);
    println!(
        "announces, {numwant:>2} numwant, batch {batch:<3} {:>6.2} M/s, from {:.2} to {:.2}",
        rates[rates.len() / 2],
        rates[0],
        rates[rates.len() - 1]
    );
}

/// Changes of other nodes in batches: known peers that were heard again, or new ones that come and go.
/// Reports the median of several rounds.
fn changes(arguments: &Arguments, bench: &mut Benchmark, now: Seconds, batch: usize, is_new: bool) {
    const CALLS: usize = 1 << 17;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(batch as u64);
    let mut times: Vec<f64> = (0..arguments.rounds as u32)
        .map(|round| {
            let first = if is_new { arguments.peers + round * CALLS as u32 } else { 0 };
            let change = |nth: usize| {
                let peer = if is_new { first + nth as u32 } else { rng.random_range(0..arguments.peers) };
                let Announce { address, seeder, .. } = announce(arguments, peer);
                let kind = ChangeKind::Present { seeder, completion: Completion::None };
                let info_hash = info_hash(torrent_of(arguments, peer));
                Change { info_hash, address, kind, age: 0 }
            };
            let mut changes: Vec<Change> = (0..CALLS).map(change).collect();
            let mut time = Duration::ZERO;
            for is_last in [false, true] {
                let begin = cpu();
                for changes in changes.chunks(batch) {
                    bench.shard.prefetch_changes(Family::V4, changes);
                    for change in changes {
                        black_box(bench.shard.apply_change(change, 0, now + round * 16, &mut bench.rng));
                    }
                }
                time += cpu() - begin;
                if is_last || !is_new {
                    break;
                }
                changes.iter_mut().for_each(|change| change.kind = ChangeKind::Left);
            }
            time.as_nanos() as f64 / (CALLS as f64 * if is_new { 2.0 } else { 1.0 })
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    println!(
        "changes of {} peers, batch {batch:<3} {:>6.1} ns, from {:.1} to {:.1}",
        if is_new { "new and gone" } else { "known" },
        times[times.len() / 2],
        times[0],
        times[times.len() - 1]
    );
}

/// Returns the rate of scrapes of `batch` torrents each.
fn scrapes(arguments: &Arguments, bench: &Benchmark, batch: usize) -> f64 {
    const ROUNDS: usize = 1 << 20;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
    let hashes: Vec<InfoHash> =
        (0..ROUNDS).map(|_| info_hash(rng.random_range(0..arguments.torrents))).collect();
    let begin = cpu();
    for hashes in hashes.chunks(batch) {
        if batch > 1 {
            bench.shard.prefetch_scrape(Family::V4, hashes);
        }
        for hash in hashes {
            black_box(bench.shard.scrape(hash, Family::V4.into()));
        }
    }
    ROUNDS as f64 / (cpu() - begin).as_secs_f64() / 1e6
}

fn memory(name: &str, bench: &Benchmark, before: u64) {
    let stats = bench.shard.stats().v4;
    let (peers, grown) = (stats.seeders + stats.leechers, resident() - before);
    println!(
        "{name:<28} {:>6.1} MB resident, {:.2} bytes per peer ({:.1} MB asked for), {} torrents, {peers} peers",
        grown as f64 / 1e6,
        grown as f64 / peers.max(1) as f64,
        stats.bytes as f64 / 1e6,
        stats.torrents,
    );
}

/// Times empty calls for as long as the fill took. Their longest times are caused by the machine, such as
/// interrupts and a virtual processor that was not scheduled.
fn empty_calls(time: Duration) {
    let mut calls = Calls::default();
    let begin = clock();
    while begin.elapsed() < time {
        for _ in 0..1000 {
            let begin = cpu();
            calls.add(cpu() - begin);
        }
    }
    calls.row("empty calls, as long");
}

fn main() {
    let arguments = arguments();
    // Memory that is resident before the fill is not counted.
    let before = resident();
    let mut bench = Benchmark {
        shard: Shard::new(ShardLimits::default(), HashKey([7; 16])),
        rng: Xoshiro256PlusPlus::seed_from_u64(1),
        buffer: [0; 6 * NUMWANT],
    };
    let begin = clock();
    let now = fill(&arguments, &mut bench);
    let taken = begin.elapsed();
    println!("{:<28} {:.1} s", "fill time", taken.as_secs_f64());
    empty_calls(taken);
    memory("full", &bench, before);
    let batches = [(NUMWANT, 0), (NUMWANT, 16), (NUMWANT, 32), (NUMWANT, 64), (0, 0), (0, 32)];
    for (numwant, batch) in batches {
        full(&arguments, &mut bench, now, batch, numwant);
    }
    make_large_pages();
    for (numwant, batch) in batches {
        full(&arguments, &mut bench, now, batch, numwant);
    }
    for (batch, is_new) in [(32, false), (64, false), (32, true)] {
        changes(&arguments, &mut bench, now + 16, batch, is_new);
    }
    println!("torrents scraped one by one   {:>6.2} M/s", scrapes(&arguments, &bench, 1));
    println!("torrents scraped, 10 at once  {:>6.2} M/s", scrapes(&arguments, &bench, 10));
    memory("after announces", &bench, before);

    let mut quiet = Calls::default();
    let (mut work, mut tick) = (0, 0);
    for _ in 0..PASS_SECONDS * TICKS_PER_SECOND {
        tick += 1;
        work += bench.tick(now + (tick / TICKS_PER_SECOND) as u32, &mut quiet);
    }
    println!("unit of work                  {:.1} ns", quiet.total.as_nanos() as f64 / work as f64);
    quiet.row("expiry tick, none expired");
    let late = now + MAX_PEER_AGE + 60;
    let mut mass = Calls::default();
    while bench.shard.stats().v4.torrents > 0 && mass.count < 10_000_000 {
        bench.tick(late, &mut mass);
    }
    mass.row("expiry tick, all expired");
    memory("empty", &bench, before);
}
