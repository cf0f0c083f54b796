//! Scrapes that wait for counts of other cores.

use aquatic_common::{InfoHash, Seconds};
use aquatic_ws_protocol::{ScrapeFile, ScrapeReply};
use slab::Slab;

use crate::message::Question;
use crate::swarm::{ConnectionId, Counts};

/// Seconds after which a scrape is given up.
const DEADLINE: u32 = 5;

/// A scrape that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) connection: ConnectionId,
    pub(crate) info_hashes: Vec<InfoHash>,
    pub(crate) counts: Vec<Counts>,
    missing: usize,
    generation: u32,
    asked: Seconds,
}

/// The scrapes of one core that wait.
#[derive(Debug, Default)]
pub(crate) struct Scrapes {
    waiting: Slab<Waiting>,
    generation: u32,
}

impl Scrapes {
    /// Begins to wait for this many other cores.
    pub(crate) fn ask(
        &mut self,
        connection: ConnectionId,
        info_hashes: Vec<InfoHash>,
        counts: Vec<Counts>,
        missing: usize,
        now: Seconds,
    ) -> Question {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot =
            self.waiting.insert(Waiting { connection, info_hashes, counts, missing, generation, asked: now });
        Question { slot: slot as u32, generation }
    }

    /// Stops waiting.
    pub(crate) fn cancel(&mut self, question: Question) {
        if self.get(question).is_some() {
            self.waiting.remove(question.slot as usize);
        }
    }

    /// Takes what another core knows. Returns the scrape when all have told.
    pub(crate) fn answer(&mut self, question: Question, counts: &[(u16, Counts)]) -> Option<Waiting> {
        let waiting = self.get(question)?;
        for &(at, counts) in counts {
            if let Some(place) = waiting.counts.get_mut(usize::from(at)) {
                *place = counts;
            }
        }
        waiting.missing = waiting.missing.saturating_sub(1);
        if waiting.missing > 0 {
            return None;
        }
        let done = self.waiting.try_remove(question.slot as usize);
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
        done
    }

    /// Gives up those that have waited for too long. Returns who asked.
    pub(crate) fn expire(&mut self, now: Seconds) -> Vec<ConnectionId> {
        let mut late = Vec::new();
        self.waiting.retain(|_, waiting| {
            let is_late = now - waiting.asked > DEADLINE;
            if is_late {
                late.push(waiting.connection);
            }
            !is_late
        });
        late
    }

    /// Writes the reply.
    pub(crate) fn write(info_hashes: &[InfoHash], counts: &[Counts], out: &mut String) {
        let file = |(&info_hash, counts): (&InfoHash, &Counts)| ScrapeFile {
            info_hash,
            complete: counts.complete,
            incomplete: counts.incomplete,
            downloaded: counts.downloaded,
        };
        let files: Vec<ScrapeFile> = info_hashes.iter().zip(counts).map(file).collect();
        ScrapeReply { files: files.into() }.encode(out);
    }

    fn get(&mut self, question: Question) -> Option<&mut Waiting> {
        let waiting = self.waiting.get_mut(question.slot as usize)?;
        (waiting.generation == question.generation).then_some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: ConnectionId = ConnectionId { core: 0, slot: 1, generation: 2 };

    fn counts(complete: u32) -> Counts {
        Counts { complete, ..Counts::default() }
    }

    #[test]
    fn a_scrape_is_done_when_all_have_told() {
        let mut scrapes = Scrapes::default();
        let question =
            scrapes.ask(CONNECTION, vec![InfoHash([1; 20]); 3], vec![Counts::default(); 3], 2, Seconds(0));
        assert!(scrapes.answer(question, &[(2, counts(7))]).is_none());
        assert!(scrapes.expire(Seconds(5)).is_empty());
        let done = scrapes.answer(question, &[(0, counts(5)), (9, counts(1))]).unwrap();
        assert_eq!(done.counts, [counts(5), counts(0), counts(7)]);
        assert!(scrapes.answer(question, &[]).is_none(), "it is over");
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let mut scrapes = Scrapes::default();
        let ask = |scrapes: &mut Scrapes| scrapes.ask(CONNECTION, vec![], vec![], 1, Seconds(0));
        let late = ask(&mut scrapes);
        assert_eq!(scrapes.expire(Seconds(6)), [CONNECTION]);
        let next = ask(&mut scrapes);
        assert!(scrapes.answer(late, &[]).is_none(), "a late answer is not taken for another's");
        scrapes.cancel(late);
        assert!(scrapes.answer(next, &[]).is_some());
    }
}
