//! HTTPS.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, HandshakeKind, ProtocolVersion,
    RootCertStore, StreamOwned, SupportedCipherSuite, SupportedProtocolVersion, version,
};
use tempfile::TempDir;

use crate::client::{Client, Plain, announce, command, request, scrape, start};
use crate::support::{Ends, REPLY, Tracker, eventually, metric, torrent};

type Secure = Client<StreamOwned<ClientConnection, TcpStream>>;

/// Certificate and key on disk.
struct Files(TempDir);

impl Files {
    fn new(pair: &CertifiedKey<KeyPair>) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(pair);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, pair: &CertifiedKey<KeyPair>) {
        fs::write(self.path("cert.pem"), pair.cert.pem()).unwrap();
        fs::write(self.path("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    }

    fn settings(&self) -> [String; 3] {
        let setting = |key: &str, name| format!("network.tls_{key}_path={}", self.path(name).display());
        [
            "network.enable_tls=true".to_owned(),
            setting("certificate", "cert.pem"),
            setting("private_key", "key.pem"),
        ]
    }

    fn start(&self, more: &[&str]) -> Tracker {
        let settings = self.settings();
        start(&[&settings.each_ref().map(String::as_str)[..], more].concat())
    }
}

fn pair() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
}

fn trusting(
    certificates: &[&CertificateDer<'static>],
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    certificates.iter().for_each(|certificate| roots.add((*certificate).clone()).unwrap());
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let mut config = builder
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn connect(config: &Arc<ClientConfig>, tracker: SocketAddr) -> Secure {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let stream = TcpStream::connect(tracker).unwrap();
    stream.set_read_timeout(Some(REPLY)).unwrap();
    Client::over(StreamOwned::new(session, stream))
}

#[test]
fn both_versions_serve_and_say_goodbye() {
    let pair = pair();
    let tracker = Files::new(&pair).start(&[]);
    for version in [&version::TLS12, &version::TLS13] {
        let config = trusting(&[pair.cert.der()], version);
        let mut client = connect(&config, tracker.address());
        for number in 0..20 {
            client.get(&announce(&torrent(number), 1, "")).announce();
        }
        assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(client.stream.conn.protocol_version(), Some(version.version));
        let all: Vec<_> = (0..20).map(torrent).collect();
        client.send([request("/health"), request(&scrape(&all))].concat());
        assert_eq!(client.response().status(), 200);
        assert!(client.response().files().iter().all(|file| file.incomplete == 1));
        client.send("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n");
        client.response();
        // Without a close_notify this would be an error.
        client.ends();
    }
    assert_eq!(version::TLS12.version, ProtocolVersion::TLSv1_2);
}

/// A socket that sends and receives a few bytes at a time.
struct InPieces {
    stream: TcpStream,
    most: usize,
}

impl Read for InPieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.most.min(buffer.len());
        self.stream.read(&mut buffer[..most])
    }
}

impl Write for InPieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(&bytes[..self.most.min(bytes.len())])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn messages_of_tls_may_come_in_pieces_and_in_many_records() {
    let pair = pair();
    let tracker = Files::new(&pair).start(&[]);
    for version in [&version::TLS12, &version::TLS13] {
        for (bytes_per_write, bytes_per_record) in
            [(1, None), (7, Some(32)), (100_000, Some(32)), (40, Some(64))]
        {
            let mut config = Arc::unwrap_or_clone(trusting(&[pair.cert.der()], version));
            config.max_fragment_size = bytes_per_record;
            let name = ServerName::try_from("localhost").unwrap();
            let session = ClientConnection::new(Arc::new(config), name).unwrap();
            let stream = TcpStream::connect(tracker.address()).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(REPLY)).unwrap();
            let pieces = InPieces { stream, most: bytes_per_write };
            let mut client = Client::over(StreamOwned::new(session, pieces));
            for number in 0..3 {
                let reply = client.get(&announce(&torrent(number), 1, ""));
                assert_eq!(reply.announce().incomplete, Some(1), "{bytes_per_write}, {bytes_per_record:?}");
            }
        }
    }
}

