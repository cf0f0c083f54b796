//! The sockets of a listener.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aquatic_common::Family;
use aquatic_runtime::{ListenAddress, ListenSockets, PassedSockets};
use socket2::{Domain, Protocol, Socket, Type};

use super::drop_filter::DropFilter;
use super::{steering_program, sys};
use crate::listen::{self, BindError};
use aquatic_common::steering::Steering;

/// How the sockets of a listener are set up.
#[derive(Clone, Debug)]
pub struct BindOptions {
    /// Size to ask for the kernel's receive buffer of each socket, in bytes; 0 keeps the system's default.
    pub receive_buffer: usize,
    /// Let the kernel hand each announce to the core that owns its torrent. Without it packets are spread by
    /// the clients' addresses and change cores inside the process.
    pub steering: bool,
}

/// One core's socket of a listener: non-blocking, bound, sharing its address with the other cores' sockets.
pub struct UdpSocket {
    socket: Socket,
    address: SocketAddr,
    packet_info: bool,
    is_shared: bool,
}

impl UdpSocket {
    /// Whether other cores have the same socket.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The address the socket is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The family of the clients that reach it.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.address.ip())
    }

    /// State of the receive buffer.
    ///
    /// # Errors
    /// Those of `getsockopt`; kernels before 4.12 do not tell.
    pub fn queue(&self) -> io::Result<QueueState> {
        let figures = sys::memory_info(self.as_fd())?;
        Ok(QueueState {
            bytes: figures[libc::SK_MEMINFO_RMEM_ALLOC as usize],
            size: figures[libc::SK_MEMINFO_RCVBUF as usize],
            dropped: figures[libc::SK_MEMINFO_DROPS as usize],
        })
    }

    /// Has the kernel drop what a filter does not let through, instead of what an earlier one did not.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_filter(&self, filter: &DropFilter) -> io::Result<()> {
        sys::attach_filter(self.as_fd(), &filter.program())
    }

    /// Removes the filter.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn remove_filter(&self) -> io::Result<()> {
        sys::detach_filter(self.as_fd())
    }

    /// Whether the local address has to be noted for each datagram: only a socket bound to all addresses can
    /// be contacted at more than one.
    pub(super) fn wants_packet_info(&self) -> bool {
        self.packet_info
    }

    fn bind(address: SocketAddr, options: &BindOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        let packet_info = set_options(&socket, address, options)?;
        socket.bind(&address.into())?;
        let bound = socket.local_addr()?.as_socket();
        Ok(Self { socket, address: bound.unwrap_or(address), packet_info, is_shared: false })
    }

    /// A socket that another process has bound. A filter of that process may still be attached.
    fn adopt(fd: OwnedFd, address: SocketAddr, options: &BindOptions) -> io::Result<Self> {
        let socket = Socket::from(fd);
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        if address.is_ipv6() && !socket.only_v6()? {
            // Clients over IPv4 would be counted, limited and scraped as some of IPv6. That a socket has only
            // one family can be set before it is bound only.
            return Err(io::Error::other(
                "the socket that was passed for it accepts IPv4 as well; set BindIPv6Only=ipv6-only in the socket \
                 unit, and list an address of IPv4 for IPv4",
            ));
        }
        // A process that may not go beyond the system's limit must not lower what another one was allowed.
        let is_enough = socket.recv_buffer_size()? / 2 >= options.receive_buffer;
        let receive_buffer = if is_enough { 0 } else { options.receive_buffer };
        let packet_info = set_options(&socket, address, &BindOptions { receive_buffer, ..*options })?;
        Ok(Self { socket, address, packet_info, is_shared: false })
    }
}

/// Sets what can be set before and after a socket is bound to an address. Returns whether the local address
/// has to be noted for each datagram.
fn set_options(socket: &Socket, address: SocketAddr, options: &BindOptions) -> io::Result<bool> {
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        sys::never_fragment(socket.as_fd())?;
    }
    if options.receive_buffer > 0 {
        listen::set_receive_buffer(socket, options.receive_buffer)?;
    }
    let packet_info = address.ip().is_unspecified();
    if packet_info {
        sys::enable_packet_info(socket.as_fd(), address.is_ipv6())?;
    }
    Ok(packet_info)
}

