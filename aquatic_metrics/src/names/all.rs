//! The list of all metrics.

use super::Metric;

/// All metrics, in the order of `names.rs`.
pub const ALL: &[&Metric] = &[
    &super::REQUESTS,
    &super::RESPONSES,
    &super::REFUSED,
    &super::DROPPED,
    &super::RELAYS_DROPPED,
    &super::NOT_STORED,
    &super::RECEIVED_BYTES,
    &super::SENT_BYTES,
    &super::SEND_ERRORS,
    &super::RECEIVE_ERRORS,
    &super::KERNEL_DROPS,
    &super::KERNEL_FILTERED,
    &super::OVERLOADED,
    &super::BREAKER_OPEN,
    &super::BREAKER_OPENED,
    &super::RATE_LIMITING,
    &super::RATE_LIMIT_DRY_RUN,
    &super::REQUEST_DURATION,
    &super::BATCH_SIZE,
    &super::XDP_QUEUES,
    &super::XDP_RESPONSES,
    &super::XDP_DROPS,
    &super::XDP_BLOCKED,
    &super::FORWARDED,
    &super::TORRENTS,
    &super::TORRENTS_BY_PEERS,
    &super::ANNOUNCES_BY_CLIENT,
    &super::PEERS,
    &super::COMPLETED,
    &super::STORE,
    &super::STORE_BUDGET,
    &super::DEGRADATION,
    &super::EXPIRED_PEERS,
    &super::EXPIRED_TORRENTS,
    &super::EXPIRY_PASSES,
    &super::EXPIRY_BEHIND,
    &super::CHANNEL_OVERFLOWS,
    &super::CHANNEL_REJECTED,
    &super::CHANNEL_BATCHES,
    &super::OWNER_REQUESTS_FAILED,
    &super::OWNER_REQUESTS_PENDING,
    &super::PART_REQUESTS,
    &super::PART_ANNOUNCES_WAITING,
    &super::TICK_LAG,
    &super::CORE_BUSY_TIME,
    &super::CORE_BUSY,
    &super::STALLS,
    &super::WAIT_FAILURES,
    &super::WATCHED_FDS,
    &super::CONFIG_RELOADS,
    &super::STATE_WRITE_FAILURES,
    &super::UPGRADE_FAILURES,
    &super::SNAPSHOTS_SAVED,
    &super::SNAPSHOT_TIME,
    &super::SNAPSHOT_INTERVAL,
    &super::SNAPSHOT_DURATION,
    &super::SNAPSHOT_SIZE,
    &super::EXPORTS_WRITTEN,
    &super::EXPORT_FAILURES,
    &super::EXPORT_TIME,
    &super::EXPORT_DURATION,
    &super::EXPORT_SIZE,
    &super::EXPORT_TORRENTS,
    &super::SNAPSHOT_PEERS,
    &super::SNAPSHOT_DAMAGE,
    &super::ACCESS_LIST,
    &super::ACCESS_RELOADS,
    &super::BLOCK_LIST,
    &super::BLOCK_LIST_RELOADS,
    &super::ACCESS_BAD_LINES,
    &super::METRICS_UNSERVED,
    &super::STATUS_UNSERVED,
    &super::STATUS_REQUESTS,
    &super::STATUS_DENIED,
    &super::STATUS_SENT,
    &super::STATUS_STREAMS,
    &super::STATUS_STREAMS_REFUSED,
    &super::STATUS_STREAMS_SLOW,
    &super::PROCESS_START,
    &super::PROCESS_CPU,
    &super::PROCESS_MEMORY,
    &super::PROCESS_OPEN_FDS,
    &super::PROCESS_MAX_FDS,
    &super::PROCESS_VIRTUAL_MEMORY,
    &super::BUILD_INFO,
    &super::LIMIT,
    &super::LIMIT_IN_USE,
    &super::CORES,
    &super::CONNECTIONS,
    &super::CONNECTIONS_ACCEPTED,
    &super::CONNECTIONS_MOVED,
    &super::CONNECTIONS_REFUSED,
    &super::CONNECTIONS_EVICTED,
    &super::CONNECTION_TIMEOUTS,
    &super::ACCEPT_ERRORS,
    &super::HANDSHAKES,
    &super::TLS_FAULTS,
    &super::HANDSHAKING,
    &super::CERTIFICATE_RELOADS,
    &super::CERTIFICATE_NOT_AFTER,
    &super::ACME_ORDERS,
    &super::ACME_FAILURES_IN_A_ROW,
    &super::ACME_NEXT_ORDER,
    &super::PROXY_UNUSED,
    &super::PROXY_CLIENT_MISSING,
    &super::UPGRADES,
    &super::CONNECTIONS_ENDED,
    &super::THROTTLED,
    &super::CONTESTED_PEERS,
    &super::OFFERS_WAITING,
    &super::OFFERS_FORGOTTEN,
    &super::CLUSTER_NODES,
    &super::CLUSTER_CONNECTED,
    &super::CLUSTER_COMPLETE,
    &super::CLUSTER_DISCONNECTS,
    &super::CLUSTER_PUBLISHED,
    &super::CLUSTER_APPLIED,
    &super::CLUSTER_DROPPED,
    &super::CLUSTER_REFUSED,
    &super::CLUSTER_BYTES,
    &super::CLUSTER_GAPS,
    &super::CLUSTER_PULLS,
    &super::CLUSTER_PULLED_PEERS,
    &super::CLUSTER_LAG,
    &super::CLUSTER_PARTS,
    &super::CLUSTER_OWN_PEERS,
    &super::CLUSTER_TOTAL_REQUESTS,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_metrics_are_listed_once() {
        let declared: BTreeSet<_> = [include_str!("../names.rs"), include_str!("cluster.rs")]
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| line.strip_prefix("pub const ")?.split_once(": Metric"))
            .map(|(name, _)| name)
            .collect();
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!((ALL.len(), names.len()), (declared.len(), declared.len()), "{declared:?}");
    }

    #[test]
    fn names_and_help_are_as_prometheus_wants_them() {
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("aquatic_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            for suffix in ["_total", "_seconds", "_bytes", "_ratio", "_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(suffix), "{name}: the exposition adds suffixes");
            }
            let help = metric.help;
            assert!(help.starts_with(|first: char| first.is_uppercase()) && !help.ends_with('.'), "{name}");
        }
    }
}
