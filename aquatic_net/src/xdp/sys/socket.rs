//! AF_XDP sockets: a piece of memory (UMEM) divided into buffers, and four rings in which buffers go back and
//! forth between this process and the kernel.
//!
//! A buffer is always in one place: with the kernel to be filled (fill ring), received (RX ring, then the
//! batch), to be sent (TX ring), sent (completion ring), or spare. Its bytes are accessible while it is in
//! the batch or spare only, which is when the kernel does not touch it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::slice;

use libc::{c_int, c_uint, c_void, socklen_t};

use super::mapping::Mapping;
use super::ring::{Consumer, Producer};

/// Size of a buffer in bytes.
pub(in crate::xdp) const BUFFER: usize = 2048;

/// Number of buffers of a socket.
const BUFFERS: u32 = 2048;

/// Entries of each ring: each has room for all buffers.
pub(in crate::xdp) const RING: u32 = BUFFERS;

/// Memory that each socket locks, in bytes, besides its rings.
pub(in crate::xdp) const LOCKED: usize = BUFFER * BUFFERS as usize;

/// Buffers that are kept for replies to requests that another core received.
const SPARE: usize = 256;

/// Wake-ups in a row after which the rest of the TX ring waits for the next one. Kernels send 32 frames for
/// each, unless they may send more.
const WAKEUPS: usize = 4;

/// Maximum number of frames that the kernel sends at a wake-up (`XDP_MAX_TX_SKB_BUDGET`, Linux 6.18).
const SEND_BUDGET: c_int = 256;
const MAX_TX_SKB_BUDGET: c_int = 9;

/// Size of a cache line in bytes.
const CACHE_LINE: usize = 64;

/// Size of the send buffer: it need not be what limits the replies on their way.
const SEND_BUFFER: c_int = 8 << 20;

/// How a socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xdp) enum Transfer {
    /// The network card reads and writes the buffers.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

/// Counters of the kernel about a socket (`struct xdp_statistics`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::xdp) struct Statistics {
    /// Frames dropped for other reasons than the following, such as their length.
    pub(in crate::xdp) dropped: u64,
    /// Frames dropped because the RX ring was full.
    pub(in crate::xdp) ring_full: u64,
    /// Frames dropped because there was no buffer to be filled.
    pub(in crate::xdp) no_buffer: u64,
    /// Entries of the TX ring that the kernel refused.
    pub(in crate::xdp) refused: u64,
}

/// A received frame in its buffer.
#[derive(Clone, Copy, Debug)]
struct Received {
    /// Offset of the frame in the UMEM.
    start: usize,
    len: usize,
}

/// A socket that is bound to a queue of an interface.
#[derive(Debug)]
pub(in crate::xdp) struct XdpSocket {
    fd: OwnedFd,
    umem: Mapping,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    batch: Vec<Received>,
    /// Beginnings of spare buffers.
    spare: Vec<usize>,
    /// Frames that the kernel has not sent.
    unsent: usize,
}

/// `struct xdp_umem_reg` as of Linux 5.4.
#[repr(C)]
struct UmemRegistration {
    address: u64,
    len: u64,
    buffer: u32,
    headroom: u32,
    flags: u32,
    _padding: u32,
}

