//! WebSocket connections (RFC 6455) of the simulated clients.
//!
//! There are two implementations. [`fast::FastSocket`] shares its buffers with all connections of a thread, so that one
//! core of the load test keeps a core of the tracker busy. [`library::LibrarySocket`] is `async-tungstenite`, as an
//! independent judge of what the tracker sends; it holds buffers for each connection and sends a fifth less.

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

/// Longest message accepted from a tracker, in bytes.
const MAX_MESSAGE_LENGTH: usize = 1 << 20;
/// Bytes received in one call by [`FastSocket`], and longest message that it accepts in one frame.
const RECEIVE_LENGTH: usize = 256 * 1024;

/// One WebSocket connection after the other, in the same slot of a thread.
pub(crate) enum Socket {
    Fast(FastSocket),
    Library(Box<LibrarySocket>),
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

/// Why a socket can no longer be used.
#[derive(Debug)]
pub(crate) enum SocketError {
    Connection(io::Error),
    /// The tracker refused the upgrade with this HTTP status.
    UpgradeRefused(u16),
    /// The tracker accepted a key that it was not given.
    WrongAccept,
    /// The response to the upgrade is not one of a WebSocket server.
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
    /// Last message, and room for the padding that the decoder needs.
    pub(crate) message: Vec<u8>,
    /// Received bytes that [`FastSocket`] has not parsed: those from `start` to `end`.
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

/// Send buffers of a thread, used for one connection at a time: [`Self::clear`] comes before the first message for a
/// connection, [`Socket::flush`] after the last.
pub(crate) struct Outbox {
    /// Text of the message that is being written.
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

    /// Discards what was queued for a connection that failed before it was flushed.
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
    pub(crate) fn new(client: WebSocketClient, place: u32) -> Self {
        match client {
            WebSocketClient::Fast => Self::Fast(FastSocket::new(place)),
            WebSocketClient::Library => Self::Library(Box::new(LibrarySocket::new(place))),
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
