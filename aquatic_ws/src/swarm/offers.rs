//! Offers that wait for their answers.
//!
//! Each belongs to the peer that made it, and goes with it at once. It is one number: a keyed hash of who may answer, over
//! which connection, and of the offer id. So each takes the same little room, whatever clients send, and what belongs to
//! the one who may answer need not be looked for when it leaves: nobody can make the number any more.
//!
//! # Invariants
//!
//! - A place is a peer's own until it is given back, and so is what waits there, in the order in which it was made.
//! - Who has something that waits is in one list, in the order in which they offered last, and nobody else is.

use aquatic_common::Seconds;
use slab::Slab;

/// Places below which no memory is given back.
const SMALL: usize = 1024;

/// Where the offers of a peer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// The place of a peer that has offered nothing.
    pub(super) const NONE: Self = Self(u32::MAX);

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// How many offers may wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Seconds.
    pub(super) age: u32,
    /// Of one peer; beyond it the oldest of them are forgotten.
    pub(super) of_peer: usize,
    /// Of all peers; beyond it those are forgotten who have offered least recently.
    pub(super) of_all: usize,
}

/// An offer.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// In halves, which take no room for alignment.
    number: [u32; 2],
    /// When it can no longer be answered.
    until: Seconds,
}

const _: () = assert!(size_of::<Waiting>() == 12);

/// The offers of one peer.
#[derive(Debug)]
struct Maker {
    waiting: Vec<Waiting>,
    /// Who is next in the list of those whose offers wait: towards those who offered before, and after.
    neighbours: [Place; 2],
}

/// Directions in the list, and its ends.
const BEFORE: usize = 0;
const AFTER: usize = 1;

/// The offers of one core.
#[derive(Debug)]
pub(super) struct Offers {
    makers: Slab<Maker>,
    /// Who offered least recently, and most recently.
    ends: [Place; 2],
    count: usize,
    bounds: Bounds,
    dropped: u64,
}

