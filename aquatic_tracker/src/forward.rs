//! What the services of a core use to send messages to other cores: batches with lists for what is of
//! variable length, so that a message takes no allocation of its own.

use aquatic_runtime::channel::OutboxFull;
use aquatic_runtime::{Batch, Outbox};

/// Sends messages to other cores, in order and in batches.
pub trait Forward<B> {
    /// Adds messages to the batch for another core.
    ///
    /// # Errors
    /// Too much waits for that core; nothing has been added.
    fn add(&self, core: usize, push: impl FnOnce(&mut B)) -> Result<(), OutboxFull>;

    /// Adds messages that must arrive, however much waits for that core.
    fn add_always(&self, core: usize, push: impl FnOnce(&mut B));

    /// Sends all batches.
    fn flush(&self);
}

impl<B: Batch> Forward<B> for Outbox<B> {
    fn add(&self, core: usize, push: impl FnOnce(&mut B)) -> Result<(), OutboxFull> {
        Self::add(self, core, push)
    }

    fn add_always(&self, core: usize, push: impl FnOnce(&mut B)) {
        Self::add_always(self, core, push);
    }

    fn flush(&self) {
        Self::flush(self);
    }
}

/// Takes the next elements of a list, fewer at its end.
pub fn take<'a, T>(list: &mut &'a [T], len: usize) -> &'a [T] {
    let (taken, rest) = list.split_at(len.min(list.len()));
    *list = rest;
    taken
}

/// The cores that own torrents of one scrape. Machines with more cores than bits in it ask the rest core by
/// core.
#[derive(Debug, Default)]
pub struct OwnerParts {
    first: u128,
    others: Vec<usize>,
}

impl OwnerParts {
    /// Adds a core.
    pub fn note(&mut self, owner: usize) {
        match u32::try_from(owner).ok().and_then(|owner| 1_u128.checked_shl(owner)) {
            Some(bit) => self.first |= bit,
            None if self.others.contains(&owner) => {}
            None => self.others.push(owner),
        }
    }

    /// Number of cores.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.count_ones() as usize + self.others.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cores, each once.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let first = (0..u128::BITS as usize).filter(|owner| self.first >> owner & 1 == 1);
        first.chain(self.others.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_asked_once_each_however_many_there_are() {
        let mut owners = OwnerParts::default();
        assert!(owners.is_empty());
        for owner in [5, 0, 127, 5, 128, 300, 128, 127] {
            owners.note(owner);
        }
        assert_eq!(owners.iter().collect::<Vec<_>>(), [0, 5, 127, 128, 300]);
        assert_eq!(owners.len(), 5);
    }

    #[test]
    fn lists_are_taken_in_parts() {
        let mut list = [1, 2, 3].as_slice();
        assert_eq!(
            (take(&mut list, 2), take(&mut list, 0), take(&mut list, 9)),
            (&[1, 2][..], &[][..], &[3][..])
        );
    }
}
