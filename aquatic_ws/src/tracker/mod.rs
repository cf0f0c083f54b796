//! One core of the tracker without its sockets: messages from clients and other cores in, frames for clients
//! and messages to other cores out. Time, randomness and the admission policy are arguments.
//!
//! Each kind of message has a module with a function per stage. Their order is receive, decode, admit, route,
//! apply, encode and send; an answer is encoded before it is routed, because its owner needs only the frame.
//!
//! # Invariants
//!
//! - The owner of a torrent decides about its swarm; the core of a connection knows its state. They exchange
//!   messages in order, and neither waits for the other.
//! - When a connection ends, its peers are removed first, on whichever cores they are.
//! - The reply to a client is queued before this core queues anything that its request causes for other
//!   clients.

mod announce;
mod answer;
mod bytes;
mod nodes;
mod router;
mod scrape;

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use aquatic_common::expiry::{Expire, Expired};
use aquatic_common::{Family, InfoHash, PeerId, RateEvent, Seconds, SourceLimit, SourceRules, Steering};
use aquatic_runtime::channel::OutboxFull;
use aquatic_tracker::forward::take;
use aquatic_tracker::requests::{self, Requests};
use aquatic_tracker::{
    Admission, CoreBudget, Forward, Gather, Intake, Intervals, NotAdmitted, OwnerParts, Reason,
    StoreDegradation,
};
use aquatic_ws_protocol::{Action, ClientMessage, FailureReply, Limits, OfferId, Refused};
use rand::rngs::SmallRng;
use siphasher::sip::SipHasher13;

use crate::config::WsConfig;
use crate::connections::{ConnectionLimits, Connections, End, QueueError};
use crate::counters::{Counters, RelayDrop, Request, Response, reason_of};
use crate::forwarding::{Forwarded, ForwardedBatch, Frame, Relay};
use crate::frames::{frame_length, write_text_header};
use crate::nodes::Nodes;
use crate::swarm::{ConnectionId, Counts, OfferDigest, Swarms};
pub use bytes::Ended;
use router::{Owner, Router};
use scrape::WaitingScrape;

/// Environment of a request.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// Admission policy.
    pub admission: &'a Admission,
    /// Time of the request.
    pub now: Seconds,
    /// The same time for deadlines, which are shorter than the resolution of ages.
    pub time: Duration,
    /// Source of randomness.
    pub rng: &'a mut SmallRng,
}

/// Refusal of a well-formed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The tracker does not serve the torrent.
    NotAdmitted(NotAdmitted),
    /// The connection has `ws.client.max_peers` peers.
    ConnectionPeers,
    /// The connection has `ws.client.max_peers_per_torrent` peers in the torrent.
    ConnectionTorrentPeers,
    /// The connection has `ws.client.max_peer_ids` peer ids.
    ConnectionPeerIds,
    /// The outbox for the owner of the torrent is full.
    Overflow,
    /// The owner of the torrent did not respond in time.
    Timeout,
}

impl Refusal {
    fn reason(self) -> Reason {
        match self {
            Self::NotAdmitted(why) => why.into(),
            Self::ConnectionPeers => Reason::ConnectionPeers,
            Self::ConnectionTorrentPeers => Reason::ConnectionTorrentPeers,
            Self::ConnectionPeerIds => Reason::ConnectionPeerIds,
            Self::Overflow => Reason::Overflow,
            Self::Timeout => Reason::Timeout,
        }
    }

    /// Returns the failure reason that the client receives.
    fn text(self) -> &'static str {
        match self {
            Self::NotAdmitted(why) => why.text(),
            Self::ConnectionPeers => "too many torrents over one connection",
            Self::ConnectionTorrentPeers => "too many peers in the torrent over one connection",
            Self::ConnectionPeerIds => "too many peer ids over one connection",
            Self::Overflow | Self::Timeout => "the tracker is overloaded, try again later",
        }
    }
}

/// Hash keys, the same on all cores of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) swarms: [u8; 16],
    pub(crate) offers: [u8; 16],
    pub(crate) sources: [u8; 16],
}

