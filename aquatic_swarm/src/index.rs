//! Index of a large swarm, from the hash of a peer's key to its location: linear hashing over buckets of one
//! cache line. A bucket holds 4-byte items, each a location and 8 bits of the hash (the fingerprint). Full
//! buckets continue in overflow lines.

use std::iter;

use crate::accesses;
use crate::linear;
use crate::segmented::SegmentedVec;
use crate::slab::CACHE_LINE;
use crate::types::MAX_PEERS_PER_TORRENT;

/// Mean number of items per bucket. Buckets that are still to be split have up to twice as many.
const MEAN_ITEMS: u32 = 8;
/// Mean share of an item in the size of its bucket, in bytes.
pub(crate) const BYTES_PER_ITEM: usize = CACHE_LINE / MEAN_ITEMS as usize;
/// Items per line.
const ITEMS_PER_LINE: usize = CACHE_LINE / size_of::<u32>() - 1;
/// Maximum number of lines per bucket. Cannot be reached without knowing the hash key.
const MAX_LINES_PER_BUCKET: usize = 17;
const LOCATION_BITS: u32 = 24;

const _: () = assert!(MAX_PEERS_PER_TORRENT < 1 << LOCATION_BITS);

/// Part of a bucket. All lines of a bucket but the last are full.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line {
    items: [u32; ITEMS_PER_LINE],
    /// The number of items, in the lowest 8 bits. The bits above are 0, or 1 plus the number of the next
    /// line: that of the bucket, or the next free one if this line is a free overflow line.
    state: u32,
}

const _: () = assert!(size_of::<Line>() == CACHE_LINE);

impl Line {
    const EMPTY: Self = Self { items: [0; ITEMS_PER_LINE], state: 0 };

    #[inline]
    fn items(&self) -> &[u32] {
        &self.items[..(self.state & 0xff) as usize]
    }

    fn is_full(&self) -> bool {
        self.items().len() == ITEMS_PER_LINE
    }

    fn push(&mut self, item: u32) {
        self.items[(self.state & 0xff) as usize] = item;
        self.state += 1;
    }

    fn pop(&mut self) -> Option<u32> {
        let last = self.items().last().copied();
        self.state -= u32::from(last.is_some());
        last
    }

    #[inline]
    fn next(&self) -> Option<u32> {
        (self.state >> 8).checked_sub(1)
    }

    fn set_next(&mut self, next: Option<u32>) {
        self.state = self.state & 0xff | next.map_or(0, |next| next + 1) << 8;
    }
}

/// The lines that full buckets continue in.
#[derive(Debug)]
struct Overflow {
    lines: SegmentedVec<Line, SEGMENT_LEN>,
    free: Option<u32>,
    used: u32,
}

/// Lines per segment.
const SEGMENT_LEN: usize = 256;

impl Overflow {
    fn acquire(&mut self) -> u32 {
        self.used += 1;
        match self.free {
            Some(number) => {
                self.free = self.lines.at(number).next();
                self.lines.set(number, Line::EMPTY);
                number
            }
            None => {
                self.lines.push(Line::EMPTY);
                self.lines.len() - 1
            }
        }
    }

    fn release(&mut self, number: u32) {
        self.used -= 1;
        self.lines.at_mut(number).set_next(self.free);
        self.free = Some(number);
    }
}

/// Reference to a line.
#[derive(Clone, Copy)]
enum LineRef {
    Primary(u32),
    Overflow(u32),
}

/// Index of one swarm.
#[derive(Debug)]
pub(crate) struct Index {
    buckets: SegmentedVec<Line, SEGMENT_LEN>,
    len: u32,
    /// `None` as long as no bucket needs more than one line.
    overflow: Option<Box<Overflow>>,
}

fn item(hash: u64, location: u32) -> u32 {
    ((hash >> 56) as u32) << LOCATION_BITS | location
}

fn location_of(item: u32) -> u32 {
    item & ((1 << LOCATION_BITS) - 1)
}

fn same_fingerprint(item: u32, hash: u64) -> bool {
    u64::from(item >> LOCATION_BITS) == hash >> 56
}

impl Index {
    pub(crate) fn new() -> Self {
        let mut buckets = SegmentedVec::new();
        buckets.push(Line::EMPTY);
        Self { buckets, len: 0, overflow: None }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let overflow =
            self.overflow.as_ref().map_or(0, |overflow| size_of::<Overflow>() + overflow.lines.bytes());
        self.buckets.bytes() + overflow
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    fn home(&self, hash: u64) -> u32 {
        linear::bucket(hash, self.buckets.len())
    }

    #[inline]
    fn line(&self, line: LineRef) -> &Line {
        match (line, &self.overflow) {
            (LineRef::Primary(number), _) => self.buckets.at(number),
            (LineRef::Overflow(number), Some(overflow)) => overflow.lines.at(number),
            (LineRef::Overflow(_), None) => &Line::EMPTY,
        }
    }

    fn line_mut(&mut self, line: LineRef) -> &mut Line {
        match line {
            LineRef::Primary(number) => self.buckets.at_mut(number),
            LineRef::Overflow(number) => self.overflow().lines.at_mut(number),
        }
    }

    fn overflow(&mut self) -> &mut Overflow {
        self.overflow
            .get_or_insert_with(|| Box::new(Overflow { lines: SegmentedVec::new(), free: None, used: 0 }))
    }

    /// Returns the lines of a bucket.
    #[inline]
    fn lines_of(&self, bucket: u32) -> impl Iterator<Item = LineRef> {
        let next = |line: &LineRef| self.line(*line).next().map(LineRef::Overflow);
        iter::successors(Some(LineRef::Primary(bucket)), next)
    }

    /// Returns the first location in the bucket's primary line whose fingerprint matches, most likely that of
    /// the peer. Reads no other line.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Option<u32> {
        let items = self.buckets.at(self.home(hash)).items();
        items.iter().find(|item| same_fingerprint(**item, hash)).map(|item| location_of(*item))
    }

