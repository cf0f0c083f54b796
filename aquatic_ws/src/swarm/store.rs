//! All torrents of one core.

mod replication;

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use aquatic_common::expiry::{Expire, Expired};
use aquatic_common::{InfoHash, PeerId, Seconds};
use aquatic_tracker::{Completions, Intake, TopTorrents};
use indexmap::IndexMap;
use rand::Rng;
use siphasher::sip::SipHasher13;

use super::offers::{OfferLimits, Offers};
use super::torrent::{Peer, Torrent};
use super::{
    Announce, Announced, Answer, AnswerFault, ConnectionId, Counts, Limit, Network, OfferDigest, Outcome,
    Registration, Stats, SwarmLimits,
};
use replication::Replication;

/// Minimum number of expired offers that one call of [`Expire::expire`] removes, however small its budget is.
/// It takes about 100 microseconds.
const MIN_OFFER_BUDGET: usize = 10_000;

/// Keyed hash function: clients choose info hashes and peer ids, but do not know the key.
#[derive(Clone, Debug)]
struct Keyed(SipHasher13);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

/// Swarms of one core.
#[derive(Debug)]
pub struct Swarms {
    limits: SwarmLimits,
    /// Which new peers are stored, as far as memory allows.
    intake: Intake,
    hasher: SipHasher13,
    torrents: IndexMap<InfoHash, Torrent, Keyed>,
    /// Pending claimants of peers, which have [`Peer::has_claimant`] set.
    claimants: IndexMap<(InfoHash, PeerId), Registration, Keyed>,
    peers: PeerCounts,
    /// Peers that were counted as downloads and have left.
    completions: Completions,
    /// Sum of [`Torrent::heap_bytes`].
    torrent_bytes: usize,
    offers: Offers,
    cursor: Cursor,
    /// What the other nodes of the cluster have to be told, and know; `None` without a cluster.
    replication: Option<Box<Replication>>,
    // Used within one call each, and kept to avoid allocations.
    sampled: Vec<usize>,
    numbers: Vec<u64>,
}

/// Position at which a pass over all peers continues. It proceeds from the end to the beginning, because the
/// last torrent, and the last peer of a torrent, replace those that are removed.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// Number of torrents that were not visited in this pass.
    torrents: usize,
    /// Number of peers that were not visited in the last of these torrents; all if `None`.
    peers: Option<usize>,
}

impl Cursor {
    /// Returns the position at which a pass over so many torrents begins.
    fn start(torrents: usize) -> Self {
        Self { torrents, peers: None }
    }

    /// Handles that a torrent is replaced by the last one.
    fn torrent_removed(&mut self, torrent: usize, last: usize) {
        // Another torrent takes the position at which the pass continues.
        if torrent + 1 == self.torrents || last < self.torrents {
            *self = Self::start(self.torrents.min(last));
        }
    }
}

/// Numbers of peers: of this node and of others, by family, leechers before seeders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PeerCounts([[[usize; 2]; 2]; 2]);

impl PeerCounts {
    fn of(&mut self, registration: &Registration) -> &mut usize {
        let Registration { connection, family, seeder, .. } = registration;
        &mut self.0[usize::from(connection.is_remote())][family.index()][usize::from(*seeder)]
    }

    fn total(&self) -> usize {
        self.0.iter().flatten().flatten().sum()
    }

    fn of_all_nodes(&self) -> [[usize; 2]; 2] {
        let [own, others] = self.0;
        [0, 1].map(|family| [0, 1].map(|role| own[family][role] + others[family][role]))
    }

    fn of_other_nodes(&self) -> usize {
        let [_, others] = self.0;
        others.iter().flatten().sum()
    }
}

