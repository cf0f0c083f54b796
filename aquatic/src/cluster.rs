//! The cluster that this tracker is a node of.

use aquatic_cluster::cores::{Channel, ClusterLink, CoreCluster, FromCore, NodeEvent, WEBTORRENT_RECORD};
use aquatic_cluster::thread::{self, Hooks, Prepared};
use aquatic_common::config::ClusterConfig;
use aquatic_runtime::Engine;
use aquatic_tracker::TrackerSeed;
use aquatic_ws::nodes::changes::RECORD_LENGTH;
use aquatic_ws::nodes::messages::split;
use aquatic_ws::swarm::NodeNumber;
use aquatic_ws::{NodeLink, WsNodes, WsTracker};

use crate::control::{self, Controlled};

// The cluster divides records without knowing what is in them.
const _: () = assert!(WEBTORRENT_RECORD == RECORD_LENGTH);

/// A core's way for peers, offers and answers of WebTorrent to other nodes.
struct WebTorrentLink(ClusterLink);

impl NodeLink for WebTorrentLink {
    fn publish(&self, records: Vec<u8>) {
        // What is dropped is counted, and other nodes see a gap.
        self.0.send(FromCore::WebTorrent(records));
    }

    fn send(&self, to: NodeNumber, messages: Vec<u8>) {
        // What is dropped is counted.
        self.0.send(FromCore::Messages { to: to.get(), channel: Channel::Relay, body: messages });
    }
}

/// Has the WebTorrent tracker of a core exchange peers, offers and answers with other nodes.
pub(crate) fn join_webtorrent(tracker: &WsTracker, cluster: &CoreCluster) -> WsNodes {
    tracker.join_cluster(WebTorrentLink(cluster.link()), cluster.interval())
}

/// Tells a core's WebTorrent tracker of other nodes.
pub(crate) fn tell_webtorrent(nodes: &WsNodes, event: &NodeEvent) {
    let number = |node: u8| NodeNumber::new(node);
    match event {
        NodeEvent::Joined(node) => number(*node).into_iter().for_each(|node| nodes.joined(node)),
        NodeEvent::Left(node) => number(*node).into_iter().for_each(|node| nodes.gone(node)),
        // The thread asks the node to publish all again.
        NodeEvent::Missed(node) => number(*node).into_iter().for_each(|node| nodes.missed(node)),
        NodeEvent::PublishAgain => nodes.publish_again(),
        NodeEvent::WebTorrent { from, age, records } => {
            number(*from).into_iter().for_each(|from| nodes.apply(from, records, *age));
        }
        NodeEvent::Messages { from, channel: Channel::Relay, body } => {
            number(*from).into_iter().for_each(|from| nodes.receive(from, body));
        }
        // Requests for parts are for nodes with UDP or HTTP.
        NodeEvent::Messages { channel: Channel::Parts, .. } => {}
    }
}

/// Has the engine run the thread of the cluster. `None` if none is configured. Only a node that keeps peers
/// of UDP and HTTP can hold parts.
///
/// # Errors
/// Files that cannot be used.
pub(crate) fn open(
    (config, keeps_peers): (&ClusterConfig, bool),
    seed: &TrackerSeed,
    engine: &mut Engine,
    parts: Controlled,
) -> anyhow::Result<Option<Prepared>> {
    let hooks = Hooks {
        relay: |messages, steering, to| split(messages, steering, to),
        command: control::receiver(parts),
        restored: seed.restored().clone(),
    };
    thread::prepare(engine, (config, seed.steering()), keeps_peers, hooks)
}

/// Each core's part; none without a cluster.
pub(crate) fn parts(prepared: Option<&mut Prepared>) -> Vec<CoreCluster> {
    prepared.map(|prepared| std::mem::take(&mut prepared.cores)).unwrap_or_default()
}
