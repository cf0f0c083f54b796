//! What nodes of a cluster send each other about WebTorrent: records of changes to all, and messages with
//! offers and answers to one. Pure.

pub mod changes;
pub(crate) mod counts;
pub mod messages;
pub(crate) mod offers;
pub(crate) mod outbox;

use counts::NodeCounts;
use outbox::NodeOutbox;

/// What one core has for the other nodes, apart from changes.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) outbox: NodeOutbox,
    pub(crate) counts: NodeCounts,
}
