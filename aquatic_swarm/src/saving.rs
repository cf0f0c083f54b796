//! Handing out the whole content in small steps, while announces go on.
//!
//! A pass visits every page of the table, the entries of a page from the last to the first, and the peers of
//! a large swarm in parts. What was in the store when the pass began, and is still there when the pass ends,
//! is handed out: a page that is added by a split of a visited one is left out, because what it holds has
//! been visited, and pages are merged only between passes. Two things are imprecise. An entry may be handed
//! out twice if a page is split or changed between two parts of a large swarm in it, the second time without
//! completed downloads. A peer of a large swarm may be left out if another peer's announce swaps it into the
//! part that has been visited.

use std::net::SocketAddr;

use aquatic_common::{Family, InfoHash};

use crate::family::Store;
use crate::linear;
use crate::parts::PartSet;
use crate::payload::Content;
use crate::peer_format::PeerFormat;
use crate::table::Slot;
use crate::tick::{Stamp, Tick};

/// A torrent of one family as it is saved, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedTorrent {
    /// Address family of the peers.
    pub family: Family,
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Number of completed downloads; 0 in all parts of a torrent but the first.
    pub downloaded: u32,
    /// Number of peers that follow, at most [`MAX_PEERS_PER_PART`].
    pub peers: u32,
}

/// A peer as it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedPeer {
    /// Address and port.
    pub address: SocketAddr,
    /// Seconds from its last announce to the moment of the snapshot.
    pub age: u32,
    /// Whether it has nothing left to download.
    pub seeder: bool,
    /// Whether its completion has been counted.
    pub completion_counted: bool,
    /// Whether another node heard it last.
    pub remote: bool,
}

/// Passes that can go on at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavePass {
    /// For a snapshot, or for the successor of the process.
    Snapshot,
    /// For another node.
    FirstPull,
    /// For a second one.
    SecondPull,
}

impl SavePass {
    pub(crate) const COUNT: usize = 3;
}

/// What a pass hands out.
#[derive(Clone, Copy, Debug)]
pub enum SaveFilter<'a> {
    /// Everything.
    All,
    /// The peers that this node heard last, as far as they were not older at the moment of the snapshot.
    Own {
        /// Seconds.
        max_age: u32,
    },
    /// The torrents of these parts.
    Parts(&'a PartSet),
}

impl SaveFilter<'_> {
    fn has_torrent(&self, info_hash: impl FnOnce() -> InfoHash) -> bool {
        match self {
            Self::All | Self::Own { .. } => true,
            Self::Parts(parts) => parts.contains(&info_hash()),
        }
    }
}

/// Maximum number of peers that are handed out as one part.
pub const MAX_PEERS_PER_PART: u32 = 512;

/// Takes what is saved.
pub trait SaveSwarms {
    /// Takes a torrent, or a part of it. Its peers follow.
    fn torrent(&mut self, torrent: SavedTorrent);

    /// Takes a peer of the torrent.
    fn peer(&mut self, peer: SavedPeer);
}

/// Progress of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveStep {
    /// Work done, in units that take 50 to 100 ns when memory is far larger than the caches.
    pub work: u64,
    /// Whether everything has been handed out.
    pub ended: bool,
}

/// The present, how long ago the moment of the snapshot was in seconds, and what is handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SaveScope<'a> {
    pub(crate) now: Tick,
    pub(crate) ago: u32,
    pub(crate) filter: SaveFilter<'a>,
}

impl SaveScope<'_> {
    fn age(&self, stamp: Stamp) -> u32 {
        stamp.age(self.now).saturating_sub(self.ago)
    }

    fn has_peer(&self, stamp: Stamp) -> bool {
        match self.filter {
            SaveFilter::All | SaveFilter::Parts(_) => true,
            SaveFilter::Own { max_age } => !stamp.is_remote() && self.age(stamp) <= max_age,
        }
    }
}

