//! Bytes of a connection: frames in, and what is queued for it.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use aquatic_common::RateVerdict;
use aquatic_tracker::Forward;
use aquatic_ws_protocol::{Action, Fault, Refused};

use super::{RequestContext, Tracker};
use crate::connections::End;
use crate::counters::DropReason;
use crate::forwarding::ForwardedBatch;
use crate::frames::{FrameFault, Incoming, Reader, frame_length, write_pong};
use crate::swarm::ConnectionId;

const NOT_UTF8: Refused = Refused { action: Action::Announce, info_hash: None, fault: Fault::NotUtf8 };

/// End of a connection that received data results in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Reason why the connection ends.
    pub end: End,
    /// Status code of the client's close frame, if it sent one.
    pub close: Option<Option<u16>>,
}

impl<F: Forward<ForwardedBatch>> Tracker<F> {
    /// Serves data received over a connection. `reader` is the one of this connection. Returns whether, and
    /// why, the connection ends.
    pub fn receive_bytes(
        &mut self,
        id: ConnectionId,
        reader: &mut Reader,
        received: &mut [u8],
        context: &mut RequestContext<'_>,
    ) -> Option<Ended> {
        self.counters.received.add(received.len() as u64);
        self.connections.set_current(Some(id));
        let mut ended = None;
        let max_message = self.limits.max_message_length;
        let read = reader.read(received, max_message, &mut |incoming| {
            ended = self.receive_frame(id, &incoming, context);
            let has_ended = self.connections.get(id).is_none_or(|connection| connection.end.is_some());
            if ended.is_some() || has_ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.connections.data_received(id, reader.has_partial_message(), reader.partial_bytes());
        self.connections.set_current(None);
        let fault = match read {
            Ok(()) => return ended,
            Err(FrameFault::Protocol) => End::Protocol,
            Err(FrameFault::TooLong) => End::TooLong,
        };
        Some(Ended { end: fault, close: None })
    }

    fn receive_frame(
        &mut self,
        id: ConnectionId,
        incoming: &Incoming<'_>,
        context: &mut RequestContext<'_>,
    ) -> Option<Ended> {
        self.connections.frame_received(id, incoming.completes_message());
        let is_message = matches!(incoming, Incoming::Text(_) | Incoming::Binary(_));
        if is_message && !self.admit_source(id, context.time) {
            self.counters.drop_unread(DropReason::RateLimit);
            return None;
        }
        match *incoming {
            Incoming::Text(text) => match simdutf8::basic::from_utf8(text) {
                Ok(text) => self.receive(id, text, context),
                Err(_) => return Some(Ended { end: End::NotUtf8, close: None }),
            },
            Incoming::Binary(bytes) => match simdutf8::basic::from_utf8(bytes) {
                Ok(text) => self.receive(id, text, context),
                Err(_) => self.refuse_malformed(id, &NOT_UTF8),
            },
            Incoming::Ping(payload) => {
                let length = frame_length(payload.len());
                // A pong that does not fit is dropped: a later one answers this ping, too (RFC 6455, section
                // 5.5.3).
                let _ = self.connections.push_relay(id, length, |out| write_pong(payload, out));
            }
            Incoming::Fragment | Incoming::Pong => {}
            Incoming::Close(code) => return Some(Ended { end: End::Client, close: Some(code) }),
        }
        None
    }

    /// Charges a message to the source of its connection. Returns whether the message may be served.
    pub(super) fn admit_source(&mut self, id: ConnectionId, time: Duration) -> bool {
        let Some(connection) = self.connections.get(id) else { return true };
        let Some(source) = connection.source else { return true };
        let is_admitted = self.admits(source, time);
        if !is_admitted && let Some(connection) = self.connections.get(id) {
            connection.pause();
        }
        is_admitted
    }

    /// Charges a request or a message to its source. Returns whether it may be served.
    pub(crate) fn admits(&mut self, source: IpAddr, time: Duration) -> bool {
        match self.sources.check(source, time) {
            RateVerdict::Within => true,
            RateVerdict::Above => false,
            RateVerdict::AboveInDryRun => {
                self.counters.above_in_dry_run.add(1);
                true
            }
        }
    }

    /// Returns the bytes that are queued for a connection.
    pub fn unsent(&mut self, id: ConnectionId) -> &[u8] {
        self.connections.get(id).map_or(&[], |connection| connection.send_queue.unsent())
    }

    /// Records that the first of the queued bytes were sent.
    pub fn sent(&mut self, id: ConnectionId, bytes: usize) {
        self.connections.data_sent(id, bytes);
        self.counters.sent.add(bytes as u64);
    }

    /// Returns why the tracker has ended a connection, which is then to be closed.
    pub fn end(&mut self, id: ConnectionId) -> Option<End> {
        self.connections.get(id).and_then(|connection| connection.end)
    }
}
