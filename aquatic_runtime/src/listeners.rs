//! Listening sockets beyond this process: those that the service manager has passed, and duplicates of all
//! that are in use, to be passed on.
//!
//! Sockets are told apart by what the kernel says of them: kind and address. One per core of the same address
//! stand in core order. The service manager names those that it has kept for a restart as they were named
//! when they were given to it, `KIND-CORE`, because it does not keep their order.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::fstat;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use rustix::net::{SocketAddrAny, SocketAddrUnix, SocketType, getsockname};

use crate::notify::Notifier;
use crate::sys;

/// Maximum number of descriptors that are taken from the service manager.
const MAX_PASSED: usize = 4096;

/// Who passes sockets in a hand-over.
const PREDECESSOR: &str = "the predecessor";

/// What a listening socket is and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A socket for datagrams.
    Datagram(SocketAddr),
    /// A socket for connections.
    Stream(SocketAddr),
    /// A unix socket for connections.
    Unix(PathBuf),
}

impl ListenAddress {
    /// That of a socket; `None` if it does not listen.
    fn of(socket: impl AsFd) -> Option<Self> {
        let socket = socket.as_fd();
        let address = getsockname(socket).ok()?;
        let kind = socket_type(socket).ok()?;
        if kind == SocketType::STREAM && !socket_acceptconn(socket).ok()? {
            return None;
        }
        match (kind, SocketAddr::try_from(address.clone())) {
            (SocketType::DGRAM, Ok(address)) => Some(Self::Datagram(address)),
            (SocketType::STREAM, Ok(address)) => Some(Self::Stream(address)),
            (SocketType::STREAM, Err(_)) => unix_path(address).map(Self::Unix),
            _ => None,
        }
    }

    /// Whether a socket of the address can be used where this one is configured. Port 0 stands for any.
    fn accepts(&self, other: &Self) -> bool {
        let is_same = |wanted: &SocketAddr, found: &SocketAddr| {
            wanted.ip() == found.ip() && (wanted.port() == 0 || wanted.port() == found.port())
        };
        match (self, other) {
            (Self::Datagram(wanted), Self::Datagram(found)) | (Self::Stream(wanted), Self::Stream(found)) => {
                is_same(wanted, found)
            }
            (Self::Unix(wanted), Self::Unix(found)) => wanted == found,
            _ => false,
        }
    }

    /// Name of the kind, as in the names of stored sockets.
    fn kind(&self) -> &'static str {
        match self {
            Self::Datagram(_) => "udp",
            Self::Stream(_) => "tcp",
            Self::Unix(_) => "unix",
        }
    }
}

fn unix_path(address: SocketAddrAny) -> Option<PathBuf> {
    let address = SocketAddrUnix::try_from(address).ok()?;
    Some(Path::new(OsStr::from_bytes(address.path_bytes()?)).to_owned())
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datagram(address) => write!(f, "UDP {address}"),
            Self::Stream(address) => write!(f, "TCP {address}"),
            Self::Unix(path) => write!(f, "unix socket {}", path.display()),
        }
    }
}

/// Sockets that were passed for one address.
#[derive(Debug)]
pub enum PassedSockets {
    /// None: the address has to be bound.
    None,
    /// One for each core, in core order.
    PerCore(Vec<OwnedFd>),
    /// One for all cores.
    Shared(OwnedFd),
}

struct Passed {
    address: ListenAddress,
    name: String,
    fd: OwnedFd,
}

impl Passed {
    /// Position among the sockets of its address: the core, if the name has one.
    fn core(&self) -> Option<usize> {
        self.name.rsplit_once('-').and_then(|(_, number)| number.parse().ok())
    }
}

/// A socket in use.
pub(crate) struct ListenSocket {
    pub(crate) address: ListenAddress,
    pub(crate) core: usize,
    pub(crate) fd: OwnedFd,
}

impl ListenSocket {
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.address, ListenAddress::Unix(_))
    }

    /// Whether connections are accepted from it.
    pub(crate) fn is_stream(&self) -> bool {
        match self.address {
            ListenAddress::Stream(_) | ListenAddress::Unix(_) => true,
            ListenAddress::Datagram(_) => false,
        }
    }

    /// Name by which the service manager keeps it.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.address.kind(), self.core)
    }
}

/// Listening sockets that were passed to this process, and duplicates of those in use.
pub struct ListenSockets {
    passed: Vec<Passed>,
    /// Who has passed them.
    origin: &'static str,
    kept: Vec<ListenSocket>,
    /// Number of cores, which decides whether there is a socket for each.
    cores: usize,
}

