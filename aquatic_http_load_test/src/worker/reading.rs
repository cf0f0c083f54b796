//! Receiving and counting of responses.

use aquatic_http_protocol::{Parsed, Response, ResponseError};
use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::connection_slot::{Disposition, Incoming};
use aquatic_load_engine::events::Event;

use super::Worker;
use crate::counters::{Note, Tally, Violation};
use crate::traffic::{self, Pending, Traffic};

impl Worker {
    /// Reads and processes responses until nothing is left.
    pub(super) fn read(
        &mut self,
        event: Event,
        buffer: &mut [u8],
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) -> Disposition {
        let number = event.token.slot;
        loop {
            let slot = &mut self.slots[number as usize];
            let (length, ended, more) = match slot.connection.receive(event, buffer) {
                Ok(Incoming::Nothing) => return Disposition::Keep,
                Ok(Incoming::Bytes { length, more }) => (length, false, more),
                Ok(Incoming::End { length }) => (length, true, false),
                Ok(Incoming::TooLong) => {
                    tally.violation(Violation::Length);
                    return Disposition::Abandon;
                }
                Err(error) => return Disposition::Failed(error),
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            let Some(used) = self.take_responses(number, bytes, ended, (now, traffic), tally) else {
                return Disposition::Abandon;
            };
            let slot = &mut self.slots[number as usize];
            if ended || (slot.last && slot.pending.is_empty()) {
                return Disposition::Close;
            }
            slot.connection.retain(bytes.get(used..).unwrap_or_default());
            if !more {
                return Disposition::Keep;
            }
        }
    }

    /// Processes all complete responses and returns their length in bytes, or `None` after a violation.
    fn take_responses(
        &mut self,
        number: u32,
        bytes: &[u8],
        ended: bool,
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) -> Option<usize> {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let slot = &mut self.slots[number as usize];
            if slot.pending.is_empty() {
                tally.violation(Violation::Unasked);
                return None;
            }
            let answer = match Response::parse(rest, ended) {
                Parsed::NeedMore => break,
                Parsed::Complete(answer) => answer,
                Parsed::Refused(error) => {
                    tally.violation(match error {
                        ResponseError::Malformed => Violation::NotHttp,
                        ResponseError::Length => Violation::Length,
                        ResponseError::Chunked => Violation::Chunked,
                        ResponseError::Truncated => Violation::CutShort,
                    });
                    return None;
                }
            };
            used += answer.length;
            if ended {
                // A response with a length would have been complete before the end of the connection.
                tally.note(Note::WithoutLength);
            }
            slot.last |= !answer.keep_alive;
            self.note_first_response(number, tally);
            if let Some(pending) = self.slots[number as usize].pending.pop_front() {
                self.response_received(number, &pending, &answer, (now, traffic), tally);
            }
        }
        Some(used)
    }

    /// Records the first response on a connection.
    fn note_first_response(&mut self, number: u32, tally: &mut Tally) {
        let slot = &mut self.slots[number as usize];
        if slot.has_response {
            return;
        }
        slot.has_response = true;
        if let Some(handshake) = slot.connection.handshake() {
            tally.tls_handshake(handshake);
        }
        self.ramp.complete(number as usize);
    }

    /// Records a response.
    fn response_received(
        &mut self,
        number: u32,
        pending: &Pending,
        answer: &Response<'_>,
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) {
        self.in_flight -= 1;
        let numwant = traffic::numwant(&self.plan, traffic);
        let served = self.checker.response(&self.plan, (pending, numwant), answer, tally);
        tally.response(pending.kind, pending.intended, now, served);
        match traffic {
            Traffic::Mix => {}
            Traffic::Prefill if !served => self.failed_announce(number, pending, tally),
            Traffic::Prefill => {
                tally.note(Note::PeersAnnounced);
                self.live.step_done();
            }
            Traffic::Idle => self.live.step_done(),
        }
    }
}
