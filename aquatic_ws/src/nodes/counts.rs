//! Numbers of changes and messages between nodes.

use crate::labels::labels;

labels! {
    /// What became of a change of another node.
    pub(crate) enum ChangeOutcome {
        Added => "added",
        Updated => "updated",
        /// The peer id belongs to another connection.
        Claimed => "claimed",
        Removed => "removed",
        /// Nothing was there to be removed.
        Absent => "absent",
        TooOld => "too_old",
        /// The node is gone.
        NodeGone => "node_gone",
        LimitReached => "limit_reached",
        /// The access list excludes the torrent.
        NotAdmitted => "not_admitted",
        Malformed => "malformed",
    }
}

/// Numbers since this process started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NodeCounts {
    /// Changes that were published.
    pub(crate) published: u64,
    /// Changes of other nodes by outcome.
    pub(crate) applied: [u64; ChangeOutcome::ALL.len()],
}
