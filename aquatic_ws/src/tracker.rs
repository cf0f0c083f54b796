//! One core of the tracker without its sockets: messages in, frames and items for other cores out. The time, randomness
//! and the access list are arguments.
//!
//! # Invariants
//!
//! - A torrent's owner decides about it; the core of a connection knows the connection. Each tells the other what it has
//!   to know, in order, and neither waits.
//! - A connection's peers are removed when it ends, from whichever cores, before anything else is done about the end.
//! - What a client asks for is answered over its connection before anything it causes is sent to others by this core.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use aquatic_common::Steering;
use aquatic_common::{AccessList, AnnounceEvent, Family, InfoHash, Seconds, time::shorten};
use aquatic_ws_protocol::{
    Action, Announce, AnnounceReply, Answer, AnswerRelay, ClientMessage, FailureReply, Limits, Offer,
    OfferId, OfferRelays, OwnedOffers, Refused, Scrape,
};
use rand::Rng;
use rand::rngs::SmallRng;
use siphasher::sip::SipHasher13;

use crate::config::WsConfig;
use crate::connections::{Bounds, Connections, End, Lost, PROBE};
use crate::counters::{Counters, Dropped, Request, Response, Why};
use crate::frames::{text_length, write_text_head};
use crate::joined::TooMany;
use crate::message::{AwayAnnounce, AwayAnswer, Frame, Item, Mail, Relay};
use crate::scrapes::Scrapes;
use crate::swarm::{self, AnswerFault, ConnectionId, OfferDigest, Outcome, Swarms};

/// Interval told to a client whose peer id somebody else has: long enough to find out whether that one lives.
const CONTESTED_INTERVAL: u32 = PROBE + 5;

/// What a call needs to know about the world.
pub(crate) struct Turn<'a> {
    pub(crate) access_list: &'a AccessList,
    pub(crate) now: Seconds,
    pub(crate) rng: &'a mut SmallRng,
}

/// Keys that all cores of a process share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) swarms: [u8; 16],
    pub(crate) offers: [u8; 16],
}

/// One core's part of the tracker.
pub(crate) struct Tracker {
    core: usize,
    steering: Steering,
    config: WsConfig,
    limits: Limits,
    pub(crate) connections: Connections,
    pub(crate) counters: Counters,
    swarms: Swarms,
    /// By core.
    mail: Vec<Mail>,
    scrapes: Scrapes,
    offer_hasher: SipHasher13,
    // Used within one call each, and kept to spare the allocations.
    text: String,
    digests: Vec<OfferDigest>,
    receivers: Vec<ConnectionId>,
}

impl Tracker {
    pub(crate) fn new(
        config: WsConfig,
        core: usize,
        steering: Steering,
        keys: Keys,
        counters: Counters,
    ) -> Self {
        let limits = Limits {
            max_message_length: config.client.max_message_size,
            max_offers: config.max_offers,
            max_scrape_hashes: config.max_scrape_torrents,
        };
        let cores = steering.cores();
        Self {
            core,
            steering,
            limits,
            connections: Connections::new(core as u16, Bounds::new(&config)),
            counters,
            swarms: Swarms::new(config.swarm_limits(cores), keys.swarms),
            mail: (0..cores).map(|_| Mail::default()).collect(),
            scrapes: Scrapes::default(),
            offer_hasher: SipHasher13::new_with_key(&keys.offers),
            text: String::new(),
            digests: Vec::new(),
            receivers: Vec::new(),
            config,
        }
    }

    /// Longest message that is read.
    pub(crate) fn max_message(&self) -> usize {
        self.limits.max_message_length
    }

    /// Whether anything waits for other cores.
    pub(crate) fn has_mail(&self) -> bool {
        // On one core there is none, and with few cores it takes no time.
        self.mail.len() > 1 && self.mail.iter().any(|mail| !mail.is_empty())
    }

    /// What waits for another core.
    pub(crate) fn mail(&mut self, core: usize) -> Option<&mut Mail> {
        self.mail.get_mut(core)
    }

