//! What there is to say about the cluster: for the control socket and the status page.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::counters::Counters;
use crate::machine::{Cluster, Status};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Version of its program.
    pub version: String,
    /// Whether it was heard within the last ten seconds.
    pub live: bool,
    /// Whether it knows what the others know.
    pub complete: bool,
    /// Seconds since its process has begun to take part.
    pub uptime_seconds: u64,
    /// Seconds since it was last heard; 0 for this node.
    pub heard_seconds: f64,
    /// Seconds that its last message was under way, beyond the shortest such time.
    pub lag_seconds: f64,
    /// Seconds by which its calendar is ahead of that of this node.
    pub clock_ahead_seconds: i64,
    /// Gaps seen in what it publishes.
    pub gaps: u64,
    /// Peers of UDP and HTTP that it heard last.
    pub own_peers: u64,
    /// Live connections.
    pub connections: u32,
    /// Announces, scrapes and completed downloads since its start.
    pub announces: u64,
    /// Scrapes.
    pub scrapes: u64,
    /// Completed downloads.
    pub completed: u64,
}

/// Sums over all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClusterTotals {
    /// Announces, of nodes that are gone, too.
    pub announces: u64,
    /// Scrapes, of nodes that are gone, too.
    pub scrapes: u64,
    /// Completed downloads, of nodes that are gone, too.
    pub completed: u64,
    /// Live connections of live nodes.
    pub connections: u64,
}

/// Parts of the info hashes, of 256, if nodes divide them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartsStatus {
    /// Number of nodes that hold each part, if there are as many.
    pub replicas: u8,
    /// Number of nodes that hold parts, with this one.
    pub members: usize,
    /// Parts that this node answers for itself.
    pub held: u32,
    /// Those of them whose torrents it still receives.
    pub receiving: u32,
    /// Requests that were forwarded to a holder, which has responded.
    pub answered: u64,
    /// Requests that were answered without peers, or not at all, because no holder has responded.
    pub unanswered: u64,
    /// Announces among those that were sent to a holder later.
    pub sent_later: u64,
    /// Announces among those that wait for a holder.
    pub waiting: u64,
    /// Announces among those that were lost, because there was no holder for too long.
    pub lost: u64,
    /// Requests of other nodes that were served.
    pub served: u64,
}

impl PartsStatus {
    fn text(&self) -> String {
        let Self { replicas, members, held, receiving, .. } = self;
        let mut text = format!(
            " It holds {held} of 256 parts of the torrents; {members} node(s) hold parts, {replicas} of them each."
        );
        if *receiving > 0 {
            text.push_str(&format!(" It still receives the torrents of {receiving}."));
        }
        text.push_str(&format!(
            " Requests forwarded: {} answered, {} not answered in time; announces sent later: {}, waiting: {}.",
            self.answered, self.unanswered, self.sent_later, self.waiting
        ));
        text
    }
}

/// State of the cluster, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClusterStatus {
    /// Name of the cluster.
    pub name: String,
    /// Name of this node.
    pub node: String,
    /// Whether there is a connection to a NATS server.
    pub connected: bool,
    /// Whether this node knows what the others know.
    pub complete: bool,
    /// All nodes, this one first.
    pub nodes: Vec<NodeStatus>,
    /// Sums over all nodes.
    pub totals: ClusterTotals,
    /// Gaps seen, and batches lost in them.
    pub gaps: u64,
    /// Batches lost in gaps.
    pub lost_batches: u64,
    /// Pulls after a start or a gap that were completed.
    pub pulls: u64,
    /// Parts of the info hashes; `None` if every node keeps all torrents.
    pub parts: Option<PartsStatus>,
}

impl ClusterStatus {
    /// The state in a sentence or two, and whether the operator has something to do about it.
    #[must_use]
    pub fn text(&self) -> (String, bool) {
        let live = self.nodes.iter().filter(|node| node.live).count();
        let gone: Vec<&str> =
            self.nodes.iter().filter(|node| !node.live).map(|node| node.name.as_str()).collect();
        if !self.connected {
            return ("There is no connection to NATS, so this node serves alone.".to_owned(), true);
        }
        let mut text = format!("{live} node(s) of the cluster {} are live.", self.name);
        if !gone.is_empty() {
            text.push_str(&format!(" Not heard any more: {}.", gone.join(", ")));
        }
        if !self.complete {
            text.push_str(" This node still receives what the others know.");
        }
        if let Some(parts) = &self.parts {
            text.push_str(&parts.text());
        }
        (text, !gone.is_empty())
    }
}

