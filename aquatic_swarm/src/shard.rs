//! The torrents of one core, in one store per address family.

use std::net::SocketAddr;

use aquatic_common::expiry::{Expire, Expired};
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds, canonical};
use rand::Rng;
use siphasher::sip::SipHasher13;

use crate::changes::{Applied, Change, ChangeKind, Completion};
use crate::counting::CountedTorrent;
use crate::crowd::{Groups, ReplySize};
use crate::eligible::Eligible;
use crate::family::{Capacity, Outcome, Store};
use crate::order::PeerOrder;
use crate::parts::PartSet;
use crate::peer_format::{PeerFormat, V4, V6};
use crate::restoring::{self, Origin, Restored};
use crate::sample;
use crate::saving::{
    SaveCursor, SaveFilter, SavePass, SaveScope, SaveStep, SaveSwarms, SavedPeer, SavedTorrent,
};
use crate::table::{Slot, TorrentKey};
use crate::tick::{Cutoff, Stamp, Tick};
use crate::types::{
    Announce, Announced, Families, FamilySet, HashKey, Intake, MAX_NUMWANT, MAX_PEER_AGE, PeerBuffers,
    Previous, ShardLimits, ShardStats, Stored, SwarmCounts,
};

/// The torrents of one core.
#[derive(Debug)]
pub struct Shard {
    limits: ShardLimits,
    intake: Intake,
    v4: Store<V4>,
    v6: Store<V6>,
    /// The family that the current expiry pass has reached.
    expiring: Family,
    /// Seconds by which the peers of other nodes expire later.
    remote_grace: u32,
    /// Parts that this node answers for itself; all if there are none.
    held: Option<PartSet>,
}

impl Shard {
    /// Creates an empty shard. Limits above [`MAX_PER_SHARD`](crate::MAX_PER_SHARD) and
    /// [`MAX_PEERS_PER_TORRENT`](crate::MAX_PEERS_PER_TORRENT) are lowered to these.
    #[must_use]
    pub fn new(limits: ShardLimits, key: HashKey) -> Self {
        let hasher = SipHasher13::new_with_key(&key.0);
        let limits = limits.capped();
        let groups = Groups::new(limits.max_peers_per_address);
        let (v4, v6) = (Store::new(hasher, groups), Store::new(hasher, groups));
        Self { limits, intake: Intake::All, v4, v6, expiring: Family::V4, remote_grace: 0, held: None }
    }

    /// The limits that apply.
    #[must_use]
    pub fn limits(&self) -> ShardLimits {
        self.limits
    }

    /// Replaces the limits, which are lowered as in [`Self::new`], except for `max_peers_per_address`, by
    /// which the indexes of large swarms are laid out. If the shard holds more than the new limits allow,
    /// nothing is removed: new peers are not stored until enough others have stopped or expired.
    pub fn set_limits(&mut self, limits: ShardLimits) {
        self.limits = limits.capped();
    }

    /// Chooses which new peers are stored from now on.
    pub fn set_intake(&mut self, intake: Intake) {
        self.intake = intake;
    }

    /// Sets by how many seconds the peers of other nodes expire later than those of this one: another node
    /// does not tell of each announce.
    pub fn set_remote_grace(&mut self, seconds: u32) {
        self.remote_grace = seconds;
    }

    /// Sets the parts that are held, and those whose torrents are kept, which are the same and perhaps those
    /// that were held a minute ago. The peers of parts that are not kept expire at once, which takes a pass.
    /// `None` stands for all parts. Says nothing about what may be stored.
    pub fn set_held(&mut self, held: Option<PartSet>, kept: Option<PartSet>) {
        self.held = held;
        (self.v4.kept, self.v6.kept) = (kept, kept);
    }

