//! Every metric the tracker has: name, help, unit and kind. Labels are protocol, swarms, family, action, role
//! and reason; their values are few and fixed, never taken from a client.

mod all;
mod cluster;

pub use all::ALL;
pub use cluster::{
    CLUSTER_APPLIED, CLUSTER_BYTES, CLUSTER_COMPLETE, CLUSTER_CONNECTED, CLUSTER_DISCONNECTS,
    CLUSTER_DROPPED, CLUSTER_GAPS, CLUSTER_LAG, CLUSTER_NODES, CLUSTER_OWN_PEERS, CLUSTER_PARTS,
    CLUSTER_PUBLISHED, CLUSTER_PULLED_PEERS, CLUSTER_PULLS, CLUSTER_REFUSED, CLUSTER_TOTAL_REQUESTS,
};

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Only grows; each core is shown by itself, with the label `core`.
    CounterPerCore,
    /// Only grows, and an operator should hear of it: something was refused, lost or dropped. The first
    /// increase is logged, further ones at most once a minute.
    Loss,
    /// Goes up and down; the sum over all cores is shown.
    Gauge,
    /// Goes up and down; each core is shown by itself, with the label `core`.
    GaugePerCore,
    /// How often values were at most as large as bounds, the powers of two up to `doublings`; of times, these
    /// are microseconds.
    Histogram {
        /// Binary logarithm of the largest bound.
        doublings: u32,
    },
}

impl Kind {
    /// Whether the number never goes down.
    #[must_use]
    pub fn only_grows(self) -> bool {
        match self {
            Self::Counter | Self::CounterPerCore | Self::Loss => true,
            Self::Gauge | Self::GaugePerCore | Self::Histogram { .. } => false,
        }
    }
}

/// What the numbers are, where they are not plain counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Whole seconds.
    Seconds,
    /// Counted in microseconds, shown in seconds.
    Microseconds,
    /// Counted in nanoseconds, shown in seconds.
    Nanoseconds,
    /// Counted in thousandths, shown as a ratio.
    Thousandths,
}

/// A metric: all its series share these.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name without the suffixes that the exposition format adds: the unit, and `_total` for what only grows.
    pub name: &'static str,
    /// What it counts, as a sentence without a full stop.
    pub help: &'static str,
    /// Unit, where the numbers are not plain counts.
    pub unit: Option<Unit>,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Names of the labels that all series have, in this order. Those of each core have another, `core`.
    pub labels: &'static [&'static str],
}

const fn metric(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric { name, help, unit: None, kind, labels: &[] }
}

impl Metric {
    const fn in_unit(self, unit: Unit) -> Self {
        Self { unit: Some(unit), ..self }
    }

    const fn labelled(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }
}

// Requests, by protocol, family and what else is said.

/// Requests received, by protocol, family and action: "other" for those refused or dropped before that was
/// known.
pub const REQUESTS: Metric = metric("aquatic_requests", Kind::Counter, "Requests received")
    .labelled(&["protocol", "family", "action"]);
/// Replies sent, by protocol, family and action.
pub const RESPONSES: Metric =
    metric("aquatic_responses", Kind::Counter, "Replies sent").labelled(&["protocol", "family", "action"]);
/// Requests refused with an error the client sees, by protocol, reason and, over UDP, family.
pub const REFUSED: Metric = metric("aquatic_refused", Kind::Counter, "Requests refused with an error reply")
    .labelled(&["protocol", "family", "reason"]);
/// Packets and connections dropped without a reply, by protocol, family and reason.
pub const DROPPED: Metric = metric("aquatic_dropped", Kind::Loss, "Requests dropped without a reply")
    .labelled(&["protocol", "family", "reason"]);
