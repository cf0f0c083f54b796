//! Carrying out what the state machine decides.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aquatic_common::Family;
use aquatic_tracker::replication::PartSet;

use super::{ClusterThread, NodeEvent, ToCore, Waiting};
use crate::cores::{Channel, ChunkLoaded, MAX_WAITING, MessageBody, Splitter, WEBTORRENT_RECORD};
use crate::dividing::Among;
use crate::machine::{Action, Subject};
use crate::nats::Nats;
use crate::wire::Kind;

impl ClusterThread {
    /// Carries out all that is to be done.
    pub(super) fn perform(&mut self, nats: &mut Nats) {
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Send { subject, message } => {
                    nats.publish(self.subject(&subject).into(), message);
                }
                Action::Apply { family, records, age, .. } => self.apply(family, &records, age),
                Action::ApplyWebTorrent { node, records, age } => self.apply_webtorrent(node, &records, age),
                Action::PublishAgain => self.tell_all(&NodeEvent::PublishAgain),
                Action::TellDeparted { max_age } => self.send_all(|| ToCore::TellDeparted { max_age }),
                Action::StartPass { session, what } => self.start_pass(session, what),
                Action::EndPass { session } => {
                    if self.pass.as_ref().is_some_and(|pass| pass.session == session) {
                        self.end_pass();
                    }
                }
                Action::BeginLoading { .. } => self.send_all(|| ToCore::BeginLoading),
                Action::EndLoading { .. } => self.send_all(|| ToCore::EndLoading),
                Action::Load { pull, family, torrents, gap, .. } => self.load(pull, family, &torrents, gap),
                Action::Deliver { node, kind, body } => self.deliver(node, kind, &body),
                Action::HoldersChanged => self.holders_changed(),
                Action::Notice(notice) => self.notice(notice),
            }
        }
    }

    fn subject(&self, subject: &Subject) -> String {
        let Self { prefix, node, .. } = self;
        match subject {
            Subject::Changes(core) => format!("{prefix}.changes.{node}.{core}"),
            Subject::WebTorrent(core) => format!("{prefix}.webtorrent.{node}.{core}"),
            Subject::Hello => format!("{prefix}.hello.{node}"),
            Subject::Control => format!("{prefix}.control"),
            Subject::Pull(to) => format!("{prefix}.pull.{}", to.as_str()),
            Subject::Relay(to) => format!("{prefix}.ws.{}", to.as_str()),
            Subject::Parts(to) => format!("{prefix}.parts.{}", to.as_str()),
        }
    }

    /// Moment of this process, in milliseconds, that was so many seconds ago.
    fn moment(&self, age: u32) -> i64 {
        i64::try_from(self.now()).unwrap_or(i64::MAX).saturating_sub(i64::from(age).saturating_mul(1000))
    }

    /// This node's cores, which take in something of some parts.
    fn among<'a>(&'a self, parts: Option<&'a PartSet>) -> Among<'a> {
        Among { steering: &self.steering, cores: self.mailboxes.len(), parts }
    }

    /// Divides changes among the owners of their torrents.
    fn apply(&mut self, family: Family, records: &[u8], age: u32) {
        let divided = self.among(self.kept.as_ref()).divide_changes(family, records);
        if divided.is_malformed {
            self.figures.malformed();
        }
        self.figures.not_held(divided.left_out);
        let taken = self.moment(age);
        for (core, content) in divided.by_core.into_iter().enumerate() {
            self.give(core, (family, taken, content), None, ToCore::Changes);
        }
    }

    fn give(
        &self,
        core: usize,
        (family, taken, content): (Family, i64, Vec<u8>),
        loading: Option<&Arc<ChunkLoaded>>,
        message: fn(Waiting) -> ToCore,
    ) {
        let (Some(mailbox), Some(waiting)) = (self.mailboxes.get(core), self.waiting.get(core)) else {
            return;
        };
        if content.is_empty() {
            return;
        }
        if mailbox.try_send(message(Waiting::new((family, taken, content), waiting, loading))).is_err() {
            self.figures.dropped_mailbox();
        }
    }

    fn apply_webtorrent(&mut self, from: u8, records: &[u8], age: u32) {
        let divided = self.among(None).divide_records(WEBTORRENT_RECORD, records);
        if divided.is_malformed {
            self.figures.malformed();
        }
        let by_core = divided.by_core.into_iter().enumerate();
        for (core, records) in by_core.filter(|(_, records)| !records.is_empty()) {
            self.tell(core, NodeEvent::WebTorrent { from, age, records });
        }
    }

    /// Divides torrents among their owners, as far as they can be read.
    fn load(&mut self, pull: u32, family: Family, torrents: &[u8], gap: u32) {
        let loading = Arc::new(ChunkLoaded { pull, to: self.loaded.clone() });
        let taken = self.moment(gap);
        let divided = self.among(self.held.as_ref()).divide_torrents(family, torrents);
        if divided.is_malformed {
            self.figures.malformed();
        }
        for (core, content) in divided.by_core.into_iter().enumerate() {
            self.give(core, (family, taken, content), Some(&loading), ToCore::Load);
        }
    }

    /// Hands messages of another node to the cores or threads that they are for.
    fn deliver(&mut self, from: u8, kind: Kind, body: &[u8]) {
        let (splitter, channel): (Splitter, Channel) = match kind {
            Kind::Relay => (self.hooks.relay, Channel::Relay),
            Kind::Parts => (aquatic_tracker::partition::messages::split, Channel::Parts),
            Kind::Control => {
                let name = self.names.get(&from).map_or("?", |name| name.as_str());
                return (self.hooks.command)(name, body);
            }
            Kind::Changes | Kind::WebTorrent | Kind::Hello | Kind::Pull => return,
        };
        let mut parts: Vec<Vec<u8>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        let lost = splitter(body, &self.steering, &mut |core, message| {
            if let Some(part) = parts.get_mut(core) {
                part.extend_from_slice(message);
            }
        });
        if lost > 0 {
            self.figures.malformed();
        }
        for (core, content) in parts.into_iter().enumerate().filter(|(_, content)| !content.is_empty()) {
            let Some(waiting) = self.waiting.get(core) else { return };
            // They are worth nothing when the core comes to them.
            if waiting.load(Ordering::Acquire) >= MAX_WAITING {
                self.figures.dropped_mailbox();
                continue;
            }
            let body = MessageBody::new(content, waiting);
            self.tell(core, NodeEvent::Messages { from, channel, body });
        }
    }
}