/// A tracker over TLS with metrics, and what reads how many faults of a kind it has counted.
fn counting(pair: &CertifiedKey<KeyPair>) -> (Tracker, impl Fn(&str) -> f64) {
    let tracker = Files::new(pair).start(&["metrics.enable=true", "metrics.address=127.0.0.1:0"]);
    let metrics = tracker.metrics.unwrap();
    let faults = move |reason: &str| {
        metric(metrics, &format!("aquatic_tls_faults_total{{protocol=\"http\",reason=\"{reason}\"}}"))
    };
    (tracker, faults)
}

#[test]
fn keys_may_be_updated_between_requests_but_not_endlessly() {
    let pair = pair();
    let (tracker, faults) = counting(&pair);
    let mut client = connect(&trusting(&[pair.cert.der()], &version::TLS13), tracker.address());
    for number in 0..5 {
        client.get(&announce(&torrent(number), 1, "")).announce();
        (0..20).for_each(|_| client.stream.conn.refresh_traffic_keys().unwrap());
    }
    client.get(&announce(&torrent(5), 1, "")).announce();
    assert_eq!(faults("misbehaved"), 0.0);
    (0..100).for_each(|_| client.stream.conn.refresh_traffic_keys().unwrap());
    let written = client.stream.write_all(request("/health").as_ref());
    eventually(|| faults("misbehaved"), |count| *count == 1.0);
    // It may have been closed while it was still written to.
    assert!(written.is_err() || matches!(client.stream.read(&mut [0; 100]), Ok(0) | Err(_)));
}

#[test]
fn an_attempt_to_renegotiate_is_refused_and_a_second_one_ends_the_connection() {
    let pair = pair();
    let (tracker, faults) = counting(&pair);
    let mut config = Arc::unwrap_or_clone(trusting(&[pair.cert.der()], &version::TLS12));
    config.enable_secret_extraction = true;
    let mut client = connect(&Arc::new(config), tracker.address());
    client.get(&announce(&torrent(1), 1, "")).announce();
    let StreamOwned { conn, mut sock } = client.stream;
    let mut records = Records::after(conn);
    let hello = hello(&pair);
    let again = records.encrypt(ContentType::Handshake, &hello[5..]);
    let asked = records.encrypt(ContentType::ApplicationData, request("/health").as_ref());
    sock.write_all(&[again, asked].concat()).unwrap();
    assert_eq!([next_record(&mut sock), next_record(&mut sock)], [u8::from(ContentType::Alert), 23]);
    assert_eq!(faults("misbehaved"), 0.0);
    sock.write_all(&records.encrypt(ContentType::Handshake, &hello[5..])).unwrap();
    assert_eq!(next_record(&mut sock), u8::from(ContentType::Alert));
    assert_eq!(sock.read(&mut [0; 100]).unwrap(), 0, "the connection has ended");
    eventually(|| faults("misbehaved"), |count| *count == 1.0);
}

/// A client's records of TLS 1.2, made by hand.
struct Records {
    encrypter: Box<dyn MessageEncrypter>,
    next: u64,
}

impl Records {
    /// Those that follow what the connection has sent.
    fn after(connection: ClientConnection) -> Self {
        let Some(SupportedCipherSuite::Tls12(suite)) = connection.negotiated_cipher_suite() else {
            panic!("another version of TLS")
        };
        let (next, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
        let encrypter = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                let (fixed, explicit) = iv.as_ref().split_at(4);
                suite.aead_alg.encrypter(key, fixed, explicit)
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                suite.aead_alg.encrypter(key, iv.as_ref(), &[])
            }
            _ => panic!("another cipher"),
        };
        Self { encrypter, next }
    }

    fn encrypt(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        self.next += 1;
        self.encrypter.encrypt(message, self.next - 1).unwrap().encode()
    }
}

/// The content type of the next record.
fn next_record(socket: &mut TcpStream) -> u8 {
    let mut head = [0; 5];
    socket.read_exact(&mut head).unwrap();
    let [kind, _, _, high, low] = head;
    socket.read_exact(&mut vec![0; u16::from_be_bytes([high, low]).into()]).unwrap();
    kind
}

