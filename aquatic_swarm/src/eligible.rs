//! The peers that may be in a reply, as ranges of positions in a swarm.

use rand::Rng;

use crate::accesses;
use crate::order::PeerOrder;
use crate::sample;

/// The peers eligible for a reply: leechers or all, excluding the requester.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eligible {
    pub(crate) leechers_only: bool,
    /// Position of the requester, if it is in the swarm.
    pub(crate) requester: Option<u32>,
    /// Network of the requester, if it is of the same family as the swarm.
    pub(crate) network: Option<u64>,
}

/// A range of positions, excluding at most one of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Group {
    first: u32,
    pub(crate) count: u32,
    /// The excluded position; the end of the range if none is excluded.
    excluding: u32,
}

impl Eligible {
    /// Returns the eligible seeders and leechers.
    #[inline]
    pub(crate) fn groups(self, order: PeerOrder) -> (Group, Group) {
        let seeders = if self.leechers_only { 0 } else { order.seeders };
        (Group::new(0, seeders, self.requester), Group::new(order.seeders, order.leechers(), self.requester))
    }

    #[inline]
    pub(crate) fn count(self, order: PeerOrder) -> u32 {
        let (seeders, leechers) = self.groups(order);
        seeders.count + leechers.count
    }

    /// Visits `count` of the eligible peers as runs of adjacent positions (first position and length). Each
    /// peer is equally likely; seeders and leechers are taken in proportion to their numbers.
    #[inline]
    pub(crate) fn runs(
        self,
        order: PeerOrder,
        count: u32,
        rng: &mut impl Rng,
        mut visit: impl FnMut(u32, u32),
    ) {
        let (seeders, leechers) = self.groups(order);
        let share = sample::proportion(rng, seeders.count, leechers.count, count);
        seeders.runs(share, rng, &mut visit);
        leechers.runs(count - share, rng, visit);
    }
}

impl Group {
    #[inline]
    fn new(first: u32, len: u32, requester: Option<u32>) -> Self {
        match requester {
            Some(at) if at >= first && at < first + len => Self { first, count: len - 1, excluding: at },
            Some(_) | None => Self { first, count: len, excluding: first + len },
        }
    }

    fn runs(self, count: u32, rng: &mut impl Rng, mut visit: impl FnMut(u32, u32)) {
        sample::runs(rng, self.count, count, |begin, len| {
            for (at, len) in self.spans(begin, len).into_iter().filter(|(_, len)| *len > 0) {
                visit(at, len);
            }
        });
    }

    /// Visits `max` positions of the range in runs, or all of them from a random one on.
    pub(crate) fn positions(self, max: u32, rng: &mut impl Rng, mut visit: impl FnMut(u32)) {
        let mut visit_run = |at: u32, len: u32| (at..at + len).for_each(&mut visit);
        if self.count > max {
            self.runs(max, rng, visit_run);
        } else if self.count > 0 {
            accesses::add(self.count as usize);
            let origin = sample::below(rng, self.count);
            for (begin, len) in [(origin, self.count - origin), (0, origin)] {
                self.spans(begin, len).into_iter().for_each(|(at, len)| visit_run(at, len));
            }
        }
    }

    /// Returns the position and length of the parts of a run: all of it, or what is before and after the
    /// excluded position.
    #[inline]
    fn spans(self, begin: u32, len: u32) -> [(u32, u32); 2] {
        let at = self.first + begin;
        let before = self.excluding.saturating_sub(at).min(len);
        [(at, before), (at + before + 1, len - before)]
    }
}
