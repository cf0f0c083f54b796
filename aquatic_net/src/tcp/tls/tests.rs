//! What is said about certificates and keys.

use std::fs;

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
    place.write(&certificate[..certificate.len() / 2], &key);
    assert!(place.error().contains("no valid PEM file"), "{}", place.error());
    fs::remove_file(place.files().certificate).unwrap();
    assert!(place.error().contains("cannot read") && place.error().contains("tls_certificate_path"));
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
    reloader.reload();
    assert_eq!(reloader.done.get(), 3, "a signal reads them in any case");
}
