//! The blocks of settings that every service with connections has, what is impossible about them, and the way from
//! them to listening sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::Family;
use aquatic_common::config::{DEFAULT_PORT, Listen};
use aquatic_common::settings::{Addresses, Problem};

use super::accept::TcpSettings;
use super::bind::{CoreListeners, ListenOptions, ListenerKind, Listeners};
use super::counters::Protocols;
use super::deadlines::Deadlines;
use super::handshakes::HandshakeLimits;
use super::tls::{Tls, TlsFiles};
use crate::listen;
use crate::proxy::{ForwardedHeaders, OnBadHeader, TrustedProxies};
use aquatic_runtime::Engine;
use aquatic_runtime::startup;

/// Longest path of a unix socket.
const MAX_UNIX_PATH: usize = 107;

aquatic_common::settings! {
    /// Where to listen, and whether connections are encrypted.
    pub struct TcpNetworkConfig {
        /// Serve clients over IPv4.
        pub use_ipv4: bool = true;
        /// Serve clients over IPv6.
        pub use_ipv6: bool = true;
        /// Address and port for IPv4, or a list of them: ["192.0.2.1:6969", "192.0.2.2:6969"].
        pub address_ipv4: Addresses = Addresses(vec![SocketAddr::from(([0; 4], DEFAULT_PORT))]);
        /// Address and port for IPv6, or a list of them.
        pub address_ipv6: Addresses = Addresses(vec![SocketAddr::from(([0_u16; 8], DEFAULT_PORT))]);
        /// IPv6 sockets take IPv6 connections only. Switched off, one on [::] takes IPv4 connections, too: then
        /// set use_ipv4 = false.
        pub only_ipv6: bool = true;
        /// Path of a unix socket to listen on as well, for a proxy on this machine; empty for none. Such
        /// connections are not encrypted, and whoever may open the socket is trusted like trusted_proxies.
        pub unix_socket_path: PathBuf = PathBuf::new();
        /// Permissions of the unix socket: three octal digits.
        pub unix_socket_mode: String = "660".to_owned();
        /// Connections the kernel keeps for each worker and address until they are accepted;
        /// net.core.somaxconn limits it.
        pub tcp_backlog: u16 = 4096, unit "connections", in 1..=65_535;
        /// Encrypt connections: TLS 1.2 and 1.3.
        pub enable_tls: bool = false;
        /// PEM file with the certificate, and those between it and the root. Read again when it changes, and on
        /// SIGUSR1; open connections are not affected.
        pub tls_certificate_path: PathBuf = PathBuf::new();
        /// PEM file with the private key (PKCS #8, PKCS #1 or SEC 1).
        pub tls_private_key_path: PathBuf = PathBuf::new();
    }
}

aquatic_common::settings! {
    /// How many connections there may be, and how long each may take for what.
    pub struct ConnectionsConfig {
        /// Most connections of the process. Beyond that the one that has waited longest for its client makes room:
        /// for a request over HTTP, for a handshake in any case. Where none waits, the new connection is closed. An
        /// idle one takes about 1.5 KiB, or 10 KiB with TLS, besides the kernel's part, and one whose client sends
        /// but does not receive up to some 50 KiB. There are fewer if the limit of open files (LimitNOFILE= in a
        /// systemd unit) is not higher.
        pub max_connections: usize = 100_000, unit "connections", in 1..=10_000_000;
        /// Most connections from one IPv4 address, or one IPv6 network of 64 bits; 0 for no limit. Trusted proxies
        /// are exempt.
        pub max_connections_per_address: u32 = 1000, unit "connections", in 0..=10_000_000;
        /// Most TLS handshakes of a worker that wait for their client, of some 12 KiB each. When there is one more,
        /// the one that began first is closed. To be more than a worker begins in a second, so that this is one
        /// whose client has stopped.
        pub max_tls_handshakes: usize = 4096, unit "handshakes", in 1..=100_000;
        /// Most TLS handshakes of a worker that wait for their turn to begin, which takes the worker 0.1 to 1 ms
        /// each. Further connections are closed at once.
        pub max_queued_tls_handshakes: usize = 1024, unit "handshakes", in 1..=100_000;
        /// A connection without a request for this long is closed. To be longer than the keep-alive time of a
        /// proxy in front of the tracker (60 s in nginx), which might otherwise send into a closed connection.
        pub max_connection_idle: u32 = 75, unit "seconds", in 1..=86_400;
        /// Longest time for TLS handshake and PROXY protocol header.
        pub handshake_timeout: u32 = 10, unit "seconds", in 1..=600;
        /// Longest time from the first byte of a request to the end of its head, and for the first request from
        /// the beginning of the connection.
        pub request_timeout: u32 = 10, unit "seconds", in 1..=600;
        /// Longest time a client may take to receive a reply.
        pub reply_timeout: u32 = 30, unit "seconds", in 3..=600;
        /// How long a closing connection waits for the client to close it, too.
        pub linger_timeout: u32 = 2, unit "seconds", in 1..=60;
    }
}

