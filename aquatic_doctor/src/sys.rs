//! The few facts for which there is no safe wrapper.
#![allow(unsafe_code, reason = "system calls; each block states the fact that makes it sound")]

use std::mem::MaybeUninit;

/// What the kernel knows of its clock (adjtimex(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Whether something keeps it in step with a time server.
    pub synchronised: bool,
    /// Largest error that it may have, in microseconds.
    pub max_error: u64,
}

/// State of this machine's clock; `None` if the kernel does not tell.
#[must_use]
pub fn clock() -> Option<Clock> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all fields are numbers, and modes = 0 only reads; the kernel fills the structure.
    let result = unsafe { libc::adjtimex(state.as_mut_ptr()) };
    if result < 0 {
        return None;
    }
    // SAFETY: numbers that are 0 or written by the kernel are initialised.
    let state = unsafe { state.assume_init() };
    let synchronised = result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0;
    Some(Clock { synchronised, max_error: u64::try_from(state.maxerror).unwrap_or(u64::MAX) })
}

/// Size of a page of memory, in bytes.
pub(crate) fn page_size() -> u64 {
    // SAFETY: the call takes and returns numbers only.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}
