//! Swarms too large to be searched from end to end: an array of peers that never moves as a whole, and an index into it.

use siphasher::sip::SipHasher13;

use crate::chunked::Chunked;
use crate::index::{self, Bucket, Index};
use crate::peer::Kind;
use crate::seats::{Move, Seats};
use crate::slab::Slab;
use crate::tick::Stamp;

/// One large swarm.
#[derive(Debug)]
pub(crate) struct Big<K: Kind> {
    peers: Chunked<K::Peer, 64>,
    seats: Seats,
    index: Index,
}

/// What the operations on a large swarm borrow from the store: the slab that all indexes share, and the keyed hash.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) slab: Slab<u32>,
    pub(crate) hasher: SipHasher13,
}

impl<K: Kind> Big<K> {
    fn new() -> Self {
        Self { peers: Chunked::new(), seats: Seats::default(), index: Index::new() }
    }

    pub(crate) fn seats(&self) -> Seats {
        self.seats
    }

    pub(crate) fn get(&self, at: u32) -> K::Peer {
        self.peers.get(at)
    }

    pub(crate) fn find(&self, shared: &Shared, peer: K::Peer) -> Option<u32> {
        let hash = K::hash(peer, &shared.hasher);
        self.index.find(&shared.slab, hash, |at| K::same_key(self.peers.get(at), peer))
    }

    /// The index's bucket for a peer with this hash.
    #[inline]
    pub(crate) fn bucket(&self, hash: u64) -> Bucket {
        self.index.bucket(hash)
    }

    /// The peer that is most likely the one with this hash.
    #[inline]
    pub(crate) fn candidate(&self, shared: &Shared, bucket: Bucket, hash: u64) -> Option<K::Peer> {
        Index::candidate(&shared.slab, bucket, hash).map(|at| self.peers.get(at))
    }

    /// Adds a peer that is not in the swarm. `None`, without a change, if the index cannot take it.
    pub(crate) fn add(&mut self, shared: &mut Shared, peer: K::Peer) -> Option<u32> {
        let mut seats = self.seats;
        let (at, step) = seats.admit(K::stamp(peer).seeder());
        let (end, hasher) = (self.peers.len(), shared.hasher);
        let hash = K::hash(peer, &hasher);
        // Whoever sits there moves to the end.
        let displaced = step.is_some().then(|| self.peers.get(at));
        if let Some(displaced) = displaced {
            self.index.moved(&mut shared.slab, K::hash(displaced, &hasher), at, end);
            self.peers.push(displaced);
            self.peers.set(at, peer);
        } else {
            self.peers.push(peer);
        }
        let peers = &self.peers;
        let hash_of = |other| K::hash(peers.get(other), &hasher);
        if self.index.insert(&mut shared.slab, hash, at, hash_of).is_none() {
            self.peers.pop();
            if let Some(displaced) = displaced {
                self.peers.set(at, displaced);
                self.index.moved(&mut shared.slab, K::hash(displaced, &hasher), end, at);
            }
            return None;
        }
        self.seats = seats;
        Some(at)
    }

    /// Gives the peer at a position a new stamp, and with it perhaps a new role and position.
    pub(crate) fn restamp(&mut self, shared: &mut Shared, at: u32, stamp: Stamp) -> u32 {
        self.peers.set(at, K::with_stamp(self.peers.get(at), stamp));
        let to = self.seats.turn(at, stamp.seeder());
        if to != at {
            self.swap(shared, at, to);
        }
        to
    }

    pub(crate) fn remove(&mut self, shared: &mut Shared, at: u32) {
        let hash = K::hash(self.peers.get(at), &shared.hasher);
        self.index.remove(&mut shared.slab, hash, at);
        for step in self.seats.dismiss(at).into_iter().flatten() {
            self.shift(shared, step);
        }
        self.peers.pop();
    }

    fn shift(&mut self, shared: &mut Shared, (from, to): Move) {
        let peer = self.peers.get(from);
        self.index.moved(&mut shared.slab, K::hash(peer, &shared.hasher), from, to);
        self.peers.set(to, peer);
    }

