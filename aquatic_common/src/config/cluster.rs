//! Section `[cluster]`: other nodes that answer for the same torrents.

use std::path::{Path, PathBuf};

use crate::settings::Problem;

/// Port of NATS servers, unless the URL names one.
pub const NATS_PORT: u16 = 4222;

/// Maximum length of a name in a subject.
const MAX_NAME: usize = 63;

/// Maximum number of URLs of servers.
const MAX_SERVERS: usize = 32;

crate::choice! {
    /// Which torrents a node keeps.
    #[derive(Default)]
    pub enum ClusterMode {
        /// All of them, like every other node.
        #[default]
        Replicate = "replicate",
        /// Those of the parts that it holds, together with other nodes.
        Partition = "partition",
    }
}

crate::settings! {
    /// Cluster: trackers that tell each other their peers over NATS, so that a client of any of them meets
    /// the clients of all. See docs/cluster.md. All nodes of a cluster have the same name, secret and mode,
    /// and clocks that differ by less than five minutes.
    pub struct ClusterConfig, section "cluster" {
        /// URLs of the NATS servers, such as "tls://nats1.example.org:4222". One that can be reached is used,
        /// and another one if it fails; until then the tracker serves alone. "tls" asks for TLS, "nats" uses
        /// it if the server does. If empty, there is no cluster.
        pub servers: Vec<String> = Vec::new();
        /// Name of the cluster, for the subjects in NATS: letters, digits, "-" and "_". Clusters with
        /// different names can share NATS servers.
        pub name: String = "aquatic".to_owned();
        /// Name of this node, different from those of all other nodes: letters, digits, "-" and "_". If
        /// empty, it is the name of the host.
        pub node: String = String::new();
        /// File with the secret that everything between the nodes is encrypted with, and that connection ids
        /// of UDP are derived from: at least 32 random bytes, such as those of "openssl rand -base64 48", the
        /// same on all nodes. Read before privileges are dropped.
        pub secret_file: PathBuf = PathBuf::new();
        /// File with the user's JWT and seed (.creds) to log in to NATS with; empty for none. Read before
        /// privileges are dropped, as all files of this section.
        pub credentials_file: PathBuf = PathBuf::new();
        /// File with the seed of the nkey to log in to NATS with ("SU…"); empty for none.
        pub nkey_file: PathBuf = PathBuf::new();
        /// PEM file with the certificates that those of the NATS servers are verified with. If empty, those
        /// that the system trusts.
        pub ca_file: PathBuf = PathBuf::new();
        /// PEM file with the certificate to show to the NATS servers; empty for none.
        pub certificate_file: PathBuf = PathBuf::new();
        /// PEM file with the private key of cluster.certificate_file.
        pub key_file: PathBuf = PathBuf::new();
        /// Which torrents a node keeps. "replicate": all, as every other node. "partition": those of the
        /// parts that it holds, and requests for others are forwarded to a node that holds them. Use it if
        /// one machine has not enough memory for all torrents; it costs a message there and back for most
        /// requests. The same on all nodes. WebTorrent peers are known to all nodes in either mode.
        pub mode: ClusterMode = ClusterMode::Replicate;
        /// Number of nodes that hold the same part of the torrents, with mode "partition". With 1, peers are
        /// lost with their node until they announce again. The same on all nodes.
        pub replicas: u32 = 2, unit "nodes", in 1..=8;
        /// Time over which changed peers are collected before they are published.
        pub publish_interval: u32 = 25, unit "milliseconds", in 20..=50;
        /// Maximum number of bytes that wait for the NATS server. What exceeds it is dropped, and other nodes
        /// ask for what they lack.
        pub max_pending: u32 = 16_777_216, unit "bytes", in 1_048_576..=1_073_741_824;
    }
}

/// Address of a NATS server, as its URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsServer {
    /// Whether TLS is asked for.
    pub tls: bool,
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl NatsServer {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("does not begin with \"nats://\" or \"tls://\"")?;
        let tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err("does not begin with \"nats://\" or \"tls://\""),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err(
                "has a user or password, which belong into cluster.credentials_file or cluster.nkey_file",
            );
        }
        if authority.contains(['/', '?', '#']) {
            return Err("has more than a host and a port");
        }
        let (host, port) = split_port(authority)?;
        Ok(Self { tls, host: host.to_owned(), port: port.unwrap_or(NATS_PORT) })
    }

    /// Whether what is sent to the server stays on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("has a bracket that is not closed")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("has brackets around something that is no IPv6 address");
            }
            match (after.is_empty(), after.strip_prefix(':')) {
                (true, _) => (host, None),
                (false, Some(port)) => (host, Some(port)),
                (false, None) => return Err("has something between host and port"),
            }
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err("names no host");
    }
    if !authority.starts_with('[') && host.contains(':') {
        return Err("has an IPv6 address without brackets");
    }
    match port.map(str::parse::<u16>) {
        None => Ok((host, None)),
        Some(Ok(port)) if port > 0 => Ok((host, Some(port))),
        Some(_) => Err("has a port that is no number from 1 to 65535"),
    }
}

impl ClusterConfig {
    /// Whether there is a cluster.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Name of this node on a host with this name.
    #[must_use]
    pub fn node_name(&self, host: &str) -> String {
        if !self.node.is_empty() {
            return self.node.clone();
        }
        let name = |byte: u8| if is_name_byte(byte) { char::from(byte) } else { '-' };
        let name: String = host.bytes().take(MAX_NAME).map(name).collect();
        if name.is_empty() { "node".to_owned() } else { name }
    }

