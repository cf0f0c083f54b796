//! TLS.
use std::path::PathBuf;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the certificate and those between it and the root, in this order.
    pub certificate: PathBuf,
    /// PEM file with the private key (PKCS #8, PKCS #1 or SEC 1).
    pub private_key: PathBuf,
}

/// The certificate in use, for all cores.
#[derive(Debug)]
pub struct Tls {}
