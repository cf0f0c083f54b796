//! Peers that have left, remembered for nodes that may not have heard of it.

use std::collections::VecDeque;

use aquatic_common::{Family, Seconds};
use aquatic_swarm::Change;

use super::publishing::{MAX_BATCH, Published};
use super::records::{record_length, take_record, write_record};

/// Maximum number of bytes of records of a core of peers that have left: of 150,000 IPv4 peers. The oldest
/// ones are forgotten.
pub const MAX_DEPARTED: usize = 4 << 20;

/// Longest time that the records of a block span, in seconds.
const SPAN: u32 = 190;

// The times of records are kept in a byte.
const _: () = assert!(SPAN < 255);

/// Memory that a block begins with.
const FIRST_CAPACITY: usize = 1024;

/// Records of some time.
#[derive(Debug)]
struct Block {
    /// The ages of the records are seconds since then.
    begun: Seconds,
    records: Vec<u8>,
}

/// Blocks of a family, oldest first.
#[derive(Debug, Default)]
struct Blocks {
    blocks: VecDeque<Block>,
    /// Number of blocks that were forgotten.
    forgotten: u64,
    /// When the last one of those left that were forgotten for want of room.
    lost_until: Option<Seconds>,
}

/// Peers that have left at this node.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    families: [Blocks; 2],
    bytes: usize,
    /// Age in seconds at which other nodes have forgotten a peer in any case.
    max_age: u32,
}

/// How far peers that have left have been told of again.
#[derive(Clone, Copy, Debug, Default)]
pub struct DepartedCursor {
    /// Those that left before are not told of.
    since: Seconds,
    family: usize,
    /// Number of the block, and bytes of it that are done with.
    block: u64,
    offset: usize,
}

impl Departed {
    /// Sets the age at which other nodes have forgotten a peer in any case.
    pub(crate) fn set_max_age(&mut self, max_age: u32) {
        self.max_age = max_age;
    }

    /// Notes that a peer has left.
    pub(crate) fn note(&mut self, change: &Change, now: Seconds) {
        let family = Family::of(change.address.ip());
        let length = record_length(family);
        self.forget(now);
        let blocks = &mut self.families[family.index()].blocks;
        let takes_more = |block: &&mut Block| {
            let since = now.0.saturating_sub(block.begun.0);
            block.records.len() + length <= MAX_BATCH && since <= SPAN
        };
        let block = match blocks.back_mut().filter(takes_more) {
            Some(block) => block,
            None => {
                blocks.push_back(Block { begun: now, records: Vec::with_capacity(FIRST_CAPACITY) });
                let Some(block) = blocks.back_mut() else { return };
                block
            }
        };
        // Lossless: see `SPAN`.
        let since = now.0.saturating_sub(block.begun.0) as u8;
        write_record(&Change { age: since, ..*change }, &mut block.records);
        self.bytes += length;
    }

    /// Forgets the oldest block of a family if it is too old, and of all if there are too many.
    fn forget(&mut self, now: Seconds) {
        let is_full = self.bytes + MAX_BATCH > MAX_DEPARTED;
        let oldest = |blocks: &Blocks| blocks.blocks.front().map(|block| block.begun);
        let first = self.families.iter().filter_map(oldest).min();
        for family in &mut self.families {
            let Some(begun) = oldest(family) else { continue };
            let is_lost = is_full && Some(begun) == first;
            if (is_lost || now.0.saturating_sub(begun.0) > self.max_age.saturating_add(SPAN))
                && let Some(block) = family.blocks.pop_front()
            {
                self.bytes -= block.records.len();
                family.forgotten += 1;
                if is_lost {
                    family.lost_until = Some(Seconds(begun.0.saturating_add(SPAN)));
                }
            }
        }
    }

    /// Begins to tell again of those that have left in the last seconds. Also returns whether some of them
    /// were forgotten for want of room.
    pub(crate) fn tell_again(&self, max_age: u32, now: Seconds) -> (DepartedCursor, bool) {
        let since = Seconds(now.0.saturating_sub(max_age.min(self.max_age)));
        let lost = self.families.iter().filter_map(|family| family.lost_until);
        let is_lost = lost.max().is_some_and(|until| until > since);
        (DepartedCursor { since, ..DepartedCursor::default() }, is_lost)
    }

    /// Returns the next of those that have left and are not here again, out of some that are looked at, none
    /// if there are no more. `is_here` is given the change and its age in seconds.
    pub(crate) fn next(
        &self,
        cursor: &mut DepartedCursor,
        (now, budget): (Seconds, usize),
        mut is_here: impl FnMut(&Change, u32) -> bool,
    ) -> Option<Published> {
        while let Some(family) = Family::ALL.get(cursor.family).copied() {
            let Blocks { blocks, forgotten, .. } = &self.families[family.index()];
            if cursor.block < *forgotten {
                (cursor.block, cursor.offset) = (*forgotten, 0);
            }
            let at = usize::try_from(cursor.block - forgotten).unwrap_or(usize::MAX);
            let Some(block) = blocks.get(at) else {
                *cursor = DepartedCursor { family: cursor.family + 1, block: 0, offset: 0, ..*cursor };
                continue;
            };
            let end = block.begun.0.saturating_add(SPAN).min(now.0);
            let mut rest = block.records.get(cursor.offset..).unwrap_or_default();
            if end < cursor.since.0 || rest.is_empty() {
                (cursor.block, cursor.offset) = (cursor.block + 1, 0);
                continue;
            }
            let mut records = Vec::new();
            for _ in 0..budget.max(1) {
                let Ok(change) = take_record(family, &mut rest) else { break };
                let age = end.saturating_sub(block.begun.0).saturating_sub(change.age.into());
                let age = u8::try_from(age).unwrap_or(u8::MAX);
                let left = block.begun.0.saturating_add(change.age.into());
                if !is_here(&change, now.0.saturating_sub(left)) {
                    write_record(&Change { age, ..change }, &mut records);
                }
            }
            cursor.offset = block.records.len() - rest.len();
            return Some(Published { family, records, until: Seconds(end) });
        }
        None
    }
}
