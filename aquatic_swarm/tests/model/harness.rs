//! A shard and its model. Each operation is applied to both, and the results are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::expiry::{Expire, Expired};
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds};
use aquatic_swarm::{
    Announce, Announced, Applied, Change, Families, FamilySet, HashKey, Intake, MAX_PEER_AGE, PeerBuffers,
    Shard, ShardLimits, Stored, SwarmCounts,
};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use crate::reference::{Known, Model};

/// Times and ages are multiples of a tick of the store, so that the model knows to the second when a peer
/// expires.
pub(crate) const TICK: u32 = 16;

/// Maximum number of peers per reply.
const MAX_NUMWANT: usize = 1024;

/// Value of the bytes of a reply buffer that are not written.
const UNTOUCHED: u8 = 0xee;

/// Seconds by which the peers of other nodes expire later.
pub(crate) const REMOTE_GRACE: u32 = 7 * TICK;

/// Peers of a shard: whether they are seeders, and whether another node heard them last.
type Content = BTreeMap<(InfoHash, SocketAddr), (bool, bool)>;

fn max_age(known: Known, max_peer_age: u32) -> u32 {
    if known.remote { (max_peer_age + REMOTE_GRACE).min(MAX_PEER_AGE) } else { max_peer_age }
}

pub(crate) struct Harness {
    shard: Shard,
    pub(crate) model: Model,
    rng: Xoshiro256PlusPlus,
    /// Current time in seconds, a multiple of [`TICK`].
    pub(crate) now: u32,
    /// Results that were reached, to verify that tests reach what they are meant to.
    pub(crate) reached: BTreeSet<&'static str>,
}

impl Harness {
    pub(crate) fn new(limits: ShardLimits, key: HashKey, seed: u64, now: u32) -> Self {
        let mut shard = Shard::new(limits, key);
        shard.set_remote_grace(REMOTE_GRACE);
        Self {
            shard,
            model: Model::new(limits),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            now,
            reached: BTreeSet::new(),
        }
    }

    /// Announces with buffers for `fit` peers of each family.
    pub(crate) fn announce(&mut self, announce: &Announce, fit: usize) {
        // A few bytes more, which do not suffice for another peer.
        let (mut v4, mut v6) = (vec![UNTOUCHED; fit * 6 + 5], vec![UNTOUCHED; fit * 18 + 17]);
        let buffers = PeerBuffers { v4: &mut v4, v6: &mut v6 };
        let got = self.shard.announce(announce, Seconds(self.now), &mut self.rng, buffers);
        let stored = self.model.announce(announce, self.now);
        assert_eq!(got.stored, stored, "{announce:?}");
        self.reached.insert(name(stored));
        let own = Family::of(announce.address.ip());
        let families =
            if announce.families == Families::Both { FamilySet::Both } else { FamilySet::One(own) };
        let counts = self.model.counts(&announce.info_hash, families);
        let Announced { complete, incomplete, downloaded, .. } = got;
        assert_eq!(SwarmCounts { complete, incomplete, downloaded }, counts, "{announce:?}");
        if counts.downloaded > 0 {
            self.reached.insert("downloaded");
        }
        if counts.complete + counts.incomplete > 128 {
            self.reached.insert("large");
        }
        self.check_reply(announce, got, fit, &v4, &v6);
    }

    fn check_reply(&self, announce: &Announce, got: Announced, fit: usize, v4: &[u8], v6: &[u8]) {
        let unused = v4[got.v4_len..].iter().chain(&v6[got.v6_len..]);
        assert!(unused.copied().all(|byte| byte == UNTOUCHED), "{announce:?}");
        let numwant = if announce.event == AnnounceEvent::Stopped { 0 } else { announce.numwant };
        if numwant.min(fit) == 0 {
            assert_eq!(got.v4_len + got.v6_len, 0, "{announce:?}");
            return;
        }
        let eligible = self.model.eligible(announce);
        let replies = [decode(&v4[..got.v4_len], Family::V4), decode(&v6[..got.v6_len], Family::V6)];
        for (reply, eligible) in replies.iter().zip(&eligible) {
            let distinct: BTreeSet<SocketAddr> = reply.iter().copied().collect();
            assert_eq!(distinct.len(), reply.len(), "{announce:?}");
            assert!(distinct.is_subset(eligible), "{announce:?}: {distinct:?} out of {eligible:?}");
        }
        let available: usize = eligible.iter().map(|peers| peers.len().min(fit)).sum();
        let (got, most) = (replies[0].len() + replies[1].len(), numwant.min(MAX_NUMWANT).min(available));
        let shortage = |family: Family| {
            let both = [&eligible[family.index()], &eligible[1 - family.index()]];
            self.model.shortage(announce, family, both, most.min(both[0].len()).min(fit))
        };
        let least = most.saturating_sub(Family::ALL.into_iter().map(shortage).sum());
        assert!((least..=most).contains(&got), "{got} instead of {least} to {most}: {announce:?}");
    }