/// Offers and answers of WebTorrent that did not reach another client, by protocol and reason.
pub const RELAYS_DROPPED: Metric = metric(
    "aquatic_relays_dropped",
    Kind::Loss,
    "Offers and answers that were not relayed to another client",
)
.labelled(&["protocol", "reason"]);
/// Announces answered but not stored, by swarms, family and, as the reason, the setting of the limit, or what
/// is wrong with the address or port.
pub const NOT_STORED: Metric = metric(
    "aquatic_not_stored",
    Kind::Loss,
    "Announces answered whose peer was not stored because of a limit, or of its address or port",
)
.labelled(&["swarms", "family", "reason"]);
/// Payload received, by protocol and family.
pub const RECEIVED_BYTES: Metric = metric("aquatic_received", Kind::Counter, "Payload received")
    .in_unit(Unit::Bytes)
    .labelled(&["protocol", "family"]);
/// Payload sent, by protocol and family.
pub const SENT_BYTES: Metric = metric("aquatic_sent", Kind::Counter, "Payload sent")
    .in_unit(Unit::Bytes)
    .labelled(&["protocol", "family"]);
/// Replies the kernel did not take, by protocol, family and reason.
pub const SEND_ERRORS: Metric = metric("aquatic_send_errors", Kind::Loss, "Replies that could not be sent")
    .labelled(&["protocol", "reason"]);
/// Receives that failed, by protocol, family and reason.
pub const RECEIVE_ERRORS: Metric =
    metric("aquatic_receive_errors", Kind::Loss, "Receive calls that failed").labelled(&["protocol"]);
/// Requests dropped by the kernel because a receive buffer was full, by protocol and family.
pub const KERNEL_DROPS: Metric = metric(
    "aquatic_kernel_drops",
    Kind::Loss,
    "Packets dropped by the kernel because a receive buffer was full",
)
.labelled(&["protocol", "family"]);
/// Requests that a socket filter of the tracker dropped, by protocol, family and reason.
pub const KERNEL_FILTERED: Metric = metric(
    "aquatic_kernel_filtered",
    Kind::Counter,
    "Packets dropped by the kernel for the tracker: of the heaviest networks during an overload, or all while a breaker \
     is open",
)
.labelled(&["protocol", "family", "reason"]);
/// Listeners that drop a part of what the heaviest networks send, or reject TLS handshakes, by protocol and
/// family.
pub const OVERLOADED: Metric = metric(
    "aquatic_overloaded",
    Kind::Gauge,
    "Cores on which more arrives than they can serve: heavy networks get less, or TLS handshakes are rejected",
)
.labelled(&["protocol", "family"]);
/// Breakers that are open, by protocol and family.
pub const BREAKER_OPEN: Metric = metric(
    "aquatic_breaker_open",
    Kind::Gauge,
    "Whether the breaker of a protocol and family is open, so that it is not served",
)
.labelled(&["protocol", "family"]);
/// Times a breaker opened, by protocol, family and cause.
pub const BREAKER_OPENED: Metric =
    metric("aquatic_breaker_opened", Kind::Counter, "Times a breaker opened, by hand or by overload")
        .labelled(&["protocol", "family", "cause"]);
