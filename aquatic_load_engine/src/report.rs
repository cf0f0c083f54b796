//! Report of a load test, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use crate::latency::LatencySummary;

/// Shortest time without a response at the end of a phase that fails it, in seconds.
const MIN_SILENCE: u64 = 2;
/// Number of requests, by their average rate, that have to be sent in that time.
const MIN_SILENT_REQUESTS: f64 = 20.0;

/// Results of one kind of request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KindReport {
    /// Name of the kind, such as `announce`.
    pub kind: &'static str,
    /// Requests sent.
    pub sent: u64,
    /// Requests that were served.
    pub answered: u64,
    /// Requests that were refused: answered with an error message, or with an unusable response.
    pub errors: u64,
    /// Requests without a response before their timeout.
    pub lost: u64,
    /// Time from the intended send time to the response.
    pub latency: LatencySummary,
}

impl KindReport {
    fn refused_more_than(&self, max_share: f64) -> Option<Failure> {
        let Self { kind, answered, errors, .. } = *self;
        let responses = answered + errors;
        (errors as f64 > max_share * responses as f64).then_some(Failure::Refused {
            kind,
            refused: errors,
            responses,
        })
    }

    fn lost_more_than(&self, max_share: f64) -> Option<Failure> {
        let Self { kind, sent, lost, .. } = *self;
        (lost as f64 > max_share * sent as f64).then_some(Failure::Lost { kind, lost, sent })
    }
}

/// Limits of a test that the tracker has to keep to pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Maximum share of refused requests of each kind in a phase, from 0 to 1.
    pub max_refused_share: f64,
    /// Maximum share of lost requests of each kind in a phase, from 0 to 1.
    pub max_lost_share: f64,
    /// Minimum number of replies whose content was verified, in all phases together.
    pub min_replies_checked: u64,
}

/// Results of a test.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Protocol, such as `udp`.
    pub protocol: &'static str,
    /// Address of the tracker.
    pub server_address: String,
    /// Number of torrents in the population.
    pub torrents: u64,
    /// Number of peers in the population.
    pub peers: u64,
    /// Phases, in order.
    pub phases: Vec<Report>,
    /// Whether the test was ended early by a signal, so that phases may be missing or short.
    pub interrupted: bool,
    /// Limits that the verdict applies.
    #[serde(flatten)]
    pub limits: Limits,
}

impl Outcome {
    /// Checks whether the tracker passed all phases.
    ///
    /// # Errors
    /// When it violated the protocol, refused or lost too many requests, served none, or too few of its
    /// replies had content to verify. Also when the test was interrupted.
    pub fn verdict(&self) -> Result<(), Failure> {
        if self.interrupted {
            let violations = self.phases.iter().map(Report::violations).sum();
            return Err(if violations > 0 { Failure::Violations(violations) } else { Failure::Interrupted });
        }
        if self.phases.is_empty() {
            return Err(Failure::NothingServed);
        }
        self.phases.iter().try_for_each(|phase| phase.verdict(&self.limits))?;
        let checked = self.phases.iter().map(|phase| phase.replies_checked).sum();
        let min = self.limits.min_replies_checked;
        if checked < min { Err(Failure::NotChecked { checked, min }) } else { Ok(()) }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, server_address, torrents, peers, .. } = self;
        writeln!(f, "{protocol} tracker at {server_address}; {torrents} torrents, {peers} peers")?;
        self.phases.iter().try_for_each(|phase| write!(f, "\n{phase}"))
    }
}

/// Counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Name.
    pub name: &'static str,
    /// Value.
    pub count: u64,
}

