//! Swarms too large to be searched from end to end: two arrays of peers, which never move as a whole, and an index into them.

use rand::Rng;
use siphasher::sip::SipHasher13;

use crate::index::{self, Index};
use crate::order::Seats;
use crate::peer_format::Kind;
use crate::sample::below;
use crate::segmented::Chunked;
use crate::tick::Stamp;
use crate::types::MAX_PEERS_PER_TORRENT;

/// One large swarm. Whoever comes sits down behind the others of the same role, and the last of them fills the gap of who
/// goes; so others keep their seats, which are costly to change: the index has to be told.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Big<K: Kind> {
    index: Index,
    seeders: Chunked<K::Peer, PIECE>,
    leechers: Chunked<K::Peer, PIECE>,
}

/// Peers that lie together in a large swarm.
const PIECE: usize = 2048;

/// What the index knows of a seat: the seeders' from 0 up, the leechers' from [`NOWHERE`] down. As all together are fewer
/// there is never one seat for two.
type Address = u32;

/// No peer ever sits here. In the index for as long as two change seats.
const NOWHERE: Address = MAX_PEERS_PER_TORRENT;

/// Of so many announces that change nothing else, one has the peer change seats with another of its role. Replies take some
/// who sit next to each other; so these are others after a while. Each change of seats costs some cache misses.
const STIR: u32 = 4;

/// Who sits in a seat that is taken.
fn sitting<P: Copy>(seeders: &Chunked<P, PIECE>, leechers: &Chunked<P, PIECE>, address: Address) -> P {
    if address < seeders.len() { seeders.get(address) } else { leechers.get(NOWHERE - 1 - address) }
}

impl<K: Kind> Big<K> {
    fn new() -> Self {
        Self { index: Index::new(), seeders: Chunked::new(), leechers: Chunked::new() }
    }

    pub(crate) fn seats(&self) -> Seats {
        let seeders = self.seeders.len();
        Seats { seeders, len: seeders + self.leechers.len() }
    }

    /// The peer at a position: seeders first, then leechers.
    pub(crate) fn get(&self, at: u32) -> K::Peer {
        self.sitting(self.address(at))
    }

    /// The peers from a position on, all of one role, in the slices they lie in.
    pub(crate) fn slices(&self, at: u32, len: u32) -> impl Iterator<Item = &[K::Peer]> {
        match at.checked_sub(self.seeders.len()) {
            None => self.seeders.slices(at, len),
            Some(at) => self.leechers.slices(at, len),
        }
    }

    fn address(&self, at: u32) -> Address {
        at.checked_sub(self.seeders.len()).map_or(at, |at| NOWHERE - 1 - at)
    }

    fn position(&self, address: Address) -> u32 {
        let seeders = self.seeders.len();
        if address < seeders { address } else { seeders + NOWHERE - 1 - address }
    }

    fn sitting(&self, address: Address) -> K::Peer {
        sitting(&self.seeders, &self.leechers, address)
    }

    fn set(&mut self, address: Address, peer: K::Peer) {
        if address < self.seeders.len() {
            self.seeders.set(address, peer);
        } else {
            self.leechers.set(NOWHERE - 1 - address, peer);
        }
    }

    pub(crate) fn find(&self, hasher: &SipHasher13, peer: K::Peer) -> Option<u32> {
        let is_it = |address| K::same_key(self.sitting(address), peer);
        self.index.find(K::hash(peer, hasher), is_it).map(|address| self.position(address))
    }

    /// Loads the swarm itself.
    #[inline]
    pub(crate) fn touch(&self) -> u32 {
        self.seeders.len() ^ self.leechers.len() ^ self.index.len()
    }

    /// Loads where the peer with this hash is to be found, for [`Self::candidate`].
    #[inline]
    pub(crate) fn touch_bucket(&self, hash: u64) -> u32 {
        self.index.touch(hash)
    }

