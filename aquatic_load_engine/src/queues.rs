//! Lines of places, and of what is to be done later.

use std::collections::VecDeque;

use crate::clock::Nanos;

/// Places that wait for their turn, each at most once.
#[derive(Clone, Debug)]
pub struct Line {
    order: VecDeque<u32>,
    waits: Vec<bool>,
}

impl Line {
    /// For places with numbers below this.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { order: VecDeque::new(), waits: vec![false; places] }
    }

    /// A place joins the end of the line, unless it is in it.
    pub fn join(&mut self, place: u32) {
        if !std::mem::replace(&mut self.waits[place as usize], true) {
            self.order.push_back(place);
        }
    }

    /// The first place leaves the line.
    pub fn leave(&mut self) -> Option<u32> {
        let place = self.order.pop_front()?;
        self.waits[place as usize] = false;
        Some(place)
    }

    /// The first place.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.order.front().copied()
    }

    /// How many places wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// All that wait, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.order.iter().copied()
    }
}

/// What is to be done after a time that is always the same.
#[derive(Clone, Debug)]
pub struct Later<T> {
    delay: Nanos,
    queue: VecDeque<(Nanos, T)>,
}

impl<T> Later<T> {
    /// Everything is to be done so long after it was put off.
    #[must_use]
    pub fn after(delay: Nanos) -> Self {
        Self { delay, queue: VecDeque::new() }
    }

    /// Puts something off.
    pub fn put_off(&mut self, what: T, now: Nanos) {
        self.queue.push_back((now + self.delay, what));
    }

    /// Something that is due.
    pub fn due(&mut self, now: Nanos) -> Option<T> {
        if self.queue.front()?.0 > now {
            return None;
        }
        self.queue.pop_front().map(|(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_stands_in_line_twice() {
        let mut line = Line::new(4);
        [3, 1, 3].into_iter().for_each(|place| line.join(place));
        assert_eq!((line.first(), line.len(), line.iter().collect()), (Some(3), 2, vec![3, 1]));
        assert_eq!(line.leave(), Some(3));
        line.join(3);
        assert_eq!([0; 3].map(|_| line.leave()), [Some(1), Some(3), None]);
        assert!(line.is_empty());
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut later = Later::after(10);
        later.put_off('a', 5);
        later.put_off('b', 6);
        assert_eq!([14, 15, 15, 16, 16].map(|now| later.due(now)), [None, Some('a'), None, Some('b'), None]);
    }
}
