//! Counting, and what becomes of the counts. What is counted, a load test says by enums of its own.

use std::marker::PhantomData;

use crate::clock::{Nanos, SECOND};
use crate::latency::Latencies;
use crate::report::{Count, KindReport, Report};

/// Distinct error texts kept for the report.
const MAX_ERROR_TEXTS: usize = 5;
/// Longest error text kept, in bytes.
const MAX_ERROR_TEXT_LENGTH: usize = 100;

/// A closed set of things that are counted.
pub trait Counted: Copy + 'static {
    /// How many there are.
    const COUNT: usize;

    /// What the report calls them, in its order.
    fn names() -> Vec<&'static str>;

    /// Its place in [`Counted::names`].
    fn index(self) -> usize;
}

/// Declares an enum of things that are counted, each with its name in the report. A variant with another such enum
/// instead of a name stands for all of that one, and comes `From` it; names in braces replace names of its own there.
///
/// ```
/// use aquatic_load_engine::tally::Counted;
/// aquatic_load_engine::counted! {
///     enum Failure {
///         Refused = "refused",
///         TooLate = "too late",
///     }
/// }
/// aquatic_load_engine::counted! {
///     enum Note {
///         Opened = "opened",
///         Failed(Failure { TooLate = "took too long" }),
///         Closed = "closed",
///     }
/// }
/// assert_eq!(Note::names(), ["opened", "refused", "took too long", "closed"]);
/// let all = [Note::Opened, Failure::Refused.into(), Failure::TooLate.into(), Note::Closed];
/// assert_eq!(all.map(Note::index), [0, 1, 2, 3]);
/// ```
#[macro_export]
macro_rules! counted {
    (
        $(#[$enum_attr:meta])*
        $vis:vis enum $name:ident {
            $(
                $(#[$attr:meta])*
                $variant:ident $(($group:ident $({ $($member:ident = $member_text:literal),* })?))? $(= $text:literal)?,
            )*
        }
    ) => {
        $(#[$enum_attr])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[$attr])* $variant $(($group))?, )*
        }

        const _: () = {
            use $crate::tally::Counted;

            enum Part {
                $($variant),*
            }

            const SIZES: &[usize] = &[$(1 $(* <$group as Counted>::COUNT)?),*];

            impl Counted for $name {
                const COUNT: usize = $crate::tally::places_before(SIZES, SIZES.len());

                fn names() -> Vec<&'static str> {
                    let mut names = Vec::with_capacity(Self::COUNT);
                    $(
                        $(names.push($text);)?
                        $(
                            let start = names.len();
                            names.extend(<$group as Counted>::names());
                            $($(names[start + $group::$member.index()] = $member_text;)*)?
                        )?
                    )*
                    names
                }

                fn index(self) -> usize {
                    match self {
                        $($crate::__counted_pattern!($variant $($group, member)?) => {
                            const START: usize = $crate::tally::places_before(SIZES, Part::$variant as usize);
                            START $(+ <$group as Counted>::index(member))?
                        })*
                    }
                }
            }

            $($(
                impl From<$group> for $name {
                    fn from(member: $group) -> Self {
                        Self::$variant(member)
                    }
                }
            )?)*
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __counted_pattern {
    ($variant:ident) => {
        Self::$variant
    };
    ($variant:ident $group:ident, $member:ident) => {
        Self::$variant($member)
    };
}

/// How many places the first so many of these parts have.
#[doc(hidden)]
#[must_use]
pub const fn places_before(sizes: &[usize], parts: usize) -> usize {
    let (mut places, mut part) = (0, 0);
    while part < parts {
        places += sizes[part];
        part += 1;
    }
    places
}

#[derive(Clone, Debug, Default)]
struct KindTally {
    sent: u64,
    answered: u64,
    errors: u64,
    lost: u64,
    latencies: Latencies,
}

/// The counts of one phase: requests by kind, violations and notes.
#[derive(Clone, Debug)]
pub struct Tally<K, V, N> {
    /// Measuring begins; what was meant to be sent earlier does not count.
    from: Nanos,
    /// Measuring ends: responses after this are answers, but not in time for the throughput.
    until: Nanos,
    kinds: Vec<KindTally>,
    responses: u64,
    fresh_responses: u64,
    idle: Nanos,
    per_second: Vec<u64>,
    violations: Vec<u64>,
    notes: Vec<u64>,
    error_texts: Vec<String>,
    counted: PhantomData<(K, V, N)>,
}

impl<K: Counted, V: Counted, N: Counted> Tally<K, V, N> {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(from: Nanos, until: Nanos) -> Self {
        Self {
            from,
            until,
            kinds: vec![KindTally::default(); K::COUNT],
            responses: 0,
            fresh_responses: 0,
            idle: 0,
            per_second: Vec::new(),
            violations: vec![0; V::COUNT],
            notes: vec![0; N::COUNT],
            error_texts: Vec::new(),
            counted: PhantomData,
        }
    }

    /// Ends the measurement earlier than planned: everything that was to be done is done.
    pub fn end_at(&mut self, now: Nanos) {
        self.until = self.until.min(now);
    }

    /// A request that was meant to be sent at `intended`.
    pub fn sent(&mut self, kind: K, intended: Nanos) {
        if intended >= self.from {
            self.kinds[kind.index()].sent += 1;
        }
    }

    /// Takes [`Tally::sent`] back.
    pub fn not_sent(&mut self, kind: K, intended: Nanos) {
        if intended >= self.from {
            self.kinds[kind.index()].sent -= 1;
        }
    }

    /// A request that will not be answered any more.
    pub fn lost(&mut self, kind: K, intended: Nanos) {
        if intended >= self.from {
            self.kinds[kind.index()].lost += 1;
        }
    }

    /// Counts as lost whatever of a kind was sent and has come to nothing. For kinds whose end shows elsewhere than where
    /// they were sent, once everything has been merged.
    pub fn lose_the_rest(&mut self, kind: K) {
        let kind = &mut self.kinds[kind.index()];
        kind.lost = kind.sent.saturating_sub(kind.answered + kind.errors);
    }

    /// A response to a request that was meant to be sent at `intended`, and whether it brought what was asked for.
    pub fn response(&mut self, kind: K, intended: Nanos, now: Nanos, served: bool) {
        self.unasked(now);
        if intended >= self.from {
            let tally = &mut self.kinds[kind.index()];
            *(if served { &mut tally.answered } else { &mut tally.errors }) += 1;
            tally.latencies.record(now.saturating_sub(intended));
        }
    }

    /// A message of the tracker that nothing was waiting for. It counts for the throughput only.
    pub fn unasked(&mut self, now: Nanos) {
        self.fresh_responses += 1;
        if now >= self.from && now < self.until {
            self.responses += 1;
            let second = usize::try_from((now - self.from) / SECOND).unwrap_or(usize::MAX);
            if second >= self.per_second.len() {
                self.per_second.resize(second + 1, 0);
            }
            self.per_second[second] += 1;
        }
    }

    /// An answer that no tracker may give.
    pub fn violation(&mut self, violation: V) {
        self.violations[violation.index()] += 1;
    }

    /// A fact worth knowing.
    pub fn note(&mut self, note: N) {
        self.add(note, 1);
    }

    /// Several of them.
    pub fn add(&mut self, note: N, count: u64) {
        self.notes[note.index()] += count;
    }

    /// What the tracker said instead of serving a request.
    pub fn error_text(&mut self, text: &[u8]) {
        if self.error_texts.len() < MAX_ERROR_TEXTS {
            let text = String::from_utf8_lossy(text.get(..MAX_ERROR_TEXT_LENGTH).unwrap_or(text));
            if !self.error_texts.iter().any(|known| *known == text) {
                self.error_texts.push(text.into_owned());
            }
        }
    }

    /// A turn in which nothing was to be sent or received.
    pub fn idle(&mut self, start: Nanos, end: Nanos) {
        let (start, end) = (start.max(self.from), end.min(self.until));
        self.idle += end.saturating_sub(start);
    }

    /// Responses, counted or not, since this was last asked.
    pub fn take_fresh_responses(&mut self) -> u64 {
        std::mem::take(&mut self.fresh_responses)
    }

    /// Adds the counts of another thread in the same phase.
    pub fn merge(&mut self, other: &Self) {
        self.until = self.until.max(other.until);
        for (sum, kind) in self.kinds.iter_mut().zip(&other.kinds) {
            sum.sent += kind.sent;
            sum.answered += kind.answered;
            sum.errors += kind.errors;
            sum.lost += kind.lost;
            sum.latencies.merge(&kind.latencies);
        }
        self.responses += other.responses;
        self.idle += other.idle;
        self.per_second.resize(self.per_second.len().max(other.per_second.len()), 0);
        self.per_second.iter_mut().zip(&other.per_second).for_each(|(sum, count)| *sum += count);
        self.violations.iter_mut().zip(&other.violations).for_each(|(sum, count)| *sum += count);
        self.notes.iter_mut().zip(&other.notes).for_each(|(sum, count)| *sum += count);
        other.error_texts.iter().for_each(|text| self.error_text(text.as_bytes()));
    }

    /// The report on a phase that this many threads took part in.
    #[must_use]
    pub fn report(&self, phase: &'static str, threads: u32) -> Report {
        let time = self.until.saturating_sub(self.from).max(1);
        let seconds = time as f64 / SECOND as f64;
        let mut all = Latencies::new();
        self.kinds.iter().for_each(|kind| all.merge(&kind.latencies));
        let kinds: Vec<KindReport> = K::names()
            .into_iter()
            .zip(&self.kinds)
            .map(|(kind, tally)| {
                let KindTally { sent, answered, errors, lost, latencies } = tally;
                let (sent, answered, errors, lost) = (*sent, *answered, *errors, *lost);
                KindReport { kind, sent, answered, errors, lost, latency: latencies.summary() }
            })
            .collect();
        // The last second of a phase that ended when it was done is not a whole one.
        let whole_seconds = usize::try_from(time / SECOND).unwrap_or(usize::MAX);
        Report {
            phase,
            seconds,
            responses_per_second: self.responses as f64 / seconds,
            requests_per_second: kinds.iter().map(|kind| kind.sent).sum::<u64>() as f64 / seconds,
            idle_share: self.idle as f64 / time as f64 / f64::from(threads),
            kinds: kinds.into_iter().filter(|kind| kind.sent > 0).collect(),
            latency: all.summary(),
            per_second: self.per_second.iter().copied().take(whole_seconds).collect(),
            notes: counts::<N>(&self.notes),
            violations: counts::<V>(&self.violations),
            error_texts: self.error_texts.clone(),
        }
    }
}

fn counts<T: Counted>(counts: &[u64]) -> Vec<Count> {
    T::names().into_iter().zip(counts).map(|(name, &count)| Count { name, count }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    counted! {
        enum Kind {
            Announce = "announce",
            Scrape = "scrape",
        }
    }

    counted! {
        enum Wrong {
            Malformed = "malformed",
        }
    }

    type TestTally = Tally<Kind, Wrong, Wrong>;

    #[test]
    fn only_the_measured_time_counts() {
        let mut tally = TestTally::new(10 * SECOND, 12 * SECOND);
        // Warm-up; sent in it but answered later; measured; answered too late for the throughput.
        for (intended, answered) in [(8, 9), (9, 10), (10, 11), (11, 12)] {
            tally.sent(Kind::Announce, intended * SECOND);
            tally.response(Kind::Announce, intended * SECOND, answered * SECOND, true);
        }
        tally.idle(9 * SECOND, 11 * SECOND);
        let report = tally.report("load", 1);
        assert_eq!((report.responses_per_second, report.per_second), (1.0, vec![1, 1]));
        let announces = &report.kinds[0];
        assert_eq!((announces.sent, announces.answered, announces.latency.count), (2, 2, 2));
        assert!((report.idle_share - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_came_to_nothing_is_lost() {
        let mut tally = TestTally::new(0, SECOND);
        (0..6).for_each(|_| tally.sent(Kind::Announce, 0));
        tally.not_sent(Kind::Announce, 0);
        tally.response(Kind::Announce, 0, 1, true);
        tally.response(Kind::Announce, 0, 1, false);
        tally.lose_the_rest(Kind::Announce);
        assert_eq!(tally.report("load", 1).kinds[0].lost, 3);
    }

    #[test]
    fn threads_add_up() {
        let mut sum = TestTally::new(0, SECOND);
        let mut other = TestTally::new(0, 2 * SECOND);
        let scraped = |tally: &mut TestTally, text: &[u8]| {
            tally.sent(Kind::Scrape, 0);
            tally.response(Kind::Scrape, 0, 1, false);
            tally.error_text(text);
            tally.violation(Wrong::Malformed);
            tally.idle(0, SECOND);
        };
        scraped(&mut sum, b"no");
        scraped(&mut other, b"no");
        scraped(&mut other, b"never");
        sum.merge(&other);
        let report = sum.report("load", 2);
        assert_eq!((report.seconds, report.responses_per_second), (2.0, 1.5));
        assert_eq!((report.kinds[0].kind, report.kinds[0].errors), ("scrape", 3));
        assert_eq!(report.error_texts, ["no", "never"]);
        assert_eq!(report.violations[0].count, 3);
        assert!((report.idle_share - 0.75).abs() < 1e-9);
    }
}
