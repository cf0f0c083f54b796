//! What the configuration refers to on this machine: files, accounts, processors, addresses.

mod paths;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use aquatic_cluster::access::Access;
use aquatic_common::AccessListMode;
use aquatic_common::config::{
    AccessListConfig, ListenerKind, MetricsConfig, NetworkConfig, RateLimitsConfig, Unusable,
};
use aquatic_common::settings::{Addresses, Problem};
use aquatic_net::block_list::BlockList;
use aquatic_net::listen::BindError;
use aquatic_net::tcp::{TlsError, TlsFiles, check_unix_socket};
use aquatic_net::xdp;
use aquatic_runtime::cores::{self, CorePlanError};
use aquatic_runtime::{privileges, state_directory};
use aquatic_status::StatusConfig;
use aquatic_tracker::{SharedAccessList, export};

use crate::config::{Mode, TrackerConfig};
use crate::control;
use crate::memory::MemoryPlan;

pub(crate) use paths::{check as check_paths, refuse_conflicts};

/// The files that are read at start and at a reload, with what they are.
pub(crate) fn files(
    config: &TrackerConfig,
    mode: Mode,
    config_file: Option<&Path>,
) -> Vec<(&'static str, PathBuf)> {
    let mut files = Vec::new();
    files.extend(config_file.map(|path| ("configuration file", path.to_owned())));
    if config.access_list.mode != AccessListMode::Off {
        files.push(("access list", config.access_list.path.clone()));
    }
    if !config.rate_limits.block_list_path.as_os_str().is_empty() {
        files.push(("block list", config.rate_limits.block_list_path.clone()));
    }
    if config.serves_tls(mode) && config.network.acme.is_empty() {
        files.push(("TLS certificate", config.network.tls_certificate_path.clone()));
        files.push(("TLS private key", config.network.tls_private_key_path.clone()));
    }
    files
}

/// Warns of files that a reload will not be able to read.
pub(crate) fn warn_of_unreadable(config: &TrackerConfig, mode: Mode, config_file: Option<&Path>) {
    for (what, path) in files(config, mode, config_file) {
        if let Some(why) = privileges::unreadable_after_drop(&config.privileges, &path) {
            log::warn!(
                "the {what} {} cannot be reloaded after privileges are dropped: {why}. Make it readable for the user, \
                 or restart the tracker to apply changes",
                path.display()
            );
        }
    }
}

/// Warns of what a start would warn of, too, as far as it can be known without serving.
pub(crate) fn warn(config: &TrackerConfig, mode: Mode, config_file: Option<&Path>) {
    warn_of_unreadable(config, mode, config_file);
    if let Ok(cores) = cores::plan_for_this_process(config.workers, &config.cpus) {
        MemoryPlan::of(config, cores.cpus.len(), config.protocols(mode));
    }
    if config.serves_tcp(mode) {
        config.tcp().warn_of_proxies();
    }
}

/// Reports values that this machine does not allow. Opens files, but no socket stays open.
pub(crate) fn check(config: &TrackerConfig, mode: Mode, problems: &mut Vec<Problem>) {
    if let Err(error) = cores::plan_for_this_process(config.workers, &config.cpus) {
        let is_listed = matches!(error, CorePlanError::NotAllowed { .. });
        problems.push(Problem::new(if is_listed { "cpus" } else { "workers" }, error.to_string()));
    }
    privileges::check(&config.privileges, problems);
    state_directory::check(&config.state_directory, &config.privileges, problems);
    if let Err(error) = SharedAccessList::load(&config.access_list) {
        problems.push(Problem::new(AccessListConfig::path, error.to_string()));
    }
    if let Err(error) = BlockList::load(&config.rate_limits) {
        problems.push(Problem::new(RateLimitsConfig::block_list_path, error.to_string()));
    }
    export::check(&config.exports, &config.privileges, problems);
    if config.serves_tls(mode) && config.network.acme.is_empty() {
        check_tls(&config.network, problems);
    }
    if config.serves_tls(mode)
        && !config.network.acme.is_empty()
        && let Err(Unusable { key, text }) = aquatic_acme::check_files(&config.acme)
    {
        problems.push(Problem::new(key, text));
    }
    if config.cluster.is_enabled()
        // An empty path has been reported.
        && !config.cluster.secret_file.as_os_str().is_empty()
        && let Err(Unusable { key, text }) = Access::read(&config.cluster)
    {
        problems.push(Problem::new(key, text));
    }
    check_addresses(config, mode, problems);
    let interface = &config.network.xdp_interface;
    if config.protocols(mode).udp && !interface.is_empty() && xdp::is_missing(interface) {
        let text = "there is no such network interface (ip link show)";
        problems.push(Problem::new(NetworkConfig::xdp_interface, text));
    }
    control::check(config, problems);
    if config.serves_tcp(mode)
        && config.network.has_unix_socket()
        && let Err(error) = check_unix_socket(&config.network.unix_socket_path)
    {
        problems.push(Problem::new(NetworkConfig::unix_socket_path, error.to_string()));
    }
}

