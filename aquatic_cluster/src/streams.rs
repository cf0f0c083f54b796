//! Streams of messages with sequence numbers: duplicates, reordering and gaps.

use crate::Millis;

/// Messages that may come in any order. What is missing behind as many newer ones is lost.
pub const WINDOW: u32 = u64::BITS;

/// Time that a missing message is waited for, in milliseconds.
pub const PATIENCE: Millis = 1_000;

/// What a receiver knows of one stream, in 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// All sequence numbers from here on are new.
    next: u64,
    /// Bit `i`: the message `next - 1 - i` was received, or is not expected any more.
    received: u64,
    /// Since when something is missing.
    waiting: Option<Millis>,
}

/// What a sequence number says of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is newer than all before; as many others have become lost.
    New {
        /// Messages that are not waited for any longer.
        lost: u64,
    },
    /// It was missing.
    Late,
    /// It was received before, or given up.
    Duplicate,
}

impl Stream {
    /// A stream whose messages before this one are not expected.
    #[must_use]
    pub fn starting_at(next: u64) -> Self {
        Self { next, received: u64::MAX, waiting: None }
    }

    /// Sequence number after the newest message known.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.received == u64::MAX
    }

    /// Notes a message.
    pub fn arrive(&mut self, sequence: u64, now: Millis) -> Arrival {
        let arrival = match sequence.checked_sub(self.next) {
            // It has no successor.
            Some(_) if sequence == u64::MAX => Arrival::Duplicate,
            Some(skipped) => {
                let lost = self.advance(skipped).saturating_add(self.advance(1));
                self.received |= 1;
                Arrival::New { lost }
            }
            None => self.arrive_late(self.next - 1 - sequence),
        };
        self.update_waiting(now);
        arrival
    }

    fn arrive_late(&mut self, back: u64) -> Arrival {
        let bit = u32::try_from(back).ok().and_then(|back| 1_u64.checked_shl(back)).unwrap_or_default();
        if bit == 0 || self.received & bit != 0 {
            return Arrival::Duplicate;
        }
        self.received |= bit;
        Arrival::Late
    }

    /// Notes that the sender has used all sequence numbers before `next`. Returns how many messages have
    /// become lost.
    pub fn announce(&mut self, next: u64, now: Millis) -> u64 {
        let lost = self.advance(next.saturating_sub(self.next));
        self.update_waiting(now);
        lost
    }

    /// Gives up what has been missing for [`PATIENCE`]. Returns how many messages are lost.
    pub fn give_up(&mut self, now: Millis) -> u64 {
        if self.waiting.is_none_or(|since| now.saturating_sub(since) < PATIENCE) {
            return 0;
        }
        let lost = self.received.count_zeros();
        self.received = u64::MAX;
        self.waiting = None;
        u64::from(lost)
    }

    /// Moves on by as many messages, none of them received. Returns how many have left the window unseen.
    fn advance(&mut self, by: u64) -> u64 {
        let shifted = u32::try_from(by).unwrap_or(u32::MAX);
        let leaving = if shifted == 0 {
            0
        } else {
            // The oldest are the highest bits.
            !self.received & !u64::MAX.checked_shr(shifted).unwrap_or_default()
        };
        self.received = self.received.checked_shl(shifted).unwrap_or_default();
        self.next = self.next.saturating_add(by);
        u64::from(leaving.count_ones()).saturating_add(by.saturating_sub(u64::from(WINDOW)))
    }

    fn update_waiting(&mut self, now: Millis) {
        self.waiting = if self.is_in_order() { None } else { self.waiting.or(Some(now)) };
    }
}
