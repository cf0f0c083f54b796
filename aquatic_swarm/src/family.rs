//! The swarms of one address family. Each torrent is an entry of the table. Its payload is the only peer
//! (IPv4), a list of up to 128 peers in a block of a slab, or the number of a large swarm.

use std::hint::black_box;

use aquatic_common::InfoHash;
use rand::Rng;
use siphasher::sip::SipHasher13;

use crate::accesses;
use crate::completions::Completions;
use crate::crowd::{self, Groups, PeerHasher, ReplySize, SUSPICIOUS_GROUP};
use crate::eligible::Eligible;
use crate::expiry::Cursor;
use crate::large::{LargeSwarm, LargeSwarms};
use crate::order::{Moves, PeerOrder};
use crate::parts::PartSet;
use crate::payload::{self, Content, LARGE_TO_LIST, LIST_MAX, class_of};
use crate::peer_format::PeerFormat;
use crate::saving::{SaveCursor, SavePass};
use crate::slab::{CACHE_LINE, Slab};
use crate::table::{PREFETCH_BATCH, Slot, Table, TorrentKey};
use crate::tick::Stamp;
use crate::types::{FamilyStats, Intake, Stored};

/// What may still be stored under the limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    pub(crate) torrents: bool,
    /// Whether a torrent of any size may get another peer.
    pub(crate) peers: bool,
    /// Whether a torrent with fewer than [`SMALL_TORRENT`] peers may get another one.
    pub(crate) peers_of_small_torrents: bool,
    pub(crate) peers_per_torrent: u32,
    pub(crate) intake: Intake,
}

impl Capacity {
    /// Whether memory is left for another peer of a torrent with so many.
    fn has_memory(&self, peers: u32) -> bool {
        match self.intake {
            Intake::All => true,
            Intake::SmallTorrents => peers < SMALL_TORRENT - 1,
            Intake::Nothing => false,
        }
    }
}

/// Result of applying an announce to the store.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) stored: Stored,
    /// The torrent, unless it is unknown.
    pub(crate) torrent: Option<Slot>,
    /// Position of the announcing peer, if it is in the swarm.
    pub(crate) position: Option<u32>,
    /// Stamp of a known peer before.
    pub(crate) previous: Stamp,
}

impl Outcome {
    pub(crate) fn without_peer(stored: Stored, torrent: Option<Slot>) -> Self {
        Self { stored, torrent, position: None, previous: Stamp::default() }
    }

    fn added(torrent: Slot, at: u32) -> Self {
        Self { stored: Stored::Added, torrent: Some(torrent), position: Some(at), previous: Stamp::default() }
    }
}

/// Torrents with fewer peers than this may use the reserved part of the peer limit.
pub(crate) const SMALL_TORRENT: u32 = 3;

/// The swarms of one address family.
#[derive(Debug)]
pub(crate) struct Store<K: PeerFormat> {
    pub(crate) table: Table,
    pub(crate) lists: Slab<K::Peer>,
    pub(crate) large: LargeSwarms<K>,
    pub(crate) seeders: u64,
    pub(crate) leechers: u64,
    /// Peers of both roles that another node heard last.
    pub(crate) remote: u64,
    /// Downloads that have been completed.
    pub(crate) completed: u64,
    /// Peers that were counted as completed and have left.
    pub(crate) completions: Completions,
    pub(crate) cursor: Cursor,
    /// The parts whose torrents are kept; all, if there are none.
    pub(crate) kept: Option<PartSet>,
    /// Positions of the passes that save the content.
    pub(crate) saving: [Option<SaveCursor>; SavePass::COUNT],
    /// Pass that hands out counts.
    pub(crate) counting: Option<SaveCursor>,
}

fn apply_moves<P: Copy>(peers: &mut [P], moves: Moves) {
    for (from, to) in moves.into_iter().flatten() {
        peers[to as usize] = peers[from as usize];
    }
}

