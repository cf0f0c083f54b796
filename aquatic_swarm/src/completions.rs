//! Completed downloads of peers that have left, so that a peer that comes back is not counted again.
//!
//! The bit that says so is part of a peer, and goes with it. What remains is a fingerprint in a table of a
//! fixed size, for one to two times the maximum age of peers. Beyond the size of the table the oldest
//! fingerprints are overwritten, so this is best effort: a client that has other clients overwrite its
//! fingerprint is counted again, and so is one that comes back with another port.
//!
//! Only a counted peer that leaves, and a peer that completes, are looked at.

use std::hash::Hasher;
use std::net::IpAddr;

use crate::family::Store;
use crate::peer_format::PeerFormat;
use crate::table::Slot;
use crate::tick::Stamp;

/// Number of fingerprints per set.
const WAYS: usize = 4;
/// Number of sets. The table takes 256 KiB, once the first counted peer has left.
const SETS: usize = 1 << 14;
/// Bits of an entry that are the generation in which it was noted.
const GENERATION_BITS: u32 = 8;
/// Generation of a new table. Entries that were never written are of generation 0, which is not remembered
/// any more.
const FIRST_GENERATION: u8 = 2;

const _: () = assert!(SETS * WAYS * size_of::<u32>() == 256 << 10);

/// Fingerprints of peers that were counted as completed downloads and have left.
#[derive(Debug)]
pub struct Completions {
    /// Sets of entries, the latest first: 24 bits of a fingerprint and the generation. Empty until the first.
    sets: Box<[[u32; WAYS]]>,
    generation: u8,
    /// Time at which the generation began, in seconds.
    since: u32,
}

impl Default for Completions {
    fn default() -> Self {
        Self { sets: Box::default(), generation: FIRST_GENERATION, since: 0 }
    }
}

impl Completions {
    /// Notes that a counted peer left. The fingerprint is a keyed hash of the torrent and the peer.
    #[cold]
    pub fn note(&mut self, fingerprint: u64) {
        if self.sets.is_empty() {
            self.sets = vec![[0; WAYS]; SETS].into_boxed_slice();
        }
        let (set, tag) = split(fingerprint);
        let set = &mut self.sets[set];
        let known = set.iter().position(|entry| entry >> GENERATION_BITS == tag);
        // Those before the replaced one move back, so that the order stays.
        set[..=known.unwrap_or(WAYS - 1)].rotate_right(1);
        set[0] = tag << GENERATION_BITS | u32::from(self.generation);
    }

    /// Returns whether the peer was counted before it left.
    #[cold]
    #[must_use]
    pub fn contains(&self, fingerprint: u64) -> bool {
        let (set, tag) = split(fingerprint);
        self.sets.get(set).is_some_and(|set| {
            set.iter().any(|&entry| {
                let [.., generation] = entry.to_be_bytes();
                entry >> GENERATION_BITS == tag && self.generation - generation <= 1
            })
        })
    }

    /// Lets what is older than twice the maximum age be forgotten. To be called now and then, with the time
    /// in seconds.
    #[inline]
    pub fn expire(&mut self, now: u32, max_age: u32) {
        let age = now.saturating_sub(self.since);
        if age >= max_age {
            let generations = if age / 2 >= max_age { 2 } else { 1 };
            if self.generation.checked_add(generations).is_none() {
                self.renumber();
            }
            (self.generation, self.since) = (self.generation + generations, now);
        }
    }

    /// Begins with the first generation again, so that none of those before is taken for one to come.
    fn renumber(&mut self) {
        for entry in self.sets.iter_mut().flatten() {
            let [.., generation] = entry.to_be_bytes();
            let renumbered = match self.generation - generation {
                age @ 0..=1 => FIRST_GENERATION - age,
                _ => 0,
            };
            *entry = *entry >> GENERATION_BITS << GENERATION_BITS | u32::from(renumbered);
        }
        self.generation = FIRST_GENERATION;
    }

    /// Returns the memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sets)
    }
}

/// Returns the set of a fingerprint, and the bits by which it is told apart within it, which are not 0.
fn split(fingerprint: u64) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = fingerprint.to_be_bytes();
    (
        u32::from_be_bytes([a, b, c, d]) as usize % SETS,
        u32::from_be_bytes([e, f, g, h]) >> GENERATION_BITS | 1,
    )
}

