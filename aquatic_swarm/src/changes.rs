//! What other nodes have heard of peers, and how it is taken in. Of two announces the younger one wins, and
//! of two in the same tick that of a seeder, so that all nodes come to the same result, in whatever order
//! they hear of them.

use std::net::SocketAddr;

use aquatic_common::InfoHash;
use rand::Rng;

use crate::family::{Capacity, Store};
use crate::peer_format::PeerFormat;
use crate::table::{Slot, TorrentKey};
use crate::tick::{Stamp, Tick};
use crate::types::{Previous, Stored};

/// A change of a peer that another node has heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Address and port of the peer.
    pub address: SocketAddr,
    /// What has changed.
    pub kind: ChangeKind,
    /// Seconds from the announce to the moment when the change was handed out; 255 also stands for more.
    pub age: u8,
}

/// What another node has heard of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It announced, and is in the swarm.
    Present {
        /// Whether it has nothing left to download.
        seeder: bool,
        /// Whether its completion has been counted.
        completion: Completion,
    },
    /// It stopped.
    Left,
    /// It stopped, and the node that heard that knew it: it stopped after the announce that another node had
    /// heard, unless it is back there.
    LeftAfter,
}

impl ChangeKind {
    /// Whether the peer is in the swarm.
    #[must_use]
    pub fn is_present(self) -> bool {
        matches!(self, Self::Present { .. })
    }
}

/// Whether the completion of a peer has been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Completion {
    /// It has not.
    #[default]
    None,
    /// It has, with an earlier announce.
    Counted,
    /// It has, with this announce.
    Now,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Applied {
    /// The peer was unknown, and has been added.
    Added,
    /// The peer has been updated. It is the other node's now.
    Updated,
    /// What is known of the peer is younger, or the same.
    Older,
    /// The peer has been removed.
    Removed,
    /// The peer stopped, but is not in the swarm.
    Absent,
    /// The peer has announced to this node since, or within the same 16 seconds, and stays as it is. Other
    /// nodes may have to be told again: they have heard of the change, and perhaps not of that announce.
    Reasserted,
    /// The peer is not stored: this node does not hold the part of the torrent.
    NotHeld,
    /// The peer is not stored: a limit is reached, memory is short, or it may not be stored.
    Refused,
}

impl Applied {
    /// Returns what became of a peer that is present in some role.
    pub(crate) fn of_present(seeder: bool, (stored, previous): (Stored, Previous)) -> Self {
        match stored {
            Stored::Added => Self::Added,
            Stored::Updated => Self::Updated,
            Stored::Ignored if !previous.is_remote() && previous.is_seeder() != seeder => Self::Reasserted,
            Stored::Ignored => Self::Older,
            Stored::Removed => Self::Removed,
            Stored::Absent => Self::Absent,
            Stored::RefusedPort
            | Stored::RefusedPeersPerTorrent
            | Stored::RefusedPeersPerAddress
            | Stored::RefusedPeers
            | Stored::RefusedTorrents
            | Stored::RefusedMemory => Self::Refused,
        }
    }
}

/// Returns whether what another node has heard of a peer replaces what is known of it.
fn wins(theirs: Stamp, known: Stamp, now: Tick) -> bool {
    let (age, known_age) = (theirs.age(now), known.age(now));
    age < known_age || age == known_age && theirs.seeder() && !known.seeder()
}

impl<K: PeerFormat> Store<K> {
    /// Stores a peer that another node has heard, or updates a known one. `completes` is whether that node
    /// has counted its completion with this announce. [`Stored::Ignored`] if what is known is younger; that
    /// is then also returned.
    pub(crate) fn put_remote(
        &mut self,
        key: TorrentKey,
        (peer, completes): (K::Peer, bool),
        now: Tick,
        capacity: Capacity,
        rng: &mut impl Rng,
    ) -> (Stored, Previous) {
        let theirs = K::stamp(peer);
        let outcome = if let Some(slot) = self.find(key) {
            let content = self.content(slot);
            let (position, group) = self.locate_and_probe(content, peer, rng);
            if let Some((at, known)) = position.and_then(|at| Some((at, self.stamp_at(slot, at)?))) {
                if completes && !known.completion_counted() {
                    self.table.count_completed(slot);
                }
                let is_younger = wins(theirs, known, now);
                let stamp = if is_younger {
                    theirs
                } else {
                    known.with_completion_counted(theirs.completion_counted())
                };
                if stamp != known {
                    self.restamp(slot, content, at, stamp, rng);
                }
                return (if is_younger { Stored::Updated } else { Stored::Ignored }, Previous(known));
            }
            self.put_another(slot, content, (peer, group), capacity, rng)
        } else {
            self.put_first(key, peer, capacity)
        };
        if completes
            && outcome.stored == Stored::Added
            && let Some(slot) = outcome.torrent
        {
            self.table.count_completed(slot);
        }
        (outcome.stored, Previous::default())
    }

    /// Removes a peer that stopped at another node, unless it has announced since. Of a stop and an announce
    /// to this node in the same tick the announce is taken for the later one, unless the other node knew it.
    /// Also returns what was known of the peer.
    pub(crate) fn remove_remote(
        &mut self,
        key: TorrentKey,
        (peer, knew_announce): (K::Peer, bool),
        now: Tick,
    ) -> (Applied, Previous) {
        let find = |slot: Slot| {
            let at = self.locate(self.content(slot), peer).0?;
            Some((slot, at, self.stamp_at(slot, at)?))
        };
        let Some((slot, at, known)) = self.find(key).and_then(find) else {
            return (Applied::Absent, Previous::default());
        };
        let (age, known_age) = (K::stamp(peer).age(now), known.age(now));
        let has_announced_since = known_age < age || known_age == age && !known.is_remote() && !knew_announce;
        let applied = if has_announced_since && known.is_remote() {
            Applied::Older
        } else if has_announced_since {
            Applied::Reasserted
        } else {
            self.remember_completion(slot, at);
            self.remove_at(slot, at);
            Applied::Removed
        };
        (applied, Previous(known))
    }

    /// Raises the number of completed downloads of a torrent, if it is known, to that of another node.
    pub(crate) fn raise_downloaded(&mut self, key: TorrentKey, downloaded: u32) {
        if let (true, Some(slot)) = (downloaded > 0, self.find(key)) {
            let more = downloaded.saturating_sub(self.table.completed(slot));
            self.table.add_completed(slot, more);
        }
    }
}
