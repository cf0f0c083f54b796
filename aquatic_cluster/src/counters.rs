//! Monotonic counters of nodes, and totals of the cluster.
//!
//! Each node publishes its own counters, which only grow during a run. A total is the sum of the last known
//! counters of each run, so no message can be counted twice, whatever is lost, repeated or late.

/// Counters of a node since its run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Announces answered.
    pub announces: u64,
    /// Scrapes answered.
    pub scrapes: u64,
    /// Completed downloads of peers that the node heard.
    pub completed: u64,
    /// Changes published.
    pub published: u64,
}

impl Counters {
    pub(crate) fn as_array(self) -> [u64; 4] {
        [self.announces, self.scrapes, self.completed, self.published]
    }

    pub(crate) fn from_array([announces, scrapes, completed, published]: [u64; 4]) -> Self {
        Self { announces, scrapes, completed, published }
    }

    /// The larger of each: counters of one run, received in any order.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.combine(other, u64::max)
    }

    /// The sums: counters of different runs.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    fn combine(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let (a, b) = (self.as_array(), other.as_array());
        Self::from_array(std::array::from_fn(|index| combine(a[index], b[index])))
    }
}
