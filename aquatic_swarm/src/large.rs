//! Swarms of more than 128 peers: one array of peers per role, neither of which is ever copied as a whole,
//! and an index from address and port to location.

use std::cell::Cell;

use rand::Rng;

use crate::crowd::{self, PeerHasher};
use crate::index::{self, Index};
use crate::order::PeerOrder;
use crate::peer_format::PeerFormat;
use crate::sample::below;
use crate::segmented::SegmentedVec;
use crate::tick::{Cutoff, Stamp};
use crate::types::MAX_PEERS_PER_TORRENT;

/// One large swarm. A new peer is appended to the array of its role; a removed peer is replaced by the last
/// peer of its array. All other peers keep their location, since each change of location also costs an update
/// of the index.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct LargeSwarm<K: PeerFormat> {
    index: Index,
    seeders: SegmentedVec<K::Peer, SEGMENT_LEN>,
    leechers: SegmentedVec<K::Peer, SEGMENT_LEN>,
    /// When the swarm was last found to be crowded.
    crowded: Option<Stamp>,
    /// Network of the first peer.
    home: u64,
    /// Number of peers of other networks.
    outsiders: u32,
}

/// Peers per segment of an array.
const SEGMENT_LEN: usize = 2048;

/// Location of a peer as stored in the index: seeders count up from 0, leechers count down from
/// `NO_LOCATION - 1`. The two ranges cannot overlap, because a swarm holds at most `NO_LOCATION`
/// peers.
type Location = u32;

/// A location that no peer has. Used in the index while two peers are swapped.
const NO_LOCATION: Location = MAX_PEERS_PER_TORRENT;

/// One of this many announces without a change of role swaps the peer with a random peer of the same role.
/// Replies consist of runs of adjacent peers, so this keeps the same peers from being returned together again
/// and again. A swap costs some cache misses.
const ANNOUNCES_PER_SWAP: u32 = 4;

/// Returns the peer at a location that is in use.
fn peer_at<P: Copy>(
    seeders: &SegmentedVec<P, SEGMENT_LEN>,
    leechers: &SegmentedVec<P, SEGMENT_LEN>,
    location: Location,
) -> P {
    if location < seeders.len() { seeders.get(location) } else { leechers.get(NO_LOCATION - 1 - location) }
}

impl<K: PeerFormat> LargeSwarm<K> {
    fn new() -> Self {
        let (seeders, leechers) = (SegmentedVec::new(), SegmentedVec::new());
        Self { index: Index::new(), seeders, leechers, crowded: None, home: 0, outsiders: 0 }
    }

    pub(crate) fn order(&self) -> PeerOrder {
        let seeders = self.seeders.len();
        PeerOrder { seeders, len: seeders + self.leechers.len() }
    }

