//! One torrent: its peers, seeders first.

use aquatic_common::{Family, InfoHash, PeerId, Seconds};
use hashbrown::HashTable;
use rand::Rng;
use siphasher::sip::SipHasher13;

use super::ConnectionId;
use super::offers::Place;
use super::sample::draw;

/// Peers from which on they are found by an index, and down to which they still are.
const INDEXED: (usize, usize) = (33, 16);

/// A peer and, should there be one, who wants to take its place.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) holder: Holder,
    /// Announced the same id from elsewhere; takes over when the holder leaves.
    pub(super) claimant: Option<Box<Holder>>,
    /// Where the holder's offers wait for their answers.
    pub(super) offers: Place,
}

/// A connection's word about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) connection: ConnectionId,
    pub(super) last_seen: Seconds,
    pub(super) family: Family,
    pub(super) seeder: bool,
}

/// A torrent with its peers.
#[derive(Debug)]
pub(super) struct Torrent {
    pub(super) info_hash: InfoHash,
    pub(super) downloaded: u32,
    seeders: usize,
    peers: Vec<Peer>,
    index: Option<Box<HashTable<u32>>>,
}

impl Torrent {
    pub(super) fn new(info_hash: InfoHash) -> Self {
        Self { info_hash, downloaded: 0, seeders: 0, peers: Vec::new(), index: None }
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn seeders(&self) -> usize {
        self.seeders
    }

    pub(super) fn peer(&self, at: usize) -> &Peer {
        &self.peers[at]
    }

    /// To change anything but the id and the role.
    pub(super) fn peer_mut(&mut self, at: usize) -> &mut Peer {
        &mut self.peers[at]
    }

    /// Where a peer is.
    pub(super) fn find(&self, id: &PeerId, hasher: &SipHasher13) -> Option<usize> {
        match &self.index {
            Some(index) => {
                let found = index.find(hasher.hash(&id.0), |&at| self.peers[at as usize].id == *id);
                found.map(|&at| at as usize)
            }
            None => self.peers.iter().position(|peer| peer.id == *id),
        }
    }

    /// Adds a peer that is not here yet. Returns where it is.
    pub(super) fn add(&mut self, id: PeerId, holder: Holder, hasher: &SipHasher13) -> usize {
        if self.peers.len() == self.peers.capacity() {
            // Most torrents have one peer or two.
            self.peers.reserve_exact(self.peers.len().max(1));
        }
        let at = self.peers.len();
        let leecher = Holder { seeder: false, ..holder };
        self.peers.push(Peer { id, holder: leecher, claimant: None, offers: Place::NONE });
        if let Some(index) = &mut self.index {
            let peers = &self.peers;
            let hash = |&at: &u32| hasher.hash(&peers[at as usize].id.0);
            index.insert_unique(hasher.hash(&id.0), at as u32, hash);
        } else if self.peers.len() >= INDEXED.0 {
            self.build_index(hasher);
        }
        self.set_role(at, holder.seeder, hasher)
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

    /// Makes a peer a seeder or a leecher. Returns where it is now.
    pub(super) fn set_role(&mut self, at: usize, seeder: bool, hasher: &SipHasher13) -> usize {
        if self.peers[at].holder.seeder == seeder {
            return at;
        }
        self.peers[at].holder.seeder = seeder;
        let to = if seeder {
            self.seeders += 1;
            self.seeders - 1
        } else {
            self.seeders -= 1;
            self.seeders
        };
        self.swap(at, to, hasher);
        to
    }

    /// Positions of `count` peers other than the one at `without`, drawn at random. Those who have everything are sent
    /// to those who do not, as long as there are some: seeders have nothing to tell each other.
    pub(super) fn sample(
        &self,
        rng: &mut impl Rng,
        without: Option<usize>,
        seeder: bool,
        count: usize,
        picks: &mut Vec<usize>,
    ) {
        if !seeder {
            return draw(rng, 0..self.peers.len(), without, count, picks);
        }
        draw(rng, self.seeders..self.peers.len(), without, count, picks);
        let left = count - picks.len();
        draw(rng, 0..self.seeders, without, left, picks);
    }

    fn swap(&mut self, a: usize, b: usize, hasher: &SipHasher13) {
        if a == b {
            return;
        }
        if let Some(index) = &mut self.index {
            let hashes = [a, b].map(|at| hasher.hash(&self.peers[at].id.0));
            // Not a position, so that the first is not found again in place of the second.
            const ON_THE_WAY: usize = u32::MAX as usize;
            for (hash, from, to) in [(0, a, ON_THE_WAY), (1, b, a), (0, ON_THE_WAY, b)] {
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
            assert_eq!(peer.holder.seeder, at < self.seeders, "seeders are in front");
            assert_eq!(self.find(&peer.id, hasher), Some(at));
        }
        if let Some(index) = &self.index {
            assert_eq!(index.len(), self.peers.len());
        }
    }
}