impl Offers {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { makers: Slab::new(), ends: [Place::NONE; 2], count: 0, bounds, dropped: 0 }
    }

    /// How many wait, those included whose time is over without anybody having looked.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many were forgotten before their time, although who made them was there.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Remembers what a peer offers.
    pub(super) fn insert(&mut self, place: &mut Place, numbers: &[u64], now: Seconds) {
        if numbers.is_empty() {
            return;
        }
        if *place == Place::NONE {
            let maker = Maker { waiting: Vec::new(), neighbours: [Place::NONE; 2] };
            *place = Place(self.makers.insert(maker) as u32);
        }
        self.remove_old(*place, now);
        self.unlink(*place);
        let until = now + self.bounds.age;
        let waiting = &mut self.makers[place.index()].waiting;
        waiting.reserve(numbers.len());
        waiting.extend(numbers.iter().map(|&number| Waiting { number: halves(number), until }));
        let len = waiting.len();
        self.count += numbers.len();
        self.link(*place);
        self.drop_oldest(*place, len.saturating_sub(self.bounds.of_peer), now);
        self.make_room(now);
    }

    /// Takes an offer out. Whether it could be answered.
    pub(super) fn take(&mut self, place: Place, number: u64, now: Seconds) -> bool {
        let Some(maker) = self.makers.get(place.index()) else { return false };
        // Most answers are to what was offered last.
        let is_it = |offer: &Waiting| offer.number == halves(number) && now <= offer.until;
        let Some(at) = maker.waiting.iter().rposition(is_it) else { return false };
        self.makers[place.index()].waiting.remove(at);
        self.count -= 1;
        self.settle(place);
        true
    }

    /// Forgets all offers of a peer.
    pub(super) fn forget(&mut self, place: &mut Place) {
        if *place == Place::NONE {
            return;
        }
        self.unlink(*place);
        let Maker { waiting, .. } = self.makers.remove(take_place(place).index());
        self.count -= waiting.len();
    }

    /// Forgets offers of a peer that are too old, and that it has ever offered anything if nothing waits.
    pub(super) fn forget_old_of(&mut self, place: &mut Place, now: Seconds) {
        if *place != Place::NONE {
            self.remove_old(*place, now);
            if self.makers[place.index()].waiting.is_empty() {
                self.makers.remove(take_place(place).index());
            }
        }
    }

    /// Forgets what is too old of those who have not offered anything since.
    pub(super) fn forget_old(&mut self, now: Seconds) {
        while let Some(maker) = self.makers.get(self.ends[BEFORE].index())
            && maker.waiting.last().is_some_and(|newest| newest.until < now)
        {
            self.remove_old(self.ends[BEFORE], now);
        }
    }

    /// Gives memory back after there were many.
    pub(super) fn shrink(&mut self) {
        if self.makers.len() < self.makers.capacity() / 4 && self.makers.capacity() > SMALL {
            self.makers.shrink_to_fit();
        }
    }

    fn remove_old(&mut self, place: Place, now: Seconds) {
        let waiting = &self.makers[place.index()].waiting;
        self.remove_oldest(place, waiting.partition_point(|offer| offer.until < now));
    }

    fn drop_oldest(&mut self, place: Place, many: usize, now: Seconds) {
        let oldest = self.makers[place.index()].waiting.iter().take(many);
        self.dropped += oldest.filter(|offer| now <= offer.until).count() as u64;
        self.remove_oldest(place, many);
    }

    fn remove_oldest(&mut self, place: Place, many: usize) {
        if many > 0 {
            self.makers[place.index()].waiting.drain(..many);
            self.count -= many;
            self.settle(place);
        }
    }

    /// Forgets offers until there are no more than there may be.
    fn make_room(&mut self, now: Seconds) {
        while self.count > self.bounds.of_all {
            let [place, last] = self.ends;
            let len = self.makers[place.index()].waiting.len();
            let many = if place == last { len.min(self.count - self.bounds.of_all) } else { len };
            self.drop_oldest(place, many, now);
        }
    }

    /// Brings list and memory in order after offers of a peer have been taken out.
    fn settle(&mut self, place: Place) {
        let waiting = &mut self.makers[place.index()].waiting;
        let (len, capacity) = (waiting.len(), waiting.capacity());
        if len == 0 {
            // While it is not empty, it is in the list.
            *waiting = Vec::new();
            self.detach(place);
        } else if len < capacity / 4 {
            waiting.shrink_to(len * 2);
        }
    }

    /// Adds a peer whose offers wait to the list, as the one who offered last.
    fn link(&mut self, place: Place) {
        let last = self.ends[AFTER];
        self.makers[place.index()].neighbours = [last, Place::NONE];
        *self.neighbour(last, AFTER) = place;
        self.ends[AFTER] = place;
    }

    /// Takes a peer out of the list if it is there.
    fn unlink(&mut self, place: Place) {
        if !self.makers[place.index()].waiting.is_empty() {
            self.detach(place);
        }
    }

    fn detach(&mut self, place: Place) {
        let [before, after] = self.makers[place.index()].neighbours;
        *self.neighbour(before, AFTER) = after;
        *self.neighbour(after, BEFORE) = before;
    }

    /// What a peer in the list has for its neighbour; for nobody, the end of the list that one meets from there.
    fn neighbour(&mut self, place: Place, side: usize) -> &mut Place {
        match self.makers.get_mut(place.index()) {
            Some(maker) => &mut maker.neighbours[side],
            None => &mut self.ends[1 - side],
        }
    }

    /// Asserts what must hold between any two calls, if these are the places of all peers.
    #[cfg(test)]
    pub(super) fn check(&self, places: impl Iterator<Item = Place>) {
        let mut places: Vec<u32> =
            places.filter(|&place| place != Place::NONE).map(|place| place.0).collect();
        places.sort_unstable();
        let used: Vec<u32> = self.makers.iter().map(|(at, _)| at as u32).collect();
        assert_eq!(places, used, "every place is one peer's");
        let mut listed = Vec::new();
        let (mut before, mut place) = (Place::NONE, self.ends[BEFORE]);
        while let Some(maker) = self.makers.get(place.index()) {
            assert_eq!(maker.neighbours[BEFORE], before);
            listed.push(place.0);
            (before, place) = (place, maker.neighbours[AFTER]);
        }
        assert_eq!(self.ends[AFTER], before);
        listed.sort_unstable();
        let waiting = self.makers.iter().filter(|(_, maker)| !maker.waiting.is_empty());
        assert_eq!(listed, waiting.map(|(at, _)| at as u32).collect::<Vec<_>>());
        let all = self.makers.iter().map(|(_, maker)| &maker.waiting);
        assert_eq!(self.count, all.clone().map(Vec::len).sum());
        all.for_each(|waiting| assert!(waiting.is_sorted_by_key(|offer| offer.until)));
    }
}

