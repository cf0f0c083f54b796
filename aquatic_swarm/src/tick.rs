//! Time of a peer's last announce, in 16 bits together with its role, whether its completion was counted, and
//! whether another node heard it.

use aquatic_common::Seconds;

use crate::types::MAX_PEER_AGE;

/// Seconds per tick, to which the times of announces are rounded. Expiry passes visit a torrent every two
/// minutes by default, so finer ticks would not remove peers noticeably earlier.
pub const TICK: u32 = 16;
/// Ticks are counted modulo this.
const WRAP: u32 = 1 << TIME_BITS;
const TIME_BITS: u32 = 13;

// A peer of the maximum age must still look old, not young, when an expiry pass reaches it. Passes may
// therefore take up to twelve hours.
const _: () = assert!(MAX_PEER_AGE / TICK + 43_200 / TICK < WRAP);

/// Time in ticks, modulo 36 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u16);

impl Tick {
    pub(crate) fn at(now: Seconds) -> Self {
        // Lossless: always below 2^13.
        Self(((now.0 / TICK) % WRAP) as u16)
    }

    /// Returns the ticks from `earlier` to this tick, modulo the wrap.
    fn since(self, earlier: Self) -> u16 {
        self.0.wrapping_sub(earlier.0) & (WRAP as u16 - 1)
    }
}

/// Time of a peer's last announce, whether another node heard it, whether its completion was counted, and
/// whether it was a seeder. From the most significant bit: 13 bits of time, origin, completion, role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Stamp(pub(crate) u16);

const SEEDER: u16 = 1;
const COMPLETION_COUNTED: u16 = 1 << 1;
const REMOTE: u16 = 1 << 2;
const FLAG_BITS: u32 = 3;

const _: () = assert!(TIME_BITS + FLAG_BITS == u16::BITS);

impl Stamp {
    /// Creates the stamp of an announce to this node. Its completion is not counted yet.
    pub(crate) fn new(seen: Tick, seeder: bool) -> Self {
        Self(seen.0 << FLAG_BITS | u16::from(seeder))
    }

    /// Returns the stamp of an announce that another node heard.
    pub(crate) fn remote(self) -> Self {
        Self(self.0 | REMOTE)
    }

    pub(crate) fn is_remote(self) -> bool {
        self.0 & REMOTE != 0
    }

    /// Returns whether both are of the same role and origin, so that they count alike.
    pub(crate) fn counts_like(self, other: Self) -> bool {
        (self.0 ^ other.0) & (SEEDER | REMOTE) == 0
    }

    pub(crate) fn seeder(self) -> bool {
        self.0 & SEEDER != 0
    }

    /// Returns the stamp of a known peer that announces again, given its previous stamp, and whether the
    /// announce counts as a completion: the peer was a leecher, is a seeder, and was not counted before. The
    /// completions of announces that other nodes heard are counted there.
    #[inline]
    pub(crate) fn after(self, previous: Self) -> (Self, bool) {
        let counted = (previous.0 | self.0) & COMPLETION_COUNTED;
        let completes = self.0 & (SEEDER | REMOTE) == SEEDER && !previous.seeder() && counted == 0;
        let counted = if completes { COMPLETION_COUNTED } else { counted };
        (Self(self.0 | counted), completes)
    }

    /// Returns the stamp of a peer whose completion has been counted, or may have been.
    pub(crate) fn with_completion_counted(self, counted: bool) -> Self {
        Self(if counted { self.0 | COMPLETION_COUNTED } else { self.0 })
    }

    pub(crate) fn completion_counted(self) -> bool {
        self.0 & COMPLETION_COUNTED != 0
    }

    /// Returns the age in seconds, a multiple of a tick, modulo 36 hours.
    pub(crate) fn age(self, now: Tick) -> u32 {
        u32::from(now.since(self.seen())) * TICK
    }

    fn seen(self) -> Tick {
        Tick(self.0 >> FLAG_BITS)
    }
}

/// Decides which peers are expired.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cutoff {
    now: Tick,
    /// Ticks; below zero if all peers are expired.
    max_age: i16,
    max_remote_age: i16,
}

impl Cutoff {
    /// Creates a cutoff. Ages are rounded such that no peer expires before `max_peer_age` seconds, and each
    /// at most two ticks later. The peers of other nodes have `remote_grace` seconds more.
    pub(crate) fn new(now: Seconds, max_peer_age: u32, remote_grace: u32) -> Self {
        // Lossless: the longest age has 5,400 ticks.
        let ticks = |age: u32| age.min(MAX_PEER_AGE).div_ceil(TICK) as i16;
        let max_remote_age = ticks(max_peer_age.saturating_add(remote_grace));
        Self { now: Tick::at(now), max_age: ticks(max_peer_age), max_remote_age }
    }

