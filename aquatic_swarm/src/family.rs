//! The swarms of one family. A torrent is an entry of the table; its payload is the only peer (IPv4), a list of up to 128
//! in a block of a slab, or the number of a large swarm.

use std::hint::black_box;
use std::net::SocketAddr;

use aquatic_common::InfoHash;
use rand::Rng;
use siphasher::sip::SipHasher13;

use crate::big::{Big, Bigs};
use crate::expiry::Cursor;
use crate::index::Bucket;
use crate::payload::{self, BIG_MIN, Content, SMALL_MAX, class_of};
use crate::peer::Kind;
use crate::sample;
use crate::seats::Seats;
use crate::slab::{LINE, Slab};
use crate::steps;
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

/// The peers of one torrent.
#[derive(Debug)]
pub(crate) enum Swarm<'a, K: Kind> {
    One(K::Peer),
    List(&'a [K::Peer], Seats),
    Big(&'a Big<K>),
}

impl<K: Kind> Swarm<'_, K> {
    pub(crate) fn seats(&self) -> Seats {
        match self {
            Self::One(peer) => Seats { seeders: K::stamp(*peer).seeder().into(), len: 1 },
            Self::List(_, seats) => *seats,
            Self::Big(big) => big.seats(),
        }
    }

    /// Writes a uniform sample of `count` of the chosen peers, of which there are at least as many. Returns the bytes
    /// written.
    pub(crate) fn sample(&self, choice: Choice, count: u32, rng: &mut impl Rng, out: &mut [u8]) -> usize {
        let places = out.chunks_exact_mut(K::WIRE);
        match self {
            Self::One(peer) => fill::<K>(choice, count, rng, places, |_| *peer),
            Self::List(peers, _) => fill::<K>(choice, count, rng, places, |at| peers[at as usize]),
            Self::Big(big) => fill::<K>(choice, count, rng, places, |at| big.get(at)),
        }
        count as usize * K::WIRE
    }
}

fn fill<'a, K: Kind>(
    choice: Choice,
    count: u32,
    rng: &mut impl Rng,
    mut places: impl Iterator<Item = &'a mut [u8]>,
    get: impl Fn(u32) -> K::Peer,
) {
    // Peers of large swarms lie anywhere in memory. Choosing first and looking them up together lets those loads overlap.
    let mut picks = [0; PICKS];
    let mut picked = 0;
    let mut write = |picks: &[u32]| {
        for (pick, place) in picks.iter().zip(&mut places) {
            K::write(get(choice.position(*pick)), place);
        }
    };
    sample::distinct(rng, choice.count, count, |pick| {
        picks[picked] = pick;
        picked += 1;
        if picked == PICKS {
            write(&picks);
            picked = 0;
        }
    });
    write(&picks[..picked]);
}

/// Peers chosen before they are looked up.
const PICKS: usize = 64;

/// The peers that a reply may carry: those from a position on, without the requester.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choice {
    first: u32,
    without: u32,
    pub(crate) count: u32,
}

impl Choice {
    pub(crate) fn new(seats: Seats, leechers_only: bool, requester: Option<u32>) -> Self {
        let first = if leechers_only { seats.seeders } else { 0 };
        let all = seats.len - first;
        match requester {
            Some(at) if at >= first => Self { first, without: at, count: all - 1 },
            Some(_) | None => Self { first, without: u32::MAX, count: all },
        }
    }

    fn position(self, pick: u32) -> u32 {
        let at = self.first + pick;
        at + u32::from(at >= self.without)
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

    #[inline]
    pub(crate) fn swarm(&self, slot: Slot) -> Option<Swarm<'_, K>> {
        Some(match self.content(slot) {
            Content::One(peer) => Swarm::One(peer),
            Content::List { block, seats } => {
                Swarm::List(&self.lists.get(block)[..seats.len as usize], seats)
            }
            Content::Big(number) => Swarm::Big(self.bigs.get(number)?),
        })
    }

