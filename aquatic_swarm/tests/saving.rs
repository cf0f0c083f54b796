//! What one shard hands out, another one takes in, while both go on serving.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::expiry::Expire;
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds};
use aquatic_swarm::{
    Announce, Families, FamilySet, HashKey, MAX_PEER_AGE, MAX_PEERS_PER_PART, Origin, PeerBuffers, Restored,
    SaveFilter, SavePass, SaveSwarms, SavedPeer, SavedTorrent, Shard, ShardLimits,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

const EVERYTHING: (SavePass, SaveFilter<'_>) = (SavePass::Snapshot, SaveFilter::All);

/// Everything that has been handed out.
#[derive(Default)]
struct Saved(Vec<(SavedTorrent, Vec<SavedPeer>)>);

impl SaveSwarms for Saved {
    fn torrent(&mut self, torrent: SavedTorrent) {
        assert!((1..=MAX_PEERS_PER_PART).contains(&torrent.peers));
        assert!(self.0.last().is_none_or(|(torrent, peers)| peers.len() as u32 == torrent.peers));
        self.0.push((torrent, Vec::new()));
    }

    fn peer(&mut self, peer: SavedPeer) {
        self.0.last_mut().unwrap().1.push(peer);
    }
}

struct Fixture {
    shard: Shard,
    rng: Xoshiro256PlusPlus,
    now: Seconds,
}

/// Peers of a shard, and whether they are seeders.
type Content = BTreeMap<(InfoHash, SocketAddr), bool>;

impl Fixture {
    fn new(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let shard = Shard::new(ShardLimits::default(), HashKey(rng.random()));
        Self { shard, rng, now: Seconds(100_000) }
    }

    fn announce(&mut self, torrent: u32, address: SocketAddr, seeder: bool, event: AnnounceEvent) {
        let info_hash = info_hash(torrent);
        let announce = Announce { info_hash, address, seeder, event, numwant: 0, families: Families::Own };
        self.shard.announce(&announce, self.now, &mut self.rng, PeerBuffers::default());
    }

    /// One large swarm, many small torrents, both families.
    fn fill(&mut self, torrents: u32) {
        for number in 0..3000 {
            let seeder = self.rng.random_bool(0.3);
            self.announce(0, address(number, Family::V4), seeder, AnnounceEvent::None);
        }
        for torrent in 1..torrents {
            for number in 0..self.rng.random_range(1..5) {
                let family = if self.rng.random_bool(0.3) { Family::V6 } else { Family::V4 };
                let seeder = self.rng.random();
                self.announce(torrent, address(number, family), seeder, AnnounceEvent::None);
            }
        }
    }

    /// Saves with this budget for each step; something may happen in between.
    fn save(&mut self, budget: u64, mut meanwhile: impl FnMut(&mut Self)) -> Saved {
        let mut saved = Saved::default();
        self.shard.begin_saving(SavePass::Snapshot);
        let begin = self.now;
        loop {
            let step = self.shard.save(EVERYTHING, (self.now, self.now.0 - begin.0), budget, &mut saved);
            assert!(step.work < budget + 2000, "{step:?}");
            if step.ended {
                return saved;
            }
            meanwhile(self);
        }
    }

    fn restore(&mut self, saved: &Saved, gap: u32) -> Restored {
        let mut restored = Restored::default();
        for (torrent, peers) in &saved.0 {
            let peers = peers.iter().map(|peer| SavedPeer { age: peer.age + gap, ..*peer });
            restored.add(self.shard.restore((torrent, Origin::Own), peers, self.now, &mut self.rng));
        }
        self.shard.check_invariants().unwrap();
        restored
    }

    fn content(&self) -> Content {
        let mut content = Content::new();
        self.shard.for_each_peer(|info_hash, address, seeder| {
            assert_eq!(content.insert((info_hash, address), seeder), None);
        });
        content
    }

    fn downloaded(&self, torrent: u32) -> u32 {
        self.shard.scrape(&info_hash(torrent), FamilySet::Both).downloaded
    }
}

fn info_hash(torrent: u32) -> InfoHash {
    let mut bytes = [5; 20];
    bytes[..4].copy_from_slice(&torrent.to_be_bytes());
    InfoHash(bytes)
}

fn address(number: u32, family: Family) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::from_bits(0x0a00_0000 + number), 6881).into(),
        Family::V6 => (Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number)), 6881).into(),
    }
}

