//! What a node does about pulls: those that it asks for, and those that it serves.

use aquatic_common::Family;

use super::{Action, Cluster, MAX_PULLS, Notice, outcome_index, seconds};
use crate::Millis;
use crate::donor::Asked;
use crate::hello::{Holds, NodeName, StreamKind};
use crate::parts::Bitmap;
use crate::pull::{PullMessage, Totals, What};
use crate::puller::{Outcome, Puller};
use crate::wire::{MAX_CHUNK, Run, ShortRun};

/// Least time between two pulls from one node after gaps, in milliseconds. It doubles while gaps go on.
pub const MIN_PAUSE: Millis = 5_000;

/// Maximum time between two pulls from one node, in milliseconds.
pub const MAX_PAUSE: Millis = 60_000;

/// Seconds added to the time of which a node's own peers are pulled: stamps are 16 s apart, and messages
/// travel.
pub const MARGIN: u32 = 60;

/// What is to be pulled from a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heal {
    changes: bool,
    webtorrent: bool,
    started: Millis,
    not_before: Millis,
    pause: Millis,
}

impl Default for Heal {
    fn default() -> Self {
        Self { changes: false, webtorrent: false, started: 0, not_before: 0, pause: MIN_PAUSE }
    }
}

impl Heal {
    pub(crate) fn want(&mut self, kind: StreamKind) {
        match kind {
            StreamKind::Changes => self.changes = true,
            StreamKind::WebTorrent => self.webtorrent = true,
        }
    }

    pub(crate) fn wants(&self, kind: StreamKind) -> bool {
        match kind {
            StreamKind::Changes => self.changes,
            StreamKind::WebTorrent => self.webtorrent,
        }
    }

    fn start(&mut self, now: Millis) {
        let calm = now.saturating_sub(self.started) > MAX_PAUSE * 2;
        self.pause = if calm { MIN_PAUSE } else { (self.pause * 2).min(MAX_PAUSE) };
        self.started = now;
        self.not_before = now.saturating_add(self.pause);
        self.changes = false;
    }

    fn postpone(&mut self, until: Millis) {
        self.changes = true;
        self.not_before = until;
    }
}

impl Cluster {
    /// Begins the pulls that gaps have made necessary.
    pub(super) fn step_healing(&mut self, now: Millis) {
        let complete = self.join.complete_since().is_some();
        let mut again = Vec::new();
        let mut starts = Vec::new();
        let pulls = &self.pulls;
        let room = MAX_PULLS.saturating_sub(pulls.len());
        let wants_peers = self.settings.holds != Holds::Nothing;
        for node in self.nodes.iter_mut().filter(|node| !node.gone) {
            if std::mem::take(&mut node.heal.webtorrent) {
                again.push((node.run, node.name().clone()));
            }
            let pulled = pulls.iter().any(|pull| pull.donor == node.run);
            if !wants_peers || !node.holds_peers() {
                node.heal.changes = false;
            }
            let due = node.heal.changes && now >= node.heal.not_before;
            if !complete || pulled || !due || starts.len() >= room {
                continue;
            }
            node.heal.start(now);
            let max_age = node
                .known_until
                .map_or(u32::MAX, |then| seconds(now.saturating_sub(then)).saturating_add(MARGIN));
            // A node of parts does not know who has heard the peers that it holds for others.
            let is_divided = matches!(node.hello.holds, Holds::Parts(_));
            let what = match self.settings.holds {
                Holds::Everything if is_divided && node.known_until.is_none() => What::Parts(Bitmap::ALL.0),
                Holds::Everything | Holds::Parts(_) | Holds::Nothing => What::Own { max_age },
            };
            starts.push(((node.number, node.run), what));
        }
        for (run, name) in again {
            self.send_pull(run, name, &PullMessage::Again { kind: StreamKind::WebTorrent });
        }
        for (node, what) in starts {
            self.start_pull(now, node, what);
        }
    }

