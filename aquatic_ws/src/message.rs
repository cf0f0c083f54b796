//! What cores say to each other. All that has gathered for a core goes in one batch, so that a batch of announces with
//! ten offers each does not become eleven times as many messages.

use aquatic_common::{InfoHash, PeerId};
use aquatic_ws_protocol::OwnedOffers;

use crate::swarm::{Announce, Announced, Answer, ConnectionId, Counts, OfferDigest};

/// Most bytes that wait for room in the channel to one core; what does not fit is refused or dropped, and counted.
const MAX_WAITING: usize = 16 << 20;

/// What an item counts for beyond the texts it carries.
const ITEM_OVERHEAD: usize = 128;

/// Items from one core to another, in order.
#[derive(Debug, Default)]
pub struct Batch(pub(crate) Vec<Item>);

impl aquatic_runtime::Batch for Batch {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A WebSocket frame with a message for some client.
pub(crate) type Frame = Box<[u8]>;

#[derive(Debug)]
pub(crate) enum Item {
    // To the owner of a torrent.
    Announce(Box<AwayAnnounce>),
    Answer(Box<AwayAnswer>),
    Scrape {
        question: Question,
        torrents: Box<[(u16, InfoHash)]>,
    },
    /// A connection has ended: these peers go.
    Leave {
        connection: ConnectionId,
        peers: Box<[(InfoHash, PeerId)]>,
    },
    // From the owner of a torrent.
    Announced {
        connection: ConnectionId,
        info_hash: InfoHash,
        announced: Announced,
    },
    Relay {
        connection: ConnectionId,
        relay: Relay,
        frame: Frame,
    },
    /// Somebody wants the place of a peer of this connection: does it live?
    Probe {
        connection: ConnectionId,
    },
    Scraped {
        question: Question,
        counts: Box<[(u16, Counts)]>,
    },
}

/// An announce about a torrent of another core, which makes messages of as many offers as it has receivers for.
#[derive(Debug)]
pub(crate) struct AwayAnnounce {
    pub(crate) announce: Announce,
    pub(crate) digests: Vec<OfferDigest>,
    pub(crate) offers: OwnedOffers,
}

/// An answer about a torrent of another core.
#[derive(Debug)]
pub(crate) struct AwayAnswer {
    pub(crate) answer: Answer,
    pub(crate) frame: Frame,
}

/// What peers send each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relay {
    Offer,
    Answer,
}

/// Which scrape of a core something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Item {
    fn weight(&self) -> usize {
        ITEM_OVERHEAD
            + match self {
                Self::Announce(away) => away.offers.heap_bytes(),
                Self::Answer(away) => away.frame.len(),
                Self::Relay { frame, .. } => frame.len(),
                Self::Scrape { torrents, .. } => torrents.len() * size_of::<(u16, InfoHash)>(),
                Self::Scraped { counts, .. } => counts.len() * size_of::<(u16, Counts)>(),
                Self::Leave { .. } | Self::Announced { .. } | Self::Probe { .. } => 0,
            }
    }
}

/// What waits to be sent to one other core.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    items: Vec<Item>,
    weight: usize,
}

impl Mail {
    /// Adds an item, or gives it back if too much waits already.
    pub(crate) fn push(&mut self, item: Item) -> Result<(), Item> {
        let weight = item.weight();
        // A peer that is not removed would be offered to others until it expires; and there are no more of these items
        // than there are connections.
        let must_arrive = matches!(item, Item::Leave { .. });
        if self.weight + weight > MAX_WAITING && !must_arrive {
            return Err(item);
        }
        self.weight += weight;
        self.items.push(item);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All that waits, if anything does.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        if self.items.is_empty() {
            return None;
        }
        self.weight = 0;
        Some(Batch(std::mem::take(&mut self.items)))
    }

    /// Takes back a batch that could not be sent, which comes before all that has gathered since.
    pub(crate) fn put_back(&mut self, Batch(mut items): Batch) {
        self.weight += items.iter().map(Item::weight).sum::<usize>();
        items.append(&mut self.items);
        self.items = items;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: ConnectionId = ConnectionId { core: 0, slot: 0, generation: 0 };

    fn relay(byte: u8) -> Item {
        let frame = vec![byte; MAX_WAITING / 4].into_boxed_slice();
        Item::Relay { connection: CONNECTION, relay: Relay::Offer, frame }
    }

    fn bytes(Batch(items): Batch) -> Vec<Option<u8>> {
        let first = |item| if let Item::Relay { frame, .. } = item { frame.first().copied() } else { None };
        items.into_iter().map(first).collect()
    }

    #[test]
    fn what_waits_is_bounded_and_stays_in_order() {
        let mut mail = Mail::default();
        assert!(mail.take().is_none());
        (0..3).for_each(|byte| mail.push(relay(byte)).unwrap());
        assert!(mail.push(relay(3)).is_err());
        assert!(mail.push(Item::Leave { connection: CONNECTION, peers: Box::default() }).is_ok());
        let batch = mail.take().unwrap();
        mail.push(relay(4)).unwrap();
        mail.put_back(batch);
        assert!(mail.push(relay(5)).is_err(), "what came back counts");
        assert_eq!(bytes(mail.take().unwrap()), [Some(0), Some(1), Some(2), None, Some(4)]);
        assert!(mail.push(relay(6)).is_ok());
    }
}