impl Swarms {
    /// Returns swarms without torrents. The key is that of the hash function.
    #[must_use]
    pub fn new(limits: SwarmLimits, key: [u8; 16]) -> Self {
        let hasher = SipHasher13::new_with_key(&key);
        Self {
            limits,
            intake: Intake::All,
            hasher,
            torrents: IndexMap::with_hasher(Keyed(hasher)),
            claimants: IndexMap::with_hasher(Keyed(hasher)),
            peers: PeerCounts::default(),
            completions: Completions::default(),
            torrent_bytes: 0,
            offers: Offers::new(OfferLimits {
                max_age: limits.max_offer_age,
                max_per_peer: limits.max_offers_per_peer,
                max_total: limits.max_offers,
            }),
            cursor: Cursor::default(),
            replication: None,
            sampled: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// Returns the network of a client, whose address is in canonical form.
    pub(crate) fn network(&self, client: IpAddr) -> Network {
        Network::of(client, &self.hasher)
    }

    /// Replaces the limits of torrents and peers. If there are more, nothing is removed: new peers are not
    /// stored until enough others have left or expired. The limits of offers stay.
    pub fn set_limits(&mut self, limits: SwarmLimits) {
        self.limits = limits;
    }

    /// Changes which new peers are stored.
    pub fn set_intake(&mut self, intake: Intake) {
        self.intake = intake;
    }

    /// Stores, updates or removes the announcing peer, and samples a receiver for each of its offers, as long
    /// as there are other peers: the first offer is for the first receiver, and so on. There are no receivers
    /// if the peer leaves, its id is contested, or it is not stored: answers could not be relayed to it.
    pub fn announce(
        &mut self,
        announce: &Announce,
        offers: &[OfferDigest],
        now: Seconds,
        rng: &mut impl Rng,
        receivers: &mut Vec<ConnectionId>,
    ) -> Announced {
        receivers.clear();
        let torrent = self.torrents.get_index_of(&announce.info_hash);
        if announce.stopped {
            if let Some(torrent) = torrent {
                self.leave_torrent(torrent, &announce.peer_id, announce.connection);
            }
            return Announced { counts: self.scrape(&announce.info_hash), outcome: Outcome::Left };
        }
        let (torrent, outcome, at) = self.store(announce, torrent, now);
        if let (Some(torrent), Some(at)) = (torrent, at)
            && !matches!(outcome, Outcome::Contested(_))
            && !offers.is_empty()
        {
            self.sample_receivers(torrent, at, announce, offers, now, rng, receivers);
        }
        Announced { counts: torrent.map_or_else(Counts::default, |at| counts(&self.torrents[at])), outcome }
    }

    /// Finds, updates or adds the peer. Returns the positions of torrent and peer, if they exist.
    fn store(
        &mut self,
        announce: &Announce,
        torrent: Option<usize>,
        now: Seconds,
    ) -> (Option<usize>, Outcome, Option<usize>) {
        let registration = Registration {
            connection: announce.connection,
            network: announce.network,
            last_seen: now,
            family: announce.family,
            seeder: announce.seeder,
        };
        let known = torrent.and_then(|at| self.torrents[at].find(&announce.peer_id, &self.hasher));
        if let (Some(torrent), Some(at)) = (torrent, known) {
            let before = self.torrents[torrent].peer(at).registration();
            if before.connection != announce.connection {
                if before.connection.is_remote() && !self.may_move(torrent, &before, &registration) {
                    return (Some(torrent), Outcome::LimitReached(Limit::PeersPerAddress), None);
                }
                if !self.may_claim(announce) {
                    return (Some(torrent), Outcome::LimitReached(Limit::Memory), None);
                }
                // A connection of this node precedes those of others.
                let (holder, claimant) = if before.connection.is_remote() {
                    (registration, before)
                } else {
                    (before, registration)
                };
                self.torrents[torrent].peer_mut(at).has_claimant = true;
                make_room(&mut self.claimants);
                self.claimants.insert((announce.info_hash, announce.peer_id), claimant);
                if holder.connection != announce.connection {
                    return (Some(torrent), Outcome::Contested(holder.connection), Some(at));
                }
                let at = self.update(torrent, at, registration);
                self.note_present(torrent, at);
                return (Some(torrent), Outcome::Stored, Some(at));
            }
            let completed = registration.seeder && !before.seeder && self.count_download(torrent, at);
            let at = self.update(torrent, at, registration);
            if self.replication.is_some() {
                self.note_announce(torrent, at, &before, completed);
            }
            return (Some(torrent), Outcome::Stored, Some(at));
        }
        let added = if announce.may_be_added {
            self.add(torrent, (announce.info_hash, announce.peer_id), registration)
        } else {
            Err(Limit::Memory)
        };
        match added {
            Ok((torrent, at)) => {
                self.note_present(torrent, at);
                (Some(torrent), Outcome::Stored, Some(at))
            }
            Err(limit) => (torrent, Outcome::LimitReached(limit), None),
        }
    }

    /// Adds a peer, unless a limit is reached. Returns the positions of torrent and peer.
    fn add(
        &mut self,
        torrent: Option<usize>,
        (info_hash, peer_id): (InfoHash, PeerId),
        registration: Registration,
    ) -> Result<(usize, usize), Limit> {
        self.check_limits(torrent, registration.network)?;
        let torrent = torrent.unwrap_or_else(|| {
            make_room(&mut self.torrents);
            self.torrents.insert_full(info_hash, Torrent::default()).0
        });
        *self.peers.of(&registration) += 1;
        let swarm = &mut self.torrents[torrent];
        let before = swarm.heap_bytes();
        let at = swarm.add(peer_id, registration, &self.hasher);
        self.torrent_bytes += swarm.heap_bytes() - before;
        Ok((torrent, at))
    }

    /// Whether memory allows to note that a connection claims the peer id of another one.
    fn may_claim(&self, announce: &Announce) -> bool {
        let is_noted = || self.claimants.contains_key(&(announce.info_hash, announce.peer_id));
        announce.may_be_added && (self.intake != Intake::Nothing || is_noted())
    }

    fn check_limits(&self, torrent: Option<usize>, network: Network) -> Result<(), Limit> {
        let in_torrent = torrent.map_or(0, |at| self.torrents[at].len());
        let has_memory = match self.intake {
            Intake::All => true,
            Intake::SmallTorrents => in_torrent < 2,
            Intake::Nothing => false,
        };
        if !has_memory {
            Err(Limit::Memory)
        } else if in_torrent >= self.limits.max_peers_per_torrent {
            Err(Limit::PeersPerTorrent)
        } else if self.peers.total() >= self.limits.max_peers {
            Err(Limit::Peers)
        } else if torrent.is_none() && self.torrents.len() >= self.limits.max_torrents {
            Err(Limit::Torrents)
        } else if torrent.is_some_and(|at| !self.has_room_for(at, network)) {
            Err(Limit::PeersPerAddress)
        } else {
            Ok(())
        }
    }

    /// Returns whether a torrent may have another peer of a network.
    fn has_room_for(&self, torrent: usize, network: Network) -> bool {
        self.torrents[torrent].has_room_for(network, self.limits.max_peers_per_address)
    }

    /// Returns whether a peer of a torrent may pass to another connection.
    fn may_move(&self, torrent: usize, from: &Registration, to: &Registration) -> bool {
        from.network == to.network || self.has_room_for(torrent, to.network)
    }

    /// Counts a download, unless one of the peer has been counted, perhaps before it left and came back.
    /// Returns whether it did.
    fn count_download(&mut self, torrent: usize, at: usize) -> bool {
        let Some((info_hash, swarm)) = self.torrents.get_index_mut(torrent) else { return false };
        let peer = swarm.peer_mut(at);
        if peer.completion_counted {
            return false;
        }
        peer.completion_counted = true;
        let is_first = !self.completions.contains(fingerprint(self.hasher, info_hash, peer));
        swarm.downloaded = swarm.downloaded.saturating_add(is_first.into());
        is_first
    }

    /// Replaces what is known of a peer. Returns its new position.
    fn update(&mut self, torrent: usize, at: usize, registration: Registration) -> usize {
        let torrent = &mut self.torrents[torrent];
        let before = torrent.peer(at).registration();
        *self.peers.of(&before) -= 1;
        *self.peers.of(&registration) += 1;
        if before.network == registration.network {
            return torrent.update(at, registration, &self.hasher);
        }
        self.torrent_bytes -= torrent.heap_bytes();
        let at = torrent.update(at, registration, &self.hasher);
        self.torrent_bytes += torrent.heap_bytes();
        at
    }

    /// Samples receivers and adds the pending offers.
    #[allow(clippy::too_many_arguments, reason = "the second half of announce, which has them all")]
    fn sample_receivers(
        &mut self,
        torrent: usize,
        at: usize,
        announce: &Announce,
        offers: &[OfferDigest],
        now: Seconds,
        rng: &mut impl Rng,
        receivers: &mut Vec<ConnectionId>,
    ) {
        self.sampled.clear();
        self.numbers.clear();
        let swarm = &self.torrents[torrent];
        swarm.sample(rng, at, announce.seeder, offers.len(), &mut self.sampled);
        for (&sampled, &offer) in self.sampled.iter().zip(offers) {
            let Peer { id, connection, .. } = swarm.peer(sampled);
            self.numbers.push(offer_number(self.hasher, id, *connection, offer));
            receivers.push(*connection);
        }
        self.offers.insert(&mut self.torrents[torrent].peer_mut(at).offers, &self.numbers, now);
    }

    /// Returns the peer that the last announce has sampled for one of its offers.
    #[must_use]
    pub(crate) fn receiver(&self, info_hash: &InfoHash, offer: usize) -> Option<PeerId> {
        let (torrent, &at) = (self.torrents.get(info_hash)?, self.sampled.get(offer)?);
        (at < torrent.len()).then(|| torrent.peer(at).id)
    }

    /// Removes the pending offer that is answered, and returns the connection to which the answer is relayed.
    ///
    /// # Errors
    /// Returns the reason if the answer is not relayed.
    pub fn answer(&mut self, answer: &Answer, now: Seconds) -> Result<ConnectionId, AnswerFault> {
        let torrent = self.torrents.get(&answer.info_hash).ok_or(AnswerFault::PeerGone)?;
        let at = torrent.find(&answer.to_peer_id, &self.hasher).ok_or(AnswerFault::PeerGone)?;
        let Peer { connection, offers, .. } = torrent.peer(at);
        let number = offer_number(self.hasher, &answer.peer_id, answer.connection, answer.offer);
        if self.offers.take(*offers, number, now) { Ok(*connection) } else { Err(AnswerFault::UnknownOffer) }
    }

    /// Removes a peer of a connection, or the pending claimant that the connection is. Returns whether there
    /// was one.
    pub fn leave(&mut self, info_hash: &InfoHash, peer_id: &PeerId, connection: ConnectionId) -> bool {
        let torrent = self.torrents.get_index_of(info_hash);
        torrent.is_some_and(|torrent| self.leave_torrent(torrent, peer_id, connection))
    }

    fn leave_torrent(&mut self, torrent: usize, peer_id: &PeerId, connection: ConnectionId) -> bool {
        let Some((&info_hash, swarm)) = self.torrents.get_index_mut(torrent) else { return false };
        let Some(at) = swarm.find(peer_id, &self.hasher) else { return false };
        let peer = swarm.peer_mut(at);
        if peer.connection == connection {
            if peer.completion_counted && !peer.has_claimant {
                self.completions.note(fingerprint(self.hasher, &info_hash, peer));
            }
            self.release(torrent, at);
            return true;
        }
        self.withdraw_claim((torrent, at), &(info_hash, *peer_id), connection)
    }

    /// Removes the pending claimant of a peer if it is this connection. Returns whether it was.
    fn withdraw_claim(
        &mut self,
        (torrent, at): (usize, usize),
        key: &(InfoHash, PeerId),
        connection: ConnectionId,
    ) -> bool {
        let peer = self.torrents[torrent].peer_mut(at);
        if !peer.has_claimant || self.claimants.get(key).is_none_or(|other| other.connection != connection) {
            return false;
        }
        peer.has_claimant = false;
        self.claimants.swap_remove(key);
        true
    }

    /// Handles that the connection of a peer left. Its offers are removed. The peer passes to its pending
    /// claimant, unless the network of that has too many, or is removed, and with the last peer the torrent.
    /// Returns whether the torrent was removed.
    fn release(&mut self, torrent: usize, at: usize) -> bool {
        let Some((&info_hash, swarm)) = self.torrents.get_index_mut(torrent) else { return false };
        let peer = swarm.peer_mut(at);
        self.offers.remove_all(&mut peer.offers);
        if let Some(replication) = &mut self.replication {
            replication.note_left(&info_hash, &peer.id, &peer.registration());
        }
        let (holder, has_claimant) = (peer.registration(), std::mem::take(&mut peer.has_claimant));
        if has_claimant
            && let Some(claimant) = self.claimants.swap_remove(&(info_hash, peer.id))
            && self.may_move(torrent, &holder, &claimant)
        {
            // Not counted as a download: nothing shows that it is the same peer.
            let at = self.update(torrent, at, claimant);
            self.note_present(torrent, at);
            return false;
        }
        let Some((_, swarm)) = self.torrents.get_index_mut(torrent) else { return false };
        *self.peers.of(&holder) -= 1;
        let before = swarm.heap_bytes();
        swarm.remove(at, &self.hasher);
        self.torrent_bytes -= before - swarm.heap_bytes();
        let is_last = swarm.len() == 0;
        if is_last {
            self.remove_torrent(torrent);
        }
        is_last
    }

    fn remove_torrent(&mut self, torrent: usize) {
        let last = self.torrents.len() - 1;
        self.cursor.torrent_removed(torrent, last);
        if let Some(replication) = &mut self.replication {
            replication.torrent_removed(torrent, last);
        }
        if let Some((_, removed)) = self.torrents.swap_remove_index(torrent) {
            self.torrent_bytes -= removed.heap_bytes();
        }
    }

    /// Returns the counts of a torrent; zeros for an unknown one.
    #[must_use]
    pub fn scrape(&self, info_hash: &InfoHash) -> Counts {
        self.torrents.get(info_hash).map_or_else(Counts::default, counts)
    }

    /// Offers the torrents at `most` positions from `from` on. Returns the next position; `None` at the end.
    /// A torrent that is moved meanwhile may be missed.
    pub(crate) fn rank(&self, from: usize, most: usize, top: &mut TopTorrents) -> Option<usize> {
        let end = (from + most).min(self.torrents.len());
        for (info_hash, torrent) in self.torrents.get_range(from..end).into_iter().flatten() {
            let Counts { complete, incomplete, .. } = counts(torrent);
            top.offer(complete, incomplete, || *info_hash);
        }
        (end < self.torrents.len()).then_some(end)
    }

    /// Hands out the counts of at most `most` torrents that have not been visited in a pass, of which there
    /// are `unvisited`: all, when it begins. Returns how many are left. What is there during the whole pass
    /// is handed out, rarely twice: a removed torrent is replaced by the last one.
    pub fn count_torrents(
        &self,
        unvisited: usize,
        most: usize,
        mut out: impl FnMut(&InfoHash, Counts),
    ) -> usize {
        let unvisited = unvisited.min(self.torrents.len());
        let left = unvisited.saturating_sub(most);
        for (info_hash, torrent) in self.torrents.get_range(left..unvisited).into_iter().flatten() {
            out(info_hash, counts(torrent));
        }
        left
    }

    /// Visits peers of the torrent at the cursor, and advances the cursor.
    fn expire_torrent(&mut self, now: Seconds, max_peer_age: u32, budget: u64, expired: &mut Expired) {
        let torrent = self.cursor.torrents - 1;
        while let Some(left) = self.cursor.peers {
            let Some(at) = left.checked_sub(1) else {
                self.cursor = Cursor::start(torrent);
                return;
            };
            if expired.work >= budget.max(1) {
                return;
            }
            self.cursor.peers = Some(at);
            expired.work += 1;
            if self.expire_peer(torrent, at, now, max_peer_age) {
                expired.work += Expired::WORK_PER_PEER;
                expired.peers += 1;
                if self.release(torrent, at) {
                    expired.torrents += 1;
                    // The torrent that takes its position was visited.
                    self.cursor = Cursor::start(torrent);
                }
            }
        }
    }

    /// Removes what expired of a peer but the peer itself. Returns whether the peer expired, too.
    fn expire_peer(&mut self, torrent: usize, at: usize, now: Seconds, max_peer_age: u32) -> bool {
        let Some((&info_hash, swarm)) = self.torrents.get_index_mut(torrent) else { return false };
        let peer = swarm.peer_mut(at);
        if peer.has_claimant {
            let key = (info_hash, peer.id);
            let is_old = |claimant: &Registration| is_over(&self.replication, claimant, now, max_peer_age);
            if self.claimants.get(&key).is_none_or(is_old) {
                peer.has_claimant = false;
                self.claimants.swap_remove(&key);
            }
        }
        if is_over(&self.replication, &peer.registration(), now, max_peer_age) {
            return true;
        }
        self.offers.expire_peer(&mut peer.offers, now);
        false
    }

    fn end_pass(&mut self) {
        self.cursor = Cursor::start(self.torrents.len());
        if let Some(replication) = &mut self.replication {
            replication.end_pass();
        }
        self.offers.shrink();
        if self.torrents.len() <= self.torrents.capacity() / 4 {
            self.torrents.shrink_to(self.torrents.len() * 2);
        }
        if self.claimants.len() <= self.claimants.capacity() / 4 {
            self.claimants.shrink_to(self.claimants.len() * 2);
        }
    }

    /// Returns the totals.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            max_torrents: self.limits.max_torrents,
            max_peers: self.limits.max_peers,
            torrents: self.torrents.len(),
            peers: self.peers.of_all_nodes(),
            remote_peers: self.peers.of_other_nodes(),
            offers: self.offers.len(),
            offers_evicted: self.offers.evicted(),
            bytes: map_bytes(&self.torrents)
                + self.torrent_bytes
                + map_bytes(&self.claimants)
                + self.completions.bytes()
                + self.offers.heap_bytes(),
        }
    }

