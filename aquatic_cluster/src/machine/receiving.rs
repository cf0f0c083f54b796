//! What a node does with messages.

use aquatic_tracker::replication::forget_order;

use super::{Action, Cluster, MARGIN, MAX_CONTROL_AGE, Notice, seconds};
use crate::Millis;
use crate::hello::{Hello, Holds, MAX_CORES, StreamId, StreamKind};
use crate::nodes::{Greeted, Node};
use crate::pull::PullMessage;
use crate::seal::NotOpened;
use crate::streams::Arrival;
use crate::wire::{Batch, Header, Kind, NotOurs, Reader, Run};

/// Time that a batch may have taken for its stops to be believed to have come after announces to this node,
/// in milliseconds: clients take longer to start again.
const MAX_LATENESS: Millis = 500;

/// Reason why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no message of a cluster of aquatic, or longer than any.
    Foreign,
    /// It is of another version of the format.
    Version,
    /// It was sealed with another secret, or changed on its way.
    Secret,
    /// It is for another run.
    OtherRun,
    /// It was received before, or is too old to know.
    Duplicate,
    /// Its sender has not said hello yet.
    UnknownRun,
    /// Its sender was replaced by a younger run of the same name, or has left.
    EndedRun,
    /// Its sender's calendar differs by more than an hour.
    Clock,
    /// There are too many nodes.
    TooManyNodes,
    /// Its content is not what its kind has to say.
    Malformed,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Foreign,
        Self::Version,
        Self::Secret,
        Self::OtherRun,
        Self::Duplicate,
        Self::UnknownRun,
        Self::EndedRun,
        Self::Clock,
        Self::TooManyNodes,
        Self::Malformed,
    ];

    /// Name of the reason in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Version => "version",
            Self::Secret => "secret",
            Self::OtherRun => "other_run",
            Self::Duplicate => "duplicate",
            Self::UnknownRun => "unknown_run",
            Self::EndedRun => "ended_run",
            Self::Clock => "clock",
            Self::TooManyNodes => "too_many_nodes",
            Self::Malformed => "malformed",
        }
    }
}

impl From<NotOpened> for Refusal {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::NotOurs(NotOurs::Foreign) | NotOpened::TooLong => Self::Foreign,
            NotOpened::NotOurs(NotOurs::Version(_)) => Self::Version,
            NotOpened::OtherRun => Self::OtherRun,
            NotOpened::Secret => Self::Secret,
        }
    }
}

impl Cluster {
    /// Takes in a message, which is opened in place. Returns the reason if it was dropped; it has been
    /// counted then. Messages of this node itself are ignored.
    ///
    /// # Errors
    /// The message was dropped.
    pub fn receive(&mut self, now: Millis, message: &mut [u8]) -> Result<(), Refusal> {
        let result = self.open(now, message);
        if let Err(refusal) = result {
            self.counts.refused[refusal as usize] += 1;
        }
        result
    }

    fn open(&mut self, now: Millis, message: &mut [u8]) -> Result<(), Refusal> {
        let secret = self.settings.secret.clone();
        let (header, body) = secret.open(self.settings.run.short(), message)?;
        if header.run == self.settings.run {
            return Ok(());
        }
        match header.kind {
            Kind::Changes => self.receive_batch(now, StreamKind::Changes, &header, body),
            Kind::WebTorrent => self.receive_batch(now, StreamKind::WebTorrent, &header, body),
            Kind::Hello => {
                self.receive_hello(now, &header, Hello::read(body).map_err(|_| Refusal::Malformed)?)
            }
            Kind::Pull => self.receive_pull(now, &header, body),
            Kind::Relay | Kind::Parts | Kind::Control => {
                let node = self.first(now, &header)?;
                let body = match header.kind {
                    Kind::Control => self.command(now, node, body)?.to_vec(),
                    Kind::Changes
                    | Kind::WebTorrent
                    | Kind::Hello
                    | Kind::Pull
                    | Kind::Relay
                    | Kind::Parts => body.to_vec(),
                };
                self.actions.push_back(Action::Deliver { node, kind: header.kind, body });
                Ok(())
            }
        }
    }

