//! From an interface's name to queues that are served: program, maps, sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::{Duration, Instant};

use aquatic_common::config::{NetworkConfig, PrivilegesConfig, XdpMode};

use super::control::XdpControl;
use super::program::{self, ENDPOINT_KEY, MapDescriptors, NETWORK_KEY, PASS, SWITCH_SIZE};
use super::queue::{Shared, Switches, XdpQueue};
use super::sys::bpf::{self, Attachment, Map, MapKind, MapSizes};
use super::sys::interface::Asker;
use super::sys::socket::{LOCKED, Transfer, XdpSocket};
use crate::block_list::BlockList;

/// Maximum number of queues that are served. Each takes 4 MiB.
const MAX_QUEUES: usize = 128;

/// Maximum number of endpoints: addresses times ports.
const MAX_ENDPOINTS: usize = 4096;

/// Maximum number of networks that the program blocks. Longer lists are left to the handler.
pub(super) const MAX_BLOCKED: usize = 65_536;

/// Time that a program of a process that has just ended may stay attached.
const DETACH_TIME: Duration = Duration::from_secs(2);

/// Why frames cannot be received from an interface.
#[derive(Debug)]
pub enum XdpError {
    /// There is no such interface.
    NoInterface(String),
    /// The process may not do what is needed.
    Forbidden(&'static str),
    /// Another program is attached to the interface.
    Busy(String),
    /// The limit of locked memory is too low.
    LockedMemory,
    /// The kernel refused something else; what, and why.
    Refused(String),
}

impl fmt::Display for XdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface(name) => write!(
                f,
                "{} = \"{name}\": there is no such network interface (ip link show)",
                NetworkConfig::xdp_interface
            ),
            Self::Forbidden(what) => write!(
                f,
                "this process may not {what}. Start the tracker as root with {} = true, or with the capabilities \
                 CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW (AmbientCapabilities= in a systemd unit)",
                PrivilegesConfig::drop_privileges
            ),
            Self::Busy(name) => write!(
                f,
                "another XDP program is attached to {name} (ip link show {name}). Remove it (ip link set {name} xdp \
                 off), or stop what uses it"
            ),
            Self::LockedMemory => write!(
                f,
                "the limit of locked memory is too low: each queue takes {} MiB. Raise it (LimitMEMLOCK=infinity in a \
                 systemd unit, ulimit -l), or give the process CAP_IPC_LOCK",
                LOCKED >> 20
            ),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for XdpError {}

impl XdpError {
    fn of(doing: &'static str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden(doing),
            Some(libc::ENOBUFS) => Self::LockedMemory,
            _ => Self::Refused(format!("cannot {doing}: {error}")),
        }
    }
}

/// How frames come from the interface to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    attachment: Attachment,
    transfer: Transfer,
}

impl Mode {
    const ZERO_COPY: Self = Self { attachment: Attachment::Driver, transfer: Transfer::ZeroCopy };
    const NATIVE: Self = Self { attachment: Attachment::Driver, transfer: Transfer::Copy };
    const GENERIC: Self = Self { attachment: Attachment::Generic, transfer: Transfer::Copy };

    /// The modes that a setting allows, in the order in which they are tried.
    fn allowed(setting: XdpMode) -> &'static [Self] {
        match setting {
            XdpMode::Auto => &[Self::ZERO_COPY, Self::NATIVE, Self::GENERIC],
            XdpMode::ZeroCopy => &[Self::ZERO_COPY],
            XdpMode::Native => &[Self::NATIVE],
            XdpMode::Generic => &[Self::GENERIC],
        }
    }

    /// Value of the label `mode` in metrics, as in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match (self.attachment, self.transfer) {
            (Attachment::Driver, Transfer::ZeroCopy) => "zero_copy",
            (Attachment::Driver, Transfer::Copy) => "native",
            (Attachment::Generic, _) => "generic",
        }
    }
}

/// An interface whose frames are received.
#[derive(Debug)]
pub struct Opened {
    /// The queues of each core, in core order.
    pub queues: Vec<Vec<XdpQueue>>,
    /// Keeps the program up to date, and attached for as long as it lives.
    pub control: XdpControl,
    /// How frames come to the process.
    pub mode: Mode,
}

