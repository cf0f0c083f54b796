//! Sections of settings about TCP connections, and the listening sockets made from them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::config::{
    ConnectionsConfig, ListenerKind, NetworkConfig, OnMissingClient, ProxiesConfig, RateLimitsConfig,
};
use aquatic_common::settings::Problem;
use aquatic_common::{ConfigurationError, Family};
use aquatic_runtime::{Broadcast, Engine, startup};

use super::accept::TcpSettings;
use super::bind::{CoreListeners, ListenOptions, Listeners, UnixOrigin};
use super::counters::Protocols;
use super::deadlines::Deadlines;
use super::handshakes::HandshakeLimits;
use super::socket_file::SocketFile;
use super::source_gate::SourceSettings;
use super::tls::{Tls, TlsFiles};
use super::unix_socket::UnixBindError;
use crate::block_list::BlockList;
use crate::listen;
use crate::proxy::{ForwardedHeaders, OnBadHeader, TrustedProxies};

impl From<OnMissingClient> for OnBadHeader {
    fn from(choice: OnMissingClient) -> Self {
        match choice {
            OnMissingClient::Refuse => Self::Refuse,
            OnMissingClient::UseProxyAddress => Self::UseSocketAddress,
        }
    }
}

/// The sections that services with TCP connections read.
#[derive(Clone, Copy, Debug)]
pub struct TcpConfig<'a> {
    /// Section `[network]`.
    pub network: &'a NetworkConfig,
    /// Section `[connections]`.
    pub connections: &'a ConnectionsConfig,
    /// Section `[proxies]`.
    pub proxies: &'a ProxiesConfig,
    /// Section `[rate_limits]`.
    pub rates: &'a RateLimitsConfig,
}

/// What a service is called where its listeners are logged.
#[derive(Clone, Copy, Debug)]
pub struct ServiceName {
    /// In the log: "HTTP".
    pub name: &'static str,
    /// Scheme of the announce URL over plain connections.
    pub plain: &'static str,
    /// Scheme of the announce URL over TLS.
    pub tls: &'static str,
}

impl ServiceName {
    /// Logs where the service can be reached.
    fn announce(&self, address: SocketAddr, kind: ListenerKind) {
        let (plain, tls) = match kind {
            ListenerKind::Plain => (true, false),
            ListenerKind::Tls => (false, true),
            ListenerKind::TlsOrPlain => (true, true),
        };
        for (_, scheme) in [(plain, self.plain), (tls, self.tls)].into_iter().filter(|(serves, _)| *serves) {
            listen::announce(self.name, scheme, address);
        }
    }
}

/// A service's listening sockets, and what is to be known about their connections.
#[derive(Debug)]
pub struct Opened {
    /// Each core's sockets, in core order.
    pub listeners: Vec<CoreListeners>,
    /// For [`serve_tcp`](super::serve_tcp) on each core.
    pub settings: TcpSettings,
    /// Finds the client of each request.
    pub forwarded: ForwardedHeaders,
    /// Applies changed settings.
    pub changes: TcpChanges,
}

/// Applies changed settings to the connections of all cores.
#[derive(Debug)]
pub struct TcpChanges {
    protocols: Protocols,
    changes: Broadcast<Arc<TcpSettings>>,
    tls: Option<Arc<Tls>>,
    cores: usize,
    listeners: usize,
    /// Maximum number of connections in the configuration, and the one that the limit of open files allows.
    max_connections: (usize, usize),
    sources: SourceSeed,
}

/// What the limits of sources are made from, besides the configuration.
#[derive(Clone, Debug)]
struct SourceSeed {
    blocked: Arc<BlockList>,
    key: [u8; 16],
}

impl SourceSeed {
    fn of(&self, config: &TcpConfig<'_>, cores: usize) -> SourceSettings {
        SourceSettings {
            connections: config.rates.tcp_rules(cores),
            handshakes: config.rates.mode,
            blocked: Arc::clone(&self.blocked),
            key: self.key,
        }
    }
}

