//! The swarms of one family. A torrent is an entry of the table; its payload is the only peer (IPv4), a list of up to 128
//! in a block of a slab, or the number of a large swarm.

use std::hint::black_box;
use std::net::SocketAddr;

use aquatic_common::InfoHash;
use rand::Rng;
use siphasher::sip::SipHasher13;

use crate::accesses;
use crate::expiry::Cursor;
use crate::large::{Big, Bigs};
use crate::order::{Moves, Seats};
use crate::payload::{self, BIG_MIN, Content, SMALL_MAX, class_of};
use crate::peer_format::Kind;
use crate::sample;
use crate::slab::{LINE, Slab};
use crate::table::{BATCH, Name, Slot, Table};
use crate::tick::Stamp;
use crate::types::{FamilyStats, Stored};

/// What the limits still allow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) torrents: bool,
    /// For torrents of any size.
    pub(crate) peers: bool,
    /// For torrents with fewer than [`SMALL_TORRENT`] peers.
    pub(crate) peers_of_small_torrents: bool,
    pub(crate) peers_per_torrent: u32,
}

/// What became of an announced peer.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) stored: Stored,
    /// The torrent, unless it is unknown.
    pub(crate) torrent: Option<Slot>,
    /// Where the peer is, if it is in the swarm.
    pub(crate) position: Option<u32>,
}

impl Place {
    pub(crate) fn nowhere(stored: Stored, torrent: Option<Slot>) -> Self {
        Self { stored, torrent, position: None }
    }
}

/// Torrents with fewer peers than this may use the reserve.
pub(crate) const SMALL_TORRENT: u32 = 3;

/// The swarms of one family.
#[derive(Debug)]
pub(crate) struct Store<K: Kind> {
    pub(crate) table: Table,
    pub(crate) lists: Slab<K::Peer>,
    pub(crate) bigs: Bigs<K>,
    pub(crate) seeders: u64,
    pub(crate) leechers: u64,
    pub(crate) cursor: Cursor,
}

/// The peers that a reply may carry: leechers or all, without the requester.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) leechers_only: bool,
    /// Its position.
    pub(crate) requester: Option<u32>,
}

/// Neighbours in a swarm, but one.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    first: u32,
    count: u32,
    /// The position that is left out, if it is one of theirs.
    without: u32,
}

impl Choice {
    /// Seeders and leechers.
    #[inline]
    fn groups(self, seats: Seats) -> (Group, Group) {
        let seeders = if self.leechers_only { 0 } else { seats.seeders };
        (Group::new(0, seeders, self.requester), Group::new(seats.seeders, seats.leechers(), self.requester))
    }

    #[inline]
    pub(crate) fn count(self, seats: Seats) -> u32 {
        let (seeders, leechers) = self.groups(seats);
        seeders.count + leechers.count
    }

    /// Visits `count` of them, each as likely as any other, seeders and leechers in proportion, in runs of neighbours:
    /// position and length.
    #[inline]
    fn runs(self, seats: Seats, count: u32, rng: &mut impl Rng, mut visit: impl FnMut(u32, u32)) {
        let (seeders, leechers) = self.groups(seats);
        let share = sample::proportion(rng, seeders.count, leechers.count, count);
        seeders.runs(share, rng, &mut visit);
        leechers.runs(count - share, rng, visit);
    }
}

impl Group {
    #[inline]
    fn new(first: u32, len: u32, requester: Option<u32>) -> Self {
        match requester {
            Some(at) if at >= first && at < first + len => Self { first, count: len - 1, without: at },
            Some(_) | None => Self { first, count: len, without: first + len },
        }
    }

    fn runs(self, count: u32, rng: &mut impl Rng, mut visit: impl FnMut(u32, u32)) {
        sample::runs(rng, self.count, count, |begin, len| {
            for (at, len) in self.pieces(begin, len).into_iter().filter(|(_, len)| *len > 0) {
                visit(at, len);
            }
        });
    }

    /// Where some neighbours sit, as position and length: in one piece, or before and behind the one left out.
    #[inline]
    fn pieces(self, begin: u32, len: u32) -> [(u32, u32); 2] {
        let at = self.first + begin;
        let before = self.without.saturating_sub(at).min(len);
        [(at, before), (at + before + 1, len - before)]
    }
}

fn follow<P: Copy>(peers: &mut [P], steps: Moves) {
    for (from, to) in steps.into_iter().flatten() {
        peers[to as usize] = peers[from as usize];
    }
}