impl Default for ListenSockets {
    fn default() -> Self {
        Self { passed: Vec::new(), origin: "the service manager", kept: Vec::new(), cores: 0 }
    }
}

impl fmt::Debug for ListenSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenSockets").field("passed", &self.passed.len()).finish_non_exhaustive()
    }
}

impl ListenSockets {
    /// Those that the service manager has passed (`LISTEN_FDS`), if there are any. To be called before the
    /// process opens any descriptor that it keeps.
    pub(crate) fn from_service_manager() -> Self {
        let variable = |name| std::env::var(name).ok();
        let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
        if number("LISTEN_PID") != Some(std::process::id()) {
            return Self::default();
        }
        let count = number("LISTEN_FDS").and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let fds = sys::descriptors_of_start(count.min(MAX_PASSED));
        Self::of(fds.into_iter().zip(names).collect())
    }

    fn of(passed: Vec<(OwnedFd, String)>) -> Self {
        let mut sockets = Self::default();
        for (fd, name) in passed {
            match ListenAddress::of(&fd) {
                Some(address) => sockets.passed.push(Passed { address, name, fd }),
                None => log::warn!(
                    "a descriptor that was passed ({name}) is no listening socket, so it is closed"
                ),
            }
        }
        sockets
    }

    /// Adds sockets of a predecessor, with their cores.
    pub(crate) fn add_passed(&mut self, sockets: Vec<(usize, OwnedFd)>) {
        let named = sockets.into_iter().map(|(core, fd)| (fd, format!("socket-{core}"))).collect();
        self.passed.append(&mut Self::of(named).passed);
        self.origin = PREDECESSOR;
    }

    /// Whether they come from a predecessor, and this process is to do with them as with its own.
    #[must_use]
    pub fn are_handed_over(&self) -> bool {
        self.origin == PREDECESSOR
    }

    /// Sets the number of cores, which decides whether there is a socket for each.
    pub(crate) fn set_cores(&mut self, cores: usize) {
        self.cores = cores;
    }

    /// Removes the sockets that were passed for an address. They are closed, and none is returned, if there
    /// are neither as many as cores nor one.
    pub fn take(&mut self, wanted: &ListenAddress) -> PassedSockets {
        let Some(first) = self.passed.iter().find(|passed| wanted.accepts(&passed.address)) else {
            return PassedSockets::None;
        };
        let address = first.address.clone();
        let (mut group, rest) =
            std::mem::take(&mut self.passed).into_iter().partition::<Vec<_>, _>(|p| p.address == address);
        self.passed = rest;
        // Stable, so those without a number keep their order.
        group.sort_by_key(Passed::core);
        log::info!("{address}: using {} socket(s) passed by {}", group.len(), self.origin);
        // A predecessor passes one that its cores share on for each of them.
        if group.len() == 1 || are_same(&group) {
            return group.pop().map_or(PassedSockets::None, |passed| PassedSockets::Shared(passed.fd));
        }
        if group.len() == self.cores {
            return PassedSockets::PerCore(group.into_iter().map(|passed| passed.fd).collect());
        }
        log::warn!(
            "{address}: {} sockets were passed, but workers = {}, so new ones are opened. What waits in them is lost",
            group.len(),
            self.cores
        );
        discard(group);
        PassedSockets::None
    }

    /// Keeps a duplicate of a socket of a core, to be passed on.
    ///
    /// # Errors
    /// Too many open files.
    pub fn keep(&mut self, address: ListenAddress, core: usize, socket: &impl AsFd) -> io::Result<()> {
        let fd = socket.as_fd().try_clone_to_owned()?;
        self.kept.push(ListenSocket { address, core, fd });
        Ok(())
    }

    /// The sockets in use. Closes those that were passed and are not.
    pub(crate) fn finish(self) -> Vec<ListenSocket> {
        let Self { passed, kept, .. } = self;
        for passed in &passed {
            log::warn!(
                "{}: a socket was passed for it, but the configuration does not listen there, so it is closed",
                passed.address
            );
        }
        if !passed.is_empty() {
            discard(passed);
        }
        kept
    }
}

/// Whether all are one socket.
fn are_same(sockets: &[Passed]) -> bool {
    let mut numbers = sockets.iter().map(|socket| fstat(&socket.fd).map(|stat| stat.st_ino));
    match numbers.next() {
        Some(Ok(first)) => numbers.all(|number| number == Ok(first)),
        Some(Err(_)) | None => false,
    }
}

