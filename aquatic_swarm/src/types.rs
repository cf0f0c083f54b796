//! What goes into a shard and what comes out of it.

use std::net::SocketAddr;

use aquatic_common::config::{CleaningConfig, Limit, LimitsConfig};
use aquatic_common::{AnnounceEvent, Family, InfoHash};

/// The most peers one reply carries, whatever [`Announce::wanted`] says.
pub const MAX_NUMWANT: usize = 1024;

/// The most peers one torrent and family can hold, whatever the configuration says.
pub const MAX_PEERS_PER_TORRENT: u32 = 10_000_000;

/// The most peers, and the most torrents, one shard can hold, whatever the configuration says.
pub const MAX_PER_SHARD: u64 = 1_000_000_000;

/// The longest peer age the coarse time stamps can tell apart, in seconds.
pub const MAX_PEER_AGE: u32 = 172_800;

/// A secret that decides where torrents and peers are kept. Info hashes, addresses and ports are chosen by strangers;
/// as long as they do not know the key they cannot choose them so that they collide.
#[derive(Clone, Copy)]
pub struct HashKey(pub [u8; 16]);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

/// Limits and ages of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// Most torrents with at least one peer. A torrent with peers of both families counts twice.
    pub max_torrents: u64,
    /// Most peers of all torrents and both families.
    pub max_peers: u64,
    /// Most peers of one torrent and family.
    pub max_peers_per_torrent: u32,
    /// Percent of `max_peers` that only torrents with fewer than three peers may use.
    pub reserved_for_small_torrents: u32,
    /// Seconds after its last announce at which a peer may be forgotten.
    pub max_peer_age: u32,
}

impl ShardConfig {
    /// The part of one of `shards` equal shards. Totals are divided and rounded up, so that a small limit still lets
    /// each shard hold something; the limit of one torrent is not divided, because a torrent lives in one shard.
    #[must_use]
    pub fn share_of(limits: &LimitsConfig, cleaning: &CleaningConfig, shards: usize) -> Self {
        let shards = u64::try_from(shards).unwrap_or(u64::MAX).max(1);
        Self {
            max_torrents: limits.max_torrents.div_ceil(shards),
            max_peers: limits.max_peers.div_ceil(shards),
            max_peers_per_torrent: limits.max_peers_per_torrent,
            reserved_for_small_torrents: limits.reserved_for_small_torrents,
            max_peer_age: cleaning.max_peer_age,
        }
    }
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self::share_of(&LimitsConfig::default(), &CleaningConfig::default(), 1)
    }
}

/// The families whose peers a reply to an announce can carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// Only that of the announcing address, as over UDP.
    #[default]
    Own,
    /// Both, as over HTTP.
    Both,
}

/// A choice of families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilySet {
    /// One of them.
    One(Family),
    /// IPv4 and IPv6.
    Both,
}

impl FamilySet {
    /// Whether a family is in the set.
    #[must_use]
    pub fn contains(self, family: Family) -> bool {
        match self {
            Self::One(own) => own == family,
            Self::Both => true,
        }
    }
}

impl From<Family> for FamilySet {
    fn from(family: Family) -> Self {
        Self::One(family)
    }
}

/// One announce of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Where other clients reach the peer, in canonical form (see [`aquatic_common::canonical`]). A port of 0 is
    /// answered like any other announce but never stored, because nobody can connect to it.
    pub address: SocketAddr,
    /// Whether nothing is left to download.
    pub seeder: bool,
    /// What the client says has happened.
    pub event: AnnounceEvent,
    /// How many peers it wants at most, of all families together. At most [`MAX_WANTED`] are given.
    pub numwant: usize,
    /// Which families the reply can carry.
    pub families: Families,
}

/// Where the peers of a reply are written, in the form in which they travel: IPv4 peers as 6 bytes, IPv6 peers as 18
/// bytes, address and port in network order. A slice shorter than a peer takes none.
#[derive(Debug, Default)]
pub struct PeerBuffers<'a> {
    /// Takes the IPv4 peers.
    pub v4: &'a mut [u8],
    /// Takes the IPv6 peers.
    pub v6: &'a mut [u8],
}

/// What became of the announcing peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// It is new and now known.
    Added,
    /// It was known and its entry is up to date.
    Updated,
    /// It stopped and is forgotten.
    Removed,
    /// It stopped and was not known.
    Absent,
    /// Not stored: its port is 0.
    RefusedPort,
    /// Not stored: the torrent has all the peers it may have.
    RefusedPeersPerTorrent,
    /// Not stored: the shard has all the peers it may have, apart from those reserved for small torrents.
    RefusedPeers,
    /// Not stored: the shard has all the torrents it may have.
    RefusedTorrents,
}

impl Stored {
    /// Which limit kept the peer out, if one did.
    #[must_use]
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::RefusedPeersPerTorrent => Some(Limit::PeersPerTorrent),
            Self::RefusedPeers => Some(Limit::Peers),
            Self::RefusedTorrents => Some(Limit::Torrents),
            Self::Added | Self::Updated | Self::Removed | Self::Absent | Self::RefusedPort => None,
        }
    }
}

/// The answer to an announce. Counts cover the families the reply can carry and include the announcing peer if it is
/// stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Bytes written to [`PeerBuffers::v4`].
    pub v4_len: usize,
    /// Bytes written to [`PeerBuffers::v6`].
    pub v6_len: usize,
    /// Seeders.
    pub complete: u32,
    /// Leechers.
    pub incomplete: u32,
    /// How many known leechers became seeders since the torrent was last without peers.
    pub downloaded: u32,
    /// What became of the announcing peer.
    pub stored: Stored,
}

/// The numbers a scrape asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwarmCounts {
    /// Seeders.
    pub complete: u32,
    /// Leechers.
    pub incomplete: u32,
    /// How many known leechers became seeders since the torrent was last without peers.
    pub downloaded: u32,
}

impl SwarmCounts {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            complete: self.complete.saturating_add(other.complete),
            incomplete: self.incomplete.saturating_add(other.incomplete),
            downloaded: self.downloaded.saturating_add(other.downloaded),
        }
    }
}

/// What one call of expiry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Peers forgotten.
    pub peers: u64,
    /// Torrents forgotten because their last peer was.
    pub torrents: u64,
    /// Units of work done. Exceeds the budget by less than the work on one torrent with 128 peers, 600 units.
    pub work: u64,
    /// Whether a pass over all torrents of both families ended with this call. The call ends with the pass, so it may
    /// have used less than its budget.
    pub pass_ended: bool,
}

impl Expired {
    /// Units of work for each peer forgotten. The rest of the work is looking for them.
    pub const WORK_PER_PEER: u64 = 4;
}

/// What the store of one family holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyStats {
    /// Torrents with at least one peer of the family.
    pub torrents: u64,
    /// Seeders of all torrents.
    pub seeders: u64,
    /// Leechers of all torrents.
    pub leechers: u64,
    /// Bytes of memory asked of the allocator, about. Part of it may be untouched and thus not resident.
    pub bytes: u64,
}

/// What a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Of IPv4.
    pub v4: FamilyStats,
    /// Of IPv6.
    pub v6: FamilyStats,
}

impl ShardStats {
    /// The numbers of one family.
    #[must_use]
    pub fn family(&self, family: Family) -> &FamilyStats {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}
