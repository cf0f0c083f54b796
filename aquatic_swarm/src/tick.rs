//! Time of a peer's last announce, in 16 bits together with its role.

use aquatic_common::Seconds;

use crate::types::MAX_PEER_AGE;

/// Seconds per tick.
const TICK: u32 = 8;
/// Ticks are counted modulo this.
const WRAP: u32 = 1 << 15;

// A peer of the maximum age must still look old, not young, when an expiry pass reaches it. Passes may
// therefore take up to a day.
const _: () = assert!(MAX_PEER_AGE / TICK + 86_400 / TICK < WRAP);

/// Time in ticks, modulo 73 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u16);

impl Tick {
    pub(crate) fn at(now: Seconds) -> Self {
        // Lossless: always below 2^15.
        Self(((now.0 / TICK) % WRAP) as u16)
    }

    /// Returns the ticks from `earlier` to this tick, modulo the wrap.
    fn since(self, earlier: Self) -> u16 {
        self.0.wrapping_sub(earlier.0) & (WRAP as u16 - 1)
    }
}

/// Time of a peer's last announce, and whether it was a seeder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(pub(crate) u16);

impl Stamp {
    pub(crate) fn new(seen: Tick, seeder: bool) -> Self {
        Self(seen.0 << 1 | u16::from(seeder))
    }

    pub(crate) fn seeder(self) -> bool {
        self.0 & 1 == 1
    }

    fn seen(self) -> Tick {
        Tick(self.0 >> 1)
    }
}

/// Decides which peers are expired.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cutoff {
    now: Tick,
    max_age: u16,
}

impl Cutoff {
    /// Creates a cutoff. Ages are rounded such that no peer expires before `max_peer_age` seconds, and each
    /// at most two ticks later.
    pub(crate) fn new(now: Seconds, max_peer_age: u32) -> Self {
        let ticks = max_peer_age.min(MAX_PEER_AGE).div_ceil(TICK);
        Self { now: Tick::at(now), max_age: ticks as u16 }
    }

    pub(crate) fn is_expired(self, stamp: Stamp) -> bool {
        self.now.since(stamp.seen()) > self.max_age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(seen: u32, now: u32, max_age: u32) -> bool {
        let stamp = Stamp::new(Tick::at(Seconds(seen)), true);
        Cutoff::new(Seconds(now), max_age).is_expired(stamp)
    }

    #[test]
    fn peers_expire_between_the_maximum_age_and_two_ticks_later() {
        for seen in [0, 5, 7, 8, 262_136, 262_144, 1_000_003] {
            for age in [60, 61, 63, 64, 3600, MAX_PEER_AGE] {
                assert!(!expired(seen, seen + age, age), "seen {seen}, age {age}");
                assert!(expired(seen, seen + age + 2 * TICK, age), "seen {seen}, age {age}");
            }
        }
    }

    #[test]
    fn peers_stay_expired_for_a_day_across_the_wrap() {
        for seen in [0, 200_000, 262_143] {
            for late in [100, 40_000, 86_400] {
                assert!(expired(seen, seen + MAX_PEER_AGE + late, MAX_PEER_AGE));
            }
        }
    }

    #[test]
    fn stamps_keep_the_role() {
        assert!(Stamp::new(Tick::at(Seconds(262_143)), true).seeder());
        assert!(!Stamp::new(Tick::at(Seconds(262_143)), false).seeder());
    }
}
