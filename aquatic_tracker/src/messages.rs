//! Requests to the core that owns a torrent, and their responses, in batches that are filled and emptied without
//! allocating once their memory has grown.

use aquatic_common::InfoHash;
use aquatic_runtime::Batch;
use aquatic_swarm::{Announce, Announced, FamilySet, SwarmCounts};

use crate::gather::RequestId;

/// Memory for peers above which an emptied batch gives it back.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// Bytes of peers that count as one more message where batches are limited.
const BYTES_PER_UNIT: usize = 1024;

/// One request or response. What is of variable length stands, in the same order, in lists of the batch.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// To be applied by the receiver.
    Announce {
        /// Request to respond to.
        id: RequestId,
        /// The announce.
        announce: Announce,
        /// Bytes of compact IPv4 and IPv6 peers that the reply has room for.
        room: (u32, u32),
    },
    /// Response to an announce; its peers are the next bytes of the batch.
    Announced {
        /// Request that is responded to.
        id: RequestId,
        /// Counts and lengths.
        announced: Announced,
    },
    /// To be counted by the receiver; its torrents are the next of the batch.
    Scrape {
        /// Request to respond to.
        id: RequestId,
        /// Families whose peers are counted.
        families: FamilySet,
        /// Number of torrents.
        torrents: u16,
    },
    /// Response to a scrape; its counts are the next of the batch.
    Scraped {
        /// Request that is responded to.
        id: RequestId,
        /// Number of torrents.
        torrents: u16,
    },
}

/// A batch of requests and responses. Torrents and counts carry their position in the client's request.
#[derive(Debug, Default)]
pub struct Messages {
    pub(crate) items: Vec<Message>,
    /// Compact peers of responses.
    pub(crate) peers: Vec<u8>,
    /// Torrents of scrapes.
    pub(crate) torrents: Vec<(u16, InfoHash)>,
    /// Counts of responses.
    pub(crate) counts: Vec<(u16, SwarmCounts)>,
}

impl Batch for Messages {
    fn size(&self) -> usize {
        self.items.len() + self.peers.len() / BYTES_PER_UNIT
    }

    fn clear(&mut self) {
        self.items.clear();
        self.peers.clear();
        self.peers.shrink_to(MAX_KEPT_BYTES);
        self.torrents.clear();
        self.counts.clear();
    }
}
