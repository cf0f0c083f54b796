//! One connection, plain or with TLS, that never blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::{ClientConnection, HandshakeKind};
use socket2::{Domain, Protocol, Socket, Type};

use crate::plan::Plan;
use crate::sys::bind_address_only;

/// What reading brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes at the front of the buffer.
    Bytes(usize),
    /// There is nothing for now.
    Nothing,
    /// There will be nothing any more.
    End,
}

/// A connection that is being made or has been made.
pub(crate) struct Wire {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What the kernel has not taken yet, for connections without TLS.
    unsent: Vec<u8>,
}

impl Wire {
    /// Begins to connect from a source address.
    pub(crate) fn open(plan: &Plan, address: u64) -> io::Result<Self> {
        let server = plan.config.server_address;
        let socket =
            Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if plan.config.connections.requests != 1 {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(ip) = plan.source_ip(address) {
            bind_address_only(&socket)?;
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let tls = match &plan.tls {
            None => None,
            Some(tls) => {
                let connection = ClientConnection::new(tls.config.clone(), tls.server_name.clone());
                Some(Box::new(connection.map_err(io::Error::other)?))
            }
        };
        Ok(Self { stream: socket.into(), tls, unsent: Vec::new() })
    }

    /// Sends bytes, or keeps what the kernel does not take yet.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
        } else if self.unsent.is_empty() {
            let taken = write_some(&mut self.stream, bytes)?;
            self.unsent.extend_from_slice(bytes.get(taken..).unwrap_or_default());
            return Ok(());
        } else {
            self.unsent.extend_from_slice(bytes);
        }
        self.flush()
    }

    /// Sends what was kept.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        } else if !self.unsent.is_empty() {
            let taken = write_some(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..taken);
        }
        Ok(())
    }

    /// Whether something was kept that [`Wire::flush`] can send once the kernel takes more.
    pub(crate) fn has_unsent(&self) -> bool {
        self.tls.as_ref().map_or(!self.unsent.is_empty(), |tls| tls.wants_write())
    }

    /// Reads once.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let Self { stream, tls, .. } = self;
        let Some(tls) = tls else {
            return match stream.read(buffer) {
                Ok(0) => Ok(Received::End),
                Ok(length) => Ok(Received::Bytes(length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Received::Nothing),
                Err(error) => Err(error),
            };
        };
        loop {
            match tls.reader().read(buffer) {
                Ok(0) => return Ok(Received::End),
                Ok(length) => return Ok(Received::Bytes(length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The tracker closed the connection without saying so in TLS before.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Received::End),
                Err(error) => return Err(error),
            }
            match tls.read_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) => return Err(error),
            }
            let processed = tls.process_new_packets();
            // Also if that failed: there is an alert to send then.
            while tls.wants_write() && tls.write_tls(stream).is_ok() {}
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }

    /// Whether reading less than there was room for means that nothing is left.
    pub(crate) fn is_drained_by(&self, length: usize, room: usize) -> bool {
        self.tls.is_none() && length < room
    }

    /// How the TLS handshake went, once it is over.
    pub(crate) fn handshake(&self) -> Option<HandshakeKind> {
        self.tls.as_ref().and_then(|tls| tls.handshake_kind())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        // The connection is not made yet, or its buffer is full.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