impl<K: PeerFormat> Store<K> {
    pub(crate) fn new(hasher: SipHasher13, groups: Groups) -> Self {
        Self {
            table: Table::new(hasher),
            lists: Slab::new(&payload::CAPACITIES),
            large: LargeSwarms::new(PeerHasher { sip: hasher, groups }),
            seeders: 0,
            leechers: 0,
            remote: 0,
            completed: 0,
            completions: Completions::default(),
            cursor: Cursor::default(),
            kept: None,
            saving: Default::default(),
            counting: None,
        }
    }

    pub(crate) fn peers(&self) -> u64 {
        self.seeders + self.leechers
    }

    /// Returns the key of a torrent, which is the same in the stores of both families of a shard.
    #[inline]
    pub(crate) fn key(&self, info_hash: &InfoHash) -> TorrentKey {
        self.table.key(info_hash)
    }

    #[inline]
    pub(crate) fn find(&self, key: TorrentKey) -> Option<Slot> {
        self.table.find(key)
    }

    #[inline]
    pub(crate) fn content(&self, slot: Slot) -> Content<K::Peer> {
        Content::from_payload::<K>(self.table.payload(slot))
    }

    pub(crate) fn order(&self, slot: Slot) -> PeerOrder {
        self.order_of(self.content(slot))
    }

    pub(crate) fn order_of(&self, content: Content<K::Peer>) -> PeerOrder {
        match content {
            Content::One(peer) => PeerOrder::of_one(K::stamp(peer).seeder()),
            Content::List { order, .. } => order,
            Content::Large(number) => {
                self.large.get(number).map_or_else(PeerOrder::default, LargeSwarm::order)
            }
        }
    }

    /// Writes eligible peers of a torrent, which has at least as many, to `out`. Each is equally likely,
    /// unless the swarm is crowded, see `crowd.rs`. Returns the number of bytes written.
    #[inline(never)] // Nothing of it is needed by announces that want no peers.
    pub(crate) fn sample(
        &self,
        slot: Slot,
        eligible: Eligible,
        size: ReplySize,
        rng: &mut impl Rng,
        out: &mut [u8],
    ) -> usize {
        let mut written = 0;
        let mut write = |peers: &[K::Peer]| {
            K::write_all(peers, &mut out[written..]);
            written += peers.len() * K::WIRE_SIZE;
        };
        match self.content(slot) {
            Content::One(peer) => write(&[peer]),
            Content::List { block, order, crowded } => {
                let peers = &self.lists.get(block)[..order.len as usize];
                if crowded && (size.elsewhere > 0 || !crowd::is_one_network::<K>(peers)) {
                    let (swarm, peer_at) = ((order, eligible), |at: u32| peers[at as usize]);
                    crowd::select::<K>(swarm, size, peer_at, rng, |peer| write(&[peer]));
                    return written;
                }
                eligible
                    .runs(order, size.count, rng, |at, len| write(&peers[at as usize..(at + len) as usize]));
            }
            Content::Large(number) => {
                let Some(swarm) = self.large.get(number) else { return 0 };
                if swarm.is_crowded() && (size.elsewhere > 0 || !swarm.is_one_network()) {
                    let (order, peer_at) = ((swarm.order(), eligible), |at: u32| swarm.get(at));
                    crowd::select::<K>(order, size, peer_at, rng, |peer| write(&[peer]));
                    return written;
                }
                eligible.runs(swarm.order(), size.count, rng, |at, len| {
                    swarm.slices(at, len).for_each(&mut write)
                });
            }
        }
        written
    }

    /// Whether a network has about a quarter of a torrent's peers or more.
    pub(crate) fn is_crowded(&self, slot: Slot) -> bool {
        match self.content(slot) {
            Content::One(_) => false,
            Content::List { crowded, .. } => crowded,
            Content::Large(number) => self.large.get(number).is_some_and(LargeSwarm::is_crowded),
        }
    }

