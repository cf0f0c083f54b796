//! The swarms of browsers that one core owns: who is in which torrent, over which connection, and which offers wait for
//! their answers. Pure: no socket, clock, source of randomness, executor or log line; time and randomness are arguments.
//!
//! What does not belong here: messages and their texts, connections beyond their name, and the other cores.
//!
//! # Invariants
//!
//! - A peer is its peer id within its torrent, and belongs to the connection that brought it. Nobody else can change it,
//!   remove it, or have its answers, for as long as that connection has not left. Who announces the same peer id from
//!   elsewhere becomes its claimant, and its successor when it leaves.
//! - An answer is passed on once, from the peer that was sent the offer to the peer that made it, over the connections of
//!   that moment, and only while the offer is young. An answer changes nothing else.
//! - An offer that waits for its answer goes with the peer that made it.
//! - Seeders stand in front of leechers, so that both can be drawn from without a look at any other.
//! - A torrent has at least one peer.

mod offers;
mod sample;
mod store;
mod torrent;

pub use aquatic_common::config::Limit;
use aquatic_common::{Family, InfoHash, PeerId};

pub use store::Swarms;

/// A connection's name: on which core, at which of its places, and which of all that have had the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// The core that serves it.
    pub core: u16,
    /// Its place there.
    pub slot: u32,
    /// Tells it from those that had the place before.
    pub generation: u32,
}

/// The keyed hash of an offer id, under the key of the process: 8 bytes for what clients may make 64 characters long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OfferDigest(pub u64);

/// Upper bounds on what one core remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwarmLimits {
    /// Torrents with at least one peer.
    pub max_torrents: usize,
    /// Peers of all torrents together.
    pub max_peers: usize,
    /// Peers of one torrent.
    pub max_peers_per_torrent: usize,
    /// Offers that wait for their answers; beyond it those are forgotten who have offered least recently.
    pub max_offers: usize,
    /// Offers of one peer that wait for their answers; beyond it the oldest of them are forgotten.
    pub max_offers_per_peer: usize,
    /// Seconds after which a peer that has not announced is forgotten.
    pub max_peer_age: u32,
    /// Seconds within which an offer can be answered.
    pub max_offer_age: u32,
}

/// A peer that announces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The peer.
    pub peer_id: PeerId,
    /// The connection it has come over.
    pub connection: ConnectionId,
    /// The family of the client's address, for statistics only: browsers of both families meet.
    pub family: Family,
    /// Whether it has everything.
    pub seeder: bool,
    /// Whether it leaves.
    pub stopped: bool,
}

/// What an announce has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The torrent as it is now.
    pub counts: Counts,
    /// What has become of the peer.
    pub outcome: Outcome,
}

/// What has become of an announcing peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the swarm.
    Stored,
    /// It is not, or not any more, because it leaves.
    Left,
    /// Another connection has the peer id. It should be found out whether that one still lives: if it leaves, this peer
    /// takes its place.
    Contested(ConnectionId),
    /// It is not in the swarm because of a limit.
    Refused(Limit),
}

/// Counts of a torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Peers that have everything.
    pub complete: u32,
    /// Peers that do not.
    pub incomplete: u32,
    /// How often a leecher has become a seeder.
    pub downloaded: u32,
}

/// An answer on its way back to whom made the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Who answers.
    pub peer_id: PeerId,
    /// The connection the answer has come over.
    pub connection: ConnectionId,
    /// Who made the offer.
    pub to_peer_id: PeerId,
    /// The offer.
    pub offer: OfferDigest,
}

/// Why an answer is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// Who made the offer is not in the swarm.
    Gone,
    /// No such offer was passed on to this peer over this connection, or it has been answered, or it is too old.
    NoOffer,
}

/// What expiry has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Peers that had not announced for too long.
    pub peers: usize,
    /// Torrents that went with their last peer.
    pub torrents: usize,
    /// Whether all torrents have been looked at.
    pub pass_ended: bool,
}

/// What a core's swarms add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Torrents with at least one peer.
    pub torrents: usize,
    /// Peers by family, and then leechers and seeders.
    pub peers: [[usize; 2]; 2],
    /// Offers that wait for their answers.
    pub offers: usize,
    /// Offers that were forgotten before their time, so far.
    pub offers_dropped: u64,
}