/// Rate limits of cores that sources are above, by protocol.
pub const RATE_LIMITING: Metric = metric(
    "aquatic_rate_limiting",
    Kind::Gauge,
    "Rate limits of cores that sources were above within the last 10 seconds",
)
.labelled(&["protocol"]);
/// Requests, connections and TLS handshakes above a rate limit that were served because limits are only tried
/// out, by protocol.
pub const RATE_LIMIT_DRY_RUN: Metric = metric(
    "aquatic_rate_limit_dry_run",
    Kind::Counter,
    "Requests, connections and TLS handshakes above a rate limit that were served because rate_limits.mode is \"dry_run\"",
)
.labelled(&["protocol"]);
/// Time from the receipt of a request to the moment that its reply was handed to the kernel, by protocol.
pub const REQUEST_DURATION: Metric = metric(
    "aquatic_request_duration",
    Kind::Histogram { doublings: 23 },
    "Time from receiving a request to giving its reply to the kernel; of HTTP and WebSocket, one read in 16",
)
.in_unit(Unit::Nanoseconds)
.labelled(&["protocol"]);
/// Packets received together, by protocol and family.
pub const BATCH_SIZE: Metric = metric(
    "aquatic_batch_size",
    Kind::Histogram { doublings: 6 },
    "Packets received together by one system call",
)
.labelled(&["protocol", "family"]);
/// Queues of a network interface that are received from by AF_XDP, by mode.
pub const XDP_QUEUES: Metric = metric(
    "aquatic_xdp_queues",
    Kind::Gauge,
    "Queues of network.xdp_interface whose requests bypass the network stack, by mode",
)
.labelled(&["mode"]);
/// Replies sent through AF_XDP.
pub const XDP_RESPONSES: Metric = metric(
    "aquatic_xdp_responses",
    Kind::Counter,
    "Replies over UDP that bypassed the network stack; all others went through sockets",
);
/// Frames for the tracker that AF_XDP lost, by reason.
pub const XDP_DROPS: Metric = metric(
    "aquatic_xdp_drops",
    Kind::Loss,
    "Requests and replies that were lost between network.xdp_interface and the tracker",
)
.labelled(&["reason"]);
/// Frames of blocked sources that the XDP program dropped.
pub const XDP_BLOCKED: Metric = metric(
    "aquatic_xdp_blocked",
    Kind::Counter,
    "Requests of blocked networks dropped before the network stack; they count nowhere else",
);
/// Requests that arrived on a core that does not own their torrent, by protocol and family.
pub const FORWARDED: Metric = metric(
    "aquatic_forwarded",
    Kind::Counter,
    "Requests that another core than the one that owns their torrent received",
)
.labelled(&["protocol"]);

// The swarms.

/// Value of the label `swarms` for the swarms that UDP and HTTP share.
pub const BITTORRENT: &str = "bittorrent";
/// Value of the label `swarms` for the swarms of WebTorrent.
pub const WEBTORRENT: &str = "webtorrent";
/// Value of the label `family` for what concerns peers of both families, such as torrents and memory of
/// WebTorrent, and for clients whose family is not told apart or not known.
pub const BOTH_FAMILIES: &str = "both";
/// Torrents with at least one peer, by swarms and family.
pub const TORRENTS: Metric = metric("aquatic_torrents", Kind::Gauge, "Torrents with at least one peer")
    .labelled(&["swarms", "family"]);
/// Torrents by their number of peers, by swarms and family.
pub const TORRENTS_BY_PEERS: Metric = metric(
    "aquatic_torrents_by_peers",
    Kind::Gauge,
    "Torrents by their number of peers, as of the last count (statistics.torrent_sizes_interval)",
)
.labelled(&["swarms", "family", "peers"]);
/// Announces by the program of the client.
pub const ANNOUNCES_BY_CLIENT: Metric = metric(
    "aquatic_announces_by_client",
    Kind::Counter,
    "Announces by the client's program as its peer id tells (statistics.clients)",
)
.labelled(&["protocol", "client"]);
/// Peers, by swarms, family and role.
pub const PEERS: Metric =
    metric("aquatic_peers", Kind::Gauge, "Peers in the store").labelled(&["swarms", "family", "role"]);
/// Completed downloads, by family.
pub const COMPLETED: Metric = metric(
    "aquatic_completed_downloads",
    Kind::Counter,
    "Downloads of UDP and HTTP peers that have been completed, as scrapes count them",
)
.labelled(&["swarms", "family"]);
/// Memory of the store, by swarms and family.
pub const STORE: Metric = metric("aquatic_store", Kind::Gauge, "Memory used by torrents and peers")
    .in_unit(Unit::Bytes)
    .labelled(&["swarms", "family"]);