    /// Estimates how many eligible peers of a torrent replies may have before those that crowd it.
    pub(crate) fn uncrowded(&self, slot: Slot, eligible: Eligible, numwant: u32, rng: &mut impl Rng) -> u32 {
        match self.content(slot) {
            Content::List { block, order, crowded: true } => {
                let peers = &self.lists.get(block)[..order.len as usize];
                crowd::uncrowded::<K>((order, eligible), numwant, |at| peers[at as usize], rng)
            }
            Content::Large(number) => match self.large.get(number) {
                Some(swarm) if swarm.is_crowded() => {
                    crowd::uncrowded::<K>((swarm.order(), eligible), numwant, |at| swarm.get(at), rng)
                }
                _ => eligible.count(self.order(slot)),
            },
            Content::One(_) | Content::List { .. } => eligible.count(self.order(slot)),
        }
    }

    /// Stores a peer or updates a known one.
    pub(crate) fn put(
        &mut self,
        key: TorrentKey,
        peer: K::Peer,
        capacity: Capacity,
        rng: &mut impl Rng,
    ) -> Outcome {
        let Some(slot) = self.table.find(key) else {
            return self.put_first(key, peer, capacity);
        };
        let content = self.content(slot);
        let (position, group) = self.locate_and_probe(content, peer, rng);
        if let Some(at) = position {
            let (previous, at) = self.restamp(slot, content, at, K::stamp(peer), rng);
            return Outcome { stored: Stored::Updated, torrent: Some(slot), position: Some(at), previous };
        }
        self.put_another(slot, content, (peer, group), capacity, rng)
    }

    /// Returns what [`Self::locate`] does, and finds out whether the network of the peer crowds the swarm.
    #[inline]
    pub(crate) fn locate_and_probe(
        &mut self,
        content: Content<K::Peer>,
        peer: K::Peer,
        rng: &mut impl Rng,
    ) -> (Option<u32>, u32) {
        let (position, group) = self.locate(content, peer);
        if group >= SUSPICIOUS_GROUP
            && let Content::Large(number) = content
            && let Some((swarm, _)) = self.large.get_mut(number)
        {
            swarm.probe(peer, rng);
        }
        (position, group)
    }

    /// Adds a peer to a torrent that does not have it. `group` is what [`Self::locate`] returned.
    pub(crate) fn put_another(
        &mut self,
        slot: Slot,
        content: Content<K::Peer>,
        (peer, group): (K::Peer, u32),
        capacity: Capacity,
        rng: &mut impl Rng,
    ) -> Outcome {
        let len = self.order_of(content).len;
        let small = len < SMALL_TORRENT && capacity.peers_of_small_torrents;
        if len >= capacity.peers_per_torrent {
            return Outcome::without_peer(Stored::RefusedPeersPerTorrent, Some(slot));
        }
        if !capacity.peers && !small {
            return Outcome::without_peer(Stored::RefusedPeers, Some(slot));
        }
        if !capacity.has_memory(len) {
            return Outcome::without_peer(Stored::RefusedMemory, Some(slot));
        }
        let (of_network, group_in_list) = self.network_in_list(content, peer);
        if group.max(group_in_list) >= self.large.hasher.groups.max {
            return Outcome::without_peer(Stored::RefusedPeersPerAddress, Some(slot));
        }
        match self.add(slot, content, (peer, of_network), rng) {
            Some(at) => {
                self.count(K::stamp(peer), true);
                Outcome::added(slot, at)
            }
            None => Outcome::without_peer(Stored::RefusedPeersPerTorrent, Some(slot)),
        }
    }

