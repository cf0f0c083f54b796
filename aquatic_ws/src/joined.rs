//! Which peers one connection has brought into which swarms: what is to be removed when it ends, and how much it is.

use aquatic_common::{InfoHash, PeerId, Seconds};

/// What one connection may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JoinLimits {
    pub(crate) max_peers: usize,
    pub(crate) max_peer_ids: usize,
    /// Age from which on the swarm has forgotten a peer by itself.
    pub(crate) max_age: u32,
}

/// Why a connection may not bring another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    Peers,
    PeerIds,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    peer: (InfoHash, PeerId),
    announced: Seconds,
}

/// The peers of one connection, in order.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    entries: Vec<Entry>,
}

impl Joined {
    /// Takes note of an announce.
    pub(crate) fn join(
        &mut self,
        peer: (InfoHash, PeerId),
        now: Seconds,
        limits: JoinLimits,
    ) -> Result<(), TooMany> {
        if let Ok(at) = self.find(&peer) {
            self.entries[at].announced = now;
            return Ok(());
        }
        if self.check(&peer.1, limits).is_err() {
            // Those that the swarms have long forgotten by themselves do not count.
            self.entries.retain(|entry| now - entry.announced <= limits.max_age * 2);
            self.check(&peer.1, limits)?;
        }
        let at = self.find(&peer).unwrap_or_else(|at| at);
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.entries.len().max(1));
        }
        self.entries.insert(at, Entry { peer, announced: now });
        Ok(())
    }

    /// Takes note that a peer has left.
    pub(crate) fn leave(&mut self, peer: &(InfoHash, PeerId)) {
        if let Ok(at) = self.find(peer) {
            self.entries.remove(at);
            if self.entries.len() < self.entries.capacity() / 4 {
                self.entries.shrink_to(self.entries.len() * 2);
            }
        }
    }

    /// All of them.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (InfoHash, PeerId)> + '_ {
        self.entries.iter().map(|entry| entry.peer)
    }

    fn find(&self, peer: &(InfoHash, PeerId)) -> Result<usize, usize> {
        // Nearly all connections have one peer or a few.
        self.entries.binary_search_by(|entry| entry.peer.cmp(peer))
    }

    fn check(&self, peer_id: &PeerId, limits: JoinLimits) -> Result<(), TooMany> {
        if self.entries.len() >= limits.max_peers {
            return Err(TooMany::Peers);
        }
        if self.entries.len() < limits.max_peer_ids
            || self.entries.iter().any(|entry| entry.peer.1 == *peer_id)
        {
            return Ok(());
        }
        let mut seen: Vec<PeerId> = Vec::with_capacity(limits.max_peer_ids.min(self.entries.len()));
        for Entry { peer: (_, id), .. } in &self.entries {
            if !seen.contains(id) {
                seen.push(*id);
                if seen.len() >= limits.max_peer_ids {
                    return Err(TooMany::PeerIds);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: JoinLimits = JoinLimits { max_peers: 6, max_peer_ids: 3, max_age: 100 };

    fn peer(torrent: u8, id: u8) -> (InfoHash, PeerId) {
        (InfoHash([torrent; 20]), PeerId([id; 20]))
    }

    #[test]
    fn peers_and_peer_ids_are_bounded() {
        let mut joined = Joined::default();
        for torrent in 0..4 {
            assert_eq!(joined.join(peer(torrent, 1), Seconds(0), LIMITS), Ok(()));
            assert_eq!(joined.join(peer(torrent, 1), Seconds(0), LIMITS), Ok(()), "again is not more");
        }
        assert_eq!(joined.join(peer(9, 2), Seconds(0), LIMITS), Ok(()));
        assert_eq!(joined.join(peer(9, 3), Seconds(0), LIMITS), Ok(()));
        assert_eq!(joined.join(peer(10, 3), Seconds(0), LIMITS), Err(TooMany::Peers));
        joined.leave(&peer(0, 1));
        assert_eq!(joined.join(peer(10, 4), Seconds(0), LIMITS), Err(TooMany::PeerIds));
        assert_eq!(joined.join(peer(10, 3), Seconds(0), LIMITS), Ok(()));
        assert_eq!(joined.peers().count(), 6);
    }

    #[test]
    fn what_has_expired_makes_room() {
        let mut joined = Joined::default();
        (0..6).for_each(|torrent| joined.join(peer(torrent, 1), Seconds(torrent.into()), LIMITS).unwrap());
        assert_eq!(joined.join(peer(6, 1), Seconds(200), LIMITS), Err(TooMany::Peers));
        assert_eq!(joined.join(peer(6, 1), Seconds(201), LIMITS), Ok(()));
        assert!(!joined.peers().any(|peer| peer.0 == InfoHash([0; 20])));
    }
}
