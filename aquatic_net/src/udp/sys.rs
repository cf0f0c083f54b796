//! The system calls of the UDP path: batches of datagrams in and out, the steering program, the counter of
//! drops. Everything here is a thin shell; what the bytes mean is decided elsewhere.
//!
//! `recvmmsg` and `sendmmsg` are called directly: the functions of the C library also make them points at
//! which a thread can be cancelled, twice per call.
#![allow(unsafe_code, reason = "system calls; each block states the fact that makes it sound")]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_uint, c_void, socklen_t};

/// Room for one `IP_PKTINFO` or `IPV6_PKTINFO` message, with some to spare.
const CONTROL_SIZE: usize = 64;

/// An address as the kernel writes and reads it.
///
/// `repr(C, align(8))` over plain bytes: large enough for both families, valid for every bit pattern.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct RawAddress {
    bytes: [u8; size_of::<libc::sockaddr_in6>()],
    len: socklen_t,
}

impl RawAddress {
    const EMPTY: Self = Self { bytes: [0; size_of::<libc::sockaddr_in6>()], len: 0 };
    const CAPACITY: socklen_t = size_of::<libc::sockaddr_in6>() as socklen_t;
    const V4_LEN: socklen_t = size_of::<libc::sockaddr_in>() as socklen_t;

    /// The address as a value; `None` for a family other than the two of IP.
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        let family = u16::from_ne_bytes([self.bytes[0], self.bytes[1]]);
        let port = u16::from_be_bytes([self.bytes[2], self.bytes[3]]);
        match c_int::from(family) {
            libc::AF_INET => {
                let [_, _, _, _, a, b, c, d, ..] = self.bytes;
                Some(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port).into())
            }
            libc::AF_INET6 => {
                let flow = u32::from_ne_bytes(copy(&self.bytes[4..8]));
                let ip = Ipv6Addr::from(copy::<16>(&self.bytes[8..24]));
                let scope = u32::from_ne_bytes(copy(&self.bytes[24..28]));
                Some(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => None,
        }
    }

    /// The kernel's form of an address.
    pub(super) fn encode(address: SocketAddr) -> Self {
        let mut raw = Self::EMPTY;
        let family = match address {
            SocketAddr::V4(v4) => {
                raw.bytes[4..8].copy_from_slice(&v4.ip().octets());
                raw.len = Self::V4_LEN;
                libc::AF_INET
            }
            SocketAddr::V6(v6) => {
                raw.bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                raw.bytes[8..24].copy_from_slice(&v6.ip().octets());
                raw.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                raw.len = Self::CAPACITY;
                libc::AF_INET6
            }
        };
        raw.bytes[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
        raw.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        raw
    }
}

fn copy<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

/// Control messages of one datagram, aligned as the kernel wants them.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; CONTROL_SIZE],
    len: usize,
}

impl Control {
    const EMPTY: Self = Self { bytes: [0; CONTROL_SIZE], len: 0 };
    const HEADER: usize = size_of::<libc::cmsghdr>();

