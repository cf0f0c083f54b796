//! Allocator of blocks of a few fixed sizes, identified by 32 bits. A chunk holds blocks of one size at a
//! time and is freed with its last block, or at the next pass if it is the only one of its size with room. As
//! the sizes in use change over time, chunks become sparse: [`Slab::plan_drain`] marks such chunks, and the
//! owners of blocks then move them out with [`Slab::relocate`].

use crate::accesses;

/// The element of a block, made of integer words, so that a new chunk is zeroed memory from the operating
/// system and not resident until it is written.
pub(crate) trait Unit: Copy {
    type Word: Copy + std::fmt::Debug;
    const ZERO: Self::Word;
    const WORDS: usize;
    /// Base-two logarithm of the numbers per chunk by which units are identified; at most 15, so that a
    /// position fits into a link. With it chunks are large enough for the C library to map each by itself, so
    /// that its memory goes back to the system when it is freed.
    const CHUNK_BITS: u32;

    fn of(words: &[Self::Word]) -> &[Self];
    fn of_mut(words: &mut [Self::Word]) -> &mut [Self];

    /// Creates the first unit of a free block, which holds the position of the next free block.
    fn from_link(next: u16) -> Self;
    fn link(self) -> u16;
}

impl Unit for u32 {
    type Word = Self;
    const ZERO: Self = 0;
    const WORDS: usize = 1;
    const CHUNK_BITS: Self = 14;

    #[inline]
    fn of(words: &[Self]) -> &[Self] {
        words
    }

    #[inline]
    fn of_mut(words: &mut [Self]) -> &mut [Self] {
        words
    }

    #[inline]
    fn from_link(next: u16) -> Self {
        Self::from(next)
    }

    #[inline]
    fn link(self) -> u16 {
        (self & 0xffff) as u16
    }
}

impl Unit for u64 {
    type Word = Self;
    const ZERO: Self = 0;
    const WORDS: usize = 1;
    const CHUNK_BITS: u32 = 15;

    #[inline]
    fn of(words: &[Self]) -> &[Self] {
        words
    }

    #[inline]
    fn of_mut(words: &mut [Self]) -> &mut [Self] {
        words
    }

    #[inline]
    fn from_link(next: u16) -> Self {
        Self::from(next)
    }

    #[inline]
    fn link(self) -> u16 {
        (self & 0xffff) as u16
    }
}

impl Unit for [u64; 4] {
    type Word = u64;
    const ZERO: u64 = 0;
    const WORDS: usize = 4;
    const CHUNK_BITS: u32 = 13;

    #[inline]
    fn of(words: &[u64]) -> &[Self] {
        words.as_chunks().0
    }

    #[inline]
    fn of_mut(words: &mut [u64]) -> &mut [Self] {
        words.as_chunks_mut().0
    }

    #[inline]
    fn from_link(next: u16) -> Self {
        [u64::from(next), 0, 0, 0]
    }

    #[inline]
    fn link(self) -> u16 {
        (self[0] & 0xffff) as u16
    }
}

impl Unit for [u8; 20] {
    type Word = u8;
    const ZERO: u8 = 0;
    const WORDS: usize = 20;
    const CHUNK_BITS: u32 = 13;

    #[inline]
    fn of(words: &[u8]) -> &[Self] {
        words.as_chunks().0
    }

    #[inline]
    fn of_mut(words: &mut [u8]) -> &mut [Self] {
        words.as_chunks_mut().0
    }

    #[inline]
    fn from_link(next: u16) -> Self {
        let mut unit = [0; 20];
        unit[..2].copy_from_slice(&next.to_le_bytes());
        unit
    }

    #[inline]
    fn link(self) -> u16 {
        u16::from_le_bytes([self[0], self[1]])
    }
}

/// Size of a cache line in bytes. The units of a chunk begin at a multiple of it.
pub(crate) const CACHE_LINE: usize = 64;
/// Bytes of memory that become resident at once.
const PAGE: usize = 4096;
/// Bytes that the C library adds to memory it maps.
const ALLOCATION_HEADER: usize = 16;

/// Maximum number of empty chunks that one call of [`Slab::give_back`] frees. Returning one to the system
/// takes up to 30 microseconds, and most chunks that are drained become empty at the end of the same pass.
const MAX_FREED: usize = 4;
/// Number of empty chunks above which their memory is used again instead, so that not many wait to be freed
/// while the store grows. Other chunks are new, so that what they do not use is not resident.
const MAX_SPARE: usize = 8;

