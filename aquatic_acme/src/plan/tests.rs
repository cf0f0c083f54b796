//! Decisions one by one, and years of them against an authority that fails.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::failure::Fault;

const DIRECTORY: &str = "https://ca.example/directory";
const START: i64 = 1_800_000_000;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn wanted() -> Wanted {
    Wanted {
        names: names(&["a.org", "192.0.2.1"]),
        directory: DIRECTORY.to_owned(),
        staging: Some("https://ca.example/staging".to_owned()),
        challenges: vec![ChallengeKind::TlsAlpn01, ChallengeKind::Http01],
    }
}

fn certificate(from: i64, days: i64) -> Facts {
    Facts { names: wanted().names, from, to: from + days * DAY, id: None }
}

fn obtained() -> Record {
    let mut record = Record::default();
    record.succeeded((ChallengeKind::TlsAlpn01, &wanted()), &certificate(START, 90), START - 30 * DAY);
    record
}

fn failure(reason: Reason, time: i64) -> Failure {
    Fault::new(reason, "no").at(time)
}

const ORDER: Step = Step::Order { staging: false, challenge: ChallengeKind::TlsAlpn01 };

#[test]
fn the_first_certificate_is_ordered_at_once() {
    assert_eq!(next(START, &wanted(), &Record::default(), None), ORDER);
}

#[test]
fn an_order_of_which_nothing_is_heard_pauses() {
    let mut record = Record::default();
    record.adopt(&wanted());
    let (mut now, mut pauses) = (START, Vec::new());
    for _ in 0..4 {
        // The process ends in the midst of each.
        record.began(now, 0.5);
        let Step::Wait(until) = next(now, &wanted(), &record, None) else { panic!("another order at once") };
        pauses.push(until - now);
        assert_eq!(next(until, &wanted(), &record, None), ORDER);
        now = until;
    }
    assert_eq!(pauses, [1, 3, 9, 27].map(|minutes| minutes * MINUTE));
    record.failed(failure(Reason::Connection, now), None, 0.5);
    assert_eq!((record.unfinished, record.not_before - now), (0, MINUTE));
}

#[test]
fn certificates_that_are_lost_again_are_not_ordered_without_a_pause() {
    let mut record = Record::default();
    record.adopt(&wanted());
    for now in [START, START + 60] {
        record.began(now, 0.5);
        record.succeeded((ChallengeKind::TlsAlpn01, &wanted()), &certificate(now, 90), now);
    }
    assert_eq!(next(START + 61, &wanted(), &record, None), Step::Wait(START + 60 + DAY));
}

#[test]
fn certificates_are_renewed_in_the_last_third_and_short_ones_halfway() {
    let record = obtained();
    let step = |now, days| next(now, &wanted(), &record, Some(&certificate(START, days)));
    assert_eq!(step(START, 90), Step::Wait(START + 60 * DAY));
    assert_eq!(step(START + 60 * DAY, 90), ORDER);
    assert_eq!(step(START, 6), Step::Wait(START + 3 * DAY));
    assert_eq!(step(START + 400 * DAY, 6), ORDER, "long expired");
}

#[test]
fn a_certificate_that_is_due_at_once_is_not_ordered_again_at_once() {
    let wanted = wanted();
    // Suggested for a time that has passed, and past the middle of its lifetime when it comes.
    for (from, days, window) in [(START, 90, Some((START - DAY, START - HOUR))), (START - 5 * DAY, 6, None)] {
        let facts = Facts { id: Some("ca.1".to_owned()), ..certificate(from, days) };
        let (mut record, mut now, mut orders) = (Record::default(), START, 0);
        while now < START + 10 * DAY {
            match next(now, &wanted, &record, Some(&facts)) {
                Step::Wait(until) => now = until.max(now + 1),
                Step::AskRenewalInfo => match window {
                    Some(window) => record.suggested(now, "ca.1", window, (HOUR, 0.5)),
                    None => record.not_suggested(now, "ca.1"),
                },
                Step::Order { challenge, .. } => {
                    orders += 1;
                    record.succeeded((challenge, &wanted), &facts, now);
                }
            }
        }
        assert!((5..100).contains(&orders), "{days} days: {orders} orders in 10 days");
    }
}