    pub(super) fn start_pull(&mut self, now: Millis, node: (u8, Run), what: What) {
        self.next_pull = self.next_pull.wrapping_add(1);
        let name = self.name_of(node.1);
        self.actions.extend(name.map(|name| Action::Notice(Notice::PullStarted { name, what })));
        self.actions.push_back(Action::BeginLoading { pull: self.next_pull });
        self.pulls.push(Puller::new(self.next_pull, node, what, now));
    }

    /// Sends the requests that are due, and ends pulls whose donor is silent.
    pub(super) fn step_pulls(&mut self, now: Millis) {
        let mut requests = Vec::new();
        let mut over = Vec::new();
        for pull in &mut self.pulls {
            let mut asked = Vec::new();
            if let Err(outcome) = pull.ask(now, &mut asked) {
                over.push((pull.pull, outcome));
            }
            requests.extend(asked.into_iter().map(|request| (pull.donor, request)));
        }
        for (donor, request) in requests {
            self.send_to_run(donor, &request);
        }
        for (pull, outcome) in over {
            self.end_pull(now, pull, outcome);
        }
    }

    fn send_to_run(&mut self, run: Run, message: &PullMessage<'_>) {
        if let Some(name) = self.name_of(run) {
            self.send_pull(run, name, message);
        }
    }

    fn name_of(&self, run: Run) -> Option<NodeName> {
        self.find(run).map(|node| node.name().clone())
    }

    /// Takes in a message of a donor.
    pub(super) fn receive_reply(&mut self, now: Millis, donor: Run, reply: PullMessage<'_>) {
        let Some(pull) = self.pulls.iter_mut().find(|pull| pull.donor == donor) else {
            return self.decline(donor, &reply);
        };
        let (number, node) = (pull.pull, pull.node);
        match pull.receive(now, reply) {
            Ok(None) => {}
            Ok(Some(chunk)) => {
                let passed = self.find(donor).map(|node| node.since_clock(now, chunk.clock));
                self.counts.pull_bytes[0] += chunk.torrents.len() as u64;
                self.actions.push_back(Action::Load {
                    pull: number,
                    node,
                    family: chunk.family,
                    torrents: chunk.torrents.to_vec(),
                    gap: seconds(passed.unwrap_or_default()),
                });
            }
            Err(outcome) => return self.end_pull(now, number, outcome),
        }
        self.step_pulls(now);
    }

    /// Tells a donor that goes on with a pull that is over.
    fn decline(&mut self, donor: Run, reply: &PullMessage<'_>) {
        if let PullMessage::Begun { session, .. } = reply {
            self.send_to_run(donor, &PullMessage::Done { session: *session });
        }
    }

    /// Notes that the cores have loaded the torrents of an [`Action::Load`].
    pub fn loaded(&mut self, now: Millis, pull: u32) {
        let Some(own) = self.pulls.iter_mut().find(|own| own.pull == pull) else { return };
        match own.loaded(now) {
            Ok(()) => self.step_pulls(now),
            Err(outcome) => self.end_pull(now, pull, outcome),
        }
    }

    fn end_pull(&mut self, now: Millis, pull: u32, outcome: Outcome) {
        let Some(at) = self.pulls.iter().position(|own| own.pull == pull) else { return };
        let pull = self.pulls.remove(at);
        self.counts.pulls[outcome_index(outcome)] += 1;
        self.actions.push_back(Action::EndLoading { pull: pull.pull });
        if let Some(session) = pull.session() {
            self.send_to_run(pull.donor, &PullMessage::Done { session });
        }
        let took = now.saturating_sub(pull.began);
        let notice =
            self.name_of(pull.donor).map(|name| Notice::PullEnded { name, what: pull.what, outcome, took });
        self.actions.extend(notice.map(Action::Notice));
        match pull.what {
            What::All => self.end_joining(now, &pull, outcome),
            What::Own { .. } => self.end_healing(now, &pull, outcome),
            What::Parts(_) if self.holding.is_none() => self.end_healing(now, &pull, outcome),
            What::Parts(_) => self.end_moving(now, &pull, outcome),
        }
    }

