//! How many datagrams per second a core can serve.

use super::{Activity, SMOOTHING};

/// Share of an interval in which a core has to be busy for what it served then to tell its least capacity.
const LEAST_BUSY: f64 = 0.25;

/// Weight of the last interval while the capacity rises during an overload: requests that cost much may
/// follow those that cost little at any time, and then it is too late.
const RISE_SMOOTHING: f64 = 0.05;

/// A figure that has become another one, smoothed over some intervals.
pub(super) fn average(before: f64, now: f64) -> f64 {
    before + (now - before) * SMOOTHING
}

/// The capacity after an interval of `passed` seconds, for `busy` of which the core was busy; 0 while it is
/// not known.
///
/// Intervals in which it was busy with full batches tell: smaller ones take more time for each datagram. What
/// is dropped unread takes less than what is served, so what was served is the least that can be, and what
/// was received the most. During an overload the least is learned from other intervals, too: a flood of
/// requests that cost little would otherwise be served no faster than the one before.
pub(super) fn learn(capacity: f64, activity: Activity, (passed, busy): (f64, f64), is_overload: bool) -> f64 {
    if busy <= 0.0 {
        return capacity;
    }
    let least = f64::from(activity.received.saturating_sub(activity.shed)) / busy;
    let most = f64::from(activity.received) / busy;
    let is_full = !activity.was_empty || !is_overload && busy > passed * 0.9;
    let known = match (is_full, capacity > 0.0) {
        (true, true) => capacity.clamp(least, most),
        (true, false) => return most,
        (false, _) if is_overload && busy > passed * LEAST_BUSY => capacity.max(least),
        (false, _) => return capacity,
    };
    let weight = if is_overload && known > capacity { RISE_SMOOTHING } else { SMOOTHING };
    capacity + (known - capacity) * weight
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MILLISECONDS: (f64, f64) = (0.01, 0.01);

    fn activity(received: u32, shed: u32, was_empty: bool) -> Activity {
        Activity { received, shed, was_empty, idle: Duration::ZERO, least_bytes: None }
    }

    #[test]
    fn full_intervals_tell_and_the_first_one_at_once() {
        assert_eq!(learn(0.0, activity(100, 0, false), MILLISECONDS, false), 10_000.0);
        assert_eq!(learn(10_000.0, activity(50, 0, false), MILLISECONDS, true), 8_500.0);
        assert_eq!(learn(10_000.0, activity(300, 0, false), MILLISECONDS, false), 16_000.0);
        assert_eq!(learn(10_000.0, activity(300, 0, false), MILLISECONDS, true), 11_000.0);
    }

    #[test]
    fn what_is_dropped_unread_tells_bounds() {
        // Between 7,000 and 12,000 per second.
        assert_eq!(learn(10_000.0, activity(120, 50, false), MILLISECONDS, true), 10_000.0);
        assert_eq!(learn(20_000.0, activity(120, 50, false), MILLISECONDS, true), 17_600.0);
        assert_eq!(learn(5_000.0, activity(120, 50, false), MILLISECONDS, true), 5_100.0);
    }

    #[test]
    fn an_interval_with_waits_tells_the_least_during_an_overload() {
        let half = (0.01, 0.005);
        assert_eq!(learn(10_000.0, activity(100, 0, true), half, true), 10_500.0);
        assert_eq!(learn(10_000.0, activity(10, 0, true), half, true), 10_000.0);
        assert_eq!(learn(10_000.0, activity(100, 0, true), (0.01, 0.001), true), 10_000.0);
        assert_eq!(learn(10_000.0, activity(100, 0, true), half, false), 10_000.0);
        assert_eq!(learn(10_000.0, activity(0, 0, true), (0.01, 0.0), true), 10_000.0);
    }
}