    /// Stores a peer or updates what is known of it. Returns where its torrent and the peer in it are, if they are known.
    pub(crate) fn put(
        &mut self,
        info_hash: &InfoHash,
        peer: K::Peer,
        room: Room,
    ) -> (Stored, Option<Slot>, Option<u32>) {
        let name = self.table.name(info_hash);
        let Some(slot) = self.table.find(name) else {
            return self.put_first(name, peer, room);
        };
        if let Some(at) = self.position(slot, peer) {
            let at = self.restamp(slot, at, K::stamp(peer));
            return (Stored::Updated, Some(slot), Some(at));
        }
        let len = self.swarm(slot).map_or(0, |swarm| swarm.seats().len);
        let small = len < SMALL_TORRENT && room.peers_of_small_torrents;
        if len >= room.peers_per_torrent {
            return (Stored::RefusedPeersPerTorrent, Some(slot), None);
        }
        if !room.peers && !small {
            return (Stored::RefusedPeers, Some(slot), None);
        }
        match self.add(slot, peer) {
            Some(at) => {
                self.count(K::stamp(peer), true);
                (Stored::Added, Some(slot), Some(at))
            }
            None => (Stored::RefusedPeersPerTorrent, Some(slot), None),
        }
    }

    fn put_first(&mut self, name: Name, peer: K::Peer, room: Room) -> (Stored, Option<Slot>, Option<u32>) {
        if !room.torrents {
            return (Stored::RefusedTorrents, None, None);
        }
        if room.peers_per_torrent == 0 {
            return (Stored::RefusedPeersPerTorrent, None, None);
        }
        if !room.peers && !room.peers_of_small_torrents {
            return (Stored::RefusedPeers, None, None);
        }
        let payload = self.single(peer);
        let Some(slot) = self.table.insert(name, payload) else {
            self.release(payload);
            return (Stored::RefusedTorrents, None, None);
        };
        self.count(K::stamp(peer), true);
        (Stored::Added, Some(slot), Some(0))
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
        match self.swarm(slot)? {
            Swarm::One(other) => K::same_key(other, peer).then_some(0),
            Swarm::List(peers, _) => {
                steps::touch(1 + peers.len() / 8);
                K::position(peers, peer).map(|at| at as u32)
            }
            Swarm::Big(big) => big.find(&self.bigs.shared, peer),
        }
    }

