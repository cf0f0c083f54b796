//! Owners of torrents, and messages to their cores.

use aquatic_common::{InfoHash, Steering};
use aquatic_runtime::channel::OutboxFull;
use aquatic_tracker::Forward;

use crate::forwarding::{Forwarded, ForwardedBatch};
use crate::swarm::ConnectionId;

/// Core that owns a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This core.
    Here,
    /// Another core, by its index.
    Core(usize),
}

/// Routing table of one core, and the way to the others.
pub(super) struct Router<F> {
    core: usize,
    steering: Steering,
    forward: F,
}

impl<F: Forward<ForwardedBatch>> Router<F> {
    pub(super) fn new(core: usize, steering: Steering, forward: F) -> Self {
        Self { core, steering, forward }
    }

    pub(super) fn cores(&self) -> usize {
        self.steering.cores()
    }

    /// Returns the owner of a torrent.
    pub(super) fn owner(&self, info_hash: &InfoHash) -> Owner {
        let owner = self.steering.owner(info_hash);
        if owner == self.core { Owner::Here } else { Owner::Core(owner) }
    }

    /// Returns whether this core serves a connection.
    pub(super) fn is_local(&self, connection: ConnectionId) -> bool {
        usize::from(connection.core) == self.core
    }

    /// Sends a message to another core, unless too much waits for it.
    pub(super) fn forward(&self, core: usize, message: Forwarded) -> Result<(), OutboxFull> {
        self.forward.add(core, |batch| batch.push(message))
    }

    /// Returns the way to the other cores, for messages with lists.
    pub(super) fn others(&self) -> &F {
        &self.forward
    }
}
