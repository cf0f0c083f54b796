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

/// Whose doing a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A reply to a request of the client itself.
    Reply,
    /// From another client, or a ping.
    Relay,
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    unsent: u32,
    origin: Origin,
}

/// Frames in the order in which they are to be sent.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    bytes: Vec<u8>,
    sent: usize,
    /// Only the first frame may be partly sent.
    frames: VecDeque<Queued>,
    /// Replies among the frames, and their unsent bytes.
    replies: usize,
    reply_bytes: usize,
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
        self.frames.len()
    }

    /// Returns the number of replies that are not sent completely.
    pub(crate) fn replies(&self) -> usize {
        self.replies
    }

    /// Returns the number of unsent bytes of replies.
    pub(crate) fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// Returns whether a frame of this length fits. An empty queue takes any frame, since messages have a
    /// limit of their own.
    pub(crate) fn fits(&self, length: usize, limits: SendQueueLimits) -> bool {
        self.is_empty() || self.len() + length <= limits.max_bytes && self.frames.len() < limits.max_messages
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, origin: Origin, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        let length = self.bytes.len() - before;
        self.frames.push_back(Queued { unsent: u32::try_from(length).unwrap_or(u32::MAX), origin });
        if origin == Origin::Reply {
            self.replies += 1;
            self.reply_bytes += length;
        }
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
        while let Some(first) = self.frames.front_mut() {
            let of_first = left.min(first.unsent as usize);
            first.unsent -= of_first as u32;
            left -= of_first;
            let (is_sent, is_reply) = (first.unsent == 0, first.origin == Origin::Reply);
            if is_reply {
                self.reply_bytes -= of_first;
                self.replies -= usize::from(is_sent);
            }
            if !is_sent {
                break;
            }
            self.frames.pop_front();
        }
        if self.is_empty() {
            self.sent = 0;
            self.bytes.clear();
            self.frames.clear();
            if self.bytes.capacity() > KEPT_BYTES || self.frames.capacity() > KEPT_MESSAGES {
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
        queue.push(Origin::Reply, |out| out.push(1));
        assert!(queue.fits(999, LIMITS) && !queue.fits(1000, LIMITS));
        queue.advance(1);
        (0..3).for_each(|_| queue.push(Origin::Reply, |out| out.extend_from_slice(b"abc")));
        assert!(!queue.fits(1, LIMITS), "three messages");
        queue.advance(2);
        assert!(!queue.fits(1, LIMITS), "the first is not over");
        queue.advance(1);
        assert!(queue.fits(1, LIMITS));
        assert_eq!(queue.unsent(), b"abcabc");
        queue.advance(6);
        assert!(queue.is_empty() && queue.frames.is_empty());
    }

    #[test]
    fn replies_are_told_from_relays() {
        let mut queue = SendQueue::default();
        for origin in [Origin::Relay, Origin::Reply, Origin::Relay, Origin::Reply] {
            queue.push(origin, |out| out.extend_from_slice(b"abc"));
        }
        let mut left = Vec::new();
        for _ in 0..6 {
            left.push((queue.replies(), queue.reply_bytes()));
            queue.advance(2);
        }
        assert_eq!(left, [(2, 6), (2, 6), (2, 5), (1, 3), (1, 3), (1, 2)]);
        assert_eq!((queue.replies(), queue.reply_bytes(), queue.messages()), (0, 0, 0));
    }

    #[test]
    fn order_survives_sending_in_pieces_and_memory_does_not_stay() {
        let mut queue = SendQueue::default();
        let (mut expected, mut sent) = (Vec::new(), Vec::new());
        for round in 0..200_u32 {
            let message = vec![round as u8; 1000 + round as usize];
            expected.extend_from_slice(&message);
            queue.push(Origin::Relay, |out| out.extend_from_slice(&message));
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
        queue.push(Origin::Reply, |out| out.push(1));
        queue.advance(1);
        assert!(queue.bytes.capacity() > 0, "a short one will soon be used again");
        queue.release();
        assert_eq!((queue.bytes.capacity(), queue.frames.capacity()), (0, 0));
    }
}
