//! TLS: certificates for the tracker, clients that trust them, and strangers that do not get as far.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use rcgen::{CertifiedKey, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore,
    StreamOwned, SupportedCipherSuite,
};
use tempfile::TempDir;

use super::http::SLACK;
use super::lines::{Line, Tally, connect, watch};
use super::target::{PATIENCE, Target};

/// Connections that send nothing but empty TLS records once the handshake is done, as fast as they can.
pub(crate) fn empty_records(target: &Target, authority: &Authority, count: usize) -> Tally {
    let lines = (0..count).map(|_| {
        let mut secure = authority.connect(target);
        secure.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(secure.read(&mut [0; 1024]).unwrap() > 0);
        let StreamOwned { conn, sock } = secure;
        let Some(SupportedCipherSuite::Tls13(suite)) = conn.negotiated_cipher_suite() else {
            panic!("another version of TLS")
        };
        let (first, secrets) = conn.dangerous_extract_secrets().unwrap().tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            panic!("another cipher")
        };
        let mut encrypter = suite.aead_alg.encrypter(key, iv);
        let mut records = Vec::new();
        // The numbers that have been used, too: it takes none before them.
        for number in 0..first + EMPTY_RECORDS {
            let message = OutboundPlainMessage {
                typ: ContentType::ApplicationData,
                version: ProtocolVersion::TLSv1_2,
                payload: OutboundChunks::Single(&[]),
            };
            let record = encrypter.encrypt(message, number).unwrap();
            if number >= first {
                records.extend(record.encode());
            }
        }
        let mut line = Line::over(sock);
        line.send(&records);
        line
    });
    watch(lines.collect(), PATIENCE, |_, _| {})
}

/// Of 22 bytes each.
const EMPTY_RECORDS: u64 = 20_000;

/// A client's side of an encrypted connection.
pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A certificate and its key, in files.
pub(crate) struct Authority {
    directory: TempDir,
    generated: CertifiedKey<KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let generated = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(directory.path().join("certificate"), generated.cert.pem()).unwrap();
        std::fs::write(directory.path().join("key"), generated.signing_key.serialize_pem()).unwrap();
        Self { directory, generated }
    }

    /// What makes the tracker use them.
    pub(crate) fn settings(&self) -> Vec<String> {
        let path = |name| self.directory.path().join(name).display().to_string();
        vec![
            "network.enable_tls=true".to_owned(),
            format!("network.tls_certificate_path={}", path("certificate")),
            format!("network.tls_private_key_path={}", path("key")),
        ]
    }

    fn session(&self) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.generated.cert.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.enable_secret_extraction = true;
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }

    /// A client's connection.
    pub(crate) fn connect(&self, target: &Target) -> Secure {
        let stream = connect(0, target.address);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(self.session(), stream)
    }

    /// The first message of a client.
    fn hello(&self) -> Vec<u8> {
        let mut hello = Vec::new();
        self.session().write_tls(&mut hello).unwrap();
        hello
    }
}

/// Random bytes, requests that are not encrypted, and handshakes that turn into garbage.
pub(crate) fn garbage(target: &Target, authority: &Authority, count: usize, deadline: Duration) -> Tally {
    let mut rng = SmallRng::seed_from_u64(2);
    let lines = (0..count).map(|nth| {
        let mut noise = vec![0; rng.random_range(1..3000)];
        rng.fill_bytes(&mut noise);
        let hello = authority.hello();
        let sent = match nth % 4 {
            0 => noise,
            1 => b"GET /announce HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            2 => [&hello[..], &noise].concat(),
            _ => {
                let mut damaged = hello;
                let at = rng.random_range(0..damaged.len());
                damaged[at] ^= 0x55;
                damaged
            }
        };
        let mut line = Line::open(nth, target.address);
        line.send(&sent);
        line
    });
    watch(lines.collect(), deadline + SLACK, |_, _| {})
}

/// Handshakes that stop: before the end of the first message, or after it.
pub(crate) fn stalled(target: &Target, authority: &Authority, count: usize, deadline: Duration) -> Tally {
    let hello = authority.hello();
    let lines = (0..count).map(|nth| {
        let mut line = Line::open(nth, target.address);
        let part = if nth % 2 == 0 { hello.len() } else { hello.len() / 2 };
        assert_eq!(line.send(&hello[..part]), part);
        line
    });
    watch(lines.collect(), deadline + SLACK, |_, _| {})
}