    pub(crate) fn put_first(&mut self, key: TorrentKey, peer: K::Peer, capacity: Capacity) -> Outcome {
        if !capacity.torrents {
            return Outcome::without_peer(Stored::RefusedTorrents, None);
        }
        if capacity.peers_per_torrent == 0 {
            return Outcome::without_peer(Stored::RefusedPeersPerTorrent, None);
        }
        if !capacity.peers && !capacity.peers_of_small_torrents {
            return Outcome::without_peer(Stored::RefusedPeers, None);
        }
        if !capacity.has_memory(0) {
            return Outcome::without_peer(Stored::RefusedMemory, None);
        }
        let payload = self.payload_of_one(peer);
        let pages = self.table.pages();
        let Some(slot) = self.table.insert(key, payload) else {
            self.release(payload);
            return Outcome::without_peer(Stored::RefusedTorrents, None);
        };
        if self.table.pages() > pages {
            let passes = self.saving.iter_mut().flatten().chain(&mut self.counting);
            passes.for_each(|cursor| cursor.note_split(pages + 1));
        }
        self.count(K::stamp(peer), true);
        Outcome::added(slot, 0)
    }

    /// Returns the payload of a torrent with a single peer.
    fn payload_of_one(&mut self, peer: K::Peer) -> u64 {
        K::to_payload(peer).unwrap_or_else(|| {
            let block = self.lists.alloc(class_of(1));
            self.lists.get_mut(block)[0] = peer;
            Content::<K::Peer>::list(block, PeerOrder::of_one(K::stamp(peer).seeder()), false)
        })
    }

    /// Frees the list or the large swarm that a payload refers to.
    pub(crate) fn release(&mut self, payload: u64) {
        match Content::from_payload::<K>(payload) {
            Content::One(_) => {}
            Content::List { block, .. } => self.lists.free(block),
            Content::Large(number) => self.large.destroy(number),
        }
    }

    pub(crate) fn count(&mut self, stamp: Stamp, up: bool) {
        let counter = if stamp.seeder() { &mut self.seeders } else { &mut self.leechers };
        *counter = if up { *counter + 1 } else { *counter - 1 };
        let remote = u64::from(stamp.is_remote());
        self.remote = if up { self.remote + remote } else { self.remote - remote };
    }

    /// Returns the position of a peer, and of an unknown peer of a large swarm the number of peers of its
    /// group.
    #[inline]
    pub(crate) fn locate(&self, content: Content<K::Peer>, peer: K::Peer) -> (Option<u32>, u32) {
        match content {
            Content::One(other) => (K::same_key(other, peer).then_some(0), 0),
            Content::List { block, order, .. } => {
                let peers = &self.lists.get(block)[..order.len as usize];
                accesses::add(1 + peers.len() / 8);
                (K::position(peers, peer).map(|at| at as u32), 0)
            }
            Content::Large(number) => {
                self.large.get(number).map_or((None, 0), |swarm| swarm.find(&self.large.hasher, peer))
            }
        }
    }

    /// Returns the number of peers of the network of a new peer, and the number of those in its group, if
    /// that may be at its maximum; of a swarm that is not large.
    fn network_in_list(&self, content: Content<K::Peer>, peer: K::Peer) -> (u32, u32) {
        let hasher = &self.large.hasher;
        let count = |peers: &[K::Peer]| {
            let of_network = K::of_network(peers, peer);
            let is_safe = of_network < hasher.groups.max;
            (of_network, if is_safe { 0 } else { hasher.group_in_list::<K>(peers, peer) })
        };
        match content {
            Content::One(other) => count(&[other]),
            Content::List { block, order, .. } => count(&self.lists.get(block)[..order.len as usize]),
            Content::Large(_) => (0, 0),
        }
    }

    /// Updates the stamp of the peer at a position. Returns its previous stamp and its new position.
    #[inline]
    pub(crate) fn restamp(
        &mut self,
        slot: Slot,
        content: Content<K::Peer>,
        at: u32,
        stamp: Stamp,
        rng: &mut impl Rng,
    ) -> (Stamp, u32) {
        let (old, at) = match content {
            Content::One(peer) => {
                if let Some(payload) = K::to_payload(K::restamped(peer, stamp)) {
                    self.table.set_payload(slot, payload);
                }
                (K::stamp(peer), 0)
            }
            Content::List { block, order, crowded } => {
                self.restamp_in_list(slot, (block, order, crowded), at, stamp, rng)
            }
            Content::Large(number) => match self.large.get_mut(number) {
                Some((swarm, hasher)) => swarm.restamp(hasher, at, stamp, rng),
                None => (stamp, at),
            },
        };
        if !stamp.counts_like(old) {
            self.count(old, false);
            self.count(stamp, true);
            let (_, completes) = stamp.after(old);
            if completes {
                return (self.complete(slot, at, old), at);
            }
        }
        (old, at)
    }

