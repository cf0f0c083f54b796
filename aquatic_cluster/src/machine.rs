//! State machine of a node: what it receives, the time and its timers in, actions out.
//!
//! One side thread owns a [`Cluster`] and is all that it needs around it:
//!
//! - connected to NATS, or not any more: [`Cluster::connected`], [`Cluster::disconnected`];
//! - a message on any subject of the cluster: [`Cluster::receive`];
//! - every [`TICK`]: [`Cluster::tick`];
//! - a core has taken a batch of changes: [`Cluster::publish`]; it had to drop batches: [`Cluster::skip`];
//! - a core has loaded the torrents of an [`Action::Load`]: [`Cluster::loaded`];
//! - the cores collect peers for another node: [`Cluster::pass_started`] or [`Cluster::pass_refused`],
//!   [`Cluster::supply`] while [`Cluster::wants_chunk`], [`Cluster::pass_ended`];
//! - before the process ends: [`Cluster::leave`].
//!
//! After each of these the thread takes what is to be done with [`Cluster::next_action`] until there is
//! nothing. No call waits, fails or panics, whatever was received. Memory is bounded by
//! [`crate::nodes::MAX_NODES`], [`MAX_PULLS`] and [`crate::donor::MAX_SESSIONS`], as long as actions are
//! taken.

use std::collections::VecDeque;

use aquatic_common::Family;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::Millis;
use crate::counters::Counters;
use crate::donor::Donor;
use crate::hello::{Hello, Holds, MAX_CORES, NodeName, StreamId, StreamKind};
use crate::nodes::{GONE_AFTER, Node, Nodes};
use crate::pull::{PullMessage, Totals, What};
use crate::puller::{Outcome, Puller};
use crate::seal::Secret;
use crate::wire::{Batch, Header, Kind, MAX_BODY, MAX_RECORDS, Run};

mod holding;
mod joining;
mod pulls;
mod receiving;

pub use holding::{DROP_AFTER, ESTABLISHED_AFTER, Holder, MEMBER_AFTER, SETTLE};
use joining::Join;
pub use joining::{JOIN_AGAIN_AFTER, JOIN_TIMEOUT, LISTEN, LISTEN_ALONE};
pub(crate) use pulls::Heal;
pub use pulls::{MARGIN, MAX_PAUSE, MIN_PAUSE};
pub use receiving::Refusal;

/// Period of [`Cluster::tick`], in milliseconds.
pub const TICK: Millis = 100;

/// Period of hellos, in milliseconds.
pub const HELLO_PERIOD: Millis = 2_000;

/// Time from a node's request for WebTorrent peers to their publication, in milliseconds: others that have
/// missed the same ask as well.
pub const AGAIN_AFTER: Millis = 1_000;

/// Time after which a command is not obeyed any more, in milliseconds: it may be a copy.
pub const MAX_CONTROL_AGE: Millis = 60_000;

/// Pulls of this node that run at the same time, at most. Each has four chunks of 256 KiB under way.
pub const MAX_PULLS: usize = 4;

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this node.
    pub name: NodeName,
    /// Number that this process has drawn.
    pub run: Run,
    /// Secret of the cluster.
    pub secret: Secret,
    /// Number of cores, [`MAX_CORES`] at most.
    pub cores: u16,
    /// Which peers of UDP and HTTP this node holds.
    pub holds: Holds,
    /// Version of the program.
    pub version: String,
}

/// What the node says of itself in its next hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Seconds since 1970 by the calendar.
    pub calendar: u64,
    /// Peers of IPv4 and IPv6 that this node heard last.
    pub own_peers: [u64; 2],
    /// Live connections.
    pub connections: u32,
    /// Counters since this process began.
    pub counters: Counters,
    /// Whether the node has taken in peers that a process before this one had heard.
    pub restored: bool,
}

/// Where a message goes: the part of the subject behind the cluster's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// `changes.<node>.<core>`, with the name of this node.
    Changes(u16),
    /// `webtorrent.<node>.<core>`, with the name of this node.
    WebTorrent(u16),
    /// `hello.<node>`, with the name of this node.
    Hello,
    /// `control`.
    Control,
    /// `pull.<node>`, with the name of the receiver.
    Pull(NodeName),
    /// `ws.<node>`, with the name of the receiver.
    Relay(NodeName),
    /// `parts.<node>`, with the name of the receiver.
    Parts(NodeName),
}