    /// Whether some parts are not held.
    #[must_use]
    pub fn is_divided(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the part of a torrent is held.
    #[inline]
    #[must_use]
    pub fn holds(&self, info_hash: &InfoHash) -> bool {
        self.held.as_ref().is_none_or(|held| held.contains(info_hash))
    }

    /// Whether the part of a torrent is kept.
    #[inline]
    #[must_use]
    pub fn keeps(&self, info_hash: &InfoHash) -> bool {
        self.v4.kept.as_ref().is_none_or(|kept| kept.contains(info_hash))
    }

    /// Stores, updates or removes the announcing peer, and writes a sample of the other peers to `out`.
    ///
    /// The sample has `numwant` peers if there are as many and they fit. Each eligible peer is equally
    /// likely, and seeders and leechers are taken in proportion to their numbers, unless many peers have the
    /// same address: then the sample has few of them, and may have fewer peers than `numwant`, as long as
    /// there are others. Seeders get leechers only, no peer gets itself, and a stopped peer gets none. A
    /// paused peer (BEP 21) counts as a leecher. The torrent's `downloaded` count grows when a known leecher
    /// becomes a seeder, whatever the event, once per peer until the peer expires. One that has stopped and
    /// comes back is not counted again within the maximum age of peers, see [`Completions`]. A peer whose
    /// first announce is that of a seeder is not counted by it, even with the event "completed": the client
    /// may have sent it before, from another address.
    ///
    /// [`Completions`]: crate::Completions
    ///
    /// When a limit is reached a new peer gets the same reply but is not stored. Known peers are always
    /// updated.
    pub fn announce(
        &mut self,
        announce: &Announce,
        now: Seconds,
        rng: &mut impl Rng,
        out: PeerBuffers<'_>,
    ) -> Announced {
        let stopped = announce.event == AnnounceEvent::Stopped;
        let action = match (announce.address.port(), stopped) {
            (0, _) => Action::Ignore(Stored::RefusedPort),
            (_, true) => Action::Remove,
            (_, false) => Action::Store,
        };
        self.apply(announce, (action, now), rng, out)
    }

    /// Writes a reply as [`Self::announce`] does, for a peer that is not to be stored. Changes nothing.
    pub fn reply(&mut self, announce: &Announce, rng: &mut impl Rng, out: PeerBuffers<'_>) -> Announced {
        self.apply(announce, (Action::Ignore(Stored::Ignored), Seconds(0)), rng, out)
    }

    fn apply(
        &mut self,
        announce: &Announce,
        (action, now): (Action, Seconds),
        rng: &mut impl Rng,
        out: PeerBuffers<'_>,
    ) -> Announced {
        let address = canonical(announce.address);
        let seeder = announce.seeder && announce.event != AnnounceEvent::Paused;
        let stopped = announce.event == AnnounceEvent::Stopped;
        let stamp = Stamp::new(Tick::at(now), seeder);
        let capacity = self.capacity();
        let (key, port) = (self.v4.key(&announce.info_hash), address.port());
        let (family, network, outcome) = match address {
            SocketAddr::V4(v4) => {
                let peer = V4::peer(*v4.ip(), port, stamp);
                (Family::V4, V4::network(peer), apply(&mut self.v4, key, peer, action, capacity, rng))
            }
            SocketAddr::V6(v6) => {
                let peer = V6::peer(*v6.ip(), port, stamp);
                (Family::V6, V6::network(peer), apply(&mut self.v6, key, peer, action, capacity, rng))
            }
        };
        let numwant = if stopped { 0 } else { announce.numwant.min(MAX_NUMWANT) as u32 };
        let both = announce.families == Families::Both;
        let request = Request { outcome, network, numwant, leechers_only: seeder, both };
        match family {
            Family::V4 => request.reply(key, Side(&self.v4, out.v4), Side(&self.v6, out.v6), rng),
            Family::V6 => {
                let reply = request.reply(key, Side(&self.v6, out.v6), Side(&self.v4, out.v4), rng);
                Announced { v4_len: reply.v6_len, v6_len: reply.v4_len, ..reply }
            }
        }
    }

    /// Returns the counts of a torrent; zeros if it is unknown.
    #[must_use]
    pub fn scrape(&self, info_hash: &InfoHash, families: FamilySet) -> SwarmCounts {
        fn scrape<K: PeerFormat>(store: &Store<K>, key: TorrentKey, families: FamilySet) -> SwarmCounts {
            let slot = if families.contains(K::FAMILY) { store.find(key) } else { None };
            slot.map_or_else(SwarmCounts::default, |slot| counts(store, slot, store.order(slot)))
        }
        let key = self.v4.key(info_hash);
        scrape(&self.v4, key, families).plus(scrape(&self.v6, key, families))
    }

    /// Returns the seconds since a peer was heard last, rounded to 16.
    #[must_use]
    pub fn age(&self, (info_hash, address): (&InfoHash, SocketAddr), now: Seconds) -> Option<u32> {
        fn stamp<K: PeerFormat>(store: &Store<K>, key: TorrentKey, peer: K::Peer) -> Option<Stamp> {
            let slot = store.find(key)?;
            store.stamp_at(slot, store.locate(store.content(slot), peer).0?)
        }
        let (key, none) = (self.v4.key(info_hash), Stamp::default());
        let stamp = match canonical(address) {
            SocketAddr::V4(v4) => stamp(&self.v4, key, V4::peer(*v4.ip(), v4.port(), none)),
            SocketAddr::V6(v6) => stamp(&self.v6, key, V6::peer(*v6.ip(), v6.port(), none)),
        };
        Some(stamp?.age(Tick::at(now)))
    }

    /// Loads what these announces need into the cache, so that the cache misses of a batch overlap. Changes
    /// nothing. Most effective with the 32 to 64 announces that follow. Announces of the other family are
    /// ignored.
    pub fn prefetch<'a>(&self, family: Family, announces: impl IntoIterator<Item = &'a Announce>) {
        let announces = announces.into_iter().map(|announce| (&announce.info_hash, announce.address));
        self.prefetch_peers(family, announces);
    }

