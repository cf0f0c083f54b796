//! State shared by all threads: receivers of offers, and the number of peers in each torrent.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::config::MAX_OFFERS;
use crate::ids::OfferKey;

/// Number of offers stored per connection, the newest ones.
const REMEMBERED: u32 = 64;
/// Flag of an offer whose answer was delivered.
const ANSWERED: u64 = 1 << 31;

const _: () = assert!(MAX_OFFERS as u32 <= REMEMBERED, "the offers of an announce are remembered together");

/// Result of the check of a relayed offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfferDelivery {
    Accepted,
    /// Too old: no longer stored.
    Forgotten,
    /// Relayed before.
    Repeated,
    /// Another offer of the same announce was relayed to the same peer.
    SamePeer,
}

/// Result of the check of a relayed answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerDelivery {
    Accepted,
    /// The offer is too old: no longer stored.
    Forgotten,
    /// The offer was not relayed to the sender of the answer.
    Forged,
    /// An answer to the offer was relayed before.
    Repeated,
}

/// Shared by all threads. Relaxed ordering suffices: threads learn of each other's messages through the
/// tracker only.
pub(crate) struct Registry {
    /// Offers of each connection: the sequence number in the upper half; in the lower half the receiver,
    /// counted from 1, and [`ANSWERED`].
    offers: Box<[AtomicU64]>,
    /// Number of peers in each torrent.
    members: Box<[AtomicU32]>,
    /// Whether the tracker has replied to an answer.
    answers_are_replied: AtomicBool,
}

impl Registry {
    pub(crate) fn new(connections: u32, torrents: u64) -> Self {
        let offers = u64::from(connections) * u64::from(REMEMBERED);
        Self {
            offers: (0..offers).map(|_| AtomicU64::new(0)).collect(),
            members: (0..torrents).map(|_| AtomicU32::new(0)).collect(),
            answers_are_replied: AtomicBool::new(false),
        }
    }

    fn entry(&self, connection: u32, sequence: u32) -> Option<&AtomicU64> {
        let entry = u64::from(connection) * u64::from(REMEMBERED) + u64::from(sequence % REMEMBERED);
        self.offers.get(usize::try_from(entry).ok()?)
    }

    /// Records an offer that is about to be sent.
    pub(crate) fn offer_sent(&self, connection: u32, sequence: u32) {
        if let Some(entry) = self.entry(connection, sequence) {
            entry.store(u64::from(sequence) << 32, Ordering::Relaxed);
        }
    }

    /// Records and checks an offer relayed to a connection.
    pub(crate) fn offer_delivered(&self, offer: &OfferKey, receiver: u32) -> OfferDelivery {
        let Some(entry) = self.entry(offer.connection, offer.sequence) else {
            return OfferDelivery::Forgotten;
        };
        let to_nobody = u64::from(offer.sequence) << 32;
        let to_receiver = to_nobody | u64::from(receiver + 1);
        match entry.compare_exchange(to_nobody, to_receiver, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {}
            Err(found) if found >> 32 == u64::from(offer.sequence) => return OfferDelivery::Repeated,
            Err(_) => return OfferDelivery::Forgotten,
        }
        let first = offer.sequence.wrapping_sub(offer.position.into());
        let same = (0..offer.count.into()).map(|step| first.wrapping_add(step)).any(|sequence| {
            let others = self.entry(offer.connection, sequence).filter(|_| sequence != offer.sequence);
            let got = u64::from(sequence) << 32 | u64::from(receiver + 1);
            others.is_some_and(|other| other.load(Ordering::Relaxed) & !ANSWERED == got)
        });
        if same { OfferDelivery::SamePeer } else { OfferDelivery::Accepted }
    }

