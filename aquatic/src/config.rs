//! Configuration of the tracker: one file for all subcommands.

mod former;
mod live;

use std::path::PathBuf;

use aquatic_common::config::{
    AccessListConfig, AcmeConfig, CleaningConfig, ClusterConfig, ConnectionsConfig, ControlConfig,
    ExportsConfig, LimitsConfig, LogFormat, MetricsConfig, NetworkConfig, PrivilegesConfig, ProtocolConfig,
    ProxiesConfig, RateLimitsConfig, StatisticsConfig, Transports, UpgradeConfig, overlap,
};
use aquatic_common::processors::Processors;
use aquatic_common::settings::{Configuration, FormerKey, Problem, Scope};
use aquatic_http::HttpConfig;
use aquatic_net::proxy::TrustedProxies;
use aquatic_net::tcp::config::TcpConfig;
use aquatic_runtime::EngineConfig;
use aquatic_status::StatusConfig;
use aquatic_tracker::{IntervalPolicy, PeerRules, Stretch, TrackerSettings};
use aquatic_udp::UdpConfig;
use aquatic_ws::WsConfig;

use crate::control;
use crate::environment;

pub(crate) use aquatic_common::config::LogLevel;
pub(crate) use live::{Applies, applies};

aquatic_common::settings! {
    /// Configuration of the tracker.
    pub(crate) struct TrackerConfig {
        /// Number of worker threads, each pinned to a processor of its own; 0 for one per available
        /// processor.
        pub workers: usize = 0, unit "threads", in 0..=1024;
        /// Processors to pin the workers to, as numbers and ranges in the order of use: "0-3,8". If empty,
        /// all that are available to the process.
        pub cpus: Processors = Processors::default();
        /// Level of the log. Addresses of clients are logged at "debug" and "trace" only.
        pub log_level: LogLevel = LogLevel::Info;
        /// Format of the log: "text" has time, level and message, "json" an object per line, "journal" a
        /// priority and the message for the journal of systemd, which adds the time. "auto" is "journal" if
        /// standard error is connected to the journal, else "text".
        pub log_format: LogFormat = LogFormat::Auto;
        /// Log one of this number of requests, at level "info", with the network of the client (/24 or /48)
        /// in place of its address; 0 for none. A worker logs at most 400 a second of UDP and HTTP, and as
        /// many of WebTorrent. Those of unknown clients behind a proxy are not logged.
        pub log_requests: u32 = 0, unit "requests", in 0..=1_000_000_000;
        /// Reload when the configuration file, the access list, the block list, or the TLS certificate or its
        /// key changes, as on SIGHUP. A change is noticed within about two seconds. Replace files by renaming
        /// complete ones over them.
        pub reload_on_change: bool = false;
        /// Directory in which the tracker keeps what the next process needs: the secret behind UDP connection
        /// ids, a snapshot of UDP and HTTP peers, and the certificate of network.acme. It must exist and be
        /// writable for the user that the tracker runs as, and for nobody else. If empty, nothing is kept.
        pub state_directory: PathBuf = PathBuf::new();
        /// Time between two snapshots, for the case that the tracker is killed; 0 to save one only when it
        /// stops.
        pub snapshot_interval: u32 = 0, unit "seconds", in 0..=86_400;

        // Sections without documentation here have that of their type.
        pub network: NetworkConfig;
        pub acme: AcmeConfig;
        pub connections: ConnectionsConfig;
        pub proxies: ProxiesConfig;
        pub protocol: ProtocolConfig;
        pub cleaning: CleaningConfig;
        pub limits: LimitsConfig;
        pub rate_limits: RateLimitsConfig;
        pub access_list: AccessListConfig;
        pub privileges: PrivilegesConfig;
        pub metrics: MetricsConfig;
        pub control: ControlConfig;
        pub upgrade: UpgradeConfig;
        pub statistics: StatisticsConfig;
        pub status: StatusConfig;
        pub exports: ExportsConfig;
        pub cluster: ClusterConfig;
        pub udp: UdpConfig;
        pub http: HttpConfig;
        pub ws: WsConfig;
    }
}

/// The subcommand, as far as it selects what is served and which part of the configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All protocols that are enabled in their sections.
    All,
    /// UDP.
    Udp,
    /// HTTP.
    Http,
    /// WebTorrent.
    Ws,
}

impl Mode {
    /// Name of the subcommand.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Ws => "ws",
        }
    }
}

/// A set of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocols {
    /// UDP.
    pub udp: bool,
    /// HTTP.
    pub http: bool,
    /// WebTorrent.
    pub ws: bool,
}

