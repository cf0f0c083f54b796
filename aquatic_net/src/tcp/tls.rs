//! Certificate and key: reading them, explaining what is wrong with them, and taking new ones into use.
//!
//! Invariants: whatever is in use has been read completely and fits together; a bad new certificate changes
//! nothing. Connections keep the configuration they began with. Session tickets are made with one set of keys
//! for all cores and all certificates of the process, so a client may resume anywhere.
//!
//! A certificate comes from files, or from whoever [installs](Tls::install) it, who may also have handshakes
//! for challenges answered ([`alpn_challenge`](super::alpn_challenge)).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aquatic_common::config::{NetworkConfig, PrivilegesConfig};
use aquatic_common::files::{self, Stamp};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, ServerConfig};
use x509_parser::parse_x509_certificate;
use x509_parser::x509::X509Version;

use super::alpn_challenge::{ACME_ALPN, ChallengeCertificates, WithChallenges};
use super::validity::{Validity, Verdict};
use aquatic_metrics::{Counter, Gauge, Registry, names};
use aquatic_runtime::Periodic;
use aquatic_runtime::clock::calendar_seconds;

/// Most plaintext and most ciphertext a connection holds back when its socket takes no more.
pub(super) const BUFFER_LIMIT: usize = 16 * 1024;

/// Maximum size of the file of certificate or key in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Time between two looks at the files.
const FILE_INTERVAL: Duration = Duration::from_secs(10);

/// Time between two looks at the calendar, so that a certificate that is about to expire is spoken of once a
/// day.
const CALENDAR_INTERVAL: Duration = Duration::from_secs(86_400);

/// The protocol spoken inside; WebSocket begins as HTTP/1.1, too.
const ALPN: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the certificate and those between it and the root, in this order.
    pub certificate: PathBuf,
    /// PEM file with the private key (PKCS #8, PKCS #1 or SEC 1).
    pub private_key: PathBuf,
}

impl TlsFiles {
    /// The files that a configuration names.
    #[must_use]
    pub fn of(network: &NetworkConfig) -> Self {
        Self {
            certificate: network.tls_certificate_path.clone(),
            private_key: network.tls_private_key_path.clone(),
        }
    }

    /// Whether certificate or key is not named.
    #[must_use]
    pub fn has_empty_path(&self) -> bool {
        [&self.certificate, &self.private_key].iter().any(|path| path.as_os_str().is_empty())
    }

    /// All that is wrong with the files: with each of them, or with both together.
    #[must_use]
    pub fn check(&self) -> Vec<TlsError> {
        let alone = [read_chain(&self.certificate).err(), read_key(&self.private_key).err()];
        let alone: Vec<TlsError> = alone.into_iter().flatten().collect();
        if alone.is_empty() { Tls::load(self.clone()).err().into_iter().collect() } else { alone }
    }
}

