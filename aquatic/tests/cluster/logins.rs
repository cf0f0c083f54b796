//! Logins to NATS servers: with nkeys, credentials and certificates, and with wrong ones. A tracker that is
//! refused says why, and serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aquatic_common::AnnounceEvent;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer};
use serde_json::{Value, json};

use crate::nats::Server;
use crate::{Cluster, torrent, wait_for_counts};

/// What the walk-through of docs/cluster-nodes.md lets a node do.
const PERMISSIONS: &str =
    r#"permissions: { publish: ["aquatic.aquatic.>"], subscribe: ["aquatic.aquatic.>"] }"#;

/// Settings of a node, each `KEY=VALUE`.
type Login = Vec<String>;

impl Cluster {
    /// A server with a configuration, which is made in the directory of the cluster.
    fn with_server(configuration: impl FnOnce(&Path) -> String) -> Option<Self> {
        let mut cluster = Self::new()?;
        let path = cluster.directory.path().join("nats.conf");
        fs::write(&path, configuration(cluster.directory.path())).unwrap();
        let program = crate::nats::program()?;
        cluster.server = Server::start(&program, &["-c", path.to_str().unwrap()]);
        Some(cluster)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file that only its owner reads, and returns the setting that names it.
    fn private(&self, key: &str, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        format!("cluster.{key}={}", self.path(name).display())
    }

    /// Nodes with these logins hear each other.
    fn assert_meet(&self, logins: [&Login; 2]) {
        let mut number = 0;
        let [a, b] = logins.map(|login| {
            number += 1;
            self.start(&format!("node-{number}"), &login.iter().map(String::as_str).collect::<Vec<_>>())
        });
        for node in [&a, &b] {
            node.wait_for("aquatic_cluster_connected", |connected| connected == 1.0);
        }
        a.client().announce(torrent(1), 1000, AnnounceEvent::Started);
        wait_for_counts(&b.client(), torrent(1), [0, 0, 1]);
        assert_eq!(self.verdict(logins[0]).0, "ok");
    }

    /// A node with this login says what is wrong, and serves. So does `aquatic doctor`.
    fn assert_refused(&self, login: &Login, text: &str) {
        let settings: Vec<&str> = login.iter().map(String::as_str).collect();
        let mut node = self.start("refused", &settings);
        let line = node.0.wait_for_log("no NATS server can be used");
        assert!(line.contains(text), "{line}");
        let client = node.client();
        client.announce(torrent(2), 1000, AnnounceEvent::Started);
        assert_eq!(client.leechers(torrent(2)), 1);
        assert_eq!(node.metric("aquatic_cluster_connected"), 0.0);
        let (verdict, why) = self.verdict(login);
        assert!(verdict == "fault" && why.contains(text), "{verdict}: {why}");
    }

    /// What `aquatic doctor` says of the server.
    fn verdict(&self, login: &Login) -> (String, String) {
        let settings: Vec<&str> = login.iter().map(String::as_str).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatic"));
        command.args(["doctor", "--json"]).args(self.command("doctor", &settings).get_args().skip(1));
        let output = command.output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let row = report["rows"].as_array().unwrap().iter().find(|row| row["check"] == "nats_server");
        let member = |name: &str| row.unwrap()[name].as_str().unwrap().to_owned();
        (member("verdict"), member("text"))
    }
}

#[test]
fn nodes_log_in_with_nkeys() {
    let [a, b, foreign, deaf] = [(); 4].map(|()| KeyPair::new_user());
    let Some(cluster) = Cluster::with_server(|_| {
        let user = |key: &KeyPair, permissions| format!("{{ nkey: {}, {permissions} }}\n", key.public_key());
        let other = r#"permissions: { publish: ["other.>"], subscribe: ["other.>"] }"#;
        let users = [user(&a, PERMISSIONS), user(&b, PERMISSIONS), user(&deaf, other)].concat();
        format!("authorization {{ users = [ {users} ] }}\n")
    }) else {
        return;
    };
    let login = |name: &str, key: &KeyPair| vec![cluster.private("nkey_file", name, &key.seed().unwrap())];
    cluster.assert_meet([&login("a.nk", &a), &login("b.nk", &b)]);
    cluster.assert_refused(&login("foreign.nk", &foreign), "authorization violation");
    cluster.assert_refused(&Login::new(), "authorization violation");

    // A user who may do other things only is connected, and hears nothing.
    let deaf = login("deaf.nk", &deaf);
    let mut node = cluster.start("deaf", &[&deaf[0]]);
    let line = node.0.wait_for_log("the NATS server refuses something");
    assert!(line.contains("Permissions Violation") && line.contains("aquatic.aquatic"), "{line}");
    let (verdict, why) = cluster.verdict(&deaf);
    assert!(verdict == "fault" && why.contains("it refuses what a node does"), "{why}");
}

/// Base64 for URLs, without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |at| char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]))
    });
    digits.collect()
}

