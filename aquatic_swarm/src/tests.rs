//! Behaviour of a shard as a whole: replies, counts, uniformity of sampling, and cost of calls.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::expiry::Expire;
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use crate::Shard;
use crate::accesses;
use crate::types::{
    Announce, Announced, Families, FamilySet, HashKey, Intake, PeerBuffers, ShardLimits, Stored, SwarmCounts,
};

mod crowded;

use crowded::of_many_addresses;

/// Seconds.
const MAX_AGE: u32 = 3600;

const HASH: InfoHash = InfoHash([1; 20]);

struct Fixture {
    shard: Shard,
    rng: Xoshiro256PlusPlus,
    now: Seconds,
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(ShardLimits::default())
    }

    fn with(config: ShardLimits) -> Self {
        Self {
            shard: Shard::new(config, HashKey([3; 16])),
            rng: Xoshiro256PlusPlus::seed_from_u64(0xd1ce),
            now: Seconds(1000),
            v4: vec![0; 6 * 2000],
            v6: vec![0; 18 * 2000],
        }
    }

    fn announce(&mut self, announce: &Announce) -> Announced {
        let out = PeerBuffers { v4: &mut self.v4, v6: &mut self.v6 };
        self.shard.announce(announce, self.now, &mut self.rng, out)
    }

    /// Returns the numbers of the peers in the last reply.
    fn v4_reply(&self, announced: Announced) -> Vec<u32> {
        let peers = self.v4[..announced.v4_len].chunks(6);
        peers.map(|peer| u32::from_be_bytes([peer[0], peer[1], peer[2], peer[3]])).collect()
    }

    fn fill(&mut self, seeders: u32, leechers: u32) {
        for number in 0..seeders + leechers {
            self.announce(&v4(number, number < seeders, 0));
        }
    }
}

fn v4(number: u32, seeder: bool, numwant: usize) -> Announce {
    Announce {
        info_hash: HASH,
        address: SocketAddr::from((Ipv4Addr::from_bits(number), 6881)),
        seeder,
        event: AnnounceEvent::None,
        numwant,
        families: Families::Own,
    }
}

fn v6(number: u32, seeder: bool, numwant: usize) -> Announce {
    let ip = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number));
    Announce { address: SocketAddr::from((ip, 6881)), ..v4(0, seeder, numwant) }
}

#[test]
fn replies_have_at_most_numwant_peers() {
    let mut fixture = Fixture::new();
    fixture.fill(1, 1);
    for numwant in [1, 2, 3] {
        let got = fixture.announce(&v4(9, false, numwant));
        assert_eq!(got.v4_len, 6 * numwant.min(2));
    }
}

#[test]
fn seeders_get_leechers_and_no_peer_gets_itself() {
    let mut fixture = Fixture::new();
    fixture.fill(5, 5);
    let got = fixture.announce(&v4(2, true, 50));
    let mut reply = fixture.v4_reply(got);
    reply.sort_unstable();
    assert_eq!(reply, [5, 6, 7, 8, 9]);
    let got = fixture.announce(&v4(7, false, 50));
    let mut reply = fixture.v4_reply(got);
    reply.sort_unstable();
    assert_eq!(reply, [0, 1, 2, 3, 4, 5, 6, 8, 9]);
}

#[test]
fn stopped_peers_get_counts_but_no_peers() {
    let mut fixture = Fixture::new();
    fixture.fill(2, 3);
    let stop = Announce { event: AnnounceEvent::Stopped, ..v4(0, true, 50) };
    let got = fixture.announce(&stop);
    assert_eq!((got.stored, got.v4_len, got.complete, got.incomplete), (Stored::Removed, 0, 1, 3));
    assert_eq!(fixture.announce(&stop).stored, Stored::Absent);
}

#[test]
fn completion_is_counted_once_and_only_of_known_leechers() {
    let mut fixture = Fixture::new();
    let done = |number| Announce { event: AnnounceEvent::Completed, ..v4(number, true, 0) };
    assert_eq!(fixture.announce(&done(1)).downloaded, 0);
    fixture.announce(&v4(2, false, 0));
    assert_eq!(fixture.announce(&done(2)).downloaded, 1);
    assert_eq!(fixture.announce(&done(2)).downloaded, 1);
    let paused = Announce { event: AnnounceEvent::Paused, ..v4(3, true, 0) };
    let got = fixture.announce(&paused);
    assert_eq!((got.complete, got.incomplete, got.downloaded), (2, 1, 1));
}

