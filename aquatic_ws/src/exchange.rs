//! Exchange of a core with other nodes, connected to its executor and the metrics.

use std::rc::Rc;
use std::time::Duration;

use aquatic_metrics::{CoreMetrics, Counter, Gauge, Label, names};

use crate::nodes::counts::ChangeOutcome;
use crate::session::{CoreState, CoreTracker};
use crate::swarm::NodeNumber;

/// Label of changes of WebTorrent peers.
const KIND: Label = ("kind", names::WEBTORRENT);

/// Way of a core to the other nodes of a cluster. Never waits.
pub trait NodeLink {
    /// Publishes records of changes to all nodes. What is lost has to be followed by
    /// [`WsNodes::publish_again`], or is made up for when peers announce again.
    fn publish(&self, records: Vec<u8>);

    /// Sends messages to one node. What is lost is not repeated.
    fn send(&self, to: NodeNumber, messages: Vec<u8>);
}

/// What a core hears of other nodes.
#[derive(Clone)]
pub struct WsNodes(Rc<CoreState>);

impl std::fmt::Debug for WsNodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WsNodes").finish_non_exhaustive()
    }
}

impl WsNodes {
    /// Begins the exchange, in which changes and messages leave once per interval.
    pub(crate) fn start(state: &Rc<CoreState>, link: impl NodeLink + 'static, interval: Duration) -> Self {
        state.with(|tracker, _| tracker.join_cluster());
        let exchanging = Rc::clone(state);
        state.core.spawn(async move {
            let counters = Counters::new(exchanging.core.metrics());
            loop {
                exchanging.core.sleep(interval).await;
                exchange(&exchanging, &link, &counters);
            }
        });
        Self(Rc::clone(state))
    }

    /// Accepts what a node tells.
    pub fn joined(&self, node: NodeNumber) {
        self.0.with(|tracker, context| tracker.readmit_node(node, context.now));
    }

    /// Removes the peers of a node that is gone, little by little.
    pub fn gone(&self, node: NodeNumber) {
        self.0.with(|tracker, _| tracker.forget_node(node));
    }

    /// Something of what a node has published is missing. It publishes all again, so its other peers are
    /// removed, little by little.
    pub fn missed(&self, node: NodeNumber) {
        self.0.with(|tracker, context| tracker.doubt_node(node, context.now));
    }

    /// Publishes all peers of this core again, little by little.
    pub fn publish_again(&self) {
        self.0.with(|tracker, _| tracker.resend_peers());
    }

    /// Applies changes that a node published so many seconds ago, of torrents that this core owns.
    pub fn apply(&self, from: NodeNumber, records: &[u8], age: u32) {
        self.0.with(|tracker, context| tracker.apply_changes(from, records, age, context));
    }

    /// Serves messages of a node that are for this core.
    pub fn receive(&self, from: NodeNumber, messages: &[u8]) {
        self.0.with(|tracker, context| tracker.receive_node_messages(from, messages, context));
    }
}

/// Metrics of the exchange.
struct Counters {
    published: Counter,
    dropped: Counter,
    applied: [Counter; ChangeOutcome::ALL.len()],
    own_peers: Gauge,
}

impl Counters {
    fn new(metrics: &CoreMetrics) -> Self {
        let applied = |outcome: ChangeOutcome| {
            metrics.counter(&names::CLUSTER_APPLIED, &[KIND, ("outcome", outcome.name())])
        };
        Self {
            published: metrics.counter(&names::CLUSTER_PUBLISHED, &[KIND]),
            dropped: metrics.counter(&names::CLUSTER_DROPPED, &[("reason", "webtorrent_queue")]),
            applied: ChangeOutcome::ALL.map(applied),
            own_peers: metrics.gauge(&names::CLUSTER_OWN_PEERS, &[("family", names::WEBTORRENT)]),
        }
    }

    fn report(&self, tracker: &CoreTracker) {
        for (counter, (_, total)) in self.applied.iter().zip(tracker.applied_changes()) {
            advance(counter, total);
        }
        advance(&self.published, tracker.published_changes());
        advance(&self.dropped, tracker.swarms().dropped_changes());
        self.own_peers.set(tracker.swarms().own_peers() as u64);
    }
}

/// Has a counter show a total.
fn advance(counter: &Counter, total: u64) {
    counter.add(total.saturating_sub(counter.get()));
}

/// Hands over what waits for other nodes.
fn exchange(state: &CoreState, link: &impl NodeLink, counters: &Counters) {
    state.with(|tracker, context| {
        tracker.advance_cluster(context.now);
        loop {
            let mut records = Vec::new();
            if tracker.publish(context.now, &mut records) == 0 {
                break;
            }
            link.publish(records);
        }
        while let Some((node, messages)) = tracker.take_node_messages() {
            link.send(node, messages);
        }
        counters.report(tracker);
    });
}
