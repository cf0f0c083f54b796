//! Swarm store of one core: which peers share which torrent. In scope: storing, finding, sampling, counting,
//! limiting and expiring peers. Out of scope: sockets, clocks, sources of randomness, locks, executors,
//! logging, and wire formats other than the compact peer. Time and randomness are arguments.
//!
//! A tracker has one [`Shard`] per core. A torrent is stored in one shard, as two independent swarms, one per
//! address family.
//!
//! # Layout
//!
//! ```text
//! Shard                     limits, both families                                   shard.rs
//!  └ Store (IPv4 and IPv6)  the torrents of one family                              family.rs, expiry.rs,
//!     │                                                                             saving.rs, counting.rs,
//!     │                                                                             restoring.rs, changes.rs
//!     ├ Table               info hash, completed count, payload: 32 bytes           table.rs, linear.rs
//!     │                     payload: only peer (IPv4), list or large swarm          payload.rs, peer_format.rs
//!     ├ Slab of lists       up to 128 peers in one block, seeders first             slab.rs, order.rs
//!     ├ LargeSwarms         more than 128: two arrays and an index                  large.rs, index.rs
//!     ├ Completions         counted peers that have left: 256 KiB                   completions.rs
//!     └ Replies             random peers, few of one address                        eligible.rs, crowd.rs
//! ```
//!
//! * **Nothing grows by copying all of itself.** The table and the index of a large swarm are linear hash
//!   tables of small buckets: growing splits one bucket. Large arrays consist of segments of a few KiB, of
//!   which only the last one grows. So the worst-case cost of a call does not depend on how much is stored.
//! * **Replies are runs of adjacent peers.** Each peer is equally likely to be in a reply, and seeders and
//!   leechers are taken in proportion to their numbers; but peers are taken in runs of up to 32, because
//!   memory is read in cache lines. The order of peers is random: in lists from the start, in large swarms
//!   increasingly, as peers announce.
//! * **Size classes are fine-grained**, so little is wasted within a block. Blocks of torrents that changed
//!   size are compacted by the passes of [`Expire`](aquatic_common::expiry::Expire), so little is wasted
//!   between blocks. Empty chunks of memory are returned to the allocator. They are so large that glibc's
//!   maps each by itself and returns it to the operating system, if the threshold for that is fixed at 128
//!   KiB.
//! * **Hashes are keyed**, because clients choose info hashes, addresses and ports.
//!
//! # Memory
//!
//! On average a torrent takes 35 bytes, an IPv4 peer 9 (none if it is the only one of its torrent), and an
//! IPv6 peer 22. The worst case that expiry passes leave behind, in which every chunk is three quarters full
//! and every block has the most unused space its class allows, is
//!
//! ```text
//! 48 bytes x torrents + 14 bytes x IPv4 peers + 34 bytes x IPv6 peers
//! ```
//!
//! where a peer of a torrent with more than 80 peers counts as 32 bytes (IPv4) or 50 (IPv6), and torrents
//! with peers of both families count twice. Partly used chunks are extra: one for each block size in use,
//! about 10 MB if all sizes are, at most 100 MB per shard. Space left by a sudden change of sizes is
//! compacted by the next pass.
//!
//! Measured with glibc's allocator: 10 M torrents with 25 M IPv4 peers take 21.5 bytes per peer resident if
//! popularity follows a power law, 20.9 if it is flat:
//!
//! ```text
//! cargo bench -p aquatic_tracker --bench fill -- --torrents 10000000 --peers 25000000
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod accesses;
mod changes;
mod checking;
mod completions;
mod counting;
mod crowd;
mod eligible;
mod expiry;
mod family;
mod index;
mod large;
mod linear;
mod order;
mod parts;
mod payload;
mod peer_format;
mod ranking;
mod restoring;
mod sample;
mod saving;
mod segmented;
mod shard;
mod slab;
mod table;
#[cfg(test)]
mod tests;
mod tick;
mod types;

pub use changes::{Applied, Change, ChangeKind, Completion};
pub use completions::Completions;
pub use counting::CountedTorrent;
pub use parts::{PARTS, PartHasher, PartSet};
pub use ranking::{RankBy, RankCursor, TopTorrents};
pub use restoring::{Origin, Restored};
pub use saving::{MAX_PEERS_PER_PART, SaveFilter, SavePass, SaveStep, SaveSwarms, SavedPeer, SavedTorrent};
pub use shard::Shard;
pub use tick::TICK;
pub use types::{
    Announce, Announced, Families, FamilySet, FamilyStats, HashKey, Intake, MAX_NUMWANT, MAX_PEER_AGE,
    MAX_PEERS_PER_ADDRESS, MAX_PEERS_PER_TORRENT, MAX_PER_SHARD, PeerBuffers, Previous, ShardLimits,
    ShardStats, Stored, SwarmCounts,
};
