//! Metrics of the cluster. Names of nodes are labels: there are few, and who sends them knows the secret.

use super::{Kind, Metric, Unit, metric};

/// Live nodes.
pub const CLUSTER_NODES: Metric =
    metric("aquatic_cluster_nodes", Kind::Gauge, "Live nodes of the cluster, with this one");
/// 1 while there is a connection to a NATS server, else 0.
pub const CLUSTER_CONNECTED: Metric = metric(
    "aquatic_cluster_connected",
    Kind::Gauge,
    "Connections to a NATS server: 1, or 0 while there is none",
);
/// 1 if this node knows what the others know, 0 while it still asks for it.
pub const CLUSTER_COMPLETE: Metric = metric(
    "aquatic_cluster_complete",
    Kind::Gauge,
    "Whether this node has received what the others knew: 1, or 0 while it still receives it",
);
/// Connections to NATS servers that ended.
pub const CLUSTER_DISCONNECTS: Metric =
    metric("aquatic_cluster_disconnects", Kind::Counter, "Connections to NATS servers that have ended");
/// Changes of own peers handed to the thread, by kind: of peers with an address, of WebTorrent peers, and of
/// peers that have left, which are told again to nodes that have missed something.
pub const CLUSTER_PUBLISHED: Metric =
    metric("aquatic_cluster_changes_published", Kind::Counter, "Changes of peers published to other nodes")
        .labelled(&["kind"]);
/// Changes of other nodes by kind, and by what became of them.
pub const CLUSTER_APPLIED: Metric = metric(
    "aquatic_cluster_changes_applied",
    Kind::Counter,
    "Changes of peers received from other nodes, by what became of them",
)
.labelled(&["kind", "outcome"]);
/// Messages of this node that were not sent, by reason.
pub const CLUSTER_DROPPED: Metric = metric(
    "aquatic_cluster_messages_dropped",
    Kind::Loss,
    "Messages to other nodes that were dropped, by reason; the nodes ask for what they lack",
)
.labelled(&["reason"]);
/// Messages of others that were not used, by reason.
pub const CLUSTER_REFUSED: Metric = metric(
    "aquatic_cluster_messages_refused",
    Kind::Counter,
    "Messages received over NATS that were not used, by reason",
)
.labelled(&["reason"]);
/// Bytes of sealed messages, by direction.
pub const CLUSTER_BYTES: Metric =
    metric("aquatic_cluster_traffic", Kind::Counter, "Bytes of messages over NATS, by direction")
        .in_unit(Unit::Bytes)
        .labelled(&["direction"]);
/// Gaps in what a node sends.
pub const CLUSTER_GAPS: Metric = metric(
    "aquatic_cluster_gaps",
    Kind::Counter,
    "Gaps seen in what a node publishes, several together as one; what is missing is asked for",
)
.labelled(&["node"]);
/// Requests for the peers of a node, by node and outcome.
pub const CLUSTER_PULLS: Metric = metric(
    "aquatic_cluster_pulls",
    Kind::Counter,
    "Times that peers were asked of a node, after a start or a gap, by outcome",
)
.labelled(&["node", "outcome"]);
/// Peers received in replies to such requests.
pub const CLUSTER_PULLED_PEERS: Metric = metric(
    "aquatic_cluster_pulled_peers",
    Kind::Counter,
    "Peers received from other nodes after a start or a gap, by what became of them",
)
.labelled(&["outcome"]);
/// Time from the moment at which a node takes a batch to its arrival.
pub const CLUSTER_LAG: Metric = metric(
    "aquatic_cluster_lag",
    Kind::Gauge,
    "Time that the last batch of a node was under way, beyond the shortest such time so far",
)
.in_unit(Unit::Microseconds)
.labelled(&["node"]);
/// Parts of the info hashes, of 256: those that this node answers for itself, and those of them whose
/// torrents it still receives.
pub const CLUSTER_PARTS: Metric = metric(
    "aquatic_cluster_parts",
    Kind::Gauge,
    "Parts of the info hashes, of 256, that this node holds, and those that it is still receiving",
)
.labelled(&["state"]);
/// Peers that this node heard last.
pub const CLUSTER_OWN_PEERS: Metric = metric(
    "aquatic_cluster_own_peers",
    Kind::Gauge,
    "Peers of UDP and HTTP that this node heard last, by address family",
)
.labelled(&["family"]);
/// Totals over all nodes, the live and the gone ones, while this process runs.
pub const CLUSTER_TOTAL_REQUESTS: Metric = metric(
    "aquatic_cluster_requests",
    Kind::Counter,
    "Requests of all nodes known to this one, and completed downloads, by action",
)
.labelled(&["action"]);
