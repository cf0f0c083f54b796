//! Naive model of a shard: plain maps, searched from end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use aquatic_common::{AnnounceEvent, Family, InfoHash};
use aquatic_swarm::{
    Announce, Applied, Change, ChangeKind, Completion, Families, FamilySet, Intake, ShardLimits, Stored,
    SwarmCounts,
};

/// Number of peers from which on a swarm may be a large one.
const LARGE: usize = 79;

/// Torrents with fewer peers than this may use the reserve.
const SMALL_TORRENT: u64 = 3;

/// What the model knows of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) seeder: bool,
    /// Whether the peer was counted as a download.
    counted: bool,
    /// Whether another node heard it last.
    pub(crate) remote: bool,
    /// Time of the last announce, in seconds.
    pub(crate) seen: u32,
}

/// A swarm of one family.
#[derive(Debug, Default)]
pub(crate) struct ModelSwarm {
    downloaded: u32,
    /// Whether replies may have fewer peers than were asked for, because many are of one network.
    pub(crate) may_be_crowded: bool,
    pub(crate) peers: BTreeMap<SocketAddr, Known>,
}

impl ModelSwarm {
    fn add(&mut self, address: SocketAddr, known: Known) {
        self.peers.insert(address, known);
        let of_network = |other: &&SocketAddr| network(**other) == network(address);
        let (of_network, len) = (self.peers.keys().filter(of_network).count(), self.peers.len());
        // In large swarms this is estimated from the third peer of a network on.
        self.may_be_crowded |= of_network > 4 && of_network * 4 > len || len >= LARGE && of_network >= 3;
    }
}

/// Expected content of a shard.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) limits: ShardLimits,
    pub(crate) intake: Intake,
    /// By [`Family::index`].
    pub(crate) swarms: [BTreeMap<InfoHash, ModelSwarm>; 2],
    /// Counted peers that have left: in this generation, and in the one before.
    counted: [BTreeSet<(InfoHash, SocketAddr)>; 2],
    /// When the generation began.
    since: u32,
}

impl Model {
    pub(crate) fn new(limits: ShardLimits) -> Self {
        let (swarms, counted) = Default::default();
        Self { limits, intake: Intake::All, swarms, counted, since: 0 }
    }

    /// Forgets the counted peers that left longer ago than an age or two.
    pub(crate) fn forget_counted(&mut self, now: u32, max_age: u32) {
        let age = now.saturating_sub(self.since);
        if age >= max_age {
            let [last, before] = &mut self.counted;
            *before = std::mem::take(last);
            if age / 2 >= max_age {
                before.clear();
            }
            self.since = now;
        }
    }

    pub(crate) fn peers(&self) -> u64 {
        self.swarms.iter().flat_map(BTreeMap::values).map(|swarm| swarm.peers.len() as u64).sum()
    }

    pub(crate) fn torrents(&self) -> u64 {
        self.swarms.iter().map(|swarms| swarms.len() as u64).sum()
    }

    /// Applies an announce. Returns the expected result.
    pub(crate) fn announce(&mut self, announce: &Announce, now: u32) -> Stored {
        if announce.address.port() == 0 {
            return Stored::RefusedPort;
        }
        if announce.event == AnnounceEvent::Stopped {
            return self.remove(&announce.info_hash, announce.address);
        }
        let refused = self.refusal(&announce.info_hash, announce.address);
        let seeder = is_seeder(announce);
        let swarms = &mut self.swarms[Family::of(announce.address.ip()).index()];
        if let Some(swarm) = swarms.get_mut(&announce.info_hash)
            && let Some(known) = swarm.peers.get_mut(&announce.address)
        {
            let completes = seeder && !known.seeder && !known.counted;
            let key = (announce.info_hash, announce.address);
            let again = self.counted.iter().any(|counted| counted.contains(&key));
            swarm.downloaded += u32::from(completes && !again);
            *known = Known { seeder, counted: known.counted || completes, remote: false, seen: now };
            return Stored::Updated;
        }
        refused.unwrap_or_else(|| {
            let swarm = swarms.entry(announce.info_hash).or_default();
            swarm.add(announce.address, Known { seeder, counted: false, remote: false, seen: now });
            Stored::Added
        })
    }

