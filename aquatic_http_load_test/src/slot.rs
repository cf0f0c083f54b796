//! Slots for connections, with the requests in flight on them.

use std::collections::VecDeque;

use aquatic_load_engine::connection_slot::ConnectionSlot;

use crate::traffic::Pending;

/// Slot for a connection.
pub(crate) struct Slot {
    pub(crate) connection: ConnectionSlot,
    /// Index of the source address in the thread.
    pub(crate) source: usize,
    /// Requests in flight, in the order in which they were sent.
    pub(crate) pending: VecDeque<Pending>,
    /// Number of requests sent on the connection.
    pub(crate) sent: u32,
    /// Whether a response has arrived on the connection.
    pub(crate) has_response: bool,
    /// Whether no further request may be sent on the connection.
    pub(crate) last: bool,
}

impl Slot {
    pub(crate) fn new(slot: u32) -> Self {
        Self {
            connection: ConnectionSlot::new(slot),
            source: 0,
            pending: VecDeque::new(),
            sent: 0,
            has_response: false,
            last: false,
        }
    }

    /// Number of further requests that may be sent with this limit of pipelining.
    pub(crate) fn room(&self, pipelining: usize) -> usize {
        match (self.connection.is_open(), self.last) {
            (true, true) => 0,
            (true, false) => pipelining.saturating_sub(self.pending.len()),
            (false, _) => pipelining,
        }
    }

    /// Closes the connection. The caller handles the requests in flight.
    pub(crate) fn close(&mut self) {
        self.connection.close();
        self.sent = 0;
        self.has_response = false;
        self.last = false;
    }
}
