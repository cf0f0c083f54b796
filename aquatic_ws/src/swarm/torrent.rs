//! Peers of one torrent, seeders first.

use aquatic_common::{Family, PeerId, Seconds};
use hashbrown::HashTable;
use rand::Rng;
use siphasher::sip::SipHasher13;

use super::offers::OffersHandle;
use super::sample::sample_indices;
use super::{ConnectionId, Registration};

/// Number of peers from which on a torrent has an index, and below which the index is dropped again.
const INDEXED: (usize, usize) = (33, 16);

/// A peer of a torrent.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) connection: ConnectionId,
    last_seen: Seconds,
    /// Pending offers that the peer made.
    pub(super) offers: OffersHandle,
    family: Family,
    seeder: bool,
    /// Whether another connection has announced the same peer id.
    pub(super) has_claimant: bool,
    /// Whether the torrent's `downloaded` count includes the peer.
    pub(super) completion_counted: bool,
}

const _: () = assert!(size_of::<Peer>() == 44);

impl Peer {
    pub(super) fn registration(&self) -> Registration {
        let Self { connection, last_seen, family, seeder, .. } = *self;
        Registration { connection, last_seen, family, seeder }
    }
}

/// A torrent with its peers.
#[derive(Debug, Default)]
pub(super) struct Torrent {
    pub(super) downloaded: u32,
    seeders: u32,
    peers: Vec<Peer>,
    /// Positions by peer id.
    index: Option<Box<HashTable<u32>>>,
}

impl Torrent {
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Returns the memory of peers and index in bytes, without the overhead of the allocator.
    pub(super) fn heap_bytes(&self) -> usize {
        let index = self.index.as_ref();
        let index = index.map_or(0, |index| size_of::<HashTable<u32>>() + index.allocation_size());
        self.peers.capacity() * size_of::<Peer>() + index
    }

    pub(super) fn seeders(&self) -> usize {
        self.seeders as usize
    }

    pub(super) fn peer(&self, at: usize) -> &Peer {
        &self.peers[at]
    }

    /// Returns a peer for changes to its offers and its claimant.
    pub(super) fn peer_mut(&mut self, at: usize) -> &mut Peer {
        &mut self.peers[at]
    }

    /// Returns the position of a peer.
    pub(super) fn find(&self, id: &PeerId, hasher: &SipHasher13) -> Option<usize> {
        match &self.index {
            Some(index) => {
                let found = index.find(hasher.hash(&id.0), |&at| self.peers[at as usize].id == *id);
                found.map(|&at| at as usize)
            }
            None => self.peers.iter().position(|peer| peer.id == *id),
        }
    }

    /// Adds a peer that is not in the torrent. Returns its position.
    pub(super) fn add(&mut self, id: PeerId, registration: Registration, hasher: &SipHasher13) -> usize {
        if self.peers.len() == self.peers.capacity() {
            // Most torrents have one or two peers.
            self.peers.reserve_exact(self.peers.len().max(1));
        }
        let at = self.peers.len();
        let Registration { connection, last_seen, family, seeder } = registration;
        let offers = OffersHandle::NONE;
        self.peers.push(Peer {
            id,
            connection,
            last_seen,
            offers,
            family,
            seeder: false,
            has_claimant: false,
            completion_counted: false,
        });
        if let Some(index) = &mut self.index {
            let peers = &self.peers;
            let hash = |&at: &u32| hasher.hash(&peers[at as usize].id.0);
            index.insert_unique(hasher.hash(&id.0), at as u32, hash);
        } else if self.peers.len() >= INDEXED.0 {
            self.build_index(hasher);
        }
        self.set_role(at, seeder, hasher)
    }

    /// Replaces what is known of a peer. Returns its new position.
    pub(super) fn update(&mut self, at: usize, registration: Registration, hasher: &SipHasher13) -> usize {
        let Registration { connection, last_seen, family, seeder } = registration;
        let at = self.set_role(at, seeder, hasher);
        let peer = &mut self.peers[at];
        (peer.connection, peer.last_seen, peer.family) = (connection, last_seen, family);
        at
    }

    /// Counts a download, if a known leecher becomes a seeder for the first time. Returns whether it did.
    pub(super) fn count_completion(&mut self, at: usize, seeder: bool) -> bool {
        seeder && !self.peers[at].seeder && self.count_download(at)
    }

