//! Questions to the cores that own the torrents, and their answers. Written once for all services: a UDP scrape of
//! several torrents and an HTTP announce ask the same way. Pure: what is sent and who is called back is decided here,
//! [`Core`](crate::core::Core) does it.
//!
//! Invariants: each question ends in exactly one call of its callback: with the answer, or with the reason why there
//! is none. An answer to a question that has already ended is recognized by its ticket and dropped.

use std::fmt;
use std::time::Duration;

use aquatic_common::InfoHash;
use aquatic_swarm::{Announce, Announced, FamilySet, SwarmCounts};
use slab::Slab;

use crate::steering::Steering;

/// How long the owners of the torrents have to answer. A core that takes longer is overloaded, and a client that is
/// told so tries again.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Most questions of one core without an answer yet. Each takes some 100 bytes, and 16 for each torrent asked about.
pub const MAX_PENDING: usize = 65_536;

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The channel to an owner is full, or too many questions are waiting: the tracker is overloaded.
    Overflow,
    /// An owner did not answer in time.
    Timeout,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overflow => "the tracker is overloaded",
            Self::Timeout => "the tracker took too long",
        })
    }
}

impl std::error::Error for RouteError {}

/// What a core is asked.
#[derive(Debug)]
pub(crate) enum Question {
    Scrape { info_hashes: Box<[InfoHash]>, families: FamilySet },
    Announce(Box<AnnounceQuestion>),
}

/// An announce, and how many bytes of peers the asker can take.
#[derive(Debug)]
pub(crate) struct AnnounceQuestion {
    pub(crate) announce: Announce,
    pub(crate) v4_room: usize,
    pub(crate) v6_room: usize,
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Scrape(Box<[SwarmCounts]>),
    Announce(Box<AnnounceAnswer>),
}

/// The outcome of an announce on another core, with the peers in wire form.
#[derive(Debug)]
pub struct AnnounceAnswer {
    /// Counts and lengths.
    pub announced: Announced,
    /// Compact IPv4 peers.
    pub v4: Vec<u8>,
    /// Compact IPv6 peers.
    pub v6: Vec<u8>,
}

/// Names a part of a question that has been asked. The generation tells a question from an earlier one that had the
/// same place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    slot: u32,
    generation: u32,
    part: u16,
}

/// A question on its way to an owner.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: usize,
    pub(crate) ticket: Ticket,
    pub(crate) question: Question,
}

type ScrapeDone = Box<dyn FnOnce(Result<&[SwarmCounts], RouteError>)>;
type AnnounceDone = Box<dyn FnOnce(Result<AnnounceAnswer, RouteError>)>;

enum Pending {
    Scrape {
        counts: Box<[SwarmCounts]>,
        /// For each part, the positions of its torrents among those asked about; emptied when it is answered.
        positions: Vec<Vec<u32>>,
        missing: usize,
        done: ScrapeDone,
    },
    Announce(AnnounceDone),
}

impl Pending {
    fn fail(self, error: RouteError) {
        match self {
            Self::Scrape { done, .. } => done(Err(error)),
            Self::Announce(done) => done(Err(error)),
        }
    }
}

struct Entry {
    generation: u32,
    deadline: Duration,
    pending: Pending,
}

/// The questions of one core that have no answer yet.
#[derive(Default)]
pub(crate) struct Router {
    entries: Slab<Entry>,
    generation: u32,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("pending", &self.entries.len()).finish_non_exhaustive()
    }
}

/// A question that has ended; calling it tells the asker. Kept apart from the table so that the callback may ask the
/// next question.
pub(crate) struct Ended(Box<dyn FnOnce()>);

impl Ended {
    pub(crate) fn tell(self) {
        (self.0)();
    }
}

impl Router {
    /// How many questions have no answer yet.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Splits a scrape by owners. `own` counts the torrents of this core at once; the rest becomes messages. With
    /// nothing left to ask the callback is returned, to be told.
    pub(crate) fn scrape(
        &mut self,
        now: Duration,
        (steering, this): (&Steering, usize),
        info_hashes: &[InfoHash],
        families: FamilySet,
        own: impl Fn(&InfoHash) -> SwarmCounts,
        done: ScrapeDone,
    ) -> Result<Vec<Outgoing>, Ended> {
        let mut counts = vec![SwarmCounts::default(); info_hashes.len()].into_boxed_slice();
        let mut parts: Vec<(usize, Vec<u32>)> = Vec::new();
        for (position, (info_hash, slot)) in (0_u32..).zip(info_hashes.iter().zip(&mut counts)) {
            let owner = steering.owner(info_hash);
            if owner == this {
                *slot = own(info_hash);
            } else if let Some((_, positions)) = parts.iter_mut().find(|(to, _)| *to == owner) {
                positions.push(position);
            } else {
                parts.push((owner, vec![position]));
            }
        }
        if parts.is_empty() {
            return Err(Ended(Box::new(move || done(Ok(&counts)))));
        }
        let questions: Vec<_> = parts
            .iter()
            .map(|(to, positions)| {
                let info_hashes = positions.iter().filter_map(|&at| info_hashes.get(at as usize)).copied();
                (*to, Question::Scrape { info_hashes: info_hashes.collect(), families })
            })
            .collect();
        let missing = parts.len();
        let positions = parts.into_iter().map(|(_, positions)| positions).collect();
        let pending = Pending::Scrape { counts, positions, missing, done };
        let (slot, generation) = self.insert(now, pending)?;
        let tickets = (0..).map(|part| Ticket { slot, generation, part });
        Ok(tickets.zip(questions).map(|(ticket, (to, question))| Outgoing { to, ticket, question }).collect())
    }