fn message_limits(config: &WsConfig) -> Limits {
    Limits {
        max_message_length: config.client.max_message_size,
        max_offers: config.max_offers,
        max_scrape_hashes: config.max_scrape_torrents,
    }
}

/// Announces after which memory is looked at, at the latest: half a megabyte of new peers.
const ANNOUNCES_PER_CHECK: u32 = 2048;

/// One core of the tracker. `F` is its way to the other cores.
pub struct Tracker<F> {
    intervals: Intervals,
    max_peer_age: u32,
    /// Age up to which peers are remembered: longer while clients wait that were told a longer interval.
    peer_age: u32,
    /// Of offers from other nodes.
    max_offer_age: u32,
    limits: Limits,
    pub(crate) connections: Connections,
    /// Limits of messages by source.
    sources: SourceLimit,
    pub(crate) counters: Counters,
    /// Samples of the messages.
    requests: Requests,
    /// Why the message that is served is refused or dropped; `None` if it is not, so far.
    refused: Option<&'static str>,
    router: Router<F>,
    swarms: Swarms,
    degradation: StoreDegradation,
    /// Announces since memory was last checked.
    unchecked: u32,
    scrapes: Gather<WaitingScrape, Counts>,
    offer_hasher: SipHasher13,
    /// Messages to other nodes; `None` without a cluster.
    nodes: Option<Box<Nodes>>,
    // Used within one call each, and kept to avoid allocations.
    text: String,
    digests: Vec<OfferDigest>,
    receivers: Vec<ConnectionId>,
}

impl<F> std::fmt::Debug for Tracker<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracker").field("swarms", &self.swarms.stats()).finish_non_exhaustive()
    }
}

impl<F: Forward<ForwardedBatch>> Tracker<F> {
    pub(crate) fn new(
        config: &WsConfig,
        (core, steering): (usize, Steering),
        keys: Keys,
        (counters, degradation): (Counters, StoreDegradation),
        forward: F,
    ) -> Self {
        Self {
            intervals: Intervals::new(config.interval(), config.stretch()),
            max_peer_age: config.cleaning.max_peer_age,
            peer_age: config.cleaning.max_peer_age,
            max_offer_age: config.max_offer_age,
            limits: message_limits(config),
            connections: Connections::new(core as u16, ConnectionLimits::new(config)),
            sources: SourceLimit::new(SourceRules::default(), keys.sources),
            counters,
            requests: Requests::default(),
            refused: None,
            swarms: Swarms::new(config.swarm_limits(steering.cores()), keys.swarms),
            degradation,
            unchecked: 0,
            router: Router::new(core, steering, forward),
            scrapes: Gather::default(),
            offer_hasher: SipHasher13::new_with_key(&keys.offers),
            nodes: None,
            text: String::new(),
            digests: Vec::new(),
            receivers: Vec::new(),
        }
    }

    /// Replaces the settings, except those of pending offers and of the interval of expiry.
    pub(crate) fn reconfigure(&mut self, config: &WsConfig) {
        self.limits = message_limits(config);
        self.connections.set_limits(ConnectionLimits::new(config));
        self.swarms.set_limits(config.swarm_limits(self.router.cores()));
        (self.intervals.policy, self.intervals.stretch) = (config.interval(), config.stretch());
        self.max_peer_age = config.cleaning.max_peer_age;
        self.max_offer_age = config.max_offer_age;
        if self.nodes.is_some() {
            self.swarms.replicate(self.max_peer_age);
        }
    }

    /// Returns the age in seconds at which peers are removed at present.
    pub(crate) fn max_peer_age(&self) -> u32 {
        self.degradation.step().max_peer_age(self.peer_age, self.intervals.longest())
    }

    /// Bounds the memory of what is stored, and of what all connections have not received yet, in bytes.
    pub(crate) fn bound_memory(&mut self, budget: Option<CoreBudget>, max_unsent: Option<usize>) {
        self.degradation.set_budget(budget);
        self.set_max_unsent(max_unsent);
    }

    /// Replaces the number of bytes that all connections may have that they have not received yet.
    pub(crate) fn set_max_unsent(&mut self, bytes: Option<usize>) {
        self.connections.set_max_unsent(bytes);
    }

