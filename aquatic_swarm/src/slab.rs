//! Blocks of a few sizes out of large chunks, named by 32 bits. A chunk holds blocks of one size at a time and goes back
//! to the allocator when its last block is freed (one empty chunk per size is kept). Because the sizes in use shift
//! over time, chunks also become sparse; [`Slab::plan_drain`] marks those, and whoever sweeps over the owners of the
//! blocks moves them out with [`Slab::relocate`].

use crate::accesses;

/// What blocks are made of: some words, which are plain integers so that a new chunk is zeroed memory as it comes from
/// the operating system, not resident until it is touched.
pub(crate) trait Unit: Copy {
    type Word: Copy + std::fmt::Debug;
    const ZERO: Self::Word;
    const WORDS: usize;
    /// Base-two logarithm of the units in a chunk; at most 15, so that a position fits into a link.
    const CHUNK_BITS: u32;

    fn of(words: &[Self::Word]) -> &[Self];
    fn of_mut(words: &mut [Self::Word]) -> &mut [Self];

    /// A unit of a free block that says where the next one is.
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

/// Bytes that come from memory together. Chunks begin at a multiple of this.
pub(crate) const CACHE_LINE: usize = 64;

const NO_BLOCK: u16 = u16::MAX;
const NO_CHUNK: u32 = u32::MAX;

#[derive(Debug)]
struct Chunk<U: Unit> {
    /// Empty while the chunk is vacant.
    words: Box<[U::Word]>,
    /// The word where the first unit begins.
    start: u8,
    class: u8,
    /// Whether it is in the list of chunks that blocks are taken from.
    listed: bool,
    draining: bool,
    /// Blocks handed out.
    used: u16,
    /// First free block among those handed out before.
    free: u16,
    /// Where the blocks begin that were never handed out. Untouched memory is not resident.
    fresh: u16,
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
    /// Head of the list of chunks that blocks are taken from.
    available: u32,
    chunks: u32,
    used: u32,
}

/// Blocks of the sizes it was made for.
#[derive(Debug)]
pub(crate) struct Slab<U: Unit> {
    /// Units to a block, by class.
    sizes: &'static [u16],
    classes: Vec<Class>,
    chunks: Vec<Chunk<U>>,
    vacant: Vec<u32>,
}

impl<U: Unit> Slab<U> {
    const CHUNK: usize = 1 << U::CHUNK_BITS;
    /// Words more than needed, so that the first unit can begin at a line.
    const PAD: usize = CACHE_LINE / size_of::<U::Word>();

    pub(crate) fn new(sizes: &'static [u16]) -> Self {
        let class = Class { available: NO_CHUNK, chunks: 0, used: 0 };
        Self { sizes, classes: vec![class; sizes.len()], chunks: Vec::new(), vacant: Vec::new() }
    }

    /// A block of a class, with arbitrary content. The number of chunks is bounded by the limits of the shard.
    pub(crate) fn alloc(&mut self, class: usize) -> u32 {
        let id = match self.classes[class].available {
            NO_CHUNK => self.add_chunk(class),
            id => id,
        };
        let size = self.sizes[class];
        let chunk = &mut self.chunks[id as usize];
        let at = if chunk.free == NO_BLOCK {
            chunk.fresh += size;
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

    /// One unit, by the name of its block plus its position in it.
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

    /// Moves the first `len` units to a new block of a class, which may be the same, and frees the old one.
    pub(crate) fn resize(&mut self, block: u32, class: usize, len: usize) -> u32 {
        let target = self.alloc(class);
        self.copy(block, 0, target, 0, len);
        self.free(block);
        target
    }

    /// Moves a block out of a chunk that is to be emptied. Returns where it is now.
    pub(crate) fn relocate(&mut self, block: u32) -> u32 {
        let (id, _) = Self::locate(block);
        let chunk = &self.chunks[id];
        if !chunk.draining {
            return block;
        }
        let class = chunk.class as usize;
        self.resize(block, class, self.sizes[class] as usize)
    }

    /// Chooses the chunks to be emptied: of each size that could do with two chunks less, those at most three quarters
    /// full. Takes time proportional to the number of chunks.
    pub(crate) fn plan_drain(&mut self) {
        for id in 0..self.chunks.len() {
            let chunk = &self.chunks[id];
            if chunk.words.is_empty() || chunk.used == 0 {
                continue;
            }
            let class = &self.classes[chunk.class as usize];
            let blocks = (Self::CHUNK / self.sizes[chunk.class as usize] as usize) as u32;
            let sparse = u32::from(chunk.used) * 4 <= blocks * 3;
            let drain = sparse && class.used.div_ceil(blocks) + 2 <= class.chunks;
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

    pub(crate) fn bytes(&self) -> usize {
        (self.chunks.len() - self.vacant.len()) * (Self::CHUNK * size_of::<U>() + CACHE_LINE)
            + self.chunks.capacity() * size_of::<Chunk<U>>()
            + self.vacant.capacity() * size_of::<u32>()
    }

    /// Blocks handed out.
    pub(crate) fn blocks(&self) -> u64 {
        self.classes.iter().map(|class| u64::from(class.used)).sum()
    }

    /// Chunks that hold memory.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.chunks.len() - self.vacant.len()
    }

    #[inline]
    fn locate(block: u32) -> (usize, usize) {
        ((block >> U::CHUNK_BITS) as usize, block as usize & (Self::CHUNK - 1))
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
                previous: NO_CHUNK,
                next: NO_CHUNK,
            });
            (self.chunks.len() - 1) as u32
        });
        let chunk = &mut self.chunks[id as usize];
        chunk.words = vec![U::ZERO; Self::CHUNK * U::WORDS + Self::PAD].into_boxed_slice();
        let start = chunk.words.as_ptr().align_offset(CACHE_LINE);
        chunk.start = if start < Self::PAD { start as u8 } else { 0 };
        chunk.class = class as u8;
        self.classes[class].chunks += 1;
        self.list(id);
        id
    }

    /// Keeps an empty chunk if blocks of its size could be taken from no other, and gives it back otherwise.
    fn reclaim(&mut self, id: u32) {
        let chunk = &mut self.chunks[id as usize];
        chunk.free = NO_BLOCK;
        chunk.fresh = 0;
        let class = chunk.class as usize;
        let head = self.classes[class].available;
        let alone = head == NO_CHUNK || (head == id && chunk.next == NO_CHUNK);
        if alone {
            chunk.draining = false;
            if !chunk.listed {
                self.list(id);
            }
            return;
        }
        if chunk.listed {
            self.unlist(id);
        }
        let chunk = &mut self.chunks[id as usize];
        chunk.words = Box::default();
        chunk.draining = false;
        self.classes[class].chunks -= 1;
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

/// The class of the smallest block that holds `len` elements, for each `len` up to 255. `capacities` ascend.
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
    fn classes_are_the_tightest() {
        let classes = class_by_len(&SIZES);
        assert_eq!(classes[..6], [0, 0, 0, 1, 2, 2]);
        assert_eq!((classes[100], classes[101]), (2, u8::MAX));
    }

    #[test]
    fn blocks_do_not_overlap_and_memory_comes_back() {
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
    }

    #[test]
    fn draining_gathers_what_is_left_in_sparse_chunks() {
        let mut slab = Slab::<u64>::new(&SIZES);
        let blocks: Vec<u32> = (0..10 * 16_384).map(|_| slab.alloc(0)).collect();
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
