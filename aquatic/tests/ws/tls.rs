//! WebSocket over TLS.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{Client, Got, peer, request, start, tcp};
use crate::support::torrent;

type Secure = Client<StreamOwned<ClientConnection, TcpStream>>;

fn connect(config: &Arc<ClientConfig>, tracker: SocketAddr) -> Secure {
    let session =
        ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap();
    Client::over(StreamOwned::new(session, tcp("127.0.0.1", tracker)), request())
}

#[test]
fn browsers_meet_over_tls() {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let tracker = start(&[
        "network.enable_tls=true",
        &format!("network.tls_certificate_path={}", certificate.display()),
        &format!("network.tls_private_key_path={}", key.display()),
    ]);
    let [mut one, mut two] = [(); 2].map(|()| connect(&config, tracker.address()));
    for number in 0..10 {
        one.announce(torrent(number), peer(1), 1, &[]);
        assert_eq!(two.announce(torrent(number), peer(2), 1, &["x"]).counts(), (0, 2));
        let (from, id) = one.next().offer();
        one.answer(torrent(number), peer(1), from, &id);
        assert!(matches!(two.next(), Got::Answer { .. }));
    }
    assert!(tungstenite::client(request(), tcp("127.0.0.1", tracker.address())).is_err(), "not without TLS");
    tracker.signal("TERM");
    assert_eq!(one.next(), Got::Close(Some(1001)));
    assert_eq!(tracker.end().0, Some(0));
}
