//! An array that grows and shrinks at its end without ever moving its elements, so that no push copies a large array.

use crate::steps;

/// Elements in boxes of `N`. At most one box is partly used.
#[derive(Debug)]
pub(crate) struct Chunked<T, const N: usize> {
    chunks: Vec<Box<[T]>>,
    len: u32,
}

impl<T: Copy, const N: usize> Chunked<T, N> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> T {
        let at = at as usize;
        self.chunks[at / N][at % N]
    }

    #[inline]
    pub(crate) fn set(&mut self, at: u32, value: T) {
        let at = at as usize;
        self.chunks[at / N][at % N] = value;
    }

    pub(crate) fn swap(&mut self, a: u32, b: u32) {
        let (first, second) = (self.get(a), self.get(b));
        self.set(a, second);
        self.set(b, first);
    }

    pub(crate) fn push(&mut self, value: T) {
        let at = self.len as usize;
        if at / N == self.chunks.len() {
            steps::touch(N);
            self.chunks.push(vec![value; N].into_boxed_slice());
        }
        self.chunks[at / N][at % N] = value;
        self.len += 1;
    }

    /// Drops the last element, which must exist.
    pub(crate) fn pop(&mut self) {
        self.len -= 1;
        if self.len as usize <= (self.chunks.len() - 1) * N {
            self.chunks.pop();
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.len() * N * size_of::<T>() + self.chunks.capacity() * size_of::<Box<[T]>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_by_whole_chunks() {
        let mut array = Chunked::<u32, 4>::new();
        for i in 0..9 {
            array.push(i * 10);
        }
        assert_eq!((array.len(), array.chunks.len()), (9, 3));
        assert_eq!((0..9).map(|i| array.get(i)).collect::<Vec<_>>(), [0, 10, 20, 30, 40, 50, 60, 70, 80]);
        array.swap(0, 8);
        assert_eq!((array.get(0), array.get(8)), (80, 0));
        for left in (0..9).rev() {
            array.pop();
            assert_eq!(array.chunks.len(), usize::div_ceil(left, 4));
        }
    }
}