    /// Asserts the invariants.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut peers = PeerCounts::default();
        let mut claimants = 0;
        for (info_hash, torrent) in &self.torrents {
            torrent.check(&self.hasher);
            for peer in (0..torrent.len()).map(|at| torrent.peer(at)) {
                *peers.of(&peer.registration()) += 1;
                let claimed = self.claimants.contains_key(&(*info_hash, peer.id));
                assert_eq!(peer.has_claimant, claimed);
                claimants += usize::from(claimed);
            }
        }
        assert_eq!(peers, self.peers);
        assert_eq!(self.torrent_bytes, self.torrents.values().map(Torrent::heap_bytes).sum::<usize>());
        assert_eq!(claimants, self.claimants.len(), "every claimant claims a peer");
        let all = self.torrents.values().flat_map(|torrent| (0..torrent.len()).map(|at| torrent.peer(at)));
        self.offers.check(all.map(|peer| peer.offers));
    }
}

impl Expire for Swarms {
    /// Returns the approximate work of a pass that removes nothing: one unit per torrent and one per peer.
    fn pass_work(&self) -> u64 {
        (self.torrents.len() + self.peers.total()) as u64
    }

    /// Removes expired peers and claimants, see [`Expire::expire`]. A peer is never removed early, and at
    /// most two passes late. Also removes expired offers, and releases memory at the end of a pass.
    fn expire(&mut self, now: Seconds, max_peer_age: u32, budget: u64) -> Expired {
        let offer_budget = usize::try_from(budget).unwrap_or(usize::MAX).max(MIN_OFFER_BUDGET);
        self.offers.expire(now, offer_budget);
        self.completions.expire(now.0, max_peer_age);
        let mut expired = Expired::default();
        while expired.work < budget.max(1) {
            let Some((_, torrent)) =
                self.cursor.torrents.checked_sub(1).and_then(|last| self.torrents.get_index(last))
            else {
                self.end_pass();
                expired.pass_ended = true;
                break;
            };
            let unvisited = match self.cursor.peers {
                Some(peers) => peers.min(torrent.len()),
                None => {
                    expired.work += 1;
                    torrent.len()
                }
            };
            self.cursor.peers = Some(unvisited);
            self.expire_torrent(now, max_peer_age, budget, &mut expired);
        }
        expired
    }
}