/// Position at which a pass continues.
#[derive(Debug, Default)]
pub(crate) struct SaveCursor {
    page: u32,
    /// Entries of the page still to be visited; `None` for all of them.
    entries: Option<u8>,
    large: Option<Visit>,
    /// Torrents of the page that have been handed out, if it is visited in several steps.
    handed_out: Vec<InfoHash>,
    /// The same for pages that split off from it meanwhile.
    split_off: Vec<(u32, Vec<InfoHash>)>,
    /// Pages that were added by splits of visited ones, in ascending order.
    visited: Vec<u32>,
}

/// Position within a large swarm.
#[derive(Clone, Copy, Debug)]
struct Visit {
    number: u32,
    /// The role whose array is being visited. Leechers come first, so that those who become seeders meanwhile
    /// are not left out.
    seeders: bool,
    /// Peers of the role still to be visited.
    left: u32,
    /// Whether a part has been handed out.
    begun: bool,
}

/// Peers handed out per unit of work.
const PEERS_PER_UNIT: u64 = 8;

impl SaveCursor {
    pub(crate) fn page(&self) -> u32 {
        self.page
    }

    /// Whether the content of the page has been visited where it was before a split.
    pub(crate) fn has_visited(&self) -> bool {
        self.visited.binary_search(&self.page).is_ok()
    }

    pub(crate) fn next_page(&mut self) {
        self.page += 1;
        self.entries = None;
        self.handed_out.clear();
        if let Some(at) = self.split_off.iter().position(|(page, _)| *page == self.page) {
            self.handed_out = self.split_off.swap_remove(at).1;
        }
    }

    /// Torrents of a page that have been handed out.
    fn handed_out_of(&self, page: u32) -> Option<&[InfoHash]> {
        if page == self.page {
            return Some(&self.handed_out);
        }
        self.split_off.iter().find(|(of, _)| *of == page).map(|(_, torrents)| torrents.as_slice())
    }

    /// Notes that the last of `pages` has been added.
    pub(crate) fn note_split(&mut self, pages: u32) {
        let buddy = linear::buddy(pages);
        if let Some(torrents) = self.handed_out_of(buddy).filter(|torrents| !torrents.is_empty()) {
            self.split_off.push((pages - 1, torrents.to_vec()));
        }
        if buddy < self.page || self.visited.binary_search(&buddy).is_ok() {
            self.visited.push(pages - 1);
        }
    }
}

impl<K: PeerFormat> Store<K> {
    /// Works until `budget` units are done or the pass ends. A pass that has not begun has ended.
    pub(crate) fn save(
        &mut self,
        pass: SavePass,
        scope: SaveScope<'_>,
        budget: u64,
        out: &mut impl SaveSwarms,
    ) -> SaveStep {
        let Some(mut cursor) = self.saving[pass as usize].take() else {
            return SaveStep { work: 0, ended: true };
        };
        let mut work = 0;
        while cursor.page < self.table.pages() {
            if work >= budget {
                self.saving[pass as usize] = Some(cursor);
                return SaveStep { work, ended: false };
            }
            if self.save_page(&mut cursor, scope, &mut work, out) {
                cursor.next_page();
            }
        }
        SaveStep { work, ended: true }
    }

    /// Returns whether the page is complete.
    fn save_page(
        &self,
        cursor: &mut SaveCursor,
        scope: SaveScope<'_>,
        work: &mut u64,
        out: &mut impl SaveSwarms,
    ) -> bool {
        let page = cursor.page;
        *work += 1;
        if cursor.has_visited() {
            return true;
        }
        let len = self.table.page_len(page);
        let begin = cursor.entries.unwrap_or(len).min(len);
        let mut left = begin;
        self.load_lists(page, left);
        while left > 0 {
            let slot = self.table.slot_at(page, left - 1);
            *work += 2;
            if !scope.filter.has_torrent(|| self.table.info_hash(slot)) {
                cursor.large = None;
            } else if let Content::Large(number) = self.content(slot) {
                if !self.save_large(slot, number, cursor, scope, work, out) {
                    cursor.entries = Some(left);
                    let has_begun = cursor.large.is_some_and(|visit| visit.begun);
                    let from = if has_begun { left - 1 } else { left };
                    let visited = (from..begin).map(|entry| self.table.slot_at(page, entry));
                    cursor.handed_out.extend(visited.map(|slot| self.table.info_hash(slot)));
                    return false;
                }
                cursor.large = None;
            } else {
                *work += self.save_torrent(slot, self.is_first(slot, cursor), scope, out);
            }
            left -= 1;
        }
        true
    }

