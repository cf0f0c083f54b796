//! Pending offers: those that were relayed and can be answered.
//!
//! A pending offer belongs to the peer that made it, and is removed with it. It is stored as one number: a
//! keyed hash of the peer that may answer, of that peer's connection and of the offer id. So all take the
//! same 12 bytes, whatever clients send. Offers *to* a peer need not be found when it leaves, because nobody
//! can produce their numbers any more.
//!
//! # Invariants
//!
//! - A handle belongs to one peer until it is removed, and so do the offers it stands for, oldest first.
//! - The peers with pending offers, and only they, are in a list ordered by the time of their last offer.

use aquatic_common::Seconds;
use slab::Slab;

/// Capacity in peers up to which no memory is released.
const MIN_CAPACITY: usize = 1024;

/// Handle of the pending offers of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OffersHandle(u32);

impl OffersHandle {
    /// Handle of a peer that has made no offers.
    pub(super) const NONE: Self = Self(u32::MAX);

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Limits on pending offers.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfferLimits {
    /// Seconds until an offer expires.
    pub(super) max_age: u32,
    /// Maximum number per peer. Above it, the oldest of them are evicted.
    pub(super) max_per_peer: usize,
    /// Maximum number of all peers. Above it, offers of the peers that offered least recently are evicted.
    pub(super) max_total: usize,
}

/// A pending offer.
#[derive(Clone, Copy, Debug)]
struct PendingOffer {
    /// 64-bit number in halves, so that alignment wastes nothing.
    number: [u32; 2],
    /// Last second at which it can be answered.
    until: Seconds,
}

const _: () = assert!(size_of::<PendingOffer>() == 12);

/// Pending offers of one peer.
#[derive(Debug)]
struct PeerOffers {
    pending: Vec<PendingOffer>,
    /// Neighbours in the list of peers: the one that offered before, and the one that offered after.
    neighbours: [OffersHandle; 2],
}

/// Directions in the list, and its ends.
const BEFORE: usize = 0;
const AFTER: usize = 1;

/// Pending offers of one core.
#[derive(Debug)]
pub(super) struct Offers {
    peers: Slab<PeerOffers>,
    /// The peers that offered least and most recently.
    ends: [OffersHandle; 2],
    count: usize,
    /// Sum of the capacities of all lists of pending offers.
    capacity: usize,
    limits: OfferLimits,
    evicted: u64,
}

impl Offers {
    pub(super) fn new(limits: OfferLimits) -> Self {
        Self { peers: Slab::new(), ends: [OffersHandle::NONE; 2], count: 0, capacity: 0, limits, evicted: 0 }
    }

    /// Returns the number of pending offers, including expired ones that were not removed yet.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Returns the number of offers evicted so far: removed before they expired, although their peer was
    /// there.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Returns the memory in bytes, without the overhead of the allocator.
    pub(super) fn heap_bytes(&self) -> usize {
        self.peers.capacity() * size_of::<PeerOffers>() + self.capacity * size_of::<PendingOffer>()
    }

    /// Adds offers of a peer.
    pub(super) fn insert(&mut self, handle: &mut OffersHandle, numbers: &[u64], now: Seconds) {
        if numbers.is_empty() {
            return;
        }
        if *handle == OffersHandle::NONE {
            let peer = PeerOffers { pending: Vec::new(), neighbours: [OffersHandle::NONE; 2] };
            *handle = OffersHandle(self.peers.insert(peer) as u32);
        }
        self.remove_expired_of(*handle, now);
        self.unlink(*handle);
        let until = now + self.limits.max_age;
        let pending = &mut self.peers[handle.index()].pending;
        self.capacity -= pending.capacity();
        pending.reserve(numbers.len());
        self.capacity += pending.capacity();
        pending.extend(numbers.iter().map(|&number| PendingOffer { number: halves(number), until }));
        let len = pending.len();
        self.count += numbers.len();
        self.link(*handle);
        self.evict_oldest(*handle, len.saturating_sub(self.limits.max_per_peer), now);
        self.evict_excess(now);
    }

