//! What nodes tell each other of their announces, and what they make of it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod agreement;
mod departed;
mod node;
mod properties;

use std::net::SocketAddr;

use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds};
use aquatic_swarm::{HashKey, Origin, SaveFilter};
use aquatic_tracker::replication::{
    Applied, Change, ChangeKind, Completion, MAX_BATCH, MAX_UNPUBLISHED, PartHasher, PartSet, record_length,
    refresh_interval, remote_grace,
};
use aquatic_tracker::snapshot::format::{Torrent, write_peer, write_torrent};
use node::{Node, Saved, address, info_hash};

const AGE: u32 = 3600;

fn present(seeder: bool, completion: Completion) -> ChangeKind {
    ChangeKind::Present { seeder, completion }
}

#[test]
fn only_what_others_have_to_know_is_told() {
    for number in [1, 3] {
        let mut node = Node::new(1, AGE);
        let peer = (7, address(number));
        let mut kinds = |seeder, event, now| {
            node.announce(peer, seeder, event, now);
            let changes = node.published(now);
            assert!(changes.iter().all(|change| change.address == peer.1 && change.age == 0));
            changes.into_iter().map(|change| change.kind).collect::<Vec<_>>()
        };
        use AnnounceEvent::{Completed, None, Paused, Started, Stopped};
        assert_eq!(kinds(false, Started, 1000), [present(false, Completion::None)], "it is new");
        assert_eq!(kinds(false, None, 1001), [], "nothing has changed");
        assert_eq!(kinds(true, Completed, 1002), [present(true, Completion::Now)], "it has completed");
        assert_eq!(kinds(true, None, 1003), []);
        assert_eq!(kinds(true, Paused, 1004), [present(false, Completion::Counted)], "it is a leecher again");
        assert_eq!(kinds(true, None, 1005), [present(true, Completion::Counted)], "counted once");
        assert_eq!(kinds(true, Stopped, 1006), [ChangeKind::LeftAfter]);
        assert_eq!(
            kinds(true, Stopped, 1007),
            [ChangeKind::Left],
            "its join may be on its way from another node"
        );
        assert_eq!(node.tracker.take_dropped(), 0);
    }
}

#[test]
fn what_is_not_stored_is_not_told() {
    let mut node = Node::new(1, AGE);
    node.announce((1, SocketAddr::from(([198, 18, 0, 1], 0))), false, AnnounceEvent::None, 5);
    node.announce((1, SocketAddr::from(([127, 0, 0, 1], 80))), false, AnnounceEvent::None, 5);
    assert!(node.published(5).iter().all(|change| change.address.port() != 0));
}

#[test]
fn a_living_peer_is_told_of_before_it_would_age_out() {
    for max_peer_age in [60, 240, 3600, 40_000, 86_336, 86_400] {
        let longest = refresh_interval(max_peer_age);
        assert!(remote_grace(max_peer_age) + max_peer_age <= 86_400);
        for interval in [max_peer_age / 3, max_peer_age / 2, max_peer_age - 32] {
            for number in 0..4 {
                let (mut own, mut other) = (Node::new(1, max_peer_age), Node::new(2, max_peer_age));
                let (mut now, mut told, mut announces) = (50, 0_u32, 0_u32);
                while announces < 40 {
                    own.announce((number, address(number as u16)), false, AnnounceEvent::None, now);
                    announces += 1;
                    for change in own.published(now) {
                        assert_eq!(change.kind, present(false, Completion::None));
                        told += 1;
                        other.apply(&change, change.age.into(), now + 1);
                    }
                    now += interval;
                    other.expire(now);
                    let known = other.content(now).len();
                    assert_eq!(known, 1, "{max_peer_age} s, every {interval} s: lost after {announces}");
                }
                let most = announces * interval / longest.max(1) + 2;
                assert!(told <= most || longest <= interval, "told {told} of {announces} times, not {most}");
                // What is not heard of any more ages out everywhere.
                now += max_peer_age + remote_grace(max_peer_age) + 64 - interval;
                own.expire(now);
                other.expire(now);
                assert!(own.content(now).is_empty() && other.content(now).is_empty());
            }
        }
    }
}

#[test]
fn refreshes_of_many_peers_are_spread() {
    let mut node = Node::new(1, AGE);
    let refresh = refresh_interval(AGE);
    let count = 2000;
    let mut announce_all = |now| {
        (0..count).for_each(|number| node.announce((9, address(number)), false, AnnounceEvent::None, now));
        node.published(now).len()
    };
    assert_eq!(announce_all(10_000), usize::from(count));
    let of_tenths: Vec<usize> = (1..=10).map(|nth| announce_all(10_000 + nth * refresh / 10)).collect();
    let expected = usize::from(count) / 10;
    assert!(of_tenths.iter().all(|told| (expected / 2..expected * 2).contains(told)), "{of_tenths:?}");
    // Times are rounded to 16 seconds.
    assert!((1970..=2000).contains(&of_tenths.iter().sum::<usize>()), "{of_tenths:?}");
}

