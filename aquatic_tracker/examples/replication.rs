//! Cost of telling other nodes of announces, and of applying what they tell:
//! `cargo run --release -p aquatic_tracker --example replication -- [PEERS] [ROUNDS]`.
//!
//! A tracker of one core has 10 M peers, by default, of 0.4 times as many torrents. Known peers announce in
//! batches of 32, in turn without and with publishing; then another node tells of known peers. Medians of the
//! rounds in processor time. One announce of 16 is told of as a change of roles, more than in a tracker.

#![allow(clippy::print_stdout, reason = "the numbers on standard output are what this program is for")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use aquatic_common::config::AccessListConfig;
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds, Steering};
use aquatic_metrics::Registry;
use aquatic_runtime::clock::thread_cpu_time;
use aquatic_swarm::{Announce, Families, HashKey, PeerBuffers, Shard, ShardLimits};
use aquatic_tracker::replication::{Change, ChangeKind, Completion};
use aquatic_tracker::{Admission, IntervalPolicy, PeerRules, SharedAccessList, Tracker};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

const BATCH: usize = 32;
const CALLS: usize = 1 << 17;
const NUMWANT: usize = 50;
/// Batches after which what has been published is taken: some 25 ms.
const BATCHES_PER_TAKE: usize = 200;

fn info_hash(torrent: u32) -> InfoHash {
    let mut bytes = [0; 20];
    SmallRng::seed_from_u64(u64::from(torrent)).fill_bytes(&mut bytes);
    InfoHash(bytes)
}

fn announce(peer: u32, peers: u32) -> Announce {
    let torrents = (u64::from(peers) * 2 / 5).max(1);
    let torrent = u64::from(peer).wrapping_mul(0x9e37_79b9_7f4a_7c15) % torrents;
    Announce {
        info_hash: info_hash(u32::try_from(torrent).unwrap_or_default()),
        address: SocketAddr::from((Ipv4Addr::from_bits(0x1700_0000 + peer), 6881)),
        seeder: peer.is_multiple_of(3),
        event: AnnounceEvent::None,
        numwant: NUMWANT,
        families: Families::Own,
    }
}

fn tracker(peers: u32) -> anyhow::Result<Tracker> {
    let access_list = SharedAccessList::load(&AccessListConfig::default()).ok().context("no access list")?;
    let limits = ShardLimits { max_peers: 1 << 30, ..ShardLimits::default() };
    let mut tracker = Tracker::new(
        (0, Steering::new(1, [1; 8])),
        Shard::new(limits, HashKey([2; 16])),
        (Admission::new(access_list), PeerRules::default()),
        IntervalPolicy { interval: 1800, jitter: 0 },
        SmallRng::seed_from_u64(1),
        &Registry::default().core(0),
    );
    for peer in 0..peers {
        tracker.announce(&announce(peer, peers), Seconds(1000), PeerBuffers::default());
    }
    Ok(tracker)
}

/// Nanoseconds per announce.
fn announces(tracker: &mut Tracker, requests: &[Announce], now: Seconds, buffer: &mut [u8]) -> f64 {
    let begin = thread_cpu_time();
    for (nth, batch) in requests.chunks(BATCH).enumerate() {
        tracker.prefetch(Family::V4, batch);
        for request in batch {
            let out = PeerBuffers { v4: &mut *buffer, v6: &mut [] };
            black_box(tracker.announce(request, now, out));
        }
        if nth % BATCHES_PER_TAKE == 0 {
            while let Some(batch) = tracker.take_published(now) {
                black_box(batch);
            }
        }
    }
    per_call(thread_cpu_time().saturating_sub(begin), requests.len())
}

fn changes(tracker: &mut Tracker, changes: &[Change], now: Seconds) -> f64 {
    let begin = thread_cpu_time();
    for batch in changes.chunks(BATCH) {
        tracker.prefetch_changes(Family::V4, batch);
        for change in batch {
            black_box(tracker.apply_change(change, 0, now));
        }
    }
    per_call(thread_cpu_time().saturating_sub(begin), changes.len())
}

fn per_call(time: Duration, calls: usize) -> f64 {
    time.as_nanos() as f64 / calls as f64
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u32| arguments.next().map_or(Ok(default), |text| text.parse());
    let (peers, rounds) = (number(10_000_000)?, number(9)?);
    let mut rng = SmallRng::seed_from_u64(5);
    let (mut quiet, mut told, mut applied) = (Vec::new(), Vec::new(), Vec::new());
    let mut buffer = [0; 6 * NUMWANT];
    let (mut without, mut with) = (tracker(peers)?, None);
    for round in 0..rounds {
        let now = Seconds(3000 + round * 16);
        let some = |rng: &mut SmallRng| -> Vec<Announce> {
            (0..CALLS).map(|_| announce(rng.random_range(0..peers), peers)).collect()
        };
        quiet.push(announces(&mut without, &some(&mut rng), now, &mut buffer));
    }
    let publishing = with.insert(without);
    publishing.begin_publishing(3600);
    for round in 0..rounds {
        let now = Seconds(3200 + round * 16);
        let some = (0..CALLS).map(|nth| {
            let known = announce(rng.random_range(0..peers), peers);
            Announce { seeder: known.seeder != nth.is_multiple_of(16), ..known }
        });
        let some: Vec<Announce> = some.collect();
        told.push(announces(publishing, &some, now, &mut buffer));
    }
    for round in 0..rounds {
        let now = Seconds(3400 + round * 16);
        let change = |announce: Announce| {
            let kind = ChangeKind::Present { seeder: announce.seeder, completion: Completion::None };
            Change { info_hash: announce.info_hash, address: announce.address, kind, age: 0 }
        };
        let some: Vec<Change> =
            (0..CALLS).map(|_| change(announce(rng.random_range(0..peers), peers))).collect();
        applied.push(changes(publishing, &some, now));
    }
    for (name, times) in
        [("announce", &mut quiet), ("announce, published", &mut told), ("change applied", &mut applied)]
    {
        times.sort_unstable_by(f64::total_cmp);
        let (first, last) = (times.first(), times.last());
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        println!("{name:<20} {median:>6.1} ns, from {first:.1?} to {last:.1?}");
    }
    Ok(())
}