    /// Returns whether a network may have a large share of the peers, see `crowd.rs`.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.is_some()
    }

    /// Returns whether all peers are of the network that the swarm began with.
    pub(crate) fn is_one_network(&self) -> bool {
        self.outsiders == 0
    }

    /// Finds out whether the network of a peer, which has many in the swarm, crowds it.
    pub(crate) fn probe(&mut self, peer: K::Peer, rng: &mut impl Rng) {
        if crowd::crowds_swarm::<K>(peer, self.order().len, |at| self.get(at), rng) {
            self.crowded = Some(K::stamp(peer));
        }
    }

    /// Forgets that the swarm is crowded if that has not been found out again for the maximum peer age.
    pub(crate) fn expire_crowd(&mut self, cutoff: Cutoff) {
        self.crowded.take_if(|crowded| cutoff.is_expired(*crowded));
    }

    /// Returns the peer at a position: seeders first, then leechers.
    pub(crate) fn get(&self, at: u32) -> K::Peer {
        self.peer_at(self.location(at))
    }

    /// Returns the `len` peers from a position on, all of one role, as the contiguous slices they are stored
    /// in.
    pub(crate) fn slices(&self, at: u32, len: u32) -> impl Iterator<Item = &[K::Peer]> + Clone {
        match at.checked_sub(self.seeders.len()) {
            None => self.seeders.slices(at, len),
            Some(at) => self.leechers.slices(at, len),
        }
    }

    fn location(&self, at: u32) -> Location {
        at.checked_sub(self.seeders.len()).map_or(at, |at| NO_LOCATION - 1 - at)
    }

    fn position(&self, location: Location) -> u32 {
        let seeders = self.seeders.len();
        if location < seeders { location } else { seeders + NO_LOCATION - 1 - location }
    }

    fn peer_at(&self, location: Location) -> K::Peer {
        peer_at(&self.seeders, &self.leechers, location)
    }

    fn set(&mut self, location: Location, peer: K::Peer) {
        if location < self.seeders.len() {
            self.seeders.set(location, peer);
        } else {
            self.leechers.set(NO_LOCATION - 1 - location, peer);
        }
    }

    /// Returns the position of a peer, and the number of other peers of its group that were seen on the way:
    /// all of them if the peer is not in the swarm.
    pub(crate) fn find(&self, hasher: &PeerHasher, peer: K::Peer) -> (Option<u32>, u32) {
        let group = Cell::new(0);
        let matches = |location| {
            let other = self.peer_at(location);
            let found = K::same_key(other, peer);
            group.set(group.get() + u32::from(!found && hasher.same_group::<K>(other, peer)));
            found
        };
        let found = self.index.find(K::hash(peer, hasher), matches);
        (found.map(|location| self.position(location)), group.get())
    }

    /// Loads the swarm's own fields into the cache.
    #[inline]
    pub(crate) fn load(&self) -> u32 {
        self.seeders.len() ^ self.leechers.len() ^ self.index.len()
    }

    /// Loads the index bucket of a hash into the cache, as [`Self::candidate`] needs it.
    #[inline]
    pub(crate) fn load_bucket(&self, hash: u64) -> u32 {
        self.index.load(hash)
    }

    /// Returns the peer that most likely has this hash.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Option<K::Peer> {
        self.index.candidate(hash).map(|location| self.peer_at(location))
    }

    /// Adds a peer that is not in the swarm and returns its position. `None`, without a change, if the index
    /// cannot take it.
    pub(crate) fn add(&mut self, hasher: &PeerHasher, peer: K::Peer) -> Option<u32> {
        let seeder = K::stamp(peer).seeder();
        let location = self.next_location(seeder);
        self.role_array(seeder).push(peer);
        let lookup = |location| peer_at(&self.seeders, &self.leechers, location);
        let added = self.index.insert(K::hash(peer, hasher), location, lookup, |peer| K::hash(peer, hasher));
        if added.is_none() {
            self.role_array(seeder).pop();
        } else if self.index.len() == 1 {
            self.home = K::network(peer);
        } else {
            self.outsiders += u32::from(K::network(peer) != self.home);
        }
        added.map(|()| self.position(location))
    }

    /// Returns the location of the next peer to be added with a role.
    fn next_location(&self, seeder: bool) -> Location {
        if seeder { self.seeders.len() } else { NO_LOCATION - 1 - self.leechers.len() }
    }

    fn role_array(&mut self, seeder: bool) -> &mut SegmentedVec<K::Peer, SEGMENT_LEN> {
        if seeder { &mut self.seeders } else { &mut self.leechers }
    }

    /// Updates the stamp of the peer at a position. Returns its previous stamp and its new position, which
    /// differs if the role changed or the peer was swapped.
    pub(crate) fn restamp(
        &mut self,
        hasher: &PeerHasher,
        at: u32,
        stamp: Stamp,
        rng: &mut impl Rng,
    ) -> (Stamp, u32) {
        let location = self.location(at);
        let old = self.peer_at(location);
        let peer = K::restamped(old, stamp);
        if K::stamp(old).seeder() == stamp.seeder() {
            self.set(location, peer);
            if below(rng, ANNOUNCES_PER_SWAP) > 0 {
                return (K::stamp(old), at);
            }
            let to = self.order().random_of_role(at, rng);
            self.swap(hasher, location, self.location(to));
            return (K::stamp(old), to);
        }
        let to = self.next_location(stamp.seeder());
        self.index.set_location(K::hash(peer, hasher), location, to);
        self.fill_gap(hasher, location);
        self.role_array(stamp.seeder()).push(peer);
        (K::stamp(old), self.position(to))
    }

    pub(crate) fn remove(&mut self, hasher: &PeerHasher, at: u32) {
        let location = self.location(at);
        let peer = self.peer_at(location);
        self.outsiders -= u32::from(K::network(peer) != self.home);
        self.index.remove(K::hash(peer, hasher), location);
        self.fill_gap(hasher, location);
    }

    /// Moves the last peer of the array to a location that the index no longer refers to, and shortens the
    /// array.
    fn fill_gap(&mut self, hasher: &PeerHasher, gap: Location) {
        let seeder = gap < self.seeders.len();
        let last = if seeder { self.seeders.len() - 1 } else { NO_LOCATION - self.leechers.len() };
        if last != gap {
            let peer = self.peer_at(last);
            self.index.set_location(K::hash(peer, hasher), last, gap);
            self.set(gap, peer);
        }
        self.role_array(seeder).pop();
    }

    /// Swaps two peers of one role.
    fn swap(&mut self, hasher: &PeerHasher, a: Location, b: Location) {
        if a == b {
            return;
        }
        let (first, second) = (self.peer_at(a), self.peer_at(b));
        let (first_hash, second_hash) = (K::hash(first, hasher), K::hash(second, hasher));
        self.index.set_location(first_hash, a, NO_LOCATION);
        self.index.set_location(second_hash, b, a);
        self.index.set_location(first_hash, NO_LOCATION, b);
        self.set(a, second);
        self.set(b, first);
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.seeders.bytes() + self.leechers.bytes() + self.index.bytes()
    }

    fn check(&self, hasher: &PeerHasher) -> Result<(), String> {
        let order = self.order();
        for at in 0..order.len {
            let peer = self.get(at);
            if self.find(hasher, peer).0 != Some(at) {
                return Err(format!("{peer:?} is at {at} but not found there"));
            }
            if K::stamp(peer).seeder() != (at < order.seeders) {
                return Err(format!("{peer:?} has a position of the other role, {at} of {order:?}"));
            }
        }
        let outsiders = (0..order.len).filter(|at| K::network(self.get(*at)) != self.home).count();
        if outsiders as u32 != self.outsiders {
            return Err(format!("{outsiders} peers of other networks, counted as {}", self.outsiders));
        }
        if self.index.len() != order.len {
            return Err(format!("{order:?}, {} in the index", self.index.len()));
        }
        self.index.check()
    }
}