/// Bytes that a core's torrents and peers may take.
pub const STORE_BUDGET: Metric =
    metric("aquatic_store_budget", Kind::Gauge, "Memory that torrents and peers may use")
        .in_unit(Unit::Bytes);
/// Step of degradation of the core that has gone furthest.
pub const DEGRADATION: Metric = metric(
    "aquatic_memory_degradation",
    Kind::Gauge,
    "Cores by what they do without for want of memory: large_torrents, old_peers or new_peers",
)
.labelled(&["swarms", "step"]);
/// Peers that have not announced for too long, by swarms.
pub const EXPIRED_PEERS: Metric =
    metric("aquatic_expired_peers", Kind::Counter, "Peers removed because they stopped announcing")
        .labelled(&["swarms", "family"]);
/// Torrents that went with their last peer, by swarms.
pub const EXPIRED_TORRENTS: Metric =
    metric("aquatic_expired_torrents", Kind::Counter, "Torrents removed with their last peer")
        .labelled(&["swarms", "family"]);
/// Passes over the shards, by swarms.
pub const EXPIRY_PASSES: Metric = metric(
    "aquatic_expiry_passes",
    Kind::Counter,
    "Completed passes over the torrents of a core that remove expired peers",
)
.labelled(&["swarms", "family"]);
/// Steps of expiry that ran out of time, by swarms.
pub const EXPIRY_BEHIND: Metric = metric(
    "aquatic_expiry_behind",
    Kind::Counter,
    "Expiry steps that used up their time and left work for the next step",
)
.labelled(&["swarms", "family"]);

// The cores and what is between them.

/// Attempts to send that found the queue to another core full, by channel.
pub const CHANNEL_OVERFLOWS: Metric = metric(
    "aquatic_channel_overflows",
    Kind::Loss,
    "Attempts to send to another core that found its queue full",
)
.labelled(&["channel"]);
/// Messages not taken because too much waited for another core, by channel.
pub const CHANNEL_REJECTED: Metric = metric(
    "aquatic_channel_rejected",
    Kind::Loss,
    "Messages for another core rejected because too many were waiting for it",
)
.labelled(&["channel"]);
/// Batches received from other cores, by channel.
pub const CHANNEL_BATCHES: Metric =
    metric("aquatic_channel_batches", Kind::Counter, "Batches of messages received from other cores")
        .labelled(&["channel"]);
/// Requests to the core that owns a torrent without a response, by reason.
pub const OWNER_REQUESTS_FAILED: Metric = metric(
    "aquatic_owner_requests_failed",
    Kind::Loss,
    "Requests to the core that owns a torrent that failed",
)
.labelled(&["reason"]);
/// Requests for parts of the info hashes that other nodes hold, and theirs, by outcome.
pub const PART_REQUESTS: Metric =
    metric("aquatic_part_requests", Kind::Counter, "Requests between nodes for parts of the info hashes")
        .labelled(&["outcome"]);
/// Announces that wait for a node that holds their part.
pub const PART_ANNOUNCES_WAITING: Metric = metric(
    "aquatic_part_announces_waiting",
    Kind::Gauge,
    "Announces that were answered without peers and are waiting for a node that holds their part",
);
/// Requests to the core that owns a torrent that wait for a response.
pub const OWNER_REQUESTS_PENDING: Metric = metric(
    "aquatic_owner_requests_pending",
    Kind::Gauge,
    "Requests to the core that owns a torrent that are waiting for a response",
);
/// How late the periodic task of a core ran.
pub const TICK_LAG: Metric =
    metric("aquatic_tick_lag", Kind::GaugePerCore, "Delay of the last run of a core's periodic task")
        .in_unit(Unit::Microseconds);
