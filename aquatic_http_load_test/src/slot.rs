//! Places for connections: each has one connection after the other, or one for ever.

use std::collections::VecDeque;

use aquatic_load_engine::wire::Wire;

use crate::traffic::Pending;

/// A place for a connection.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) wire: Option<Wire>,
    /// Which of the thread's source addresses the connection is from.
    pub(crate) source: usize,
    /// Counts the connections that had this place, so that an event of one is not taken for one of the next.
    pub(crate) generation: u32,
    /// Requests without a response yet, in the order in which they were sent.
    pub(crate) pending: VecDeque<Pending>,
    /// The beginning of a response.
    pub(crate) partial: Vec<u8>,
    /// Requests sent on the connection.
    pub(crate) sent: u32,
    /// Whether a response has come on the connection.
    pub(crate) answered: bool,
    /// Whether a connection in this place has come to anything, be it an answer or a failure.
    pub(crate) proven: bool,
    /// Whether the last request was the last on this connection.
    pub(crate) last: bool,
    /// Whether the kernel was asked to say when it takes more.
    pub(crate) wants_write: bool,
    /// Whether it is among those that can take a request.
    pub(crate) listed: bool,
}

impl Slot {
    /// How many further requests it can take with so many allowed at a time.
    pub(crate) fn room(&self, pipelining: usize) -> usize {
        match (&self.wire, self.last) {
            (Some(_), true) => 0,
            (Some(_), false) => pipelining.saturating_sub(self.pending.len()),
            (None, _) => pipelining,
        }
    }

    /// Gives it another connection.
    pub(crate) fn connect(&mut self, wire: Wire, source: usize) {
        self.close();
        self.generation = self.generation.wrapping_add(1);
        self.source = source;
        self.wire = Some(wire);
    }

    /// Closes the connection. Whose responses were due on it, the caller has to take care of.
    pub(crate) fn close(&mut self) {
        self.wire = None;
        self.partial.clear();
        self.sent = 0;
        self.answered = false;
        self.last = false;
        self.wants_write = false;
    }

    /// What its events are called.
    pub(crate) fn token(&self, number: u32) -> u64 {
        u64::from(self.generation) << 32 | u64::from(number)
    }
}
