//! What the status page is told about the configuration.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aquatic_acme::AcmeReport;
use aquatic_cluster::report::NodeStatus;
use aquatic_common::config::{ListenerKind, ProxiesConfig};
use aquatic_net::proxy::TrustedProxies;
use aquatic_runtime::Engine;
use aquatic_runtime::clock::calendar_seconds;
use aquatic_status::{
    CertificateReport, CertificateSource, ClusterReport, ClusterSource, CoreStatus, Limits, NodeReport,
    Proxies, Settings, duration,
};

use crate::compose::with_affordable_connections;
use crate::config::{Protocols, TrackerConfig};
use crate::memory::MemoryPlan;
use crate::reload::ConfigReloader;

/// Opens the status page. Returns each core's part; none if the cores do not serve it.
///
/// # Errors
/// What keeps its address from being bound.
pub(crate) fn open(
    config: &TrackerConfig,
    (protocols, memory): (Protocols, Option<MemoryPlan>),
    (certificate, cluster): (Option<AcmeReport>, Option<aquatic_cluster::report::ClusterReport>),
    (engine, reloader): (&mut Engine, &mut ConfigReloader),
) -> anyhow::Result<Vec<CoreStatus>> {
    let limits_of =
        move |config: &TrackerConfig| limits(&with_affordable_connections(config, memory), protocols);
    let settings = Settings {
        config: &config.status,
        announce_urls: announce_urls(config, protocols),
        limits: limits_of(config),
        proxies: proxies_of(&config.proxies)?,
        certificate: certificate.map(certificate_source),
        cluster: cluster.map(cluster_source),
    };
    let opened = aquatic_status::open(settings, protocols.http || protocols.ws, engine)?;
    let Some((cores, changes)) = opened else { return Ok(Vec::new()) };
    reloader.add(move |config| {
        changes.set(limits_of(config), proxies_of(&config.proxies)?);
        Ok(Vec::new())
    });
    if config.status.on_cores()
        && let Some(url) = page_url(config, protocols)
    {
        log::info!("status page: {url}; for operators: {url}?view=operator");
    }
    Ok(cores)
}

/// Whose requests are not of this machine.
fn proxies_of(config: &ProxiesConfig) -> anyhow::Result<Proxies> {
    let trusted = TrustedProxies::parse(&config.trusted_proxies)?;
    Ok(Proxies { trusted, headers: config.client_headers.clone() })
}

/// What the page shows of the certificate that the tracker obtains.
fn certificate_source(report: AcmeReport) -> CertificateSource {
    CertificateSource::new(move || {
        let status = report.get();
        let (text, warn) = status.text(calendar_seconds(), duration);
        CertificateReport { expires: status.expires, text, warn }
    })
}

/// What the page shows of the cluster.
fn cluster_source(report: aquatic_cluster::report::ClusterReport) -> ClusterSource {
    ClusterSource::new(move || {
        let status = report.get();
        let (text, warn) = status.text();
        let node = |node: &NodeStatus| NodeReport {
            name: node.name.clone(),
            live: node.live,
            lag_us: (node.lag_seconds * 1e6) as u64,
            gaps: node.gaps,
            own_peers: node.own_peers,
            connections: node.connections.into(),
            requests: node.announces.saturating_add(node.scrapes),
        };
        ClusterReport {
            connected: status.connected,
            complete: status.complete,
            text,
            warn,
            nodes: status.nodes.iter().map(node).collect(),
            requests: status.totals.announces.saturating_add(status.totals.scrapes),
            completed: status.totals.completed,
        }
    })
}

/// Address of the page on a port of HTTP or WebTorrent; `None` without one, or if the kernel chooses it.
fn page_url(config: &TrackerConfig, protocols: Protocols) -> Option<String> {
    let listeners = config.network.tcp_listeners();
    let (address, kind) = listeners.first().filter(|_| protocols.http || protocols.ws)?;
    let scheme = if *kind == ListenerKind::Tls { "https" } else { "http" };
    let host = match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let port = address.port();
    (port != 0).then(|| format!("{scheme}://{host}:{port}{}", config.status.path))
}

