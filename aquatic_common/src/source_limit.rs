//! Rate limits of sources, with what is to be told about them: one rule for all protocols.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::addr::Family;
use crate::load_table::{Allowance, LoadTable, Loads, SourceKey, lengths};
use crate::prefix::{Prefix, PrefixSet};

/// Binary logarithm of the number of lines of a core's table: 256 KiB.
const TABLE_LINES_LOG2: u32 = 12;

/// Time without anything above a limit after which an episode has ended.
const CALM: Duration = Duration::from_secs(10);

/// Requests above a budget of which one is let through.
const SLIP: u32 = 4;

/// What one core allows sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceRules {
    /// Rate and burst; `None` for no limit.
    pub allowance: Option<Allowance>,
    /// Whether what is above the limit is served all the same.
    pub is_dry_run: bool,
    /// Sources without a limit.
    pub exempt: PrefixSet,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateVerdict {
    /// It is within the limits.
    Within,
    /// It is above a limit and must not be served.
    Above,
    /// It is above a limit, which is only being tried out.
    AboveInDryRun,
}

/// A time in which sources were above their limit.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Episode {
    since: Duration,
    last: Duration,
    /// A network above its limit.
    prefix: Prefix,
    count: u64,
    is_told: bool,
}

/// What has to be told about rate limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RateEvent {
    /// Sources are above their limit.
    Began {
        /// One of their networks, as far as it may be shown.
        prefix: Prefix,
        /// Requests per second that the core serves this source or network.
        allowed: f64,
        /// Requests above the limit so far, and in which time.
        count: u64,
        /// Time in which they came.
        passed: Duration,
    },
    /// No source has been above its limit for some seconds.
    Ended {
        /// Requests that were above the limit.
        count: u64,
        /// Time in which they came.
        lasted: Duration,
    },
}

impl fmt::Display for RateEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Began { prefix, allowed, count, passed } => write!(
                f,
                "{prefix}, and maybe others, sends more than {allowed:.0}/s; {count} requests above it in {:.1} s",
                passed.as_secs_f64()
            ),
            Self::Ended { count, lasted } => write!(
                f,
                "no source is above it any more; {count} requests were, in {:.1} s",
                lasted.as_secs_f64()
            ),
        }
    }
}

/// The rate limits of one core for one kind of request.
#[derive(Clone, Debug)]
pub struct SourceLimit {
    rules: SourceRules,
    prices: Loads,
    table: LoadTable,
    episode: Option<Episode>,
}

impl SourceLimit {
    /// Limits by these rules. The key must not be known to clients.
    #[must_use]
    pub fn new(rules: SourceRules, key: [u8; 16]) -> Self {
        let table = LoadTable::new(TABLE_LINES_LOG2, key, 0.0);
        let mut limit = Self { rules: SourceRules::default(), prices: [0; 3], table, episode: None };
        limit.set_rules(rules);
        limit
    }

    /// Replaces the rules. What sources have asked for so far still counts.
    pub fn set_rules(&mut self, rules: SourceRules) {
        if let Some(allowance) = &rules.allowance {
            self.prices = allowance.prices();
            self.table.set_decay(allowance.decay_per_second());
        }
        self.rules = rules;
    }

    /// Whether there is a limit.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.rules.allowance.is_some()
    }

    /// The key of a source, whose address is in canonical form, for [`check_by_key`](Self::check_by_key). To
    /// be made for all requests of a batch first.
    #[inline]
    #[must_use]
    pub fn key(&self, source: IpAddr) -> SourceKey {
        self.table.key(source)
    }

    /// Charges a request to a source, whose address is in canonical form.
    #[inline]
    pub fn check(&mut self, source: IpAddr, now: Duration) -> RateVerdict {
        if !self.is_on() {
            return RateVerdict::Within;
        }
        self.check_by_key((source, self.table.key(source)), now)
    }

    /// As [`check`](Self::check), for a source whose key is known.
    #[inline]
    pub fn check_by_key(&mut self, (source, key): (IpAddr, SourceKey), now: Duration) -> RateVerdict {
        if !self.is_on() {
            return RateVerdict::Within;
        }
        match self.table.try_add_by_key(key, now.as_millis() as u64, self.prices) {
            Ok(()) => RateVerdict::Within,
            Err(level) => self.above(source, level, now),
        }
    }

    #[cold]
    fn above(&mut self, source: IpAddr, level: usize, now: Duration) -> RateVerdict {
        if self.rules.exempt.contains(source) {
            return RateVerdict::Within;
        }
        let length = lengths(source).get(level).copied().unwrap_or(0);
        let prefix = Prefix::of(source, length);
        let episode =
            self.episode.get_or_insert(Episode { since: now, last: now, prefix, count: 0, is_told: false });
        episode.last = now;
        episode.count += 1;
        if self.rules.is_dry_run { RateVerdict::AboveInDryRun } else { RateVerdict::Above }
    }

    /// Whether sources are above their limit, or were a moment ago.
    #[must_use]
    pub fn is_limiting(&self) -> bool {
        self.episode.is_some()
    }

    /// What has to be told now. To be asked about every second.
    pub fn event(&mut self, now: Duration) -> Option<RateEvent> {
        let episode = self.episode.as_mut()?;
        if now.saturating_sub(episode.last) >= CALM {
            let (count, lasted) = (episode.count, episode.last.saturating_sub(episode.since));
            self.episode = None;
            return Some(RateEvent::Ended { count, lasted });
        }
        if std::mem::replace(&mut episode.is_told, true) {
            return None;
        }
        let level = lengths_of(episode.prefix).iter().position(|&length| length == episode.prefix.length());
        let allowed = self.rules.allowance.as_ref().map_or(0.0, |allowance| {
            allowance.rate * f64::from(level.and_then(|at| allowance.multiples.get(at)).copied().unwrap_or(1))
        });
        let (prefix, count) = (episode.prefix.shown(), episode.count);
        Some(RateEvent::Began { prefix, allowed, count, passed: now.saturating_sub(episode.since) })
    }
}

