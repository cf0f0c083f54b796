//! All torrents of one core.

use std::hash::{BuildHasher, Hasher};

use aquatic_common::{InfoHash, PeerId, Seconds};
use hashbrown::HashMap;
use rand::Rng;
use siphasher::sip::SipHasher13;
use slab::Slab;

use super::offers::{Bounds, Offers};
use super::torrent::{Holder, Peer, Torrent};
use super::{
    Announce, Announced, Answer, AnswerFault, ConnectionId, Counts, Expired, Limit, OfferDigest, Outcome,
    Stats, SwarmLimits,
};

/// Hashes info hashes, which strangers choose, under a key they do not know.
#[derive(Clone, Debug)]
struct Keyed(SipHasher13);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

/// The swarms of one core.
#[derive(Debug)]
pub struct Swarms {
    limits: SwarmLimits,
    hasher: SipHasher13,
    by_info_hash: HashMap<InfoHash, u32, Keyed>,
    torrents: Slab<Torrent>,
    peers: Census,
    offers: Offers,
    /// The torrent at which expiry goes on, and how many of its peers it has not looked at.
    cursor: (usize, Option<usize>),
    // Used within one call each, and kept to spare the allocations.
    picks: Vec<usize>,
    numbers: Vec<u64>,
}

/// Peers by family, and then leechers and seeders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Census([[usize; 2]; 2]);

impl Census {
    fn of(&mut self, holder: &Holder) -> &mut usize {
        &mut self.0[holder.family.index()][usize::from(holder.seeder)]
    }

    fn total(&self) -> usize {
        self.0.iter().flatten().sum()
    }
}

