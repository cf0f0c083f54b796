//! System calls about sockets that have no safe wrapper.
#![allow(unsafe_code, reason = "system calls; each block states the fact that makes it sound")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libc::{c_int, c_void};

/// Sets the size of a receive buffer without regard to `net.core.rmem_max`; needs CAP_NET_ADMIN.
///
/// # Errors
/// Those of `setsockopt`.
pub(crate) fn force_receive_buffer(socket: &impl AsFd, bytes: c_int) -> io::Result<()> {
    set_integer(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
}

/// Has a listening TCP socket hand over connections only once something has come by them, or when nothing has
/// for this many seconds.
///
/// # Errors
/// Those of `setsockopt`.
pub(crate) fn defer_accept(socket: &impl AsFd, seconds: c_int) -> io::Result<()> {
    set_integer(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

fn set_integer(socket: &impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the options given here read one integer, whose address and size are given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes written to a TCP socket that the kernel has not even sent, because the other end takes no more.
///
/// # Errors
/// Sockets of other kinds.
pub(crate) fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    /// From `linux/sockios.h`.
    const SIOCOUTQNSD: libc::Ioctl = 0x894b;
    let mut bytes: c_int = 0;
    // SAFETY: this request writes one integer, whose address is given.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD, &raw mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}