/// What the thread is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish a message. It may get lost.
    Send {
        /// Where to.
        subject: Subject,
        /// What.
        message: Vec<u8>,
    },
    /// Have the owners of the torrents apply changes of another node.
    Apply {
        /// Number of the node.
        node: u8,
        /// Family of the records.
        family: Family,
        /// Records of `aquatic_tracker::replication`, not read yet.
        records: Vec<u8>,
        /// Seconds since the batch was taken, to be added to the ages in the records.
        age: u32,
    },
    /// Have WebTorrent's cores apply changes of another node.
    ApplyWebTorrent {
        /// Number of the node.
        node: u8,
        /// Records of `aquatic_ws`, not read yet.
        records: Vec<u8>,
        /// Seconds since the batch was taken, to be added to the ages in the records.
        age: u32,
    },
    /// Have all cores publish their WebTorrent peers again, in the stream: another node has missed something.
    PublishAgain,
    /// Have all cores tell other nodes again, in the stream, of the peers that have left in the last seconds:
    /// a node that pulls the others has missed that.
    TellDeparted {
        /// Those seconds.
        max_age: u32,
    },
    /// Have the cores collect peers for another node, and call [`Cluster::pass_started`] or
    /// [`Cluster::pass_refused`].
    StartPass {
        /// Number of the session.
        session: u32,
        /// Which peers.
        what: What,
    },
    /// Have the cores stop collecting peers.
    EndPass {
        /// Number of the session.
        session: u32,
    },
    /// Have all cores remember the peers that stop from now on, so that no [`Action::Load`] brings them back.
    /// Several pulls may run at the same time.
    BeginLoading {
        /// Number of the pull.
        pull: u32,
    },
    /// Have all cores forget them: the pull is over. Comes once after each [`Action::BeginLoading`].
    EndLoading {
        /// Number of the pull.
        pull: u32,
    },
    /// Have the owners load torrents, and call [`Cluster::loaded`] when all have. What is wrong with them is
    /// to be counted by the one who reads them.
    Load {
        /// Number of the pull.
        pull: u32,
        /// Number of the node that they come from.
        node: u8,
        /// Family of the peers.
        family: Family,
        /// Torrents as in a section of a snapshot, not read yet.
        torrents: Vec<u8>,
        /// Seconds to be added to the ages in them.
        gap: u32,
    },
    /// Hand a message to those that it is for: offers and answers, requests for parts, commands.
    Deliver {
        /// Number of the node that sent it.
        node: u8,
        /// Relay, parts or control.
        kind: Kind,
        /// Its content, which is authentic.
        body: Vec<u8>,
    },
    /// Other nodes hold parts now, or this node holds or keeps others: see [`Cluster::division`].
    HoldersChanged,
    /// Log something, and count it where it has a metric.
    Notice(Notice),
}

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A node was heard for the first time.
    NodeJoined {
        /// Number of its run.
        node: u8,
        /// Its name.
        name: NodeName,
    },
    /// A node is heard again.
    NodeReturned {
        /// Number of its run.
        node: u8,
        /// Its name.
        name: NodeName,
    },
    /// A node is silent, has left, or was replaced by a younger run. What its connections held is void.
    NodeGone {
        /// Number of its run. Another may have it from now on.
        node: u8,
        /// Its name.
        name: NodeName,
        /// Whether it said so.
        left: bool,
    },
    /// Another node has the name of this one.
    NameTaken,
    /// Batches of a node are lost. They are pulled.
    Gap {
        /// Number of its run.
        node: u8,
        /// Its name.
        name: NodeName,
        /// Kind of the stream.
        kind: StreamKind,
        /// How many.
        batches: u64,
    },
    /// A pull has begun.
    PullStarted {
        /// Name of the donor.
        name: NodeName,
        /// Which peers.
        what: What,
    },
    /// A pull is over.
    PullEnded {
        /// Name of the donor.
        name: NodeName,
        /// Which peers.
        what: What,
        /// How it ended.
        outcome: Outcome,
        /// How long it took, in milliseconds.
        took: Millis,
    },
    /// This node holds other parts than before.
    PartsMoved {
        /// Number of parts that it holds.
        held: u32,
        /// Number of parts that it holds from now on.
        gained: u32,
        /// Number of parts that it does not hold any more.
        lost: u32,
        /// Number of nodes that hold parts, with this one.
        members: usize,
    },
    /// A node divides the torrents in another way than this one, or one of the two does not divide them.
    OtherMode {
        /// Its name.
        name: NodeName,
        /// Which peers it holds.
        holds: Holds,
    },
    /// This node knows what the others know, or is alone.
    Complete {
        /// Whether another node has told it.
        pulled: bool,
    },
}

