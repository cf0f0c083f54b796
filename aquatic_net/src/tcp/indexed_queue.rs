//! A queue from which elements can be removed wherever they are.
//!
//! Invariants: every operation takes the same time whatever the length. A key names its element for as long
//! as that is in the queue, and nothing afterwards.

use slab::Slab;

/// No slot.
const NIL: usize = usize::MAX;

/// Names an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueKey {
    slot: usize,
    number: u64,
}

#[derive(Debug)]
struct Node<T> {
    number: u64,
    previous: usize,
    next: usize,
    value: T,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct IndexedQueue<T> {
    nodes: Slab<Node<T>>,
    front: usize,
    back: usize,
    /// Number of elements added so far.
    added: u64,
}

impl<T> Default for IndexedQueue<T> {
    fn default() -> Self {
        Self { nodes: Slab::new(), front: NIL, back: NIL, added: 0 }
    }
}

impl<T> IndexedQueue<T> {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds an element at the back and returns its key.
    pub(super) fn push_back(&mut self, value: T) -> QueueKey {
        let number = self.added;
        self.added += 1;
        let slot = self.nodes.insert(Node { number, previous: self.back, next: NIL, value });
        match self.nodes.get_mut(self.back) {
            Some(last) => last.next = slot,
            None => self.front = slot,
        }
        self.back = slot;
        QueueKey { slot, number }
    }

    /// Removes an element, unless that has happened.
    pub(super) fn remove(&mut self, key: QueueKey) -> Option<T> {
        self.nodes.get(key.slot).filter(|node| node.number == key.number)?;
        self.remove_slot(key.slot)
    }

    /// The element at the front.
    pub(super) fn front(&self) -> Option<&T> {
        self.nodes.get(self.front).map(|node| &node.value)
    }

    /// Removes the element at the front.
    pub(super) fn pop_front(&mut self) -> Option<T> {
        self.remove_slot(self.front)
    }

    /// The elements from front to back.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let first = self.nodes.get(self.front);
        std::iter::successors(first, |node| self.nodes.get(node.next)).map(|node| &node.value)
    }

    fn remove_slot(&mut self, slot: usize) -> Option<T> {
        let Node { previous, next, value, .. } = self.nodes.try_remove(slot)?;
        match self.nodes.get_mut(previous) {
            Some(node) => node.next = next,
            None => self.front = next,
        }
        match self.nodes.get_mut(next) {
            Some(node) => node.previous = previous,
            None => self.back = previous,
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn elements_keep_their_order_whichever_are_removed() {
        for seed in 0..50 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut queue, mut model) = (IndexedQueue::default(), VecDeque::new());
            let mut removed = Vec::new();
            for value in 0..400 {
                match rng.random_range(0..5) {
                    0..=2 => model.push_back((queue.push_back(value), value)),
                    3 if !model.is_empty() => {
                        let at = rng.random_range(0..model.len());
                        let (key, value) = model.remove(at).unwrap();
                        assert_eq!(queue.remove(key), Some(value), "seed {seed}");
                        removed.push(key);
                    }
                    _ => assert_eq!(
                        queue.pop_front(),
                        model.pop_front().map(|(_, value)| value),
                        "seed {seed}"
                    ),
                }
                assert!(removed.iter().all(|&key| queue.remove(key).is_none()), "seed {seed}");
                assert_eq!(queue.len(), model.len(), "seed {seed}");
                assert_eq!(queue.front(), model.front().map(|(_, value)| value), "seed {seed}");
                assert!(queue.iter().eq(model.iter().map(|(_, value)| value)), "seed {seed}");
            }
            while let Some((_, value)) = model.pop_front() {
                assert_eq!(queue.pop_front(), Some(value), "seed {seed}");
            }
            assert_eq!((queue.len(), queue.pop_front(), queue.front, queue.back), (0, None, NIL, NIL));
        }
    }
}
