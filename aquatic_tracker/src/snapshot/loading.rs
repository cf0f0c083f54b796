//! Peers that have stopped while a snapshot is taken in, and that it must not bring back.

use std::collections::HashSet;
use std::net::SocketAddr;

use aquatic_common::InfoHash;
use aquatic_swarm::{Announce, Applied, Change, Stored};

/// Maximum number of peers that are remembered: 5 MB. Beyond it, a peer that stops may come back with the
/// snapshot, and then expires.
const MAX_STOPPED: usize = 65_536;

/// What is remembered of announces while a snapshot is taken in.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    /// Number of snapshots, and of what other nodes have stored, that are taken in at the same time.
    running: u32,
    stopped: HashSet<(InfoHash, SocketAddr)>,
}

impl Loading {
    /// Begins to take in one more.
    pub(crate) fn begin(&mut self) {
        self.running += 1;
    }

    /// Ends taking in one. Returns whether that was the last.
    pub(crate) fn end(&mut self) -> bool {
        self.running = self.running.saturating_sub(1);
        self.running == 0
    }

    /// Notes what an announce has done.
    pub(crate) fn observe(&mut self, announce: &Announce, stored: Stored) {
        let peer = (announce.info_hash, announce.address);
        if matches!(stored, Stored::Removed | Stored::Absent) {
            self.note_stopped(peer);
        } else if !self.stopped.is_empty() && matches!(stored, Stored::Added | Stored::Updated) {
            self.stopped.remove(&peer);
        }
    }

    /// Notes what a change that another node has told of has done.
    pub(crate) fn observe_change(&mut self, change: &Change, applied: Applied) {
        let peer = (change.info_hash, change.address);
        if matches!(applied, Applied::Removed | Applied::Absent) {
            self.note_stopped(peer);
        } else if !self.stopped.is_empty() && matches!(applied, Applied::Added | Applied::Updated) {
            self.stopped.remove(&peer);
        }
    }

    fn note_stopped(&mut self, peer: (InfoHash, SocketAddr)) {
        if self.stopped.len() < MAX_STOPPED {
            self.stopped.insert(peer);
        }
    }

    /// Whether a peer of the snapshot has stopped since.
    pub(crate) fn has_stopped(&self, info_hash: InfoHash, address: SocketAddr) -> bool {
        !self.stopped.is_empty() && self.stopped.contains(&(info_hash, address))
    }
}

#[cfg(test)]
mod tests {
    use aquatic_common::AnnounceEvent;
    use aquatic_swarm::Families;

    use super::*;

    #[test]
    fn several_end_with_the_last() {
        let mut loading = Loading::default();
        loading.begin();
        loading.begin();
        assert!(!loading.end() && loading.end() && loading.end());
    }

    #[test]
    fn peers_that_stop_are_remembered_until_they_come_back() {
        let announce = |port| Announce {
            info_hash: InfoHash([1; 20]),
            address: SocketAddr::from(([192, 0, 2, 1], port)),
            seeder: false,
            event: AnnounceEvent::None,
            numwant: 0,
            families: Families::Own,
        };
        let mut loading = Loading::default();
        for (port, stored) in [
            (1, Stored::Absent),
            (2, Stored::Removed),
            (3, Stored::Added),
            (4, Stored::Absent),
            (4, Stored::Added),
            (5, Stored::RefusedPeers),
        ] {
            loading.observe(&announce(port), stored);
        }
        let stopped = (1..=5).filter(|port| loading.has_stopped(InfoHash([1; 20]), announce(*port).address));
        assert_eq!(stopped.collect::<Vec<_>>(), [1, 2]);
        assert!(!loading.has_stopped(InfoHash([2; 20]), announce(1).address));
        for number in 0..2 * MAX_STOPPED as u32 {
            let address = SocketAddr::from((number.to_be_bytes(), 1000));
            loading.observe(&Announce { address, ..announce(1) }, Stored::Absent);
        }
        assert_eq!(loading.stopped.len(), MAX_STOPPED);
    }
}
