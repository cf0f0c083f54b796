//! Owners of torrents, and messages to their cores.

use aquatic_common::{InfoHash, Steering};

use crate::forwarding::{Forwarded, Outbox};
use crate::swarm::ConnectionId;

/// Core that owns a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This core.
    Here,
    /// Another core, by its index.
    Core(usize),
}

/// Routing table and outboxes of one core.
pub(super) struct Router {
    core: usize,
    steering: Steering,
    /// By core.
    outboxes: Vec<Outbox>,
}

impl Router {
    pub(super) fn new(core: usize, steering: Steering) -> Self {
        Self { core, steering, outboxes: (0..steering.cores()).map(|_| Outbox::default()).collect() }
    }

    pub(super) fn cores(&self) -> usize {
        self.outboxes.len()
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

    /// Adds a message to the outbox for another core, or returns it if that is full.
    pub(super) fn forward(&mut self, core: usize, message: Forwarded) -> Result<(), Forwarded> {
        match self.outboxes.get_mut(core) {
            Some(outbox) => outbox.push(message),
            None => Err(message),
        }
    }

    /// Returns whether any outbox has messages.
    pub(super) fn has_messages(&self) -> bool {
        // A single core sends none, and there are few cores.
        self.outboxes.len() > 1 && self.outboxes.iter().any(|outbox| !outbox.is_empty())
    }

    /// Returns the outbox for another core.
    pub(super) fn outbox(&mut self, core: usize) -> Option<&mut Outbox> {
        self.outboxes.get_mut(core)
    }
}
