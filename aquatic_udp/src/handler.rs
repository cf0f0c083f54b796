//! From packets to replies, without sockets: a batch of requests and the core's tracker in, replies and
//! requests to other cores out. Any transport that implements [`Datagrams`] is served.
//!
//! The stages of a request are functions: [`decode`], [`Handler::admit`], [`Handler::route`],
//! [`Handler::apply`], [`Handler::encode`]. Receiving and sending belong to the transport.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aquatic_common::config::RateLimitsConfig;
use aquatic_common::load_table::SourceKey;
use aquatic_common::{
    Budget, BudgetRules, Family, InfoHash, RateEvent, RateVerdict, Seconds, SourceLimit, SourceRules,
    canonical,
};
use aquatic_net::block_list::BlockList;
use aquatic_net::udp::{BATCH, Datagrams, ReturnPath};
use aquatic_swarm::{Announce, Announced, Families, FamilySet, PeerBuffers, SwarmCounts};
use aquatic_tracker::{AdmissionRequest, OwnerResponse, Reason, Tracker};
use aquatic_udp_protocol::{
    ANNOUNCE_HEAD_LENGTH, AnnounceHead, AnnounceRequest, BufferTooSmall, ConnectReply, ConnectionId,
    ErrorReply, Fault, ParseError, Request, ScrapeReply, ScrapeRequest, TorrentCounts, TransactionId,
    Unanswerable,
};

use crate::config::UdpConfig;
use crate::connection_id::ConnectionIds;
use crate::counters::{Action, Counters};
use crate::forwarded::{Forwarded, ForwardedAnnounce, ForwardedScrape, MAX_SCRAPE};
use crate::noted::Noted;

/// Limits of replies.
#[derive(Clone, Copy, Debug)]
pub struct ReplyLimits {
    /// Maximum number of peers in a reply.
    pub max_response_peers: usize,
    /// Maximum number of torrents a scrape is answered for.
    pub max_scrape_torrents: usize,
    /// Maximum size of a reply in bytes.
    pub max_reply_size: usize,
}

impl From<&UdpConfig> for ReplyLimits {
    fn from(config: &UdpConfig) -> Self {
        Self {
            max_response_peers: config.max_response_peers,
            max_scrape_torrents: config.max_scrape_torrents,
            max_reply_size: config.max_reply_size,
        }
    }
}

/// The handler of one core.
pub struct Handler {
    ids: ConnectionIds,
    limits: ReplyLimits,
    steps: Box<[Step; BATCH]>,
    /// The keys of the sources, by which those of announces and scrapes are charged.
    keys: Box<[SourceKey; BATCH]>,
    /// Datagrams of the next batch that are dropped unread, as bits, and why.
    unread: (u64, Reason),
    sources: Sources,
    counters: Counters,
}

/// Who may ask for how much.
#[derive(Debug)]
pub struct Sources {
    /// Limits of announces and scrapes, whose senders have shown that they own their address.
    pub limit: SourceLimit,
    /// Limit of connects, whose sender may be forged.
    pub connects: Budget,
    /// Networks that are not served.
    pub blocked: Arc<BlockList>,
    /// Time since the epoch.
    pub now: Duration,
}

impl Sources {
    /// Serves everybody; the key must not be known to clients.
    #[must_use]
    pub fn unlimited(key: [u8; 16]) -> Self {
        Self {
            limit: SourceLimit::new(SourceRules::default(), key),
            connects: Budget::new(BudgetRules::default()),
            blocked: Arc::default(),
            now: Duration::ZERO,
        }
    }

    /// Applies changed limits, of one of some cores.
    pub fn configure(&mut self, config: &RateLimitsConfig, cores: usize) {
        self.limit.set_rules(config.udp_rules(cores));
        self.connects.set_rules(config.connect_rules(cores));
    }
}

const _: () = assert!(BATCH <= u64::BITS as usize, "one bit for each datagram of a batch");