/// What is to be received.
#[derive(Clone, Copy, Debug)]
pub struct XdpOptions<'a> {
    /// Name of the interface.
    pub interface: &'a str,
    /// Modes that may be used.
    pub mode: XdpMode,
    /// Addresses of the listeners, as they are bound.
    pub listeners: &'a [SocketAddr],
    /// Number of cores.
    pub cores: usize,
}

/// Maps that the program shares with this process.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) endpoints: Map,
    pub(super) switches: Map,
    pub(super) blocked: Map,
    sockets: Map,
    /// Number of queues that there may be sockets for.
    pub(super) queues: usize,
}

impl Maps {
    pub(super) fn new(queues: usize) -> io::Result<Self> {
        let map = |kind, key, value, entries| Map::new(kind, MapSizes { key, value, entries });
        Ok(Self {
            endpoints: map(MapKind::Hash, ENDPOINT_KEY, 4, MAX_ENDPOINTS)?,
            switches: map(MapKind::Array, 4, SWITCH_SIZE, queues)?,
            blocked: map(MapKind::Trie, NETWORK_KEY, 4, MAX_BLOCKED)?,
            sockets: map(MapKind::Sockets, 4, 4, queues)?,
            queues,
        })
    }

    pub(super) fn descriptors(&self) -> MapDescriptors {
        MapDescriptors {
            endpoints: self.endpoints.descriptor(),
            switches: self.switches.descriptor(),
            blocked: self.blocked.descriptor(),
            sockets: self.sockets.descriptor(),
        }
    }

    fn set_socket(&self, queue: u32, socket: &XdpSocket) -> io::Result<()> {
        self.sockets.set(&queue.to_ne_bytes(), &bpf::descriptor_value(socket.as_fd()))
    }
}

/// Whether there is no interface with this name. Needs no privilege.
#[must_use]
pub fn is_missing(name: &str) -> bool {
    Asker::new()
        .is_ok_and(|asker| asker.index(name).is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV)))
}

/// Memory in bytes that the sockets of an interface take, besides their rings; 0 if there is none of this
/// name.
#[must_use]
pub fn memory_of(name: &str) -> u64 {
    let Ok(asker) = Asker::new() else { return 0 };
    if asker.index(name).is_err() { 0 } else { queues_of(&asker, name) as u64 * LOCKED as u64 }
}

/// Number of queues of an interface that are served.
fn queues_of(asker: &Asker, name: &str) -> usize {
    asker.queues(name).map_or(1, |queues| queues as usize).clamp(1, MAX_QUEUES)
}