/// A claim about `subject`, signed by `issuer`, as NATS has them.
fn jwt(issuer: &KeyPair, subject: &KeyPair, about: &Value) -> String {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "tests",
        "sub": subject.public_key(), "nats": about,
    });
    let text = [header, claims].map(|part| base64(part.to_string().as_bytes())).join(".");
    let signature = base64(&issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// The content of a `.creds` file for a new user of an account.
fn credentials(account: &KeyPair) -> String {
    let user = KeyPair::new_user();
    let about = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(account, &user, &about),
        user.seed().unwrap()
    )
}

#[test]
fn nodes_log_in_with_credentials() {
    let (operator, account, foreign) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let Some(cluster) = Cluster::with_server(|directory| {
        let about = json!({ "type": "operator", "version": 2 });
        fs::write(directory.join("operator.jwt"), jwt(&operator, &operator, &about)).unwrap();
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1,
        });
        let about = json!({ "type": "account", "version": 2, "limits": limits });
        format!(
            "operator: \"{}\"\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}\n",
            directory.join("operator.jwt").display(),
            account.public_key(),
            jwt(&operator, &account, &about)
        )
    }) else {
        return;
    };
    let login = |name: &str, of: &KeyPair| vec![cluster.private("credentials_file", name, &credentials(of))];
    cluster.assert_meet([&login("a.creds", &account), &login("b.creds", &account)]);
    cluster.assert_refused(&login("foreign.creds", &foreign), "authorization violation");
}

/// An authority that issues certificates.
struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a certificate for a name and its key.
    fn issue(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer);
        let path = |kind: &str| directory.join(format!("{name}.{kind}.pem"));
        fs::write(path("cert"), certificate.unwrap().pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("cert"), path("key"))
    }
}

#[test]
fn nodes_log_in_with_certificates() {
    let (authority, foreign) = (Authority::new("nodes"), Authority::new("others"));
    let Some(cluster) = Cluster::with_server(|directory| {
        let (certificate, key) = authority.issue(directory, "localhost");
        let ca = directory.join("ca.pem");
        fs::write(&ca, &authority.pem).unwrap();
        format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true }}\n")
    }) else {
        return;
    };
    let server = format!("cluster.servers=[\"tls://localhost:{}\"]", cluster.server.port);
    let ca = format!("cluster.ca_file={}", cluster.path("ca.pem").display());
    let login = |authority: &Authority, name: &str| {
        let (certificate, key) = authority.issue(cluster.directory.path(), name);
        let own = [("certificate_file", certificate), ("key_file", key)];
        let own = own.map(|(key, path)| format!("cluster.{key}={}", path.display()));
        [vec![server.clone(), ca.clone()], own.to_vec()].concat()
    };
    let (a, b) = (login(&authority, "a"), login(&authority, "b"));
    cluster.assert_meet([&a, &b]);
    // Without one, and with that of another authority.
    cluster.assert_refused(&a[..2].to_vec(), "CertificateRequired");
    cluster.assert_refused(&login(&foreign, "c"), "fatal alert");
    // The server is not the one that is wanted.
    let other_ca = cluster.private("ca_file", "other.pem", &foreign.pem);
    cluster.assert_refused(&vec![server, other_ca, a[2].clone(), a[3].clone()], "UnknownIssuer");
}
