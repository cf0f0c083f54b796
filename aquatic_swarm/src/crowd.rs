//! Many peers of one network, which is an IPv4 address or an IPv6 /64: how many are stored per torrent, and
//! how many of them are in a reply.
//!
//! **Stored** are at most `max_peers_per_address`. The peers of a network are divided into groups by their
//! port (IPv6: port and interface id), and each group has the same maximum. Peers of one group have the same
//! hash, so they share a bucket of a large swarm's index, and finding a peer counts those of its group on the
//! way. This takes no memory, and nothing has to be kept up to date when peers go.
//!
//! **Replies** of a swarm that is *crowded*, in which a network has about a quarter of the peers or more,
//! take only a few peers of a network before those of all others, and have fewer peers than were asked for
//! rather than many of one network. Clients of that network get them. Whether a swarm is crowded is decided
//! when peers are added, so replies of other swarms cost nothing more.

use rand::Rng;
use siphasher::sip::SipHasher13;

use crate::accesses;
use crate::eligible::Eligible;
use crate::order::PeerOrder;
use crate::peer_format::PeerFormat;
use crate::sample::{below, proportion};
use crate::types::MAX_NUMWANT;

/// Desired maximum number of peers per group. With it, a network of 300 peers loses 2 % of them to groups
/// that are full by chance, if 512 are allowed. A bucket of an index has room for 255 peers.
const PEERS_PER_GROUP: u32 = 8;
/// Groups cannot be told apart beyond this, the number of ports.
const MAX_GROUP_BITS: u32 = 16;

/// Division of the peers of a network into groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups {
    bits: u32,
    /// Maximum number of peers per group.
    pub(crate) max: u32,
}

impl Groups {
    /// Returns as many groups, a power of two, as leave each of them [`PEERS_PER_GROUP`] or more, but fewer
    /// than twice as many, of `max_peers_per_address`.
    pub(crate) fn new(max_peers_per_address: u32) -> Self {
        let bits = (max_peers_per_address / PEERS_PER_GROUP).max(1).ilog2().min(MAX_GROUP_BITS);
        Self { bits, max: max_peers_per_address >> bits }
    }

    /// Returns the group of a peer.
    #[inline]
    pub(crate) fn of<K: PeerFormat>(self, peer: K::Peer) -> u16 {
        // Lossless: 16 bits remain at most.
        (u32::from(K::spread(peer)) >> (MAX_GROUP_BITS - self.bits)) as u16
    }
}

/// Keyed hash function of peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerHasher {
    pub(crate) sip: SipHasher13,
    pub(crate) groups: Groups,
}

impl PeerHasher {
    /// Returns whether two peers are of one group, and thus have the same hash.
    #[inline]
    pub(crate) fn same_group<K: PeerFormat>(&self, a: K::Peer, b: K::Peer) -> bool {
        K::network(a) == K::network(b) && self.groups.of::<K>(a) == self.groups.of::<K>(b)
    }

    /// Returns the number of peers of a list that are of the group of a peer.
    pub(crate) fn group_in_list<K: PeerFormat>(&self, peers: &[K::Peer], peer: K::Peer) -> u32 {
        peers.iter().filter(|other| self.same_group::<K>(**other, peer)).count() as u32
    }
}

/// Up to this number of peers of a network do not make a list crowded.
const UNCROWDED: u32 = 4;

/// Returns whether `of_network` peers of one network crowd a list of `len`: more than a quarter.
pub(crate) fn crowds_list(of_network: u32, len: u32) -> bool {
    of_network > UNCROWDED && of_network * 4 > len
}

/// Returns whether any network crowds a list.
pub(crate) fn list_is_crowded<K: PeerFormat>(peers: &[K::Peer]) -> bool {
    let len = peers.len() as u32;
    accesses::add(peers.len());
    peers.iter().any(|peer| crowds_list(K::of_network(peers, *peer), len))
}

/// Returns whether all peers are of one network.
pub(crate) fn is_one_network<K: PeerFormat>(peers: &[K::Peer]) -> bool {
    peers.first().is_none_or(|first| K::of_network(peers, *first) == peers.len() as u32)
}

