//! What goes into overload control, and what comes out of it.

use std::time::Duration;

use aquatic_common::Prefix;
use aquatic_net::udp::{DropFilter, QueueState};

/// What a listener has done since the last interval.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Activity {
    /// Datagrams received.
    pub(crate) received: u32,
    /// Of these, dropped unread.
    pub(crate) shed: u32,
    /// Time spent waiting for datagrams.
    pub(crate) idle: Duration,
    /// Whether the receive buffer was empty at some time.
    pub(crate) was_empty: bool,
    /// Least memory of the receive buffer that the kernel showed. It counts what was received lately as well,
    /// up to a quarter of the buffer, until it has taken the next datagrams out of its queue together: so the
    /// least is what waits.
    pub(crate) least_bytes: Option<u32>,
}

impl Activity {
    /// Takes in what the receive buffer holds.
    pub(crate) fn observe(&mut self, queue: QueueState) {
        self.least_bytes = Some(self.least_bytes.map_or(queue.bytes, |least| least.min(queue.bytes)));
    }
}

/// What is told about an overload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// It has begun.
    Began {
        /// Datagrams per second that arrive.
        offered: f64,
        /// Datagrams per second that can be served.
        capacity: f64,
        /// The heaviest network that may be named, and the datagrams per second it sends; `None` if none
        /// stands out.
        heaviest: Option<(Prefix, f64)>,
    },
    /// It has ended after this time.
    Ended(Duration),
}

/// What follows from an interval.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// The filter that the kernel should have from now on.
    pub(crate) filter: Option<DropFilter>,
    /// What has to be told.
    pub(crate) event: Option<Event>,
}

impl Change {
    /// Whether there is anything to do or to tell.
    pub(crate) fn is_some(&self) -> bool {
        self.filter.is_some() || self.event.is_some()
    }
}

/// An overload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overload {
    pub(super) since: Duration,
    /// When something had to be dropped last.
    pub(super) last: Duration,
    /// Datagrams that have arrived since the beginning.
    pub(super) arrived: f64,
}

/// What has been told about an overload, which may come and go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) since: Duration,
    /// When there was an overload last.
    pub(super) last: Duration,
}