/// Limits whose use the page shows.
fn limits(config: &TrackerConfig, protocols: Protocols) -> Limits {
    let swarms = protocols.udp || protocols.http;
    Limits {
        connections: if protocols.http || protocols.ws {
            config.connections.max_connections as u64
        } else {
            0
        },
        peers: if swarms { config.limits.max_peers } else { 0 },
        torrents: if swarms { config.limits.max_torrents } else { 0 },
    }
}

/// Announce URLs of the configured ports, with `{host}` for the name of the tracker.
fn announce_urls(config: &TrackerConfig, protocols: Protocols) -> Vec<String> {
    let udp_ports: BTreeSet<u16> =
        config.network.addresses().filter(|_| protocols.udp).map(|(_, address)| address.port()).collect();
    let mut urls: Vec<String> = udp_ports.into_iter().map(|port| url("udp", port)).collect();
    let listeners = config.network.tcp_listeners();
    let ports = |kinds: [ListenerKind; 2]| -> BTreeSet<u16> {
        let of_kind = listeners.iter().filter(|(_, kind)| kinds.contains(kind));
        of_kind.map(|(address, _)| address.port()).collect()
    };
    let plain = ports([ListenerKind::Plain, ListenerKind::TlsOrPlain]);
    let tls = ports([ListenerKind::Tls, ListenerKind::TlsOrPlain]);
    for (is_served, scheme, ports) in [
        (protocols.http, "http", &plain),
        (protocols.http, "https", &tls),
        (protocols.ws, "ws", &plain),
        (protocols.ws, "wss", &tls),
    ] {
        urls.extend(ports.iter().filter(|_| is_served).map(|port| url(scheme, *port)));
    }
    urls
}

fn url(scheme: &str, port: u16) -> String {
    match (scheme, port) {
        ("http" | "ws", 80) | ("https" | "wss", 443) => format!("{scheme}://{{host}}/announce"),
        _ => format!("{scheme}://{{host}}:{port}/announce"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    #[test]
    fn urls_are_those_of_the_ports() {
        let urls = |mode, text: &str| {
            let config: TrackerConfig = toml::from_str(text).unwrap();
            announce_urls(&config, config.protocols(mode))
        };
        assert_eq!(urls(Mode::Udp, ""), ["udp://{host}:6969/announce"]);
        let secure =
            "network.enable_tls = true\nnetwork.tls_address_ipv4 = ['0.0.0.0:443']\nnetwork.use_ipv6 = false";
        assert_eq!(
            urls(Mode::All, secure),
            [
                "udp://{host}:6969/announce",
                "http://{host}:6969/announce",
                "https://{host}/announce",
                "ws://{host}:6969/announce",
                "wss://{host}/announce",
            ]
        );
    }

    #[test]
    fn the_page_is_named_as_this_machine_reaches_it() {
        let url = |mode, text: &str| {
            let config: TrackerConfig = toml::from_str(text).unwrap();
            page_url(&config, config.protocols(mode))
        };
        assert_eq!(url(Mode::All, "").as_deref(), Some("http://localhost:6969/"));
        assert_eq!(url(Mode::Udp, ""), None);
        assert_eq!(url(Mode::Ws, "network.address_ipv4 = ['127.0.0.1:0']"), None);
        let v6 = "network.use_ipv4 = false\nnetwork.address_ipv6 = ['[::1]:80']\nstatus.path = '/s/'";
        assert_eq!(url(Mode::Http, v6).as_deref(), Some("http://[::1]:80/s/"));
    }

    #[test]
    fn limits_of_what_is_not_served_are_left_out() {
        let config = TrackerConfig::default();
        let shown = |mode| limits(&config, config.protocols(mode));
        assert_eq!(shown(Mode::Udp).connections, 0);
        assert_eq!(shown(Mode::Ws).peers, 0);
        assert_eq!(shown(Mode::All).torrents, config.limits.max_torrents);
    }
}