/// Time that a core did not spend waiting for something to do.
pub const CORE_BUSY_TIME: Metric = metric(
    "aquatic_core_busy",
    Kind::CounterPerCore,
    "Time that a core did not spend waiting for something to do; its rate is the share of busy time",
)
.in_unit(Unit::Nanoseconds);
/// Share of its time that a core is busy, averaged over a minute.
pub const CORE_BUSY: Metric = metric(
    "aquatic_core_load",
    Kind::GaugePerCore,
    "Processor time of a core as a share of time, averaged over a minute; above 0.7 announce intervals are stretched",
)
.in_unit(Unit::Thousandths);
/// Times the watchdog found a core that did not move.
pub const STALLS: Metric =
    metric("aquatic_core_stalls", Kind::Loss, "Times a core did not respond for several seconds");
/// Waits for sockets that failed.
pub const WAIT_FAILURES: Metric = metric(
    "aquatic_wait_failures",
    Kind::Loss,
    "Waits for sockets that failed because epoll takes no more descriptors (fs.epoll.max_user_watches)",
);
/// Descriptors a core waits for.
pub const WATCHED_FDS: Metric =
    metric("aquatic_watched_fds", Kind::Gauge, "File descriptors registered with epoll");

// The process.

/// Reloads of the configuration, by outcome.
pub const CONFIG_RELOADS: Metric =
    metric("aquatic_config_reloads", Kind::Counter, "Reloads of the configuration, by outcome")
        .labelled(&["outcome"]);
/// Files of the state directory that could not be written, by file.
pub const STATE_WRITE_FAILURES: Metric = metric(
    "aquatic_state_write_failures",
    Kind::Loss,
    "Failed attempts to write a file of the state directory",
)
.labelled(&["file"]);
/// Upgrades that failed.
pub const UPGRADE_FAILURES: Metric = metric(
    "aquatic_upgrade_failures",
    Kind::Counter,
    "Upgrades that failed, after which this process went on serving",
);
/// Snapshots that were saved.
pub const SNAPSHOTS_SAVED: Metric = metric("aquatic_snapshots_saved", Kind::Counter, "Snapshots saved");
/// Moment of the last snapshot that was saved or loaded.
pub const SNAPSHOT_TIME: Metric = metric(
    "aquatic_snapshot_timestamp",
    Kind::Gauge,
    "Time of the last snapshot saved or loaded in seconds since 1970-01-01 UTC; 0 before the first",
)
.in_unit(Unit::Seconds);
/// Configured time between two snapshots.
pub const SNAPSHOT_INTERVAL: Metric = metric(
    "aquatic_snapshot_interval",
    Kind::Gauge,
    "Configured time between two snapshots; 0 if one is saved only at the end",
)
.in_unit(Unit::Seconds);
/// How long the last snapshot took to be saved.
pub const SNAPSHOT_DURATION: Metric =
    metric("aquatic_snapshot_save_duration", Kind::Gauge, "Time that saving the last snapshot took")
        .in_unit(Unit::Microseconds);
/// Length of the last snapshot that was saved.
pub const SNAPSHOT_SIZE: Metric =
    metric("aquatic_snapshot_size", Kind::Gauge, "Size of the last snapshot saved").in_unit(Unit::Bytes);
/// Exported files that were written.
pub const EXPORTS_WRITTEN: Metric = metric("aquatic_exports", Kind::Counter, "Exported files written");
/// Exported files that could not be written.
pub const EXPORT_FAILURES: Metric =
    metric("aquatic_export_failures", Kind::Loss, "Failed attempts to export the counts of all torrents");
/// Moment of the last export.
pub const EXPORT_TIME: Metric = metric(
    "aquatic_export_timestamp",
    Kind::Gauge,
    "Time of the last export in seconds since 1970-01-01 UTC; 0 before the first",
)
.in_unit(Unit::Seconds);
/// How long the last export took.
pub const EXPORT_DURATION: Metric =
    metric("aquatic_export_duration", Kind::Gauge, "Time that the last export took")
        .in_unit(Unit::Microseconds);
/// Length of the last exported file.
pub const EXPORT_SIZE: Metric =
    metric("aquatic_export_size", Kind::Gauge, "Size of the last exported file").in_unit(Unit::Bytes);
