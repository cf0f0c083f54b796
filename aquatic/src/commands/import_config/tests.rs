//! Conversions as an operator would do them.

use aquatic_common::access_list::AccessListMode;
use aquatic_common::config::ListenerKind;
use aquatic_common::settings::Configuration;

use super::*;
use crate::config::TrackerConfig;

const UDP: &str = r#"
socket_workers = 2
log_level = "error"
[network]
address = "0.0.0.0:3000"
only_ipv6 = false
socket_recv_buffer_size = 8000000
poll_timeout_ms = 50
resend_buffer_max_len = 0
[protocol]
max_scrape_torrents = 70
max_response_peers = 30
peer_announce_interval = 900
[statistics]
interval = 5
torrent_peer_histograms = false
peer_clients = false
print_to_stdout = false
write_html_to_file = false
html_file_path = "tmp/statistics.html"
run_prometheus_endpoint = true
prometheus_endpoint_address = "127.0.0.1:9100"
prometheus_peer_id_prefixes = false
[cleaning]
torrent_cleaning_interval = 120
max_connection_age = 120
max_peer_age = 1200
[privileges]
drop_privileges = false
chroot_path = "."
group = "nogroup"
user = "nobody"
[access_list]
mode = "off"
path = "./access-list.txt"
"#;

const HTTP: &str = r#"
socket_workers = 1
swarm_workers = 1
[network]
address = "[::]:3001"
only_ipv6 = false
enable_tls = true
tls_certificate_path = "cert.der"
tls_private_key_path = "key.der"
keep_alive = false
runs_behind_reverse_proxy = true
reverse_proxy_ip_header_name = "X-Real-IP"
reverse_proxy_ip_header_format = "last_address"
[protocol]
max_peers = 5000
peer_announce_interval = 120
[cleaning]
max_peer_age = 1800
max_connection_idle = 180
[access_list]
mode = "allow"
path = "list.txt"
"#;

const WS: &str = r#"
[network]
address = "[2001:db8::1]:3000"
websocket_max_message_size = 65536
[protocol]
max_offers = 20
[cleaning]
max_peer_age = 180
"#;

fn source(text: &str) -> Source<'_> {
    Source { name: "FILE", text, program: None }
}

/// The written file and the configuration that it is, which must be a valid one.
fn imported(texts: &[&str]) -> (Imported, TrackerConfig) {
    let sources: Vec<Source<'_>> = texts.iter().map(|text| source(text)).collect();
    let imported = import(&sources).unwrap();
    let config: TrackerConfig = toml::from_str(&imported.text).unwrap();
    assert_eq!(config.problems(), [], "{}", imported.text);
    (imported, config)
}

/// The number of notes about a key.
fn notes(imported: &Imported, key: &str) -> usize {
    imported.notes.iter().filter(|note| note.contains(key)).count()
}

#[test]
fn a_configuration_of_this_tracker_is_told_apart() {
    let import =
        |text| import(&[Source { name: "tracker.toml", text, program: None }]).unwrap_err().to_string();
    let text = import("log_level = 'info'\nworkers = 2\n[udp]\nsocket_recv_buffer_size = 100000\n");
    assert!(
        text.starts_with("tracker.toml is a configuration of this tracker already: use it with -c"),
        "{text}"
    );
    assert!(import("").contains("is not recognised"));
    assert!(import("colour = 'red'\n").contains("is not recognised"));
}

