//! Places for the connections of a thread: each has one connection after the other, or one for ever.

use std::io::{self, ErrorKind};

use crate::events::{Event, Events, Token};
use crate::wire::{Handshake, Received, Wire};

/// A place, and the connection there.
#[derive(Debug)]
pub struct Link {
    token: Token,
    wire: Option<Wire>,
    /// What was received and is not whole yet.
    partial: Vec<u8>,
    /// Whether events tell when the kernel takes more.
    wants_room: bool,
}

/// What was received, together with what was kept of it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Nothing new.
    Nothing,
    /// So many bytes at the front of the buffer. There may be more if `more`.
    Bytes {
        /// How many.
        length: usize,
        /// Whether to ask again: no event will tell.
        more: bool,
    },
    /// Nothing new, nor ever again; so many bytes at the front of the buffer were kept.
    End {
        /// How many.
        length: usize,
    },
    /// What was kept leaves no room in the buffer.
    TooLong,
}

/// What becomes of a connection after an event.
#[derive(Debug)]
pub enum Next {
    /// It goes on.
    Keep,
    /// All that was asked on it is answered, or the tracker closed it.
    Close,
    /// The tracker did something on it after which nothing can be relied on.
    Abandon,
    /// It failed.
    Failed(io::Error),
}

impl Link {
    /// A place without a connection.
    #[must_use]
    pub fn at(place: u32) -> Self {
        Self { token: Token { place, generation: 0 }, wire: None, partial: Vec::new(), wants_room: false }
    }

    /// What the connection is called in events.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.wire.is_some()
    }

    /// Whether there is a connection that is called so.
    #[must_use]
    pub fn is_called(&self, token: Token) -> bool {
        self.is_open() && self.token == token
    }

    /// Gives the place another connection, and has its events come.
    ///
    /// # Errors
    /// When the kernel does not allow to watch it. The place has it all the same.
    pub fn connect(&mut self, wire: Wire, events: &Events) -> io::Result<()> {
        self.close();
        self.token.generation = self.token.generation.wrapping_add(1);
        events.watch(self.wire.insert(wire), self.token)
    }

    /// Closes the connection. What was due on it, the caller has to take care of.
    pub fn close(&mut self) {
        self.wire = None;
        self.partial = Vec::new();
        self.wants_room = false;
    }

    /// How the TLS handshake went, once it is over.
    #[must_use]
    pub fn handshake(&self) -> Option<Handshake> {
        self.wire.as_ref().and_then(Wire::handshake)
    }

    /// Sends bytes, which may be none. Has an event come when the kernel takes what it does not take yet.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn send(&mut self, bytes: &[u8], events: &Events) -> io::Result<()> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        if !bytes.is_empty() {
            wire.send(bytes)?;
        }
        if wire.has_unsent() && !self.wants_room {
            self.wants_room = true;
            events.watch_room(wire, self.token)?;
        }
        Ok(())
    }

    /// Sends what the kernel did not take, if it does now.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn flush(&mut self, event: Event) -> io::Result<()> {
        match &mut self.wire {
            Some(wire) if event.writable => wire.flush(),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads once.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn receive(&mut self, event: Event, buffer: &mut [u8]) -> io::Result<Incoming> {
        let Some(wire) = &mut self.wire else { return Ok(Incoming::Nothing) };
        let kept = self.partial.len();
        let Some((front, room)) = buffer.split_at_mut_checked(kept).filter(|(_, room)| !room.is_empty())
        else {
            return Ok(Incoming::TooLong);
        };
        front.copy_from_slice(&self.partial);
        let received = loop {
            match wire.receive(room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        Ok(match received {
            Received::Nothing => Incoming::Nothing,
            Received::Bytes(length) => {
                let more = event.ending || !wire.is_drained_by(length, room.len());
                Incoming::Bytes { length: kept + length, more }
            }
            Received::End => Incoming::End { length: kept },
        })
    }

    /// Keeps what is not whole yet of what was received.
    pub fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        } else if !self.partial.is_empty() {
            // It was rare enough not to hold memory for the next time.
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
    use crate::wire::Route;

    /// A link, its events, and the other end of its connection.
    fn connected() -> (Link, Events, TcpStream) {
        let (mut link, events) = (Link::at(7), Events::new().unwrap());
        let tracker = connect(&mut link, &events);
        (link, events, tracker)
    }

    fn connect(link: &mut Link, events: &Events) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let route = Route { server, source: None, may_delay: false, tls: None };
        link.connect(Wire::open(&route).unwrap(), events).unwrap();
        listener.accept().unwrap().0
    }

    fn receive(link: &mut Link, events: &mut Events, buffer: &mut [u8]) -> Incoming {
        loop {
            events.wait(10 * SECOND);
            let event = events.take().unwrap();
            assert!(link.is_called(event.token));
            let incoming = link.receive(event, buffer).unwrap();
            if incoming != Incoming::Nothing {
                return incoming;
            }
        }
    }

    #[test]
    fn what_is_not_whole_is_read_again_with_the_rest() {
        let (mut link, mut events, mut tracker) = connected();
        let mut buffer = [0; 8];
        tracker.write_all(b"one tw").unwrap();
        assert_eq!(receive(&mut link, &mut events, &mut buffer), Incoming::Bytes { length: 6, more: false });
        link.keep(b"tw");
        tracker.write_all(b"o three").unwrap();
        assert_eq!(receive(&mut link, &mut events, &mut buffer), Incoming::Bytes { length: 8, more: true });
        assert_eq!(&buffer, b"two thre");
        link.keep(b"thre");
        drop(tracker);
        let ending = Event { token: link.token(), writable: false, ending: true };
        assert_eq!(link.receive(ending, &mut buffer).unwrap(), Incoming::Bytes { length: 5, more: true });
        assert_eq!(link.receive(ending, &mut buffer).unwrap(), Incoming::End { length: 4 });
        link.keep(b"too long");
        assert_eq!(link.receive(ending, &mut buffer).unwrap(), Incoming::TooLong);
    }

    #[test]
    fn what_the_kernel_does_not_take_waits_for_room() {
        let (mut link, mut events, tracker) = connected();
        let bytes = vec![b'x'; 16 << 20];
        link.send(&bytes, &events).unwrap();
        let reader =
            std::thread::spawn(move || io::copy(&mut tracker.take(16 << 20), &mut io::sink()).unwrap());
        while link.wire.as_ref().unwrap().has_unsent() {
            assert!(events.wait(10 * SECOND) > 0, "no event tells of room");
            while let Some(event) = events.take() {
                link.flush(event).unwrap();
            }
        }
        assert_eq!(reader.join().unwrap(), bytes.len() as u64);
    }

    #[test]
    fn events_of_one_connection_are_not_taken_for_those_of_the_next() {
        let (mut link, events, _tracker) = connected();
        let first = link.token();
        connect(&mut link, &events);
        assert!(!link.is_called(first) && link.is_called(link.token()));
        link.close();
        assert!(!link.is_called(link.token()));
    }
}
