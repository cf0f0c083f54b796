//! What the tracker sends, from bytes to counts.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use aquatic_http_protocol::{Answer, AnswerError, Taken};
use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::wire::{Received, Wire};
use rustls::HandshakeKind;

use super::{Next, Worker};
use crate::counted::{Note, Tally, Violation};
use crate::traffic::{self, Pending, Traffic};

impl Worker {
    /// Reads what there is and takes the responses in it.
    pub(super) fn read(
        &mut self,
        number: u32,
        ending: bool,
        buffer: &mut [u8],
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) -> Next {
        loop {
            let slot = &mut self.slots[number as usize];
            let Some(wire) = &mut slot.wire else { return Next::Keep };
            let kept = slot.partial.len();
            let Some((front, room)) = buffer.split_at_mut_checked(kept).filter(|(_, room)| !room.is_empty())
            else {
                tally.violation(Violation::Length);
                return Next::Abandon;
            };
            front.copy_from_slice(&slot.partial);
            let space = room.len();
            let length = match wire.receive(room) {
                Ok(Received::Nothing) => return Next::Keep,
                Ok(Received::Bytes(length)) => length,
                Ok(Received::End) => 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Next::Failed(error),
            };
            let drained = wire.is_drained_by(length, space) && !ending;
            let bytes = buffer.get(..kept + length).unwrap_or_default();
            let ended = length == 0;
            let Some(used) = self.take_answers(number, bytes, ended, (now, traffic), tally) else {
                return Next::Abandon;
            };
            let slot = &mut self.slots[number as usize];
            if ended || (slot.last && slot.pending.is_empty()) {
                return Next::Close;
            }
            slot.partial.clear();
            slot.partial.extend_from_slice(bytes.get(used..).unwrap_or_default());
            if drained {
                return Next::Keep;
            }
        }
    }

    /// Takes all whole responses and returns how many bytes they have; nothing if there is something else.
    fn take_answers(
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
            let answer = match Answer::take(rest, ended) {
                Taken::NeedMore => break,
                Taken::Whole(answer) => answer,
                Taken::Refused(error) => {
                    tally.violation(match error {
                        AnswerError::Malformed => Violation::NotHttp,
                        AnswerError::Length => Violation::Length,
                        AnswerError::Chunked => Violation::Chunked,
                        AnswerError::CutShort => Violation::CutShort,
                    });
                    return None;
                }
            };
            used += answer.length;
            if ended {
                // With a length, it would have been whole before the end of the connection.
                tally.note(Note::WithoutLength);
            }
            slot.last |= !answer.keep_alive;
            self.note_first_answer(number, tally);
            if let Some(pending) = self.slots[number as usize].pending.pop_front() {
                self.settle(number, &pending, &answer, (now, traffic), tally);
            }
        }
        Some(used)
    }

    /// Takes note of how a connection was made.
    fn note_first_answer(&mut self, number: u32, tally: &mut Tally) {
        let slot = &mut self.slots[number as usize];
        if slot.answered {
            return;
        }
        slot.answered = true;
        match slot.wire.as_ref().and_then(Wire::handshake) {
            Some(HandshakeKind::Resumed) => tally.note(Note::ResumedHandshakes),
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => {
                tally.note(Note::FullHandshakes);
            }
            None => {}
        }
        self.prove(number);
    }

    /// Takes note of a response.
    fn settle(
        &mut self,
        number: u32,
        pending: &Pending,
        answer: &Answer<'_>,
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) {
        self.in_flight -= 1;
        let wanted = traffic::wanted(&self.plan, traffic);
        let served = self.checker.response(&self.plan, (pending, wanted), answer, tally);
        tally.response(pending.kind, pending.intended, now, served);
        match traffic {
            Traffic::Mix => {}
            Traffic::Prefill if !served => self.failed_announce(number, pending, tally),
            Traffic::Prefill => {
                tally.note(Note::PeersAnnounced);
                self.live.done.fetch_add(1, Ordering::Relaxed);
            }
            Traffic::Idle => {
                self.live.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