/// Attaches a program to an interface and opens a socket for each of its queues. Nothing is received before a
/// queue is [opened](XdpQueue::set_open). Logs how, and why not better.
///
/// # Errors
/// Why not, with what to do about it.
pub fn open(options: XdpOptions<'_>, blocked: &Arc<BlockList>) -> Result<Opened, XdpError> {
    let name = options.interface;
    let asker = Asker::new().map_err(|error| XdpError::of("ask for interfaces", &error))?;
    let interface = asker.index(name).map_err(|_| XdpError::NoInterface(name.to_owned()))?;
    let all_queues = queues_of(&asker, name);
    let maps = Maps::new(all_queues).map_err(|error| XdpError::of("make eBPF maps", &error))?;
    let hardware_address = asker.hardware_address(name).map_err(|error| {
        XdpError::Refused(format!(
            "{name} is no Ethernet interface: {error}. Name one that is (ip link show)"
        ))
    })?;
    let code = program::program(maps.descriptors(), hardware_address, PASS);
    let program = bpf::load(&code).map_err(|error| XdpError::of("load an eBPF program", &error))?;
    let Attached { link, first, mode, refusals } = attach(&program, (name, interface), options.mode)?;
    let switches = maps.switches.map_numbers().map_err(|error| XdpError::of("map an eBPF map", &error))?;
    let max_packet = asker.max_packet(name).map_err(|error| XdpError::of("ask for the MTU", &error))?;
    let shared = Shared {
        switches: Switches(Arc::new(switches)),
        listeners: options.listeners.into(),
        max_packet: Arc::new(AtomicU32::new(max_packet)),
    };
    let mut queues: Vec<Vec<XdpQueue>> = (0..options.cores).map(|_| Vec::new()).collect();
    let mut served = 0;
    let mut next = Some(first);
    for index in 0..all_queues {
        let socket = match next.take() {
            Some(socket) => Ok(socket),
            None => patiently(|| XdpSocket::bind(interface, index as u32, mode.transfer)),
        };
        let added = socket.and_then(|socket| maps.set_socket(index as u32, &socket).map(|()| socket));
        match added {
            Ok(socket) => {
                let core = index % options.cores.max(1);
                if let Some(queues) = queues.get_mut(core) {
                    queues.push(XdpQueue::new(socket, index, shared.clone()));
                    served += 1;
                }
            }
            Err(error) => {
                let error = XdpError::of("open an AF_XDP socket", &error);
                if served == 0 {
                    return Err(error);
                }
                log::warn!("AF_XDP: queue {index} and those behind it are served by sockets: {error}");
                break;
            }
        }
    }
    let refused = if refusals.is_empty() { String::new() } else { format!(" ({})", refusals.join("; ")) };
    log::info!(
        "AF_XDP: {served} of {all_queues} queue(s) of {name} served in mode \"{}\"{refused}; UDP frames in them are \
         invisible to tcpdump and the firewall",
        mode.name()
    );
    let control = XdpControl::new((name, asker), (maps, program, link), shared, Arc::clone(blocked));
    Ok(Opened { queues, control, mode })
}

struct Attached {
    link: OwnedFd,
    /// The socket of the first queue.
    first: XdpSocket,
    mode: Mode,
    /// Why better modes are not used.
    refusals: Vec<String>,
}

/// Attaches the program in the first mode that works.
fn attach(program: &OwnedFd, (name, interface): (&str, u32), setting: XdpMode) -> Result<Attached, XdpError> {
    let mut refusals = Vec::new();
    let mut last = XdpError::Refused("no mode is allowed".to_owned());
    let mut kept: Option<(Attachment, OwnedFd)> = None;
    for &mode in Mode::allowed(setting) {
        let link = match kept.take() {
            Some((attachment, link)) if attachment == mode.attachment => Ok(link),
            other => {
                // One program at a time.
                drop(other);
                patiently(|| bpf::attach(program, interface, mode.attachment))
            }
        };
        let link = match link {
            Ok(link) => link,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(XdpError::Busy(name.to_owned()));
            }
            Err(error) => {
                let refusal = format!("{}: the driver takes no program: {error}", mode.name());
                // Zero-copy needs the same attachment and was refused for the same reason.
                if refusals.last().is_none_or(|last: &String| !last.ends_with(&error.to_string())) {
                    refusals.push(refusal);
                }
                last = XdpError::of("attach an XDP program", &error);
                continue;
            }
        };
        match patiently(|| XdpSocket::bind(interface, 0, mode.transfer)) {
            Ok(first) => return Ok(Attached { link, first, mode, refusals }),
            Err(error) => {
                refusals.push(format!("{}: {error}", mode.name()));
                last = XdpError::of("open an AF_XDP socket", &error);
                kept = Some((mode.attachment, link));
            }
        }
    }
    if let XdpError::Refused(text) = &last {
        last = XdpError::Refused(format!("{text} (tried: {})", refusals.join("; ")));
    }
    Err(last)
}

/// Repeats what is refused because a process that has just ended still has it: its program is detached, and
/// its queues are freed, a moment after its end.
fn patiently<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    #[allow(clippy::disallowed_methods, reason = "before the cores start, there is no clock of theirs")]
    let deadline = Instant::now() + DETACH_TIME;
    loop {
        let result = attempt();
        let is_busy = matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EBUSY));
        #[allow(clippy::disallowed_methods, reason = "as above; the thread has nothing else to do")]
        {
            if !is_busy || Instant::now() > deadline {
                return result;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