const NO_BLOCK: u16 = u16::MAX;
const NO_CHUNK: u32 = u32::MAX;

#[derive(Debug)]
struct Chunk<U: Unit> {
    /// Empty if the chunk is not allocated.
    words: Box<[U::Word]>,
    /// Index of the word where the first unit begins.
    start: u8,
    class: u8,
    /// Whether the chunk is in the list of chunks to allocate from.
    listed: bool,
    draining: bool,
    /// Blocks in use.
    used: u16,
    /// First free block among those that have been in use.
    free: u16,
    /// Position of the first block that has not been in use since the chunk was empty.
    fresh: u16,
    /// Units that have been in use since the memory was allocated. What follows them is not resident.
    touched: u16,
    previous: u32,
    next: u32,
}

impl<U: Unit> Chunk<U> {
    #[inline]
    fn units(&self, at: usize, len: usize) -> &[U] {
        let begin = usize::from(self.start) + at * U::WORDS;
        U::of(&self.words[begin..begin + len * U::WORDS])
    }

    #[inline]
    fn units_mut(&mut self, at: usize, len: usize) -> &mut [U] {
        let begin = usize::from(self.start) + at * U::WORDS;
        U::of_mut(&mut self.words[begin..begin + len * U::WORDS])
    }
}

#[derive(Clone, Debug)]
struct Class {
    /// Head of the list of chunks to allocate from.
    available: u32,
    chunks: u32,
    used: u32,
}

/// Allocator of blocks of the given sizes.
#[derive(Debug)]
pub(crate) struct Slab<U: Unit> {
    /// Units per block, by size class.
    sizes: &'static [u16],
    classes: Vec<Class>,
    chunks: Vec<Chunk<U>>,
    vacant: Vec<u32>,
    /// Memory of empty chunks that [`Self::give_back`] frees, each with its units that are resident.
    spare: Vec<(Box<[U::Word]>, u16)>,
    /// Units of all chunks, and of spare memory, that are resident.
    touched: usize,
}

impl<U: Unit> Slab<U> {
    /// Units per chunk: what a power of two of bytes has room for, beside the alignment and the header of the
    /// C library, so that no page is wasted.
    const CHUNK: usize = (1 << U::CHUNK_BITS) - (CACHE_LINE + ALLOCATION_HEADER).div_ceil(size_of::<U>());
    /// Words added to a chunk so that the first unit can be aligned to a cache line.
    const PAD: usize = CACHE_LINE / size_of::<U::Word>();

    pub(crate) fn new(sizes: &'static [u16]) -> Self {
        let class = Class { available: NO_CHUNK, chunks: 0, used: 0 };
        Self {
            sizes,
            classes: vec![class; sizes.len()],
            chunks: Vec::new(),
            vacant: Vec::new(),
            spare: Vec::new(),
            touched: 0,
        }
    }

    /// Allocates a block of a size class, with arbitrary content. The number of chunks is bounded by the
    /// limits of the shard.
    pub(crate) fn alloc(&mut self, class: usize) -> u32 {
        let id = match self.classes[class].available {
            NO_CHUNK => self.add_chunk(class),
            id => id,
        };
        let size = self.sizes[class];
        let chunk = &mut self.chunks[id as usize];
        let at = if chunk.free == NO_BLOCK {
            chunk.fresh += size;
            self.touched += usize::from(chunk.fresh.saturating_sub(chunk.touched));
            chunk.touched = chunk.touched.max(chunk.fresh);
            chunk.fresh - size
        } else {
            let at = chunk.free;
            chunk.free = chunk.units(at as usize, 1)[0].link();
            at
        };
        chunk.used += 1;
        let full = chunk.free == NO_BLOCK && (chunk.fresh + size) as usize > Self::CHUNK;
        self.classes[class].used += 1;
        if full {
            self.unlist(id);
        }
        id << U::CHUNK_BITS | u32::from(at)
    }

    pub(crate) fn free(&mut self, block: u32) {
        let (id, at) = Self::locate(block);
        let chunk = &mut self.chunks[id];
        let link = U::from_link(chunk.free);
        chunk.units_mut(at, 1)[0] = link;
        chunk.free = at as u16;
        chunk.used -= 1;
        let (empty, listed, draining) = (chunk.used == 0, chunk.listed, chunk.draining);
        self.classes[chunk.class as usize].used -= 1;
        if empty {
            self.reclaim(id as u32);
        } else if !listed && !draining {
            self.list(id as u32);
        }
    }

