//! The listening sockets of a service, made in the main thread.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

pub use aquatic_common::config::ListenerKind;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use aquatic_runtime::{Broadcast, ListenAddress, ListenSockets, MailboxReceiver, PassedSockets, broadcast};

use super::accept::TcpSettings;
use super::balancer::{ConnectionBalancer, Handoff};
use super::unix_socket::{UnixBindError, bind_unix};
use crate::listen::BindError;
use crate::sys;

/// Seconds until a connection by which nothing has come is handed over all the same, to be counted and to get
/// its deadline.
///
/// Clients of all protocols speak first. A connection that is handed over together with its first bytes is
/// served with four system calls and never enters the epoll set; when they come a round trip later, it takes
/// eight and a wake-up. And who opens connections without a word takes no descriptors at first.
const DEFERRED: i32 = 1;

/// Most bytes the kernel keeps for a connection in each direction, before its own bookkeeping doubles them.
/// Left to itself it goes up to several megabytes for a client that sends much or takes nothing.
const SOCKET_BUFFER: usize = 64 * 1024;

/// Changed settings that a core has not received yet.
const MAX_CHANGES: usize = 16;

/// How the listening sockets of an address are set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections the kernel keeps for each core until they are accepted; `net.core.somaxconn` limits it.
    pub backlog: u16,
    /// An IPv6 socket takes IPv6 connections only; otherwise IPv4 ones, too, if it is bound to all addresses.
    pub only_ipv6: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, only_ipv6: true }
    }
}

/// One core's listening socket of an address.
#[derive(Debug)]
pub(super) struct ListenSocket {
    pub(super) fd: OwnedFd,
    pub(super) kind: ListenerKind,
    pub(super) local: bool,
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// All listening sockets of a service.
#[derive(Debug)]
pub struct Listeners {
    balancer: &'static ConnectionBalancer,
    handoffs: Vec<MailboxReceiver<Handoff>>,
    changes: (Broadcast<Arc<TcpSettings>>, Vec<MailboxReceiver<Arc<TcpSettings>>>),
    cores: Vec<Vec<ListenSocket>>,
    /// Number of sockets that one core accepts for all.
    shared: usize,
}

/// One core's listening sockets, on their way to that core.
#[derive(Debug)]
pub struct CoreListeners {
    pub(super) balancer: &'static ConnectionBalancer,
    pub(super) sockets: Vec<ListenSocket>,
    pub(super) handoffs: MailboxReceiver<Handoff>,
    pub(super) changes: MailboxReceiver<Arc<TcpSettings>>,
}

impl Listeners {
    /// No sockets yet, for this many cores.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new(cores: usize) -> io::Result<Self> {
        let (balancer, handoffs) = ConnectionBalancer::new(cores)?;
        let changes = broadcast(cores.max(1), MAX_CHANGES)?;
        let cores = (0..cores.max(1)).map(|_| Vec::new()).collect();
        Ok(Self { balancer, handoffs, changes, cores, shared: 0 })
    }

    /// Sends changed settings to all cores. Limits, deadlines and proxies are applied, the rest stays.
    #[must_use]
    pub fn changes(&self) -> Broadcast<Arc<TcpSettings>> {
        self.changes.0.clone()
    }

    /// Listens on an address, with sockets that were passed to the process or new ones, of which duplicates
    /// are kept to be passed on. Returns it with the port the kernel chose if that was 0.
    ///
    /// # Errors
    /// A [`BindError`] that says what to do about it.
    pub fn add(
        &mut self,
        address: SocketAddr,
        kind: ListenerKind,
        options: &ListenOptions,
        passed: &mut ListenSockets,
    ) -> Result<SocketAddr, BindError> {
        let explain = |error: io::Error| BindError::new("TCP", address, &error);
        let sockets = match passed.take(&ListenAddress::Stream(address)) {
            PassedSockets::None => self.bind_each(address, options)?,
            PassedSockets::PerCore(fds) => {
                fds.into_iter().map(|fd| adopt(fd, options).map_err(explain)).collect::<Result<_, _>>()?
            }
            PassedSockets::Shared(fd) => {
                let socket = adopt(fd, options).map_err(explain)?;
                let bound = address_of(&socket, address).map_err(explain)?;
                let core = self.push_shared(ListenSocket { fd: socket.into(), kind, local: false });
                self.keep(core, ListenAddress::Stream(bound), passed).map_err(explain)?;
                return Ok(bound);
            }
        };
        let mut bound = address;
        for (core, socket) in sockets.into_iter().enumerate().take(self.cores.len()) {
            bound = address_of(&socket, address).map_err(explain)?;
            self.cores[core].push(ListenSocket { fd: socket.into(), kind, local: false });
            self.keep(core, ListenAddress::Stream(bound), passed).map_err(explain)?;
        }
        Ok(bound)
    }

