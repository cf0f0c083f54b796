//! A cluster in one process: the real state machine and codec, real trackers, clients that move between
//! nodes, and a network that loses, delays, repeats and reorders. Nodes end and start again, lose their
//! connection, and are divided. What nodes store is compared with a naive model.
//!
//! A failure prints its seed; `AQUATIC_CLUSTER_SEED=… cargo test -p aquatic_cluster --test simulation`
//! repeats it. `AQUATIC_CLUSTER_SEEDS=100` runs that many seeds of up to 50 nodes, which takes minutes in a
//! release build.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

mod node;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use aquatic_cluster::parts::Bitmap;
use aquatic_common::{AnnounceEvent, InfoHash};
use aquatic_swarm::{Announce, Families};
use node::part_hasher;
use world::{Plan, World};

/// Seeds of simulations that once failed come first.
const SEEDS: [u64; 3] = [1, 2, 3];

const MINUTE: u64 = 60_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

fn plan(seed: u64, nodes: usize) -> Plan {
    Plan {
        seed,
        nodes,
        clients: 200,
        torrents: 10,
        max_peer_age: 600,
        interval: 4 * MINUTE,
        habits: [150, 100, 100, 50],
        lost: 20,
        repeated: 20,
        delayed: 10,
        replicas: None,
        failures: true,
        step: 100,
    }
}

/// Everything fails for a while; then nothing does, and all nodes come to know what is true.
fn survive(plan: Plan, minutes: u64) {
    let mut world = World::new(plan);
    for _ in 0..minutes {
        world.run(MINUTE);
        world.check_always();
    }
    world.calm();
    // Every client announces once more, and what is missing is pulled.
    world.run(plan.interval + 3 * MINUTE);
    world.check_always();
    world.check_converged();
    let (counted, completed) = world.downloads();
    // A pull brings the number of another node, and a batch that is under way meanwhile can add to it again.
    let most = completed + completed / 10 + 2;
    assert!(counted.iter().all(|counted| *counted <= most), "{counted:?} of {completed} downloads");
    world.end_clients();
    world.plan.step = 1000;
    world.run(u64::from(2 * plan.max_peer_age) * 1000);
    assert_eq!(world.stored(), 0, "nobody keeps peers that are gone");
}

fn with_seed(seed: u64, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("AQUATIC_CLUSTER_SEED={seed}");
        resume_unwind(panic);
    }
}

#[test]
fn nodes_converge_whatever_fails() {
    if let Some(seed) = number("AQUATIC_CLUSTER_SEED") {
        return survive(plan(seed, seed_nodes(seed)), 10);
    }
    for seed in SEEDS {
        with_seed(seed, || survive(plan(seed, 4), 5));
    }
    for seed in 1000..1000 + number("AQUATIC_CLUSTER_SEEDS").unwrap_or(0) {
        with_seed(seed, || survive(plan(seed, seed_nodes(seed)), 10));
    }
}

/// Nodes that divide the torrents: whatever fails, afterwards each part is held by as many nodes as wanted,
/// those have all living peers of it, and any node's clients are answered.
fn survive_divided(plan: Plan, minutes: u64) {
    let mut world = World::new(plan);
    for _ in 0..minutes {
        world.run(MINUTE);
        world.check_always();
    }
    world.calm();
    world.run(plan.interval + 4 * MINUTE);
    world.check_always();
    world.check_holders();
    world.check_converged();
    let before = world.forwarded();
    world.run(2 * MINUTE);
    let after = world.forwarded();
    let (empty, counted) = (after[0] - before[0], after[1] - before[1]);
    // Messages take up to 600 ms there and back, or seconds, and a request has 500 ms.
    let forwards = plan.replicas.is_some_and(|replicas| usize::from(replicas) < plan.nodes);
    assert!(
        counted > 20 && counted > empty || !forwards,
        "{empty} of {counted} announces were answered without counts"
    );
    world.end_clients();
    world.plan.step = 1000;
    world.run(u64::from(2 * plan.max_peer_age) * 1000);
    assert_eq!(world.stored(), 0, "nobody keeps peers that are gone");
}

#[test]
fn divided_nodes_converge_whatever_fails() {
    let plan = |seed: u64| {
        let nodes = if seed < 1000 { 5 } else { seed_nodes(seed) };
        Plan { torrents: 60, replicas: Some(1 + (seed % 3) as u8), ..plan(seed, nodes) }
    };
    if let Some(seed) = number("AQUATIC_CLUSTER_SEED") {
        return survive_divided(plan(seed), 10);
    }
    for seed in SEEDS {
        with_seed(seed, || survive_divided(plan(seed), 5));
    }
    for seed in 1000..1000 + number("AQUATIC_CLUSTER_SEEDS").unwrap_or(0) {
        with_seed(seed, || survive_divided(plan(seed), 10));
    }
}

/// Without losses each peer is known to its holders at once, and nothing is asked of nodes that do not hold
/// it.
#[test]
fn divided_nodes_agree_within_seconds_if_nothing_is_lost() {
    let calm = Plan {
        torrents: 60,
        replicas: Some(2),
        lost: 0,
        delayed: 0,
        failures: false,
        habits: [150, 100, 100, 0],
        ..plan(11, 5)
    };
    let mut world = World::new(calm);
    for _ in 0..10 {
        world.run(MINUTE);
        world.check_always();
        world.check_holders();
        let others = world.check_converged();
        assert!(others.iter().all(|others| *others <= 3), "{others:?}");
    }
    world.end_clients();
    world.plan.step = 1000;
    world.run(u64::from(2 * calm.max_peer_age) * 1000);
    assert_eq!(world.stored(), 0);
}

