//! Counts memory accesses in unit tests, so that tests can relate the cost of an operation to the size of the
//! swarm without reading a clock.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[cfg(test)]
pub(crate) fn add(pieces: usize) {
    COUNT.set(COUNT.get() + pieces as u64);
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) fn add(_pieces: usize) {}

/// Runs `work` and returns its result and the number of memory accesses it counted.
#[cfg(test)]
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, u64) {
    COUNT.set(0);
    let result = work();
    (result, COUNT.get())
}
