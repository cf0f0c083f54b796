//! Messages between cores. They are sent in batches, so that an announce with ten offers does not result in
//! eleven messages in the channels between cores.

use aquatic_common::{InfoHash, PeerId};
use aquatic_ws_protocol::OwnedOffers;

use crate::swarm::{Announce, Announced, Answer, ConnectionId, Counts, OfferDigest};

/// Maximum size of the outbox for one core in bytes. Requests that do not fit are refused, and relays
/// dropped; both are counted.
const MAX_OUTBOX_BYTES: usize = 16 << 20;

/// Size of a message in bytes, apart from what it points to.
const MESSAGE_SIZE: usize = 128;

/// Messages from one core to another, in order.
#[derive(Debug, Default)]
pub struct ForwardedBatch(pub(crate) Vec<Forwarded>);

impl aquatic_runtime::Batch for ForwardedBatch {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A complete WebSocket frame.
pub(crate) type Frame = Box<[u8]>;

/// A message from one core to another.
#[derive(Debug)]
pub(crate) enum Forwarded {
    // To the owner of a torrent.
    Announce(Box<ForwardedAnnounce>),
    Answer(Box<ForwardedAnswer>),
    /// Requests the counts of torrents, each with its position in the scrape.
    Scrape {
        scrape: ScrapeId,
        torrents: Box<[(u16, InfoHash)]>,
    },
    /// Removes peers of a connection that ended.
    Leave {
        connection: ConnectionId,
        peers: Box<[(InfoHash, PeerId)]>,
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
    /// Response to a scrape.
    Scraped {
        scrape: ScrapeId,
        counts: Box<[(u16, Counts)]>,
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

/// Identity of a pending scrape of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScrapeId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Forwarded {
    /// Returns the approximate size in bytes.
    fn size(&self) -> usize {
        MESSAGE_SIZE
            + match self {
                Self::Announce(announce) => announce.offers.heap_bytes(),
                Self::Answer(answer) => answer.frame.len(),
                Self::Relay { frame, .. } => frame.len(),
                Self::Scrape { torrents, .. } => torrents.len() * size_of::<(u16, InfoHash)>(),
                Self::Scraped { counts, .. } => counts.len() * size_of::<(u16, Counts)>(),
                Self::Leave { .. } | Self::Announced { .. } | Self::Probe { .. } => 0,
            }
    }
}

/// Messages to be sent to one other core.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    messages: Vec<Forwarded>,
    bytes: usize,
}

impl Outbox {
    /// Adds a message, or returns it if the outbox is full.
    pub(crate) fn push(&mut self, message: Forwarded) -> Result<(), Forwarded> {
        let size = message.size();
        // Peers that are not removed would receive offers until they expire. There are at most as many of
        // these messages as there were connections.
        let must_arrive = matches!(message, Forwarded::Leave { .. });
        if self.bytes + size > MAX_OUTBOX_BYTES && !must_arrive {
            return Err(message);
        }
        self.bytes += size;
        self.messages.push(message);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Removes and returns all messages, if there are any.
    pub(crate) fn take(&mut self) -> Option<ForwardedBatch> {
        if self.messages.is_empty() {
            return None;
        }
        self.bytes = 0;
        Some(ForwardedBatch(std::mem::take(&mut self.messages)))
    }

    /// Puts back a batch that could not be sent, before all messages added since.
    pub(crate) fn put_back(&mut self, ForwardedBatch(mut messages): ForwardedBatch) {
        self.bytes += messages.iter().map(Forwarded::size).sum::<usize>();
        messages.append(&mut self.messages);
        self.messages = messages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: ConnectionId = ConnectionId { core: 0, slot: 0, generation: 0 };

    fn relay(byte: u8) -> Forwarded {
        let frame = vec![byte; MAX_OUTBOX_BYTES / 4].into_boxed_slice();
        Forwarded::Relay { connection: CONNECTION, relay: Relay::Offer, frame }
    }

    fn bytes(ForwardedBatch(messages): ForwardedBatch) -> Vec<Option<u8>> {
        let first = |message| {
            if let Forwarded::Relay { frame, .. } = message { frame.first().copied() } else { None }
        };
        messages.into_iter().map(first).collect()
    }

    #[test]
    fn an_outbox_is_bounded_and_keeps_its_order() {
        let mut outbox = Outbox::default();
        assert!(outbox.take().is_none());
        (0..3).for_each(|byte| outbox.push(relay(byte)).unwrap());
        assert!(outbox.push(relay(3)).is_err());
        assert!(outbox.push(Forwarded::Leave { connection: CONNECTION, peers: Box::default() }).is_ok());
        let batch = outbox.take().unwrap();
        outbox.push(relay(4)).unwrap();
        outbox.put_back(batch);
        assert!(outbox.push(relay(5)).is_err(), "what was put back counts");
        assert_eq!(bytes(outbox.take().unwrap()), [Some(0), Some(1), Some(2), None, Some(4)]);
        assert!(outbox.push(relay(6)).is_ok());
    }
}
