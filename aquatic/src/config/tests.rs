use std::collections::BTreeSet;

use aquatic_cli_helpers::{declarations, print};
use aquatic_common::settings::{Entry, Settings, join_key};
use toml::Table;

use super::*;

const MODES: [Mode; 4] = [Mode::All, Mode::Udp, Mode::Http, Mode::Ws];

/// Keys of the problems that a subcommand has with a configuration.
fn problems(mode: Mode, text: &str) -> Vec<String> {
    let config: TrackerConfig = toml::from_str(text).unwrap();
    let mut problems = Vec::new();
    mode.check_relations(&config, &mut problems);
    problems.into_iter().map(|problem| problem.key).collect()
}

/// All entries with their full names.
fn entries() -> Vec<(String, Entry)> {
    fn collect(section: &str, entries: Vec<Entry>, all: &mut Vec<(String, Entry)>) {
        for entry in entries {
            let name = join_key(section, entry.meta().key);
            if let Entry::Section(_, inner) = &entry {
                collect(&name, inner.clone(), all);
            }
            all.push((name, entry));
        }
    }
    let mut all = Vec::new();
    collect("", TrackerConfig::entries(), &mut all);
    all
}

#[test]
fn settings_are_declared_completely() {
    assert_eq!(declarations::faults::<TrackerConfig>(), [""; 0]);
}

#[test]
fn readers_are_keys_and_sections() {
    let names: BTreeSet<String> = entries().into_iter().map(|(name, _)| name).collect();
    for (name, _) in READERS {
        assert!(names.contains(*name), "{name}");
    }
}

#[test]
fn every_key_declares_whether_a_reload_changes_it() {
    let names: BTreeSet<String> = entries().into_iter().map(|(name, _)| name).collect();
    for (name, _) in live::APPLIES {
        assert!(names.contains(*name), "{name}");
        assert_eq!(live::APPLIES.iter().filter(|(other, _)| other == name).count(), 1, "{name}");
    }
    for (name, entry) in entries() {
        if matches!(entry, Entry::Value(_)) {
            assert!(longest_match(live::APPLIES, &name).is_some(), "{name} is not declared");
        }
    }
    assert_eq!(applies("network.address_ipv4"), Applies::OnRestart);
    assert_eq!(applies("network.tls_certificate_path"), Applies::OnReload);
    assert_eq!(applies("ws.limits.max_waiting_offers"), Applies::OnRestart);
    assert_eq!(applies("ws.limits.max_peers"), Applies::OnReload);
}

#[test]
fn documentation_names_existing_keys() {
    let names: BTreeSet<String> = entries().into_iter().map(|(name, _)| name).collect();
    let sections: BTreeSet<&str> = names.iter().filter_map(|name| name.split('.').next()).collect();
    for (name, entry) in entries() {
        let doc = entry.meta().doc.join(" ");
        let words = doc.split(|letter: char| !letter.is_ascii_alphanumeric() && !"._/".contains(letter));
        for word in words.map(|word| word.trim_end_matches('.')) {
            let is_key = word.split_once('.').is_some_and(|(section, _)| sections.contains(section));
            assert!(!is_key || names.contains(word), "{name} refers to {word}");
        }
    }
}

#[test]
fn defaults_are_valid_for_every_subcommand() {
    for mode in MODES {
        assert_eq!(problems(mode, ""), [""; 0], "{mode:?}");
    }
}

#[test]
fn a_subcommand_prints_the_sections_that_it_reads() {
    let sections = |mode: Mode| {
        let printed = print::default_config(&mode).unwrap();
        let table: Table = printed.parse().unwrap();
        assert_eq!(printed.contains("enable_tls"), mode != Mode::Udp);
        table.into_iter().filter(|(_, value)| value.is_table()).map(|(name, _)| name).collect::<Vec<_>>()
    };
    let common = [
        "access_list",
        "cluster",
        "control",
        "exports",
        "metrics",
        "network",
        "privileges",
        "rate_limits",
        "statistics",
        "status",
        "upgrade",
    ];
    let with = |more: &[&'static str]| {
        let mut all = [&common, more].concat();
        all.sort_unstable();
        all
    };
    assert_eq!(sections(Mode::Udp), with(&["protocol", "cleaning", "limits", "udp"]));
    let http = ["acme", "connections", "proxies", "protocol", "cleaning", "limits", "http"];
    assert_eq!(sections(Mode::Http), with(&http));
    assert_eq!(sections(Mode::Ws), with(&["acme", "connections", "proxies", "limits", "ws"]));
    assert_eq!(sections(Mode::All), with(&[&http[..], &["udp", "ws"]].concat()));
}

#[test]
fn only_all_reads_which_protocols_are_enabled() {
    let none = "udp.enable = false\nhttp.enable = false\nws.enable = false";
    assert_eq!(problems(Mode::All, none), ["udp.enable"]);
    for mode in [Mode::Udp, Mode::Http, Mode::Ws] {
        assert_eq!(problems(mode, none), [""; 0]);
        assert!(!mode.reads("udp.enable") && !mode.reads("ws.enable"));
    }
}

