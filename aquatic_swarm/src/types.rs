//! Arguments and results of the operations of a shard.

use std::fmt;
use std::net::SocketAddr;

use aquatic_common::config::{Limit, LimitsConfig};
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds};

use crate::tick::{Stamp, Tick};

/// Maximum number of peers per reply, whatever [`Announce::numwant`] is.
pub const MAX_NUMWANT: usize = 1024;

/// Maximum number of peers per torrent and family, whatever the configuration is.
pub const MAX_PEERS_PER_TORRENT: u32 = 10_000_000;

/// Maximum number of peers per torrent and address, whatever the configuration is.
pub const MAX_PEERS_PER_ADDRESS: u32 = 1_000_000;

/// Maximum number of peers, and of torrents, per shard, whatever the configuration is.
pub const MAX_PER_SHARD: u64 = 1_000_000_000;

/// Maximum peer age that the stored time stamps can represent, in seconds.
pub const MAX_PEER_AGE: u32 = 86_400;

/// Secret key of the hash functions. Clients choose info hashes, addresses and ports; without the key they
/// cannot choose them to collide.
#[derive(Clone, Copy)]
pub struct HashKey(pub [u8; 16]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

/// Limits of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardLimits {
    /// Maximum number of torrents with at least one peer. A torrent with peers of both families counts twice.
    pub max_torrents: u64,
    /// Maximum number of peers of all torrents and both families.
    pub max_peers: u64,
    /// Maximum number of peers per torrent and family.
    pub max_peers_per_torrent: u32,
    /// Maximum number of peers per torrent and IPv4 address or IPv6 /64 network. Peers are divided into
    /// groups by their ports, whose maxima add up to this or slightly less. Fixed when the shard is created.
    pub max_peers_per_address: u32,
    /// Percentage of `max_peers` reserved for torrents with fewer than three peers.
    pub reserved_for_small_torrents: u32,
}

impl ShardLimits {
    /// Returns the limits of one of `shards` equal shards. Totals are divided and rounded up, so that even
    /// with small limits each shard can hold something. The limit per torrent is not divided, because a
    /// torrent is stored in one shard.
    #[must_use]
    pub fn share_of(limits: &LimitsConfig, shards: usize) -> Self {
        let shards = u64::try_from(shards).unwrap_or(u64::MAX).max(1);
        Self {
            max_torrents: limits.max_torrents.div_ceil(shards),
            max_peers: limits.max_peers.div_ceil(shards),
            max_peers_per_torrent: limits.max_peers_per_torrent,
            max_peers_per_address: limits.max_peers_per_address,
            reserved_for_small_torrents: limits.reserved_for_small_torrents,
        }
    }

    /// Returns the limits, lowered to what a shard can hold and represent.
    pub(crate) fn capped(self) -> Self {
        Self {
            max_torrents: self.max_torrents.min(MAX_PER_SHARD),
            max_peers: self.max_peers.min(MAX_PER_SHARD),
            max_peers_per_torrent: self.max_peers_per_torrent.min(MAX_PEERS_PER_TORRENT),
            max_peers_per_address: self.max_peers_per_address.clamp(1, MAX_PEERS_PER_ADDRESS),
            reserved_for_small_torrents: self.reserved_for_small_torrents.min(100),
        }
    }
}

impl Default for ShardLimits {
    fn default() -> Self {
        Self::share_of(&LimitsConfig::default(), 1)
    }
}

/// The address families whose peers a reply to an announce can carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// Only the family of the announcing address, as over UDP (BEP 15).
    #[default]
    Own,
    /// Both families, as over HTTP (BEP 7).
    Both,
}

/// A set of address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilySet {
    /// One family.
    One(Family),
    /// IPv4 and IPv6.
    Both,
}

impl FamilySet {
    /// Returns whether a family is in the set.
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

/// One announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Address and port at which other clients reach the peer, in canonical form (see
    /// [`aquatic_common::canonical`]). A peer with port 0 gets a reply but is not stored, because nobody can
    /// connect to it.
    pub address: SocketAddr,
    /// Whether the peer has nothing left to download.
    pub seeder: bool,
    /// Event reported by the client.
    pub event: AnnounceEvent,
    /// Maximum number of peers in the reply, of all families together. At most [`MAX_NUMWANT`] are returned.
    pub numwant: usize,
    /// The address families that the reply can carry.
    pub families: Families,
}

impl fmt::Display for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { info_hash, address, seeder, event, numwant, families: _ } = self;
        let role = if *seeder { "seeder" } else { "leecher" };
        write!(f, "torrent {info_hash}, peer {address}, {role}, event {event:?}, numwant {numwant}")
    }
}

