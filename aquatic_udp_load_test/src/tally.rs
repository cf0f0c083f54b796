//! Counting, and what becomes of the counts.

use aquatic_load_engine::clock::{Nanos, SECOND};
use aquatic_load_engine::latency::Latencies;
use aquatic_load_engine::report::{Count, KindReport, Report};

use crate::in_flight::Kind;

/// Distinct error texts kept for the report.
const MAX_ERROR_TEXTS: usize = 5;
/// Longest error text kept, in bytes.
const MAX_ERROR_TEXT_LENGTH: usize = 100;

/// Answers that no tracker may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    Malformed,
    WrongKind,
    ForeignPeer,
    RequesterReturned,
    RepeatedPeer,
    TooManyPeers,
    WrongNumberOfCounts,
}

impl Violation {
    const ALL: [Self; 7] = [
        Self::Malformed,
        Self::WrongKind,
        Self::ForeignPeer,
        Self::RequesterReturned,
        Self::RepeatedPeer,
        Self::TooManyPeers,
        Self::WrongNumberOfCounts,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Malformed => "reply is malformed",
            Self::WrongKind => "reply is of another kind than the request",
            Self::ForeignPeer => "peer is not in the torrent",
            Self::RequesterReturned => "peer is the one who asked",
            Self::RepeatedPeer => "peer is in the reply twice",
            Self::TooManyPeers => "more peers than asked for",
            Self::WrongNumberOfCounts => "scrape reply does not cover the request",
        }
    }
}

/// Facts worth knowing that are no fault of the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    PeersReturned,
    RepliesChecked,
    Unexpected,
    NotSent,
    Refused,
    NotDue,
    NotConnected,
    PeersAnnounced,
    PeersLost,
}

impl Note {
    const ALL: [Self; 9] = [
        Self::PeersReturned,
        Self::RepliesChecked,
        Self::Unexpected,
        Self::NotSent,
        Self::Refused,
        Self::NotDue,
        Self::NotConnected,
        Self::PeersAnnounced,
        Self::PeersLost,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PeersReturned => "peers in announce replies",
            Self::RepliesChecked => "announce replies with peers checked",
            Self::Unexpected => "late or repeated replies",
            Self::NotSent => "packets the kernel did not take",
            Self::Refused => "times nobody listened at the address",
            Self::NotDue => "requests overdue at the end, never sent",
            Self::NotConnected => "sockets that never got a connection id",
            Self::PeersAnnounced => "peers announced",
            Self::PeersLost => "peers given up",
        }
    }
}

#[derive(Clone, Debug, Default)]
struct KindTally {
    sent: u64,
    answered: u64,
    errors: u64,
    lost: u64,
    latencies: Latencies,
}

/// The counts of one phase.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Measuring begins; what was meant to be sent earlier does not count.
    from: Nanos,
    /// Measuring ends: responses after this are answers, but not in time for the throughput.
    until: Nanos,
    kinds: [KindTally; 3],
    responses: u64,
    fresh_responses: u64,
    idle: Nanos,
    per_second: Vec<u64>,
    violations: [u64; Violation::ALL.len()],
    notes: [u64; Note::ALL.len()],
    error_texts: Vec<String>,
}

impl Tally {
    pub(crate) fn new(from: Nanos, until: Nanos) -> Self {
        Self {
            from,
            until,
            kinds: Default::default(),
            responses: 0,
            fresh_responses: 0,
            idle: 0,
            per_second: Vec::new(),
            violations: Default::default(),
            notes: Default::default(),
            error_texts: Vec::new(),
        }
    }

    /// Ends the measurement earlier than planned: everything that was to be done is done.
    pub(crate) fn end_at(&mut self, now: Nanos) {
        self.until = self.until.min(now);
    }

    pub(crate) fn sent(&mut self, kind: Kind, intended: Nanos) {
        if intended >= self.from {
            self.kinds[kind.index()].sent += 1;
        }
    }

    pub(crate) fn not_sent(&mut self, kind: Kind, intended: Nanos) {
        self.note(Note::NotSent);
        if intended >= self.from {
            self.kinds[kind.index()].sent -= 1;
        }
    }

    pub(crate) fn lost(&mut self, kind: Kind, intended: Nanos) {
        if intended >= self.from {
            self.kinds[kind.index()].lost += 1;
        }
    }

