//! WebTorrent swarms of one core: peers of each torrent, the connection of each peer, and offers that can be
//! answered. Pure: no sockets, clock, source of randomness, executor or log; time and randomness are
//! arguments.
//!
//! Not here: messages and their encoding, the state of connections, and other cores.
//!
//! # Invariants
//!
//! - A peer is identified by its peer id within a torrent, and belongs to the connection that announced it
//!   first. Until that connection leaves, no other can change or remove the peer, or receive its answers. A
//!   second connection announcing a known peer id becomes a pending claimant, and the peer's connection once
//!   the first leaves. The last claimant replaces earlier ones.
//! - An answer is relayed once, from the peer that was sent the offer to the peer that made it, over the
//!   connections that made and received it, until the offer expires. An answer changes nothing else.
//! - Pending offers are removed with the peer that made them.
//! - Seeders precede leechers, so that each role can be sampled without visiting the other.
//! - A torrent has at least one peer.
//! - A network (an IPv4 address or an IPv6 /64) has a bounded number of peers per torrent. In a torrent in
//!   which a few networks have many of the peers, the receivers of offers are of as many networks as
//!   possible.
//!
//! # Other nodes
//!
//! Peers of other nodes of a cluster are entries like those of this one. They stay until their node tells
//! that they left, until it is gone, or until they were not refreshed in time. Their connections are told
//! apart by [`ConnectionId::is_remote`].
//!
//! A peer id that is in use on several nodes is one peer on each. A connection of this node precedes those
//! of other nodes, so that a client that uses two nodes can be reached over both; among other nodes, the
//! first precedes. What does not precede is a pending claimant, but never replaces one of this node.

mod networks;
mod node;
mod offers;
mod sample;
mod store;
mod torrent;

use std::fmt;

pub use aquatic_common::config::Limit;
use aquatic_common::{Family, InfoHash, PeerId, Seconds};

pub use networks::Network;
pub use node::{NodeConnection, NodeNumber};
pub use store::Swarms;

/// Identity of a connection, never reused while its process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Core that serves the connection. Above 32,767 for connections of other nodes.
    pub core: u16,
    /// Slot in the table of that core.
    pub slot: u32,
    /// Distinguishes the connection from earlier ones in the same slot.
    pub generation: u32,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { core, slot, generation } = self;
        write!(f, "{core}/{slot}/{generation}")
    }
}

/// Hash of an offer id, keyed per process. Takes 8 bytes where an offer id takes up to 64 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OfferDigest(pub u64);

/// Limits of the swarms of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwarmLimits {
    /// Maximum number of torrents with at least one peer.
    pub max_torrents: usize,
    /// Maximum number of peers of all torrents.
    pub max_peers: usize,
    /// Maximum number of peers per torrent.
    pub max_peers_per_torrent: usize,
    /// Maximum number of peers per torrent and network, at least 5.
    pub max_peers_per_address: usize,
    /// Maximum number of pending offers. Above it, offers of the peers that offered least recently are
    /// evicted.
    pub max_offers: usize,
    /// Maximum number of pending offers per peer. Above it, the oldest of them are evicted.
    pub max_offers_per_peer: usize,
    /// Seconds until a pending offer can no longer be answered.
    pub max_offer_age: u32,
}

/// Announce of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Id of the announcing peer, as it states it.
    pub peer_id: PeerId,
    /// Connection that delivered the announce.
    pub connection: ConnectionId,
    /// Network of the client.
    pub network: Network,
    /// Address family of the client, for statistics only. Peers of both families are in the same swarm.
    pub family: Family,
    /// Whether the peer is a seeder.
    pub seeder: bool,
    /// Whether the peer leaves the swarm.
    pub stopped: bool,
    /// Whether the peer may be added, as far as its connection is concerned.
    pub may_be_added: bool,
}

/// Result of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Counts of the torrent after the announce.
    pub counts: Counts,
    /// What happened to the peer.
    pub outcome: Outcome,
}

/// What happened to an announcing peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer is in the swarm.
    Stored,
    /// The peer is not in the swarm, because it left.
    Left,
    /// This connection has the peer id. The announcing one is a pending claimant, and becomes the peer's
    /// connection when the other leaves; so the caller should probe whether that one is still alive.
    Contested(ConnectionId),
    /// The peer is not in the swarm, because of a limit.
    LimitReached(Limit),
}

/// Counts of one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of seeders.
    pub complete: u32,
    /// Number of leechers.
    pub incomplete: u32,
    /// Number of known leechers that became seeders, each counted once while its peer id is in the swarm, and
    /// for some time after it left.
    pub downloaded: u32,
}

/// Answer to an offer, on its way to the peer that made the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Id of the answering peer.
    pub peer_id: PeerId,
    /// Connection that delivered the answer.
    pub connection: ConnectionId,
    /// Id of the peer that made the offer.
    pub to_peer_id: PeerId,
    /// Digest of the offer's id.
    pub offer: OfferDigest,
}

/// Reason why an answer is not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// The peer that made the offer is not in the swarm.
    PeerGone,
    /// No such offer was relayed to this peer over this connection, or it was answered, evicted or too old.
    UnknownOffer,
}

/// Change of a peer that a node publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Id of the peer.
    pub peer_id: PeerId,
    /// Connection that announced the peer, as its node names it.
    pub connection: NodeConnection,
    /// Network of the client.
    pub network: Network,
    /// Address family of the client.
    pub family: Family,
    /// What happened.
    pub kind: ChangeKind,
    /// Seconds since the peer announced, at most 65,535.
    pub age: u16,
}

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The peer is in the swarm.
    Present {
        /// Whether the peer is a seeder.
        seeder: bool,
        /// Whether the torrent's `downloaded` count includes the peer.
        completed: bool,
    },
    /// The connection left the swarm.
    Left,
}

/// What became of a change of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The peer was added.
    Added,
    /// The peer was known from this connection, or that of a node that is gone.
    Updated,
    /// Another connection has the peer id. If it is one of this node and the claim is new, the caller should
    /// probe whether it is still alive.
    Claims(Option<ConnectionId>),
    /// The peer, or the pending claimant, was removed.
    Removed,
    /// There was no such peer to be removed.
    Absent,
    /// The peer would have expired.
    TooOld,
    /// The node is gone.
    NodeGone,
    /// The peer was not added, because of a limit.
    LimitReached(Limit),
}

/// Totals of the swarms of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of torrents with at least one peer.
    pub torrents: usize,
    /// Maximum number of torrents.
    pub max_torrents: usize,
    /// Maximum number of peers.
    pub max_peers: usize,
    /// Number of peers by family, leechers before seeders.
    pub peers: [[usize; 2]; 2],
    /// Number of peers that are connected to other nodes.
    pub remote_peers: usize,
    /// Number of pending offers.
    pub offers: usize,
    /// Number of offers evicted so far because of a limit.
    pub offers_evicted: u64,
    /// Approximate memory of torrents, peers, pending claimants and offers in bytes, without the overhead of
    /// the allocator.
    pub bytes: usize,
}

/// What an announce states about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registration {
    connection: ConnectionId,
    network: Network,
    last_seen: Seconds,
    family: Family,
    seeder: bool,
}