impl Swarms {
    /// No torrents yet.
    #[must_use]
    pub fn new(limits: SwarmLimits, key: [u8; 16]) -> Self {
        let hasher = SipHasher13::new_with_key(&key);
        Self {
            limits,
            hasher,
            by_info_hash: HashMap::with_hasher(Keyed(hasher)),
            torrents: Slab::new(),
            peers: Census::default(),
            offers: Offers::new(Bounds {
                age: limits.max_offer_age,
                of_peer: limits.max_offers_per_peer,
                of_all: limits.max_offers,
            }),
            cursor: (0, None),
            picks: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// Stores, updates or forgets the announcing peer, and draws a receiver for each of its offers for as long as there
    /// are other peers: the first offer is for the first receiver, and so on. Who leaves, or is not the one who has
    /// the peer id, is drawn nobody.
    pub fn announce(
        &mut self,
        announce: &Announce,
        offers: &[OfferDigest],
        now: Seconds,
        rng: &mut impl Rng,
        receivers: &mut Vec<ConnectionId>,
    ) -> Announced {
        receivers.clear();
        let torrent = self.by_info_hash.get(&announce.info_hash).map(|&at| at as usize);
        if announce.stopped {
            if let Some(torrent) = torrent {
                self.leave_torrent(torrent, &announce.peer_id, announce.connection);
            }
            return Announced { counts: self.scrape(&announce.info_hash), outcome: Outcome::Left };
        }
        let (torrent, outcome, at) = self.store(announce, torrent, now);
        if let Some(torrent) = torrent
            && !matches!(outcome, Outcome::Contested(_))
            && !offers.is_empty()
        {
            self.draw(torrent, at, announce, offers, now, rng, receivers);
        }
        Announced { counts: torrent.map_or_else(Counts::default, |at| counts(&self.torrents[at])), outcome }
    }

    /// Finds, updates or adds the peer. Returns the torrent and the peer's position, if they exist.
    fn store(
        &mut self,
        announce: &Announce,
        torrent: Option<usize>,
        now: Seconds,
    ) -> (Option<usize>, Outcome, Option<usize>) {
        let holder = Holder {
            connection: announce.connection,
            last_seen: now,
            family: announce.family,
            seeder: announce.seeder,
        };
        let known = torrent.and_then(|at| self.torrents[at].find(&announce.peer_id, &self.hasher));
        if let (Some(torrent), Some(at)) = (torrent, known) {
            let peer = self.torrents[torrent].peer_mut(at);
            if peer.holder.connection != announce.connection {
                let current = peer.holder.connection;
                peer.claimant = Some(Box::new(holder));
                return (Some(torrent), Outcome::Contested(current), Some(at));
            }
            let at = self.update(torrent, at, holder);
            return (Some(torrent), Outcome::Stored, Some(at));
        }
        if let Err(limit) = self.check_room(torrent) {
            return (torrent, Outcome::Refused(limit), None);
        }
        let torrent = torrent.unwrap_or_else(|| {
            let at = self.torrents.insert(Torrent::new(announce.info_hash));
            self.by_info_hash.insert(announce.info_hash, at as u32);
            at
        });
        *self.peers.of(&holder) += 1;
        let at = self.torrents[torrent].add(announce.peer_id, holder, &self.hasher);
        (Some(torrent), Outcome::Stored, Some(at))
    }

    fn check_room(&self, torrent: Option<usize>) -> Result<(), Limit> {
        let in_torrent = torrent.map_or(0, |at| self.torrents[at].len());
        if in_torrent >= self.limits.max_peers_per_torrent {
            Err(Limit::PeersPerTorrent)
        } else if self.peers.total() >= self.limits.max_peers {
            Err(Limit::Peers)
        } else if torrent.is_none() && self.torrents.len() >= self.limits.max_torrents {
            Err(Limit::Torrents)
        } else {
            Ok(())
        }
    }

    /// Takes a holder's word about a peer. Returns where the peer is now.
    fn update(&mut self, torrent: usize, at: usize, holder: Holder) -> usize {
        let torrent = &mut self.torrents[torrent];
        let before = torrent.peer(at).holder;
        *self.peers.of(&before) -= 1;
        *self.peers.of(&holder) += 1;
        if holder.seeder && !before.seeder {
            torrent.downloaded = torrent.downloaded.saturating_add(1);
        }
        let at = torrent.set_role(at, holder.seeder, &self.hasher);
        torrent.peer_mut(at).holder = holder;
        at
    }

    /// Draws receivers and remembers what each of them is offered.
    #[allow(clippy::too_many_arguments, reason = "the second half of announce, which has them all")]
    fn draw(
        &mut self,
        torrent: usize,
        at: Option<usize>,
        announce: &Announce,
        offers: &[OfferDigest],
        now: Seconds,
        rng: &mut impl Rng,
        receivers: &mut Vec<ConnectionId>,
    ) {
        self.picks.clear();
        self.numbers.clear();
        let swarm = &self.torrents[torrent];
        swarm.sample(rng, at, announce.seeder, offers.len(), &mut self.picks);
        for (&pick, &offer) in self.picks.iter().zip(offers) {
            let Peer { id, holder, .. } = swarm.peer(pick);
            self.numbers.push(number(self.hasher, id, holder.connection, offer));
            receivers.push(holder.connection);
        }
        // Who is not stored cannot be answered.
        if let Some(at) = at {
            self.offers.insert(&mut self.torrents[torrent].peer_mut(at).offers, &self.numbers, now);
        }
    }

    /// To whom an answer goes.
    ///
    /// # Errors
    /// Why to nobody.
    pub fn answer(&mut self, answer: &Answer, now: Seconds) -> Result<ConnectionId, AnswerFault> {
        let torrent = self.by_info_hash.get(&answer.info_hash).map(|&at| &self.torrents[at as usize]);
        let torrent = torrent.ok_or(AnswerFault::Gone)?;
        let at = torrent.find(&answer.to_peer_id, &self.hasher).ok_or(AnswerFault::Gone)?;
        let Peer { holder, offers, .. } = torrent.peer(at);
        let number = number(self.hasher, &answer.peer_id, answer.connection, answer.offer);
        if self.offers.take(*offers, number, now) { Ok(holder.connection) } else { Err(AnswerFault::NoOffer) }
    }

    /// Forgets a peer, or a claim to one, that this connection has brought. Whether there was one.
    pub fn leave(&mut self, info_hash: &InfoHash, peer_id: &PeerId, connection: ConnectionId) -> bool {
        let torrent = self.by_info_hash.get(info_hash).map(|&at| at as usize);
        torrent.is_some_and(|torrent| self.leave_torrent(torrent, peer_id, connection))
    }

    fn leave_torrent(&mut self, torrent: usize, peer_id: &PeerId, connection: ConnectionId) -> bool {
        let Some(at) = self.torrents[torrent].find(peer_id, &self.hasher) else { return false };
        let peer = self.torrents[torrent].peer_mut(at);
        if peer.holder.connection == connection {
            self.vacate(torrent, at);
            return true;
        }
        let claims = peer.claimant.as_ref().is_some_and(|claimant| claimant.connection == connection);
        if claims {
            peer.claimant = None;
        }
        claims
    }

    /// The holder of a peer has gone, and its offers go: the claimant takes its place, or the peer goes, and with the last
    /// the torrent.
    fn vacate(&mut self, torrent: usize, at: usize) -> bool {
        self.offers.forget(&mut self.torrents[torrent].peer_mut(at).offers);
        if let Some(claimant) = self.torrents[torrent].peer_mut(at).claimant.take() {
            // To know it for the same peer would be to believe it.
            let downloaded = self.torrents[torrent].downloaded;
            self.update(torrent, at, *claimant);
            self.torrents[torrent].downloaded = downloaded;
            return false;
        }
        let holder = self.torrents[torrent].peer(at).holder;
        *self.peers.of(&holder) -= 1;
        self.torrents[torrent].remove(at, &self.hasher);
        let is_last = self.torrents[torrent].len() == 0;
        if is_last {
            let Torrent { info_hash, .. } = self.torrents.remove(torrent);
            self.by_info_hash.remove(&info_hash);
        }
        is_last
    }

    /// The counts of a torrent; zeros for one that is not known.
    #[must_use]
    pub fn scrape(&self, info_hash: &InfoHash) -> Counts {
        self.by_info_hash
            .get(info_hash)
            .map_or_else(Counts::default, |&at| counts(&self.torrents[at as usize]))
    }

    /// Forgets peers and claims that have not announced for the maximum age, until as many peers as `budget` says, and
    /// at least one, have been looked at or a pass over all torrents ends, and goes on from there the next time. A peer
    /// is never forgotten early, and at most two passes late. Also forgets old offers, and gives memory back.
    pub fn expire(&mut self, now: Seconds, budget: usize) -> Expired {
        self.offers.forget_old(now);
        let mut done = Expired::default();
        let mut left = budget.max(1);
        let places = self.torrents.capacity();
        while left > 0 {
            let (torrent, unseen) = self.cursor;
            if torrent >= places {
                self.cursor = (0, None);
                self.end_pass();
                done.pass_ended = true;
                break;
            }
            let Some(len) = self.torrents.get(torrent).map(Torrent::len) else {
                left -= 1;
                self.cursor = (torrent + 1, None);
                continue;
            };
            // From the end on, because what is removed is replaced from the end.
            let unseen = unseen.unwrap_or(len).min(len);
            let seen = unseen.min(left);
            left -= seen;
            let is_gone =
                (unseen - seen..unseen).rev().any(|at| self.expire_peer(torrent, at, now, &mut done));
            let rest = unseen - seen;
            self.cursor = if is_gone || rest == 0 { (torrent + 1, None) } else { (torrent, Some(rest)) };
        }
        done
    }

    /// Whether the torrent has gone with the peer.
    fn expire_peer(&mut self, torrent: usize, at: usize, now: Seconds, done: &mut Expired) -> bool {
        let max_age = self.limits.max_peer_age;
        // Removing a peer moves others, so that one may be looked at twice, but none is missing.
        let Some(swarm) = self.torrents.get_mut(torrent).filter(|swarm| at < swarm.len()) else {
            return false;
        };
        let peer = swarm.peer_mut(at);
        if peer.claimant.as_ref().is_some_and(|claimant| now - claimant.last_seen > max_age) {
            peer.claimant = None;
        }
        if now - peer.holder.last_seen <= max_age {
            self.offers.forget_old_of(&mut peer.offers, now);
            return false;
        }
        done.peers += 1;
        let is_gone = self.vacate(torrent, at);
        done.torrents += usize::from(is_gone);
        is_gone
    }

    fn end_pass(&mut self) {
        self.offers.shrink();
        self.torrents.shrink_to_fit();
        if self.by_info_hash.len() < self.by_info_hash.capacity() / 4 {
            self.by_info_hash.shrink_to(self.by_info_hash.len() * 2);
        }
    }

    /// What there is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            torrents: self.torrents.len(),
            peers: self.peers.0,
            offers: self.offers.len(),
            offers_dropped: self.offers.dropped(),
        }
    }

