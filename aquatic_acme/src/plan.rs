//! What to do next: a pure function of the time, what is wanted, the certificate in use, and what has
//! happened.
//!
//! Times are seconds since 1970, as certificates have them. Whatever is remembered is read again after a
//! restart, so that a tracker that is restarted in a loop does not use up the limits of the authority.

use std::collections::BTreeSet;

use aquatic_common::config::ChallengeKind;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Reason};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Pause after the first failure. Each further failure in a row triples it.
const FIRST_PAUSE: i64 = MINUTE;

/// Longest pause after failures, before jitter.
const LONGEST_PAUSE: i64 = DAY;

/// Pause after a nonce that the authority did not take: the next one may do.
const NONCE_PAUSE: i64 = 5;

/// Part of a pause that chance may take off or add, so that trackers do not come back together.
const JITTER: f64 = 0.25;

/// Longest pause that an authority may ask for: the period of its slowest limits.
const LONGEST_RETRY_AFTER: i64 = 7 * DAY;

/// Refusals in a row after which orders go to the directory for tests first.
const REFUSALS_BEFORE_STAGING: u32 = 3;

/// Most orders that are fulfilled in the lifetime of a certificate.
const ORDERS_PER_LIFETIME: i64 = 50;

/// Certificates of a shorter lifetime are renewed halfway through it.
const SHORT_LIFETIME: i64 = 10 * DAY;

/// Shortest and longest time between two requests for renewal information (RFC 9773, 4.3).
const RENEWAL_INFO_INTERVAL: (i64, i64) = (HOUR, DAY);

/// Time until renewal information is asked for again where the authority has none, or did not reply.
const NO_RENEWAL_INFO_INTERVAL: i64 = 6 * HOUR;

/// Share of the lifetime that is left when a certificate is renewed at the latest, whatever the authority
/// suggests.
const LEAST_LEFT: i64 = 10;

/// What is to be obtained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Names and addresses, in normal form.
    pub(crate) names: BTreeSet<String>,
    pub(crate) directory: String,
    pub(crate) staging: Option<String>,
    /// Challenges that can be answered, at least one, in the order of preference.
    pub(crate) challenges: Vec<ChallengeKind>,
}

/// What matters of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) names: BTreeSet<String>,
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Identifier for renewal information (RFC 9773, 4.1), if there can be one.
    pub(crate) id: Option<String>,
}

/// When an authority suggests to renew a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Renewal {
    /// Identifier of the certificate.
    pub(crate) id: String,
    /// The suggested window; `None` if the authority has suggested none.
    pub(crate) window: Option<(i64, i64)>,
    /// Time in the window that chance has chosen.
    pub(crate) at: i64,
    /// When to ask again.
    pub(crate) next_request: i64,
}

/// What has happened so far, as it is kept in the state directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// What the failures are about.
    pub(crate) names: BTreeSet<String>,
    pub(crate) directory: String,
    /// Directory that the certificate in use comes from.
    pub(crate) issued_by: String,
    /// When the last certificate was obtained.
    pub(crate) obtained: i64,
    /// Failures in a row, and those of them that count towards the limits of the authority.
    pub(crate) failures: u32,
    pub(crate) refusals: u32,
    /// Orders since then of which nothing has been heard.
    pub(crate) unfinished: u32,
    /// No order before this time.
    pub(crate) not_before: i64,
    /// An order in the directory for tests has been fulfilled since the last refusal.
    pub(crate) staging_passed: bool,
    /// Challenge by which the last certificate was obtained.
    pub(crate) last_challenge: Option<String>,
    /// The last failure, until an order is fulfilled.
    pub(crate) last_failure: Option<Failure>,
    pub(crate) renewal: Renewal,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing until this time.
    Wait(i64),
    /// Ask the authority when to renew the certificate.
    AskRenewalInfo,
    /// Order a certificate.
    Order {
        /// In the directory for tests: it is not used, and shows whether an order would be fulfilled.
        staging: bool,
        challenge: ChallengeKind,
    },
}