/// The first message of a client.
fn hello(pair: &CertifiedKey<KeyPair>) -> Vec<u8> {
    let config = trusting(&[pair.cert.der()], &version::TLS13);
    let mut session = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn an_overload_by_handshakes_is_told_when_it_begins_and_ends() {
    let pair = pair();
    let mut tracker = Files::new(&pair).start(&[
        "workers=1",
        "connections.max_queued_tls_handshakes=1",
        "rate_limits.exempt=[]",
        "metrics.enable=true",
        "metrics.address=127.0.0.1:0",
    ]);
    let (address, metrics) = (tracker.address(), tracker.metrics.unwrap());
    // One per network, so that none asks for much.
    let mut clients: Vec<_> =
        (1..=100).map(|network| Plain::connect_from(&format!("127.1.{network}.1"), address)).collect();
    let hellos: Vec<_> = clients.iter().map(|_| hello(&pair)).collect();
    clients.iter_mut().zip(&hellos).for_each(|(client, hello)| client.send(hello));
    let began = tracker.wait_for_log("TLS overload of core 0 (ipv4): ");
    assert!(began.contains("of clients that ask for little were rejected within"), "{began}");
    eventually(
        || metric(metrics, "aquatic_overloaded{protocol=\"http\",family=\"ipv4\"}"),
        |overloaded| *overloaded == 0.0,
    );
    let refused =
        metric(metrics, "aquatic_connections_refused_total{protocol=\"http\",reason=\"handshakes\"}");
    let ended = tracker.wait_for_log("TLS overload of core 0 (ipv4) has ended after ");
    let told = ended.split("; ").nth(1).unwrap().split(' ').next().unwrap().parse::<f64>().unwrap();
    // On a machine that is busy otherwise a network may have come to ask for much.
    assert!((1.0..=refused).contains(&told), "{refused}: {ended}");
    let mut served = connect(&trusting(&[pair.cert.der()], &version::TLS13), address);
    served.get(&announce(&torrent(1), 1, "")).announce();
}

#[test]
fn faults_of_tls_clients_are_counted_by_reason() {
    let pair = pair();
    let (tracker, faults) = counting(&pair);
    let address = tracker.address();
    let hello = || hello(&pair);
    let send = |bytes: &[u8]| {
        let mut client = Plain::connect(address);
        client.send(bytes);
        client
    };
    // Half a message, and then the end.
    drop(send(&hello()[..100]));
    eventually(|| faults("closed"), |count| *count == 1.0);
    // A record of a type that there is not, behind a whole first message.
    let _unknown = send(&[&hello()[..], &[0x77; 50]].concat());
    eventually(|| faults("not_tls"), |count| *count == 1.0);
    // A first message whose lengths are wrong.
    let mut damaged = hello();
    damaged[43] = 0xff;
    let _damaged = send(&damaged);
    eventually(|| faults("malformed"), |count| *count == 1.0);
    // A record that is encrypted with no key.
    let forged = [0x17, 3, 3, 0, 32].into_iter().chain([7; 32]).collect::<Vec<u8>>();
    let _forged = send(&[hello(), forged.clone()].concat());
    eventually(|| faults("decryption"), |count| *count == 1.0);
    // The same on a connection that was served before.
    let config = trusting(&[pair.cert.der()], &version::TLS13);
    let mut client = connect(&config, address);
    assert_eq!(client.get("/health").status(), 200);
    client.stream.sock.write_all(&forged).unwrap();
    eventually(|| faults("decryption"), |count| *count == 2.0);
    // A client that does not trust the certificate says so.
    let stranger = self::pair();
    let mut client = connect(&trusting(&[stranger.cert.der()], &version::TLS13), address);
    assert!(client.stream.write_all(b"x").is_err());
    eventually(|| faults("alert"), |count| *count == 1.0);
}

#[test]
fn plain_and_encrypted_connections_have_addresses_of_their_own_or_share_one() {
    let pair = pair();
    let files = Files::new(&pair);
    let config = trusting(&[pair.cert.der()], &version::TLS13);
    let settings = files.settings();
    let settings = settings.each_ref().map(String::as_str);
    let mut apart = command(&[&settings[..], &["network.tls_address_ipv4=127.0.0.1:0"]].concat());
    let tracker = Tracker::start(2, &mut apart);
    let [plain, encrypted] = tracker.addresses[..] else { panic!("{:?}", tracker.addresses) };
    assert_eq!(Plain::connect(plain).get("/health").status(), 200);
    assert_eq!(connect(&config, encrypted).get("/health").status(), 200);

    let tracker = files.start(&["network.accept_plain=true"]);
    assert_eq!(Plain::connect(tracker.address()).get("/health").status(), 200);
    assert_eq!(connect(&config, tracker.address()).get("/health").status(), 200);
}

#[test]
fn sessions_are_resumed_on_whichever_core() {
    let pair = pair();
    let tracker = Files::new(&pair).start(&[]);
    for version in [&version::TLS12, &version::TLS13] {
        let config = trusting(&[pair.cert.der()], version);
        let kinds: Vec<_> = (0..20)
            .map(|_| {
                let mut client = connect(&config, tracker.address());
                client.get("/health");
                client.stream.conn.handshake_kind().unwrap()
            })
            .collect();
        assert_eq!(kinds[0], HandshakeKind::Full);
        assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
    }
}

#[test]
fn certificates_are_read_again_and_bad_ones_are_not_used() {
    let (first, second) = (pair(), pair());
    let files = Files::new(&first);
    let mut tracker = files.start(&[]);
    let (trusts_first, trusts_second) =
        (trusting(&[first.cert.der()], &version::TLS13), trusting(&[second.cert.der()], &version::TLS13));
    let mut open = connect(&trusts_first, tracker.address());
    assert_eq!(open.get("/health").status(), 200);

    files.write(&second);
    tracker.signal("USR1");
    tracker.wait_for_log("TLS certificate read again");
    assert_eq!(connect(&trusts_second, tracker.address()).get("/health").status(), 200);
    assert_eq!(open.get("/health").status(), 200, "open connections are not affected");

    fs::write(files.path("cert.pem"), "no certificate").unwrap();
    tracker.signal("USR1");
    assert!(tracker.wait_for_log("the old TLS certificate stays in use").contains("cert.pem"));
    assert_eq!(connect(&trusts_second, tracker.address()).get("/health").status(), 200);
    // Without a signal, the change of the files is noticed.
    files.write(&first);
    tracker.wait_for_log("TLS certificate read again");
    assert_eq!(connect(&trusts_first, tracker.address()).get("/health").status(), 200);
}

#[test]
fn whoever_does_not_speak_tls_is_not_waited_for() {
    let pair = pair();
    let tracker = Files::new(&pair).start(&["connections.handshake_timeout=1"]);
    let mut plain = Plain::connect(tracker.address());
    plain.send(request("/health"));
    let mut answer = Vec::new();
    assert!(plain.stream.read_to_end(&mut answer).is_ok(), "the connection ends in order");
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(
        answer.ends_with("This port requires TLS: use https:// or wss:// in the announce URL.\n"),
        "{answer}"
    );
    let mut silent = Plain::connect(tracker.address());
    let mut stuck = Plain::connect(tracker.address());
    stuck.send([0x16, 3, 1, 2, 0, 1, 0]);
    for client in [&mut silent, &mut stuck] {
        let ended = client.stream.read(&mut [0; 100]);
        assert!(!matches!(ended, Err(ref error) if error.kind() == ErrorKind::WouldBlock), "{ended:?}");
    }
    let config = trusting(&[pair.cert.der()], &version::TLS13);
    assert_eq!(connect(&config, tracker.address()).get("/health").status(), 200);
}

#[test]
fn expired_and_expiring_certificates_are_spoken_of() {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let signing_key = KeyPair::generate().unwrap();
    let expired = CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key };
    let files = Files::new(&expired);
    let settings = files.settings();
    let mut command = command(&settings.each_ref().map(String::as_str));
    let mut tracker = Tracker::start(0, &mut command);
    let checked = command.arg("--check-config").ends();
    let told = String::from_utf8(checked.stdout).unwrap() + str::from_utf8(&checked.stderr).unwrap();
    assert!(checked.status.success() && told.contains("has expired"), "{told}");
    assert!(tracker.wait_for_log("has expired").contains("WARN"));
    files.write(&pair());
    tracker.wait_for_log("listening");
    tracker.signal("USR1");
    assert!(tracker.wait_for_log("is valid for").contains("more days"));
}
