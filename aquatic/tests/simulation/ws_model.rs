//! The naive model of WebTorrent: swarms of connections, the offers that can be answered, and what each
//! connection has to be sent.

use std::collections::{BTreeMap, BTreeSet};

use aquatic_common::{InfoHash, PeerId};
use aquatic_ws::swarm::Counts;

use crate::model::Counted;

/// Number of a connection.
pub(crate) type Client = usize;

/// Seconds for which an offer can be answered, and how many of one peer: the defaults of the tracker.
const MAX_OFFER_AGE: u32 = 120;
const MAX_OFFERS: usize = 100;

#[derive(Clone, Copy)]
struct Registration {
    client: Client,
    seeder: bool,
    seen: u32,
    /// Whether the connection is one of another node.
    remote: bool,
}

struct Peer {
    registration: Registration,
    claimant: Option<Registration>,
    /// Whether the peer was counted as a download.
    counted: bool,
    /// Offers that can be answered, oldest first, with the time until then.
    pending: Vec<(String, u32)>,
}

#[derive(Default)]
struct Swarm {
    peers: BTreeMap<PeerId, Peer>,
    downloaded: u32,
}

/// An announce over WebTorrent.
#[derive(Clone)]
pub(crate) struct WsAnnounce {
    pub(crate) client: Client,
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: PeerId,
    pub(crate) seeder: bool,
    pub(crate) stopped: bool,
    pub(crate) offers: Vec<String>,
}

/// An answer to an offer.
#[derive(Clone)]
pub(crate) struct WsAnswer {
    pub(crate) client: Client,
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: PeerId,
    pub(crate) to: PeerId,
    pub(crate) offer: String,
}

/// What another node has told about one of its peers.
pub(crate) struct WsChange {
    pub(crate) client: Client,
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: PeerId,
    /// Whether it is a seeder, and counted as a download; `None` if it left.
    pub(crate) present: Option<(bool, bool)>,
    pub(crate) seen: u32,
}

/// What the reply to an announce has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectedReply {
    pub(crate) complete: u32,
    pub(crate) incomplete: u32,
    pub(crate) contested: bool,
}

/// The offers of an applied announce.
struct Offering {
    info_hash: InfoHash,
    maker: PeerId,
    seeder: bool,
    /// The other peers of the torrent: whose connection, and whether they are seeders.
    candidates: Vec<(Client, bool)>,
    /// Who has received each offer that has a receiver.
    receivers: Vec<Option<Client>>,
}

/// All WebTorrent swarms, and what has not been received yet.
pub(crate) struct WsModel {
    swarms: BTreeMap<InfoHash, Swarm>,
    counted: Counted<(InfoHash, PeerId)>,
    offerings: BTreeMap<usize, Offering>,
    replies: BTreeMap<(Client, InfoHash), Vec<ExpectedReply>>,
    answers: BTreeSet<(Client, InfoHash, PeerId, String)>,
    closed: BTreeSet<Client>,
    /// Offers and answers that were relayed.
    pub(crate) relayed: (u32, u32),
    pub(crate) takeovers: u32,
}

impl Default for WsModel {
    fn default() -> Self {
        let (swarms, offerings, replies, answers, closed) = Default::default();
        let (counted, relayed, takeovers) = (Counted::new(), (0, 0), 0);
        Self { swarms, counted, offerings, replies, answers, closed, relayed, takeovers }
    }
}

/// The id of an offer: number of the announce, and of the offer in it.
pub(crate) fn offer_id(announce: usize, offer: usize) -> String {
    format!("{announce}.{offer}")
}