/// Buffers for the peers of a reply in compact form (BEP 23, BEP 7): 6 bytes per IPv4 peer and 18 per IPv6
/// peer, address and port in network order. As many peers are written as fit completely.
#[derive(Debug, Default)]
pub struct PeerBuffers<'a> {
    /// Buffer for IPv4 peers.
    pub v4: &'a mut [u8],
    /// Buffer for IPv6 peers.
    pub v6: &'a mut [u8],
}

/// What happened to the announcing peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// Added to the swarm.
    Added,
    /// Already in the swarm, and updated.
    Updated,
    /// Stopped, and removed from the swarm.
    Removed,
    /// Stopped, but not in the swarm.
    Absent,
    /// Not stored: its port is 0.
    RefusedPort,
    /// Neither stored nor removed, as the caller wants.
    Ignored,
    /// Not stored: the torrent has reached its maximum number of peers.
    RefusedPeersPerTorrent,
    /// Not stored: the torrent has reached its maximum number of peers of this address.
    RefusedPeersPerAddress,
    /// Not stored: the shard has reached its maximum number of peers, apart from the reserve for small
    /// torrents.
    RefusedPeers,
    /// Not stored: the shard has reached its maximum number of torrents.
    RefusedTorrents,
    /// Not stored: memory is short, see [`Intake`].
    RefusedMemory,
}

/// Which new peers a shard stores. Known peers are updated in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Intake {
    /// All that the limits allow.
    #[default]
    All,
    /// Of those, only the first two of a torrent: without these a torrent does not work.
    SmallTorrents,
    /// None.
    Nothing,
}

impl Stored {
    /// Returns the limit that kept the peer from being stored, if any.
    #[must_use]
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::RefusedPeersPerTorrent => Some(Limit::PeersPerTorrent),
            Self::RefusedPeersPerAddress => Some(Limit::PeersPerAddress),
            Self::RefusedPeers => Some(Limit::Peers),
            Self::RefusedTorrents => Some(Limit::Torrents),
            Self::RefusedMemory => Some(Limit::Memory),
            Self::Added
            | Self::Updated
            | Self::Removed
            | Self::Absent
            | Self::RefusedPort
            | Self::Ignored => None,
        }
    }
}

/// Result of an announce. Counts cover the families that the reply can carry, and include the announcing peer
/// if it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Bytes written to [`PeerBuffers::v4`].
    pub v4_len: usize,
    /// Bytes written to [`PeerBuffers::v6`].
    pub v6_len: usize,
    /// Number of seeders.
    pub complete: u32,
    /// Number of leechers.
    pub incomplete: u32,
    /// Number of known leechers that became seeders, each counted once, since the torrent last had no peers.
    pub downloaded: u32,
    /// What happened to the announcing peer.
    pub stored: Stored,
    /// What was known of the announcing peer before, if it is [`Stored::Updated`].
    pub previous: Previous,
}

/// What was known of a peer before something was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Previous(pub(crate) Stamp);

impl Previous {
    /// Whether it was a seeder.
    #[must_use]
    pub fn is_seeder(self) -> bool {
        self.0.seeder()
    }

    /// Whether its completion had been counted.
    #[must_use]
    pub fn completion_counted(self) -> bool {
        self.0.completion_counted()
    }

    /// Whether another node heard it last.
    #[must_use]
    pub fn is_remote(self) -> bool {
        self.0.is_remote()
    }

    /// Returns the seconds since it was heard last, rounded to 16.
    #[must_use]
    pub fn age(self, now: Seconds) -> u32 {
        self.0.age(Tick::at(now))
    }
}

/// Counts of one torrent, as in scrape replies (BEP 48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwarmCounts {
    /// Number of seeders.
    pub complete: u32,
    /// Number of leechers.
    pub incomplete: u32,
    /// Number of known leechers that became seeders, each counted once, since the torrent last had no peers.
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

/// Content of the store of one address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyStats {
    /// Torrents with at least one peer of the family.
    pub torrents: u64,
    /// Seeders of all torrents.
    pub seeders: u64,
    /// Leechers of all torrents.
    pub leechers: u64,
    /// Peers of both roles that another node heard last.
    pub remote: u64,
    /// Downloads that have been completed since the store was made.
    pub completed: u64,
    /// Approximate number of bytes that are resident.
    pub bytes: u64,
}

/// Content of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// The IPv4 store.
    pub v4: FamilyStats,
    /// The IPv6 store.
    pub v6: FamilyStats,
}

impl ShardStats {
    /// Returns the numbers of one family.
    #[must_use]
    pub fn family(&self, family: Family) -> &FamilyStats {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}
