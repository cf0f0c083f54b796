//! Longer announce intervals under load and in large swarms: the only throttle that clients obey. Pure.
//!
//! Clients that are asked to wait longer must be remembered longer, so the peer age follows the longest
//! interval that was given out lately ([`GivenOut`]).

use aquatic_common::Seconds;

/// Share of a core's time below which intervals are not stretched, and from which on they are stretched in
/// full.
const BUSY: (f64, f64) = (0.7, 0.95);

/// Seconds over which the share of a core's time is averaged. Clients follow an interval half an hour later,
/// so there is nothing to gain from less.
const AVERAGED_OVER: f64 = 60.0;

/// How far intervals may be stretched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Longest interval in seconds. Below the usual one, nothing is stretched.
    pub max_interval: u32,
    /// Number of peers of a swarm from which on its interval is the longest; 0 if the size does not matter.
    pub large_swarm: u32,
}

impl Stretch {
    /// The interval for a swarm of some size on a core with some load, before jitter, in seconds.
    #[must_use]
    pub fn interval(&self, usual: u32, load: &Load, swarm: u64) -> u32 {
        let of_size =
            if self.large_swarm == 0 { 0.0 } else { (swarm as f64 / f64::from(self.large_swarm)).min(1.0) };
        let by = load.stretch().max(of_size);
        usual + (f64::from(self.max_interval.saturating_sub(usual)) * by) as u32
    }
}

/// The share of its time that a core is busy, averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    busy: f64,
}

impl Load {
    /// Takes in that a core was busy for a share of some seconds.
    pub fn add(&mut self, busy: f64, seconds: f64) {
        let weight = 1.0 - (-seconds / AVERAGED_OVER).exp();
        self.busy += (busy.clamp(0.0, 1.0) - self.busy) * weight;
    }

    /// The averaged share, from 0 to 1.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.busy
    }

    /// By how much intervals are stretched, from 0 to 1: without steps, so that clients are not sent back in
    /// waves.
    fn stretch(&self) -> f64 {
        let at = ((self.busy - BUSY.0) / (BUSY.1 - BUSY.0)).clamp(0.0, 1.0);
        at * at * (3.0 - 2.0 * at)
    }
}

/// The longest interval that was given out lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct GivenOut {
    /// Since the last change of periods, and in the period before.
    longest: [u32; 2],
    since: Seconds,
}

impl GivenOut {
    /// Takes in an interval of some seconds.
    #[inline]
    pub fn note(&mut self, interval: u32) {
        self.longest[0] = self.longest[0].max(interval);
    }

    /// The longest interval that a client may still be waiting for, in seconds; 0 if none was given out.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.longest[0].max(self.longest[1])
    }

    /// The age in seconds up to which peers have to be remembered: the configured one, or twice the longest
    /// interval that a client may still be waiting for. To be asked about now and then.
    pub fn peer_age(&mut self, now: Seconds, configured: u32) -> u32 {
        let age = self.longest().saturating_mul(2);
        if now.0.saturating_sub(self.since.0) >= age.max(configured) {
            self.longest = [0, self.longest[0]];
            self.since = now;
        }
        age.max(configured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCH: Stretch = Stretch { max_interval: 3600, large_swarm: 10_000 };

    fn load(busy: f64) -> Load {
        Load { busy }
    }

    #[test]
    fn intervals_are_the_usual_ones_at_low_load() {
        let by_load = Stretch { large_swarm: 0, ..STRETCH };
        for busy in [0.0, 0.5, 0.7] {
            assert_eq!(by_load.interval(1800, &load(busy), 1_000_000), 1800);
        }
        assert_eq!(by_load.interval(7200, &load(1.0), 0), 7200, "never shorter than the usual one");
        assert_eq!(Stretch::default().interval(1800, &load(1.0), 1_000_000), 1800);
    }

    #[test]
    fn intervals_grow_smoothly_with_the_load() {
        let mut last = 1800;
        for percent in 70..=100 {
            let interval = STRETCH.interval(1800, &load(f64::from(percent) / 100.0), 0);
            assert!(interval >= last && interval - last < 120, "{percent}: {interval}");
            last = interval;
        }
        assert_eq!(last, 3600);
    }

    #[test]
    fn intervals_grow_with_the_swarm() {
        let of = |swarm| STRETCH.interval(1800, &load(0.0), swarm);
        assert_eq!([of(0), of(1), of(5000), of(10_000), of(1_000_000)], [1800, 1800, 2700, 3600, 3600]);
        assert_eq!(STRETCH.interval(1800, &load(1.0), 5000), 3600, "the larger of both");
    }

    #[test]
    fn the_load_is_an_average_over_a_minute() {
        let mut load = Load::default();
        (0..40).for_each(|_| load.add(1.0, 0.25));
        assert!(load.busy() < 0.2, "a flood of ten seconds: {}", load.busy());
        (0..2000).for_each(|_| load.add(1.0, 0.25));
        assert!(load.busy() > 0.99);
        (0..2000).for_each(|_| load.add(0.5, 0.25));
        assert!((load.busy() - 0.5).abs() < 0.01);
    }

    #[test]
    fn peers_are_remembered_for_twice_what_they_were_told() {
        let mut given = GivenOut::default();
        assert_eq!(given.peer_age(Seconds(0), 3600), 3600);
        given.note(1800);
        assert_eq!(given.peer_age(Seconds(10), 3600), 3600);
        given.note(3600);
        let told = 20;
        for now in told..told + 7200 {
            assert_eq!(given.peer_age(Seconds(now), 3600), 7200, "{now}");
            given.note(1800);
        }
        let after = (told + 7200..told + 30_000).find(|&now| {
            given.note(1800);
            given.peer_age(Seconds(now), 3600) == 3600
        });
        assert!(after.is_some_and(|after| after < told + 16_000), "{after:?}");
    }
}
