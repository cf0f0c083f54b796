//! Messages that wait to be sent to other nodes.

use std::collections::{BTreeMap, VecDeque};

use super::messages::{NodeMessage, TooLong};
use crate::swarm::NodeNumber;

/// Length in bytes from which on no message is added to others.
const FULL: usize = 64 << 10;

/// Maximum number of bytes that wait. Above it, messages are not added.
const MAX_WAITING: usize = 16 << 20;

/// Reason why a message is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAdded {
    /// Too much waits.
    Full,
    /// The message is too long.
    TooLong,
}

/// Messages of one core to other nodes.
#[derive(Debug, Default)]
pub(crate) struct NodeOutbox {
    /// Messages to which others can be added.
    open: BTreeMap<NodeNumber, Vec<u8>>,
    full: VecDeque<(NodeNumber, Vec<u8>)>,
    /// Length of all messages.
    bytes: usize,
}

impl NodeOutbox {
    /// Adds a message to those for a node.
    pub(crate) fn push(&mut self, to: NodeNumber, message: &NodeMessage<'_>) -> Result<(), NotAdded> {
        if self.bytes >= MAX_WAITING {
            return Err(NotAdded::Full);
        }
        let messages = self.open.entry(to).or_default();
        let before = messages.len();
        message.write(messages).map_err(|TooLong| NotAdded::TooLong)?;
        self.bytes += messages.len() - before;
        if messages.len() >= FULL
            && let Some(messages) = self.open.remove(&to)
        {
            self.full.push_back((to, messages));
        }
        Ok(())
    }

    /// Takes messages for a node, in the order in which they were added.
    pub(crate) fn take(&mut self) -> Option<(NodeNumber, Vec<u8>)> {
        let taken = self.full.pop_front().or_else(|| self.open.pop_first())?;
        self.bytes -= taken.1.len();
        Some(taken)
    }

    /// Removes the messages for a node.
    pub(crate) fn forget(&mut self, node: NodeNumber) {
        self.open.remove(&node);
        self.full.retain(|(to, _)| *to != node);
        let waiting = self.open.values().chain(self.full.iter().map(|(_, messages)| messages));
        self.bytes = waiting.map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use aquatic_common::{InfoHash, PeerId};
    use aquatic_ws_protocol::{Description, OfferId};

    use super::super::messages::{Exchange, MAX_LENGTH, Receiver};
    use super::*;
    use crate::swarm::NodeConnection;

    fn offer(text: &str) -> NodeMessage<'_> {
        NodeMessage::Offer(Exchange {
            receiver: Receiver {
                connection: NodeConnection { core: 0, slot: 0, generation: 0 },
                info_hash: InfoHash([1; 20]),
                peer_id: PeerId([2; 20]),
            },
            maker: PeerId([3; 20]),
            offer_id: OfferId::new("a").unwrap(),
            description: Description::parse(text).unwrap(),
        })
    }

    #[test]
    fn messages_are_bounded_and_kept_in_order() {
        let [one, two] = [1, 2].map(|number| NodeNumber::new(number).unwrap());
        let mut outbox = NodeOutbox::default();
        let text = |at: usize| format!(r#"{{"at":"{at:>30000}"}}"#);
        let mut added = 0;
        while outbox.push(one, &offer(&text(added))).is_ok() {
            added += 1;
        }
        assert!((550..570).contains(&added), "{added} of 30 KB are 16 MiB");
        assert_eq!(outbox.push(two, &offer("{}")), Err(NotAdded::Full));
        let mut taken = 0;
        while let Some((node, messages)) = outbox.take() {
            assert_eq!(node, one);
            assert!(messages.len() <= FULL + MAX_LENGTH);
            let mut rest = messages.as_slice();
            while !rest.is_empty() {
                assert_eq!(NodeMessage::take(&mut rest), Ok(offer(&text(taken))));
                taken += 1;
            }
        }
        assert_eq!((taken, outbox.bytes), (added, 0));
    }

    #[test]
    fn messages_to_a_node_that_is_gone_are_removed() {
        let [one, two] = [1, 2].map(|number| NodeNumber::new(number).unwrap());
        let mut outbox = NodeOutbox::default();
        let [long, too_long] =
            [70_000, 300_000].map(|length| format!(r#"{{"at":"{}"}}"#, "x".repeat(length)));
        for node in [one, two] {
            outbox.push(node, &offer(&long)).unwrap();
            outbox.push(node, &offer("{}")).unwrap();
            assert_eq!(outbox.push(node, &offer(&too_long)), Err(NotAdded::TooLong));
        }
        outbox.forget(one);
        let rest: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
        assert_eq!(rest.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [two, two]);
        assert_eq!(outbox.bytes, 0);
    }
}