#[test]
fn a_udp_tracker_stays_what_it_was() {
    let (imported, config) = imported(&[UDP]);
    assert_eq!((config.udp.enable, config.http.enable, config.ws.enable), (true, false, false));
    assert_eq!(config.workers, 2);
    assert_eq!(config.network.address_ipv4.0, ["0.0.0.0:3000".parse().unwrap()]);
    assert!(!config.network.use_ipv6);
    assert_eq!(config.protocol.peer_announce_interval, 900);
    assert_eq!((config.udp.max_scrape_torrents, config.udp.max_response_peers), (70, 30));
    assert!(config.metrics.enable && config.metrics.address.port() == 9100);
    assert_eq!(config.statistics.interval, 0);
    assert_eq!(config.access_list.mode, AccessListMode::Off);
    // 0.9 accepted an age that is shorter than two intervals.
    assert_eq!((config.cleaning.max_peer_age, notes(&imported, "cleaning.max_peer_age")), (1800, 1));
    assert_eq!(notes(&imported, "network.poll_timeout_ms"), 1);
    // What was off is not missed.
    for off in ["resend_buffer_max_len", "peer_clients", "write_html", "histograms", "privileges"] {
        assert_eq!(notes(&imported, off), 0, "{off}");
    }
    assert_eq!(config.udp.socket_recv_buffer_size, TrackerConfig::default().udp.socket_recv_buffer_size);
}

#[test]
fn statistics_of_peers_are_carried_over() {
    let all = UDP
        .replace("_histograms = false", "_histograms = true")
        .replace("_clients = false", "_clients = true");
    let (joined, config) = imported(&[&all]);
    assert_eq!((config.statistics.torrent_sizes_interval, config.statistics.clients), (120, true));
    assert_eq!((notes(&joined, "peer_histograms of"), notes(&joined, "peer_clients of")), (1, 1));
    let (_, config) = imported(&[&format!("{WS}[metrics]\npeer_clients = true\n")]);
    assert!(config.statistics.clients);
}

#[test]
fn every_note_stands_in_the_file() {
    let (imported, _) = imported(&[UDP, HTTP, WS]);
    let comments: String = imported.text.lines().filter_map(|line| line.strip_prefix('#')).collect();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let comments = words(&comments);
    for note in &imported.notes {
        assert!(comments.contains(&words(note)), "{note:?} is not in\n{}", imported.text);
    }
    assert!(imported.text.lines().all(|line| line.chars().count() <= 120), "{}", imported.text);
}

#[test]
fn three_trackers_become_one() {
    let (imported, config) = imported(&[UDP, HTTP, WS]);
    assert!(config.udp.enable && config.http.enable && config.ws.enable);
    let ports = |addresses: &aquatic_common::settings::Addresses| {
        addresses.0.iter().map(|address| address.port()).collect::<Vec<_>>()
    };
    let network = &config.network;
    assert_eq!((ports(&network.address_ipv4), ports(&network.address_ipv6)), (vec![3000], vec![3000]));
    // Only HTTP had TLS.
    assert_eq!(
        (ports(&network.tls_address_ipv4), ports(&network.tls_address_ipv6)),
        (vec![3001], vec![3001])
    );
    assert!(network.enable_tls && notes(&imported, "share their addresses now") == 1);
    // Both share the interval now: the longer one, so that no client asks too early.
    assert_eq!(
        (config.protocol.peer_announce_interval, notes(&imported, "protocol.peer_announce_interval is")),
        (900, 1)
    );
    assert_eq!(config.access_list.mode, AccessListMode::Allow);
    assert_eq!(
        (config.http.max_response_peers, notes(&imported, "http.max_response_peers is 1000")),
        (1000, 1)
    );
    assert_eq!(config.network.tls_certificate_path.to_str(), Some("cert.der.pem"));
    assert_eq!(notes(&imported, "openssl x509 -inform der -in 'cert.der' -out 'cert.der.pem'"), 1);
    assert_eq!(config.proxies.client_headers, ["X-Real-IP"]);
    assert_eq!(config.proxies.trusted_proxies, ["127.0.0.1", "::1"]);
    assert_eq!(config.ws.max_offers, 20);
    assert_eq!(config.ws.cleaning.max_peer_age, 240);
}