#[test]
fn a_certificate_for_more_names_will_do() {
    let more = Facts { names: names(&["a.org", "192.0.2.1", "www.a.org"]), ..certificate(START, 90) };
    assert_eq!(next(START, &wanted(), &obtained(), Some(&more)), Step::Wait(START + 60 * DAY));
}

#[test]
fn other_names_and_another_authority_need_another_certificate() {
    let (record, certificate) = (obtained(), certificate(START, 90));
    let other = Wanted { names: names(&["b.org"]), ..wanted() };
    assert_eq!(next(START, &other, &record, Some(&certificate)), ORDER);
    let other = Wanted { directory: "https://other.example".to_owned(), ..wanted() };
    assert_eq!(next(START, &other, &record, Some(&certificate)), ORDER);
}

#[test]
fn failures_of_other_names_are_forgotten() {
    let mut record = Record::default();
    record.adopt(&wanted());
    (0..9).for_each(|_| record.failed(failure(Reason::Challenge, START), None, 0.5));
    assert!(matches!(next(START, &wanted(), &record, None), Step::Wait(_)));
    let other = Wanted { names: names(&["b.org"]), ..wanted() };
    assert!(matches!(next(START, &other, &record, None), Step::Order { staging: false, .. }));
    record.adopt(&other);
    assert_eq!((record.failures, record.not_before), (0, 0));
}

#[test]
fn pauses_grow_to_a_day_and_are_spread() {
    let pauses: Vec<i64> = (1..=10).map(|failures| pause(failures, Reason::Connection, 0.5)).collect();
    assert_eq!(pauses[..4], [60, 180, 540, 1620]);
    assert_eq!(pauses[9], DAY);
    assert_eq!((pause(1, Reason::Connection, 0.0), pause(1, Reason::Connection, 1.0)), (45, 75));
    assert_eq!(pause(3, Reason::BadNonce, 0.5), NONCE_PAUSE);
    assert_eq!(pause(u32::MAX, Reason::Refused, 0.5), DAY);
}

#[test]
fn authorities_can_ask_for_longer_pauses() {
    let mut record = Record::default();
    record.adopt(&wanted());
    record.failed(failure(Reason::RateLimited, START), Some(5 * HOUR), 0.5);
    assert_eq!(next(START, &wanted(), &record, None), Step::Wait(START + 5 * HOUR));
    record.failed(failure(Reason::RateLimited, START), Some(i64::MAX), 0.5);
    assert_eq!(next(START, &wanted(), &record, None), Step::Wait(START + 7 * DAY));
    assert_eq!(next(START - 30 * DAY, &wanted(), &record, None), ORDER, "the clock has been set back");
}

#[test]
fn refusals_alternate_challenges_and_lead_to_staging() {
    let mut record = Record::default();
    record.adopt(&wanted());
    let mut steps = Vec::new();
    for _ in 0..5 {
        let now = record.not_before.max(START);
        steps.push(next(now, &wanted(), &record, None));
        record.failed(failure(Reason::Challenge, now), None, 0.5);
    }
    use ChallengeKind::{Http01, TlsAlpn01};
    let order = |staging, challenge| Step::Order { staging, challenge };
    assert_eq!(
        steps,
        [
            order(false, TlsAlpn01),
            order(false, Http01),
            order(false, TlsAlpn01),
            order(true, Http01),
            order(true, TlsAlpn01)
        ]
    );
    let now = record.not_before;
    assert_eq!(next(now, &wanted(), &record, None), order(true, Http01));
    record.passed_staging(Http01, &wanted(), now);
    assert_eq!(next(now, &wanted(), &record, None), order(false, Http01), "what has worked for the test");
    record.failed(failure(Reason::Refused, now), None, 0.5);
    assert!(matches!(next(record.not_before, &wanted(), &record, None), Step::Order { staging: true, .. }));
    let without = Wanted { staging: None, ..wanted() };
    assert!(matches!(next(record.not_before, &without, &record, None), Step::Order { staging: false, .. }));
    record.succeeded((Http01, &wanted()), &certificate(START, 90), now);
    assert_eq!(record.last_challenge.as_deref(), Some("http-01"));
    assert_eq!(next(now, &wanted(), &record, None), order(false, Http01), "what has worked last");
}