impl Wanted {
    pub(crate) fn is_in(&self, record: &Record) -> bool {
        record.names == self.names && record.directory == self.directory
    }

    /// The challenge for the next order: the one that worked last, and after each refusal the other one.
    fn challenge(&self, record: &Record) -> ChallengeKind {
        let position = |name: &String| self.challenges.iter().position(|kind| kind.name() == name);
        let first = record.last_challenge.as_ref().and_then(position).unwrap_or(0);
        let turn = first + record.refusals as usize;
        let count = self.challenges.len().max(1);
        self.challenges.get(turn % count).copied().unwrap_or(ChallengeKind::TlsAlpn01)
    }
}

/// When a certificate is to be replaced: at once if it is not what is wanted, else when the authority
/// suggests, or in the last third of its lifetime.
pub(crate) fn due(wanted: &Wanted, record: &Record, certificate: Option<&Facts>) -> i64 {
    let Some(facts) = certificate else { return i64::MIN };
    // A record that has been lost does not say where the certificate comes from.
    let is_from_elsewhere = !record.issued_by.is_empty() && record.issued_by != wanted.directory;
    if !facts.names.is_superset(&wanted.names) || is_from_elsewhere {
        return i64::MIN;
    }
    let lifetime = facts.to.saturating_sub(facts.from).max(0);
    let share_left = if lifetime < SHORT_LIFETIME { 2 } else { 3 };
    let by_lifetime = facts.to - lifetime / share_left;
    let suggested = record.renewal.window.filter(|_| facts.id.as_ref() == Some(&record.renewal.id));
    match suggested {
        Some(_) => record.renewal.at.min(facts.to - lifetime / LEAST_LEFT),
        None => by_lifetime,
    }
}

/// What to do at a time.
pub(crate) fn next(now: i64, wanted: &Wanted, record: &Record, certificate: Option<&Facts>) -> Step {
    let due = due(wanted, record, certificate);
    if due > now {
        let asked = certificate.and_then(|facts| facts.id.as_ref()).map(|id| {
            // A request that is further away than any interval is one from before the clock was set back.
            let next = record.renewal.next_request;
            if record.renewal.id == *id && next <= now + RENEWAL_INFO_INTERVAL.1 { next } else { now }
        });
        return match asked {
            Some(next) if next <= now => Step::AskRenewalInfo,
            Some(next) => Step::Wait(due.min(next)),
            None => Step::Wait(due),
        };
    }
    // Without failures the pause is between two certificates.
    // Of a certificate that was obtained and could not be kept there is none.
    let has_tried = record.failures > 0 || record.unfinished > 0 || record.obtained > 0;
    let is_paused = wanted.is_in(record) && (has_tried || certificate.is_some());
    let not_before = if is_paused { record.not_before } else { i64::MIN };
    if not_before > now && not_before <= now + LONGEST_RETRY_AFTER {
        return Step::Wait(not_before);
    }
    let refused = wanted.is_in(record) && record.refusals >= REFUSALS_BEFORE_STAGING;
    let staging = refused && !record.staging_passed && wanted.staging.is_some();
    Step::Order { staging, challenge: wanted.challenge(record) }
}

/// Pause after so many failures in a row. `chance` is from 0 to 1.
fn pause(failures: u32, reason: Reason, chance: f64) -> i64 {
    let base = if reason == Reason::BadNonce && failures < 10 {
        NONCE_PAUSE
    } else {
        FIRST_PAUSE.saturating_mul(3_i64.saturating_pow(failures.saturating_sub(1))).min(LONGEST_PAUSE)
    };
    (base as f64 * (1.0 - JITTER + 2.0 * JITTER * chance)) as i64
}

impl Record {
    /// Forgets failures that are about other names, or another authority.
    pub(crate) fn adopt(&mut self, wanted: &Wanted) {
        if !wanted.is_in(self) {
            *self = Self {
                names: wanted.names.clone(),
                directory: wanted.directory.clone(),
                issued_by: std::mem::take(&mut self.issued_by),
                obtained: self.obtained,
                renewal: std::mem::take(&mut self.renewal),
                ..Self::default()
            };
        }
    }

