//! Telling the cores which nodes hold which parts of the hash space.

use aquatic_common::InfoHash;
use aquatic_tracker::partition::{Holders, NodeNumber};
use aquatic_tracker::replication::PartSet;

use super::{ClusterThread, ToCore};
use crate::parts::Bitmap;

impl ClusterThread {
    /// Has all cores told that other nodes hold parts now, or that this one holds or keeps others.
    pub(super) fn holders_changed(&mut self) {
        self.held = Some(self.set(self.machine.answered_parts()));
        self.kept = (self.machine.members() > 0).then(|| self.set(self.machine.kept_parts()));
        self.untold = (0..self.mailboxes.len()).collect();
        self.tell_holders();
    }

    /// Tells the cores who holds parts that do not know, as far as their mailboxes have room. The others are
    /// told later.
    pub(super) fn tell_holders(&mut self) {
        if self.untold.is_empty() {
            return;
        }
        let Some(holders) = self.holders() else { return self.untold.clear() };
        let mailboxes = &self.mailboxes;
        self.untold.retain(|core| {
            let message = ToCore::Holders(Box::new(holders.clone()));
            mailboxes.get(*core).is_some_and(|mailbox| mailbox.try_send(message).is_err())
        });
    }

    /// What this node sees. `None` while it knows no node that holds parts.
    fn holders(&self) -> Option<Holders> {
        (self.machine.members() > 0).then(|| {
            let asked = |part| self.machine.asked(part).into_iter().map(NodeNumber::from);
            let holders = Holders::new(self.hasher, self.set(self.machine.own_parts()), asked);
            holders.keeping(self.set(self.machine.kept_parts()))
        })
    }

    fn set(&self, parts: Bitmap) -> PartSet {
        PartSet::from_bitmap(self.hasher, &parts.0)
    }

    /// Whether this node stores torrents of the part of a torrent.
    pub(super) fn keeps(&self, info_hash: &InfoHash) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.contains(info_hash))
    }

    /// Whether this node holds the part of a torrent.
    pub(super) fn holds(&self, info_hash: &InfoHash) -> bool {
        self.held.as_ref().is_none_or(|held| held.contains(info_hash))
    }
}
