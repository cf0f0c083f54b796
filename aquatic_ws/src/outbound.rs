//! What waits to be sent over one connection.

use std::collections::VecDeque;

/// Room that is kept while a connection is busy; more is given back as soon as nothing waits.
const KEPT_BYTES: usize = 8 * 1024;
const KEPT_MESSAGES: usize = 64;

/// Most bytes and messages that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutboundLimits {
    pub(crate) max_bytes: usize,
    pub(crate) max_messages: usize,
}

impl OutboundLimits {
    /// What may wait before nothing of other clients is added.
    pub(crate) fn for_relays(self) -> Self {
        Self {
            max_bytes: self.max_bytes - self.max_bytes / 4,
            max_messages: self.max_messages - self.max_messages / 4,
        }
    }
}

/// Frames in the order in which they are to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    bytes: Vec<u8>,
    sent: usize,
    /// The length of each frame; of the first, what is left of it.
    lengths: VecDeque<u32>,
}

impl Outbound {
    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether a frame of this length may wait, too. The first always may: messages have a limit of their own.
    pub(crate) fn has_room(&self, length: usize, limits: OutboundLimits) -> bool {
        self.is_empty() || self.len() + length <= limits.max_bytes && self.lengths.len() < limits.max_messages
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.lengths.push_back(u32::try_from(self.bytes.len() - before).unwrap_or(u32::MAX));
    }

    /// What is to be sent next.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Takes note that so many bytes of it have been sent.
    pub(crate) fn advance(&mut self, sent: usize) {
        self.sent += sent.min(self.len());
        let mut left = sent;
        while let Some(first) = self.lengths.front_mut() {
            if *first as usize > left {
                *first -= left as u32;
                break;
            }
            left -= *first as usize;
            self.lengths.pop_front();
        }
        if self.is_empty() {
            self.sent = 0;
            self.bytes.clear();
            self.lengths.clear();
            if self.bytes.capacity() > KEPT_BYTES || self.lengths.capacity() > KEPT_MESSAGES {
                self.release();
            }
        } else if self.sent > self.bytes.len() / 2 && self.sent > KEPT_BYTES {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Gives back all memory, if nothing waits: for a connection that has nothing to say for a while.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OutboundLimits = OutboundLimits { max_bytes: 1000, max_messages: 3 };

    #[test]
    fn bytes_and_messages_are_bounded() {
        let mut outbound = Outbound::default();
        assert!(outbound.has_room(5000, LIMITS), "the first may be longer");
        outbound.push(|out| out.push(1));
        assert!(outbound.has_room(999, LIMITS) && !outbound.has_room(1000, LIMITS));
        outbound.advance(1);
        (0..3).for_each(|_| outbound.push(|out| out.extend_from_slice(b"abc")));
        assert!(!outbound.has_room(1, LIMITS), "three messages");
        outbound.advance(2);
        assert!(!outbound.has_room(1, LIMITS), "the first is not over");
        outbound.advance(1);
        assert!(outbound.has_room(1, LIMITS));
        assert_eq!(outbound.unsent(), b"abcabc");
        outbound.advance(6);
        assert!(outbound.is_empty() && outbound.lengths.is_empty());
    }

    #[test]
    fn order_survives_sending_in_pieces_and_memory_does_not_stay() {
        let mut outbound = Outbound::default();
        let (mut expected, mut sent) = (Vec::new(), Vec::new());
        for round in 0..200_u32 {
            let message = vec![round as u8; 1000 + round as usize];
            expected.extend_from_slice(&message);
            outbound.push(|out| out.extend_from_slice(&message));
            let len = outbound.len().min(1050);
            sent.extend_from_slice(&outbound.unsent()[..len]);
            outbound.advance(len);
            assert!(outbound.bytes.len() <= 2 * outbound.len() + KEPT_BYTES, "what was sent goes");
        }
        assert!(outbound.len() > KEPT_BYTES);
        outbound.release();
        sent.extend_from_slice(outbound.unsent());
        outbound.advance(outbound.len());
        assert_eq!(sent, expected);
        assert_eq!(outbound.bytes.capacity(), 0, "a long queue leaves nothing behind");
        outbound.push(|out| out.push(1));
        outbound.advance(1);
        assert!(outbound.bytes.capacity() > 0, "a short one will soon be used again");
        outbound.release();
        assert_eq!((outbound.bytes.capacity(), outbound.lengths.capacity()), (0, 0));
    }
}
