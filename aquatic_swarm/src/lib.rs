//! The swarms of one core: which peers share which torrent. Belongs here: storing, finding, sampling, counting,
//! limiting and forgetting peers. What does not: sockets, clocks, sources of randomness, locks, executors, log lines,
//! wire formats beyond the compact peer; time and randomness are arguments.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod big;
mod chunked;
mod expiry;
mod family;
mod index;
mod linear;
mod payload;
mod peer;
mod sample;
mod seats;
mod shard;
mod slab;
mod steps;
mod table;
#[cfg(test)]
mod tests;
mod tick;
mod types;

pub use shard::Shard;
pub use types::{
    Announce, Announced, Expired, Families, FamilySet, FamilyStats, HashKey, MAX_PEER_AGE,
    MAX_PEERS_PER_TORRENT, MAX_PER_SHARD, MAX_WANTED, PeerBuffers, ShardConfig, ShardStats, Stored,
    SwarmCounts,
};
