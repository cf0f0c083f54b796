//! What it takes to use the NATS servers and to read what other nodes send: read once, before privileges are
//! dropped.

use std::path::Path;
use std::time::Duration;

pub use aquatic_common::config::Unusable;
use aquatic_common::config::{ClusterConfig, NatsServer, read_secret_file};
use aquatic_common::files;
use async_nats::ConnectOptions;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::seal::{MAX_SECRET, MIN_SECRET, Secret};

/// Longest file of certificates that is read, in bytes.
const MAX_FILE: u64 = 8 << 20;

/// Longest time for a connection to a NATS server, with TLS and login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two signs of life that the server is asked for: a connection that has been dead for three of
/// them is replaced.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How to log in to a NATS server.
#[derive(Clone)]
enum Login {
    /// Not at all, or with a certificate.
    None,
    /// With a JWT and a seed, as in a `.creds` file.
    Credentials(String),
    /// With the seed of an nkey.
    Nkey(String),
}

/// What the files of the section contain.
#[derive(Clone)]
pub struct Access {
    /// Secret of the cluster.
    pub secret: Secret,
    servers: Vec<String>,
    /// All servers are to be used over TLS only.
    requires_tls: bool,
    login: Login,
    tls: ClientConfig,
    warnings: Vec<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads all files that the section names.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn read(config: &ClusterConfig) -> Result<Self, Unusable> {
        let mut warnings = Vec::new();
        let secret = read_secret(&config.secret_file, &mut warnings)?;
        let login = read_login(config, &mut warnings)?;
        let tls = read_tls(config)?;
        let servers: Vec<NatsServer> =
            config.servers.iter().filter_map(|url| NatsServer::of(url).ok()).collect();
        let plain = servers.iter().filter(|server| !server.tls && !server.is_local());
        let plain: Vec<&str> = plain.map(|server| server.host.as_str()).collect();
        if !plain.is_empty() {
            warnings.push(format!(
                "connections to the NATS servers {} may be without TLS: what nodes tell each other is encrypted all \
                 the same, but not who they are. Use tls:// in {}",
                plain.join(", "),
                ClusterConfig::servers
            ));
        }
        Ok(Self {
            secret,
            requires_tls: servers.iter().all(|server| server.tls),
            servers: config.servers.clone(),
            login,
            tls,
            warnings,
        })
    }

    /// What an operator should know of the files and URLs.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// URLs of the servers.
    pub(crate) fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Options for connections of this node.
    ///
    /// # Errors
    /// Credentials that cannot be read, which [`read`](Self::read) has reported already.
    pub(crate) fn options(&self, node: &str) -> Result<ConnectOptions, std::io::Error> {
        let options = ConnectOptions::new()
            .name(format!("aquatic {node}"))
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .require_tls(self.requires_tls)
            .tls_client_config(self.tls.clone())
            .no_echo();
        match &self.login {
            Login::None => Ok(options),
            Login::Credentials(text) => options.credentials(text),
            Login::Nkey(seed) => Ok(options.nkey(seed.clone())),
        }
    }
}

fn read_secret(path: &Path, warnings: &mut Vec<String>) -> Result<Secret, Unusable> {
    let key = ClusterConfig::secret_file;
    let content = read_secret_file((key, path), warnings)?;
    Secret::new(&content).map_err(|_| {
        let length = content.len();
        let remedy = "make one with \"openssl rand -base64 48\", and copy it to all nodes";
        let text = format!("it has {length} bytes, but {MIN_SECRET} to {MAX_SECRET} are needed; {remedy}");
        Unusable::new(key, path, text)
    })
}

fn read_login(config: &ClusterConfig, warnings: &mut Vec<String>) -> Result<Login, Unusable> {
    let text = |key, path: &Path, warnings: &mut Vec<String>| {
        let content = read_secret_file((key, path), warnings)?;
        String::from_utf8(content).map_err(|_| Unusable::new(key, path, "it is no text"))
    };
    if !config.credentials_file.as_os_str().is_empty() {
        let (key, path) = (ClusterConfig::credentials_file, config.credentials_file.as_path());
        let mut credentials = text(key, path, warnings)?;
        // Without it, the last line would not be taken for the end of the seed.
        credentials.push('\n');
        ConnectOptions::with_credentials(&credentials).map_err(|error| Unusable::new(key, path, error))?;
        return Ok(Login::Credentials(credentials));
    }
    if !config.nkey_file.as_os_str().is_empty() {
        let (key, path) = (ClusterConfig::nkey_file, config.nkey_file.as_path());
        let seed = text(key, path, warnings)?;
        // Comments are allowed, as the tools of NATS write them.
        let seed = seed.lines().map(str::trim).find(|line| line.starts_with('S')).unwrap_or_default();
        nkeys::KeyPair::from_seed(seed).map_err(|error| {
            Unusable::new(key, path, format!("it holds no seed of a user (\"SU…\"): {error}"))
        })?;
        return Ok(Login::Nkey(seed.to_owned()));
    }
    Ok(Login::None)
}

