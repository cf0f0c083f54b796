//! Conversion of configurations of opentracker.

use std::net::{IpAddr, SocketAddr};

use aquatic_common::config::{AccessListConfig, DEFAULT_PORT, PrivilegesConfig, ProxiesConfig};
use aquatic_http::HttpConfig;
use aquatic_udp::UdpConfig;
use aquatic_ws::WsConfig;
use toml::Value;

use super::draft::Draft;

/// Starts of the names of all settings.
const PREFIXES: [&str; 5] = ["listen.", "access.", "tracker.", "livesync.", "batchsync."];

/// The settings of a text, one per line: name and value. Lines that start with # are comments.
fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        (!line.is_empty() && !line.starts_with('#')).then(|| (name, value.trim()))
    })
}

/// Whether all settings of a text have names of opentracker's.
pub(super) fn recognise(text: &str) -> bool {
    let mut names = settings(text).map(|(name, _)| name).peekable();
    names.peek().is_some() && names.all(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// Protocols that it listens for.
#[derive(Default)]
struct Listens {
    udp: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
}

/// Carries the settings of a configuration over.
pub(super) fn convert(text: &str, draft: &mut Draft) {
    let mut listens = Listens::default();
    let mut proxies = Vec::new();
    for (name, value) in settings(text) {
        match name {
            "listen.tcp_udp" | "listen.tcp" | "listen.udp" => listens.add(name, value, draft),
            "listen.udp.workers" => {
                draft.note(name, "not carried over: there is a worker per processor by default.")
            }
            "access.whitelist" => list(draft, name, "allow", value),
            "access.blacklist" => list(draft, name, "deny", value),
            "access.proxy" => proxies.push(Value::from(value)),
            "tracker.user" => {
                draft.set(PrivilegesConfig::drop_privileges, true, name);
                draft.set(PrivilegesConfig::user, value, name);
                draft.note(name, "the group is nogroup; set privileges.group to another one.");
            }
            _ => draft.note(name, &format!("not carried over: {}", reason(name))),
        }
    }
    if !proxies.is_empty() {
        draft.set(ProxiesConfig::trusted_proxies, proxies, "access.proxy");
    }
    listens.finish(draft);
    draft.set(WsConfig::enable, false, "the protocols");
}

/// Why a setting has no counterpart, or what to do instead.
fn reason(name: &str) -> &'static str {
    match name {
        "access.stats" => {
            "everybody may read /stats?mode=everything now; set status.own_address to restrict it to an address of its \
             own, or status.enable = false."
        }
        "access.stats_path" => {
            "statistics are at /stats?mode=everything; status.path puts another directory in front of stats."
        }
        "tracker.rootdir" => {
            "paths are relative to the directory that the tracker is started in; privileges.chroot_path changes the \
             root directory."
        }
        "tracker.redirect_url" => "requests of browsers to / are not redirected.",
        "access.fifo_add" | "access.fifo_delete" => {
            "change the file of the access list, and send SIGHUP or set reload_on_change."
        }
        _ if name.starts_with("livesync.") || name.starts_with("batchsync.") => {
            "[cluster] joins several machines, over NATS."
        }
        _ => "opentracker has no such setting.",
    }
}

fn list(draft: &mut Draft, name: &str, mode: &str, path: &str) {
    draft.set(AccessListConfig::mode, mode, name);
    draft.set(AccessListConfig::path, path, name);
}

impl Listens {
    fn add(&mut self, name: &str, value: &str, draft: &mut Draft) {
        let address = match value.parse::<SocketAddr>() {
            Ok(address) => Some(address),
            Err(_) => {
                let ip = value.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                ip.ok().map(|ip| SocketAddr::new(ip, DEFAULT_PORT))
            }
        };
        let Some(address) = address else {
            draft.note(name, &format!("not carried over: {value:?} is no address."));
            return;
        };
        if name != "listen.tcp" {
            self.udp.push(address);
        }
        if name != "listen.udp" {
            self.tcp.push(address);
        }
    }

    fn finish(self, draft: &mut Draft) {
        let Self { udp, tcp } = self;
        // Without any address it serves both on all.
        if udp.is_empty() && tcp.is_empty() {
            return;
        }
        if udp.is_empty() {
            draft.set(UdpConfig::enable, false, "listen.tcp");
        }
        if tcp.is_empty() {
            draft.set(HttpConfig::enable, false, "listen.udp");
        }
        let differ = udp.iter().any(|address| !tcp.contains(address))
            || tcp.iter().any(|address| !udp.contains(address));
        if differ && !udp.is_empty() && !tcp.is_empty() {
            draft.note(
                "listen.tcp and listen.udp",
                "UDP and TCP share their addresses now, so both are served at all of these. Start \"aquatic udp\" and \
                 \"aquatic http\" with a file each to keep them apart.",
            );
        }
        for address in udp.into_iter().chain(tcp) {
            draft.listen(address);
            // Its IPv6 sockets accept IPv4 as well.
            if address.is_ipv6() && address.ip().is_unspecified() {
                draft.listen(SocketAddr::from(([0; 4], address.port())));
            }
        }
    }
}
