//! Peers that have left, and are told of again.

use std::collections::BTreeSet;

use aquatic_common::{AnnounceEvent, Family, Seconds};
use aquatic_tracker::replication::{
    Applied, Change, ChangeKind, Completion, MAX_DEPARTED, record_length, remote_grace, take_record,
};

use crate::AGE;
use crate::node::{Node, address, info_hash};

/// Those that are told of again, with the seconds since they left.
fn told_again(node: &mut Node, max_age: u32, now: u32) -> Vec<(Change, u32)> {
    let (mut cursor, is_lost) = node.tracker.begin_telling_departed(max_age, Seconds(now));
    assert!(!is_lost);
    let mut all = Vec::new();
    while let Some(told) = node.tracker.tell_departed(&mut cursor, Seconds(now), 7) {
        let mut records = told.records.as_slice();
        assert!(records.len() <= 7 * record_length(told.family) && told.until <= Seconds(now));
        while !records.is_empty() {
            let change = take_record(told.family, &mut records).unwrap();
            assert_eq!((change.kind, Family::of(change.address.ip())), (ChangeKind::Left, told.family));
            all.push((change, Seconds(now) - told.until + u32::from(change.age)));
        }
    }
    all
}

#[test]
fn those_that_have_left_are_told_of_again_with_their_age_unless_they_are_back() {
    let mut node = Node::new(1, AGE);
    for number in 0..1000_u16 {
        let now = 1000 + u32::from(number);
        node.announce((1, address(number)), false, AnnounceEvent::Started, now);
        node.announce((1, address(number)), false, AnnounceEvent::Stopped, now);
    }
    for number in (0..1000).step_by(10) {
        node.announce((1, address(number)), false, AnnounceEvent::Started, 2500);
    }
    let mut told = told_again(&mut node, u32::MAX, 3000);
    told.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
    let expected = (0..1000).filter(|number| number % 10 != 0);
    let expected: Vec<_> = expected.map(|number| (address(number), 2000 - u32::from(number))).collect();
    let found: Vec<_> = told.iter().map(|(change, age)| (change.address, *age)).collect();
    assert_eq!(found, expected);
    assert!(told.iter().all(|(change, _)| change.info_hash == info_hash(1)));
    // Those that left before may come along, but not from long before.
    let young = told_again(&mut node, 1200, 3000);
    assert!((180..=180 + 200).contains(&young.len()), "{}", young.len());
    assert!(young.iter().all(|(_, age)| *age <= 1200 + 200));

    // Who comes back to another node after that stays there.
    let mut other = Node::new(2, AGE);
    other.announce((1, address(1)), false, AnnounceEvent::Started, 2000);
    other.announce((1, address(2)), false, AnnounceEvent::Started, 900);
    let _ = other.published(2000);
    for (change, age) in &told {
        other.apply(change, *age, 3000);
    }
    // The others may have forgotten it by that.
    let again = other.tracker.take_published(Seconds(3000)).unwrap();
    let change = take_record(again.family, &mut again.records.as_slice()).unwrap();
    assert_eq!((change.address, again.records.len()), (address(1), record_length(again.family)));
    assert!(matches!(change.kind, ChangeKind::Present { seeder: false, .. }));
    let age = Seconds(3000) - again.until + u32::from(change.age);
    assert!((970..=1000).contains(&age), "{age}");
    assert_eq!(other.tracker.take_published(Seconds(3000)), None);
    assert_eq!(other.content(3000).keys().map(|key| key.1).collect::<Vec<_>>(), [address(1)]);
    assert_eq!(other.apply(&told[0].0, told[0].1, 3000), Applied::Reasserted);

    // After some time nobody knows them in any case.
    let now = 2000 + AGE + remote_grace(AGE) + 400;
    for _ in 0..20 {
        node.announce((2, address(1)), false, AnnounceEvent::Stopped, now);
    }
    assert_eq!(told_again(&mut node, u32::MAX, now).len(), 20);
}

#[test]
fn those_whom_a_node_brings_back_that_has_not_heard_of_it_are_told_of_and_removed() {
    let mut node = Node::new(1, AGE);
    let present = ChangeKind::Present { seeder: false, completion: Completion::None };
    let change = |number| Change { info_hash: info_hash(1), address: address(number), kind: present, age: 0 };
    for number in 0..3 {
        node.apply(&change(number), 0, 1000);
        node.announce((1, address(number)), false, AnnounceEvent::Stopped, 1100);
    }
    // As when the node that heard them last is pulled from after an outage; the last has announced there
    // since.
    for (number, heard) in [(0, 1000), (1, 1000), (2, 1150)] {
        assert_eq!(node.apply(&change(number), 1200 - heard, 1200), Applied::Added);
    }
    let told = told_again(&mut node, u32::MAX, 1200);
    let told: BTreeSet<_> = told.iter().map(|(change, _)| change.address).collect();
    assert_eq!(told, BTreeSet::from([address(0), address(1)]));
    assert_eq!(node.content(1200).keys().map(|key| key.1).collect::<Vec<_>>(), [address(2)]);
}

#[test]
fn those_that_announce_to_another_node_soon_after_they_have_left_stay() {
    let (mut node, mut other) = (Node::new(1, AGE), Node::new(2, AGE));
    for number in 0..40 {
        node.announce((1, address(number)), false, AnnounceEvent::Started, 900);
        node.announce((1, address(number)), false, AnnounceEvent::Stopped, 1000 + u32::from(number) % 20);
    }
    let _ = node.published(1020);
    for number in 0..40 {
        other.announce((1, address(number)), false, AnnounceEvent::Started, 1002 + u32::from(number) % 20);
    }
    for change in other.published(1021) {
        assert_eq!(node.apply(&change, 0, 1021), Applied::Added);
    }
    for now in [1022, 1030, 1100, 1300] {
        assert!(told_again(&mut node, u32::MAX, now).is_empty(), "{now}");
        assert_eq!(node.content(now).len(), 40, "{now}");
    }
}

#[test]
fn what_is_remembered_of_those_that_have_left_is_bounded() {
    let mut node = Node::new(1, AGE);
    let number_of = |bytes: usize| bytes as u32 / 28;
    let count = number_of(MAX_DEPARTED) + 50_000;
    for number in 0..count {
        let address = (std::net::Ipv4Addr::from_bits(0xc612_0000 + number), 6881).into();
        node.announce((1, address), false, AnnounceEvent::Stopped, 1000 + number / 200);
        let _ = node.published(1000 + number / 200);
    }
    let now = Seconds(1000 + count / 200);
    let (mut cursor, is_lost) = node.tracker.begin_telling_departed(u32::MAX, now);
    assert!(is_lost);
    assert!(!node.tracker.begin_telling_departed(100, now).1, "the last ones are there");
    let mut bytes = 0;
    let first = node.tracker.tell_departed(&mut cursor, now, 1 << 20).unwrap();
    bytes += first.records.len();
    // Some are forgotten meanwhile, among them those that would be next.
    for number in 0..50_000 {
        let address = (std::net::Ipv4Addr::from_bits(0xc712_0000 + number), 6881).into();
        node.announce((1, address), false, AnnounceEvent::Stopped, now.0);
    }
    while let Some(told) = node.tracker.tell_departed(&mut cursor, now, 1 << 20) {
        bytes += told.records.len();
    }
    assert!((MAX_DEPARTED * 9 / 10..=MAX_DEPARTED).contains(&bytes), "{bytes}");
}
