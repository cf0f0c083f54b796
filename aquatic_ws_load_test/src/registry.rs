//! What threads have to know of each other's peers: which offers were relayed to whom, and how many are in a torrent.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::config::MAX_OFFERS;
use crate::ids::OfferKey;

/// The last so many offers of each connection are remembered.
const REMEMBERED: u32 = 64;
/// Marks an offer whose answer has come.
const ANSWERED: u64 = 1 << 31;

const _: () = assert!(MAX_OFFERS as u32 <= REMEMBERED, "the offers of an announce are remembered together");

/// What is to be said about an offer that was relayed to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfferDelivery {
    Accepted,
    /// It is too old to be remembered.
    Forgotten,
    /// It was relayed before.
    Repeated,
    /// Another offer of the same announce was relayed to the same peer.
    SamePeer,
}

/// What is to be said about an answer that was relayed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerDelivery {
    Accepted,
    /// Its offer is too old to be remembered.
    Forgotten,
    /// The offer was relayed to someone else or to nobody.
    Forged,
    /// The offer was answered before.
    Repeated,
}

/// Shared by all threads. Nothing here orders anything else: what one thread knows of a message of another it knows
/// through the tracker.
pub(crate) struct Registry {
    /// Places for the offers of each connection: the number of the offer in the upper half; in the lower one, who got
    /// it, counted from 1, and [`ANSWERED`].
    offers: Box<[AtomicU64]>,
    /// Peers that have announced to each torrent and not left.
    members: Box<[AtomicU32]>,
    /// Whether the tracker replies to answers, as found out.
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

    fn place(&self, connection: u32, sequence: u32) -> Option<&AtomicU64> {
        let place = u64::from(connection) * u64::from(REMEMBERED) + u64::from(sequence % REMEMBERED);
        self.offers.get(usize::try_from(place).ok()?)
    }

    /// An offer is about to be sent.
    pub(crate) fn offer_sent(&self, connection: u32, sequence: u32) {
        if let Some(place) = self.place(connection, sequence) {
            place.store(u64::from(sequence) << 32, Ordering::Relaxed);
        }
    }

    /// An offer has come to a connection.
    pub(crate) fn offer_delivered(&self, offer: &OfferKey, receiver: u32) -> OfferDelivery {
        let Some(place) = self.place(offer.connection, offer.sequence) else {
            return OfferDelivery::Forgotten;
        };
        let to_nobody = u64::from(offer.sequence) << 32;
        let to_receiver = to_nobody | u64::from(receiver + 1);
        match place.compare_exchange(to_nobody, to_receiver, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {}
            Err(found) if found >> 32 == u64::from(offer.sequence) => return OfferDelivery::Repeated,
            Err(_) => return OfferDelivery::Forgotten,
        }
        let first = offer.sequence.wrapping_sub(offer.position.into());
        let same = (0..offer.count.into()).map(|step| first.wrapping_add(step)).any(|sequence| {
            let others = self.place(offer.connection, sequence).filter(|_| sequence != offer.sequence);
            let got = u64::from(sequence) << 32 | u64::from(receiver + 1);
            others.is_some_and(|other| other.load(Ordering::Relaxed) & !ANSWERED == got)
        });
        if same { OfferDelivery::SamePeer } else { OfferDelivery::Accepted }
    }

    /// An answer has come back to the connection that made the offer.
    pub(crate) fn answer_delivered(&self, offer: &OfferKey, answerer: u32) -> AnswerDelivery {
        let Some(place) = self.place(offer.connection, offer.sequence) else {
            return AnswerDelivery::Forgotten;
        };
        let delivered = u64::from(offer.sequence) << 32 | u64::from(answerer + 1);
        match place.compare_exchange(delivered, delivered | ANSWERED, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => AnswerDelivery::Accepted,
            Err(found) if found >> 32 != u64::from(offer.sequence) => AnswerDelivery::Forgotten,
            Err(found) if found == delivered | ANSWERED => AnswerDelivery::Repeated,
            Err(_) => AnswerDelivery::Forged,
        }
    }

    /// A peer is in a torrent now.
    pub(crate) fn joined(&self, torrent: u64) {
        if let Some(members) = self.members_of(torrent) {
            members.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A peer has left a torrent.
    pub(crate) fn left(&self, torrent: u64) {
        if let Some(members) = self.members_of(torrent) {
            members.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many peers are in a torrent.
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

    /// A reply came that belongs to nothing but an answer.
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
    fn offers_go_to_one_peer_each() {
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
    fn answers_come_once_from_whom_the_offer_went_to() {
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
