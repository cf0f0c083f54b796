//! TLS client configuration.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::settings::TlsConfig;

/// Number of servers whose sessions are stored.
const REMEMBERED_SERVERS: usize = 1;

/// TLS configuration shared by all connections.
#[derive(Clone, Debug)]
pub struct TlsClient {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_name: ServerName<'static>,
}

impl TlsClient {
    /// Creates the configuration, or returns `None` if TLS is off. Reads the trusted certificates.
    ///
    /// # Errors
    /// When the certificates cannot be read, or the server name is invalid.
    pub fn new(settings: &TlsConfig) -> anyhow::Result<Option<Self>> {
        if !settings.enable {
            return Ok(None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let mut config = if settings.verify_certificate {
            builder.with_root_certificates(roots(settings)?).with_no_client_auth()
        } else {
            let verifier = Arc::new(AcceptAnyCertificate { provider });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        };
        config.resumption = if settings.resumption {
            Resumption::in_memory_sessions(REMEMBERED_SERVERS)
        } else {
            Resumption::disabled()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server_name = ServerName::try_from(settings.server_name.clone()).with_context(|| {
            format!("tls.server_name: {:?} is not a valid server name", settings.server_name)
        })?;
        Ok(Some(Self { config: Arc::new(config), server_name }))
    }
}

fn roots(settings: &TlsConfig) -> anyhow::Result<RootCertStore> {
    let path = &settings.ca_path;
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).with_context(|| format!("cannot read {}", path.display()))?;
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("cannot read {}", path.display()))?;
        roots.add(certificate).with_context(|| format!("{}: invalid certificate", path.display()))?;
    }
    ensure!(!roots.is_empty(), "{} contains no certificate", path.display());
    Ok(roots)
}

/// Verifier that accepts any certificate.
#[derive(Debug)]
struct AcceptAnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
