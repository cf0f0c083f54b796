//! Nodes that divide the torrents among themselves: each part of the space of info hashes is held by some of
//! them, and requests for other parts travel to a holder and back. Pure: what is sent is taken from here, and
//! what has arrived is given here.
//!
//! A request for a part that is held elsewhere has [`DEADLINE`] to be responded to. Afterwards, or if there
//! is no holder or no room, an announce is answered without peers and kept for a holder, and a scrape fails.
//! A node that is asked for a part that it does not hold says so.

mod elsewhere;
pub mod messages;

use std::time::Duration;

use aquatic_swarm::{PARTS, PartHasher, PartSet};

pub(crate) use self::elsewhere::{Asked, Elsewhere, PartCounters};

/// Time that a holder has to respond to a request.
pub const DEADLINE: Duration = Duration::from_millis(500);

/// Maximum number of announces of a core that wait for a holder: 6 MB.
pub const MAX_LATE: usize = 65_536;

/// Longest time that an announce waits for a holder, in seconds.
pub const MAX_LATENESS: u32 = 250;

/// Maximum number of bytes of messages to one node that have not been taken.
pub const MAX_OUTGOING: usize = 1 << 20;

/// Number of a node, as whoever transports messages counts nodes.
pub type NodeNumber = u16;

/// Which nodes hold which parts, as seen by one of them.
#[derive(Clone, Debug)]
pub struct Holders {
    hasher: PartHasher,
    own: PartSet,
    /// By part: the node to ask.
    others: [Option<NodeNumber>; PARTS],
}

impl Holders {
    /// Returns what a node sees that holds the parts of a set, and knows which node to ask for each part.
    #[must_use]
    pub fn new(hasher: PartHasher, own: PartSet, ask: impl Fn(u8) -> Option<NodeNumber>) -> Self {
        let mut others = [None; PARTS];
        for (part, other) in (0..=u8::MAX).zip(&mut others) {
            *other = ask(part).filter(|_| !own.has(part));
        }
        Self { hasher, own, others }
    }

    /// The parts that the node holds itself.
    #[must_use]
    pub fn own(&self) -> &PartSet {
        &self.own
    }

    fn node(&self, info_hash: &aquatic_common::InfoHash) -> Option<NodeNumber> {
        self.others[usize::from(self.hasher.part(info_hash))]
    }
}