    fn end_healing(&mut self, now: Millis, pull: &Puller, outcome: Outcome) {
        let jitter = self.jitter();
        let Some(node) = self.nodes.by_run(pull.donor) else { return };
        match outcome {
            // Of peers that it has taken in since it is asked again.
            Outcome::Completed(_) if node.restored.is_some_and(|at| at >= pull.began) => {}
            Outcome::Completed(_) => node.known_until = node.known_until.max(Some(pull.began)),
            Outcome::Busy => node.heal.postpone(now.saturating_add(jitter)),
            Outcome::Failed => node.heal.postpone(node.heal.not_before.max(now.saturating_add(jitter))),
        }
    }

    /// Takes in a message of a node that pulls from this one.
    pub(super) fn receive_request(&mut self, now: Millis, requester: Run, request: &PullMessage<'_>) {
        if let PullMessage::Done { session } = request {
            let told = self.donor.done(requester, *session);
            self.actions.extend(told.map(|session| Action::EndPass { session }));
            return;
        }
        // Taken out so that a chunk can be sealed from where it is kept.
        let mut donor = std::mem::take(&mut self.donor);
        match donor.receive(now, requester, request) {
            Asked::Nothing => {}
            Asked::Reply(reply) => self.send_to_run(requester, &reply),
            Asked::Start { session, what } => {
                if let What::Own { max_age } = what {
                    self.departed_wanted = self.departed_wanted.max(Some(max_age));
                }
                self.actions.push_back(Action::StartPass { session, what });
            }
        }
        self.donor = donor;
    }

    /// The cores have begun to collect peers for a session. Ages in chunks count from now.
    pub fn pass_started(&mut self, now: Millis, session: u32) {
        let clock = now.saturating_sub(self.began);
        let known = self.known_of_others(now);
        let mut donor = std::mem::take(&mut self.donor);
        match donor.started(session, clock, known) {
            Some((run, reply)) => self.send_to_run(run, &reply),
            None => self.actions.push_back(Action::EndPass { session }),
        }
        self.donor = donor;
    }

    /// The cores cannot collect peers now, because they do so for something else.
    pub fn pass_refused(&mut self, session: u32) {
        if let Some((run, reply)) = self.donor.refused(session) {
            self.send_to_run(run, &reply);
        }
    }

    /// The session that wants a chunk. Only then is one to be taken from the cores, which wait meanwhile.
    #[must_use]
    pub fn wants_chunk(&self) -> Option<u32> {
        self.donor.wants_chunk()
    }

    /// Sends torrents that the cores have collected, [`MAX_CHUNK`] at most. What the session does not want is
    /// dropped, and the pass ends.
    pub fn supply(&mut self, session: u32, family: Family, torrents: Vec<u8>) {
        let fits = (1..=MAX_CHUNK).contains(&torrents.len());
        let mut donor = std::mem::take(&mut self.donor);
        match fits.then(|| donor.supply(session, family, torrents)).flatten() {
            Some((run, chunk)) => self.send_to_run(run, &chunk),
            None => self.actions.push_back(Action::EndPass { session }),
        }
        self.donor = donor;
    }

    /// The cores have collected all, and all chunks were supplied.
    pub fn pass_ended(&mut self, session: u32, totals: Totals) {
        let mut donor = std::mem::take(&mut self.donor);
        if let Some((run, end)) = donor.passed(session, totals) {
            self.send_to_run(run, &end);
        }
        self.donor = donor;
    }

    /// Seconds since all changes of each node were known, for those of which anything is.
    fn known_of_others(&self, now: Millis) -> Vec<(ShortRun, u32)> {
        let known = self.nodes.iter().filter_map(|node| {
            let behind = now.saturating_sub(node.known_until?);
            Some((node.run.short(), seconds(behind).saturating_add(1)))
        });
        known.collect()
    }
}
