//! Nodes that divide the parts of the hash space among themselves.

use std::collections::BTreeMap;

use aquatic_cluster::hello::Holds;
use aquatic_cluster::machine::{ESTABLISHED_AFTER, Holder};
use aquatic_cluster::nodes::GONE_AFTER;
use aquatic_cluster::parts::Bitmap;
use aquatic_cluster::pull::What;
use aquatic_cluster::{Cluster, Notice};

use crate::nodes::Bus;
use crate::properties::node_that_holds;

fn start(bus: &mut Bus, run: u8, name: &str) {
    start_with(bus, run, name, 2);
}

fn start_with(bus: &mut Bus, run: u8, name: &str, replicas: u8) {
    let mut started = node_that_holds(run, name, bus.now, Holds::Parts(replicas));
    started.connected(bus.now);
    bus.nodes.insert(run, started);
}

/// Parts that were pulled from a node.
fn pulled(bus: &Bus, run: u8) -> Bitmap {
    let of_parts = bus.passes.iter().filter(|(donor, _)| *donor == run);
    of_parts.fold(Bitmap::default(), |all, (_, what)| match what {
        What::Parts(parts) => all.with(&Bitmap(*parts)),
        What::All | What::Own { .. } => all,
    })
}

fn common(one: &Bitmap, other: &Bitmap) -> Bitmap {
    one.without(&one.without(other))
}

fn each_part_has_holders(bus: &mut Bus, replicas: usize) {
    let held: BTreeMap<u8, Bitmap> = bus.nodes.iter().map(|(run, node)| (*run, node.own_parts())).collect();
    for part in 0..=u8::MAX {
        let holders = held.values().filter(|parts| parts.contains(part)).count();
        assert_eq!(holders, replicas.min(held.len()), "part {part}");
        for node in bus.nodes.values() {
            let known: Vec<Holder> = node.holders(part).collect();
            assert_eq!(known.len(), holders);
            assert_eq!(known.contains(&Holder::Own), node.own_parts().contains(part));
            let asked = node.asked(part);
            assert_eq!(asked.len(), holders - usize::from(node.own_parts().contains(part)));
        }
    }
}

#[test]
fn parts_move_to_and_from_nodes_that_come_and_go() {
    let mut bus = Bus::new();
    start(&mut bus, 1, "a");
    start(&mut bus, 2, "b");
    assert_eq!((bus.of(1).members(), bus.of(1).kept_parts()), (0, Bitmap::ALL));
    bus.run(ESTABLISHED_AFTER + 10_000);
    assert_eq!((bus.of(1).own_parts(), bus.of(2).own_parts()), (Bitmap::ALL, Bitmap::ALL));
    bus.passes.clear();
    start(&mut bus, 3, "c");
    bus.run(4_500);
    assert_eq!((bus.of(3).members(), bus.of(1).members()), (2, 2), "it listens first");
    bus.run(15_500);
    let own = bus.of(3).own_parts();
    assert!((130..210).contains(&own.len()), "two of three hold a part: {}", own.len());
    assert_eq!(pulled(&bus, 1).with(&pulled(&bus, 2)), own, "what it holds is pulled");
    assert!(bus.of(3).missing_parts().is_empty());
    each_part_has_holders(&mut bus, 2);
    for part in 0..=u8::MAX {
        let asked = bus.of(1).asked(part);
        let number = |run: u8| bus.nodes[&1].nodes().iter().find(|node| node.run.0[0] == run).unwrap().number;
        let (old, new) = (number(2), number(3));
        assert!(asked.len() < 2 || asked == [old, new], "the one that has just started comes last");
    }
    assert_eq!(bus.of(1).kept_parts(), Bitmap::ALL, "c may still pull them");
    bus.run(65_000);
    for run in 1..=3 {
        assert_eq!(bus.of(run).kept_parts(), bus.of(run).own_parts());
    }
    bus.passes.clear();
    let (now, before) = (bus.now, bus.of(1).own_parts());
    bus.of(2).leave(now);
    bus.settle();
    bus.nodes.remove(&2);
    bus.run(20_000);
    assert_eq!(bus.of(1).own_parts(), Bitmap::ALL);
    let missing = (Bitmap::ALL.without(&own), Bitmap::ALL.without(&before));
    assert_eq!((pulled(&bus, 1), pulled(&bus, 3)), missing, "only what was missing moves");
    each_part_has_holders(&mut bus, 2);
}