    /// Serves a message.
    pub(crate) fn message(&mut self, from: ConnectionId, text: &str, turn: &mut Turn<'_>) {
        let Some(family) = self.connections.get(from).map(|connection| connection.family) else { return };
        match ClientMessage::parse(text, &self.limits) {
            Ok(ClientMessage::Announce(announce)) => {
                self.counters.request(family, Request::Announce);
                self.connections.note_useful(from);
                self.announce(from, family, &announce, turn);
            }
            Ok(ClientMessage::Answer(answer)) => {
                self.counters.request(family, Request::Answer);
                self.connections.note_useful(from);
                self.answer(from, &answer, turn);
            }
            Ok(ClientMessage::Scrape(scrape)) => {
                self.counters.request(family, Request::Scrape);
                self.connections.note_useful(from);
                self.scrape(from, scrape, turn);
            }
            Err(refused) => self.refuse(from, &refused),
        }
    }

    /// Tells a client what is wrong with its message.
    pub(crate) fn refuse(&mut self, from: ConnectionId, refused: &Refused) {
        self.counters.refuse(Why::Bad(refused.fault));
        self.text.clear();
        refused.encode(&mut self.text);
        self.send(from, Response::Error);
    }

    fn fail(
        &mut self,
        to: ConnectionId,
        action: Action,
        info_hash: Option<InfoHash>,
        why: Why,
        reason: &str,
    ) {
        self.counters.refuse(why);
        self.text.clear();
        FailureReply { action, info_hash, reason: reason.into() }.encode(&mut self.text);
        self.send(to, Response::Error);
    }

    fn announce(&mut self, from: ConnectionId, family: Family, message: &Announce<'_>, turn: &mut Turn<'_>) {
        let info_hash = message.info_hash;
        let fail = |tracker: &mut Self, why, reason| {
            tracker.fail(from, Action::Announce, Some(info_hash), why, reason);
        };
        if !turn.access_list.allows(&info_hash) {
            return fail(self, Why::AccessList, "this tracker does not serve this torrent");
        }
        self.counters.drop_many(Dropped::BadOffer, message.bad_offers);
        let stopped = message.event == AnnounceEvent::Stopped;
        match self.note_join(from, message, stopped, turn.now) {
            Ok(()) => {}
            Err(TooMany::Peers) => return fail(self, Why::Peers, "too many torrents over one connection"),
            Err(TooMany::PeerIds) => {
                return fail(self, Why::PeerIds, "too many peer ids over one connection");
            }
        }
        let announce = swarm::Announce {
            info_hash,
            peer_id: message.peer_id,
            connection: from,
            family,
            seeder: message.is_seeder() && message.event != AnnounceEvent::Paused,
            stopped,
        };
        let offers = if stopped { &[] } else { message.offers.as_slice() };
        let mut digests = std::mem::take(&mut self.digests);
        digests.clear();
        digests.extend(offers.iter().map(|offer| self.digest(&offer.offer_id)));
        let owner = self.steering.owner(&info_hash);
        if owner == self.core {
            self.announce_here(&announce, offers, &digests, turn);
        } else {
            self.counters.forwarded.add(1);
            let away = AwayAnnounce { announce, digests: digests.clone(), offers: OwnedOffers::new(offers) };
            self.connections.note_asked(from);
            if self.post(owner, Item::Announce(Box::new(away))).is_err() {
                fail(self, Why::Overflow, "the tracker is overloaded, try again later");
            }
        }
        self.digests = digests;
    }

    fn note_join(
        &mut self,
        from: ConnectionId,
        message: &Announce<'_>,
        stopped: bool,
        now: Seconds,
    ) -> Result<(), TooMany> {
        let limits = self.connections.bounds().joined;
        let Some(connection) = self.connections.get(from) else { return Ok(()) };
        let peer = (message.info_hash, message.peer_id);
        if stopped {
            connection.joined.leave(&peer);
            return Ok(());
        }
        connection.joined.join(peer, now, limits)
    }

    /// Serves an announce about a torrent of this core that has come over a connection of this core.
    fn announce_here(
        &mut self,
        announce: &swarm::Announce,
        offers: &[Offer<'_>],
        digests: &[OfferDigest],
        turn: &mut Turn<'_>,
    ) {
        let announced = self.apply(announce, digests, turn);
        self.reply(announce.connection, announce.info_hash, &announced, turn.rng);
        self.pass_on(announce, offers.iter());
    }

    /// Sends offers to those who were drawn last.
    fn pass_on<'a>(
        &mut self,
        announce: &swarm::Announce,
        offers: impl Iterator<Item = impl Borrow<Offer<'a>>>,
    ) {
        if self.receivers.is_empty() {
            return;
        }
        let relays = OfferRelays::new(announce.info_hash, announce.peer_id);
        let receivers = std::mem::take(&mut self.receivers);
        for (&to, offer) in receivers.iter().zip(offers) {
            let offer = offer.borrow();
            if usize::from(to.core) == self.core {
                let length = relays.length(offer);
                self.send_frame(to, Response::Offer, length, |out| relays.encode(offer, out));
            } else {
                self.relay_away(to, Relay::Offer, offer_frame(&relays, offer));
            }
        }
        self.receivers = receivers;
    }