    #[inline]
    pub(crate) fn get(&self, block: u32) -> &[U] {
        let (id, at) = Self::locate(block);
        let chunk = &self.chunks[id];
        chunk.units(at, self.sizes[chunk.class as usize] as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, block: u32) -> &mut [U] {
        let (id, at) = Self::locate(block);
        let chunk = &mut self.chunks[id];
        chunk.units_mut(at, self.sizes[chunk.class as usize] as usize)
    }

    /// Returns one unit, identified by the block plus the position in it.
    #[inline]
    pub(crate) fn unit(&self, name: u32) -> &U {
        let (id, at) = Self::locate(name);
        &self.chunks[id].units(at, 1)[0]
    }

    #[inline]
    pub(crate) fn unit_mut(&mut self, name: u32) -> &mut U {
        let (id, at) = Self::locate(name);
        &mut self.chunks[id].units_mut(at, 1)[0]
    }

    /// Copies `len` units from a position in one block to a position in another.
    pub(crate) fn copy(&mut self, from: u32, from_at: usize, to: u32, to_at: usize, len: usize) {
        let ((from_id, from), (to_id, to)) = (Self::locate(from), Self::locate(to));
        let (from, to) = (from + from_at, to + to_at);
        accesses::add(len);
        if from_id == to_id {
            let all = self.chunks[from_id].units_mut(0, Self::CHUNK);
            all.copy_within(from..from + len, to);
        } else if let Ok([old, new]) = self.chunks.get_disjoint_mut([from_id, to_id]) {
            new.units_mut(to, len).copy_from_slice(old.units(from, len));
        }
    }

    /// Moves the first `len` units to a new block of a size class, which may be the same, and frees the old
    /// block.
    pub(crate) fn resize(&mut self, block: u32, class: usize, len: usize) -> u32 {
        let target = self.alloc(class);
        self.copy(block, 0, target, 0, len);
        self.free(block);
        target
    }

    /// Moves a block out of its chunk if that is to be emptied. Returns the block's new identifier.
    pub(crate) fn relocate(&mut self, block: u32) -> u32 {
        let (id, _) = Self::locate(block);
        let chunk = &self.chunks[id];
        if !chunk.draining {
            return block;
        }
        let class = chunk.class as usize;
        self.resize(block, class, self.sizes[class] as usize)
    }

    /// Frees some memory of empty chunks.
    pub(crate) fn give_back(&mut self) {
        let kept = self.spare.len().saturating_sub(MAX_FREED);
        self.touched -= self.spare.drain(kept..).map(|(_, touched)| usize::from(touched)).sum::<usize>();
        if self.spare.is_empty() {
            self.spare = Vec::new();
        }
    }

    /// Releases empty chunks and selects those to be emptied. Takes time proportional to the number of
    /// chunks.
    pub(crate) fn plan_drain(&mut self) {
        for id in 0..self.chunks.len() {
            let chunk = &self.chunks[id];
            if chunk.words.is_empty() {
                continue;
            }
            if chunk.used == 0 {
                self.release(id as u32);
                continue;
            }
            let drain = self.is_wasteful(chunk);
            if drain && chunk.listed {
                self.unlist(id as u32);
            }
            let relist = chunk_has_room(&self.chunks[id], self.sizes, Self::CHUNK) && !drain;
            self.chunks[id].draining = drain;
            if relist && !self.chunks[id].listed {
                self.list(id as u32);
            }
        }
    }

    /// Returns whether a chunk is to be emptied: of a size that needs fewer chunks than it has, those that
    /// are at most three quarters full; and the last one of a size if at most half of its resident memory is
    /// in use, since memory of a new one is not resident before it is used.
    fn is_wasteful(&self, chunk: &Chunk<U>) -> bool {
        let class = &self.classes[chunk.class as usize];
        let size = u32::from(self.sizes[chunk.class as usize]);
        let blocks = Self::CHUNK as u32 / size;
        let used = u32::from(chunk.used);
        if class.chunks == 1 {
            return used * size * 2 <= u32::from(chunk.touched);
        }
        used * 4 <= blocks * 3 && class.used.div_ceil(blocks) < class.chunks
    }

    /// Returns an upper bound of the memory that is resident, in bytes: what has been in use of each chunk,
    /// and the page where that ends.
    pub(crate) fn bytes(&self) -> usize {
        self.touched * size_of::<U>()
            + (self.chunks.len() - self.vacant.len() + self.spare.len()) * PAGE
            + self.chunks.capacity() * size_of::<Chunk<U>>()
            + self.vacant.capacity() * size_of::<u32>()
    }

    /// Returns the number of blocks in use.
    pub(crate) fn blocks(&self) -> u64 {
        self.classes.iter().map(|class| u64::from(class.used)).sum()
    }

    /// Returns the number of chunks that are allocated.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.chunks.len() - self.vacant.len()
    }