#[test]
fn tls_stays_at_the_addresses_that_had_it() {
    let http = "[network]\naddress = '0.0.0.0:80'\nkeep_alive = true";
    let ws = "[network]\naddress = '[::]:443'\nenable_tls = true\ntls_certificate_path = 'c'\n\
              tls_private_key_path = 'k'\nwebsocket_max_message_size = 65536";
    let (joined, config) = imported(&[http, ws]);
    let listeners = config.network.tcp_listeners();
    let listeners: Vec<String> =
        listeners.iter().map(|(address, kind)| format!("{address} {kind:?}")).collect();
    assert_eq!(listeners, ["0.0.0.0:80 Plain", "[::]:80 Plain", "0.0.0.0:443 Tls", "[::]:443 Tls"]);
    assert_eq!(notes(&joined, "network.address_ipv6 has \"[::]:80\" besides"), 1);
    // Nothing is apart where all have TLS, or UDP is the only other.
    let (_, config) = imported(&[UDP, ws]);
    let listeners = config.network.tcp_listeners();
    assert!(listeners.iter().all(|(_, kind)| *kind == ListenerKind::Tls), "{listeners:?}");
    assert!(config.network.tls_address_ipv4.0.is_empty());
}

#[test]
fn what_applies_to_other_programs_now_is_noted() {
    let (joined, _) = imported(&[UDP, HTTP]);
    let note = "access_list.mode of aquatic_http 0.9 applies to what was aquatic_udp 0.9 as well now";
    assert_eq!((notes(&joined, note), notes(&joined, "privileges.drop_privileges of")), (1, 0));
    let dropping = format!("{WS}[privileges]\ndrop_privileges = true\n");
    let (joined, config) = imported(&[UDP, HTTP, &dropping]);
    let note = "privileges.drop_privileges of aquatic_ws 0.9 applies to what was aquatic_udp 0.9 and aquatic_http 0.9";
    assert!(config.privileges.drop_privileges && notes(&joined, note) == 1, "{:#?}", joined.notes);
    let (alone, _) = imported(&[HTTP]);
    assert_eq!(notes(&alone, "applies to what was"), 0);
}

#[test]
fn absent_keys_have_the_defaults_of_the_former_program() {
    let (joined, config) = imported(&["swarm_workers = 3\n[protocol]\nmax_offers = 3"]);
    assert_eq!(config.network.address_ipv4.0, ["0.0.0.0:3000".parse().unwrap()]);
    assert!(!config.network.use_ipv6 && notes(&joined, "network.address of aquatic_ws 0.9: was absent") == 1);
    assert_eq!((config.workers, notes(&joined, "swarm_workers of aquatic_ws 0.9: workers do both")), (4, 1));
}

#[test]
fn short_intervals_of_http_are_possible() {
    let (_, config) = imported(&[HTTP]);
    assert_eq!(config.protocol.peer_announce_interval, 120);
    assert_eq!(config.http.min_announce_interval, 108);
    assert_eq!(config.workers, 2);
    // A socket on [::] that accepted IPv4 as well.
    assert!(config.network.use_ipv4 && config.network.use_ipv6 && config.network.only_ipv6);
}

#[test]
fn opentracker_is_carried_over() {
    let text = "\
# comment
listen.tcp_udp 192.0.2.1
listen.udp 192.0.2.1:80
access.whitelist /etc/opentracker/list
access.stats 192.0.2.9
access.proxy 10.0.0.0/8
access.proxy 192.0.2.7
tracker.user _tracker
livesync.cluster.listen 192.0.2.1:9696
tracker.unheard_of 1
";
    let (imported, config) = imported(&[text]);
    assert_eq!(
        config.network.address_ipv4.0,
        ["192.0.2.1:6969".parse().unwrap(), "192.0.2.1:80".parse().unwrap()]
    );
    assert!(!config.network.use_ipv6 && !config.ws.enable && config.http.enable);
    assert_eq!(config.access_list.mode, AccessListMode::Allow);
    assert_eq!(config.access_list.path.to_str(), Some("/etc/opentracker/list"));
    assert_eq!(config.proxies.trusted_proxies, ["10.0.0.0/8", "192.0.2.7"]);
    assert_eq!((config.privileges.drop_privileges, config.privileges.user.as_str()), (true, "_tracker"));
    for key in [
        "listen.tcp and listen.udp",
        "access.stats of opentracker: not carried over: everybody may read /stats?mode=everything",
        "livesync.cluster.listen of opentracker: not carried over: [cluster] joins",
        "tracker.unheard_of",
    ] {
        assert_eq!(notes(&imported, key), 1, "{key}");
    }
}