fn halves(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

fn take_place(place: &mut Place) -> Place {
    std::mem::replace(place, Place::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(of_peer: usize, of_all: usize) -> Offers {
        Offers::new(Bounds { age: 60, of_peer, of_all })
    }

    #[test]
    fn an_offer_is_answered_once_and_in_time() {
        let mut offers = offers(100, 100);
        let mut place = Place::NONE;
        assert!(!offers.take(place, 7, Seconds(10)));
        offers.insert(&mut place, &[7, 1 << 40], Seconds(10));
        assert!(!offers.take(place, 1 << 41, Seconds(10)));
        assert!(offers.take(place, 7, Seconds(70)));
        assert!(!offers.take(place, 7, Seconds(70)));
        assert!(!offers.take(place, 1 << 40, Seconds(71)));
        offers.forget_old(Seconds(71));
        assert_eq!(offers.len(), 0);
        offers.check([place].into_iter());
        offers.forget_old_of(&mut place, Seconds(71));
        assert_eq!((place, offers.makers.len(), offers.dropped()), (Place::NONE, 0, 0));
    }

    #[test]
    fn offers_are_those_of_their_makers_and_go_with_them() {
        let mut offers = offers(100, 100);
        let mut places = [Place::NONE; 3];
        for place in &mut places {
            offers.insert(place, &[7, 8], Seconds(0));
        }
        assert!(offers.take(places[1], 8, Seconds(1)));
        offers.forget(&mut places[1]);
        assert_eq!((places[1], offers.len()), (Place::NONE, 4));
        offers.check(places.into_iter());
        assert!(!offers.take(places[1], 7, Seconds(1)));
        assert!(offers.take(places[0], 7, Seconds(1)) && offers.take(places[2], 7, Seconds(1)));
    }

    #[test]
    fn an_offer_that_is_repeated_is_as_young_as_the_last() {
        let mut offers = offers(100, 100);
        let mut place = Place::NONE;
        offers.insert(&mut place, &[7], Seconds(0));
        offers.insert(&mut place, &[7], Seconds(50));
        offers.forget_old(Seconds(100));
        assert!(offers.take(place, 7, Seconds(110)));
        assert!(!offers.take(place, 7, Seconds(110)), "the first is too old");
    }

    #[test]
    fn a_peer_has_its_newest_offers() {
        let mut offers = offers(3, 100);
        let mut place = Place::NONE;
        offers.insert(&mut place, &[1, 2], Seconds(1));
        offers.insert(&mut place, &[3, 4], Seconds(2));
        assert_eq!((offers.len(), offers.dropped()), (3, 1));
        assert!(!offers.take(place, 1, Seconds(2)) && offers.take(place, 2, Seconds(2)));
        offers.insert(&mut place, &[5, 6, 7, 8, 9], Seconds(2));
        assert_eq!((offers.len(), offers.dropped()), (3, 5));
        offers.insert(&mut place, &[10, 11, 12], Seconds(63));
        assert_eq!((offers.len(), offers.dropped()), (3, 5), "what is too old is not missed");
        offers.check([place].into_iter());
    }

    #[test]
    fn who_offered_least_recently_makes_room() {
        let mut offers = offers(100, 5);
        let mut places = [Place::NONE; 3];
        for at in [0, 1, 0, 2] {
            offers.insert(&mut places[at], &[7], Seconds(1));
        }
        assert!(offers.take(places[2], 7, Seconds(1)));
        offers.insert(&mut places[2], &[1, 2, 3], Seconds(1));
        assert_eq!((offers.len(), offers.dropped()), (5, 1));
        assert!(!offers.take(places[1], 7, Seconds(1)), "the second peer was the first to make room");
        offers.check(places.into_iter());
        offers.insert(&mut places[1], &[1, 2, 3, 4, 5, 6, 7], Seconds(1));
        assert_eq!((offers.len(), offers.dropped()), (5, 8));
        assert!(!offers.take(places[1], 2, Seconds(1)) && offers.take(places[1], 3, Seconds(1)));
        offers.check(places.into_iter());
    }

    #[test]
    fn memory_is_given_back() {
        let mut offers = offers(20_000, 100_000);
        let mut places = vec![Place::NONE; 10_000];
        places.iter_mut().for_each(|place| offers.insert(place, &[1; 10], Seconds(1)));
        assert_eq!(offers.len(), 100_000);
        places.iter_mut().skip(1).for_each(|place| offers.forget(place));
        offers.shrink();
        assert!(offers.makers.capacity() < SMALL);
        offers.insert(&mut places[0], &[1; 10_000], Seconds(2));
        offers.insert(&mut places[0], &[1], Seconds(63));
        assert_eq!(offers.len(), 1);
        assert!(offers.makers[places[0].index()].waiting.capacity() < 10);
    }
}