    /// Loads what these changes need into the cache. See [`Self::prefetch`].
    pub fn prefetch_changes(&self, family: Family, changes: &[Change]) {
        self.prefetch_peers(family, changes.iter().map(|change| (&change.info_hash, change.address)));
    }

    fn prefetch_peers<'a>(
        &self,
        family: Family,
        announces: impl Iterator<Item = (&'a InfoHash, SocketAddr)>,
    ) {
        let none = Stamp::default();
        match family {
            Family::V4 => self.v4.prefetch(announces.filter_map(|(info_hash, address)| match address {
                SocketAddr::V4(v4) => Some((info_hash, V4::peer(*v4.ip(), v4.port(), none))),
                SocketAddr::V6(_) => None,
            })),
            Family::V6 => self.v6.prefetch(announces.filter_map(|(info_hash, address)| match address {
                SocketAddr::V6(v6) => Some((info_hash, V6::peer(*v6.ip(), v6.port(), none))),
                SocketAddr::V4(_) => None,
            })),
        }
    }

    /// Loads what a scrape of these torrents needs into the cache. See [`Self::prefetch`].
    pub fn prefetch_scrape(&self, family: Family, info_hashes: &[InfoHash]) {
        match family {
            Family::V4 => self.v4.prefetch_scrape(info_hashes),
            Family::V6 => self.v6.prefetch_scrape(info_hashes),
        }
    }

