//! Handshakes of the TLS-ALPN-01 challenge (RFC 8737), by which an authority verifies that a name leads here.
//!
//! A handshake is one of these if `acme-tls/1` is all that the client offers. It gets the certificate of the
//! challenge for the name that it asks for, or fails; it never gets the usual one, and no other handshake
//! gets one of a challenge. While no challenge is under way, nobody looks.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Protocol of the challenge (RFC 8737, 6.2).
pub(super) const ACME_ALPN: &[u8] = b"acme-tls/1";

/// Certificates of challenges, by the name that is asked for.
pub(super) type ChallengeCertificates = BTreeMap<String, Arc<CertifiedKey>>;

/// Chooses the certificate of a handshake while challenges are under way.
#[derive(Debug)]
pub(super) struct WithChallenges {
    pub(super) usual: Arc<CertifiedKey>,
    pub(super) challenges: ChallengeCertificates,
}

impl ResolvesServerCert for WithChallenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_challenge = hello.alpn().is_some_and(|protocols| protocols.eq([ACME_ALPN]));
        if !is_challenge {
            return Some(Arc::clone(&self.usual));
        }
        self.challenges.get(&hello.server_name()?.to_ascii_lowercase()).cloned()
    }
}