/// The state, as the thread has left it. Copies share it.
#[derive(Clone, Debug)]
pub struct ClusterReport(Arc<Mutex<ClusterStatus>>);

impl ClusterReport {
    pub(crate) fn new(name: &str, node: &str) -> Self {
        let status =
            ClusterStatus { name: name.to_owned(), node: node.to_owned(), ..ClusterStatus::default() };
        Self(Arc::new(Mutex::new(status)))
    }

    /// The state now.
    #[must_use]
    pub fn get(&self) -> ClusterStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn update(
        &self,
        machine: &Cluster,
        (connected, now): (bool, u64),
        own: (&Status, PartsStatus),
    ) {
        let (own, requests) = own;
        let mut status = self.get();
        status.connected = connected;
        status.complete = machine.complete_since().is_some();
        status.nodes = nodes(machine, &status, (now, own));
        let Counters { announces, scrapes, completed, .. } = machine.totals();
        let live = status.nodes.iter().filter(|node| node.live);
        let connections = live.map(|node| u64::from(node.connections)).sum();
        status.totals = ClusterTotals { announces, scrapes, completed, connections };
        let counts = machine.counts();
        status.gaps = counts.gaps;
        status.lost_batches = counts.lost;
        status.pulls = counts.pulls[0];
        status.parts = machine.replicas().map(|replicas| PartsStatus {
            replicas,
            members: machine.members(),
            held: machine.answered_parts().len(),
            receiving: machine.missing_parts().len(),
            ..requests
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

fn nodes(machine: &Cluster, status: &ClusterStatus, (now, own): (u64, &Status)) -> Vec<NodeStatus> {
    let this = NodeStatus {
        name: status.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        live: true,
        complete: status.complete,
        uptime_seconds: now / 1000,
        heard_seconds: 0.0,
        lag_seconds: 0.0,
        clock_ahead_seconds: 0,
        gaps: 0,
        own_peers: own.own_peers.iter().sum(),
        connections: own.connections,
        announces: own.counters.announces,
        scrapes: own.counters.scrapes,
        completed: own.counters.completed,
    };
    let others = machine.nodes().iter().map(|node| NodeStatus {
        name: node.name().as_str().to_owned(),
        version: node.hello.version.clone(),
        live: !node.gone,
        complete: node.hello.complete.is_some(),
        uptime_seconds: node.hello.clock / 1000,
        heard_seconds: now.saturating_sub(node.heard) as f64 / 1000.0,
        lag_seconds: node.lag as f64 / 1000.0,
        clock_ahead_seconds: node.calendar_ahead,
        gaps: node.gaps,
        own_peers: node.hello.own_peers.iter().sum(),
        connections: node.hello.connections,
        announces: node.hello.counters.announces,
        scrapes: node.hello.counters.scrapes,
        completed: node.hello.counters.completed,
    });
    let mut nodes: Vec<NodeStatus> = std::iter::once(this).chain(others).collect();
    if let Some(others) = nodes.get_mut(1..) {
        others.sort_by(|a, b| a.name.cmp(&b.name));
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_told_in_a_sentence() {
        let mut status = ClusterStatus { name: "aquatic".to_owned(), ..ClusterStatus::default() };
        assert!(status.text().0.contains("serves alone") && status.text().1);
        status.connected = true;
        assert!(status.text().0.ends_with("what the others know.") && !status.text().1);
        status.complete = true;
        assert_eq!(status.text().0, "0 node(s) of the cluster aquatic are live.");
        let parts = PartsStatus { replicas: 2, members: 3, held: 170, answered: 7, ..PartsStatus::default() };
        status.parts = Some(parts);
        let text = status.text().0;
        assert!(
            text.contains("It holds 170 of 256 parts") && text.contains("forwarded: 7 answered"),
            "{text}"
        );
        assert!(!text.contains("still receives"));
        status.parts = Some(PartsStatus { receiving: 5, ..parts });
        assert!(status.text().0.contains("still receives the torrents of 5"));
    }
}