#[test]
fn a_subcommand_checks_what_it_reads() {
    for (text, key, readers) in [
        ("protocol.peer_announce_interval = 3600", "cleaning.max_peer_age", [true, true, true, false]),
        ("udp.max_reply_size = 512", "udp.max_scrape_torrents", [true, true, false, false]),
        ("http.min_announce_interval = 1621", "http.min_announce_interval", [true, false, true, false]),
        ("ws.client.max_message_rate = 2000", "ws.client.max_message_burst", [true, false, false, true]),
        ("network.accept_plain = true", "network.accept_plain", [true, false, true, true]),
        ("proxies.proxy_protocol = true", "proxies.proxy_protocol", [true, false, true, true]),
        ("network.acme = ['a.org']", "network.acme", [true, false, true, true]),
        ("status.path = '/status'", "status.path", [true; 4]),
        (
            "status.own_address = true\nstatus.address = '0.0.0.0:6969'",
            "status.address",
            [true, false, true, true],
        ),
        (
            "status.own_address = true\nmetrics.enable = true\nmetrics.address = '127.0.0.1:6970'",
            "status.address",
            [true; 4],
        ),
        ("privileges.user = 'tracker'", "privileges.drop_privileges", [true; 4]),
        ("network.address_ipv4 = []", "network.address_ipv4", [true; 4]),
        ("cpus = '0-1'\nworkers = 3", "workers", [true; 4]),
    ] {
        for (mode, reads) in MODES.into_iter().zip(readers) {
            let expected = if reads { vec![key] } else { Vec::new() };
            assert_eq!(problems(mode, text), expected, "{mode:?}: {text}");
        }
    }
}

#[test]
fn disabled_protocols_are_not_checked() {
    let ws_alone = "udp.enable = false\nhttp.enable = false\nprotocol.peer_announce_interval = 3600";
    assert_eq!(problems(Mode::All, ws_alone), [""; 0]);
    let unix_only = "network.use_ipv4 = false\nnetwork.use_ipv6 = false\nnetwork.unix_socket_path = '/run/a'";
    assert_eq!(problems(Mode::All, unix_only), ["network.use_ipv4"]);
    assert_eq!(problems(Mode::All, &format!("{unix_only}\nudp.enable = false")), [""; 0]);
}

/// Keys of the default configurations that aquatic_udp, aquatic_http and aquatic_ws 0.9.0 print.
const KEYS_OF_0_9: &[&str] = &[
    "socket_workers",
    "log_level",
    "network.address",
    "network.only_ipv6",
    "network.socket_recv_buffer_size",
    "network.poll_timeout_ms",
    "network.resend_buffer_max_len",
    "protocol.max_scrape_torrents",
    "protocol.max_response_peers",
    "protocol.peer_announce_interval",
    "statistics.interval",
    "statistics.torrent_peer_histograms",
    "statistics.peer_clients",
    "statistics.print_to_stdout",
    "statistics.write_html_to_file",
    "statistics.html_file_path",
    "statistics.run_prometheus_endpoint",
    "statistics.prometheus_endpoint_address",
    "statistics.prometheus_peer_id_prefixes",
    "cleaning.torrent_cleaning_interval",
    "cleaning.max_connection_age",
    "cleaning.max_peer_age",
    "privileges.drop_privileges",
    "privileges.chroot_path",
    "privileges.group",
    "privileges.user",
    "access_list.mode",
    "access_list.path",
    "swarm_workers",
    "network.tcp_backlog",
    "network.enable_tls",
    "network.tls_certificate_path",
    "network.tls_private_key_path",
    "network.keep_alive",
    "network.runs_behind_reverse_proxy",
    "network.reverse_proxy_ip_header_name",
    "network.reverse_proxy_ip_header_format",
    "protocol.max_peers",
    "cleaning.connection_cleaning_interval",
    "cleaning.max_connection_idle",
    "metrics.run_prometheus_endpoint",
    "metrics.prometheus_endpoint_address",
    "metrics.torrent_count_update_interval",
    "network.websocket_max_message_size",
    "network.websocket_max_frame_size",
    "network.websocket_write_buffer_size",
    "network.enable_http_health_checks",
    "protocol.max_offers",
    "cleaning.max_offer_age",
    "cleaning.close_after_tls_update_grace_period",
    "metrics.peer_clients",
    "metrics.peer_id_prefixes",
];

#[test]
fn the_error_about_a_key_of_aquatic_0_9_names_its_successor() {
    let names: BTreeSet<String> = entries().into_iter().map(|(name, _)| name).collect();
    for key in KEYS_OF_0_9 {
        let is_former = TrackerConfig::former_keys().iter().any(|former| former.name == *key);
        assert!(is_former || names.contains(*key), "{key}");
    }
}
