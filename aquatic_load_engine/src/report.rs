//! What a load test says in the end: the same figures as a table for people and as JSON for scripts.

use std::fmt;

use serde::Serialize;

use crate::latency::LatencySummary;

/// The outcome of one kind of request, such as announces.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KindReport {
    /// Such as `announce`.
    pub kind: &'static str,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered with what was asked for.
    pub answered: u64,
    /// Requests answered with an error message, or with something else that was not asked for.
    pub errors: u64,
    /// Requests without an answer in time.
    pub lost: u64,
    /// How long answers took.
    pub latency: LatencySummary,
}

/// What a whole test found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Such as `udp`.
    pub protocol: &'static str,
    /// The tracker.
    pub server_address: String,
    /// Torrents of the population.
    pub torrents: u64,
    /// Peers of the population.
    pub peers: u64,
    /// The phases that took place, in order.
    pub phases: Vec<Report>,
}

impl Outcome {
    /// Whether the tracker passed in all phases.
    ///
    /// # Errors
    /// When it did not answer, or answered wrongly.
    pub fn verdict(&self) -> Result<(), Failure> {
        if self.phases.is_empty() {
            return Err(Failure::NothingAnswered);
        }
        self.phases.iter().try_for_each(Report::verdict)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, server_address, torrents, peers, .. } = self;
        writeln!(f, "{protocol} tracker at {server_address}; {torrents} torrents, {peers} peers")?;
        self.phases.iter().try_for_each(|phase| write!(f, "\n{phase}"))
    }
}

/// Something that was counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// What.
    pub name: &'static str,
    /// How often.
    pub count: u64,
}

/// The outcome of one phase of a test.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The phase.
    pub phase: &'static str,
    /// Measured time.
    pub seconds: f64,
    /// Answers, errors included, in that time.
    pub responses_per_second: f64,
    /// Requests in that time.
    pub requests_per_second: f64,
    /// Share of the time in which the load test itself had nothing to do. Near 0, the figures show the load test
    /// rather than the tracker.
    pub idle_share: f64,
    /// By kind of request.
    pub kinds: Vec<KindReport>,
    /// All kinds together.
    pub latency: LatencySummary,
    /// Answers in each second.
    pub per_second: Vec<u64>,
    /// Facts worth knowing that are no fault of the tracker.
    pub notes: Vec<Count>,
    /// Answers that no tracker may give. All counts are 0 if the verification succeeded.
    pub violations: Vec<Count>,
    /// Some of the error messages of the tracker.
    pub error_texts: Vec<String>,
}

/// Why a test failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The tracker answered nothing.
    NothingAnswered,
    /// The tracker gave answers that no tracker may give.
    Violations(u64),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingAnswered => f.write_str("no request was answered"),
            Self::Violations(count) => write!(f, "verification failed: {count} wrong answers"),
        }
    }
}

impl std::error::Error for Failure {}

impl Report {
    /// Whether the tracker passed.
    ///
    /// # Errors
    /// When nothing was answered or something was answered wrongly.
    pub fn verdict(&self) -> Result<(), Failure> {
        let violations = self.violations.iter().map(|violation| violation.count).sum();
        if violations > 0 {
            Err(Failure::Violations(violations))
        } else if self.kinds.iter().all(|kind| kind.answered == 0) {
            Err(Failure::NothingAnswered)
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {:.1} s measured", self.phase, self.seconds)?;
        writeln!(f, "  responses per second   {:>12.0}", self.responses_per_second)?;
        writeln!(f, "  requests per second    {:>12.0}", self.requests_per_second)?;
        writeln!(f, "  load test idle         {:>10.0} %", self.idle_share * 100.0)?;
        if let (Some(least), Some(most)) = (self.per_second.iter().min(), self.per_second.iter().max()) {
            writeln!(f, "  responses in a second  {least:>12} to {most}")?;
        }
        writeln!(f)?;
        writeln!(f, "  {:<10}{:>12}{:>12}{:>10}{:>10}", "", "sent", "answered", "errors", "lost")?;
        for kind in &self.kinds {
            let KindReport { kind: name, sent, answered, errors, lost, .. } = kind;
            writeln!(f, "  {name:<10}{sent:>12}{answered:>12}{errors:>10}{lost:>10}")?;
        }
        writeln!(f)?;
        let columns = ["mean", "p50", "p90", "p99", "p99.9", "max"];
        write!(f, "  {:<10}", "latency")?;
        columns.iter().try_for_each(|column| write!(f, "{column:>11}"))?;
        writeln!(f, "   (microseconds)")?;
        for kind in &self.kinds {
            write_latency(f, kind.kind, &kind.latency)?;
        }
        write_latency(f, "all", &self.latency)?;
        write_counts(f, "notes", &self.notes)?;
        write_counts(f, "violations", &self.violations)?;
        self.error_texts.iter().try_for_each(|text| writeln!(f, "  the tracker said: {text}"))
    }
}

fn write_latency(f: &mut fmt::Formatter<'_>, name: &str, latency: &LatencySummary) -> fmt::Result {
    if latency.count == 0 {
        return Ok(());
    }
    write!(f, "  {name:<10}")?;
    let LatencySummary { mean_us, p50_us, p90_us, p99_us, p999_us, max_us, .. } = latency;
    let figures = [mean_us, p50_us, p90_us, p99_us, p999_us, max_us];
    figures.iter().try_for_each(|figure| write!(f, "{figure:>11.0}"))?;
    writeln!(f)
}

fn write_counts(f: &mut fmt::Formatter<'_>, title: &str, counts: &[Count]) -> fmt::Result {
    let counted: Vec<&Count> = counts.iter().filter(|count| count.count > 0).collect();
    if counted.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n  {title}")?;
    counted.iter().try_for_each(|count| writeln!(f, "    {:<44}{:>12}", count.name, count.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(answered: u64, violations: u64) -> Report {
        Report {
            phase: "load",
            kinds: vec![KindReport { kind: "announce", sent: 9, answered, ..KindReport::default() }],
            violations: vec![Count { name: "reply is malformed", count: violations }],
            per_second: vec![3, 5, 4],
            ..Report::default()
        }
    }

    #[test]
    fn verdict_is_about_answers() {
        assert_eq!(report(1, 0).verdict(), Ok(()));
        assert_eq!(report(0, 0).verdict(), Err(Failure::NothingAnswered));
        assert_eq!(report(1, 2).verdict(), Err(Failure::Violations(2)));
    }

    #[test]
    fn table_shows_what_was_counted_and_nothing_else() {
        let text = report(7, 0).to_string();
        assert!(text.contains("3 to 5"), "{text}");
        assert!(!text.contains("malformed"), "{text}");
        assert!(report(7, 4).to_string().contains("malformed"), "{text}");
    }

    #[test]
    fn json_has_all_figures() {
        let json = serde_json::to_value(report(7, 1)).unwrap();
        assert_eq!(json["kinds"][0]["answered"], 7);
        assert_eq!(json["violations"][0]["count"], 1);
        assert_eq!(json["latency"]["p999_us"], 0.0);
    }
}
