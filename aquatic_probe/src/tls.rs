//! Certificates of trackers, judged by the authorities that this machine trusts.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

/// Verifier that remembers its verdict, and can be told to go on in spite of it.
#[derive(Debug)]
pub(crate) struct Judge {
    /// `None` if this machine trusts no authority.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    insecure: bool,
    verdict: Mutex<Option<Result<(), String>>>,
}

impl Judge {
    pub(crate) fn new(insecure: bool) -> Arc<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let trusts_any = !roots.is_empty();
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = if trusts_any { builder.build().ok() } else { None };
        Arc::new(Self { verifier, provider, insecure, verdict: Mutex::new(None) })
    }

    /// Why the certificate is not trusted, or that it is; `None` if there has been none.
    pub(crate) fn verdict(&self) -> Option<Result<(), String>> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Client side of a connection to a host.
    ///
    /// # Errors
    /// A host that no certificate can be for.
    pub(crate) fn connection(self: &Arc<Self>, host: &str) -> Result<ClientConnection, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(self) as _;
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())
    }
}

/// What an error means for an operator.
pub(crate) fn explain(error: &Error) -> String {
    let Error::InvalidCertificate(fault) = error else { return error.to_string() };
    use CertificateError as Fault;
    if matches!(fault, Fault::UnknownIssuer) {
        "its issuer is unknown: an intermediate certificate is missing, or it is signed by itself".to_owned()
    } else if matches!(fault, Fault::Expired | Fault::ExpiredContext { .. }) {
        "it has expired".to_owned()
    } else if matches!(fault, Fault::NotValidYet | Fault::NotValidYetContext { .. }) {
        "it is not valid yet".to_owned()
    } else if matches!(fault, Fault::NotValidForName | Fault::NotValidForNameContext { .. }) {
        "it is for another host".to_owned()
    } else if matches!(fault, Fault::Other(other) if other.0.to_string() == "CaUsedAsEndEntity") {
        "it is that of an authority (signed by itself), not of a server".to_owned()
    } else {
        fault.to_string()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let result = match &self.verifier {
            Some(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(Error::General(
                "this machine trusts no authority; install ca-certificates, or use --insecure".to_owned(),
            )),
        };
        let verdict = result.as_ref().map(|_| ()).map_err(explain);
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        if self.insecure { Ok(ServerCertVerified::assertion()) } else { result }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    /// As `openssl req -x509` makes them.
    #[test]
    fn certificates_of_authorities_are_named() {
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(vec!["tracker.example".to_owned()]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from("tracker.example").unwrap();
        let result = verifier.verify_server_cert(certificate.der(), &[], &name, &[], UnixTime::now());
        assert_eq!(
            explain(&result.unwrap_err()),
            "it is that of an authority (signed by itself), not of a server"
        );
    }
}
