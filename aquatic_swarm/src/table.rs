//! Hash table from info hash to completed count and payload, 32 bytes per entry, in small pages.
//!
//! A page is one block of a [`Slab`]: first one fingerprint byte per entry, then the entries. Pages are the
//! buckets of linear hashing with 32 entries on average, so the table grows by splitting one page and never
//! moves more than that.

use std::hint::black_box;

use aquatic_common::InfoHash;
use siphasher::sip::SipHasher13;

use crate::accesses;
use crate::linear;
use crate::segmented::SegmentedVec;
use crate::slab::{Slab, class_by_len};

/// Mean number of entries per page. Pages that are still to be split have up to twice as many.
const MEAN_ENTRIES: u64 = 32;
/// Maximum number of entries per page. Cannot be reached without knowing the hash key.
const MAX_ENTRIES_PER_PAGE: u8 = 255;
/// Maximum number of torrents per call of [`Table::prefetch`].
pub(crate) const PREFETCH_BATCH: usize = 64;

/// Entries per block, by size class, in fine steps around the usual page sizes. Together with the
/// fingerprints each fills whole cache lines, so that no entry spans two.
const CAPACITIES: [u16; 37] = [
    1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54,
    56, 58, 60, 62, 64, 79, 95, 128, 192, 256,
];
const SIZES: [u16; CAPACITIES.len()] = sizes();
const CLASS: [u8; 256] = class_by_len(&CAPACITIES);

type Unit = [u64; 4];

/// Units per block: the entries and their fingerprints.
const fn sizes() -> [u16; CAPACITIES.len()] {
    let mut sizes = CAPACITIES;
    let mut class = 0;
    while class < CAPACITIES.len() {
        sizes[class] += fingerprint_units(CAPACITIES[class]);
        assert!(sizes[class].is_multiple_of(2));
        class += 1;
    }
    sizes
}

const fn fingerprint_units(capacity: u16) -> u16 {
    capacity.div_ceil(32)
}

/// Returns the number of units before the entries of a page with `len` entries.
#[inline]
fn header_units(len: u8) -> usize {
    fingerprint_units(CAPACITIES[CLASS[len as usize] as usize]) as usize
}

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// Undefined while the page is empty.
    block: u32,
    len: u8,
}

/// Info hash and its hash value, as needed to search the table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TorrentKey {
    words: [u64; 3],
    hash: u64,
}

impl TorrentKey {
    #[inline]
    pub(crate) fn new(info_hash: &InfoHash, hasher: &SipHasher13) -> Self {
        Self { words: words_of(&info_hash.0), hash: hasher.hash(&info_hash.0) }
    }

    /// Returns the byte that distinguishes most entries of a page. Never 0, which stands for no entry.
    #[inline]
    fn fingerprint(self) -> u8 {
        ((self.hash >> 56) as u8).max(1)
    }
}

fn words_of(bytes: &[u8; 20]) -> [u64; 3] {
    let word = |at: usize| {
        let mut word = [0; 8];
        let end = (at + 8).min(20);
        word[..end - at].copy_from_slice(&bytes[at..end]);
        u64::from_le_bytes(word)
    };
    [word(0), word(8), word(16)]
}

/// Whether an entry has this info hash. An entry is 20 bytes of info hash, 4 of completed count and 8 of
/// payload.
#[inline]
fn has_info_hash(unit: &Unit, words: [u64; 3]) -> bool {
    unit[0] == words[0] && unit[1] == words[1] && (unit[2] ^ words[2]) & 0xffff_ffff == 0
}

fn info_hash_of(unit: &Unit) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&unit[0].to_le_bytes());
    bytes[8..16].copy_from_slice(&unit[1].to_le_bytes());
    bytes[16..].copy_from_slice(&unit[2].to_le_bytes()[..4]);
    bytes
}

fn fingerprint_at(block: &[Unit], at: usize) -> u8 {
    block[at / 32][at / 8 % 4].to_le_bytes()[at % 8]
}

fn set_fingerprint(block: &mut [Unit], at: usize, fingerprint: u8) {
    let word = &mut block[at / 32][at / 8 % 4];
    let shift = at % 8 * 8;
    *word = *word & !(0xff << shift) | u64::from(fingerprint) << shift;
}

