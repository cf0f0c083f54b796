//! Carrying out what the state machine decides.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aquatic_common::{Family, InfoHash};
use aquatic_tracker::replication::record_length;
use aquatic_tracker::snapshot::format::Torrent;

use super::{ClusterThread, MAX_WAITING, NodeEvent, ToCore, Waiting};
use crate::cores::{Channel, ChunkLoaded, MessageBody, Splitter, WEBTORRENT_RECORD};
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

    /// Divides changes among the owners of their torrents.
    fn apply(&mut self, family: Family, records: &[u8], age: u32) {
        let length = record_length(family);
        if !records.len().is_multiple_of(length) {
            self.figures.malformed();
        }
        let taken = self.moment(age);
        let mut parts: Vec<Vec<u8>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        let mut not_held = 0;
        for record in records.chunks_exact(length) {
            // Peers that leave while their part is only kept are not to be there when it is held again. The
            // cores pass over the others.
            if record.first_chunk().is_none_or(|info_hash| self.keeps(&InfoHash(*info_hash))) {
                self.add(&mut parts, record, record);
            } else {
                not_held += 1;
            }
        }
        self.figures.not_held(not_held);
        for (core, content) in parts.into_iter().enumerate() {
            self.give(core, (family, taken, content), None, ToCore::Changes);
        }
    }

    /// Adds bytes to the part of the core that owns the torrent whose info hash a record begins with.
    fn add(&self, parts: &mut [Vec<u8>], record: &[u8], bytes: &[u8]) {
        let Some(info_hash) = record.first_chunk() else { return };
        if let Some(part) = parts.get_mut(self.steering.owner(&InfoHash(*info_hash))) {
            part.extend_from_slice(bytes);
        }
    }

    /// Like [`Self::add`], unless other nodes hold the torrent. Returns whether that is not so.
    fn add_held(&self, parts: &mut [Vec<u8>], record: &[u8], bytes: &[u8]) -> bool {
        let is_held = record.first_chunk().is_none_or(|info_hash| self.holds(&InfoHash(*info_hash)));
        if is_held {
            self.add(parts, record, bytes);
        }
        is_held
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
        waiting.fetch_add(content.len(), Ordering::Release);
        let waiting = Arc::clone(waiting);
        let loading = loading.map(Arc::clone);
        if mailbox.try_send(message(Waiting { family, taken, content, waiting, loading })).is_err() {
            self.figures.dropped_mailbox();
        }
    }

    fn apply_webtorrent(&mut self, from: u8, records: &[u8], age: u32) {
        if !records.len().is_multiple_of(WEBTORRENT_RECORD) {
            self.figures.malformed();
        }
        let mut parts: Vec<Vec<u8>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        for record in records.chunks_exact(WEBTORRENT_RECORD) {
            self.add(&mut parts, record, record);
        }
        for (core, records) in parts.into_iter().enumerate().filter(|(_, records)| !records.is_empty()) {
            self.tell(core, NodeEvent::WebTorrent { from, age, records });
        }
    }

    /// Divides torrents among their owners, as far as they can be read.
    fn load(&mut self, pull: u32, family: Family, mut torrents: &[u8], gap: u32) {
        let loading = Arc::new(ChunkLoaded { pull, to: self.loaded.clone() });
        let taken = self.moment(gap);
        let mut parts: Vec<Vec<u8>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        while !torrents.is_empty() {
            let Ok(torrent) = Torrent::take(family, &mut torrents) else {
                self.figures.malformed();
                break;
            };
            self.add_held(&mut parts, torrent.bytes, torrent.bytes);
        }
        for (core, content) in parts.into_iter().enumerate() {
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