impl WsModel {
    /// Applies an announce of this number at the moment at which its owner does.
    pub(crate) fn announce(&mut self, number: usize, announce: &WsAnnounce, now: u32) {
        let WsAnnounce { client, info_hash, peer_id, seeder, stopped, .. } = *announce;
        let mut contested = false;
        if stopped {
            self.leave(client, &info_hash, &peer_id);
        } else {
            let swarm = self.swarms.entry(info_hash).or_default();
            let registration = Registration { client, seeder, seen: now, remote: false };
            match swarm.peers.get_mut(&peer_id) {
                Some(peer) if peer.registration.remote => {
                    peer.claimant = Some(peer.registration);
                    peer.registration = registration;
                }
                Some(peer) if peer.registration.client != client => {
                    peer.claimant = Some(registration);
                    contested = true;
                }
                Some(peer) => {
                    let completes = seeder && !peer.registration.seeder && !peer.counted;
                    peer.counted |= completes;
                    let again = self.counted.contains(&(info_hash, peer_id));
                    swarm.downloaded += u32::from(completes && !again);
                    peer.registration = registration;
                }
                None => {
                    let peer = Peer { registration, claimant: None, counted: false, pending: Vec::new() };
                    swarm.peers.insert(peer_id, peer);
                }
            }
            if !contested {
                self.offer(number, announce, now);
            }
        }
        let Counts { complete, incomplete, .. } = self.counts(&info_hash);
        let reply = ExpectedReply { complete, incomplete, contested };
        self.replies.entry((client, info_hash)).or_default().push(reply);
    }

    fn offer(&mut self, number: usize, announce: &WsAnnounce, now: u32) {
        let swarm = self.swarms.get_mut(&announce.info_hash).unwrap();
        let others = swarm.peers.iter().filter(|(id, _)| **id != announce.peer_id);
        let candidates: Vec<_> =
            others.map(|(_, peer)| (peer.registration.client, peer.registration.seeder)).collect();
        let relayed = announce.offers.len().min(candidates.len());
        if relayed == 0 {
            return;
        }
        let pending = &mut swarm.peers.get_mut(&announce.peer_id).unwrap().pending;
        pending.retain(|(_, until)| *until >= now);
        pending.extend(announce.offers.iter().take(relayed).map(|id| (id.clone(), now + MAX_OFFER_AGE)));
        pending.drain(..pending.len().saturating_sub(MAX_OFFERS));
        let offering = Offering {
            info_hash: announce.info_hash,
            maker: announce.peer_id,
            seeder: announce.seeder,
            candidates,
            receivers: vec![None; relayed],
        };
        self.offerings.insert(number, offering);
    }

    /// Applies an answer at the moment at which its owner does.
    pub(crate) fn answer(&mut self, answer: &WsAnswer, now: u32) {
        let WsAnswer { client, info_hash, peer_id, to, ref offer } = *answer;
        if self.receiver(offer) != Some(client) {
            return;
        }
        let peer = self.swarms.get_mut(&info_hash).and_then(|swarm| swarm.peers.get_mut(&to));
        let Some(peer) = peer else { return };
        let found = peer.pending.iter().position(|(id, until)| id == offer && now <= *until);
        if let Some(at) = found {
            peer.pending.remove(at);
            self.answers.insert((peer.registration.client, info_hash, peer_id, offer.clone()));
        }
    }

    fn receiver(&self, offer: &str) -> Option<Client> {
        let (number, at) = offer.split_once('.')?;
        let offering = self.offerings.get(&number.parse().ok()?)?;
        *offering.receivers.get(at.parse::<usize>().ok()?)?
    }

    /// Removes a peer of a connection, or the claimant that it is.
    pub(crate) fn leave(&mut self, client: Client, info_hash: &InfoHash, peer_id: &PeerId) {
        let Some(swarm) = self.swarms.get_mut(info_hash) else { return };
        let Some(peer) = swarm.peers.get_mut(peer_id) else { return };
        if peer.registration.client == client {
            if peer.counted && peer.claimant.is_none() {
                self.counted.note((*info_hash, *peer_id));
            }
            self.takeovers += u32::from(swarm.release(peer_id));
        } else if peer.claimant.is_some_and(|claimant| claimant.client == client) {
            peer.claimant = None;
        }
        self.swarms.retain(|_, swarm| !swarm.peers.is_empty());
    }