impl<K: Kind> Store<K> {
    pub(crate) fn new(hasher: SipHasher13) -> Self {
        Self {
            table: Table::new(hasher),
            lists: Slab::new(&payload::CAPACITIES),
            bigs: Bigs::new(hasher),
            seeders: 0,
            leechers: 0,
            cursor: Cursor::default(),
        }
    }

    pub(crate) fn peers(&self) -> u64 {
        self.seeders + self.leechers
    }

    #[inline]
    pub(crate) fn find(&self, info_hash: &InfoHash) -> Option<Slot> {
        self.table.find(self.table.name(info_hash))
    }

    #[inline]
    pub(crate) fn content(&self, slot: Slot) -> Content<K::Peer> {
        Content::from_payload::<K>(self.table.payload(slot))
    }

    pub(crate) fn seats(&self, slot: Slot) -> Seats {
        self.seats_of(self.content(slot))
    }

    fn seats_of(&self, content: Content<K::Peer>) -> Seats {
        match content {
            Content::One(peer) => Seats { seeders: K::stamp(peer).seeder().into(), len: 1 },
            Content::List { seats, .. } => seats,
            Content::Big(number) => self.bigs.get(number).map_or_else(Seats::default, Big::seats),
        }
    }

    /// Writes `count` of the chosen peers of a torrent, of which there are at least as many, each as likely as any other.
    /// Returns the bytes written.
    pub(crate) fn sample(
        &self,
        slot: Slot,
        choice: Choice,
        count: u32,
        rng: &mut impl Rng,
        out: &mut [u8],
    ) -> usize {
        let mut written = 0;
        let mut write = |peers: &[K::Peer]| {
            K::write_all(peers, &mut out[written..]);
            written += peers.len() * K::WIRE;
        };
        match self.content(slot) {
            Content::One(peer) => write(&[peer]),
            Content::List { block, seats } => {
                let peers = self.lists.get(block);
                choice.runs(seats, count, rng, |at, len| write(&peers[at as usize..(at + len) as usize]));
            }
            Content::Big(number) => {
                let Some(big) = self.bigs.get(number) else { return 0 };
                choice.runs(big.seats(), count, rng, |at, len| big.slices(at, len).for_each(&mut write));
            }
        }
        written
    }

    /// Stores a peer or updates what is known of it. Returns where its torrent and the peer in it are, if they are known.
    pub(crate) fn put(
        &mut self,
        info_hash: &InfoHash,
        peer: K::Peer,
        room: Room,
        rng: &mut impl Rng,
    ) -> Place {
        let name = self.table.name(info_hash);
        let Some(slot) = self.table.find(name) else {
            return self.put_first(name, peer, room);
        };
        if let Some(at) = self.position(slot, peer) {
            let at = self.restamp(slot, at, K::stamp(peer), rng);
            return Place { stored: Stored::Updated, torrent: Some(slot), position: Some(at) };
        }
        let len = self.seats(slot).len;
        let small = len < SMALL_TORRENT && room.peers_of_small_torrents;
        if len >= room.peers_per_torrent {
            return Place::nowhere(Stored::RefusedPeersPerTorrent, Some(slot));
        }
        if !room.peers && !small {
            return Place::nowhere(Stored::RefusedPeers, Some(slot));
        }
        match self.add(slot, peer, rng) {
            Some(at) => {
                self.count(K::stamp(peer), true);
                Place { stored: Stored::Added, torrent: Some(slot), position: Some(at) }
            }
            None => Place::nowhere(Stored::RefusedPeersPerTorrent, Some(slot)),
        }
    }

    fn put_first(&mut self, name: Name, peer: K::Peer, room: Room) -> Place {
        if !room.torrents {
            return Place::nowhere(Stored::RefusedTorrents, None);
        }
        if room.peers_per_torrent == 0 {
            return Place::nowhere(Stored::RefusedPeersPerTorrent, None);
        }
        if !room.peers && !room.peers_of_small_torrents {
            return Place::nowhere(Stored::RefusedPeers, None);
        }
        let payload = self.single(peer);
        let Some(slot) = self.table.insert(name, payload) else {
            self.release(payload);
            return Place::nowhere(Stored::RefusedTorrents, None);
        };
        self.count(K::stamp(peer), true);
        Place { stored: Stored::Added, torrent: Some(slot), position: Some(0) }
    }