/// What is left to do for a packet once its batch has been admitted and routed.
#[derive(Clone, Copy)]
enum Step {
    Done,
    Apply(TransactionId, Announce),
}

/// The listener that received a batch.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// Its position among the listeners, the same on every core.
    pub index: usize,
    /// The family of its clients.
    pub family: Family,
}

/// Who sent a packet, and when it was received.
#[derive(Clone, Copy)]
struct Client {
    source: SocketAddr,
    /// What the source is charged by.
    key: SourceKey,
    now: Seconds,
}

/// A request that may be served.
enum Admitted<'a> {
    Connect(TransactionId),
    Announce(TransactionId, Announce),
    Scrape(ScrapeRequest<'a>),
}

/// A request that is not served, and how to tell the client, if it may be told.
struct Refused {
    reason: Reason,
    /// Whether the request has been counted by its action.
    is_counted: bool,
    reply: Option<(TransactionId, &'static str)>,
}

impl Refused {
    fn silent(reason: Reason) -> Self {
        Self { reason, is_counted: false, reply: None }
    }
}

type Encoded = Result<usize, BufferTooSmall>;

impl Handler {
    /// A handler for one of the cores that share `ids`.
    #[must_use]
    pub fn new(limits: ReplyLimits, ids: ConnectionIds, sources: Sources, counters: Counters) -> Self {
        Self {
            ids,
            limits,
            steps: Box::new([Step::Done; BATCH]),
            keys: Box::new([SourceKey::default(); BATCH]),
            unread: (0, Reason::Overload),
            sources,
            counters,
        }
    }

    /// Replaces the limits of replies.
    pub fn set_limits(&mut self, limits: ReplyLimits) {
        self.limits = limits;
    }

    /// Adopts the calendar, in seconds since 1970, for the connection ids of a cluster.
    pub fn follow_calendar(&mut self, now: Seconds, calendar: impl FnOnce() -> i64) {
        if self.ids.uses_calendar() {
            self.ids.follow_calendar(now, calendar());
        }
    }

    /// Drops some datagrams of the next batch unread: those whose bits are set.
    pub fn drop_unread(&mut self, datagrams: u64, reason: Reason) {
        self.unread = (datagrams, reason);
    }

    /// Who may ask for how much.
    pub fn sources(&mut self) -> &mut Sources {
        &mut self.sources
    }

