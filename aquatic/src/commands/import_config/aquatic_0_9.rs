//! Conversion of the configurations of aquatic_udp, aquatic_http and aquatic_ws 0.9.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aquatic_common::config::{
    AccessListConfig, CleaningConfig, ConnectionsConfig, MetricsConfig, NetworkConfig, PrivilegesConfig,
    ProtocolConfig, ProxiesConfig, StatisticsConfig,
};
use aquatic_http::HttpConfig;
use aquatic_udp::UdpConfig;
use aquatic_ws::WsConfig;
use toml::{Table, Value};

use super::Program;
use super::draft::{Draft, Encryption};

/// Receive buffer of aquatic_udp 0.9 by default, in bytes.
const FORMER_BUFFER: i64 = 8_000_000;

/// Listening address of the programs of 0.9 by default.
const FORMER_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 3000);

/// Socket workers of the programs of 0.9 by default.
const FORMER_WORKERS: i64 = 1;

/// Interval of histograms of aquatic_udp 0.9 by default, in seconds.
const FORMER_CLEANING: i64 = 120;

/// What there is instead of metrics by prefix.
const PREFIXES: &str = "\"aquatic ctl top clients\" ranks the prefixes of peer ids for some seconds.";

/// Treatment of a key.
enum Rule {
    /// A key with the same meaning and unit.
    To(&'static str),
    /// A conversion that depends on the value, or on other keys.
    By(fn(&mut Draft, &str, &Value, &Table)),
    /// Read together with another key.
    With,
    /// No counterpart, and why or what to do. Not noted for the value that switched it off.
    Gone(Off, &'static str),
}

/// The value with which a setting did nothing.
enum Off {
    Never,
    False,
    Zero,
}

use Rule::{By, Gone, To, With};

/// Keys of all three programs, in the order of their printed configurations.
const COMMON: &[(&str, Rule)] = &[
    ("socket_workers", By(workers)),
    ("swarm_workers", By(swarm_workers)),
    ("log_level", To("log_level")),
    ("network.address", By(address)),
    ("network.only_ipv6", With),
    ("privileges.drop_privileges", By(privileges)),
    ("privileges.chroot_path", With),
    ("privileges.group", With),
    ("privileges.user", With),
    ("access_list.mode", By(access_list)),
    ("access_list.path", With),
];

/// Keys of aquatic_http and aquatic_ws.
const OVER_TCP: &[(&str, Rule)] = &[
    ("network.tcp_backlog", To(NetworkConfig::tcp_backlog)),
    ("network.enable_tls", By(tls)),
    ("network.tls_certificate_path", With),
    ("network.tls_private_key_path", With),
    ("cleaning.connection_cleaning_interval", Gone(Off::Never, "every connection has its own deadlines.")),
    ("metrics.run_prometheus_endpoint", By(metrics)),
    ("metrics.prometheus_endpoint_address", With),
    (
        "metrics.torrent_count_update_interval",
        Gone(Off::Never, "metrics are current whenever they are read."),
    ),
];

const UDP: &[(&str, Rule)] = &[
    ("network.socket_recv_buffer_size", By(receive_buffer)),
    ("network.poll_timeout_ms", Gone(Off::Never, "workers wait until there is something to do.")),
    (
        "network.resend_buffer_max_len",
        Gone(
            Off::Zero,
            "a reply that the kernel cannot take is dropped and counted; clients repeat their requests.",
        ),
    ),
    ("protocol.max_scrape_torrents", To(UdpConfig::max_scrape_torrents)),
    ("protocol.max_response_peers", To(UdpConfig::max_response_peers)),
    ("protocol.peer_announce_interval", To(ProtocolConfig::peer_announce_interval)),
    ("statistics.print_to_stdout", By(statistics)),
    ("statistics.interval", With),
    ("statistics.torrent_peer_histograms", By(histograms)),
    ("statistics.peer_clients", By(clients)),
    ("statistics.write_html_to_file", Gone(Off::False, "statistics are not written to an HTML file.")),
    ("statistics.html_file_path", With),
    ("statistics.run_prometheus_endpoint", By(udp_metrics)),
    ("statistics.prometheus_endpoint_address", With),
    ("statistics.prometheus_peer_id_prefixes", Gone(Off::False, PREFIXES)),
    ("cleaning.torrent_cleaning_interval", To(CleaningConfig::interval)),
    ("cleaning.max_connection_age", To(UdpConfig::max_connection_age)),
    ("cleaning.max_peer_age", To(CleaningConfig::max_peer_age)),
];

const HTTP: &[(&str, Rule)] = &[
    ("network.keep_alive", By(keep_alive)),
    ("network.runs_behind_reverse_proxy", By(proxies)),
    ("network.reverse_proxy_ip_header_name", With),
    ("network.reverse_proxy_ip_header_format", With),
    ("protocol.max_scrape_torrents", To(HttpConfig::max_scrape_torrents)),
    ("protocol.max_peers", To(HttpConfig::max_response_peers)),
    ("protocol.peer_announce_interval", To(ProtocolConfig::peer_announce_interval)),
    ("cleaning.torrent_cleaning_interval", To(CleaningConfig::interval)),
    ("cleaning.max_peer_age", To(CleaningConfig::max_peer_age)),
    ("cleaning.max_connection_idle", To(ConnectionsConfig::max_connection_idle)),
];

const WS: &[(&str, Rule)] = &[
    ("network.websocket_max_message_size", To("ws.client.max_message_size")),
    (
        "network.websocket_max_frame_size",
        Gone(Off::Never, "only messages have a maximum size, ws.client.max_message_size."),
    ),
    (
        "network.websocket_write_buffer_size",
        Gone(Off::Never, "see ws.client.max_unsent_bytes for what may wait."),
    ),
    ("network.enable_http_health_checks", Gone(Off::Never, "/health is always served.")),
    ("protocol.max_scrape_torrents", To(WsConfig::max_scrape_torrents)),
    ("protocol.max_offers", To(WsConfig::max_offers)),
    ("protocol.peer_announce_interval", To(WsConfig::peer_announce_interval)),
    ("cleaning.torrent_cleaning_interval", To("ws.cleaning.interval")),
    ("cleaning.max_peer_age", To("ws.cleaning.max_peer_age")),
    ("cleaning.max_offer_age", To(WsConfig::max_offer_age)),
    ("cleaning.max_connection_idle", To("ws.client.max_announce_idle")),
    (
        "cleaning.close_after_tls_update_grace_period",
        Gone(Off::Never, "connections stay open when a certificate is replaced."),
    ),
    ("metrics.peer_clients", By(clients)),
    ("metrics.peer_id_prefixes", Gone(Off::False, PREFIXES)),
];

/// The program that a configuration is of, if it has a key that only one of them knows.
pub(super) fn recognise(table: &Table) -> Option<Program> {
    let keys = names("", table);
    let only_in = |tables: &[&[(&str, Rule)]], others: &[&[(&str, Rule)]]| {
        keys.iter().any(|key| {
            let knows = |tables: &[&[(&str, Rule)]]| tables.iter().any(|table| find(table, key).is_some());
            knows(tables) && !knows(others)
        })
    };
    let found = [
        (Program::Udp, only_in(&[UDP], &[HTTP, WS, OVER_TCP, COMMON])),
        (Program::Http, only_in(&[HTTP], &[UDP, WS, COMMON])),
        (Program::Ws, only_in(&[WS], &[UDP, HTTP, COMMON])),
    ];
    let mut found = found.into_iter().filter(|(_, found)| *found).map(|(program, _)| program);
    match (found.next(), found.next()) {
        (Some(program), None) => Some(program),
        _ => None,
    }
}

/// Carries the settings of a configuration over.
pub(super) fn convert(program: Program, table: &Table, draft: &mut Draft) {
    let own = match program {
        Program::Udp => &[COMMON, UDP][..],
        Program::Http => &[COMMON, OVER_TCP, HTTP],
        Program::Ws | Program::Opentracker => &[COMMON, OVER_TCP, WS],
    };
    draft.encryption = match program {
        // UDP may share its addresses with either.
        Program::Udp | Program::Opentracker => Encryption::Any,
        Program::Http | Program::Ws if is_true(table, "network.enable_tls") => Encryption::Tls,
        Program::Http | Program::Ws => Encryption::Plain,
    };
    draft.switch("privileges.drop_privileges", is_true(table, "privileges.drop_privileges"));
    let has_list = text(table, "access_list.mode").is_some_and(|mode| mode != "off");
    draft.switch("access_list.mode", has_list);
    if get(table, "network.address").is_none() {
        draft.listen(FORMER_ADDRESS);
        let text = format!("was absent, so the default of 0.9 is used, {FORMER_ADDRESS}, for IPv4 only.");
        draft.note("network.address", &text);
    }
    for key in names("", table) {
        let Some(value) = get(table, &key) else { continue };
        match own.iter().find_map(|rules| find(rules, &key)) {
            Some(To(successor)) => draft.set(successor, value.clone(), &key),
            Some(By(convert)) => convert(draft, &key, value, table),
            Some(With) => (),
            Some(Gone(off, text)) => {
                let is_off = match off {
                    Off::Never => false,
                    Off::False => value.as_bool() == Some(false),
                    Off::Zero => value.as_integer() == Some(0),
                };
                if !is_off {
                    draft.note(&key, &format!("not carried over: {text}"));
                }
            }
            None => draft.note(&key, "not carried over: the program has no such setting."),
        }
    }
}

/// Full names of the keys that have a value.
fn names(section: &str, table: &Table) -> Vec<String> {
    let mut names = Vec::new();
    for (key, value) in table {
        let name = aquatic_common::settings::join_key(section, key);
        match value.as_table() {
            Some(inner) => names.extend(self::names(&name, inner)),
            None => names.push(name),
        }
    }
    names
}

fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
    }
}