    /// Asks another core to apply an announce.
    pub(crate) fn announce(
        &mut self,
        now: Duration,
        to: usize,
        question: AnnounceQuestion,
        done: AnnounceDone,
    ) -> Result<Outgoing, Ended> {
        let (slot, generation) = self.insert(now, Pending::Announce(done))?;
        let ticket = Ticket { slot, generation, part: 0 };
        Ok(Outgoing { to, ticket, question: Question::Announce(Box::new(question)) })
    }

    fn insert(&mut self, now: Duration, pending: Pending) -> Result<(u32, u32), Ended> {
        let slot = match u32::try_from(self.entries.vacant_key()) {
            Ok(slot) if self.entries.len() < MAX_PENDING => slot,
            _ => return Err(Ended(Box::new(move || pending.fail(RouteError::Overflow)))),
        };
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        self.entries.insert(Entry { generation, deadline: now + ANSWER_DEADLINE, pending });
        Ok((slot, generation))
    }

    /// Ends a question whose message could not be sent.
    pub(crate) fn overflow(&mut self, ticket: Ticket) -> Option<Ended> {
        let entry = self.take(ticket)?;
        Some(Ended(Box::new(move || entry.pending.fail(RouteError::Overflow))))
    }

    /// Takes in an answer; the question has ended if this was the last part missing.
    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Answer) -> Option<Ended> {
        let entry =
            self.entries.get_mut(ticket.slot as usize).filter(|e| e.generation == ticket.generation)?;
        if let (Pending::Scrape { counts, positions, missing, .. }, Answer::Scrape(got)) =
            (&mut entry.pending, &answer)
        {
            let positions = positions.get_mut(usize::from(ticket.part)).map(std::mem::take)?;
            if positions.is_empty() {
                return None;
            }
            for (at, got) in positions.into_iter().zip(got) {
                if let Some(slot) = counts.get_mut(at as usize) {
                    *slot = *got;
                }
            }
            *missing -= 1;
            if *missing > 0 {
                return None;
            }
        }
        let entry = self.take(ticket)?;
        Some(Ended(Box::new(move || match (entry.pending, answer) {
            (Pending::Scrape { counts, done, .. }, Answer::Scrape(_)) => done(Ok(&counts)),
            (Pending::Announce(done), Answer::Announce(answer)) => done(Ok(*answer)),
            // A ticket is only ever answered in kind.
            (pending, _) => pending.fail(RouteError::Timeout),
        })))
    }

    /// Ends all questions whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<Ended> {
        let late: Vec<usize> =
            self.entries.iter().filter(|(_, entry)| entry.deadline <= now).map(|(slot, _)| slot).collect();
        late.into_iter()
            .map(|slot| {
                let entry = self.entries.remove(slot);
                Ended(Box::new(move || entry.pending.fail(RouteError::Timeout)))
            })
            .collect()
    }

    fn take(&mut self, ticket: Ticket) -> Option<Entry> {
        let slot = ticket.slot as usize;
        let current = self.entries.get(slot).is_some_and(|entry| entry.generation == ticket.generation);
        current.then(|| self.entries.remove(slot))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    type Said = Rc<RefCell<Vec<Result<Vec<u32>, RouteError>>>>;

    struct Asker {
        router: Router,
        steering: Steering,
        said: Said,
    }

    /// What a torrent's owner counts: a number made from its hash, so that a mix-up shows.
    fn counts(hash: &InfoHash) -> SwarmCounts {
        SwarmCounts { complete: u32::from(hash.0[0]), ..SwarmCounts::default() }
    }

    fn hashes(of: impl IntoIterator<Item = u8>) -> Vec<InfoHash> {
        of.into_iter().map(|first| InfoHash([first; 20])).collect()
    }

    impl Asker {
        fn new(cores: usize) -> Self {
            let steering = Steering::new(cores, &mut SmallRng::seed_from_u64(3));
            Self { router: Router::default(), steering, said: Said::default() }
        }

        fn ask(&mut self, at: Duration, info_hashes: &[InfoHash]) -> Result<Vec<Outgoing>, Ended> {
            let said = Rc::clone(&self.said);
            let done = move |counts: Result<&[SwarmCounts], RouteError>| {
                said.borrow_mut().push(counts.map(|counts| counts.iter().map(|c| c.complete).collect()));
            };
            let here = (&self.steering, 0);
            self.router.scrape(at, here, info_hashes, FamilySet::Both, counts, Box::new(done))
        }

        fn said(&self) -> Vec<Result<Vec<u32>, RouteError>> {
            self.said.take()
        }
    }

    fn reply(outgoing: &Outgoing) -> (Ticket, Answer) {
        match &outgoing.question {
            Question::Scrape { info_hashes, .. } => {
                (outgoing.ticket, Answer::Scrape(info_hashes.iter().map(counts).collect()))
            }
            Question::Announce(_) => panic!("a scrape was asked"),
        }
    }

    fn tell(ended: Option<Ended>) -> bool {
        ended.map(Ended::tell).is_some()
    }

    #[test]
    fn answers_are_put_in_request_order_whatever_their_own() {
        for cores in [2, 3, 8] {
            let mut asker = Asker::new(cores);
            let firsts: Vec<u8> = (0..74).map(|n| n * 3).collect();
            let mut outgoing = asker.ask(Duration::ZERO, &hashes(firsts.clone())).ok().unwrap();
            assert!(outgoing.iter().all(|question| question.to != 0) && outgoing.len() < cores);
            let last = outgoing.remove(0);
            for question in outgoing.iter().rev() {
                let (ticket, answer) = reply(question);
                assert!(!tell(asker.router.answer(ticket, answer)));
            }
            let (ticket, answer) = reply(&last);
            assert!(tell(asker.router.answer(ticket, answer)));
            assert_eq!(asker.said(), [Ok(firsts.into_iter().map(u32::from).collect())]);
            assert_eq!(asker.router.len(), 0);
        }
    }

    #[test]
    fn what_one_core_owns_alone_asks_nobody() {
        let mut asker = Asker::new(1);
        let Err(ended) = asker.ask(Duration::ZERO, &hashes([1, 2])) else { panic!("nobody to ask") };
        ended.tell();
        assert_eq!(asker.said(), [Ok(vec![1, 2])]);
    }

    #[test]
    fn late_and_repeated_answers_are_dropped() {
        let mut asker = Asker::new(8);
        let outgoing = asker.ask(Duration::ZERO, &hashes(0..40)).ok().unwrap();
        assert!(asker.router.expire(ANSWER_DEADLINE - Duration::from_millis(1)).is_empty());
        let (ticket, answer) = reply(&outgoing[0]);
        assert!(!tell(asker.router.answer(ticket, answer)));
        let (ticket, answer) = reply(&outgoing[0]);
        assert!(!tell(asker.router.answer(ticket, answer)), "an answer counts once");
        asker.router.expire(ANSWER_DEADLINE).into_iter().for_each(Ended::tell);
        assert_eq!(asker.said(), [Err(RouteError::Timeout)]);

        // The next question takes the same place; the old answers are not for it.
        let second = asker.ask(ANSWER_DEADLINE, &hashes(0..40)).ok().unwrap();
        for question in &outgoing {
            let (ticket, answer) = reply(question);
            assert!(!tell(asker.router.answer(ticket, answer)));
        }
        assert_eq!(asker.router.len(), 1);
        let told = second.iter().map(reply).map(|(ticket, answer)| tell(asker.router.answer(ticket, answer)));
        assert_eq!(told.filter(|&told| told).count(), 1);
        assert_eq!(asker.said(), [Ok((0..40).collect())]);
    }

    #[test]
    fn an_overflow_ends_the_question_once() {
        let mut asker = Asker::new(8);
        let outgoing = asker.ask(Duration::ZERO, &hashes(0..40)).ok().unwrap();
        assert!(tell(asker.router.overflow(outgoing[1].ticket)));
        assert!(!tell(asker.router.overflow(outgoing[2].ticket)));
        let (ticket, answer) = reply(&outgoing[0]);
        assert!(!tell(asker.router.answer(ticket, answer)));
        assert_eq!(asker.said(), [Err(RouteError::Overflow)]);
    }

    #[test]
    fn questions_without_an_answer_are_limited() {
        let mut asker = Asker::new(8);
        let hash = hashes(0..=255).into_iter().find(|hash| asker.steering.owner(hash) != 0).unwrap();
        for _ in 0..MAX_PENDING {
            assert!(asker.ask(Duration::ZERO, &[hash]).is_ok());
        }
        let Err(ended) = asker.ask(Duration::ZERO, &[hash]) else { panic!("one too many") };
        ended.tell();
        assert_eq!(asker.said(), [Err(RouteError::Overflow)]);
        assert_eq!(asker.router.expire(ANSWER_DEADLINE).len(), MAX_PENDING);
    }
}