    /// What has to be told now about the rate limits of sources, and about that of connects. To be asked
    /// about every second.
    pub fn rate_events(&mut self, now: Duration) -> [Option<RateEvent>; 2] {
        let Sources { limit, connects, .. } = &mut self.sources;
        let events = [limit.event(now), connects.event(now)];
        self.counters.rate_limiting.set(u64::from(limit.is_limiting()) + u64::from(connects.is_limiting()));
        events
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Serves a batch: decodes, admits and routes each packet, loads what the announces will touch all at
    /// once, then applies them in order. What other cores own is added to `forwarded`.
    pub fn handle(
        &mut self,
        packets: &mut impl Datagrams,
        listener: Listener,
        (tracker, now): (&mut Tracker, Seconds),
        forwarded: &mut Forwarded,
    ) {
        let count = packets.count().min(BATCH);
        self.make_keys(packets, count);
        for at in 0..count {
            let noted = if tracker.requests().are_wanted() { Noted::of(packets, at) } else { None };
            let step = self.begin(packets, at, listener, (tracker, now), forwarded);
            if let Some(noted) = noted {
                noted.note(step.as_ref().err().map(|refused| refused.reason), tracker.requests());
            }
            self.steps[at] = step.unwrap_or_else(|refused| {
                self.refuse(packets, at, listener.family, &refused);
                Step::Done
            });
        }
        self.unread.0 = 0;
        let announces = self.steps[..count].iter().filter_map(|step| match step {
            Step::Apply(_, announce) => Some(announce),
            Step::Done => None,
        });
        tracker.prefetch(listener.family, announces);
        for at in 0..count {
            if let Step::Apply(transaction_id, announce) = self.steps[at] {
                let reply = self.answer(transaction_id, &announce, (tracker, now), packets.reply_buffer(at));
                self.finish(packets, at, listener.family, Action::Announce, reply);
            }
        }
    }

    /// Makes the keys of all sources that may be charged, if there is a limit, so that what the table needs
    /// for them is computed and loaded at once.
    fn make_keys(&mut self, packets: &impl Datagrams, count: usize) {
        let Self { keys, sources, unread, .. } = self;
        if !sources.limit.is_on() {
            return;
        }
        for (at, key) in keys.iter_mut().enumerate().take(count) {
            // All but connects, malformed requests as well. Those that are too short are not answered.
            let action = packets.request(at).get(8..12);
            let is_charged = unread.0 >> at & 1 == 0 && action.is_some_and(|action| action != [0; 4]);
            if is_charged && let Some(source) = packets.source(at) {
                *key = sources.limit.key(source.ip().to_canonical());
            }
        }
    }

    /// All stages of a packet up to the point where its batch is applied. Connects and scrapes are finished
    /// here.
    fn begin(
        &mut self,
        packets: &mut impl Datagrams,
        at: usize,
        listener: Listener,
        (tracker, now): (&mut Tracker, Seconds),
        forwarded: &mut Forwarded,
    ) -> Result<Step, Refused> {
        self.counters.received(listener.family, packets.request(at).len());
        let (unread, reason) = self.unread;
        if unread >> at & 1 == 1 {
            return Err(Refused::silent(reason));
        }
        if packets.is_truncated(at) {
            return Err(Refused::silent(Reason::TooLong));
        }
        let source = packets.source(at).map(canonical).filter(|source| source.port() != 0);
        let Some(source) = source else {
            return Err(Refused::silent(Reason::SourcePortZero));
        };
        if self.sources.blocked.blocks(source.ip()) {
            return Err(Refused::silent(Reason::Blocked));
        }
        let client = Client { source, key: self.keys[at], now };
        let admitted = match decode(packets.request(at)) {
            Ok(request) => self.admit(request, client, listener.family, tracker)?,
            Err(error) => return Err(self.explain(error, client)),
        };
        match admitted {
            Admitted::Connect(transaction_id) => {
                log::trace!("udp: connect of {source}");
                let id = self.ids.make(client.source.ip(), client.now);
                let reply = ConnectReply::new(transaction_id, id).encode(packets.reply_buffer(at));
                self.finish(packets, at, listener.family, Action::Connect, reply);
                Ok(Step::Done)
            }
            Admitted::Announce(transaction_id, announce) => {
                log::trace!("udp: announce of {source}: {announce}");
                let path = || packets.return_path(at);
                Ok(self.route(transaction_id, announce, (listener, path), tracker, forwarded))
            }
            Admitted::Scrape(request) => {
                // Copied out of the packet, so that the reply can be written.
                let mut all = [InfoHash([0; 20]); MAX_SCRAPE];
                log::trace!("udp: scrape of {source}: torrents {:?}", request.info_hashes());
                let asked = request.first(self.limits.max_scrape_torrents.min(MAX_SCRAPE));
                let torrents = all.get_mut(..asked.len()).unwrap_or_default();
                torrents.copy_from_slice(asked);
                let transaction_id = request.transaction_id();
                self.scrape(packets, at, (listener, tracker), (transaction_id, torrents), forwarded);
                Ok(Step::Done)
            }
        }
    }

    /// Decides whether a request is served: by its connection id, its port and the torrent.
    fn admit<'a>(
        &mut self,
        request: Request<'a>,
        client: Client,
        family: Family,
        tracker: &Tracker,
    ) -> Result<Admitted<'a>, Refused> {
        match request {
            Request::Connect(request) => {
                let verdict = self.sources.connects.take(self.sources.now);
                self.follow(verdict)?;
                self.counters.request(family, Action::Connect);
                Ok(Admitted::Connect(request.transaction_id()))
            }
            Request::Announce(request) => {
                self.check_id(request.connection_id(), client)?;
                self.check_rate(client)?;
                self.counters.request(family, Action::Announce);
                self.counters.client(request.peer_id());
                let announce = self.admit_announce(request, client, tracker)?;
                Ok(Admitted::Announce(request.transaction_id(), announce))
            }
            Request::Scrape(request) => {
                self.check_id(request.connection_id(), client)?;
                self.check_rate(client)?;
                self.counters.request(family, Action::Scrape);
                Ok(Admitted::Scrape(request))
            }
        }
    }