fn find<'a>(rules: &'a [(&str, Rule)], key: &str) -> Option<&'a Rule> {
    rules.iter().find(|(name, _)| *name == key).map(|(_, rule)| rule)
}

fn text<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    get(table, key).and_then(Value::as_str)
}

fn is_true(table: &Table, key: &str) -> bool {
    get(table, key).and_then(Value::as_bool) == Some(true)
}

fn workers(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    let swarm = get(table, "swarm_workers").and_then(Value::as_integer).unwrap_or(0);
    match value.as_integer() {
        Some(0) => draft.set("workers", 0, key),
        Some(socket) => {
            let sum = socket.saturating_add(swarm);
            if swarm != 0 {
                draft.note(
                    key,
                    &format!("workers do both now, so {socket} and {swarm} swarm workers become {sum}."),
                );
            }
            draft.set("workers", sum, key);
        }
        None => draft.set("workers", value.clone(), key),
    }
}

/// Swarm workers without a number of socket workers. With one, they are counted there.
fn swarm_workers(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    if get(table, "socket_workers").is_some() {
        return;
    }
    let Some(swarm) = value.as_integer() else {
        draft.set("workers", value.clone(), key);
        return;
    };
    let sum = swarm.saturating_add(FORMER_WORKERS);
    let text =
        format!("workers do both now, so {FORMER_WORKERS} socket worker and {swarm} of these become {sum}.");
    draft.note(key, &text);
    draft.set("workers", sum, key);
}

