//! The socket under a connection: reads and writes that end when the connection's time is over.

use std::cell::Cell;
use std::io::{self, IoSlice, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::balancer::{AddressKey, ConnectionPermit};
use super::deadlines::{DeadlineHandle, DeadlineTable};
use crate::sys;
use aquatic_runtime::readiness::{Direction, Source};

/// A connected stream socket of any family.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    /// The end follows what is written, so the kernel may send both together.
    is_ending: Cell<bool>,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, is_ending: Cell::new(false) }
    }

    fn send_flags(&self) -> SendFlags {
        if self.is_ending.get() { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (len, _) = rustix::net::recv(&self.fd, buffer, RecvFlags::empty())?;
        Ok(len)
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.fd, bytes, self.send_flags())?)
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut nothing = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(&self.fd, bytes, &mut nothing, self.send_flags())?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket with its deadline and its permit.
#[derive(Debug)]
pub(super) struct Stream {
    source: Source<Socket>,
    deadline: DeadlineHandle,
    permit: ConnectionPermit,
    /// The client has to take something first.
    is_blocked: Cell<bool>,
}

impl Stream {
    pub(super) fn new(source: Source<Socket>, deadline: DeadlineHandle, permit: ConnectionPermit) -> Self {
        let stream = Self { source, deadline, permit, is_blocked: Cell::new(false) };
        stream.note_address();
        stream
    }

    /// Lets the connection be found by the address it counts for.
    fn note_address(&self) {
        if let Some(address) = self.permit.address() {
            self.deadline.set_address(address);
        }
    }

    pub(super) fn deadline(&self) -> &DeadlineHandle {
        &self.deadline
    }

    /// Counts the connection to an address. If that has too many, the one of them that has waited longest for
    /// its client is evicted. Returns false if none can be.
    pub(super) fn charge_address(&mut self, ip: IpAddr) -> bool {
        let charge = charge_address(&mut self.permit, ip, self.deadline.deadlines());
        self.note_address();
        charge != AddressCharge::Refused
    }

    /// Runs an operation on the socket; would it block, the task is woken when it can go on or the time is
    /// over.
    pub(super) fn poll<R>(
        &self,
        direction: Direction,
        context: &Context<'_>,
        act: impl FnMut(&Socket) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.deadline.check()?;
        let polled = self.source.poll_io(direction, context, act);
        if polled.is_pending() {
            self.deadline.watch(context);
            if direction == Direction::Write {
                self.is_blocked.set(self.deadline.wait_for_room());
            }
        } else if direction == Direction::Write && self.is_blocked.replace(false) {
            self.deadline.client_has_acted();
        }
        polled
    }

    /// Says that the end follows what is written from now on.
    pub(super) fn announce_end(&self) {
        self.source.get_ref().is_ending.set(true);
    }

    /// Whether the other end is known to have stopped sending, as it is after a wait.
    pub(super) fn has_ended(&self) -> bool {
        self.source.has_ended()
    }

    /// Whether something has come that was not read. Asks the kernel, which may know more than the last
    /// event; but not on a connection that has been served at one stroke, where nothing has had the time to
    /// come.
    pub(super) fn has_unread(&self) -> bool {
        if self.source.was_emptied_at_once() {
            return false;
        }
        let look = |socket: &Socket| Ok(rustix::net::recv(socket, &mut [0_u8; 1], RecvFlags::PEEK)?);
        matches!(self.source.try_read(look), Ok((1.., _)))
    }

    /// The socket, for what is to be written at once or not at all.
    pub(super) fn without_waiting(&self) -> &Socket {
        self.source.get_ref()
    }

    pub(super) fn shutdown_write(&self) {
        // Fails if the peer has gone, which is as good.
        let _ = rustix::net::shutdown(self.source.get_ref(), rustix::net::Shutdown::Write);
    }
}

/// What came of counting a connection to its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressCharge {
    /// The address is within its limit, or has none.
    Within,
    /// The address is at its limit, and another connection of it on this core is evicted.
    Evicted,
    /// The address is at its limit, and no connection of it on this core can be evicted.
    Refused,
}

/// Counts a connection to an address, evicting another one of that address on this core if it has too many.
pub(super) fn charge_address(
    permit: &mut ConnectionPermit,
    ip: IpAddr,
    deadlines: &DeadlineTable,
) -> AddressCharge {
    if permit.charge_address(ip) {
        return AddressCharge::Within;
    }
    if !deadlines.evict_oldest_waiter_of(AddressKey::of(ip)) {
        return AddressCharge::Refused;
    }
    permit.charge_address_over_limit(ip);
    AddressCharge::Evicted
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A client that let its send deadline pass will not read the end either. The kernel would keep both
        // for minutes, without a connection that counts for them.
        if self.deadline.expired() && sys::unsent(self.source.get_ref().as_fd()).is_ok_and(|bytes| bytes > 0)
        {
            // Closing then resets the connection. Cannot fail for a socket.
            let _ = rustix::net::sockopt::set_socket_linger(self.source.get_ref(), Some(Duration::ZERO));
        }
        self.deadline.close();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = self.poll(Direction::Read, context, |mut socket| socket.read(buffer));
        if let Poll::Ready(Ok(len @ 1..)) = read
            && len < buffer.len()
        {
            self.source.note_short_read();
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(Direction::Write, context, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(Direction::Write, context, |mut socket| socket.write_vectored(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
