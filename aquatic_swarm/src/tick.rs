//! Time of a peer's last announce, in 16 bits together with its role and whether its completion was counted.

use aquatic_common::Seconds;

use crate::types::MAX_PEER_AGE;

/// Seconds per tick. Expiry passes visit a torrent every two minutes by default, so finer ticks would not
/// remove peers noticeably earlier.
const TICK: u32 = 16;
/// Ticks are counted modulo this.
const WRAP: u32 = 1 << 14;

// A peer of the maximum age must still look old, not young, when an expiry pass reaches it. Passes may
// therefore take up to a day.
const _: () = assert!(MAX_PEER_AGE / TICK + 86_400 / TICK < WRAP);

/// Time in ticks, modulo 73 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u16);

impl Tick {
    pub(crate) fn at(now: Seconds) -> Self {
        // Lossless: always below 2^14.
        Self(((now.0 / TICK) % WRAP) as u16)
    }

    /// Returns the ticks from `earlier` to this tick, modulo the wrap.
    fn since(self, earlier: Self) -> u16 {
        self.0.wrapping_sub(earlier.0) & (WRAP as u16 - 1)
    }
}

/// Time of a peer's last announce, whether it was a seeder, and whether its completion was counted. From the
/// most significant bit: 14 bits of time, completion, role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(pub(crate) u16);

const SEEDER: u16 = 1;
const COMPLETION_COUNTED: u16 = 1 << 1;

impl Stamp {
    /// Creates the stamp of an announce. Its completion is not counted yet.
    pub(crate) fn new(seen: Tick, seeder: bool) -> Self {
        Self(seen.0 << 2 | u16::from(seeder))
    }

    pub(crate) fn seeder(self) -> bool {
        self.0 & SEEDER != 0
    }

    /// Returns the stamp of a known peer that announces again, given its previous stamp, and whether the
    /// announce counts as a completion: the peer was a leecher, is a seeder, and was not counted before.
    #[inline]
    pub(crate) fn after(self, previous: Self) -> (Self, bool) {
        let counted = previous.0 & COMPLETION_COUNTED;
        let completes = self.seeder() && !previous.seeder() && counted == 0;
        let counted = if completes { COMPLETION_COUNTED } else { counted };
        (Self(self.0 | counted), completes)
    }

    /// Creates the stamp of a saved peer.
    pub(crate) fn restored(seen: Tick, seeder: bool, completion_counted: bool) -> Self {
        let Self(stamp) = Self::new(seen, seeder);
        Self(if completion_counted { stamp | COMPLETION_COUNTED } else { stamp })
    }

    pub(crate) fn completion_counted(self) -> bool {
        self.0 & COMPLETION_COUNTED != 0
    }

    /// Returns the age in seconds, a multiple of a tick, modulo 73 hours.
    pub(crate) fn age(self, now: Tick) -> u32 {
        u32::from(now.since(self.seen())) * TICK
    }

    fn seen(self) -> Tick {
        Tick(self.0 >> 2)
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
        for seen in [0, 5, 15, 16, 262_128, 262_144, 1_000_003] {
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

    #[test]
    fn restored_stamps_have_the_age_role_and_completion_that_were_saved() {
        for now in [0_u32, 100, 262_144] {
            for age in [0_u32, 16, 48_000, MAX_PEER_AGE] {
                let seen = Tick::at(Seconds(now.wrapping_sub(age)));
                for (seeder, counted) in [(false, false), (false, true), (true, false), (true, true)] {
                    let stamp = Stamp::restored(seen, seeder, counted);
                    assert_eq!((stamp.seeder(), stamp.completion_counted()), (seeder, counted));
                    assert_eq!(stamp.age(Tick::at(Seconds(now))), age, "{age} s before {now}");
                }
            }
        }
    }

    #[test]
    fn a_completion_is_counted_once_and_remembered() {
        let stamp = |now, seeder| Stamp::new(Tick::at(Seconds(now)), seeder);
        for start in [0, 262_143] {
            let mut peer = stamp(start, false);
            let mut completions = 0;
            for (nth, seeder) in [false, true, true, false, true, false, false, true].into_iter().enumerate()
            {
                let now = start + nth as u32 * TICK;
                let (next, completes) = stamp(now, seeder).after(peer);
                completions += u32::from(completes);
                assert_eq!((next.seeder(), next.seen()), (seeder, Tick::at(Seconds(now))));
                peer = next;
            }
            assert_eq!(completions, 1);
        }
    }

    #[test]
    fn a_peer_that_begins_as_a_seeder_is_counted_when_it_completes_later() {
        let stamp = |seeder| Stamp::new(Tick::at(Seconds(800)), seeder);
        let (peer, first) = stamp(true).after(stamp(true));
        let (peer, second) = stamp(false).after(peer);
        let (_, third) = stamp(true).after(peer);
        assert_eq!([first, second, third], [false, false, true]);
    }
}
