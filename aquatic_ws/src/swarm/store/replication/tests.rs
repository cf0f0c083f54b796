//! Two or three nodes whose swarms exchange changes.

use aquatic_common::Family;
use aquatic_common::expiry::Expire;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::swarm::{Announce, Counts, Network, NodeConnection, OfferDigest, Outcome, SwarmLimits};

const MAX_AGE: u32 = 100;
const TORRENT: InfoHash = InfoHash([1; 20]);
const LIMITS: SwarmLimits = SwarmLimits {
    max_torrents: 100_000,
    max_peers: 200_000,
    max_peers_per_torrent: 200_000,
    max_peers_per_address: 50,
    max_offers: 1000,
    max_offers_per_peer: 20,
    max_offer_age: 60,
};

fn node(number: u8) -> NodeNumber {
    NodeNumber::new(number).unwrap()
}

fn connection(slot: u32) -> NodeConnection {
    NodeConnection { core: 0, slot, generation: 1 }
}

fn swarms() -> Swarms {
    let mut swarms = Swarms::new(LIMITS, [1; 16]);
    swarms.replicate(MAX_AGE);
    swarms
}

fn announce_of(peer: u8, slot: u32, seeder: bool) -> Announce {
    Announce {
        info_hash: TORRENT,
        peer_id: PeerId([peer; 20]),
        connection: connection(slot).here(),
        network: Network::UNKNOWN,
        family: Family::V4,
        seeder,
        stopped: false,
        may_be_added: true,
    }
}

fn announce(swarms: &mut Swarms, announce: &Announce, now: u32) -> Outcome {
    let mut rng = SmallRng::seed_from_u64(1);
    swarms.announce(announce, &[], Seconds(now), &mut rng, &mut Vec::new()).outcome
}

fn changes(swarms: &mut Swarms, now: u32) -> Vec<Change> {
    swarms.take_changes(Seconds(now), usize::MAX).collect()
}

fn kinds(swarms: &mut Swarms, now: u32) -> Vec<(ChangeKind, u16)> {
    changes(swarms, now).iter().map(|change| (change.kind, change.age)).collect()
}

fn present(seeder: bool, completed: bool) -> ChangeKind {
    ChangeKind::Present { seeder, completed }
}

fn change(peer: u8, slot: u32, kind: ChangeKind) -> Change {
    let (peer_id, family) = (PeerId([peer; 20]), Family::V6);
    let network = Network::from_bits(u32::from(peer) << 24 | 1);
    Change { info_hash: TORRENT, peer_id, connection: connection(slot), network, family, kind, age: 0 }
}

fn apply(swarms: &mut Swarms, from: u8, change: &Change, now: u32) -> Applied {
    let applied = swarms.apply(change, (node(from), 0), Seconds(now), MAX_AGE);
    swarms.check();
    applied
}

fn holder(swarms: &Swarms, peer: u8) -> Option<ConnectionId> {
    let torrent = swarms.torrents.get(&TORRENT)?;
    Some(torrent.peer(torrent.find(&PeerId([peer; 20]), &swarms.hasher)?).connection)
}

/// Runs so many passes of expiry.
fn expire(swarms: &mut Swarms, now: u32, passes: usize) {
    for _ in 0..passes {
        while !swarms.expire(Seconds(now), MAX_AGE, 1000).pass_ended {}
    }
}

#[test]
fn without_a_cluster_nothing_is_noted() {
    let mut swarms = Swarms::new(LIMITS, [1; 16]);
    announce(&mut swarms, &announce_of(1, 1, true), 0);
    swarms.resend();
    swarms.advance_resend();
    assert_eq!(changes(&mut swarms, 0), []);
    assert_eq!(apply(&mut swarms, 1, &change(2, 2, present(true, false)), 0), Applied::NodeGone);
}

#[test]
fn what_changes_is_published_and_a_living_peer_once_per_slot() {
    let mut swarms = swarms();
    announce(&mut swarms, &announce_of(1, 1, false), 1000);
    assert_eq!(kinds(&mut swarms, 1003), [(present(false, false), 3)]);
    announce(&mut swarms, &announce_of(1, 1, true), 1001);
    announce(&mut swarms, &announce_of(1, 1, false), 1002);
    assert_eq!(kinds(&mut swarms, 1002), [(present(true, true), 1), (present(false, true), 0)]);
    let published: usize = (0..1000)
        .map(|second| {
            announce(&mut swarms, &announce_of(1, 1, false), 1003 + second);
            kinds(&mut swarms, 1003 + second).len()
        })
        .sum();
    assert_eq!(published, 1000 / (MAX_AGE as usize / 2));
    announce(&mut swarms, &Announce { stopped: true, ..announce_of(1, 1, false) }, 3000);
    announce(&mut swarms, &Announce { stopped: true, ..announce_of(1, 1, false) }, 3000);
    assert_eq!(kinds(&mut swarms, 3001), [(ChangeKind::Left, 0)], "it left once");
    announce(&mut swarms, &announce_of(2, 2, true), 3001);
    expire(&mut swarms, 3001 + MAX_AGE + 1, 2);
    let expired = [(present(true, false), u16::try_from(MAX_AGE).unwrap() + 1), (ChangeKind::Left, 0)];
    assert_eq!(kinds(&mut swarms, 3001 + MAX_AGE + 1), expired);
}