#[test]
fn batches_and_what_waits_are_bounded_and_ages_are_exact() {
    let mut node = Node::new(1, AGE);
    for number in 0..=u16::MAX {
        let now = 1000 + u32::from(number) / 600;
        node.announce(
            (1, SocketAddr::from(([198, 18, 1, 1], number | 1))),
            false,
            AnnounceEvent::Stopped,
            now,
        );
        node.announce((2, address(number)), false, AnnounceEvent::Stopped, now);
    }
    let (mut numbers, mut largest) = (0_u64, 0);
    let now = Seconds(1000 + 65_535 / 600 + 200);
    while let Some(batch) = node.tracker.take_published(now) {
        largest = largest.max(batch.records.len());
        assert_eq!(batch.records.len() % record_length(batch.family), 0);
        for record in batch.records.chunks(record_length(batch.family)) {
            let [.., age] = record else { panic!() };
            assert!((200..=u8::MAX).contains(age), "{age}");
        }
        numbers += (batch.records.len() / record_length(batch.family)) as u64;
    }
    assert!(largest <= MAX_BATCH && largest > MAX_BATCH - 40);
    assert_eq!((numbers, node.tracker.take_dropped()), (2 * 65_536, 0));
    for number in 0..3 * 65_536_u32 {
        let address = SocketAddr::from((std::net::Ipv4Addr::from_bits(0xc612_0000 + number), 6881));
        node.announce((1, address), false, AnnounceEvent::Stopped, 5000);
    }
    let mut bytes = 0;
    while let Some(batch) = node.tracker.take_published(Seconds(5001)) {
        bytes += batch.records.len();
        assert!(batch.records.chunks(28).all(|record| record.last() == Some(&1)));
    }
    assert!(bytes <= MAX_UNPUBLISHED && bytes > MAX_UNPUBLISHED - 40);
    assert_eq!(node.tracker.take_dropped(), 3 * 65_536 - bytes as u64 / 28);
    assert_eq!(node.tracker.take_dropped(), 0);
}

#[test]
fn a_peer_belongs_to_the_node_that_heard_it_last() {
    let (mut a, mut b) = (Node::new(1, AGE), Node::new(2, AGE));
    let peer = (1, address(1));
    let key = (info_hash(1), peer.1);
    a.announce(peer, false, AnnounceEvent::Started, 1000);
    for change in a.published(1000) {
        assert_eq!(b.apply(&change, 0, 1001), Applied::Added);
        assert_eq!(b.apply(&change, 0, 1001), Applied::Older, "again");
    }
    assert_eq!((a.content(1001)[&key], b.content(1001)[&key]), ((false, false), (false, true)));
    assert_eq!(b.tracker.peers_by_owner(Family::V4), (0, 1));
    assert!(b.published(1001).is_empty(), "what is applied is not told again");
    b.announce(peer, true, AnnounceEvent::Completed, 1100);
    assert_eq!((b.downloaded(1), b.tracker.peers_by_owner(Family::V4)), (1, (1, 0)));
    let changes = b.published(1100);
    assert_eq!(
        changes.iter().map(|change| change.kind).collect::<Vec<_>>(),
        [present(true, Completion::Now)]
    );
    assert_eq!(a.apply(&changes[0], 0, 1100), Applied::Updated);
    assert_eq!(a.apply(&changes[0], 0, 1100), Applied::Older);
    assert_eq!((a.downloaded(1), a.content(1100)[&key]), (1, (true, true)));
    a.announce(peer, true, AnnounceEvent::None, 1200);
    let changes = a.published(1200);
    assert_eq!(changes.len(), 1, "it was the other node's");
    assert_eq!(b.apply(&changes[0], 0, 1200), Applied::Updated);
    assert_eq!((a.downloaded(1), b.downloaded(1)), (1, 1));
}

