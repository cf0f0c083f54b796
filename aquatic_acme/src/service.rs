//! The thread that does what [`plan`] decides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use aquatic_metrics::{Counter, Gauge, Registry, names};
use aquatic_net::tcp::Tls;
use aquatic_runtime::Serving;
use aquatic_runtime::clock::calendar_seconds;
use aquatic_web::HttpChallenges;
use futures_lite::future::block_on;
use instant_acme::CertificateIdentifier;

use aquatic_common::config::ChallengeKind;

use crate::Settings;
use crate::client::Client;
use crate::external_account::ExternalAccount;
use crate::failure::{Failure, Fault, Reason};
use crate::order::{Orders, Wish, fault};
use crate::plan::{self, Facts, Record, Step};
use crate::status::{AcmeReport, AcmeStatus};
use crate::store::{self, Store, Stored};

/// Time between two attempts to write a certificate.
const RETRY_TO_KEEP: Duration = Duration::from_secs(60);

/// Longest wait without a look at the calendar, which may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What the thread counts.
pub(crate) struct Counters {
    done: Counter,
    tested: Counter,
    failed: Vec<(Reason, Counter)>,
    in_a_row: Gauge,
    next_order: Gauge,
}

impl Counters {
    pub(crate) fn new(registry: &Registry) -> Self {
        let metrics = registry.main_thread();
        let outcome = |outcome| metrics.counter(&names::ACME_ORDERS, &[("outcome", outcome)]);
        Self {
            done: outcome("done"),
            tested: outcome("tested"),
            failed: Reason::ALL.into_iter().map(|reason| (reason, outcome(reason.label()))).collect(),
            in_a_row: metrics.gauge(&names::ACME_FAILURES_IN_A_ROW, &[]),
            next_order: metrics.gauge(&names::ACME_NEXT_ORDER, &[]),
        }
    }
}

/// What the main thread tells the thread of the orders.
#[derive(Debug)]
pub(crate) enum Update {
    /// Changed settings.
    Settings(Box<Settings>),
    /// The files of the process are read again, for whatever reason.
    Reload,
}

/// What the thread works with.
pub(crate) struct Service {
    pub(crate) client: Client,
    pub(crate) external_account: Option<ExternalAccount>,
    pub(crate) store: Store,
    pub(crate) tls: Arc<Tls>,
    pub(crate) http: HttpChallenges,
    pub(crate) serving: Serving,
    pub(crate) settings: Settings,
    pub(crate) updates: Receiver<Update>,
    pub(crate) record: Record,
    /// The certificate in use; `None` for a placeholder.
    pub(crate) certificate: Option<Facts>,
    /// The certificate in use and its key, if they could not be written yet.
    pub(crate) unkept: Option<String>,
    pub(crate) counters: Counters,
    pub(crate) report: AcmeReport,
}

impl Service {
    /// Has something to show before the thread runs.
    pub(crate) fn show_start(&self) {
        self.show(Some(calendar_seconds()));
    }

    /// Runs for as long as the process does. Works while this process is the one that serves.
    pub(crate) fn run(mut self) -> ! {
        self.serving.until_begun();
        self.resume();
        while !self.serving.is_elsewhere() {
            self.take_updates();
            self.keep_certificate();
            let now = calendar_seconds();
            match plan::next(now, &self.settings.wanted, &self.record, self.certificate.as_ref()) {
                Step::Wait(until) => self.wait(now, until),
                Step::AskRenewalInfo => self.ask_renewal_info(now),
                Step::Order { staging, challenge } => self.order(staging, challenge),
            }
        }
        loop {
            thread::park();
        }
    }

    /// Goes on where the last process has stopped, which may have obtained a certificate meanwhile.
    fn resume(&mut self) {
        self.record = self.store.record();
        self.record.adopt(&self.settings.wanted);
        if let Some(Stored { pair, facts }) = self.store.certificate()
            && self.certificate.as_ref() != Some(&facts)
        {
            match self.tls.install(pair) {
                Ok(()) => self.certificate = Some(facts),
                Err(error) => log::warn!("ACME: the kept certificate is not used: {error}"),
            }
        }
    }

    fn take_updates(&mut self) {
        while let Ok(update) = self.updates.try_recv() {
            self.update(update);
        }
    }

    /// Applies what the main thread has sent.
    fn update(&mut self, update: Update) {
        // Who reloads, or changes settings, after a failure wants to see whether what has been mended, here
        // or elsewhere, helps. Limits apply all the same.
        let is_limited = |failure: &Failure| failure.reason == Reason::RateLimited;
        let is_new = match &update {
            Update::Settings(settings) => settings.config != self.settings.config,
            Update::Reload => false,
        };
        if (is_new || self.record.failures > 0) && !self.record.last_failure.as_ref().is_some_and(is_limited)
        {
            self.record.not_before = 0;
        }
        if let Update::Settings(settings) = update {
            self.settings = *settings;
            self.record.adopt(&self.settings.wanted);
        }
    }

