//! WebSocket connections (RFC 6455) of the simulated clients.
//!
//! There are two implementations. [`FastSocket`] shares buffers among all connections of a thread, so that
//! one core of the load test can saturate a core of the tracker. [`LibrarySocket`] is `async-tungstenite`, an
//! implementation independent of this project; with its buffers per connection it reaches four fifths of that
//! throughput.

mod fast;
mod frame;
mod library;
mod transport;
mod upgrade;

use std::io;

use aquatic_load_engine::connection::{Connection, TlsHandshake};
use aquatic_load_engine::events::{Event, Events, Token};
use aquatic_load_engine::rng::Rng;

use crate::config::WebSocketClient;
use fast::FastSocket;
use library::LibrarySocket;
pub(crate) use upgrade::Upgrade;

/// Maximum length of a message from the tracker, in bytes.
const MAX_MESSAGE_LENGTH: usize = 1 << 20;
/// Receive buffer of [`FastSocket`] in bytes; also its maximum length of a frame.
const RECEIVE_LENGTH: usize = 256 * 1024;

/// WebSocket connections of a slot, one after the other.
pub(crate) enum Socket {
    Fast(FastSocket),
    Library(LibrarySocket),
}

/// Result of receiving on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Nothing until the next event.
    Nothing,
    /// The upgrade is complete.
    Upgraded,
    /// A message of the tracker, in [`Inbox::message`].
    Message,
    /// A ping of the tracker, for which a pong is queued.
    Ping,
    /// The tracker closed the connection.
    End,
}

/// Reason why a connection failed.
#[derive(Debug)]
pub(crate) enum SocketError {
    Connection(io::Error),
    /// The tracker refused the upgrade with this HTTP status.
    UpgradeRefused(u16),
    /// `Sec-WebSocket-Accept` does not match the key.
    WrongAccept,
    /// The response to the upgrade is invalid.
    NotUpgrade,
    /// The tracker violated RFC 6455.
    Framing,
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

/// Receive buffers of a thread.
pub(crate) struct Inbox {
    /// Last message; the decoder appends padding.
    pub(crate) message: Vec<u8>,
    /// Receive buffer; the bytes from `start` to `end` are not parsed yet.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether the kernel may have more.
    more: bool,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { message: Vec::new(), bytes: vec![0; RECEIVE_LENGTH], start: 0, end: 0, more: false }
    }

    fn set_message(&mut self, message: &[u8]) {
        self.message.clear();
        self.message.extend_from_slice(message);
    }
}

/// Send buffers of a thread, used for one connection at a time: call [`Self::clear`] before the first message
/// of a connection, and [`Socket::flush`] after the last.
pub(crate) struct Outbox {
    /// Encoded message to queue.
    pub(crate) text: String,
    /// Frames to send.
    frames: Vec<u8>,
    /// Source of the masks.
    masks: Rng,
}

impl Outbox {
    pub(crate) fn new(masks: Rng) -> Self {
        Self { text: String::new(), frames: Vec::new(), masks }
    }

    /// Discards frames of a connection that failed before they were sent.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
    }
}

macro_rules! either {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            Socket::Fast($inner) => $call,
            Socket::Library($inner) => $call,
        }
    };
}

impl Socket {
    /// A socket without a connection.
    pub(crate) fn new(client: WebSocketClient, slot: u32) -> Self {
        match client {
            WebSocketClient::Fast => Self::Fast(FastSocket::new(slot)),
            WebSocketClient::Library => Self::Library(LibrarySocket::new(slot)),
        }
    }

    /// Token of the current connection in events.
    pub(crate) fn token(&self) -> Token {
        either!(self, socket => socket.token())
    }

    /// Whether an event with this token belongs to the current connection.
    pub(crate) fn has_token(&self, token: Token) -> bool {
        either!(self, socket => socket.has_token(token))
    }

    /// Starts the upgrade of a connection.
    ///
    /// # Errors
    /// When the connection cannot be used.
    pub(crate) fn connect(
        &mut self,
        wire: Connection,
        upgrade: &Upgrade,
        events: &Events,
    ) -> Result<(), SocketError> {
        either!(self, socket => socket.connect(wire, upgrade, events))
    }

    /// Closes the connection without a WebSocket close frame.
    pub(crate) fn close(&mut self) {
        either!(self, socket => socket.close())
    }

    /// Kind of the TLS handshake, once the upgrade is complete.
    pub(crate) fn handshake(&self) -> Option<TlsHandshake> {
        either!(self, socket => socket.handshake())
    }

    /// Starts receiving after an event of the connection, and sends what could not be sent before.
    pub(crate) fn begin(&mut self, event: Event, inbox: &mut Inbox) -> Result<(), SocketError> {
        either!(self, socket => socket.begin(event, inbox))
    }

    /// Receives one message, or advances the upgrade.
    pub(crate) fn receive(
        &mut self,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Incoming, SocketError> {
        either!(self, socket => socket.receive(inbox, outbox))
    }

    /// Queues [`Outbox::text`] as a message for [`Self::flush`].
    pub(crate) fn queue_text(&mut self, outbox: &mut Outbox) {
        either!(self, socket => socket.queue_text(outbox))
    }

    /// Queues a close frame for [`Self::flush`].
    pub(crate) fn queue_close(&mut self, outbox: &mut Outbox) {
        either!(self, socket => socket.queue_close(outbox))
    }

    /// Sends what is queued. What the kernel does not accept yet follows after the next event.
    pub(crate) fn flush(&mut self, outbox: &mut Outbox, events: &Events) -> Result<(), SocketError> {
        either!(self, socket => socket.flush(outbox, events))
    }
}
