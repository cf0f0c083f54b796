//! Messages between cores. They are sent in batches, so that an announce with ten offers does not result in
//! eleven messages in the channels between cores.

use aquatic_common::{InfoHash, PeerId};
use aquatic_runtime::Batch;
use aquatic_tracker::RequestId;
use aquatic_ws_protocol::OwnedOffers;

use crate::swarm::{Announce, Announced, Answer, ConnectionId, Counts, OfferDigest};

/// Size of a message in bytes, apart from what it points to.
const MESSAGE_SIZE: usize = 128;

/// Maximum number of entries for which each list of an emptied batch keeps its memory.
const MAX_KEPT: usize = 1024;

/// Messages from one core to another, in order. What is of variable length stands, in the same order, in
/// lists of the batch. Requests that do not fit are refused, and relays dropped; both are counted.
#[derive(Debug, Default)]
pub struct ForwardedBatch {
    pub(crate) messages: Vec<Forwarded>,
    /// Torrents of scrapes, each with its position in the scrape.
    pub(crate) torrents: Vec<(u16, InfoHash)>,
    /// Counts of responses, each with the position of its torrent.
    pub(crate) counts: Vec<(u16, Counts)>,
    /// Peers of connections that ended.
    pub(crate) peers: Vec<(InfoHash, PeerId)>,
    /// Approximate size in bytes.
    bytes: usize,
}

impl ForwardedBatch {
    /// Adds a message without lists.
    pub(crate) fn push(&mut self, message: Forwarded) {
        self.bytes += MESSAGE_SIZE + message.heap_bytes();
        self.messages.push(message);
    }

    /// Adds a request for the counts of torrents, each with its position in the scrape.
    pub(crate) fn push_scrape(&mut self, scrape: RequestId, torrents: impl Iterator<Item = (u16, InfoHash)>) {
        let length = append(&mut self.torrents, &mut self.bytes, torrents);
        self.push(Forwarded::Scrape { scrape, torrents: length });
    }

    /// Adds the response to a scrape.
    pub(crate) fn push_scraped(&mut self, scrape: RequestId, counts: impl Iterator<Item = (u16, Counts)>) {
        let length = append(&mut self.counts, &mut self.bytes, counts);
        self.push(Forwarded::Scraped { scrape, counts: length });
    }

    /// Adds the removal of peers of a connection that ended.
    pub(crate) fn push_leave(
        &mut self,
        connection: ConnectionId,
        peers: impl Iterator<Item = (InfoHash, PeerId)>,
    ) {
        let length = append(&mut self.peers, &mut self.bytes, peers);
        self.push(Forwarded::Leave { connection, peers: length });
    }
}

/// Appends to a list. Returns the number of new entries.
fn append<T>(list: &mut Vec<T>, bytes: &mut usize, new: impl Iterator<Item = T>) -> usize {
    let before = list.len();
    list.extend(new);
    let length = list.len() - before;
    *bytes += length * size_of::<T>();
    length
}

impl Batch for ForwardedBatch {
    const FULL: usize = 64 << 10;

    const MAX_WAITING: usize = 16 << 20;

    /// Approximate size in bytes.
    fn size(&self) -> usize {
        self.bytes
    }

    fn clear(&mut self) {
        let Self { messages, torrents, counts, peers, bytes } = self;
        clear(messages);
        clear(torrents);
        clear(counts);
        clear(peers);
        *bytes = 0;
    }
}

fn clear<T>(list: &mut Vec<T>) {
    list.clear();
    list.shrink_to(MAX_KEPT);
}

/// A complete WebSocket frame.
pub(crate) type Frame = Box<[u8]>;

/// A message from one core to another.
#[derive(Debug)]
pub(crate) enum Forwarded {
    // To the owner of a torrent.
    Announce(Box<ForwardedAnnounce>),
    Answer(Box<ForwardedAnswer>),
    /// Requests the counts of torrents, which are the next of the batch.
    Scrape {
        scrape: RequestId,
        torrents: usize,
    },
    /// Removes peers of a connection that ended, which are the next of the batch.
    Leave {
        connection: ConnectionId,
        peers: usize,
    },
    // From the owner of a torrent.
    /// Response to an announce.
    Announced {
        connection: ConnectionId,
        info_hash: InfoHash,
        announced: Announced,
    },
    /// Frame for a connection.
    Relay {
        connection: ConnectionId,
        relay: Relay,
        frame: Frame,
    },
    /// Probes a connection, because another one claims one of its peers.
    Probe {
        connection: ConnectionId,
    },
    /// Response to a scrape, whose counts are the next of the batch.
    Scraped {
        scrape: RequestId,
        counts: usize,
    },
}

/// An announce for the owner of its torrent, which encodes as many offers as there are receivers.
#[derive(Debug)]
pub(crate) struct ForwardedAnnounce {
    pub(crate) announce: Announce,
    pub(crate) digests: Vec<OfferDigest>,
    pub(crate) offers: OwnedOffers,
}

/// An answer for the owner of its torrent.
#[derive(Debug)]
pub(crate) struct ForwardedAnswer {
    pub(crate) answer: Answer,
    /// The message for the peer that made the offer.
    pub(crate) frame: Frame,
}

/// Kind of a message between peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relay {
    Offer,
    Answer,
}

impl Forwarded {
    /// Returns the approximate size in bytes of what the message points to.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Announce(announce) => announce.offers.heap_bytes(),
            Self::Answer(answer) => answer.frame.len(),
            Self::Relay { frame, .. } => frame.len(),
            Self::Scrape { .. }
            | Self::Scraped { .. }
            | Self::Leave { .. }
            | Self::Announced { .. }
            | Self::Probe { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: ConnectionId = ConnectionId { core: 0, slot: 0, generation: 0 };

    #[test]
    fn the_size_of_a_batch_covers_what_its_messages_point_to() {
        let mut batch = ForwardedBatch::default();
        let frame = vec![1; 1000].into_boxed_slice();
        batch.push(Forwarded::Relay { connection: CONNECTION, relay: Relay::Offer, frame });
        assert_eq!(batch.size(), 1000 + MESSAGE_SIZE);
        batch.push_leave(CONNECTION, [(InfoHash([1; 20]), PeerId([2; 20])); 3].into_iter());
        assert_eq!(batch.size(), 1000 + 3 * 40 + 2 * MESSAGE_SIZE);
        batch.clear();
        assert_eq!((batch.size(), batch.messages.len(), batch.peers.len()), (0, 0, 0));
    }

    #[test]
    fn emptied_batches_keep_memory_but_not_that_of_a_crowd() {
        let mut batch = ForwardedBatch::default();
        for _ in 0..10 * MAX_KEPT {
            batch.push(Forwarded::Probe { connection: CONNECTION });
            batch.push_leave(CONNECTION, [(InfoHash([1; 20]), PeerId([2; 20]))].into_iter());
        }
        batch.clear();
        assert_eq!((batch.messages.capacity(), batch.peers.capacity()), (MAX_KEPT, MAX_KEPT));
    }
}
