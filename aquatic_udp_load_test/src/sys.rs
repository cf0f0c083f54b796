//! System calls for batches of packets; the only unsafe code of the crate.
#![allow(unsafe_code, reason = "batched system calls have no safe interface in the standard library")]

use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use aquatic_load_engine::clock::{Nanos, SECOND};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

/// Maximum number of packets per call, and of segments per message.
pub(crate) const MAX_BATCH: usize = 64;

/// Length of a receive buffer. Replies of trackers fit one packet of the usual MTU.
pub(crate) const RECEIVE_LENGTH: usize = 2048;

/// Message of one or several packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// One packet, or several consecutive ones of equal length.
    pub(crate) bytes: &'a [u8],
    /// Length of each packet if there are several (UDP_SEGMENT).
    pub(crate) segment: Option<u16>,
}

/// Control message with a 16-bit value, in the layout of the kernel.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct SegmentControl {
    header: libc::cmsghdr,
    segment: u16,
    padding: [u8; 6],
}

const _: () = assert!(size_of::<libc::cmsghdr>() == 16 && size_of::<SegmentControl>() == 24);

impl SegmentControl {
    fn new(segment: u16) -> Self {
        let header = libc::cmsghdr {
            cmsg_len: (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _,
            cmsg_level: libc::SOL_UDP,
            cmsg_type: libc::UDP_SEGMENT,
        };
        Self { header, segment, padding: [0; 6] }
    }
}

/// Sender with reusable buffers.
pub(crate) struct Sender {
    parts: Vec<libc::iovec>,
    controls: Vec<SegmentControl>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in the lists are set at the beginning of each call and followed in that call only.
unsafe impl Send for Sender {}

impl Sender {
    pub(crate) fn new() -> Self {
        Self {
            parts: Vec::with_capacity(MAX_BATCH),
            controls: Vec::with_capacity(MAX_BATCH),
            headers: Vec::with_capacity(MAX_BATCH),
        }
    }

    /// Sends up to [`MAX_BATCH`] messages and returns the number of those sent.
    pub(crate) fn send(&mut self, socket: &UdpSocket, messages: &[Message<'_>]) -> io::Result<usize> {
        let messages = messages.get(..MAX_BATCH).unwrap_or(messages);
        self.parts.clear();
        self.controls.clear();
        self.headers.clear();
        for message in messages {
            let base = message.bytes.as_ptr().cast_mut().cast();
            self.parts.push(libc::iovec { iov_base: base, iov_len: message.bytes.len() });
            self.controls.push(SegmentControl::new(message.segment.unwrap_or(0)));
        }
        for ((part, control), message) in self.parts.iter_mut().zip(&mut self.controls).zip(messages) {
            let mut header = empty_header();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            if message.segment.is_some() {
                header.msg_hdr.msg_control = ptr::from_mut(control).cast();
                header.msg_hdr.msg_controllen = size_of::<SegmentControl>() as _;
            }
            self.headers.push(header);
        }
        let count = self.headers.len() as libc::c_uint;
        // SAFETY: the first `count` headers are initialised, and what they point to (one part each, and a
        // control message of the stated length) lives in `self` and `messages`, which outlive the call. The
        // kernel only reads from the parts.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Receiver with its own buffers.
pub(crate) struct Receiver {
    buffers: Vec<[u8; RECEIVE_LENGTH]>,
    parts: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in the lists are set at the beginning of each call and followed in that call only.
unsafe impl Send for Receiver {}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self {
            buffers: vec![[0; RECEIVE_LENGTH]; MAX_BATCH],
            parts: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MAX_BATCH],
            headers: vec![empty_header(); MAX_BATCH],
        }
    }

    /// Receives up to [`MAX_BATCH`] packets without waiting and returns their number.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let slots = self.buffers.iter_mut().zip(&mut self.parts).zip(&mut self.headers);
        for ((buffer, part), header) in slots {
            *part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: RECEIVE_LENGTH };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = MAX_BATCH as libc::c_uint;
        let (headers, flags) = (self.headers.as_mut_ptr(), libc::MSG_DONTWAIT);
        // SAFETY: there are MAX_BATCH headers, each with one part that covers one of the buffers; all of them
        // live in `self`, which is borrowed for the call. No addresses or control messages are asked for.
        let got = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, count, flags, ptr::null_mut()) };
        match usize::try_from(got) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                error => Err(error),
            },
        }
    }

    /// Packet of the last [`Receiver::receive`], by its index.
    pub(crate) fn packet(&self, index: usize) -> &[u8] {
        let length = self.headers.get(index).map_or(0, |header| header.msg_len as usize);
        self.buffers.get(index).and_then(|buffer| buffer.get(..length)).unwrap_or_default()
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: the structure consists of pointers and numbers, for all of which zero is a value.
    unsafe { mem::zeroed() }
}

/// Whether the kernel supports segmentation (UDP_SEGMENT) on this socket.
pub(crate) fn can_segment(socket: &UdpSocket) -> bool {
    let (mut value, mut length): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    let (value, length) = (ptr::from_mut(&mut value).cast(), &raw mut length);
    // SAFETY: `value` and `length` point to live variables, and `length` holds the size of `value`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, value, length) };
    result == 0
}

/// Waits until one of the sockets is readable or the time has passed.
pub(crate) fn wait_readable<'a>(
    sockets: impl Iterator<Item = BorrowedFd<'a>>,
    time: Nanos,
) -> io::Result<()> {
    let mut polled: Vec<PollFd<'_>> =
        sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
    let timeout = Timespec {
        tv_sec: i64::try_from(time / SECOND).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(time % SECOND).unwrap_or(0),
    };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        a.connect(b.local_addr().unwrap()).unwrap();
        b.connect(a.local_addr().unwrap()).unwrap();
        (a, b)
    }

    fn received(receiver: &mut Receiver, socket: &UdpSocket) -> Vec<Vec<u8>> {
        let count = receiver.receive(socket).unwrap();
        (0..count).map(|index| receiver.packet(index).to_vec()).collect()
    }

    #[test]
    fn messages_arrive_as_packets() {
        let (a, b) = pair();
        let messages = [&b"one"[..], b"", b"three"].map(|bytes| Message { bytes, segment: None });
        assert_eq!(Sender::new().send(&a, &messages).unwrap(), 3);
        let mut receiver = Receiver::new();
        assert_eq!(received(&mut receiver, &b), [&b"one"[..], b"", b"three"]);
        assert_eq!(received(&mut receiver, &b), Vec::<Vec<u8>>::new());
        assert_eq!(receiver.packet(MAX_BATCH), b"");
    }

    #[test]
    fn segments_arrive_as_packets() {
        let (a, b) = pair();
        assert!(can_segment(&a), "the kernel is older than 4.18");
        let messages =
            [Message { bytes: b"aabbc", segment: Some(2) }, Message { bytes: b"d", segment: None }];
        assert_eq!(Sender::new().send(&a, &messages).unwrap(), 2);
        wait_readable([b.as_fd()].into_iter(), SECOND).unwrap();
        assert_eq!(received(&mut Receiver::new(), &b), [&b"aa"[..], b"bb", b"c", b"d"]);
    }

    #[test]
    fn no_listener_is_an_error() {
        let (a, b) = pair();
        drop(b);
        let message = [Message { bytes: b"x", segment: None }];
        Sender::new().send(&a, &message).unwrap();
        wait_readable([a.as_fd()].into_iter(), SECOND).unwrap();
        let error = Receiver::new().receive(&a).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
