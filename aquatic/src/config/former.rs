//! Keys of earlier configurations and their successors.

use aquatic_common::settings::FormerKey;

/// Unknown keys of aquatic 0.9 and of the first configurations of this tracker. A successor has the same
/// function, although its default or unit may differ.
pub(super) const KEYS: &[FormerKey] = &[
    // aquatic_udp, aquatic_http and aquatic_ws 0.9
    former("socket_workers", &["workers"]),
    former("cpu_pinning", &["cpus"]),
    former("swarm_workers", &["workers"]),
    former("network.address", &["network.address_ipv4", "network.address_ipv6"]),
    former("cleaning.torrent_cleaning_interval", &["cleaning.interval", "ws.cleaning.interval"]),
    former("metrics.run_prometheus_endpoint", &["metrics.enable"]),
    former("metrics.prometheus_endpoint_address", &["metrics.address"]),
    former("metrics.torrent_count_update_interval", &[]),
    former(
        "protocol.max_scrape_torrents",
        &["udp.max_scrape_torrents", "http.max_scrape_torrents", "ws.max_scrape_torrents"],
    ),
    // aquatic_udp 0.9
    former("network.socket_recv_buffer_size", &["udp.socket_recv_buffer_size"]),
    former("network.poll_timeout_ms", &[]),
    former("network.resend_buffer_max_len", &[]),
    former("protocol.max_response_peers", &["udp.max_response_peers", "http.max_response_peers"]),
    former("cleaning.max_connection_age", &["udp.max_connection_age"]),
    former("statistics.torrent_peer_histograms", &["statistics.torrent_sizes_interval"]),
    former("statistics.peer_clients", &["statistics.clients"]),
    former("statistics.print_to_stdout", &["statistics.interval"]),
    former("statistics.write_html_to_file", &[]),
    former("statistics.html_file_path", &[]),
    former("statistics.run_prometheus_endpoint", &["metrics.enable"]),
    former("statistics.prometheus_endpoint_address", &["metrics.address"]),
    former("statistics.prometheus_peer_id_prefixes", &[]),
    // aquatic_http and aquatic_ws 0.9
    former("network.keep_alive", &[]),
    former("network.runs_behind_reverse_proxy", &["proxies.trusted_proxies"]),
    former("network.reverse_proxy_ip_header_name", &["proxies.client_headers"]),
    former("network.reverse_proxy_ip_header_format", &[]),
    former("network.websocket_max_message_size", &["ws.client.max_message_size"]),
    former("network.websocket_max_frame_size", &["ws.client.max_message_size"]),
    former("network.websocket_write_buffer_size", &[]),
    former("network.enable_http_health_checks", &[]),
    former("protocol.max_peers", &["http.max_response_peers"]),
    former("protocol.max_offers", &["ws.max_offers"]),
    former("cleaning.max_offer_age", &["ws.max_offer_age"]),
    former("cleaning.connection_cleaning_interval", &[]),
    former(
        "cleaning.max_connection_idle",
        &["connections.max_connection_idle", "ws.client.max_announce_idle"],
    ),
    former("cleaning.close_after_tls_update_grace_period", &[]),
    former("metrics.peer_clients", &[]),
    former("metrics.peer_id_prefixes", &[]),
    // The first configurations of this tracker, one schema per subcommand
    former("client", &["ws.client"]),
    former("network.max_reply_size", &["udp.max_reply_size"]),
    former("network.steering", &["udp.steering"]),
    former("protocol.max_connection_age", &["udp.max_connection_age"]),
    former("protocol.min_announce_interval", &["http.min_announce_interval"]),
    former("protocol.max_request_size", &["http.max_request_size"]),
    former("protocol.max_offer_age", &["ws.max_offer_age"]),
    former("limits.max_waiting_offers", &["ws.limits.max_waiting_offers"]),
    former("limits.max_waiting_offers_per_peer", &["ws.limits.max_waiting_offers_per_peer"]),
];

const fn former(name: &'static str, successors: &'static [&'static str]) -> FormerKey {
    FormerKey { name, successors }
}