    /// Applies what another node heard at some time. Returns the expected result.
    pub(crate) fn apply_change(&mut self, change: &Change, seen: u32) -> Applied {
        let Change { info_hash, address, kind, age: _ } = *change;
        if address.port() == 0 {
            return Applied::Refused;
        }
        let refused = self.refusal(&info_hash, address);
        let swarms = &mut self.swarms[Family::of(address.ip()).index()];
        let known = swarms.get_mut(&info_hash).and_then(|swarm| swarm.peers.get_mut(&address));
        match (kind, known) {
            (ChangeKind::Left | ChangeKind::LeftAfter, None) => Applied::Absent,
            (ChangeKind::Left, Some(known)) if known.seen >= seen && !known.remote => Applied::Reasserted,
            (ChangeKind::LeftAfter, Some(known)) if known.seen > seen && !known.remote => Applied::Reasserted,
            (ChangeKind::Left | ChangeKind::LeftAfter, Some(known)) if known.seen > seen => Applied::Older,
            (ChangeKind::Left | ChangeKind::LeftAfter, Some(_)) => {
                self.remove(&info_hash, address);
                Applied::Removed
            }
            (ChangeKind::Present { seeder, completion }, Some(known)) => {
                let wins = (seen, seeder) > (known.seen, known.seeder);
                let completes = completion == Completion::Now && !known.counted;
                known.counted |= completion != Completion::None;
                let contradicts = !known.remote && known.seeder != seeder;
                if wins {
                    *known = Known { seeder, remote: true, seen, ..*known };
                }
                if let Some(swarm) = swarms.get_mut(&info_hash) {
                    swarm.downloaded += u32::from(completes);
                }
                match (wins, contradicts) {
                    (true, _) => Applied::Updated,
                    (false, true) => Applied::Reasserted,
                    (false, false) => Applied::Older,
                }
            }
            (ChangeKind::Present { .. }, None) if refused.is_some() => Applied::Refused,
            (ChangeKind::Present { seeder, completion }, None) => {
                let swarm = swarms.entry(info_hash).or_default();
                let counted = completion != Completion::None;
                swarm.add(address, Known { seeder, counted, remote: true, seen });
                swarm.downloaded += u32::from(completion == Completion::Now);
                Applied::Added
            }
        }
    }

    fn remove(&mut self, info_hash: &InfoHash, address: SocketAddr) -> Stored {
        let swarms = &mut self.swarms[Family::of(address.ip()).index()];
        let Some(swarm) = swarms.get_mut(info_hash) else { return Stored::Absent };
        let removed = swarm.peers.remove(&address);
        if swarm.peers.is_empty() {
            swarms.remove(info_hash);
        }
        let Some(known) = removed else { return Stored::Absent };
        if known.counted {
            let [last, before] = &mut self.counted;
            before.remove(&(*info_hash, address));
            last.insert((*info_hash, address));
        }
        Stored::Removed
    }

    /// Returns the limit that keeps a new peer of a torrent from being stored.
    fn refusal(&self, info_hash: &InfoHash, address: SocketAddr) -> Option<Stored> {
        let limits = self.limits;
        let swarm = self.swarms[Family::of(address.ip()).index()].get(info_hash);
        let len = swarm.map_or(0, |swarm| swarm.peers.len() as u64);
        if swarm.is_none() && self.torrents() >= limits.max_torrents {
            return Some(Stored::RefusedTorrents);
        }
        if len >= u64::from(limits.max_peers_per_torrent) {
            return Some(Stored::RefusedPeersPerTorrent);
        }
        let reserve = limits.max_peers * u64::from(limits.reserved_for_small_torrents) / 100;
        let max = if len < SMALL_TORRENT { limits.max_peers } else { limits.max_peers - reserve };
        if self.peers() >= max {
            return Some(Stored::RefusedPeers);
        }
        let has_memory = match self.intake {
            Intake::All => true,
            Intake::SmallTorrents => len < SMALL_TORRENT - 1,
            Intake::Nothing => false,
        };
        if !has_memory {
            return Some(Stored::RefusedMemory);
        }
        let (groups, max) = groups(limits.max_peers_per_address);
        let same_group = |other: &&SocketAddr| {
            network(**other) == network(address) && group(**other, groups) == group(address, groups)
        };
        let of_group = swarm.map_or(0, |swarm| swarm.peers.keys().filter(same_group).count());
        (of_group >= max as usize).then_some(Stored::RefusedPeersPerAddress)
    }