/// What is wrong with certificate or key.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A file is no PEM file.
    NotPem(PathBuf, String),
    /// No certificate in the file.
    NoCertificate(PathBuf),
    /// No private key in the file.
    NoKey(PathBuf),
    /// The certificate cannot be used.
    BadCertificate(PathBuf, String),
    /// The key cannot be used.
    BadKey(PathBuf, String),
    /// The key belongs to another certificate.
    Mismatch(PathBuf, PathBuf),
    /// TLS itself cannot be set up.
    Setup(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "cannot read {}: {error}", path.display())?;
                if error.kind() == io::ErrorKind::NotFound {
                    write!(
                        f,
                        ". Check {} and {}; with {} they are looked up inside it when they are reloaded",
                        NetworkConfig::tls_certificate_path,
                        NetworkConfig::tls_private_key_path,
                        PrivilegesConfig::chroot_path
                    )?;
                } else if error.kind() == io::ErrorKind::PermissionDenied {
                    f.write_str(
                        ". Let the tracker's user read the file and pass through its directories; to read it again \
                         after privileges are dropped, that is the user it has become",
                    )?;
                }
                Ok(())
            }
            Self::NotPem(path, what) => write!(f, "{} is no valid PEM file: {what}", path.display()),
            Self::NoCertificate(path) => write!(
                f,
                "there is no certificate in {}. It must have a \"-----BEGIN CERTIFICATE-----\" section; convert from \
                 DER with \"openssl x509 -inform der\"",
                path.display()
            ),
            Self::NoKey(path) => write!(
                f,
                "there is no private key in {}. It must have a \"PRIVATE KEY\", \"RSA PRIVATE KEY\" or \"EC PRIVATE \
                 KEY\" section, not an encrypted one; \"openssl pkey\" decrypts",
                path.display()
            ),
            Self::BadCertificate(path, what) => {
                write!(f, "the certificate in {} cannot be used: {what}", path.display())
            }
            Self::BadKey(path, what) => write!(
                f,
                "the private key in {} cannot be used: {what}. RSA from 2048 bits up, ECDSA P-256, P-384 and P-521, and \
                 Ed25519 can",
                path.display()
            ),
            Self::Mismatch(certificate, key) => write!(
                f,
                "the private key in {} does not belong to the first certificate in {}. The server's own certificate \
                 must come first, those of the authorities after it",
                key.display(),
                certificate.display()
            ),
            Self::Setup(what) => write!(f, "TLS cannot be set up: {what}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// The certificate in use, for all cores.
pub struct Tls {
    /// The files for the next reload; `None` if certificates are installed.
    files: Mutex<Option<TlsFiles>>,
    /// The files as they were before they were read for the first time.
    first_read: Stamps,
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn ProducesTickets>,
    current: Mutex<Loaded>,
}

/// Certificate and key, for [`Tls::install`].
#[derive(Debug)]
pub struct TlsPair {
    /// The certificate and those between it and the root, in this order.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// File that it is kept in, for the log; `None` if it is only used until there is another one: clients do
    /// not trust it.
    pub path: Option<PathBuf>,
}

/// A certificate as it is used.
struct Loaded {
    /// The certificate's file.
    path: PathBuf,
    certified: Arc<CertifiedKey>,
    config: Arc<ServerConfig>,
    /// Unknown if the certificate cannot be understood; rustls and the clients decide whether it can be used.
    validity: Option<Validity>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// What is wrong with them, and what to do about it.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let ticketer = aws_lc_rs::Ticketer::new().map_err(|error| TlsError::Setup(error.to_string()))?;
        let first_read = stamps(&files);
        let loaded = read(&files, &provider, &ticketer)?;
        let (files, current) = (Mutex::new(Some(files)), Mutex::new(loaded));
        let tls = Self { files, first_read, provider, ticketer, current };
        tls.tell_validity();
        Ok(Arc::new(tls))
    }

    /// Begins with a certificate that is replaced by [`install`](Self::install) only, not from files.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn installed(pair: TlsPair) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let ticketer = aws_lc_rs::Ticketer::new().map_err(|error| TlsError::Setup(error.to_string()))?;
        let loaded = load_pair(pair, &provider, &ticketer)?;
        let (files, current) = (Mutex::new(None), Mutex::new(loaded));
        let tls = Self { files, first_read: [None; 2], provider, ticketer, current };
        tls.tell_validity();
        Ok(Arc::new(tls))
    }

    /// Takes another certificate into use, as a reload does. Challenges end.
    ///
    /// # Errors
    /// What is wrong with it; the one in use stays.
    pub fn install(&self, pair: TlsPair) -> Result<(), TlsError> {
        let new = load_pair(pair, &self.provider, &self.ticketer)?;
        drop(self.with_current(|current| std::mem::replace(current, new)));
        self.tell_validity();
        Ok(())
    }

    /// Answers handshakes of the TLS-ALPN-01 challenge with these certificates, by the name that is asked
    /// for, until they are replaced. Other handshakes are not affected.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn set_challenges(
        &self,
        pairs: Vec<(String, CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Result<(), TlsError> {
        let mut challenges = ChallengeCertificates::new();
        for (name, certificate, key) in pairs {
            let key = self.provider.key_provider.load_private_key(key);
            let key = key.map_err(|error| TlsError::Setup(error.to_string()))?;
            challenges.insert(name, Arc::new(CertifiedKey::new(vec![certificate], key)));
        }
        let certified = self.with_current(|current| Arc::clone(&current.certified));
        let config = server_config(&certified, challenges, &self.provider, &self.ticketer)?;
        // Whoever sets challenges is whoever installs certificates, so it is still the same one.
        drop(self.with_current(|current| std::mem::replace(&mut current.config, config)));
        Ok(())
    }

    /// Replaces the files. They are used from the next [`reload`](Self::reload) that succeeds. Without effect
    /// if certificates are installed.
    pub fn configure(&self, files: TlsFiles) {
        let mut current = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        *current = current.take().map(|_| files);
    }

    fn files(&self) -> Option<TlsFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with_current<R>(&self, act: impl FnOnce(&mut Loaded) -> R) -> R {
        act(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn validity(&self) -> Option<Validity> {
        self.with_current(|current| current.validity)
    }

    /// Tells the log how long the certificate is valid.
    fn tell_validity(&self) {
        let Some(validity) = self.validity() else { return };
        let path = self.with_current(|current| current.path.clone());
        let verdict = validity.at(calendar_seconds());
        if self.files().is_none()
            && let Verdict::Good(days) | Verdict::EndsSoon(days) = verdict
        {
            log::info!("the TLS certificate in {} is valid for {days} more day(s)", path.display());
            return;
        }
        let level = if matches!(verdict, Verdict::Good(_)) { log::Level::Info } else { log::Level::Warn };
        log::log!(level, "the TLS certificate in {} {verdict}", path.display());
    }

    /// What new connections use.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.with_current(|current| Arc::clone(&current.config))
    }

    /// Reads certificate and key again; connections that are open are not affected. Without effect if
    /// certificates are installed.
    ///
    /// # Errors
    /// What is wrong with them; those in use stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Some(files) = self.files() else { return Ok(()) };
        let new = read(&files, &self.provider, &self.ticketer)?;
        drop(self.with_current(|current| std::mem::replace(current, new)));
        self.tell_validity();
        Ok(())
    }

    /// What has the engine reload the certificate when told by signal and when the files change; for
    /// [`Engine::add_periodic`](aquatic_runtime::Engine::add_periodic).
    #[must_use]
    pub fn reloader(self: &Arc<Self>, registry: &Registry) -> TlsReloader {
        let metrics = registry.core(usize::MAX);
        let outcome = |outcome| metrics.counter(&names::CERTIFICATE_RELOADS, &[("outcome", outcome)]);
        let reloader = TlsReloader {
            stamps: self.first_read,
            tls: Arc::clone(self),
            next: Duration::ZERO,
            next_calendar: CALENDAR_INTERVAL,
            done: outcome("done"),
            failed: outcome("failed"),
            end: metrics.gauge(&names::CERTIFICATE_NOT_AFTER, &[]),
        };
        reloader.show_end();
        reloader
    }
}