#[test]
fn peers_of_other_nodes_are_counted_drawn_and_not_published() {
    let mut swarms = swarms();
    assert_eq!(apply(&mut swarms, 5, &change(1, 1, present(false, false)), 0), Applied::Added);
    assert_eq!(apply(&mut swarms, 5, &change(1, 1, present(true, true)), 0), Applied::Updated);
    assert_eq!(apply(&mut swarms, 5, &change(1, 1, present(true, true)), 0), Applied::Updated);
    assert_eq!(swarms.scrape(&TORRENT), Counts { complete: 1, incomplete: 0, downloaded: 1 });
    assert_eq!(swarms.stats().remote_peers, 1);
    let (mut rng, mut receivers) = (SmallRng::seed_from_u64(1), Vec::new());
    let own = announce_of(2, 2, false);
    swarms.announce(&own, &[OfferDigest(1), OfferDigest(2)], Seconds(0), &mut rng, &mut receivers);
    assert_eq!(receivers, [connection(1).of(node(5))]);
    assert_eq!(swarms.receiver(&TORRENT, 0), Some(PeerId([1; 20])));
    assert_eq!(changes(&mut swarms, 0).len(), 1);
    assert_eq!(apply(&mut swarms, 6, &change(1, 1, ChangeKind::Left), 0), Applied::Absent, "another node");
    assert_eq!(apply(&mut swarms, 5, &change(1, 9, ChangeKind::Left), 0), Applied::Absent);
    assert_eq!(apply(&mut swarms, 5, &change(1, 1, ChangeKind::Left), 0), Applied::Removed);
    assert_eq!(changes(&mut swarms, 0), []);
    assert_eq!(swarms.stats().remote_peers, 0);
}

#[test]
fn peers_of_other_nodes_expire_a_slot_later() {
    let mut swarms = swarms();
    let old = Change { age: 40, ..change(1, 1, present(false, false)) };
    assert_eq!(swarms.apply(&old, (node(1), 10), Seconds(1050), MAX_AGE), Applied::Added);
    expire(&mut swarms, 1000 + MAX_AGE * 3 / 2, 3);
    assert_eq!(swarms.stats().remote_peers, 1);
    expire(&mut swarms, 1000 + MAX_AGE * 3 / 2 + 1, 3);
    assert_eq!(swarms.stats().remote_peers, 0);
    let older = Change { age: 141, ..old };
    assert_eq!(swarms.apply(&older, (node(1), 10), Seconds(2000), MAX_AGE), Applied::TooOld);
}

#[test]
fn connections_of_this_node_precede_and_among_others_the_first() {
    let mut swarms = swarms();
    let joined = present(false, false);
    let [here, on_1, on_2] = [connection(7).here(), connection(7).of(node(1)), connection(7).of(node(2))];
    apply(&mut swarms, 1, &change(1, 7, joined), 0);
    assert_eq!(apply(&mut swarms, 2, &change(1, 7, joined), 0), Applied::Claims(None));
    assert_eq!(holder(&swarms, 1), Some(on_1));
    assert_eq!(announce(&mut swarms, &announce_of(1, 7, false), 0), Outcome::Stored);
    assert_eq!((holder(&swarms, 1), swarms.scrape(&TORRENT).incomplete), (Some(here), 1));
    assert_eq!(apply(&mut swarms, 1, &change(1, 7, joined), 0), Applied::Claims(None), "known to claim");
    assert_eq!(apply(&mut swarms, 2, &change(1, 7, joined), 0), Applied::Claims(Some(here)));
    assert_eq!(kinds(&mut swarms, 0).len(), 1);
    // The claimant takes over once the connection of this node has left, and leaves in turn.
    assert!(swarms.leave(&TORRENT, &PeerId([1; 20]), here));
    assert_eq!((holder(&swarms, 1), kinds(&mut swarms, 0)), (Some(on_2), vec![(ChangeKind::Left, 0)]));
    apply(&mut swarms, 2, &change(1, 7, ChangeKind::Left), 0);
    assert_eq!(holder(&swarms, 1), None);
    // A pending claimant of this node is kept, and published once it takes over.
    announce(&mut swarms, &announce_of(1, 7, false), 0);
    assert_eq!(announce(&mut swarms, &announce_of(1, 8, true), 0), Outcome::Contested(here));
    assert_eq!(apply(&mut swarms, 1, &change(1, 7, joined), 0), Applied::Claims(None));
    assert_eq!(kinds(&mut swarms, 0).len(), 1);
    assert!(swarms.leave(&TORRENT, &PeerId([1; 20]), here));
    assert_eq!(holder(&swarms, 1), Some(connection(8).here()));
    assert_eq!(kinds(&mut swarms, 0), [(ChangeKind::Left, 0), (present(true, false), 0)]);
}