    /// Returns the cutoff by which all peers are expired.
    pub(crate) fn of_all(self) -> Self {
        Self { max_age: -1, max_remote_age: -1, ..self }
    }

    #[inline]
    pub(crate) fn is_expired(self, stamp: Stamp) -> bool {
        let max_age = if stamp.is_remote() { self.max_remote_age } else { self.max_age };
        i32::from(self.now.since(stamp.seen())) > i32::from(max_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(seen: u32, now: u32, max_age: u32) -> bool {
        let stamp = Stamp::new(Tick::at(Seconds(seen)), true);
        let cutoff = |grace| Cutoff::new(Seconds(now), max_age, grace);
        assert_eq!(cutoff(1 << 30).is_expired(stamp), cutoff(0).is_expired(stamp));
        assert_eq!(cutoff(0).is_expired(stamp.remote()), cutoff(0).is_expired(stamp));
        cutoff(0).is_expired(stamp)
    }

    #[test]
    fn peers_of_other_nodes_expire_later_but_within_the_maximum() {
        for (age, grace, longest) in [(3600, 1800, 5400), (80_000, 6400, 86_400), (86_400, 9999, 86_400)] {
            for seen in [0, 131_000, 131_071] {
                let stamp = Stamp::new(Tick::at(Seconds(seen)), false).remote();
                let expired = |after| Cutoff::new(Seconds(seen + after), age, grace).is_expired(stamp);
                assert!(!expired(longest) && expired(longest + 2 * TICK) && expired(longest + 40_000));
            }
        }
    }

    #[test]
    fn peers_expire_between_the_maximum_age_and_two_ticks_later() {
        for seen in [0, 5, 15, 16, 131_056, 131_072, 1_000_003] {
            for age in [60, 61, 63, 64, 3600, MAX_PEER_AGE] {
                assert!(!expired(seen, seen + age, age), "seen {seen}, age {age}");
                assert!(expired(seen, seen + age + 2 * TICK, age), "seen {seen}, age {age}");
            }
        }
    }

    #[test]
    fn peers_stay_expired_for_half_a_day_across_the_wrap() {
        for seen in [0, 100_000, 131_071] {
            for late in [100, 20_000, 43_200] {
                assert!(expired(seen, seen + MAX_PEER_AGE + late, MAX_PEER_AGE));
            }
        }
    }

    #[test]
    fn stamps_keep_role_and_origin() {
        for seeder in [false, true] {
            let stamp = Stamp::new(Tick::at(Seconds(131_071)), seeder);
            assert_eq!((stamp.seeder(), stamp.is_remote()), (seeder, false));
            let remote = stamp.remote();
            assert_eq!((remote.seeder(), remote.is_remote()), (seeder, true));
            assert_eq!(remote.seen(), stamp.seen());
            assert!(!stamp.counts_like(remote) && remote.counts_like(remote.remote()));
        }
    }

    #[test]
    fn announces_take_over_the_origin_and_only_those_of_this_node_complete() {
        let stamp = |seeder| Stamp::new(Tick::at(Seconds(800)), seeder);
        let (taken, completes) = stamp(true).after(stamp(false).remote());
        assert!(completes && taken.completion_counted() && !taken.is_remote());
        let (given, completes) = stamp(true).remote().after(stamp(false));
        assert!(!completes && !given.completion_counted() && given.is_remote());
        let (kept, completes) = stamp(false).remote().after(taken);
        assert!(!completes && kept.completion_counted() && kept.is_remote());
    }

    #[test]
    fn restored_stamps_have_the_age_role_and_completion_that_were_saved() {
        for now in [0_u32, 100, 131_072] {
            for age in [0_u32, 16, 48_000, MAX_PEER_AGE] {
                let seen = Tick::at(Seconds(now.wrapping_sub(age)));
                for (seeder, counted) in [(false, false), (false, true), (true, false), (true, true)] {
                    let stamp = Stamp::new(seen, seeder).with_completion_counted(counted);
                    assert_eq!((stamp.seeder(), stamp.completion_counted()), (seeder, counted));
                    assert_eq!(stamp.age(Tick::at(Seconds(now))), age, "{age} s before {now}");
                }
            }
        }
    }

    #[test]
    fn a_completion_is_counted_once_and_remembered() {
        let stamp = |now, seeder| Stamp::new(Tick::at(Seconds(now)), seeder);
        for start in [0, 131_071] {
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