/// What has been counted, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages dropped, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Batches that were not sent for want of a connection.
    pub not_connected: u64,
    /// Batches that a core had to drop.
    pub skipped: u64,
    /// Gaps in streams of other nodes.
    pub gaps: u64,
    /// Batches lost in them.
    pub lost: u64,
    /// Pulls of this node: completed, donor busy, failed.
    pub pulls: [u64; 3],
    /// Bytes of torrents received and sent in chunks.
    pub pull_bytes: [u64; 2],
}

/// What a node knows of its cluster, and does in it.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    rng: SmallRng,
    began: Millis,
    /// Time of the last tick.
    ticked: Millis,
    connected: bool,
    connected_at: Millis,
    disconnected_at: Millis,
    status: Status,
    hello_due: Millis,
    /// Since when another node wants WebTorrent peers of this one again that it has missed, and when all may
    /// be published again.
    again_wanted: Option<Millis>,
    again_due: Millis,
    /// Seconds of which another node has missed who left, and when that may be told again.
    departed_wanted: Option<u32>,
    departed_due: Millis,
    nodes: Nodes,
    join: Join,
    holding: Option<holding::Holding>,
    pulls: Vec<Puller>,
    next_pull: u32,
    donor: Donor,
    /// Next sequence numbers of streams, by kind and core.
    streams: [Vec<u64>; 2],
    /// Next sequence numbers of other messages, by kind.
    others: [u64; Kind::ALL.len()],
    counts: Counts,
    actions: VecDeque<Action>,
}

impl Cluster {
    /// A node that is not connected yet. `now` counts from any moment, and the seed is random.
    #[must_use]
    pub fn new(settings: Settings, now: Millis, seed: u64) -> Self {
        let cores = usize::from(settings.cores.min(MAX_CORES));
        Self {
            rng: SmallRng::seed_from_u64(seed),
            began: now,
            ticked: now,
            connected: false,
            connected_at: now,
            disconnected_at: now,
            status: Status::default(),
            hello_due: now,
            again_wanted: None,
            again_due: now,
            departed_wanted: None,
            departed_due: now,
            nodes: Nodes::default(),
            join: Join::new(now),
            holding: holding::Holding::of(&settings, now),
            pulls: Vec::new(),
            next_pull: 0,
            donor: Donor::default(),
            streams: [vec![0; cores], vec![0; cores]],
            others: [0; Kind::ALL.len()],
            counts: Counts::default(),
            actions: VecDeque::new(),
            settings,
        }
    }

    /// The connection to NATS stands, and all subjects are subscribed to.
    pub fn connected(&mut self, now: Millis) {
        self.connected = true;
        self.connected_at = now;
        self.hello_due = now;
        self.join.connected(now, now.saturating_sub(self.disconnected_at));
    }

    /// The connection to NATS is lost. Batches are dropped until it stands again.
    pub fn disconnected(&mut self, now: Millis) {
        self.connected = false;
        self.disconnected_at = now;
    }

    /// Does what is due: hellos, nodes that are silent, missing batches, pulls. `status` is what the next
    /// hello says.
    pub fn tick(&mut self, now: Millis, status: &Status) {
        self.status = *status;
        self.ticked = now;
        self.check_nodes(now);
        if self.connected {
            let waits = |since: &mut Millis| now >= since.saturating_add(AGAIN_AFTER);
            if now >= self.again_due && self.again_wanted.take_if(waits).is_some() {
                self.again_due = now.saturating_add(5 * HELLO_PERIOD);
                self.actions.push_back(Action::PublishAgain);
            }
            if now >= self.departed_due
                && let Some(max_age) = self.departed_wanted.take()
            {
                self.departed_due = now.saturating_add(5 * HELLO_PERIOD);
                self.actions.push_back(Action::TellDeparted { max_age });
            }
            if now >= self.hello_due {
                self.send_hello(now, false);
            }
            self.step_joining(now);
        }
        // Without a connection the other nodes are gone after a while, and this one holds all parts.
        self.step_holding(now);
        if self.connected {
            self.step_healing(now);
        }
        self.step_pulls(now);
        for session in self.donor.expire(now, None) {
            self.actions.push_back(Action::EndPass { session });
        }
    }