    fn swap(&mut self, shared: &mut Shared, a: u32, b: u32) {
        let spare = MAX_POSITION;
        let (first, second) = (self.peers.get(a), self.peers.get(b));
        let (first, second) = (K::hash(first, &shared.hasher), K::hash(second, &shared.hasher));
        self.index.moved(&mut shared.slab, first, a, spare);
        self.index.moved(&mut shared.slab, second, b, a);
        self.index.moved(&mut shared.slab, first, spare, b);
        self.peers.swap(a, b);
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.peers.bytes() + self.index.bytes()
    }

    /// Buckets of the index, for [`Self::relocate`].
    pub(crate) fn buckets(&self) -> u32 {
        self.index.buckets()
    }

    pub(crate) fn relocate(&mut self, shared: &mut Shared, bucket: u32) {
        self.index.relocate(&mut shared.slab, bucket);
    }

    fn check(&self, shared: &Shared) -> Result<(), String> {
        for at in 0..self.seats.len {
            let peer = self.peers.get(at);
            if self.find(shared, peer) != Some(at) {
                return Err(format!("{peer:?} is not found at {at}"));
            }
            if K::stamp(peer).seeder() != (at < self.seats.seeders) {
                return Err(format!("{peer:?} sits at {at} of {:?}", self.seats));
            }
        }
        if self.peers.len() != self.seats.len || self.index.len() != self.seats.len {
            return Err(format!(
                "{:?}, {} peers, {} in the index",
                self.seats,
                self.peers.len(),
                self.index.len()
            ));
        }
        Ok(())
    }
}

/// No peer ever sits here.
const MAX_POSITION: u32 = crate::types::MAX_PEERS_PER_TORRENT;

/// The large swarms of one family, by number.
#[derive(Debug)]
pub(crate) struct Bigs<K: Kind> {
    swarms: Vec<Option<Box<Big<K>>>>,
    vacant: Vec<u32>,
    pub(crate) shared: Shared,
}

impl<K: Kind> Bigs<K> {
    pub(crate) fn new(hasher: SipHasher13) -> Self {
        let shared = Shared { slab: Slab::new(&index::CAPACITIES), hasher };
        Self { swarms: Vec::new(), vacant: Vec::new(), shared }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Big<K>> {
        self.swarms.get(number as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<(&mut Big<K>, &mut Shared)> {
        let big = self.swarms.get_mut(number as usize)?.as_deref_mut()?;
        Some((big, &mut self.shared))
    }

    /// Makes a large swarm of some peers. `None`, without a change, if the index cannot take them.
    pub(crate) fn create(&mut self, peers: &[K::Peer]) -> Option<u32> {
        let mut big = Box::new(Big::new());
        for &peer in peers {
            if big.add(&mut self.shared, peer).is_none() {
                big.index.clear(&mut self.shared.slab);
                return None;
            }
        }
        if let Some(number) = self.vacant.pop() {
            self.swarms[number as usize] = Some(big);
            return Some(number);
        }
        self.swarms.push(Some(big));
        Some(self.swarms.len() as u32 - 1)
    }

    pub(crate) fn destroy(&mut self, number: u32) {
        if let Some(mut big) = self.swarms[number as usize].take() {
            big.index.clear(&mut self.shared.slab);
            self.vacant.push(number);
        }
    }

    /// Takes time proportional to the number of large swarms.
    pub(crate) fn bytes(&self) -> usize {
        let fixed = self.swarms.capacity() * size_of::<usize>() + self.vacant.capacity() * size_of::<u32>();
        fixed + self.shared.slab.bytes() + self.swarms.iter().flatten().map(|big| big.bytes()).sum::<usize>()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let mut blocks = 0;
        for big in self.swarms.iter().flatten() {
            big.check(&self.shared)?;
            blocks += big.index.blocks();
        }
        if blocks != self.shared.slab.blocks() {
            return Err(format!("{blocks} index blocks, counted as {}", self.shared.slab.blocks()));
        }
        Ok(())
    }

    /// Large swarms that exist.
    pub(crate) fn count(&self) -> usize {
        self.swarms.len() - self.vacant.len()
    }
}
