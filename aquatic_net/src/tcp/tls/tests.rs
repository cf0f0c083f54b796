//! What is said about certificates and keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{CertifiedKey as Generated, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use tempfile::TempDir;

use super::*;

fn generate() -> Generated<KeyPair> {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
}

struct Place {
    directory: TempDir,
}

impl Place {
    fn new(certificate: &str, key: &str) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        place.write(certificate, key);
        place
    }

    fn files(&self) -> TlsFiles {
        let path = |name| self.directory.path().join(name);
        TlsFiles { certificate: path("cert.pem"), private_key: path("key.pem") }
    }

    fn write(&self, certificate: &str, key: &str) {
        fs::write(self.files().certificate, certificate).unwrap();
        fs::write(self.files().private_key, key).unwrap();
    }

    fn error(&self) -> String {
        Tls::load(self.files()).unwrap_err().to_string()
    }
}

#[test]
fn what_is_wrong_is_said() {
    let (first, second) = (generate(), generate());
    let (certificate, key) = (first.cert.pem(), first.signing_key.serialize_pem());
    let place = Place::new(&certificate, &second.signing_key.serialize_pem());
    assert!(place.error().contains("does not belong to the first certificate"), "{}", place.error());
    place.write("", &key);
    assert!(place.error().contains("there is no certificate in"), "{}", place.error());
    place.write(&key, &key);
    assert!(place.error().contains("there is no certificate in"), "{}", place.error());
    place.write(&certificate, &certificate);
    assert!(place.error().contains("there is no private key in"), "{}", place.error());
    place.write(&certificate, "-----BEGIN PRIVATE KEY-----\nnonsense!\n-----END PRIVATE KEY-----\n");
    assert!(place.error().contains("no valid PEM file"), "{}", place.error());
    place.write(&certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert!(
        place.error().contains("private key in") && place.error().contains("cannot be used"),
        "{}",
        place.error()
    );
    place.write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key);
    assert!(
        place.error().contains("certificate in") && place.error().contains("cannot be used"),
        "{}",
        place.error()
    );
    assert!(place.error().contains("it is no X.509 certificate"), "{}", place.error());
    place.write(include_str!("version_1.pem"), &key);
    assert!(place.error().contains("an X.509 certificate of version 1,"), "{}", place.error());
    place.write(&certificate[..certificate.len() / 2], &key);
    assert!(place.error().contains("before the line \"-----END CERTIFICATE-----\""), "{}", place.error());
    fs::remove_file(place.files().certificate).unwrap();
    assert!(place.error().contains("cannot read") && place.error().contains("tls_certificate_path"));
}

#[test]
fn files_may_begin_with_a_byte_order_mark() {
    let pair = generate();
    let marked = |text: String| format!("\u{feff}{text}");
    let place = Place::new(&marked(pair.cert.pem()), &marked(pair.signing_key.serialize_pem()));
    assert!(Tls::load(place.files()).is_ok());
}

#[test]
fn keys_of_every_kind_are_read() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        // Text around the sections, as some tools write it, is no harm, nor is a key in the same file.
        let both = format!("subject=localhost\n{}{}", certificate.pem(), key.serialize_pem());
        Tls::load(Place::new(&both, &both).files()).unwrap();
    }
    for (certificate, key) in
        [("rsa.pem", "rsa-pkcs1.key"), ("rsa.pem", "rsa-pkcs8.key"), ("ec.pem", "ec-sec1.key")]
    {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let files = TlsFiles { certificate: directory.join(certificate), private_key: directory.join(key) };
        Tls::load(files).unwrap();
    }
}

