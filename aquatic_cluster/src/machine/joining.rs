//! How a node that starts comes to know what the others know.

use rand::RngExt;

use super::{Action, Cluster, MAX_PULLS, Notice};
use crate::Millis;
use crate::hello::{Holds, StreamKind};
use crate::nodes::{GONE_AFTER, Node};
use crate::pull::What;
use crate::puller::{Outcome, Puller};
use crate::wire::Run;

/// Time that a node listens before it pulls, in milliseconds: it has heard all nodes then, and what it pulls
/// begins after that.
pub const LISTEN: Millis = 5_000;

/// Time after which a node that hears no other is complete, in milliseconds.
pub const LISTEN_ALONE: Millis = 3_000;

/// Time after which a node that cannot pull everything pulls each node's own peers instead, in milliseconds.
pub const JOIN_TIMEOUT: Millis = 120_000;

/// Time without NATS after which a node pulls everything again, in milliseconds, if a node is missing then:
/// nobody owns what it had heard.
pub const JOIN_AGAIN_AFTER: Millis = 600_000;

/// Donors that are not asked again until all were tried.
const MAX_TRIED: usize = 16;

/// Where a node is on its way to knowing what the others know.
#[derive(Debug)]
pub(super) struct Join {
    state: State,
    began: Millis,
    tried: Vec<Run>,
    /// Whether it knew that before it was without NATS.
    again: bool,
}

#[derive(Debug)]
enum State {
    Listening { since: Millis, until: Millis },
    Pulling,
    Complete { since: Millis },
}

impl Join {
    pub(super) fn new(now: Millis) -> Self {
        let state = State::Listening { since: now, until: now.saturating_add(LISTEN) };
        Self { state, began: now, tried: Vec::new(), again: false }
    }

    pub(super) fn connected(&mut self, now: Millis, away: Millis) {
        match self.state {
            State::Listening { .. } => *self = Self { again: self.again, ..Self::new(now) },
            State::Complete { .. } if away >= JOIN_AGAIN_AFTER => {
                *self = Self { again: true, ..Self::new(now) };
            }
            State::Pulling | State::Complete { .. } => {}
        }
    }

    pub(super) fn complete_since(&self) -> Option<Millis> {
        match self.state {
            State::Complete { since } => Some(since),
            State::Listening { .. } | State::Pulling => None,
        }
    }
}

impl Cluster {
    pub(super) fn step_joining(&mut self, now: Millis) {
        let State::Listening { since, until } = self.join.state else { return };
        let is_alone = !self.nodes.live().any(Node::holds_peers);
        if is_alone && now.saturating_sub(since) >= LISTEN_ALONE {
            return self.complete(now, false);
        }
        if now < until {
            return;
        }
        if self.settings.holds == Holds::Nothing {
            return self.complete(now, false);
        }
        if self.join.again && self.nodes.iter().all(|node| !node.gone) {
            return self.complete_again(now);
        }
        if now.saturating_sub(self.join.began) >= JOIN_TIMEOUT {
            return self.complete_without_donor(now);
        }
        if self.holding.is_some() && !self.join.again {
            // Parts are pulled from their holders.
            self.nodes.iter_mut().for_each(|node| node.known_until = Some(now));
            return self.complete(now, false);
        }
        if self.holding.is_some() {
            // No node knows all, so each tells what it has heard.
            return self.complete_without_donor(now);
        }
        if self.pulls.len() >= MAX_PULLS {
            // Of gaps from before; one of them ends soon.
            return;
        }
        let complete = self.holders_of_everything().filter(|node| node.hello.complete.is_some());
        let untried = complete.filter(|node| !self.join.tried.contains(&node.run));
        if let Some(donor) = untried.max_by_key(|node| (node.hello.complete, node.run)) {
            let donor = (donor.number, donor.run);
            self.join.state = State::Pulling;
            return self.start_pull(now, donor, What::All);
        }
        if self.join.tried.is_empty() && self.is_oldest(now) {
            return self.complete_without_donor(now);
        }
        self.join.tried.clear();
        self.listen_on(now);
    }

    /// The other nodes that can tell of all torrents, if they know them.
    fn holders_of_everything(&self) -> impl Iterator<Item = &Node> {
        self.nodes.live().filter(|node| node.hello.holds == Holds::Everything)
    }

    /// Whether no other node that holds everything is complete, and this one began first.
    fn is_oldest(&self, now: Millis) -> bool {
        let own = (now.saturating_sub(self.began), self.settings.run);
        let mut others = self
            .holders_of_everything()
            .map(|node| (node.hello.clock.saturating_add(now.saturating_sub(node.heard)), node.run));
        others.all(|other| own > other)
    }

    fn listen_on(&mut self, now: Millis) {
        let until = now.saturating_add(self.jitter());
        self.join.state = State::Listening { since: now, until };
    }

    /// One to three seconds.
    pub(super) fn jitter(&mut self) -> Millis {
        self.rng.random_range(1_000..3_000)
    }

    /// Goes on without a pull of everything: what each node heard itself is pulled from it.
    fn complete_without_donor(&mut self, now: Millis) {
        for node in self.nodes.iter_mut() {
            node.known_until = None;
            node.heal.want(StreamKind::Changes);
        }
        self.complete(now, false);
    }

    /// Goes on with what is known: each node is asked for what it has heard meanwhile.
    fn complete_again(&mut self, now: Millis) {
        for node in self.nodes.iter_mut().filter(|node| node.known_until.is_none()) {
            node.heal.want(StreamKind::Changes);
        }
        self.complete(now, false);
    }

    fn complete(&mut self, now: Millis, pulled: bool) {
        self.join.again = false;
        self.join.state = State::Complete { since: now };
        self.join.tried.clear();
        self.actions.push_back(Action::Notice(Notice::Complete { pulled }));
        self.hello_soon(now);
    }

    pub(super) fn end_joining(&mut self, now: Millis, pull: &Puller, outcome: Outcome) {
        match outcome {
            Outcome::Completed(_) => {
                self.judge_nodes(now, pull);
                self.complete(now, true);
            }
            Outcome::Busy | Outcome::Failed => {
                if self.join.tried.len() < MAX_TRIED {
                    self.join.tried.push(pull.donor);
                }
                self.listen_on(now);
            }
        }
    }

    /// Decides for each node what is missing although a donor has told all it knew.
    fn judge_nodes(&mut self, now: Millis, pull: &Puller) {
        let known = pull.known().unwrap_or_default();
        for node in self.nodes.iter_mut() {
            let behind = if node.run == pull.donor {
                Some(0)
            } else {
                let short = node.run.short();
                known.iter().find(|(run, _)| *run == short).map(|(_, behind)| *behind)
            };
            let Some(until) = behind.and_then(|behind| pull.began.checked_sub(Millis::from(behind) * 1000))
            else {
                node.known_until = None;
                node.heal.want(StreamKind::Changes);
                continue;
            };
            // What the node has taken in since the donor may have asked it is in nobody's changes.
            if node.restored.is_some_and(|at| at.saturating_add(GONE_AFTER) >= pull.began) {
                node.note_restored(now);
                continue;
            }
            // The donor knew all until then, and this node has listened from before that.
            if until < node.since.saturating_add(1000) {
                node.heal.want(StreamKind::Changes);
            }
            let missed = node.heal.wants(StreamKind::Changes) || !node.is_in_order();
            node.known_until = Some(if missed { until } else { now });
        }
    }
}
