//! Background expiry of peers, as the swarm stores of all protocols offer it. Whoever drives it decides how
//! fast a pass proceeds; a store only does as much work as it is asked to.

use crate::Seconds;

/// A store from which peers that have not announced for a while are removed in small steps.
pub trait Expire {
    /// Returns the approximate number of work units of a pass that removes nothing.
    ///
    /// To have a pass take `interval` with one call per `tick`, use a budget of `pass_work() * tick /
    /// interval + 1`.
    #[must_use]
    fn pass_work(&self) -> u64;

    /// Removes peers that have not announced for more than `max_peer_age` seconds, until `budget` units of
    /// work are done or a pass over all torrents ends. The next call continues where this one stopped. A
    /// budget of 0 counts as 1, so that every call makes progress.
    fn expire(&mut self, now: Seconds, max_peer_age: u32, budget: u64) -> Expired;
}

/// Result of one call of [`Expire::expire`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Number of peers removed.
    pub peers: u64,
    /// Number of torrents removed with their last peer.
    pub torrents: u64,
    /// Units of work done, including [`Self::WORK_PER_PEER`] for each peer removed. May exceed the budget by
    /// the work on one torrent, which the store bounds.
    pub work: u64,
    /// Whether a pass over all torrents ended with this call. The call ends with the pass, so it may have
    /// used less than its budget.
    pub pass_ended: bool,
}

impl Expired {
    /// Units of work for the removal of one peer. The rest of the work is the search for expired peers.
    pub const WORK_PER_PEER: u64 = 4;

    /// Returns the units of work spent on the search, which add up to [`Expire::pass_work`] in a pass.
    #[must_use]
    pub fn search_work(&self) -> u64 {
        self.work.saturating_sub(Self::WORK_PER_PEER * self.peers)
    }
}