/// Number of other peers in a peer's group from which on it is checked whether a large swarm is crowded.
pub(crate) const SUSPICIOUS_GROUP: u32 = 2;
/// Number of peers of a large swarm that are compared with a suspicious one.
const PROBES: u32 = 32;
/// Number of these of the same network from which on a large swarm is crowded.
const CROWDED_PROBES: u32 = 10;

/// Estimates whether the network of a peer crowds a swarm of `len` peers, not much fewer than [`PROBES`].
pub(crate) fn crowds_swarm<K: PeerFormat>(
    peer: K::Peer,
    len: u32,
    peer_at: impl Fn(u32) -> K::Peer,
    rng: &mut impl Rng,
) -> bool {
    accesses::add(PROBES as usize);
    let of_network = |_: &u32| K::network(peer_at(below(rng, len))) == K::network(peer);
    (0..PROBES).filter(of_network).count() as u32 >= CROWDED_PROBES
}

/// Number of peers of one family in a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplySize {
    /// Number of peers to return, not more than are eligible.
    pub(crate) count: u32,
    /// Number of peers of all families that the client asked for.
    pub(crate) numwant: u32,
    /// Number of peers of the other family that are in the reply.
    pub(crate) elsewhere: u32,
}

/// Maximum number of peers that are visited for a reply of a crowded swarm.
const MAX_VISITS: usize = MAX_NUMWANT;
/// Minimum number of peers that are visited, if there are as many: a few more than one network can have by
/// default.
const MIN_VISITS: u32 = 576;
/// Number of counters of networks.
const COUNTERS: usize = 1024;
/// A network has at most one of this many peers that were asked for, as long as there are others.
const MAX_SHARE: u32 = 8;

/// Selects the peers of a reply of a crowded swarm.
struct Selection {
    /// Number of peers per network, by a hash with a random factor; one more than the maximum for networks
    /// that have surplus peers.
    counts: [u8; COUNTERS],
    factor: u64,
    max_per_network: u8,
    /// Number of networks that have surplus peers.
    surplus_networks: u32,
    /// Positions of peers that are not surplus.
    first: [u32; MAX_VISITS],
    firsts: usize,
    /// Positions of the other peers of networks that have as many as they may have.
    surplus: [u32; MAX_VISITS],
    surpluses: usize,
}

impl Selection {
    fn new(numwant: u32, rng: &mut impl Rng) -> Self {
        Self {
            counts: [0; COUNTERS],
            factor: rng.next_u64() | 1,
            max_per_network: (numwant / MAX_SHARE).clamp(2, u32::from(u8::MAX) - 1) as u8,
            surplus_networks: 0,
            first: [0; MAX_VISITS],
            firsts: 0,
            surplus: [0; MAX_VISITS],
            surpluses: 0,
        }
    }

    /// Position of the counter of a network.
    fn counter(&self, network: u64) -> usize {
        // Twice, since products of neighbouring networks with some factors have equal upper bits.
        let product = network.wrapping_mul(self.factor);
        ((product ^ product >> 32).wrapping_mul(self.factor) >> 54) as usize
    }

    fn visit(&mut self, position: u32, network: u64) {
        let counter = self.counter(network);
        let count = self.counts[counter];
        if count <= self.max_per_network {
            self.counts[counter] = count + 1;
            self.surplus_networks += u32::from(count == self.max_per_network);
        }
        let (list, len) = if count < self.max_per_network {
            (&mut self.first, &mut self.firsts)
        } else {
            (&mut self.surplus, &mut self.surpluses)
        };
        if let Some(entry) = list.get_mut(*len) {
            *entry = position;
            *len += 1;
        }
    }

    /// Returns whether a network may have surplus peers.
    fn has_surplus(&self, network: u64) -> bool {
        self.counts[self.counter(network)] > self.max_per_network
    }

