//! Certificates as clients see them: what is in them, and whether a client of this machine would trust them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use x509_parser::prelude::{GeneralName, X509Certificate};

/// Maximum number of names that are shown.
const MAX_NAMES: usize = 8;

/// A chain of certificates as the tracker sends it.
#[derive(Debug)]
pub(crate) struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    /// DNS names and addresses of the first one.
    pub(crate) names: Vec<String>,
    /// Whether the first one is signed by its own key.
    pub(crate) is_self_signed: bool,
    /// Whether each is issued by the next.
    pub(crate) in_order: bool,
}

impl Chain {
    /// Reads a PEM file; `None` if it has no certificate that can be understood, which `--check-config`
    /// reports.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let pem = fs::read(path).ok()?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().ok()?;
        let parsed: Vec<X509Certificate<'_>> = certificates
            .iter()
            .map(|der| x509_parser::parse_x509_certificate(der).map(|(_, certificate)| certificate))
            .collect::<Result<_, _>>()
            .ok()?;
        let first = parsed.first()?;
        let is_self_signed = first.issuer().as_raw() == first.subject().as_raw();
        let in_order = parsed.windows(2).all(|pair| match pair {
            [issued, issuer] => issued.issuer().as_raw() == issuer.subject().as_raw(),
            _ => true,
        });
        let names = names(first);
        drop(parsed);
        Some(Self { certificates, names, is_self_signed, in_order })
    }

    /// The first certificate in DER.
    pub(crate) fn first(&self) -> &[u8] {
        self.certificates.first().map_or(&[], |certificate| certificate)
    }

    /// Number of certificates.
    pub(crate) fn length(&self) -> usize {
        self.certificates.len()
    }

    /// Its names, not too many of them.
    pub(crate) fn names_shown(&self) -> String {
        match self.names.get(..MAX_NAMES) {
            Some(first) if self.names.len() > MAX_NAMES => format!("{} and others", first.join(", ")),
            _ => self.names.join(", "),
        }
    }

    /// Whether it is for a name; `None` if that is neither a DNS name nor an address.
    pub(crate) fn is_for(&self, name: &str) -> Option<bool> {
        let name = ServerName::try_from(name).ok()?;
        let certificate = self.certificates.first()?;
        let parsed = rustls::server::ParsedCertificate::try_from(certificate).ok()?;
        Some(rustls::client::verify_server_name(&parsed, &name).is_ok())
    }

    /// Why clients that trust the authorities of this machine do not trust it for a name; `None` if they do.
    pub(crate) fn distrust(&self, name: &str, now: i64, roots: RootCertStore) -> Option<String> {
        let Ok(name) = ServerName::try_from(name.to_owned()) else {
            return Some(format!("{name} is no name that a certificate can be for"));
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() {
            Ok(verifier) => verifier,
            Err(error) => return Some(error.to_string()),
        };
        let (first, rest) = self.certificates.split_first()?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        match verifier.verify_server_cert(first, rest, &name, &[], now) {
            Ok(_) => None,
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Some(
                "its issuer is unknown: the file lacks an intermediate certificate, or the authority is none that \
                 systems trust"
                    .to_owned(),
            ),
            Err(error) => Some(error.to_string()),
        }
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| {
        if let GeneralName::DNSName(name) = name {
            Some((*name).to_owned())
        } else if let GeneralName::IPAddress(bytes) = name {
            address(bytes)
        } else {
            None
        }
    };
    alternative.value.general_names.iter().filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string()),
        _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
    }
}

/// The authorities that programs of this machine trust.
pub(crate) fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