aquatic_common::settings! {
    /// Reverse proxies in front of the tracker, and how they say whom they stand for.
    pub struct ProxiesConfig {
        /// Addresses and networks of proxies that are believed: ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"].
        /// Everybody else is taken for the client. Proxies on the unix socket are always believed.
        pub trusted_proxies: Vec<String> = Vec::new();
        /// Request headers that name the client, such as ["Forwarded", "X-Real-IP"], in any case of letters. The
        /// first one a request has is read, from the right to the left past trusted proxies; "Forwarded" as RFC
        /// 7239 has it, all others as lists of addresses. Name only headers that the proxies set: others they
        /// pass on as strangers wrote them.
        pub client_headers: Vec<String> = vec!["X-Forwarded-For".to_owned()];
        /// Trusted proxies begin each connection with a header of the PROXY protocol, version 1 or 2, which names
        /// the client ("send-proxy-v2" in HAProxy, "proxy_protocol on" in nginx).
        pub proxy_protocol: bool = false;
        /// What happens to requests of a trusted proxy that does not say, or not understandably, whom it stands
        /// for: refuse them, or use the proxy's own address.
        pub on_missing_client: OnMissingClient = OnMissingClient::Refuse;
    }
}

aquatic_common::choice! {
    /// What to do about a proxy that does not say whom it stands for.
    pub enum OnMissingClient {
        /// Refuse.
        Refuse = "refuse",
        /// Take the proxy for the client.
        UseProxyAddress = "use_proxy_address",
    }
}

impl From<OnMissingClient> for OnBadHeader {
    fn from(choice: OnMissingClient) -> Self {
        match choice {
            OnMissingClient::Refuse => Self::Refuse,
            OnMissingClient::UseProxyAddress => Self::UseSocketAddress,
        }
    }
}

/// The blocks of one service together.
#[derive(Clone, Copy, Debug)]
pub struct TcpConfig<'a> {
    /// Section `[network]`.
    pub network: &'a TcpNetworkConfig,
    /// Section `[connections]`.
    pub connections: &'a ConnectionsConfig,
    /// Section `[proxies]`.
    pub proxies: &'a ProxiesConfig,
}

/// What a service is called where its listeners are named.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// The values of the label `protocol` in metrics.
    pub protocols: Protocols,
    /// In the log: "HTTP".
    pub name: &'static str,
    /// Scheme of the announce URL, plain and encrypted.
    pub schemes: [&'static str; 2],
}

/// A service's listening sockets, and what is to be known about their connections.
#[derive(Debug)]
pub struct Opened {
    /// Each core's sockets, in core order.
    pub listeners: Vec<CoreListeners>,
    /// For [`serve_tcp`](super::serve_tcp) on each core.
    pub settings: TcpSettings,
    /// Whom requests come from, for each request.
    pub forwarded: ForwardedHeaders,
}