    /// Returns numbers of torrents and peers, and memory. Cheap enough to call every second.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        ShardStats { v4: self.v4.stats(), v6: self.v6.stats() }
    }

    /// Verifies the internal consistency. Takes time proportional to the content; meant for tests.
    ///
    /// # Errors
    /// Describes the first inconsistency found.
    #[doc(hidden)]
    pub fn check_invariants(&self) -> Result<(), String> {
        self.v4.check()?;
        self.v6.check()
    }

    /// Visits every peer, with its torrent and whether it is a seeder. Takes time proportional to the
    /// content; meant for tests.
    #[doc(hidden)]
    pub fn for_each_peer(&self, mut visit: impl FnMut(InfoHash, SocketAddr, bool)) {
        self.for_each_stamp(|info_hash, address, previous| visit(info_hash, address, previous.is_seeder()));
    }

    /// Visits every peer, with its torrent and all that is known of it. Meant for tests.
    #[doc(hidden)]
    pub fn for_each_stamp(&self, mut visit: impl FnMut(InfoHash, SocketAddr, Previous)) {
        let mut visit = |info_hash, address, stamp| visit(info_hash, address, Previous(stamp));
        self.v4.for_each_peer(&mut visit);
        self.v6.for_each_peer(&mut visit);
    }

    pub(crate) fn v4(&self) -> &Store<V4> {
        &self.v4
    }

    pub(crate) fn v6(&self) -> &Store<V6> {
        &self.v6
    }

    /// Begins to hand out the content, see [`Self::save`]. The same pass in progress is abandoned.
    pub fn begin_saving(&mut self, pass: SavePass) {
        let begin = || Some(SaveCursor::default());
        (self.v4.saving[pass as usize], self.v6.saving[pass as usize]) = (begin(), begin());
    }

    /// Ends a pass before its time.
    pub fn abandon_saving(&mut self, pass: SavePass) {
        (self.v4.saving[pass as usize], self.v6.saving[pass as usize]) = (None, None);
    }

    /// Hands out the next part of the content, as far as the filter has it, which must be the same during a
    /// pass. Exceeds the budget by less than the work on a page of the table without large swarms, 2,000
    /// units in practice. Ages are those at the moment of the snapshot, which was `ago` seconds ago.
    ///
    /// Announces and expiry may go on between two calls. What is stored from the beginning to the end of the
    /// pass is handed out, with rare exceptions in swarms of thousands; what comes or goes meanwhile may be.
    pub fn save(
        &mut self,
        (pass, filter): (SavePass, SaveFilter<'_>),
        (now, ago): (Seconds, u32),
        budget: u64,
        out: &mut impl SaveSwarms,
    ) -> SaveStep {
        let scope = SaveScope { now: Tick::at(now), ago, filter };
        let first = self.v4.save(pass, scope, budget, out);
        if !first.ended || first.work >= budget {
            return SaveStep { ended: false, ..first };
        }
        let second = self.v6.save(pass, scope, budget - first.work, out);
        SaveStep { work: first.work + second.work, ended: second.ended }
    }

    /// Begins a pass over the counts of all torrents.
    pub fn begin_counting(&mut self) {
        (self.v4.counting, self.v6.counting) = (Some(SaveCursor::default()), Some(SaveCursor::default()));
    }

    /// Ends a pass over the counts before its time.
    pub fn abandon_counting(&mut self) {
        (self.v4.counting, self.v6.counting) = (None, None);
    }

    /// Hands out the counts of the next torrents, with a budget as in [`save`](Self::save). What is stored
    /// from the beginning to the end of the pass is handed out, rarely twice.
    pub fn count_torrents(&mut self, budget: u64, out: &mut impl FnMut(CountedTorrent)) -> SaveStep {
        let first = self.v4.count_torrents(budget, out);
        if !first.ended || first.work >= budget {
            return SaveStep { ended: false, ..first };
        }
        let second = self.v6.count_torrents(budget - first.work, out);
        SaveStep { work: first.work + second.work, ended: second.ended }
    }

    /// Stores peers that were saved, as far as limits allow. Their ages are those of now. Peers that have
    /// announced since then stay as they are, except that a saved leecher of this node that is a seeder now
    /// counts as completed. Peers of another family than the torrent's are left out.
    pub fn restore(
        &mut self,
        (torrent, origin): (&SavedTorrent, Origin),
        peers: impl IntoIterator<Item = SavedPeer>,
        now: Seconds,
        rng: &mut impl Rng,
    ) -> Restored {
        let mut restored = Restored::default();
        let SavedTorrent { family, info_hash, downloaded, peers: _ } = torrent;
        let (key, tick) = (self.v4.key(info_hash), Tick::at(now));
        for peer in peers {
            let capacity = self.capacity();
            let stamp = restoring::stamp_of(&peer, origin, now);
            let stored = match (family, peer.address) {
                _ if !restoring::is_valid(peer.address) => Stored::RefusedPort,
                _ if peer.age > MAX_PEER_AGE => Stored::Absent,
                (Family::V4, SocketAddr::V4(v4)) => {
                    let peer = V4::peer(*v4.ip(), v4.port(), stamp);
                    self.v4.restore_peer(key, (peer, origin), tick, capacity, rng)
                }
                (Family::V6, SocketAddr::V6(v6)) => {
                    let peer = V6::peer(*v6.ip(), v6.port(), stamp);
                    self.v6.restore_peer(key, (peer, origin), tick, capacity, rng)
                }
                (Family::V4, SocketAddr::V6(_)) | (Family::V6, SocketAddr::V4(_)) => Stored::RefusedPort,
            };
            restored.count(stored);
        }
        match family {
            Family::V4 => self.v4.restore_downloaded(key, *downloaded, origin),
            Family::V6 => self.v6.restore_downloaded(key, *downloaded, origin),
        }
        restored
    }

    /// Applies what another node has heard `age` seconds ago. Also returns what was known of the peer, if it
    /// was. Limits are those of announces.
    pub fn apply_change(
        &mut self,
        change: &Change,
        age: u32,
        now: Seconds,
        rng: &mut impl Rng,
    ) -> (Applied, Previous) {
        if !restoring::is_valid(change.address) {
            return (Applied::Refused, Previous::default());
        }
        if age > MAX_PEER_AGE {
            return (Applied::Older, Previous::default());
        }
        match change.address {
            SocketAddr::V4(v4) => {
                let peer = |stamp| V4::peer(*v4.ip(), v4.port(), stamp);
                let capacity = self.capacity();
                apply_change(&mut self.v4, (change, peer), (age, now), capacity, rng)
            }
            SocketAddr::V6(v6) => {
                let peer = |stamp| V6::peer(*v6.ip(), v6.port(), stamp);
                let capacity = self.capacity();
                apply_change(&mut self.v6, (change, peer), (age, now), capacity, rng)
            }
        }
    }

    fn capacity(&self) -> Capacity {
        let peers = self.v4.peers() + self.v6.peers();
        let reserve = self.limits.max_peers * u64::from(self.limits.reserved_for_small_torrents) / 100;
        Capacity {
            torrents: self.v4.table.len() + self.v6.table.len() < self.limits.max_torrents,
            peers: peers < self.limits.max_peers - reserve,
            peers_of_small_torrents: peers < self.limits.max_peers,
            peers_per_torrent: self.limits.max_peers_per_torrent,
            intake: self.intake,
        }
    }
}