    /// Applies what another node has told.
    pub(crate) fn apply(&mut self, change: &WsChange, now: u32, max_age: u32) {
        let WsChange { client, info_hash, peer_id, present, seen } = *change;
        let Some((seeder, completed)) = present else {
            return self.leave(client, &info_hash, &peer_id);
        };
        let registration = Registration { client, seeder, seen, remote: true };
        if registration.is_old(now, max_age) {
            return;
        }
        let swarm = self.swarms.entry(info_hash).or_default();
        let new = Peer { registration, claimant: None, counted: false, pending: Vec::new() };
        let peer = swarm.peers.entry(peer_id).or_insert(new);
        if peer.registration.client != client {
            if peer.claimant.is_none_or(|claimant| claimant.remote) {
                peer.claimant = Some(registration);
            }
            return;
        }
        let seen = peer.registration.seen.max(seen);
        peer.registration = Registration { seen, ..registration };
        let again = self.counted.contains(&(info_hash, peer_id));
        swarm.downloaded += u32::from(completed && !peer.counted && !again);
        peer.counted |= completed;
    }

    /// Removes all peers of connections.
    pub(crate) fn forget(&mut self, gone: impl Fn(Client) -> bool) {
        for swarm in self.swarms.values_mut() {
            for peer in swarm.peers.values_mut() {
                peer.claimant = peer.claimant.filter(|claimant| !gone(claimant.client));
            }
            let ids: Vec<_> = swarm.peers.iter().map(|(id, peer)| (*id, peer.registration.client)).collect();
            for (id, _) in ids.iter().filter(|(_, client)| gone(*client)) {
                swarm.release(id);
            }
        }
        self.swarms.retain(|_, swarm| !swarm.peers.is_empty());
    }

    /// Notes that an offer does not reach its receiver, which has left.
    pub(crate) fn lose_offer(&mut self, offer: &str) {
        let (number, at) = offer.split_once('.').unwrap();
        let offering = self.offerings.get_mut(&number.parse().unwrap()).unwrap();
        let receiver = &mut offering.receivers[at.parse::<usize>().unwrap()];
        assert_eq!(receiver.replace(usize::MAX), None, "offer {offer} was relayed");
    }

    /// The peer ids of a torrent.
    pub(crate) fn peer_ids(&self, info_hash: &InfoHash) -> BTreeSet<PeerId> {
        self.swarms.get(info_hash).into_iter().flat_map(|swarm| swarm.peers.keys().copied()).collect()
    }

    /// Notes that nothing reaches a connection any more.
    pub(crate) fn close(&mut self, client: Client) {
        self.closed.insert(client);
    }

    pub(crate) fn counts(&self, info_hash: &InfoHash) -> Counts {
        let Some(swarm) = self.swarms.get(info_hash) else { return Counts::default() };
        let complete = swarm.peers.values().filter(|peer| peer.registration.seeder).count() as u32;
        let incomplete = swarm.peers.len() as u32 - complete;
        Counts { complete, incomplete, downloaded: swarm.downloaded }
    }

    /// Removes claimants and peers that have not announced for `max_age` seconds.
    pub(crate) fn expire(
        &mut self,
        core: usize,
        (now, max_age): (u32, u32),
        expires: impl Fn(&InfoHash) -> bool,
    ) {
        self.counted.expire(core, (now, max_age), |(info_hash, _)| expires(info_hash));
        for (_, swarm) in self.swarms.iter_mut().filter(|(info_hash, _)| expires(info_hash)) {
            let is_old = |registration: Registration| registration.is_old(now, max_age);
            let mut old = Vec::new();
            for (id, peer) in &mut swarm.peers {
                peer.claimant = peer.claimant.filter(|claimant| !is_old(*claimant));
                if is_old(peer.registration) {
                    old.push(*id);
                }
            }
            old.iter().for_each(|id| self.takeovers += u32::from(swarm.release(id)));
        }
        self.swarms.retain(|_, swarm| !swarm.peers.is_empty());
    }