impl<K: PeerFormat> Store<K> {
    /// Counts the completed download of a peer, unless one was counted before it left. Returns its previous
    /// stamp with what is remembered of it.
    #[cold]
    pub(crate) fn complete(&mut self, slot: Slot, at: u32, previous: Stamp) -> Stamp {
        let peer = self.peer_at(slot, at);
        if peer.is_some_and(|peer| self.completions.contains(self.fingerprint(slot, peer))) {
            return previous.with_completion_counted(true);
        }
        self.table.count_completed(slot);
        self.completed += 1;
        previous
    }

    /// Remembers the completed download of a peer that leaves, if it was counted.
    #[inline]
    pub(crate) fn remember_completion(&mut self, slot: Slot, at: u32) {
        if let Some(peer) = self.peer_at(slot, at)
            && K::stamp(peer).completion_counted()
        {
            self.completions.note(self.fingerprint(slot, peer));
        }
    }

    fn fingerprint(&self, slot: Slot, peer: K::Peer) -> u64 {
        let (mut hasher, address) = (self.large.hasher.sip, K::address(peer));
        hasher.write(&self.table.info_hash(slot).0);
        match address.ip() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write_u16(address.port());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn completions_are_remembered_for_one_to_two_maximum_ages() {
        const PEER: u64 = 7 << 50 | 9 << 20;
        for start in [0, 100, 1 << 30] {
            let mut completions = Completions::default();
            completions.expire(start, 60);
            assert_eq!((completions.bytes(), completions.contains(PEER)), (0, false));
            completions.note(PEER);
            let others = [PEER + 512, PEER | 1 << 40];
            assert!(completions.contains(PEER) && !others.iter().any(|&of| completions.contains(of)));
            completions.expire(start + 59, 60);
            assert!(completions.contains(PEER));
            completions.expire(start + 119, 60);
            assert!(completions.contains(PEER), "it may have been noted just before");
            completions.expire(start + 300, 60);
            assert!(!completions.contains(PEER));
        }
    }

    #[test]
    fn what_was_forgotten_is_not_remembered_again() {
        const PEER: u64 = 7 << 50 | 9 << 20;
        let mut completions = Completions::default();
        completions.note(PEER);
        for generation in 1..2000 {
            completions.expire(generation * 60, 60);
            assert_eq!(completions.contains(PEER), generation == 1 || generation % 700 == 0, "{generation}");
            if generation % 700 == 699 {
                completions.note(PEER + (1 << 40));
                completions.note(PEER);
            }
            if generation % 700 == 0 {
                assert!(completions.contains(PEER + (1 << 40)));
            }
        }
    }

    #[test]
    fn nothing_is_remembered_that_was_never_noted() {
        let mut completions = Completions::default();
        completions.note(1 << 40);
        for generation in 0..1000 {
            completions.expire(generation * 60, 60);
            assert!(!completions.contains(0) && !completions.contains(1 << 32));
        }
    }

    #[test]
    fn the_oldest_are_overwritten_and_known_ones_take_no_room() {
        let mut completions = Completions::default();
        // All of one set.
        let fingerprint = |number: u64| number << 9;
        for number in 1..=4 {
            completions.note(fingerprint(number));
        }
        (0..10).for_each(|_| completions.note(fingerprint(1)));
        assert!((1..=4).all(|number| completions.contains(fingerprint(number))));
        completions.note(fingerprint(5));
        let known: Vec<_> = (1..=5).filter(|&number| completions.contains(fingerprint(number))).collect();
        assert_eq!(known, [1, 3, 4, 5]);
    }

    #[test]
    fn tens_of_thousands_are_remembered_in_a_fixed_size() {
        let (mut rng, mut completions) = (SmallRng::seed_from_u64(1), Completions::default());
        let noted: Vec<u64> = (0..30_000).map(|_| rng.random()).collect();
        noted.iter().for_each(|&fingerprint| completions.note(fingerprint));
        let lost = noted.iter().filter(|&&fingerprint| !completions.contains(fingerprint)).count();
        assert!(lost < 1500, "{lost} of 30,000");
        let mistaken = (0..100_000).filter(|_| completions.contains(rng.random())).count();
        assert!(mistaken < 20, "{mistaken} of 100,000");
        assert_eq!(completions.bytes(), 256 << 10);
    }
}
