//! The naive model: one map of swarms for the whole tracker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use aquatic_common::{AnnounceEvent, Family, InfoHash};
use aquatic_swarm::{Announce, Families, FamilySet, SwarmCounts};

#[derive(Clone, Copy)]
struct Known {
    seeder: bool,
    /// Whether the peer was counted as a download.
    counted: bool,
    seen: u32,
}

#[derive(Default)]
struct Swarm {
    peers: BTreeMap<SocketAddr, Known>,
    downloaded: u32,
}

/// What the reply to an announce has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) counts: SwarmCounts,
    pub(crate) peers: BTreeSet<SocketAddr>,
}

/// Counted peers that have left, each until the passes of expiry of its core have forgotten it.
pub(crate) struct Counted<K> {
    /// With the number of generations since.
    left: BTreeMap<K, u32>,
    /// When the generation of each core began.
    since: BTreeMap<usize, u32>,
}

impl<K: Ord> Counted<K> {
    pub(crate) fn new() -> Self {
        Self { left: BTreeMap::new(), since: BTreeMap::new() }
    }

    pub(crate) fn note(&mut self, peer: K) {
        self.left.insert(peer, 0);
    }

    pub(crate) fn contains(&self, peer: &K) -> bool {
        self.left.contains_key(peer)
    }

    /// Follows a pass of a core, which has some of the peers.
    pub(crate) fn expire(
        &mut self,
        core: usize,
        (now, max_age): (u32, u32),
        is_of_core: impl Fn(&K) -> bool,
    ) {
        let since = self.since.entry(core).or_insert(0);
        let age = now - *since;
        if age >= max_age {
            let generations = if age / 2 >= max_age { 2 } else { 1 };
            self.left.iter_mut().filter(|(peer, _)| is_of_core(peer)).for_each(|(_, of)| *of += generations);
            self.left.retain(|_, of| *of < 2);
            *since = now;
        }
    }
}

/// All swarms, by family and torrent.
pub(crate) struct Model {
    swarms: BTreeMap<(usize, InfoHash), Swarm>,
    counted: Counted<(InfoHash, SocketAddr)>,
}

impl Default for Model {
    fn default() -> Self {
        Self { swarms: BTreeMap::new(), counted: Counted::new() }
    }
}

impl Model {
    /// Applies an announce and returns what its reply has to say.
    pub(crate) fn announce(&mut self, announce: &Announce, now: u32) -> Expected {
        let own = Family::of(announce.address.ip());
        let key = (own.index(), announce.info_hash);
        let stopped = announce.event == AnnounceEvent::Stopped;
        if stopped {
            let swarm = self.swarms.get_mut(&key);
            if swarm
                .and_then(|swarm| swarm.peers.remove(&announce.address))
                .is_some_and(|known| known.counted)
            {
                self.counted.note((announce.info_hash, announce.address));
            }
        } else {
            let swarm = self.swarms.entry(key).or_default();
            let seeder = announce.seeder;
            let before = swarm.peers.get(&announce.address);
            let counted = before.is_some_and(|before| before.counted);
            let completes = before.is_some_and(|before| seeder && !before.seeder && !counted);
            let again = self.counted.contains(&(announce.info_hash, announce.address));
            swarm.downloaded += u32::from(completes && !again);
            swarm.peers.insert(announce.address, Known { seeder, counted: counted || completes, seen: now });
        }
        self.forget_empty();
        let carried = match announce.families {
            Families::Both => FamilySet::Both,
            _ => FamilySet::One(own),
        };
        let peers = if stopped { BTreeSet::new() } else { self.eligible(announce, carried) };
        Expected { counts: self.counts(&announce.info_hash, carried), peers }
    }

    /// The peers that help the announcing one: seeders are not told of seeders.
    fn eligible(&self, announce: &Announce, carried: FamilySet) -> BTreeSet<SocketAddr> {
        let swarms = Family::ALL.into_iter().filter(|family| carried.contains(*family));
        let swarms = swarms.filter_map(|family| self.swarms.get(&(family.index(), announce.info_hash)));
        swarms
            .flat_map(|swarm| &swarm.peers)
            .filter(|(address, known)| **address != announce.address && !(announce.seeder && known.seeder))
            .map(|(address, _)| *address)
            .collect()
    }

    pub(crate) fn counts(&self, info_hash: &InfoHash, families: FamilySet) -> SwarmCounts {
        let mut counts = SwarmCounts::default();
        for family in Family::ALL.into_iter().filter(|family| families.contains(*family)) {
            if let Some(swarm) = self.swarms.get(&(family.index(), *info_hash)) {
                let seeders = swarm.peers.values().filter(|known| known.seeder).count() as u32;
                counts.downloaded += swarm.downloaded;
                counts.complete += seeders;
                counts.incomplete += swarm.peers.len() as u32 - seeders;
            }
        }
        counts
    }

    /// Removes the peers of the torrents of a core that have not announced for `max_age` seconds.
    pub(crate) fn expire(
        &mut self,
        core: usize,
        (now, max_age): (u32, u32),
        expires: impl Fn(&InfoHash) -> bool,
    ) {
        self.counted.expire(core, (now, max_age), |(info_hash, _)| expires(info_hash));
        for ((_, info_hash), swarm) in &mut self.swarms {
            swarm.peers.retain(|_, known| !expires(info_hash) || now - known.seen <= max_age);
        }
        self.forget_empty();
    }

    fn forget_empty(&mut self) {
        self.swarms.retain(|_, swarm| !swarm.peers.is_empty());
    }

    /// Number of peers.
    pub(crate) fn peers(&self) -> usize {
        self.swarms.values().map(|swarm| swarm.peers.len()).sum()
    }
}