fn read(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<Loaded, TlsError> {
    let TlsFiles { certificate, private_key } = files;
    let chain = read_chain(certificate)?;
    let key = read_key(private_key)?;
    load(chain, key, (certificate, private_key), (provider, ticketer))
}

fn load_pair(
    TlsPair { chain, key, path }: TlsPair,
    provider: &Arc<CryptoProvider>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<Loaded, TlsError> {
    let is_for_now = path.is_none();
    let path = path.unwrap_or_default();
    let loaded = load(chain, key, (&path, &path), (provider, ticketer))?;
    // Nobody is to wait for the end of a certificate that nobody trusts.
    Ok(Loaded { validity: loaded.validity.filter(|_| !is_for_now), ..loaded })
}

/// What is wrong with a certificate that rustls rejects.
fn fault(certificate: &[u8], error: &Error) -> String {
    let Ok((_, read)) = parse_x509_certificate(certificate) else {
        return "it is no X.509 certificate, or a part of it is missing".to_owned();
    };
    if read.version() != X509Version::V3 {
        return format!(
            "it is an X.509 certificate of version {}, which has no names that clients could check. Create one of \
             version 3: \"openssl req -x509\" instead of \"openssl x509 -req\", or with -extfile",
            read.version().0 + 1
        );
    }
    error.to_string()
}

/// Puts certificate and key together. The paths are those that errors name.
fn load(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    (certificate, private_key): (&Path, &Path),
    (provider, ticketer): (&Arc<CryptoProvider>, &Arc<dyn ProducesTickets>),
) -> Result<Loaded, TlsError> {
    let validity = chain.first().and_then(|certificate| Validity::of(certificate));
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| TlsError::BadKey(private_key.to_owned(), error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => {
            return Err(TlsError::Mismatch(certificate.to_owned(), private_key.to_owned()));
        }
        Err(error) => {
            let what = certified.cert.first().map_or_else(|| error.to_string(), |first| fault(first, &error));
            return Err(TlsError::BadCertificate(certificate.to_owned(), what));
        }
    }
    let certified = Arc::new(certified);
    let config = server_config(&certified, ChallengeCertificates::new(), provider, ticketer)?;
    Ok(Loaded { path: certificate.to_owned(), certified, config, validity })
}

fn server_config(
    certified: &Arc<CertifiedKey>,
    challenges: ChallengeCertificates,
    provider: &Arc<CryptoProvider>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let has_challenges = !challenges.is_empty();
    let resolver: Arc<dyn ResolvesServerCert> = if has_challenges {
        Arc::new(WithChallenges { usual: Arc::clone(certified), challenges })
    } else {
        Arc::new(SingleCertAndKey::from(CertifiedKey::clone(certified)))
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    if has_challenges {
        config.alpn_protocols.push(ACME_ALPN.to_vec());
    }
    config.ticketer = Arc::clone(ticketer);
    // Sessions are in the tickets; a store would be a lock that all cores share.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Clients of a tracker seldom open several connections at the same time.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = read_file(path)?;
    let chain = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| explain(path, error, TlsError::NoCertificate))?;
    if chain.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read_file(path)?).map_err(|error| explain(path, error, TlsError::NoKey))
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let content =
        files::read_bounded(path, MAX_FILE).map_err(|error| TlsError::Unreadable(path.to_owned(), error))?;
    Ok(files::without_byte_order_mark(&content).to_vec())
}

fn explain(path: &Path, error: pem::Error, nothing: fn(PathBuf) -> TlsError) -> TlsError {
    let path = path.to_owned();
    if matches!(error, pem::Error::NoItemsFound) {
        return nothing(path);
    }
    let what = if let pem::Error::MissingSectionEnd { end_marker } = &error {
        let label = String::from_utf8_lossy(end_marker);
        format!("it ends before the line \"-----END {label}-----\"; was it copied or written only in part?")
    } else {
        error.to_string()
    };
    TlsError::NotPem(path, what)
}

/// Those of certificate and key.
type Stamps = [Option<Stamp>; 2];

fn stamps_of(files: Option<&TlsFiles>) -> Stamps {
    files.map_or([None; 2], stamps)
}

fn stamps(files: &TlsFiles) -> Stamps {
    [Stamp::of(&files.certificate), Stamp::of(&files.private_key)]
}

/// Keeps a certificate up to date, in the main thread.
#[derive(Debug)]
pub struct TlsReloader {
    tls: Arc<Tls>,
    stamps: Stamps,
    next: Duration,
    next_calendar: Duration,
    done: Counter,
    failed: Counter,
    end: Gauge,
}

impl TlsReloader {
    fn show_end(&self) {
        let end = self.tls.validity().map_or(0, |validity| validity.to);
        self.end.set(u64::try_from(end).unwrap_or(0));
    }

    fn try_reload(&mut self) {
        // Before they are read: a change during that is seen the next time.
        let Some(files) = self.tls.files() else { return };
        self.stamps = stamps(&files);
        match self.tls.reload() {
            Ok(()) => {
                self.done.add(1);
                self.show_end();
                log::info!("TLS certificate read again: {}", files.certificate.display());
            }
            Err(error) => {
                self.failed.add(1);
                log::error!("the old TLS certificate stays in use: {error}");
            }
        }
    }
}

impl Periodic for TlsReloader {
    fn tick(&mut self, now: Duration) {
        if now >= self.next {
            self.next = now + FILE_INTERVAL;
            if stamps_of(self.tls.files().as_ref()) != self.stamps {
                self.try_reload();
            }
            self.show_end();
        }
        if now >= self.next_calendar {
            self.next_calendar = now + CALENDAR_INTERVAL;
            self.tls.tell_validity();
        }
    }

    fn reload(&mut self) {
        self.try_reload();
    }
}

#[cfg(test)]
mod tests;
