//! Parts of the space of info hashes, which nodes of a cluster may divide among themselves.

use aquatic_common::InfoHash;
use siphasher::sip::SipHasher13;

use crate::types::HashKey;

/// Number of parts.
pub const PARTS: usize = 256;

/// Division of the info hashes into parts of equal size. Clients choose info hashes; without the key they
/// cannot choose those of one part.
#[derive(Clone, Copy, Debug)]
pub struct PartHasher(SipHasher13);

impl PartHasher {
    /// Returns the division that belongs to a key.
    #[must_use]
    pub fn new(key: &HashKey) -> Self {
        Self(SipHasher13::new_with_key(&key.0))
    }

    /// Returns the part of a torrent.
    #[inline]
    #[must_use]
    pub fn part(&self, info_hash: &InfoHash) -> u8 {
        let [part, ..] = self.0.hash(&info_hash.0).to_be_bytes();
        part
    }
}

/// A set of parts.
#[derive(Clone, Copy, Debug)]
pub struct PartSet {
    hasher: PartHasher,
    bits: [u64; PARTS / 64],
}

impl PartSet {
    /// Returns the empty set.
    #[must_use]
    pub fn new(hasher: PartHasher) -> Self {
        Self { hasher, bits: [0; PARTS / 64] }
    }

    /// Returns the set of the bits that are set, the lowest of the first byte being part 0.
    #[must_use]
    pub fn from_bitmap(hasher: PartHasher, bitmap: &[u8; PARTS / 8]) -> Self {
        let mut set = Self::new(hasher);
        for (word, bytes) in set.bits.iter_mut().zip(bitmap.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        set
    }

    /// Returns the set as bits, see [`Self::from_bitmap`].
    #[must_use]
    pub fn bitmap(&self) -> [u8; PARTS / 8] {
        let mut bitmap = [0; PARTS / 8];
        for (bytes, word) in bitmap.as_chunks_mut::<8>().0.iter_mut().zip(self.bits) {
            *bytes = word.to_le_bytes();
        }
        bitmap
    }

    /// Adds a part.
    pub fn add(&mut self, part: u8) {
        self.bits[usize::from(part >> 6)] |= 1 << (part & 63);
    }

    /// Removes a part.
    pub fn remove(&mut self, part: u8) {
        self.bits[usize::from(part >> 6)] &= !(1 << (part & 63));
    }

    /// Whether a part is in the set.
    #[inline]
    #[must_use]
    pub fn has(&self, part: u8) -> bool {
        self.bits[usize::from(part >> 6)] >> (part & 63) & 1 == 1
    }

    /// Whether the part of a torrent is in the set.
    #[inline]
    #[must_use]
    pub fn contains(&self, info_hash: &InfoHash) -> bool {
        self.has(self.hasher.part(info_hash))
    }

    /// Number of parts in the set.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.bits.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for PartSet {
    fn eq(&self, other: &Self) -> bool {
        self.bits == other.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_of_equal_size_and_depend_on_the_key() {
        let hashers = [1, 2].map(|key| PartHasher::new(&HashKey([key; 16])));
        let mut sizes = [[0_u32; PARTS]; 2];
        let mut differ = 0;
        for number in 0..51_200_u32 {
            let mut bytes = [7; 20];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            let parts = hashers.map(|hasher| hasher.part(&InfoHash(bytes)));
            parts.iter().zip(&mut sizes).for_each(|(part, sizes)| sizes[usize::from(*part)] += 1);
            differ += u32::from(parts[0] != parts[1]);
        }
        assert!(sizes.iter().flatten().all(|size| (120..290).contains(size)), "{sizes:?}");
        assert!(differ > 50_000);
    }

    #[test]
    fn sets_hold_what_was_added_and_round_trip() {
        let hasher = PartHasher::new(&HashKey([1; 16]));
        let mut set = PartSet::new(hasher);
        assert!(set.is_empty());
        for part in [0, 1, 63, 64, 200, 255, 255] {
            set.add(part);
        }
        set.remove(1);
        let held: Vec<u8> = (0..=255).filter(|part| set.has(*part)).collect();
        assert_eq!((held.as_slice(), set.len()), (&[0, 63, 64, 200, 255][..], 5));
        let bitmap = set.bitmap();
        assert_eq!((bitmap[0], bitmap[7], bitmap[8], bitmap[31]), (1, 0x80, 1, 0x80));
        assert!(PartSet::from_bitmap(hasher, &bitmap) == set);
        let info_hash = InfoHash([9; 20]);
        let mut own = PartSet::new(hasher);
        own.add(hasher.part(&info_hash));
        assert!(own.contains(&info_hash));
        own.remove(hasher.part(&info_hash));
        assert!(!own.contains(&info_hash));
    }
}
