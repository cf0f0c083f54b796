//! What the tests of all load tests look for in reports.

use aquatic_load_engine::report::{Outcome, Report};

/// How often a note was made. It has to be one that there is.
pub(crate) fn note(report: &Report, name: &str) -> u64 {
    report.notes.iter().find(|note| note.name == name).unwrap().count
}

/// What the tracker did wrong in any phase.
pub(crate) fn violated(outcome: &Outcome) -> Vec<&'static str> {
    let mut names = Vec::new();
    for violation in outcome.phases.iter().flat_map(|phase| &phase.violations) {
        if violation.count > 0 && !names.contains(&violation.name) {
            names.push(violation.name);
        }
    }
    names
}