    /// An order begins. If nothing is heard of it any more, because the process ends, it counts as a failure,
    /// so that a tracker that is restarted in a loop pauses as well.
    pub(crate) fn began(&mut self, now: i64, chance: f64) {
        self.unfinished = self.unfinished.saturating_add(1);
        let failures = self.failures.saturating_add(self.unfinished);
        self.not_before = now + pause(failures, Reason::Connection, chance);
    }

    /// An order has failed.
    pub(crate) fn failed(&mut self, failure: Failure, retry_after: Option<i64>, chance: f64) {
        self.unfinished = 0;
        self.failures = self.failures.saturating_add(1);
        if failure.reason.is_refusal() {
            self.refusals = self.refusals.saturating_add(1);
            self.staging_passed = false;
        }
        let asked = retry_after.unwrap_or(0).clamp(0, LONGEST_RETRY_AFTER);
        self.not_before = failure.time + pause(self.failures, failure.reason, chance).max(asked);
        self.last_failure = Some(failure);
    }

    /// An order in the directory for tests has been fulfilled, so the next one goes to the other directory.
    pub(crate) fn passed_staging(&mut self, challenge: ChallengeKind, wanted: &Wanted, now: i64) {
        self.unfinished = 0;
        self.staging_passed = true;
        self.not_before = now;
        // The challenge that has just worked is the next one.
        let position = wanted.challenges.iter().position(|kind| *kind == challenge).unwrap_or(0);
        let count = wanted.challenges.len().max(1);
        let first = (position + count - self.refusals as usize % count) % count;
        self.last_challenge = wanted.challenges.get(first).map(|kind| kind.name().to_owned());
    }

    /// A certificate has been obtained. If that was soon after another one, as the authority suggests it or
    /// the clock is wrong, the next order for the same names waits.
    pub(crate) fn succeeded(
        &mut self,
        (challenge, wanted): (ChallengeKind, &Wanted),
        facts: &Facts,
        now: i64,
    ) {
        let lifetime = facts.to.saturating_sub(facts.from);
        let pause = (lifetime / ORDERS_PER_LIFETIME).clamp(MINUTE, DAY);
        let is_soon = (0..2 * pause).contains(&now.saturating_sub(self.obtained));
        *self = Self {
            not_before: if is_soon { now + pause } else { 0 },
            obtained: now,
            names: wanted.names.clone(),
            directory: wanted.directory.clone(),
            issued_by: wanted.directory.clone(),
            last_challenge: Some(challenge.name().to_owned()),
            ..Self::default()
        };
    }

    /// The authority has suggested a window, and when to ask again.
    pub(crate) fn suggested(
        &mut self,
        now: i64,
        id: &str,
        (start, end): (i64, i64),
        (interval, chance): (i64, f64),
    ) {
        let (least, most) = RENEWAL_INFO_INTERVAL;
        let next_request = now + interval.clamp(least, most);
        if end <= start {
            // RFC 9773, 4.2: such a window is treated as none.
            self.renewal = Renewal { id: id.to_owned(), window: None, at: 0, next_request };
            return;
        }
        let is_same = self.renewal.id == id && self.renewal.window == Some((start, end));
        let at = if is_same {
            self.renewal.at
        } else {
            start.saturating_add((end.saturating_sub(start) as f64 * chance.clamp(0.0, 1.0)) as i64)
        };
        self.renewal = Renewal { id: id.to_owned(), window: Some((start, end)), at, next_request };
    }

    /// The authority has suggested nothing. An earlier suggestion stays.
    pub(crate) fn not_suggested(&mut self, now: i64, id: &str) {
        if self.renewal.id != id {
            self.renewal = Renewal { id: id.to_owned(), ..Renewal::default() };
        }
        self.renewal.next_request = now + NO_RENEWAL_INFO_INTERVAL;
    }
}

#[cfg(test)]
mod tests;
