//! The connection between a process and its successor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::time::Timespec;

use super::message::{MAX_DESCRIPTORS, MAX_MESSAGE, Message};

/// Longest wait for room in the socket, which has some for what is sent at once: then the other process
/// hangs.
const SEND_DEADLINE: Duration = Duration::from_millis(1500);

/// One end.
#[derive(Debug)]
pub(crate) struct Connection(OwnedFd);

/// What a wait for a message came to.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message, and what came along.
    Message(Message, Vec<OwnedFd>),
    /// Nothing within the time.
    Nothing,
    /// The other process has gone.
    End,
}

impl Connection {
    /// Both ends of a new connection.
    ///
    /// # Errors
    /// Too many open files.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for end in [&one, &other] {
            set_socket_timeout(end, Timeout::Send, Some(SEND_DEADLINE))?;
        }
        Ok((Self(one), other))
    }

    /// The end that was passed to this process.
    pub(crate) fn of(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a message and duplicates of descriptors.
    ///
    /// # Errors
    /// The other process has gone, or does not receive anything.
    pub(crate) fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::AGAIN) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "it does not receive anything"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// What came is no message, or the socket is broken.
    pub(crate) fn receive(&self, timeout: Duration) -> io::Result<Incoming> {
        let timeout = Timespec::try_from(timeout).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Incoming::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET) => return Ok(Incoming::End),
            Err(error) => return Err(error.into()),
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds);
            }
        }
        if received.bytes == 0 && descriptors.is_empty() {
            return Ok(Incoming::End);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::other("a message is too long"));
        }
        let bytes = bytes.get(..received.bytes).unwrap_or_default();
        let message = Message::decode(bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Incoming::Message(message, descriptors))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sending_to_a_process_that_hangs_ends() {
        let (one, _other) = Connection::pair().unwrap();
        let message = Message::ByHand { is_last: false, part: vec![0; 1024] };
        let error = (0..10_000).find_map(|_| one.send(&message, &[]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn messages_and_descriptors_arrive_and_the_end_is_noticed() {
        let (one, other) = Connection::pair().unwrap();
        let other = Connection::of(other);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let many = vec![socket.as_fd(); MAX_DESCRIPTORS];
        one.send(&Message::Sockets(vec![0; MAX_DESCRIPTORS]), &many).unwrap();
        let Incoming::Message(message, fds) = other.receive(Duration::ZERO).unwrap() else { panic!() };
        assert_eq!((message, fds.len()), (Message::Sockets(vec![0; MAX_DESCRIPTORS]), MAX_DESCRIPTORS));
        let copy = TcpListener::from(fds.into_iter().next().unwrap());
        assert_eq!(copy.local_addr().unwrap(), socket.local_addr().unwrap());
        assert!(matches!(other.receive(Duration::ZERO), Ok(Incoming::Nothing)));
        rustix::net::send(&one, b"hello", SendFlags::empty()).unwrap();
        assert!(other.receive(Duration::ZERO).is_err());
        drop(one);
        assert!(matches!(other.receive(Duration::from_secs(1)), Ok(Incoming::End)));
        assert!(other.send(&Message::Done, &[]).is_err());
    }
}
