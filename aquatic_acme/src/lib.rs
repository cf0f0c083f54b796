//! Certificates over ACME (RFC 8555): for the names in the configuration, obtained and renewed without help.
//!
//! `plan` decides what to do next, as a pure function of time and state, with tests that run for years. One
//! thread beside the cores does it: `order` talks to the authority with blocking calls, `store` keeps
//! files in the state directory. Cores see nothing of it: a new certificate is taken into use as by a reload
//! ([`Tls::install`]), and challenges are answered by what is there for other reasons, the certificate
//! resolver of TLS and the routing of HTTP.
//!
//! The tracker never waits for a certificate. Until the first one is there, TLS clients get one that nobody
//! trusts.
//!
//! What the authority sends is not trusted: replies are bounded in size and time, and its words get into the
//! log without control characters.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod challenge;
mod client;
mod external_account;
mod failure;
mod order;
mod pause;
mod plan;
mod service;
mod status;
mod store;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use aquatic_common::ConfigurationError;
use aquatic_common::config::{AcmeConfig, NetworkConfig, Unusable, normal_name};
use aquatic_net::tcp::{Tls, TlsPair};
use aquatic_runtime::state_directory::names;
use aquatic_runtime::{Engine, Periodic};
use aquatic_web::HttpChallenges;

use crate::client::Client;
use crate::external_account::ExternalAccount;
use crate::plan::Wanted;
use crate::service::{Counters, Service, Update};
use crate::store::{Store, Stored};

pub use status::{AcmeFailure, AcmeReport, AcmeStatus};

/// Name of the file with certificate and key in the state directory.
pub const CERTIFICATE_FILE: &str = names::ACME_CERTIFICATE;

/// What the thread works with, from the configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) config: AcmeConfig,
    pub(crate) wanted: Wanted,
}

impl Settings {
    fn of(network: &NetworkConfig, config: &AcmeConfig) -> Self {
        let wanted = Wanted {
            // Others have been reported by the check of the configuration.
            names: network.acme.iter().filter_map(|name| normal_name(name).ok()).collect(),
            directory: config.directory.clone(),
            staging: config.staging().map(str::to_owned),
            challenges: config.challenge_kinds(network),
        };
        Self { config: config.clone(), wanted }
    }
}

/// What the tracker needs of it.
pub struct Acme {
    /// The certificate in use.
    pub tls: Arc<Tls>,
    /// Replies to challenges over HTTP.
    pub http: HttpChallenges,
    /// What there is to say about it.
    pub report: AcmeReport,
    settings: Sender<Update>,
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acme").field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// Changes what a running tracker asks for.
#[derive(Clone, Debug)]
pub struct AcmeChanges(Sender<Update>);

/// After a failure a reload has the next order begin at once.
impl Periodic for AcmeChanges {
    fn tick(&mut self, _now: Duration) {}

    fn reload(&mut self) {
        // Without a receiver the process is ending.
        let _ = self.0.send(Update::Reload);
    }
}

impl Acme {
    /// Takes the last certificate into use, or a placeholder, and has the engine run the thread that obtains
    /// and renews it. `None` if no names are configured.
    ///
    /// # Errors
    /// Settings or files that cannot be used. That the authority cannot be reached is none.
    pub fn open(
        network: &NetworkConfig,
        config: &AcmeConfig,
        engine: &mut Engine,
    ) -> anyhow::Result<Option<Self>> {
        if network.acme.is_empty() {
            return Ok(None);
        }
        let settings = Settings::of(network, config);
        let Some(directory) = engine.state_directory() else {
            anyhow::bail!("{} needs state_directory", NetworkConfig::acme);
        };
        let store = Store(directory.clone());
        let client = Client::new(config).map_err(ConfigurationError::new)?;
        let mut warnings = Vec::new();
        let external_account =
            ExternalAccount::read(config, &mut warnings).map_err(ConfigurationError::new)?;
        warnings.iter().for_each(|text| log::warn!("{text}"));
        let stored = store.certificate();
        let kept = stored.and_then(|Stored { pair, facts }| match Tls::installed(pair) {
            Ok(tls) => Some((tls, facts)),
            Err(error) => {
                log::warn!("ACME: the kept certificate is not used: {error}");
                None
            }
        });
        let (tls, facts) = match kept {
            Some((tls, facts)) => (tls, Some(facts)),
            None => {
                log::warn!(
                    "ACME: there is no certificate for {} yet; TLS clients get one that they do not trust until there \
                     is",
                    service::list(&settings.wanted.names)
                );
                let names: Vec<String> = settings.wanted.names.iter().cloned().collect();
                let (certificate, key) = challenge::placeholder(&names)?;
                let pair = TlsPair { chain: vec![certificate], key, path: None };
                (Tls::installed(pair).map_err(ConfigurationError::new)?, None)
            }
        };
        let (http, report) = (HttpChallenges::default(), AcmeReport::default());
        let (sender, updates) = channel();
        let service = Service {
            client,
            external_account,
            store,
            tls: Arc::clone(&tls),
            http: http.clone(),
            serving: engine.serving(),
            settings,
            updates,
            record: plan::Record::default(),
            certificate: facts,
            unkept: None,
            counters: Counters::new(engine.registry()),
            report: report.clone(),
        };
        service.show_start();
        engine.add_side_thread("aquatic-acme", move || service.run());
        engine.add_periodic(AcmeChanges(sender.clone()));
        Ok(Some(Self { tls, http, report, settings: sender }))
    }