#[test]
fn a_peer_that_stops_at_one_node_and_goes_on_at_another_stays() {
    let (mut a, mut b) = (Node::new(1, AGE), Node::new(2, AGE));
    let peer = (1, address(1));
    a.announce(peer, false, AnnounceEvent::Started, 1000);
    a.announce(peer, false, AnnounceEvent::Stopped, 1610);
    b.announce(peer, true, AnnounceEvent::None, 1615);
    let left = a.published(1616).into_iter().find(|change| !change.kind.is_present()).unwrap();
    assert_eq!(left.age, 6);
    let _ = b.published(1616);
    // Both in the same 16 seconds.
    assert_eq!(b.apply(&left, 8, 1616), Applied::Reasserted);
    let told = b.published(1616);
    assert_eq!(told.iter().map(|change| change.kind).collect::<Vec<_>>(), [present(true, Completion::None)]);
    assert_eq!(a.apply(&told[0], 0, 1617), Applied::Added);
    // The same with another role: others have heard of the one, and not of the other.
    b.announce(peer, true, AnnounceEvent::None, 1650);
    assert!(b.published(1650).is_empty());
    let leecher = Change { kind: present(false, Completion::None), age: 0, ..told[0] };
    assert_eq!(b.apply(&leecher, 20, 1655), Applied::Reasserted);
    assert_eq!(b.published(1655).iter().map(|change| change.kind).collect::<Vec<_>>(), [told[0].kind]);
    b.announce(peer, true, AnnounceEvent::None, 1700);
    assert_eq!(b.apply(&left, 100, 1710), Applied::Reasserted, "it has announced since");
    assert_eq!(b.published(1710).len(), 1, "which others need not know");
    let stopped = Change { kind: ChangeKind::Left, age: 0, ..told[0] };
    assert_eq!(b.apply(&stopped, 0, 1800), Applied::Removed, "it stopped later, at another node");
    assert_eq!(b.apply(&stopped, 0, 1800), Applied::Absent);
    assert!(b.published(1800).is_empty());
}

#[test]
fn a_peer_that_stops_at_another_node_at_once_has_left() {
    let (mut a, mut b, mut c) = (Node::new(1, AGE), Node::new(2, AGE), Node::new(3, AGE));
    let peer = (1, address(1));
    let kinds = |told: &[Change]| told.iter().map(|change| change.kind).collect::<Vec<_>>();
    // Ticks have 16 seconds.
    a.announce(peer, false, AnnounceEvent::Started, 992);
    let heard = a.published(992);
    for node in [&mut b, &mut c] {
        assert_eq!(node.apply(&heard[0], 0, 992), Applied::Added);
    }
    b.announce(peer, false, AnnounceEvent::Stopped, 994);
    let left = b.published(994);
    assert_eq!(kinds(&left), [ChangeKind::LeftAfter], "it is told at once");
    for node in [&mut a, &mut c] {
        assert_eq!(node.apply(&left[0], 0, 994), Applied::Removed);
    }
    assert!(a.published(994).is_empty());
    // It is back at the first node, in the same 16 seconds.
    a.announce(peer, true, AnnounceEvent::Started, 996);
    let back = a.published(996);
    for node in [&mut b, &mut c] {
        assert_eq!(node.apply(&back[0], 0, 996), Applied::Added);
    }
    // Who stops where nobody has told of the announce yet stays, as the order is not known.
    let mut d = Node::new(4, AGE);
    d.announce(peer, false, AnnounceEvent::Stopped, 997);
    let left = d.published(997);
    assert_eq!(kinds(&left), [ChangeKind::Left]);
    assert_eq!(a.apply(&left[0], 0, 997), Applied::Reasserted);
    assert_eq!(a.published(997).len(), 1);
    // What is late is not the last word: it may be back by then.
    b.announce(peer, false, AnnounceEvent::Stopped, 998);
    let left = b.published(998);
    a.announce(peer, true, AnnounceEvent::Started, 1000);
    assert_eq!(a.apply(&left[0], 2, 1001), Applied::Reasserted, "it has announced since");
    assert_eq!(kinds(&a.published(1001)), [present(true, Completion::None)], "which the others are told");
    // Two nodes that both have heard it last.
    let peer = (2, address(2));
    for node in [&mut a, &mut b] {
        node.announce(peer, false, AnnounceEvent::Started, 1200);
    }
    let _ = (a.published(1200), b.published(1200));
    a.announce(peer, false, AnnounceEvent::Stopped, 1201);
    let left = a.published(1201);
    assert_eq!((kinds(&left), b.apply(&left[0], 1, 1202)), (vec![ChangeKind::LeftAfter], Applied::Removed));
}

#[test]
fn changes_that_must_not_be_stored_are_refused() {
    let mut node = Node::new(1, AGE);
    let change = |address: &str, kind| Change {
        info_hash: InfoHash([1; 20]),
        address: address.parse().unwrap(),
        kind,
        age: 0,
    };
    let new = present(false, Completion::None);
    for address in ["198.18.0.1:0", "[::ffff:198.18.0.1]:80", "0.0.0.0:80", "[::]:80"] {
        assert_eq!(node.apply(&change(address, new), 0, 9), Applied::Refused, "{address}");
    }
    assert_eq!(
        node.apply(&change("198.18.0.1:1", new), 90_000, 100_000),
        Applied::Older,
        "it would have expired"
    );
    assert_eq!(node.apply(&change("198.18.0.1:1", new), 900, 100_000), Applied::Added);
}