    /// The payload of a torrent with one peer.
    fn single(&mut self, peer: K::Peer) -> u64 {
        K::to_payload(peer).unwrap_or_else(|| {
            let block = self.lists.alloc(class_of(1));
            self.lists.get_mut(block)[0] = peer;
            Content::<K::Peer>::list(block, Seats { seeders: K::stamp(peer).seeder().into(), len: 1 })
        })
    }

    /// Frees what a payload leads to.
    pub(crate) fn release(&mut self, payload: u64) {
        match Content::from_payload::<K>(payload) {
            Content::One(_) => {}
            Content::List { block, .. } => self.lists.free(block),
            Content::Big(number) => self.bigs.destroy(number),
        }
    }

    pub(crate) fn count(&mut self, stamp: Stamp, up: bool) {
        let counter = if stamp.seeder() { &mut self.seeders } else { &mut self.leechers };
        *counter = if up { *counter + 1 } else { *counter - 1 };
    }

    fn position(&self, slot: Slot, peer: K::Peer) -> Option<u32> {
        match self.content(slot) {
            Content::One(other) => K::same_key(other, peer).then_some(0),
            Content::List { block, seats } => {
                let peers = &self.lists.get(block)[..seats.len as usize];
                accesses::touch(1 + peers.len() / 8);
                K::position(peers, peer).map(|at| at as u32)
            }
            Content::Big(number) => self.bigs.get(number)?.find(&self.bigs.hasher, peer),
        }
    }

    /// Updates the peer at a position. Returns its new position.
    fn restamp(&mut self, slot: Slot, at: u32, stamp: Stamp, rng: &mut impl Rng) -> u32 {
        let (old, at) = match self.content(slot) {
            Content::One(peer) => {
                if let Some(payload) = K::to_payload(K::with_stamp(peer, stamp)) {
                    self.table.set_payload(slot, payload);
                }
                (K::stamp(peer), 0)
            }
            Content::List { block, mut seats } => {
                let peers = self.lists.get_mut(block);
                let peer = peers[at as usize];
                let (old, peer) = (K::stamp(peer), K::with_stamp(peer, stamp));
                let to = if old.seeder() == stamp.seeder() {
                    let to = seats.beside(at, rng);
                    peers[at as usize] = peers[to as usize];
                    to
                } else {
                    let (to, steps) = seats.turn(at, rng);
                    follow(peers, steps);
                    self.table.set_payload(slot, Content::<K::Peer>::list(block, seats));
                    to
                };
                self.lists.get_mut(block)[to as usize] = peer;
                (old, to)
            }
            Content::Big(number) => match self.bigs.get_mut(number) {
                Some((big, hasher)) => (K::stamp(big.get(at)), big.restamp(hasher, at, stamp, rng)),
                None => (stamp, at),
            },
        };
        if old.seeder() != stamp.seeder() {
            self.count(old, false);
            self.count(stamp, true);
            if stamp.seeder() {
                self.table.count_completed(slot);
            }
        }
        at
    }

    /// Adds a peer to a torrent that does not have it. Returns its position.
    fn add(&mut self, slot: Slot, peer: K::Peer, rng: &mut impl Rng) -> Option<u32> {
        match self.content(slot) {
            Content::One(first) => {
                let block = self.lists.alloc(class_of(2));
                let peers = self.lists.get_mut(block);
                peers[0] = first;
                let seats = Seats { seeders: K::stamp(first).seeder().into(), len: 1 };
                Some(self.append(slot, block, seats, peer, rng))
            }
            Content::List { block, seats } if seats.len < SMALL_MAX => {
                let (old, new) = (class_of(seats.len), class_of(seats.len + 1));
                let block =
                    if old == new { block } else { self.lists.resize(block, new, seats.len as usize) };
                Some(self.append(slot, block, seats, peer, rng))
            }
            Content::List { block, seats } => {
                let number = self.bigs.create(&self.lists.get(block)[..seats.len as usize])?;
                self.lists.free(block);
                self.table.set_payload(slot, Content::<K::Peer>::big(number));
                self.add_to_big(number, peer)
            }
            Content::Big(number) => self.add_to_big(number, peer),
        }
    }

    fn add_to_big(&mut self, number: u32, peer: K::Peer) -> Option<u32> {
        let (big, hasher) = self.bigs.get_mut(number)?;
        let at = big.add(hasher, peer)?;
        self.bigs.count_peers(1, 0);
        Some(at)
    }