impl TcpChanges {
    /// Applies limits, deadlines and proxies, and the paths of certificate and key from the next reload of
    /// these. Returns the cores that could not be told.
    ///
    /// # Errors
    /// Settings that the checks of the configuration would have reported.
    pub fn apply(&mut self, config: &TcpConfig<'_>) -> anyhow::Result<Vec<usize>> {
        if let Some(tls) = &self.tls {
            tls.configure(TlsFiles::of(config.network));
        }
        let trusted = TrustedProxies::parse(&config.proxies.trusted_proxies)?;
        warn_of_large_networks(&trusted);
        let wanted = config.connections.max_connections;
        if wanted != self.max_connections.0 {
            let allowed = startup::allow_connections(wanted, self.cores, self.listeners)?;
            self.max_connections = (wanted, allowed);
        }
        let (_, max_connections) = self.max_connections;
        let settings = config.settings(self.protocols, trusted, None, self.sources.of(config, self.cores));
        Ok(self.changes.send(&Arc::new(TcpSettings { max_connections, ..settings })))
    }
}

impl TcpConfig<'_> {
    /// The addresses to listen on and the kind of connections that each accepts.
    #[must_use]
    pub fn listeners(&self) -> Vec<(SocketAddr, ListenerKind)> {
        self.network.tcp_listeners()
    }

    fn trusts_any_proxy(&self) -> bool {
        self.network.has_unix_socket() || !self.proxies.trusted_proxies.is_empty()
    }

    /// Reports impossible combinations of the settings about proxies.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let proxies = self.proxies;
        let mut add = |key, text: &str| problems.push(Problem::new(key, text));
        if let Err(error) = TrustedProxies::parse(&proxies.trusted_proxies) {
            add(ProxiesConfig::trusted_proxies, &error.to_string());
        }
        if let Some(bad) = proxies.client_headers.iter().find(|name| !is_header_name(name)) {
            add(ProxiesConfig::client_headers, &format!("{bad:?} is not the name of a header"));
        }
        let no_proxy = format!(
            "has no effect because no proxy is trusted; list them in {}, or set {}",
            ProxiesConfig::trusted_proxies,
            NetworkConfig::unix_socket_path
        );
        if proxies.proxy_protocol && !self.trusts_any_proxy() {
            add(ProxiesConfig::proxy_protocol, &no_proxy);
        }
        if proxies.client_headers != ProxiesConfig::default().client_headers && !self.trusts_any_proxy() {
            add(ProxiesConfig::client_headers, &no_proxy);
        }
        if proxies.client_headers.is_empty() && self.trusts_any_proxy() && !proxies.proxy_protocol {
            let text = format!(
                "the list is empty and {} is false, so trusted proxies cannot name the client",
                ProxiesConfig::proxy_protocol
            );
            add(ProxiesConfig::client_headers, &text);
        }
    }

    /// Warns of proxies among which there may be clients.
    pub fn warn_of_proxies(&self) {
        if let Ok(trusted) = TrustedProxies::parse(&self.proxies.trusted_proxies) {
            warn_of_large_networks(&trusted);
        }
    }

    /// Binds all addresses, reads the certificate unless one is `installed`, has the engine keep it up to
    /// date, and logs where the service can be reached.
    ///
    /// # Errors
    /// What keeps the service from listening, with what to do about it.
    pub fn open(
        &self,
        engine: &mut Engine,
        protocols: Protocols,
        names: &[ServiceName],
        (blocked, installed): (&Arc<BlockList>, Option<&Arc<Tls>>),
    ) -> anyhow::Result<Opened> {
        let network = self.network;
        let tls = match installed {
            Some(tls) => Some(Arc::clone(tls)),
            None if network.enable_tls => {
                Some(Tls::load(TlsFiles::of(network)).map_err(ConfigurationError::new)?)
            }
            None => None,
        };
        if let Some(tls) = &tls {
            engine.add_periodic(tls.reloader(engine.registry()));
        }
        let listeners = self.listeners().len() + usize::from(network.has_unix_socket());
        let max_connections =
            startup::allow_connections(self.connections.max_connections, engine.cores(), listeners)?;
        let forwarded = ForwardedHeaders { blocked: Arc::clone(blocked), ..self.forwarded()? };
        warn_of_large_networks(&forwarded.trusted);
        let bound = self.bind(engine, names)?;
        let (changes, cores) = (bound.changes(), engine.cores());
        let max = (self.connections.max_connections, max_connections);
        let tls_of_changes = tls.clone();
        let key = engine.secrets().derive("aquatic TCP loads 1");
        let sources = SourceSeed { blocked: Arc::clone(blocked), key };
        let changes = TcpChanges {
            protocols,
            changes,
            tls: tls_of_changes,
            cores,
            listeners,
            max_connections: max,
            sources: sources.clone(),
        };
        let settings = self.settings(protocols, forwarded.trusted.clone(), tls, sources.of(self, cores));
        Ok(Opened {
            listeners: bound.split(),
            settings: TcpSettings { max_connections, ..settings },
            forwarded,
            changes,
        })
    }

    /// Which headers of which proxies name clients, with an empty block list.
    ///
    /// # Errors
    /// Networks of proxies that cannot be parsed, which the check of the configuration reports.
    pub fn forwarded(&self) -> anyhow::Result<ForwardedHeaders> {
        Ok(ForwardedHeaders {
            names: self.proxies.client_headers.clone(),
            trusted: TrustedProxies::parse(&self.proxies.trusted_proxies)?,
            on_bad: self.proxies.on_missing_client.into(),
            blocked: Arc::default(),
        })
    }

    fn bind(&self, engine: &mut Engine, names: &[ServiceName]) -> anyhow::Result<Listeners> {
        let network = self.network;
        let options = ListenOptions { backlog: network.tcp_backlog, only_ipv6: network.only_ipv6 };
        let mut listeners = Listeners::new(engine.cores()).context("cannot make what wakes other cores")?;
        let mut bound = 0;
        for (address, kind) in self.listeners() {
            match listeners.add(address, kind, &options, engine.listeners()) {
                Ok(address) => names.iter().for_each(|name| name.announce(address, kind)),
                Err(error) if network.may_skip(address) && error.family_unavailable() => {
                    log::warn!("{error}; serving {} only", Family::V4.name());
                    continue;
                }
                Err(error) => return Err(error.classified()),
            }
            bound += 1;
        }
        if network.has_unix_socket() {
            let path = &network.unix_socket_path;
            let mode = network.unix_socket_permissions().context(NetworkConfig::unix_socket_mode)?;
            let origin = listeners
                .add_unix(path, mode, &options, engine.listeners())
                .map_err(UnixBindError::classified)?;
            if origin == UnixOrigin::Bound {
                let file = SocketFile::new(path, engine.serving())?;
                engine.add_periodic(file);
            }
            for ServiceName { name, .. } in names {
                log::info!("{name} tracker listening for proxies on the unix socket {}", path.display());
            }
            bound += 1;
        }
        anyhow::ensure!(bound > 0, "no address to listen on is left; set {} = true", NetworkConfig::use_ipv4);
        Ok(listeners)
    }

    fn settings(
        &self,
        protocols: Protocols,
        trusted_proxies: TrustedProxies,
        tls: Option<Arc<Tls>>,
        sources: SourceSettings,
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
            sources,
            trusted_proxies,
            proxy_protocol: proxies.proxy_protocol.then(|| proxies.on_missing_client.into()),
            tls,
            handshakes: HandshakeLimits {
                open: connections.max_tls_handshakes,
                queued: connections.max_queued_tls_handshakes,
            },
            reply_to_plain: Vec::new(),
        }
    }
}

/// Logs that clients may be among the trusted proxies.
fn warn_of_large_networks(trusted: &TrustedProxies) {
    if let Some(network) = trusted.too_large() {
        log::warn!(
            "{} has {network}: whoever connects from there can name any address as its own, and limits per \
             address do not hold for it; list only the addresses of your proxies",
            ProxiesConfig::trusted_proxies
        );
    }
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
        network: NetworkConfig,
        connections: ConnectionsConfig,
        proxies: ProxiesConfig,
        rates: RateLimitsConfig,
    }

    impl Blocks {
        fn problems(&self) -> Vec<String> {
            let Self { network, connections, proxies, rates } = self;
            let mut problems = Vec::new();
            TcpConfig { network, connections, proxies, rates }.check(&mut problems);
            problems.into_iter().map(|problem| problem.key).collect()
        }
    }

    fn problems(change: impl FnOnce(&mut Blocks)) -> Vec<String> {
        let mut blocks = Blocks::default();
        change(&mut blocks);
        blocks.problems()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Blocks::default().problems(), [""; 0]);
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
