//! WebSocket client with shared buffers.

use aquatic_load_engine::connection::{Connection, TlsHandshake};
use aquatic_load_engine::connection_slot::{self, ConnectionSlot};
use aquatic_load_engine::events::{Event, Events, Token};

use super::frame::{self, Frame, Opcode, Parsed};
use super::upgrade::{self, Response, Upgrade};
use super::{Inbox, Incoming, MAX_MESSAGE_LENGTH, Outbox, SocketError};

/// Payload of a close frame: status 1000, normal closure (RFC 6455, 7.4.1).
const NORMAL_CLOSURE: [u8; 2] = 1000_u16.to_be_bytes();

/// WebSocket connection that holds memory only for incomplete frames and messages.
pub(crate) struct FastSocket {
    connection: ConnectionSlot,
    is_upgraded: bool,
    /// Last event of the connection.
    event: Event,
    /// Fragments of an incomplete message.
    fragments: Vec<u8>,
}

impl FastSocket {
    pub(super) fn new(slot: u32) -> Self {
        let connection = ConnectionSlot::new(slot);
        let event = Event { token: connection.token(), writable: false, ending: false };
        Self { connection, is_upgraded: false, event, fragments: Vec::new() }
    }

    pub(super) fn token(&self) -> Token {
        self.connection.token()
    }

    pub(super) fn has_token(&self, token: Token) -> bool {
        self.connection.has_token(token)
    }

    pub(super) fn connect(
        &mut self,
        wire: Connection,
        upgrade: &Upgrade,
        events: &Events,
    ) -> Result<(), SocketError> {
        self.close();
        self.connection.connect(wire, events)?;
        Ok(self.connection.send(&upgrade.bytes, events)?)
    }

    pub(super) fn close(&mut self) {
        self.connection.close();
        self.is_upgraded = false;
        self.fragments = Vec::new();
    }

    pub(super) fn handshake(&self) -> Option<TlsHandshake> {
        self.connection.handshake()
    }

    pub(super) fn begin(&mut self, event: Event, inbox: &mut Inbox) -> Result<(), SocketError> {
        self.event = event;
        (inbox.start, inbox.end, inbox.more) = (0, 0, true);
        Ok(self.connection.flush(event)?)
    }

