//! Swarms in which one address or network has many peers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::expiry::Expire;
use aquatic_common::{AnnounceEvent, Family};

use super::{Fixture, MAX_AGE, v4};
use crate::accesses;
use crate::types::{Announce, Announced, Families, ShardLimits, Stored};

/// A peer of an address that has many.
fn of_one_address(family: Family, number: u32, seeder: bool, numwant: usize) -> Announce {
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, 7).into(),
        // One /64 network.
        Family::V6 => Ipv6Addr::from_bits(0x2001_0db8_0bad << 80 | u128::from(number)).into(),
    };
    Announce { address: SocketAddr::new(ip, (1024 + number) as u16), ..v4(0, seeder, numwant) }
}

/// Peers of distinct addresses (IPv6: networks).
pub(super) fn of_many_addresses(family: Family, number: u32, seeder: bool, numwant: usize) -> Announce {
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
        Family::V6 => Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number) << 64 | 1).into(),
    };
    Announce { address: SocketAddr::new(ip, 6881), ..v4(0, seeder, numwant) }
}

/// Returns the number of peers of [`of_one_address`] in the last reply, and that of all others.
fn shares(fixture: &Fixture, announced: Announced) -> (usize, usize) {
    let (v4, v6) = (&fixture.v4[..announced.v4_len], &fixture.v6[..announced.v6_len]);
    let of_one = v4.chunks(6).filter(|peer| peer[..4] == [203, 0, 113, 7]).count()
        + v6.chunks(18).filter(|peer| peer[4..6] == [0x0b, 0xad]).count();
    (of_one, v4.len() / 6 + v6.len() / 18 - of_one)
}

/// Case U1: whoever came first, in small and large swarms, and whatever role the ports of the address claim.
#[test]
fn an_address_with_many_ports_does_not_keep_others_out_of_replies() {
    for family in Family::ALL {
        for (others, ports, first, seeders) in [
            (20, 3000, true, false),
            (20, 3000, false, true),
            (60, 40, true, true),
            (100, 3000, true, true),
            (1000, 3000, false, false),
            (1000, 3000, true, false),
        ] {
            let mut fixture = Fixture::new();
            let crowd = |fixture: &mut Fixture| {
                let stored = (0..ports).filter(|number| {
                    let got = fixture.announce(&of_one_address(family, *number, seeders, 0));
                    assert!(matches!(got.stored, Stored::Added | Stored::RefusedPeersPerAddress));
                    got.stored == Stored::Added
                });
                let stored = stored.count();
                assert!(stored <= 512 && stored * 100 >= 98 * ports.min(512) as usize, "{stored}");
            };
            if first {
                crowd(&mut fixture);
            }
            for number in 0..others {
                let got = fixture.announce(&of_many_addresses(family, number, number % 4 == 0, 0));
                assert_eq!(got.stored, Stored::Added);
            }
            if !first {
                crowd(&mut fixture);
            }
            fixture.shard.check_invariants().unwrap();
            let expected = (others as usize - 1).min(50 - 6);
            let (mut all, mut fewest) = (0, usize::MAX);
            for _ in 0..60 {
                let got = fixture.announce(&of_many_addresses(family, 1, false, 50));
                let (of_one, of_others) = shares(&fixture, got);
                // Another address may share a counter with the one that has many ports.
                let what = format!("{of_one} and {of_others} of {others} others and {ports} ports");
                let rest = (expected + 1).saturating_sub(of_others);
                assert!(of_one <= 6 + rest && of_one + of_others <= 50, "{family:?}: {what}");
                assert!(of_one + of_others >= 25, "{family:?}: {what}");
                (all, fewest) = (all + of_others, fewest.min(of_others));
            }
            let mean = all as f64 / 60.0;
            let what = format!("{family:?}, {others} others, {ports} ports: {mean}, at least {fewest}");
            assert!(mean > expected as f64 - 0.3 && fewest + 3 >= expected, "{what}");
        }
    }
}

/// All of them are stored, and find each other.
#[test]
fn hundreds_of_clients_behind_one_address_are_served() {
    for family in Family::ALL {
        let mut fixture = Fixture::new();
        let mut stored = 0;
        for number in 0..300 {
            let got = fixture.announce(&of_one_address(family, number * 131 % 60_000, number % 5 == 0, 0));
            stored += u32::from(got.stored == Stored::Added);
        }
        assert!(stored >= 300 * 98 / 100, "{stored}");
        let mut seen = BTreeMap::new();
        for number in 0..300 {
            let got = fixture.announce(&of_one_address(family, number * 131 % 60_000, false, 50));
            assert_eq!(shares(&fixture, got), (50, 0));
            for peer in fixture.v4[..got.v4_len].chunks(6).chain(fixture.v6[..got.v6_len].chunks(18)) {
                *seen.entry(peer.to_vec()).or_insert(0) += 1;
            }
        }
        assert!(seen.len() as u32 >= stored * 9 / 10, "{} of {stored}", seen.len());
    }
}

