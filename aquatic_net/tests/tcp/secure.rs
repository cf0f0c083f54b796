//! TLS.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};
use tempfile::TempDir;

use crate::client::{PATIENCE, Server, ask, core_of, now, pause, time_to_end};

pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Certificate and key on disk, and clients that trust them.
pub(crate) struct Authority {
    pub(crate) directory: TempDir,
    generated: CertifiedKey<KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self { directory: tempfile::tempdir().unwrap(), generated: generate() };
        authority.write(&authority.generated);
        authority
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn setting(&self) -> (&'static str, &str) {
        ("TLS_DIRECTORY", self.path().to_str().unwrap())
    }

    fn write(&self, pair: &CertifiedKey<KeyPair>) {
        self.replace("cert.pem", &pair.cert.pem());
        self.replace("key.pem", &pair.signing_key.serialize_pem());
    }

    /// Replaces a file by renaming another one, so that nobody reads half of it.
    fn replace(&self, name: &str, text: &str) {
        let new = self.path().join("new.pem");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path().join(name)).unwrap();
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        client(&[self.generated.cert.der().clone()], &[&version::TLS13])
    }
}

fn generate() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
}

/// A client that trusts these certificates and keeps the sessions it is given.
fn client(
    trusted: &[CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

pub(crate) fn secure(stream: TcpStream, config: &Arc<ClientConfig>) -> Secure {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

fn certificate_of(stream: &Secure) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

const FULL: &str = "aquatic_tls_handshakes_total{protocol=\"lines\",outcome=\"full\"}";
const RESUMED: &str = "aquatic_tls_handshakes_total{protocol=\"lines\",outcome=\"resumed\"}";
const FAILED: &str = "aquatic_tls_handshakes_total{protocol=\"lines\",outcome=\"failed\"}";

#[test]
fn both_versions_end_in_order() {
    let authority = Authority::new();
    let server = Server::start(&[authority.setting(), ("ANSWER", "20000")]);
    let trusted = [authority.generated.cert.der().clone()];
    for (version, number) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let config = client(&trusted, &[version]);
        let mut stream = secure(server.connect(), &config);
        assert!(core_of(&mut stream).is_some());
        assert_eq!(stream.conn.protocol_version(), Some(number));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        stream.write_all(b"big\n").unwrap();
        let mut answer = vec![0; crate::server::BIG];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer.iter().all(|&byte| byte == b'x'));
        assert_eq!(ask(&mut stream, "bye").as_deref(), Some("bye"));
        // Without close_notify this is an error.
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    server.until(Server::OPEN, 0);
    server.stop();
}

#[test]
fn sessions_are_resumed_on_every_core() {
    let authority = Authority::new();
    let server = Server::start(&[authority.setting()]);
    let trusted = [authority.generated.cert.der().clone()];
    for version in [&version::TLS12, &version::TLS13] {
        let config = client(&trusted, &[version]);
        let mut open = Vec::new();
        let mut resumed = [0; 2];
        for n in 0..20 {
            let mut stream = secure(server.connect(), &config);
            let core = core_of(&mut stream).unwrap();
            match stream.conn.handshake_kind() {
                Some(HandshakeKind::Resumed) => resumed[core] += 1,
                other => assert_eq!(n, 0, "{other:?}"),
            }
            open.push(stream);
        }
        // The first session was made on one core, and connections are spread over both.
        assert!(resumed.iter().all(|&count| count > 5), "{version:?}: {resumed:?}");
    }
    server.until(FULL, 2);
    server.until(RESUMED, 38);
    server.stop();
}

#[test]
fn a_new_certificate_leaves_open_connections_alone() {
    let authority = Authority::new();
    let mut server = Server::start(&[authority.setting()]);
    let (first, second) = (authority.generated.cert.der().clone(), generate());
    let config = client(&[first.clone(), second.cert.der().clone()], &[&version::TLS13]);
    let fresh = || client(&[first.clone(), second.cert.der().clone()], &[&version::TLS13]);
    let mut open = secure(server.connect(), &config);
    assert!(core_of(&mut open).is_some());
    assert_eq!(certificate_of(&open), first);

    // The certificate alone does not fit to the key that is there.
    authority.replace("cert.pem", &second.cert.pem());
    server.child.signal(rustix::process::Signal::USR1);
    server.child.expect("the old TLS certificate stays in use: the private key in ");
    let mut stream = secure(server.connect(), &fresh());
    assert!(core_of(&mut stream).is_some());
    assert_eq!(certificate_of(&stream), first);

    // Without a signal: the files are looked at.
    authority.replace("key.pem", &second.signing_key.serialize_pem());
    server.child.expect("TLS certificate read again: ");
    for _ in 0..8 {
        let mut stream = secure(server.connect(), &fresh());
        assert!(core_of(&mut stream).is_some());
        assert_eq!(&certificate_of(&stream), second.cert.der());
    }
    assert!(core_of(&mut open).is_some(), "the connection from before goes on");
    let mut resumed = secure(server.connect(), &config);
    assert!(core_of(&mut resumed).is_some());
    assert_eq!(resumed.conn.handshake_kind(), Some(HandshakeKind::Resumed), "its session is still known");
    // The files are looked at about when the signal comes, too, so that either may happen twice.
    for outcome in ["failed", "done"] {
        let reloads = server.metric(&format!("aquatic_certificate_reloads_total{{outcome=\"{outcome}\"}}"));
        assert!((1..=2).contains(&reloads), "{outcome}: {reloads}");
    }
    server.stop();
}

#[test]
fn a_key_of_another_certificate_refuses_to_start() {
    let authority = Authority::new();
    authority.replace("key.pem", &generate().signing_key.serialize_pem());
    let ended = crate::child::Child::start("lines", &[authority.setting()]).wait(PATIENCE);
    assert_eq!(ended.code, Some(3));
    assert!(ended.output.contains("does not belong to the first certificate"), "{}", ended.output);
}

#[test]
fn handshakes_have_a_deadline_and_garbage_an_end() {
    let authority = Authority::new();
    let server =
        Server::start(&[authority.setting(), ("HANDSHAKE", "1000"), ("HANDSHAKES", "4"), ("HEAD", "600000")]);
    let config = authority.client();
    let mut healthy = secure(server.connect(), &config);
    assert!(core_of(&mut healthy).is_some());

    let begin = now();
    let mut silent = server.connect();
    // More halves of first messages than there may be handshakes; they do not count as such.
    let mut halves: Vec<_> = (0..60).map(|_| server.connect()).collect();
    for stream in &mut halves {
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    }
    assert!(core_of(&mut healthy).is_some(), "who is in is served");
    for stream in halves.iter_mut().chain([&mut silent]) {
        time_to_end(stream);
    }
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(900) && took < PATIENCE, "{took:?}");
    assert_eq!((server.refused("handshakes"), server.evicted("handshakes")), (0, 0));
    assert_eq!(server.timeouts("handshake"), 61);

    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 5000], &[0x16; 300]] {
        let mut stream = server.connect();
        stream.write_all(garbage).unwrap();
        assert!(time_to_end(&mut stream) < PATIENCE);
    }
    let mut stream = secure(server.connect(), &config);
    assert!(core_of(&mut stream).is_some(), "slots have come back");
    server.until(Server::OPEN, 2);
    assert!(server.metric(FAILED) >= 4);
    server.stop();
}