/// Returns a word with the top bit set of each byte that is zero in `word`.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    !(((word & LOW) + LOW) | word | LOW)
}

/// Returns the fingerprint of a torrent in every byte of a word.
#[inline]
fn pattern(key: TorrentKey) -> u64 {
    u64::from(key.fingerprint()) * 0x0101_0101_0101_0101
}

/// Reference to an entry, valid until the next change of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    page: u32,
    at: u8,
    unit: u32,
}

/// The torrents of one address family.
#[derive(Debug)]
pub(crate) struct Table {
    hasher: SipHasher13,
    pages: SegmentedVec<Page, 4096>,
    slab: Slab<Unit>,
    len: u64,
}

impl Table {
    pub(crate) fn new(hasher: SipHasher13) -> Self {
        let mut pages = SegmentedVec::new();
        pages.push(Page::default());
        Self { hasher, pages, slab: Slab::new(&SIZES), len: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn pages(&self) -> u32 {
        self.pages.len()
    }

    pub(crate) fn page_len(&self, page: u32) -> u8 {
        self.pages.get(page).len
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pages.bytes() + self.slab.bytes()
    }

    #[inline]
    pub(crate) fn key(&self, info_hash: &InfoHash) -> TorrentKey {
        TorrentKey::new(info_hash, &self.hasher)
    }

    pub(crate) fn find(&self, key: TorrentKey) -> Option<Slot> {
        let number = linear::bucket(key.hash, self.pages.len());
        let page = self.pages.get(number);
        if page.len == 0 {
            return None;
        }
        let block = self.slab.get(page.block);
        let head = header_units(page.len);
        let pattern = pattern(key);
        accesses::add(1 + usize::from(page.len).div_ceil(8));
        for word in 0..usize::from(page.len).div_ceil(8) {
            let mut hits = zero_bytes(block[word / 4][word % 4] ^ pattern);
            while hits != 0 {
                let at = word * 8 + hits.trailing_zeros() as usize / 8;
                accesses::add(1);
                if has_info_hash(&block[head + at], key.words) {
                    return Some(Self::slot(number, page, at as u8));
                }
                hits &= hits - 1;
            }
        }
        None
    }

    /// Returns the entry at an index below [`Self::page_len`].
    pub(crate) fn slot_at(&self, page: u32, at: u8) -> Slot {
        Self::slot(page, self.pages.get(page), at)
    }

    #[inline]
    fn slot(number: u32, page: Page, at: u8) -> Slot {
        Slot { page: number, at, unit: page.block + (header_units(page.len) + at as usize) as u32 }
    }

    #[inline]
    pub(crate) fn payload(&self, slot: Slot) -> u64 {
        self.slab.unit(slot.unit)[3]
    }

    #[inline]
    pub(crate) fn set_payload(&mut self, slot: Slot, payload: u64) {
        self.slab.unit_mut(slot.unit)[3] = payload;
    }

    #[inline]
    pub(crate) fn completed(&self, slot: Slot) -> u32 {
        (self.slab.unit(slot.unit)[2] >> 32) as u32
    }

    pub(crate) fn info_hash(&self, slot: Slot) -> InfoHash {
        InfoHash(info_hash_of(self.slab.unit(slot.unit)))
    }

    pub(crate) fn count_completed(&mut self, slot: Slot) {
        self.add_completed(slot, 1);
    }

    pub(crate) fn add_completed(&mut self, slot: Slot, more: u32) {
        let count = self.completed(slot).saturating_add(more);
        let word = &mut self.slab.unit_mut(slot.unit)[2];
        *word = *word & 0xffff_ffff | u64::from(count) << 32;
    }

    /// Adds a torrent that is not in the table. `None` if its page is full.
    pub(crate) fn insert(&mut self, key: TorrentKey, payload: u64) -> Option<Slot> {
        let number = linear::bucket(key.hash, self.pages.len());
        let unit = [key.words[0], key.words[1], key.words[2], payload];
        self.push(number, key.fingerprint(), unit)?;
        self.len += 1;
        if self.len > MEAN_ENTRIES * u64::from(self.pages.len()) {
            self.split();
            return self.find(key);
        }
        let page = self.pages.get(number);
        Some(Self::slot(number, page, page.len - 1))
    }

    /// Removes an entry. The last entry of the page is moved to its position.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let mut page = self.pages.get(slot.page);
        let head = header_units(page.len);
        let last = page.len as usize - 1;
        let block = self.slab.get_mut(page.block);
        block[head + slot.at as usize] = block[head + last];
        let fingerprint = fingerprint_at(block, last);
        set_fingerprint(block, slot.at as usize, fingerprint);
        set_fingerprint(block, last, 0);
        self.len -= 1;
        if last == 0 {
            self.slab.free(page.block);
        } else {
            page.block = self.resize_page(page.block, page.len as usize, last, last);
        }
        page.len -= 1;
        self.pages.set(slot.page, page);
    }

    /// Merges the last page into its buddy if there are many more pages than needed. Returns whether it did.
    pub(crate) fn shrink(&mut self) -> bool {
        let pages = self.pages.len();
        if pages == 1 || self.len * 4 > MEAN_ENTRIES * 3 * u64::from(pages) {
            return false;
        }
        let (last, buddy) = (self.pages.get(pages - 1), linear::buddy(pages));
        if usize::from(last.len) + usize::from(self.pages.get(buddy).len) > usize::from(MAX_ENTRIES_PER_PAGE)
        {
            return false;
        }
        for at in 0..last.len as usize {
            let block = self.slab.get(last.block);
            let (fingerprint, unit) = (fingerprint_at(block, at), block[header_units(last.len) + at]);
            // Cannot fail: the total length of both was checked above.
            let _ = self.push(buddy, fingerprint, unit);
        }
        if last.len > 0 {
            self.slab.free(last.block);
        }
        self.pages.pop();
        true
    }

    fn push(&mut self, number: u32, fingerprint: u8, unit: Unit) -> Option<()> {
        let mut page = self.pages.get(number);
        if page.len == MAX_ENTRIES_PER_PAGE {
            return None;
        }
        let len = page.len as usize;
        if len == 0 {
            page.block = self.slab.alloc(CLASS[1] as usize);
            self.slab.get_mut(page.block)[0] = [0; 4];
        } else {
            page.block = self.resize_page(page.block, len, len + 1, len);
        }
        page.len += 1;
        let head = header_units(page.len);
        let block = self.slab.get_mut(page.block);
        set_fingerprint(block, len, fingerprint);
        block[head + len] = unit;
        self.pages.set(number, page);
        Some(())
    }

    /// Moves the first `kept` entries of a block for `old` entries to a block for `new` entries, if that is
    /// another size.
    fn resize_page(&mut self, block: u32, old: usize, new: usize, kept: usize) -> u32 {
        let (from, to) = (CLASS[old], CLASS[new]);
        if from == to {
            return block;
        }
        let (old_head, new_head) = (header_units(old as u8), header_units(new as u8));
        let target = self.slab.alloc(to as usize);
        self.slab.copy(block, old_head, target, new_head, kept);
        let heads = old_head.min(new_head);
        self.slab.copy(block, 0, target, 0, heads);
        self.slab.get_mut(target)[heads..new_head].fill([0; 4]);
        self.slab.free(block);
        target
    }

    /// Adds a page and moves the entries that belong there from its buddy.
    fn split(&mut self) {
        let new = self.pages.len();
        let old = linear::buddy(new + 1);
        let page = self.pages.get(old);
        self.pages.push(Page::default());
        if page.len == 0 {
            return;
        }
        let (len, head) = (page.len as usize, header_units(page.len));
        accesses::add(len);
        let mut leaves = [false; MAX_ENTRIES_PER_PAGE as usize];
        let block = self.slab.get(page.block);
        for (leaves, unit) in leaves.iter_mut().zip(&block[head..head + len]) {
            let key = TorrentKey::new(&InfoHash(info_hash_of(unit)), &self.hasher);
            *leaves = linear::bucket(key.hash, new + 1) == new;
        }
        let leaving = leaves.iter().filter(|leaves| **leaves).count();
        let mut halves = [self.new_page(len - leaving), self.new_page(leaving)];
        for (at, leaves) in leaves.iter().enumerate().take(len) {
            let block = self.slab.get(page.block);
            let (fingerprint, unit) = (fingerprint_at(block, at), block[head + at]);
            let (half, head) = &mut halves[usize::from(*leaves)];
            let block = self.slab.get_mut(half.block);
            set_fingerprint(block, half.len as usize, fingerprint);
            block[*head + half.len as usize] = unit;
            half.len += 1;
        }
        self.slab.free(page.block);
        self.pages.set(old, halves[0].0);
        self.pages.set(new, halves[1].0);
    }

    /// Returns an empty page with a block for exactly `len` entries, and the position of its first entry.
    fn new_page(&mut self, len: usize) -> (Page, usize) {
        if len == 0 {
            return (Page::default(), 0);
        }
        let (block, head) = (self.slab.alloc(CLASS[len] as usize), header_units(len as u8));
        self.slab.get_mut(block)[..head].fill([0; 4]);
        (Page { block, len: 0 }, head)
    }

    /// Moves the block of a page out of its chunk if that is to be emptied.
    pub(crate) fn relocate(&mut self, number: u32) {
        let mut page = self.pages.get(number);
        if page.len > 0 {
            page.block = self.slab.relocate(page.block);
            self.pages.set(number, page);
        }
    }

    pub(crate) fn give_back(&mut self) {
        self.slab.give_back();
    }

    pub(crate) fn plan_drain(&mut self) {
        self.slab.plan_drain();
    }

    /// Loads what [`Self::find`] needs for these torrents into the cache, and passes each payload found to
    /// `found` with the index of its torrent. The loads of each loop are independent of one another, so that
    /// their cache misses overlap.
    pub(crate) fn prefetch(&self, keys: &[TorrentKey], mut found: impl FnMut(usize, u64)) {
        let mut pages = [Page::default(); PREFETCH_BATCH];
        for (page, key) in pages.iter_mut().zip(keys) {
            *page = self.pages.get(linear::bucket(key.hash, self.pages.len()));
        }
        let in_use = pages.iter().take(keys.len()).filter(|page| page.len > 0);
        black_box(in_use.fold(0, |sum, page| sum ^ self.slab.unit(page.block)[0]));
        // The first entry with a matching fingerprint is hardly ever another torrent. If it is, the wrong
        // list is loaded.
        let mut units = [None; PREFETCH_BATCH];
        for ((unit, key), page) in units.iter_mut().zip(keys).zip(&pages) {
            *unit = self.candidate(*key, *page);
        }
        black_box(units.iter().flatten().fold(0, |sum, unit| sum ^ self.slab.unit(*unit)[3]));
        for (at, unit) in units.iter().enumerate() {
            if let Some(unit) = unit {
                found(at, self.slab.unit(*unit)[3]);
            }
        }
    }

    /// Returns the first entry of a page whose fingerprint matches.
    fn candidate(&self, key: TorrentKey, page: Page) -> Option<u32> {
        if page.len == 0 {
            return None;
        }
        let block = self.slab.get(page.block);
        let pattern = pattern(key);
        (0..usize::from(page.len).div_ceil(8)).find_map(|word| {
            let hits = zero_bytes(block[word / 4][word % 4] ^ pattern);
            let at = word * 8 + hits.trailing_zeros() as usize / 8;
            (hits != 0).then(|| page.block + (header_units(page.len) + at) as u32)
        })
    }

    /// Visits every torrent and its payload.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(InfoHash, u64)) {
        for number in 0..self.pages.len() {
            for at in 0..self.page_len(number) {
                let unit = self.slab.unit(self.slot_at(number, at).unit);
                visit(InfoHash(info_hash_of(unit)), unit[3]);
            }
        }
    }

