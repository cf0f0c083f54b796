//! The donor's side of pulls.

use std::collections::VecDeque;

use aquatic_common::Family;

use crate::Millis;
use crate::pull::{CREDIT, Chunk, PullMessage, Totals, What};
use crate::wire::{Run, ShortRun};

/// Maximum number of sessions: one that collects peers, and one whose last chunks are fetched. Each keeps
/// [`CREDIT`] chunks of 256 KiB at most, so both take 2 MiB.
pub const MAX_SESSIONS: usize = 2;

/// Time without a request after which a session ends, in milliseconds.
pub const IDLE: Millis = 10_000;

/// Sessions in which this node hands out peers.
#[derive(Debug, Default)]
pub struct Donor {
    sessions: Vec<Session>,
    next_session: u32,
}

#[derive(Debug)]
struct Session {
    number: u32,
    requester: Run,
    /// Number that the requester has given the pull.
    pull: u32,
    state: State,
    known: Vec<(ShortRun, u32)>,
    /// Moment that ages count from, by the clock of this run.
    clock: u64,
    /// Chunks before this one have been received.
    low: u32,
    /// One more than the highest chunk asked for.
    high: u32,
    /// Chunks from `low` on.
    chunks: VecDeque<(Family, Vec<u8>)>,
    asked: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The cores have been asked to begin.
    Starting,
    /// The cores collect peers.
    Passing,
    /// They have collected all.
    Passed(Totals),
}

/// What is to be done after a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Nothing.
    Nothing,
    /// Send this reply.
    Reply(PullMessage<'a>),
    /// Have the cores begin to collect peers for a session.
    Start {
        /// Number of the session.
        session: u32,
        /// Which peers.
        what: What,
    },
}

impl Donor {
    /// Takes in a request. Chunks that were asked for too early are sent as soon as they exist.
    pub fn receive(&mut self, now: Millis, requester: Run, request: &PullMessage<'_>) -> Asked<'_> {
        match request {
            PullMessage::Begin { pull, what } => self.begin(now, requester, *pull, *what),
            PullMessage::Next { session, index } => {
                let Some(own) = self.find(requester, *session) else {
                    return Asked::Reply(PullMessage::Unknown { session: *session });
                };
                own.asked = now;
                own.next(*index).map_or(Asked::Nothing, Asked::Reply)
            }
            PullMessage::Keep { session } => match self.find(requester, *session) {
                Some(own) => {
                    own.asked = now;
                    Asked::Nothing
                }
                None => Asked::Reply(PullMessage::Unknown { session: *session }),
            },
            PullMessage::Done { .. }
            | PullMessage::Begun { .. }
            | PullMessage::Busy { .. }
            | PullMessage::Chunk(_)
            | PullMessage::End { .. }
            | PullMessage::Wait { .. }
            | PullMessage::Unknown { .. }
            | PullMessage::Again { .. } => Asked::Nothing,
        }
    }

    fn begin(&mut self, now: Millis, requester: Run, pull: u32, what: What) -> Asked<'_> {
        let same = self.sessions.iter().find(|own| own.requester == requester && own.pull == pull);
        if let Some(session) = same {
            return match session.state {
                State::Starting => Asked::Nothing,
                State::Passing | State::Passed(_) => Asked::Reply(session.begun()),
            };
        }
        let busy = self.sessions.iter().any(|own| !matches!(own.state, State::Passed(_)));
        if busy || self.sessions.len() >= MAX_SESSIONS {
            return Asked::Reply(PullMessage::Busy { pull });
        }
        self.next_session = self.next_session.wrapping_add(1);
        let session = self.next_session;
        self.sessions.push(Session {
            number: session,
            requester,
            pull,
            state: State::Starting,
            known: Vec::new(),
            clock: 0,
            low: 0,
            high: 0,
            chunks: VecDeque::new(),
            asked: now,
        });
        Asked::Start { session, what }
    }

