//! The tracker's state on one core.

use aquatic_common::config::Limit;
use aquatic_common::expiry::{Expire, Expired};
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds, Steering};
use aquatic_metrics::{CoreMetrics, Counter, Gauge, Label, names};
use aquatic_swarm::{
    Announce, Announced, Applied, Change, ChangeKind, CountedTorrent, FamilySet, MAX_PEER_AGE, Origin,
    PartSet, PeerBuffers, Previous, RankCursor, SaveFilter, SavePass, SaveStep, SaveSwarms, SavedPeer, Shard,
    ShardLimits, Stored, SwarmCounts, TICK, TopTorrents,
};
use rand::rngs::SmallRng;

use crate::admission::{Admission, AdmissionRequest, NotAdmitted};
use crate::interval::{IntervalPolicy, Intervals};
use crate::memory::{CoreBudget, Degradation, Store, StoreDegradation};
use crate::peer_rules::{PeerFault, PeerRules};
use crate::replication::{DepartedCursor, Published, Publishing, remote_grace};
use crate::requests::Requests;
use crate::snapshot::format::Torrent;
use crate::snapshot::records::Recording;
use crate::snapshot::{Loaded, Loading};
use crate::stretch::Stretch;

/// The torrents that one core owns, and the rules for requests about them. Pure: it has no socket and no
/// clock, and its randomness is seeded by the caller.
#[derive(Debug)]
pub struct Tracker {
    index: usize,
    steering: Steering,
    shard: Shard,
    admission: Admission,
    intervals: Intervals,
    rules: PeerRules,
    rng: SmallRng,
    counters: Counters,
    degradation: StoreDegradation,
    /// Peers added since memory was last checked.
    added: u32,
    requests: Requests,
    /// What is remembered of announces while a snapshot is taken in, the state is handed over, or other nodes
    /// are told of them.
    observing: Option<Box<Observing>>,
    /// Seconds by which the peers of other nodes expire later.
    remote_grace: u32,
}

/// What is remembered of announces.
#[derive(Debug, Default)]
struct Observing {
    loading: Option<Loading>,
    recording: Option<Recording>,
    publishing: Option<Publishing>,
}

impl Observing {
    fn observe(&mut self, announce: &Announce, announced: &Announced, now: Seconds) {
        if let Some(publishing) = &mut self.publishing {
            publishing.observe(announce, announced, now);
        }
        if let Some(loading) = &mut self.loading {
            loading.observe(announce, announced.stored, now);
        }
        if let Some(recording) = &mut self.recording {
            recording.observe(announce, announced.stored);
        }
    }

    fn observe_change(&mut self, change: &Change, result: (Applied, Previous), (now, age): (Seconds, u32)) {
        if let Some(publishing) = &mut self.publishing {
            publishing.observe_change(change, result, now);
        }
        if let Some(loading) = &mut self.loading {
            loading.observe_change(change, result.0, Seconds(now.0.saturating_sub(age)));
        }
        if let Some(recording) = &mut self.recording {
            recording.observe_change(change, result.0);
        }
    }

    fn is_idle(&self) -> bool {
        self.loading.is_none() && self.recording.is_none() && self.publishing.is_none()
    }
}

/// Peers that are added between two checks of the memory, at most: 500 KiB.
const ADDED_PER_CHECK: u32 = 8192;

/// Seconds that the news of a stop may have taken for a peer that was heard in the same tick to have left.
/// Later, it may have announced again. This counts the time in the mailbox of this core, which
/// [`forget_order`](crate::replication::forget_order) cannot know. Seconds are whole, so it may have been up
/// to two.
const MAX_LATENESS: u32 = 1;

/// Label of the swarms that UDP and HTTP share.
const SWARMS: Label = ("swarms", names::BITTORRENT);
/// Labels of expiry, whose passes visit the peers of both families.
pub(crate) const SWARMS_OF_BOTH_FAMILIES: [Label; 2] = [SWARMS, ("family", names::BOTH_FAMILIES)];

