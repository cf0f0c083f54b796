//! Overload control of a queue of the interface. The kernel takes no filter for it, so the core drops itself
//! what is not to be served: to receive a frame costs a fraction of a response, whose larger part is to send.
//!
//! All listeners share the queue, each with a control of its own. What the queue lost, what waits in it, and
//! the time of the core are divided among them by what was received for each.

use std::time::Duration;

use aquatic_common::Family;
use aquatic_net::udp::{Datagrams, QueueState};
use aquatic_net::xdp::{QUEUE_ROOM, QueueLosses};

use crate::overload::{Activity, Change, DATAGRAM_BYTES, INTERVAL, OverloadControl};

/// Overload control of a queue.
pub(super) struct QueueOverload {
    listeners: Vec<OfListener>,
    /// Time spent waiting for frames in this interval.
    idle: Duration,
    /// Whether the queue was empty at some time in this interval.
    was_empty: bool,
    /// Least number of frames that waited behind a batch.
    least_waiting: Option<u32>,
    last: Duration,
    /// Losses of the queue, as last seen.
    lost: u64,
}

struct OfListener {
    control: OverloadControl,
    activity: Activity,
    /// Frames that the queue lost and that count as this listener's.
    lost: f64,
}

impl QueueOverload {
    /// Control of a queue that serves listeners of these families.
    pub(super) fn new(families: impl Iterator<Item = Family>, key: [u8; 16]) -> Self {
        let of_listener = |family| OfListener {
            control: OverloadControl::new(family, key).without_filter(),
            activity: Activity::default(),
            lost: 0.0,
        };
        Self {
            listeners: families.map(of_listener).collect(),
            idle: Duration::ZERO,
            was_empty: true,
            least_waiting: None,
            last: Duration::ZERO,
            lost: 0,
        }
    }

    /// Notes that the core waited for frames.
    pub(super) fn waited(&mut self, time: Duration) {
        self.idle += time;
        self.was_empty = true;
    }

    /// Notes how many frames wait behind a batch that was received.
    pub(super) fn received(&mut self, is_full: bool, waiting: u32) {
        self.was_empty |= !is_full;
        self.least_waiting = Some(self.least_waiting.map_or(waiting, |least| least.min(waiting)));
    }

    /// Chooses which datagrams of a listener's batch are dropped unread, as bits.
    pub(super) fn choose(&mut self, listener: usize, batch: &impl Datagrams, now: Duration) -> u64 {
        let Some(of_listener) = self.listeners.get_mut(listener) else { return 0 };
        let dropped = of_listener.control.choose(batch, now);
        of_listener.activity.received += batch.count() as u32;
        of_listener.activity.shed += dropped.count_ones();
        dropped
    }

    /// Ends an interval if one is due. `losses` reads what the queue has lost; `tell` is told what that
    /// changes for a listener, and whether it is overloaded.
    pub(super) fn follow(
        &mut self,
        now: Duration,
        losses: impl FnOnce() -> QueueLosses,
        mut tell: impl FnMut(usize, Change, bool),
    ) {
        let passed = now.saturating_sub(self.last);
        if passed < INTERVAL {
            return;
        }
        let is_active = self.listeners.iter().any(|of_listener| of_listener.control.is_active());
        let busy = passed.saturating_sub(self.idle);
        let waiting = if self.was_empty { 0.0 } else { f64::from(self.least_waiting.unwrap_or(0)) };
        // Nobody asks for what was lost before the queue was emptied.
        let lost = if is_active || !self.was_empty { lost(losses()) } else { self.lost };
        let newly_lost = lost.saturating_sub(self.lost) as f64;
        let received: u32 = self.listeners.iter().map(|of_listener| of_listener.activity.received).sum();
        for (index, of_listener) in self.listeners.iter_mut().enumerate() {
            let activity = std::mem::take(&mut of_listener.activity);
            let share = f64::from(activity.received) / f64::from(received.max(1));
            of_listener.lost += newly_lost * share;
            let bytes = (waiting * share * DATAGRAM_BYTES) as u32;
            let activity = Activity {
                idle: passed.saturating_sub(busy.mul_f64(share)),
                was_empty: self.was_empty,
                least_bytes: Some(bytes),
                ..activity
            };
            // The counter of a socket wraps as well.
            let size = (f64::from(QUEUE_ROOM) * DATAGRAM_BYTES) as u32;
            let queue = QueueState { bytes, size, dropped: of_listener.lost as u64 as u32 };
            let change = of_listener.control.interval(now, activity, Some(queue));
            tell(index, change, of_listener.control.is_active());
        }
        (self.last, self.lost) = (now, lost);
        (self.idle, self.was_empty, self.least_waiting) = (Duration::ZERO, false, None);
    }

    /// Ends all overloads. `tell` is told what that changes for a listener.
    pub(super) fn stop(&mut self, now: Duration, mut tell: impl FnMut(usize, Change, bool)) {
        for (index, of_listener) in self.listeners.iter_mut().enumerate() {
            if of_listener.control.is_charging() {
                tell(index, of_listener.control.stop(now), false);
            }
        }
    }
}

/// Frames that were lost because the core did not keep up.
fn lost(losses: QueueLosses) -> u64 {
    losses.ring_full + losses.no_buffer
}