    /// Returns the maximum number of surplus peers for a client of another network: with them a reply has
    /// half of the peers that were asked for, and surplus networks not more than all others. There is no
    /// maximum if all peers are of one network.
    fn max_surplus(&self, ReplySize { numwant, elsewhere, .. }: ReplySize) -> usize {
        let (elsewhere, numwant) = (elsewhere as usize, numwant as usize);
        let of_surplus_networks = (self.surplus_networks * u32::from(self.max_per_network)) as usize;
        match self.firsts.saturating_sub(of_surplus_networks) + elsewhere {
            0 if self.surplus_networks == 1 => MAX_VISITS,
            others => {
                let missing = (numwant / 2).saturating_sub(self.firsts + elsewhere);
                missing.min(others.saturating_sub(of_surplus_networks))
            }
        }
    }
}

/// Looks at eligible peers of a crowded swarm for a reply with `count` of them.
fn look<K: PeerFormat>(
    (order, eligible): (PeerOrder, Eligible),
    (count, numwant): (u32, u32),
    peer_at: impl Fn(u32) -> K::Peer,
    rng: &mut impl Rng,
) -> Selection {
    let mut selection = Selection::new(numwant, rng);
    let (seeders, leechers) = eligible.groups(order);
    let visits = count.saturating_mul(4).clamp(MIN_VISITS, MAX_VISITS as u32);
    let of_seeders = visits - leechers.count.min(visits / 2);
    let mut look = |at: u32| selection.visit(at, K::network(peer_at(at)));
    seeders.positions(of_seeders, rng, &mut look);
    let visited = seeders.count.min(of_seeders);
    leechers.positions(visits - visited, rng, &mut look);
    selection
}

/// Estimates how many eligible peers of a crowded swarm replies may have before those of networks that have
/// more than their share, from those that a reply would look at.
#[cold]
#[inline(never)]
pub(crate) fn uncrowded<K: PeerFormat>(
    swarm: (PeerOrder, Eligible),
    numwant: u32,
    peer_at: impl Fn(u32) -> K::Peer,
    rng: &mut impl Rng,
) -> u32 {
    let selection = look::<K>(swarm, (numwant, numwant), peer_at, rng);
    let looked_at = (selection.firsts + selection.surpluses).max(1) as u64;
    let (order, eligible) = swarm;
    (u64::from(eligible.count(order)) * selection.firsts as u64).div_ceil(looked_at) as u32
}

/// Visits eligible peers of a crowded swarm, which has at least `size.count`. A network has at most an eighth
/// of the peers that were asked for, as long as there are others among those looked at, up to 1024. What is
/// missing is taken from the requester's own network without a limit, and from others as
/// [`Selection::max_surplus`] allows. Seeders and leechers come in proportion, apart from that.
#[cold]
#[inline(never)] // Its kilobytes of stack would otherwise be part of every announce's frame.
pub(crate) fn select<K: PeerFormat>(
    (order, eligible): (PeerOrder, Eligible),
    size: ReplySize,
    peer_at: impl Fn(u32) -> K::Peer,
    rng: &mut impl Rng,
    mut visit: impl FnMut(K::Peer),
) {
    let count = size.count;
    let selection = look::<K>((order, eligible), (count, size.numwant), &peer_at, rng);
    let (seeders, leechers) = eligible.groups(order);
    let (first, surplus) = (&selection.first[..selection.firsts], &selection.surplus[..selection.surpluses]);
    let mut max_surplus = selection.max_surplus(size);
    let own_network = eligible.network.filter(|network| selection.has_surplus(*network));
    let searched = if own_network.is_some() { surplus.len() } else { max_surplus.min(surplus.len()) };
    let surplus = surplus[..searched].iter().filter(|at| {
        let own = own_network.is_some() && Some(K::network(peer_at(**at))) == own_network;
        let within = own || max_surplus > 0;
        max_surplus -= usize::from(within && !own);
        within
    });
    let (seeders_first, leechers_first) = first.split_at(first.partition_point(|at| *at < order.seeders));
    let share = proportion(rng, seeders.count, leechers.count, count) as usize;
    let (share, rest) = (share.min(seeders_first.len()), (count as usize - share).min(leechers_first.len()));
    let more = seeders_first[share..].iter().chain(&leechers_first[rest..]).chain(surplus);
    let chosen = seeders_first[..share].iter().chain(&leechers_first[..rest]).chain(more);
    chosen.take(count as usize).for_each(|at| visit(peer_at(*at)));
}
