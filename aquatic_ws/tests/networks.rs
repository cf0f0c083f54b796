//! Many peers of one network: how many are stored per torrent, and how many offers they receive. Downloads of
//! peers that come back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use aquatic_common::{Family, InfoHash, PeerId, Seconds};
use aquatic_ws::swarm::{Announce, ConnectionId, Limit, Network, OfferDigest, Outcome, SwarmLimits, Swarms};
use rand::SeedableRng;
use rand::rngs::SmallRng;

const TORRENT: InfoHash = InfoHash([1; 20]);

const LIMITS: SwarmLimits = SwarmLimits {
    max_torrents: 6,
    max_peers: 100_000,
    max_peers_per_torrent: 100_000,
    max_peers_per_address: 512,
    max_offers: 1_000_000,
    max_offers_per_peer: 100_000,
    max_offer_age: 60,
};

/// Announce of one of many connections and networks.
fn announce_of(number: u32, network: u32) -> Announce {
    let mut peer_id = PeerId([0; 20]);
    peer_id.0[..4].copy_from_slice(&number.to_be_bytes());
    Announce {
        info_hash: TORRENT,
        peer_id,
        connection: ConnectionId { core: 0, slot: number, generation: 1 },
        network: Network::from_bits(network.wrapping_mul(0x9e37_79b1)),
        family: Family::V4,
        seeder: false,
        stopped: false,
        may_be_added: true,
    }
}

/// Also if the peers of its connections pass from one to the other.
#[test]
fn one_network_has_a_bounded_number_of_peers_of_a_torrent() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut swarms = Swarms::new(LIMITS, [7; 16]);
    let mut announce =
        |announce: &Announce| swarms.announce(announce, &[], Seconds(0), &mut rng, &mut Vec::new()).outcome;
    let outcomes: Vec<_> = (0..2000).map(|number| announce(&announce_of(number, 1))).collect();
    assert!(outcomes[..512].iter().all(|outcome| *outcome == Outcome::Stored));
    let refused = Outcome::LimitReached(Limit::PeersPerAddress);
    assert!(outcomes[512..].iter().all(|outcome| *outcome == refused));
    assert_eq!(announce(&announce_of(3, 1)), Outcome::Stored, "a known peer");
    // Another network has peers that the first one claims.
    for number in 5000..5100 {
        assert_eq!(announce(&announce_of(number, 2)), Outcome::Stored);
        let connection = ConnectionId { core: 1, slot: number, generation: 1 };
        let claimant = Announce { connection, ..announce_of(number, 1) };
        assert!(matches!(announce(&claimant), Outcome::Contested(_)));
        announce(&Announce { stopped: true, ..announce_of(number, 2) });
    }
    assert_eq!(swarms.scrape(&TORRENT).incomplete, 512);
}

/// The share of one network among 20 others, in lists and in indexed torrents, over roles.
#[test]
fn a_network_with_many_peers_receives_its_share_of_the_offers() {
    for (others, many) in [(20, 512), (20, 30), (4, 12), (2000, 512)] {
        for seeder in [false, true] {
            let mut rng = SmallRng::seed_from_u64(2);
            let mut swarms = Swarms::new(LIMITS, [7; 16]);
            let mut receivers = Vec::new();
            let networks = (0..others).map(|number| number + 10).chain((0..many).map(|_| 1));
            for (number, network) in (0..).zip(networks) {
                swarms.announce(&announce_of(number, network), &[], Seconds(0), &mut rng, &mut receivers);
            }
            let (mut offers, mut to_others) = (0, 0);
            let count = 10.min(others as usize);
            for number in 10_000..10_200 {
                let victim = Announce { seeder, ..announce_of(number, number) };
                let digests = vec![OfferDigest(number.into()); count];
                swarms.announce(&victim, &digests, Seconds(0), &mut rng, &mut receivers);
                assert_eq!(receivers.len(), count);
                offers += count;
                to_others += receivers.iter().filter(|to| to.slot < others || to.slot >= 10_000).count();
                swarms.announce(
                    &Announce { stopped: true, ..victim },
                    &[],
                    Seconds(0),
                    &mut rng,
                    &mut receivers,
                );
            }
            let share = to_others as f64 / offers as f64;
            let fair = f64::from(others) / f64::from(others + 1);
            assert!(share > fair - 0.05, "{share} of the offers went to {others} networks, {many} of one");
        }
    }
}

#[test]
fn a_completed_peer_that_stops_and_comes_back_is_counted_once() {
    let mut swarms = Swarms::new(LIMITS, [7; 16]);
    let mut rng = SmallRng::seed_from_u64(1);
    let mut announce = |announce: Announce, now: u32| {
        swarms.announce(&announce, &[], Seconds(now), &mut rng, &mut Vec::new()).counts.downloaded
    };
    announce(announce_of(1, 1), 0);
    for round in 0..10 {
        announce(announce_of(2, 2), round);
        assert_eq!(announce(Announce { seeder: true, ..announce_of(2, 2) }, round), 1);
        announce(Announce { stopped: true, ..announce_of(2, 2) }, round);
    }
    announce(announce_of(2, 3), 20);
    assert_eq!(announce(Announce { seeder: true, ..announce_of(2, 3) }, 20), 2, "of another address");
}