    /// The files that are named, with what they are.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let files = [
            (Self::secret_file, &self.secret_file),
            (Self::credentials_file, &self.credentials_file),
            (Self::nkey_file, &self.nkey_file),
            (Self::ca_file, &self.ca_file),
            (Self::certificate_file, &self.certificate_file),
            (Self::key_file, &self.key_file),
        ];
        let named = files.into_iter().filter(|(_, path)| !path.as_os_str().is_empty());
        named.map(|(key, path)| (key, path.as_path())).collect()
    }

    /// Reports settings that exclude each other, and names and URLs that are none.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        if !self.is_enabled() {
            if let Some((key, _)) = self.files().first() {
                let text =
                    format!("has no effect without {}; name the NATS servers, or remove it", Self::servers);
                problems.push(Problem::new(*key, text));
            }
            return;
        }
        let mut add = |key, text: String| problems.push(Problem::new(key, text));
        if self.servers.len() > MAX_SERVERS {
            add(Self::servers, format!("has {} URLs; at most {MAX_SERVERS} are used", self.servers.len()));
        }
        for url in &self.servers {
            if let Err(why) = NatsServer::of(url) {
                add(Self::servers, format!("{url:?} {why}"));
            }
        }
        for (key, name) in [(Self::name, &self.name), (Self::node, &self.node)] {
            let is_default = key == Self::node && name.is_empty();
            if !is_default && !is_name(name) {
                let text = format!(
                    "{name:?} is not a name: choose 1 to {MAX_NAME} letters, digits, \"-\" and \"_\""
                );
                add(key, text);
            }
        }
        if self.secret_file.as_os_str().is_empty() {
            let text = "names no file, but nodes of a cluster need a common secret; make one with \"openssl rand -base64 \
                        48\", and copy the file to all nodes"
                .to_owned();
            add(Self::secret_file, text);
        }
        let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
        if !is_empty(&self.credentials_file) && !is_empty(&self.nkey_file) {
            let text =
                format!("excludes {}: name the one that the NATS servers ask for", Self::credentials_file);
            add(Self::nkey_file, text);
        }
        if is_empty(&self.certificate_file) != is_empty(&self.key_file) {
            let (there, missing) = if is_empty(&self.key_file) {
                (Self::certificate_file, Self::key_file)
            } else {
                (Self::key_file, Self::certificate_file)
            };
            add(there, format!("needs {missing} as well"));
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_name_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterConfig {
        ClusterConfig {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            secret_file: "secret".into(),
            ..ClusterConfig::default()
        }
    }

    fn keys(change: impl FnOnce(&mut ClusterConfig)) -> Vec<String> {
        let mut config = cluster();
        change(&mut config);
        let mut problems = Vec::new();
        config.check(&mut problems);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn servers_are_urls() {
        let server = |url| NatsServer::of(url);
        let named = |tls, host: &str, port| Ok(NatsServer { tls, host: host.to_owned(), port });
        assert_eq!(server("nats://a.example"), named(false, "a.example", 4222));
        assert_eq!(server("tls://a.example:4443/"), named(true, "a.example", 4443));
        assert_eq!(server("nats://[2001:db8::1]:1"), named(false, "2001:db8::1", 1));
        assert_eq!(server("nats://[::1]"), named(false, "::1", 4222));
        for bad in [
            "",
            "a.example",
            "http://a.example",
            "nats://",
            "nats://:1",
            "nats://a:0",
            "nats://a:x",
            "nats://a:65536",
            "nats://u:p@a.example",
            "nats://a/b",
            "nats://2001:db8::1",
            "nats://[a]",
            "nats://[::1",
            "nats://[::1]1",
            "nats://a b",
        ] {
            assert!(server(bad).is_err(), "{bad}");
            assert_eq!(keys(|config| config.servers = vec![bad.to_owned()]), ["cluster.servers"], "{bad}");
        }
        for (url, local) in
            [("nats://localhost", true), ("nats://[::1]:1", true), ("nats://192.0.2.1", false)]
        {
            assert_eq!(server(url).unwrap().is_local(), local);
        }
        assert_eq!(keys(|config| config.servers = vec!["nats://a".to_owned(); 33]), ["cluster.servers"]);
    }

    #[test]
    fn names_are_words_of_subjects() {
        assert_eq!(keys(|_| ()), [""; 0]);
        for bad in ["", "a.b", "a b", "*", ">", &"a".repeat(64)] {
            assert_eq!(keys(|config| config.name = bad.to_owned()), ["cluster.name"], "{bad}");
            if !bad.is_empty() {
                assert_eq!(keys(|config| config.node = bad.to_owned()), ["cluster.node"], "{bad}");
            }
        }
        let named = |host: &str| cluster().node_name(host);
        assert_eq!(named("tracker-1.example.org"), "tracker-1-example-org");
        assert_eq!(named(""), "node");
        assert!(is_name(&named(&"ä".repeat(99))));
        assert_eq!(ClusterConfig { node: "a".to_owned(), ..cluster() }.node_name("host"), "a");
    }

    #[test]
    fn files_belong_together() {
        assert_eq!(keys(|config| config.secret_file = PathBuf::new()), ["cluster.secret_file"]);
        assert_eq!(keys(|config| config.key_file = "k".into()), ["cluster.key_file"]);
        assert_eq!(keys(|config| config.certificate_file = "c".into()), ["cluster.certificate_file"]);
        let both = |config: &mut ClusterConfig| {
            config.credentials_file = "a".into();
            config.nkey_file = "b".into();
        };
        assert_eq!(keys(both), ["cluster.nkey_file"]);
        assert_eq!(keys(|config| config.servers.clear()), ["cluster.secret_file"]);
        let mut problems = Vec::new();
        ClusterConfig::default().check(&mut problems);
        assert_eq!(problems, []);
    }
}
