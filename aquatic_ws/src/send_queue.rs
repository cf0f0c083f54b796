//! Queue of frames to be sent over one connection.

use std::collections::VecDeque;

/// Capacity that an empty queue keeps while its connection is busy. A larger one is released at once.
const KEPT_BYTES: usize = 8 * 1024;
const KEPT_MESSAGES: usize = 64;

/// Limits on a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendQueueLimits {
    pub(crate) max_bytes: usize,
    pub(crate) max_messages: usize,
}

impl SendQueueLimits {
    /// Limits on relays: three quarters, so that others cannot fill the queue of a client.
    pub(crate) fn for_relays(self) -> Self {
        Self {
            max_bytes: self.max_bytes - self.max_bytes / 4,
            max_messages: self.max_messages - self.max_messages / 4,
        }
    }
}

/// Frames in the order in which they are to be sent.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    bytes: Vec<u8>,
    sent: usize,
    /// Unsent bytes of each frame. Only the first frame may be partly sent.
    lengths: VecDeque<u32>,
}

impl SendQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Returns the number of unsent bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Returns the number of frames that are not sent completely.
    pub(crate) fn messages(&self) -> usize {
        self.lengths.len()
    }

    /// Returns whether a frame of this length fits. An empty queue takes any frame, since messages have a
    /// limit of their own.
    pub(crate) fn fits(&self, length: usize, limits: SendQueueLimits) -> bool {
        self.is_empty() || self.len() + length <= limits.max_bytes && self.lengths.len() < limits.max_messages
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.lengths.push_back(u32::try_from(self.bytes.len() - before).unwrap_or(u32::MAX));
    }

    /// Returns the unsent bytes.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Returns the unsent bytes of a queue that is not used any more.
    pub(crate) fn into_unsent(self) -> Vec<u8> {
        if self.sent == 0 { self.bytes } else { self.unsent().to_vec() }
    }

    /// Removes bytes that were sent from the front.
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

    /// Releases all memory of an empty queue.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SendQueueLimits = SendQueueLimits { max_bytes: 1000, max_messages: 3 };

    #[test]
    fn bytes_and_messages_are_bounded() {
        let mut queue = SendQueue::default();
        assert!(queue.fits(5000, LIMITS), "the first may be longer");
        queue.push(|out| out.push(1));
        assert!(queue.fits(999, LIMITS) && !queue.fits(1000, LIMITS));
        queue.advance(1);
        (0..3).for_each(|_| queue.push(|out| out.extend_from_slice(b"abc")));
        assert!(!queue.fits(1, LIMITS), "three messages");
        queue.advance(2);
        assert!(!queue.fits(1, LIMITS), "the first is not over");
        queue.advance(1);
        assert!(queue.fits(1, LIMITS));
        assert_eq!(queue.unsent(), b"abcabc");
        queue.advance(6);
        assert!(queue.is_empty() && queue.lengths.is_empty());
    }

    #[test]
    fn order_survives_sending_in_pieces_and_memory_does_not_stay() {
        let mut queue = SendQueue::default();
        let (mut expected, mut sent) = (Vec::new(), Vec::new());
        for round in 0..200_u32 {
            let message = vec![round as u8; 1000 + round as usize];
            expected.extend_from_slice(&message);
            queue.push(|out| out.extend_from_slice(&message));
            let len = queue.len().min(1050);
            sent.extend_from_slice(&queue.unsent()[..len]);
            queue.advance(len);
            assert!(queue.bytes.len() <= 2 * queue.len() + KEPT_BYTES, "what was sent goes");
        }
        assert!(queue.len() > KEPT_BYTES);
        queue.release();
        sent.extend_from_slice(queue.unsent());
        queue.advance(queue.len());
        assert_eq!(sent, expected);
        assert_eq!(queue.bytes.capacity(), 0, "a long queue leaves nothing behind");
        queue.push(|out| out.push(1));
        queue.advance(1);
        assert!(queue.bytes.capacity() > 0, "a short one will soon be used again");
        queue.release();
        assert_eq!((queue.bytes.capacity(), queue.lengths.capacity()), (0, 0));
    }
}