    fn next_order(&self) -> i64 {
        let due = plan::due(&self.settings.wanted, &self.record, self.certificate.as_ref());
        due.max(self.record.not_before)
    }

    fn wait(&mut self, now: i64, until: i64) {
        let due = plan::due(&self.settings.wanted, &self.record, self.certificate.as_ref());
        self.show(Some(if due > now { due } else { until }));
        let seconds = u64::try_from(until.saturating_sub(now)).unwrap_or(0);
        let longest = if self.unkept.is_some() { RETRY_TO_KEEP } else { LONGEST_WAIT };
        match self.updates.recv_timeout(Duration::from_secs(seconds).min(longest)) {
            Ok(update) => self.update(update),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => crate::pause::sleep(LONGEST_WAIT),
        }
    }

    fn orders(&self) -> Orders<'_> {
        Orders {
            client: &self.client,
            external_account: self.external_account.as_ref(),
            store: &self.store,
            config: &self.settings.config,
            tls: &self.tls,
            http: &self.http,
        }
    }

    /// Asks when the certificate is to be renewed. Failures do no harm: its lifetime decides then.
    fn ask_renewal_info(&mut self, now: i64) {
        let Some(id) = self.certificate.as_ref().and_then(|facts| facts.id.clone()) else { return };
        let asked = self.renewal_info(&id);
        if self.serving.is_elsewhere() {
            return;
        }
        match asked {
            Ok((window, interval)) => {
                self.record.suggested(now, &id, window, (interval, rand::random()));
                log::debug!("ACME: the authority suggests to renew the certificate from {} on", window.0);
            }
            Err(fault) => {
                log::debug!("ACME: no renewal information: {}", fault.text);
                self.record.not_suggested(now, &id);
            }
        }
        self.keep_record();
    }

    fn renewal_info(&self, id: &str) -> Result<((i64, i64), i64), Fault> {
        let account = self.orders().account(&self.settings.wanted.directory)?;
        let (authority, serial) = id.split_once('.').unwrap_or_default();
        let id = CertificateIdentifier { authority_key_identifier: authority.into(), serial: serial.into() };
        let (info, interval) = block_on(account.renewal_info(&id)).map_err(|error| fault(&error))?;
        let window = info.suggested_window;
        let interval = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
        Ok(((window.start.unix_timestamp(), window.end.unix_timestamp()), interval))
    }

    fn order(&mut self, staging: bool, challenge: ChallengeKind) {
        self.show(None);
        let wanted = &self.settings.wanted;
        let staging = wanted.staging.as_deref().filter(|_| staging);
        let directory = staging.unwrap_or(&wanted.directory);
        log::info!(
            "ACME: ordering a certificate for {} at {directory}{}, verified by {}",
            list(&wanted.names),
            if staging.is_some() { " as a test" } else { "" },
            challenge.name()
        );
        // What is left of former requests is not about this order.
        let _ = self.client.take_retry_after();
        let replaces = self.certificate.as_ref().filter(|_| self.record.issued_by == directory);
        let wish = Wish {
            directory,
            names: &wanted.names,
            challenge,
            replaces: replaces.and_then(|facts| facts.id.as_deref()),
        };
        let is_test = staging.is_some();
        self.record.began(calendar_seconds(), rand::random());
        // The authority must not be asked for an account that cannot be kept.
        let kept = match self.store.keep_record(&self.record) {
            Err(fault) if self.store.account(directory).is_none() => Err(fault),
            kept => {
                tell_unkept(kept);
                Ok(())
            }
        };
        let outcome = kept.and_then(|()| self.orders().run(&wish));
        if self.serving.is_elsewhere() {
            return;
        }
        let now = calendar_seconds();
        let used = match outcome {
            Ok(_) if is_test => {
                self.counters.tested.add(1);
                self.record.passed_staging(challenge, &self.settings.wanted, now);
                Ok("the test has succeeded".to_owned())
            }
            Ok(text) => self.take_into_use(&text, challenge),
            Err(fault) => Err(fault),
        };
        let told = used.map_err(|fault| self.fail(fault, now));
        // The log tells it last: who reads it there finds it in the files and the metrics.
        self.keep_record();
        self.show(Some(self.next_order()));
        match told {
            Ok(text) => log::info!("ACME: {text}"),
            Err(text) => log::error!("ACME: no certificate for {text}"),
        }
    }

    /// What the log is to say.
    fn take_into_use(&mut self, text: &str, challenge: ChallengeKind) -> Result<String, Fault> {
        let unusable =
            |error: String| Fault::new(Reason::Certificate, format!("it cannot be used: {error}."));
        let Stored { pair, facts } = store::parse(text, Some(self.store.path())).map_err(unusable)?;
        let wanted = &self.settings.wanted;
        // Some authorities add names.
        if !facts.names.is_superset(&wanted.names) {
            return Err(unusable(format!("it is for {}", list(&facts.names))));
        }
        self.tls.install(pair).map_err(|error| unusable(error.to_string()))?;
        self.counters.done.add(1);
        let now = calendar_seconds();
        self.record.succeeded((challenge, wanted), &facts, now);
        if plan::due(wanted, &self.record, Some(&facts)) <= now {
            log::warn!(
                "ACME: the new certificate is due for renewal at once: it is valid from {} s ago for {}. Is the clock of \
                 this machine right?",
                now - facts.from,
                span(facts.to - now)
            );
        }
        let told = format!("the new certificate for {} is in use", list(&wanted.names));
        self.certificate = Some(facts);
        // It is in use even if it cannot be kept.
        self.unkept = Some(text.to_owned());
        self.keep_certificate();
        Ok(told)
    }

    /// Writes a certificate that is in use and could not be kept until now.
    fn keep_certificate(&mut self) {
        let Some(text) = &self.unkept else { return };
        match self.store.keep_certificate(text) {
            Ok(()) => {
                self.unkept = None;
                if self.record.last_failure.take_if(|failure| failure.reason == Reason::Storage).is_some() {
                    log::info!("ACME: the certificate in use has been kept");
                    self.keep_record();
                }
            }
            Err(fault) => {
                let is_told =
                    self.record.last_failure.as_ref().is_some_and(|failure| failure.text == fault.text);
                if !is_told {
                    self.count_failure(fault.reason);
                    log::error!(
                        "ACME: the certificate in use is lost with a restart, unless it can be kept later: {}",
                        fault.text
                    );
                    self.record.last_failure = Some(fault.at(calendar_seconds()));
                }
            }
        }
    }

    fn count_failure(&self, reason: Reason) {
        if let Some((_, counter)) = self.counters.failed.iter().find(|(of, _)| *of == reason) {
            counter.add(1);
        }
    }

    /// What the log is to say after "no certificate for ".
    fn fail(&mut self, fault: Fault, now: i64) -> String {
        self.count_failure(fault.reason);
        let text = fault.text.clone();
        self.record.failed(fault.at(now), self.client.take_retry_after(), rand::random());
        let until = match &self.certificate {
            Some(facts) if facts.to > now => format!("the one in use is valid for {}", span(facts.to - now)),
            Some(_) => "the one in use has expired, so clients refuse it".to_owned(),
            None => "clients refuse the placeholder in use".to_owned(),
        };
        format!(
            "{}: {text} Next attempt in {}; {until}",
            list(&self.settings.wanted.names),
            span(self.record.not_before - now)
        )
    }

    fn keep_record(&self) {
        tell_unkept(self.store.keep_record(&self.record));
    }

    /// Shows the state; without a time of the next order one is under way.
    fn show(&self, next_order: Option<i64>) {
        self.counters.in_a_row.set(self.record.failures.into());
        self.counters.next_order.set(next_order.and_then(|time| u64::try_from(time).ok()).unwrap_or(0));
        let names = |names: &BTreeSet<String>| names.iter().cloned().collect();
        self.report.set(AcmeStatus {
            names: names(&self.settings.wanted.names),
            certified_names: self.certificate.as_ref().map_or_else(Vec::new, |facts| names(&facts.names)),
            expires: self.certificate.as_ref().map(|facts| facts.to),
            next_order,
            failures_in_a_row: self.record.failures,
            last_failure: self.record.last_failure.clone().map(Into::into),
        });
    }
}

/// Tells that the record could not be written.
fn tell_unkept(kept: Result<(), Fault>) {
    if let Err(fault) = kept {
        log::error!("ACME: pauses and failures are not kept for a restart: {}", fault.text);
    }
}

/// Names as they are written in the log: the first three.
pub(crate) fn list(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    let more = names.len().saturating_sub(shown.len());
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// A time in seconds, as people say it.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{} s", seconds.max(0)),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_short() {
        let names = |count: u8| (0..count).map(|number| format!("{number}.org")).collect();
        assert_eq!(list(&names(2)), "0.org, 1.org");
        assert_eq!(list(&names(5)), "0.org, 1.org, 2.org and 2 more");
        let spans = [-1, 119, 120, 7199, 7200, 172_800].map(span);
        assert_eq!(spans, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