impl Protocols {
    const NONE: Self = Self { udp: false, http: false, ws: false };
    const ALL: Self = Self { udp: true, http: true, ws: true };
    const UDP: Self = Self { udp: true, ..Self::NONE };
    const HTTP: Self = Self { http: true, ..Self::NONE };
    const WS: Self = Self { ws: true, ..Self::NONE };
    /// The protocols over TCP.
    const TCP: Self = Self { http: true, ws: true, ..Self::NONE };
    /// The protocols whose peers are in the shared swarms.
    const SWARM: Self = Self { udp: true, http: true, ..Self::NONE };
}

/// The sections and keys that only some protocols read. The longest name that contains a key decides; keys
/// without any are read by all protocols. What no protocol reads is read by [`Mode::All`] only.
const READERS: &[(&str, Protocols)] = &[
    (NetworkConfig::only_ipv6, Protocols::TCP),
    (NetworkConfig::unix_socket_path, Protocols::TCP),
    (NetworkConfig::unix_socket_mode, Protocols::TCP),
    (NetworkConfig::tcp_backlog, Protocols::TCP),
    (NetworkConfig::xdp_interface, Protocols::UDP),
    (NetworkConfig::xdp_mode, Protocols::UDP),
    (NetworkConfig::enable_tls, Protocols::TCP),
    (NetworkConfig::acme, Protocols::TCP),
    ("acme", Protocols::TCP),
    (NetworkConfig::tls_address_ipv4, Protocols::TCP),
    (NetworkConfig::tls_address_ipv6, Protocols::TCP),
    (NetworkConfig::accept_plain, Protocols::TCP),
    (NetworkConfig::tls_certificate_path, Protocols::TCP),
    (NetworkConfig::tls_private_key_path, Protocols::TCP),
    ("connections", Protocols::TCP),
    ("proxies", Protocols::TCP),
    ("protocol", Protocols::SWARM),
    ("cleaning", Protocols::SWARM),
    ("limits", Protocols::SWARM),
    (LimitsConfig::max_memory, Protocols::ALL),
    (RateLimitsConfig::udp_requests, Protocols::UDP),
    (RateLimitsConfig::udp_burst, Protocols::UDP),
    (RateLimitsConfig::udp_connects, Protocols::UDP),
    (RateLimitsConfig::udp_overload_control, Protocols::UDP),
    (RateLimitsConfig::http_requests, Protocols::HTTP),
    (RateLimitsConfig::http_burst, Protocols::HTTP),
    (RateLimitsConfig::ws_messages, Protocols::WS),
    (RateLimitsConfig::ws_burst, Protocols::WS),
    (RateLimitsConfig::tcp_connections, Protocols::TCP),
    (RateLimitsConfig::tcp_connections_burst, Protocols::TCP),
    ("udp", Protocols::UDP),
    (UdpConfig::enable, Protocols::NONE),
    ("http", Protocols::HTTP),
    (HttpConfig::enable, Protocols::NONE),
    ("ws", Protocols::WS),
    (WsConfig::enable, Protocols::NONE),
];

/// The value of the longest name in a table that is the key or a section around it.
fn longest_match<T: Copy>(table: &[(&str, T)], key: &str) -> Option<T> {
    let contains =
        |name: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let names = table.iter().filter(|(name, _)| contains(name));
    names.max_by_key(|(name, _)| name.len()).map(|(_, value)| *value)
}

impl Scope<TrackerConfig> for Mode {
    fn reads(&self, key: &str) -> bool {
        match (self, longest_match(READERS, key)) {
            (Self::All, _) | (_, None) => true,
            (Self::Udp, Some(readers)) => readers.udp,
            (Self::Http, Some(readers)) => readers.http,
            (Self::Ws, Some(readers)) => readers.ws,
        }
    }

    fn check_relations(&self, config: &TrackerConfig, problems: &mut Vec<Problem>) {
        config.check_for(*self, problems);
    }

    fn check_environment(&self, config: &TrackerConfig, problems: &mut Vec<Problem>) {
        environment::check(config, *self, problems);
    }
}

impl Configuration for TrackerConfig {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        self.check_for(Mode::All, problems);
    }

    fn log_level(&self) -> LogLevel {
        self.log_level
    }

    fn log_format(&self) -> LogFormat {
        self.log_format
    }

    fn former_keys() -> &'static [FormerKey] {
        former::KEYS
    }
}

impl TrackerConfig {
    /// The protocols that a subcommand serves.
    pub(crate) fn protocols(&self, mode: Mode) -> Protocols {
        match mode {
            Mode::All => Protocols { udp: self.udp.enable, http: self.http.enable, ws: self.ws.enable },
            Mode::Udp => Protocols::UDP,
            Mode::Http => Protocols::HTTP,
            Mode::Ws => Protocols::WS,
        }
    }

