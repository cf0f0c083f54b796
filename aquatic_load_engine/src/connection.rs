//! Non-blocking TCP connections to a tracker, plain or with TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::{ClientConnection, HandshakeKind};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::bind_address_only;
use crate::tls::TlsClient;

/// Result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Number of bytes read to the front of the buffer.
    Bytes(usize),
    /// Nothing to read at the moment.
    Nothing,
    /// End of the stream.
    End,
}

/// Options of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions<'a> {
    /// Address of the tracker.
    pub server: SocketAddr,
    /// Source address; `None` if the system chooses it.
    pub source: Option<IpAddr>,
    /// Whether the kernel may delay small segments (Nagle's algorithm).
    pub nagle: bool,
    /// TLS client, for encrypted connections.
    pub tls: Option<&'a TlsClient>,
}

crate::counted! {
    /// Cause of a failed connection, as reports distinguish them.
    pub enum ConnectionFailure {
        /// No listener at the address.
        Refused = "connections refused",
        /// The tracker reset the connection.
        Reset = "connections reset",
        /// The tracker or its system did not respond in time.
        TimedOut = "connections closed after a response timeout",
        /// TLS error.
        Tls = "connections with a TLS error",
        /// All ports of the source address are in use.
        NoPort = "connections without a free source port",
        /// Any other cause.
        Other = "connections failed for other reasons",
    }
}

crate::counted! {
    /// Kind of a TLS handshake.
    pub enum TlsHandshake {
        /// Full handshake with a certificate.
        Full = "full TLS handshakes",
        /// Resumption of an earlier session.
        Resumed = "resumed TLS handshakes",
    }
}

impl ConnectionFailure {
    /// Classifies an I/O error.
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

/// Connection that is established or being established.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Data that the kernel has not accepted yet, for connections without TLS.
    unsent: Vec<u8>,
}

impl Connection {
    /// Starts to connect.
    ///
    /// # Errors
    /// When that fails immediately.
    pub fn open(options: &ConnectOptions<'_>) -> io::Result<Self> {
        let server = options.server;
        let socket =
            Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if !options.nagle {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(ip) = options.source {
            bind_address_only(&socket)?;
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let tls = match options.tls {
            None => None,
            Some(tls) => {
                let connection = ClientConnection::new(tls.config.clone(), tls.server_name.clone());
                let mut connection = connection.map_err(io::Error::other)?;
                // The settings of a load test bound what it sends.
                connection.set_buffer_limit(None);
                Some(Box::new(connection))
            }
        };
        Ok(Self { stream: socket.into(), tls, unsent: Vec::new() })
    }

    /// Sends data and buffers what the kernel does not accept yet.
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

    /// Sends buffered data.
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

    /// Whether data is buffered that [`Self::flush`] can send when the kernel accepts more.
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
                // The tracker closed the connection without a TLS close_notify alert.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Received::End),
                Err(error) => return Err(error),
            }
            match tls.read_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) => return Err(error),
            }
            let processed = tls.process_new_packets();
            // After a failure there is an alert to send.
            while tls.wants_write() && tls.write_tls(stream).is_ok() {}
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }

    /// Whether a read of `length` bytes into a buffer of `capacity` bytes has emptied the receive buffer.
    #[must_use]
    pub fn is_drained_by(&self, length: usize, capacity: usize) -> bool {
        self.tls.is_none() && length < capacity
    }

    /// Kind of the TLS handshake, once it is complete.
    #[must_use]
    pub fn handshake(&self) -> Option<TlsHandshake> {
        Some(match self.tls.as_ref()?.handshake_kind()? {
            HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest => TlsHandshake::Full,
            HandshakeKind::Resumed => TlsHandshake::Resumed,
        })
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        // The connection is not established yet, or the send buffer is full.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