    /// Applies an announce about a torrent of this core.
    fn apply(
        &mut self,
        announce: &swarm::Announce,
        digests: &[OfferDigest],
        turn: &mut Turn<'_>,
    ) -> swarm::Announced {
        let announced = self.swarms.announce(announce, digests, turn.now, turn.rng, &mut self.receivers);
        match announced.outcome {
            Outcome::Contested(holder) => {
                self.counters.contested.add(1);
                self.probe(holder);
            }
            Outcome::Refused(limit) => self.counters.not_stored[limit as usize].add(1),
            Outcome::Stored | Outcome::Left => {}
        }
        announced
    }

    fn probe(&mut self, holder: ConnectionId) {
        if usize::from(holder.core) == self.core {
            self.connections.probe(holder);
        } else {
            // If it does not arrive, the next announce of the claimant sends another.
            let _ = self.post(holder.core.into(), Item::Probe { connection: holder });
        }
    }

    /// Answers an announce.
    fn reply(
        &mut self,
        to: ConnectionId,
        info_hash: InfoHash,
        announced: &swarm::Announced,
        rng: &mut SmallRng,
    ) {
        let WsConfig { peer_announce_interval, announce_interval_jitter, .. } = self.config;
        let interval = shorten(peer_announce_interval, announce_interval_jitter, rng.next_u32());
        let is_contested = matches!(announced.outcome, Outcome::Contested(_));
        let interval = if is_contested { interval.min(CONTESTED_INTERVAL) } else { interval };
        let swarm::Counts { complete, incomplete, .. } = announced.counts;
        self.text.clear();
        AnnounceReply { info_hash, interval, complete, incomplete }.encode(&mut self.text);
        self.send(to, Response::Announce);
    }

    fn answer(&mut self, from: ConnectionId, message: &Answer<'_>, turn: &mut Turn<'_>) {
        let Answer { info_hash, peer_id, to_peer_id, ref offer_id, answer } = *message;
        if !turn.access_list.allows(&info_hash) {
            return self.counters.drop_one(Dropped::AnswerAccessList);
        }
        let offer = self.digest(offer_id);
        let about = swarm::Answer { info_hash, peer_id, connection: from, to_peer_id, offer };
        self.text.clear();
        AnswerRelay { info_hash, peer_id, answer, offer_id: offer_id.clone() }.encode(&mut self.text);
        let owner = self.steering.owner(&info_hash);
        if owner == self.core {
            match self.find_receiver(&about, turn.now) {
                Some(to) if usize::from(to.core) == self.core => self.send(to, Response::Answer),
                Some(to) => {
                    let frame = frame_of(&self.text);
                    self.relay_away(to, Relay::Answer, frame);
                }
                None => {}
            }
        } else {
            self.counters.forwarded.add(1);
            let frame = frame_of(&self.text);
            if self.post(owner, Item::Answer(Box::new(AwayAnswer { answer: about, frame }))).is_err() {
                self.counters.drop_one(Dropped::Overflow);
            }
        }
    }

    fn find_receiver(&mut self, answer: &swarm::Answer, now: Seconds) -> Option<ConnectionId> {
        match self.swarms.answer(answer, now) {
            Ok(to) => Some(to),
            Err(fault) => {
                self.counters.drop_one(match fault {
                    AnswerFault::Gone => Dropped::AnswerToNobody,
                    AnswerFault::NoOffer => Dropped::AnswerWithoutOffer,
                });
                None
            }
        }
    }