/// Returns whether a peer or claimant has expired: because of its age, or because its node is gone or does
/// not publish it again.
fn is_over(
    replication: &Option<Box<Replication>>,
    registration: &Registration,
    now: Seconds,
    max_peer_age: u32,
) -> bool {
    match replication {
        Some(replication) if registration.connection.is_remote() => {
            replication.is_over(registration.connection, (registration.last_seen, now), max_peer_age)
        }
        _ => now - registration.last_seen > max_peer_age,
    }
}

/// Makes room for another entry. A map grows by an eighth, not to twice its size, which a memory budget may
/// not have.
fn make_room<K: Hash + Eq, V, S: BuildHasher>(map: &mut IndexMap<K, V, S>) {
    if map.len() == map.capacity() {
        map.reserve_exact((map.len() / 8).max(8));
    }
}

/// Returns the memory of a map in bytes: entries with their hashes, and positions in a table whose capacity
/// is seven eighths of its buckets.
fn map_bytes<K, V, S>(map: &IndexMap<K, V, S>) -> usize {
    const POSITION: usize = size_of::<usize>() + 1;
    map.capacity() * (size_of::<(u64, K, V)>() + POSITION * 8 / 7)
}

/// Returns the number of a pending offer: a hash of the peer that may answer, its connection and the offer.
fn offer_number(
    mut hasher: SipHasher13,
    peer_id: &PeerId,
    connection: ConnectionId,
    offer: OfferDigest,
) -> u64 {
    hasher.write(&peer_id.0);
    hasher.write_u16(connection.core);
    hasher.write_u32(connection.slot);
    hasher.write_u32(connection.generation);
    hasher.write_u64(offer.0);
    hasher.finish()
}

/// Returns the hash by which a counted peer that left is remembered. It covers the network, because clients
/// choose their peer ids and know those of others.
fn fingerprint(mut hasher: SipHasher13, info_hash: &InfoHash, peer: &Peer) -> u64 {
    hasher.write(&info_hash.0);
    hasher.write(&peer.id.0);
    hasher.write_u32(peer.network.to_bits());
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
mod tests;