#[test]
fn a_handshake_in_single_bytes_works() {
    let authority = Authority::new();
    let server = Server::start(&[authority.setting(), ("HANDSHAKE", "5000")]);
    let stream = server.connect();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(authority.client(), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    for byte in hello {
        (&stream).write_all(&[byte]).unwrap();
    }
    let mut stream = StreamOwned::new(session, stream);
    assert!(core_of(&mut stream).is_some());
    server.stop();
}

#[test]
fn a_stream_cut_off_is_told_from_one_that_has_ended() {
    let authority = Authority::new();
    let server = Server::start(&[authority.setting(), ("IDLE", "500")]);
    let mut idle = secure(server.connect(), &authority.client());
    assert!(core_of(&mut idle).is_some());
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0, "a goodbye");
    let mut halfway = secure(server.connect(), &authority.client());
    halfway.write_all(b"wh").unwrap();
    assert_eq!(halfway.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::UnexpectedEof);

    // A client that goes without a word, and one that says goodbye and waits for the answer.
    let mut rude = secure(server.connect(), &authority.client());
    assert!(core_of(&mut rude).is_some());
    drop(rude);
    let mut polite = secure(server.connect(), &authority.client());
    assert!(core_of(&mut polite).is_some());
    polite.conn.send_close_notify();
    polite.flush().unwrap();
    assert_eq!(polite.read(&mut [0; 1]).unwrap(), 0);
    pause(Duration::from_millis(100));
    server.until(Server::OPEN, 0);
    server.stop();
}