impl Expire for Shard {
    /// Returns the approximate number of work units of a pass that removes nothing. A unit takes 50 to 100 ns
    /// when memory is far larger than the caches, so budgets should be below 5,000.
    fn pass_work(&self) -> u64 {
        self.v4.pass_work() + self.v6.pass_work()
    }

    /// Removes expired peers, see [`Expire::expire`]. Exceeds the budget by less than the work on one torrent
    /// with 128 peers, 600 units. An age above [`MAX_PEER_AGE`] counts as that.
    ///
    /// No peer is removed before the maximum age. An expired peer is removed at most 32 seconds and one pass
    /// later; one more pass for each time that another peer of its torrent was moved to its position during a
    /// pass. Passes also compact sparse chunks of memory so that they can be freed, so they are useful even
    /// when nothing is expired.
    fn expire(&mut self, now: Seconds, max_peer_age: u32, budget: u64) -> Expired {
        let cutoff = Cutoff::new(now, max_peer_age, self.remote_grace);
        self.v4.completions.expire(now.0, max_peer_age);
        self.v6.completions.expire(now.0, max_peer_age);
        let budget = budget.max(1);
        let mut done = Expired::default();
        if self.expiring == Family::V4 {
            done = self.v4.expire(cutoff, budget);
            if !done.pass_ended {
                return done;
            }
            self.expiring = Family::V6;
            done.pass_ended = false;
        }
        if done.work < budget {
            let more = self.v6.expire(cutoff, budget - done.work);
            done.peers += more.peers;
            done.torrents += more.torrents;
            done.work += more.work;
            if more.pass_ended {
                self.expiring = Family::V4;
                done.pass_ended = true;
            }
        }
        done
    }
}

