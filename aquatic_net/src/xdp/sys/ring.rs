//! Rings between this process and the kernel, with one writer and one reader each.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::mapping::Mapping;

/// The kernel waits to be told of new entries (`XDP_RING_NEED_WAKEUP`).
const NEED_WAKEUP: u32 = 1;

/// What the rings consist of: valid for any bits.
pub(super) trait Entry: Copy {}

impl Entry for u64 {}
impl Entry for libc::xdp_desc {}

/// A ring of this many entries, a power of two.
#[derive(Debug)]
struct Ring<T> {
    /// What the addresses below point into.
    _mapping: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
}

// SAFETY: the addresses point into the mapping, which is `Send`; the ring is used by its owner alone.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    fn map(
        fd: BorrowedFd<'_>,
        offsets: &libc::xdp_ring_offset,
        (size, page): (u32, libc::off_t),
    ) -> io::Result<Self> {
        let place = |offset: u64| usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidData);
        let first = place(offsets.desc)?;
        let mapping = Mapping::shared(fd, first + size as usize * size_of::<T>(), page)?;
        let index =
            |offset| Ok::<_, io::Error>(mapping.at(place(offset)?).ok_or(io::ErrorKind::InvalidData)?);
        Ok(Self {
            producer: index(offsets.producer)?,
            consumer: index(offsets.consumer)?,
            flags: index(offsets.flags)?,
            entries: mapping.at(first).ok_or(io::ErrorKind::InvalidData)?,
            size,
            _mapping: mapping,
        })
    }

    /// The entry of an index.
    fn entry(&self, index: u32) -> NonNull<T> {
        let place = index & (self.size - 1);
        // SAFETY: the mapping has room for `size` entries, and `place` is less.
        unsafe { self.entries.add(place as usize) }
    }

    fn atomic(&self, index: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: the address is aligned, inside the mapping, and used by both sides atomically only.
        unsafe { index.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        self.atomic(self.flags).load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// A ring that this process writes.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    written: u32,
    /// What the kernel has read, as last seen.
    read: u32,
}

impl<T: Entry> Producer<T> {
    /// Maps a ring of a socket.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offsets: &libc::xdp_ring_offset,
        size: (u32, libc::off_t),
    ) -> io::Result<Self> {
        Ok(Self { ring: Ring::map(fd, offsets, size)?, written: 0, read: 0 })
    }

    /// Adds an entry, which the kernel sees after [`publish`](Self::publish). Returns whether there was room.
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.written.wrapping_sub(self.read) >= self.ring.size {
            self.read = self.ring.atomic(self.ring.consumer).load(Ordering::Acquire);
            if self.written.wrapping_sub(self.read) >= self.ring.size {
                return false;
            }
        }
        // SAFETY: the entry is inside the mapping, and the kernel does not read it before it is published.
        unsafe { self.ring.entry(self.written).write(entry) };
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Has the kernel see what was added.
    pub(super) fn publish(&self) {
        self.ring.atomic(self.ring.producer).store(self.written, Ordering::Release);
    }

    /// Whether the kernel has read everything.
    pub(super) fn is_read(&self) -> bool {
        self.ring.atomic(self.ring.consumer).load(Ordering::Acquire) == self.written
    }

    /// Whether the kernel has to be told of new entries.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// A ring that this process reads.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    read: u32,
    /// What the kernel has written, as last seen.
    written: u32,
}

impl<T: Entry> Consumer<T> {
    /// Maps a ring of a socket.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offsets: &libc::xdp_ring_offset,
        size: (u32, libc::off_t),
    ) -> io::Result<Self> {
        Ok(Self { ring: Ring::map(fd, offsets, size)?, read: 0, written: 0 })
    }

    /// Number of entries that can be taken.
    pub(super) fn len(&self) -> u32 {
        self.ring.atomic(self.ring.producer).load(Ordering::Relaxed).wrapping_sub(self.read)
    }

    /// Takes an entry, if there is one. The kernel uses its place again after [`publish`](Self::publish).
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.read == self.written {
            self.written = self.ring.atomic(self.ring.producer).load(Ordering::Acquire);
            if self.read == self.written {
                return None;
            }
        }
        // SAFETY: the entry is inside the mapping, the kernel has written it and does not write it again
        // before its place is given back, and all bits are valid.
        let entry = unsafe { self.ring.entry(self.read).read() };
        self.read = self.read.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of what was taken back.
    pub(super) fn publish(&self) {
        self.ring.atomic(self.ring.consumer).store(self.read, Ordering::Release);
    }
}