fn address(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    let Some(address) = value.as_str().and_then(|text| text.parse::<SocketAddr>().ok()) else {
        draft.set(NetworkConfig::address_ipv4, value.clone(), key);
        return;
    };
    draft.listen(address);
    let is_both = address.is_ipv6() && address.ip().is_unspecified() && !is_true(table, "network.only_ipv6");
    if is_both {
        draft.listen(SocketAddr::from(([0; 4], address.port())));
    } else if address.is_ipv4() {
        draft.note(key, "only IPv4 is served, as before; leave use_ipv6 out to serve both families.");
    }
}

fn receive_buffer(draft: &mut Draft, key: &str, value: &Value, _: &Table) {
    if value.as_integer() == Some(FORMER_BUFFER) {
        draft.note(
            key,
            "not carried over, because it was the default: in a buffer of 8 MB requests wait for up to seconds when \
             more arrive than can be served.",
        );
    } else {
        draft.set(UdpConfig::socket_recv_buffer_size, value.clone(), key);
    }
}

fn statistics(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    if value.as_bool() == Some(true) {
        let interval = get(table, "statistics.interval").cloned().unwrap_or(Value::Integer(5));
        draft.set(StatisticsConfig::interval, interval, "statistics.interval");
        draft.note(key, "statistics are written to the log, which is standard error.");
    }
}

