//! A line to stand in: whoever came first is at its front, and anyone may leave from anywhere.
//!
//! Invariants: joining and leaving take the same time whatever the length. A key names its place for as long as that is
//! taken, and nothing afterwards.

use slab::Slab;

/// No place.
const NOBODY: usize = usize::MAX;

/// Names a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    at: usize,
    number: u64,
}

#[derive(Debug)]
struct Place<T> {
    number: u64,
    before: usize,
    behind: usize,
    who: T,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Line<T> {
    places: Slab<Place<T>>,
    front: usize,
    back: usize,
    /// How many have joined so far.
    joined: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { places: Slab::new(), front: NOBODY, back: NOBODY, joined: 0 }
    }
}

impl<T> Line<T> {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Joins at the back. Returns the key of the place.
    pub(super) fn join(&mut self, who: T) -> Key {
        let number = self.joined;
        self.joined += 1;
        let at = self.places.insert(Place { number, before: self.back, behind: NOBODY, who });
        match self.places.get_mut(self.back) {
            Some(last) => last.behind = at,
            None => self.front = at,
        }
        self.back = at;
        Key { at, number }
    }

    /// Leaves, unless that has happened.
    pub(super) fn leave(&mut self, key: Key) -> Option<T> {
        self.places.get(key.at).filter(|place| place.number == key.number)?;
        self.leave_from(key.at)
    }

    /// Who is at the front.
    pub(super) fn front(&self) -> Option<&T> {
        self.places.get(self.front).map(|place| &place.who)
    }

    /// Who is at the front leaves.
    pub(super) fn leave_front(&mut self) -> Option<T> {
        self.leave_from(self.front)
    }

    fn leave_from(&mut self, at: usize) -> Option<T> {
        let Place { before, behind, who, .. } = self.places.try_remove(at)?;
        match self.places.get_mut(before) {
            Some(place) => place.behind = behind,
            None => self.front = behind,
        }
        match self.places.get_mut(behind) {
            Some(place) => place.before = before,
            None => self.back = before,
        }
        Some(who)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn everyone_keeps_their_order_whoever_leaves() {
        for seed in 0..50 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut line, mut model) = (Line::default(), VecDeque::new());
            let mut left = Vec::new();
            for who in 0..400 {
                match rng.random_range(0..5) {
                    0..=2 => model.push_back((line.join(who), who)),
                    3 if !model.is_empty() => {
                        let at = rng.random_range(0..model.len());
                        let (key, who) = model.remove(at).unwrap();
                        assert_eq!(line.leave(key), Some(who), "seed {seed}");
                        left.push(key);
                    }
                    _ => assert_eq!(line.leave_front(), model.pop_front().map(|(_, who)| who), "seed {seed}"),
                }
                assert!(left.iter().all(|&key| line.leave(key).is_none()), "seed {seed}");
                assert_eq!(line.len(), model.len(), "seed {seed}");
                assert_eq!(line.front(), model.front().map(|(_, who)| who), "seed {seed}");
            }
            while let Some((_, who)) = model.pop_front() {
                assert_eq!(line.leave_front(), Some(who), "seed {seed}");
            }
            assert_eq!((line.len(), line.leave_front(), line.front, line.back), (0, None, NOBODY, NOBODY));
        }
    }
}
