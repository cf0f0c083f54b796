//! The largest torrents, found in small steps while announces go on.
//!
//! A pass visits every page of the table, of one family after the other. It is for people to look at, so it
//! is less exact than one that saves the content: a torrent may be missed if its page is merged into a
//! visited one meanwhile, and counts are those of the moment at which its page was visited.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use aquatic_common::{Family, InfoHash};

use crate::family::Store;
use crate::peer_format::PeerFormat;
use crate::shard::Shard;

/// What torrents are ranked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RankBy {
    /// Seeders and leechers.
    #[default]
    Peers,
    /// Peers with nothing left to download.
    Seeders,
    /// Other peers.
    Leechers,
}

/// The torrents with the highest counts among those that were offered, at most a fixed number.
#[derive(Clone, Debug)]
pub struct TopTorrents {
    by: RankBy,
    most: usize,
    /// The smallest is on top.
    heap: BinaryHeap<Reverse<(u32, InfoHash)>>,
}

impl TopTorrents {
    /// An empty ranking of at most `most` torrents.
    #[must_use]
    pub fn new(by: RankBy, most: usize) -> Self {
        Self { by, most, heap: BinaryHeap::with_capacity(most + 1) }
    }

    /// Offers a torrent. `info_hash` is only asked for if the counts are high enough.
    #[inline]
    pub fn offer(&mut self, seeders: u32, leechers: u32, info_hash: impl FnOnce() -> InfoHash) {
        let count = match self.by {
            RankBy::Peers => seeders.saturating_add(leechers),
            RankBy::Seeders => seeders,
            RankBy::Leechers => leechers,
        };
        let is_full = self.heap.len() >= self.most;
        if count == 0 || is_full && self.heap.peek().is_none_or(|Reverse((least, _))| count <= *least) {
            return;
        }
        let info_hash = info_hash();
        // A page that is split after its visit, and a torrent of both families, are offered twice.
        if self.heap.iter().any(|Reverse((_, known))| *known == info_hash) {
            return;
        }
        self.heap.push(Reverse((count, info_hash)));
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }

    /// The torrents with their counts, the highest first.
    #[must_use]
    pub fn into_sorted(self) -> Vec<(u32, InfoHash)> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(torrent)| torrent).collect()
    }
}

/// Position at which a pass continues.
#[derive(Clone, Copy, Debug)]
pub struct RankCursor {
    family: Family,
    page: u32,
}

impl Default for RankCursor {
    fn default() -> Self {
        Self { family: Family::V4, page: 0 }
    }
}

/// Units of work to visit a page, besides one for each of its torrents.
const PAGE: u64 = 4;

impl Shard {
    /// Offers the next torrents, each family by itself, until `budget` units of work are done. One takes up
    /// to 50 ns when memory is far larger than the caches. Returns whether all have been visited.
    pub fn rank(&self, cursor: &mut RankCursor, budget: u64, top: &mut TopTorrents) -> bool {
        let mut left = budget;
        loop {
            let ended = match cursor.family {
                Family::V4 => self.v4().rank(&mut cursor.page, &mut left, top),
                Family::V6 => self.v6().rank(&mut cursor.page, &mut left, top),
            };
            match (ended, cursor.family) {
                (false, _) => return false,
                (true, Family::V4) => *cursor = RankCursor { family: Family::V6, page: 0 },
                (true, Family::V6) => return true,
            }
        }
    }
}

impl<K: PeerFormat> Store<K> {
    fn rank(&self, page: &mut u32, left: &mut u64, top: &mut TopTorrents) -> bool {
        while *page < self.table.pages() {
            if *left == 0 {
                return false;
            }
            let len = self.table.page_len(*page);
            for at in 0..len {
                let slot = self.table.slot_at(*page, at);
                let order = self.order(slot);
                top.offer(order.seeders, order.leechers(), || self.table.info_hash(slot));
            }
            *left = left.saturating_sub(PAGE + u64::from(len));
            *page += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use aquatic_common::{AnnounceEvent, Seconds};
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::types::{Announce, Families, HashKey, PeerBuffers, ShardLimits};

    fn hash(number: u32) -> InfoHash {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        InfoHash(bytes)
    }

    /// Torrent `n` has `n % 300` peers, of which a third are seeders; every fourth torrent has IPv6 peers.
    fn shard(torrents: u32) -> Shard {
        let mut shard = Shard::new(ShardLimits::default(), HashKey([3; 16]));
        let mut rng = SmallRng::seed_from_u64(1);
        for torrent in 0..torrents {
            for peer in 0..torrent % 300 {
                let ip = if torrent % 4 == 0 {
                    format!("[2001:db8:{peer:x}::1]")
                } else {
                    format!("192.0.{}.{}", peer / 250, peer % 250)
                };
                let address: SocketAddr = format!("{ip}:6881").parse().unwrap();
                let announce = Announce {
                    info_hash: hash(torrent),
                    address,
                    seeder: peer % 3 == 0,
                    event: AnnounceEvent::None,
                    numwant: 0,
                    families: Families::Own,
                };
                shard.announce(&announce, Seconds(1), &mut rng, PeerBuffers::default());
            }
        }
        shard
    }

    fn ranked(shard: &Shard, by: RankBy, most: usize, budget: u64) -> (Vec<(u32, InfoHash)>, u32) {
        let (mut cursor, mut top, mut steps) = (RankCursor::default(), TopTorrents::new(by, most), 1);
        while !shard.rank(&mut cursor, budget, &mut top) {
            steps += 1;
        }
        (top.into_sorted(), steps)
    }

    #[test]
    fn the_largest_torrents_of_both_families_are_found_in_steps() {
        let shard = shard(600);
        let (top, steps) = ranked(&shard, RankBy::Peers, 5, 20);
        assert!(steps > 10, "{steps}");
        let counts: Vec<u32> = top.iter().map(|(count, _)| *count).collect();
        assert_eq!(counts, [299, 299, 298, 298, 297]);
        assert!([hash(299), hash(599)].contains(&top[0].1));
        assert_eq!(ranked(&shard, RankBy::Peers, 5, u64::MAX).0, top, "one step finds the same");
        let seeders: Vec<u32> =
            ranked(&shard, RankBy::Seeders, 3, 7).0.iter().map(|(count, _)| *count).collect();
        assert_eq!(seeders, [100; 3]);
        assert_eq!(ranked(&shard, RankBy::Leechers, 2, 7).0[0].0, 199);
    }

    #[test]
    fn a_ranking_is_bounded_and_holds_a_torrent_once() {
        let mut top = TopTorrents::new(RankBy::Peers, 2);
        for (count, number) in [(0, 0), (3, 1), (3, 1), (9, 2), (1, 3), (5, 4), (9, 2)] {
            top.offer(count, 0, || hash(number));
        }
        assert_eq!(top.into_sorted(), [(9, hash(2)), (5, hash(4))]);
    }
}
