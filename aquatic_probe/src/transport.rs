//! Connections over TCP, with or without TLS, whose operations have a deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use aquatic_cli_helpers::report::Verdict;
use rustls::ClientConnection;

use crate::clock::{Deadline, Stopwatch};
use crate::https::failed_handshake;
use crate::target::Target;
use crate::tls::Judge;
use crate::{Facts, Failed, Options, Rows};

/// A socket whose reads and writes together have to be done by a deadline, however few bytes each brings.
#[derive(Debug)]
pub(crate) struct Timed {
    socket: TcpStream,
    deadline: Deadline,
}

impl Timed {
    pub(crate) fn new(socket: TcpStream, deadline: Deadline) -> Self {
        Self { socket, deadline }
    }

    /// Sets the timeouts of the socket to what is left.
    fn limit(&self) -> io::Result<()> {
        let left = self.deadline.left()?;
        self.socket.set_read_timeout(Some(left))?;
        self.socket.set_write_timeout(Some(left))
    }

    /// An operation that ran into the timeout of the socket fails as one that ran into the deadline.
    fn classify(&self, error: io::Error) -> io::Error {
        let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if is_late { self.deadline.expired() } else { error }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.limit()?;
        self.socket.read(buffer).map_err(|error| self.classify(error))
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.limit()?;
        self.socket.write(buffer).map_err(|error| self.classify(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// A connection to a tracker.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Timed,
    /// `None` if it is not encrypted.
    tls: Option<Box<ClientConnection>>,
}

impl Connection {
    /// Connects and, if the scheme has TLS, shakes hands. `rows` are given for the first connection only.
    pub(crate) fn open(
        target: &Target,
        address: SocketAddr,
        options: &Options,
        facts: &mut Facts,
        rows: Option<&mut Rows>,
    ) -> Result<Self, Failed> {
        let watch = Stopwatch::start();
        let socket =
            TcpStream::connect_timeout(&address, options.timeout).map_err(|error| unreachable(&error))?;
        let _ = socket.set_nodelay(true);
        let deadline = Deadline::after(options.timeout);
        let mut connection = Self { socket: Timed { socket, deadline }, tls: None };
        if target.scheme.is_tls() {
            let judge = Judge::new(options.insecure);
            let shaken = connection.shake_hands(target, &judge);
            facts.trusted = judge.verdict().map(|verdict| verdict.is_ok());
            let version = match (judge.verdict(), shaken) {
                (_, Ok(version)) => version,
                (Some(Err(why)), Err(_)) => {
                    let text =
                        format!("clients that verify certificates refuse it: {why}. --insecure goes on");
                    return Err(Failed::new("certificate", text));
                }
                (_, Err(error)) => {
                    return Err(Failed::new("tls", failed_handshake(&error)));
                }
            };
            match (rows, judge.verdict()) {
                (Some(rows), Some(Err(why))) => {
                    rows.fault("certificate", format!("clients that verify certificates refuse it: {why}"));
                }
                (Some(rows), _) => rows.ok("certificate", format!("trusted by this machine; {version}")),
                (None, _) => {}
            }
        }
        facts.connected.get_or_insert_with(|| watch.elapsed());
        Ok(connection)
    }

    /// Completes the handshake of a TLS session over a socket.
    pub(crate) fn with_tls(mut socket: Timed, mut tls: ClientConnection) -> io::Result<Self> {
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Self { socket, tls: Some(Box::new(tls)) })
    }

    /// Completes the TLS handshake and returns the version of the protocol.
    fn shake_hands(&mut self, target: &Target, judge: &Arc<Judge>) -> io::Result<&'static str> {
        let mut tls = judge.connection(&target.host).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut self.socket)?;
        }
        let version = match tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS 1.2",
        };
        self.tls = Some(Box::new(tls));
        Ok(version)
    }

    /// Gives further operations this long.
    pub(crate) fn extend(&mut self, time: Duration) {
        self.socket.deadline = Deadline::after(time);
    }
}

/// What a failure to connect means. An address family that this machine lacks is no fault of the tracker.
pub(crate) fn unreachable(error: &io::Error) -> Failed {
    let here = matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable);
    if here {
        let text = format!("not probed: this machine has no route there ({error})");
        return Failed { check: "connect", verdict: Verdict::Advice, text };
    }
    let hint = if error.kind() == io::ErrorKind::ConnectionRefused {
        ": nothing listens there"
    } else if error.kind() == io::ErrorKind::TimedOut {
        ": it is down, or a firewall drops the packets"
    } else {
        ""
    };
    Failed::new("connect", format!("{error}{hint}"))
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).read(buffer),
            None => self.socket.read(buffer),
        };
        match read {
            // Many servers end TLS connections without saying so; the length of a message is in its head.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).write(buffer),
            None => self.socket.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).flush(),
            None => self.socket.flush(),
        }
    }
}