    fn admit_announce(
        &self,
        request: &AnnounceRequest,
        client: Client,
        tracker: &Tracker,
    ) -> Result<Announce, Refused> {
        let refuse = |reason, text| {
            let reply = Some((request.transaction_id(), text));
            Refused { reason, is_counted: true, reply }
        };
        if request.port() == 0 {
            return Err(refuse(Reason::PortZero, "port must not be 0"));
        }
        let info_hash = *request.info_hash();
        tracker
            .admit(AdmissionRequest::of(&info_hash))
            .map_err(|not_admitted| refuse(not_admitted.into(), not_admitted.text()))?;
        let most = self.limits.max_response_peers;
        let numwant = request.numwant().map_or(most, |numwant| most.min(numwant as usize));
        Ok(Announce {
            info_hash,
            address: SocketAddr::new(client.source.ip(), request.port()),
            seeder: request.is_seeder(),
            event: request.event(),
            numwant,
            families: Families::Own,
        })
    }

    fn check_id(&self, id: ConnectionId, client: Client) -> Result<(), Refused> {
        if self.ids.is_valid(id, client.source.ip(), client.now) {
            Ok(())
        } else {
            Err(Refused::silent(Reason::BadConnectionId))
        }
    }

    /// Silence above the limit: clients repeat what is refused.
    fn check_rate(&mut self, client: Client) -> Result<(), Refused> {
        let verdict = self.sources.limit.check_by_key((client.source.ip(), client.key), self.sources.now);
        self.follow(verdict)
    }

    fn follow(&self, verdict: RateVerdict) -> Result<(), Refused> {
        match verdict {
            RateVerdict::Within => Ok(()),
            RateVerdict::Above => Err(Refused::silent(Reason::RateLimit)),
            RateVerdict::AboveInDryRun => {
                self.counters.above_in_dry_run.add(1);
                Ok(())
            }
        }
    }

    /// A malformed request is answered only if its connection id shows that the sender owns its address, and
    /// counts for its rate limit as any other.
    fn explain(&mut self, error: ParseError, client: Client) -> Refused {
        match error {
            ParseError::Unanswerable(Unanswerable::TooShort) => Refused::silent(Reason::TooShort),
            ParseError::Unanswerable(Unanswerable::WrongMagic) => Refused::silent(Reason::WrongMagic),
            ParseError::Malformed { connection_id, transaction_id, fault } => {
                let reason = match fault {
                    Fault::UnknownAction => Reason::UnknownAction,
                    Fault::AnnounceTooShort => Reason::ShortAnnounce,
                    Fault::FullScrape => Reason::FullScrape,
                    Fault::ScrapeTooShort => Reason::ShortScrape,
                };
                let reply = Some((transaction_id, fault.text()));
                let checked = self.check_id(connection_id, client).and_then(|()| self.check_rate(client));
                checked.err().unwrap_or(Refused { reason, is_counted: false, reply })
            }
        }
    }