#[test]
fn limits_apply_to_peers_of_other_nodes() {
    let mut swarms = Swarms::new(SwarmLimits { max_peers: 1, ..LIMITS }, [1; 16]);
    swarms.replicate(MAX_AGE);
    apply(&mut swarms, 1, &change(1, 1, present(false, false)), 0);
    let refused = apply(&mut swarms, 1, &change(2, 2, present(false, false)), 0);
    assert_eq!(refused, Applied::LimitReached(Limit::Peers));
}

#[test]
fn peers_of_a_gone_node_are_removed_and_replaced() {
    let mut swarms = swarms();
    let joined = present(false, false);
    for peer in 0..100 {
        apply(&mut swarms, peer % 2, &change(peer, peer.into(), joined), 0);
    }
    apply(&mut swarms, 1, &change(0, 200, joined), 0);
    swarms.forget_node(node(0));
    assert!(swarms.is_forgetting() && swarms.is_gone(node(0)));
    assert_eq!(apply(&mut swarms, 0, &change(4, 4, joined), 0), Applied::NodeGone);
    // Its peers are free for others at once.
    assert_eq!(apply(&mut swarms, 1, &change(2, 202, joined), 0), Applied::Updated);
    assert_eq!(apply(&mut swarms, 1, &change(0, 200, joined), 0), Applied::Updated, "no claimant is left");
    assert_eq!(announce(&mut swarms, &announce_of(6, 6, false), 0), Outcome::Stored);
    expire(&mut swarms, 0, 4);
    swarms.check();
    assert!(!swarms.is_forgetting() && swarms.is_gone(node(0)));
    assert_eq!(swarms.stats().peers.iter().flatten().sum::<usize>(), 50 + 3);
    assert_eq!(swarms.stats().remote_peers, 50 + 2);
    assert_eq!(apply(&mut swarms, 1, &change(0, 200, ChangeKind::Left), 0), Applied::Removed);
    assert_eq!(holder(&swarms, 0), None);
}

#[test]
fn peers_that_a_node_does_not_publish_again_after_a_gap_are_removed() {
    let mut swarms = swarms();
    let joined = present(false, false);
    for peer in 0..6 {
        apply(&mut swarms, 3, &change(peer, peer.into(), joined), 50);
    }
    apply(&mut swarms, 5, &change(9, 9, joined), 50);
    swarms.doubt_node(node(3), Seconds(60));
    // Those that have just announced are no sign of it.
    apply(&mut swarms, 3, &change(0, 0, present(true, false)), 61);
    let late = Change { age: 3, ..change(7, 7, joined) };
    apply(&mut swarms, 3, &late, 62);
    expire(&mut swarms, 110, 4);
    let stays = |swarms: &Swarms| (0..10).filter(|peer| holder(swarms, *peer).is_some()).collect::<Vec<_>>();
    assert_eq!(stays(&swarms), [0, 1, 2, 3, 4, 5, 7, 9]);

    swarms.doubt_node(node(3), Seconds(110));
    for peer in [0, 2, 4] {
        let seeder = peer == 0;
        apply(&mut swarms, 3, &Change { age: 61, ..change(peer, peer.into(), present(seeder, false)) }, 111);
    }
    expire(&mut swarms, 110 + CONFIRMATION - 90, 4);
    assert_eq!(stays(&swarms), [0, 1, 2, 3, 4, 5, 7, 9], "it has some time for that");
    swarms.replicate(1000);
    let mut expired = |now| {
        while !swarms.expire(Seconds(now), 1000, 1_000_000).pass_ended {}
        stays(&swarms)
    };
    assert_eq!(expired(110 + CONFIRMATION - 1), [0, 2, 4, 7, 9], "the first gap is longer ago");
    assert_eq!(expired(110 + CONFIRMATION), [0, 2, 4, 9]);
    swarms.check();
}

