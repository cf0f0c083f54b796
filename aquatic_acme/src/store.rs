//! What is kept in the state directory: accounts, the certificate with its key, and what has happened so far.
//! Files are replaced as a whole and readable for the tracker's user only.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use aquatic_net::tcp::TlsPair;
use aquatic_runtime::StateDirectory;
use aquatic_runtime::state_directory::names::{ACME_ACCOUNTS, ACME_STATE};
use instant_acme::CertificateIdentifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::value::RawValue;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::CERTIFICATE_FILE;
use crate::failure::{Fault, Reason};
use crate::plan::{Facts, Record};

/// Maximum size of each file.
const MAX_FILE: u64 = 1 << 20;

/// The files.
#[derive(Clone, Debug)]
pub(crate) struct Store(pub(crate) StateDirectory);

/// A certificate with its key, ready for use.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) pair: TlsPair,
    pub(crate) facts: Facts,
}

impl Store {
    fn read(&self, name: &str) -> io::Result<Option<String>> {
        let Some(file) = self.0.open_file(name)? else { return Ok(None) };
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Fault> {
        self.0.replace(name, |file| file.write_all(text.as_bytes())).map_err(|error| {
            let path = self.0.path().join(name);
            let text = format!("{} cannot be written: {error}.", path.display());
            Fault::new(Reason::Storage, text)
        })
    }

    /// Reads a file of JSON; the default if there is none. One that cannot be read is left alone until it is
    /// replaced, and spoken of.
    fn read_json<T: for<'de> serde::Deserialize<'de> + Default>(&self, name: &str) -> T {
        let parsed = match self.read(name) {
            Ok(None) => return T::default(),
            Ok(Some(text)) => serde_json::from_str(&text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        parsed.unwrap_or_else(|error| {
            log::warn!("ACME: the file {} is not used: {error}", self.0.path().join(name).display());
            T::default()
        })
    }

    /// What has happened so far.
    pub(crate) fn record(&self) -> Record {
        self.read_json(ACME_STATE)
    }

    pub(crate) fn keep_record(&self, record: &Record) -> Result<(), Fault> {
        self.write(ACME_STATE, &serde_json::to_string_pretty(record).unwrap_or_default())
    }

    fn accounts(&self) -> BTreeMap<String, Box<RawValue>> {
        self.read_json(ACME_ACCOUNTS)
    }

    /// The account at a directory, as JSON.
    pub(crate) fn account(&self, directory: &str) -> Option<String> {
        self.accounts().remove(directory).map(|account| account.get().to_owned())
    }

    /// Keeps the account at a directory, or forgets it.
    pub(crate) fn keep_account(&self, directory: &str, account: Option<String>) -> Result<(), Fault> {
        let mut accounts = self.accounts();
        match account.map(RawValue::from_string) {
            Some(Ok(account)) => drop(accounts.insert(directory.to_owned(), account)),
            Some(Err(_)) | None => drop(accounts.remove(directory)),
        }
        self.write(ACME_ACCOUNTS, &serde_json::to_string_pretty(&accounts).unwrap_or_default())
    }

    /// The certificate, if there is one that can be used.
    pub(crate) fn certificate(&self) -> Option<Stored> {
        let parsed = match self.read(CERTIFICATE_FILE) {
            Ok(None) => return None,
            Ok(Some(text)) => parse(&text, Some(self.path())),
            Err(error) => Err(error.to_string()),
        };
        parsed
            .inspect_err(|error| log::warn!("ACME: the file {} is not used: {error}", self.path().display()))
            .ok()
    }

    /// Keeps certificate and key, in one file, so that they always fit.
    pub(crate) fn keep_certificate(&self, text: &str) -> Result<(), Fault> {
        self.write(CERTIFICATE_FILE, text)
    }

    /// Path of the certificate.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join(CERTIFICATE_FILE)
    }
}

/// Reads certificate and key from PEM.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse(text: &str, path: Option<PathBuf>) -> Result<Stored, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string())?;
    let first = chain.first().ok_or("there is no certificate in it")?;
    let facts = facts(first).ok_or("its certificate cannot be understood")?;
    Ok(Stored { pair: TlsPair { chain, key, path }, facts })
}

/// Names, dates and identifier of a certificate.
fn facts(certificate: &CertificateDer<'_>) -> Option<Facts> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let mut names = BTreeSet::new();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.insert(name.to_ascii_lowercase());
            } else if let GeneralName::IPAddress(bytes) = name {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                names.extend(address.ok().map(|address| address.to_string()));
            }
        }
    }
    let dates = parsed.validity();
    let id = CertificateIdentifier::try_from(certificate).ok().map(|id| id.to_string());
    Some(Facts { names, from: dates.not_before.timestamp(), to: dates.not_after.timestamp(), id })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use aquatic_common::config::PrivilegesConfig;
    use tempfile::TempDir;

    use super::*;

    fn store() -> (TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path(), &PrivilegesConfig::default()).unwrap();
        (directory, Store(state))
    }

    fn pem(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let pair = rcgen::generate_simple_self_signed(names).unwrap();
        format!("{}{}", pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    #[test]
    fn certificate_and_key_are_kept_for_the_tracker_alone() {
        let (directory, store) = store();
        assert!(store.certificate().is_none());
        store.keep_certificate(&pem(&["B.org", "192.0.2.1", "2001:db8::1"])).unwrap();
        let mode = std::fs::metadata(store.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names = store.certificate().unwrap().facts.names;
        assert_eq!(Vec::from_iter(names), ["192.0.2.1", "2001:db8::1", "b.org"]);
        std::fs::write(directory.path().join(CERTIFICATE_FILE), "damaged").unwrap();
        assert!(store.certificate().is_none());
    }

    #[test]
    fn accounts_are_kept_by_directory_and_damage_is_survived() {
        let (directory, store) = store();
        store.keep_account("https://a", Some("{\"id\":1}".to_owned())).unwrap();
        store.keep_account("https://b", Some("{\"id\":2}".to_owned())).unwrap();
        assert_eq!(store.account("https://a").as_deref(), Some("{\"id\":1}"));
        store.keep_account("https://a", None).unwrap();
        assert_eq!(store.account("https://a"), None);
        assert_eq!(store.account("https://b").as_deref(), Some("{\"id\":2}"));
        for text in ["", "[]", "{\"failures\":-1}", "\u{0}"] {
            std::fs::write(directory.path().join(ACME_ACCOUNTS), text).unwrap();
            std::fs::write(directory.path().join(ACME_STATE), text).unwrap();
            assert_eq!((store.account("https://b"), store.record()), (None, Record::default()));
        }
        let record = Record { failures: 3, ..Record::default() };
        store.keep_record(&record).unwrap();
        assert_eq!(store.record(), record);
    }
}
