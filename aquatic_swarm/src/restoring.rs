//! Taking in what was saved, while announces go on. What is younger wins.

use std::net::SocketAddr;

use aquatic_common::Seconds;
use rand::Rng;

use crate::family::{Capacity, Store};
use crate::peer_format::PeerFormat;
use crate::saving::SavedPeer;
use crate::table::TorrentKey;
use crate::tick::{Stamp, Tick};
use crate::types::Stored;

/// Whose peers are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Those of this node's own past: a snapshot. They are remote if they were then. Completed downloads are
    /// added to those that are known, which came later.
    Own,
    /// Those of the predecessor of the process, which also hands out what changes: completed downloads that
    /// are known are among those that are handed out. They are the higher number of both.
    Predecessor,
    /// Those of another node, to which they belong. Completed downloads are the higher number of both.
    Other,
}

/// What became of saved peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Stored.
    pub added: u64,
    /// Already in the swarm. If the saved peer was younger, it replaced the other.
    pub known: u64,
    /// Not stored because of a limit.
    pub limited: u64,
    /// Not stored because nobody can have this address: port 0, or an IPv4 address in IPv6 form.
    pub invalid: u64,
}

impl Restored {
    /// Adds other numbers to these.
    pub fn add(&mut self, other: Self) {
        let Self { added, known, limited, invalid } = other;
        self.added += added;
        self.known += known;
        self.limited += limited;
        self.invalid += invalid;
    }

    pub(crate) fn count(&mut self, stored: Stored) {
        let number = if stored.limit().is_some() {
            &mut self.limited
        } else if stored == Stored::Added {
            &mut self.added
        } else if stored == Stored::RefusedPort {
            &mut self.invalid
        } else {
            &mut self.known
        };
        *number += 1;
    }
}

/// Returns the stamp of a peer that announced some seconds ago.
pub(crate) fn stamp_of_age(age: u32, seeder: bool, now: Seconds) -> Stamp {
    // Ticks are counted modulo a divisor of 2^32 seconds, so the time before the epoch has its tick, too.
    Stamp::new(Tick::at(Seconds(now.0.wrapping_sub(age))), seeder)
}

/// Returns the stamp that a saved peer has now.
pub(crate) fn stamp_of(peer: &SavedPeer, origin: Origin, now: Seconds) -> Stamp {
    let stamp = stamp_of_age(peer.age, peer.seeder, now).with_completion_counted(peer.completion_counted);
    if peer.remote || origin == Origin::Other { stamp.remote() } else { stamp }
}

/// Returns whether a peer can be stored under this address.
pub(crate) fn is_valid(address: SocketAddr) -> bool {
    let mapped = match address {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().is_some(),
    };
    address.port() != 0 && !mapped
}

impl<K: PeerFormat> Store<K> {
    /// Stores a saved peer, or updates a known one that is older.
    pub(crate) fn restore_peer(
        &mut self,
        key: TorrentKey,
        (peer, origin): (K::Peer, Origin),
        now: Tick,
        capacity: Capacity,
        rng: &mut impl Rng,
    ) -> Stored {
        if origin == Origin::Other {
            return self.put_remote(key, (peer, false), now, capacity, rng).0;
        }
        let find = |slot| Some((slot, self.locate(self.content(slot), peer).0?));
        let Some((slot, at)) = self.find(key).and_then(find) else {
            return self.put(key, peer, capacity, rng).stored;
        };
        let (saved, Some(current)) = (K::stamp(peer), self.stamp_at(slot, at)) else { return Stored::Absent };
        if saved.age(now) < current.age(now) {
            self.restamp(slot, self.content(slot), at, saved, rng);
        } else {
            // As if the saved announce had come first.
            let (stamp, completes) = current.after(saved);
            if completes && !current.completion_counted() {
                self.table.count_completed(slot);
                self.completed += 1;
            }
            if stamp != current {
                self.restamp(slot, self.content(slot), at, stamp, rng);
            }
        }
        Stored::Updated
    }

    /// Takes in the number of completed downloads of a torrent, if it is known.
    pub(crate) fn restore_downloaded(&mut self, key: TorrentKey, downloaded: u32, origin: Origin) {
        match origin {
            Origin::Predecessor | Origin::Other => self.raise_downloaded(key, downloaded),
            Origin::Own => {
                if let (true, Some(slot)) = (downloaded > 0, self.find(key)) {
                    self.table.add_completed(slot, downloaded);
                }
            }
        }
    }
}
