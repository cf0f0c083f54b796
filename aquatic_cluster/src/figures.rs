//! What a node counts, and what it says of itself in hellos.

use std::collections::HashMap;

use aquatic_metrics::{CoreMetrics, Sample};
use aquatic_metrics::{Counter, Gauge, Metric, Registry, names};

use crate::counters::Counters;
use crate::hello::NodeName;
use crate::machine::{Cluster, Refusal, Status};
use crate::nodes::Node;
use crate::puller::Outcome;
use crate::report::PartsStatus;

/// Maximum number of names of nodes with metrics of their own.
const MAX_NAMES: usize = 256;

/// Metrics of one other node.
struct OfNode {
    lag: Gauge,
    gaps: Counter,
    completed: Counter,
    busy: Counter,
    failed: Counter,
}

/// Counters and gauges of the thread.
pub(crate) struct Figures {
    registry: Registry,
    metrics: CoreMetrics,
    nodes: Gauge,
    complete: Gauge,
    refused: [Counter; Refusal::ALL.len()],
    /// What has been counted of these so far.
    seen: [u64; Refusal::ALL.len()],
    malformed: Counter,
    not_held: Counter,
    parts: [Gauge; 2],
    dropped_queue: Counter,
    dropped_mailbox: Counter,
    dropped_unknown: Counter,
    totals: [Counter; 3],
    shown_totals: [u64; 3],
    of_nodes: HashMap<String, OfNode>,
    status: Status,
    requests: PartsStatus,
}

impl Figures {
    pub(crate) fn new(registry: &Registry) -> Self {
        let metrics = registry.main_thread();
        let dropped = |reason| metrics.counter(&names::CLUSTER_DROPPED, &[("reason", reason)]);
        let total = |action| metrics.counter(&names::CLUSTER_TOTAL_REQUESTS, &[("action", action)]);
        let refused =
            |refusal: Refusal| metrics.counter(&names::CLUSTER_REFUSED, &[("reason", refusal.name())]);
        Self {
            registry: registry.clone(),
            nodes: metrics.gauge(&names::CLUSTER_NODES, &[]),
            complete: metrics.gauge(&names::CLUSTER_COMPLETE, &[]),
            refused: Refusal::ALL.map(refused),
            seen: [0; Refusal::ALL.len()],
            malformed: metrics.counter(&names::CLUSTER_REFUSED, &[("reason", "malformed_records")]),
            not_held: metrics.counter(&names::CLUSTER_APPLIED, &[("kind", "peers"), ("outcome", "not_held")]),
            parts: ["held", "receiving"]
                .map(|state| metrics.gauge(&names::CLUSTER_PARTS, &[("state", state)])),
            dropped_queue: dropped("queue"),
            dropped_mailbox: dropped("core"),
            dropped_unknown: dropped("unknown_node"),
            totals: ["announce", "scrape", "completed"].map(total),
            shown_totals: [0; 3],
            of_nodes: HashMap::new(),
            status: Status::default(),
            requests: PartsStatus::default(),
            metrics,
        }
    }

    /// Reads the counters of this node.
    pub(crate) fn read(&mut self, calendar: i64, restored: bool) {
        let samples = self.registry.samples();
        let sum = |metric: &Metric, label: Option<(&str, &str)>| sum(&samples, metric, label);
        let own = |family| sum(&names::CLUSTER_OWN_PEERS, Some(("family", family)));
        self.status = Status {
            calendar: u64::try_from(calendar).unwrap_or(0),
            own_peers: [own("ipv4"), own("ipv6")],
            connections: u32::try_from(sum(&names::CONNECTIONS, None)).unwrap_or(u32::MAX),
            counters: Counters {
                announces: sum(&names::REQUESTS, Some(("action", "announce"))),
                scrapes: sum(&names::REQUESTS, Some(("action", "scrape"))),
                completed: sum(&names::COMPLETED, None),
                published: sum(&names::CLUSTER_PUBLISHED, None),
            },
            restored,
        };
        let part = |outcome| sum(&names::PART_REQUESTS, Some(("outcome", outcome)));
        self.requests = PartsStatus {
            answered: part("answered"),
            unanswered: ["timeout", "no_holder", "overflow", "not_held"].map(part).into_iter().sum(),
            sent_later: part("sent_later"),
            waiting: sum(&names::PART_ANNOUNCES_WAITING, None),
            lost: part("lost"),
            served: part("served"),
            ..PartsStatus::default()
        };
    }

