//! An array that grows and shrinks at its end by a few elements at a time, so that no push copies a large
//! array.

use std::iter;

use crate::accesses;

/// An array in segments of `N` elements, all of which but the last are full. The first segment needs no
/// indirection.
#[derive(Debug)]
pub(crate) struct SegmentedVec<T, const N: usize> {
    first: Vec<T>,
    /// The other segments, if any; boxed to keep small arrays small.
    tail: Option<Box<Tail<T>>>,
}

#[derive(Debug)]
struct Tail<T> {
    segments: Vec<Vec<T>>,
}

/// A segment grows by this fraction of its length.
const GROWTH: usize = 8;

impl<T: Copy, const N: usize> SegmentedVec<T, N> {
    pub(crate) fn new() -> Self {
        Self { first: Vec::new(), tail: None }
    }

    #[inline]
    pub(crate) fn len(&self) -> u32 {
        let tail = self.tail().last().map_or(0, |last| (self.tail().len() - 1) * N + last.len());
        (self.first.len() + tail) as u32
    }

    #[inline]
    fn tail(&self) -> &[Vec<T>] {
        self.tail.as_ref().map_or(&[], |tail| &tail.segments)
    }

    #[inline]
    pub(crate) fn at(&self, at: u32) -> &T {
        let at = at as usize;
        if at < N { &self.first[at] } else { &self.tail()[at / N - 1][at % N] }
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, at: u32) -> &mut T {
        let at = at as usize;
        match &mut self.tail {
            Some(tail) if at >= N => &mut tail.segments[at / N - 1][at % N],
            Some(_) | None => &mut self.first[at],
        }
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> T {
        *self.at(at)
    }

    #[inline]
    pub(crate) fn set(&mut self, at: u32, value: T) {
        *self.at_mut(at) = value;
    }

    /// Returns the `len` elements from a position on, as the contiguous slices they are stored in.
    #[inline]
    pub(crate) fn slices(&self, at: u32, len: u32) -> impl Iterator<Item = &[T]> + Clone {
        let (mut at, end) = (at as usize, at as usize + len as usize);
        iter::from_fn(move || {
            let segment = (N - at % N).min(end - at);
            let chunk = if at < N { &self.first } else { self.tail().get(at / N - 1)? };
            let slice = (segment > 0).then(|| &chunk[at % N..at % N + segment]);
            at += segment;
            slice
        })
    }

    pub(crate) fn push(&mut self, value: T) {
        if self.last().len() == N {
            let tail = self.tail.get_or_insert_with(|| Box::new(Tail { segments: Vec::new() }));
            tail.segments.push(Vec::new());
        }
        let segment = self.last();
        if segment.len() == segment.capacity() {
            let more = (segment.len() / GROWTH).max(8).min(N - segment.len());
            accesses::add(size_of_val(&**segment) / 64);
            segment.reserve_exact(more);
        }
        segment.push(value);
    }

    /// Removes the last element. The array must not be empty.
    pub(crate) fn pop(&mut self) {
        let segment = self.last();
        segment.pop();
        let (len, spare) = (segment.len(), segment.len() / GROWTH);
        if segment.capacity() - len > 2 * spare.max(8) {
            accesses::add(size_of_val(&**segment) / 64);
            segment.shrink_to(len + spare);
        }
        if len == 0
            && let Some(tail) = &mut self.tail
        {
            tail.segments.pop();
            if tail.segments.is_empty() {
                self.tail = None;
            }
        }
    }

    fn last(&mut self) -> &mut Vec<T> {
        match &mut self.tail {
            Some(tail) => tail.segments.last_mut().unwrap_or(&mut self.first),
            None => &mut self.first,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let elements = self.first.capacity() + self.tail().iter().map(Vec::capacity).sum::<usize>();
        let segments = self.tail.as_ref().map_or(0, |tail| tail.segments.capacity() + 1);
        elements * size_of::<T>() + segments * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_at_its_end() {
        let mut array = SegmentedVec::<u32, 4>::new();
        for i in 0..9 {
            array.push(i * 10);
        }
        assert_eq!((array.len(), array.tail().len()), (9, 2));
        assert_eq!((0..9).map(|i| array.get(i)).collect::<Vec<_>>(), [0, 10, 20, 30, 40, 50, 60, 70, 80]);
        array.set(0, 5);
        let slices = |at, len| array.slices(at, len).map(<[u32]>::to_vec).collect::<Vec<_>>();
        assert_eq!(slices(0, 9), [vec![5, 10, 20, 30], vec![40, 50, 60, 70], vec![80]]);
        assert_eq!(slices(2, 3), [vec![20, 30], vec![40]]);
        assert_eq!(slices(4, 4), [vec![40, 50, 60, 70]]);
        assert!(slices(3, 0).is_empty() && slices(9, 0).is_empty());
        for left in (0..9).rev() {
            array.pop();
            assert_eq!(array.len(), left);
            assert_eq!(array.tail().len(), usize::div_ceil(left as usize, 4).saturating_sub(1));
        }
    }

    #[test]
    fn unused_capacity_is_small() {
        let mut array = SegmentedVec::<u64, 2048>::new();
        let held = |array: &SegmentedVec<u64, 2048>| array.bytes() as f64 / 8.0;
        for len in 1..=9000 {
            array.push(len);
            assert!(held(&array) <= len as f64 * 1.15 + 32.0, "{} for {len}", held(&array));
        }
        for len in (1..9000).rev() {
            array.pop();
            assert!(held(&array) <= f64::from(len) * 1.3 + 64.0, "{} for {len}", held(&array));
        }
    }
}