    pub(crate) fn counts(&self, info_hash: &InfoHash, families: FamilySet) -> SwarmCounts {
        let mut counts = SwarmCounts::default();
        for family in Family::ALL.into_iter().filter(|family| families.contains(*family)) {
            if let Some(swarm) = self.swarms[family.index()].get(info_hash) {
                counts.downloaded += swarm.downloaded;
                for known in swarm.peers.values() {
                    counts.complete += u32::from(known.seeder);
                    counts.incomplete += u32::from(!known.seeder);
                }
            }
        }
        counts
    }

    /// Returns the peers that a reply may contain, by family.
    pub(crate) fn eligible(&self, announce: &Announce) -> [BTreeSet<SocketAddr>; 2] {
        let own = Family::of(announce.address.ip());
        let seeder = is_seeder(announce);
        Family::ALL.map(|family| {
            let carried = family == own || announce.families == Families::Both;
            let swarm = self.swarms[family.index()].get(&announce.info_hash).filter(|_| carried);
            let peers = swarm.into_iter().flat_map(|swarm| &swarm.peers);
            peers
                .filter(|(address, known)| **address != announce.address && !(seeder && known.seeder))
                .map(|(address, _)| *address)
                .collect()
        })
    }

    /// Returns by how many peers a reply may at most be short of `most` peers of a family, all of which are
    /// eligible, beside those of the other one: by none, unless many of them are of one network.
    pub(crate) fn shortage(
        &self,
        announce: &Announce,
        family: Family,
        [eligible, elsewhere]: [&BTreeSet<SocketAddr>; 2],
        most: usize,
    ) -> usize {
        let swarm = self.swarms[family.index()].get(&announce.info_hash);
        let mut of_networks = BTreeMap::new();
        eligible.iter().for_each(|address| *of_networks.entry(network(*address)).or_insert(0) += 1);
        let are_of_one_network = of_networks.len() <= 1 && elsewhere.is_empty();
        if are_of_one_network || !swarm.is_some_and(|swarm| swarm.may_be_crowded) {
            return 0;
        }
        let max_per_network = (announce.numwant.min(1024) / 8).clamp(2, 254);
        let sure: usize = of_networks.values().map(|count| max_per_network.min(*count)).sum();
        // Some networks may share a counter.
        most.saturating_sub(sure / 2)
    }

    /// Removes the peers for which `kept` does not hold, and torrents without peers.
    pub(crate) fn retain(&mut self, mut kept: impl FnMut(InfoHash, SocketAddr, Known) -> bool) {
        for swarms in &mut self.swarms {
            for (info_hash, swarm) in &mut *swarms {
                swarm.peers.retain(|address, known| kept(*info_hash, *address, *known));
            }
            swarms.retain(|_, swarm| !swarm.peers.is_empty());
        }
    }
}

/// Number of groups into which the peers of an address are divided, and maximum of each: 8 to 15, or the
/// limit if that is lower.
fn groups(max_peers_per_address: u32) -> (u32, u32) {
    let mut groups = 1;
    while groups < 65_536 && max_peers_per_address / (groups * 2) >= 8 {
        groups *= 2;
    }
    (groups, max_peers_per_address / groups)
}

/// The bytes of an address that its holder does not choose.
pub(crate) fn network(address: SocketAddr) -> Vec<u8> {
    match address {
        SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
        SocketAddr::V6(v6) => v6.ip().octets()[..8].to_vec(),
    }
}

/// Group by multiplicative hashing of what the holder of an address chooses.
fn group(address: SocketAddr, groups: u32) -> u32 {
    let interface = match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.ip().to_bits() as u64,
    };
    let interface = (interface.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
    let hash = interface.wrapping_add(address.port().into()).wrapping_mul(0x85eb_ca6b);
    ((u64::from(hash) * u64::from(groups)) >> 32) as u32
}

fn is_seeder(announce: &Announce) -> bool {
    announce.seeder && announce.event != AnnounceEvent::Paused
}