    /// Keeps an announce for this core or leaves it to the owner of its torrent.
    fn route(
        &self,
        transaction_id: TransactionId,
        announce: Announce,
        (listener, path): (Listener, impl FnOnce() -> ReturnPath),
        tracker: &Tracker,
        forwarded: &mut Forwarded,
    ) -> Step {
        if tracker.owns(&announce.info_hash) {
            return Step::Apply(transaction_id, announce);
        }
        self.counters.forwarded.add(1);
        let owner = tracker.owner(&announce.info_hash);
        let (listener, received) = (listener.index, self.sources.now);
        let announce = ForwardedAnnounce { listener, path: path(), transaction_id, announce, received };
        forwarded.announces.push((owner, announce));
        Step::Done
    }

    /// Applies an announce for a torrent of this core and encodes the reply.
    fn answer(
        &self,
        transaction_id: TransactionId,
        announce: &Announce,
        (tracker, now): (&mut Tracker, Seconds),
        buffer: &mut [u8],
    ) -> Encoded {
        let len = self.limits.max_reply_size.min(buffer.len());
        let buffer = buffer.get_mut(..len).unwrap_or_default();
        let announced = Self::apply(announce, (tracker, now), AnnounceHead::peer_area(buffer)?);
        Self::encode(transaction_id, &announced, tracker.next_interval(&announced), buffer)
    }

    /// Applies an announce; the peers of the reply are written where they belong in it.
    fn apply(
        announce: &Announce,
        (tracker, now): (&mut Tracker, Seconds),
        peer_area: &mut [u8],
    ) -> Announced {
        let out = match Family::of(announce.address.ip()) {
            Family::V4 => PeerBuffers { v4: peer_area, v6: &mut [] },
            Family::V6 => PeerBuffers { v4: &mut [], v6: peer_area },
        };
        tracker.announce(announce, now, out)
    }

    /// Writes the head in front of the peers and returns the length of the reply.
    fn encode(
        transaction_id: TransactionId,
        announced: &Announced,
        interval: u32,
        buffer: &mut [u8],
    ) -> Encoded {
        let head = AnnounceHead::new(transaction_id, interval, announced.incomplete, announced.complete);
        head.encode(announced.v4_len + announced.v6_len, buffer)
    }

    /// Replies to a scrape whose torrents are all this core's, or leaves it to be gathered from their owners.
    fn scrape(
        &self,
        packets: &mut impl Datagrams,
        at: usize,
        (listener, tracker): (Listener, &Tracker),
        (transaction_id, torrents): (TransactionId, &[InfoHash]),
        forwarded: &mut Forwarded,
    ) {
        let Listener { index, family } = listener;
        if !torrents.iter().all(|info_hash| tracker.owns(info_hash)) {
            self.counters.forwarded.add(1);
            let path = packets.return_path(at);
            return forwarded.scrapes.push(ForwardedScrape::new(
                (index, family),
                path,
                (transaction_id, self.sources.now),
                torrents,
            ));
        }
        tracker.prefetch_scrape(family, torrents);
        let counts = torrents.iter().map(|info_hash| tracker.scrape(info_hash, FamilySet::One(family)));
        let reply = encode_scrape(transaction_id, counts, packets.reply_buffer(at));
        self.finish(packets, at, family, Action::Scrape, reply);
    }

    /// Replies to an announce that another core received. Returns the length of the reply.
    pub fn handle_forwarded_announce(
        &self,
        forwarded: &ForwardedAnnounce,
        (tracker, now): (&mut Tracker, Seconds),
        buffer: &mut [u8],
    ) -> usize {
        let reply = self.answer(forwarded.transaction_id, &forwarded.announce, (tracker, now), buffer);
        let family = Family::of(forwarded.announce.address.ip());
        self.count_reply(family, Action::Announce, reply)
    }