#[derive(Debug)]
struct Counters {
    /// Announces whose peer was not stored, by family and limit.
    not_stored: [[Counter; Limit::ALL.len()]; 2],
    /// Announces whose peer has an address or port that peers must not have, by family and fault.
    faulty: [[Counter; PeerFault::ALL.len()]; 2],
    /// By family: torrents, seeders, leechers, bytes.
    swarms: [[Gauge; 4]; 2],
    /// Completed downloads by family.
    completed: [Counter; 2],
    /// Torrents and peers: their maxima, and how many there are.
    limits: [(Gauge, Gauge); 2],
    /// Averaged share of this core's time, in thousandths.
    busy: Gauge,
}

impl Counters {
    fn new(metrics: &CoreMetrics) -> Self {
        let labels = Family::ALL.map(|family| ("family", family.name()));
        let not_stored = labels.map(|family| {
            let labels = |limit: Limit| [SWARMS, family, ("reason", limit.name())];
            Limit::ALL.map(|limit| metrics.counter(&names::NOT_STORED, &labels(limit)))
        });
        let faulty = labels.map(|family| {
            PeerFault::ALL
                .map(|fault| metrics.counter(&names::NOT_STORED, &[SWARMS, family, ("reason", fault.name())]))
        });
        let swarms = labels.map(|family| {
            [
                metrics.gauge(&names::TORRENTS, &[SWARMS, family]),
                metrics.gauge(&names::PEERS, &[SWARMS, family, ("role", "seeder")]),
                metrics.gauge(&names::PEERS, &[SWARMS, family, ("role", "leecher")]),
                metrics.gauge(&names::STORE, &[SWARMS, family]),
            ]
        });
        let completed = labels.map(|family| metrics.counter(&names::COMPLETED, &[SWARMS, family]));
        let limits = ["limits.max_torrents", "limits.max_peers"].map(|limit| {
            let gauge = |metric| metrics.gauge(metric, &[("limit", limit)]);
            (gauge(&names::LIMIT), gauge(&names::LIMIT_IN_USE))
        });
        let busy = metrics.gauge(&names::CORE_BUSY, &[]);
        Self { not_stored, faulty, swarms, completed, limits, busy }
    }
}

impl Tracker {
    /// The state of the core with this index, without any torrent.
    #[must_use]
    pub fn new(
        (index, steering): (usize, Steering),
        shard: Shard,
        (admission, rules): (Admission, PeerRules),
        interval: IntervalPolicy,
        rng: SmallRng,
        metrics: &CoreMetrics,
    ) -> Self {
        Self {
            index,
            steering,
            shard,
            admission,
            intervals: Intervals::new(interval, Stretch::default()),
            rules,
            rng,
            counters: Counters::new(metrics),
            degradation: StoreDegradation::new(index, Store::BitTorrent, metrics),
            added: 0,
            requests: Requests::default(),
            observing: None,
            remote_grace: 0,
        }
    }

    /// Bounds the memory that torrents and peers may take, together with the other store of the core.
    #[must_use]
    pub fn with_budget(mut self, budget: Option<CoreBudget>) -> Self {
        self.degradation.set_budget(budget);
        self
    }

    /// The samples of this core's requests.
    #[inline]
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Index of this core.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Index of the core that owns a torrent.
    #[inline]
    #[must_use]
    pub fn owner(&self, info_hash: &InfoHash) -> usize {
        self.steering.owner(info_hash)
    }

    /// Whether this core owns a torrent, and this node holds its part.
    #[inline]
    #[must_use]
    pub fn owns(&self, info_hash: &InfoHash) -> bool {
        self.owner(info_hash) == self.index && self.holds(info_hash)
    }

    /// Whether this node holds some parts only, see [`partition`](crate::partition).
    #[must_use]
    pub fn is_divided(&self) -> bool {
        self.shard.is_divided()
    }

    /// Whether this node holds the part of a torrent, see [`partition`](crate::partition).
    #[inline]
    #[must_use]
    pub fn holds(&self, info_hash: &InfoHash) -> bool {
        self.shard.holds(info_hash)
    }

    /// Whether the torrents of a torrent's part are kept: this node holds the part, or has held it a minute
    /// ago.
    #[inline]
    #[must_use]
    pub fn keeps(&self, info_hash: &InfoHash) -> bool {
        self.shard.keeps(info_hash)
    }

    /// Sets the parts that this node holds, and those whose torrents it keeps: what is stored of others
    /// expires at once. `None`: all.
    pub fn set_held(&mut self, held: Option<PartSet>, kept: Option<PartSet>) {
        self.shard.set_held(held, kept);
    }