    /// Asserts what must hold between any two calls.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut peers = Census::default();
        assert_eq!(self.by_info_hash.len(), self.torrents.len());
        for (at, torrent) in &self.torrents {
            torrent.check(&self.hasher);
            assert_eq!(self.by_info_hash.get(&torrent.info_hash), Some(&(at as u32)));
            (0..torrent.len()).for_each(|at| *peers.of(&torrent.peer(at).holder) += 1);
        }
        assert_eq!(peers, self.peers);
        let all = self.torrents.iter().flat_map(|(_, torrent)| (0..torrent.len()).map(|at| torrent.peer(at)));
        self.offers.check(all.map(|peer| peer.offers));
    }
}

/// The number under which an offer waits for its answer by whom it is passed on to.
fn number(mut hasher: SipHasher13, peer_id: &PeerId, connection: ConnectionId, offer: OfferDigest) -> u64 {
    hasher.write(&peer_id.0);
    hasher.write_u16(connection.core);
    hasher.write_u32(connection.slot);
    hasher.write_u32(connection.generation);
    hasher.write_u64(offer.0);
    hasher.finish()
}

fn counts(torrent: &Torrent) -> Counts {
    let seeders = torrent.seeders();
    Counts {
        complete: seeders as u32,
        incomplete: (torrent.len() - seeders) as u32,
        downloaded: torrent.downloaded,
    }
}