    /// What is sent with a reply that is to leave from an address. Link-local addresses need an interface as
    /// well, and have none here.
    fn leave_from(local: IpAddr) -> Self {
        let mut control = Self::EMPTY;
        let (level, kind, size) = match local {
            IpAddr::V4(v4) => {
                control.bytes[Self::HEADER + 4..Self::HEADER + 8].copy_from_slice(&v4.octets());
                (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<libc::in_pktinfo>())
            }
            IpAddr::V6(v6) => {
                control.bytes[Self::HEADER..Self::HEADER + 16].copy_from_slice(&v6.octets());
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of::<libc::in6_pktinfo>())
            }
        };
        let end = Self::HEADER + size;
        control.bytes[..size_of::<usize>()].copy_from_slice(&end.to_ne_bytes());
        control.set(mem::offset_of!(libc::cmsghdr, cmsg_level), level);
        control.set(mem::offset_of!(libc::cmsghdr, cmsg_type), kind);
        control.len = end.next_multiple_of(size_of::<usize>());
        control
    }

    fn set(&mut self, at: usize, number: c_int) {
        self.bytes[at..at + size_of::<c_int>()].copy_from_slice(&number.to_ne_bytes());
    }

    /// Turns what was received into what must be sent so that the reply leaves from the address the packet
    /// came to. Anything that is not packet information is dropped, and the kernel then chooses the source.
    fn received_to_sent(&mut self) {
        const LEVEL: usize = mem::offset_of!(libc::cmsghdr, cmsg_level);
        const TYPE: usize = mem::offset_of!(libc::cmsghdr, cmsg_type);
        let header = |at: usize| c_int::from_ne_bytes(copy(&self.bytes[at..at + 4]));
        let kind = (self.len >= Self::HEADER).then(|| (header(LEVEL), header(TYPE)));
        match kind {
            Some((libc::IPPROTO_IP, libc::IP_PKTINFO)) => self.answer_v4(),
            Some((libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)) => self.answer_v6(),
            _ => self.len = 0,
        }
    }

    /// `in_pktinfo` is interface (4 bytes), local address (4), address in the packet's header (4). To send,
    /// the local address is the source; interface 0 lets routing decide.
    fn answer_v4(&mut self) {
        let size = size_of::<libc::in_pktinfo>();
        let info = Self::HEADER;
        let destination: [u8; 4] = copy(&self.bytes[info + 8..info + 12]);
        self.bytes[info..info + 4].fill(0);
        self.bytes[info + 4..info + 8].copy_from_slice(&destination);
        self.bytes[info + 8..info + 12].fill(0);
        self.len = (Self::HEADER + size).next_multiple_of(size_of::<usize>());
    }

    /// `in6_pktinfo` is address (16 bytes) and interface (4). The interface only matters, and only stays, for
    /// link-local addresses.
    fn answer_v6(&mut self) {
        let size = size_of::<libc::in6_pktinfo>();
        let info = Self::HEADER;
        let local = Ipv6Addr::from(copy::<16>(&self.bytes[info..info + 16]));
        if !local.is_unicast_link_local() {
            self.bytes[info + 16..info + 20].fill(0);
        }
        self.len = (Self::HEADER + size).next_multiple_of(size_of::<usize>());
    }
}

/// What was received with one datagram besides its bytes.
#[derive(Clone, Copy)]
pub(super) struct Envelope {
    pub(super) address: RawAddress,
    pub(super) control: Control,
    /// Bytes in the buffer.
    pub(super) len: usize,
    /// The datagram was larger than the buffer.
    pub(super) truncated: bool,
}

impl Envelope {
    pub(super) const EMPTY: Self =
        Self { address: RawAddress::EMPTY, control: Control::EMPTY, len: 0, truncated: false };

    /// An envelope for a datagram that answers none; the kernel chooses the source address.
    pub(super) fn to(address: SocketAddr) -> Self {
        Self { address: RawAddress::encode(address), ..Self::EMPTY }
    }

    /// An envelope for a datagram from a local address.
    pub(super) fn between(local: IpAddr, address: SocketAddr) -> Self {
        Self { control: Control::leave_from(local), ..Self::to(address) }
    }
}

/// Headers of messages and where their bytes are.
struct Headers<const N: usize> {
    messages: Box<[libc::mmsghdr; N]>,
    vectors: Box<[libc::iovec; N]>,
}

impl<const N: usize> Headers<N> {
    fn new() -> Self {
        let message = libc::mmsghdr { msg_hdr: empty_header(), msg_len: 0 };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self { messages: Box::new([message; N]), vectors: Box::new([vector; N]) }
    }
}

