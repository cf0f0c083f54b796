//! The end of an overload when nothing arrives any more: elsewhere intervals end with a batch.

use std::time::Duration;

use aquatic_net::udp::QueueState;

use super::{Activity, Change, OverloadControl};

/// Time after which an interval without a batch ends. During an overload there are several in that time.
const SILENCE: Duration = Duration::from_millis(100);

impl OverloadControl {
    /// Ends an interval in which the core has waited all the time, if the last one is long over and an
    /// overload has to end, or its end has to be told. `queue` reads the state of the receive buffer.
    pub(crate) fn interval_of_silence(
        &mut self,
        now: Duration,
        queue: impl FnOnce() -> Option<QueueState>,
    ) -> Option<Change> {
        let idle = now.saturating_sub(self.last?);
        if idle < SILENCE || !self.is_active() && self.told.is_none() {
            return None;
        }
        let activity = Activity { idle, was_empty: true, ..Activity::default() };
        Some(self.interval(now, activity, queue()))
    }
}