    pub(crate) fn stamp_at(&self, slot: Slot, at: u32) -> Option<Stamp> {
        self.peer_at(slot, at).map(K::stamp)
    }

    pub(crate) fn peer_at(&self, slot: Slot, at: u32) -> Option<K::Peer> {
        Some(match self.content(slot) {
            Content::One(peer) => peer,
            Content::List { block, .. } => *self.lists.get(block).get(at as usize)?,
            Content::Large(number) => self.large.get(number)?.get(at),
        })
    }

    /// Updates the stamp of the peer at a position of a list. Returns its previous stamp and its new
    /// position.
    #[inline]
    fn restamp_in_list(
        &mut self,
        slot: Slot,
        (block, mut order, crowded): (u32, PeerOrder, bool),
        at: u32,
        stamp: Stamp,
        rng: &mut impl Rng,
    ) -> (Stamp, u32) {
        let peers = self.lists.get_mut(block);
        let peer = peers[at as usize];
        let to = if K::stamp(peer).seeder() == stamp.seeder() {
            let to = order.random_of_role(at, rng);
            peers[at as usize] = peers[to as usize];
            to
        } else {
            let (to, moves) = order.change_role(at, rng);
            apply_moves(peers, moves);
            self.table.set_payload(slot, Content::<K::Peer>::list(block, order, crowded));
            to
        };
        peers[to as usize] = K::restamped(peer, stamp);
        (K::stamp(peer), to)
    }

    /// Adds a peer to a torrent that does not have it, but `of_network` peers of its network. Returns its
    /// position.
    fn add(
        &mut self,
        slot: Slot,
        content: Content<K::Peer>,
        (peer, of_network): (K::Peer, u32),
        rng: &mut impl Rng,
    ) -> Option<u32> {
        let crowds = |len: u32| crowd::crowds_list(of_network + 1, len + 1);
        match content {
            Content::One(first) => {
                let block = self.lists.alloc(class_of(2));
                let peers = self.lists.get_mut(block);
                peers[0] = first;
                let order = PeerOrder::of_one(K::stamp(first).seeder());
                Some(self.append(slot, (block, order, false), peer, rng))
            }
            Content::List { block, order, crowded } if order.len < LIST_MAX => {
                let crowded = crowded || crowds(order.len);
                let (old, new) = (class_of(order.len), class_of(order.len + 1));
                let block =
                    if old == new { block } else { self.lists.resize(block, new, order.len as usize) };
                Some(self.append(slot, (block, order, crowded), peer, rng))
            }
            Content::List { block, order, crowded } => {
                let crowded = (crowded || crowds(order.len)).then(|| K::stamp(peer));
                let number = self.large.create(&self.lists.get(block)[..order.len as usize], crowded)?;
                self.lists.free(block);
                self.table.set_payload(slot, Content::<K::Peer>::large(number));
                self.add_to_large(number, peer)
            }
            Content::Large(number) => self.add_to_large(number, peer),
        }
    }

    fn add_to_large(&mut self, number: u32, peer: K::Peer) -> Option<u32> {
        let (swarm, hasher) = self.large.get_mut(number)?;
        let at = swarm.add(hasher, peer)?;
        self.large.count_peers(1, 0);
        Some(at)
    }