    /// Records and checks an answer relayed to the connection that made the offer.
    pub(crate) fn answer_delivered(&self, offer: &OfferKey, answerer: u32) -> AnswerDelivery {
        let Some(entry) = self.entry(offer.connection, offer.sequence) else {
            return AnswerDelivery::Forgotten;
        };
        let delivered = u64::from(offer.sequence) << 32 | u64::from(answerer + 1);
        match entry.compare_exchange(delivered, delivered | ANSWERED, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => AnswerDelivery::Accepted,
            Err(found) if found >> 32 != u64::from(offer.sequence) => AnswerDelivery::Forgotten,
            Err(found) if found == delivered | ANSWERED => AnswerDelivery::Repeated,
            Err(_) => AnswerDelivery::Forged,
        }
    }

    /// Records a peer that has joined a torrent.
    pub(crate) fn joined(&self, torrent: u64) {
        if let Some(members) = self.members_of(torrent) {
            members.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records a peer that has left a torrent.
    pub(crate) fn left(&self, torrent: u64) {
        if let Some(members) = self.members_of(torrent) {
            members.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Number of peers in a torrent.
    pub(crate) fn members(&self, torrent: u64) -> u32 {
        self.members_of(torrent).map_or(0, |members| members.load(Ordering::Relaxed))
    }

    fn members_of(&self, torrent: u64) -> Option<&AtomicU32> {
        self.members.get(usize::try_from(torrent).ok()?)
    }

    /// Whether the tracker is known to reply to answers.
    pub(crate) fn answers_are_replied(&self) -> bool {
        self.answers_are_replied.load(Ordering::Relaxed)
    }

    /// Records that the tracker replies to answers.
    pub(crate) fn found_reply_to_answer(&self) {
        self.answers_are_replied.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(sequence: u32, position: u8) -> OfferKey {
        OfferKey { connection: 1, sequence, position, count: 3, membership: 0 }
    }

    #[test]
    fn offers_are_delivered_to_one_peer_each() {
        let registry = Registry::new(4, 1);
        (10..13).for_each(|sequence| registry.offer_sent(1, sequence));
        assert_eq!(registry.offer_delivered(&offer(10, 0), 2), OfferDelivery::Accepted);
        assert_eq!(registry.offer_delivered(&offer(10, 0), 3), OfferDelivery::Repeated);
        assert_eq!(registry.offer_delivered(&offer(11, 1), 2), OfferDelivery::SamePeer);
        assert_eq!(registry.offer_delivered(&offer(12, 2), 3), OfferDelivery::Accepted);
        registry.offer_sent(1, 10 + REMEMBERED);
        assert_eq!(registry.offer_delivered(&offer(10, 0), 0), OfferDelivery::Forgotten);
        assert_eq!(
            registry.offer_delivered(&offer(10 + REMEMBERED, 0), 2),
            OfferDelivery::Accepted,
            "of another announce"
        );
    }

    #[test]
    fn answers_are_accepted_once_from_the_receiver_of_the_offer() {
        let registry = Registry::new(4, 1);
        (10..13).for_each(|sequence| registry.offer_sent(1, sequence));
        assert_eq!(registry.answer_delivered(&offer(10, 0), 2), AnswerDelivery::Forged);
        registry.offer_delivered(&offer(10, 0), 2);
        assert_eq!(registry.answer_delivered(&offer(10, 0), 3), AnswerDelivery::Forged);
        assert_eq!(registry.answer_delivered(&offer(10, 0), 2), AnswerDelivery::Accepted);
        assert_eq!(registry.answer_delivered(&offer(10, 0), 2), AnswerDelivery::Repeated);
        assert_eq!(registry.answer_delivered(&offer(9, 0), 2), AnswerDelivery::Forgotten);
        assert_eq!(
            registry.offer_delivered(&offer(11, 1), 2),
            OfferDelivery::SamePeer,
            "also once it was answered"
        );
    }

    #[test]
    fn members_are_counted() {
        let registry = Registry::new(1, 2);
        registry.joined(1);
        registry.joined(1);
        registry.left(1);
        assert_eq!([0, 1, 2].map(|torrent| registry.members(torrent)), [0, 1, 0]);
    }
}