/// Torrents in the last exported file.
pub const EXPORT_TORRENTS: Metric =
    metric("aquatic_export_torrents", Kind::Gauge, "Torrents in the last exported file");
/// Peers of the snapshot that was loaded, by outcome.
pub const SNAPSHOT_PEERS: Metric =
    metric("aquatic_snapshot_peers", Kind::Counter, "Peers in the snapshot loaded at start, by outcome")
        .labelled(&["outcome"]);
/// Parts of a snapshot that could not be loaded, by reason.
pub const SNAPSHOT_DAMAGE: Metric =
    metric("aquatic_snapshot_damage", Kind::Loss, "Parts of a snapshot that could not be loaded")
        .labelled(&["reason"]);
/// Info hashes on the access list.
pub const ACCESS_LIST: Metric = metric("aquatic_access_list", Kind::Gauge, "Info hashes on the access list");
/// Reloads of the access list, by outcome.
pub const ACCESS_RELOADS: Metric =
    metric("aquatic_access_list_reloads", Kind::Counter, "Reloads of the access list, by outcome")
        .labelled(&["outcome"]);
/// Networks on the block list.
pub const BLOCK_LIST: Metric = metric("aquatic_block_list", Kind::Gauge, "Networks on the block list");
/// Reloads of the block list, by outcome.
pub const BLOCK_LIST_RELOADS: Metric =
    metric("aquatic_block_list_reloads", Kind::Counter, "Reloads of the block list, by outcome")
        .labelled(&["outcome"]);
/// Lines that were not info hashes in files that a reload of the access list rejected.
pub const ACCESS_BAD_LINES: Metric = metric(
    "aquatic_access_list_bad_lines",
    Kind::Counter,
    "Lines that are not info hashes in access list files rejected by a reload",
);
/// Connections to the metrics endpoint that were closed without a reply.
pub const METRICS_UNSERVED: Metric = metric(
    "aquatic_metrics_unserved",
    Kind::Loss,
    "Connections to the metrics endpoint that were closed without a reply, because of its limit or an error",
);
/// Connections to the status page's own address that were closed without a reply.
pub const STATUS_UNSERVED: Metric = metric(
    "aquatic_status_unserved",
    Kind::Loss,
    "Connections to the status page's own address closed without a reply, because of its limit or an error",
);
/// Requests for the status page and its figures.
pub const STATUS_REQUESTS: Metric =
    metric("aquatic_status_requests", Kind::Counter, "Requests for the status page, its files and figures");
/// Requests for the operator's view by others.
pub const STATUS_DENIED: Metric = metric(
    "aquatic_status_denied",
    Kind::Counter,
    "Requests for the operator's view of the status page without the token, from elsewhere",
);
/// Bytes of the status page and its figures.
pub const STATUS_SENT: Metric =
    metric("aquatic_status_sent", Kind::Counter, "Status page, its files and figures sent")
        .in_unit(Unit::Bytes);
/// Streams of the status page that are open.
pub const STATUS_STREAMS: Metric =
    metric("aquatic_status_streams", Kind::Gauge, "Viewers of the status page with a stream of figures");
/// Streams of the status page that were refused.
pub const STATUS_STREAMS_REFUSED: Metric = metric(
    "aquatic_status_streams_refused",
    Kind::Counter,
    "Streams of the status page refused because of status.max_streams",
);
/// Streams of the status page that were ended.
pub const STATUS_STREAMS_SLOW: Metric = metric(
    "aquatic_status_streams_slow",
    Kind::Counter,
    "Streams of the status page ended because their viewer did not receive them",
);
/// Start of the process.
pub const PROCESS_START: Metric =
    metric("process_start_time", Kind::Gauge, "Start time of the process in seconds since 1970-01-01 UTC")
        .in_unit(Unit::Seconds);