    /// Loads the primary line of a hash into the cache.
    #[inline]
    pub(crate) fn load(&self, hash: u64) -> u32 {
        self.buckets.at(self.home(hash)).state
    }

    /// Returns the location for which `matches` holds, among those whose fingerprint matches.
    #[inline]
    pub(crate) fn find(&self, hash: u64, matches: impl Fn(u32) -> bool) -> Option<u32> {
        self.lines_of(self.home(hash)).find_map(|line| {
            accesses::add(1);
            let likely = self.line(line).items().iter().filter(|item| same_fingerprint(**item, hash));
            likely.map(|item| location_of(*item)).find(|at| {
                accesses::add(1);
                matches(*at)
            })
        })
    }

    /// Adds a location that is not in the index. `None` if its bucket is full, which cannot be reached
    /// without knowing the hash key. `peer_at` returns the peer at a location, including this one, and
    /// `hash_of` the hash of a peer.
    pub(crate) fn insert<P: Copy>(
        &mut self,
        hash: u64,
        at: u32,
        peer_at: impl Fn(u32) -> P,
        hash_of: impl Fn(P) -> u64,
    ) -> Option<()> {
        self.push(self.home(hash), item(hash, at))?;
        self.len += 1;
        if self.len > MEAN_ITEMS * self.buckets.len() {
            self.split(peer_at, hash_of);
        }
        Some(())
    }

    /// Removes a location that is in the index.
    pub(crate) fn remove(&mut self, hash: u64, at: u32) {
        let (bucket, item) = (self.home(hash), item(hash, at));
        let Some((line, within)) = self.locate(bucket, item) else {
            debug_assert!(false, "location {at} is not in the index");
            return;
        };
        if let Some(last) = self.pop(bucket)
            && last != item
        {
            self.line_mut(line).items[within] = last;
        }
        self.len -= 1;
        self.merge();
    }

    /// Changes the location of the peer with this hash. To swap two peers a third, unused location is needed,
    /// because locations are unique in the index.
    pub(crate) fn set_location(&mut self, hash: u64, from: u32, to: u32) {
        match self.locate(self.home(hash), item(hash, from)) {
            Some((line, within)) => self.line_mut(line).items[within] = item(hash, to),
            None => debug_assert!(false, "location {from} is not in the index"),
        }
    }

    fn locate(&self, bucket: u32, target: u32) -> Option<(LineRef, usize)> {
        self.lines_of(bucket).find_map(|line| {
            accesses::add(1);
            let within = self.line(line).items().iter().position(|item| *item == target)?;
            Some((line, within))
        })
    }

    fn push(&mut self, bucket: u32, item: u32) -> Option<()> {
        let (last, lines) = self.last(bucket);
        if !self.line(last).is_full() {
            self.line_mut(last).push(item);
            return Some(());
        }
        if lines == MAX_LINES_PER_BUCKET {
            return None;
        }
        let overflow = self.overflow();
        let number = overflow.acquire();
        overflow.lines.at_mut(number).push(item);
        self.line_mut(last).set_next(Some(number));
        Some(())
    }

    /// Removes the last item of a bucket, and its line if that is an overflow line and now empty.
    fn pop(&mut self, bucket: u32) -> Option<u32> {
        let (last, lines) = self.last(bucket);
        let item = self.line_mut(last).pop();
        if let LineRef::Overflow(number) = last
            && self.line(last).items().is_empty()
        {
            let before = self.lines_of(bucket).nth(lines - 2);
            if let Some(before) = before {
                self.line_mut(before).set_next(None);
            }
            if let Some(overflow) = &mut self.overflow {
                overflow.release(number);
                if overflow.used == 0 {
                    self.overflow = None;
                }
            }
        }
        item
    }

    /// Returns the last line of a bucket, and the number of its lines.
    fn last(&self, bucket: u32) -> (LineRef, usize) {
        let mut lines = 0;
        let mut last = LineRef::Primary(bucket);
        for line in self.lines_of(bucket) {
            accesses::add(1);
            (last, lines) = (line, lines + 1);
        }
        (last, lines)
    }