/// State of a socket's receive buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Memory of the datagrams that wait, as the kernel counts it: some 800 bytes for a short one. What was
    /// received lately may be included.
    pub bytes: u32,
    /// Memory that may wait, as the kernel counts it: twice of what was asked for.
    pub size: u32,
    /// Datagrams that were dropped since the socket was opened, because the buffer was full or by a filter.
    /// Wraps.
    pub dropped: u32,
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Returns one socket per core for an address, in core order, with the steering program attached: those that
/// were passed to the process, or new ones. Port 0 becomes the same free port for all of them. Duplicates of
/// them are kept to be passed on.
///
/// # Errors
/// A [`BindError`] that says what to do about it. A kernel that refuses the steering program is no error: it
/// is reported in the log, and packets change cores inside the process instead.
pub fn bind_group(
    address: SocketAddr,
    options: &BindOptions,
    steering: &Steering,
    listeners: &mut ListenSockets,
) -> Result<Vec<UdpSocket>, BindError> {
    let sockets = bind_or_adopt(address, options, steering, listeners)?;
    for (core, socket) in sockets.iter().enumerate() {
        listeners
            .keep(ListenAddress::Datagram(socket.address), core, socket)
            .map_err(|error| BindError::new("UDP", address, &error))?;
    }
    Ok(sockets)
}

fn bind_or_adopt(
    address: SocketAddr,
    options: &BindOptions,
    steering: &Steering,
    listeners: &mut ListenSockets,
) -> Result<Vec<UdpSocket>, BindError> {
    let cores = steering.cores();
    let explain = |error: io::Error| BindError::new("UDP", address, &error);
    let adopt = |fd| UdpSocket::adopt(fd, address, options).map_err(explain);
    let sockets = match listeners.take(&ListenAddress::Datagram(address)) {
        PassedSockets::PerCore(fds) => fds.into_iter().map(adopt).collect::<Result<Vec<_>, _>>()?,
        PassedSockets::Shared(fd) => {
            let is_shared = cores > 1;
            if is_shared {
                log::warn!(
                    "UDP {address}: one socket was passed for {cores} workers, which share it at some cost and without \
                     control of overload. List its address {cores} times in the socket unit, with ReusePort=yes, for a \
                     socket each"
                );
            }
            let share = |_| {
                let socket = fd.try_clone().map_err(explain).and_then(adopt)?;
                Ok(UdpSocket { is_shared, ..socket })
            };
            return (0..cores).map(share).collect();
        }
        PassedSockets::None => bind_new(address, options, cores)?,
    };
    if let Some(first) = sockets.first()
        && options.steering
        && cores > 1
        && let Err(error) = sys::attach_steering(first.as_fd(), &steering_program::program(steering))
    {
        log::warn!(
            "UDP {}: the kernel refused the steering program ({error}); announces will change cores inside the \
             process, which costs some speed and nothing else",
            first.address
        );
    }
    Ok(sockets)
}

fn bind_new(address: SocketAddr, options: &BindOptions, cores: usize) -> Result<Vec<UdpSocket>, BindError> {
    refuse_if_taken(address)?;
    let mut sockets: Vec<UdpSocket> = Vec::with_capacity(cores);
    for _ in 0..cores {
        let address = sockets.first().map_or(address, |first| first.address);
        let socket =
            UdpSocket::bind(address, options).map_err(|error| BindError::new("UDP", address, &error))?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// With SO_REUSEPORT a second tracker of the same user would silently share the port. A trial without it
/// tells.
fn refuse_if_taken(address: SocketAddr) -> Result<(), BindError> {
    let trial = || -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())
    };
    trial().map_err(|error| BindError::new("UDP", address, &error))
}
