//! Peers of one torrent, seeders first.

use std::ops::Range;

use aquatic_common::{Family, PeerId, Seconds};
use hashbrown::HashTable;
use rand::Rng;
use siphasher::sip::SipHasher13;

use super::networks::{NetworkCounts, UNCROWDED};
use super::offers::OffersHandle;
use super::sample::{sample_indices, spread_indices};
use super::{ConnectionId, Network, Registration};

/// Number of peers from which on a torrent has an index, and below which the index is dropped again. One with
/// many peers of a network has an index as well.
const INDEXED: (usize, usize) = (33, 16);

/// A peer of a torrent.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) connection: ConnectionId,
    last_seen: Seconds,
    /// Pending offers that the peer made.
    pub(super) offers: OffersHandle,
    pub(super) network: Network,
    family: Family,
    seeder: bool,
    /// Whether another connection has announced the same peer id.
    pub(super) has_claimant: bool,
    /// Whether the torrent's `downloaded` count includes the peer.
    pub(super) completion_counted: bool,
}

const _: () = assert!(size_of::<Peer>() == 48);

impl Peer {
    pub(super) fn registration(&self) -> Registration {
        let Self { connection, network, last_seen, family, seeder, .. } = *self;
        Registration { connection, network, last_seen, family, seeder }
    }
}

/// What is kept of the peers of a large or crowded torrent, so that none of them need be visited.
#[derive(Debug)]
struct Index {
    /// Positions by peer id.
    positions: HashTable<u32>,
    networks: NetworkCounts,
}

/// A torrent with its peers.
#[derive(Debug, Default)]
pub(super) struct Torrent {
    pub(super) downloaded: u32,
    seeders: u32,
    peers: Vec<Peer>,
    /// Without it, a network has at most [`UNCROWDED`] peers.
    index: Option<Box<Index>>,
}