fn lengths_of(prefix: Prefix) -> [u8; 3] {
    match prefix.family() {
        Family::V4 => crate::load_table::LENGTHS_V4,
        Family::V6 => crate::load_table::LENGTHS_V6,
    }
}

/// A rate for all sources together, for requests whose source may be forged. Above it every fourth is let
/// through ("slip"), so that nobody can have a certain source shut out.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Requests per second, and as many at once; `None` for no limit.
    rate: Option<f64>,
    left: f64,
    updated: Duration,
    skipped: u32,
}

impl Budget {
    /// A budget of so many requests per second.
    #[must_use]
    pub fn new(rate: Option<f64>) -> Self {
        Self { rate, left: rate.unwrap_or(0.0).max(1.0), updated: Duration::ZERO, skipped: 0 }
    }

    /// Replaces the rate.
    pub fn set_rate(&mut self, rate: Option<f64>) {
        self.rate = rate;
    }

    /// Whether a request may be served. Takes it from the budget.
    #[inline]
    pub fn take(&mut self, now: Duration) -> bool {
        let Some(rate) = self.rate else { return true };
        let passed = now.saturating_sub(self.updated);
        if !passed.is_zero() {
            self.updated = now;
            self.left = (self.left + passed.as_secs_f64() * rate).min(rate.max(1.0));
        }
        if self.left >= 1.0 {
            self.left -= 1.0;
            return true;
        }
        self.skipped = (self.skipped + 1) % SLIP;
        self.skipped == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(is_dry_run: bool) -> SourceRules {
        let allowance = Some(Allowance { rate: 10.0, burst: 20.0, multiples: [1, 16, 64] });
        SourceRules { allowance, is_dry_run, exempt: PrefixSet::parse(&["192.0.2.0/24"]).unwrap() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn verdicts(limit: &mut SourceLimit, source: &str, now: Duration) -> Vec<RateVerdict> {
        (0..40).map(|_| limit.check(ip(source), now)).collect()
    }

    #[test]
    fn what_is_above_the_limit_is_told_apart() {
        use RateVerdict::{Above, AboveInDryRun, Within};
        let mut limit = SourceLimit::new(rules(false), [1; 16]);
        let got = verdicts(&mut limit, "198.51.100.1", SECOND);
        assert_eq!((got[0], got[19], got[39]), (Within, Within, Above));
        assert!(verdicts(&mut limit, "198.51.100.2", SECOND)[..20].iter().all(|&got| got == Within));
        limit.set_rules(rules(true));
        assert_eq!(limit.check(ip("198.51.100.1"), SECOND), AboveInDryRun);
        assert!(verdicts(&mut limit, "192.0.2.1", SECOND).iter().all(|&got| got == Within), "exempt");
        limit.set_rules(SourceRules::default());
        assert!(verdicts(&mut limit, "198.51.100.1", SECOND).iter().all(|&got| got == Within), "no limit");
    }

    #[test]
    fn an_episode_is_told_at_its_beginning_and_end() {
        let mut limit = SourceLimit::new(rules(false), [1; 16]);
        assert_eq!(limit.event(SECOND), None);
        verdicts(&mut limit, "198.51.100.77", SECOND);
        assert!(limit.is_limiting());
        let Some(RateEvent::Began { prefix, allowed, count, .. }) = limit.event(SECOND * 2) else {
            panic!("it has begun")
        };
        assert_eq!((prefix.to_string().as_str(), allowed), ("198.51.100.0/24", 10.0));
        assert!((15..=20).contains(&count), "{count}");
        verdicts(&mut limit, "198.51.100.77", SECOND * 9);
        assert_eq!(limit.event(SECOND * 18), None);
        let Some(RateEvent::Ended { count, lasted }) = limit.event(SECOND * 19) else {
            panic!("it has ended")
        };
        assert_eq!(lasted, SECOND * 8);
        assert!(count > 20 && !limit.is_limiting() && limit.event(SECOND * 40).is_none());
    }

    #[test]
    fn a_budget_lets_every_fourth_slip() {
        let mut budget = Budget::new(Some(100.0));
        let served = |budget: &mut Budget, now| (0..500).filter(|_| budget.take(now)).count();
        assert_eq!(served(&mut budget, Duration::ZERO), 200);
        assert_eq!(served(&mut budget, SECOND / 2), 50 + 450 / 4);
        assert_eq!(served(&mut budget, SECOND * 100), 200, "no more than a second's worth is kept");
        budget.set_rate(None);
        assert_eq!(served(&mut budget, SECOND * 100), 500);
    }
}
