//! Exports: the counts of all torrents of all cores, as a file that replaces the previous one, and how many
//! torrents have how many peers.
//!
//! - [`format`](mod@format): the bytes of the file. [`sorting`]: bringing torrents into order in little
//!   memory. Both are pure but for a scratch file.
//! - `core`: what each core does, in steps. `thread`: the side thread, which does all input and output.
//!
//! As with snapshots, a core never waits for the side thread while it has requests: it hands entries over, or
//! waits with its next step.

mod core;
pub mod format;
pub mod sorting;
mod thread;

pub use self::core::{CoreExports, TorrentCounts};
pub use self::thread::{check, prepare};

use aquatic_common::InfoHash;

/// A kind of swarms that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SwarmKind {
    /// IPv4 peers over UDP and HTTP.
    Ipv4,
    /// IPv6 peers over UDP and HTTP.
    Ipv6,
    /// Peers over WebSocket.
    WebTorrent,
}

impl SwarmKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Ipv4, Self::Ipv6, Self::WebTorrent];
}

/// Counts of one swarm of a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Which of the torrent's swarms.
    pub kind: SwarmKind,
    /// Number of peers that have nothing left to download.
    pub complete: u32,
    /// Number of the other peers.
    pub incomplete: u32,
    /// Number of completed downloads.
    pub downloaded: u32,
}

/// Counts of all swarms of a torrent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportedTorrent {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Number of peers that have nothing left to download.
    pub complete: u32,
    /// Number of the other peers.
    pub incomplete: u32,
    /// Number of completed downloads.
    pub downloaded: u32,
}