/// Processor time.
pub const PROCESS_CPU: Metric =
    metric("process_cpu", Kind::Counter, "User and system processor time of the process")
        .in_unit(Unit::Microseconds);
/// Resident memory.
pub const PROCESS_MEMORY: Metric =
    metric("process_resident_memory", Kind::Gauge, "Resident memory of the process").in_unit(Unit::Bytes);
/// Open descriptors; missing before Linux 6.2.
pub const PROCESS_OPEN_FDS: Metric =
    metric("process_open_fds", Kind::Gauge, "Open file descriptors of the process");
/// Limit of open descriptors.
pub const PROCESS_MAX_FDS: Metric =
    metric("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors of the process");
/// Virtual memory.
pub const PROCESS_VIRTUAL_MEMORY: Metric =
    metric("process_virtual_memory", Kind::Gauge, "Virtual memory of the process").in_unit(Unit::Bytes);
/// Constant with the version as a label.
pub const BUILD_INFO: Metric =
    metric("aquatic_build_info", Kind::Gauge, "Version of the tracker; the value is always 1")
        .labelled(&["version"]);
/// Limits that the configuration sets, by setting.
pub const LIMIT: Metric =
    metric("aquatic_limit", Kind::Gauge, "Maximum by the setting of the limit").labelled(&["limit"]);
/// How much of each limit is used, by setting.
pub const LIMIT_IN_USE: Metric =
    metric("aquatic_limit_in_use", Kind::Gauge, "What counts towards a limit, by the setting of the limit")
        .labelled(&["limit"]);
/// Number of cores.
pub const CORES: Metric = metric("aquatic_cores", Kind::Gauge, "Number of cores that the tracker uses");

// Connections, by protocol and what else is said.

/// Connections that are open, by protocol.
pub const CONNECTIONS: Metric =
    metric("aquatic_connections", Kind::Gauge, "Open connections").labelled(&["protocol"]);
/// Connections accepted, by protocol.
pub const CONNECTIONS_ACCEPTED: Metric =
    metric("aquatic_connections_accepted", Kind::Counter, "Connections accepted").labelled(&["protocol"]);
/// Connections handed to a core with fewer of them, by protocol.
pub const CONNECTIONS_MOVED: Metric =
    metric("aquatic_connections_moved", Kind::Counter, "Connections moved to a core with fewer connections")
        .labelled(&["protocol"]);
/// Connections closed before they began, by protocol and reason.
pub const CONNECTIONS_REFUSED: Metric =
    metric("aquatic_connections_refused", Kind::Loss, "Connections closed right after they were accepted")
        .labelled(&["protocol", "reason"]);
/// Connections evicted for newer ones, by protocol and by the limit that was reached.
pub const CONNECTIONS_EVICTED: Metric =
    metric("aquatic_connections_evicted", Kind::Loss, "Longest idle connections closed to admit newer ones")
        .labelled(&["protocol", "reason"]);
/// Connections closed because something took too long, by protocol and reason.
pub const CONNECTION_TIMEOUTS: Metric =
    metric("aquatic_connection_timeouts", Kind::Counter, "Connections closed because they timed out")
        .labelled(&["protocol", "reason"]);
/// Accepts that failed, by protocol.
pub const ACCEPT_ERRORS: Metric =
    metric("aquatic_accept_errors", Kind::Loss, "Failed attempts to accept a connection")
        .labelled(&["protocol"]);
/// TLS handshakes, by protocol and outcome.
pub const HANDSHAKES: Metric = metric("aquatic_tls_handshakes", Kind::Counter, "TLS handshakes, by outcome")
    .labelled(&["protocol", "outcome"]);
/// Faults of TLS clients, by protocol and reason.
pub const TLS_FAULTS: Metric = metric(
    "aquatic_tls_faults",
    Kind::Counter,
    "TLS handshakes that failed, and connections that TLS ended, because of what the client sent, by reason",
)
.labelled(&["protocol", "reason"]);
/// TLS handshakes under way or waiting for their turn, by protocol.
pub const HANDSHAKING: Metric =
    metric("aquatic_tls_handshakes_open", Kind::Gauge, "TLS handshakes in progress or waiting")
        .labelled(&["protocol"]);