impl TcpConfig<'_> {
    /// Where to listen.
    #[must_use]
    pub fn listen(&self) -> Listen<'_> {
        let TcpNetworkConfig { use_ipv4, use_ipv6, address_ipv4, address_ipv6, .. } = self.network;
        Listen { use_ipv4: *use_ipv4, use_ipv6: *use_ipv6, address_ipv4, address_ipv6 }
    }

    fn has_unix_socket(&self) -> bool {
        !self.network.unix_socket_path.as_os_str().is_empty()
    }

    fn trusts_anyone(&self) -> bool {
        self.has_unix_socket() || !self.proxies.trusted_proxies.is_empty()
    }

    /// Reports impossible combinations.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        self.listen().check(problems);
        self.check_listeners(problems);
        self.check_tls(problems);
        self.check_proxies(problems);
    }

    fn check_listeners(&self, problems: &mut Vec<Problem>) {
        let network = self.network;
        let mut add = |key, text: String| problems.push(Problem::new(key, text));
        if !network.use_ipv4 && !network.use_ipv6 && !self.has_unix_socket() {
            let text = "both families are switched off and there is no unix socket, so there is nothing to listen \
                        on; switch one on";
            add("network.use_ipv4", text.to_owned());
        }
        if !network.only_ipv6 && network.use_ipv4 && network.use_ipv6 {
            let v4 = &network.address_ipv4.0;
            let both = network.address_ipv6.0.iter().filter(|address| address.ip().is_unspecified());
            for address in both.filter(|a| a.port() != 0 && v4.iter().any(|b| a.port() == b.port())) {
                let text = format!(
                    "{address} then takes the IPv4 connections of port {}, which network.address_ipv4 has, too; set \
                     network.use_ipv4 = false, or only_ipv6 = true",
                    address.port()
                );
                add("network.only_ipv6", text);
            }
        }
        if network.unix_socket_path.as_os_str().len() > MAX_UNIX_PATH {
            add("network.unix_socket_path", format!("the path has more than {MAX_UNIX_PATH} bytes"));
        }
        if parse_mode(&network.unix_socket_mode).is_none() {
            let text = format!("{:?} is not three octal digits such as \"660\"", network.unix_socket_mode);
            add("network.unix_socket_mode", text);
        }
    }

    fn check_tls(&self, problems: &mut Vec<Problem>) {
        for (key, path) in [
            ("network.tls_certificate_path", &self.network.tls_certificate_path),
            ("network.tls_private_key_path", &self.network.tls_private_key_path),
        ] {
            match (self.network.enable_tls, path.as_os_str().is_empty()) {
                (true, true) => {
                    problems.push(Problem::new(key, "is needed when network.enable_tls is true"));
                }
                (false, false) => {
                    let text =
                        "has no effect: connections are not encrypted unless network.enable_tls is true";
                    problems.push(Problem::new(key, text));
                }
                (true, false) | (false, true) => {}
            }
        }
    }

    fn check_proxies(&self, problems: &mut Vec<Problem>) {
        let proxies = self.proxies;
        let mut add = |key, text: &str| problems.push(Problem::new(key, text));
        if let Err(error) = TrustedProxies::parse(&proxies.trusted_proxies) {
            add("proxies.trusted_proxies", &error.to_string());
        }
        if let Some(bad) = proxies.client_headers.iter().find(|name| !is_header_name(name)) {
            add("proxies.client_headers", &format!("{bad:?} is not the name of a header"));
        }
        let nobody = "no proxy is trusted, so this has no effect; name them in proxies.trusted_proxies, or let them \
                      connect to network.unix_socket_path";
        if proxies.proxy_protocol && !self.trusts_anyone() {
            add("proxies.proxy_protocol", nobody);
        }
        if proxies.client_headers != ProxiesConfig::default().client_headers && !self.trusts_anyone() {
            add("proxies.client_headers", nobody);
        }
        if proxies.client_headers.is_empty() && self.trusts_anyone() && !proxies.proxy_protocol {
            let text = "the list is empty and proxies.proxy_protocol is false, so no trusted proxy can say whom it \
                        stands for";
            add("proxies.client_headers", text);
        }
    }

    /// Binds all addresses, reads the certificate, has the engine keep it up to date, and logs where the service can be
    /// reached.
    ///
    /// # Errors
    /// What keeps the service from listening, with what to do about it.
    pub fn open(&self, engine: &mut Engine, naming: Naming) -> anyhow::Result<Opened> {
        let network = self.network;
        let tls = if network.enable_tls {
            let certificate = network.tls_certificate_path.clone();
            let private_key = network.tls_private_key_path.clone();
            let tls = Tls::load(TlsFiles { certificate, private_key })?;
            engine.add_periodic(tls.reloader(engine.registry()));
            Some(tls)
        } else {
            None
        };
        let listeners = self.listen().addresses().count() + usize::from(self.has_unix_socket());
        let max_connections =
            startup::allow_connections(self.connections.max_connections, engine.cores(), listeners)?;
        let trusted = TrustedProxies::parse(&self.proxies.trusted_proxies)?;
        let on_bad = self.proxies.on_missing_client.into();
        let names = self.proxies.client_headers.clone();
        Ok(Opened {
            listeners: self.bind(engine, naming)?,
            settings: TcpSettings {
                max_connections,
                ..self.settings(naming.protocols, trusted.clone(), tls)
            },
            forwarded: ForwardedHeaders { names, trusted, on_bad },
        })
    }

    fn bind(&self, engine: &Engine, naming: Naming) -> anyhow::Result<Vec<CoreListeners>> {
        let network = self.network;
        let scheme = naming.schemes[usize::from(network.enable_tls)];
        let options = ListenOptions { backlog: network.tcp_backlog, only_ipv6: network.only_ipv6 };
        let mut listeners = Listeners::new(engine.cores()).context("cannot make what wakes other cores")?;
        let kind = if network.enable_tls { ListenerKind::Tls } else { ListenerKind::Plain };
        let mut bound = 0;
        for (family, address) in self.listen().addresses() {
            match listeners.add(address, kind, &options) {
                Ok(address) => listen::announce(naming.name, scheme, address),
                Err(error) if self.listen().may_do_without(family, address) && error.family_unavailable() => {
                    log::warn!("{error}; serving {} only", Family::V4.name());
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            bound += 1;
        }
        if self.has_unix_socket() {
            let path = &network.unix_socket_path;
            let mode = parse_mode(&network.unix_socket_mode).context("network.unix_socket_mode")?;
            listeners.add_unix(path, mode, &options)?;
            log::info!("{} tracker listening for proxies on the unix socket {}", naming.name, path.display());
            bound += 1;
        }
        anyhow::ensure!(bound > 0, "no address to listen on is left; enable network.use_ipv4");
        Ok(listeners.split())
    }

    fn settings(
        &self,
        protocols: Protocols,
        trusted_proxies: TrustedProxies,
        tls: Option<Arc<Tls>>,
    ) -> TcpSettings {
        let connections = self.connections;
        let seconds = |number: u32| Duration::from_secs(number.into());
        let proxies = self.proxies;
        TcpSettings {
            protocols,
            max_connections: connections.max_connections,
            evict_idle_when_full: false,
            max_connections_per_address: connections.max_connections_per_address,
            deadlines: Deadlines {
                handshake: seconds(connections.handshake_timeout),
                head: seconds(connections.request_timeout),
                answer: seconds(connections.reply_timeout),
                idle: seconds(connections.max_connection_idle),
                linger: seconds(connections.linger_timeout),
            },
            trusted_proxies,
            proxy_protocol: proxies.proxy_protocol.then(|| proxies.on_missing_client.into()),
            tls,
            handshakes: HandshakeLimits {
                open: connections.max_tls_handshakes,
                queued: connections.max_queued_tls_handshakes,
            },
            reply_to_plain: b"",
        }
    }
}

fn parse_mode(text: &str) -> Option<u32> {
    let is_octal = text.len() == 3 && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten()
}

fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Blocks {
        network: TcpNetworkConfig,
        connections: ConnectionsConfig,
        proxies: ProxiesConfig,
    }

    impl Blocks {
        fn problems(&self) -> Vec<String> {
            let Self { network, connections, proxies } = self;
            let mut problems = Vec::new();
            TcpConfig { network, connections, proxies }.check(&mut problems);
            problems.into_iter().map(|problem| problem.key).collect()
        }
    }

    fn problems(change: impl FnOnce(&mut Blocks)) -> Vec<String> {
        let mut blocks = Blocks::default();
        change(&mut blocks);
        blocks.problems()
    }

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(Blocks::default().problems(), [""; 0]);
    }

    #[test]
    fn listeners_must_be_possible() {
        let off = |blocks: &mut Blocks| {
            blocks.network.use_ipv4 = false;
            blocks.network.use_ipv6 = false;
        };
        assert_eq!(problems(off), ["network.use_ipv4"]);
        let unix = |blocks: &mut Blocks| {
            off(blocks);
            blocks.network.unix_socket_path = "/run/tracker.sock".into();
        };
        assert_eq!(problems(unix), [""; 0]);
        assert_eq!(
            problems(|blocks| blocks.network.unix_socket_path = "/x".repeat(54).into()),
            ["network.unix_socket_path"]
        );
        for mode in ["", "66", "0660", "668", "rw-"] {
            assert_eq!(
                problems(|blocks| blocks.network.unix_socket_mode = mode.to_owned()),
                ["network.unix_socket_mode"],
                "{mode}"
            );
        }
        let elsewhere = Addresses(vec!["[::1]:80".parse().unwrap()]);
        assert_eq!(problems(|blocks| blocks.network.address_ipv4 = elsewhere), ["network.address_ipv4"]);
    }

    #[test]
    fn one_socket_for_both_families_leaves_no_room_for_another() {
        let both = |blocks: &mut Blocks| blocks.network.only_ipv6 = false;
        assert_eq!(problems(both), ["network.only_ipv6"]);
        let alone = |blocks: &mut Blocks| {
            both(blocks);
            blocks.network.use_ipv4 = false;
        };
        assert_eq!(problems(alone), [""; 0]);
    }

    #[test]
    fn tls_needs_both_files() {
        let keys = ["network.tls_certificate_path", "network.tls_private_key_path"];
        assert_eq!(problems(|blocks| blocks.network.enable_tls = true), keys);
        let name_them = |blocks: &mut Blocks| {
            blocks.network.tls_certificate_path = "cert.pem".into();
            blocks.network.tls_private_key_path = "key.pem".into();
        };
        assert_eq!(problems(name_them), keys, "who names a certificate means to encrypt");
        let complete = |blocks: &mut Blocks| {
            name_them(blocks);
            blocks.network.enable_tls = true;
        };
        assert_eq!(problems(complete), [""; 0]);
    }

    #[test]
    fn proxies_must_be_able_to_name_their_clients() {
        let trust = |blocks: &mut Blocks| blocks.proxies.trusted_proxies = vec!["10.0.0.0/8".to_owned()];
        let nothing = |blocks: &mut Blocks| blocks.proxies.client_headers = Vec::new();
        assert_eq!(problems(trust), [""; 0]);
        assert_eq!(problems(nothing), ["proxies.client_headers"]);
        let neither = |blocks: &mut Blocks| {
            trust(blocks);
            nothing(blocks);
        };
        assert_eq!(problems(neither), ["proxies.client_headers"]);
        let protocol = |blocks: &mut Blocks| blocks.proxies.proxy_protocol = true;
        assert_eq!(problems(protocol), ["proxies.proxy_protocol"]);
        let trusted_protocol = |blocks: &mut Blocks| {
            neither(blocks);
            protocol(blocks);
        };
        assert_eq!(problems(trusted_protocol), [""; 0]);
        assert_eq!(
            problems(|blocks| blocks.proxies.trusted_proxies = vec!["proxy.example".to_owned()]),
            ["proxies.trusted_proxies"]
        );
        let bad_name = |blocks: &mut Blocks| {
            trust(blocks);
            blocks.proxies.client_headers = vec!["X Real".to_owned()];
        };
        assert_eq!(problems(bad_name), ["proxies.client_headers"]);
    }
}