fn read_tls(config: &ClusterConfig) -> Result<ClientConfig, Unusable> {
    let mut roots = RootCertStore::empty();
    if config.ca_file.as_os_str().is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let (key, path) = (ClusterConfig::ca_file, config.ca_file.as_path());
        for certificate in read_certificates(key, path)? {
            roots.add(certificate).map_err(|error| Unusable::new(key, path, error))?;
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Unusable { key: ClusterConfig::ca_file, text: error.to_string() })?
        .with_root_certificates(roots);
    if config.certificate_file.as_os_str().is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = read_certificates(ClusterConfig::certificate_file, &config.certificate_file)?;
    let (key, path) = (ClusterConfig::key_file, config.key_file.as_path());
    let private = read(key, path)?;
    let private = PrivateKeyDer::from_pem_slice(&private).map_err(|error| Unusable::new(key, path, error))?;
    builder.with_client_auth_cert(chain, private).map_err(|error| Unusable::new(key, path, error))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Unusable> {
    files::read_bounded(path, MAX_FILE).map_err(|error| Unusable::new(key, path, error))
}

fn read_certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let content = read(key, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let certificates = certificates.map_err(|error| Unusable::new(key, path, error))?;
    if certificates.is_empty() {
        return Err(Unusable::new(key, path, "there is no certificate in it"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fault(change: impl FnOnce(&mut ClusterConfig, &Path)) -> Unusable {
        let directory = tempfile::tempdir().unwrap();
        let mut config = ClusterConfig {
            servers: vec!["nats://127.0.0.1".to_owned()],
            secret_file: directory.path().join("secret"),
            ..ClusterConfig::default()
        };
        fs::write(&config.secret_file, [b'x'; MIN_SECRET]).unwrap();
        change(&mut config, directory.path());
        Access::read(&config).unwrap_err()
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let missing = fault(|config, path| config.secret_file = path.join("none"));
        assert!(missing.key == "cluster.secret_file" && missing.text.contains("create it"), "{missing}");
        let short = fault(|config, _| fs::write(&config.secret_file, "too short\n").unwrap());
        assert!(short.text.contains("it has 9 bytes"), "{short}");
        for (key, set) in [
            (
                "cluster.credentials_file",
                (|config, path| config.credentials_file = path) as fn(&mut ClusterConfig, _),
            ),
            ("cluster.nkey_file", |config, path| config.nkey_file = path),
            ("cluster.ca_file", |config, path| config.ca_file = path),
            ("cluster.certificate_file", |config, path| config.certificate_file = path),
        ] {
            let found = fault(|config, directory| {
                fs::write(directory.join("file"), "nothing of use").unwrap();
                set(config, directory.join("file"));
            });
            assert_eq!(found.key, key, "{found}");
        }
    }

    #[test]
    fn secrets_that_everybody_can_read_and_connections_without_tls_are_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "0123456789012345678901234567890123456789\n").unwrap();
        let warnings = |mode, url: &str| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let servers = vec![url.to_owned()];
            let config = ClusterConfig { servers, secret_file: path.clone(), ..ClusterConfig::default() };
            Access::read(&config).unwrap().warnings().len()
        };
        assert_eq!(warnings(0o600, "nats://127.0.0.1"), 0);
        assert_eq!(warnings(0o644, "nats://127.0.0.1"), 1);
        assert_eq!(warnings(0o600, "nats://nats.example.org"), 1);
        assert_eq!(warnings(0o600, "tls://nats.example.org"), 0);
    }

    #[test]
    fn a_seed_may_have_comments_around_it() {
        let directory = tempfile::tempdir().unwrap();
        let (secret, nkey) = (directory.path().join("secret"), directory.path().join("nkey"));
        fs::write(&secret, [b'x'; MIN_SECRET]).unwrap();
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        fs::write(&nkey, format!("# user of node a\n{seed}\n")).unwrap();
        let servers = vec!["nats://127.0.0.1".to_owned()];
        let config =
            ClusterConfig { servers, secret_file: secret, nkey_file: nkey, ..ClusterConfig::default() };
        assert!(matches!(Access::read(&config).unwrap().login, Login::Nkey(read) if read == seed));
    }
}