fn counts<K: PeerFormat>(store: &Store<K>, torrent: Slot, order: PeerOrder) -> SwarmCounts {
    SwarmCounts {
        complete: order.seeders,
        incomplete: order.leechers(),
        downloaded: store.table.completed(torrent),
    }
}

/// What to do with an announcing peer.
#[derive(Clone, Copy)]
enum Action {
    Store,
    Remove,
    /// Leave the store as it is, with this result.
    Ignore(Stored),
}

fn apply_change<K: PeerFormat>(
    store: &mut Store<K>,
    (change, peer): (&Change, impl FnOnce(Stamp) -> K::Peer),
    (age, now): (u32, Seconds),
    capacity: Capacity,
    rng: &mut impl Rng,
) -> (Applied, Previous) {
    let (key, tick) = (store.key(&change.info_hash), Tick::at(now));
    match change.kind {
        ChangeKind::Present { seeder, completion } => {
            let counted = completion != Completion::None;
            let stamp = restoring::stamp_of_age(age, seeder, now).with_completion_counted(counted).remote();
            let completes = completion == Completion::Now;
            let result = store.put_remote(key, (peer(stamp), completes), tick, capacity, rng);
            (Applied::of_present(seeder, result), result.1)
        }
        ChangeKind::Left | ChangeKind::LeftAfter => {
            let stamp = restoring::stamp_of_age(age, false, now);
            store.remove_remote(key, (peer(stamp), change.kind == ChangeKind::LeftAfter), tick)
        }
    }
}

fn apply<K: PeerFormat>(
    store: &mut Store<K>,
    key: TorrentKey,
    peer: K::Peer,
    action: Action,
    capacity: Capacity,
    rng: &mut impl Rng,
) -> Outcome {
    match action {
        Action::Store => store.put(key, peer, capacity, rng),
        Action::Remove => store.remove(key, peer),
        Action::Ignore(stored) => store.look_up(key, peer, stored),
    }
}

/// The rest of an announce, once its peer is stored.
struct Request {
    outcome: Outcome,
    /// Network of the announcing peer.
    network: u64,
    numwant: u32,
    leechers_only: bool,
    both: bool,
}

/// The store of one family, and the buffer for its peers in the reply.
struct Side<'a, K: PeerFormat>(&'a Store<K>, &'a mut [u8]);

/// What one family can contribute to a reply.
#[derive(Clone, Copy, Default)]
struct Contribution {
    torrent: Option<Slot>,
    counts: SwarmCounts,
    eligible: u32,
}

impl<K: PeerFormat> Side<'_, K> {
    fn peers_that_fit(&self) -> usize {
        self.1.len() / K::WIRE_SIZE
    }

    #[inline]
    fn fill(self, torrent: Option<Slot>, eligible: Eligible, size: ReplySize, rng: &mut impl Rng) -> usize {
        match torrent {
            Some(slot) if size.count > 0 => self.0.sample(slot, eligible, size, rng, self.1),
            Some(_) | None => 0,
        }
    }
}

