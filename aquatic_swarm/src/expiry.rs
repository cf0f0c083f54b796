//! Removal of expired peers in small steps. A pass visits every page of the table, every entry of a page and
//! every peer of a torrent, the entries and peers from the last to the first, because what a removal moves is
//! then either already visited or still ahead. It can be interrupted between any two torrents and inside a
//! large swarm.
//!
//! Announces may interfere with a pass in two ways. A peer that is added or moved may move another one from
//! the part still ahead to the part already visited; the next pass finds that one. A split of the page at the
//! cursor is harmless: the entries that stay keep their order, so those ahead are still below the cursor, and
//! the others are on the last page, which is also ahead.

use std::hint::black_box;

use aquatic_common::expiry::Expired;

use crate::accesses;
use crate::crowd;
use crate::family::Store;
use crate::payload::Content;
use crate::peer_format::PeerFormat;
use crate::table::Slot;
use crate::tick::Cutoff;

/// Position at which a pass continues.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// Whether a pass is in progress.
    running: bool,
    page: u32,
    /// Entries of the page still to be visited; `None` for all of them.
    entries: Option<u8>,
    /// The large swarm at the next entry, if its visit has begun.
    large: Option<Visit>,
}

/// Position within a large swarm: the number of its peers still to be visited.
#[derive(Clone, Copy, Debug)]
struct Visit {
    number: u32,
    peers: u32,
}

/// Peers visited per unit of work.
const PEERS_PER_UNIT: u64 = 8;

impl<K: PeerFormat> Store<K> {
    /// Works until `budget` units are done or the pass ends.
    pub(crate) fn expire(&mut self, cutoff: Cutoff, budget: u64) -> Expired {
        let mut done = Expired::default();
        self.table.give_back();
        self.lists.give_back();
        if !self.cursor.running {
            self.cursor = Cursor { running: true, ..Cursor::default() };
            self.table.plan_drain();
            self.lists.plan_drain();
        }
        while done.work < budget {
            if self.cursor.page >= self.table.pages() {
                // Pages are merged only here, because that could move entries from the part still ahead to
                // the part already visited. A pass that hands out the content must not miss any either.
                done.work += 8;
                if self.saving.iter().any(Option::is_some) || self.counting.is_some() || !self.table.shrink()
                {
                    self.cursor.running = false;
                    done.pass_ended = true;
                    break;
                }
                self.cursor.page = self.table.pages();
            } else {
                self.visit_page(cutoff, budget, &mut done);
            }
        }
        accesses::add(done.work as usize);
        done
    }

    /// Returns the units of work of a pass that removes nothing.
    pub(crate) fn pass_work(&self) -> u64 {
        u64::from(self.table.pages()) + 2 * self.table.len() + self.peers() / PEERS_PER_UNIT
    }

    fn visit_page(&mut self, cutoff: Cutoff, budget: u64, done: &mut Expired) {
        let page = self.cursor.page;
        let len = self.table.page_len(page);
        let mut left = self.cursor.entries.unwrap_or(len).min(len);
        if self.cursor.entries.is_none() {
            self.table.relocate(page);
            self.load_lists(page, len);
            done.work += 1;
        }
        while left > 0 {
            if done.work >= budget {
                self.cursor.entries = Some(left);
                return;
            }
            if !self.visit_torrent(self.table.slot_at(page, left - 1), cutoff, budget, done) {
                self.cursor.entries = Some(left);
                return;
            }
            left -= 1;
        }
        self.cursor.page += 1;
        self.cursor.entries = None;
    }

    /// Loads the first peers of the lists of a page into the cache, so that their cache misses overlap.
    pub(crate) fn load_lists(&self, page: u32, len: u8) {
        for at in 0..len {
            if let Content::List { block, .. } = self.content(self.table.slot_at(page, at)) {
                black_box(K::stamp(*self.lists.unit(block)));
            }
        }
    }

    /// Returns whether the visit is complete.
    fn visit_torrent(&mut self, slot: Slot, cutoff: Cutoff, budget: u64, done: &mut Expired) -> bool {
        let is_kept = self.kept.as_ref().is_none_or(|kept| kept.contains(&self.table.info_hash(slot)));
        let cutoff = if is_kept { cutoff } else { cutoff.of_all() };
        match self.content(slot) {
            Content::One(peer) => {
                done.work += 1;
                if cutoff.is_expired(K::stamp(peer)) {
                    self.remove_expired(slot, 0, done);
                }
                true
            }
            Content::List { block, order, .. } => {
                self.visit_list(slot, block, order.len, cutoff, done);
                true
            }
            Content::Large(number) => {
                let ended = self.visit_large_swarm(slot, number, cutoff, budget, done);
                if ended {
                    self.cursor.large = None;
                }
                ended
            }
        }
    }

    fn visit_list(&mut self, slot: Slot, block: u32, len: u32, cutoff: Cutoff, done: &mut Expired) {
        done.work += 2 + u64::from(len) / PEERS_PER_UNIT;
        let peers = &self.lists.get(block)[..len as usize];
        if !peers.iter().any(|peer| cutoff.is_expired(K::stamp(*peer))) {
            let moved = self.lists.relocate(block);
            if let Content::List { order, crowded, .. } = self.content(slot)
                && (moved != block || crowded)
            {
                let peers = &self.lists.get(moved)[..len as usize];
                let crowded = crowded && crowd::list_is_crowded::<K>(peers);
                self.table.set_payload(slot, Content::<K::Peer>::list(moved, order, crowded));
            }
            return;
        }
        for at in (0..len).rev() {
            let stamp = match self.content(slot) {
                Content::One(peer) => K::stamp(peer),
                Content::List { block, .. } => K::stamp(self.lists.get(block)[at as usize]),
                Content::Large(_) => return,
            };
            if cutoff.is_expired(stamp) && !self.remove_expired(slot, at, done) {
                return;
            }
        }
    }

    fn visit_large_swarm(
        &mut self,
        slot: Slot,
        number: u32,
        cutoff: Cutoff,
        budget: u64,
        done: &mut Expired,
    ) -> bool {
        let Some(swarm) = self.large.get(number) else {
            return true;
        };
        let len = swarm.order().len;
        let mut visit = match self.cursor.large {
            Some(visit) if visit.number == number => visit,
            Some(_) | None => Visit { number, peers: len },
        };
        visit.peers = visit.peers.min(len);
        while visit.peers > 0 {
            if done.work >= budget {
                self.cursor.large = Some(visit);
                return false;
            }
            visit.peers -= 1;
            done.work += u64::from(u64::from(visit.peers).is_multiple_of(PEERS_PER_UNIT));
            let Some(swarm) = self.large.get(number) else {
                return true;
            };
            if cutoff.is_expired(K::stamp(swarm.get(visit.peers))) {
                self.remove_expired(slot, visit.peers, done);
                if let Content::List { block, order, .. } = self.content(slot) {
                    self.visit_list(slot, block, order.len, cutoff, done);
                    return true;
                }
            }
        }
        if let Some((swarm, _)) = self.large.get_mut(number) {
            swarm.expire_crowd(cutoff);
        }
        true
    }

    /// Removes an expired peer. Returns whether the torrent still has peers.
    fn remove_expired(&mut self, slot: Slot, at: u32, done: &mut Expired) -> bool {
        done.work += Expired::WORK_PER_PEER;
        done.peers += 1;
        let left = self.remove_at(slot, at);
        done.torrents += u64::from(!left);
        left
    }
}
