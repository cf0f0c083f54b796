//! WebSocket client `async-tungstenite` on the connections of the load engine. A socket is polled after each
//! event of its connection, so it needs no waker.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use aquatic_load_engine::connection::{Connection, TlsHandshake};
use aquatic_load_engine::events::{Event, Events, Token};
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::handshake::client::Response;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use async_tungstenite::{WebSocketStream, client_async_with_config};
use futures_util::{Sink, Stream};

use super::transport::Transport;
use super::upgrade::Upgrade;
use super::{Inbox, Incoming, MAX_MESSAGE_LENGTH, Outbox, SocketError};

/// Read buffer of each connection, in bytes. The library clears it before each read, so larger ones are
/// slower.
const READ_BUFFER_LENGTH: usize = 4096;
/// Bytes that are queued before they are sent without a flush.
const WRITE_BUFFER_LENGTH: usize = 128 * 1024;

/// Upgrade in progress.
type Upgrading = Pin<Box<dyn Future<Output = Result<(WebSocketStream<Transport>, Response), Error>> + Send>>;

/// WebSocket connection with its own buffers.
pub(crate) struct LibrarySocket {
    token: Token,
    state: State,
    /// Error of a message that could not be queued.
    failure: Option<SocketError>,
}

enum State {
    Closed,
    Upgrading(Upgrading),
    Open(Box<WebSocketStream<Transport>>),
}

impl LibrarySocket {
    pub(super) fn new(slot: u32) -> Self {
        Self { token: Token { slot, generation: 0 }, state: State::Closed, failure: None }
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    pub(super) fn has_token(&self, token: Token) -> bool {
        self.token == token && !matches!(self.state, State::Closed)
    }

    pub(super) fn connect(
        &mut self,
        wire: Connection,
        upgrade: &Upgrade,
        events: &Events,
    ) -> Result<(), SocketError> {
        self.token.generation = self.token.generation.wrapping_add(1);
        events.watch_read_write(&wire, self.token)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_LENGTH)
            .write_buffer_size(WRITE_BUFFER_LENGTH)
            .max_message_size(Some(MAX_MESSAGE_LENGTH))
            .max_frame_size(Some(MAX_MESSAGE_LENGTH));
        let request = upgrade.request.clone();
        let upgrading = client_async_with_config(request, Transport::new(wire), Some(config));
        self.state = State::Upgrading(Box::pin(upgrading));
        self.failure = None;
        // The upgrade starts with the event of the established connection.
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.state = State::Closed;
        self.failure = None;
    }

    pub(super) fn handshake(&self) -> Option<TlsHandshake> {
        match &self.state {
            State::Open(stream) => stream.get_ref().handshake(),
            State::Closed | State::Upgrading(_) => None,
        }
    }

    pub(super) fn begin(&mut self, event: Event, _inbox: &mut Inbox) -> Result<(), SocketError> {
        if let State::Open(stream) = &mut self.state {
            stream.get_mut().note_event(event);
        }
        Ok(())
    }

    pub(super) fn receive(
        &mut self,
        inbox: &mut Inbox,
        _outbox: &mut Outbox,
    ) -> Result<Incoming, SocketError> {
        let mut context = Context::from_waker(Waker::noop());
        match &mut self.state {
            State::Closed => Ok(Incoming::Nothing),
            State::Upgrading(upgrade) => match upgrade.as_mut().poll(&mut context) {
                Poll::Pending => Ok(Incoming::Nothing),
                Poll::Ready(Ok((stream, _))) => {
                    self.state = State::Open(Box::new(stream));
                    Ok(Incoming::Upgraded)
                }
                Poll::Ready(Err(error)) => upgrade_failed(error),
            },
            State::Open(stream) => loop {
                let message = match Pin::new(&mut **stream).poll_next(&mut context) {
                    Poll::Pending => return Ok(Incoming::Nothing),
                    Poll::Ready(None) => return Ok(Incoming::End),
                    Poll::Ready(Some(Err(error))) => return connection_failed(error),
                    Poll::Ready(Some(Ok(message))) => message,
                };
                match message {
                    Message::Text(text) => inbox.set_message(text.as_bytes()),
                    Message::Binary(bytes) => inbox.set_message(&bytes),
                    Message::Ping(_) => return Ok(Incoming::Ping),
                    Message::Close(_) => return Ok(Incoming::End),
                    Message::Pong(_) | Message::Frame(_) => continue,
                }
                return Ok(Incoming::Message);
            },
        }
    }

    pub(super) fn queue_text(&mut self, outbox: &mut Outbox) {
        self.queue(Message::text(std::mem::take(&mut outbox.text)));
    }

    pub(super) fn queue_close(&mut self, _outbox: &mut Outbox) {
        let close = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        self.queue(Message::Close(Some(close)));
    }

    fn queue(&mut self, message: Message) {
        let State::Open(stream) = &mut self.state else { return };
        // The library buffers messages while the connection is blocked.
        if let Err(error) = Pin::new(&mut **stream).start_send(message) {
            self.failure = connection_failed(error).err();
        }
    }

    pub(super) fn flush(&mut self, _outbox: &mut Outbox, _events: &Events) -> Result<(), SocketError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let State::Open(stream) = &mut self.state else { return Ok(()) };
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut **stream).poll_flush(&mut context) {
            Poll::Pending | Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) => connection_failed(error).map(drop),
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "every other error means an invalid response")]
fn upgrade_failed(error: Error) -> Result<Incoming, SocketError> {
    match error {
        Error::Io(error) => Err(SocketError::Connection(error)),
        Error::Http(response) => Err(SocketError::UpgradeRefused(response.status().as_u16())),
        Error::Protocol(ProtocolError::SecWebSocketAcceptKeyMismatch) => Err(SocketError::WrongAccept),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => Ok(Incoming::End),
        other => {
            log::debug!("upgrade failed: {other}");
            Err(SocketError::NotUpgrade)
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "every other error means a protocol violation")]
fn connection_failed(error: Error) -> Result<Incoming, SocketError> {
    match error {
        Error::Io(error) => Err(SocketError::Connection(error)),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(Incoming::End),
        other => {
            log::debug!("protocol violation: {other}");
            Err(SocketError::Framing)
        }
    }
}