/// Another node may have told of the leecher before this node's snapshot has been loaded.
#[test]
fn a_completion_that_was_counted_is_not_counted_when_it_is_restored() {
    let mut fixture = Fixture::new(1);
    let (address, info_hash) = ("192.0.2.1:1000".parse().unwrap(), InfoHash([7; 20]));
    let peer = |age, seeder| SavedPeer { address, age, seeder, completion_counted: seeder, remote: false };
    let torrent = |downloaded| SavedTorrent { family: Family::V4, info_hash, downloaded, peers: 1 };
    let mut restore = |downloaded, origin, peer| {
        let Fixture { shard, now, rng, .. } = &mut fixture;
        shard.restore((&torrent(downloaded), origin), [peer], *now, rng)
    };
    assert_eq!(restore(0, Origin::Other, peer(600, false)).added, 1);
    assert_eq!(restore(1, Origin::Own, peer(100, true)).known, 1);
    let too_old = SavedPeer { address: "192.0.2.2:1000".parse().unwrap(), ..peer(131_082, false) };
    assert_eq!(restore(0, Origin::Own, too_old).added, 0);
    let counts = fixture.shard.scrape(&info_hash, FamilySet::Both);
    assert_eq!((counts.complete, counts.incomplete, counts.downloaded), (1, 0, 1));
    assert_eq!(fixture.shard.stats().v4.completed, 0);
}

#[test]
fn everything_is_handed_out_once_and_taken_in() {
    for budget in [1, 50, 1_000_000] {
        let mut old = Fixture::new(budget);
        old.fill(2000);
        for torrent in 1..100 {
            old.announce(torrent, address(9, Family::V4), false, AnnounceEvent::None);
            old.announce(torrent, address(9, Family::V4), true, AnnounceEvent::Completed);
        }
        let saved = old.save(budget, |_| {});
        let peers: usize = saved.0.iter().map(|(_, peers)| peers.len()).sum();
        assert_eq!(peers, old.content().len(), "none twice");
        let mut new = Fixture::new(7);
        let restored = new.restore(&saved, 0);
        assert_eq!(restored, Restored { added: peers as u64, ..Restored::default() });
        assert_eq!(new.content(), old.content());
        assert!((0..2000).all(|torrent| new.downloaded(torrent) == old.downloaded(torrent)));
        assert_eq!(new.downloaded(5), 1);
        // The completion of these peers has been counted.
        new.announce(5, address(9, Family::V4), false, AnnounceEvent::None);
        new.announce(5, address(9, Family::V4), true, AnnounceEvent::Completed);
        assert_eq!(new.downloaded(5), 1);
    }
}

#[test]
fn what_stays_during_a_pass_is_handed_out_whatever_else_happens() {
    for seed in 0..12 {
        let mut shard = Fixture::new(seed);
        shard.fill(3000);
        let before = shard.content();
        let mut stopped = BTreeSet::new();
        let (mut next, mut rng) = (10_000, Xoshiro256PlusPlus::seed_from_u64(seed));
        let saved = shard.save(60, |shard| {
            // Pages are split, torrents and peers come and go, peers change roles.
            for _ in 0..40 {
                next += 1;
                shard.announce(next, address(next, Family::V4), false, AnnounceEvent::None);
                let (torrent, number) = (rng.random_range(1..3000), rng.random_range(0..5));
                let mut event = AnnounceEvent::None;
                if rng.random_bool(0.3) {
                    event = AnnounceEvent::Stopped;
                    stopped.insert((info_hash(torrent), address(number, Family::V4)));
                }
                shard.announce(torrent, address(number, Family::V4), rng.random(), event);
            }
            shard.now = Seconds(shard.now.0 + 1);
            shard.shard.expire(shard.now, MAX_PEER_AGE, 100);
        });
        let handed_out: BTreeMap<(InfoHash, SocketAddr), u32> =
            saved.0.iter().fold(BTreeMap::new(), |mut all, (torrent, peers)| {
                peers.iter().for_each(|peer| *all.entry((torrent.info_hash, peer.address)).or_insert(0) += 1);
                all
            });
        let after = shard.content();
        let stayed = before.keys().filter(|key| after.contains_key(key) && !stopped.contains(key));
        let missing: Vec<_> = stayed.filter(|key| !handed_out.contains_key(key)).collect();
        assert_eq!(missing, [] as [&(InfoHash, SocketAddr); 0], "seed {seed}");
        let twice = handed_out.values().filter(|times| **times > 1).count();
        assert!(twice * 100 < handed_out.len(), "{twice} of {}", handed_out.len());
    }
}