/// Nodes that divide the torrents, without losses and without clients but those of the test.
fn divided(nodes: usize) -> World {
    let (replicas, habits) = (Some(1), [0; 4]);
    let calm = Plan { replicas, habits, clients: 0, lost: 0, delayed: 0, failures: false, ..plan(5, nodes) };
    World::new(calm)
}

fn announce(torrent: u8, event: AnnounceEvent) -> Announce {
    let address = ([198, 18, 0, 1], 6881).into();
    let info_hash = InfoHash([torrent; 20]);
    Announce { info_hash, address, seeder: false, event, numwant: 10, families: Families::Own }
}

#[test]
fn a_node_that_loses_the_only_holder_soon_after_its_start_answers_by_itself() {
    let mut world = divided(2);
    world.stop(1);
    world.run(30_000);
    world.start(1);
    world.run(3_000);
    let peer = announce(1, AnnounceEvent::Started);
    let now = world.now;
    assert_eq!(world.node(1).announce(&peer, now), None, "the other node holds it");
    world.run(500);
    world.stop(0);
    world.run(1_000);
    let now = world.now;
    assert!(world.node(1).announce(&peer, now).is_some(), "there is nobody else");
}

#[test]
fn a_peer_that_leaves_while_its_part_is_only_kept_is_gone_when_the_part_comes_back() {
    let mut world = divided(3);
    world.stop(2);
    world.run(30_000);
    let before = world.node(0).cluster.own_parts();
    let now = world.now;
    for torrent in 0..100 {
        let _ = world.node(1).announce(&announce(torrent, AnnounceEvent::Started), now);
    }
    world.run(2_000);
    world.start(2);
    world.run(20_000);
    let moved = before.without(&world.node(0).cluster.own_parts());
    assert!(moved.len() > 30 && world.node(0).cluster.kept_parts() == Bitmap::ALL);
    let is_moved = |torrent: &u8| moved.contains(part_hasher().part(&InfoHash([*torrent; 20])));
    let (leaving, staying) = (0..100).filter(is_moved).partition::<Vec<u8>, _>(|torrent| torrent % 2 == 0);
    assert!(leaving.len() > 3 && staying.len() > 3);
    let now = world.now;
    for torrent in &leaving {
        let _ = world.node(1).announce(&announce(*torrent, AnnounceEvent::Stopped), now);
    }
    world.run(5_000);
    world.stop(2);
    world.run(5_000);
    assert_eq!(world.node(0).cluster.own_parts(), before);
    let now = world.now;
    let known = world.node(0).content(now).0;
    let is_known = |torrent: &&u8| known.keys().any(|(info_hash, _)| *info_hash == InfoHash([**torrent; 20]));
    assert_eq!(leaving.iter().filter(is_known).count(), 0);
    assert_eq!(staying.iter().filter(is_known).count(), staying.len());
}

/// Two to fifty nodes.
fn seed_nodes(seed: u64) -> usize {
    if seed < 1000 { 4 } else { 2 + (seed * seed % 49) as usize }
}

/// With a network that loses nothing, nodes agree exactly, within seconds.
#[test]
fn nodes_agree_within_seconds_if_nothing_is_lost() {
    for seed in 0..2 {
        with_seed(seed, || {
            let calm =
                Plan { lost: 0, delayed: 0, failures: false, habits: [150, 100, 100, 0], ..plan(seed, 5) };
            let mut world = World::new(calm);
            for _ in 0..15 {
                world.run(MINUTE);
                world.check_always();
                let others = world.check_converged();
                // Those that have stopped within the last second may still be known.
                assert!(others.iter().all(|others| *others <= 2), "{others:?}");
            }
            world.end_clients();
            world.run(6_000);
            let (counted, completed) = world.downloads();
            assert!(completed > 20);
            assert_eq!(counted, vec![completed; 5], "each download is counted once, by everybody");
        });
    }
}

/// Peers that have left while the network was divided are known to nobody soon after it has healed, long
/// before they would be too old.
#[test]
fn peers_that_left_while_the_network_was_divided_are_forgotten() {
    for replicas in [None, Some(2)] {
        let calm = Plan {
            replicas,
            torrents: 40,
            lost: 0,
            delayed: 0,
            failures: false,
            max_peer_age: 1200,
            clients: 600,
            habits: [150, 100, 300, 0],
            ..plan(31, 4)
        };
        let mut world = World::new(calm);
        world.run(3 * MINUTE);
        world.divide(&[0, 0, 1, 1]);
        world.run(5 * MINUTE);
        let divided = world.others();
        assert!(replicas.is_some() || divided.iter().all(|others| *others > 10), "{divided:?}");
        world.divide(&[0; 4]);
        world.run(MINUTE);
        world.check_always();
        let others = world.check_converged();
        // Those that have stopped within the last second may still be known, and those whose announce and
        // stop were in the same 16 seconds.
        assert!(others.iter().all(|others| *others <= 3), "{others:?} after {divided:?}");
    }
}

/// What is published follows what changes, not what is announced, and does not depend on the number of nodes.
#[test]
fn traffic_of_a_node_grows_with_its_own_changes_only() {
    let per_announce = [2, 6].map(|nodes| {
        let quiet = Plan { lost: 0, delayed: 0, failures: false, clients: 40 * nodes, ..plan(7, nodes) };
        let mut world = World::new(quiet);
        world.run(20 * MINUTE);
        let (traffic, announces) = world.traffic();
        assert!(traffic.changes > 0 && traffic.changes <= announces, "{traffic:?}");
        traffic.changes as f64 / announces as f64
    });
    assert!((per_announce[0] / per_announce[1] - 1.0).abs() < 0.15, "{per_announce:?}");
}