#[test]
fn a_reload_takes_a_good_certificate_and_no_other() {
    let (first, second) = (generate(), generate());
    let place = Place::new(&first.cert.pem(), &first.signing_key.serialize_pem());
    let tls = Tls::load(place.files()).unwrap();
    let before = tls.config();
    place.write(&second.cert.pem(), &first.signing_key.serialize_pem());
    assert!(matches!(tls.reload(), Err(TlsError::Mismatch(..))));
    assert!(Arc::ptr_eq(&before, &tls.config()), "the old one stays");
    place.write(&second.cert.pem(), &second.signing_key.serialize_pem());
    tls.reload().unwrap();
    assert!(!Arc::ptr_eq(&before, &tls.config()));
    assert!(Arc::ptr_eq(&before.ticketer, &tls.config().ticketer), "tickets stay valid");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test may wait")]
fn changed_files_are_noticed_and_bad_ones_reported_once() {
    let (first, second) = (generate(), generate());
    let place = Place::new(&first.cert.pem(), &first.signing_key.serialize_pem());
    let tls = Tls::load(place.files()).unwrap();
    let mut reloader = tls.reloader(&Registry::default());
    let mut counts = |at| {
        reloader.tick(Duration::from_secs(at));
        (reloader.done.get(), reloader.failed.get())
    };
    assert_eq!(counts(1), (0, 0));
    // The certificate comes first, as when they are copied one after the other.
    fs::write(place.files().certificate, second.cert.pem()).unwrap();
    assert_eq!(counts(5), (0, 0), "files are looked at every ten seconds");
    assert_eq!(counts(11), (0, 1));
    assert_eq!(counts(21), (0, 1), "nothing has changed since");
    let new_key = place.directory.path().join("new.pem");
    fs::write(&new_key, second.signing_key.serialize_pem()).unwrap();
    fs::rename(&new_key, place.files().private_key).unwrap();
    assert_eq!(counts(31), (1, 1));
    fs::remove_file(place.files().private_key).unwrap();
    assert_eq!(counts(41), (1, 2));
    assert_eq!(counts(51), (1, 2));
    place.write(&first.cert.pem(), &first.signing_key.serialize_pem());
    assert_eq!(counts(61), (2, 2));
    std::thread::sleep(Duration::from_millis(20));
    fs::set_permissions(place.files().private_key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(counts(71), (3, 2), "it may be readable only now");
    reloader.reload();
    assert_eq!(reloader.done.get(), 4, "a signal reads them in any case");
}

/// The certificate that a client sees that offers these protocols and asks for a name; `None` if the
/// handshake fails.
fn seen(tls: &Tls, protocols: &[&[u8]], name: &str) -> Option<(CertificateDer<'static>, Option<Vec<u8>>)> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = name.to_owned().try_into().unwrap();
    let mut client = rustls::Connection::from(rustls::ClientConnection::new(Arc::new(config), name).unwrap());
    let mut server = rustls::Connection::from(rustls::ServerConnection::new(tls.config()).unwrap());
    for _ in 0..4 {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    let certificate = client.peer_certificates()?.first()?.clone().into_owned();
    Some((certificate, client.alpn_protocol().map(<[u8]>::to_vec)))
}

/// Takes what one side sends to the other; `None` if that does not accept it.
fn carry(from: &mut rustls::Connection, to: &mut rustls::Connection) -> Option<()> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().ok()?;
    }
    Some(())
}

/// Trusts every certificate: what is looked at is which one it is.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn pair(name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let pair = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (pair.cert.der().clone(), PrivateKeyDer::Pkcs8(pair.signing_key.serialize_der().into()))
}

#[test]
fn only_handshakes_of_a_challenge_get_its_certificate() {
    let ((usual, key), (challenge, challenge_key)) = (pair("a.org"), pair("a.org"));
    let tls = Tls::installed(TlsPair { chain: vec![usual.clone()], key, path: None }).unwrap();
    let (http, acme): (&[u8], &[u8]) = (b"http/1.1", b"acme-tls/1");
    let usual_over_http = Some((usual.clone(), Some(http.to_vec())));
    assert_eq!(seen(&tls, &[http], "a.org"), usual_over_http);
    assert_eq!(seen(&tls, &[acme], "a.org"), None, "no challenge is under way");
    tls.set_challenges(vec![("a.org".to_owned(), challenge.clone(), challenge_key)]).unwrap();
    assert_eq!(seen(&tls, &[http], "a.org"), usual_over_http);
    assert_eq!(seen(&tls, &[acme, http], "a.org"), usual_over_http);
    assert_eq!(seen(&tls, &[], "a.org"), Some((usual, None)));
    assert_eq!(seen(&tls, &[acme], "A.org"), Some((challenge, Some(acme.to_vec()))));
    assert_eq!(seen(&tls, &[acme], "b.org"), None, "another name");
    tls.set_challenges(Vec::new()).unwrap();
    assert_eq!(seen(&tls, &[acme], "a.org"), None);
}

#[test]
fn an_installed_certificate_replaces_a_placeholder_and_bad_ones_nothing() {
    let ((first, key), (second, second_key), (third, _)) = (pair("a.org"), pair("a.org"), pair("a.org"));
    let tls = Tls::installed(TlsPair { chain: vec![first], key, path: None }).unwrap();
    assert_eq!(tls.validity(), None, "nobody waits for its end");
    let path = Some(PathBuf::from("/state/certificate.pem"));
    tls.install(TlsPair { chain: vec![second.clone()], key: second_key.clone_key(), path: path.clone() })
        .unwrap();
    assert!(tls.validity().is_some());
    let mismatch = tls.install(TlsPair { chain: vec![third], key: second_key, path });
    assert!(matches!(mismatch, Err(TlsError::Mismatch(..))));
    tls.configure(TlsFiles { certificate: "/none".into(), private_key: "/none".into() });
    tls.reload().unwrap();
    assert_eq!(seen(&tls, &[], "a.org").unwrap().0, second);
}
