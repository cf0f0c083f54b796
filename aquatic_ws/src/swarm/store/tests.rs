use aquatic_common::Family;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

const LIMITS: SwarmLimits = SwarmLimits {
    max_torrents: 100,
    max_peers: 1000,
    max_peers_per_torrent: 1000,
    max_peers_per_address: 40,
    max_offers: 1000,
    max_offers_per_peer: 20,
    max_offer_age: 60,
};

#[test]
fn invariants_hold_while_swarms_grow_and_shrink() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut swarms = Swarms::new(LIMITS, [1; 16]);
    for step in 0..20_000 {
        // In every third phase most peers leave.
        let leaving = step / 1000 % 3 == 2;
        let number = rng.random_range(0..150_u8);
        let announce = Announce {
            info_hash: InfoHash([rng.random_range(0..2); 20]),
            peer_id: PeerId([number; 20]),
            connection: ConnectionId { core: 0, slot: number.into(), generation: 0 },
            // Two have about 40 peers each, and the limit is reached.
            network: Network::from_bits(if number < 90 { (1 + u32::from(number % 2)) << 30 } else { 0 }),
            family: Family::V6,
            seeder: rng.random_range(0..3) == 0,
            stopped: rng.random_range(0..10) < if leaving { 9 } else { 1 },
            may_be_added: true,
        };
        let offers = [OfferDigest(step); 8];
        let offers = &offers[..rng.random_range(0..=8)];
        swarms.announce(&announce, offers, Seconds(0), &mut rng, &mut Vec::new());
        swarms.check();
    }
}

#[test]
fn peers_expire_within_two_passes_whatever_happens_meanwhile() {
    const MAX_AGE: u32 = 20;
    let mut rng = SmallRng::seed_from_u64(3);
    let mut swarms = Swarms::new(LIMITS, [1; 16]);
    let mut pass_ends: Vec<u32> = Vec::new();
    for step in 0..30_000_u32 {
        let now = Seconds(step / 20);
        let number = rng.random_range(0..250_u8);
        let (info_hash, peer_id) = (InfoHash([number % 40; 20]), PeerId([number; 20]));
        // Some peers are claimed by another connection.
        let slot = u32::from(number) + 1000 * rng.random_range(0..8_u32).saturating_sub(6);
        let connection = ConnectionId { core: 0, slot, generation: 0 };
        if rng.random_range(0..4) == 0 {
            swarms.leave(&info_hash, &peer_id, connection);
        } else {
            let (family, seeder) = (Family::V4, rng.random());
            let network = Network::from_bits(u32::from(number % 3) << 30);
            let announce = Announce {
                info_hash,
                peer_id,
                connection,
                network,
                family,
                seeder,
                stopped: false,
                may_be_added: true,
            };
            swarms.announce(&announce, &[OfferDigest(1)], now, &mut rng, &mut Vec::new());
        }
        if swarms.expire(now, MAX_AGE, rng.random_range(0..12)).pass_ended {
            pass_ends.push(now.0);
        }
        if step % 100 == 0 {
            swarms.check();
        }
        for torrent in swarms.torrents.values() {
            for peer in (0..torrent.len()).map(|at| torrent.peer(at)) {
                let expiry = peer.registration().last_seen.0 + MAX_AGE;
                let passes = pass_ends.iter().rev().take_while(|end| **end > expiry).count();
                assert!(passes <= 2, "{peer:?} at {now:?}");
            }
        }
    }
    assert!(pass_ends.len() > 100, "{} passes", pass_ends.len());
}

#[test]
fn memory_is_released_with_the_peers() {
    let mut swarms = Swarms::new(LIMITS, [1; 16]);
    let mut rng = SmallRng::seed_from_u64(1);
    let announce = |number: u32, stopped| {
        let mut peer_id = [0; 20];
        peer_id[..4].copy_from_slice(&number.to_be_bytes());
        Announce {
            info_hash: InfoHash([1; 20]),
            peer_id: PeerId(peer_id),
            connection: ConnectionId { core: 0, slot: number, generation: 0 },
            network: Network::from_bits((number / 40) << 27),
            family: Family::V4,
            seeder: number.is_multiple_of(2),
            stopped,
            may_be_added: true,
        }
    };
    let mut all = |swarms: &mut Swarms, stopped, range: std::ops::Range<u32>| {
        for number in range {
            swarms.announce(&announce(number, stopped), &[], Seconds(0), &mut rng, &mut Vec::new());
        }
    };
    all(&mut swarms, false, 0..1000);
    all(&mut swarms, true, 0..990);
    swarms.check();
    let torrent = swarms.torrents.values().next().map(Torrent::capacity);
    assert!(torrent.is_some_and(|capacity| capacity < 64), "{torrent:?}");
    all(&mut swarms, true, 990..1000);
    assert!(swarms.expire(Seconds(0), 300, 10_000).pass_ended);
    assert_eq!((swarms.torrents.len(), swarms.torrents.capacity()), (0, 0));
    assert_eq!(swarms.stats(), Swarms::new(LIMITS, [1; 16]).stats());
}