/// Case H10, in a swarm of one peer, in a list, and in a large swarm, of both families.
#[test]
fn a_peer_that_alternates_between_roles_is_counted_once() {
    for others in [0, 20, 300] {
        let mut fixture = Fixture::new();
        for number in 0..others {
            fixture.announce(&v4(1000 + number, false, 0));
            fixture.announce(&v6(1000 + number, false, 0));
        }
        for of in [v4, v6] {
            for round in 0..25 {
                fixture.announce(&of(1, false, 0));
                let got = fixture.announce(&Announce { event: AnnounceEvent::Completed, ..of(1, true, 0) });
                assert_eq!(got.downloaded, 1, "round {round} among {others}");
                fixture.now = fixture.now + 100;
            }
            for _ in 0..10 {
                fixture.announce(&Announce { event: AnnounceEvent::Stopped, ..of(1, true, 0) });
                fixture.announce(&of(1, false, 0));
                let got = fixture.announce(&Announce { event: AnnounceEvent::Completed, ..of(1, true, 0) });
                // Without peers a torrent is forgotten, with its count.
                assert_eq!(got.downloaded, u32::from(others > 0), "stopped and came back");
                assert!(got.previous.completion_counted(), "other nodes are told that it was counted");
            }
            let completed = fixture.shard.stats().family(Family::of(of(1, true, 0).address.ip())).completed;
            assert_eq!(completed, 1);
            fixture.announce(&Announce { event: AnnounceEvent::Stopped, ..of(1, true, 0) });
        }
        fixture.shard.check_invariants().unwrap();
    }
}

#[test]
fn replies_cover_the_families_they_can_carry() {
    let mut fixture = Fixture::new();
    fixture.fill(1, 2);
    fixture.announce(&v6(0, false, 0));
    fixture.announce(&v6(1, true, 0));
    let got = fixture.announce(&Announce { families: Families::Both, ..v6(2, false, 50) });
    assert_eq!((got.v4_len, got.v6_len, got.complete, got.incomplete), (18, 36, 2, 4));
    let got = fixture.announce(&v6(2, false, 50));
    assert_eq!((got.v4_len, got.v6_len, got.complete, got.incomplete), (0, 36, 1, 2));
    let counts = |fixture: &Fixture, set| fixture.shard.scrape(&HASH, set);
    assert_eq!(counts(&fixture, FamilySet::Both), SwarmCounts { complete: 2, incomplete: 4, downloaded: 0 });
    assert_eq!(
        counts(&fixture, Family::V4.into()),
        SwarmCounts { complete: 1, incomplete: 2, downloaded: 0 }
    );
}

#[test]
fn peers_beyond_limits_and_with_port_0_get_replies_but_are_not_stored() {
    let mut fixture = Fixture::with(ShardLimits { max_peers_per_torrent: 4, ..ShardLimits::default() });
    fixture.fill(2, 2);
    let got = fixture.announce(&v4(100, false, 50));
    assert_eq!(
        (got.stored, got.v4_len, got.complete, got.incomplete),
        (Stored::RefusedPeersPerTorrent, 24, 2, 2)
    );
    let mut without_port = v4(100, false, 50);
    without_port.address.set_port(0);
    let got = fixture.announce(&without_port);
    assert_eq!((got.stored, got.v4_len), (Stored::RefusedPort, 24));
    assert_eq!(fixture.announce(&v4(3, true, 50)).stored, Stored::Updated);
}

#[test]
fn part_of_the_peer_limit_is_reserved_for_small_torrents() {
    let config = ShardLimits { max_peers: 20, reserved_for_small_torrents: 50, ..ShardLimits::default() };
    let mut fixture = Fixture::with(config);
    let stored: Vec<Stored> = (0..11).map(|number| fixture.announce(&v4(number, false, 0)).stored).collect();
    assert_eq!(stored.iter().filter(|stored| **stored == Stored::Added).count(), 10);
    assert_eq!(stored[10], Stored::RefusedPeers);
    let other = |torrent, number| Announce { info_hash: InfoHash([torrent; 20]), ..v4(number, false, 0) };
    assert_eq!(fixture.announce(&other(2, 0)).stored, Stored::Added);
    assert_eq!(fixture.announce(&other(2, 1)).stored, Stored::Added);
    assert_eq!(fixture.announce(&other(2, 2)).stored, Stored::Added);
    assert_eq!(fixture.announce(&other(2, 3)).stored, Stored::RefusedPeers);
}

