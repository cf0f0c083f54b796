//! What there is to say about the certificate: for the control socket and the status page.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::failure::Failure;

/// Why the last order failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AcmeFailure {
    /// Seconds since 1970.
    pub time: i64,
    /// Label in the metrics.
    pub reason: &'static str,
    /// What happened, and what to do about it.
    pub text: String,
}

impl From<Failure> for AcmeFailure {
    fn from(Failure { time, reason, text }: Failure) -> Self {
        Self { time, reason: reason.label(), text }
    }
}

/// State of the certificate. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AcmeStatus {
    /// Names that a certificate is wanted for.
    pub names: Vec<String>,
    /// Names of the certificate in use; empty if there is only one that nobody trusts.
    pub certified_names: Vec<String>,
    /// End of the certificate in use.
    pub expires: Option<i64>,
    /// Time of the next order; `None` while one is under way.
    pub next_order: Option<i64>,
    /// Orders that have failed since the last one that was fulfilled.
    pub failures_in_a_row: u32,
    /// The last of these.
    pub last_failure: Option<AcmeFailure>,
}

impl AcmeStatus {
    /// The state in a sentence or two, and whether the operator has something to do about it. `span` writes
    /// durations in seconds.
    #[must_use]
    pub fn text(&self, now: i64, span: impl Fn(u64) -> String) -> (String, bool) {
        let until = |time: i64| span(u64::try_from(time - now).unwrap_or(0));
        let names = self.names.join(", ");
        let state = match self.expires {
            None => format!("No certificate for {names} yet, so TLS clients refuse the tracker. "),
            Some(end) if end <= now => format!("The certificate for {names} has expired. "),
            // It may be for more: names that are no longer wanted, or that the authority has added.
            Some(_) if !self.names.iter().all(|name| self.certified_names.contains(name)) => {
                format!("The certificate is for {}, not for {names}. ", self.certified_names.join(", "))
            }
            Some(end) => format!("The certificate for {names} expires in {}. ", until(end)),
        };
        let next = match self.next_order {
            None => "An order is under way.".to_owned(),
            Some(time) => format!("Next order in {}.", until(time)),
        };
        let failure = match &self.last_failure {
            Some(failure) if self.failures_in_a_row == 0 => format!(" {}", failure.text),
            Some(failure) => format!(" {} order(s) failed: {}", self.failures_in_a_row, failure.text),
            None => String::new(),
        };
        (format!("{state}{next}{failure}"), self.last_failure.is_some())
    }
}

/// The state, as the thread has left it. Copies share it.
#[derive(Clone, Debug, Default)]
pub struct AcmeReport(Arc<Mutex<AcmeStatus>>);

impl AcmeReport {
    /// The state now.
    #[must_use]
    pub fn get(&self) -> AcmeStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, status: AcmeStatus) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_told_in_a_sentence() {
        let names = vec!["a.org".to_owned()];
        let mut status = AcmeStatus { names: names.clone(), ..AcmeStatus::default() };
        let text = |status: &AcmeStatus| status.text(100, |seconds| format!("{seconds} s"));
        let (first, warn) = text(&status);
        assert!(
            first.starts_with("No certificate for a.org yet") && first.ends_with("under way."),
            "{first}"
        );
        assert!(!warn);
        status = AcmeStatus { certified_names: names, expires: Some(190), next_order: Some(150), ..status };
        assert_eq!(text(&status).0, "The certificate for a.org expires in 90 s. Next order in 50 s.",);
        status.last_failure = Some(AcmeFailure { time: 1, reason: "challenge", text: "no.".to_owned() });
        status.failures_in_a_row = 2;
        assert!(text(&status).0.ends_with(" 2 order(s) failed: no.") && text(&status).1);
        status.certified_names = vec!["b.org".to_owned()];
        assert!(text(&status).0.starts_with("The certificate is for b.org, not for a.org."));
        status.expires = Some(99);
        assert!(text(&status).0.starts_with("The certificate for a.org has expired."));
    }
}