    #[inline]
    fn locate(block: u32) -> (usize, usize) {
        ((block >> U::CHUNK_BITS) as usize, block as usize & ((1 << U::CHUNK_BITS) - 1))
    }

    fn add_chunk(&mut self, class: usize) -> u32 {
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk {
                words: Box::default(),
                start: 0,
                class: 0,
                listed: false,
                draining: false,
                used: 0,
                free: NO_BLOCK,
                fresh: 0,
                touched: 0,
                previous: NO_CHUNK,
                next: NO_CHUNK,
            });
            (self.chunks.len() - 1) as u32
        });
        let reused = if self.spare.len() > MAX_SPARE { self.spare.pop() } else { None };
        let chunk = &mut self.chunks[id as usize];
        (chunk.words, chunk.touched) = reused
            .unwrap_or_else(|| (vec![U::ZERO; Self::CHUNK * U::WORDS + Self::PAD].into_boxed_slice(), 0));
        let start = chunk.words.as_ptr().align_offset(CACHE_LINE);
        chunk.start = if start < Self::PAD { start as u8 } else { 0 };
        chunk.class = class as u8;
        self.classes[class].chunks += 1;
        self.list(id);
        id
    }

    /// Keeps an empty chunk until the next pass if it is the only one that blocks of its size can be
    /// allocated from, so that not every block comes with memory from the system, and frees it otherwise.
    fn reclaim(&mut self, id: u32) {
        let chunk = &mut self.chunks[id as usize];
        chunk.free = NO_BLOCK;
        chunk.fresh = 0;
        let head = self.classes[chunk.class as usize].available;
        let alone = head == NO_CHUNK || (head == id && chunk.next == NO_CHUNK);
        if !alone {
            self.release(id);
            return;
        }
        chunk.draining = false;
        if !chunk.listed {
            self.list(id);
        }
    }

    /// Leaves the memory of an empty chunk to [`Self::give_back`].
    fn release(&mut self, id: u32) {
        if self.chunks[id as usize].listed {
            self.unlist(id);
        }
        let chunk = &mut self.chunks[id as usize];
        self.spare.push((std::mem::take(&mut chunk.words), chunk.touched));
        chunk.draining = false;
        self.classes[chunk.class as usize].chunks -= 1;
        self.vacant.push(id);
    }

    fn list(&mut self, id: u32) {
        let class = self.chunks[id as usize].class as usize;
        let head = self.classes[class].available;
        let chunk = &mut self.chunks[id as usize];
        chunk.listed = true;
        chunk.previous = NO_CHUNK;
        chunk.next = head;
        if head != NO_CHUNK {
            self.chunks[head as usize].previous = id;
        }
        self.classes[class].available = id;
    }

    fn unlist(&mut self, id: u32) {
        let chunk = &mut self.chunks[id as usize];
        chunk.listed = false;
        let (class, previous, next) = (chunk.class as usize, chunk.previous, chunk.next);
        if previous == NO_CHUNK {
            self.classes[class].available = next;
        } else {
            self.chunks[previous as usize].next = next;
        }
        if next != NO_CHUNK {
            self.chunks[next as usize].previous = previous;
        }
    }
}

fn chunk_has_room<U: Unit>(chunk: &Chunk<U>, sizes: &[u16], capacity: usize) -> bool {
    chunk.free != NO_BLOCK || (chunk.fresh + sizes[chunk.class as usize]) as usize <= capacity
}

