//! One core's tracker, connected to those of the other cores.

use std::cell::{Cell, RefMut};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use aquatic_common::InfoHash;
use aquatic_runtime::{Core, Outbox};
use aquatic_swarm::{Announce, FamilySet, ShardLimits};
use rand::RngExt;

use crate::expiry;
use crate::messages::Messages;
use crate::owners::{Owners, Waiter};
use crate::seed::{TrackerSeed, TrackerSettings};
use crate::tracker::{SWARMS_OF_BOTH_FAMILIES, Tracker};

/// Period of looking for requests past their deadline, and of updating gauges.
const TICK: Duration = Duration::from_millis(250);

/// The tracker of one core, with the way to the owners of all torrents.
pub struct LocalTracker {
    core: Rc<Core>,
    owners: Owners<Outbox<Messages>>,
    /// Age in seconds after which peers are removed.
    max_peer_age: Cell<u32>,
}

impl fmt::Debug for LocalTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTracker").field("owners", &self.owners).finish_non_exhaustive()
    }
}

impl LocalTracker {
    /// Makes the state of this core, connects it to the other cores, and starts expiry. Completes when all
    /// cores have come this far.
    pub async fn start(core: &Rc<Core>, seed: &TrackerSeed) -> Rc<Self> {
        let random = core.rng().random();
        let tracker = seed.tracker(core.index(), random, core.metrics());
        let channel = core.open_channel::<Messages>("tracker").await;
        let local = Rc::new(Self {
            core: Rc::clone(core),
            owners: Owners::new(tracker, Outbox::new(channel.clone()), core.metrics()),
            max_peer_age: Cell::new(seed.expiry().max_peer_age),
        });
        let receiving = Rc::clone(&local);
        channel.receive(move |from, messages| {
            receiving.owners.receive(from, messages, receiving.core.now());
        });
        let (expiring, interval) = (Rc::clone(&local), seed.expiry().interval);
        core.spawn(async move {
            let max_peer_age = || expiring.max_peer_age();
            let labels = &SWARMS_OF_BOTH_FAMILIES;
            expiry::run(&expiring.core, (interval, max_peer_age), labels, || expiring.state()).await;
        });
        let ticking = Rc::clone(&local);
        core.spawn(async move {
            loop {
                ticking.owners.tick(ticking.core.tick());
                ticking.core.sleep(TICK).await;
            }
        });
        local
    }

    /// The state of this core. The borrow must end before the next `.await`, and before an owner is asked.
    pub fn state(&self) -> RefMut<'_, Tracker> {
        self.owners.state()
    }

    /// Applies changed settings: limits, announce interval and maximum peer age. The access list has its own
    /// reload, and the interval of expiry stays.
    pub fn reconfigure(&self, settings: &TrackerSettings) {
        let limits = ShardLimits::share_of(&settings.limits, self.core.count());
        self.state().reconfigure(limits, settings.interval, settings.rules.clone());
        self.max_peer_age.set(settings.cleaning.max_peer_age);
    }

    /// Age in seconds after which a peer that has not announced is removed, at present.
    pub(crate) fn max_peer_age(&self) -> u32 {
        self.state().max_peer_age(self.max_peer_age.get())
    }

    /// Has the owner of the torrent, another core, apply an admitted announce, see [`Owners::announce`].
    pub fn announce(&self, announce: &Announce, room: (u32, u32), waiter: Waiter) {
        self.owners.announce(self.core.time(), announce, room, waiter);
    }

    /// Counts torrents wherever they are owned, see [`Owners::scrape`].
    pub fn scrape(&self, info_hashes: &[InfoHash], families: FamilySet, waiter: Waiter) {
        self.owners.scrape(self.core.time(), info_hashes, families, waiter);
    }
}
