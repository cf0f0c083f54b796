//! One core's tracker, connected to those of the other cores.

use std::cell::{Cell, RefMut};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use aquatic_common::InfoHash;
use aquatic_runtime::clock::BusyMeter;
use aquatic_runtime::{Core, CoreState, Outbox};
use aquatic_swarm::{Announce, FamilySet, ShardLimits};
use rand::RngExt;

use crate::expiry;
use crate::messages::Messages;
use crate::owners::{Owners, Waiter};
use crate::partition::{Holders, NodeNumber};
use crate::seed::{TrackerSeed, TrackerSettings};
use crate::tracker::{SWARMS_OF_BOTH_FAMILIES, Tracker};

/// Period of looking for requests past their deadline, and of updating gauges.
const TICK: Duration = Duration::from_millis(250);

/// Requests past their deadline that are ended without a pause.
const LATE_PER_TURN: usize = 256;

/// The tracker of one core, with the way to the owners of all torrents.
pub struct LocalTracker {
    core: Rc<Core>,
    owners: Owners<Rc<CoreState<Tracker>>, Outbox<Messages>>,
    /// Age in seconds after which peers are removed: as configured, and as follows from the intervals that
    /// were given out.
    configured_peer_age: Cell<u32>,
    max_peer_age: Cell<u32>,
    /// Whether changes are noted for other nodes.
    publishes: Cell<bool>,
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
        let tracker = seed.trackers().attach(core, tracker);
        let channel = core.open_channel::<Messages>("tracker").await;
        let local = Rc::new(Self {
            core: Rc::clone(core),
            owners: Owners::new(tracker, Outbox::new(channel.clone()), core.metrics()),
            configured_peer_age: Cell::new(seed.expiry().max_peer_age),
            max_peer_age: Cell::new(seed.expiry().max_peer_age),
            publishes: Cell::new(false),
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
            let mut meter = BusyMeter::new(ticking.core.tick());
            loop {
                while ticking.owners.end_late(ticking.core.tick(), LATE_PER_TURN) {
                    ticking.core.yield_now().await;
                }
                ticking.owners.tick(ticking.core.tick());
                ticking.core.sleep_to_tick(TICK).await;
                ticking.follow_load(&mut meter);
            }
        });
        local
    }

    /// The state of this core. The borrow must end before the next `.await`, and before an owner is asked.
    pub fn state(&self) -> RefMut<'_, Tracker> {
        self.owners.state()
    }

    /// Time since the epoch, as of the core's last tick.
    pub fn time(&self) -> Duration {
        self.core.time()
    }

    /// Serves a request for a torrent of another core, see [`Owners::with_sleeping`].
    pub fn with_sleeping<R>(&self, owner: usize, act: impl FnOnce(&mut Tracker) -> R) -> Option<R> {
        self.owners.with_sleeping(owner, act)
    }

    /// Applies changed settings: limits, announce interval and maximum peer age. The access list has its own
    /// reload, and the interval of expiry stays.
    pub fn reconfigure(&self, settings: &TrackerSettings) {
        let limits = ShardLimits::share_of(&settings.limits, self.core.count());
        self.state().reconfigure(limits, settings.interval, settings.rules.clone());
        self.state().set_stretch(settings.stretch);
        self.configured_peer_age.set(settings.cleaning.max_peer_age);
        if self.publishes.get() {
            self.state().begin_publishing(settings.cleaning.max_peer_age);
        }
    }

    /// Begins to note changes for other nodes, see [`Tracker::begin_publishing`].
    pub fn begin_publishing(&self) {
        self.publishes.set(true);
        self.state().begin_publishing(self.configured_peer_age.get());
    }

    /// Takes in how busy the core was since the last time.
    fn follow_load(&self, meter: &mut BusyMeter) {
        let mut state = self.state();
        if let Some((busy, seconds)) = meter.measure(self.core.tick()) {
            state.add_load(busy, seconds);
        }
        self.remember_for(&mut state);
    }

    /// Takes in that a client may be waiting for an interval of so many seconds that a predecessor gave out:
    /// its peers are to be kept for that long.
    pub(crate) fn note_given_out(&self, interval: u32) {
        let mut state = self.state();
        state.note_given_out(interval);
        self.remember_for(&mut state);
    }

    fn remember_for(&self, state: &mut Tracker) {
        self.max_peer_age.set(state.peer_age(self.core.now(), self.configured_peer_age.get()));
    }

    /// Age in seconds after which a peer that has not announced is removed, at present.
    pub fn max_peer_age(&self) -> u32 {
        self.state().max_peer_age(self.max_peer_age.get())
    }

    /// Has the owner of the torrent, another core, apply an admitted announce, see [`Owners::announce`].
    pub fn announce(&self, announce: &Announce, room: (u32, u32), waiter: Waiter) {
        self.owners.announce(self.core.time(), announce, room, waiter);
    }

    /// Replaces what is known of nodes that hold parts, see [`Owners::set_holders`].
    pub fn set_holders(&self, holders: Option<Holders>) {
        self.owners.set_holders(holders, self.core.metrics());
    }

    /// Removes a message to another node, see [`Owners::take_message`].
    pub fn take_message(&self) -> Option<(NodeNumber, Vec<u8>)> {
        self.owners.take_message()
    }

    /// Handles some of the items of another node's message that are for this core, and removes them.
    pub fn receive_message(&self, from: NodeNumber, items: &mut &[u8], max: usize) {
        self.owners.receive_message(from, items, max, self.core.time());
    }

    /// Sends some of the announces that were kept, see [`Owners::send_late`].
    pub fn send_late(&self, budget: usize) {
        self.owners.send_late(self.core.time(), budget);
    }

    /// Counts torrents wherever they are owned, see [`Owners::scrape`].
    pub fn scrape(&self, info_hashes: &[InfoHash], families: FamilySet, waiter: Waiter) {
        self.owners.scrape(self.core.time(), info_hashes, families, waiter);
    }
}
