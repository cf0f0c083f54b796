//! Memory that is mapped, and unmapped when it is dropped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use libc::{c_int, c_void};

/// Mapped memory, readable and writable.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the memory belongs to the process, not to a thread; the mapping itself is never changed.
unsafe impl Send for Mapping {}
// SAFETY: as above; whoever accesses the memory through it sees to the order of accesses.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Memory of this process alone, zeroed.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE, -1, 0)
    }

    /// Memory that is shared with the kernel.
    pub(super) fn shared(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: c_int, fd: c_int, offset: libc::off_t) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without an address the kernel chooses memory that nothing else uses.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, len })
    }

    /// First byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start.cast()
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Address of a value at an offset; `None` if it would not be inside, or not be aligned.
    pub(super) fn at<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        let is_aligned = offset.is_multiple_of(align_of::<T>());
        (end <= self.len && is_aligned).then(|| {
            // SAFETY: the offset is inside the mapping.
            unsafe { self.start().add(offset) }.cast()
        })
    }

    /// Has the processor load the cache line at an offset.
    pub(super) fn prefetch(&self, offset: usize) {
        let Some(address) = self.at::<u8>(offset) else { return };
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the address is inside the mapping, and loading a cache line changes nothing.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(address.as_ptr().cast_const().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this memory was mapped by `map`, and whoever has an address in it does not outlive `self`.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}