    /// Adds a peer to a list whose block has room for it.
    fn append(&mut self, slot: Slot, block: u32, mut seats: Seats, peer: K::Peer, rng: &mut impl Rng) -> u32 {
        let (at, steps) = seats.admit(K::stamp(peer).seeder(), rng);
        let peers = self.lists.get_mut(block);
        follow(peers, steps);
        peers[at as usize] = peer;
        self.table.set_payload(slot, Content::<K::Peer>::list(block, seats));
        at
    }

    /// Forgets a peer, if it is known. Returns where its torrent is, if that still has peers.
    pub(crate) fn remove(&mut self, info_hash: &InfoHash, peer: K::Peer) -> (Stored, Option<Slot>) {
        let Some(slot) = self.find(info_hash) else {
            return (Stored::Absent, None);
        };
        match self.position(slot, peer) {
            None => (Stored::Absent, Some(slot)),
            Some(at) => (Stored::Removed, self.remove_at(slot, at).then_some(slot)),
        }
    }

    /// Forgets the peer at a position. Returns whether the torrent still has peers; if not, it is forgotten too.
    pub(crate) fn remove_at(&mut self, slot: Slot, at: u32) -> bool {
        match self.content(slot) {
            Content::One(peer) => {
                self.count(K::stamp(peer), false);
                self.table.remove(slot);
                false
            }
            Content::List { block, mut seats } => {
                let peers = self.lists.get_mut(block);
                let stamp = K::stamp(peers[at as usize]);
                follow(peers, seats.dismiss(at));
                self.count(stamp, false);
                self.refit(slot, block, seats)
            }
            Content::Big(number) => {
                let Some((big, hasher)) = self.bigs.get_mut(number) else {
                    return false;
                };
                let stamp = K::stamp(big.get(at));
                big.remove(hasher, at);
                self.bigs.count_peers(0, 1);
                self.count(stamp, false);
                self.make_small(slot, number);
                true
            }
        }
    }

    /// Gives a list that has become shorter by one the block it needs. Returns whether anything is left.
    fn refit(&mut self, slot: Slot, block: u32, seats: Seats) -> bool {
        if seats.len == 0 {
            self.lists.free(block);
            self.table.remove(slot);
            return false;
        }
        let inline = if seats.len == 1 { K::to_payload(self.lists.get(block)[0]) } else { None };
        let payload = if let Some(payload) = inline {
            self.lists.free(block);
            payload
        } else {
            let (old, new) = (class_of(seats.len + 1), class_of(seats.len));
            let block = if old == new { block } else { self.lists.resize(block, new, seats.len as usize) };
            Content::<K::Peer>::list(block, seats)
        };
        self.table.set_payload(slot, payload);
        true
    }

    /// Turns a large swarm that has become small into a list.
    fn make_small(&mut self, slot: Slot, number: u32) {
        let Some(big) = self.bigs.get(number) else {
            return;
        };
        let seats = big.seats();
        if seats.len > BIG_MIN {
            return;
        }
        let block = self.lists.alloc(class_of(seats.len));
        let peers = self.lists.get_mut(block);
        for (at, peer) in (0..seats.len).zip(peers) {
            *peer = big.get(at);
        }
        self.bigs.destroy(number);
        self.table.set_payload(slot, Content::<K::Peer>::list(block, seats));
    }

