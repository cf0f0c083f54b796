//! Places for connections, and what is under way on them.

use std::collections::VecDeque;

use aquatic_load_engine::connection_slot::ConnectionSlot;

use crate::traffic::Pending;

/// A place for a connection.
pub(crate) struct Slot {
    pub(crate) connection: ConnectionSlot,
    /// Which of the thread's source addresses the connection is from.
    pub(crate) source: usize,
    /// Requests without a response yet, in the order in which they were sent.
    pub(crate) pending: VecDeque<Pending>,
    /// Requests sent on the connection.
    pub(crate) sent: u32,
    /// Whether a response has come on the connection.
    pub(crate) has_response: bool,
    /// Whether the last request was the last on this connection.
    pub(crate) last: bool,
}

impl Slot {
    pub(crate) fn new(place: u32) -> Self {
        Self {
            connection: ConnectionSlot::new(place),
            source: 0,
            pending: VecDeque::new(),
            sent: 0,
            has_response: false,
            last: false,
        }
    }

    /// How many further requests it can take with so many allowed at a time.
    pub(crate) fn room(&self, pipelining: usize) -> usize {
        match (self.connection.is_open(), self.last) {
            (true, true) => 0,
            (true, false) => pipelining.saturating_sub(self.pending.len()),
            (false, _) => pipelining,
        }
    }

    /// Closes the connection. Whose responses were due on it, the caller has to take care of.
    pub(crate) fn close(&mut self) {
        self.connection.close();
        self.sent = 0;
        self.has_response = false;
        self.last = false;
    }
}
