//! Queues: of indices without duplicates, and of entries that become due after a fixed delay.

use std::collections::VecDeque;

use crate::clock::Nanos;

/// First-in, first-out queue of indices below a bound, each queued at most once.
#[derive(Clone, Debug)]
pub struct IndexedQueue {
    order: VecDeque<u32>,
    queued: Vec<bool>,
}

impl IndexedQueue {
    /// An empty queue for indices below `bound`.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self { order: VecDeque::new(), queued: vec![false; bound] }
    }

    /// Appends an index unless it is queued.
    pub fn push_back(&mut self, index: u32) {
        if !std::mem::replace(&mut self.queued[index as usize], true) {
            self.order.push_back(index);
        }
    }

    /// Removes and returns the first index.
    pub fn pop_front(&mut self) -> Option<u32> {
        let index = self.order.pop_front()?;
        self.queued[index as usize] = false;
        Some(index)
    }

    /// Returns the first index.
    #[must_use]
    pub fn front(&self) -> Option<u32> {
        self.order.front().copied()
    }

    /// Number of queued indices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether the queue is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Iterates over the queued indices, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.order.iter().copied()
    }
}

/// Queue of entries that become due a fixed time after they were pushed.
#[derive(Clone, Debug)]
pub struct DelayQueue<T> {
    delay: Nanos,
    entries: VecDeque<(Nanos, T)>,
}

impl<T> DelayQueue<T> {
    /// An empty queue with this delay.
    #[must_use]
    pub fn new(delay: Nanos) -> Self {
        Self { delay, entries: VecDeque::new() }
    }

    /// Appends an entry, which becomes due `delay` after `now`.
    pub fn push(&mut self, entry: T, now: Nanos) {
        self.entries.push_back((now + self.delay, entry));
    }

    /// Removes and returns the first entry if it is due.
    pub fn pop_due(&mut self, now: Nanos) -> Option<T> {
        if self.entries.front()?.0 > now {
            return None;
        }
        self.entries.pop_front().map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_queued_once() {
        let mut queue = IndexedQueue::new(4);
        [3, 1, 3].into_iter().for_each(|index| queue.push_back(index));
        assert_eq!((queue.front(), queue.len(), queue.iter().collect()), (Some(3), 2, vec![3, 1]));
        assert_eq!(queue.pop_front(), Some(3));
        queue.push_back(3);
        assert_eq!([0; 3].map(|_| queue.pop_front()), [Some(1), Some(3), None]);
        assert!(queue.is_empty());
    }

    #[test]
    fn no_entry_is_due_before_its_time() {
        let mut queue = DelayQueue::new(10);
        queue.push('a', 5);
        queue.push('b', 6);
        let due = [14, 15, 15, 16, 16].map(|now| queue.pop_due(now));
        assert_eq!(due, [None, Some('a'), None, Some('b'), None]);
    }
}
