//! Rate limits of sources, with what is to be told about them: one rule for all protocols.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::addr::Family;
use crate::episodes::{EpisodeEvent, Episodes};
use crate::load_table::{Allowance, LoadTable, Loads, SourceKey, lengths};
use crate::prefix::{Prefix, PrefixSet};

/// Binary logarithm of the number of lines of a core's table: 256 KiB.
const TABLE_LINES_LOG2: u32 = 12;

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

/// What has to be told about rate limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RateEvent {
    /// Sources are above their limit.
    Began {
        /// One of their networks, as far as it may be shown; `None` if the limit is one of all sources
        /// together.
        prefix: Option<Prefix>,
        /// Requests per second that the core serves this source or network, or all of them.
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

impl RateEvent {
    /// What an event of episodes says, given who is above the limit, as far as it may be shown, and what is
    /// allowed.
    fn of<T>(event: EpisodeEvent<T>, limit: impl FnOnce(T) -> (Option<Prefix>, f64)) -> Self {
        match event {
            EpisodeEvent::Began { first, count, passed } => {
                let (prefix, allowed) = limit(first);
                Self::Began { prefix, allowed, count, passed }
            }
            EpisodeEvent::Ended { count, lasted } => Self::Ended { count, lasted },
        }
    }
}

impl fmt::Display for RateEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Began { prefix, allowed, count, passed } => {
                match prefix {
                    Some(prefix) => write!(f, "{prefix}, and maybe others, sends")?,
                    None => f.write_str("all sources together send")?,
                }
                let passed = passed.as_secs_f64();
                write!(f, " more than {allowed:.0}/s; {count} requests above it in {passed:.1} s")
            }
            Self::Ended { count, lasted } => write!(
                f,
                "not exceeded any more; {count} requests were above it, in {:.1} s",
                lasted.as_secs_f64()
            ),
        }
    }
}

/// The rate limits of one core for one kind of request.
#[derive(Clone, Debug)]
pub struct SourceLimit {
    rules: SourceRules,
    /// There are exempt sources whose networks have other sources, too: what the former ask for is not to
    /// count there.
    has_exempt_neighbours: bool,
    prices: Loads,
    table: LoadTable,
    episodes: Episodes<Prefix>,
}

impl SourceLimit {
    /// Limits by these rules. The key must not be known to clients.
    #[must_use]
    pub fn new(rules: SourceRules, key: [u8; 16]) -> Self {
        let table = LoadTable::new(TABLE_LINES_LOG2, key, 0.0);
        let mut limit = Self {
            rules: SourceRules::default(),
            has_exempt_neighbours: false,
            prices: [0; 3],
            table,
            episodes: Episodes::default(),
        };
        limit.set_rules(rules);
        limit
    }

    /// Replaces the rules. What sources have asked for so far still counts.
    pub fn set_rules(&mut self, rules: SourceRules) {
        if let Some(allowance) = &rules.allowance {
            self.prices = allowance.prices();
            self.table.set_decay(allowance.decay_per_second());
        }
        self.has_exempt_neighbours = rules.exempt.prefixes().any(has_neighbours);
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
        if self.has_exempt_neighbours && self.rules.exempt.contains(source) {
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
        self.episodes.count(Prefix::of(source, length), now);
        if self.rules.is_dry_run { RateVerdict::AboveInDryRun } else { RateVerdict::Above }
    }

    /// Whether sources are above their limit, or were a moment ago.
    #[must_use]
    pub fn is_limiting(&self) -> bool {
        self.episodes.is_under_way()
    }

    /// What has to be told now. To be asked about every second.
    pub fn event(&mut self, now: Duration) -> Option<RateEvent> {
        let event = self.episodes.event(now)?;
        Some(RateEvent::of(event, |prefix| (Some(prefix.shown()), self.allowed(prefix))))
    }

    /// Requests per second that the core serves a source or network.
    fn allowed(&self, prefix: Prefix) -> f64 {
        let level = lengths_of(prefix).iter().position(|&length| length == prefix.length());
        self.rules.allowance.as_ref().map_or(0.0, |allowance| {
            let multiple = level.and_then(|at| allowance.multiples.get(at)).copied().unwrap_or(1);
            allowance.rate * f64::from(multiple)
        })
    }
}

/// Whether a network that is counted as one has sources both inside a prefix and outside. That of `::1` has
/// no others.
fn has_neighbours(prefix: Prefix) -> bool {
    let [.., widest] = lengths_of(prefix);
    prefix.length() > widest && prefix != Prefix::of(Ipv6Addr::LOCALHOST.into(), 128)
}

fn lengths_of(prefix: Prefix) -> [u8; 3] {
    match prefix.family() {
        Family::V4 => crate::load_table::LENGTHS_V4,
        Family::V6 => crate::load_table::LENGTHS_V6,
    }
}

/// What one core allows all sources together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BudgetRules {
    /// Requests per second, and as many at once; `None` for no limit.
    pub rate: Option<f64>,
    /// Whether what is above the limit is served all the same.
    pub is_dry_run: bool,
}

