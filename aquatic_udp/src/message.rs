//! Requests that arrived on one core and belong to another.

use aquatic_common::{Family, InfoHash};
use aquatic_runtime::udp::ReturnPath;
use aquatic_swarm::Announce;
use aquatic_udp_protocol::TransactionId;

/// An admitted announce on its way to the core that owns the torrent, with everything that core needs to answer it from
/// its own socket: the reply leaves from the same address and port.
pub struct ForwardedAnnounce {
    /// The listener it came in by.
    pub listener: usize,
    /// Where the reply goes.
    pub path: ReturnPath,
    /// What the reply has to carry.
    pub transaction_id: TransactionId,
    /// The announce.
    pub announce: Announce,
}

/// An admitted scrape of torrents that are not all this core's. It stays where it is; their counts are asked for.
pub struct ForwardedScrape {
    /// The listener it came in by.
    pub listener: usize,
    /// The family whose peers are counted.
    pub family: Family,
    /// Where the reply goes.
    pub path: ReturnPath,
    /// What the reply has to carry.
    pub transaction_id: TransactionId,
    /// The torrents in the order of the request.
    pub info_hashes: Vec<InfoHash>,
}

/// What a batch leaves to other cores.
#[derive(Default)]
pub struct Away {
    /// Announces and their owners.
    pub announces: Vec<(usize, ForwardedAnnounce)>,
    /// Scrapes with at least one torrent of another core.
    pub scrapes: Vec<ForwardedScrape>,
}