    /// Whether memory allows that any new peer is stored.
    fn stores_new_peers(&self) -> bool {
        self.degradation.step().intake() != Intake::Nothing
    }

    /// Notes that a peer was announced, which may be a new one, and looks at memory now and then.
    fn note_joined(&mut self) {
        self.unchecked += 1;
        if self.unchecked >= ANNOUNCES_PER_CHECK {
            self.check_memory();
        }
    }

    /// Compares the memory of what is stored with the budget, and stores what it allows from now on.
    fn check_memory(&mut self) {
        self.unchecked = 0;
        let bytes = self.swarms.stats().bytes + self.connections.membership_bytes();
        if let Some(step) = self.degradation.check(bytes as u64) {
            self.swarms.set_intake(step.intake());
        }
    }

    /// Returns the samples of the messages of this core.
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Returns the swarms of the torrents that this core owns.
    #[must_use]
    pub fn swarms(&self) -> &Swarms {
        &self.swarms
    }

    /// Serves a message from a client.
    pub(crate) fn receive(&mut self, from: ConnectionId, text: &str, context: &mut RequestContext<'_>) {
        let Some(family) = self.connections.get(from).map(|connection| connection.family) else { return };
        self.refused = None;
        let message = match self.decode(text) {
            Ok(message) => message,
            Err(refused) => {
                self.refuse_malformed(from, &refused);
                return self.note(from, ("unknown", None));
            }
        };
        let noted = if self.requests.are_wanted() { Some(summary(&message)) } else { None };
        self.connections.request_received(from);
        log::trace!("ws: connection {from}: {message:?}");
        match message {
            ClientMessage::Announce(message) => {
                self.counters.request(family, Request::Announce);
                self.counters.client(&message.peer_id);
                announce::serve(self, from, family, &message, context);
            }
            ClientMessage::Answer(message) => {
                self.counters.request(family, Request::Answer);
                answer::serve(self, from, &message, context);
            }
            ClientMessage::Scrape(message) => {
                self.counters.request(family, Request::Scrape);
                scrape::serve(self, from, message, context);
            }
        }
        if let Some(noted) = noted {
            self.note(from, noted);
        }
    }

    /// Notes a message for the samples of this core, unless nobody wants them.
    fn note(&mut self, from: ConnectionId, (action, announce): Summary) {
        let source = self.connections.get(from).and_then(|connection| connection.source);
        let (true, Some(source)) = (self.requests.are_wanted(), source) else { return };
        self.requests.note(requests::Request {
            protocol: "ws",
            action,
            source,
            info_hash: announce.as_ref().map(|(info_hash, _)| info_hash),
            peer_id: announce.as_ref().map(|(_, peer_id)| peer_id),
            outcome: self.refused.unwrap_or("served"),
        });
    }

