//! Handing out the counts of all torrents in small steps, while announces go on: as in `saving`, without
//! peers. A torrent may be handed out twice if its page is split meanwhile.

use aquatic_common::{Family, InfoHash};

use crate::family::Store;
use crate::peer_format::PeerFormat;
use crate::saving::SaveStep;

/// Counts of a torrent of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedTorrent {
    /// Address family of the peers.
    pub family: Family,
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Number of peers that have nothing left to download.
    pub complete: u32,
    /// Number of the other peers.
    pub incomplete: u32,
    /// Number of completed downloads.
    pub downloaded: u32,
}

impl<K: PeerFormat> Store<K> {
    /// Works until `budget` units are done or the pass ends. A pass that has not begun has ended.
    pub(crate) fn count_torrents(&mut self, budget: u64, out: &mut impl FnMut(CountedTorrent)) -> SaveStep {
        let Some(mut cursor) = self.counting.take() else { return SaveStep { work: 0, ended: true } };
        let mut work = 0;
        while cursor.page() < self.table.pages() {
            if work >= budget {
                self.counting = Some(cursor);
                return SaveStep { work, ended: false };
            }
            work += 1;
            if !cursor.has_visited() {
                work += self.count_page(cursor.page(), out);
            }
            cursor.next_page();
        }
        SaveStep { work, ended: true }
    }

    /// Hands out a page and returns the work.
    fn count_page(&self, page: u32, out: &mut impl FnMut(CountedTorrent)) -> u64 {
        let len = self.table.page_len(page);
        for at in 0..len {
            let slot = self.table.slot_at(page, at);
            let order = self.order(slot);
            out(CountedTorrent {
                family: K::FAMILY,
                info_hash: self.table.info_hash(slot),
                complete: order.seeders,
                incomplete: order.leechers(),
                downloaded: self.table.completed(slot),
            });
        }
        2 * u64::from(len)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use aquatic_common::{AnnounceEvent, Seconds};
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::{Announce, Families, FamilySet, HashKey, PeerBuffers, SavePass, Shard, ShardLimits};

    fn hash(number: u32) -> InfoHash {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        InfoHash(bytes)
    }

    fn announce(shard: &mut Shard, torrent: u32, peer: u16, rng: &mut SmallRng) {
        let ip: [u8; 4] = [10, 0, (peer >> 8) as u8, peer as u8];
        let address = if peer.is_multiple_of(3) {
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, peer], 1000 + peer))
        } else {
            SocketAddr::from((ip, 1000 + peer))
        };
        let announce = Announce {
            info_hash: hash(torrent),
            address,
            seeder: peer.is_multiple_of(2),
            event: if peer.is_multiple_of(4) { AnnounceEvent::Completed } else { AnnounceEvent::None },
            numwant: 0,
            families: Families::Own,
        };
        shard.announce(&announce, Seconds(1), rng, PeerBuffers { v4: &mut [], v6: &mut [] });
    }

    /// Counts everything, with something done between two steps.
    fn count(
        shard: &mut Shard,
        mut between: impl FnMut(&mut Shard),
    ) -> BTreeMap<(usize, InfoHash), CountedTorrent> {
        let mut counted = BTreeMap::new();
        shard.begin_counting();
        loop {
            let mut take = |torrent: CountedTorrent| {
                counted.insert((torrent.family.index(), torrent.info_hash), torrent);
            };
            if shard.count_torrents(50, &mut take).ended {
                return counted;
            }
            between(shard);
        }
    }

    #[test]
    fn counts_are_those_of_scrapes() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut shard = Shard::new(ShardLimits::default(), HashKey([1; 16]));
        for _ in 0..20_000 {
            let (torrent, peer) = (rng.random_range(0..2000), rng.random_range(1..500));
            announce(&mut shard, torrent, peer, &mut rng);
        }
        for peer in 1..2000 {
            announce(&mut shard, 5000, peer, &mut rng);
        }
        let counted = count(&mut shard, |_| {});
        let torrents = shard.stats().v4.torrents + shard.stats().v6.torrents;
        assert_eq!(counted.len() as u64, torrents);
        for torrent in counted.values() {
            let counts = shard.scrape(&torrent.info_hash, FamilySet::One(torrent.family));
            let expected = (counts.complete, counts.incomplete, counts.downloaded);
            assert_eq!((torrent.complete, torrent.incomplete, torrent.downloaded), expected);
        }
    }

    #[test]
    fn what_stays_is_counted_although_the_table_grows_and_a_snapshot_is_saved() {
        let mut rng = SmallRng::seed_from_u64(2);
        let mut shard = Shard::new(ShardLimits::default(), HashKey([2; 16]));
        (0..3000).for_each(|torrent| announce(&mut shard, torrent, 1, &mut rng));
        shard.begin_saving(SavePass::Snapshot);
        let mut next = 10_000;
        let counted = count(&mut shard, |shard| {
            for _ in 0..20 {
                announce(shard, next, 2, &mut rng);
                next += 1;
            }
        });
        let family = counted.keys().next().map(|(family, _)| *family).unwrap();
        assert!((0..3000).all(|torrent| counted.contains_key(&(family, hash(torrent)))));
    }
}