    /// What changes the names later.
    #[must_use]
    pub fn changes(&self) -> AcmeChanges {
        AcmeChanges(self.settings.clone())
    }
}

impl AcmeChanges {
    /// Has a certificate obtained for changed names, or in another way.
    ///
    /// # Errors
    /// A change that needs a restart.
    pub fn apply(&self, network: &NetworkConfig, config: &AcmeConfig) -> anyhow::Result<()> {
        anyhow::ensure!(
            !network.acme.is_empty(),
            "{} is empty; the certificate stays in use until a restart",
            NetworkConfig::acme
        );
        // Without a receiver the process is ending.
        let _ = self.0.send(Update::Settings(Box::new(Settings::of(network, config))));
        Ok(())
    }
}

/// Reads the files that the configuration names: certificates that the authority is verified with, and the
/// key of an external account.
///
/// # Errors
/// What is wrong with them, by key.
pub fn check_files(config: &AcmeConfig) -> Result<(), Unusable> {
    let key = AcmeConfig::root_certificates_path;
    Client::new(config).map_err(|error| Unusable { key, text: error.to_string() })?;
    ExternalAccount::read(config, &mut Vec::new()).map(drop)
}

/// What the last process, or the one that runs, has left in a state directory about failures; `None` if the
/// last order was fulfilled, was for other names or another authority, or nothing is known.
#[must_use]
pub fn last_failure(
    state_directory: &Path,
    network: &NetworkConfig,
    config: &AcmeConfig,
) -> Option<AcmeFailure> {
    let text = std::fs::read_to_string(state_directory.join(names::ACME_STATE)).ok()?;
    let record: plan::Record = serde_json::from_str(&text).ok()?;
    let is_of_these = Settings::of(network, config).wanted.is_in(&record);
    record.last_failure.filter(|_| is_of_these).map(AcmeFailure::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_for_other_names_or_authorities_are_past() {
        let directory = tempfile::tempdir().unwrap();
        let network = |name: &str| NetworkConfig { acme: vec![name.to_owned()], ..NetworkConfig::default() };
        let config = AcmeConfig::default();
        let wanted = Settings::of(&network("old.example"), &config).wanted;
        let mut record = plan::Record::default();
        record.adopt(&wanted);
        record.failed(failure::Fault::new(failure::Reason::Challenge, "no").at(1), None, 0.5);
        let text = serde_json::to_string(&record).unwrap();
        std::fs::write(directory.path().join(names::ACME_STATE), text).unwrap();
        let is_told = |name: &str, config: &AcmeConfig| {
            last_failure(directory.path(), &network(name), config).is_some()
        };
        assert!(is_told("OLD.example", &config));
        assert!(!is_told("new.example", &config));
        let other = AcmeConfig { directory: "https://ca.example/directory".to_owned(), ..config };
        assert!(!is_told("old.example", &other));
    }
}