    /// Replies to an announce for a part that another node holds. Returns the length of the reply.
    pub fn finish_announce(
        &self,
        forwarded: &ForwardedAnnounce,
        response: OwnerResponse<'_>,
        tracker: &mut Tracker,
        buffer: &mut [u8],
    ) -> usize {
        let family = Family::of(forwarded.announce.address.ip());
        let (peers, size) = match family {
            Family::V4 => (response.v4, 6),
            Family::V6 => (response.v6, 18),
        };
        let len = self.limits.max_reply_size.min(buffer.len());
        let buffer = buffer.get_mut(..len).unwrap_or_default();
        let interval = tracker.next_interval(&response.announced);
        let encode = |buffer: &mut [u8]| {
            let area = AnnounceHead::peer_area(buffer)?;
            let fitting = peers.len().min(area.len()) / size * size;
            area.iter_mut().zip(peers).take(fitting).for_each(|(to, from)| *to = *from);
            let announced = Announced { v4_len: fitting, v6_len: 0, ..response.announced };
            Self::encode(forwarded.transaction_id, &announced, interval, buffer)
        };
        self.count_reply(family, Action::Announce, encode(buffer))
    }

    /// Replies to a scrape whose counts have come from other cores. Returns the length of the reply.
    pub fn finish_scrape(
        &self,
        scrape: &ForwardedScrape,
        counts: &[SwarmCounts],
        buffer: &mut [u8],
    ) -> usize {
        let reply = encode_scrape(scrape.transaction_id, counts.iter().copied(), buffer);
        self.count_reply(scrape.family, Action::Scrape, reply)
    }

    /// Counts a request that another core could not take or did not respond to.
    pub fn give_up(&self, family: Family, reason: Reason) {
        self.counters.drop_request(family, reason);
    }

    fn finish(
        &self,
        packets: &mut impl Datagrams,
        at: usize,
        family: Family,
        action: Action,
        reply: Encoded,
    ) {
        let len = self.count_reply(family, action, reply);
        packets.set_reply_len(at, len);
    }

    /// Counts a reply. Buffers are at least as large as the largest configurable reply, so none is too small.
    fn count_reply(&self, family: Family, action: Action, reply: Encoded) -> usize {
        debug_assert!(reply.is_ok(), "reply buffers fit every reply");
        let len = reply.unwrap_or(0);
        self.counters.response(family, action, len);
        len
    }

    fn refuse(&self, packets: &mut impl Datagrams, at: usize, family: Family, refused: &Refused) {
        log::trace!("udp: request of {} refused: {}", named(packets.source(at)), refused.reason.name());
        if !refused.is_counted {
            self.counters.other_request(family);
        }
        let Some((transaction_id, text)) = refused.reply else {
            return self.counters.drop_request(family, refused.reason);
        };
        let reply = ErrorReply { transaction_id, text }.encode(packets.reply_buffer(at));
        let len = reply.unwrap_or(0);
        self.counters.refuse(family, refused.reason, len);
        packets.set_reply_len(at, len);
    }
}

/// How the log names a client.
fn named(source: Option<SocketAddr>) -> String {
    source.map_or_else(|| "an unknown client".to_owned(), |source| source.to_string())
}

/// Decodes a packet into a typed view of its bytes.
fn decode(bytes: &[u8]) -> Result<Request<'_>, ParseError> {
    Request::parse(bytes)
}

const _: () = assert!(ANNOUNCE_HEAD_LENGTH == 20, "the reply sizes of the configuration count on it");

fn encode_scrape(
    transaction_id: TransactionId,
    counts: impl ExactSizeIterator<Item = SwarmCounts>,
    buffer: &mut [u8],
) -> Encoded {
    let torrents = counts.len();
    let slots = ScrapeReply::start(transaction_id, torrents, buffer)?;
    slots.iter_mut().zip(counts).for_each(|(slot, counts)| {
        *slot = TorrentCounts::new(counts.complete, counts.downloaded, counts.incomplete);
    });
    Ok(ScrapeReply::length(torrents))
}