    pub(super) fn receive(
        &mut self,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Incoming, SocketError> {
        loop {
            if let Some(incoming) = self.parse(inbox, outbox)? {
                return Ok(incoming);
            }
            // After an event nothing has been received, and the connection retains what came before.
            if inbox.end > 0 {
                let rest = inbox.bytes.get(inbox.start..inbox.end).unwrap_or_default();
                self.connection.retain(rest);
                (inbox.start, inbox.end) = (0, 0);
            }
            if !inbox.more {
                return Ok(Incoming::Nothing);
            }
            match self.connection.receive(self.event, &mut inbox.bytes)? {
                connection_slot::Incoming::Nothing => return Ok(Incoming::Nothing),
                connection_slot::Incoming::Bytes { length, more } => (inbox.end, inbox.more) = (length, more),
                connection_slot::Incoming::End { .. } => return Ok(Incoming::End),
                connection_slot::Incoming::TooLong => return Err(SocketError::Framing),
            }
        }
    }

    /// Parses received bytes until there is something to report.
    fn parse(&mut self, inbox: &mut Inbox, outbox: &mut Outbox) -> Result<Option<Incoming>, SocketError> {
        while let Some(bytes) = inbox.bytes.get(inbox.start..inbox.end).filter(|bytes| !bytes.is_empty()) {
            if !self.is_upgraded {
                return match upgrade::parse(bytes) {
                    Response::NeedMore => Ok(None),
                    Response::Upgraded(length) => {
                        inbox.start += length;
                        self.is_upgraded = true;
                        Ok(Some(Incoming::Upgraded))
                    }
                    Response::Refused(status) => Err(SocketError::UpgradeRefused(status)),
                    Response::WrongAccept => Err(SocketError::WrongAccept),
                    Response::Malformed => Err(SocketError::NotUpgrade),
                };
            }
            let frame = match frame::parse(bytes) {
                Parsed::NeedMore => return Ok(None),
                Parsed::Complete(frame) => frame,
                Parsed::Invalid => return Err(SocketError::Framing),
            };
            let start = inbox.start;
            inbox.start += frame.payload.end;
            let payload = start + frame.payload.start..inbox.start;
            if let Some(incoming) = self.accept(&frame, payload, inbox, outbox)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    /// Processes a frame with its payload at this range of the receive buffer.
    fn accept(
        &mut self,
        frame: &Frame,
        payload: std::ops::Range<usize>,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
    ) -> Result<Option<Incoming>, SocketError> {
        let Inbox { message, bytes, .. } = inbox;
        let payload = bytes.get(payload).unwrap_or_default();
        match frame.opcode {
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                let starts = frame.opcode != Opcode::Continuation;
                let is_allowed = starts == self.fragments.is_empty();
                if !is_allowed || self.fragments.len() + payload.len() > MAX_MESSAGE_LENGTH {
                    return Err(SocketError::Framing);
                }
                if !frame.last {
                    self.fragments.extend_from_slice(payload);
                    return Ok(None);
                }
                message.clear();
                message.append(&mut self.fragments);
                message.extend_from_slice(payload);
                Ok(Some(Incoming::Message))
            }
            Opcode::Close => Ok(Some(Incoming::End)),
            Opcode::Ping => {
                let mask = outbox.masks.next_u64() as u32;
                frame::write(Opcode::Pong, payload, mask, &mut outbox.frames);
                Ok(Some(Incoming::Ping))
            }
            Opcode::Pong => Ok(None),
        }
    }

    pub(super) fn queue_text(&mut self, outbox: &mut Outbox) {
        let mask = outbox.masks.next_u64() as u32;
        frame::write(Opcode::Text, outbox.text.as_bytes(), mask, &mut outbox.frames);
    }

    pub(super) fn queue_close(&mut self, outbox: &mut Outbox) {
        let mask = outbox.masks.next_u64() as u32;
        frame::write(Opcode::Close, &NORMAL_CLOSURE, mask, &mut outbox.frames);
    }

    pub(super) fn flush(&mut self, outbox: &mut Outbox, events: &Events) -> Result<(), SocketError> {
        let sent = self.connection.send(&outbox.frames, events);
        outbox.frames.clear();
        Ok(sent?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use aquatic_load_engine::clock::SECOND;
    use aquatic_load_engine::connection::ConnectOptions;
    use aquatic_load_engine::rng::Rng;

    use super::*;

    /// Takes the next event and everything that it brings.
    fn incoming(socket: &mut FastSocket, events: &mut Events, inbox: &mut Inbox) -> Vec<(Incoming, Vec<u8>)> {
        let mut outbox = Outbox::new(Rng::new(1, 2));
        assert!(events.wait(10 * SECOND) > 0, "no event");
        let mut all = Vec::new();
        while let Some(event) = events.take() {
            assert!(socket.has_token(event.token));
            socket.begin(event, inbox).unwrap();
            loop {
                let what = socket.receive(inbox, &mut outbox).unwrap();
                if what == Incoming::Nothing {
                    break;
                }
                all.push((what, inbox.message.clone()));
            }
        }
        all
    }

    #[test]
    fn what_comes_in_pieces_is_put_together_across_events() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let mut events = Events::new().unwrap();
        let mut socket = FastSocket::new(0);
        let wire =
            Connection::open(&ConnectOptions { server, source: None, nagle: false, tls: None }).unwrap();
        socket.connect(wire, &Upgrade::new(false, "h:1", "/").unwrap(), &events).unwrap();
        let mut tracker = listener.accept().unwrap().0;
        tracker.set_nodelay(true).unwrap();

        let mut inbox = Inbox::new();
        let mut all = Vec::new();
        let response =
            b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        // An upgrade, a message and half a ping; the rest of the ping and a message of two frames.
        let pieces: [&[u8]; 10] = [
            &response[..40],
            &response[40..],
            b"\x81",
            b"\x05He",
            b"llo\x89\x02",
            b"a",
            b"b\x01\x03one",
            b"\x00",
            b"\x01 \x80\x03",
            b"two",
        ];
        for piece in pieces {
            tracker.write_all(piece).unwrap();
            all.append(&mut incoming(&mut socket, &mut events, &mut inbox));
        }
        let hello = b"Hello".to_vec();
        assert_eq!(
            all,
            [
                (Incoming::Upgraded, Vec::new()),
                (Incoming::Message, hello.clone()),
                (Incoming::Ping, hello),
                (Incoming::Message, b"one two".to_vec()),
            ]
        );
    }
}