fn check_tls(network: &NetworkConfig, problems: &mut Vec<Problem>) {
    let files = TlsFiles::of(network);
    // Empty paths have been reported.
    if files.has_empty_path() {
        return;
    }
    // Both may be the same file, which is then looked at as the certificate first.
    let mut told = Vec::new();
    for error in files.check() {
        let is_key = match &error {
            TlsError::Unreadable(path, _) | TlsError::NotPem(path, _) => {
                *path == files.private_key && (*path != files.certificate || told.contains(path))
            }
            TlsError::NoKey(_) | TlsError::BadKey(..) => true,
            TlsError::NoCertificate(_)
            | TlsError::BadCertificate(..)
            | TlsError::Mismatch(..)
            | TlsError::Setup(_) => false,
        };
        let key =
            if is_key { NetworkConfig::tls_private_key_path } else { NetworkConfig::tls_certificate_path };
        problems.push(Problem::new(key, error.to_string()));
        if let TlsError::Unreadable(path, _) | TlsError::NotPem(path, _) = error {
            told.push(path);
        }
    }
}

/// Reports addresses that this machine does not have, and ports that need a privilege. Whether a port is free
/// is not checked: usually the tracker that is to be restarted listens there.
fn check_addresses(config: &TrackerConfig, mode: Mode, problems: &mut Vec<Problem>) {
    let network = &config.network;
    let has_tls = config.serves_tls(mode);
    let udp = config.protocols(mode).udp;
    let implied = network.tcp_listeners().into_iter().filter(|(_, kind)| *kind != ListenerKind::Plain);
    let implied: Addresses =
        Addresses(implied.map(|(address, _)| address).filter(|_| network.implies_tls_port()).collect());
    let metrics = Addresses(vec![config.metrics.address]);
    let status = Addresses(vec![config.status.address]);
    let has_status = config.status.enable && config.status.own_address;
    for (key, addresses, is_used) in [
        (NetworkConfig::address_ipv4, &network.address_ipv4, network.use_ipv4),
        (NetworkConfig::address_ipv6, &network.address_ipv6, network.use_ipv6),
        (NetworkConfig::tls_address_ipv4, &network.tls_address_ipv4, network.use_ipv4 && has_tls),
        (NetworkConfig::tls_address_ipv6, &network.tls_address_ipv6, network.use_ipv6 && has_tls),
        (NetworkConfig::acme, &implied, has_tls),
        (MetricsConfig::address, &metrics, config.metrics.enable),
        (StatusConfig::address, &status, has_status),
    ] {
        for &address in addresses.0.iter().filter(|address| is_used && !network.may_skip(**address)) {
            let port = if address.port() < 1024 { address.port() } else { 0 };
            if let Err(error) = UdpSocket::bind(SocketAddr::new(address.ip(), port))
                && error.kind() != ErrorKind::AddrInUse
            {
                let is_udp = udp && [NetworkConfig::address_ipv4, NetworkConfig::address_ipv6].contains(&key);
                let protocol = if is_udp { "UDP" } else { "TCP" };
                problems.push(Problem::new(key, BindError::new(protocol, address, &error).to_string()));
            }
        }
    }
}
