//! One TCP connection to a tracker, plain or with TLS, that never blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::{ClientConnection, HandshakeKind};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::bind_address_only;
use crate::tls::Tls;

/// What reading brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes at the front of the buffer.
    Bytes(usize),
    /// There is nothing for now.
    Nothing,
    /// There will be nothing any more.
    End,
}

/// How a connection is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The tracker.
    pub server: SocketAddr,
    /// The address to connect from; `None` leaves it to the system.
    pub source: Option<IpAddr>,
    /// Whether what is sent may wait for more to come.
    pub may_delay: bool,
    /// TLS, if it is to be used.
    pub tls: Option<&'a Tls>,
}

crate::counted! {
    /// Why a connection failed, as far as reports tell.
    pub enum Trouble {
        /// Nobody listens.
        Refused = "connections refused",
        /// The tracker broke it off.
        Reset = "connections reset",
        /// The tracker, or its system, did not answer.
        TimedOut = "connections given up as a response took too long",
        /// TLS.
        Tls = "connections with a TLS failure",
        /// All ports of the source address are in use.
        NoPort = "connections for which no port was free",
        /// There are too many other reasons to name them all.
        Other = "connections failed for other reasons",
    }
}

crate::counted! {
    /// How a connection got its TLS session.
    pub enum Handshake {
        /// The tracker showed its certificate.
        Full = "full TLS handshakes",
        /// An earlier session went on.
        Resumed = "resumed TLS handshakes",
    }
}

impl Trouble {
    /// What an error means.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        let kind = error.kind();
        if kind == ErrorKind::ConnectionRefused {
            Self::Refused
        } else if matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) {
            Self::Reset
        } else if kind == ErrorKind::TimedOut {
            Self::TimedOut
        } else if kind == ErrorKind::AddrNotAvailable {
            Self::NoPort
        } else if kind == ErrorKind::InvalidData {
            Self::Tls
        } else {
            Self::Other
        }
    }
}

/// A connection that is being made or has been made.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What the kernel has not taken yet, for connections without TLS.
    unsent: Vec<u8>,
}

impl Wire {
    /// Begins to connect.
    ///
    /// # Errors
    /// When that fails at once.
    pub fn open(route: &Route<'_>) -> io::Result<Self> {
        let server = route.server;
        let socket =
            Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if !route.may_delay {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(ip) = route.source {
            bind_address_only(&socket)?;
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let tls = match route.tls {
            None => None,
            Some(tls) => {
                let connection = ClientConnection::new(tls.config.clone(), tls.server_name.clone());
                let mut connection = connection.map_err(io::Error::other)?;
                // What a load test sends is bounded by its settings.
                connection.set_buffer_limit(None);
                Some(Box::new(connection))
            }
        };
        Ok(Self { stream: socket.into(), tls, unsent: Vec::new() })
    }

    /// Sends bytes, or keeps what the kernel does not take yet.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
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
    ///
    /// # Errors
    /// When the connection failed.
    pub fn flush(&mut self) -> io::Result<()> {
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
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().map_or(!self.unsent.is_empty(), |tls| tls.wants_write())
    }

    /// Reads once.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
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
    #[must_use]
    pub fn is_drained_by(&self, length: usize, room: usize) -> bool {
        self.tls.is_none() && length < room
    }

    /// How the TLS handshake went, once it is over.
    #[must_use]
    pub fn handshake(&self) -> Option<Handshake> {
        Some(match self.tls.as_ref()?.handshake_kind()? {
            HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest => Handshake::Full,
            HandshakeKind::Resumed => Handshake::Resumed,
        })
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
