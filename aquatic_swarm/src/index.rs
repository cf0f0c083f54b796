//! Where in a large swarm a peer sits, by the hash of its key: linear hashing over small buckets of 4-byte items, each a
//! position and 8 bits of the hash. 12 items to a bucket on average, so no change moves more than a few dozen.

use crate::chunked::Chunked;
use crate::linear;
use crate::slab::{Slab, class_by_len};
use crate::steps;
use crate::types::MAX_PEERS_PER_TORRENT;

const MEAN: u32 = 12;
const BUCKET_MAX: u8 = 255;
const POSITION_BITS: u32 = 24;

const _: () = assert!(MAX_PEERS_PER_TORRENT < 1 << POSITION_BITS);

/// Items to a block, by class.
pub(crate) const CAPACITIES: [u16; 19] =
    [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 28, 32, 40, 64, 96, 160, 255];
const CLASS: [u8; 256] = class_by_len(&CAPACITIES);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// Meaningless while the bucket is empty.
    block: u32,
    len: u8,
}

/// The index of one swarm. Its buckets live in a slab that all swarms of a family share.
#[derive(Debug)]
pub(crate) struct Index {
    buckets: Chunked<Bucket, 32>,
    len: u32,
}

fn item(hash: u64, position: u32) -> u32 {
    ((hash >> 56) as u32) << POSITION_BITS | position
}

fn position(item: u32) -> u32 {
    item & ((1 << POSITION_BITS) - 1)
}

fn same_fingerprint(item: u32, hash: u64) -> bool {
    u64::from(item >> POSITION_BITS) == hash >> 56
}

impl Bucket {
    /// Any item, to load the memory they all lie in.
    #[inline]
    pub(crate) fn any_item(self, slab: &Slab<u32>) -> u32 {
        if self.len == 0 { 0 } else { *slab.unit(self.block) }
    }
}

