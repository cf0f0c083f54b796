//! The two peers of a probe and their torrent.

use aquatic_common::{InfoHash, PeerId};
use rand::RngExt;

/// Front of the peer ids (BEP 20).
const PREFIX: &[u8; 8] = b"-AQ0001-";

/// Ports that peers claim to listen on: not those of other services.
const PORTS: std::ops::Range<u16> = 40_000..60_000;

/// A peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) peer_id: PeerId,
    pub(crate) port: u16,
    pub(crate) left: u64,
    pub(crate) key: u32,
}

/// A torrent that nobody else knows, and two peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swarm {
    pub(crate) info_hash: InfoHash,
    /// Announces as list sites do.
    pub(crate) seeder: Peer,
    /// Announces as clients do.
    pub(crate) leecher: Peer,
}

impl Swarm {
    /// Peers of a torrent, or of a random one.
    pub(crate) fn new(rng: &mut impl RngExt, info_hash: Option<InfoHash>) -> Self {
        let info_hash = info_hash.unwrap_or_else(|| InfoHash(rng.random()));
        let port = rng.random_range(PORTS);
        let mut peer_id = rng.random::<[u8; 20]>();
        peer_id[..PREFIX.len()].copy_from_slice(PREFIX);
        Self {
            info_hash,
            // newTrackon uses the info hash as peer id.
            seeder: Peer { peer_id: PeerId(info_hash.0), port, left: 0, key: rng.random() },
            leecher: Peer { peer_id: PeerId(peer_id), port: port + 1, left: 1 << 20, key: rng.random() },
        }
    }
}