    /// Whether a subcommand serves TCP connections.
    pub(crate) fn serves_tcp(&self, mode: Mode) -> bool {
        let Protocols { http, ws, .. } = self.protocols(mode);
        http || ws
    }

    /// Path of the file with the certificate, if TLS connections are served.
    pub(crate) fn certificate(&self, mode: Mode) -> Option<PathBuf> {
        if !self.serves_tls(mode) {
            return None;
        }
        Some(if self.network.acme.is_empty() {
            self.network.tls_certificate_path.clone()
        } else {
            self.state_directory.join(aquatic_acme::CERTIFICATE_FILE)
        })
    }

    /// Whether a subcommand serves TLS connections.
    pub(crate) fn serves_tls(&self, mode: Mode) -> bool {
        self.serves_tcp(mode) && self.network.serves_tls()
    }

    /// The sections and keys that the engine reads.
    pub(crate) fn engine(&self) -> EngineConfig {
        EngineConfig {
            workers: self.workers,
            cpus: self.cpus.clone(),
            state_directory: self.state_directory.clone(),
            privileges: self.privileges.clone(),
            upgrade: self.upgrade.clone(),
            statistics: self.statistics.clone(),
        }
    }

    /// The sections that the swarms of UDP and HTTP peers depend on.
    pub(crate) fn tracker(&self) -> TrackerSettings {
        let ProtocolConfig {
            peer_announce_interval,
            announce_interval_jitter,
            max_announce_interval,
            max_interval_swarm_size,
        } = self.protocol;
        TrackerSettings {
            access_list: self.access_list.clone(),
            cleaning: self.cleaning.clone(),
            limits: self.limits.clone(),
            rules: self.peer_rules(),
            interval: IntervalPolicy { interval: peer_announce_interval, jitter: announce_interval_jitter },
            stretch: Stretch { max_interval: max_announce_interval, large_swarm: max_interval_swarm_size },
        }
    }

    fn peer_rules(&self) -> PeerRules {
        // Networks that cannot be parsed have been reported.
        let proxies = TrustedProxies::parse(&self.proxies.trusted_proxies).unwrap_or_default();
        let listening = self.network.addresses().map(|(_, address)| address);
        PeerRules::new(&self.limits, listening, proxies.has_loopback())
    }

    /// The sections about TCP connections.
    pub(crate) fn tcp(&self) -> TcpConfig<'_> {
        TcpConfig {
            network: &self.network,
            connections: &self.connections,
            proxies: &self.proxies,
            rates: &self.rate_limits,
        }
    }

    /// Reports impossible combinations of the values that a subcommand reads.
    fn check_for(&self, mode: Mode, problems: &mut Vec<Problem>) {
        let Protocols { udp, http, ws } = self.protocols(mode);
        if !udp && !http && !ws {
            let text = format!(
                "is false like {} and {}, so there is nothing to serve; set one to true",
                HttpConfig::enable,
                WsConfig::enable
            );
            problems.push(Problem::new(UdpConfig::enable, text));
        }
        self.check_workers(problems);
        self.network.check(Transports { udp, tcp: http || ws }, &self.metrics, problems);
        self.check_status(http || ws, problems);
        self.privileges.check(problems);
        self.rate_limits.check(problems);
        self.exports.check(problems);
        self.cluster.check(problems);
        control::check_path(self, problems);
        if http || ws {
            self.tcp().check(problems);
            self.acme.check(&self.network, !self.state_directory.as_os_str().is_empty(), problems);
        }
        if udp || http {
            self.protocol.check(&self.cleaning, problems);
            self.limits.check(problems);
        }
        if udp {
            self.udp.check(problems);
        }
        if http {
            self.http.check(&self.protocol, problems);
        }
        if ws {
            self.ws.check(problems);
        }
    }

    fn check_status(&self, tcp: bool, problems: &mut Vec<Problem>) {
        let status = &self.status;
        status.check(problems);
        if !status.enable || !status.own_address {
            return;
        }
        if tcp {
            self.network.check_endpoint(StatusConfig::address, status.address, problems);
        }
        if self.metrics.enable && overlap(status.address, self.metrics.address) {
            let text = format!(
                "{} conflicts with {}; the status page serves /metrics to operators as well, so one of the two \
                 may do",
                status.address,
                MetricsConfig::address
            );
            problems.push(Problem::new(StatusConfig::address, text));
        }
    }

    fn check_workers(&self, problems: &mut Vec<Problem>) {
        let listed = self.cpus.numbers().len();
        if !self.cpus.is_all() && self.workers > listed {
            let text = format!("{} is more than the {listed} processor(s) that cpus lists", self.workers);
            problems.push(Problem::new("workers", text));
        }
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