/// Closes sockets, also those that the service manager keeps of them.
fn discard(sockets: Vec<Passed>) {
    let mut names: Vec<String> = sockets.iter().map(|socket| socket.name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    drop(sockets);
    Notifier::from_environment().forget(names.iter().map(String::as_str));
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use rustix::net::sockopt::set_socket_reuseport;
    use rustix::net::{AddressFamily, bind, socket};

    use super::*;

    /// A socket for datagrams, and its address.
    fn datagrams() -> (OwnedFd, SocketAddr) {
        let socket = datagrams_at(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = getsockname(&socket).unwrap().try_into().unwrap();
        (socket, address)
    }

    /// One of several sockets for datagrams with an address.
    fn datagrams_at(address: SocketAddr) -> OwnedFd {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        set_socket_reuseport(&socket, true).unwrap();
        bind(&socket, &address).unwrap();
        socket
    }

    fn passed(sockets: Vec<(OwnedFd, &str)>, cores: usize) -> ListenSockets {
        let named = sockets.into_iter().map(|(fd, name)| (fd, name.to_owned())).collect();
        ListenSockets { cores, ..ListenSockets::of(named) }
    }

    fn numbers(passed: PassedSockets) -> Vec<i32> {
        match passed {
            PassedSockets::None => Vec::new(),
            PassedSockets::PerCore(fds) => fds.iter().map(AsRawFd::as_raw_fd).collect(),
            PassedSockets::Shared(fd) => vec![-fd.as_raw_fd()],
        }
    }

    #[test]
    fn sockets_are_found_by_kind_and_address_and_stand_in_core_order() {
        let (udp, address) = datagrams();
        let second = datagrams_at(address);
        let (zero, one) = (second.as_raw_fd(), udp.as_raw_fd());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let (tcp_address, tcp_number) = (tcp.local_addr().unwrap(), tcp.as_raw_fd());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let unix = UnixListener::bind(&path).unwrap();
        let unix_number = unix.as_raw_fd();
        let all = vec![(udp, "udp-1"), (tcp.into(), "web"), (unix.into(), ""), (second, "udp-0")];
        let mut sockets = passed(all, 2);
        let elsewhere = "127.0.0.2:0".parse().unwrap();
        assert_eq!(numbers(sockets.take(&ListenAddress::Datagram(elsewhere))), [0; 0]);
        assert_eq!(numbers(sockets.take(&ListenAddress::Stream(address))), [0; 0]);
        assert_eq!(numbers(sockets.take(&ListenAddress::Datagram(address))), [zero, one]);
        let any_port = SocketAddr::new(tcp_address.ip(), 0);
        assert_eq!(numbers(sockets.take(&ListenAddress::Stream(any_port))), [-tcp_number]);
        assert_eq!(numbers(sockets.take(&ListenAddress::Unix(path))), [-unix_number]);
        assert!(sockets.finish().is_empty());
    }

    #[test]
    fn a_wrong_number_of_sockets_is_closed() {
        let (udp, at) = datagrams();
        let address = ListenAddress::Datagram(at);
        let sockets = || vec![(udp.try_clone().unwrap(), "udp-0"), (datagrams_at(at), "udp-0")];
        assert_eq!(numbers(passed(sockets(), 3).take(&address)), [0; 0]);
        assert_eq!(numbers(passed(sockets(), 2).take(&address)).len(), 2);
    }

    #[test]
    fn a_socket_that_cores_share_is_one_however_often_it_is_passed() {
        let (udp, address) = datagrams();
        let address = ListenAddress::Datagram(address);
        for cores in [2, 3] {
            let copies = (0..cores).map(|_| (udp.try_clone().unwrap(), "udp-0")).collect();
            let taken = passed(copies, cores).take(&address);
            assert!(matches!(taken, PassedSockets::Shared(_)), "{taken:?}");
        }
    }

    #[test]
    fn connections_and_files_are_no_listening_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let sockets = passed(vec![(connection.into(), ""), (file.into(), "")], 1);
        assert!(sockets.passed.is_empty());
    }

    #[test]
    fn duplicates_are_kept_by_core() {
        let mut sockets = ListenSockets::default();
        let (udp, address) = datagrams();
        sockets.keep(ListenAddress::Datagram(address), 3, &udp).unwrap();
        let kept = sockets.finish();
        assert_eq!((kept[0].name().as_str(), kept.len()), ("udp-3", 1));
        drop(udp);
        assert_eq!(ListenAddress::of(&kept[0]), Some(ListenAddress::Datagram(address)));
    }
}