    /// Binds a socket for each core.
    fn bind_each(&self, address: SocketAddr, options: &ListenOptions) -> Result<Vec<Socket>, BindError> {
        let explain = |error: io::Error| BindError::new("TCP", address, &error);
        // With SO_REUSEPORT a second tracker of the same user would silently share the port. A trial without
        // it tells.
        drop(bind_one(address, options, false).map_err(explain)?);
        let mut bound = address;
        let mut sockets = Vec::with_capacity(self.cores.len());
        for _ in &self.cores {
            let socket = bind_one(bound, options, true).map_err(explain)?;
            bound = address_of(&socket, bound).map_err(explain)?;
            sockets.push(socket);
        }
        // Only when all of them are bound, so that none gets connections that it keeps to itself.
        for socket in &sockets {
            socket.listen(options.backlog.into()).map_err(explain)?;
        }
        Ok(sockets)
    }

    /// Listens on a unix socket, for proxies on the same machine: one that was passed to the process, or a
    /// new one, whose file gets these permissions; a file left behind by a process that has ended is
    /// replaced.
    ///
    /// # Errors
    /// A [`UnixBindError`] that says what to do about it.
    pub fn add_unix(
        &mut self,
        path: &Path,
        mode: u32,
        options: &ListenOptions,
        passed: &mut ListenSockets,
    ) -> Result<UnixOrigin, UnixBindError> {
        let explain = |error: io::Error| UnixBindError::new(path, error);
        let (fd, origin) = match passed.take(&ListenAddress::Unix(path.to_owned())) {
            PassedSockets::None => (bind_unix(path, mode, options)?, UnixOrigin::Bound),
            PassedSockets::Shared(fd) => (fd, UnixOrigin::of(passed)),
            PassedSockets::PerCore(fds) => {
                let fd = fds.into_iter().next().ok_or_else(|| explain(io::ErrorKind::NotFound.into()))?;
                (fd, UnixOrigin::of(passed))
            }
        };
        SockRef::from(&fd).set_nonblocking(true).map_err(explain)?;
        let core = self.push_shared(ListenSocket { fd, kind: ListenerKind::Plain, local: true });
        self.keep(core, ListenAddress::Unix(path.to_owned()), passed).map_err(explain)?;
        Ok(origin)
    }

    /// Gives a socket to one core, which accepts, and hands off whatever other cores should have. Returns the
    /// core.
    fn push_shared(&mut self, socket: ListenSocket) -> usize {
        let core = self.shared % self.cores.len();
        self.shared += 1;
        self.cores[core].push(socket);
        core
    }

    /// Keeps a duplicate of the last socket of a core.
    fn keep(&self, core: usize, address: ListenAddress, sockets: &mut ListenSockets) -> io::Result<()> {
        match self.cores.get(core).and_then(|sockets| sockets.last()) {
            Some(socket) => sockets.keep(address, core, socket),
            None => Ok(()),
        }
    }

    /// Each core's sockets, in core order.
    #[must_use]
    pub fn split(self) -> Vec<CoreListeners> {
        let balancer = self.balancer;
        let each = |((sockets, handoffs), changes)| CoreListeners { balancer, sockets, handoffs, changes };
        self.cores.into_iter().zip(self.handoffs).zip(self.changes.1).map(each).collect()
    }
}

/// Who has made a unix socket, and so removes its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixOrigin {
    /// This process, or the one that it takes over from.
    Bound,
    /// The service manager.
    Passed,
}

impl UnixOrigin {
    fn of(passed: &ListenSockets) -> Self {
        if passed.are_handed_over() { Self::Bound } else { Self::Passed }
    }
}

fn address_of(socket: &Socket, otherwise: SocketAddr) -> io::Result<SocketAddr> {
    Ok(socket.local_addr()?.as_socket().unwrap_or(otherwise))
}

/// Sets up a socket that another process listens on.
fn adopt(fd: OwnedFd, options: &ListenOptions) -> io::Result<Socket> {
    let socket = Socket::from(fd);
    set_options(&socket)?;
    socket.listen(options.backlog.into())?;
    Ok(socket)
}

/// Sets what accepted sockets inherit.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    sys::defer_accept(socket, DEFERRED)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)
}

fn bind_one(address: SocketAddr, options: &ListenOptions, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process that the kernel still remembers are no reason not to listen.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.only_ipv6)?;
    }
    set_options(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