    /// The peer that is most likely the one with this hash.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Option<K::Peer> {
        self.index.candidate(hash).map(|address| self.sitting(address))
    }

    /// Adds a peer that is not in the swarm. `None`, without a change, if the index cannot take it.
    pub(crate) fn add(&mut self, hasher: &SipHasher13, peer: K::Peer) -> Option<u32> {
        let seeder = K::stamp(peer).seeder();
        let address = self.next(seeder);
        self.row(seeder).push(peer);
        let peer_at = |address| sitting(&self.seeders, &self.leechers, address);
        let added = self.index.insert(K::hash(peer, hasher), address, peer_at, |peer| K::hash(peer, hasher));
        if added.is_none() {
            self.row(seeder).pop();
        }
        added.map(|()| self.position(address))
    }

    /// Where the next of a role sits down.
    fn next(&self, seeder: bool) -> Address {
        if seeder { self.seeders.len() } else { NOWHERE - 1 - self.leechers.len() }
    }

    fn row(&mut self, seeder: bool) -> &mut Chunked<K::Peer, PIECE> {
        if seeder { &mut self.seeders } else { &mut self.leechers }
    }

    /// Gives the peer at a position a new stamp, and with it perhaps a new role and position.
    pub(crate) fn restamp(&mut self, hasher: &SipHasher13, at: u32, stamp: Stamp, rng: &mut impl Rng) -> u32 {
        let address = self.address(at);
        let old = self.sitting(address);
        let peer = K::with_stamp(old, stamp);
        if K::stamp(old).seeder() == stamp.seeder() {
            self.set(address, peer);
            if below(rng, STIR) > 0 {
                return at;
            }
            let to = self.seats().beside(at, rng);
            self.swap(hasher, address, self.address(to));
            return to;
        }
        let to = self.next(stamp.seeder());
        self.index.moved(K::hash(peer, hasher), address, to);
        self.close_gap(hasher, address);
        self.row(stamp.seeder()).push(peer);
        self.position(to)
    }

    pub(crate) fn remove(&mut self, hasher: &SipHasher13, at: u32) {
        let address = self.address(at);
        self.index.remove(K::hash(self.sitting(address), hasher), address);
        self.close_gap(hasher, address);
    }

    /// Has the last of the row sit down where the index knows no one.
    fn close_gap(&mut self, hasher: &SipHasher13, gap: Address) {
        let seeder = gap < self.seeders.len();
        let last = if seeder { self.seeders.len() - 1 } else { NOWHERE - self.leechers.len() };
        if last != gap {
            let peer = self.sitting(last);
            self.index.moved(K::hash(peer, hasher), last, gap);
            self.set(gap, peer);
        }
        self.row(seeder).pop();
    }

    /// Has two peers of one role change seats.
    fn swap(&mut self, hasher: &SipHasher13, a: Address, b: Address) {
        if a == b {
            return;
        }
        let (first, second) = (self.sitting(a), self.sitting(b));
        let (first_hash, second_hash) = (K::hash(first, hasher), K::hash(second, hasher));
        self.index.moved(first_hash, a, NOWHERE);
        self.index.moved(second_hash, b, a);
        self.index.moved(first_hash, NOWHERE, b);
        self.set(a, second);
        self.set(b, first);
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.seeders.bytes() + self.leechers.bytes() + self.index.bytes()
    }

    fn check(&self, hasher: &SipHasher13) -> Result<(), String> {
        let seats = self.seats();
        for at in 0..seats.len {
            let peer = self.get(at);
            if self.find(hasher, peer) != Some(at) {
                return Err(format!("{peer:?} is not found at {at}"));
            }
            if K::stamp(peer).seeder() != (at < seats.seeders) {
                return Err(format!("{peer:?} sits at {at} of {seats:?}"));
            }
        }
        if self.index.len() != seats.len {
            return Err(format!("{seats:?}, {} in the index", self.index.len()));
        }
        self.index.check()
    }
}

/// The large swarms of one family, by number.
#[derive(Debug)]
pub(crate) struct Bigs<K: Kind> {
    swarms: Vec<Option<Box<Big<K>>>>,
    vacant: Vec<u32>,
    pub(crate) hasher: SipHasher13,
    /// Of all of them.
    peers: u64,
}

impl<K: Kind> Bigs<K> {
    pub(crate) fn new(hasher: SipHasher13) -> Self {
        Self { swarms: Vec::new(), vacant: Vec::new(), hasher, peers: 0 }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Big<K>> {
        self.swarms.get(number as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<(&mut Big<K>, &SipHasher13)> {
        let big = self.swarms.get_mut(number as usize)?.as_deref_mut()?;
        Some((big, &self.hasher))
    }

    /// Makes a large swarm of some peers. `None`, without a change, if the index cannot take them.
    pub(crate) fn create(&mut self, peers: &[K::Peer]) -> Option<u32> {
        let mut big = Box::new(Big::new());
        for &peer in peers {
            big.add(&self.hasher, peer)?;
        }
        self.count_peers(peers.len() as u32, 0);
        if let Some(number) = self.vacant.pop() {
            self.swarms[number as usize] = Some(big);
            return Some(number);
        }
        self.swarms.push(Some(big));
        Some(self.swarms.len() as u32 - 1)
    }

    pub(crate) fn destroy(&mut self, number: u32) {
        if let Some(big) = self.swarms[number as usize].take() {
            self.count_peers(0, big.seats().len);
            self.vacant.push(number);
        }
    }

    /// About what all of them take. Each could tell exactly, but lies elsewhere in memory, and there may be thousands.
    pub(crate) fn bytes(&self) -> usize {
        let fixed = self.swarms.capacity() * size_of::<usize>() + self.vacant.capacity() * size_of::<u32>();
        // Arrays have a sixteenth more than they need, on average.
        let peers = self.peers as usize * (size_of::<K::Peer>() + index::BYTES_PER_ITEM) * 17 / 16;
        fixed + self.count() * size_of::<Big<K>>() + peers
    }

    /// Notes that peers came to large swarms or left them.
    pub(crate) fn count_peers(&mut self, came: u32, left: u32) {
        self.peers = self.peers + u64::from(came) - u64::from(left);
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let peers = self.swarms.iter().flatten().map(|big| u64::from(big.seats().len)).sum::<u64>();
        if peers != self.peers {
            return Err(format!("{peers} peers of large swarms, counted as {}", self.peers));
        }
        self.swarms.iter().flatten().try_for_each(|big| big.check(&self.hasher))
    }

    /// Large swarms that exist.
    pub(crate) fn count(&self) -> usize {
        self.swarms.len() - self.vacant.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use aquatic_common::Seconds;

    use super::*;
    use crate::peer_format::V4;
    use crate::tick::Tick;

    #[test]
    fn what_swarms_take_is_estimated_well() {
        for (peers, tolerance) in [(200_u32, 0.25), (1000, 0.15), (5000, 0.15), (100_000, 0.15)] {
            let mut bigs = Bigs::<V4>::new(SipHasher13::new_with_keys(1, 2));
            let number = bigs.create(&[]).unwrap();
            let (big, hasher) = bigs.get_mut(number).unwrap();
            for number in 0..peers {
                let stamp = Stamp::new(Tick::at(Seconds(800)), number.is_multiple_of(3));
                big.add(hasher, V4::peer(Ipv4Addr::from_bits(number), 6881, stamp)).unwrap();
            }
            let exact = big.bytes() as f64;
            bigs.count_peers(peers, 0);
            let estimate = bigs.bytes() as f64;
            assert!((estimate / exact - 1.0).abs() < tolerance, "{peers}: {estimate} for {exact}");
        }
    }
}