#[test]
fn an_authority_that_is_down_does_not_lead_to_staging() {
    let mut record = Record::default();
    record.adopt(&wanted());
    (0..9).for_each(|_| record.failed(failure(Reason::Connection, START), None, 0.5));
    assert_eq!(next(record.not_before, &wanted(), &record, None), ORDER);
}

#[test]
fn the_suggested_window_decides() {
    let mut record = obtained();
    let facts = Facts { id: Some("a.b".to_owned()), ..certificate(START, 90) };
    let step = |record: &Record, now| next(now, &wanted(), record, Some(&facts));
    assert_eq!(step(&record, START), Step::AskRenewalInfo);
    let window = (START + 40 * DAY, START + 42 * DAY);
    record.suggested(START, "a.b", window, (6 * HOUR, 0.5));
    assert_eq!(step(&record, START), Step::Wait(START + 6 * HOUR));
    assert_eq!(step(&record, START + 6 * HOUR), Step::AskRenewalInfo);
    record.suggested(START + 6 * HOUR, "a.b", window, (6 * HOUR, 0.9));
    assert_eq!(record.renewal.at, START + 41 * DAY, "chosen once for each window");
    record.not_suggested(START + 40 * DAY, "a.b");
    assert_eq!(step(&record, START + 41 * DAY), ORDER);
    // Revocation: the window is in the past.
    record.suggested(START, "a.b", (START - 2 * DAY, START - DAY), (1, 0.5));
    assert_eq!(step(&record, START), ORDER);
    // Too late, and nonsense.
    record.suggested(START, "a.b", (START + 89 * DAY, START + 90 * DAY), (1, 1.0));
    assert_eq!(due(&wanted(), &record, Some(&facts)), START + 81 * DAY);
    assert_eq!(record.renewal.next_request, START + HOUR);
    record.suggested(START, "a.b", (START + 9, START + 9), (1, 1.0));
    assert_eq!(due(&wanted(), &record, Some(&facts)), START + 60 * DAY);
    record.suggested(START, "a.b", (i64::MIN, i64::MAX), (i64::MAX, 1.0));
    assert_eq!(record.renewal.next_request, START + DAY);
    // What was suggested for the former certificate says nothing about this one.
    let facts = Facts { id: Some("c.d".to_owned()), ..facts.clone() };
    assert_eq!(due(&wanted(), &record, Some(&facts)), START + 60 * DAY);
    assert_eq!(next(START, &wanted(), &record, Some(&facts)), Step::AskRenewalInfo);
    record.not_suggested(START, "c.d");
    assert_eq!(next(START, &wanted(), &record, Some(&facts)), Step::Wait(START + 6 * HOUR));
}

/// An authority, and a tracker that asks it.
struct Simulation {
    random: SmallRng,
    now: i64,
    record: Record,
    certificate: Option<Facts>,
    serial: u32,
    lifetime_days: i64,
    /// Until when nothing works.
    outage: i64,
    orders: Vec<i64>,
    /// Failed validations in the directory that counts.
    refused: Vec<i64>,
    uncovered: i64,
    steps: u32,
}