    /// A response to a request that was meant to be sent at `intended`, and whether it brought what was asked for.
    pub(crate) fn response(&mut self, kind: Kind, intended: Nanos, now: Nanos, served: bool) {
        self.fresh_responses += 1;
        if now >= self.from && now < self.until {
            self.responses += 1;
            let second = usize::try_from((now - self.from) / SECOND).unwrap_or(usize::MAX);
            if second >= self.per_second.len() {
                self.per_second.resize(second + 1, 0);
            }
            self.per_second[second] += 1;
        }
        if intended >= self.from {
            let tally = &mut self.kinds[kind.index()];
            *(if served { &mut tally.answered } else { &mut tally.errors }) += 1;
            tally.latencies.record(now.saturating_sub(intended));
        }
    }

    pub(crate) fn violation(&mut self, violation: Violation) {
        self.violations[violation as usize] += 1;
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.add(note, 1);
    }

    pub(crate) fn add(&mut self, note: Note, count: u64) {
        self.notes[note as usize] += count;
    }

    pub(crate) fn error_text(&mut self, text: &[u8]) {
        if self.error_texts.len() < MAX_ERROR_TEXTS {
            let text = String::from_utf8_lossy(text.get(..MAX_ERROR_TEXT_LENGTH).unwrap_or(text));
            if !self.error_texts.iter().any(|known| *known == text) {
                self.error_texts.push(text.into_owned());
            }
        }
    }

    /// A turn in which nothing was to be sent or received.
    pub(crate) fn idle(&mut self, start: Nanos, end: Nanos) {
        if start >= self.from && end <= self.until {
            self.idle += end - start;
        }
    }

    /// Responses, counted or not, since this was last asked.
    pub(crate) fn take_fresh_responses(&mut self) -> u64 {
        std::mem::take(&mut self.fresh_responses)
    }

    /// Adds the counts of another thread in the same phase.
    pub(crate) fn merge(&mut self, other: &Self) {
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
    pub(crate) fn report(&self, phase: &'static str, threads: u32) -> Report {
        let time = self.until.saturating_sub(self.from).max(1);
        let seconds = time as f64 / SECOND as f64;
        let mut all = Latencies::new();
        self.kinds.iter().for_each(|kind| all.merge(&kind.latencies));
        let kinds = Kind::ALL.map(|kind| {
            let KindTally { sent, answered, errors, lost, latencies } = &self.kinds[kind.index()];
            let (sent, answered, errors, lost) = (*sent, *answered, *errors, *lost);
            KindReport { kind: kind.name(), sent, answered, errors, lost, latency: latencies.summary() }
        });
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
            notes: Note::ALL.map(|note| Count { name: note.name(), count: self.notes[note as usize] }).into(),
            violations: Violation::ALL
                .map(|kind| Count { name: kind.name(), count: self.violations[kind as usize] })
                .into(),
            error_texts: self.error_texts.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(tally: &Tally) -> (f64, Vec<KindReport>, Vec<u64>) {
        let report = tally.report("load", 1);
        (report.responses_per_second, report.kinds, report.per_second)
    }

    #[test]
    fn only_the_measured_time_counts() {
        let mut tally = Tally::new(10 * SECOND, 12 * SECOND);
        // Warm-up; sent in it but answered later; measured; answered too late for the throughput.
        for (intended, answered) in [(8, 9), (9, 10), (10, 11), (11, 12)] {
            tally.sent(Kind::Announce, intended * SECOND);
            tally.response(Kind::Announce, intended * SECOND, answered * SECOND, true);
        }
        let (rate, kinds, per_second) = report(&tally);
        assert_eq!((rate, per_second), (1.0, vec![1, 1]));
        assert_eq!((kinds[0].sent, kinds[0].answered, kinds[0].latency.count), (2, 2, 2));
    }

    #[test]
    fn threads_add_up() {
        let mut sum = Tally::new(0, SECOND);
        let mut other = Tally::new(0, 2 * SECOND);
        let scraped = |tally: &mut Tally, text: &[u8]| {
            tally.sent(Kind::Scrape, 0);
            tally.response(Kind::Scrape, 0, 1, false);
            tally.error_text(text);
            tally.violation(Violation::Malformed);
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