    /// Sends a batch that a core has taken. Returns whether it is on its way; if not, receivers will see a
    /// gap. `taken` is when the core took it, and `family` that of its records, `None` for WebTorrent. The
    /// core numbers its batches from 0; a number that was used before is refused.
    pub fn publish(
        &mut self,
        stream: StreamId,
        sequence: u64,
        taken: Millis,
        (family, records): (Option<Family>, &[u8]),
    ) -> bool {
        let Some(next) = self.next_of(stream) else { return false };
        if sequence < *next || sequence == u64::MAX || records.is_empty() || records.len() > MAX_RECORDS {
            return false;
        }
        *next = sequence + 1;
        if !self.connected {
            self.counts.not_connected += 1;
            return false;
        }
        let clock = taken.saturating_sub(self.began);
        let mut body = Vec::with_capacity(records.len() + 9);
        Batch { clock, family, records }.write(&mut body);
        let kind = stream.kind.kind();
        let header = Header { kind, core: stream.core, run: self.settings.run, sequence, to: None };
        let subject = match stream.kind {
            StreamKind::Changes => Subject::Changes(stream.core),
            StreamKind::WebTorrent => Subject::WebTorrent(stream.core),
        };
        self.send(subject, &header, &body);
        true
    }

    /// Notes that a core has used up all sequence numbers before `next`, for batches that it had to drop.
    pub fn skip(&mut self, stream: StreamId, next: u64) {
        let Some(own) = self.next_of(stream) else { return };
        let skipped = next.saturating_sub(*own);
        *own = next.max(*own);
        self.counts.skipped = self.counts.skipped.saturating_add(skipped);
    }

    fn next_of(&mut self, stream: StreamId) -> Option<&mut u64> {
        let kind = crate::nodes::stream_index(stream.kind);
        self.streams.get_mut(kind)?.get_mut(usize::from(stream.core))
    }

    /// Sends a message to one node: a relay, or one about parts. Returns whether it is on its way.
    pub fn send_to(&mut self, node: u8, kind: Kind, body: &[u8]) -> bool {
        let Some(to) = self.nodes.by_number(node).filter(|node| !node.gone) else { return false };
        let (run, name) = (to.run, to.name().clone());
        let subject = match kind {
            Kind::Relay => Subject::Relay(name),
            Kind::Parts => Subject::Parts(name),
            Kind::Changes | Kind::WebTorrent | Kind::Hello | Kind::Pull | Kind::Control => return false,
        };
        self.send_other(subject, kind, Some(run), body)
    }

    /// Sends a command to all nodes. Returns whether it is on its way.
    pub fn send_control(&mut self, command: &[u8]) -> bool {
        // Others obey nodes that they know.
        if self.connected && self.hello_due <= self.ticked {
            self.send_hello(self.ticked, false);
        }
        let clock = self.ticked.saturating_sub(self.began);
        let body = [&clock.to_le_bytes(), command].concat();
        self.send_other(Subject::Control, Kind::Control, None, &body)
    }

    /// Says goodbye, so that other nodes need not wait for this one.
    pub fn leave(&mut self, now: Millis) {
        if self.connected {
            self.send_hello(now, true);
        }
    }

    /// The next thing to be done.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The other nodes, gone ones too.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Since when this node knows what the others know.
    #[must_use]
    pub fn complete_since(&self) -> Option<Millis> {
        self.join.complete_since()
    }

    /// What has been counted.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Sum of the counters of all nodes, this one included.
    #[must_use]
    pub fn totals(&self) -> Counters {
        self.nodes.counters().plus(self.status.counters)
    }

    /// Pulls that run now.
    #[must_use]
    pub fn pulls(&self) -> &[Puller] {
        &self.pulls
    }

    fn send_hello(&mut self, now: Millis, leaving: bool) {
        self.hello_due = now.saturating_add(HELLO_PERIOD);
        let since = |then: Millis| now.saturating_sub(then);
        let complete = self.join.complete_since().map(|then| seconds(since(then)));
        let mut body = Vec::new();
        Hello {
            clock: since(self.began),
            calendar: self.status.calendar,
            complete,
            holds: self.settings.holds,
            restored: self.status.restored,
            leaving,
            name: self.settings.name.clone(),
            version: self.settings.version.clone(),
            own_peers: self.status.own_peers,
            connections: self.status.connections,
            counters: self.status.counters,
            streams: self.own_streams(),
        }
        .write(&mut body);
        self.send_other(Subject::Hello, Kind::Hello, None, &body);
    }