/// Returns the class of the smallest capacity that holds `len` elements, for each `len` up to 255.
/// `capacities` must ascend.
pub(crate) const fn class_by_len(capacities: &[u16]) -> [u8; 256] {
    let mut classes = [u8::MAX; 256];
    let (mut len, mut class) = (0, 0);
    while len < 256 {
        if class < capacities.len() && len > capacities[class] as usize {
            class += 1;
        }
        if class < capacities.len() {
            classes[len] = class as u8;
        }
        len += 1;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [u16; 3] = [2, 3, 100];

    #[test]
    fn classes_are_the_smallest_that_fit() {
        let classes = class_by_len(&SIZES);
        assert_eq!(classes[..6], [0, 0, 0, 1, 2, 2]);
        assert_eq!((classes[100], classes[101]), (2, u8::MAX));
    }

    #[test]
    fn blocks_do_not_overlap_and_chunks_are_freed() {
        let mut slab = Slab::<u64>::new(&SIZES);
        let blocks: Vec<u32> = (0..100_000)
            .map(|i| {
                let block = slab.alloc(i % 2);
                slab.get_mut(block).fill(i as u64);
                block
            })
            .collect();
        for (i, &block) in blocks.iter().enumerate() {
            assert!(slab.get(block).iter().all(|&unit| unit == i as u64));
            assert_eq!(slab.get(block).len(), 2 + i % 2);
        }
        assert_eq!((slab.blocks(), slab.held()), (100_000, 4 + 5));
        for block in blocks {
            slab.free(block);
        }
        assert_eq!((slab.blocks(), slab.held()), (0, 2));
        slab.plan_drain();
        assert_eq!((slab.held(), slab.spare.len()), (0, 9));
        for left in [5, 1, 0] {
            slab.give_back();
            assert_eq!(slab.spare.len(), left);
        }
        let block = slab.alloc(1);
        slab.get_mut(block).fill(7);
        assert_eq!((slab.get(block), slab.held()), (&[7; 3][..], 1));
    }

    #[test]
    fn memory_counts_as_what_has_been_in_use_of_it() {
        let mut slab = Slab::<u64>::new(&SIZES);
        let blocks: Vec<u32> = (0..30).map(|i| slab.alloc(i % 3)).collect();
        let used = slab.bytes();
        assert!(used < 3 * PAGE + 10 * (2 + 3 + 100) * 8 + 1000, "{used}");
        blocks.into_iter().for_each(|block| slab.free(block));
        slab.plan_drain();
        assert_eq!((slab.held(), slab.spare.len()), (0, 3));
        assert!(slab.bytes().abs_diff(used) < 100, "{} while it waits to be given back", slab.bytes());
        slab.give_back();
        assert!(slab.bytes() < 1000, "{}", slab.bytes());
        // Memory that is used again is what it was.
        let blocks: Vec<u32> = (0..12 * 16_379).map(|_| slab.alloc(0)).collect();
        blocks.into_iter().for_each(|block| slab.free(block));
        slab.plan_drain();
        let spare = slab.bytes();
        slab.alloc(1);
        assert_eq!((slab.spare.len(), slab.bytes() / PAGE), (11, spare / PAGE));
    }

    #[test]
    fn the_last_chunk_of_a_size_is_replaced_when_little_of_it_is_in_use() {
        let mut slab = Slab::<u64>::new(&SIZES);
        let blocks: Vec<u32> = (0..1000).map(|_| slab.alloc(1)).collect();
        for (number, block) in blocks.iter().enumerate() {
            match number % 4 {
                0 => slab.get_mut(*block).fill(number as u64),
                _ => slab.free(*block),
            }
        }
        slab.plan_drain();
        let kept: Vec<u32> = blocks.iter().step_by(4).map(|block| slab.relocate(*block)).collect();
        assert_eq!(slab.held(), 1);
        for (block, value) in kept.iter().zip((0_u64..).step_by(4)) {
            assert_eq!(slab.get(*block), [value; 3]);
            assert!((*block as usize & 0x7fff) < 3 * 250, "are at the beginning of the new chunk");
        }
        slab.plan_drain();
        assert!(kept.iter().all(|block| slab.relocate(*block) == *block));
    }

    #[test]
    fn draining_frees_sparse_chunks() {
        let mut slab = Slab::<u64>::new(&SIZES);
        let blocks: Vec<u32> = (0..10 * 16_379).map(|_| slab.alloc(0)).collect();
        assert_eq!(slab.held(), 10);
        let mut kept = Vec::new();
        for (i, &block) in blocks.iter().enumerate() {
            if i % 4 == 0 {
                slab.get_mut(block).fill(i as u64);
                kept.push((i as u64, block));
            } else {
                slab.free(block);
            }
        }
        assert_eq!(slab.held(), 10);
        slab.plan_drain();
        for (value, block) in &mut kept {
            *block = slab.relocate(*block);
            assert_eq!(slab.get(*block), [*value; 2]);
        }
        assert!(slab.held() <= 4, "{}", slab.held());
        slab.plan_drain();
        for (value, block) in &kept {
            assert_eq!(slab.relocate(*block), *block);
            assert_eq!(slab.get(*block), [*value; 2]);
        }
    }
}
