//! Nodes that divide the torrents among themselves: each part of the space of info hashes is held by some of
//! them, and requests for other parts travel to a holder and back. Pure: what is sent is taken from here, and
//! what has arrived is given here.
//!
//! A request for a part that is held elsewhere has [`DEADLINE`] to be responded to. Afterwards, or if there
//! is no holder or no room, an announce is answered without peers and kept for a holder, and a scrape fails.
//! A node that is asked for a part that it does not keep says so.
//!
//! A node that was asked and of which nothing was heard until the deadline is silent: another holder of the
//! part is asked instead, and it gets one request every [`PROBE`], until something is heard of it again.

mod elsewhere;
pub mod messages;

use std::time::Duration;

use aquatic_common::InfoHash;
use aquatic_swarm::{PARTS, PartHasher, PartSet};

pub(crate) use self::elsewhere::{Asked, Elsewhere, PartCounters, seconds};

/// Time that a holder has to respond to a request.
pub const DEADLINE: Duration = Duration::from_millis(500);

/// Maximum number of announces of a core that wait for a holder: 6 MB.
pub const MAX_LATE: usize = 65_536;

/// Longest time that an announce waits for a holder, in seconds.
pub const MAX_LATENESS: u32 = 250;

/// Maximum number of bytes of messages to one node that have not been taken.
pub const MAX_OUTGOING: usize = 1 << 20;

/// Number of holders of a part that a core knows: another one is asked if the first is silent.
pub const CHOICES: usize = 2;

/// Time between two requests of a core to a node that is silent.
pub const PROBE: Duration = Duration::from_secs(1);

/// Time after which a node is not taken for silent any more. By then, one that is gone holds no parts.
pub const MAX_SILENCE: Duration = Duration::from_secs(15);

/// Number of a node, as whoever transports messages counts nodes.
pub type NodeNumber = u16;

/// Which nodes hold which parts, as seen by one of them.
#[derive(Clone, Debug)]
pub struct Holders {
    hasher: PartHasher,
    own: PartSet,
    kept: PartSet,
    /// By part: the nodes to ask, best first.
    others: [[Option<NodeNumber>; CHOICES]; PARTS],
}

impl Holders {
    /// Returns what a node sees that holds the parts of a set, and knows which nodes to ask for each part,
    /// the best first.
    #[must_use]
    pub fn new<I>(hasher: PartHasher, own: PartSet, ask: impl Fn(u8) -> I) -> Self
    where
        I: IntoIterator<Item = NodeNumber>,
    {
        let mut others = [[None; CHOICES]; PARTS];
        for (part, others) in (0..=u8::MAX).zip(&mut others).filter(|(part, _)| !own.has(*part)) {
            for (choice, node) in others.iter_mut().zip(ask(part)) {
                *choice = Some(node);
            }
        }
        Self { hasher, own, kept: own, others }
    }

    /// Has the torrents of these parts kept, too: this node has held them a minute ago.
    #[must_use]
    pub fn keeping(mut self, kept: PartSet) -> Self {
        (0..=u8::MAX).filter(|part| kept.has(*part)).for_each(|part| self.kept.add(part));
        self
    }

    /// The parts that the node holds itself.
    #[must_use]
    pub fn own(&self) -> &PartSet {
        &self.own
    }

    /// The parts whose torrents the node keeps.
    #[must_use]
    pub fn kept(&self) -> &PartSet {
        &self.kept
    }

    /// The nodes to ask for a torrent, best first.
    fn nodes(&self, info_hash: &InfoHash) -> impl Iterator<Item = NodeNumber> + use<> {
        self.others[usize::from(self.hasher.part(info_hash))].into_iter().flatten()
    }

    fn has(&self, node: NodeNumber) -> bool {
        self.others.as_flattened().contains(&Some(node))
    }
}