/// A rate for all sources together, for requests whose source may be forged. Above it every fourth is let
/// through ("slip"), so that nobody can have a certain source shut out.
#[derive(Clone, Debug)]
pub struct Budget {
    rules: BudgetRules,
    left: f64,
    updated: Duration,
    skipped: u32,
    episodes: Episodes<()>,
}

impl Budget {
    /// A budget with these rules.
    #[must_use]
    pub fn new(rules: BudgetRules) -> Self {
        let left = rules.rate.unwrap_or(0.0).max(1.0);
        Self { rules, left, updated: Duration::ZERO, skipped: 0, episodes: Episodes::default() }
    }

    /// Replaces the rules.
    pub fn set_rules(&mut self, rules: BudgetRules) {
        self.rules = rules;
    }

    /// Takes a request from the budget. One that is let through above it is within it.
    #[inline]
    pub fn take(&mut self, now: Duration) -> RateVerdict {
        let Some(rate) = self.rules.rate else { return RateVerdict::Within };
        let passed = now.saturating_sub(self.updated);
        if !passed.is_zero() {
            self.updated = now;
            self.left = (self.left + passed.as_secs_f64() * rate).min(rate.max(1.0));
        }
        if self.left >= 1.0 {
            self.left -= 1.0;
            return RateVerdict::Within;
        }
        self.above(now)
    }

    fn above(&mut self, now: Duration) -> RateVerdict {
        self.episodes.count((), now);
        if self.rules.is_dry_run {
            return RateVerdict::AboveInDryRun;
        }
        self.skipped = (self.skipped + 1) % SLIP;
        if self.skipped == 0 { RateVerdict::Within } else { RateVerdict::Above }
    }

    /// Whether there was more than the budget a moment ago.
    #[must_use]
    pub fn is_limiting(&self) -> bool {
        self.episodes.is_under_way()
    }

    /// What has to be told now. To be asked about every second.
    pub fn event(&mut self, now: Duration) -> Option<RateEvent> {
        let event = self.episodes.event(now)?;
        Some(RateEvent::of(event, |()| (None, self.rules.rate.unwrap_or(0.0))))
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
        assert_eq!((prefix.unwrap().to_string().as_str(), allowed), ("198.51.100.0/24", 10.0));
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
    fn exempt_sources_leave_the_limits_of_their_networks_alone() {
        for (exempt, neighbour) in [
            ("198.51.100.64/26", "198.51.100.1"),
            ("2001:db8::7", "2001:db8:0:2::1"),
            ("192.0.2.0/25", "192.0.2.200"),
        ] {
            let exempt = PrefixSet::parse(&[exempt]).unwrap();
            let source = exempt.prefixes().next().unwrap().first();
            let mut limit = SourceLimit::new(SourceRules { exempt, ..rules(false) }, [1; 16]);
            for _ in 0..5000 {
                assert_eq!(limit.check(source, SECOND), RateVerdict::Within);
            }
            assert_eq!(limit.check(ip(neighbour), SECOND), RateVerdict::Within, "{neighbour}");
        }
    }

    fn budget(is_dry_run: bool) -> Budget {
        Budget::new(BudgetRules { rate: Some(100.0), is_dry_run })
    }

    fn count(budget: &mut Budget, now: Duration, verdict: RateVerdict) -> usize {
        (0..500).filter(|_| budget.take(now) == verdict).count()
    }

    #[test]
    fn a_budget_lets_every_fourth_slip() {
        let mut budget = budget(false);
        let mut served = |now| count(&mut budget, now, RateVerdict::Within);
        assert_eq!(served(Duration::ZERO), 200);
        assert_eq!(served(SECOND / 2), 50 + 450 / 4);
        assert_eq!(served(SECOND * 100), 200, "no more than a second's worth is kept");
        budget.set_rules(BudgetRules::default());
        assert_eq!(count(&mut budget, SECOND * 100, RateVerdict::Within), 500);
    }

    #[test]
    fn a_budget_that_is_tried_out_serves_everything() {
        let mut budget = budget(true);
        assert_eq!(count(&mut budget, Duration::ZERO, RateVerdict::AboveInDryRun), 400);
        assert_eq!(count(&mut budget, SECOND, RateVerdict::Above), 0);
    }

    #[test]
    fn what_is_above_a_budget_is_told_at_its_beginning_and_end() {
        let mut budget = budget(false);
        assert_eq!((budget.is_limiting(), budget.event(SECOND)), (false, None));
        count(&mut budget, SECOND, RateVerdict::Within);
        assert!(budget.is_limiting());
        let began = budget.event(SECOND * 2).unwrap();
        assert_eq!(
            began.to_string(),
            "all sources together send more than 100/s; 400 requests above it in 1.0 s"
        );
        assert_eq!(budget.event(SECOND * 3), None);
        let ended = budget.event(SECOND * 11).unwrap();
        assert_eq!(ended.to_string(), "not exceeded any more; 400 requests were above it, in 0.0 s");
        assert!(!budget.is_limiting());
    }
}