#[test]
fn one_program_shares_nothing() {
    let (imported, config) = imported(&["access.whitelist /allow\naccess.blacklist /deny"]);
    assert_eq!(config.access_list.mode, AccessListMode::Allow);
    assert_eq!((notes(&imported, "has one value only"), notes(&imported, "Both programs")), (2, 0));
}

#[test]
fn addresses_of_opentracker() {
    for (lines, v4, v6) in [
        ("listen.tcp_udp 0.0.0.0", &["0.0.0.0:6969"][..], &[][..]),
        ("listen.tcp_udp ::", &["0.0.0.0:6969"], &["[::]:6969"]),
        ("listen.udp [2001:db8::1]:80", &[], &["[2001:db8::1]:80"]),
        ("listen.tcp nonsense", &["0.0.0.0:6969"], &["[::]:6969"]),
    ] {
        let (_, config) = imported(&[lines]);
        let network = &config.network;
        let texts = |used: bool, addresses: &aquatic_common::settings::Addresses| {
            let addresses = if used { addresses.0.as_slice() } else { &[] };
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts(network.use_ipv4, &network.address_ipv4), v4, "{lines}");
        assert_eq!(texts(network.use_ipv6, &network.address_ipv6), v6, "{lines}");
    }
}

#[test]
fn what_cannot_be_converted_is_told() {
    let error = |text: &str| import(&[source(text)]).unwrap_err().to_string();
    for unknown in ["", "# nothing", "log_level = 'info'", "<html>", "[network]\naddress = '0.0.0.0:1'"] {
        assert!(error(unknown).contains("name the program with --from"), "{unknown:?}");
    }
    let twice = import(&[source(UDP), source(UDP)]).unwrap_err().to_string();
    assert!(twice.contains("second configuration of aquatic_udp 0.9"), "{twice}");
    let mixed = import(&[source(UDP), source("listen.tcp_udp 0.0.0.0")]).unwrap_err().to_string();
    assert!(mixed.contains("opentracker, which does not become one tracker with aquatic_udp"), "{mixed}");
    let broken = import(&[Source { name: "F", text: "a = ", program: Some(Program::Udp) }]).unwrap_err();
    assert!(broken.to_string().starts_with("F is not TOML"), "{broken}");
    let wrong = error("[network]\nsocket_recv_buffer_size = 'big'");
    assert!(wrong.contains("network.socket_recv_buffer_size of aquatic_udp 0.9"), "{wrong}");
}

#[test]
fn an_unknown_key_is_named() {
    let (imported, _) = imported(&["[protocol]\nmax_offers = 3\nmax_ofers = 4"]);
    assert_eq!(notes(&imported, "protocol.max_ofers of aquatic_ws 0.9: not carried over"), 1);
}

#[test]
fn values_of_any_kind_do_not_panic() {
    let values =
        ["true", "-9223372036854775808", "9223372036854775807", "1.5", "'x'", "[]", "{}", "[[1]]", "'[::'"];
    for text in [UDP, HTTP, WS] {
        let program = import(&[source(text)]).map(|_| recognise(&source(text)).unwrap()).unwrap();
        for (number, line) in text.lines().enumerate() {
            let Some((key, _)) = line.split_once(" = ") else { continue };
            for value in values {
                let replaced = format!("{key} = {value}");
                let text: Vec<&str> = text
                    .lines()
                    .enumerate()
                    .map(|(other, line)| if other == number { replaced.as_str() } else { line })
                    .collect();
                let source = Source { name: "FILE", text: &text.join("\n"), program: Some(program) };
                if let Ok(imported) = import(&[source]) {
                    let config: TrackerConfig = toml::from_str(&imported.text).unwrap();
                    assert_eq!(config.problems(), [], "{replaced}");
                }
            }
        }
    }
}
