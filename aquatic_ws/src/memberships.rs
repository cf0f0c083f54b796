//! Peers that one connection announced: their limits, and what to remove when the connection ends.

use aquatic_common::{InfoHash, PeerId, Seconds};

/// Limits on the peers of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MembershipLimits {
    /// Maximum number of pairs of info hash and peer id.
    pub(crate) max_peers: usize,
    /// Maximum number of peer ids in one torrent.
    pub(crate) max_peers_per_torrent: usize,
    /// Maximum number of distinct peer ids.
    pub(crate) max_peer_ids: usize,
    /// Seconds after which a peer that did not announce may have expired.
    pub(crate) max_peer_age: u32,
}

/// Limit that does not permit another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    Peers,
    PeersPerTorrent,
    PeerIds,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    peer: (InfoHash, PeerId),
    last_announce: Seconds,
}

/// Peers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Memberships {
    /// Sorted by peer.
    entries: Vec<Entry>,
    /// When expired peers were removed last. Within a second, none follow.
    swept: Option<Seconds>,
    /// When there were as many distinct peer ids as may be, unless a peer has left since. To count them takes
    /// too long to do it for every refusal.
    ids_full: Option<Seconds>,
}

impl Memberships {
    /// Adds or refreshes a peer, unless a limit is reached.
    pub(crate) fn join(
        &mut self,
        peer: (InfoHash, PeerId),
        now: Seconds,
        limits: MembershipLimits,
    ) -> Result<(), TooMany> {
        if let Ok(at) = self.find(&peer) {
            self.entries[at].last_announce = now;
            return Ok(());
        }
        if let Err(refused) = self.check(&peer, now, limits) {
            if self.swept.replace(now) == Some(now) {
                return Err(refused);
            }
            // Peers that certainly expired do not count.
            self.entries.retain(|entry| now - entry.last_announce <= limits.max_peer_age * 2);
            self.ids_full = None;
            self.check(&peer, now, limits)?;
        }
        let at = self.find(&peer).unwrap_or_else(|at| at);
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.entries.len().max(1));
        }
        self.entries.insert(at, Entry { peer, last_announce: now });
        Ok(())
    }

    /// Removes a peer.
    pub(crate) fn leave(&mut self, peer: &(InfoHash, PeerId)) {
        if let Ok(at) = self.find(peer) {
            self.entries.remove(at);
            self.ids_full = None;
            if self.entries.len() < self.entries.capacity() / 4 {
                self.entries.shrink_to(self.entries.len() * 2);
            }
        }
    }

    /// Returns the memory in bytes, without the overhead of the allocator.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Returns whether the connection has announced a peer.
    pub(crate) fn contains(&self, peer: &(InfoHash, PeerId)) -> bool {
        self.find(peer).is_ok()
    }

    /// Returns all peers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (InfoHash, PeerId)> + '_ {
        self.entries.iter().map(|entry| entry.peer)
    }

    fn find(&self, peer: &(InfoHash, PeerId)) -> Result<usize, usize> {
        // Nearly all connections have one peer or a few, and a sorted list takes no memory beside them.
        self.entries.binary_search_by(|entry| entry.peer.cmp(peer))
    }

    /// Returns the number of peers in a torrent.
    fn in_torrent(&self, info_hash: &InfoHash) -> usize {
        let begin = self.entries.partition_point(|entry| entry.peer.0 < *info_hash);
        self.entries[begin..].iter().take_while(|entry| entry.peer.0 == *info_hash).count()
    }

    fn check(
        &mut self,
        (info_hash, peer_id): &(InfoHash, PeerId),
        now: Seconds,
        limits: MembershipLimits,
    ) -> Result<(), TooMany> {
        if self.entries.len() >= limits.max_peers {
            return Err(TooMany::Peers);
        }
        if self.in_torrent(info_hash) >= limits.max_peers_per_torrent {
            return Err(TooMany::PeersPerTorrent);
        }
        if self.entries.len() < limits.max_peer_ids
            || self.entries.iter().any(|entry| entry.peer.1 == *peer_id)
        {
            return Ok(());
        }
        if self.ids_full != Some(now) {
            let mut ids: Vec<PeerId> = self.entries.iter().map(|entry| entry.peer.1).collect();
            ids.sort_unstable();
            ids.dedup();
            self.ids_full = (ids.len() >= limits.max_peer_ids).then_some(now);
        }
        if self.ids_full.is_some() { Err(TooMany::PeerIds) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MembershipLimits =
        MembershipLimits { max_peers: 6, max_peers_per_torrent: 6, max_peer_ids: 3, max_peer_age: 100 };

    fn peer(torrent: u8, id: u8) -> (InfoHash, PeerId) {
        (InfoHash([torrent; 20]), PeerId([id; 20]))
    }

    #[test]
    fn peers_and_peer_ids_are_bounded() {
        let mut memberships = Memberships::default();
        for torrent in 0..4 {
            assert_eq!(memberships.join(peer(torrent, 1), Seconds(0), LIMITS), Ok(()));
            assert_eq!(memberships.join(peer(torrent, 1), Seconds(0), LIMITS), Ok(()), "no further peer");
        }
        assert_eq!(memberships.join(peer(9, 2), Seconds(0), LIMITS), Ok(()));
        assert_eq!(memberships.join(peer(9, 3), Seconds(0), LIMITS), Ok(()));
        assert_eq!(memberships.join(peer(10, 3), Seconds(0), LIMITS), Err(TooMany::Peers));
        memberships.leave(&peer(0, 1));
        assert_eq!(memberships.join(peer(10, 4), Seconds(0), LIMITS), Err(TooMany::PeerIds));
        assert_eq!(memberships.join(peer(10, 3), Seconds(0), LIMITS), Ok(()));
        assert_eq!(memberships.peers().count(), 6);
    }

    #[test]
    fn peers_per_torrent_are_bounded() {
        let limits = MembershipLimits {
            max_peers: 100,
            max_peers_per_torrent: 2,
            max_peer_ids: 100,
            max_peer_age: 100,
        };
        let mut memberships = Memberships::default();
        for torrent in [5, 4, 6] {
            for id in [3, 1] {
                assert_eq!(memberships.join(peer(torrent, id), Seconds(0), limits), Ok(()));
            }
            for id in [0, 2, 4] {
                let refused = memberships.join(peer(torrent, id), Seconds(0), limits);
                assert_eq!(refused, Err(TooMany::PeersPerTorrent));
            }
            assert_eq!(memberships.join(peer(torrent, 3), Seconds(150), limits), Ok(()), "is known");
        }
        memberships.leave(&peer(5, 3));
        assert_eq!(memberships.join(peer(5, 2), Seconds(150), limits), Ok(()));
        assert_eq!(memberships.join(peer(4, 2), Seconds(201), limits), Ok(()), "peer 1 has expired");
        assert_eq!(memberships.join(peer(4, 4), Seconds(201), limits), Err(TooMany::PeersPerTorrent));
    }

    #[test]
    fn peer_ids_are_counted_again_after_a_peer_has_left_or_expired() {
        let limits = MembershipLimits {
            max_peers: 100,
            max_peers_per_torrent: 100,
            max_peer_ids: 2,
            max_peer_age: 10,
        };
        let mut memberships = Memberships::default();
        let mut join = |at: u32, torrent, id| memberships.join(peer(torrent, id), Seconds(at), limits);
        assert_eq!([join(0, 1, 1), join(5, 1, 2), join(5, 2, 2)], [Ok(()); 3]);
        for at in [5, 5, 6] {
            assert_eq!(join(at, 3, 3), Err(TooMany::PeerIds));
            assert_eq!(join(at, at as u8, 1), Ok(()), "one that is known");
        }
        memberships.leave(&peer(1, 2));
        assert_eq!(memberships.join(peer(3, 3), Seconds(6), limits), Err(TooMany::PeerIds));
        memberships.leave(&peer(2, 2));
        assert_eq!(memberships.join(peer(3, 3), Seconds(6), limits), Ok(()));
        assert_eq!(memberships.join(peer(3, 4), Seconds(6), limits), Err(TooMany::PeerIds));
        assert_eq!(memberships.join(peer(3, 4), Seconds(27), limits), Ok(()), "all others have expired");
    }

    #[test]
    fn expired_peers_do_not_count() {
        let mut memberships = Memberships::default();
        (0..6)
            .for_each(|torrent| memberships.join(peer(torrent, 1), Seconds(torrent.into()), LIMITS).unwrap());
        assert_eq!(memberships.join(peer(6, 1), Seconds(200), LIMITS), Err(TooMany::Peers));
        assert_eq!(memberships.join(peer(6, 1), Seconds(201), LIMITS), Ok(()));
        assert!(!memberships.peers().any(|peer| peer.0 == InfoHash([0; 20])));
    }
}