    /// The torrents and peers to come, in any number.
    pub(crate) fn prefetch<'a>(&self, announces: impl IntoIterator<Item = (&'a InfoHash, K::Peer)>) {
        let mut announces = announces.into_iter().peekable();
        while announces.peek().is_some() {
            let mut names = [Name::default(); BATCH];
            let mut peers = [None; BATCH];
            let mut count = 0;
            for (info_hash, peer) in announces.by_ref().take(BATCH) {
                (names[count], peers[count]) = (self.table.name(info_hash), Some(peer));
                count += 1;
            }
            self.prefetch_batch(&names[..count], &peers);
        }
    }

    /// The torrents of a scrape to come.
    pub(crate) fn prefetch_scrape(&self, info_hashes: &[InfoHash]) {
        for info_hashes in info_hashes.chunks(BATCH) {
            let mut names = [Name::default(); BATCH];
            for (name, info_hash) in names.iter_mut().zip(info_hashes) {
                *name = self.table.name(info_hash);
            }
            let mut bigs = [None; BATCH];
            self.table.prefetch(&names[..info_hashes.len()], |at, payload| {
                if let Content::Big(number) = Content::from_payload::<K>(payload) {
                    bigs[at] = self.bigs.get(number);
                }
            });
            black_box(bigs.iter().flatten().fold(0, |sum, big| sum ^ big.touch()));
        }
    }

    fn prefetch_batch(&self, names: &[Name], peers: &[Option<K::Peer>; BATCH]) {
        let (mut lists, mut bigs) = ([(0, 0); BATCH], [None; BATCH]);
        let mut places = lists.iter_mut();
        self.table.prefetch(names, |at, payload| match Content::from_payload::<K>(payload) {
            Content::One(_) => {}
            Content::List { block, seats } => {
                if let Some(place) = places.next() {
                    *place = (block, seats.len);
                }
            }
            Content::Big(number) => bigs[at] = self.bigs.get(number).zip(peers[at]),
        });
        for (block, len) in lists.into_iter().take_while(|(_, len)| *len > 0) {
            let line = (LINE / size_of::<K::Peer>()).max(1);
            for at in (0..len).step_by(line).chain([len - 1]) {
                black_box(K::stamp(*self.lists.unit(block + at)));
            }
        }
        self.prefetch_bigs(&bigs);
    }

    /// Loads what finding peers in large swarms takes, each for all at once: the swarms, buckets of their indexes, peers.
    fn prefetch_bigs(&self, bigs: &[Option<(&Big<K>, K::Peer)>; BATCH]) {
        let bigs = || bigs.iter().flatten();
        black_box(bigs().fold(0, |sum, (big, _)| sum ^ big.touch()));
        let mut hashes = [0; BATCH];
        for ((big, peer), hash) in bigs().zip(&mut hashes) {
            *hash = K::hash(*peer, &self.bigs.hasher);
            black_box(big.touch_bucket(*hash));
        }
        for ((big, _), hash) in bigs().zip(hashes) {
            black_box(big.candidate(hash).map(K::stamp));
        }
    }

    pub(crate) fn stats(&self) -> FamilyStats {
        FamilyStats {
            torrents: self.table.len(),
            seeders: self.seeders,
            leechers: self.leechers,
            bytes: (self.table.bytes() + self.lists.bytes() + self.bigs.bytes()) as u64,
        }
    }

    pub(crate) fn for_each_peer(&self, visit: &mut impl FnMut(InfoHash, SocketAddr, bool)) {
        let mut pass_on = |info_hash, peer| visit(info_hash, K::address(peer), K::stamp(peer).seeder());
        self.table.for_each(|info_hash, payload| match Content::from_payload::<K>(payload) {
            Content::One(peer) => pass_on(info_hash, peer),
            Content::List { block, seats } => {
                let peers = &self.lists.get(block)[..seats.len as usize];
                peers.iter().for_each(|peer| pass_on(info_hash, *peer));
            }
            Content::Big(number) => {
                let Some(big) = self.bigs.get(number) else { return };
                (0..big.seats().len).for_each(|at| pass_on(info_hash, big.get(at)));
            }
        });
    }

    /// Verifies counts against content, and that everything is found where it is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut seeders, mut leechers, mut lists, mut bigs) = (0, 0, 0, 0);
        let mut wrong = None;
        self.table.check()?;
        self.table.for_each(|info_hash, payload| {
            let content = Content::from_payload::<K>(payload);
            let seats = self.seats_of(content);
            match content {
                Content::One(_) => {}
                Content::List { block, .. } => {
                    lists += 1;
                    let peers = self.lists.get(block);
                    let at_home = |at: usize| K::stamp(peers[at]).seeder() == (at < seats.seeders as usize);
                    if peers.len() != payload::CAPACITIES[class_of(seats.len)] as usize
                        || !(0..seats.len as usize).all(at_home)
                    {
                        wrong = Some(format!("list of {info_hash}: {seats:?} in a block of {}", peers.len()));
                    }
                }
                Content::Big(_) => bigs += 1,
            }
            if seats.len == 0 {
                wrong = Some(format!("{info_hash} has no peers"));
            }
            seeders += u64::from(seats.seeders);
            leechers += u64::from(seats.leechers());
        });
        self.bigs.check()?;
        let counted = (self.seeders, self.leechers, self.lists.blocks(), self.bigs.count());
        if (seeders, leechers, lists, bigs) != counted {
            return Err(format!("{:?} counted as {counted:?}", (seeders, leechers, lists, bigs)));
        }
        wrong.map_or(Ok(()), Err)
    }
}