    /// Decides whether a request for a torrent is served. For all cores' torrents, by the core that received
    /// the request.
    ///
    /// # Errors
    /// Why it is not.
    #[inline]
    pub fn admit(&self, request: AdmissionRequest<'_>) -> Result<(), NotAdmitted> {
        self.admission.check(request)
    }

    /// Loads what a batch of announces will touch.
    pub fn prefetch<'a>(&self, family: Family, announces: impl IntoIterator<Item = &'a Announce>) {
        self.shard.prefetch(family, announces);
    }

    /// Loads what a scrape of torrents that this core owns will touch.
    pub fn prefetch_scrape(&self, family: Family, info_hashes: &[InfoHash]) {
        self.shard.prefetch_scrape(family, info_hashes);
    }

    /// Applies an admitted announce for a torrent that this core owns and writes peers for the reply. The
    /// only place where announces reach the store. A peer that must not be stored gets a reply all the same.
    #[inline]
    pub fn announce(&mut self, announce: &Announce, now: Seconds, out: PeerBuffers<'_>) -> Announced {
        // What was stored under other rules may leave.
        if announce.event != AnnounceEvent::Stopped
            && let Err(fault) = self.rules.check(announce.address)
        {
            let family = Family::of(announce.address.ip());
            self.counters.faulty[family.index()][fault as usize].add(1);
            return self.shard.reply(announce, &mut self.rng, out);
        }
        let announced = self.shard.announce(announce, now, &mut self.rng, out);
        if let Some(limit) = announced.stored.limit() {
            let family = Family::of(announce.address.ip());
            self.counters.not_stored[family.index()][limit as usize].add(1);
        }
        if announced.stored == Stored::Added {
            self.note_added(1);
        }
        if let Some(observing) = &mut self.observing {
            observing.observe(announce, &announced, now);
        }
        announced
    }

    /// Applies an announce that was answered some seconds ago, and that has not reached the store. What the
    /// peer has announced since stays.
    pub(crate) fn announce_late(&mut self, announce: &Announce, age: u32, now: Seconds) {
        let key = (&announce.info_hash, announce.address);
        // Known ages are multiples of ticks. Who leaves or completes does so after what the same tick knows
        // of it; anything else counts only if what is known is certainly older.
        let ends = matches!(announce.event, AnnounceEvent::Stopped | AnnounceEvent::Completed);
        let is_older = |known: u32| if ends { known + TICK > age } else { known >= age + TICK };
        if self.shard.age(key, now).is_none_or(is_older) {
            let then = Seconds(now.0.saturating_sub(age));
            let _ = self.announce(announce, then, PeerBuffers::default());
        }
    }

    /// Compares the memory of torrents and peers with the budget, and takes the step of degradation that
    /// follows. To be called several times a second; busy times call it by themselves.
    pub fn check_memory(&mut self) {
        self.added = 0;
        let stats = self.shard.stats();
        if let Some(step) = self.degradation.check(stats.v4.bytes + stats.v6.bytes) {
            self.shard.set_intake(step.intake());
        }
    }

    /// What the store does without at present, for want of memory.
    #[must_use]
    pub fn degradation(&self) -> Degradation {
        self.degradation.step()
    }

    /// Age in seconds at which peers are removed at present, given the configured one.
    #[must_use]
    pub fn max_peer_age(&self, configured: u32) -> u32 {
        self.degradation.step().max_peer_age(configured, self.intervals.longest())
    }

    /// Counts of a torrent that this core owns. Torrents that are not served look like unknown ones.
    #[inline]
    #[must_use]
    pub fn scrape(&self, info_hash: &InfoHash, families: FamilySet) -> SwarmCounts {
        match self.admit(AdmissionRequest::of(info_hash)) {
            Ok(()) => self.shard.scrape(info_hash, families),
            Err(_) => SwarmCounts::default(),
        }
    }

    /// Counts of a torrent that this core owns, of each family, whether it is served or not.
    #[must_use]
    pub fn counts(&self, info_hash: &InfoHash) -> [SwarmCounts; 2] {
        Family::ALL.map(|family| self.shard.scrape(info_hash, FamilySet::One(family)))
    }

    /// Looks for the largest torrents, see [`Shard::rank`].
    pub fn rank(&self, cursor: &mut RankCursor, budget: u64, top: &mut TopTorrents) -> bool {
        self.shard.rank(cursor, budget, top)
    }

    /// The announce interval for the reply to one announce, in seconds: stretched by this core's load and the
    /// size of the swarm, then shortened at random.
    #[inline]
    pub fn next_interval(&mut self, announced: &Announced) -> u32 {
        let swarm = u64::from(announced.complete) + u64::from(announced.incomplete);
        self.intervals.next(swarm, &mut self.rng)
    }

    /// Replaces how far intervals are stretched.
    pub fn set_stretch(&mut self, stretch: Stretch) {
        self.intervals.stretch = stretch;
    }

    /// Takes in that this core was busy for a share of some seconds.
    pub fn add_load(&mut self, busy: f64, seconds: f64) {
        self.intervals.add_load(busy, seconds);
        self.counters.busy.set((self.intervals.busy() * 1000.0) as u64);
    }

    /// Age in seconds up to which peers have to be remembered: the configured one, or longer if longer
    /// intervals were given out. To be asked about now and then.
    pub fn peer_age(&mut self, now: Seconds, configured: u32) -> u32 {
        self.intervals.peer_age(now, configured)
    }

    /// Replaces the limits of the store, the announce interval, and the rules for addresses and ports. Peers
    /// that are stored stay until they stop or expire.
    pub fn reconfigure(&mut self, limits: ShardLimits, interval: IntervalPolicy, rules: PeerRules) {
        self.shard.set_limits(limits);
        self.rules = rules;
        self.intervals.policy = interval;
    }

    /// The policy behind [`next_interval`](Self::next_interval).
    #[must_use]
    pub fn interval(&self) -> IntervalPolicy {
        self.intervals.policy
    }

    /// This core's source of randomness for whatever else a reply needs.
    pub fn rng(&mut self) -> &mut SmallRng {
        &mut self.rng
    }

    /// Has changes noted for other nodes from now on, see [`replication`](crate::replication). Their peers
    /// expire later than those of this node, by what follows from the age in seconds at which those do. To be
    /// called again when that changes.
    pub fn begin_publishing(&mut self, max_peer_age: u32) {
        self.remote_grace = remote_grace(max_peer_age);
        self.shard.set_remote_grace(self.remote_grace);
        let publishing = &mut self.observing.get_or_insert_default().publishing;
        publishing.get_or_insert_default().set_max_peer_age(max_peer_age);
    }

    /// Removes the oldest changes that were noted for other nodes. To be called until there are none.
    pub fn take_published(&mut self, now: Seconds) -> Option<Published> {
        self.observing.as_mut()?.publishing.as_mut()?.take(now)
    }

    /// Returns how many changes were dropped since the last call because too many had not been removed.
    pub fn take_dropped(&mut self) -> u64 {
        let publishing = self.observing.as_mut().and_then(|observing| observing.publishing.as_mut());
        publishing.map_or(0, Publishing::take_dropped)
    }

    /// Begins to tell other nodes again of the peers that have left here in the last seconds. Also returns
    /// whether some of them were forgotten for want of room.
    #[must_use]
    pub fn begin_telling_departed(&self, max_age: u32, now: Seconds) -> (DepartedCursor, bool) {
        let publishing = self.observing.as_ref().and_then(|observing| observing.publishing.as_ref());
        publishing.map_or_else(Default::default, |publishing| publishing.departed().tell_again(max_age, now))
    }

    /// Returns the next of them, out of some that are looked at, without those that are here again. None if
    /// there are no more. Those that another node has brought back since, which had not heard of it, are
    /// removed.
    #[must_use]
    pub fn tell_departed(
        &mut self,
        cursor: &mut DepartedCursor,
        now: Seconds,
        budget: usize,
    ) -> Option<Published> {
        let publishing = self.observing.as_ref()?.publishing.as_ref()?;
        let mut brought_back = Vec::new();
        let is_here = |change: &Change, age: u32| {
            let Some(known) = self.shard.age((&change.info_hash, change.address), now) else { return false };
            // Times of peers are rounded: one that may have announced since is taken for living.
            let is_brought_back = known >= age.saturating_add(TICK);
            if is_brought_back {
                brought_back.push((*change, age));
            }
            !is_brought_back
        };
        let told = publishing.departed().next(cursor, (now, budget), is_here);
        for (change, age) in brought_back {
            self.apply_change(&Change { age: 0, ..change }, age, now);
        }
        told
    }

    /// Loads what changes of other nodes will touch.
    pub fn prefetch_changes(&self, family: Family, changes: &[Change]) {
        self.shard.prefetch_changes(family, changes);
    }

    /// Applies what another node has heard `age` seconds ago of a torrent that this core owns, and what it
    /// has heard is not told again.
    pub fn apply_change(&mut self, change: &Change, age: u32, now: Seconds) -> Applied {
        // A peer that is back by now may have announced here in the same tick.
        let is_late = change.kind == ChangeKind::LeftAfter && age > MAX_LATENESS;
        let change = &if is_late { Change { kind: ChangeKind::Left, ..*change } } else { *change };
        let is_present = change.kind.is_present();
        if is_present && !self.holds(&change.info_hash) {
            return Applied::NotHeld;
        }
        if is_present
            && (self.admit(AdmissionRequest::of(&change.info_hash)).is_err()
                || self.rules.check(change.address).is_err())
        {
            return Applied::Refused;
        }
        let result = self.shard.apply_change(change, age, now, &mut self.rng);
        if result.0 == Applied::Added {
            self.note_added(1);
        }
        if let Some(observing) = &mut self.observing {
            observing.observe_change(change, result, (now, age));
        }
        result.0
    }

    /// Returns how many peers of a family this node heard last, and how many other nodes did.
    #[must_use]
    pub fn peers_by_owner(&self, family: Family) -> (u64, u64) {
        let stats = self.shard.stats();
        let stats = stats.family(family);
        ((stats.seeders + stats.leechers).saturating_sub(stats.remote), stats.remote)
    }

    fn note_added(&mut self, peers: u64) {
        self.added = self.added.saturating_add(u32::try_from(peers).unwrap_or(u32::MAX));
        if self.added >= ADDED_PER_CHECK {
            self.check_memory();
        }
    }

    /// Begins to hand out the content. The same pass in progress is abandoned.
    pub fn begin_saving(&mut self, pass: SavePass) {
        self.shard.begin_saving(pass);
    }

    /// Ends a pass that hands out the content before its time.
    pub fn abandon_saving(&mut self, pass: SavePass) {
        self.shard.abandon_saving(pass);
    }

    /// Hands out the next part of the content, with the ages of some seconds ago, see [`Shard::save`].
    pub fn save(
        &mut self,
        pass: (SavePass, SaveFilter<'_>),
        (now, ago): (Seconds, u32),
        budget: u64,
        out: &mut impl SaveSwarms,
    ) -> SaveStep {
        self.shard.save(pass, (now, ago), budget, out)
    }

    /// Begins to hand out the counts of all torrents.
    pub(crate) fn begin_counting(&mut self) {
        self.shard.begin_counting();
    }

    /// Ends a pass over the counts before its time.
    pub(crate) fn abandon_counting(&mut self) {
        self.shard.abandon_counting();
    }

    /// Hands out the counts of the next torrents that are served, see [`Shard::count_torrents`].
    pub(crate) fn count_torrents(&mut self, budget: u64, out: &mut impl FnMut(CountedTorrent)) -> SaveStep {
        let Self { shard, admission, .. } = self;
        shard.count_torrents(budget, &mut |torrent| {
            if admission.check(AdmissionRequest::of(&torrent.info_hash)).is_ok() {
                out(torrent);
            }
        })
    }

    /// The longest interval in seconds that a client of this core may be waiting for; 0 if none was given
    /// out.
    #[must_use]
    pub fn longest_given_out(&self) -> u32 {
        self.intervals.longest_given_out()
    }

    /// Takes in that a client may be waiting for an interval of so many seconds that a predecessor gave out.
    pub fn note_given_out(&mut self, interval: u32) {
        self.intervals.note_given_out(interval.min(MAX_PEER_AGE / 2));
    }

    /// Begins to take in a snapshot, or what another node has stored.
    pub fn begin_loading(&mut self) {
        self.observing.get_or_insert_default().loading.get_or_insert_default().begin();
    }

    /// Takes in a torrent of a snapshot that was made `gap` seconds ago, by this node or by another one.
    pub fn load(
        &mut self,
        torrent: Torrent<'_>,
        (gap, max_peer_age): (u32, u32),
        now: Seconds,
        origin: Origin,
    ) -> Loaded {
        let mut loaded = Loaded::default();
        let saved = torrent.saved;
        if !self.keeps(&saved.info_hash) || self.admit(AdmissionRequest::of(&saved.info_hash)).is_err() {
            loaded.not_admitted += u64::from(saved.peers);
            return loaded;
        }
        let Self { shard, rng, observing, rules, remote_grace, .. } = self;
        let loading = observing.as_ref().and_then(|observing| observing.loading.as_ref());
        let peers = torrent.peers().filter_map(|peer| {
            let age = peer.age.saturating_add(gap);
            let is_remote = peer.remote || origin == Origin::Other;
            let grace = if is_remote { *remote_grace } else { 0 };
            if age > max_peer_age.saturating_add(grace).min(MAX_PEER_AGE) {
                loaded.too_old += 1;
                return None;
            }
            let heard = Seconds(now.0.saturating_sub(age));
            if loading.is_some_and(|loading| loading.has_stopped(saved.info_hash, peer.address, heard)) {
                loaded.stopped += 1;
                return None;
            }
            if rules.check(peer.address).is_err() {
                loaded.refused += 1;
                return None;
            }
            Some(SavedPeer { age, ..peer })
        });
        let restored = shard.restore((&saved, origin), peers, now, rng);
        self.note_added(restored.added);
        Loaded { restored, ..loaded }
    }

    /// Ends taking in a snapshot.
    pub fn end_loading(&mut self) {
        self.observe_no_longer(|observing| {
            observing.loading.take_if(Loading::end);
        });
    }

    /// Begins to note the announces that are applied.
    pub(crate) fn begin_recording(&mut self) {
        self.observing.get_or_insert_default().recording = Some(Recording::default());
    }

    /// Removes the notes about announces from peers of a family, if there are any.
    pub(crate) fn take_records(&mut self, family: Family) -> Option<Vec<u8>> {
        self.observing.as_mut()?.recording.as_mut()?.take(family)
    }

    /// Whether announces were left out, because too many had been noted.
    pub(crate) fn has_overflowed(&self) -> bool {
        let recording = self.observing.as_ref().and_then(|observing| observing.recording.as_ref());
        recording.is_some_and(Recording::has_overflowed)
    }

    /// Ends noting announces. Returns whether some were left out.
    pub(crate) fn end_recording(&mut self) -> bool {
        let overflowed = self.has_overflowed();
        self.observe_no_longer(|observing| observing.recording = None);
        overflowed
    }

    fn observe_no_longer(&mut self, end: impl FnOnce(&mut Observing)) {
        if let Some(observing) = &mut self.observing {
            end(observing);
            if observing.is_idle() {
                self.observing = None;
            }
        }
    }

    /// Brings the gauges of torrents, peers and memory up to date.
    pub fn update_gauges(&self) {
        let stats = self.shard.stats();
        for family in Family::ALL {
            let stats = stats.family(family);
            let values = [stats.torrents, stats.seeders, stats.leechers, stats.bytes];
            for (gauge, value) in self.counters.swarms[family.index()].iter().zip(values) {
                gauge.set(value);
            }
            let completed = &self.counters.completed[family.index()];
            completed.add(stats.completed.saturating_sub(completed.get()));
        }
        let limits = self.shard.limits();
        let peers = stats.v4.seeders + stats.v4.leechers + stats.v6.seeders + stats.v6.leechers;
        let in_use = [stats.v4.torrents + stats.v6.torrents, peers];
        let maxima = [limits.max_torrents, limits.max_peers];
        for ((maximum, used), gauges) in maxima.into_iter().zip(in_use).zip(&self.counters.limits) {
            gauges.0.set(maximum);
            gauges.1.set(used);
        }
    }
}

impl Expire for Tracker {
    fn pass_work(&self) -> u64 {
        self.shard.pass_work()
    }

    fn expire(&mut self, now: Seconds, max_peer_age: u32, budget: u64) -> Expired {
        self.shard.expire(now, max_peer_age, budget)
    }
}