    /// Updates the peer at a position. Returns its new position.
    fn restamp(&mut self, slot: Slot, at: u32, stamp: Stamp) -> u32 {
        let (old, at) = match self.content(slot) {
            Content::One(peer) => {
                if let Some(payload) = K::to_payload(K::with_stamp(peer, stamp)) {
                    self.table.set_payload(slot, payload);
                }
                (K::stamp(peer), 0)
            }
            Content::List { block, mut seats } => {
                let peers = self.lists.get_mut(block);
                let old = K::stamp(peers[at as usize]);
                peers[at as usize] = K::with_stamp(peers[at as usize], stamp);
                let to = seats.turn(at, stamp.seeder());
                if to != at {
                    peers.swap(at as usize, to as usize);
                }
                if old.seeder() != stamp.seeder() {
                    self.table.set_payload(slot, Content::<K::Peer>::list(block, seats));
                }
                (old, to)
            }
            Content::Big(number) => match self.bigs.get_mut(number) {
                Some((big, shared)) => (K::stamp(big.get(at)), big.restamp(shared, at, stamp)),
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
    fn add(&mut self, slot: Slot, peer: K::Peer) -> Option<u32> {
        match self.content(slot) {
            Content::One(first) => {
                let block = self.lists.alloc(class_of(2));
                let peers = self.lists.get_mut(block);
                peers[0] = first;
                let seats = Seats { seeders: K::stamp(first).seeder().into(), len: 1 };
                Some(self.append(slot, block, seats, peer))
            }
            Content::List { block, seats } if seats.len < SMALL_MAX => {
                let (old, new) = (class_of(seats.len), class_of(seats.len + 1));
                let block =
                    if old == new { block } else { self.lists.resize(block, new, seats.len as usize) };
                Some(self.append(slot, block, seats, peer))
            }
            Content::List { block, seats } => {
                let number = self.bigs.create(&self.lists.get(block)[..seats.len as usize])?;
                self.lists.free(block);
                self.table.set_payload(slot, Content::<K::Peer>::big(number));
                let (big, shared) = self.bigs.get_mut(number)?;
                big.add(shared, peer)
            }
            Content::Big(number) => {
                let (big, shared) = self.bigs.get_mut(number)?;
                big.add(shared, peer)
            }
        }
    }

    /// Adds a peer to a list whose block has room for it.
    fn append(&mut self, slot: Slot, block: u32, mut seats: Seats, peer: K::Peer) -> u32 {
        let (at, step) = seats.admit(K::stamp(peer).seeder());
        let peers = self.lists.get_mut(block);
        if let Some((from, to)) = step {
            peers[to as usize] = peers[from as usize];
        }
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
                for (from, to) in seats.dismiss(at).into_iter().flatten() {
                    peers[to as usize] = peers[from as usize];
                }
                self.count(stamp, false);
                self.refit(slot, block, seats)
            }
            Content::Big(number) => {
                let Some((big, shared)) = self.bigs.get_mut(number) else {
                    return false;
                };
                let stamp = K::stamp(big.get(at));
                big.remove(shared, at);
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

    fn prefetch_batch(&self, names: &[Name], peers: &[Option<K::Peer>; BATCH]) {
        let (mut lists, mut bigs) = ([(0, 0); BATCH], [None; BATCH]);
        let hasher = &self.bigs.shared.hasher;
        let mut places = lists.iter_mut();
        self.table.prefetch(names, |at, payload| match Content::from_payload::<K>(payload) {
            Content::One(_) => {}
            Content::List { block, seats } => {
                if let Some(place) = places.next() {
                    *place = (block, seats.len);
                }
            }
            Content::Big(number) => {
                let big = self.bigs.get(number).zip(peers[at]);
                bigs[at] = big.map(|(big, peer)| (big, K::hash(peer, hasher)));
            }
        });
        for (block, len) in lists.into_iter().take_while(|(_, len)| *len > 0) {
            let line = (LINE / size_of::<K::Peer>()).max(1);
            for at in (0..len).step_by(line).chain([len - 1]) {
                black_box(K::stamp(*self.lists.unit(block + at)));
            }
        }
        self.prefetch_bigs(&bigs);
    }

    /// Loads what finding peers with these hashes in large swarms takes: bucket, items, peer, each for all at once.
    fn prefetch_bigs(&self, bigs: &[Option<(&Big<K>, u64)>; BATCH]) {
        let shared = &self.bigs.shared;
        let mut buckets = [Bucket::default(); BATCH];
        for (bucket, (big, hash)) in buckets.iter_mut().zip(bigs.iter().flatten()) {
            *bucket = big.bucket(*hash);
        }
        black_box(buckets.iter().fold(0, |sum, bucket| sum ^ bucket.any_item(&shared.slab)));
        for (bucket, (big, hash)) in buckets.into_iter().zip(bigs.iter().flatten()) {
            black_box(big.candidate(shared, bucket, *hash).map(K::stamp));
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
            let seats = match Content::from_payload::<K>(payload) {
                Content::One(peer) => Swarm::<K>::One(peer).seats(),
                Content::List { block, seats } => {
                    lists += 1;
                    let peers = self.lists.get(block);
                    let at_home = |at: usize| K::stamp(peers[at]).seeder() == (at < seats.seeders as usize);
                    if peers.len() != payload::CAPACITIES[class_of(seats.len)] as usize
                        || !(0..seats.len as usize).all(at_home)
                    {
                        wrong = Some(format!("list of {info_hash}: {seats:?} in a block of {}", peers.len()));
                    }
                    seats
                }
                Content::Big(number) => {
                    bigs += 1;
                    self.bigs.get(number).map_or_else(Seats::default, Big::seats)
                }
            };
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