fn torrents(saved: &Saved) -> Vec<(Family, Vec<u8>)> {
    let bytes = |(torrent, peers): &(_, Vec<_>)| {
        let mut bytes = Vec::new();
        write_torrent(torrent, &mut bytes);
        peers.iter().for_each(|peer| write_peer(peer, &mut bytes));
        bytes
    };
    saved.0.iter().map(|entry| (entry.0.family, bytes(entry))).collect()
}

fn load(node: &mut Node, saved: &Saved, gap: u32, now: u32) -> u64 {
    let mut added = 0;
    for (family, bytes) in torrents(saved) {
        let torrent = Torrent::take(family, &mut bytes.as_slice()).unwrap();
        let loaded = node.tracker.load(torrent, (gap, AGE), Seconds(now), Origin::Other);
        added += loaded.restored.added;
    }
    added
}

#[test]
fn a_node_takes_in_what_another_one_has() {
    let (mut donor, mut node) = (Node::new(1, AGE), Node::new(2, AGE));
    for number in 0..600 {
        donor.announce((1, address(number)), false, AnnounceEvent::None, 1000);
        donor.announce((u32::from(number), address(number)), true, AnnounceEvent::None, 3000);
    }
    donor.announce((1, address(2)), true, AnnounceEvent::Completed, 3000);
    donor.announce((1, address(4)), true, AnnounceEvent::Completed, 3000);
    let stopped = (1, address(5));
    let change = |kind, number| Change { info_hash: info_hash(1), address: address(number), kind, age: 0 };
    node.tracker.begin_loading();
    node.apply(&change(ChangeKind::Left, 5), 0, 3100);
    node.apply(&change(present(true, Completion::Now), 2), 100, 3100);
    node.announce((1, address(7)), true, AnnounceEvent::None, 3100);
    let all = donor.save(SaveFilter::All, 3010);
    load(&mut node, &all, 90, 3100);
    load(&mut node, &all, 95, 3105);
    node.tracker.end_loading();
    let mut expected = donor.content(3010);
    assert_eq!(expected.remove(&(info_hash(1), stopped.1)), Some((false, false)), "it has stopped meanwhile");
    expected.values_mut().for_each(|(_, remote)| *remote = true);
    expected.insert((info_hash(1), address(7)), (true, false));
    assert!(node.content(3105) == expected);
    assert_eq!((donor.downloaded(1), node.downloaded(1)), (3, 3), "counted once");
    // Nothing of it is this node's own, except for the peer that it has heard itself.
    assert_eq!(load(&mut Node::new(3, AGE), &node.save(SaveFilter::Own { max_age: AGE }, 3105), 0, 3105), 1);
}

#[test]
fn passes_hand_out_own_peers_by_age_and_parts() {
    let mut node = Node::new(1, AGE);
    for number in 0..900 {
        let (torrent, now) = (u32::from(number % 40), 1000 + u32::from(number));
        node.announce((torrent, address(number)), false, AnnounceEvent::None, now);
        node.announce((100, address(number)), false, AnnounceEvent::None, now);
        let kind = present(false, Completion::None);
        let other = Change { info_hash: info_hash(100), address: address(number + 1000), kind, age: 0 };
        node.apply(&other, 0, now);
    }
    let own = node.save(SaveFilter::Own { max_age: 300 }, 1900);
    let peers: Vec<_> = own.0.iter().flat_map(|(_, peers)| peers).collect();
    assert!(peers.iter().all(|peer| !peer.remote && peer.age <= 300));
    assert!((2 * 290..=2 * 320).contains(&peers.len()), "{}", peers.len());
    let hasher = PartHasher::new(&HashKey([3; 16]));
    let mut parts = PartSet::new(hasher);
    (0..128).for_each(|part| parts.add(part));
    let rest = PartSet::from_bitmap(hasher, &parts.bitmap().map(|byte| !byte));
    let [some, others] = [parts, rest].map(|parts| {
        let saved = node.save(SaveFilter::Parts(&parts), 1900);
        assert!(saved.0.iter().all(|(torrent, _)| parts.contains(&torrent.info_hash)));
        saved.0.iter().map(|(_, peers)| peers.len()).sum::<usize>()
    });
    assert!(some > 0 && others > 0);
    assert_eq!(some + others, node.content(1900).len());
}

#[test]
fn bytes_of_any_kind_are_records_or_are_refused() {
    for seed in 0..200_u64 {
        properties::check_bytes(&properties::random_bytes(seed));
    }
}
