//! The requester's side of a pull.

use crate::Millis;
use crate::pull::{CREDIT, Chunk, PullMessage, Totals, What};
use crate::wire::{Run, ShortRun};

/// Time after which a request without a reply is repeated, in milliseconds.
pub const REPEAT: Millis = 1_000;

/// Time without a message of the donor after which a pull has failed, in milliseconds.
pub const SILENCE: Millis = 10_000;

/// Pull that this node has asked another for.
#[derive(Debug)]
pub struct Puller {
    /// Number of the pull in this run.
    pub pull: u32,
    /// Run of the donor.
    pub donor: Run,
    /// Number of the donor's run in the table of nodes.
    pub node: u8,
    /// Which peers.
    pub what: What,
    /// When it began.
    pub began: Millis,
    /// When the donor was last heard.
    heard: Millis,
    /// When a request was last sent that is not for a chunk.
    asked: Option<Millis>,
    session: Option<Session>,
}

/// What became of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was loaded.
    Completed(Totals),
    /// The donor has no time now.
    Busy,
    /// The donor is silent, or does not know the session.
    Failed,
}

#[derive(Debug)]
struct Session {
    number: u32,
    known: Vec<(ShortRun, u32)>,
    /// Chunks before this one have been received.
    low: u32,
    /// State of the chunks from there on.
    window: [Slot; CREDIT as usize],
    /// Chunks that the cores are loading.
    loading: u32,
    end: Option<(u32, Totals)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    Unasked,
    Asked(Millis),
    Received,
}

impl Puller {
    /// A pull that is to be asked for.
    #[must_use]
    pub fn new(pull: u32, (node, donor): (u8, Run), what: What, now: Millis) -> Self {
        Self { pull, donor, node, what, began: now, heard: now, asked: None, session: None }
    }

    /// What the donor knew of other nodes when it began, if it has.
    #[must_use]
    pub fn known(&self) -> Option<&[(ShortRun, u32)]> {
        self.session.as_ref().map(|session| session.known.as_slice())
    }

    /// Number that the donor has given the session.
    #[must_use]
    pub fn session(&self) -> Option<u32> {
        self.session.as_ref().map(|session| session.number)
    }

    /// Takes in a reply of the donor. Returns the chunk if it is to be loaded.
    ///
    /// # Errors
    /// The pull is over.
    pub fn receive<'a>(&mut self, now: Millis, reply: PullMessage<'a>) -> Result<Option<Chunk<'a>>, Outcome> {
        match reply {
            PullMessage::Begun { pull, session, known } if pull == self.pull => {
                self.heard = now;
                if self.session.is_none() {
                    self.session = Some(Session::new(session, known));
                }
            }
            PullMessage::Busy { pull } if pull == self.pull && self.session.is_none() => {
                return Err(Outcome::Busy);
            }
            PullMessage::Chunk(chunk) => return Ok(self.receive_chunk(now, chunk)),
            PullMessage::End { session, index, totals } => self.receive_end(now, session, index, totals),
            PullMessage::Wait { session } if self.session() == Some(session) => self.heard = now,
            PullMessage::Unknown { session } if self.session() == Some(session) => {
                return Err(Outcome::Failed);
            }
            PullMessage::Begun { .. }
            | PullMessage::Busy { .. }
            | PullMessage::Wait { .. }
            | PullMessage::Unknown { .. }
            | PullMessage::Begin { .. }
            | PullMessage::Next { .. }
            | PullMessage::Keep { .. }
            | PullMessage::Done { .. }
            | PullMessage::Again { .. } => {}
        }
        self.completed().map_or(Ok(None), |totals| Err(Outcome::Completed(totals)))
    }

    fn receive_chunk<'a>(&mut self, now: Millis, chunk: Chunk<'a>) -> Option<Chunk<'a>> {
        let session = self.session.as_mut().filter(|session| session.number == chunk.session)?;
        self.heard = now;
        session.receive(chunk.index).then_some(chunk)
    }

    fn receive_end(&mut self, now: Millis, session: u32, index: u32, totals: Totals) {
        let Some(session) = self.session.as_mut().filter(|own| own.number == session) else { return };
        self.heard = now;
        if index >= session.low {
            session.end.get_or_insert((index, totals));
        }
    }

    /// Notes that the cores have loaded a chunk.
    ///
    /// # Errors
    /// The pull is over.
    pub fn loaded(&mut self, now: Millis) -> Result<(), Outcome> {
        if let Some(session) = &mut self.session {
            session.loading = session.loading.saturating_sub(1);
            self.heard = now;
        }
        self.completed().map_or(Ok(()), |totals| Err(Outcome::Completed(totals)))
    }

    fn completed(&self) -> Option<Totals> {
        let session = self.session.as_ref()?;
        let (end, totals) = session.end?;
        (session.low >= end && session.loading == 0).then_some(totals)
    }

    /// Appends the requests that are due.
    ///
    /// # Errors
    /// The pull is over.
    pub fn ask(&mut self, now: Millis, out: &mut Vec<PullMessage<'static>>) -> Result<(), Outcome> {
        let loading = self.session.as_ref().is_some_and(|session| session.loading > 0);
        if !loading && now.saturating_sub(self.heard) >= SILENCE {
            return Err(Outcome::Failed);
        }
        let due = self.asked.is_none_or(|asked| now.saturating_sub(asked) >= REPEAT);
        let Some(session) = &mut self.session else {
            if due {
                self.asked = Some(now);
                out.push(PullMessage::Begin { pull: self.pull, what: self.what });
            }
            return Ok(());
        };
        let asked = out.len();
        session.ask(now, out);
        if out.len() > asked {
            self.asked = Some(now);
        } else if due {
            self.asked = Some(now);
            out.push(PullMessage::Keep { session: session.number });
        }
        Ok(())
    }
}

impl Session {
    fn new(number: u32, known: Vec<(ShortRun, u32)>) -> Self {
        Self { number, known, low: 0, window: [Slot::default(); CREDIT as usize], loading: 0, end: None }
    }

    /// Notes a chunk. Returns whether it is the first time, and was asked for.
    fn receive(&mut self, index: u32) -> bool {
        let Some(slot) = index.checked_sub(self.low).and_then(|at| self.window.get_mut(at as usize)) else {
            return false;
        };
        if !matches!(slot, Slot::Asked(_)) {
            return false;
        }
        *slot = Slot::Received;
        self.loading += 1;
        while self.window[0] == Slot::Received {
            self.window.rotate_left(1);
            self.window[CREDIT as usize - 1] = Slot::Unasked;
            self.low = self.low.saturating_add(1);
        }
        true
    }

    fn ask(&mut self, now: Millis, out: &mut Vec<PullMessage<'static>>) {
        let asked = self.window.iter().filter(|slot| matches!(slot, Slot::Asked(_))).count();
        let mut credit = CREDIT.saturating_sub(self.loading + u32::try_from(asked).unwrap_or(CREDIT));
        for (index, slot) in (self.low..).zip(&mut self.window) {
            if self.end.is_some_and(|(end, _)| index >= end) {
                break;
            }
            let ask = match *slot {
                Slot::Unasked if credit > 0 => {
                    credit -= 1;
                    true
                }
                Slot::Asked(at) => now.saturating_sub(at) >= REPEAT,
                Slot::Unasked | Slot::Received => false,
            };
            if ask {
                *slot = Slot::Asked(now);
                out.push(PullMessage::Next { session: self.number, index });
            }
        }
    }
}