    /// Counts a download, unless one of the peer has been counted. Returns whether it did.
    pub(super) fn count_download(&mut self, at: usize) -> bool {
        let peer = &mut self.peers[at];
        let is_first = !peer.completion_counted;
        if is_first {
            peer.completion_counted = true;
            self.downloaded = self.downloaded.saturating_add(1);
        }
        is_first
    }

    /// Removes a peer.
    pub(super) fn remove(&mut self, at: usize, hasher: &SipHasher13) {
        let last_leecher = self.set_role(at, false, hasher);
        self.swap(last_leecher, self.peers.len() - 1, hasher);
        let last = self.peers.len() - 1;
        if let Some(index) = &mut self.index
            && let Ok(entry) =
                index.find_entry(hasher.hash(&self.peers[last].id.0), |&at| at as usize == last)
        {
            entry.remove();
        }
        self.peers.pop();
        if self.peers.len() < INDEXED.1 {
            self.index = None;
        }
        if self.peers.len() < self.peers.capacity() / 4 {
            self.peers.shrink_to(self.peers.len() * 2);
            if let Some(index) = &mut self.index {
                let peers = &self.peers;
                index.shrink_to(peers.len() * 2, |&at| hasher.hash(&peers[at as usize].id.0));
            }
        }
    }

    /// Changes the role of a peer. Returns its new position.
    fn set_role(&mut self, at: usize, seeder: bool, hasher: &SipHasher13) -> usize {
        if self.peers[at].seeder == seeder {
            return at;
        }
        self.peers[at].seeder = seeder;
        let to = if seeder {
            self.seeders += 1;
            self.seeders - 1
        } else {
            self.seeders -= 1;
            self.seeders
        };
        self.swap(at, to as usize, hasher);
        to as usize
    }

    /// Appends the positions of `count` random peers, excluding one; all others if there are no more. A
    /// seeder gets leechers first, because two seeders have nothing to exchange.
    pub(super) fn sample(
        &self,
        rng: &mut impl Rng,
        excluding: Option<usize>,
        seeder: bool,
        count: usize,
        sampled: &mut Vec<usize>,
    ) {
        if !seeder {
            return sample_indices(rng, 0..self.peers.len(), excluding, count, sampled);
        }
        let before = sampled.len();
        sample_indices(rng, self.seeders()..self.peers.len(), excluding, count, sampled);
        let missing = count - (sampled.len() - before);
        sample_indices(rng, 0..self.seeders(), excluding, missing, sampled);
    }

    fn swap(&mut self, a: usize, b: usize, hasher: &SipHasher13) {
        if a == b {
            return;
        }
        if let Some(index) = &mut self.index {
            let hashes = [a, b].map(|at| hasher.hash(&self.peers[at].id.0));
            // Not a position, so that the second search does not find the entry of the first.
            const IN_TRANSIT: usize = u32::MAX as usize;
            for (hash, from, to) in [(0, a, IN_TRANSIT), (1, b, a), (0, IN_TRANSIT, b)] {
                if let Some(at) = index.find_mut(hashes[hash], |&at| at as usize == from) {
                    *at = to as u32;
                }
            }
        }
        self.peers.swap(a, b);
    }

    fn build_index(&mut self, hasher: &SipHasher13) {
        let mut index = HashTable::with_capacity(self.peers.len() * 2);
        let hash = |&at: &u32| hasher.hash(&self.peers[at as usize].id.0);
        for at in 0..self.peers.len() as u32 {
            index.insert_unique(hash(&at), at, hash);
        }
        self.index = Some(Box::new(index));
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.peers.capacity()
    }

    #[cfg(test)]
    pub(super) fn check(&self, hasher: &SipHasher13) {
        assert!(!self.peers.is_empty(), "a torrent has at least one peer");
        for (at, peer) in self.peers.iter().enumerate() {
            assert_eq!(peer.seeder, at < self.seeders(), "seeders precede leechers");
            assert_eq!(self.find(&peer.id, hasher), Some(at));
        }
        if let Some(index) = &self.index {
            assert_eq!(index.len(), self.peers.len());
        }
    }
}