    fn decode<'a>(&self, text: &'a str) -> Result<ClientMessage<'a>, Refused> {
        ClientMessage::parse(text, &self.limits)
    }

    /// Refuses a message that could not be decoded.
    pub(crate) fn refuse_malformed(&mut self, from: ConnectionId, refused: &Refused) {
        let reason = reason_of(refused.fault);
        log::trace!("ws: connection {from}: message refused: {}", reason.name());
        self.refused = Some(reason.name());
        let family = self.connections.get(from).map(|connection| connection.family);
        self.counters.refuse_other(family, reason);
        self.text.clear();
        refused.encode(&mut self.text);
        self.send(from, Response::Error);
    }

    /// Refuses a message that was decoded.
    fn refuse(&mut self, to: ConnectionId, action: Action, info_hash: Option<InfoHash>, refusal: Refusal) {
        let reason = refusal.reason();
        log::trace!("ws: connection {to}: message refused: {}", reason.name());
        self.refused = Some(reason.name());
        let family = self.connections.get(to).map(|connection| connection.family);
        self.counters.refuse(family, reason);
        self.text.clear();
        FailureReply { action, info_hash, reason: refusal.text().into() }.encode(&mut self.text);
        self.send(to, Response::Error);
    }

    /// Serves the messages from another core, and sends what they result in.
    pub fn receive_batch(
        &mut self,
        from: usize,
        batch: &mut ForwardedBatch,
        context: &mut RequestContext<'_>,
    ) {
        let ForwardedBatch { messages, torrents, counts, peers, .. } = batch;
        let mut lists = Lists { torrents, counts, peers };
        for message in messages.drain(..) {
            self.receive_forwarded(from, message, &mut lists, context);
        }
        self.router.others().flush();
    }

    fn receive_forwarded(
        &mut self,
        from: usize,
        message: Forwarded,
        lists: &mut Lists<'_>,
        context: &mut RequestContext<'_>,
    ) {
        match message {
            Forwarded::Announce(forwarded) => announce::receive_forwarded(self, from, *forwarded, context),
            Forwarded::Answer(forwarded) => answer::receive_forwarded(self, *forwarded, context.now),
            Forwarded::Scrape { scrape, torrents } => {
                scrape::receive_forwarded(self, from, scrape, take(&mut lists.torrents, torrents));
            }
            Forwarded::Leave { connection, peers } => {
                for (info_hash, peer_id) in take(&mut lists.peers, peers) {
                    self.swarms.leave(info_hash, peer_id, connection);
                }
            }
            Forwarded::Announced { connection, info_hash, announced } => {
                self.connections.response_received(connection);
                announce::reply(self, connection, info_hash, &announced, context.rng);
            }
            Forwarded::Relay { connection, relay, frame } => self.relay(connection, relay, frame),
            Forwarded::Probe { connection } => self.connections.probe(connection),
            Forwarded::Scraped { scrape, counts } => {
                scrape::receive_response(self, scrape, take(&mut lists.counts, counts));
            }
        }
    }

    /// Forwards a request of a client to the owner of its torrent.
    fn forward_request(
        &mut self,
        from: ConnectionId,
        owner: usize,
        message: Forwarded,
    ) -> Result<(), OutboxFull> {
        self.counters.forwarded.add(1);
        self.router.forward(owner, message)?;
        self.connections.request_sent(from);
        Ok(())
    }

    /// Queues the frame of another client for a connection of this or another core.
    fn relay(&mut self, to: ConnectionId, relay: Relay, frame: Frame) {
        if !self.router.is_local(to) {
            return self.forward_relay(to, relay, frame);
        }
        let response = match relay {
            Relay::Offer => Response::Offer,
            Relay::Answer => Response::Answer,
        };
        let pushed = self.connections.push_relay(to, frame.len(), |out| out.extend_from_slice(&frame));
        self.count_sent(pushed, response);
    }

    fn forward_relay(&mut self, connection: ConnectionId, relay: Relay, frame: Frame) {
        let message = Forwarded::Relay { connection, relay, frame };
        if self.router.forward(connection.core.into(), message).is_err() {
            self.counters.drop_relay(RelayDrop::Overflow);
        }
    }

    /// Queues the text encoded last for a connection of this core.
    fn send(&mut self, to: ConnectionId, response: Response) {
        let text = std::mem::take(&mut self.text);
        self.send_text(to, response, text.len(), |out| out.extend_from_slice(text.as_bytes()));
        self.text = text;
    }

    /// Queues a text of `length` bytes for a connection of this core.
    fn send_text(
        &mut self,
        to: ConnectionId,
        response: Response,
        length: usize,
        text: impl FnOnce(&mut Vec<u8>),
    ) {
        let write = |out: &mut Vec<u8>| {
            out.reserve(frame_length(length));
            write_text_header(length, out);
            text(out);
        };
        let length = frame_length(length);
        let pushed = match response {
            Response::Offer | Response::Answer => self.connections.push_relay(to, length, write),
            Response::Announce | Response::Scrape | Response::Error => {
                self.connections.push(to, length, write)
            }
        };
        self.count_sent(pushed, response);
    }

    fn count_sent(&self, pushed: Result<Family, QueueError>, response: Response) {
        match pushed {
            Ok(family) => self.counters.response(family, response),
            Err(why) => self.counters.not_queued(why, response),
        }
    }

    fn digest(&self, offer_id: &OfferId) -> OfferDigest {
        let mut hasher = self.offer_hasher;
        offer_id.hash(&mut hasher);
        OfferDigest(hasher.finish())
    }

    /// Adds a connection.
    pub fn open(&mut self, family: Family) -> ConnectionId {
        self.counters.upgrades.add(1);
        self.connections.open(family)
    }

    /// Limits the messages and peers of a connection together with those of the others of this client. Its
    /// address is in canonical form.
    pub fn limit_source(&mut self, connection: ConnectionId, client: IpAddr) {
        if let Some(connection) = self.connections.get(connection) {
            connection.source = Some(client);
            connection.network = self.swarms.network(client);
        }
    }

    /// Replaces the limits of messages by source.
    pub fn set_source_rules(&mut self, rules: SourceRules) {
        self.sources.set_rules(rules);
    }

    /// Returns what has to be told about rate limits now. To be asked about every second.
    pub(crate) fn rate_event(&mut self, time: Duration) -> Option<RateEvent> {
        let event = self.sources.event(time);
        self.counters.rate_limiting.set(self.sources.is_limiting().into());
        event
    }

    /// Removes a connection and its peers. Returns the bytes that were not sent.
    pub fn close(&mut self, connection: ConnectionId, end: End) -> Option<Vec<u8>> {
        let closed = self.connections.close(connection)?;
        self.counters.end(closed.end.unwrap_or(end));
        let mut owners = OwnerParts::default();
        for (info_hash, peer_id) in closed.memberships.peers() {
            match self.router.owner(&info_hash) {
                Owner::Here => {
                    self.swarms.leave(&info_hash, &peer_id, connection);
                }
                Owner::Core(owner) => owners.note(owner),
            }
        }
        for owner in owners.iter() {
            let is_owned = |info_hash: &InfoHash| self.router.owner(info_hash) == Owner::Core(owner);
            let owned = closed.memberships.peers().filter(|(info_hash, _)| is_owned(info_hash));
            // Peers that are not removed would receive offers until they expire. There are at most as many of
            // these messages as there were connections.
            self.router.others().add_always(owner, |batch| batch.push_leave(connection, owned));
        }
        Some(closed.send_queue.into_unsent())
    }

    /// Takes in for which share of some seconds the core was busy, if it is known. To be called once a
    /// second.
    pub(crate) fn follow_load(&mut self, busy: Option<(f64, f64)>, now: Seconds) {
        if let Some((share, seconds)) = busy {
            self.intervals.add_load(share, seconds);
            self.counters.show_load(self.intervals.busy());
        }
        self.peer_age = self.intervals.peer_age(now, self.max_peer_age);
    }

    /// Enforces time limits and updates metrics. To be called once a second.
    pub fn tick(&mut self, time: Duration) {
        self.counters.throttled.add(self.connections.tick());
        for WaitingScrape { connection, .. } in self.scrapes.expire(time) {
            self.refuse(connection, Action::Scrape, None, Refusal::Timeout);
        }
        self.check_memory();
        self.counters.report(&self.swarms.stats(), self.scrapes.len());
    }
}

/// What is noted of a message: what it asks for, and for an announce or answer, of which torrent and peer.
type Summary = (&'static str, Option<(InfoHash, PeerId)>);

#[cold]
fn summary(message: &ClientMessage<'_>) -> Summary {
    match message {
        ClientMessage::Announce(message) => ("announce", Some((message.info_hash, message.peer_id))),
        ClientMessage::Answer(message) => ("answer", Some((message.info_hash, message.peer_id))),
        ClientMessage::Scrape(_) => ("scrape", None),
    }
}

/// Lists of a batch whose messages are served, from the entries of the next message on.
struct Lists<'a> {
    torrents: &'a [(u16, InfoHash)],
    counts: &'a [(u16, Counts)],
    peers: &'a [(InfoHash, PeerId)],
}

impl<F> Expire for Tracker<F> {
    fn pass_work(&self) -> u64 {
        self.swarms.pass_work()
    }

    fn expire(&mut self, now: Seconds, max_peer_age: u32, budget: u64) -> Expired {
        self.swarms.expire(now, max_peer_age, budget)
    }
}

#[cfg(test)]
mod tests;
