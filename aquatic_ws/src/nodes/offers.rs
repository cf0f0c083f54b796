//! Offers of clients of other nodes that one connection has received, and to which node its answers go.

use aquatic_common::Seconds;

use crate::swarm::NodeNumber;

/// Maximum number per connection, 2 KiB. Above it, the oldest are evicted.
const MAX_OFFERS: usize = 128;

/// An offer that was received.
#[derive(Clone, Copy, Debug)]
struct ReceivedOffer {
    /// Hash in halves, so that alignment wastes nothing.
    hash: [u32; 2],
    /// Last second at which it can be answered.
    until: Seconds,
    node: NodeNumber,
}

const _: () = assert!(size_of::<ReceivedOffer>() * MAX_OFFERS <= 2048);

/// Offers that one connection has received from other nodes, oldest first.
#[derive(Debug, Default)]
pub(crate) struct NodeOffers(Vec<ReceivedOffer>);

impl NodeOffers {
    /// Adds an offer, by a hash of its torrent, of both peers and of its id.
    pub(crate) fn insert(&mut self, hash: u64, node: NodeNumber, until: Seconds, now: Seconds) {
        if self.0.len() == self.0.capacity() {
            self.0.retain(|offer| now <= offer.until);
        }
        if self.0.len() >= MAX_OFFERS {
            self.0.remove(0);
        }
        self.0.push(ReceivedOffer { hash: halves(hash), until, node });
    }

    /// Removes an offer that is answered. Returns the node of the client that made it.
    pub(crate) fn take(&mut self, hash: u64, now: Seconds) -> Option<NodeNumber> {
        let is_match = |offer: &ReceivedOffer| offer.hash == halves(hash) && now <= offer.until;
        let at = self.0.iter().rposition(is_match)?;
        Some(self.0.remove(at).node)
    }

    /// Returns whether all offers have expired.
    pub(crate) fn are_over(&self, now: Seconds) -> bool {
        self.0.last().is_none_or(|newest| newest.until < now)
    }
}

fn halves(hash: u64) -> [u32; 2] {
    [(hash >> 32) as u32, hash as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Seconds = Seconds(100);

    fn node(number: u8) -> NodeNumber {
        NodeNumber::new(number).unwrap()
    }

    #[test]
    fn an_offer_is_answered_once_and_in_time() {
        let mut offers = NodeOffers::default();
        offers.insert(1, node(1), NOW, NOW);
        offers.insert(2, node(2), NOW + 1, NOW);
        assert_eq!(offers.take(3, NOW), None);
        assert_eq!(offers.take(2, NOW + 1), Some(node(2)));
        assert_eq!(offers.take(2, NOW + 1), None);
        assert!(offers.are_over(NOW + 1) && !offers.are_over(NOW));
        assert_eq!(offers.take(1, NOW + 1), None);
        assert_eq!(offers.take(1, NOW), Some(node(1)));
    }

    #[test]
    fn the_oldest_are_evicted() {
        let mut offers = NodeOffers::default();
        (0..200).for_each(|hash| offers.insert(hash, node(1), NOW, NOW));
        assert_eq!((0..200).filter(|&hash| offers.take(hash, NOW).is_some()).count(), MAX_OFFERS);
        assert_eq!(offers.take(72, NOW), None);
        assert!(offers.0.capacity() <= MAX_OFFERS);
    }
}