    /// Adds a peer to a list whose block is large enough.
    fn append(
        &mut self,
        slot: Slot,
        (block, mut order, crowded): (u32, PeerOrder, bool),
        peer: K::Peer,
        rng: &mut impl Rng,
    ) -> u32 {
        let peers = self.lists.get_mut(block);
        let (at, moves) = order.insert(K::stamp(peer).seeder(), rng);
        apply_moves(peers, moves);
        peers[at as usize] = peer;
        self.table.set_payload(slot, Content::<K::Peer>::list(block, order, crowded));
        at
    }

    /// Returns where a peer is, without a change.
    pub(crate) fn look_up(&self, key: TorrentKey, peer: K::Peer, stored: Stored) -> Outcome {
        let torrent = self.find(key);
        let position = torrent.and_then(|slot| self.locate(self.content(slot), peer).0);
        Outcome { stored, torrent, position, previous: Stamp::default() }
    }

    /// Removes a peer, if it is known. The torrent is returned if it still has peers.
    pub(crate) fn remove(&mut self, key: TorrentKey, peer: K::Peer) -> Outcome {
        let Some(slot) = self.find(key) else {
            return Outcome::without_peer(Stored::Absent, None);
        };
        match self.locate(self.content(slot), peer).0 {
            None => Outcome::without_peer(Stored::Absent, Some(slot)),
            Some(at) => {
                let previous = self.stamp_at(slot, at).unwrap_or_default();
                self.remember_completion(slot, at);
                let torrent = self.remove_at(slot, at).then_some(slot);
                Outcome { previous, ..Outcome::without_peer(Stored::Removed, torrent) }
            }
        }
    }

    /// Removes the peer at a position, and the torrent with its last peer. Returns whether the torrent still
    /// has peers.
    pub(crate) fn remove_at(&mut self, slot: Slot, at: u32) -> bool {
        match self.content(slot) {
            Content::One(peer) => {
                self.count(K::stamp(peer), false);
                self.table.remove(slot);
                false
            }
            Content::List { block, mut order, crowded } => {
                let peers = self.lists.get_mut(block);
                let stamp = K::stamp(peers[at as usize]);
                apply_moves(peers, order.remove(at));
                self.count(stamp, false);
                self.fit_block(slot, (block, order, crowded))
            }
            Content::Large(number) => {
                let Some((swarm, hasher)) = self.large.get_mut(number) else {
                    return false;
                };
                let stamp = K::stamp(swarm.get(at));
                swarm.remove(hasher, at);
                self.large.count_peers(0, 1);
                self.count(stamp, false);
                self.convert_to_list(slot, number);
                true
            }
        }
    }

    /// Moves a list that has just lost a peer to a smaller block, where its size class changed. Returns
    /// whether any peer is left.
    fn fit_block(&mut self, slot: Slot, (block, order, crowded): (u32, PeerOrder, bool)) -> bool {
        if order.len == 0 {
            self.lists.free(block);
            self.table.remove(slot);
            return false;
        }
        let inline = if order.len == 1 { K::to_payload(self.lists.get(block)[0]) } else { None };
        let payload = if let Some(payload) = inline {
            self.lists.free(block);
            payload
        } else {
            let (old, new) = (class_of(order.len + 1), class_of(order.len));
            let block = if old == new { block } else { self.lists.resize(block, new, order.len as usize) };
            Content::<K::Peer>::list(block, order, crowded)
        };
        self.table.set_payload(slot, payload);
        true
    }

    /// Converts a large swarm of at most [`LARGE_TO_LIST`] peers into a list.
    fn convert_to_list(&mut self, slot: Slot, number: u32) {
        let Some(swarm) = self.large.get(number) else {
            return;
        };
        let order = swarm.order();
        if order.len > LARGE_TO_LIST {
            return;
        }
        let block = self.lists.alloc(class_of(order.len));
        let peers = self.lists.get_mut(block);
        for (at, peer) in (0..order.len).zip(peers) {
            *peer = swarm.get(at);
        }
        let crowded = swarm.is_crowded();
        self.large.destroy(number);
        self.table.set_payload(slot, Content::<K::Peer>::list(block, order, crowded));
    }

