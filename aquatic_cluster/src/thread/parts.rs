//! Telling the cores which nodes hold which parts of the hash space.

use super::{ClusterThread, ToCore};

impl ClusterThread {
    /// Has all cores told that other nodes hold parts now, or that this one holds or keeps others.
    pub(super) fn holders_changed(&mut self) {
        let holders = self.machine.division(self.hasher);
        self.held = Some(*holders.own());
        self.kept = Some(*holders.kept());
        self.untold = (0..self.mailboxes.len()).collect();
        self.tell_holders();
    }

    /// Tells the cores who holds parts that do not know, as far as their mailboxes have room. The others are
    /// told later.
    pub(super) fn tell_holders(&mut self) {
        if self.untold.is_empty() {
            return;
        }
        let holders = self.machine.division(self.hasher);
        let mailboxes = &self.mailboxes;
        self.untold.retain(|core| {
            let message = ToCore::Holders(Box::new(holders.clone()));
            mailboxes.get(*core).is_some_and(|mailbox| mailbox.try_send(message).is_err())
        });
    }
}