    fn scrape(&mut self, from: ConnectionId, message: Scrape, turn: &mut Turn<'_>) {
        let cores = self.steering.cores();
        let mut away: Vec<Vec<(u16, InfoHash)>> = vec![Vec::new(); cores];
        let mut counts = vec![swarm::Counts::default(); message.info_hashes.len()];
        for (at, (info_hash, counts)) in message.info_hashes.iter().zip(&mut counts).enumerate() {
            let owner = self.steering.owner(info_hash);
            // Of torrents that are not served nobody is told anything.
            if !turn.access_list.allows(info_hash) {
                continue;
            }
            if owner == self.core {
                *counts = self.swarms.scrape(info_hash);
            } else {
                away[owner].push((at as u16, *info_hash));
            }
        }
        let missing = away.iter().filter(|torrents| !torrents.is_empty()).count();
        if missing == 0 {
            return self.finish_scrape(from, &message.info_hashes, &counts);
        }
        self.counters.forwarded.add(1);
        self.connections.note_asked(from);
        let question = self.scrapes.ask(from, message.info_hashes, counts, missing, turn.now);
        for (owner, torrents) in away.into_iter().enumerate().filter(|(_, torrents)| !torrents.is_empty()) {
            let item = Item::Scrape { question, torrents: torrents.into_boxed_slice() };
            if self.post(owner, item).is_err() {
                self.scrapes.cancel(question);
                let text = "the tracker is overloaded, try again later";
                return self.fail(from, Action::Scrape, None, Why::Overflow, text);
            }
        }
    }

    fn finish_scrape(&mut self, to: ConnectionId, info_hashes: &[InfoHash], counts: &[swarm::Counts]) {
        self.text.clear();
        Scrapes::write(info_hashes, counts, &mut self.text);
        self.send(to, Response::Scrape);
    }

    /// Does what another core asks for, or takes what it answers.
    pub(crate) fn item(&mut self, from: usize, item: Item, turn: &mut Turn<'_>) {
        match item {
            Item::Announce(away) => self.announce_from_away(from, *away, turn),
            Item::Answer(away) => {
                if let Some(to) = self.find_receiver(&away.answer, turn.now) {
                    self.relay(to, Relay::Answer, away.frame);
                }
            }
            Item::Scrape { question, torrents } => {
                let counts =
                    torrents.iter().map(|(at, info_hash)| (*at, self.swarms.scrape(info_hash))).collect();
                if self.post(from, Item::Scraped { question, counts }).is_err() {
                    self.counters.drop_one(Dropped::Overflow);
                }
            }
            Item::Leave { connection, peers } => {
                for (info_hash, peer_id) in &peers {
                    self.swarms.leave(info_hash, peer_id, connection);
                }
            }
            Item::Announced { connection, info_hash, announced } => {
                self.connections.note_told(connection);
                self.reply(connection, info_hash, &announced, turn.rng);
            }
            Item::Relay { connection, relay, frame } => self.relay(connection, relay, frame),
            Item::Probe { connection } => self.connections.probe(connection),
            Item::Scraped { question, counts } => {
                if let Some(done) = self.scrapes.answer(question, &counts) {
                    self.connections.note_told(done.connection);
                    self.finish_scrape(done.connection, &done.info_hashes, &done.counts);
                }
            }
        }
    }

    fn announce_from_away(&mut self, from: usize, away: AwayAnnounce, turn: &mut Turn<'_>) {
        let AwayAnnounce { announce, digests, offers } = away;
        let announced = self.apply(&announce, &digests, turn);
        let (connection, info_hash) = (announce.connection, announce.info_hash);
        if self.post(from, Item::Announced { connection, info_hash, announced }).is_err() {
            self.counters.drop_one(Dropped::Overflow);
        }
        self.pass_on(&announce, offers.iter());
    }

    fn relay(&mut self, to: ConnectionId, relay: Relay, frame: Frame) {
        if usize::from(to.core) != self.core {
            return self.relay_away(to, relay, frame);
        }
        let response = match relay {
            Relay::Offer => Response::Offer,
            Relay::Answer => Response::Answer,
        };
        let pushed = self.connections.push_relay(to, frame.len(), |out| out.extend_from_slice(&frame));
        self.count_sent(pushed, response);
    }

    fn relay_away(&mut self, connection: ConnectionId, relay: Relay, frame: Frame) {
        if self.post(connection.core.into(), Item::Relay { connection, relay, frame }).is_err() {
            self.counters.drop_one(Dropped::Overflow);
        }
    }

    /// Adds the text that was written last, as a frame, to what waits for a connection of this core.
    fn send(&mut self, to: ConnectionId, response: Response) {
        let text = std::mem::take(&mut self.text);
        self.send_frame(to, response, text.len(), |out| out.extend_from_slice(text.as_bytes()));
        self.text = text;
    }