    /// Loads the torrents and peers of any number of announces into the cache.
    pub(crate) fn prefetch<'a>(&self, announces: impl IntoIterator<Item = (&'a InfoHash, K::Peer)>) {
        let mut announces = announces.into_iter();
        // What one announce needs is loaded while it is applied: there is no other load to overlap with.
        let (Some(first), Some(second)) = (announces.next(), announces.next()) else { return };
        let mut announces = [first, second].into_iter().chain(announces).peekable();
        while announces.peek().is_some() {
            let mut keys = [TorrentKey::default(); PREFETCH_BATCH];
            let mut peers = [None; PREFETCH_BATCH];
            let mut count = 0;
            for (info_hash, peer) in announces.by_ref().take(PREFETCH_BATCH) {
                (keys[count], peers[count]) = (self.table.key(info_hash), Some(peer));
                count += 1;
            }
            self.prefetch_batch(&keys[..count], &peers);
        }
    }

    /// Loads the torrents of a scrape into the cache.
    pub(crate) fn prefetch_scrape(&self, info_hashes: &[InfoHash]) {
        for info_hashes in info_hashes.chunks(PREFETCH_BATCH).filter(|chunk| chunk.len() > 1) {
            let mut keys = [TorrentKey::default(); PREFETCH_BATCH];
            for (key, info_hash) in keys.iter_mut().zip(info_hashes) {
                *key = self.table.key(info_hash);
            }
            let mut large = [None; PREFETCH_BATCH];
            self.table.prefetch(&keys[..info_hashes.len()], |at, payload| {
                if let Content::Large(number) = Content::from_payload::<K>(payload) {
                    large[at] = self.large.get(number);
                }
            });
            black_box(large.iter().flatten().fold(0, |sum, swarm| sum ^ swarm.load()));
        }
    }

    fn prefetch_batch(&self, keys: &[TorrentKey], peers: &[Option<K::Peer>; PREFETCH_BATCH]) {
        let (mut lists, mut large) = ([(0, 0); PREFETCH_BATCH], [None; PREFETCH_BATCH]);
        let mut free_entries = lists.iter_mut();
        self.table.prefetch(keys, |at, payload| match Content::from_payload::<K>(payload) {
            Content::One(_) => {}
            Content::List { block, order, .. } => {
                if let Some(entry) = free_entries.next() {
                    *entry = (block, order.len);
                }
            }
            Content::Large(number) => large[at] = self.large.get(number).zip(peers[at]),
        });
        for (block, len) in lists.into_iter().take_while(|(_, len)| *len > 0) {
            let per_line = (CACHE_LINE / size_of::<K::Peer>()).max(1);
            for at in (0..len).step_by(per_line).chain([len - 1]) {
                black_box(K::stamp(*self.lists.unit(block + at)));
            }
        }
        self.prefetch_large(&large);
    }

    /// Loads what finding these peers in large swarms needs, one level at a time: swarms, index buckets,
    /// peers.
    fn prefetch_large(&self, large: &[Option<(&LargeSwarm<K>, K::Peer)>; PREFETCH_BATCH]) {
        let large = || large.iter().flatten();
        black_box(large().fold(0, |sum, (swarm, _)| sum ^ swarm.load()));
        let mut hashes = [0; PREFETCH_BATCH];
        for ((swarm, peer), hash) in large().zip(&mut hashes) {
            *hash = K::hash(*peer, &self.large.hasher);
            black_box(swarm.load_bucket(*hash));
        }
        for ((swarm, _), hash) in large().zip(hashes) {
            black_box(swarm.candidate(hash).map(K::stamp));
        }
    }

    pub(crate) fn stats(&self) -> FamilyStats {
        FamilyStats {
            torrents: self.table.len(),
            seeders: self.seeders,
            leechers: self.leechers,
            remote: self.remote,
            completed: self.completed,
            bytes: (self.table.bytes() + self.lists.bytes() + self.large.bytes() + self.completions.bytes())
                as u64,
        }
    }
}
