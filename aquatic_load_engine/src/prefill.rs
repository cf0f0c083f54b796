//! Announcing each peer once, however often that has to be tried.

use std::ops::Range;

/// Peers that are still to be announced.
#[derive(Clone, Debug)]
pub struct Unannounced {
    untried: Range<u64>,
    /// Peers whose announce came to nothing, and how often.
    again: Vec<(u64, u8)>,
}

impl Unannounced {
    /// All of these.
    #[must_use]
    pub fn new(peers: Range<u64>) -> Self {
        Self { untried: peers, again: Vec::new() }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.untried.is_empty() && self.again.is_empty()
    }

    /// How many have not been tried once.
    #[must_use]
    pub fn untried(&self) -> u64 {
        self.untried.end.saturating_sub(self.untried.start)
    }

    /// A peer to announce, and how often that was tried before.
    pub fn take(&mut self) -> Option<(u64, u8)> {
        self.again.pop().or_else(|| Some((self.untried.next()?, 0)))
    }

    /// Takes a peer back whose announce was not even sent.
    pub fn put_back(&mut self, peer: u64, tried: u8) {
        self.again.push((peer, tried));
    }

    /// An announce that was tried so often before has come to nothing again. Returns whether the peer is given up, as
    /// that were all the attempts.
    pub fn failed(&mut self, peer: u64, tried: u8, attempts: u8) -> bool {
        let tried = tried.saturating_add(1);
        if tried < attempts {
            self.put_back(peer, tried);
        }
        tried >= attempts
    }

    /// Gives up what was tried.
    pub fn forget_tried(&mut self) {
        self.again.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_tried_until_they_are_given_up() {
        let mut peers = Unannounced::new(5..7);
        assert_eq!((peers.take(), peers.untried()), (Some((5, 0)), 1));
        assert!(!peers.failed(5, 0, 2));
        assert_eq!(peers.take(), Some((5, 1)));
        assert!(peers.failed(5, 1, 2));
        assert_eq!((peers.take(), peers.take(), peers.is_empty()), (Some((6, 0)), None, true));
        peers.put_back(6, 0);
        assert_eq!((peers.is_empty(), peers.untried()), (false, 0));
        peers.forget_tried();
        assert!(peers.is_empty());
    }
}
