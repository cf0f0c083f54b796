//! A compact, immutable set of info hashes.

use crate::identity::InfoHash;

/// Average number of info hashes per bucket of the index, at least; at most twice as many.
const BUCKET_LEN: usize = 2;

/// Length up to which a bucket is scanned rather than searched.
const MAX_SCANNED: usize = 16;

/// An immutable set of info hashes for millions of entries: a sorted array, and an index of it by the leading
/// bits.
///
/// Takes 22 bytes per info hash at most (20 for the hash, 2 for the index). A lookup reads one entry of the
/// index and searches one bucket, which is two or three cache misses. Hashes that were chosen to fall into
/// one bucket make it a binary search of the array, so no key is needed against clients that choose what is
/// looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoHashSet {
    info_hashes: Box<[InfoHash]>,
    /// Position of the first info hash of each bucket, and the length of the array at the end.
    starts: Box<[u32]>,
    /// Number of leading bits of an info hash that select its bucket, 0 to 32.
    bits: u32,
}

/// Number of info hashes that two sets do not share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetChange {
    /// Info hashes of the new set that the old one lacks.
    pub added: usize,
    /// Info hashes of the old set that the new one lacks.
    pub removed: usize,
}

impl InfoHashSet {
    /// Maximum number of info hashes in a set (2.2 GB). [`from_unsorted`](Self::from_unsorted) ignores what
    /// exceeds it.
    pub const MAX_LEN: usize = 100_000_000;

    /// Sorts the info hashes in place, removes duplicates, and builds the index. Takes no memory besides the
    /// set itself.
    #[must_use]
    pub fn from_unsorted(mut info_hashes: Vec<InfoHash>) -> Self {
        info_hashes.truncate(Self::MAX_LEN);
        info_hashes.sort_unstable();
        info_hashes.dedup();
        let info_hashes = info_hashes.into_boxed_slice();
        let bits = (info_hashes.len() / BUCKET_LEN).checked_ilog2().unwrap_or(0);
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        for (position, info_hash) in (0..).zip(&info_hashes) {
            let bucket = bucket(info_hash, bits);
            while starts.len() <= bucket {
                starts.push(position);
            }
        }
        let len = u32::try_from(info_hashes.len()).unwrap_or(u32::MAX);
        starts.resize((1 << bits) + 1, len);
        Self { info_hashes, starts: starts.into_boxed_slice(), bits }
    }

    /// Whether the info hash is in the set.
    #[must_use]
    pub fn contains(&self, info_hash: &InfoHash) -> bool {
        let bucket = bucket(info_hash, self.bits);
        let Some(&[start, end]) = self.starts.get(bucket..bucket + 2) else { return false };
        let bucket = self.info_hashes.get(start as usize..end as usize);
        bucket.is_some_and(|bucket| match bucket.len() {
            // Comparing for equality is inlined and has no branch to mispredict within a bucket.
            0..=MAX_SCANNED => bucket.iter().any(|other| other == info_hash),
            _ => bucket.binary_search(info_hash).is_ok(),
        })
    }

    /// Number of info hashes in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.info_hashes.len()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.info_hashes.is_empty()
    }

    /// Memory of the set in bytes, without this value itself.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of_val(&*self.info_hashes) + size_of_val(&*self.starts)
    }

    /// Number of info hashes added and removed relative to an older set; one pass over both.
    #[must_use]
    pub fn change_since(&self, old: &Self) -> SetChange {
        let mut shared = 0;
        let mut old_ones = old.info_hashes.iter().peekable();
        for info_hash in &self.info_hashes {
            while old_ones.next_if(|old| *old < info_hash).is_some() {}
            shared += usize::from(old_ones.next_if_eq(&info_hash).is_some());
        }
        SetChange { added: self.len() - shared, removed: old.len() - shared }
    }
}

impl Default for InfoHashSet {
    fn default() -> Self {
        Self::from_unsorted(Vec::new())
    }
}

impl FromIterator<InfoHash> for InfoHashSet {
    fn from_iter<I: IntoIterator<Item = InfoHash>>(info_hashes: I) -> Self {
        Self::from_unsorted(info_hashes.into_iter().collect())
    }
}

/// Bucket of an info hash: its first `bits` bits as a number.
fn bucket(info_hash: &InfoHash, bits: u32) -> usize {
    let [first, second, third, fourth, ..] = info_hash.0;
    let prefix = u64::from(u32::from_be_bytes([first, second, third, fourth]));
    (prefix >> (32 - bits)) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Pseudo-random info hashes (splitmix64).
    fn info_hashes(seed: u64, count: usize) -> Vec<InfoHash> {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
        };
        let mut one = || {
            let mut bytes = [0; 20];
            bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&next().to_be_bytes()[..part.len()]));
            InfoHash(bytes)
        };
        (0..count).map(|_| one()).collect()
    }

    #[test]
    fn it_contains_what_was_put_in_and_nothing_else_at_every_size() {
        for count in (0..70).chain([1000, 4095, 4096, 4097]) {
            let all = info_hashes(count as u64, count * 2);
            let (inside, outside) = all.split_at(count);
            let set = InfoHashSet::from_unsorted(inside.iter().chain(inside).copied().collect());
            assert_eq!((set.len(), set.is_empty()), (count, count == 0));
            assert!(inside.iter().all(|info_hash| set.contains(info_hash)), "{count}");
            assert!(!outside.iter().any(|info_hash| set.contains(info_hash)), "{count}");
        }
        assert!(!InfoHashSet::default().contains(&InfoHash([0; 20])));
    }

    #[test]
    fn info_hashes_with_a_common_prefix_and_at_the_ends_are_found() {
        for prefix in [0x00, 0x7f, 0xff] {
            let with_last = |last| {
                let mut bytes = [prefix; 20];
                bytes[19] = last;
                InfoHash(bytes)
            };
            let set: InfoHashSet = (0..=255).step_by(2).map(with_last).collect();
            for last in 0..=255 {
                assert_eq!(set.contains(&with_last(last)), last % 2 == 0, "{prefix} {last}");
            }
            assert!(!set.contains(&InfoHash([prefix ^ 0xff; 20])));
        }
    }

    #[test]
    fn it_takes_at_most_22_bytes_per_info_hash() {
        for count in [1000, 1023, 1024, 1025, 5000, 8191, 8192] {
            let set = InfoHashSet::from_unsorted(info_hashes(1, count));
            assert!(set.memory() <= 22 * count + 4, "{count}: {}", set.memory());
        }
    }

    #[test]
    fn changes_are_those_of_a_naive_set() {
        for seed in 0..50 {
            let pool = info_hashes(seed, 40);
            let pick = |bits: u64| -> BTreeSet<InfoHash> {
                (0..40).filter(|at| bits >> at & 1 == 1).map(|at| pool[at]).collect()
            };
            let mask = |at: usize| u64::from_be_bytes(pool[at].0[..8].try_into().unwrap());
            let (old, new) = (pick(mask(0)), pick(mask(1)));
            let expected =
                SetChange { added: new.difference(&old).count(), removed: old.difference(&new).count() };
            let set = |from: &BTreeSet<InfoHash>| from.iter().copied().collect::<InfoHashSet>();
            assert_eq!(set(&new).change_since(&set(&old)), expected, "seed {seed}");
        }
    }
}