/// Results of one phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Name of the phase.
    pub phase: &'static str,
    /// Duration of the measurement, in seconds.
    pub seconds: f64,
    /// Responses per second, including refusals.
    pub responses_per_second: f64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Share of the time, from 0 to 1, in which the load test was idle. Near 0, the load test is the
    /// bottleneck.
    pub idle_share: f64,
    /// Results by kind of request.
    pub kinds: Vec<KindReport>,
    /// Latency of all kinds of requests.
    pub latency: LatencySummary,
    /// Responses in each second.
    pub per_second: Vec<u64>,
    /// Events that are no violations.
    pub notes: Vec<Count>,
    /// Violations of the protocol. All counts are 0 if the verification succeeded.
    pub violations: Vec<Count>,
    /// Distinct error messages of the tracker; at most five.
    pub error_texts: Vec<String>,
    /// Number of replies whose content was verified: announce replies with peers, or relayed offers.
    pub replies_checked: u64,
    /// Number of peers that a prefill could not announce.
    pub peers_not_announced: u64,
    /// Number of requests that an open loop should have sent, but had no room for, as earlier ones had not
    /// been served.
    pub overdue: u64,
    /// Whether requests were sent until the end, so that silence before it is the tracker's fault.
    #[serde(skip)]
    pub is_constant: bool,
    /// Whether clients left before messages to them could arrive, so that losses are not the tracker's
    /// fault.
    #[serde(skip)]
    pub ignores_losses: bool,
}

/// Reason why a test failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No request was served.
    NothingServed,
    /// More requests of a kind were refused than allowed.
    Refused {
        /// Kind of the requests.
        kind: &'static str,
        /// Number of refused requests.
        refused: u64,
        /// Number of responses.
        responses: u64,
    },
    /// More requests of a kind were lost than allowed.
    Lost {
        /// Kind of the requests.
        kind: &'static str,
        /// Number of lost requests.
        lost: u64,
        /// Number of sent requests.
        sent: u64,
    },
    /// More requests than may be lost were never sent, because those before them had not been served.
    Overdue {
        /// Number of requests that were not sent.
        overdue: u64,
        /// Number of requests that were due.
        due: u64,
    },
    /// Number of peers that a prefill could not announce.
    NotAnnounced(u64),
    /// The content of fewer replies was verified than demanded.
    NotChecked {
        /// Number of verified replies.
        checked: u64,
        /// Number of demanded replies.
        min: u64,
    },
    /// Requests were sent, but nothing was received in the last seconds of a phase.
    Stopped {
        /// Number of seconds.
        seconds: u64,
    },
    /// Number of protocol violations.
    Violations(u64),
    /// The test was ended early.
    Interrupted,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingServed => f.write_str("no request was served"),
            Self::Refused { kind, refused, responses } => {
                write!(
                    f,
                    "{refused} of {responses} {kind} requests were refused; see verdict.max_refused_share"
                )
            }
            Self::Lost { kind, lost, sent } => {
                write!(f, "{lost} of {sent} {kind} requests were lost; see verdict.max_lost_share")
            }
            Self::Overdue { overdue, due } => write!(
                f,
                "{overdue} of {due} requests were not sent, because those before them had not been served: the rate is \
                 higher than what is served, or there are too few connections for it; see verdict.max_lost_share"
            ),
            Self::NotAnnounced(peers) => write!(f, "{peers} peers of the prefill were not announced"),
            Self::NotChecked { checked, min } => {
                write!(
                    f,
                    "only {checked} replies had content to verify, {min} are required; see \
                     verdict.min_replies_checked"
                )
            }
            Self::Stopped { seconds } => {
                write!(f, "the tracker has stopped to answer: nothing was received in the last {seconds} s")
            }
            Self::Interrupted => {
                f.write_str("the test was interrupted; the report covers what was measured until then")
            }
            Self::Violations(count) => write!(f, "verification failed: {count} protocol violations"),
        }
    }
}

impl std::error::Error for Failure {}

impl Report {
    fn violations(&self) -> u64 {
        self.violations.iter().map(|violation| violation.count).sum()
    }

    /// Number of seconds at the end in which nothing was received although many requests were sent, if any.
    fn silent_at_the_end(&self) -> Option<u64> {
        let seconds = self.per_second.iter().rev().take_while(|&&responses| responses == 0).count() as u64;
        let requests = self.requests_per_second * seconds as f64;
        let is_silent = self.is_constant && seconds >= MIN_SILENCE && requests >= MIN_SILENT_REQUESTS;
        (is_silent && self.responses_per_second > 0.0).then_some(seconds)
    }