    /// Moves all items of a bucket into an array and returns their number.
    fn drain(&mut self, bucket: u32, items: &mut [u32; ITEMS_PER_LINE * MAX_LINES_PER_BUCKET]) -> usize {
        let mut count = 0;
        while let Some(item) = self.pop(bucket) {
            items[count] = item;
            count += 1;
        }
        count
    }

    fn split<P: Copy>(&mut self, peer_at: impl Fn(u32) -> P, hash_of: impl Fn(P) -> u64) {
        let new = self.buckets.len();
        let mut items = [0; ITEMS_PER_LINE * MAX_LINES_PER_BUCKET];
        let count = self.drain(linear::buddy(new + 1), &mut items);
        self.buckets.push(Line::EMPTY);
        for items in items[..count].chunks(ITEMS_PER_LINE) {
            // All peers are loaded before the first is hashed, so that their cache misses overlap.
            let mut peers = [None; ITEMS_PER_LINE];
            for (peer, item) in peers.iter_mut().zip(items) {
                *peer = Some(peer_at(location_of(*item)));
            }
            for (peer, item) in peers.into_iter().flatten().zip(items) {
                // Cannot fail: both buckets together have the items of one.
                let _ = self.push(linear::bucket(hash_of(peer), new + 1), *item);
            }
        }
    }

    /// Merges the last bucket into its buddy if there are many more buckets than needed.
    fn merge(&mut self) {
        let buckets = self.buckets.len();
        if buckets == 1 || self.len * 4 > MEAN_ITEMS * 3 * buckets {
            return;
        }
        let buddy = linear::buddy(buckets);
        if self.last(buckets - 1).1 + self.last(buddy).1 > MAX_LINES_PER_BUCKET {
            return;
        }
        let mut items = [0; ITEMS_PER_LINE * MAX_LINES_PER_BUCKET];
        let count = self.drain(buckets - 1, &mut items);
        self.buckets.pop();
        for item in &items[..count] {
            // Cannot fail: the number of lines of both was checked above.
            let _ = self.push(buddy, *item);
        }
    }

    /// Verifies that no overflow line is lost or shared.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut items, mut overflow) = (0, 0);
        for bucket in 0..self.buckets.len() {
            let (_, lines) = self.last(bucket);
            overflow += lines as u32 - 1;
            let full = |line: &LineRef| self.line(*line).is_full();
            if !self.lines_of(bucket).take(lines - 1).all(|line| full(&line)) {
                return Err(format!("bucket {bucket} has a line before its last that is not full"));
            }
            items += self.lines_of(bucket).map(|line| self.line(line).items().len() as u32).sum::<u32>();
        }
        let used = self.overflow.as_ref().map_or(0, |overflow| overflow.used);
        if (items, overflow) != (self.len, used) {
            return Err(format!(
                "{items} items counted as {}, {overflow} overflow lines as {used}",
                self.len
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;

    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Compares with a plain map. The hashes leave most buckets empty and fill some of them with several
    /// lines.
    #[test]
    fn matches_a_map_under_random_operations() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0x1d3);
        let mut index = Index::new();
        let mut known = BTreeMap::new();
        let mut overflow_lines = 0;
        for round in 0..60_000_u32 {
            let growing = round / 10_000 % 2 == 0;
            let at = rng.random_range(0..6000);
            let hash_of = |at: u32| (u64::from(at % 97) * 0x0100_0000_0000_0b01) ^ (u64::from(at) << 40);
            let hash = hash_of(at);
            match known.entry(at) {
                Entry::Occupied(entry) if !growing || rng.random_range(0..4) == 0 => {
                    index.remove(hash, at);
                    entry.remove();
                }
                Entry::Occupied(_) => {
                    let to = 10_000 + at;
                    index.set_location(hash, at, to);
                    assert_eq!(index.find(hash, |found| found == to), Some(to));
                    index.set_location(hash, to, at);
                }
                Entry::Vacant(entry) => {
                    if growing && index.insert(hash, at, |at| at, hash_of).is_some() {
                        entry.insert(hash);
                    }
                }
            }
            assert_eq!(index.find(hash_of(at), |found| found == at), known.contains_key(&at).then_some(at));
            overflow_lines = overflow_lines.max(index.overflow.as_ref().map_or(0, |overflow| overflow.used));
            if round % 500 == 0 {
                index.check().unwrap();
                assert!(known.iter().all(|(at, hash)| index.find(*hash, |found| found == *at).is_some()));
            }
        }
        assert!(overflow_lines > 20, "{overflow_lines}");
        for (at, hash) in known {
            index.remove(hash, at);
        }
        index.check().unwrap();
        assert_eq!((index.len(), index.buckets.len(), index.overflow.is_none()), (0, 1, true));
    }

    #[test]
    fn full_buckets_reject_items_without_a_change() {
        let mut index = Index::new();
        let mut added = 0;
        while index.insert(0, added, |at| at, |_| 0).is_some() {
            added += 1;
        }
        assert_eq!(added as usize, ITEMS_PER_LINE * MAX_LINES_PER_BUCKET);
        index.check().unwrap();
        assert!((0..added).all(|at| index.find(0, |found| found == at).is_some()));
        assert_eq!(index.insert(1, added, |at| at, |_| 0), Some(()));
    }
}