#[test]
fn downloads_are_handed_out_once_whatever_happens_to_the_page_of_a_large_swarm() {
    const LARGE: u32 = 40;
    const ALL: u32 = 2003;
    for seed in 0..4 {
        let mut shard = Fixture::new(seed);
        // So that large swarms are anywhere in their pages.
        for torrent in (0..ALL).map(|at| at * 7 % ALL) {
            shard.announce(torrent, address(0, Family::V4), false, AnnounceEvent::None);
            shard.announce(torrent, address(0, Family::V4), true, AnnounceEvent::Completed);
        }
        for (torrent, number) in (0..LARGE).flat_map(|torrent| (1..2000).map(move |n| (torrent, n))) {
            shard.announce(torrent, address(number, Family::V4), false, AnnounceEvent::None);
        }
        let (mut next, mut rng) = (ALL, Xoshiro256PlusPlus::seed_from_u64(seed));
        let saved = shard.save(60, |shard| {
            for _ in 0..30 {
                let torrent = rng.random_range(LARGE..ALL);
                shard.announce(torrent, address(0, Family::V4), true, AnnounceEvent::Stopped);
                next += u32::from(rng.random_bool(0.5));
                shard.announce(next, address(0, Family::V4), true, AnnounceEvent::None);
            }
            shard.now = Seconds(shard.now.0 + 1);
            shard.shard.expire(shard.now, MAX_PEER_AGE, 10_000);
        });
        let mut downloaded = BTreeMap::new();
        for (torrent, _) in &saved.0 {
            *downloaded.entry(torrent.info_hash).or_insert(0) += torrent.downloaded;
        }
        let large = (0..LARGE).map(|torrent| downloaded[&info_hash(torrent)]);
        assert_eq!(large.collect::<Vec<_>>(), [1; LARGE as usize], "seed {seed}");
        let twice = downloaded.values().filter(|count| **count > 1).count();
        assert_eq!(twice, 0, "seed {seed}");
    }
}

#[test]
fn ages_count_from_the_moment_of_the_snapshot() {
    let mut old = Fixture::new(1);
    old.announce(1, address(1, Family::V4), false, AnnounceEvent::None);
    old.now = Seconds(old.now.0 + 1600);
    old.announce(2, address(2, Family::V6), true, AnnounceEvent::None);
    let mut saved = Saved::default();
    old.shard.begin_saving(SavePass::Snapshot);
    old.now = Seconds(old.now.0 + 320);
    assert!(old.shard.save(EVERYTHING, (old.now, 320), 1000, &mut saved).ended);
    let ages: Vec<u32> = saved.0.iter().map(|(_, peers)| peers[0].age).collect();
    assert_eq!(ages, [1600, 0]);

    // Into a tracker that has just been started, with an epoch of its own.
    let mut new = Fixture::new(2);
    new.now = Seconds(3);
    new.restore(&saved, 16);
    let peers_after = |new: &mut Fixture, max_age| {
        while !new.shard.expire(new.now, max_age, 1000).pass_ended {}
        new.content().len()
    };
    assert_eq!(peers_after(&mut new, 1700), 2);
    assert_eq!(peers_after(&mut new, 1500), 1);
    new.now = Seconds(3 + 1600);
    assert_eq!(peers_after(&mut new, 1500), 0);
}

#[test]
fn live_announces_win_over_what_was_saved() {
    let mut old = Fixture::new(1);
    let [a, b, c] = [1, 2, 3].map(|number| address(number, Family::V4));
    for (address, seeder) in [(a, false), (b, true), (c, false)] {
        old.announce(1, address, seeder, AnnounceEvent::None);
    }
    let saved = old.save(1000, |_| {});
    let mut new = Fixture::new(2);
    new.announce(1, a, true, AnnounceEvent::Completed);
    new.announce(1, b, false, AnnounceEvent::None);
    assert_eq!(new.downloaded(1), 0, "as far as this shard knows it was a seeder from the start");
    let restored = new.restore(&saved, 160);
    assert_eq!((restored.added, restored.known), (1, 2));
    let roles: Vec<bool> = new.content().into_values().collect();
    assert_eq!(roles, [true, false, false]);
    assert_eq!(new.downloaded(1), 1, "the saved leecher has become a seeder");
    // Once more: nothing changes.
    new.restore(&saved, 160);
    assert_eq!(new.downloaded(1), 1);
}

#[test]
fn limits_hold_and_impossible_addresses_are_left_out() {
    let mut old = Fixture::new(1);
    old.fill(50);
    let mut saved = old.save(1000, |_| {});
    let limits = ShardLimits { max_torrents: 20, max_peers: 60, ..ShardLimits::default() };
    let mut new = Fixture::new(2);
    new.shard.set_limits(limits);
    let restored = new.restore(&saved, 0);
    let stats = new.shard.stats();
    assert!(stats.v4.torrents + stats.v6.torrents <= 20 && restored.limited > 0);
    assert_eq!(restored.added as usize, new.content().len());
    assert!(restored.added <= 60);

    let mut invalid = Fixture::new(3);
    saved.0.truncate(1);
    let torrent = SavedTorrent { family: Family::V6, ..saved.0[0].0 };
    let peer =
        SavedPeer { address: a_v6(0x1), age: 0, seeder: true, completion_counted: false, remote: false };
    let mapped = SavedPeer { address: a_v6(0xffff_0102_0304), ..peer };
    let v4 = SavedPeer { address: address(1, Family::V4), ..peer };
    let no_port = SavedPeer { address: SocketAddr::new(peer.address.ip(), 0), ..peer };
    saved.0[0] = (torrent, vec![peer, mapped, v4, no_port]);
    let restored = invalid.restore(&saved, 0);
    assert_eq!((restored.added, restored.invalid), (1, 3));
}

fn a_v6(bits: u128) -> SocketAddr {
    (Ipv6Addr::from_bits(bits), 1).into()
}