/// Clients of an address with many peers get a full reply; others get few of these peers, but not too few
/// where there are hardly any others, and as many as they want where there are none.
#[test]
fn replies_are_filled_up_where_there_are_few_others() {
    for (family, ports, others, of_one, of_others) in Family::ALL.into_iter().flat_map(|family| {
        [
            // Ports of the address and others; then what another client gets.
            (family, 300, 1, 50, 0),
            (family, 300, 2, 6, 1),
            (family, 300, 10, 9, 9),
            (family, 300, 16, 10, 15),
            (family, 25, 10, 9, 9),
            (family, 8, 13, 8, 12),
            (family, 5, 13, 5, 12),
        ]
    }) {
        let mut fixture = Fixture::new();
        for number in 0..ports {
            fixture.announce(&of_one_address(family, number * 131, number % 5 == 0, 0));
        }
        for number in 0..others {
            fixture.announce(&of_many_addresses(family, number, number % 4 == 0, 0));
        }
        let (mut exact, mut inside) = (0, 0);
        for _ in 0..60 {
            let got = fixture.announce(&of_many_addresses(family, 1 % others, false, 50));
            exact += u32::from(shares(&fixture, got) == (of_one, of_others));
            let got = fixture.announce(&of_one_address(family, 131, false, 50));
            let all = (ports + others - 1).min(50) as usize;
            inside += u32::from(shares(&fixture, got) == (all - others as usize, others as usize));
        }
        // Another address may share a counter with the one that has many ports.
        let what = format!("{family:?}, {ports} ports, {others} others: {exact}, {inside}");
        assert!(exact >= 55 && inside >= 55, "{what}");
    }
}

/// Clients of either family get all others of both, however many ports an address of one of them has.
#[test]
fn an_address_of_one_family_does_not_keep_the_other_family_out_of_replies() {
    for (crowded, ports, own, elsewhere) in Family::ALL.into_iter().flat_map(|family| {
        [
            // Ports of the address, others of its family, and peers of the other family.
            (family, 3000, 0, 20),
            (family, 3000, 10, 20),
            (family, 3000, 0, 100),
            (family, 100, 0, 40),
            (family, 30, 3, 1),
            (family, 200, 1000, 500),
        ]
    }) {
        let mut fixture = Fixture::new();
        let other = if crowded == Family::V4 { Family::V6 } else { Family::V4 };
        let both = |announce| Announce { families: Families::Both, ..announce };
        for number in 0..ports {
            fixture.announce(&of_one_address(crowded, number * 17, number % 3 == 0, 0));
        }
        for number in 0..own.max(elsewhere) {
            if number < own {
                fixture.announce(&of_many_addresses(crowded, number, number % 4 == 0, 0));
            }
            if number < elsewhere {
                fixture.announce(&of_many_addresses(other, number, number % 4 == 0, 0));
            }
        }
        let what = format!("{crowded:?}, {ports} ports, {own} and {elsewhere} others");
        let (runs, mut least) = (60, usize::MAX);
        let mut sum = 0;
        for client in [Some(other), (own > 0).then_some(crowded)].into_iter().flatten() {
            for _ in 0..runs {
                let got = fixture.announce(&both(of_many_addresses(client, 0, false, 50)));
                let (of_one, of_others) = shares(&fixture, got);
                let others = (own + elsewhere - 1).min(44) as usize;
                // Another address may share a counter with the one that has many ports.
                assert!(of_others + 3 >= others, "{what}: {of_one} and {of_others} to {client:?}");
                assert!(
                    of_one <= 6 || of_others < 25 && of_one <= of_others + 6,
                    "{what}: {of_one} and {of_others}"
                );
                (sum, least) = (sum + of_others, least.min(of_others));
            }
        }
        // Clients of the address find each other as well, beside the others.
        let got = fixture.announce(&both(of_one_address(crowded, 17, false, 50)));
        let (of_one, of_others) = shares(&fixture, got);
        let all = (ports + own + elsewhere - 1).min(50) as usize;
        assert!(of_one + of_others + 3 >= all.min(50), "{what}: {of_one} and {of_others} of {all} to itself");
    }
}

/// A peer that stops or expires makes room for another one of its address, and a swarm is no longer crowded
/// once those that crowded it are gone.
#[test]
fn the_bound_per_address_follows_the_peers() {
    for peers in [20, 600] {
        let limits = ShardLimits { max_peers_per_address: 6, ..ShardLimits::default() };
        let mut fixture = Fixture::with(limits);
        for number in 0..peers {
            fixture.announce(&of_many_addresses(Family::V4, number, false, 0));
        }
        let stored = |fixture: &mut Fixture, number| {
            fixture.announce(&of_one_address(Family::V4, number, false, 0)).stored
        };
        for number in 0..6 {
            assert_eq!(stored(&mut fixture, number), Stored::Added);
        }
        assert_eq!(stored(&mut fixture, 6), Stored::RefusedPeersPerAddress);
        assert_eq!(stored(&mut fixture, 3), Stored::Updated);
        let stop = Announce { event: AnnounceEvent::Stopped, ..of_one_address(Family::V4, 3, false, 0) };
        assert_eq!(fixture.announce(&stop).stored, Stored::Removed);
        assert_eq!(stored(&mut fixture, 6), Stored::Added);
        assert_eq!(stored(&mut fixture, 7), Stored::RefusedPeersPerAddress);
        fixture.now = fixture.now + MAX_AGE + 100;
        while !fixture.shard.expire(fixture.now, MAX_AGE, 5000).pass_ended {}
        assert_eq!(fixture.shard.stats().v4.leechers, 0);
        assert_eq!(stored(&mut fixture, 7), Stored::Added);
    }
}

/// Replies of crowded swarms cost a bounded amount, too.
#[test]
fn cost_of_replies_of_crowded_swarms_is_bounded() {
    for others in [20, 1000, 30_000] {
        let mut fixture = Fixture::new();
        for number in 0..others.max(3000) {
            if number < 3000 {
                fixture.announce(&of_one_address(Family::V4, number, false, 0));
            }
            if number < others {
                fixture.announce(&of_many_addresses(Family::V4, number, false, 0));
            }
        }
        let most = (0..500)
            .map(|number| {
                let announce = of_many_addresses(Family::V4, number % others, false, 50);
                accesses::during(|| fixture.announce(&announce)).1
            })
            .max();
        assert!(most.unwrap() < 800, "{most:?} among {others}");
    }
}
