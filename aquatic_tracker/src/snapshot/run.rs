//! Torrents that are taken in together.

use aquatic_common::{Family, InfoHash};

use super::format::Torrent;

/// Torrents whose places in the store are loaded together.
pub(super) const TORRENTS_PER_RUN: usize = 32;

/// Number of peers from which on no further torrent is added to those: a few hundred take as long as a step
/// may be late.
const PEERS_PER_RUN: u32 = 256;

/// Torrents whose places in the store are loaded together before they are taken in. Those of another process
/// or number of cores come in an order that is random here, and would each wait for memory several times.
#[derive(Debug, Default)]
pub struct Run<'a> {
    /// The torrents.
    pub torrents: Vec<Torrent<'a>>,
    /// Their info hashes, in the same order.
    pub info_hashes: Vec<InfoHash>,
}

impl<'a> Run<'a> {
    /// Replaces the run by the next torrents of a content. Returns false where that cannot be read.
    pub fn take(&mut self, family: Family, content: &mut &'a [u8]) -> bool {
        self.torrents.clear();
        self.info_hashes.clear();
        let mut peers = 0;
        while !content.is_empty() && self.torrents.len() < TORRENTS_PER_RUN && peers < PEERS_PER_RUN {
            let Ok(torrent) = Torrent::take(family, content) else { return false };
            peers += torrent.saved.peers;
            self.info_hashes.push(torrent.saved.info_hash);
            self.torrents.push(torrent);
        }
        true
    }
}