/// The large swarms of one family, by number.
#[derive(Debug)]
pub(crate) struct LargeSwarms<K: PeerFormat> {
    swarms: Vec<Option<Box<LargeSwarm<K>>>>,
    vacant: Vec<u32>,
    pub(crate) hasher: PeerHasher,
    /// Peers of all large swarms.
    peers: u64,
}

impl<K: PeerFormat> LargeSwarms<K> {
    pub(crate) fn new(hasher: PeerHasher) -> Self {
        Self { swarms: Vec::new(), vacant: Vec::new(), hasher, peers: 0 }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&LargeSwarm<K>> {
        self.swarms.get(number as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<(&mut LargeSwarm<K>, &PeerHasher)> {
        let swarm = self.swarms.get_mut(number as usize)?.as_deref_mut()?;
        Some((swarm, &self.hasher))
    }

    /// Creates a large swarm of the given peers and returns its number. `None`, without a change, if the
    /// index cannot take them.
    pub(crate) fn create(&mut self, peers: &[K::Peer], crowded: Option<Stamp>) -> Option<u32> {
        let mut swarm = Box::new(LargeSwarm::new());
        swarm.crowded = crowded;
        for &peer in peers {
            swarm.add(&self.hasher, peer)?;
        }
        self.count_peers(peers.len() as u32, 0);
        if let Some(number) = self.vacant.pop() {
            self.swarms[number as usize] = Some(swarm);
            return Some(number);
        }
        self.swarms.push(Some(swarm));
        Some(self.swarms.len() as u32 - 1)
    }

    pub(crate) fn destroy(&mut self, number: u32) {
        if let Some(swarm) = self.swarms[number as usize].take() {
            self.count_peers(0, swarm.order().len);
            self.vacant.push(number);
        }
    }

    /// Returns the approximate memory of all large swarms in bytes. The exact number would need a visit to
    /// each of them, which may be thousands of cache misses.
    pub(crate) fn bytes(&self) -> usize {
        let fixed = self.swarms.capacity() * size_of::<usize>() + self.vacant.capacity() * size_of::<u32>();
        // Arrays are allocated a sixteenth larger than needed, on average.
        let peers = self.peers as usize * (size_of::<K::Peer>() + index::BYTES_PER_ITEM) * 17 / 16;
        fixed + self.count() * size_of::<LargeSwarm<K>>() + peers
    }

    /// Adjusts the number of peers in large swarms.
    pub(crate) fn count_peers(&mut self, came: u32, left: u32) {
        self.peers = self.peers + u64::from(came) - u64::from(left);
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let peers = self.swarms.iter().flatten().map(|swarm| u64::from(swarm.order().len)).sum::<u64>();
        if peers != self.peers {
            return Err(format!("{peers} peers of large swarms, counted as {}", self.peers));
        }
        self.swarms.iter().flatten().try_for_each(|swarm| swarm.check(&self.hasher))
    }

    /// Returns the number of large swarms.
    pub(crate) fn count(&self) -> usize {
        self.swarms.len() - self.vacant.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use aquatic_common::Seconds;
    use siphasher::sip::SipHasher13;

    use super::*;
    use crate::crowd::Groups;
    use crate::peer_format::V4;
    use crate::tick::Tick;

    #[test]
    fn estimated_memory_is_close_to_the_exact_one() {
        for (peers, tolerance) in [(200_u32, 0.25), (1000, 0.15), (5000, 0.15), (100_000, 0.15)] {
            let mut large = LargeSwarms::<V4>::new(PeerHasher {
                sip: SipHasher13::new_with_keys(1, 2),
                groups: Groups::new(512),
            });
            let number = large.create(&[], None).unwrap();
            let (swarm, hasher) = large.get_mut(number).unwrap();
            for number in 0..peers {
                let stamp = Stamp::new(Tick::at(Seconds(800)), number.is_multiple_of(3));
                swarm.add(hasher, V4::peer(Ipv4Addr::from_bits(number), 6881, stamp)).unwrap();
            }
            let exact = swarm.bytes() as f64;
            large.count_peers(peers, 0);
            let estimate = large.bytes() as f64;
            assert!((estimate / exact - 1.0).abs() < tolerance, "{peers}: {estimate} for {exact}");
        }
    }
}