    /// What has become of requests for parts.
    pub(crate) fn requests(&self) -> PartsStatus {
        self.requests
    }

    /// What this node says of itself.
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// Shows what the state machine has counted.
    pub(crate) fn show(&mut self, machine: &Cluster) {
        self.nodes.set(machine.nodes().live().count() as u64 + 1);
        self.complete.set(machine.complete_since().is_some().into());
        let parts = [machine.answered_parts(), machine.missing_parts()];
        self.parts.iter().zip(parts).for_each(|(gauge, parts)| gauge.set(parts.len().into()));
        let counted = machine.counts().refused;
        for ((counter, seen), now) in self.refused.iter().zip(&mut self.seen).zip(counted) {
            counter.add(now.saturating_sub(*seen));
            *seen = now;
        }
        let Counters { announces, scrapes, completed, .. } = machine.totals();
        for ((counter, shown), now) in
            self.totals.iter().zip(&mut self.shown_totals).zip([announces, scrapes, completed])
        {
            counter.add(now.saturating_sub(*shown));
            *shown = now.max(*shown);
        }
        for node in machine.nodes().iter() {
            self.show_node(node);
        }
    }

    fn show_node(&mut self, node: &Node) {
        let lag = if node.gone { 0 } else { node.lag };
        if let Some(of_node) = self.of_node(node.name()) {
            of_node.lag.set(lag.saturating_mul(1000));
        }
    }

    fn of_node(&mut self, name: &NodeName) -> Option<&OfNode> {
        if !self.of_nodes.contains_key(name.as_str()) {
            if self.of_nodes.len() >= MAX_NAMES {
                return None;
            }
            // Labels live as long as the process; there are few nodes, and all know the secret.
            let label: &'static str = Box::leak(name.as_str().to_owned().into_boxed_str());
            let pulls = |outcome| {
                self.metrics.counter(&names::CLUSTER_PULLS, &[("node", label), ("outcome", outcome)])
            };
            let of_node = OfNode {
                lag: self.metrics.gauge(&names::CLUSTER_LAG, &[("node", label)]),
                gaps: self.metrics.counter(&names::CLUSTER_GAPS, &[("node", label)]),
                completed: pulls("completed"),
                busy: pulls("busy"),
                failed: pulls("failed"),
            };
            self.of_nodes.insert(label.to_owned(), of_node);
        }
        self.of_nodes.get(name.as_str())
    }

    pub(crate) fn gap(&mut self, name: &NodeName) {
        if let Some(of_node) = self.of_node(name) {
            of_node.gaps.add(1);
        }
    }

    pub(crate) fn pulled(&mut self, name: &NodeName, outcome: Outcome) {
        let Some(of_node) = self.of_node(name) else { return };
        match outcome {
            Outcome::Completed(_) => of_node.completed.add(1),
            Outcome::Busy => of_node.busy.add(1),
            Outcome::Failed => of_node.failed.add(1),
        }
    }

    /// Counts records that cannot be read although their sender knows the secret.
    pub(crate) fn malformed(&self) {
        self.malformed.add(1);
    }

    /// Counts changes of torrents that other nodes hold.
    pub(crate) fn not_held(&self, number: u64) {
        self.not_held.add(number);
    }

    /// Counts what cores could not hand to the thread.
    pub(crate) fn dropped_queue(&self, number: usize) {
        self.dropped_queue.add(number as u64);
    }

    /// Counts what a core had no room for.
    pub(crate) fn dropped_mailbox(&self) {
        self.dropped_mailbox.add(1);
    }

    /// Counts a message to a node that is gone, or that was not sent for want of a connection.
    pub(crate) fn dropped_unknown(&self) {
        self.dropped_unknown.add(1);
    }
}

fn sum(samples: &[Sample], metric: &Metric, label: Option<(&str, &str)>) -> u64 {
    let is_meant = |sample: &&Sample| {
        sample.metric.name == metric.name
            && label.is_none_or(|(name, value)| sample.label(name) == Some(value))
    };
    samples.iter().filter(is_meant).map(|sample| sample.value).fold(0, u64::saturating_add)
}