impl Index {
    pub(crate) fn new() -> Self {
        let mut buckets = Chunked::new();
        buckets.push(Bucket::default());
        Self { buckets, len: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.buckets.bytes()
    }

    pub(crate) fn buckets(&self) -> u32 {
        self.buckets.len()
    }

    #[inline]
    fn items<'a>(&self, slab: &'a Slab<u32>, number: u32) -> &'a [u32] {
        let bucket = self.buckets.get(number);
        if bucket.len == 0 { &[] } else { &slab.get(bucket.block)[..bucket.len as usize] }
    }

    /// The bucket of a hash, for [`Self::candidate`]; loads it and nothing it refers to.
    #[inline]
    pub(crate) fn bucket(&self, hash: u64) -> Bucket {
        self.buckets.get(linear::bucket(hash, self.buckets.len()))
    }

    /// The first position in a bucket whose fingerprint fits.
    #[inline]
    pub(crate) fn candidate(slab: &Slab<u32>, bucket: Bucket, hash: u64) -> Option<u32> {
        let items = if bucket.len == 0 { &[] } else { &slab.get(bucket.block)[..bucket.len as usize] };
        items.iter().find(|item| same_fingerprint(**item, hash)).map(|item| position(*item))
    }

    /// The position for which `is_it` holds, among those with this hash.
    pub(crate) fn find(&self, slab: &Slab<u32>, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let items = self.items(slab, linear::bucket(hash, self.buckets.len()));
        steps::touch(1 + items.len() / 16);
        let mut likely =
            items.iter().filter(|item| same_fingerprint(**item, hash)).map(|item| position(*item));
        likely.find(|at| {
            steps::touch(1);
            is_it(*at)
        })
    }

    /// Adds a position that is not in the index. `None`, which is out of reach without the hash key, if its bucket is full.
    /// `hash_of` tells the hash of the peer at any other position.
    pub(crate) fn insert(
        &mut self,
        slab: &mut Slab<u32>,
        hash: u64,
        at: u32,
        hash_of: impl Fn(u32) -> u64,
    ) -> Option<()> {
        self.push(slab, linear::bucket(hash, self.buckets.len()), item(hash, at))?;
        self.len += 1;
        if self.len > MEAN * self.buckets.len() {
            self.split(slab, |other| if other == at { hash } else { hash_of(other) });
        }
        Some(())
    }

    /// Removes a position that is in the index.
    pub(crate) fn remove(&mut self, slab: &mut Slab<u32>, hash: u64, at: u32) {
        let number = linear::bucket(hash, self.buckets.len());
        let Some(within) = self.items(slab, number).iter().position(|item| position(*item) == at) else {
            debug_assert!(false, "position {at} is not in the index");
            return;
        };
        let mut bucket = self.buckets.get(number);
        let last = bucket.len as usize - 1;
        steps::touch(1 + last / 16);
        slab.get_mut(bucket.block).swap(within, last);
        if last == 0 {
            slab.free(bucket.block);
        } else if CLASS[last] != CLASS[last + 1] {
            bucket.block = slab.resize(bucket.block, CLASS[last] as usize, last);
        }
        bucket.len -= 1;
        self.buckets.set(number, bucket);
        self.len -= 1;
        self.merge(slab);
    }

    /// Notes that the peer with this hash sits at `to` instead of `from`. No two peers may swap without a position in
    /// between that is free: positions are unique in the index.
    pub(crate) fn moved(&mut self, slab: &mut Slab<u32>, hash: u64, from: u32, to: u32) {
        let bucket = self.buckets.get(linear::bucket(hash, self.buckets.len()));
        if bucket.len == 0 {
            debug_assert!(false, "position {from} is not in the index");
            return;
        }
        let items = &mut slab.get_mut(bucket.block)[..bucket.len as usize];
        steps::touch(1 + items.len() / 16);
        match items.iter_mut().find(|other| **other == item(hash, from)) {
            Some(found) => *found = item(hash, to),
            None => debug_assert!(false, "position {from} is not in the index"),
        }
    }

    /// Frees all blocks.
    pub(crate) fn clear(&mut self, slab: &mut Slab<u32>) {
        for number in 0..self.buckets.len() {
            let bucket = self.buckets.get(number);
            if bucket.len > 0 {
                slab.free(bucket.block);
            }
        }
        *self = Self::new();
    }

    /// Moves the block of a bucket out of a chunk that is to be emptied.
    pub(crate) fn relocate(&mut self, slab: &mut Slab<u32>, number: u32) {
        let mut bucket = self.buckets.get(number);
        if bucket.len > 0 {
            bucket.block = slab.relocate(bucket.block);
            self.buckets.set(number, bucket);
        }
    }

    fn push(&mut self, slab: &mut Slab<u32>, number: u32, item: u32) -> Option<()> {
        let mut bucket = self.buckets.get(number);
        if bucket.len == BUCKET_MAX {
            return None;
        }
        let len = bucket.len as usize;
        if len == 0 {
            bucket.block = slab.alloc(CLASS[1] as usize);
        } else if CLASS[len] != CLASS[len + 1] {
            bucket.block = slab.resize(bucket.block, CLASS[len + 1] as usize, len);
        }
        steps::touch(1 + len / 16);
        slab.get_mut(bucket.block)[len] = item;
        bucket.len += 1;
        self.buckets.set(number, bucket);
        Some(())
    }

    fn split(&mut self, slab: &mut Slab<u32>, hash_of: impl Fn(u32) -> u64) {
        let new = self.buckets.len();
        let old = linear::buddy(new + 1);
        let bucket = self.buckets.get(old);
        self.buckets.push(Bucket::default());
        self.buckets.set(old, Bucket::default());
        steps::touch(bucket.len as usize);
        for within in 0..bucket.len as usize {
            let item = slab.get(bucket.block)[within];
            // Cannot be refused: both buckets together have what one had.
            let _ = self.push(slab, linear::bucket(hash_of(position(item)), new + 1), item);
        }
        if bucket.len > 0 {
            slab.free(bucket.block);
        }
    }

    /// Merges the last bucket into its buddy if there are many more than needed.
    fn merge(&mut self, slab: &mut Slab<u32>) {
        let buckets = self.buckets.len();
        if buckets == 1 || self.len * 4 > MEAN * 3 * buckets {
            return;
        }
        let (last, buddy) = (self.buckets.get(buckets - 1), linear::buddy(buckets));
        if usize::from(last.len) + usize::from(self.buckets.get(buddy).len) > usize::from(BUCKET_MAX) {
            return;
        }
        steps::touch(last.len as usize);
        for within in 0..last.len as usize {
            let item = slab.get(last.block)[within];
            // Cannot be refused: the sum of both was looked at.
            let _ = self.push(slab, buddy, item);
        }
        if last.len > 0 {
            slab.free(last.block);
        }
        self.buckets.pop();
    }

    /// Blocks in use.
    pub(crate) fn blocks(&self) -> u64 {
        (0..self.buckets.len()).filter(|number| self.buckets.get(*number).len > 0).count() as u64
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }
}