#[cfg(test)]
mod tests {
    use aquatic_common::Family;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const LIMITS: SwarmLimits = SwarmLimits {
        max_torrents: 100,
        max_peers: 1000,
        max_peers_per_torrent: 1000,
        max_offers: 1000,
        max_offers_per_peer: 20,
        max_peer_age: 300,
        max_offer_age: 60,
    };

    #[test]
    fn a_swarm_that_grows_and_shrinks_stays_in_order() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut swarms = Swarms::new(LIMITS, [1; 16]);
        for step in 0..20_000 {
            // Now and then everybody leaves.
            let leaving = step / 1000 % 3 == 2;
            let number = rng.random_range(0..150_u8);
            let announce = Announce {
                info_hash: InfoHash([rng.random_range(0..2); 20]),
                peer_id: PeerId([number; 20]),
                connection: ConnectionId { core: 0, slot: number.into(), generation: 0 },
                family: Family::V6,
                seeder: rng.random_range(0..3) == 0,
                stopped: rng.random_range(0..10) < if leaving { 9 } else { 1 },
            };
            let offers = [OfferDigest(step); 8];
            let offers = &offers[..rng.random_range(0..=8)];
            swarms.announce(&announce, offers, Seconds(0), &mut rng, &mut Vec::new());
            swarms.check();
        }
    }

    #[test]
    fn memory_is_given_back_with_the_peers() {
        let mut swarms = Swarms::new(LIMITS, [1; 16]);
        let mut rng = SmallRng::seed_from_u64(1);
        let announce = |number: u32, stopped| {
            let mut peer_id = [0; 20];
            peer_id[..4].copy_from_slice(&number.to_be_bytes());
            Announce {
                info_hash: InfoHash([1; 20]),
                peer_id: PeerId(peer_id),
                connection: ConnectionId { core: 0, slot: number, generation: 0 },
                family: Family::V4,
                seeder: number.is_multiple_of(2),
                stopped,
            }
        };
        let mut all = |swarms: &mut Swarms, stopped, range: std::ops::Range<u32>| {
            for number in range {
                swarms.announce(&announce(number, stopped), &[], Seconds(0), &mut rng, &mut Vec::new());
            }
        };
        all(&mut swarms, false, 0..1000);
        all(&mut swarms, true, 0..990);
        swarms.check();
        let torrent = swarms.torrents.iter().next().map(|(_, torrent)| torrent.capacity());
        assert!(torrent.is_some_and(|capacity| capacity < 64), "{torrent:?}");
        all(&mut swarms, true, 990..1000);
        assert!(swarms.expire(Seconds(0), 10_000).pass_ended);
        assert_eq!((swarms.torrents.len(), swarms.torrents.capacity()), (0, 0));
        assert_eq!(swarms.stats(), Stats::default());
    }
}