    /// Whether nothing of a torrent of the page has been handed out.
    fn is_first(&self, slot: Slot, cursor: &SaveCursor) -> bool {
        cursor.handed_out.is_empty() || !cursor.handed_out.contains(&self.table.info_hash(slot))
    }

    /// Hands out a torrent that is no large swarm and returns the work.
    fn save_torrent(
        &self,
        slot: Slot,
        is_first: bool,
        scope: SaveScope<'_>,
        out: &mut impl SaveSwarms,
    ) -> u64 {
        match self.content(slot) {
            Content::One(peer) => {
                self.save_peers(slot, is_first, [peer].iter(), scope, out);
            }
            Content::List { block, order, .. } => {
                let peers = self.lists.get(block).iter().take(order.len as usize);
                self.save_peers(slot, is_first, peers, scope, out);
            }
            Content::Large(_) => return 0,
        }
        u64::from(self.order(slot).len) / PEERS_PER_UNIT
    }

    /// Hands out a part of a large swarm. Returns whether that was the last one.
    fn save_large(
        &self,
        slot: Slot,
        number: u32,
        cursor: &mut SaveCursor,
        scope: SaveScope<'_>,
        work: &mut u64,
        out: &mut impl SaveSwarms,
    ) -> bool {
        let Some(swarm) = self.large.get(number) else { return true };
        let order = swarm.order();
        let begin = Visit { number, seeders: false, left: order.leechers(), begun: false };
        let mut visit = cursor.large.filter(|visit| visit.number == number).unwrap_or(begin);
        if visit.left == 0 && !visit.seeders {
            visit = Visit { seeders: true, left: order.seeders, ..visit };
        }
        let (first, len) = if visit.seeders { (0, order.seeders) } else { (order.seeders, order.leechers()) };
        visit.left = visit.left.min(len);
        let part = visit.left.min(MAX_PEERS_PER_PART);
        visit.left -= part;
        *work += 1 + u64::from(part) / PEERS_PER_UNIT;
        if part > 0 {
            let peers = swarm.slices(first + visit.left, part).flatten();
            let is_first = !visit.begun && self.is_first(slot, cursor);
            visit.begun |= self.save_peers(slot, is_first, peers, scope, out);
        }
        cursor.large = Some(visit);
        visit.seeders && visit.left == 0
    }

    /// Hands out those of the peers that the pass is about. Returns whether there were any.
    fn save_peers<'a>(
        &self,
        slot: Slot,
        is_first: bool,
        peers: impl Iterator<Item = &'a K::Peer> + Clone,
        scope: SaveScope<'_>,
        out: &mut impl SaveSwarms,
    ) -> bool
    where
        K::Peer: 'a,
    {
        let peers = peers.filter(|peer| scope.has_peer(K::stamp(**peer)));
        let len = peers.clone().count() as u32;
        if len == 0 {
            return false;
        }
        out.torrent(SavedTorrent {
            family: K::FAMILY,
            info_hash: self.table.info_hash(slot),
            downloaded: if is_first { self.table.completed(slot) } else { 0 },
            peers: len,
        });
        for &peer in peers {
            let stamp = K::stamp(peer);
            out.peer(SavedPeer {
                address: K::address(peer),
                age: scope.age(stamp),
                seeder: stamp.seeder(),
                completion_counted: stamp.completion_counted(),
                remote: stamp.is_remote(),
            });
        }
        true
    }
}
