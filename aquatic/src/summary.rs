//! What the log says at the end of a start: what is served, up to where, and what to do next.

use aquatic_common::AccessListMode;
use aquatic_common::config::{ConnectionsConfig, ControlConfig, LimitsConfig, MetricsConfig};

use crate::config::{Mode, Protocols, TrackerConfig};
use crate::control::{Place, place};

/// Lists that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lists {
    /// How the access list is applied, and the number of its torrents.
    pub(crate) access: (AccessListMode, usize),
    /// Number of networks of the block list, neighbours counted as one; `None` without one.
    pub(crate) blocked: Option<usize>,
}

/// Writes the summary to the log.
pub(crate) fn log(config: &TrackerConfig, mode: Mode, cores: usize) {
    for line in lines(config, mode, cores) {
        log::info!("{line}");
    }
}

/// Writes the sizes of the lists to the log.
pub(crate) fn log_lists(lists: Lists) {
    for line in lines_of(lists) {
        log::info!("{line}");
    }
}

fn lines_of(Lists { access: (mode, torrents), blocked }: Lists) -> Vec<String> {
    let access = match mode {
        AccessListMode::Off => None,
        AccessListMode::Allow => {
            Some(format!("access list: {torrents} torrents, the only ones served (mode \"allow\")"))
        }
        AccessListMode::Deny => Some(format!("access list: {torrents} torrents, not served (mode \"deny\")")),
    };
    let blocked = blocked.map(|networks| format!("block list: {networks} networks, not served"));
    access.into_iter().chain(blocked).collect()
}

fn lines(config: &TrackerConfig, mode: Mode, cores: usize) -> Vec<String> {
    let Protocols { udp, http, ws } = config.protocols(mode);
    let names: Vec<&str> = [(udp, "UDP"), (http, "HTTP"), (ws, "WebTorrent")]
        .into_iter()
        .filter_map(|(served, name)| served.then_some(name))
        .collect();
    let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    let mut lines = vec![format!("serving {} with {cores}", names.join(", "))];
    let mut limits = Vec::new();
    if udp || http {
        let LimitsConfig { max_torrents, max_peers, .. } = config.limits;
        limits.push(format!(
            "{max_torrents} torrents ({}), {max_peers} peers ({})",
            LimitsConfig::max_torrents,
            LimitsConfig::max_peers
        ));
    }
    if http || ws {
        limits.push(format!(
            "{} connections ({})",
            config.connections.max_connections,
            ConnectionsConfig::max_connections
        ));
    }
    lines.push(format!("limits: {}", limits.join(", ")));
    lines.push(match place(config) {
        Place::At(path) => format!("to see what it does: aquatic ctl -s {} watch", path.display()),
        Place::Off | Place::NoStateDirectory => format!(
            "to see what it does with \"aquatic ctl\", and to keep peers across restarts, set state_directory (or {}, \
             for the first only)",
            ControlConfig::socket_path
        ),
    });
    if !config.metrics.enable {
        lines.push(format!("metrics for Prometheus are off; {} = true serves them", MetricsConfig::enable));
    }
    lines.push("to check this machine: aquatic doctor, with the flags of this start".to_owned());
    lines.push("ready: put the announce URLs above into torrents and clients".to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_use_are_told() {
        let lines = |access, blocked| lines_of(Lists { access, blocked }).join("; ");
        assert_eq!(lines((AccessListMode::Off, 0), None), "");
        assert_eq!(
            lines((AccessListMode::Allow, 3), Some(2)),
            "access list: 3 torrents, the only ones served (mode \"allow\"); block list: 2 networks, not served"
        );
        assert_eq!(
            lines((AccessListMode::Deny, 0), None),
            "access list: 0 torrents, not served (mode \"deny\")"
        );
    }

    #[test]
    fn a_newcomer_learns_what_runs_and_what_to_do() {
        let mut config = TrackerConfig::default();
        let expected = "\
serving UDP, HTTP, WebTorrent with 2 cores
limits: 100000000 torrents (limits.max_torrents), 100000000 peers (limits.max_peers), 100000 connections \
(connections.max_connections)
to see what it does with \"aquatic ctl\", and to keep peers across restarts, set state_directory (or \
control.socket_path, for the first only)
metrics for Prometheus are off; metrics.enable = true serves them
to check this machine: aquatic doctor, with the flags of this start
ready: put the announce URLs above into torrents and clients";
        assert_eq!(lines(&config, Mode::All, 2).join("\n"), expected);
        config.state_directory = "/var/lib/aquatic".into();
        config.metrics.enable = true;
        let expected = "\
serving WebTorrent with 1 core
limits: 100000 connections (connections.max_connections)
to see what it does: aquatic ctl -s /var/lib/aquatic/control.sock watch
to check this machine: aquatic doctor, with the flags of this start
ready: put the announce URLs above into torrents and clients";
        assert_eq!(lines(&config, Mode::Ws, 1).join("\n"), expected);
    }
}
