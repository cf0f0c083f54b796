//! Other nodes of the cluster and their connections.

use super::ConnectionId;

/// Set in [`ConnectionId::core`] for connections of other nodes, whose number is in the seven bits below.
const OF_NODE: u16 = 0x8000;

/// Number that this process has given to the run of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeNumber(u8);

impl NodeNumber {
    /// Number of nodes that can be told apart.
    pub const COUNT: usize = 128;

    /// Returns a number, unless it is too large.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// Returns the number, below [`Self::COUNT`].
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Connection as its own node names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeConnection {
    /// Core that serves the connection.
    pub core: u8,
    /// Slot in the table of that core.
    pub slot: u32,
    /// Distinguishes the connection from earlier ones in the same slot.
    pub generation: u32,
}

impl NodeConnection {
    /// Returns the connection of this node that it names.
    #[must_use]
    pub fn here(self) -> ConnectionId {
        let Self { core, slot, generation } = self;
        ConnectionId { core: core.into(), slot, generation }
    }

    /// Returns the connection of another node that it names.
    #[must_use]
    pub fn of(self, node: NodeNumber) -> ConnectionId {
        let Self { core, slot, generation } = self;
        ConnectionId { core: OF_NODE | u16::from(node.0) << 8 | u16::from(core), slot, generation }
    }
}

impl ConnectionId {
    /// Returns whether the connection is one of another node.
    #[must_use]
    pub const fn is_remote(self) -> bool {
        self.core & OF_NODE != 0
    }

    /// Returns the node of a connection; `None` for this one.
    #[must_use]
    pub const fn node(self) -> Option<NodeNumber> {
        let [high, _] = self.core.to_be_bytes();
        if self.is_remote() { Some(NodeNumber(high & 0x7f)) } else { None }
    }

    /// Returns the connection as its own node names it. A node of a cluster has at most 256 cores.
    #[must_use]
    pub const fn on_its_node(self) -> NodeConnection {
        let [_, core] = self.core.to_be_bytes();
        NodeConnection { core, slot: self.slot, generation: self.generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_nodes_differ_from_those_of_this_one() {
        let connection = NodeConnection { core: 255, slot: 7, generation: 9 };
        assert_eq!(connection.here().node(), None);
        assert_eq!(connection.here().on_its_node(), connection);
        for number in 0..=255 {
            let Some(node) = NodeNumber::new(number) else {
                assert!(number >= 128);
                continue;
            };
            let remote = connection.of(node);
            assert_eq!((remote.node(), remote.on_its_node()), (Some(node), connection));
            assert!(remote.is_remote() && remote != connection.here());
        }
    }
}