/// Headers for `recvmmsg` with up to N buffers of SIZE bytes each. A call writes again what the one before
/// has changed, so that a datagram that comes alone does not cost as much as N.
pub(super) struct ReceiveHeaders<const N: usize, const SIZE: usize> {
    headers: Headers<N>,
    /// What the headers were written for.
    target: Option<Target>,
    /// Number of headers that the kernel has changed since.
    changed: usize,
}

/// Addresses of the first buffer and the first envelope, their number, and whether there is room for control
/// messages.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Target {
    buffers: usize,
    envelopes: usize,
    count: usize,
    want_control: bool,
}

// SAFETY: the pointers inside are only followed by the kernel, during a call that has just written or
// compared them.
unsafe impl<const N: usize, const SIZE: usize> Send for ReceiveHeaders<N, SIZE> {}

#[allow(clippy::unnecessary_cast, reason = "lengths and flags have other types in musl")]
impl<const N: usize, const SIZE: usize> ReceiveHeaders<N, SIZE> {
    pub(super) fn new() -> Self {
        Self { headers: Headers::new(), target: None, changed: 0 }
    }

    /// Receives up to as many datagrams as there are envelopes without waiting and returns their number; zero
    /// when none is there. With `want_control` the address each was sent to is noted for the reply.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: &mut [[u8; SIZE]],
        envelopes: &mut [Envelope],
        want_control: bool,
    ) -> io::Result<usize> {
        let count = N.min(buffers.len()).min(envelopes.len());
        // Exposed each time: what the kernel follows are addresses that an earlier call may have written.
        let target = Target {
            buffers: buffers.as_mut_ptr().expose_provenance(),
            envelopes: envelopes.as_mut_ptr().expose_provenance(),
            count,
            want_control,
        };
        let stale = if self.target.replace(target) == Some(target) { self.changed } else { count };
        let Headers { messages, vectors } = &mut self.headers;
        for (at, (buffer, envelope)) in buffers.iter_mut().zip(envelopes.iter_mut()).take(stale).enumerate() {
            vectors[at] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: SIZE };
            let vector = &raw mut vectors[at];
            let header = &mut messages[at].msg_hdr;
            header.msg_name = envelope.address.bytes.as_mut_ptr().cast();
            header.msg_namelen = RawAddress::CAPACITY;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = envelope.control.bytes.as_mut_ptr().cast();
            header.msg_controllen = (if want_control { CONTROL_SIZE } else { 0 }) as _;
            header.msg_flags = 0;
        }
        // SAFETY: the first `count` headers point to buffers, envelopes and vectors that outlive the call,
        // with their true sizes: they were written for these addresses, and those that the kernel has changed
        // since were written again; `count` is at most N.
        let received = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count as c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut::<libc::timespec>(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            // The kernel may have begun with the first one.
            self.changed = count.min(1);
            return no_datagram(io::Error::last_os_error());
        };
        self.changed = count.min(received + 1);
        for (message, envelope) in messages.iter().zip(envelopes.iter_mut()).take(received) {
            envelope.address.len = message.msg_hdr.msg_namelen.min(RawAddress::CAPACITY);
            envelope.control.len = (message.msg_hdr.msg_controllen as usize).min(CONTROL_SIZE);
            envelope.len = (message.msg_len as usize).min(SIZE);
            envelope.truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            envelope.control.received_to_sent();
        }
        Ok(received)
    }
}

