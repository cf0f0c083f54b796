//! `aquatic all` on ports that the system chooses, with TLS where it is wanted.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::support::{Tracker, service};
use crate::ws;

/// Connection with TLS.
pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A certificate on disk and a client configuration that trusts it.
pub(crate) struct Certificate {
    directory: TempDir,
    trusting: Arc<ClientConfig>,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), pair.cert.pem()).unwrap();
        std::fs::write(directory.path().join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
        Self { directory, trusting: trusting(pair.cert.der()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The settings that switch TLS on.
    pub(crate) fn settings(&self) -> Vec<String> {
        vec![
            "network.enable_tls=true".to_owned(),
            format!("network.tls_certificate_path={}", self.path("cert.pem").display()),
            format!("network.tls_private_key_path={}", self.path("key.pem").display()),
        ]
    }

    /// Connects with TLS; the handshake takes place with the first byte.
    pub(crate) fn connect(&self, tracker: SocketAddr) -> Secure {
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(&self.trusting), name).unwrap();
        let local = if tracker.is_ipv4() { "127.0.0.1" } else { "::1" };
        StreamOwned::new(session, ws::tcp(local, tracker))
    }
}

fn trusting(certificate: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Where `aquatic all` listens on loopback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) udp_v4: SocketAddr,
    pub(crate) udp_v6: SocketAddr,
    pub(crate) tcp_v4: SocketAddr,
    pub(crate) tcp_v6: SocketAddr,
}

/// The settings of a tracker on loopback of both families.
const LOOPBACK: [&str; 4] = [
    "network.address_ipv4=127.0.0.1:0",
    "network.address_ipv6=[::1]:0",
    "metrics.enable=true",
    "metrics.address=127.0.0.1:0",
];

/// Starts a subcommand on loopback of both families; its log names as many announce URLs.
pub(crate) fn start(subcommand: &str, urls: usize, settings: &[&str]) -> Tracker {
    Tracker::start(urls, &mut service(subcommand, &[&LOOPBACK, settings].concat()))
}

/// Starts `aquatic all` without TLS, or with plain and encrypted connections on the same port.
pub(crate) fn start_all(certificate: Option<&Certificate>, settings: &[&str]) -> (Tracker, Addresses) {
    let mut all: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
    if let Some(certificate) = certificate {
        all.extend(certificate.settings());
        all.push("network.accept_plain=true".to_owned());
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    // A URL for each family of UDP, and for each family and scheme over TCP.
    let schemes = if certificate.is_some() { 4 } else { 2 };
    let tracker = start("all", 2 + 2 * schemes, &all);
    let [udp_v4, udp_v6, ref tcp @ ..] = tracker.addresses[..] else { panic!("{:?}", tracker.addresses) };
    let (v4, v6) = tcp.split_at(schemes);
    for family in [v4, v6] {
        assert!(family.iter().all(|address| *address == family[0]), "one TCP port for all schemes: {tcp:?}");
    }
    let addresses = Addresses { udp_v4, udp_v6, tcp_v4: v4[0], tcp_v6: v6[0] };
    (tracker, addresses)
}
