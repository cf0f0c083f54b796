//! What nodes of a cluster send each other as it grows, from the simulation of the tests: a line of JSON per
//! cluster. `scripts/bench/cluster` makes the table and the plot of `docs/cluster.md` from it.
//!
//! Clients announce every half an hour, stay for five hours on average, and most of them stay with their
//! node.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints what it has measured")]

#[path = "../tests/simulation/node.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod node;
#[path = "../tests/simulation/world.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod world;

use node::Traffic;
use world::{Plan, World};

const INTERVAL: u64 = 1_800_000;
const CLIENTS_PER_NODE: usize = 100;

/// Milliseconds that are measured, after everybody has announced twice.
const MEASURED: u64 = 2 * INTERVAL;

fn measure(nodes: usize, max_peer_age: u32) {
    let mut world = World::new(Plan {
        seed: 1,
        nodes,
        clients: CLIENTS_PER_NODE * nodes,
        torrents: 40,
        max_peer_age,
        interval: INTERVAL,
        habits: [20, 50, 70, 30],
        lost: 0,
        repeated: 0,
        delayed: 0,
        replicas: None,
        failures: false,
        step: 1_000,
    });
    world.run(2 * INTERVAL);
    let (before, announced) = world.traffic();
    world.run(MEASURED);
    let (after, announces) = world.traffic();
    let announces = announces - announced;
    let of = |count: fn(&Traffic) -> u64| (count(&after) - count(&before)) as f64;
    let (changes, batches) = (of(|traffic| traffic.changes), of(|traffic| traffic.batches));
    let node_seconds = nodes as f64 * (MEASURED / 1000) as f64;
    println!(
        "{{\"nodes\": {nodes}, \"max_peer_age\": {max_peer_age}, \"announces\": {announces}, \"changes\": {changes}, \
         \"batches\": {batches}, \"batch_bytes\": {}, \"hello_bytes_per_second\": {:.1}, \
         \"pull_bytes\": {}, \"received_bytes\": {}}}",
        of(|traffic| traffic.batch_bytes),
        of(|traffic| traffic.hello_bytes) / node_seconds,
        of(|traffic| traffic.pull_bytes),
        of(|traffic| traffic.received_bytes),
    );
}

fn main() {
    for nodes in [2, 3, 5, 10, 20, 35, 50] {
        measure(nodes, 3600);
    }
    for max_peer_age in [5_400, 7_200, 14_400, 28_800] {
        measure(5, max_peer_age);
    }
}