    /// The command in a message, unless it is so old that this node may have obeyed it before it was started
    /// again.
    fn command<'a>(&self, now: Millis, node: u8, body: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let mut reader = Reader(body);
        let clock = reader.u64().map_err(|_| Refusal::Malformed)?;
        let age = self.nodes.by_number(node).map(|node| node.since_clock(now, clock));
        if age.is_some_and(|age| age <= MAX_CONTROL_AGE) { Ok(reader.0) } else { Err(Refusal::Duplicate) }
    }

    /// Number of the sender of a message that was not received before.
    fn first(&mut self, now: Millis, header: &Header) -> Result<u8, Refusal> {
        if self.nodes.has_ended(header.run) {
            return Err(Refusal::EndedRun);
        }
        let node = self.nodes.by_run(header.run).ok_or(Refusal::UnknownRun)?;
        if node.is_first(header.kind, header.sequence, now) {
            Ok(node.number)
        } else {
            Err(Refusal::Duplicate)
        }
    }

    fn receive_batch(
        &mut self,
        now: Millis,
        kind: StreamKind,
        header: &Header,
        body: &[u8],
    ) -> Result<(), Refusal> {
        if self.nodes.has_ended(header.run) {
            return Err(Refusal::EndedRun);
        }
        let batch = Batch::read(body).map_err(|_| Refusal::Malformed)?;
        if header.core >= MAX_CORES || batch.family.is_some() != (kind == StreamKind::Changes) {
            return Err(Refusal::Malformed);
        }
        let node = self.nodes.by_run(header.run).ok_or(Refusal::UnknownRun)?;
        let id = StreamId { kind, core: header.core };
        let arrival = node.arrive(id, header.sequence, now);
        if arrival == Arrival::Duplicate {
            return Err(Refusal::Duplicate);
        }
        // What is told again later was taken in the past, which says nothing of the way.
        if batch.clock >= node.hello.clock {
            node.observe_clock(now, batch.clock);
        }
        let passed = node.since_clock(now, batch.clock);
        let (node, age) = (node.number, seconds(passed));
        let mut records = batch.records.to_vec();
        self.actions.push_back(match batch.family {
            Some(family) => {
                if passed > MAX_LATENESS {
                    forget_order(family, &mut records);
                }
                Action::Apply { node, family, records, age }
            }
            None => Action::ApplyWebTorrent { node, records, age },
        });
        if let Arrival::New { lost } = arrival
            && lost > 0
        {
            let mut by_kind = [0; 2];
            by_kind[crate::nodes::stream_index(kind)] = lost;
            self.note_gaps(header.run, by_kind);
        }
        Ok(())
    }

    fn receive_hello(&mut self, now: Millis, header: &Header, hello: Hello) -> Result<(), Refusal> {
        let run = header.run;
        let leaving = hello.leaving;
        let streams = hello.streams.clone();
        let same_name = hello.name == self.settings.name;
        let known = self.nodes.by_run(run).map(|node| node.hello.restored);
        if leaving && known.is_none() && !self.nodes.has_ended(run) {
            // As when a process has taken over from the one that says goodbye.
            return Ok(());
        }
        let is_restored = hello.restored && known != Some(true);
        match self.nodes.greet(run, header.sequence, hello, now, self.status.calendar) {
            Greeted::Joined(replaced) => {
                for gone in replaced {
                    self.replace(gone);
                }
                if same_name {
                    self.actions.push_back(Action::Notice(Notice::NameTaken));
                }
                self.begin_with(run, now);
            }
            Greeted::Returned => {
                let notice = self
                    .find(run)
                    .map(|node| Notice::NodeReturned { node: node.number, name: node.name().clone() });
                self.actions.extend(notice.map(Action::Notice));
                self.hello_soon(now);
                // Its WebTorrent peers were removed when it was gone.
                if let Some(node) = self.nodes.by_run(run) {
                    node.heal.want(StreamKind::WebTorrent);
                }
            }
            Greeted::Known => {}
            Greeted::Duplicate => return Err(Refusal::Duplicate),
            Greeted::Ended | Greeted::Replaced => return Err(Refusal::EndedRun),
            Greeted::Clock => return Err(Refusal::Clock),
            Greeted::Full => return Err(Refusal::TooManyNodes),
        }
        if is_restored {
            // It knows peers that have left while it was away.
            let missed = self.find(run).and_then(Node::known_before).map(|then| now.saturating_sub(then));
            let max_age = missed.map_or(u32::MAX, |missed| seconds(missed).saturating_add(MARGIN));
            self.departed_wanted = self.departed_wanted.max(Some(max_age));
        }
        if leaving {
            self.bid_farewell(run);
        } else {
            self.compare_streams(now, run, &streams);
        }
        Ok(())
    }

    fn replace(&mut self, gone: crate::nodes::Replaced) {
        self.part_with(gone.run);
        if !gone.was_gone {
            let (node, name) = (gone.number, gone.name);
            self.actions.push_back(Action::Notice(Notice::NodeGone { node, name, left: false }));
        }
    }

    /// Decides how much of a new node's changes is missing here.
    fn begin_with(&mut self, run: Run, now: Millis) {
        self.hello_soon(now);
        let complete = self.join.complete_since().is_some();
        let Some(node) = self.nodes.by_run(run) else { return };
        if complete {
            node.known_until = now.checked_sub(node.hello.clock);
            if node.hello.restored {
                node.note_restored(now);
            }
            let published = node.hello.streams.iter().any(|(id, next)| match id.kind {
                StreamKind::Changes => *next > 0,
                StreamKind::WebTorrent => false,
            });
            if published || node.known_until.is_none() {
                node.heal.want(StreamKind::Changes);
            }
        }
        // Peers of WebTorrent are in no snapshot.
        if node.hello.streams.iter().any(|(id, next)| id.kind == StreamKind::WebTorrent && *next > 0) {
            node.heal.want(StreamKind::WebTorrent);
        }
        let (node, name, holds) = (node.number, node.name().clone(), node.hello.holds);
        let is_other = holds != self.settings.holds
            && [holds, self.settings.holds].iter().all(|holds| *holds != Holds::Nothing);
        self.actions.push_back(Action::Notice(Notice::NodeJoined { node, name: name.clone() }));
        if is_other {
            self.actions.push_back(Action::Notice(Notice::OtherMode { name, holds }));
        }
    }

    fn bid_farewell(&mut self, run: Run) {
        let Some(node) = self.find(run) else { return };
        let (node, name) = (node.number, node.name().clone());
        self.part_with(run);
        self.nodes.end(run, true);
        self.actions.push_back(Action::Notice(Notice::NodeGone { node, name, left: true }));
    }

    fn compare_streams(&mut self, now: Millis, run: Run, streams: &[(StreamId, u64)]) {
        let Some(node) = self.nodes.by_run(run) else { return };
        let lost = node.announce(streams, now);
        self.note_gaps(run, lost);
        let pulling = self.pulls.iter().any(|pull| pull.donor == run);
        let complete = self.join.complete_since().is_some();
        let Some(node) = self.nodes.by_run(run) else { return };
        if complete && !pulling && node.is_in_order() && !node.heal.wants(StreamKind::Changes) {
            node.known_until = Some(now.saturating_sub(node.lag));
        }
    }

    fn receive_pull(&mut self, now: Millis, header: &Header, body: &[u8]) -> Result<(), Refusal> {
        let _number = self.first(now, header)?;
        let message = PullMessage::read(body).map_err(|_| Refusal::Malformed)?;
        match message {
            PullMessage::Begin { .. }
            | PullMessage::Next { .. }
            | PullMessage::Keep { .. }
            | PullMessage::Done { .. } => self.receive_request(now, header.run, &message),
            PullMessage::Again { .. } => self.again_wanted = self.again_wanted.or(Some(now)),
            PullMessage::Begun { .. }
            | PullMessage::Busy { .. }
            | PullMessage::Chunk(_)
            | PullMessage::End { .. }
            | PullMessage::Wait { .. }
            | PullMessage::Unknown { .. } => self.receive_reply(now, header.run, message),
        }
        Ok(())
    }
}
