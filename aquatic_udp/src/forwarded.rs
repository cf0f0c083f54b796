//! Requests that one core received and another core owns.

use std::time::Duration;

use aquatic_common::{Family, InfoHash};
use aquatic_net::udp::ReturnPath;
use aquatic_swarm::Announce;
use aquatic_udp_protocol::TransactionId;

/// Maximum number of torrents a scrape is answered for, whatever is configured (BEP 15: "up to about 74").
pub const MAX_SCRAPE: usize = 74;

/// An admitted announce on its way to the core that owns the torrent, with everything that core needs to
/// reply from its own socket: the reply leaves from the same address and port.
#[derive(Clone, Copy)]
pub struct ForwardedAnnounce {
    /// Position of the listener that received it.
    pub listener: usize,
    /// Where the reply goes.
    pub path: ReturnPath,
    /// Transaction id of the request (BEP 15).
    pub transaction_id: TransactionId,
    /// The announce.
    pub announce: Announce,
    /// Time since the epoch at which it was received.
    pub received: Duration,
}

/// An admitted scrape of torrents that are not all this core's. It stays on this core; their counts are asked
/// for.
#[derive(Clone, Copy)]
pub struct ForwardedScrape {
    /// Position of the listener that received it.
    pub listener: usize,
    /// Family whose peers are counted.
    pub family: Family,
    /// Where the reply goes.
    pub path: ReturnPath,
    /// Transaction id of the request (BEP 15).
    pub transaction_id: TransactionId,
    /// Time since the epoch at which it was received.
    pub received: Duration,
    info_hashes: [InfoHash; MAX_SCRAPE],
    torrents: u8,
}

impl ForwardedScrape {
    /// A scrape of these torrents, of which the first [`MAX_SCRAPE`] count.
    #[must_use]
    pub fn new(
        (listener, family): (usize, Family),
        path: ReturnPath,
        (transaction_id, received): (TransactionId, Duration),
        info_hashes: &[InfoHash],
    ) -> Self {
        let mut all = [InfoHash([0; 20]); MAX_SCRAPE];
        all.iter_mut().zip(info_hashes).for_each(|(slot, info_hash)| *slot = *info_hash);
        let torrents = info_hashes.len().min(MAX_SCRAPE) as u8;
        Self { listener, family, path, transaction_id, received, info_hashes: all, torrents }
    }

    /// The torrents, in the order of the request.
    #[must_use]
    pub fn info_hashes(&self) -> &[InfoHash] {
        &self.info_hashes[..usize::from(self.torrents)]
    }
}

/// What a batch leaves to other cores.
#[derive(Default)]
pub struct Forwarded {
    /// Announces, each with the index of its owner.
    pub announces: Vec<(usize, ForwardedAnnounce)>,
    /// Scrapes with at least one torrent of another core.
    pub scrapes: Vec<ForwardedScrape>,
}

impl Forwarded {
    /// Whether nothing is left to others.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.announces.is_empty() && self.scrapes.is_empty()
    }
}