#[test]
fn intake_decides_about_new_peers_and_leaves_known_ones_alone() {
    let mut fixture = Fixture::with(ShardLimits::default());
    let of = |torrent, number| Announce { info_hash: InfoHash([torrent; 20]), ..v4(number, false, 50) };
    (0..5).for_each(|number| assert_eq!(fixture.announce(&of(1, number)).stored, Stored::Added));
    fixture.shard.set_intake(Intake::SmallTorrents);
    let crowded = fixture.announce(&of(1, 5));
    assert_eq!((crowded.stored, crowded.incomplete), (Stored::RefusedMemory, 5), "it is answered");
    assert_eq!(crowded.v4_len, 5 * 6, "with peers");
    let small: Vec<Stored> = (0..3).map(|number| fixture.announce(&of(2, number)).stored).collect();
    assert_eq!(small, [Stored::Added, Stored::Added, Stored::RefusedMemory]);
    fixture.shard.set_intake(Intake::Nothing);
    assert_eq!(fixture.announce(&of(3, 0)).stored, Stored::RefusedMemory);
    assert_eq!(fixture.announce(&of(1, 0)).stored, Stored::Updated);
    let stop = Announce { event: AnnounceEvent::Stopped, ..of(2, 0) };
    assert_eq!(fixture.announce(&stop).stored, Stored::Removed);
    assert_eq!(fixture.announce(&of(2, 0)).stored, Stored::RefusedMemory);
    fixture.shard.set_intake(Intake::All);
    assert_eq!(fixture.announce(&of(2, 0)).stored, Stored::Added);
}

#[test]
fn lowered_limits_remove_nothing_and_raised_ones_apply_at_once() {
    let mut fixture = Fixture::new();
    fixture.fill(2, 2);
    let low = ShardLimits { max_torrents: 1, max_peers: 3, ..ShardLimits::default() };
    fixture.shard.set_limits(low);
    assert_eq!(fixture.announce(&v4(9, false, 0)).stored, Stored::RefusedPeers);
    let got = fixture.announce(&v4(1, false, 50));
    assert_eq!((got.stored, got.v4_len, got.complete, got.incomplete), (Stored::Updated, 18, 1, 3));
    let other = Announce { info_hash: InfoHash([2; 20]), ..v4(9, false, 0) };
    assert_eq!(fixture.announce(&other).stored, Stored::RefusedTorrents);
    fixture.shard.set_limits(ShardLimits { max_peers_per_torrent: 4, ..ShardLimits::default() });
    assert_eq!(fixture.announce(&v4(9, false, 0)).stored, Stored::RefusedPeersPerTorrent);
    assert_eq!(fixture.announce(&other).stored, Stored::Added);
    fixture.shard.set_limits(ShardLimits::default());
    assert_eq!(fixture.announce(&v4(9, false, 0)).stored, Stored::Added);
    fixture.shard.check_invariants().unwrap();
}

/// Whether peers are expired is decided by the age given with each call.
#[test]
fn the_maximum_age_may_change_between_two_calls() {
    let mut fixture = Fixture::new();
    fixture.fill(0, 4);
    fixture.now = fixture.now + 1000;
    let mut pass = |max_peer_age| {
        let mut peers = 0;
        loop {
            let done = fixture.shard.expire(fixture.now, max_peer_age, 1);
            peers += done.peers;
            if done.pass_ended {
                return peers;
            }
        }
    };
    assert_eq!((pass(2000), pass(u32::MAX), pass(900), pass(0)), (0, 0, 4, 0));
}

#[test]
fn prefetch_takes_any_number_and_unknown_torrents() {
    let mut fixture = Fixture::new();
    fixture.fill(300, 300);
    for count in [0, 1, 2, 3, 4, 63, 64, 65, 200] {
        // Peers of a large swarm and of unknown torrents, of both families.
        let unknown =
            |number: u32| Announce { info_hash: InfoHash([number as u8; 20]), ..v4(number, false, 0) };
        let announces: Vec<Announce> = (0..count)
            .flat_map(|number| [v4(number, false, 0), v6(number, false, 0), unknown(number)])
            .collect();
        fixture.shard.prefetch(Family::V4, &announces);
        fixture.shard.prefetch(Family::V6, &announces);
    }
}

