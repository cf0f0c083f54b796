//! Slots for the connections of a thread.

use std::io::{self, ErrorKind};

use crate::connection::{Connection, Received, TlsHandshake};
use crate::events::{Event, Events, Token};

/// Slot that holds one connection after the other.
#[derive(Debug)]
pub struct ConnectionSlot {
    token: Token,
    connection: Option<Connection>,
    /// Received data that is not a complete message yet.
    partial: Vec<u8>,
    /// Whether events report room to send.
    watches_writable: bool,
}

/// Result of a read, including retained data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Nothing to read.
    Nothing,
    /// Data at the front of the buffer.
    Bytes {
        /// Number of bytes.
        length: usize,
        /// Whether to read again: no event will report the rest.
        more: bool,
    },
    /// End of the stream; the retained data is at the front of the buffer.
    End {
        /// Number of bytes.
        length: usize,
    },
    /// The retained data fills the buffer.
    TooLong,
}

/// What to do with a connection after an event.
#[derive(Debug)]
pub enum Disposition {
    /// Keep it open.
    Keep,
    /// Close it: all requests have their responses, or the tracker closed it.
    Close,
    /// Close it after a protocol violation of the tracker.
    Abandon,
    /// Close it after an I/O error.
    Failed(io::Error),
}

impl ConnectionSlot {
    /// A slot without a connection.
    #[must_use]
    pub fn new(slot: u32) -> Self {
        Self {
            token: Token { slot, generation: 0 },
            connection: None,
            partial: Vec::new(),
            watches_writable: false,
        }
    }

    /// Token of the current connection in events.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Whether the slot has a connection.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether an event with this token belongs to the current connection.
    #[must_use]
    pub fn has_token(&self, token: Token) -> bool {
        self.is_open() && self.token == token
    }

    /// Replaces the connection and watches the new one.
    ///
    /// # Errors
    /// When it cannot be watched. The slot holds it nevertheless.
    pub fn connect(&mut self, connection: Connection, events: &Events) -> io::Result<()> {
        self.close();
        self.token.generation = self.token.generation.wrapping_add(1);
        events.watch(self.connection.insert(connection), self.token)
    }

    /// Closes the connection. The caller handles requests that are in flight on it.
    pub fn close(&mut self) {
        self.connection = None;
        self.partial = Vec::new();
        self.watches_writable = false;
    }

    /// Kind of the TLS handshake, once it is complete.
    #[must_use]
    pub fn handshake(&self) -> Option<TlsHandshake> {
        self.connection.as_ref().and_then(Connection::handshake)
    }

    /// Sends data, which may be empty. An event follows when the kernel accepts what it does not accept yet.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn send(&mut self, bytes: &[u8], events: &Events) -> io::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if !bytes.is_empty() {
            connection.send(bytes)?;
        }
        if connection.has_unsent() && !self.watches_writable {
            self.watches_writable = true;
            events.watch_writable(connection, self.token)?;
        }
        Ok(())
    }

    /// Sends buffered data if the event reports room for it.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn flush(&mut self, event: Event) -> io::Result<()> {
        match &mut self.connection {
            Some(connection) if event.writable => connection.flush(),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads once.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn receive(&mut self, event: Event, buffer: &mut [u8]) -> io::Result<Incoming> {
        let Some(connection) = &mut self.connection else { return Ok(Incoming::Nothing) };
        let retained = self.partial.len();
        let Some((front, room)) = buffer.split_at_mut_checked(retained).filter(|(_, room)| !room.is_empty())
        else {
            return Ok(Incoming::TooLong);
        };
        front.copy_from_slice(&self.partial);
        let received = loop {
            match connection.receive(room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        Ok(match received {
            Received::Nothing => Incoming::Nothing,
            Received::Bytes(length) => {
                let more = event.ending || !connection.is_drained_by(length, room.len());
                Incoming::Bytes { length: retained + length, more }
            }
            Received::End => Incoming::End { length: retained },
        })
    }

    /// Retains received data that is not a complete message yet.
    pub fn retain(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        } else if !self.partial.is_empty() {
            // Incomplete messages are rare, so the memory is freed.
            self.partial = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::clock::SECOND;
    use crate::connection::ConnectOptions;

    /// A slot, its events, and the remote end of its connection.
    fn connected() -> (ConnectionSlot, Events, TcpStream) {
        let (mut slot, events) = (ConnectionSlot::new(7), Events::new().unwrap());
        let tracker = connect(&mut slot, &events);
        (slot, events, tracker)
    }

    fn connect(slot: &mut ConnectionSlot, events: &Events) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let options = ConnectOptions { server, source: None, nagle: false, tls: None };
        slot.connect(Connection::open(&options).unwrap(), events).unwrap();
        listener.accept().unwrap().0
    }

    fn receive(slot: &mut ConnectionSlot, events: &mut Events, buffer: &mut [u8]) -> Incoming {
        loop {
            events.wait(10 * SECOND);
            let event = events.take().unwrap();
            assert!(slot.has_token(event.token));
            let incoming = slot.receive(event, buffer).unwrap();
            if incoming != Incoming::Nothing {
                return incoming;
            }
        }
    }

    #[test]
    fn incomplete_data_is_returned_again_with_the_rest() {
        let (mut slot, mut events, mut tracker) = connected();
        let mut buffer = [0; 8];
        tracker.write_all(b"one tw").unwrap();
        assert_eq!(receive(&mut slot, &mut events, &mut buffer), Incoming::Bytes { length: 6, more: false });
        slot.retain(b"tw");
        tracker.write_all(b"o three").unwrap();
        assert_eq!(receive(&mut slot, &mut events, &mut buffer), Incoming::Bytes { length: 8, more: true });
        assert_eq!(&buffer, b"two thre");
        slot.retain(b"thre");
        drop(tracker);
        let ending = Event { token: slot.token(), writable: false, ending: true };
        assert_eq!(slot.receive(ending, &mut buffer).unwrap(), Incoming::Bytes { length: 5, more: true });
        assert_eq!(slot.receive(ending, &mut buffer).unwrap(), Incoming::End { length: 4 });
        slot.retain(b"too long");
        assert_eq!(slot.receive(ending, &mut buffer).unwrap(), Incoming::TooLong);
    }

    #[test]
    fn unsent_data_is_sent_when_there_is_room() {
        let (mut slot, mut events, tracker) = connected();
        let bytes = vec![b'x'; 16 << 20];
        slot.send(&bytes, &events).unwrap();
        let reader =
            std::thread::spawn(move || io::copy(&mut tracker.take(16 << 20), &mut io::sink()).unwrap());
        while slot.connection.as_ref().unwrap().has_unsent() {
            assert!(events.wait(10 * SECOND) > 0, "no event reports room");
            while let Some(event) = events.take() {
                slot.flush(event).unwrap();
            }
        }
        assert_eq!(reader.join().unwrap(), bytes.len() as u64);
    }

    #[test]
    fn late_events_of_earlier_connections_are_recognised() {
        let (mut slot, events, _tracker) = connected();
        let first = slot.token();
        connect(&mut slot, &events);
        assert!(!slot.has_token(first) && slot.has_token(slot.token()));
        slot.close();
        assert!(!slot.has_token(slot.token()));
    }
}
