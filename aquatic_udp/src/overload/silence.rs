//! When intervals end where little arrives, and the end of an overload when nothing does any more.

use std::time::Duration;

use aquatic_net::udp::QueueState;

use super::{Activity, BATCH, Change, INTERVAL, OverloadControl};

/// Time after which an interval without a batch ends. During an overload there are several in that time.
const SILENCE: Duration = Duration::from_millis(100);

impl OverloadControl {
    /// Whether the next interval is due. One in which less than a batch comes, and no overload, tells
    /// nothing, and lasts until more has come.
    #[inline]
    pub(crate) fn is_due(&self, now: Duration, activity: &Activity) -> bool {
        let is_over = self.last.is_none_or(|last| now.saturating_sub(last) >= INTERVAL);
        let is_quiet = activity.was_empty && activity.received < BATCH as u32;
        is_over && (!is_quiet || self.is_charging() || self.is_active() || self.told.is_some())
    }

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