#[test]
fn gap_after_gap_does_not_put_off_the_removal_for_ever() {
    let mut swarms = swarms();
    swarms.replicate(10_000);
    let joined = present(false, false);
    for peer in 0..4 {
        apply(&mut swarms, 3, &change(peer, peer.into(), joined), 50);
    }
    let mut removed = None;
    for now in (60..1000).step_by(30) {
        swarms.doubt_node(node(3), Seconds(now));
        // The first two are published again each time.
        for peer in [0, 1] {
            let age = u16::try_from(now - 50).unwrap();
            apply(&mut swarms, 3, &Change { age, ..change(peer, peer.into(), joined) }, now);
        }
        while !swarms.expire(Seconds(now), 10_000, 1_000_000).pass_ended {}
        assert!(holder(&swarms, 0).is_some() && holder(&swarms, 1).is_some(), "{now}");
        if holder(&swarms, 2).is_none() && holder(&swarms, 3).is_none() {
            removed = removed.or(Some(now));
        }
    }
    assert_eq!(removed, Some(60 + CONFIRMATION));
    assert!(swarms.replication.as_ref().unwrap().unconfirmed.len() <= MAX_GAPS);
}

#[test]
fn a_node_that_returns_keeps_its_peers() {
    let mut swarms = swarms();
    apply(&mut swarms, 3, &change(1, 1, present(false, false)), 0);
    swarms.forget_node(node(3));
    swarms.readmit_node(node(3));
    expire(&mut swarms, 0, 4);
    assert!(holder(&swarms, 1).is_some());
    assert_eq!(apply(&mut swarms, 3, &change(1, 1, present(true, false)), 0), Applied::Updated);
}

#[test]
fn all_peers_are_published_again_whatever_happens_meanwhile() {
    let mut rng = SmallRng::seed_from_u64(5);
    for round in 0..20 {
        let (mut here, mut there) = (swarms(), swarms());
        let mut now = 0;
        let act = |here: &mut Swarms, rng: &mut SmallRng, now: u32| {
            let peer = rng.random_range(0..200_u8);
            let info_hash = InfoHash([peer % [1, 40][round % 2]; 20]);
            let stopped = rng.random_range(0..3) == 0;
            let of = announce_of(peer, peer.into(), rng.random());
            announce(here, &Announce { info_hash, stopped, ..of }, now);
        };
        for _ in 0..500 {
            act(&mut here, &mut rng, now);
        }
        // All of this is lost, and then asked for.
        changes(&mut here, now);
        here.resend();
        let mut steps = 0;
        while here.replication.as_ref().unwrap().resend.is_some() || steps == 0 {
            here.advance_resend();
            (0..rng.random_range(0..20)).for_each(|_| act(&mut here, &mut rng, now));
            for change in changes(&mut here, now) {
                there.apply(&change, (node(1), 0), Seconds(now), MAX_AGE);
            }
            now += 1;
            steps += 1;
        }
        for change in changes(&mut here, now) {
            there.apply(&change, (node(1), 0), Seconds(now), MAX_AGE);
        }
        there.check();
        let torrents: Vec<InfoHash> = here.torrents.keys().copied().collect();
        for info_hash in &torrents {
            let [ours, theirs] = [&here, &there].map(|swarms| swarms.scrape(info_hash));
            let roles = |counts: Counts| (counts.complete, counts.incomplete);
            assert_eq!(roles(theirs), roles(ours), "round {round}");
        }
        assert_eq!(there.torrents.len(), torrents.len());
    }
}

#[test]
fn changes_that_wait_are_bounded_and_what_is_dropped_follows() {
    let mut swarms = swarms();
    for number in 0..MAX_WAITING as u32 + 10 {
        let mut peer_id = [0; 20];
        peer_id[..4].copy_from_slice(&number.to_be_bytes());
        let announced = Announce { peer_id: PeerId(peer_id), ..announce_of(0, number, false) };
        announce(&mut swarms, &announced, 0);
    }
    assert_eq!(swarms.dropped_changes(), 10);
    assert_eq!(swarms.take_changes(Seconds(0), 100).count(), 100);
    assert_eq!(changes(&mut swarms, 0).len(), MAX_WAITING - 100);
    let mut again = 0;
    loop {
        swarms.advance_resend();
        match changes(&mut swarms, 0).len() {
            0 => break,
            some => again += some,
        }
    }
    assert_eq!(again, MAX_WAITING + 10);
}