#[test]
fn parts_are_pulled_from_those_who_held_them() {
    let mut bus = Bus::new();
    for (run, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")] {
        start(&mut bus, run, name);
    }
    bus.run(100_000);
    each_part_has_holders(&mut bus, 2);
    for lost in [4, 2] {
        let before: BTreeMap<u8, Bitmap> =
            bus.nodes.iter().map(|(run, node)| (*run, node.own_parts())).collect();
        bus.passes.clear();
        bus.nodes.remove(&lost);
        bus.run(GONE_AFTER + 10_000);
        each_part_has_holders(&mut bus, 2);
        let mut all = Bitmap::default();
        for (run, held) in before.iter().filter(|(run, _)| **run != lost) {
            let moved = pulled(&bus, *run);
            assert!(moved.without(held).is_empty(), "{run} has not held what was pulled from it");
            assert!(common(&moved, &all).is_empty(), "once");
            all = all.with(&moved);
            assert!(held.without(&bus.of(*run).own_parts()).is_empty(), "nothing else moves");
        }
        assert_eq!(all, before[&lost], "what it held, and no other part");
        bus.run(100_000);
    }
}

#[test]
fn a_node_without_nats_answers_for_all_and_keeps_that_for_a_while_afterwards() {
    let mut bus = Bus::new();
    for (run, name) in [(1, "a"), (2, "b"), (3, "c")] {
        start_with(&mut bus, run, name, 1);
    }
    bus.run(100_000);
    each_part_has_holders(&mut bus, 1);
    let own = bus.of(1).own_parts();
    let mut alone = bus.nodes.remove(&1).unwrap();
    alone.disconnected(bus.now);
    let tick = |alone: &mut Cluster, bus: &mut Bus, millis: u64| {
        for _ in 0..millis / 100 {
            bus.run(100);
            let (now, status) = (bus.now, bus.status(1));
            alone.tick(now, &status);
        }
    };
    tick(&mut alone, &mut bus, 5_000);
    assert_eq!(alone.own_parts(), own, "it may be short");
    tick(&mut alone, &mut bus, 10_000);
    assert_eq!((alone.own_parts(), alone.members()), (Bitmap::ALL, 1));
    assert!(alone.missing_parts().is_empty());
    while alone.next_action().is_some() {}
    each_part_has_holders(&mut bus, 1);
    bus.passes.clear();
    alone.connected(bus.now);
    bus.nodes.insert(1, alone);
    bus.run(2_000);
    assert_eq!(bus.of(1).own_parts(), Bitmap::ALL, "not all may have been heard");
    bus.run(18_000);
    assert_eq!((bus.of(1).own_parts(), bus.of(1).kept_parts()), (own, Bitmap::ALL));
    each_part_has_holders(&mut bus, 1);
    assert!((1..=3).all(|run| pulled(&bus, run).is_empty()), "each has kept its parts");
    bus.run(60_000);
    assert_eq!(bus.of(1).kept_parts(), own);
}