    /// Applies what another node heard some seconds ago, a multiple of [`TICK`] or before all that is stored.
    pub(crate) fn apply_change(&mut self, change: &Change, age: u32) {
        let Some(seen) = self.now.checked_sub(age) else { return };
        let (applied, _) = self.shard.apply_change(change, age, Seconds(self.now), &mut self.rng);
        assert_eq!(applied, self.model.apply_change(change, seen), "{age} s ago: {change:?}");
        self.reached.insert(match applied {
            Applied::Added => "change: added",
            Applied::Updated => "change: updated",
            Applied::Older => "change: older",
            Applied::Removed => "change: removed",
            Applied::Absent => "change: absent",
            Applied::Reasserted => "change: reasserted",
            Applied::Refused => "change: refused",
            Applied::NotHeld => panic!("all parts are held"),
        });
        self.scrape(&change.info_hash, FamilySet::Both);
    }

    pub(crate) fn scrape(&self, info_hash: &InfoHash, families: FamilySet) {
        assert_eq!(self.shard.scrape(info_hash, families), self.model.counts(info_hash, families));
    }

    /// Prefetches for announces and for a scrape of their torrents.
    pub(crate) fn prefetch(&self, announces: &[Announce]) {
        let info_hashes: Vec<InfoHash> = announces.iter().map(|announce| announce.info_hash).collect();
        for family in Family::ALL {
            self.shard.prefetch(family, announces);
            self.shard.prefetch_scrape(family, &info_hashes);
        }
    }

    pub(crate) fn set_limits(&mut self, limits: ShardLimits, intake: Intake) {
        self.shard.set_limits(limits);
        self.shard.set_intake(intake);
        self.model.intake = intake;
        // Fixed when a shard is created.
        let max_peers_per_address = self.model.limits.max_peers_per_address;
        self.model.limits = ShardLimits { max_peers_per_address, ..limits };
        self.compare(&self.content());
    }

    /// Runs a part of a pass. The model follows the shard, provided that each removed peer is expired.
    pub(crate) fn expire(&mut self, max_peer_age: u32, budget: u64) -> Expired {
        let done = self.shard.expire(Seconds(self.now), max_peer_age, budget);
        self.model.forget_counted(self.now, max_peer_age);
        assert!(done.work < budget.max(1) + 700, "{done:?} with a budget of {budget}");
        let content = self.content();
        let (peers, torrents, now) = (self.model.peers(), self.model.torrents(), self.now);
        self.model.retain(|info_hash, address, known| {
            let kept = content.contains_key(&(info_hash, address));
            let expired = now - known.seen > max_age(known, max_peer_age);
            assert!(kept || expired, "{address} of {info_hash} was removed early");
            kept
        });
        assert_eq!(done.peers, peers - self.model.peers());
        assert_eq!(done.torrents, torrents - self.model.torrents());
        if done.peers > 0 {
            self.reached.insert(if done.pass_ended { "expired" } else { "expired in part" });
        }
        self.compare(&content);
        done
    }

    fn content(&self) -> Content {
        let mut content = BTreeMap::new();
        self.shard.for_each_stamp(|info_hash, address, known| {
            let known = (known.is_seeder(), known.is_remote());
            assert_eq!(content.insert((info_hash, address), known), None, "{address} is there twice");
        });
        content
    }

    fn compare(&self, content: &Content) {
        assert_eq!(content.len() as u64, self.model.peers());
        for (info_hash, swarm) in self.model.swarms.iter().flatten() {
            for (address, known) in &swarm.peers {
                assert_eq!(content.get(&(*info_hash, *address)), Some(&(known.seeder, known.remote)));
            }
        }
    }

