//! Facts about network interfaces.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use libc::{c_char, c_int, c_void};

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::xdp) struct InterfaceAddress {
    pub(in crate::xdp) interface: String,
    pub(in crate::xdp) is_loopback: bool,
    pub(in crate::xdp) ip: IpAddr,
}

/// The addresses of all interfaces.
///
/// # Errors
/// Those of `getifaddrs`.
pub(in crate::xdp) fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: the call writes the address of a list, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = first;
    // SAFETY: `next` is null or an element of the list, which lives until it is freed.
    while let Some(element) = unsafe { next.as_ref() } {
        next = element.ifa_next;
        // SAFETY: an element has a name that ends with zero.
        let name = unsafe { CStr::from_ptr(element.ifa_name) }.to_string_lossy();
        // An IPv4 address may have a label, which follows the name and a colon.
        let interface = name.split(':').next().unwrap_or_default().to_owned();
        // SAFETY: an element has an address or none, as large as its family's.
        let ip = unsafe { address(element.ifa_addr) };
        if let Some(ip) = ip {
            found.push(InterfaceAddress {
                interface,
                is_loopback: element.ifa_flags & libc::IFF_LOOPBACK.unsigned_abs() != 0,
                ip,
            });
        }
    }
    // SAFETY: `first` is what `getifaddrs` returned, and nothing refers to the list any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// Reads an address; `None` for families other than those of IP.
///
/// # Safety
/// `address` must be null or that of a socket address as large as its family says.
unsafe fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller answers for it.
    let family = c_int::from(unsafe { address.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: of this family, it is a `sockaddr_in`.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family, it is a `sockaddr_in6`.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// Length of an interface's name with its final zero.
const NAME: usize = libc::IFNAMSIZ;

/// Requests of `ioctl` about interfaces take a name, and a number or another name.
#[repr(C, align(8))]
struct Request {
    name: [u8; NAME],
    number: c_int,
    rest: [u8; 24],
}

impl Request {
    fn about(interface: &str) -> io::Result<Self> {
        let mut name = [0; NAME];
        let bytes = interface.as_bytes();
        let place = name.get_mut(..bytes.len()).filter(|place| place.len() < NAME);
        place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        Ok(Self { name, number: 0, rest: [0; 24] })
    }

    fn ask(&mut self, socket: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<c_int> {
        // SAFETY: the requests used here read and write a `struct ifreq`, which `Self` is as large as.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, ptr::from_mut(self)) };
        if result != 0 { Err(io::Error::last_os_error()) } else { Ok(self.number) }
    }
}

/// Sockets through which interfaces are asked about.
#[derive(Debug)]
pub(in crate::xdp) struct Asker(OwnedFd);

impl Asker {
    /// A socket for questions.
    ///
    /// # Errors
    /// Those of `socket`.
    pub(in crate::xdp) fn new() -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
        Ok(Self(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?))
    }

    /// Number of an interface.
    ///
    /// # Errors
    /// ENODEV if there is none.
    pub(in crate::xdp) fn index(&self, interface: &str) -> io::Result<u32> {
        Ok(Request::about(interface)?.ask(self.0.as_fd(), libc::SIOCGIFINDEX as libc::Ioctl)?.unsigned_abs())
    }

    /// Maximum size of an interface's packets.
    ///
    /// # Errors
    /// ENODEV if there is none.
    pub(in crate::xdp) fn max_packet(&self, interface: &str) -> io::Result<u32> {
        Ok(Request::about(interface)?.ask(self.0.as_fd(), libc::SIOCGIFMTU as libc::Ioctl)?.unsigned_abs())
    }

    /// Hardware address of an Ethernet interface.
    ///
    /// # Errors
    /// ENODEV if there is none, EOPNOTSUPP for interfaces of other kinds.
    pub(in crate::xdp) fn hardware_address(&self, interface: &str) -> io::Result<[u8; 6]> {
        let mut request = Request::about(interface)?;
        let number = request.ask(self.0.as_fd(), libc::SIOCGIFHWADDR as libc::Ioctl)?;
        // A `struct sockaddr`: the kind of hardware, then the address.
        let [kind_low, kind_high, first, second] = number.to_ne_bytes();
        if u16::from_ne_bytes([kind_low, kind_high]) != libc::ARPHRD_ETHER {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let [third, fourth, fifth, sixth, ..] = request.rest;
        Ok([first, second, third, fourth, fifth, sixth])
    }

    /// Number of an interface's receive queues; `None` where the driver does not tell.
    pub(in crate::xdp) fn queues(&self, interface: &str) -> Option<u32> {
        /// From `linux/sockios.h` and `linux/ethtool.h`.
        const SIOCETHTOOL: libc::Ioctl = 0x8946;
        const ETHTOOL_GCHANNELS: u32 = 0x3c;
        let Request { name, .. } = Request::about(interface).ok()?;
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        let mut request = PointerRequest { name, data: (&raw mut channels).cast(), _rest: [0; 16] };
        // SAFETY: this request reads and writes a `struct ifreq`, which `request` is as large as, and the
        // `struct ethtool_channels` that it points to; both outlive the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        (result == 0).then(|| channels.receive.saturating_add(channels.combined))
    }

    /// The interface and the tag (IEEE 802.1Q) of a VLAN's interface; `None` for other interfaces.
    pub(in crate::xdp) fn vlan(&self, interface: &str) -> Option<(String, u16)> {
        /// Commands of `SIOCGIFVLAN`, from `linux/if_vlan.h`.
        const REAL_DEVICE: c_int = 8;
        const NUMBER: c_int = 9;
        let name = VlanRequest::ask(&self.0, REAL_DEVICE, interface)?;
        let end = name.iter().position(|&byte| byte == 0)?;
        let parent = String::from_utf8_lossy(name.get(..end)?).into_owned();
        let number = VlanRequest::ask(&self.0, NUMBER, interface)?;
        let number = c_int::from_ne_bytes(*number.first_chunk()?);
        Some((parent, u16::try_from(number).ok()?))
    }
}

/// `struct ethtool_channels`.
#[derive(Default)]
#[repr(C)]
struct Channels {
    command: u32,
    _maxima: [u32; 4],
    receive: u32,
    _send: u32,
    _other: u32,
    combined: u32,
}

/// A request that points to more.
#[repr(C, align(8))]
struct PointerRequest {
    name: [u8; NAME],
    data: *mut c_void,
    _rest: [u8; 16],
}

/// `struct vlan_ioctl_args`.
#[repr(C)]
struct VlanRequest {
    command: c_int,
    name: [u8; 24],
    answer: [u8; 24],
    priority: i16,
}

impl VlanRequest {
    fn ask(socket: &OwnedFd, command: c_int, interface: &str) -> Option<[u8; 24]> {
        /// From `linux/sockios.h`.
        const SIOCGIFVLAN: libc::Ioctl = 0x8982;
        let mut request = Self { command, name: [0; 24], answer: [0; 24], priority: 0 };
        let place = request.name.get_mut(..interface.len())?;
        place.copy_from_slice(interface.as_bytes());
        // SAFETY: this request reads and writes a `struct vlan_ioctl_args`, which `Self` is.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGIFVLAN, (&raw mut request).cast::<c_void>()) };
        (result == 0 && interface.len() < NAME).then_some(request.answer)
    }
}

const _: () = assert!(size_of::<Request>() >= size_of::<libc::ifreq>(), "the kernel writes so much");
const _: () = assert!(size_of::<PointerRequest>() >= size_of::<libc::ifreq>(), "the kernel writes so much");
const _: () = assert!(size_of::<c_char>() == 1, "names are bytes");