/// Receives one datagram without waiting and returns 1, or 0 if none is there. Costs less than a batch of
/// one. With `want_control` the address it was sent to is noted for the reply.
#[allow(clippy::unnecessary_cast, reason = "lengths have other types in musl")]
pub(super) fn receive_one<const SIZE: usize>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8; SIZE],
    envelope: &mut Envelope,
    want_control: bool,
) -> io::Result<usize> {
    let address = envelope.address.bytes.as_mut_ptr();
    // To be told of the length before it was cut.
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let (len, address_len, control_len) = if want_control {
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: SIZE };
        let mut header = empty_header();
        header.msg_name = address.cast();
        header.msg_namelen = RawAddress::CAPACITY;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = envelope.control.bytes.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_SIZE as _;
        // SAFETY: the header points to the buffer, the envelope and the vector, which outlive the call, with
        // their true sizes.
        let len = unsafe { libc::syscall(libc::SYS_recvmsg, socket.as_raw_fd(), &raw mut header, flags) };
        (len, header.msg_namelen, header.msg_controllen as usize)
    } else {
        let mut address_len = RawAddress::CAPACITY;
        // SAFETY: the buffer and the address outlive the call and have these sizes.
        let len = unsafe {
            libc::syscall(
                libc::SYS_recvfrom,
                socket.as_raw_fd(),
                buffer.as_mut_ptr(),
                SIZE,
                flags,
                address,
                &raw mut address_len,
            )
        };
        (len, address_len, 0)
    };
    let Ok(len) = usize::try_from(len) else { return no_datagram(io::Error::last_os_error()) };
    envelope.address.len = address_len.min(RawAddress::CAPACITY);
    envelope.control.len = control_len.min(CONTROL_SIZE);
    envelope.len = len.min(SIZE);
    envelope.truncated = len > SIZE;
    envelope.control.received_to_sent();
    Ok(1)
}

/// Sends one datagram without waiting. Costs less than a batch of one.
fn send_one(socket: BorrowedFd<'_>, envelope: &Envelope, bytes: &[u8]) -> io::Result<usize> {
    let (address, flags) = (envelope.address.bytes.as_ptr(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    let sent = if envelope.control.len == 0 {
        // SAFETY: the bytes and the address outlive the call and have these sizes.
        unsafe {
            libc::syscall(
                libc::SYS_sendto,
                socket.as_raw_fd(),
                bytes.as_ptr(),
                bytes.len(),
                flags,
                address,
                envelope.address.len,
            )
        }
    } else {
        let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut header = empty_header();
        header.msg_name = address.cast_mut().cast();
        header.msg_namelen = envelope.address.len;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = envelope.control.bytes.as_ptr().cast_mut().cast();
        header.msg_controllen = envelope.control.len as _;
        // SAFETY: the header points to the envelope, the bytes and the vector, which outlive the call, with
        // their true sizes; the kernel does not write through it.
        unsafe { libc::syscall(libc::SYS_sendmsg, socket.as_raw_fd(), &raw const header, flags) }
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(1) }
}

fn empty_header() -> libc::msghdr {
    // SAFETY: a C structure of integers and pointers, for which all-zero bytes are a valid value.
    unsafe { mem::zeroed() }
}

/// Headers for `sendmmsg`, kept to spare an allocation per batch. The pointers in them are written anew for
/// every call and never read after it.
pub(super) struct SendHeaders<const N: usize>(Headers<N>);

// SAFETY: the pointers inside are only followed by the kernel during a call that has just written them.
unsafe impl<const N: usize> Send for SendHeaders<N> {}

#[allow(clippy::unnecessary_cast, reason = "lengths and flags have other types in musl")]
impl<const N: usize> SendHeaders<N> {
    pub(super) fn new() -> Self {
        Self(Headers::new())
    }

    /// Sends the datagrams in order without waiting and returns how many the kernel took. An error belongs to
    /// the first datagram.
    pub(super) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: impl Iterator<Item = (&'a Envelope, &'a [u8])>,
    ) -> io::Result<usize> {
        let mut datagrams = datagrams.take(N).peekable();
        let Some(first) = datagrams.next() else { return Ok(0) };
        if datagrams.peek().is_none() {
            return send_one(socket, first.0, first.1);
        }
        let Headers { messages, vectors } = &mut self.0;
        let mut count = 0;
        for (envelope, bytes) in std::iter::once(first).chain(datagrams) {
            let at = count;
            // The kernel only reads through these pointers when sending.
            vectors[at] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let vector = &raw mut vectors[at];
            let header = &mut messages[at].msg_hdr;
            header.msg_name = envelope.address.bytes.as_ptr().cast_mut().cast();
            header.msg_namelen = envelope.address.len;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = if envelope.control.len == 0 {
                std::ptr::null_mut()
            } else {
                envelope.control.bytes.as_ptr().cast_mut().cast()
            };
            header.msg_controllen = envelope.control.len as _;
            header.msg_flags = 0;
            count += 1;
        }
        // SAFETY: the first `count` headers point to envelopes and bytes borrowed for 'a, which outlives the
        // call, and to vectors of `self`; all with their true sizes; the kernel does not write through them.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_sendmmsg,
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count as c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Nothing to receive is not an error, and neither is an ICMP message about an earlier reply.
fn no_datagram(error: io::Error) -> io::Result<usize> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ECONNREFUSED) => Ok(0),
        _ => Err(error),
    }
}