    /// Removes an offer. Returns whether it could be answered.
    pub(super) fn take(&mut self, handle: OffersHandle, number: u64, now: Seconds) -> bool {
        let Some(peer) = self.peers.get(handle.index()) else { return false };
        // Most answers are to the latest offers.
        let is_match = |offer: &PendingOffer| offer.number == halves(number) && now <= offer.until;
        let Some(at) = peer.pending.iter().rposition(is_match) else { return false };
        self.peers[handle.index()].pending.remove(at);
        self.count -= 1;
        self.after_removal(handle);
        true
    }

    /// Removes all offers of a peer.
    pub(super) fn remove_all(&mut self, handle: &mut OffersHandle) {
        if *handle == OffersHandle::NONE {
            return;
        }
        self.unlink(*handle);
        let PeerOffers { pending, .. } = self.peers.remove(take_handle(handle).index());
        self.count -= pending.len();
        self.capacity -= pending.capacity();
    }

    /// Removes the expired offers of a peer, and its handle if none is left.
    pub(super) fn expire_peer(&mut self, handle: &mut OffersHandle, now: Seconds) {
        if *handle != OffersHandle::NONE {
            self.remove_expired_of(*handle, now);
            if self.peers[handle.index()].pending.is_empty() {
                self.peers.remove(take_handle(handle).index());
            }
        }
    }

    /// Removes expired offers of peers that have made no offers since, until about `max` were removed. The
    /// rest are left to the next call.
    pub(super) fn expire(&mut self, now: Seconds, max: usize) {
        let mut left = max;
        while left > 0
            && let Some(peer) = self.peers.get(self.ends[BEFORE].index())
            && peer.pending.last().is_some_and(|newest| newest.until < now)
        {
            left = left.saturating_sub(peer.pending.len());
            self.remove_expired_of(self.ends[BEFORE], now);
        }
    }

    /// Releases unused memory.
    pub(super) fn shrink(&mut self) {
        if self.peers.len() < self.peers.capacity() / 4 && self.peers.capacity() > MIN_CAPACITY {
            self.peers.shrink_to_fit();
        }
    }

    fn remove_expired_of(&mut self, handle: OffersHandle, now: Seconds) {
        let pending = &self.peers[handle.index()].pending;
        self.remove_oldest(handle, pending.partition_point(|offer| offer.until < now));
    }

    fn evict_oldest(&mut self, handle: OffersHandle, count: usize, now: Seconds) {
        let oldest = self.peers[handle.index()].pending.iter().take(count);
        self.evicted += oldest.filter(|offer| now <= offer.until).count() as u64;
        self.remove_oldest(handle, count);
    }

    fn remove_oldest(&mut self, handle: OffersHandle, count: usize) {
        if count > 0 {
            self.peers[handle.index()].pending.drain(..count);
            self.count -= count;
            self.after_removal(handle);
        }
    }

    /// Evicts offers until their number is within the limit.
    fn evict_excess(&mut self, now: Seconds) {
        while self.count > self.limits.max_total {
            let [handle, last] = self.ends;
            let len = self.peers[handle.index()].pending.len();
            let count = if handle == last { len.min(self.count - self.limits.max_total) } else { len };
            self.evict_oldest(handle, count, now);
        }
    }

    /// Updates list and memory after offers of a peer were removed.
    fn after_removal(&mut self, handle: OffersHandle) {
        let pending = &mut self.peers[handle.index()].pending;
        let (len, capacity) = (pending.len(), pending.capacity());
        if len == 0 {
            // It had offers until now, so it is in the list.
            *pending = Vec::new();
            self.capacity -= capacity;
            self.detach(handle);
        } else if len < capacity / 4 {
            pending.shrink_to(len * 2);
            self.capacity -= capacity - pending.capacity();
        }
    }