    /// Verifies the internal consistency of the shard, and its totals.
    pub(crate) fn check(&self) {
        self.shard.check_invariants().unwrap();
        let stats = self.shard.stats();
        for family in Family::ALL {
            let (stats, swarms) = (stats.family(family), &self.model.swarms[family.index()]);
            let known = swarms.values().flat_map(|swarm| swarm.peers.values());
            let seeders = known.clone().filter(|known| known.seeder).count() as u64;
            let leechers = known.count() as u64 - seeders;
            let remote = swarms.values().flat_map(|swarm| swarm.peers.values()).filter(|known| known.remote);
            assert_eq!(
                (stats.torrents, stats.seeders, stats.leechers, stats.remote),
                (swarms.len() as u64, seeders, leechers, remote.count() as u64)
            );
        }
    }

    /// Verifies that undisturbed passes remove exactly the expired peers, and in the end all of them.
    pub(crate) fn finish(&mut self, max_peer_age: u32) {
        self.check();
        self.run_passes(max_peer_age);
        self.now += max_peer_age + REMOTE_GRACE + TICK;
        self.run_passes(max_peer_age);
        assert_eq!(self.model.peers(), 0);
        self.check();
    }

    fn run_passes(&mut self, max_peer_age: u32) {
        // The first pass may have begun earlier, and announces may have moved peers while it ran.
        let mut passes = 0;
        self.model.forget_counted(self.now, max_peer_age);
        while passes < 3 {
            passes += u32::from(self.shard.expire(Seconds(self.now), max_peer_age, 50).pass_ended);
        }
        let (content, now) = (self.content(), self.now);
        self.model.retain(|info_hash, address, known| {
            let kept = content.contains_key(&(info_hash, address));
            assert_eq!(kept, now - known.seen <= max_age(known, max_peer_age), "{address} of {info_hash}");
            kept
        });
        self.compare(&content);
    }
}

fn name(stored: Stored) -> &'static str {
    match stored {
        Stored::Added => "added",
        Stored::Updated => "updated",
        Stored::Removed => "removed",
        Stored::Absent => "absent",
        Stored::RefusedPort => "refused: port",
        Stored::Ignored => "ignored",
        Stored::RefusedPeersPerTorrent => "refused: peers per torrent",
        Stored::RefusedPeersPerAddress => "refused: peers per address",
        Stored::RefusedPeers => "refused: peers",
        Stored::RefusedMemory => "refused: memory",
        Stored::RefusedTorrents => "refused: torrents",
    }
}

/// Everything that [`Harness::reached`] can contain.
#[allow(dead_code, reason = "the fuzz target does not need it")]
pub(crate) const OUTCOMES: [&str; 21] = [
    "absent",
    "added",
    "change: absent",
    "change: added",
    "change: older",
    "change: reasserted",
    "change: refused",
    "change: removed",
    "change: updated",
    "downloaded",
    "expired",
    "expired in part",
    "large",
    "refused: memory",
    "refused: peers",
    "refused: peers per address",
    "refused: peers per torrent",
    "refused: port",
    "refused: torrents",
    "removed",
    "updated",
];

fn decode(bytes: &[u8], family: Family) -> Vec<SocketAddr> {
    let size = if family == Family::V4 { 6 } else { 18 };
    assert_eq!(bytes.len() % size, 0);
    let peer = |peer: &[u8]| {
        let (ip, port) = peer.split_at(size - 2);
        let ip = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).unwrap())),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).unwrap())),
        };
        SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]))
    };
    bytes.chunks(size).map(peer).collect()
}

/// Returns the info hash of the torrent with this number.
pub(crate) fn info_hash(number: u32) -> InfoHash {
    let mut bytes = [0x77; 20];
    bytes[8..12].copy_from_slice(&number.to_be_bytes());
    InfoHash(bytes)
}

/// Returns the address of the peer with this number. Seven peers share an IP address.
pub(crate) fn address(number: u32, family: Family) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::from_bits(number / 7).into(),
        Family::V6 => Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number / 7)).into(),
    };
    SocketAddr::new(ip, (number % 7 + 1) as u16)
}