/// Returns the chi-square statistic of counts with equal expected values, in standard deviations from its
/// mean.
fn deviation(counts: &BTreeMap<u64, u32>, cells: usize) -> f64 {
    let mean = f64::from(counts.values().sum::<u32>()) / cells as f64;
    let missing = (cells - counts.len()) as f64 * mean;
    let chi: f64 =
        counts.values().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum::<f64>() + missing;
    let freedom = (cells - 1) as f64;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn peers_are_equally_likely_in_replies() {
    for (seeders, leechers, numwant) in [(0, 8, 5), (4, 20, 5), (30, 90, 50), (100, 400, 5), (700, 300, 50)] {
        let mut fixture = Fixture::new();
        fixture.fill(seeders, leechers);
        // The requester is one of the peers.
        let requester = seeders + leechers / 2;
        let others = seeders + leechers - 1;
        let mut counts = BTreeMap::new();
        for _ in 0..20_000 {
            let got = fixture.announce(&v4(requester, false, numwant));
            let reply = fixture.v4_reply(got);
            assert!(reply.len() == numwant && !reply.contains(&requester));
            let given = reply.iter().filter(|peer| **peer < seeders).count();
            let exact = numwant as f64 * f64::from(seeders) / f64::from(others);
            assert!((given as f64 - exact).abs() < 1.0, "{given} seeders of {numwant}, {exact}");
            for peer in reply {
                *counts.entry(u64::from(peer)).or_default() += 1;
            }
        }
        let deviation = deviation(&counts, others as usize);
        // Peers are returned in runs, so their counts are correlated; and none is in a reply twice.
        assert!(deviation < 12.0, "{seeders} + {leechers}, {numwant} numwant: {deviation}");
    }
}

/// The order of a list is random: over many swarms no pair of peers is in the same reply more often than
/// another.
#[test]
fn pairs_are_equally_likely_in_replies() {
    for peers in [8_u32, 24] {
        let mut pairs = BTreeMap::new();
        let mut fixture = Fixture::new();
        for torrent in 0..20_000_u32 {
            let mut hash = [0; 20];
            hash[..4].copy_from_slice(&torrent.to_be_bytes());
            let of = |announce| Announce { info_hash: InfoHash(hash), ..announce };
            for number in 0..peers {
                fixture.announce(&of(v4(number, false, 0)));
            }
            let got = fixture.announce(&of(v4(peers, true, 3)));
            let mut reply = fixture.v4_reply(got);
            reply.sort_unstable();
            for (at, one) in reply.iter().enumerate() {
                for other in &reply[at + 1..] {
                    *pairs.entry(u64::from(*one) << 32 | u64::from(*other)).or_default() += 1;
                }
            }
        }
        let deviation = deviation(&pairs, (peers * (peers - 1) / 2) as usize);
        assert!(deviation.abs() < 6.0, "{peers}: {deviation}");
    }
}

/// Returns how often two of 20 peers added in succession, out of 600, are in the same reply, relative to
/// chance.
fn adjacency(fixture: &mut Fixture) -> f64 {
    const ROUNDS: usize = 4000;
    let mut together = 0;
    for _ in 0..ROUNDS {
        let got = fixture.announce(&v4(1_000_000, true, 20));
        let first = fixture.v4_reply(got).into_iter().filter(|peer| (300..320).contains(peer)).count();
        together += first * first.saturating_sub(1);
    }
    let by_chance = ROUNDS as f64 * (20.0 * 19.0) * (20.0 * 19.0) / (600.0 * 599.0);
    together as f64 / by_chance
}

/// Peers added to a large swarm in succession are adjacent; announces spread them out.
#[test]
fn announces_shuffle_large_swarms() {
    let mut fixture = Fixture::new();
    fixture.fill(0, 600);
    let before = adjacency(&mut fixture);
    for round in 0..40 {
        for peer in 0..600 {
            fixture.announce(&v4((peer * 7 + round) % 600, false, 0));
        }
    }
    let after = adjacency(&mut fixture);
    assert!(before > 8.0 && after < 3.0, "{before}, {after}");
    fixture.shard.check_invariants().unwrap();
}

#[test]
fn both_families_are_sampled_in_proportion() {
    let mut fixture = Fixture::new();
    fixture.fill(0, 30);
    (0..10).for_each(|number| {
        fixture.announce(&of_many_addresses(Family::V6, number, false, 0));
    });
    let (mut first, mut second) = (0, 0);
    for _ in 0..20_000 {
        let got = fixture.announce(&Announce { families: Families::Both, ..v4(0, true, 8) });
        fixture.announce(&v4(0, false, 0));
        first += got.v4_len / 6;
        second += got.v6_len / 18;
        assert_eq!(got.v4_len / 6 + got.v6_len / 18, 8);
    }
    let share = first as f64 / (first + second) as f64;
    assert!((share - 29.0 / 39.0).abs() < 0.005, "{share}");
}

/// Returns the maximum number of memory accesses per call, while a swarm grows to a size, has it, and
/// shrinks.
fn max_accesses(peers: u32) -> u64 {
    let mut fixture = Fixture::new();
    let mut most = 0;
    let mut step = |fixture: &mut Fixture, announce: &Announce| {
        let (_, accesses) = accesses::during(|| fixture.announce(announce));
        most = most.max(accesses);
    };
    for number in 0..peers {
        step(&mut fixture, &v4(number, number % 3 == 0, 50));
    }
    for number in 0..2000 {
        let number = number * 7919 % peers;
        step(&mut fixture, &v4(number, number.is_multiple_of(2), 50));
    }
    for number in 0..peers {
        step(&mut fixture, &Announce { event: AnnounceEvent::Stopped, ..v4(number, false, 50) });
    }
    assert_eq!(fixture.shard.stats().v4.torrents, 0);
    most
}

#[test]
fn cost_per_call_does_not_depend_on_swarm_size() {
    let medium = max_accesses(1_000);
    let large = max_accesses(30_000);
    // The conversion to a large swarm, at 129 peers, costs most; the cost of splitting a bucket varies with
    // its length.
    assert!(large <= medium + 50, "{medium} at 1,000 peers, {large} at 30,000");
    assert!(medium < 2500, "{medium}");
}

#[test]
fn cost_per_call_does_not_depend_on_the_number_of_torrents() {
    let most = |torrents: u32| {
        let mut fixture = Fixture::new();
        let cost = |number: u32| {
            let mut hash = [0; 20];
            hash[4..8].copy_from_slice(&number.to_be_bytes());
            let announce = Announce { info_hash: InfoHash(hash), ..v4(number, false, 50) };
            accesses::during(|| fixture.announce(&announce)).1
        };
        // The first page of the table is allocated as a whole.
        (0..torrents).map(cost).skip(1).max().unwrap()
    };
    let (few, many) = (most(2_000), most(30_000));
    assert!(many <= few + 100 && many < 300, "{few} among 2,000, {many} among 30,000");
}

#[test]
fn expiry_respects_its_budget_inside_a_large_swarm() {
    let mut fixture = Fixture::new();
    fixture.fill(10_000, 20_000);
    let late = fixture.now + MAX_AGE + 100;
    let mut calls = 0;
    loop {
        let (done, accesses) = accesses::during(|| fixture.shard.expire(late, MAX_AGE, 200));
        assert!(done.work <= 200 + 600, "{done:?}");
        assert!(accesses <= 800 * 20, "{accesses}");
        calls += 1;
        if fixture.shard.stats().v4.torrents == 0 {
            break;
        }
        fixture.shard.check_invariants().unwrap();
        // Announces of removed or expired peers during the pass change nothing.
        if calls % 50 == 0 {
            let now = std::mem::replace(&mut fixture.now, late);
            assert!(fixture.announce(&v4(calls * 17, true, 3)).v4_len <= 18);
            fixture.announce(&Announce { event: AnnounceEvent::Stopped, ..v4(calls * 17, true, 3) });
            fixture.now = now;
        }
    }
    assert!(calls > 100, "{calls}");
    fixture.shard.check_invariants().unwrap();
}

/// A page split may move a torrent that has been visited; a pass finds all expired peers nevertheless.
#[test]
fn one_pass_removes_all_expired_peers_while_the_table_grows() {
    let mut fixture = Fixture::new();
    let torrent = |number: u32| {
        let mut hash = [9; 20];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        Announce { info_hash: InfoHash(hash), ..v4(number, false, 0) }
    };
    (0..5000).for_each(|number| {
        fixture.announce(&torrent(number));
    });
    fixture.now = fixture.now + MAX_AGE + 100;
    let (mut number, mut gone) = (5000, 0);
    loop {
        let done = fixture.shard.expire(fixture.now, MAX_AGE, 20);
        gone += done.peers;
        if done.pass_ended {
            break;
        }
        fixture.announce(&torrent(number));
        number += 1;
    }
    assert_eq!(gone, 5000);
    assert_eq!(fixture.shard.stats().v4.leechers, u64::from(number) - 5000);
}