    /// Checks whether the tracker passed the phase.
    ///
    /// # Errors
    /// When it violated the protocol, refused or lost more than the allowed share of a kind of requests,
    /// served none, has stopped to answer, or peers of a prefill were not announced.
    pub fn verdict(&self, limits: &Limits) -> Result<(), Failure> {
        let violations = self.violations();
        let max_lost_share = if self.ignores_losses { 1.0 } else { limits.max_lost_share };
        let lost = self.kinds.iter().find_map(|kind| kind.lost_more_than(max_lost_share));
        let refused = self.kinds.iter().find_map(|kind| kind.refused_more_than(limits.max_refused_share));
        let due = self.overdue + self.kinds.iter().map(|kind| kind.sent).sum::<u64>();
        let has_served = self.kinds.iter().any(|kind| kind.answered > 0);
        let is_behind = self.overdue > 0
            && (self.overdue as f64 > max_lost_share * due as f64
                || !has_served && self.responses_per_second > 0.0);
        if violations > 0 {
            Err(Failure::Violations(violations))
        } else if let Some(seconds) = self.silent_at_the_end() {
            Err(Failure::Stopped { seconds })
        } else if is_behind {
            Err(Failure::Overdue { overdue: self.overdue, due })
        } else if let Some(failure) = refused {
            Err(failure)
        } else if !has_served {
            Err(Failure::NothingServed)
        } else if self.peers_not_announced > 0 {
            Err(Failure::NotAnnounced(self.peers_not_announced))
        } else if let Some(failure) = lost {
            Err(failure)
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: measured for {:.1} s", self.phase, self.seconds)?;
        writeln!(f, "  responses per second   {:>12.0}", self.responses_per_second)?;
        writeln!(f, "  requests per second    {:>12.0}", self.requests_per_second)?;
        writeln!(f, "  load test idle         {:>10.0} %", self.idle_share * 100.0)?;
        if let (Some(least), Some(most)) = (self.per_second.iter().min(), self.per_second.iter().max()) {
            writeln!(f, "  responses in a second  {least:>12} to {most}")?;
        }
        writeln!(f)?;
        writeln!(f, "  {:<10}{:>12}{:>12}{:>10}{:>10}", "", "sent", "served", "refused", "lost")?;
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
        self.error_texts.iter().try_for_each(|text| writeln!(f, "  error message: {text}"))
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

    const STRICT: Limits = Limits { max_refused_share: 0.0, max_lost_share: 0.0, min_replies_checked: 0 };

    fn refusals(max_refused_share: f64) -> Limits {
        Limits { max_refused_share, ..STRICT }
    }

    #[test]
    fn verdict_depends_on_responses() {
        assert_eq!(report(1, 0).verdict(&STRICT), Ok(()));
        assert_eq!(report(0, 0).verdict(&STRICT), Err(Failure::NothingServed));
        assert_eq!(report(1, 2).verdict(&STRICT), Err(Failure::Violations(2)));
    }

    #[test]
    fn losses_fail_above_the_allowed_share() {
        let mut report = report(5, 0);
        report.kinds.push(KindReport { kind: "offer", sent: 100, lost: 2, ..KindReport::default() });
        assert_eq!(report.verdict(&Limits { max_lost_share: 0.02, ..STRICT }), Ok(()));
        let limits = Limits { max_lost_share: 0.01, ..STRICT };
        assert_eq!(report.verdict(&limits), Err(Failure::Lost { kind: "offer", lost: 2, sent: 100 }));
        report.ignores_losses = true;
        assert_eq!(report.verdict(&limits), Ok(()));
    }

    #[test]
    fn requests_that_are_never_sent_are_lost() {
        let behind = Report { overdue: 20, ..report(5, 0) };
        let sent: u64 = behind.kinds.iter().map(|kind| kind.sent).sum();
        let limits = |max_lost_share| Limits { max_lost_share, ..STRICT };
        assert_eq!(behind.verdict(&limits(1.0)), Ok(()));
        let failure = Failure::Overdue { overdue: 20, due: sent + 20 };
        assert_eq!(behind.verdict(&limits(0.1)), Err(failure));
        // All that was served was due before the measurement began.
        let warm_up = Report { overdue: 20, responses_per_second: 9.0, kinds: Vec::new(), ..report(0, 0) };
        let failure = Failure::Overdue { overdue: 20, due: 20 };
        assert_eq!(warm_up.verdict(&limits(1.0)), Err(failure));
        assert!(failure.to_string().contains("the rate is higher"), "{failure}");
        let nothing = Report { responses_per_second: 0.0, ..warm_up };
        assert_eq!(nothing.verdict(&limits(1.0)), Err(Failure::NothingServed));
    }

    #[test]
    fn silence_at_the_end_fails() {
        let stopped = |per_second: &[u64], requests_per_second| {
            let rates = Report { responses_per_second: 5.0, requests_per_second, ..report(5, 0) };
            Report { per_second: per_second.to_vec(), is_constant: true, ..rates }
        };
        let limits = Limits { max_refused_share: 1.0, max_lost_share: 1.0, ..STRICT };
        let failure = Err(Failure::Stopped { seconds: 2 });
        assert_eq!(stopped(&[9, 0, 9, 0, 0], 10.0).verdict(&limits), failure);
        assert_eq!(stopped(&[9, 0, 0, 9, 0], 10.0).verdict(&limits), Ok(()));
        assert_eq!(stopped(&[9, 0, 9, 0, 0], 9.0).verdict(&limits), Ok(()), "few requests");
        let ended = Report { is_constant: false, ..stopped(&[9, 0, 9, 0, 0], 10.0) };
        assert_eq!(ended.verdict(&limits), Ok(()));
    }

    #[test]
    fn an_interrupted_test_fails() {
        let outcome = |violations| Outcome {
            protocol: "udp",
            server_address: String::new(),
            torrents: 1,
            peers: 1,
            phases: vec![report(0, violations)],
            interrupted: true,
            limits: STRICT,
        };
        assert_eq!(outcome(0).verdict(), Err(Failure::Interrupted));
        assert_eq!(outcome(2).verdict(), Err(Failure::Violations(2)));
    }

    #[test]
    fn peers_that_are_not_announced_fail() {
        let report = Report { peers_not_announced: 3, ..report(5, 0) };
        let limits = Limits { max_refused_share: 1.0, max_lost_share: 1.0, ..STRICT };
        assert_eq!(report.verdict(&limits), Err(Failure::NotAnnounced(3)));
    }

    #[test]
    fn replies_checked_in_all_phases_suffice() {
        let phases = [4, 6].map(|replies_checked| Report { replies_checked, ..report(9, 0) }).to_vec();
        let limits = Limits { min_replies_checked: 10, ..STRICT };
        let server_address = String::new();
        let interrupted = false;
        let mut outcome =
            Outcome { protocol: "udp", server_address, torrents: 1, peers: 1, phases, interrupted, limits };
        assert_eq!(outcome.verdict(), Ok(()));
        outcome.limits.min_replies_checked = 11;
        assert_eq!(outcome.verdict(), Err(Failure::NotChecked { checked: 10, min: 11 }));
    }

    #[test]
    fn refusals_fail_above_the_allowed_share() {
        let mut report = report(99, 0);
        report.kinds[0].errors = 1;
        assert_eq!(report.verdict(&refusals(0.01)), Ok(()));
        let refused = |kind, refused, responses| Err(Failure::Refused { kind, refused, responses });
        assert_eq!(report.verdict(&refusals(0.0)), refused("announce", 1, 100));
        report.kinds.push(KindReport { kind: "scrape", errors: 1, ..KindReport::default() });
        assert_eq!(report.verdict(&refusals(0.01)), refused("scrape", 1, 1));
        assert_eq!(report.verdict(&refusals(1.0)), Ok(()));
        (report.kinds[0].answered, report.kinds[0].errors) = (0, 100);
        assert_eq!(report.verdict(&refusals(1.0)), Err(Failure::NothingServed));
    }

    #[test]
    fn table_omits_counters_that_are_zero() {
        let text = report(7, 0).to_string();
        assert!(text.contains("3 to 5"), "{text}");
        assert!(!text.contains("malformed"), "{text}");
        assert!(report(7, 4).to_string().contains("malformed"), "{text}");
    }

    #[test]
    fn json_contains_all_figures() {
        let json = serde_json::to_value(report(7, 1)).unwrap();
        assert_eq!(json["kinds"][0]["answered"], 7);
        assert_eq!(json["violations"][0]["count"], 1);
        assert_eq!(json["latency"]["p999_us"], 0.0);
    }
}