fn clients(draft: &mut Draft, key: &str, value: &Value, _: &Table) {
    if value.as_bool() == Some(true) {
        draft.set(StatisticsConfig::clients, true, key);
        draft.note(key, "announces are counted by client rather than peers, in the metrics.");
    }
}

/// Torrents were counted by their peers whenever they were cleaned.
fn histograms(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    if value.as_bool() == Some(true) {
        let interval = get(table, "cleaning.torrent_cleaning_interval").cloned();
        let interval = interval.unwrap_or(Value::Integer(FORMER_CLEANING));
        draft.set(StatisticsConfig::torrent_sizes_interval, interval, key);
        draft.note(key, "the counts are in the metrics, as aquatic_torrents_by_peers.");
    }
}

fn metrics(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    endpoint(draft, key, value, text(table, "metrics.prometheus_endpoint_address"));
}

fn udp_metrics(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    endpoint(draft, key, value, text(table, "statistics.prometheus_endpoint_address"));
}

fn endpoint(draft: &mut Draft, key: &str, value: &Value, address: Option<&str>) {
    if value.as_bool() == Some(true) {
        draft.set(MetricsConfig::enable, true, key);
        draft.set(MetricsConfig::address, address.unwrap_or("0.0.0.0:9000"), "the endpoint's address");
        draft.note(key, "the metrics have other names; see /metrics.");
    }
}

fn privileges(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    if value.as_bool() != Some(true) {
        return;
    }
    draft.set(PrivilegesConfig::drop_privileges, true, key);
    for (former, successor) in
        [("privileges.user", PrivilegesConfig::user), ("privileges.group", PrivilegesConfig::group)]
    {
        if let Some(name) = text(table, former) {
            draft.set(successor, name, former);
        }
    }
    let chroot = "privileges.chroot_path";
    let directory = text(table, chroot).unwrap_or(".");
    draft.set(PrivilegesConfig::chroot_path, directory, chroot);
    if text(table, "access_list.mode").is_some_and(|mode| mode != "off") {
        draft.note(
            "access_list.path",
            "the list is read before the root directory changes, and reloaded after it: the same path must lead to \
             the list in both.",
        );
    }
}

fn access_list(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    if value.as_str() == Some("off") {
        return;
    }
    draft.set(AccessListConfig::mode, value.clone(), key);
    if let Some(path) = text(table, "access_list.path") {
        draft.set(AccessListConfig::path, path, "access_list.path");
    }
}

fn tls(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    if value.as_bool() != Some(true) {
        return;
    }
    draft.set(NetworkConfig::enable_tls, true, key);
    for (former, successor, command) in [
        ("network.tls_certificate_path", NetworkConfig::tls_certificate_path, "openssl x509 -inform der"),
        ("network.tls_private_key_path", NetworkConfig::tls_private_key_path, "openssl pkey -inform der"),
    ] {
        let Some(path) = text(table, former) else { continue };
        draft.set(successor, format!("{path}.pem"), former);
        let text =
            format!("PEM instead of DER files are read; run: {command} -in '{path}' -out '{path}.pem'");
        draft.note(former, &text);
    }
}

fn keep_alive(draft: &mut Draft, key: &str, value: &Value, _: &Table) {
    if value.as_bool() == Some(false) {
        draft.note(
            key,
            "not carried over: connections stay open unless the client or proxy asks to close them.",
        );
    }
}

fn proxies(draft: &mut Draft, key: &str, value: &Value, table: &Table) {
    if value.as_bool() != Some(true) {
        return;
    }
    let local = ["127.0.0.1", "::1"].map(Value::from).to_vec();
    draft.set(ProxiesConfig::trusted_proxies, local, key);
    draft.note(
        key,
        "only proxies that are listed in proxies.trusted_proxies may name clients. It has the addresses of this \
         machine; add those of proxies on others.",
    );
    let header = "network.reverse_proxy_ip_header_name";
    let name = text(table, header).unwrap_or("X-Forwarded-For");
    draft.set(ProxiesConfig::client_headers, vec![Value::from(name)], header);
}