    /// Adds a frame with a text of this length to what waits for a connection of this core.
    fn send_frame(
        &mut self,
        to: ConnectionId,
        response: Response,
        length: usize,
        text: impl FnOnce(&mut Vec<u8>),
    ) {
        let write = |out: &mut Vec<u8>| {
            out.reserve(text_length(length));
            write_text_head(length, out);
            text(out);
        };
        let pushed = match response {
            Response::Offer | Response::Answer => self.connections.push_relay(to, text_length(length), write),
            Response::Announce | Response::Scrape | Response::Error => {
                self.connections.push(to, text_length(length), write)
            }
        };
        self.count_sent(pushed, response);
    }

    fn count_sent(&self, pushed: Result<Family, Lost>, response: Response) {
        match pushed {
            Ok(family) => self.counters.response(family, response),
            Err(Lost::Gone) => self.counters.drop_one(Dropped::ConnectionGone),
            Err(Lost::Full) => self.counters.drop_one(Dropped::ReceiverFull),
        }
    }

    fn post(&mut self, to: usize, item: Item) -> Result<(), Item> {
        match self.mail.get_mut(to) {
            Some(mail) => mail.push(item),
            None => Err(item),
        }
    }

    fn digest(&self, offer_id: &OfferId) -> OfferDigest {
        let mut hasher = self.offer_hasher;
        offer_id.hash(&mut hasher);
        OfferDigest(hasher.finish())
    }

    /// A connection begins.
    pub(crate) fn open(&mut self, family: Family) -> ConnectionId {
        self.counters.upgrades.add(1);
        self.connections.open(family)
    }

    /// A connection ends: its peers leave at once. Returns the frames that were not sent.
    pub(crate) fn close(&mut self, connection: ConnectionId, end: End) -> Option<crate::outbound::Outbound> {
        let closed = self.connections.close(connection)?;
        self.counters.end(closed.end.unwrap_or(end));
        let mut away: Vec<Vec<_>> = vec![Vec::new(); if self.mail.len() > 1 { self.mail.len() } else { 0 }];
        for (info_hash, peer_id) in closed.joined.peers() {
            let owner = self.steering.owner(&info_hash);
            if owner == self.core {
                self.swarms.leave(&info_hash, &peer_id, connection);
            } else {
                away[owner].push((info_hash, peer_id));
            }
        }
        for (owner, peers) in away.into_iter().enumerate().filter(|(_, peers)| !peers.is_empty()) {
            let item = Item::Leave { connection, peers: peers.into_boxed_slice() };
            // There is always room for these.
            let _ = self.post(owner, item);
        }
        Some(closed.outbound)
    }

    /// What is to be done once a second.
    pub(crate) fn look(&mut self, now: Seconds) {
        self.counters.throttled.add(self.connections.look());
        for connection in self.scrapes.expire(now) {
            let text = "the tracker is overloaded, try again later";
            self.fail(connection, Action::Scrape, None, Why::Timeout, text);
        }
        self.counters.report(&self.swarms.stats());
    }

    /// Forgets what is too old, with this much work. Whether all torrents have been looked at.
    pub(crate) fn expire(&mut self, now: Seconds, budget: usize) -> bool {
        let expired = self.swarms.expire(now, budget);
        self.counters.expired_peers.add(expired.peers as u64);
        self.counters.expired_torrents.add(expired.torrents as u64);
        self.counters.expiry_passes.add(u64::from(expired.pass_ended));
        expired.pass_ended
    }

    /// How many peers and torrents there are to look at in a pass.
    pub(crate) fn pass_length(&self) -> usize {
        let stats = self.swarms.stats();
        stats.torrents + stats.peers.iter().flatten().sum::<usize>()
    }
}

fn offer_frame(relays: &OfferRelays, offer: &Offer<'_>) -> Frame {
    let length = relays.length(offer);
    let mut frame = Vec::with_capacity(text_length(length));
    write_text_head(length, &mut frame);
    relays.encode(offer, &mut frame);
    frame.into_boxed_slice()
}

fn frame_of(text: &str) -> Frame {
    let mut frame = Vec::with_capacity(text_length(text.len()));
    write_text_head(text.len(), &mut frame);
    frame.extend_from_slice(text.as_bytes());
    frame.into_boxed_slice()
}

#[cfg(test)]
mod tests;
