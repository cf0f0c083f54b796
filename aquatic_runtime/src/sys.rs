//! The few system calls that have no safe wrapper.
#![allow(unsafe_code, reason = "system calls; each block states the fact that makes it sound")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, sigset_t};
use rustix::io::Errno;
use rustix::io_uring::{
    IoringEnterFlags, IoringRegisterOp, io_uring_enter, io_uring_params, io_uring_register, io_uring_setup,
};

/// Takes a descriptor out of an epoll set, by its number.
pub(crate) fn forget(epoll: BorrowedFd<'_>, fd: RawFd) {
    // SAFETY: the call takes numbers only; a number that is not in the set is refused.
    let _ = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, ptr::null_mut()) };
}

/// Makes a small io_uring, tries all three system calls that it needs, and throws it away. Filters may let
/// the first one through only; the executor takes that for a bug.
///
/// # Errors
/// Those of `io_uring_setup`, `io_uring_register` and `io_uring_enter`.
pub(crate) fn probe_io_uring() -> io::Result<()> {
    let mut params = io_uring_params::default();
    // SAFETY: the parameters ask for nothing that refers to other memory or descriptors.
    let ring = unsafe { io_uring_setup(4, &mut params) }?;
    // SAFETY: this operation takes no argument.
    match unsafe { io_uring_register(&ring, IoringRegisterOp::UnregisterBuffers, ptr::null(), 0) } {
        // There are no buffers to unregister, which shows that it has been looked for them.
        Ok(_) | Err(Errno::NXIO) => {}
        Err(error) => return Err(error.into()),
    }
    // SAFETY: nothing has been put into the ring, so nothing is submitted and nothing waited for.
    unsafe { io_uring_enter(&ring, 0, 0, IoringEnterFlags::empty()) }?;
    Ok(())
}

/// Blocks or unblocks signals for the calling thread; threads inherit the mask of the one that starts them.
///
/// # Errors
/// A number that is no signal.
pub(crate) fn mask_signals(block: bool, signals: &[c_int]) -> io::Result<()> {
    let mut set = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset has just initialized it and cannot fail for a valid pointer.
    let mut set = unsafe { set.assume_init() };
    for &signal in signals {
        // SAFETY: the set is initialized; a bad number is refused.
        if unsafe { libc::sigaddset(&raw mut set, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let how = if block { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: the set is initialized and a null pointer for the old one is allowed.
    match unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Has writes beyond the limit of the size of files fail with `EFBIG`, as they do on a full disk, instead of
/// ending the process.
pub fn ignore_file_size_signal() {
    // SAFETY: no handler is installed, so no code of ours runs in a signal's context.
    let _ = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// How many pages of a range are resident. The range is aligned to pages and has at most `N` of them.
///
/// # Errors
/// Parts of the range that are not mapped.
pub(crate) fn resident_pages<const N: usize>(start: usize, bytes: usize) -> io::Result<usize> {
    let mut pages = [0_u8; N];
    let bytes = bytes.min(N * rustix::param::page_size());
    // SAFETY: the call reads no memory of the range; it writes one byte for each of at most N pages.
    let result = unsafe { libc::mincore(ptr::with_exposed_provenance_mut(start), bytes, pages.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pages.iter().filter(|page| **page & 1 != 0).count())
}

/// Has the kernel turn a range into large pages, in place.
///
/// # Errors
/// Kernels that cannot, ranges without memory of their own, no large page to be had.
pub(crate) fn collapse(start: usize, bytes: usize) -> io::Result<()> {
    /// Since Linux 6.1.
    const MADV_COLLAPSE: c_int = 25;
    // SAFETY: this advice changes which physical memory is behind the range, not what is in it.
    let result = unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), bytes, MADV_COLLAPSE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the C library map each allocation of 128 KiB and more by itself, so that its memory goes back to the
/// system when it is freed. By default the library raises the limit to the size of what is freed, and then
/// takes such memory from its heaps, of which it gives back the end only.
pub(crate) fn map_large_allocations() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call sets a number, and may be made at any time.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10) };
}

/// Has the C library give all free pages back to the system. Whether there were any.
pub(crate) fn give_memory_back() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call may be made at any time and changes nothing that is in use.
    let given = unsafe { libc::malloc_trim(0) } != 0;
    #[cfg(not(target_env = "gnu"))]
    let given = false;
    given
}

/// The descriptors behind standard error that were open when the process started, at most `count` of them, in
/// their order. They are not passed on to programs that this process starts. Empty at every later call.
pub(crate) fn descriptors_of_start(count: usize) -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let numbers = (FIRST_PASSED..).take(count);
    numbers.map_while(own_descriptor).collect()
}

/// The number of the first descriptor that a service manager passes.
const FIRST_PASSED: RawFd = 3;

fn own_descriptor(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the number is borrowed for the two calls below only, which a closed descriptor makes fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(borrowed).ok()?;
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, was so before the program started, and so belongs to no other value; the caller
    // sees to it that it is taken once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_uring_is_there() {
        probe_io_uring().unwrap();
    }

    /// Has the kernel refuse a system call to this thread from now on, as containers do.
    fn forbid(number: libc::c_long) {
        let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        let compare = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let answer = (libc::BPF_RET | libc::BPF_K) as u16;
        let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
        // The number stands at the beginning of what filters are shown of a call.
        let mut filter = [
            step(load, 0, 0),
            step(compare, 1, u32::try_from(number).unwrap()),
            step(answer, 0, libc::SECCOMP_RET_ALLOW),
            step(answer, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
        // SAFETY: only numbers are passed.
        let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, unused, unused, unused) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        // SAFETY: the program and its steps live until the call returns; the kernel keeps a copy.
        let set = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::c_ulong::from(libc::SECCOMP_MODE_FILTER),
                &raw const program,
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn each_call_that_is_forbidden_is_found_out() {
        for number in [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter] {
            // A filter stays for as long as its thread.
            let probed = std::thread::spawn(move || {
                forbid(number);
                probe_io_uring().map_err(|error| error.raw_os_error())
            });
            assert_eq!(probed.join().unwrap(), Err(Some(libc::EPERM)), "system call {number}");
        }
    }

    #[test]
    fn signals_can_be_masked() {
        mask_signals(true, &[libc::SIGUSR2]).unwrap();
        mask_signals(false, &[libc::SIGUSR2]).unwrap();
        assert!(mask_signals(true, &[9999]).is_err());
    }
}
