//! What an operator and the cores hear of other nodes.

use super::{ClusterThread, NodeEvent, ToCore};
use crate::hello::{Holds, NodeName, StreamKind};
use crate::machine::Notice;
use crate::parts::Bitmap;
use crate::pull::What;
use crate::puller::Outcome;

/// Tells that a node divides the torrents in another way.
fn other_mode(name: &NodeName, holds: Holds) {
    let name = name.as_str();
    let mode = match holds {
        Holds::Parts(replicas) => format!("divides the torrents with cluster.replicas = {replicas}"),
        Holds::Everything => "keeps all torrents".to_owned(),
        Holds::Nothing => "serves WebTorrent only".to_owned(),
    };
    log::warn!(
        "cluster: node {name} {mode}, unlike this one, so neither forwards requests to the other. Use the same \
         cluster.mode and cluster.replicas on all nodes that serve UDP or HTTP"
    );
}

impl ClusterThread {
    /// Logs and counts something, and tells the cores if they have to know.
    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::NodeJoined { node, name } => {
                log::info!("cluster: node {} has joined", name.as_str());
                self.names.insert(node, name);
                self.tell_all(&NodeEvent::Joined(node));
            }
            Notice::NodeReturned { node, name } => {
                log::info!("cluster: node {} is heard again", name.as_str());
                self.names.insert(node, name);
                self.tell_all(&NodeEvent::Joined(node));
            }
            Notice::NodeGone { node, name, left } => {
                if left {
                    log::info!("cluster: node {} has left", name.as_str());
                } else {
                    log::warn!(
                        "cluster: node {} is gone: nothing was heard of it for 10 s, or it was started anew. Its peers of UDP \
                         and HTTP stay until they announce elsewhere or expire; those of WebTorrent were connected to it",
                        name.as_str()
                    );
                }
                self.tell_all(&NodeEvent::Left(node));
            }
            Notice::NameTaken => log::error!(
                "cluster: another node is called {} as well, so nodes cannot tell the two apart. Give each its own name \
                 (cluster.node)",
                self.node
            ),
            Notice::Gap { node, name, kind, batches } => self.gap(node, &name, kind, batches),
            Notice::PullStarted { name, what } => match what {
                What::All => log::info!("cluster: receiving what node {} knows", name.as_str()),
                What::Own { .. } => {
                    log::debug!("cluster: receiving what is missing of node {}", name.as_str())
                }
                What::Parts(parts) => {
                    let parts = Bitmap(parts).len();
                    log::debug!(
                        "cluster: receiving {parts} parts of the torrents from node {}",
                        name.as_str()
                    );
                }
            },
            Notice::PullEnded { name, what, outcome, took } => self.pull_ended(&name, what, outcome, took),
            Notice::PartsMoved { held, gained, lost, members } => log::info!(
                "cluster: this node holds {held} of 256 parts of the torrents ({gained} more and {lost} fewer than \
                 before); {members} node(s) hold parts"
            ),
            Notice::OtherMode { name, holds } => other_mode(&name, holds),
            Notice::Complete { pulled: false } if self.machine.replicas().is_some() => {
                log::info!(
                    "cluster: this node takes part; it receives the parts that it is to hold from the others"
                );
            }
            Notice::Complete { pulled: true } => log::info!("cluster: this node knows what the others know"),
            Notice::Complete { pulled: false } => {
                log::info!("cluster: this node is complete; no other one had anything to tell before");
            }
        }
    }

    fn gap(&mut self, node: u8, name: &NodeName, kind: StreamKind, batches: u64) {
        self.figures.gap(name);
        match kind {
            StreamKind::Changes => log::warn!(
                "cluster: batches of node {} are missing ({batches} so far); its peers are asked for",
                name.as_str()
            ),
            StreamKind::WebTorrent => {
                log::warn!(
                    "cluster: batches of WebTorrent peers of node {} are missing ({batches} so far); it is asked to \
                     publish them again",
                    name.as_str()
                );
                self.tell_all(&NodeEvent::Missed(node));
            }
        }
    }

    fn pull_ended(&mut self, name: &NodeName, what: What, outcome: Outcome, took: u64) {
        self.figures.pulled(name, outcome);
        let seconds = took as f64 / 1000.0;
        let name = name.as_str();
        match (outcome, what) {
            (Outcome::Completed(totals), What::All) => log::info!(
                "cluster: received {} peers of {} torrents from node {name} in {seconds:.1} s",
                totals.peers,
                totals.torrents
            ),
            (Outcome::Completed(totals), What::Own { .. }) => log::info!(
                "cluster: received {} peers that were missing from node {name} in {seconds:.1} s",
                totals.peers
            ),
            (Outcome::Completed(totals), What::Parts(parts)) => log::info!(
                "cluster: received {} peers of {} parts of the torrents from node {name} in {seconds:.1} s",
                totals.peers,
                Bitmap(parts).len()
            ),
            (Outcome::Busy, _) => {
                log::debug!("cluster: node {name} hands out peers to others; it is asked again")
            }
            (Outcome::Failed, _) => log::warn!(
                "cluster: node {name} did not hand out what it knows within {seconds:.1} s; it or another one is asked again"
            ),
        }
    }

    /// Sends every core a message for which there is room, unless a core receives none.
    pub(super) fn send_all(&self, message: impl Fn() -> ToCore) {
        for mailbox in &self.mailboxes {
            if mailbox.try_send(message()).is_err() {
                self.figures.dropped_mailbox();
            }
        }
    }
}