/// Reloads of the certificate, by outcome.
pub const CERTIFICATE_RELOADS: Metric =
    metric("aquatic_certificate_reloads", Kind::Counter, "Reloads of the TLS certificate, by outcome")
        .labelled(&["outcome"]);
/// End of the certificate's validity.
pub const CERTIFICATE_NOT_AFTER: Metric = metric(
    "aquatic_tls_certificate_not_after_timestamp",
    Kind::Gauge,
    "Expiry time of the TLS certificate in use in seconds since 1970-01-01 UTC",
)
.in_unit(Unit::Seconds);
/// Orders of certificates over ACME, by outcome: "done", "tested" in the directory for tests, or why they
/// failed.
pub const ACME_ORDERS: Metric =
    metric("aquatic_acme_orders", Kind::Counter, "Orders of certificates over ACME, by outcome")
        .labelled(&["outcome"]);
/// Orders that have failed since the last one that did not.
pub const ACME_FAILURES_IN_A_ROW: Metric = metric(
    "aquatic_acme_failures_in_a_row",
    Kind::Gauge,
    "Orders of certificates that have failed since the last one that was fulfilled",
);
/// When the next order is made.
pub const ACME_NEXT_ORDER: Metric = metric(
    "aquatic_acme_next_order_timestamp",
    Kind::Gauge,
    "Time of the next order of a certificate in seconds since 1970-01-01 UTC",
)
.in_unit(Unit::Seconds);
/// Connections of trusted proxies without a usable PROXY protocol header whose own address was used, by
/// protocol.
pub const PROXY_UNUSED: Metric = metric(
    "aquatic_proxy_headers_unused",
    Kind::Loss,
    "Connections of trusted proxies without a usable client address",
)
.labelled(&["protocol"]);
/// Requests of trusted proxies without a usable header, refused or taken to be the proxy's own, by protocol
/// and reason.
pub const PROXY_CLIENT_MISSING: Metric = metric(
    "aquatic_proxy_client_missing",
    Kind::Loss,
    "Requests of trusted proxies without a usable client address",
)
.labelled(&["protocol", "reason"]);

// WebTorrent, by protocol and what else is said.

/// Connections that have become WebSockets, by protocol.
pub const UPGRADES: Metric =
    metric("aquatic_upgrades", Kind::Counter, "Connections upgraded to WebSocket").labelled(&["protocol"]);
/// WebSockets that have ended, by protocol and reason.
pub const CONNECTIONS_ENDED: Metric =
    metric("aquatic_connections_ended", Kind::Counter, "WebSocket connections ended, by reason")
        .labelled(&["protocol", "reason"]);
/// Times a connection was read from more slowly because of its message rate, by protocol.
pub const THROTTLED: Metric = metric(
    "aquatic_connections_throttled",
    Kind::Loss,
    "Seconds for which connections were not read from because they had sent messages above their message rate",
)
.labelled(&["protocol"]);
/// Announces with a peer id that another connection has, by protocol.
pub const CONTESTED_PEERS: Metric = metric(
    "aquatic_contested_peers",
    Kind::Counter,
    "Announces with a peer id that belongs to another connection",
)
.labelled(&["protocol"]);
/// Offers that wait for an answer, by protocol.
pub const OFFERS_WAITING: Metric =
    metric("aquatic_offers_waiting", Kind::Gauge, "Offers that can still be answered")
        .labelled(&["protocol"]);
/// Offers forgotten before their time, by protocol.
pub const OFFERS_FORGOTTEN: Metric = metric(
    "aquatic_offers_forgotten",
    Kind::Loss,
    "Offers dropped early because too many were waiting for an answer",
)
.labelled(&["protocol"]);