/// Attaches a classic BPF program that chooses the socket of a SO_REUSEPORT group.
pub(super) fn attach_steering(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Attaches a classic BPF program that decides which datagrams reach the receive buffer. Replaces an earlier
/// one.
pub(super) fn attach_filter(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Removes the program of [`attach_filter`]. On a socket that cores share, another one may have done so.
pub(super) fn detach_filter(socket: BorrowedFd<'_>) -> io::Result<()> {
    let unused: c_int = 0;
    match set_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &unused) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Asks for the address each datagram was sent to.
pub(super) fn enable_packet_info(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    let on: c_int = 1;
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &on)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, &on)
    }
}

/// Sends IPv4 datagrams whole or not at all, whatever the kernel believes about the path. Datagrams that may
/// be cut on the way need an identification each, which costs the kernel some 3 % of a reply; and a forged
/// ICMP message about the path cannot have replies cut or refused.
pub(super) fn never_fragment(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_PROBE)
}

/// What the kernel tells about the memory of a socket (`SO_MEMINFO`).
pub(super) fn memory_info(socket: BorrowedFd<'_>) -> io::Result<[u32; libc::SK_MEMINFO_DROPS as usize + 1]> {
    let mut figures = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut len = size_of_val(&figures) as socklen_t;
    // SAFETY: `figures` has room for `len` bytes and outlives the call; every bit pattern is a valid u32.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            figures.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(figures) } else { Err(io::Error::last_os_error()) }
}

fn set_option<T>(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is readable for its size and outlives the call, and the callers pass the type the
    // option wants.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast::<c_void>(),
            size_of::<T>() as socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["192.0.2.7:6881", "[2001:db8::1]:80", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::encode(address).decode(), Some(address));
        }
        assert_eq!(RawAddress::EMPTY.decode(), None);
    }

    #[test]
    fn receive_headers_follow_their_buffers_and_are_as_new_for_each_call() {
        let (server, client) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let target = server.local_addr().unwrap();
        let mut headers = ReceiveHeaders::<4, 8>::new();
        let mut envelopes = [Envelope::EMPTY; 4];
        let (mut one, mut other) = ([[0; 8]; 4], [[0; 8]; 4]);
        for (text, buffers) in [(*b"first...", &mut one), (*b"second..", &mut other)] {
            client.send_to(&text, target).unwrap();
            client.send_to(&text, target).unwrap();
            assert_eq!(headers.receive(server.as_fd(), buffers, &mut envelopes, false).unwrap(), 2);
            assert_eq!((buffers[0], buffers[1]), (text, text));
            assert_eq!(headers.receive(server.as_fd(), buffers, &mut envelopes, false).unwrap(), 0);
            // The kernel has written the shorter length of an IPv4 address there.
            let room = headers.headers.messages.map(|message| message.msg_hdr.msg_namelen);
            assert_eq!(room, [RawAddress::CAPACITY; 4]);
        }
        assert_eq!(one[0], *b"first...");
    }
}