impl Torrent {
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Returns the memory of peers and index in bytes, without the overhead of the allocator.
    pub(super) fn heap_bytes(&self) -> usize {
        let index = self.index.as_ref();
        let index = index.map_or(0, |index| {
            size_of::<Index>() + index.positions.allocation_size() + index.networks.heap_bytes()
        });
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
                let is_match = |&at: &u32| self.peers[at as usize].id == *id;
                let found = index.positions.find(hasher.hash(&id.0), is_match);
                found.map(|&at| at as usize)
            }
            None => self.peers.iter().position(|peer| peer.id == *id),
        }
    }

    /// Adds a peer that is not in the torrent. Returns its position.
    pub(super) fn add(&mut self, id: PeerId, registration: Registration, hasher: &SipHasher13) -> usize {
        let is_full = self.peers.len() == self.peers.capacity();
        if is_full {
            // Most torrents have one or two peers.
            self.peers.reserve_exact(self.peers.len().max(1));
        }
        let at = self.peers.len();
        let Registration { connection, network, last_seen, family, seeder } = registration;
        let offers = OffersHandle::NONE;
        self.peers.push(Peer {
            id,
            connection,
            last_seen,
            offers,
            network,
            family,
            seeder: false,
            has_claimant: false,
            completion_counted: false,
        });
        if let Some(index) = &mut self.index {
            let peers = &self.peers;
            let hash = |&at: &u32| hasher.hash(&peers[at as usize].id.0);
            index.positions.insert_unique(hasher.hash(&id.0), at as u32, hash);
            if is_full {
                index.networks = count_networks(peers);
            } else {
                index.networks.add(network);
            }
        } else if self.peers.len() >= INDEXED.0 || self.has_many_of(network) {
            self.build_index(hasher);
        }
        self.set_role(at, seeder, hasher)
    }

    /// Replaces what is known of a peer. Returns its new position.
    pub(super) fn update(&mut self, at: usize, registration: Registration, hasher: &SipHasher13) -> usize {
        let Registration { connection, network, last_seen, family, seeder } = registration;
        let at = self.set_role(at, seeder, hasher);
        let peer = &mut self.peers[at];
        (peer.connection, peer.last_seen, peer.family) = (connection, last_seen, family);
        let before = std::mem::replace(&mut peer.network, network);
        if before != network {
            if let Some(index) = &mut self.index {
                index.networks.remove(before);
                index.networks.add(network);
            } else if self.has_many_of(network) {
                self.build_index(hasher);
            }
        }
        at
    }

    /// Returns whether fewer than so many peers are of a network. The maximum is above [`UNCROWDED`].
    pub(super) fn has_room_for(&self, network: Network, max: usize) -> bool {
        self.index.as_ref().is_none_or(|index| index.networks.count(network) < max)
    }

    /// Returns whether many peers of a torrent without an index are of a network.
    fn has_many_of(&self, network: Network) -> bool {
        let of_network = || self.peers.iter().filter(|peer| peer.network == network).count();
        network != Network::UNKNOWN && of_network() > UNCROWDED
    }

    /// Removes a peer.
    pub(super) fn remove(&mut self, at: usize, hasher: &SipHasher13) {
        let last_leecher = self.set_role(at, false, hasher);
        self.swap(last_leecher, self.peers.len() - 1, hasher);
        let last = self.peers.len() - 1;
        if let Some(index) = &mut self.index
            && let Ok(entry) =
                index.positions.find_entry(hasher.hash(&self.peers[last].id.0), |&at| at as usize == last)
        {
            entry.remove();
            index.networks.remove(self.peers[last].network);
        }
        self.peers.pop();
        if self.peers.len() < INDEXED.1 {
            self.index = self.index.take().filter(|index| index.networks.has_surplus());
        }
        if self.peers.len() < self.peers.capacity() / 4 {
            self.peers.shrink_to(self.peers.len() * 2);
            if let Some(index) = &mut self.index {
                let peers = &self.peers;
                index.positions.shrink_to(peers.len() * 2, |&at| hasher.hash(&peers[at as usize].id.0));
                index.networks = count_networks(peers);
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
    /// seeder gets leechers first, because two seeders have nothing to exchange. If the torrent is crowded,
    /// they are of as many networks as possible.
    pub(super) fn sample(
        &self,
        rng: &mut impl Rng,
        excluding: usize,
        seeder: bool,
        count: usize,
        sampled: &mut Vec<usize>,
    ) {
        let len = self.peers.len();
        let is_crowded = |index: &Index| {
            self.peers.first().is_some_and(|peer| index.networks.is_crowded(len, peer.network))
        };
        let is_crowded = self.index.as_deref().is_some_and(is_crowded);
        let excluding = Some(excluding);
        let mut sample = |range: Range<usize>, count, sampled: &mut Vec<usize>| {
            if is_crowded {
                spread_indices(rng, (range, excluding), count, |at| self.peers[at].network, sampled);
            } else {
                sample_indices(rng, range, excluding, count, sampled);
            }
        };
        if !seeder {
            return sample(0..len, count, sampled);
        }
        let before = sampled.len();
        sample(self.seeders()..len, count, sampled);
        let missing = count - (sampled.len() - before);
        sample(0..self.seeders(), missing, sampled);
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
                if let Some(at) = index.positions.find_mut(hashes[hash], |&at| at as usize == from) {
                    *at = to as u32;
                }
            }
        }
        self.peers.swap(a, b);
    }

    fn build_index(&mut self, hasher: &SipHasher13) {
        let mut positions = HashTable::with_capacity(self.peers.len() * 2);
        let hash = |&at: &u32| hasher.hash(&self.peers[at as usize].id.0);
        for at in 0..self.peers.len() as u32 {
            positions.insert_unique(hash(&at), at, hash);
        }
        self.index = Some(Box::new(Index { positions, networks: count_networks(&self.peers) }));
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
            assert_eq!(index.positions.len(), self.peers.len());
            let counted = count_networks(&self.peers);
            for peer in &self.peers {
                assert_eq!(index.networks.count(peer.network), counted.count(peer.network));
            }
            assert_eq!(index.networks.has_surplus(), counted.has_surplus());
        } else {
            assert!(self.peers.iter().all(|peer| !self.has_many_of(peer.network)));
        }
    }
}

/// Returns the numbers of peers by network.
fn count_networks(peers: &Vec<Peer>) -> NetworkCounts {
    NetworkCounts::new(peers.capacity(), peers.iter().map(|peer| peer.network))
}