impl XdpSocket {
    /// A socket for a queue of an interface.
    ///
    /// # Errors
    /// Those of `socket`, `setsockopt`, `mmap` and `bind`.
    pub(in crate::xdp) fn bind(interface: u32, queue: u32, transfer: Transfer) -> io::Result<Self> {
        let mut socket = Self::new()?;
        // Limits are no reason to fail.
        let _ = set_option(socket.fd.as_fd(), (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE), &SEND_BUFFER);
        let _ = set_option(socket.fd.as_fd(), (libc::SOL_XDP, MAX_TX_SKB_BUDGET), &SEND_BUDGET);
        socket.give_back();
        let flags = match transfer {
            Transfer::ZeroCopy => libc::XDP_ZEROCOPY,
            Transfer::Copy => libc::XDP_COPY,
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: interface,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: `address` is readable for its size and outlives the call.
        let result = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_xdp>() as socklen_t,
            )
        };
        check(result).map(|_| socket)
    }

    /// A socket with its UMEM and rings, all of whose buffers are spare.
    fn new() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes numbers only.
        let fd = check(unsafe { libc::socket(libc::AF_XDP, kind, 0) })?;
        // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let umem = Mapping::anonymous(LOCKED)?;
        let registration = UmemRegistration {
            address: umem.start().as_ptr() as u64,
            len: umem.len() as u64,
            buffer: BUFFER as u32,
            headroom: 0,
            flags: 0,
            _padding: 0,
        };
        set_option(fd.as_fd(), (libc::SOL_XDP, libc::XDP_UMEM_REG), &registration)?;
        let rings =
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING];
        for ring in rings {
            set_option(fd.as_fd(), (libc::SOL_XDP, ring), &RING)?;
        }
        let offsets = ring_offsets(fd.as_fd())?;
        let page = |offset: u64| libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidData);
        Ok(Self {
            fill: Producer::map(fd.as_fd(), &offsets.fr, (RING, page(libc::XDP_UMEM_PGOFF_FILL_RING)?))?,
            completion: Consumer::map(
                fd.as_fd(),
                &offsets.cr,
                (RING, page(libc::XDP_UMEM_PGOFF_COMPLETION_RING)?),
            )?,
            rx: Consumer::map(fd.as_fd(), &offsets.rx, (RING, libc::XDP_PGOFF_RX_RING))?,
            tx: Producer::map(fd.as_fd(), &offsets.tx, (RING, libc::XDP_PGOFF_TX_RING))?,
            batch: Vec::new(),
            spare: (0..BUFFERS as usize).map(|buffer| buffer * BUFFER).collect(),
            unsent: 0,
            fd,
            umem,
        })
    }

    /// Receives frames, at most so many, into the batch, which must have been [`finish`](Self::finish)ed.
    /// Returns their number.
    pub(in crate::xdp) fn receive(&mut self, limit: usize) -> usize {
        debug_assert!(self.batch.is_empty(), "the last batch is finished");
        while self.batch.len() < limit
            && let Some(entry) = self.rx.pop()
        {
            let (start, len) = (entry.addr as usize, entry.len as usize);
            // The kernel keeps to the buffers that it was given.
            let is_inside = start < self.umem.len() && len <= BUFFER - start % BUFFER;
            debug_assert!(is_inside, "frames are inside their buffers");
            if is_inside {
                self.batch.push(Received { start, len });
            }
        }
        self.rx.publish();
        // Their first bytes are all read before any of them is answered, and come from another core.
        for &Received { start, .. } in &self.batch {
            self.umem.prefetch(start);
            self.umem.prefetch(start + CACHE_LINE);
        }
        self.batch.len()
    }

    /// Number of frames that have arrived and not been received.
    pub(in crate::xdp) fn waiting(&self) -> u32 {
        self.rx.len()
    }

    /// A received frame.
    pub(in crate::xdp) fn frame(&self, at: usize) -> &[u8] {
        let Some(&Received { start, len }) = self.batch.get(at) else { return &[] };
        let Some(address) = self.umem.at::<u8>(start) else { return &[] };
        // SAFETY: the frame is inside the UMEM, and while its buffer is in the batch, nobody writes it but
        // through `&mut self`.
        unsafe { slice::from_raw_parts(address.as_ptr(), len) }
    }

    /// A received frame with the rest of its buffer.
    pub(in crate::xdp) fn frame_mut(&mut self, at: usize) -> &mut [u8] {
        let Some(&Received { start, .. }) = self.batch.get(at) else { return &mut [] };
        let Some(address) = self.umem.at::<u8>(start) else { return &mut [] };
        let len = BUFFER - start % BUFFER;
        // SAFETY: the buffer is inside the UMEM, and while it is in the batch, this socket alone uses it; the
        // batch has each buffer once.
        unsafe { slice::from_raw_parts_mut(address.as_ptr(), len) }
    }

    /// Ends the batch: each frame for which there is a length is sent with that length, and the buffers of
    /// the others go back to the kernel to be filled.
    pub(in crate::xdp) fn finish(&mut self, mut length: impl FnMut(usize) -> usize) {
        for at in 0..self.batch.len() {
            let Some(&Received { start, .. }) = self.batch.get(at) else { break };
            match length(at).min(BUFFER - start % BUFFER) {
                0 => self.spare.push(start - start % BUFFER),
                len => self.send(start, len),
            }
        }
        self.batch.clear();
        self.hand_over();
    }

    /// Sends a frame that `write` writes into a spare buffer; it returns the length. Returns whether there
    /// was a buffer. [`hand_over`](Self::hand_over) has the kernel see it.
    pub(in crate::xdp) fn send_new(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(start) = self.spare.pop() else { return false };
        let Some(address) = self.umem.at::<u8>(start) else { return false };
        // SAFETY: the buffer is inside the UMEM; it is spare, so this socket alone uses it.
        let buffer = unsafe { slice::from_raw_parts_mut(address.as_ptr(), BUFFER) };
        match write(buffer).min(BUFFER) {
            0 => self.spare.push(start),
            len => self.send(start, len),
        }
        true
    }

    /// Whether there is a spare buffer.
    pub(in crate::xdp) fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// The caller has taken the buffer from the batch or from the spare ones.
    fn send(&mut self, start: usize, len: usize) {
        let entry = libc::xdp_desc { addr: start as u64, len: len as u32, options: 0 };
        if self.tx.push(entry) {
            self.unsent += 1;
        } else {
            // The ring has room for all buffers.
            debug_assert!(false, "the TX ring is full");
            self.spare.push(start - start % BUFFER);
        }
    }

    /// Has the kernel send what is to be sent, and fill what has been sent.
    pub(in crate::xdp) fn hand_over(&mut self) {
        if self.unsent > 0 {
            self.tx.publish();
            self.wake_sender();
            while let Some(address) = self.completion.pop() {
                let start = address as usize;
                self.spare.push(start - start % BUFFER);
                self.unsent = self.unsent.saturating_sub(1);
            }
            self.completion.publish();
        }
        self.give_back();
    }

    /// Gives spare buffers to the kernel to be filled, all but some.
    fn give_back(&mut self) {
        let mut given = false;
        while self.spare.len() > SPARE
            && let Some(start) = self.spare.pop()
        {
            if !self.fill.push(start as u64) {
                self.spare.push(start);
                break;
            }
            given = true;
        }
        if given {
            self.fill.publish();
        }
        if self.fill.needs_wakeup() {
            // SAFETY: nothing is read into memory.
            unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    ptr::null_mut(),
                    0,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                    ptr::null_mut(),
                )
            };
        }
    }

    /// Has the kernel look at the TX ring, if it waits for that.
    fn wake_sender(&self) {
        for _ in 0..WAKEUPS {
            if !self.tx.needs_wakeup() {
                return;
            }
            // SAFETY: nothing is sent from memory, and no address is given.
            let result = unsafe {
                libc::sendto(self.fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0)
            };
            // What remains is sent later: the interface is busy or down.
            let may_send_more = result < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
            if !may_send_more || self.tx.is_read() {
                return;
            }
        }
    }

    /// Number of frames that the kernel has not sent.
    pub(in crate::xdp) fn unsent(&self) -> usize {
        self.unsent
    }

    /// What the kernel has counted.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub(in crate::xdp) fn statistics(&self) -> io::Result<Statistics> {
        /// `struct xdp_statistics`; kernels before 5.9 know the first three.
        type Figures = [u64; 6];
        let [dropped, _invalid_fill, refused, ring_full, no_buffer, _] =
            get_option::<Figures>(self.fd.as_fd(), (libc::SOL_XDP, libc::XDP_STATISTICS))?;
        Ok(Statistics { dropped, ring_full, no_buffer, refused })
    }

    /// Why the socket works no longer, such as because the interface is gone; each reason once.
    pub(in crate::xdp) fn take_error(&self) -> Option<io::Error> {
        let code: c_int = get_option(self.fd.as_fd(), (libc::SOL_SOCKET, libc::SO_ERROR)).ok()?;
        (code != 0).then(|| io::Error::from_raw_os_error(code))
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where the parts of the rings are in their mappings.
fn ring_offsets(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    /// All members of `struct xdp_mmap_offsets` have 64 bits.
    type Offsets = [u64; 16];
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] =
        get_option::<Offsets>(fd, (libc::SOL_XDP, libc::XDP_MMAP_OFFSETS))?;
    let ring = |producer, consumer, desc, flags| libc::xdp_ring_offset { producer, consumer, desc, flags };
    Ok(libc::xdp_mmap_offsets {
        rx: ring(a, b, c, d),
        tx: ring(e, f, g, h),
        fr: ring(i, j, k, l),
        cr: ring(m, n, o, p),
    })
}

/// Types whose values may have any bits, none of them padding.
trait Plain: Default {}

impl Plain for c_int {}
impl Plain for [u64; 6] {}
impl Plain for [u64; 16] {}

fn get_option<T: Plain>(fd: BorrowedFd<'_>, (level, name): (c_int, c_int)) -> io::Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: `value` is writable for `len` bytes, and whatever is written is valid.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast::<c_void>(), &raw mut len)
    };
    check(result).map(|_| value)
}

fn set_option<T>(fd: BorrowedFd<'_>, (level, name): (c_int, c_int), value: &T) -> io::Result<()> {
    // SAFETY: `value` is readable for its size and outlives the call. Addresses in it are those of a UMEM,
    // which lives as long as the socket.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast::<c_void>(),
            size_of::<T>() as c_uint,
        )
    };
    check(result).map(|_| ())
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
