//! Counters of a phase. Load tests declare what they count with [`counted!`](crate::counted).

use std::iter::repeat;
use std::marker::PhantomData;

use crate::clock::{Nanos, SECOND};
use crate::connection::{ConnectionFailure, TlsHandshake};
use crate::latency::LatencyHistogram;
use crate::peer_check::PeerViolation;
use crate::report::{Count, KindReport, Report};

/// Maximum number of distinct error messages in a report.
const MAX_ERROR_TEXTS: usize = 5;
/// Maximum length of an error message in a report, in bytes.
const MAX_ERROR_TEXT_LENGTH: usize = 100;

/// Enum whose variants are counted. Declared by [`counted!`](crate::counted).
pub trait Counted: Copy + 'static {
    /// Names in reports, in the order of the variants.
    const NAMES: &'static [&'static str];

    /// Position in [`Counted::NAMES`].
    fn index(self) -> usize;
}

/// Declares an enum whose variants are counted, each with its name in reports.
///
/// ```
/// use aquatic_load_engine::tally::Counted;
/// aquatic_load_engine::counted! {
///     enum Note {
///         Opened = "connections opened",
///         Closed = "connections closed",
///     }
/// }
/// assert_eq!(Note::NAMES[Note::Closed.index()], "connections closed");
/// ```
#[macro_export]
macro_rules! counted {
    (
        $(#[$enum_attr:meta])*
        $vis:vis enum $name:ident {
            $($(#[$attr:meta])* $variant:ident = $text:literal,)*
        }
    ) => {
        $(#[$enum_attr])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$attr])* $variant,)*
        }

        impl $crate::tally::Counted for $name {
            const NAMES: &'static [&'static str] = &[$($text),*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// A counter for each variant of an enum.
#[derive(Clone, Debug)]
struct Counts<T> {
    counts: Vec<u64>,
    counted: PhantomData<T>,
}

impl<T: Counted> Counts<T> {
    fn new() -> Self {
        Self { counts: vec![0; T::NAMES.len()], counted: PhantomData }
    }

    fn add(&mut self, counted: T, count: u64) {
        self.counts[counted.index()] += count;
    }

    fn get(&self, counted: T) -> u64 {
        self.counts[counted.index()]
    }

    fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    fn report(&self) -> impl Iterator<Item = Count> {
        T::NAMES.iter().zip(&self.counts).map(|(&name, &count)| Count { name, count })
    }
}

#[derive(Clone, Debug, Default)]
struct KindTally {
    sent: u64,
    answered: u64,
    errors: u64,
    lost: u64,
    latencies: LatencyHistogram,
}

/// Counters of one phase: requests by kind, violations and notes.
#[derive(Clone, Debug)]
pub struct Tally<K, V, N> {
    /// Start of the measurement; requests with an earlier intended send time do not count.
    from: Nanos,
    /// End of the measurement; later responses do not count for the throughput.
    until: Nanos,
    kinds: Vec<KindTally>,
    kind: PhantomData<K>,
    responses: u64,
    new_responses: u64,
    idle: Nanos,
    per_second: Vec<u64>,
    violations: Counts<V>,
    peer_violations: Counts<PeerViolation>,
    notes: Counts<N>,
    failures: Counts<ConnectionFailure>,
    handshakes: Counts<TlsHandshake>,
    error_texts: Vec<String>,
}

impl<K: Counted, V: Counted, N: Counted> Tally<K, V, N> {
    /// Creates counters for a measurement from `from` to `until`.
    #[must_use]
    pub fn new(from: Nanos, until: Nanos) -> Self {
        Self {
            from,
            until,
            kinds: vec![KindTally::default(); K::NAMES.len()],
            kind: PhantomData,
            responses: 0,
            new_responses: 0,
            idle: 0,
            per_second: Vec::new(),
            violations: Counts::new(),
            peer_violations: Counts::new(),
            notes: Counts::new(),
            failures: Counts::new(),
            handshakes: Counts::new(),
            error_texts: Vec::new(),
        }
    }

    /// Ends the measurement earlier than planned.
    pub fn end_at(&mut self, now: Nanos) {
        self.until = self.until.min(now);
    }

    /// Counts a sent request with this intended send time.
    pub fn sent(&mut self, kind: K, intended: Nanos) {
        if intended >= self.from {
            self.kinds[kind.index()].sent += 1;
        }
    }

    /// Reverts [`Tally::sent`].
    pub fn not_sent(&mut self, kind: K, intended: Nanos) {
        if intended >= self.from {
            self.kinds[kind.index()].sent -= 1;
        }
    }

    /// Counts a request that will not get a response.
    pub fn lost(&mut self, kind: K, intended: Nanos) {
        if intended >= self.from {
            self.kinds[kind.index()].lost += 1;
        }
    }

    /// Counts all requests of a kind without a response as lost. For kinds whose responses arrive at another
    /// thread, after all threads are merged.
    pub fn count_rest_as_lost(&mut self, kind: K) {
        let kind = &mut self.kinds[kind.index()];
        kind.lost = kind.sent.saturating_sub(kind.answered + kind.errors);
    }

    /// Counts a response to a request with this intended send time, and whether the request was served.
    pub fn response(&mut self, kind: K, intended: Nanos, now: Nanos, served: bool) {
        self.unsolicited(now);
        if intended >= self.from {
            let tally = &mut self.kinds[kind.index()];
            *(if served { &mut tally.answered } else { &mut tally.errors }) += 1;
            tally.latencies.record(now.saturating_sub(intended));
        }
    }

    /// Number of served requests of a kind.
    #[must_use]
    pub fn served(&self, kind: K) -> u64 {
        self.kinds[kind.index()].answered
    }

    /// Counts a message that is not the response to a request. It counts for the throughput only.
    pub fn unsolicited(&mut self, now: Nanos) {
        self.new_responses += 1;
        if now >= self.from && now < self.until {
            self.responses += 1;
            let second = usize::try_from((now - self.from) / SECOND).unwrap_or(usize::MAX);
            if second >= self.per_second.len() {
                self.per_second.resize(second + 1, 0);
            }
            self.per_second[second] += 1;
        }
    }

    /// Counts a violation of the protocol.
    pub fn violation(&mut self, violation: V) {
        self.violations.add(violation, 1);
    }

    /// Counts a violation in the peers of a reply.
    pub fn peer_violation(&mut self, violation: PeerViolation) {
        self.peer_violations.add(violation, 1);
    }

    /// Counts a failed connection.
    pub fn connection_failed(&mut self, failure: ConnectionFailure) {
        self.failures.add(failure, 1);
    }

    /// Counts a completed TLS handshake.
    pub fn tls_handshake(&mut self, handshake: TlsHandshake) {
        self.handshakes.add(handshake, 1);
    }

    /// Counts an event that is no violation.
    pub fn note(&mut self, note: N) {
        self.add(note, 1);
    }

    /// Counts several events.
    pub fn add(&mut self, note: N, count: u64) {
        self.notes.add(note, count);
    }

    /// Number of events of a kind.
    #[must_use]
    pub fn noted(&self, note: N) -> u64 {
        self.notes.get(note)
    }

    /// Records an error message of the tracker.
    pub fn error_text(&mut self, text: &[u8]) {
        if self.error_texts.len() < MAX_ERROR_TEXTS {
            let text = String::from_utf8_lossy(text.get(..MAX_ERROR_TEXT_LENGTH).unwrap_or(text));
            if !self.error_texts.iter().any(|known| *known == text) {
                self.error_texts.push(text.into_owned());
            }
        }
    }

    /// Records a period without work.
    pub fn idle(&mut self, start: Nanos, end: Nanos) {
        let (start, end) = (start.max(self.from), end.min(self.until));
        self.idle += end.saturating_sub(start);
    }

    /// Returns the number of responses since the last call.
    pub fn take_new_responses(&mut self) -> u64 {
        std::mem::take(&mut self.new_responses)
    }

    /// Adds the counters of another thread in the same phase.
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
        self.violations.merge(&other.violations);
        self.peer_violations.merge(&other.peer_violations);
        self.notes.merge(&other.notes);
        self.failures.merge(&other.failures);
        self.handshakes.merge(&other.handshakes);
        other.error_texts.iter().for_each(|text| self.error_text(text.as_bytes()));
    }

    /// Returns the report of a phase with this number of threads.
    #[must_use]
    pub fn report(&self, phase: &'static str, threads: u32) -> Report {
        let time = self.until.saturating_sub(self.from).max(1);
        let seconds = time as f64 / SECOND as f64;
        let mut all = LatencyHistogram::new();
        self.kinds.iter().for_each(|kind| all.merge(&kind.latencies));
        let kinds: Vec<KindReport> = K::NAMES
            .iter()
            .zip(&self.kinds)
            .map(|(&kind, tally)| {
                let KindTally { sent, answered, errors, lost, latencies } = tally;
                let (sent, answered, errors, lost) = (*sent, *answered, *errors, *lost);
                KindReport { kind, sent, answered, errors, lost, latency: latencies.summary() }
            })
            .collect();
        // The last second of a phase that ended early is incomplete.
        let whole_seconds = usize::try_from(time / SECOND).unwrap_or(usize::MAX);
        Report {
            phase,
            seconds,
            responses_per_second: self.responses as f64 / seconds,
            requests_per_second: kinds.iter().map(|kind| kind.sent).sum::<u64>() as f64 / seconds,
            idle_share: self.idle as f64 / time as f64 / f64::from(threads),
            kinds: kinds.into_iter().filter(|kind| kind.sent > 0).collect(),
            latency: all.summary(),
            // Seconds at the end may have had no responses.
            per_second: self.per_second.iter().copied().chain(repeat(0)).take(whole_seconds).collect(),
            notes: self
                .notes
                .report()
                .chain(self.failures.report())
                .chain(self.handshakes.report())
                .collect(),
            violations: self.violations.report().chain(self.peer_violations.report()).collect(),
            error_texts: self.error_texts.clone(),
            ..Report::default()
        }
    }
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
        enum Violation {
            Malformed = "malformed",
        }
    }

    type TestTally = Tally<Kind, Violation, Violation>;

    #[test]
    fn only_the_measured_time_counts() {
        let mut tally = TestTally::new(10 * SECOND, 12 * SECOND);
        // In the warm-up; sent in it and answered later; measured; answered too late for the throughput.
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
    fn requests_without_a_response_are_lost() {
        let mut tally = TestTally::new(0, SECOND);
        (0..6).for_each(|_| tally.sent(Kind::Announce, 0));
        tally.not_sent(Kind::Announce, 0);
        tally.response(Kind::Announce, 0, 1, true);
        tally.response(Kind::Announce, 0, 1, false);
        tally.count_rest_as_lost(Kind::Announce);
        assert_eq!(tally.report("load", 1).kinds[0].lost, 3);
    }

    #[test]
    fn counters_of_threads_are_added() {
        let mut sum = TestTally::new(0, SECOND);
        let mut other = TestTally::new(0, 2 * SECOND);
        let scraped = |tally: &mut TestTally, text: &[u8]| {
            tally.sent(Kind::Scrape, 0);
            tally.response(Kind::Scrape, 0, 1, false);
            tally.error_text(text);
            tally.violation(Violation::Malformed);
            tally.peer_violation(PeerViolation::Repeated);
            tally.connection_failed(ConnectionFailure::Reset);
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
        let count = |counts: &[Count], name| counts.iter().find(|count| count.name == name).unwrap().count;
        assert_eq!(count(&report.violations, "malformed"), 3);
        assert_eq!(count(&report.violations, "peer occurs twice in a reply"), 3);
        assert_eq!(count(&report.notes, "connections reset"), 3);
        assert!((report.idle_share - 0.75).abs() < 1e-9);
    }
}
