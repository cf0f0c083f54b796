//! Upgrades of a tracker with TLS: new connections are the successor's, those of the predecessor end.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::REPLY;
use crate::{Home, is_running, on_loopback, until_ended};

/// Time over which connections of the predecessor end.
const DRAIN_TIME: u64 = 2;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: tracker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Clients that trust one certificate only, and resume no session.
struct Clients(Arc<ClientConfig>);

impl Clients {
    fn trusting(certificate: &CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Self(Arc::new(config))
    }

    fn connect(&self, tracker: SocketAddr) -> Secure {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(tracker).unwrap();
        stream.set_read_timeout(Some(REPLY)).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(&self.0), name).unwrap(), stream)
    }

    /// Sends a request over a new connection, and returns the connection and the beginning of the reply.
    fn ask(&self, tracker: SocketAddr, request: &str) -> io::Result<(Secure, String)> {
        let mut stream = self.connect(tracker);
        let reply = ask(&mut stream, request)?;
        Ok((stream, reply))
    }
}

fn ask(stream: &mut Secure, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut reply = [0; 1024];
    let length = stream.read(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
}

fn announce(port: u16) -> String {
    format!(
        "GET /announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port={port}&left=1&uploaded=0\
         &downloaded=0&compact=1 HTTP/1.1\r\nHost: tracker\r\n\r\n"
    )
}

/// Puts a new certificate in place, which is returned.
fn certify(home: &Home) -> CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(home.path("cert.pem"), pair.cert.pem()).unwrap();
    fs::write(home.path("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    pair.cert.der().clone()
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test measures when connections end")]
fn https_and_wss_are_handed_over() {
    let home = Home::new("");
    let first = Clients::trusting(&certify(&home));
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| home.path(name).display().to_string());
    let tls = format!(
        "enable_tls = true\ntls_certificate_path = \"{certificate}\"\ntls_private_key_path = \"{key}\"\n"
    );
    let more = format!("workers = 1\n[upgrade]\ndrain_time = {DRAIN_TIME}\n[udp]\nenable = false");
    home.configure(&(on_loopback(None, &more) + &tls));
    let tracker = home.start("all", 2);
    let address = tracker.address();
    let (mut kept, reply) = first.ask(address, &announce(1000)).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    let (mut idle, _) = first.ask(address, "GET /health HTTP/1.1\r\nHost: tracker\r\n\r\n").unwrap();
    let (mut socket, reply) = first.ask(address, UPGRADE).unwrap();
    assert!(reply.starts_with("HTTP/1.1 101"), "{reply}");

    // The successor has a certificate of its own, by which it is known.
    let second = Clients::trusting(&certify(&home));
    let begin = Instant::now();
    let (upgraded, text) = home.upgrade();
    assert!(upgraded, "{text}");
    for _ in 0..8 {
        let (_, reply) = second.ask(address, &announce(1001)).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        let (_, reply) = second.ask(address, UPGRADE).unwrap();
        assert!(reply.starts_with("HTTP/1.1 101"), "{reply}");
        assert!(first.ask(address, UPGRADE).is_err(), "no new connection is the predecessor's");
    }
    // A kept connection is served once more, unless it has ended meanwhile; what it says is not lost.
    if let Ok(reply) = ask(&mut kept, &announce(1002)) {
        assert!(reply.is_empty() || reply.contains("200 OK") && reply.contains("lose"), "{reply}");
    }
    // Each ends by itself, the one of WebSocket with its status code for going away, 1001.
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "");
    socket.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(&[0x88]) && rest[2..4] == 1001_u16.to_be_bytes(), "{rest:?}");
    until_ended(tracker.id());
    // Until then the drain time may pass, and what is told apart from a connection that never ends.
    assert!(begin.elapsed() < Duration::from_secs(DRAIN_TIME) + 4 * REPLY);
    let (_, reply) = second.ask(address, &announce(1003)).unwrap();
    assert!(reply.contains("10:incompletei"), "{reply}");
    assert!(is_running(home.pid()));
}
