//! What a shard says of its memory, against what the system says.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

use std::net::{Ipv4Addr, SocketAddr};

use aquatic_common::{AnnounceEvent, InfoHash, Seconds};
use aquatic_swarm::{Announce, Families, HashKey, PeerBuffers, Shard, ShardLimits};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

/// What may be the difference beside an eighth, in bytes: a page for each size of blocks, and what the rest
/// of the process comes to take.
const SLACK: u64 = 128 << 10;

/// Resident memory of the process in bytes. Unlike other figures of it, this one is counted anew.
fn resident() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    rss.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// Adds a peer to each of so many torrents, in turn until each has as many as its number modulo `sizes`, plus
/// one.
fn fill(shard: &mut Shard, torrents: u32, sizes: u32) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0xb17e5);
    for peer in 0..sizes {
        for torrent in (0..torrents).filter(|torrent| torrent % sizes >= peer) {
            let mut hash = [0x5a; 20];
            hash[..4].copy_from_slice(&torrent.to_be_bytes());
            let announce = Announce {
                info_hash: InfoHash(hash),
                address: SocketAddr::from((Ipv4Addr::from_bits(1 << 24 | torrent << 9 | peer), 6881)),
                seeder: peer % 3 == 0,
                event: AnnounceEvent::None,
                numwant: 0,
                families: Families::Own,
            };
            shard.announce(&announce, Seconds(1000), &mut rng, PeerBuffers::default());
        }
    }
}

#[test]
fn memory_is_that_which_is_resident() {
    let mut kept = Vec::new();
    for (torrents, sizes) in [(0, 1), (1, 1), (80, 80), (3456, 100), (20_000, 1), (8_000, 300)] {
        let before = resident();
        let mut shard = Shard::new(ShardLimits::default(), HashKey([3; 16]));
        fill(&mut shard, torrents, sizes);
        let (claimed, taken) = (shard.stats().v4.bytes, resident().saturating_sub(before));
        println!("{torrents} torrents of up to {sizes} peers: claims {claimed}, takes {taken} bytes");
        assert!(claimed <= taken + taken / 8 + SLACK, "{torrents} torrents of up to {sizes} peers");
        assert!(taken <= claimed + claimed / 8 + SLACK, "{torrents} torrents of up to {sizes} peers");
        kept.push(shard);
    }
}
