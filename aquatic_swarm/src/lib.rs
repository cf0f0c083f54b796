//! The swarms of one core: which peers share which torrent. Belongs here: storing, finding, sampling, counting,
//! limiting and forgetting peers. What does not: sockets, clocks, sources of randomness, locks, executors, log lines,
//! wire formats beyond the compact peer; time and randomness are arguments.
//!
//! A tracker has one [`Shard`] per core. A torrent lives in one shard, as two swarms that know nothing of each other, one
//! per address family.
//!
//! # Layout
//!
//! ```text
//! Shard                     limits, both families                                        shard.rs
//!  └ Store (IPv4 and IPv6)  a torrent's peers, wherever they are                         family.rs, expiry.rs
//!     ├ Table               info hash, completed count, payload: 32 bytes                table.rs, linear.rs
//!     │                      payload: the only peer (IPv4), a list or a large swarm      payload.rs, peer_format.rs, tick.rs
//!     ├ Slab of lists       up to 128 peers in one block, seeders first                  slab.rs, order.rs
//!     └ Bigs                more than 128: two arrays, an index by address and port      large.rs, index.rs, segmented.rs
//! ```
//!
//! * **Nothing grows by copying all of itself.** The table and the index of a large swarm are linear hashes of small
//!   buckets: growing splits one bucket. Large arrays are pieces of a few KiB, of which only the last one grows. So no call
//!   has to do much more work than another, however much is stored.
//! * **Replies take neighbours.** Each peer is as likely as any other to be in a reply, and seeders and leechers come in
//!   proportion; but peers are taken in runs of up to 32, as memory is read in lines. Who sits next to whom is left to
//!   chance: in lists from the start, in large swarms more and more, as peers announce.
//! * **Size classes are fine**, so little is wasted within a block, and blocks of torrents that changed size are
//!   gathered by the passes of [`Shard::expire`], so little is wasted between them. Emptied chunks of memory go back to the
//!   allocator; whether that returns them to the operating system is up to it.
//! * **Hashes are keyed**, because info hashes, addresses and ports are chosen by strangers.
//!
//! # Memory
//!
//! On average a torrent takes 35 bytes and an IPv4 peer 9 (nothing if it is the only one of its torrent), an IPv6 peer 22.
//! In the worst case that passes of expiry leave behind, in which every chunk is three quarters full and every block
//! as badly used as it can be, it is
//!
//! ```text
//! 48 bytes x torrents + 14 bytes x IPv4 peers + 34 bytes x IPv6 peers
//! ```
//!
//! where a peer of a torrent with more than 80 peers counts as much as 32 bytes (IPv4) or 50 (IPv6), and torrents with
//! peers of both families count twice. Chunks that are begun come on top: there is one for each size of block in use,
//! about 10 MB if all are, at most 100 MB per shard. Between two passes memory that a sudden change of sizes leaves
//! behind is not gathered yet.
//!
//! Measured: 10 M torrents with 25 M IPv4 peers take 21.5 bytes per peer resident if popularity follows a power law,
//! 20.9 if it is flat (`cargo bench -p aquatic_swarm --bench fill -- --torrents 10000000 --peers 25000000`, which says
//! more about the population; glibc's allocator).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod accesses;
mod expiry;
mod family;
mod index;
mod large;
mod linear;
mod order;
mod payload;
mod peer_format;
mod sample;
mod segmented;
mod shard;
mod slab;
mod table;
#[cfg(test)]
mod tests;
mod tick;
mod types;

pub use shard::Shard;
pub use types::{
    Announce, Announced, Expired, Families, FamilySet, FamilyStats, HashKey, MAX_NUMWANT, MAX_PEER_AGE,
    MAX_PEERS_PER_TORRENT, MAX_PER_SHARD, PeerBuffers, ShardConfig, ShardStats, Stored, SwarmCounts,
};