    fn own_streams(&self) -> Vec<(StreamId, u64)> {
        let kinds = [StreamKind::Changes, StreamKind::WebTorrent].into_iter().zip(&self.streams);
        let streams = kinds.flat_map(|(kind, streams)| {
            (0..).zip(streams).map(move |(core, next)| (StreamId { kind, core }, *next))
        });
        streams.filter(|(id, next)| id.kind == StreamKind::Changes || *next > 0).collect()
    }

    fn send_pull(&mut self, to: Run, name: NodeName, message: &PullMessage<'_>) {
        let mut body = Vec::new();
        message.write(&mut body);
        if let PullMessage::Chunk(chunk) = message {
            self.counts.pull_bytes[1] += chunk.torrents.len() as u64;
        }
        self.send_other(Subject::Pull(name), Kind::Pull, Some(to), &body);
    }

    fn send_other(&mut self, subject: Subject, kind: Kind, to: Option<Run>, body: &[u8]) -> bool {
        let index = usize::from(kind.number()).saturating_sub(1);
        let Some(next) = self.others.get_mut(index).filter(|_| self.connected && body.len() <= MAX_BODY)
        else {
            return false;
        };
        let sequence = *next;
        *next += 1;
        let run = self.settings.run;
        let header = Header { kind, core: 0, run, sequence, to: to.map(Run::short) };
        self.send(subject, &header, body);
        true
    }

    fn send(&mut self, subject: Subject, header: &Header, body: &[u8]) {
        let mut message = Vec::with_capacity(header.length() + body.len() + crate::seal::TAG_LENGTH);
        self.settings.secret.seal(header, body, &mut message);
        self.actions.push_back(Action::Send { subject, message });
    }

    /// Notices nodes that are silent, and batches that will not come any more.
    fn check_nodes(&mut self, now: Millis) {
        let mut gone = Vec::new();
        let mut gaps = Vec::new();
        for node in self.nodes.iter_mut() {
            let lost = node.give_up(now);
            gaps.extend(lost.iter().any(|lost| *lost > 0).then_some((node.run, lost)));
            if !node.gone && now.saturating_sub(node.heard) >= GONE_AFTER {
                node.gone = true;
                gone.push((
                    node.run,
                    Notice::NodeGone { node: node.number, name: node.name().clone(), left: false },
                ));
            }
        }
        for (run, lost) in gaps {
            self.note_gaps(run, lost);
        }
        for (run, notice) in gone {
            self.part_with(run);
            self.actions.push_back(Action::Notice(notice));
        }
    }

    /// Ends what this node had with a run that is gone. Its peers stay until they are too old.
    fn part_with(&mut self, run: Run) {
        for session in self.donor.expire(0, Some(run)) {
            self.actions.push_back(Action::EndPass { session });
        }
    }

    fn note_gaps(&mut self, run: Run, lost: [u64; 2]) {
        let Some(node) = self.nodes.by_run(run) else { return };
        for (kind, lost) in [StreamKind::Changes, StreamKind::WebTorrent].into_iter().zip(lost) {
            if lost == 0 {
                continue;
            }
            self.counts.lost = self.counts.lost.saturating_add(lost);
            // One outage shows in many streams, and bit by bit.
            node.heal.want(kind);
            let told = &mut node.gap_told[crate::nodes::stream_index(kind)];
            if told.is_some_and(|told| self.ticked < told.saturating_add(GONE_AFTER)) {
                continue;
            }
            *told = Some(self.ticked);
            node.gaps += 1;
            self.counts.gaps += 1;
            self.actions.push_back(Action::Notice(Notice::Gap {
                node: node.number,
                name: node.name().clone(),
                kind,
                batches: lost,
            }));
        }
    }

    /// Has the next hello sent soon, by a random time so that not all nodes answer a newcomer at once.
    fn hello_soon(&mut self, now: Millis) {
        let soon = now.saturating_add(self.rng.random_range(TICK..HELLO_PERIOD / 4));
        self.hello_due = self.hello_due.min(soon);
    }

    fn find(&self, run: Run) -> Option<&Node> {
        self.nodes.iter().find(|node| node.run == run)
    }
}

/// Whole seconds, at most as many as fit.
fn seconds(millis: Millis) -> u32 {
    u32::try_from(millis / 1000).unwrap_or(u32::MAX)
}

/// Totals of pulls by outcome.
fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Completed(Totals { .. }) => 0,
        Outcome::Busy => 1,
        Outcome::Failed => 2,
    }
}