    /// Checks a reply to an announce that a connection has received.
    pub(crate) fn receive_reply(&mut self, client: Client, info_hash: InfoHash, reply: ExpectedReply) {
        let expected = self.replies.get_mut(&(client, info_hash)).filter(|expected| !expected.is_empty());
        let expected = expected.unwrap_or_else(|| panic!("no reply to {client} is due")).remove(0);
        assert_eq!(reply, expected, "the reply to {client}");
    }

    /// Checks an offer that a connection has received.
    pub(crate) fn receive_offer(&mut self, client: Client, info_hash: InfoHash, from: PeerId, offer: &str) {
        let (number, at) = offer.split_once('.').unwrap();
        let at: usize = at.parse().unwrap();
        let offering = self.offerings.get_mut(&number.parse().unwrap());
        let offering = offering.unwrap_or_else(|| panic!("offer {offer} is not to be relayed"));
        assert_eq!((offering.info_hash, offering.maker), (info_hash, from), "offer {offer}");
        let leechers = offering.candidates.iter().filter(|(_, seeder)| !seeder).count();
        let fits = |of_seeder: bool| !offering.seeder || of_seeder == (at >= leechers);
        let peers = offering.candidates.iter().filter(|&&(of, seeder)| of == client && fits(seeder)).count();
        let had = (offering.receivers.iter().enumerate()).filter(|&(other, of)| {
            *of == Some(client) && (!offering.seeder || (other >= leechers) == (at >= leechers))
        });
        assert!(had.count() < peers, "offer {offer} is for no peer of {client}");
        let receiver = offering.receivers.get_mut(at);
        let receiver = receiver.unwrap_or_else(|| panic!("offer {offer} has no receiver"));
        assert_eq!(receiver.replace(client), None, "offer {offer} was relayed twice");
        self.relayed.0 += 1;
    }

    /// Checks an answer that a connection has received.
    pub(crate) fn receive_answer(&mut self, client: Client, info_hash: InfoHash, from: PeerId, offer: &str) {
        let answer = (client, info_hash, from, offer.to_owned());
        assert!(self.answers.remove(&answer), "the answer to offer {offer} is not for {client}");
        self.relayed.1 += 1;
    }

    /// Checks that everything has been received that could be.
    pub(crate) fn check_complete(&mut self) {
        for ((client, _), replies) in &self.replies {
            assert!(replies.is_empty() || self.closed.contains(client), "{client} lacks a reply");
        }
        for (client, _, _, offer) in &self.answers {
            assert!(self.closed.contains(client), "{client} lacks the answer to offer {offer}");
        }
        for (number, offering) in &self.offerings {
            let missing = offering.receivers.iter().filter(|receiver| receiver.is_none()).count();
            let gone = offering.candidates.iter().filter(|(client, _)| self.closed.contains(client)).count();
            assert!(missing <= gone, "{missing} offers of announce {number} were not relayed, {gone} may be");
        }
    }

    /// Number of peers.
    pub(crate) fn peers(&self) -> usize {
        self.swarms.values().map(|swarm| swarm.peers.len()).sum()
    }
}

impl Registration {
    /// Whether it has expired: half of the time later if other nodes have to hear of it.
    fn is_old(self, now: u32, max_age: u32) -> bool {
        now - self.seen > max_age + if self.remote { max_age / 2 } else { 0 }
    }
}

impl Swarm {
    /// Handles that the connection of a peer left. Returns whether its claimant has taken over.
    fn release(&mut self, peer_id: &PeerId) -> bool {
        let peer = self.peers.get_mut(peer_id).unwrap();
        peer.pending.clear();
        match peer.claimant.take() {
            Some(claimant) => {
                peer.registration = claimant;
                true
            }
            None => {
                self.peers.remove(peer_id);
                false
            }
        }
    }
}
