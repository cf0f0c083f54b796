//! What the tracker sends, from bytes to messages.

use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::events::Event;
use aquatic_load_engine::link::{Incoming, Next};

use super::{Traffic, Worker};
use crate::counted::{Note, Tally, Violation};
use crate::frame::{self, Frame, Opcode, Taken};
use crate::slot::Step;
use crate::upgrade::{self, Response};

impl Worker {
    /// Something happened on a connection.
    pub(super) fn handle_event(
        &mut self,
        event: Event,
        buffer: &mut [u8],
        traffic: Traffic,
        tally: &mut Tally,
    ) {
        let now = self.plan.stage.now();
        let number = event.token.place;
        self.out.clear();
        let mut next = match self.slots[number as usize].link.flush(event) {
            Ok(()) => self.read(event, buffer, (now, traffic), tally),
            Err(error) => Next::Failed(error),
        };
        if let Next::Keep = next
            && let Err(error) = self.send(number)
        {
            next = Next::Failed(error);
        }
        let is_leaving = self.slots[number as usize].step == Step::Closing;
        match next {
            Next::Keep => {}
            // It was asked to, in one way or the other.
            Next::Close | Next::Failed(_) if is_leaving => self.finish(number, tally),
            Next::Close => {
                tally.note(Note::Closed);
                self.lose(number, now, traffic, tally);
            }
            Next::Abandon => self.lose(number, now, traffic, tally),
            Next::Failed(error) => self.fail(number, &error, now, traffic, tally),
        }
    }

    /// Reads what there is and takes the messages in it.
    fn read(
        &mut self,
        event: Event,
        buffer: &mut [u8],
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) -> Next {
        let number = event.token.place;
        loop {
            let (length, more) = match self.slots[number as usize].link.receive(event, buffer) {
                Ok(Incoming::Nothing) => return Next::Keep,
                Ok(Incoming::Bytes { length, more }) => (length, more),
                Ok(Incoming::End { .. }) => return Next::Close,
                Ok(Incoming::TooLong) => {
                    tally.violation(Violation::Framing);
                    return Next::Abandon;
                }
                Err(error) => return Next::Failed(error),
            };
            self.heard = now;
            let bytes = buffer.get(..length).unwrap_or_default();
            let used = match self.take(number, bytes, (now, traffic), tally) {
                Ok(used) => used,
                Err(next) => return next,
            };
            self.slots[number as usize].link.keep(bytes.get(used..).unwrap_or_default());
            if !more {
                return Next::Keep;
            }
        }
    }

    /// Takes all that is whole and returns how many bytes it has.
    fn take(
        &mut self,
        number: u32,
        bytes: &[u8],
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) -> Result<usize, Next> {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            if self.slots[number as usize].step == Step::Upgrading {
                match self.take_response(number, rest, now, tally)? {
                    Some(length) => used += length,
                    None => break,
                }
                continue;
            }
            match frame::take(rest) {
                Taken::NeedMore => break,
                Taken::Whole(frame) => {
                    used += frame.payload.end;
                    let payload = rest.get(frame.payload.clone()).unwrap_or_default();
                    self.take_frame(number, &frame, payload, (now, traffic), tally)?;
                }
                Taken::Refused => {
                    tally.violation(Violation::Framing);
                    return Err(Next::Abandon);
                }
            }
        }
        Ok(used)
    }

    fn take_response(
        &mut self,
        number: u32,
        bytes: &[u8],
        now: Nanos,
        tally: &mut Tally,
    ) -> Result<Option<usize>, Next> {
        match upgrade::take(bytes) {
            Response::NeedMore => return Ok(None),
            Response::Upgraded(length) => {
                self.upgraded(number, now, tally);
                return Ok(Some(length));
            }
            Response::Refused(status) => {
                tally.error_text(format!("status {status}").as_bytes());
                tally.note(Note::NotUpgraded);
            }
            Response::WrongAccept => tally.violation(Violation::WrongAccept),
            Response::Malformed => tally.violation(Violation::NotHttp),
        }
        Err(Next::Abandon)
    }

    fn take_frame(
        &mut self,
        number: u32,
        frame: &Frame,
        payload: &[u8],
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) -> Result<(), Next> {
        let slot = &mut self.slots[number as usize];
        match frame.opcode {
            // Some trackers send text as what it is, others as bytes.
            Opcode::Text | Opcode::Binary if frame.last && slot.message.is_empty() => {
                self.message(number, payload, (now, traffic), tally);
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                let starts = frame.opcode != Opcode::Continuation;
                if starts != slot.message.is_empty() {
                    tally.violation(Violation::Framing);
                    return Err(Next::Abandon);
                }
                slot.message.extend_from_slice(payload);
                if frame.last {
                    let message = std::mem::take(&mut slot.message);
                    self.message(number, &message, (now, traffic), tally);
                }
            }
            Opcode::Close => return Err(Next::Close),
            Opcode::Ping => {
                tally.note(Note::Pings);
                self.add_control(Opcode::Pong, payload);
            }
            Opcode::Pong => {}
        }
        Ok(())
    }
}
