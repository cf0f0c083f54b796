//! Scrapes that wait for counts from other cores.

use aquatic_common::{InfoHash, Seconds};
use slab::Slab;

use crate::forwarding::ScrapeId;
use crate::swarm::{ConnectionId, Counts};

/// Seconds after which a scrape fails.
const TIMEOUT: u32 = 5;

/// A scrape that waits.
#[derive(Debug)]
pub(crate) struct PendingScrape {
    /// Connection of the client.
    pub(crate) connection: ConnectionId,
    pub(crate) info_hashes: Vec<InfoHash>,
    /// Counts by position of the info hash.
    pub(crate) counts: Vec<Counts>,
    /// Number of cores that have not responded.
    missing: usize,
    generation: u32,
    since: Seconds,
}

/// Scrapes of clients of one core that wait.
#[derive(Debug, Default)]
pub(crate) struct PendingScrapes {
    slots: Slab<PendingScrape>,
    generation: u32,
}

impl PendingScrapes {
    /// Adds a scrape that waits for `missing` other cores.
    pub(crate) fn insert(
        &mut self,
        connection: ConnectionId,
        info_hashes: Vec<InfoHash>,
        counts: Vec<Counts>,
        missing: usize,
        now: Seconds,
    ) -> ScrapeId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let scrape = PendingScrape { connection, info_hashes, counts, missing, generation, since: now };
        let slot = self.slots.insert(scrape);
        ScrapeId { slot: slot as u32, generation }
    }

    /// Removes a scrape.
    pub(crate) fn cancel(&mut self, id: ScrapeId) {
        if self.get(id).is_some() {
            self.slots.remove(id.slot as usize);
        }
    }

    /// Adds the counts from another core. Returns the scrape once all cores have responded.
    pub(crate) fn add_counts(&mut self, id: ScrapeId, counts: &[(u16, Counts)]) -> Option<PendingScrape> {
        let scrape = self.get(id)?;
        for &(at, counts) in counts {
            if let Some(known) = scrape.counts.get_mut(usize::from(at)) {
                *known = counts;
            }
        }
        scrape.missing = scrape.missing.saturating_sub(1);
        if scrape.missing > 0 {
            return None;
        }
        let done = self.slots.try_remove(id.slot as usize);
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
        }
        done
    }

    /// Removes scrapes that timed out. Returns their connections.
    pub(crate) fn expire(&mut self, now: Seconds) -> Vec<ConnectionId> {
        let mut late = Vec::new();
        self.slots.retain(|_, scrape| {
            let is_late = now - scrape.since > TIMEOUT;
            if is_late {
                late.push(scrape.connection);
            }
            !is_late
        });
        late
    }

    fn get(&mut self, id: ScrapeId) -> Option<&mut PendingScrape> {
        let scrape = self.slots.get_mut(id.slot as usize)?;
        (scrape.generation == id.generation).then_some(scrape)
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
    fn a_scrape_is_complete_once_all_cores_responded() {
        let mut scrapes = PendingScrapes::default();
        let id =
            scrapes.insert(CONNECTION, vec![InfoHash([1; 20]); 3], vec![Counts::default(); 3], 2, Seconds(0));
        assert!(scrapes.add_counts(id, &[(2, counts(7))]).is_none());
        assert!(scrapes.expire(Seconds(5)).is_empty());
        let done = scrapes.add_counts(id, &[(0, counts(5)), (9, counts(1))]).unwrap();
        assert_eq!(done.counts, [counts(5), counts(0), counts(7)]);
        assert!(scrapes.add_counts(id, &[]).is_none(), "it was removed");
    }

    #[test]
    fn scrapes_time_out() {
        let mut scrapes = PendingScrapes::default();
        let insert = |scrapes: &mut PendingScrapes| scrapes.insert(CONNECTION, vec![], vec![], 1, Seconds(0));
        let late = insert(&mut scrapes);
        assert_eq!(scrapes.expire(Seconds(6)), [CONNECTION]);
        let next = insert(&mut scrapes);
        assert!(
            scrapes.add_counts(late, &[]).is_none(),
            "a late response does not belong to the next scrape"
        );
        scrapes.cancel(late);
        assert!(scrapes.add_counts(next, &[]).is_some());
    }
}
