//! System calls without a safe wrapper; the only unsafe code of the crate.
#![allow(unsafe_code, reason = "this socket option has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Defers the choice of a source port from `bind` to `connect`, which can reuse ports in use for other
/// destinations.
pub(crate) fn bind_address_only(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (value, length) = (ptr::from_ref(&on).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `value` points to a live variable of the given length, which the kernel only reads.
    let result =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, value, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_sockets_have_no_port_yet() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        bind_address_only(&socket).unwrap();
        let address: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&address.into()).unwrap();
        assert_eq!(socket.local_addr().unwrap().as_socket().unwrap().port(), 0);
    }
}