#[test]
fn nodes_of_another_mode_hold_no_parts_and_are_told_of() {
    let mut bus = Bus::new();
    start_with(&mut bus, 1, "a", 2);
    start_with(&mut bus, 2, "b", 3);
    bus.start_holding(3, "c", Holds::Everything);
    bus.run(ESTABLISHED_AFTER + 10_000);
    assert_eq!((bus.of(1).members(), bus.of(1).own_parts()), (1, Bitmap::ALL));
    assert_eq!((bus.of(3).members(), bus.of(3).kept_parts()), (0, Bitmap::ALL));
    let mut told: Vec<(String, Holds)> = bus.notices[&1]
        .iter()
        .filter_map(|notice| {
            let Notice::OtherMode { name, holds } = notice else { return None };
            Some((name.as_str().to_owned(), *holds))
        })
        .collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(told, [("b".to_owned(), Holds::Parts(3)), ("c".to_owned(), Holds::Everything)]);
}

#[test]
fn a_mode_is_changed_node_by_node_and_no_part_is_lost() {
    let mut bus = Bus::new();
    for (run, name) in [(1, "a"), (2, "b"), (3, "c")] {
        bus.start_holding(run, name, Holds::Everything);
    }
    bus.run(20_000);
    bus.nodes.remove(&1);
    start(&mut bus, 4, "a");
    bus.passes.clear();
    bus.run(20_000);
    let by_others = pulled(&bus, 2).with(&pulled(&bus, 3));
    assert_eq!(by_others, Bitmap::ALL, "from a node that holds everything");
    bus.nodes.remove(&2);
    start(&mut bus, 5, "b");
    bus.passes.clear();
    bus.run(20_000);
    assert_eq!(pulled(&bus, 4), Bitmap::ALL, "from the one that has changed");
    bus.nodes.remove(&3);
    start(&mut bus, 6, "c");
    bus.run(20_000);
    each_part_has_holders(&mut bus, 2);
    // Another number of nodes for each part.
    for (old, new, name) in [(4, 7, "a"), (5, 8, "b"), (6, 9, "c")] {
        bus.nodes.remove(&old);
        start_with(&mut bus, new, name, 1);
        bus.passes.clear();
        bus.run(20_000);
        let parts = bus.passes.iter().fold(Bitmap::default(), |all, (_, what)| match what {
            What::Parts(parts) => all.with(&Bitmap(*parts)),
            What::All | What::Own { .. } => all,
        });
        assert_eq!(bus.of(new).own_parts().without(&parts), Bitmap::default(), "by {name}");
    }
    // And back: each node tells what it holds.
    bus.nodes.remove(&7);
    bus.start_holding(10, "a", Holds::Everything);
    bus.passes.clear();
    bus.run(20_000);
    let all = What::Parts(Bitmap::ALL.0);
    let mut donors: Vec<u8> =
        bus.passes.iter().filter(|(_, what)| *what == all).map(|(donor, _)| *donor).collect();
    donors.sort_unstable();
    assert_eq!(donors, [8, 9], "also what they hold for others");
    bus.nodes.remove(&8);
    bus.start_holding(11, "b", Holds::Everything);
    bus.passes.clear();
    bus.run(20_000);
    assert!(bus.passes.contains(&(10, What::All)), "{:?}", bus.passes);
}

#[test]
fn parts_of_a_node_that_is_started_again_with_another_mode_are_waited_for() {
    let mut bus = Bus::new();
    start_with(&mut bus, 1, "a", 1);
    start_with(&mut bus, 2, "b", 1);
    bus.run(20_000);
    let lost = bus.of(1).own_parts();
    let now = bus.now;
    bus.of(1).leave(now);
    bus.settle();
    bus.nodes.remove(&1);
    bus.run(4_000);
    bus.passes.clear();
    start_with(&mut bus, 3, "a", 2);
    bus.run(20_000);
    assert_eq!(pulled(&bus, 3), lost, "once it is there, from its saved state");
    assert_eq!(bus.of(2).missing_parts(), Bitmap::default());
    // Nobody comes: there is nothing to wait for.
    bus.nodes.remove(&3);
    start_with(&mut bus, 4, "c", 1);
    bus.run(20_000);
    bus.nodes.remove(&4);
    bus.run(60_000);
    assert_eq!(bus.of(2).missing_parts(), Bitmap::default());
}