    /// Appends a peer with pending offers to the list.
    fn link(&mut self, handle: OffersHandle) {
        let last = self.ends[AFTER];
        self.peers[handle.index()].neighbours = [last, OffersHandle::NONE];
        *self.neighbour(last, AFTER) = handle;
        self.ends[AFTER] = handle;
    }

    /// Removes a peer from the list if it is in it.
    fn unlink(&mut self, handle: OffersHandle) {
        if !self.peers[handle.index()].pending.is_empty() {
            self.detach(handle);
        }
    }

    fn detach(&mut self, handle: OffersHandle) {
        let [before, after] = self.peers[handle.index()].neighbours;
        *self.neighbour(before, AFTER) = after;
        *self.neighbour(after, BEFORE) = before;
    }

    /// Returns the link of a peer to its neighbour on one side. For [`OffersHandle::NONE`], returns the
    /// opposite end of the list.
    fn neighbour(&mut self, handle: OffersHandle, side: usize) -> &mut OffersHandle {
        match self.peers.get_mut(handle.index()) {
            Some(peer) => &mut peer.neighbours[side],
            None => &mut self.ends[1 - side],
        }
    }

    /// Asserts the invariants, given the handles of all peers.
    #[cfg(test)]
    pub(super) fn check(&self, handles: impl Iterator<Item = OffersHandle>) {
        let mut handles: Vec<u32> =
            handles.filter(|&handle| handle != OffersHandle::NONE).map(|handle| handle.0).collect();
        handles.sort_unstable();
        let used: Vec<u32> = self.peers.iter().map(|(at, _)| at as u32).collect();
        assert_eq!(handles, used, "every handle belongs to one peer");
        let mut listed = Vec::new();
        let (mut before, mut handle) = (OffersHandle::NONE, self.ends[BEFORE]);
        while let Some(peer) = self.peers.get(handle.index()) {
            assert_eq!(peer.neighbours[BEFORE], before);
            listed.push(handle.0);
            (before, handle) = (handle, peer.neighbours[AFTER]);
        }
        assert_eq!(self.ends[AFTER], before);
        listed.sort_unstable();
        let pending = self.peers.iter().filter(|(_, peer)| !peer.pending.is_empty());
        assert_eq!(listed, pending.map(|(at, _)| at as u32).collect::<Vec<_>>());
        let all = self.peers.iter().map(|(_, peer)| &peer.pending);
        assert_eq!(self.count, all.clone().map(Vec::len).sum());
        assert_eq!(self.capacity, all.clone().map(Vec::capacity).sum());
        all.for_each(|pending| assert!(pending.is_sorted_by_key(|offer| offer.until)));
    }
}

fn halves(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

fn take_handle(handle: &mut OffersHandle) -> OffersHandle {
    std::mem::replace(handle, OffersHandle::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(max_per_peer: usize, max_total: usize) -> Offers {
        Offers::new(OfferLimits { max_age: 60, max_per_peer, max_total })
    }

    #[test]
    fn an_offer_is_answered_once_and_in_time() {
        let mut offers = offers(100, 100);
        let mut handle = OffersHandle::NONE;
        assert!(!offers.take(handle, 7, Seconds(10)));
        offers.insert(&mut handle, &[7, 1 << 40], Seconds(10));
        assert!(!offers.take(handle, 1 << 41, Seconds(10)));
        assert!(offers.take(handle, 7, Seconds(70)));
        assert!(!offers.take(handle, 7, Seconds(70)));
        assert!(!offers.take(handle, 1 << 40, Seconds(71)));
        offers.expire(Seconds(71), 10);
        assert_eq!(offers.len(), 0);
        offers.check([handle].into_iter());
        offers.expire_peer(&mut handle, Seconds(71));
        assert_eq!((handle, offers.peers.len(), offers.evicted()), (OffersHandle::NONE, 0, 0));
    }

    #[test]
    fn offers_are_removed_with_their_peer() {
        let mut offers = offers(100, 100);
        let mut handles = [OffersHandle::NONE; 3];
        for handle in &mut handles {
            offers.insert(handle, &[7, 8], Seconds(0));
        }
        assert!(offers.take(handles[1], 8, Seconds(1)));
        offers.remove_all(&mut handles[1]);
        assert_eq!((handles[1], offers.len()), (OffersHandle::NONE, 4));
        offers.check(handles.into_iter());
        assert!(!offers.take(handles[1], 7, Seconds(1)));
        assert!(offers.take(handles[0], 7, Seconds(1)) && offers.take(handles[2], 7, Seconds(1)));
    }

    #[test]
    fn an_offer_that_is_repeated_is_as_young_as_the_last() {
        let mut offers = offers(100, 100);
        let mut handle = OffersHandle::NONE;
        offers.insert(&mut handle, &[7], Seconds(0));
        offers.insert(&mut handle, &[7], Seconds(50));
        offers.expire(Seconds(100), 10);
        assert!(offers.take(handle, 7, Seconds(110)));
        assert!(!offers.take(handle, 7, Seconds(110)), "the first is too old");
    }

    #[test]
    fn a_peer_has_its_newest_offers() {
        let mut offers = offers(3, 100);
        let mut handle = OffersHandle::NONE;
        offers.insert(&mut handle, &[1, 2], Seconds(1));
        offers.insert(&mut handle, &[3, 4], Seconds(2));
        assert_eq!((offers.len(), offers.evicted()), (3, 1));
        assert!(!offers.take(handle, 1, Seconds(2)) && offers.take(handle, 2, Seconds(2)));
        offers.insert(&mut handle, &[5, 6, 7, 8, 9], Seconds(2));
        assert_eq!((offers.len(), offers.evicted()), (3, 5));
        offers.insert(&mut handle, &[10, 11, 12], Seconds(63));
        assert_eq!((offers.len(), offers.evicted()), (3, 5), "what is too old is not missed");
        offers.check([handle].into_iter());
    }

    #[test]
    fn offers_of_the_least_recently_offering_peer_are_evicted() {
        let mut offers = offers(100, 5);
        let mut handles = [OffersHandle::NONE; 3];
        for at in [0, 1, 0, 2] {
            offers.insert(&mut handles[at], &[7], Seconds(1));
        }
        assert!(offers.take(handles[2], 7, Seconds(1)));
        offers.insert(&mut handles[2], &[1, 2, 3], Seconds(1));
        assert_eq!((offers.len(), offers.evicted()), (5, 1));
        assert!(!offers.take(handles[1], 7, Seconds(1)), "the offers of the second peer were evicted first");
        offers.check(handles.into_iter());
        offers.insert(&mut handles[1], &[1, 2, 3, 4, 5, 6, 7], Seconds(1));
        assert_eq!((offers.len(), offers.evicted()), (5, 8));
        assert!(!offers.take(handles[1], 2, Seconds(1)) && offers.take(handles[1], 3, Seconds(1)));
        offers.check(handles.into_iter());
    }

    #[test]
    fn memory_is_released() {
        let mut offers = offers(20_000, 100_000);
        let mut handles = vec![OffersHandle::NONE; 10_000];
        handles.iter_mut().for_each(|handle| offers.insert(handle, &[1; 10], Seconds(1)));
        assert_eq!(offers.len(), 100_000);
        handles.iter_mut().skip(1).for_each(|handle| offers.remove_all(handle));
        offers.shrink();
        assert!(offers.peers.capacity() < MIN_CAPACITY);
        offers.insert(&mut handles[0], &[1; 10_000], Seconds(2));
        offers.insert(&mut handles[0], &[1], Seconds(63));
        assert_eq!(offers.len(), 1);
        assert!(offers.peers[handles[0].index()].pending.capacity() < 10);
    }
}
