//! Peers that have stopped while a snapshot is taken in, and that it must not bring back.

use std::collections::HashMap;
use std::net::SocketAddr;

use aquatic_common::{InfoHash, Seconds};
use aquatic_swarm::{Announce, Applied, Change, Stored, TICK};

/// Maximum number of peers that are remembered: 5 MB. Beyond it, a peer that stops may come back with the
/// snapshot, and then expires.
const MAX_STOPPED: usize = 65_536;

/// What is remembered of announces while a snapshot is taken in.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    /// Number of snapshots, and of what other nodes have stored, that are taken in at the same time.
    running: u32,
    /// When those have stopped.
    stopped: HashMap<(InfoHash, SocketAddr), Seconds>,
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
    pub(crate) fn observe(&mut self, announce: &Announce, stored: Stored, now: Seconds) {
        let peer = (announce.info_hash, announce.address);
        if matches!(stored, Stored::Removed | Stored::Absent) {
            self.note_stopped(peer, now);
        } else if !self.stopped.is_empty() && matches!(stored, Stored::Added | Stored::Updated) {
            self.stopped.remove(&peer);
        }
    }

    /// Notes what a change has done that another node has heard of some time ago.
    pub(crate) fn observe_change(&mut self, change: &Change, applied: Applied, heard: Seconds) {
        let peer = (change.info_hash, change.address);
        if matches!(applied, Applied::Removed | Applied::Absent) {
            self.note_stopped(peer, heard);
        } else if !self.stopped.is_empty() && matches!(applied, Applied::Added | Applied::Updated) {
            self.stopped.remove(&peer);
        }
    }

    fn note_stopped(&mut self, peer: (InfoHash, SocketAddr), when: Seconds) {
        if let Some(known) = self.stopped.get_mut(&peer) {
            *known = (*known).max(when);
        } else if self.stopped.len() < MAX_STOPPED {
            self.stopped.insert(peer, when);
        }
    }

    /// Whether a peer of the snapshot, which was heard at some time, has stopped since. Times of peers are
    /// rounded to ticks.
    pub(crate) fn has_stopped(&self, info_hash: InfoHash, address: SocketAddr, heard: Seconds) -> bool {
        if self.stopped.is_empty() {
            return false;
        }
        self.stopped.get(&(info_hash, address)).is_some_and(|when| heard < *when + TICK)
    }
}

#[cfg(test)]
mod tests {
    use aquatic_common::AnnounceEvent;
    use std::net::Ipv4Addr;

    use aquatic_swarm::{ChangeKind, Families};

    use super::*;

    const LEFT: Change = Change {
        info_hash: InfoHash([0; 20]),
        address: SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)),
        kind: ChangeKind::Left,
        age: 0,
    };

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
            loading.observe(&announce(port), stored, Seconds(100));
        }
        let has_stopped = |loading: &Loading, port, heard| {
            loading.has_stopped(InfoHash([1; 20]), announce(port).address, Seconds(heard))
        };
        assert_eq!((1..=5).filter(|port| has_stopped(&loading, *port, 90)).collect::<Vec<_>>(), [1, 2]);
        assert!(!loading.has_stopped(InfoHash([2; 20]), announce(1).address, Seconds(90)));
        // Another node tells that it has left before, and then that it has left again.
        let left = Change { info_hash: InfoHash([1; 20]), address: announce(1).address, ..LEFT };
        loading.observe_change(&left, Applied::Absent, Seconds(50));
        assert!(has_stopped(&loading, 1, 115) && !has_stopped(&loading, 1, 116), "it is back since");
        loading.observe_change(&left, Applied::Absent, Seconds(150));
        assert!(has_stopped(&loading, 1, 116));
        for number in 0..2 * MAX_STOPPED as u32 {
            let address = SocketAddr::from((number.to_be_bytes(), 1000));
            loading.observe(&Announce { address, ..announce(1) }, Stored::Absent, Seconds(1));
        }
        assert_eq!(loading.stopped.len(), MAX_STOPPED);
    }
}
