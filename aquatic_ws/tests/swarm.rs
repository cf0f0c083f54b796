//! Comparison of the swarms with a naive model, by random operations. A failure prints its seed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};

use aquatic_common::expiry::Expire;
use aquatic_common::{Family, InfoHash, PeerId, Seconds};
use aquatic_ws::swarm::{
    Announce, Answer, AnswerFault, ConnectionId, Counts, Limit, Network, OfferDigest, Outcome, SwarmLimits,
    Swarms,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const MAX_PEER_AGE: u32 = 300;

const LIMITS: SwarmLimits = SwarmLimits {
    max_torrents: 6,
    max_peers: 150,
    max_peers_per_torrent: 90,
    max_peers_per_address: 20,
    max_offers: 1_000_000,
    max_offers_per_peer: 100_000,
    max_offer_age: 60,
};

/// Limits at which offers are evicted all the time.
const FEW_OFFERS: SwarmLimits = SwarmLimits { max_offers: 200, max_offers_per_peer: 15, ..LIMITS };

#[derive(Clone, Copy, Debug, PartialEq)]
struct Registration {
    connection: ConnectionId,
    network: Network,
    seen: u32,
    seeder: bool,
    family: Family,
}

#[derive(Default)]
struct Torrent {
    /// By peer id: the registration of its connection, and of the pending claimant.
    peers: BTreeMap<PeerId, (Registration, Option<Registration>)>,
    /// Peers in the swarm that were counted as downloads.
    counted: BTreeSet<PeerId>,
    downloaded: u32,
}

impl Torrent {
    /// Returns the numbers of peers by network.
    fn networks(&self) -> BTreeMap<u32, usize> {
        let mut networks = BTreeMap::new();
        for (holder, _) in self.peers.values() {
            *networks.entry(holder.network.to_bits()).or_default() += 1;
        }
        networks
    }
}

fn has_room(networks: &BTreeMap<u32, usize>, network: Network) -> bool {
    let has_room = |count: &usize| *count < LIMITS.max_peers_per_address;
    network == Network::UNKNOWN || networks.get(&network.to_bits()).is_none_or(has_room)
}

/// A relayed offer.
#[derive(Clone, Debug)]
struct Offer {
    info_hash: InfoHash,
    from: (PeerId, ConnectionId),
    /// Peers of the connection that received it, one of which may answer.
    to: Vec<(PeerId, ConnectionId)>,
    name: OfferDigest,
    made: u32,
}

impl Offer {
    fn is_in_time(&self, now: u32) -> bool {
        now - self.made <= LIMITS.max_offer_age
    }

    fn maker(&self) -> Maker {
        (self.info_hash, self.from.0)
    }
}

type Maker = (InfoHash, PeerId);

/// Counted peer that left.
type Counted = (InfoHash, PeerId, u32);

struct Model {
    limits: SwarmLimits,
    torrents: BTreeMap<InfoHash, Torrent>,
    /// Counted peers that have left: in this generation, and in the one before.
    counted: [BTreeSet<Counted>; 2],
    /// When the generation began.
    since: u32,
    /// Oldest first.
    pending: Vec<Offer>,
    /// Peers whose offers were relayed, in the order of their last offers.
    makers: Vec<Maker>,
    evicted: u64,
}

impl Model {
    fn peers(&self) -> usize {
        self.torrents.values().map(|torrent| torrent.peers.len()).sum()
    }

    fn counts(&self, info_hash: InfoHash) -> Counts {
        self.torrents.get(&info_hash).map_or_else(Counts::default, |torrent| {
            let complete = torrent.peers.values().filter(|(holder, _)| holder.seeder).count();
            Counts {
                complete: complete as u32,
                incomplete: (torrent.peers.len() - complete) as u32,
                downloaded: torrent.downloaded,
            }
        })
    }

    fn forget_counted(&mut self, now: u32) {
        let age = now - self.since;
        if age >= MAX_PEER_AGE {
            let [last, before] = &mut self.counted;
            *before = std::mem::take(last);
            if age / 2 >= MAX_PEER_AGE {
                before.clear();
            }
            self.since = now;
        }
    }

    fn leave(&mut self, info_hash: InfoHash, peer_id: PeerId, connection: ConnectionId) -> bool {
        if let Some(torrent) = self.torrents.get(&info_hash)
            && let Some((holder, None)) = torrent.peers.get(&peer_id)
            && holder.connection == connection
            && torrent.counted.contains(&peer_id)
        {
            let [last, before] = &mut self.counted;
            let counted = (info_hash, peer_id, holder.network.to_bits());
            before.remove(&counted);
            last.insert(counted);
        }
        self.remove(info_hash, peer_id, connection)
    }

    fn remove(&mut self, info_hash: InfoHash, peer_id: PeerId, connection: ConnectionId) -> bool {
        let Some(torrent) = self.torrents.get_mut(&info_hash) else { return false };
        let counts = torrent.networks();
        let Some((holder, claimant)) = torrent.peers.get_mut(&peer_id) else { return false };
        if holder.connection != connection {
            return claimant.take_if(|claimant| claimant.connection == connection).is_some();
        }
        self.pending.retain(|offer| offer.maker() != (info_hash, peer_id));
        let may_move = |to: &Registration| to.network == holder.network || has_room(&counts, to.network);
        match claimant.take().filter(may_move) {
            Some(successor) => *holder = successor,
            None => {
                torrent.peers.remove(&peer_id);
                torrent.counted.remove(&peer_id);
            }
        }
        if torrent.peers.is_empty() {
            self.torrents.remove(&info_hash);
        }
        true
    }

    fn announce(&mut self, announce: &Announce, now: u32) -> Outcome {
        if announce.stopped {
            self.leave(announce.info_hash, announce.peer_id, announce.connection);
            return Outcome::Left;
        }
        let registration = Registration {
            connection: announce.connection,
            network: announce.network,
            seen: now,
            seeder: announce.seeder,
            family: announce.family,
        };
        let (peers, torrents) = (self.peers(), self.torrents.len());
        let torrent = self.torrents.get_mut(&announce.info_hash);
        let len = torrent.as_ref().map_or(0, |torrent| torrent.peers.len());
        if let Some((torrent, (holder, claimant))) = torrent.and_then(|torrent| {
            let Torrent { peers, counted, downloaded } = torrent;
            peers.get_mut(&announce.peer_id).map(|peer| ((counted, downloaded), peer))
        }) {
            if holder.connection != registration.connection {
                *claimant = Some(registration);
                return Outcome::Contested(holder.connection);
            }
            let (counted, downloaded) = torrent;
            let completes = registration.seeder && !holder.seeder && counted.insert(announce.peer_id);
            let again = (announce.info_hash, announce.peer_id, holder.network.to_bits());
            let again = self.counted.iter().any(|counted| counted.contains(&again));
            *downloaded += u32::from(completes && !again);
            *holder = registration;
            return Outcome::Stored;
        }
        if len >= LIMITS.max_peers_per_torrent {
            return Outcome::LimitReached(Limit::PeersPerTorrent);
        }
        if peers >= LIMITS.max_peers {
            return Outcome::LimitReached(Limit::Peers);
        }
        if len == 0 && torrents >= LIMITS.max_torrents {
            return Outcome::LimitReached(Limit::Torrents);
        }
        let networks = self.torrents.get(&announce.info_hash).map(Torrent::networks).unwrap_or_default();
        if !has_room(&networks, announce.network) {
            return Outcome::LimitReached(Limit::PeersPerAddress);
        }
        let torrent = self.torrents.entry(announce.info_hash).or_default();
        torrent.peers.insert(announce.peer_id, (registration, None));
        Outcome::Stored
    }

    /// Records relayed offers of a stored peer.
    fn offer(&mut self, offers: Vec<Offer>, now: u32) {
        let Some(maker) = offers.first().map(Offer::maker) else { return };
        self.pending.retain(|offer| offer.maker() != maker || offer.is_in_time(now));
        self.pending.extend(offers);
        self.makers.retain(|other| *other != maker);
        self.makers.push(maker);
        let own = self.pending.iter().filter(|offer| offer.maker() == maker).count();
        self.evict_oldest(maker, own.saturating_sub(self.limits.max_offers_per_peer), now);
        while self.pending.len() > self.limits.max_offers {
            let is_maker = |maker: &&Maker| self.pending.iter().any(|offer| offer.maker() == **maker);
            let first = *self.makers.iter().find(is_maker).unwrap();
            let many = if first == maker { self.pending.len() - self.limits.max_offers } else { usize::MAX };
            self.evict_oldest(first, many, now);
        }
    }

    fn evict_oldest(&mut self, maker: Maker, many: usize, now: u32) {
        let mut left = many;
        self.pending.retain(|offer| {
            let goes = left > 0 && offer.maker() == maker;
            left -= usize::from(goes);
            self.evicted += u64::from(goes && offer.is_in_time(now));
            !goes
        });
    }

    /// Checks that the receivers are other peers, and leechers first if a seeder offers.
    fn check_receivers(&self, announce: &Announce, offers: usize, receivers: &[ConnectionId]) {
        let Some(torrent) = self.torrents.get(&announce.info_hash) else {
            return assert!(receivers.is_empty());
        };
        let others = || torrent.peers.iter().filter(|(peer_id, _)| **peer_id != announce.peer_id);
        assert_eq!(receivers.len(), offers.min(others().count()), "as many offers as there are others");
        // A connection may have several peers, and then receives as many offers.
        let mut left: BTreeMap<ConnectionId, usize> = BTreeMap::new();
        others().for_each(|(_, (holder, _))| *left.entry(holder.connection).or_default() += 1);
        for receiver in receivers {
            let left = left.get_mut(receiver).expect("receivers are peers of the swarm");
            *left = left.checked_sub(1).expect("each peer receives one offer");
        }
        if announce.seeder {
            let leechers: BTreeSet<_> = others()
                .filter(|(_, (holder, _))| !holder.seeder)
                .map(|(_, (holder, _))| holder.connection)
                .collect();
            let leecher_count = others().filter(|(_, (holder, _))| !holder.seeder).count();
            let to_leechers = receivers.iter().filter(|receiver| leechers.contains(receiver)).count();
            assert!(to_leechers >= offers.min(leecher_count), "leechers first");
        }
    }

    fn expire(&mut self, now: u32) {
        self.pending.retain(|offer| offer.is_in_time(now));
        let old = |registration: &Registration| now - registration.seen > MAX_PEER_AGE;
        let mut gone = Vec::new();
        for (info_hash, torrent) in &mut self.torrents {
            for (peer_id, (holder, claimant)) in &mut torrent.peers {
                claimant.take_if(|claimant| old(claimant));
                if old(holder) {
                    gone.push((*info_hash, *peer_id, holder.connection));
                }
            }
        }
        gone.into_iter().for_each(|(info_hash, peer_id, connection)| {
            self.remove(info_hash, peer_id, connection);
        });
    }
}

struct World {
    rng: SmallRng,
    model: Model,
    swarms: Swarms,
    now: u32,
    receivers: Vec<ConnectionId>,
    next_offer: u64,
    relayed: Vec<Offer>,
}

impl World {
    fn new(limits: SwarmLimits, seed: u64) -> Self {
        let (torrents, counted, pending, makers) = Default::default();
        Self {
            rng: SmallRng::seed_from_u64(seed),
            model: Model { limits, torrents, counted, since: 0, pending, makers, evicted: 0 },
            swarms: Swarms::new(limits, [7; 16]),
            now: 1000,
            receivers: Vec::new(),
            next_offer: 0,
            relayed: Vec::new(),
        }
    }

    fn info_hash(&mut self) -> InfoHash {
        // The first torrents are the largest.
        let torrents = self.rng.random_range(1..=8);
        InfoHash([self.rng.random_range(0..torrents); 20])
    }

    /// Returns a peer and a connection: usually its own, sometimes another's.
    fn peer(&mut self) -> (PeerId, ConnectionId) {
        let number: u8 = self.rng.random_range(0..120);
        let connection =
            if self.rng.random_range(0..10) == 0 { self.rng.random_range(0..120) } else { number };
        (PeerId([number; 20]), connection_of(connection))
    }

    fn announce(&mut self) {
        let info_hash = self.info_hash();
        let (peer_id, connection) = self.peer();
        let announce = Announce {
            info_hash,
            peer_id,
            connection,
            network: network_of(connection),
            family: Family::ALL[self.rng.random_range(0..2)],
            seeder: self.rng.random_range(0..3) == 0,
            stopped: self.rng.random_range(0..8) == 0,
            may_be_added: true,
        };
        let offers: Vec<OfferDigest> =
            (0..self.rng.random_range(0..12)).map(|at| OfferDigest(self.next_offer + at)).collect();
        self.next_offer += offers.len() as u64;
        let now = Seconds(self.now);
        let announced = self.swarms.announce(&announce, &offers, now, &mut self.rng, &mut self.receivers);
        let expected = self.model.announce(&announce, self.now);
        assert_eq!(announced.outcome, expected, "{announce:?}");
        assert_eq!(announced.counts, self.model.counts(info_hash));
        if matches!(expected, Outcome::Left | Outcome::Contested(_) | Outcome::LimitReached(_)) {
            assert!(self.receivers.is_empty(), "there are no receivers");
            return;
        }
        self.model.check_receivers(&announce, offers.len(), &self.receivers);
        let torrent = self.model.torrents.get(&info_hash);
        let relayed_now = self.receivers.iter().zip(offers).map(|(receiver, name)| {
            let peers = torrent.into_iter().flat_map(|torrent| &torrent.peers);
            let to = peers.filter(|(id, (holder, _))| holder.connection == *receiver && **id != peer_id);
            let to = to.map(|(id, _)| (*id, *receiver)).collect();
            Offer { info_hash, from: (peer_id, connection), to, name, made: self.now }
        });
        let relayed_now: Vec<Offer> = relayed_now.collect();
        self.relayed.extend_from_slice(&relayed_now);
        if expected == Outcome::Stored {
            self.model.offer(relayed_now, self.now);
        }
    }

    /// Answers a relayed offer, sometimes with a forged part.
    fn answer(&mut self) {
        if self.relayed.is_empty() {
            return;
        }
        if self.relayed.len() > 400 {
            self.relayed.drain(..200);
        }
        let at = self.rng.random_range(0..self.relayed.len());
        let Offer { info_hash, from, to, name, .. } = self.relayed[at].clone();
        let by = to[self.rng.random_range(0..to.len())];
        let mut answer =
            Answer { info_hash, peer_id: by.0, connection: by.1, to_peer_id: from.0, offer: name };
        let forged = self.rng.random_range(0..12);
        match forged {
            0 => answer.peer_id = PeerId([200; 20]),
            1 => answer.connection.generation += 1,
            2 => answer.connection = connection_of(201),
            3 => answer.offer.0 += 1_000_000,
            4 => answer.info_hash = InfoHash([222; 20]),
            _ => {}
        }
        let answered = self.swarms.answer(&answer, Seconds(self.now));
        if forged < 5 {
            return assert!(answered.is_err(), "{answer:?} is forged");
        }
        let holder = self.model.torrents.get(&info_hash).and_then(|torrent| torrent.peers.get(&from.0));
        let Some((holder, _)) = holder else { return assert_eq!(answered, Err(AnswerFault::PeerGone)) };
        let is_pending = |offer: &Offer| offer.name == name && offer.is_in_time(self.now);
        let at = self.model.pending.iter().position(is_pending);
        match (answered, at) {
            (Ok(to), Some(at)) => {
                assert!(to == from.1 && holder.connection == from.1, "{answer:?}");
                self.model.pending.remove(at);
            }
            (Ok(_), None) => panic!("{answer:?} should not have been relayed"),
            (Err(fault), _) => {
                assert_eq!(fault, AnswerFault::UnknownOffer);
                assert!(at.is_none() || to.len() > 1, "{answer:?} should have been relayed");
            }
        }
    }

    fn leave(&mut self) {
        let info_hash = self.info_hash();
        let (peer_id, connection) = self.peer();
        let left = self.swarms.leave(&info_hash, &peer_id, connection);
        assert_eq!(left, self.model.leave(info_hash, peer_id, connection));
    }

    /// Runs two passes in small steps.
    fn expire(&mut self) {
        self.now += self.rng.random_range(0..200);
        for _ in 0..2 {
            let budget = self.rng.random_range(1..40);
            while !self.swarms.expire(Seconds(self.now), MAX_PEER_AGE, budget).pass_ended {}
        }
        self.model.forget_counted(self.now);
        self.model.expire(self.now);
    }

    fn compare(&self) {
        let stats = self.swarms.stats();
        assert_eq!(stats.torrents, self.model.torrents.len());
        assert_eq!(stats.offers, self.model.pending.len());
        assert_eq!(stats.offers_evicted, self.model.evicted);
        let mut peers = [[0; 2]; 2];
        for torrent in self.model.torrents.values() {
            torrent
                .peers
                .values()
                .for_each(|(holder, _)| peers[holder.family.index()][usize::from(holder.seeder)] += 1);
        }
        assert_eq!(stats.peers, peers);
        for number in 0..10 {
            let info_hash = InfoHash([number; 20]);
            assert_eq!(self.swarms.scrape(&info_hash), self.model.counts(info_hash));
        }
    }
}

fn connection_of(number: u8) -> ConnectionId {
    ConnectionId { core: u16::from(number % 3), slot: number.into(), generation: 5 }
}

/// Most networks have few peers of a torrent, two reach the limit, and some are not known.
fn network_of(connection: ConnectionId) -> Network {
    let number = match connection.slot {
        of @ 0..60 => 1 + of % 2,
        of @ 60..100 => 3 + of % 5,
        _ => 0,
    };
    // So that they have different counters.
    Network::from_bits(number << 29)
}

fn run(limits: SwarmLimits, seed: u64, steps: usize) {
    eprintln!("limits {limits:?}, seed {seed}");
    let mut world = World::new(limits, seed);
    for _ in 0..steps {
        match world.rng.random_range(0..100) {
            0..60 => world.announce(),
            60..85 => world.answer(),
            85..97 => world.leave(),
            97..99 => world.now += world.rng.random_range(0..10),
            _ => world.expire(),
        }
        world.compare();
    }
}

#[test]
fn random_operations_agree_with_the_model() {
    for seed in 0..10 {
        run(LIMITS, seed, 2000);
        run(FEW_OFFERS, seed, 2000);
    }
}

/// Long version of the test above.
#[test]
#[ignore = "takes minutes"]
fn many_random_operations_agree_with_the_model() {
    for seed in 1000..1500 {
        run(LIMITS, seed, 20_000);
        run(FEW_OFFERS, seed, 20_000);
    }
}

struct Browser {
    peer_id: PeerId,
    connection: ConnectionId,
}

fn browser(peer: u8, connection: u8) -> Browser {
    Browser { peer_id: PeerId([peer; 20]), connection: connection_of(connection) }
}

const TORRENT: InfoHash = InfoHash([1; 20]);

impl Browser {
    fn announce(&self, swarms: &mut Swarms, offers: &[u64], now: u32) -> (Outcome, Vec<ConnectionId>) {
        let announce = Announce {
            info_hash: TORRENT,
            peer_id: self.peer_id,
            connection: self.connection,
            network: Network::UNKNOWN,
            family: Family::V4,
            seeder: false,
            stopped: false,
            may_be_added: true,
        };
        let offers: Vec<OfferDigest> = offers.iter().copied().map(OfferDigest).collect();
        let mut receivers = Vec::new();
        let mut rng = SmallRng::seed_from_u64(1);
        let announced = swarms.announce(&announce, &offers, Seconds(now), &mut rng, &mut receivers);
        (announced.outcome, receivers)
    }

    fn answer(
        &self,
        swarms: &mut Swarms,
        to: &Self,
        offer: u64,
        now: u32,
    ) -> Result<ConnectionId, AnswerFault> {
        let answer = Answer {
            info_hash: TORRENT,
            peer_id: self.peer_id,
            connection: self.connection,
            to_peer_id: to.peer_id,
            offer: OfferDigest(offer),
        };
        swarms.answer(&answer, Seconds(now))
    }
}

#[test]
fn a_claimant_neither_evicts_the_peer_nor_receives_its_offers() {
    let mut swarms = Swarms::new(LIMITS, [7; 16]);
    let (victim, other, claimant) = (browser(1, 1), browser(2, 2), browser(1, 3));
    victim.announce(&mut swarms, &[], 0);
    assert_eq!(other.announce(&mut swarms, &[10], 0).1, [victim.connection]);
    let contested = Outcome::Contested(victim.connection);
    assert_eq!(claimant.announce(&mut swarms, &[20], 1), (contested, vec![]));
    assert_eq!(other.announce(&mut swarms, &[11], 2).1, [victim.connection], "offers still go to the victim");
    assert!(claimant.answer(&mut swarms, &other, 11, 2).is_err(), "the offer was not sent to the claimant");
    assert!(!swarms.leave(&TORRENT, &PeerId([1; 20]), connection_of(4)));
    assert!(swarms.leave(&TORRENT, &PeerId([1; 20]), claimant.connection), "the claim is removed");
    assert_eq!(victim.answer(&mut swarms, &other, 10, 3), Ok(other.connection));
}

#[test]
fn a_claimant_takes_over_when_the_connection_of_the_peer_leaves() {
    let mut swarms = Swarms::new(LIMITS, [7; 16]);
    let (before, after, other) = (browser(1, 1), browser(1, 9), browser(2, 2));
    before.announce(&mut swarms, &[], 0);
    after.announce(&mut swarms, &[], 1);
    assert!(swarms.leave(&TORRENT, &before.peer_id, before.connection));
    assert_eq!(other.announce(&mut swarms, &[10], 2).1, [after.connection]);
    assert_eq!(after.answer(&mut swarms, &other, 10, 3), Ok(other.connection));
    assert!(
        !swarms.leave(&TORRENT, &before.peer_id, before.connection),
        "the old connection has no peer any more"
    );
    assert_eq!(swarms.scrape(&TORRENT).incomplete, 2);
}

/// Case H10: also if another connection takes the peer over in between.
#[test]
fn a_peer_that_alternates_between_roles_is_counted_once() {
    let mut swarms = Swarms::new(LIMITS, [7; 16]);
    let mut announce = |connection, seeder| {
        let (info_hash, peer_id) = (TORRENT, PeerId([1; 20]));
        let announce = Announce {
            info_hash,
            peer_id,
            connection: connection_of(connection),
            network: Network::UNKNOWN,
            family: Family::V4,
            seeder,
            stopped: false,
            may_be_added: true,
        };
        swarms.announce(&announce, &[], Seconds(0), &mut SmallRng::seed_from_u64(1), &mut Vec::new()).counts
    };
    for _ in 0..25 {
        announce(1, false);
        assert_eq!(announce(1, true).downloaded, 1);
    }
    announce(2, false);
    assert!(swarms.leave(&TORRENT, &PeerId([1; 20]), connection_of(1)));
    assert_eq!(swarms.scrape(&TORRENT), Counts { complete: 0, incomplete: 1, downloaded: 1 });
}

#[test]
fn offers_are_removed_with_the_peer_that_made_them() {
    let mut swarms = Swarms::new(LIMITS, [7; 16]);
    let (stays, goes) = (browser(1, 1), browser(2, 2));
    stays.announce(&mut swarms, &[], 0);
    goes.announce(&mut swarms, &[10, 11], 0);
    assert_eq!(stays.announce(&mut swarms, &[20], 0).1, [goes.connection]);
    assert_eq!(swarms.stats().offers, 2, "of three that were made, two had a receiver");
    assert!(swarms.leave(&TORRENT, &goes.peer_id, goes.connection));
    assert_eq!(swarms.stats().offers, 1);
    assert_eq!(goes.announce(&mut swarms, &[], 1).0, Outcome::Stored);
    assert_eq!(
        stays.answer(&mut swarms, &goes, 10, 1),
        Err(AnswerFault::UnknownOffer),
        "although it came back"
    );
    assert_eq!(swarms.stats().offers_evicted, 0, "removal with the peer is no eviction");
}

#[test]
fn peers_of_one_connection_receive_offers_of_each_other() {
    let mut swarms = Swarms::new(LIMITS, [7; 16]);
    let (one, two) = (browser(1, 1), browser(2, 1));
    one.announce(&mut swarms, &[], 0);
    assert_eq!(
        two.announce(&mut swarms, &[10, 11], 0).1,
        [one.connection],
        "a peer does not receive its own offers"
    );
    assert_eq!(one.answer(&mut swarms, &two, 10, 1), Ok(two.connection));
    assert_eq!(one.answer(&mut swarms, &two, 10, 1), Err(AnswerFault::UnknownOffer), "once");
}
