//! Which settings a reload changes.

use aquatic_common::config::{
    AccessListConfig, AcmeConfig, CleaningConfig, LimitsConfig, NetworkConfig, ProtocolConfig,
    StatisticsConfig,
};
use aquatic_http::HttpConfig;
use aquatic_udp::UdpConfig;
use aquatic_ws::{WsCleaningConfig, WsClientConfig, WsConfig, WsLimitsConfig};

/// What it takes to change a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applies {
    /// A reload.
    OnReload,
    /// A restart: sockets, memory or threads were set up by it.
    OnRestart,
}

use Applies::{OnReload, OnRestart};

/// What it takes to change each key and section. The longest name that contains a key decides.
pub(super) const APPLIES: &[(&str, Applies)] = &[
    ("workers", OnRestart),
    ("cpus", OnRestart),
    ("log_level", OnReload),
    ("log_format", OnRestart),
    ("log_requests", OnReload),
    ("reload_on_change", OnReload),
    ("state_directory", OnRestart),
    ("snapshot_interval", OnReload),
    ("network", OnRestart),
    (NetworkConfig::acme, OnReload),
    (NetworkConfig::tls_certificate_path, OnReload),
    (NetworkConfig::tls_private_key_path, OnReload),
    ("acme", OnReload),
    (AcmeConfig::root_certificates_path, OnRestart),
    (AcmeConfig::external_account_id, OnRestart),
    (AcmeConfig::external_account_key_path, OnRestart),
    ("connections", OnReload),
    ("proxies", OnReload),
    (ProtocolConfig::peer_announce_interval, OnReload),
    (ProtocolConfig::announce_interval_jitter, OnReload),
    (ProtocolConfig::max_announce_interval, OnReload),
    (ProtocolConfig::max_interval_swarm_size, OnReload),
    (CleaningConfig::max_peer_age, OnReload),
    (CleaningConfig::interval, OnRestart),
    ("limits", OnReload),
    (LimitsConfig::max_peers_per_address, OnRestart),
    (LimitsConfig::max_memory, OnRestart),
    ("rate_limits", OnReload),
    (AccessListConfig::mode, OnReload),
    (AccessListConfig::path, OnReload),
    (AccessListConfig::allow_empty, OnReload),
    ("privileges", OnRestart),
    ("metrics", OnRestart),
    ("control", OnRestart),
    ("upgrade", OnRestart),
    (StatisticsConfig::interval, OnReload),
    (StatisticsConfig::torrent_sizes_interval, OnRestart),
    (StatisticsConfig::clients, OnRestart),
    ("exports", OnRestart),
    ("cluster", OnRestart),
    ("status", OnRestart),
    ("udp", OnRestart),
    (UdpConfig::max_response_peers, OnReload),
    (UdpConfig::max_scrape_torrents, OnReload),
    ("http", OnRestart),
    (HttpConfig::max_response_peers, OnReload),
    (HttpConfig::max_scrape_torrents, OnReload),
    (HttpConfig::min_announce_interval, OnReload),
    (WsConfig::enable, OnRestart),
    (WsConfig::peer_announce_interval, OnReload),
    (WsConfig::announce_interval_jitter, OnReload),
    (WsConfig::max_announce_interval, OnReload),
    (WsConfig::max_interval_swarm_size, OnReload),
    (WsConfig::max_offers, OnReload),
    (WsConfig::allowed_origins, OnReload),
    (WsConfig::max_offer_age, OnRestart),
    (WsConfig::max_scrape_torrents, OnReload),
    ("ws.client", OnReload),
    (WsClientConfig::max_message_size, OnRestart),
    ("ws.limits", OnReload),
    (WsLimitsConfig::max_waiting_offers, OnRestart),
    (WsLimitsConfig::max_waiting_offers_per_peer, OnRestart),
    (WsCleaningConfig::max_peer_age, OnReload),
    (WsCleaningConfig::interval, OnRestart),
];

/// What it takes to change a key.
pub(crate) fn applies(key: &str) -> Applies {
    super::longest_match(APPLIES, key).unwrap_or(OnRestart)
}
