//! What the tracker sends, from bytes to messages.

use std::io::{self, ErrorKind};

use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::events::Event;
use aquatic_load_engine::wire::Received;

use super::{Traffic, Worker};
use crate::counted::{Note, Tally, Violation};
use crate::frame::{self, Frame, Opcode, Taken};
use crate::slot::Step;
use crate::upgrade::{self, Response};

/// What becomes of a connection after an event.
enum Next {
    Keep,
    /// The tracker closed it.
    Closed,
    /// The tracker did something on it after which nothing can be relied on.
    Abandon,
    Failed(io::Error),
}

impl Worker {
    /// Something happened on a connection.
    pub(super) fn handle_event(
        &mut self,
        number: u32,
        event: Event,
        buffer: &mut [u8],
        traffic: Traffic,
        tally: &mut Tally,
    ) {
        let now = self.plan.now();
        let slot = &mut self.slots[number as usize];
        let flushed = match &mut slot.wire {
            Some(wire) if event.writable => wire.flush(),
            Some(_) | None => Ok(()),
        };
        self.out.clear();
        let mut next = match flushed {
            Ok(()) => self.read(number, event.ending, buffer, (now, traffic), tally),
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
            Next::Closed | Next::Failed(_) if is_leaving => self.finish(number, tally),
            Next::Closed => {
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
                tally.violation(Violation::Framing);
                return Next::Abandon;
            };
            front.copy_from_slice(&slot.partial);
            let space = room.len();
            let length = match wire.receive(room) {
                Ok(Received::Nothing) => return Next::Keep,
                Ok(Received::Bytes(length)) => length,
                Ok(Received::End) => return Next::Closed,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Next::Failed(error),
            };
            let drained = wire.is_drained_by(length, space) && !ending;
            self.heard = now;
            let bytes = buffer.get(..kept + length).unwrap_or_default();
            let used = match self.take(number, bytes, (now, traffic), tally) {
                Ok(used) => used,
                Err(next) => return next,
            };
            let slot = &mut self.slots[number as usize];
            let rest = bytes.get(used..).unwrap_or_default();
            if !rest.is_empty() {
                slot.partial.clear();
                slot.partial.extend_from_slice(rest);
            } else if !slot.partial.is_empty() {
                slot.partial = Vec::new();
            }
            if drained {
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
            Opcode::Close => return Err(Next::Closed),
            Opcode::Ping => {
                tally.note(Note::Pings);
                self.add_control(Opcode::Pong, payload);
            }
            Opcode::Pong => {}
        }
        Ok(())
    }
}