impl Request {
    /// Counts and samples. In the result, `v4_len` is that of the announcing peer's own family and `v6_len`
    /// that of the other.
    fn reply<K: PeerFormat, L: PeerFormat>(
        self,
        key: TorrentKey,
        own: Side<'_, K>,
        other: Side<'_, L>,
        rng: &mut impl Rng,
    ) -> Announced {
        let leechers_only = self.leechers_only;
        let (requester, network) = (self.outcome.position, Some(self.network));
        let own_eligible = Eligible { leechers_only, requester, network };
        let other_eligible = Eligible { leechers_only, requester: None, network: None };
        let own_part = Contribution::of(own.0, self.outcome.torrent, own_eligible);
        let other_part = if self.both {
            Contribution::of(other.0, other.0.find(key), other_eligible)
        } else {
            Contribution::default()
        };
        let counts = own_part.counts.plus(other_part.counts);
        let numwant = self.numwant;
        let (own_size, other_size) = if own_part.eligible.min(other_part.eligible) > 0
            && (own_part.is_crowded(own.0) || other_part.is_crowded(other.0))
        {
            split_crowded(
                numwant,
                (&own, &own_part, own_eligible),
                (&other, &other_part, other_eligible),
                rng,
            )
        } else {
            let (own_count, other_count) = split(
                numwant,
                (own_part.eligible, own.peers_that_fit()),
                (other_part.eligible, other.peers_that_fit()),
                rng,
            );
            let size = |count, elsewhere| ReplySize { count, numwant, elsewhere };
            (size(own_count, other_count), size(other_count, own_count))
        };
        Announced {
            v4_len: own.fill(own_part.torrent, own_eligible, own_size, rng),
            v6_len: other.fill(other_part.torrent, other_eligible, other_size, rng),
            complete: counts.complete,
            incomplete: counts.incomplete,
            downloaded: counts.downloaded,
            stored: self.outcome.stored,
            previous: Previous(self.outcome.previous),
        }
    }
}

impl Contribution {
    fn of<K: PeerFormat>(store: &Store<K>, torrent: Option<Slot>, eligible: Eligible) -> Self {
        let Some(slot) = torrent else { return Self::default() };
        let order = store.order(slot);
        Self { torrent, counts: counts(store, slot, order), eligible: eligible.count(order) }
    }

    fn is_crowded<K: PeerFormat>(&self, store: &Store<K>) -> bool {
        self.torrent.is_some_and(|slot| store.is_crowded(slot))
    }
}

/// What each family contributes to a reply of a torrent in which a network crowds one of them: as if that
/// network had no more peers than it may have in a reply. Where both have too few then, a crowded family may
/// add others, as far as its own rule allows.
#[cold]
#[inline(never)]
fn split_crowded<K: PeerFormat, L: PeerFormat>(
    numwant: u32,
    (own, own_part, own_eligible): (&Side<'_, K>, &Contribution, Eligible),
    (other, other_part, other_eligible): (&Side<'_, L>, &Contribution, Eligible),
    rng: &mut impl Rng,
) -> (ReplySize, ReplySize) {
    let (own_fit, other_fit) = (own.peers_that_fit(), other.peers_that_fit());
    let of_own = own_part.torrent.map_or(0, |slot| own.0.uncrowded(slot, own_eligible, numwant, rng));
    let of_other = other_part.torrent.map_or(0, |slot| other.0.uncrowded(slot, other_eligible, numwant, rng));
    let (own_count, other_count) = split(numwant, (of_own, own_fit), (of_other, other_fit), rng);
    let rest = numwant - own_count - other_count;
    let with_rest = |count: u32, part: &Contribution, fit: usize| {
        (count + rest).min(part.eligible).min(u32::try_from(fit).unwrap_or(u32::MAX))
    };
    let own_all =
        if own_part.is_crowded(own.0) { with_rest(own_count, own_part, own_fit) } else { own_count };
    let other_all = if other_part.is_crowded(other.0) {
        with_rest(other_count, other_part, other_fit).min(numwant - own_all)
    } else {
        other_count
    };
    let size = |count, elsewhere| ReplySize { count, numwant, elsewhere };
    (size(own_all, other_count), size(other_all, own_count))
}

/// Returns the number of peers to take from each family, given how many are eligible and how many fit. If not
/// all can be taken, both are taken in proportion.
fn split(numwant: u32, first: (u32, usize), second: (u32, usize), rng: &mut impl Rng) -> (u32, u32) {
    let limit = |(count, fit): (u32, usize)| count.min(u32::try_from(fit).unwrap_or(u32::MAX));
    let (first_limit, second_limit) = (limit(first), limit(second));
    if first_limit + second_limit <= numwant {
        return (first_limit, second_limit);
    }
    let drawn = sample::proportion(rng, first.0, second.0, numwant).min(first_limit);
    let rest = (numwant - drawn).min(second_limit);
    ((numwant - rest).min(first_limit), rest)
}
