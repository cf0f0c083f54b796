//! Offers that wait for their answers.
//!
//! An offer is one number: a keyed hash of torrent, both peers, both connections and the offer id. So each takes the same
//! little room, whatever clients send, and what belongs to a peer need not be looked for when it leaves: nobody can make
//! the number any more.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use aquatic_common::Seconds;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// Entries below which nothing is given back.
const SMALL: usize = 1024;

/// Passes a number on that is a keyed hash already.
#[derive(Debug, Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "only numbers of 64 bits are hashed");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// The offers of one core.
#[derive(Debug)]
pub(super) struct Offers {
    /// When each can no longer be answered.
    until: HashMap<u64, Seconds, BuildHasherDefault<Itself>>,
    /// All of them in the order of that, and those that have been answered or repeated since.
    in_order: VecDeque<(u64, Seconds)>,
    max_age: u32,
    most: usize,
    dropped: u64,
}

impl Offers {
    pub(super) fn new(max_age: u32, most: usize) -> Self {
        Self { until: HashMap::default(), in_order: VecDeque::new(), max_age, most: most.max(1), dropped: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.until.len()
    }

    /// How many were forgotten before their time.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Remembers an offer.
    pub(super) fn insert(&mut self, offer: u64, now: Seconds) {
        self.forget_old(now);
        while self.in_order.len() >= self.most
            && let Some((oldest, until)) = self.in_order.pop_front()
        {
            self.dropped += u64::from(self.forget(oldest, until));
        }
        let until = now + self.max_age;
        self.until.insert(offer, until);
        self.in_order.push_back((offer, until));
    }

    /// Takes an offer out. Whether it could be answered.
    pub(super) fn take(&mut self, offer: u64, now: Seconds) -> bool {
        self.until.remove(&offer).is_some_and(|until| now <= until)
    }

    /// Forgets offers that are too old, and gives memory back after there were many.
    pub(super) fn forget_old(&mut self, now: Seconds) {
        while let Some(&(offer, until)) = self.in_order.front()
            && until < now
        {
            self.in_order.pop_front();
            self.forget(offer, until);
        }
    }

    /// Gives memory back after there were many.
    pub(super) fn shrink(&mut self) {
        if self.in_order.len() < self.in_order.capacity() / 4 && self.in_order.capacity() > SMALL {
            self.in_order.shrink_to(self.in_order.len() * 2);
            self.until.shrink_to(self.in_order.len() * 2);
        }
    }

    /// Forgets an offer unless it was repeated later. Whether it was there.
    fn forget(&mut self, offer: u64, until: Seconds) -> bool {
        match self.until.entry(offer) {
            Entry::Occupied(entry) if *entry.get() == until => {
                entry.remove();
                true
            }
            Entry::Occupied(_) | Entry::Vacant(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_answered_once_and_in_time() {
        let mut offers = Offers::new(60, 100);
        offers.insert(7, Seconds(10));
        assert!(offers.take(7, Seconds(70)));
        assert!(!offers.take(7, Seconds(70)));
        offers.insert(8, Seconds(10));
        assert!(!offers.take(8, Seconds(71)));
        offers.insert(9, Seconds(100));
        offers.forget_old(Seconds(161));
        assert_eq!((offers.len(), offers.in_order.len()), (0, 0));
        assert!(!offers.take(9, Seconds(100)), "what is forgotten stays so");
    }

    #[test]
    fn a_repeated_offer_is_as_young_as_the_last() {
        let mut offers = Offers::new(60, 100);
        offers.insert(7, Seconds(0));
        offers.insert(7, Seconds(50));
        offers.forget_old(Seconds(100));
        assert!(offers.take(7, Seconds(110)));
        assert_eq!(offers.dropped(), 0);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut offers = Offers::new(60, 3);
        (0..5).for_each(|offer| offers.insert(offer, Seconds(1)));
        assert_eq!((offers.len(), offers.dropped()), (3, 2));
        assert!(!offers.take(1, Seconds(2)) && offers.take(2, Seconds(2)));
    }

    #[test]
    fn memory_is_given_back() {
        let mut offers = Offers::new(60, 100_000);
        (0..100_000).for_each(|offer| offers.insert(offer, Seconds(1)));
        offers.forget_old(Seconds(100));
        offers.shrink();
        assert!(offers.in_order.capacity() < SMALL && offers.until.capacity() < SMALL);
    }
}