    /// Verifies that every entry is found, and that blocks have the right size.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut len, mut blocks) = (0, 0);
        for number in 0..self.pages.len() {
            let page = self.pages.get(number);
            for at in 0..page.len {
                let slot = Self::slot(number, page, at);
                let info_hash = InfoHash(info_hash_of(self.slab.unit(slot.unit)));
                if self.find(self.key(&info_hash)) != Some(slot) {
                    return Err(format!("{info_hash} is not found in its page {number}"));
                }
            }
            len += u64::from(page.len);
            blocks += u64::from(page.len > 0);
            let size = SIZES[CLASS[page.len as usize] as usize] as usize;
            if page.len > 0 && self.slab.get(page.block).len() != size {
                return Err(format!("page {number} is in a block of the wrong size"));
            }
        }
        if (len, blocks) != (self.len, self.slab.blocks()) {
            return Err(format!(
                "{len} entries in {blocks} blocks, counted as {} in {}",
                self.len,
                self.slab.blocks()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn info_hash(number: u32) -> InfoHash {
        let mut bytes = [0; 20];
        bytes[16..].copy_from_slice(&number.to_be_bytes());
        InfoHash(bytes)
    }

    /// Blocks are reused here by pages that grow and shrink, so that remains of earlier content would show.
    #[test]
    fn matches_a_map_under_random_operations() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0x7ab1e);
        let mut table = Table::new(SipHasher13::new_with_keys(5, 6));
        let mut model = BTreeMap::new();
        for round in 0..60_000_u32 {
            let number = rng.random_range(0..2500);
            let key = table.key(&info_hash(number));
            let found = table.find(key);
            assert_eq!(found.map(|slot| table.payload(slot)), model.get(&number).copied(), "round {round}");
            // Alternates between growth and shrinkage.
            let grow = round / 6000 % 2 == 0;
            match found {
                Some(slot) if !grow || rng.random_range(0..4) == 0 => {
                    table.remove(slot);
                    model.remove(&number);
                }
                None if grow || rng.random_range(0..4) == 0 => {
                    let slot = table.insert(key, round.into()).unwrap();
                    assert_eq!(table.payload(slot), u64::from(round));
                    model.insert(number, u64::from(round));
                }
                Some(_) | None => {}
            }
            if round % 1000 == 0 {
                table.plan_drain();
                (0..table.pages()).for_each(|page| table.relocate(page));
                table.shrink();
                table.check().unwrap();
            }
            assert_eq!(table.len(), model.len() as u64);
        }
    }

    /// A page that grows past 31 entries may get a block that it used before, with fingerprints of removed
    /// entries.
    #[test]
    fn reused_blocks_hold_no_removed_entries() {
        let mut table = Table::new(SipHasher13::new_with_keys(5, 6));
        let mut pages = [const { Vec::new() }; 4];
        for number in 0..1000 {
            let key = table.key(&info_hash(number));
            pages[linear::bucket(key.hash, 4) as usize].push(key);
        }
        let [p, q, r, s] = pages;
        for key in r[..33].iter().chain(&s[..15]).chain(&p[..31]).chain(&q[..31]) {
            table.insert(*key, 1).unwrap();
        }
        assert_eq!(table.pages(), 4);
        let insert = |table: &mut Table, keys: &[TorrentKey]| {
            keys.iter().for_each(|key| assert!(table.insert(*key, 1).is_some()));
        };
        let remove = |table: &mut Table, keys: &[TorrentKey]| {
            keys.iter().rev().for_each(|key| table.remove(table.find(*key).unwrap()));
        };
        // The first page frees a block, the second page uses and frees it, and the first page gets it again.
        insert(&mut table, &p[31..34]);
        insert(&mut table, &q[31..34]);
        insert(&mut table, &p[34..36]);
        insert(&mut table, &q[34..36]);
        remove(&mut table, &p[31..36]);
        remove(&mut table, &q[34..36]);
        insert(&mut table, &p[40..42]);
        for key in &p[31..36] {
            assert_eq!(table.find(*key), None);
        }
        table.check().unwrap();
    }

    #[test]
    fn completed_counts_do_not_change_info_hashes() {
        let mut table = Table::new(SipHasher13::new_with_keys(5, 6));
        let key = table.key(&InfoHash([0xff; 20]));
        let slot = table.insert(key, 7).unwrap();
        table.count_completed(slot);
        table.count_completed(slot);
        assert_eq!((table.completed(slot), table.payload(slot), table.find(key)), (2, 7, Some(slot)));
    }
}