    fn find(&mut self, requester: Run, session: u32) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|own| own.requester == requester && own.number == session)
    }

    fn by_number(&mut self, session: u32) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|own| own.number == session)
    }

    /// Notes that the cores have begun. Ages count from this moment of the run's clock.
    pub fn started(
        &mut self,
        session: u32,
        clock: u64,
        known: Vec<(ShortRun, u32)>,
    ) -> Option<(Run, PullMessage<'_>)> {
        let session = self.by_number(session).filter(|session| session.state == State::Starting)?;
        session.state = State::Passing;
        session.clock = clock;
        session.known = known;
        Some((session.requester, session.begun()))
    }

    /// Removes a session that the cores cannot begin now.
    pub fn refused(&mut self, session: u32) -> Option<(Run, PullMessage<'static>)> {
        let at = self.sessions.iter().position(|own| own.number == session)?;
        let session = self.sessions.remove(at);
        Some((session.requester, PullMessage::Busy { pull: session.pull }))
    }

    /// The session that waits for a chunk from the cores.
    #[must_use]
    pub fn wants_chunk(&self) -> Option<u32> {
        let wants = |own: &&Session| own.state == State::Passing && own.next_chunk() < own.high;
        self.sessions.iter().find(wants).map(|own| own.number)
    }

    /// Takes a chunk from the cores and returns it as it is sent. `None` if the session does not want it.
    pub fn supply(
        &mut self,
        session: u32,
        family: Family,
        torrents: Vec<u8>,
    ) -> Option<(Run, PullMessage<'_>)> {
        let session = self.by_number(session)?;
        let index = session.next_chunk();
        if session.state != State::Passing || index >= session.high {
            return None;
        }
        session.chunks.push_back((family, torrents));
        Some((session.requester, session.chunk(index)?))
    }

    /// Notes that the cores have collected all.
    pub fn passed(&mut self, session: u32, totals: Totals) -> Option<(Run, PullMessage<'_>)> {
        let session = self.by_number(session).filter(|session| session.state == State::Passing)?;
        session.state = State::Passed(totals);
        let end = session.next_chunk();
        (session.high > end).then(|| (session.requester, session.end(totals)))
    }

    /// Removes a session that the requester does not need any longer. Returns it if the cores are to be told.
    pub fn done(&mut self, requester: Run, session: u32) -> Option<u32> {
        let at = self.sessions.iter().position(|own| own.requester == requester && own.number == session)?;
        let session = self.sessions.remove(at);
        (!matches!(session.state, State::Passed(_))).then_some(session.number)
    }

    /// Removes the sessions of a run that is gone, or of all that are silent. Returns those of which the
    /// cores are to be told.
    pub fn expire(&mut self, now: Millis, gone: Option<Run>) -> Vec<u32> {
        let is_over = |own: &Session| gone == Some(own.requester) || now.saturating_sub(own.asked) >= IDLE;
        let over = self.sessions.iter().filter(|own| is_over(own));
        let told = over.filter(|own| !matches!(own.state, State::Passed(_))).map(|own| own.number).collect();
        self.sessions.retain(|own| !is_over(own));
        told
    }

    /// Number of sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

impl Session {
    fn begun(&self) -> PullMessage<'static> {
        PullMessage::Begun { pull: self.pull, session: self.number, known: self.known.clone() }
    }

    fn next_chunk(&self) -> u32 {
        self.low.saturating_add(u32::try_from(self.chunks.len()).unwrap_or(u32::MAX))
    }

    fn next(&mut self, index: u32) -> Option<PullMessage<'_>> {
        let low = index.saturating_sub(CREDIT - 1);
        // What the requester says it has received can only be what was sent.
        if index < self.low || low > self.next_chunk() {
            return None;
        }
        while self.low < low {
            self.chunks.pop_front();
            self.low += 1;
        }
        self.high = self.high.max(index.saturating_add(1));
        if index < self.next_chunk() {
            return self.chunk(index);
        }
        Some(match self.state {
            State::Passed(totals) => self.end(totals),
            State::Starting | State::Passing => PullMessage::Wait { session: self.number },
        })
    }

    fn chunk(&self, index: u32) -> Option<PullMessage<'_>> {
        let (family, torrents) = self.chunks.get(index.checked_sub(self.low)? as usize)?;
        let (session, clock) = (self.number, self.clock);
        Some(PullMessage::Chunk(Chunk { session, index, clock, family: *family, torrents }))
    }

    fn end(&self, totals: Totals) -> PullMessage<'static> {
        PullMessage::End { session: self.number, index: self.next_chunk(), totals }
    }
}