impl Simulation {
    fn new(seed: u64, lifetime_days: i64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            now: START,
            record: Record::default(),
            certificate: None,
            serial: 0,
            lifetime_days,
            outage: 0,
            orders: Vec::new(),
            refused: Vec::new(),
            uncovered: 0,
            steps: 0,
        }
    }

    fn advance(&mut self, to: i64) {
        assert!(to > self.now, "time passes: {to} after {}", self.now);
        let covered = self.certificate.as_ref().map_or(0, |facts| (facts.to.min(to) - self.now).max(0));
        self.uncovered += to - self.now - covered;
        self.now = to;
    }

    fn fail(&mut self, reason: Reason) {
        let (chance, time) = (self.random.random::<f64>(), self.now);
        self.record.failed(failure(reason, time), None, chance);
    }

    fn order(&mut self, staging: bool, challenge: ChallengeKind) {
        let wanted = wanted();
        if !staging {
            self.orders.push(self.now);
        }
        self.advance(self.now + 20);
        if self.now < self.outage {
            if self.random.random_bool(0.5) {
                return self.fail(Reason::Connection);
            }
            if !staging {
                self.refused.push(self.now);
            }
            return self.fail(Reason::Challenge);
        }
        if self.random.random_bool(0.1) {
            return self.fail(Reason::BadNonce);
        }
        if staging {
            return self.record.passed_staging(challenge, &wanted, self.now);
        }
        self.serial += 1;
        let id = Some(format!("ca.{}", self.serial));
        let facts = Facts { id, ..certificate(self.now - HOUR, self.lifetime_days) };
        self.record.succeeded((challenge, &wanted), &facts, self.now);
        self.certificate = Some(facts);
    }

    fn step(&mut self) {
        self.steps += 1;
        if self.steps.is_multiple_of(16) {
            // As after a restart.
            let text = serde_json::to_string(&self.record).unwrap();
            self.record = serde_json::from_str(&text).unwrap();
        }
        let wanted = wanted();
        self.record.adopt(&wanted);
        if self.now >= self.outage && self.random.random_bool(0.02) {
            self.outage = self.now + self.random.random_range(0..DAY * self.lifetime_days / 6);
        }
        match next(self.now, &wanted, &self.record, self.certificate.as_ref()) {
            Step::Wait(until) => self.advance(until),
            Step::AskRenewalInfo => {
                let facts = self.certificate.clone().unwrap();
                let id = facts.id.unwrap();
                if self.now < self.outage || self.random.random_bool(0.3) {
                    return self.record.not_suggested(self.now, &id);
                }
                let third = (facts.to - facts.from) / 3;
                let window = (facts.to - third, facts.to - third + third / 10);
                let chance = (6 * HOUR, self.random.random::<f64>());
                self.record.suggested(self.now, &id, window, chance);
            }
            Step::Order { staging, challenge } => self.order(staging, challenge),
        }
    }
}

#[test]
fn through_years_of_outages_the_certificate_stays_valid_and_the_limits_are_kept() {
    for (seed, lifetime) in (0..8).flat_map(|seed| [(seed, 90), (seed, 45), (seed, 6)]) {
        let mut simulation = Simulation::new(seed, lifetime);
        while simulation.now < START + 366 * DAY {
            simulation.step();
            assert!(simulation.steps < 30_000, "seed {seed}, {lifetime} days: too many steps");
        }
        let Simulation { orders, refused, uncovered, serial, .. } = &simulation;
        let context = format!("seed {seed}, {lifetime} days");
        // Outages last a sixth of the lifetime and a third or half is left at the first attempt.
        let first = orders.first().copied().unwrap_or(START);
        assert!(
            *uncovered < first - START + DAY * (lifetime / 6 + 2),
            "{context}: without for {uncovered} s"
        );
        let within = |times: &[i64], period, most| {
            times.windows(most + 1).all(|window| window[most] - window[0] >= period)
        };
        assert!(within(refused, HOUR, 5), "{context}: more than 5 failed validations in an hour");
        assert!(within(orders, 3 * HOUR, 30), "{context}: many orders");
        let least = u32::try_from(366 / lifetime).unwrap();
        assert!((least..least * 3 + 4).contains(serial), "{context}: {serial} certificates");
    }
}
