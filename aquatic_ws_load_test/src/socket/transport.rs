//! Asynchronous byte stream over a connection of the load engine. It wakes no task: after `Pending`, poll
//! again after the next event of the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use aquatic_load_engine::connection::{Connection, Received, TlsHandshake};
use aquatic_load_engine::events::Event;
use futures_util::io::{AsyncRead, AsyncWrite};

/// Byte stream that never wakes a task.
pub(crate) struct Transport {
    wire: Connection,
    /// Known state of the kernel's receive buffer.
    readable: Readable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readable {
    /// No event yet: each read is a system call.
    Unknown,
    /// An event was reported, and its data may not have been read completely.
    Yes {
        /// Whether the end of the stream is to be read, too.
        ending: bool,
    },
    /// Nothing to read until the next event.
    No,
}

impl Transport {
    pub(crate) fn new(wire: Connection) -> Self {
        Self { wire, readable: Readable::Unknown }
    }

    /// Records an event of the connection.
    pub(crate) fn note_event(&mut self, event: Event) {
        self.readable = Readable::Yes { ending: event.ending };
    }

    /// Kind of the TLS handshake, once it is complete.
    pub(crate) fn handshake(&self) -> Option<TlsHandshake> {
        self.wire.handshake()
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { wire, readable } = self.get_mut();
        if *readable == Readable::No {
            return Poll::Pending;
        }
        let received = loop {
            match wire.receive(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        match received {
            Received::Bytes(length) => {
                // A short read has emptied the kernel's buffer; asking again would find nothing.
                let is_drained = wire.is_drained_by(length, buffer.len());
                if is_drained && *readable == (Readable::Yes { ending: false }) {
                    *readable = Readable::No;
                }
                Poll::Ready(Ok(length))
            }
            Received::Nothing => Poll::Pending,
            Received::End => Poll::Ready(Ok(0)),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = &mut self.get_mut().wire;
        if wire.has_unsent() {
            wire.flush()?;
            if wire.has_unsent() {
                return Poll::Pending;
            }
        }
        wire.send(bytes)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut self.get_mut().wire;
        wire.flush()?;
        if wire.has_unsent() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}
