//! From requests to replies, without sockets: a request and the core's tracker in, a reply or a request to
//! other cores out.
//!
//! The stages of a request are functions: [`decode`], [`Handler::admit`], [`Handler::route`],
//! [`Handler::apply`], [`Handler::encode`]. Receiving and sending belong to the front.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aquatic_common::{Family, InfoHash, RateEvent, RateVerdict, Seconds, SourceLimit, SourceRules};
use aquatic_http_protocol::{
    AnnounceReply, AnnounceRequest, BufferTooSmall, FailureReply, Framing, Head, Refusal, Request, Retry,
    ScrapeFile, ScrapeReply, ScrapeRequest, TrackerRoute,
};
use aquatic_net::breaker::{CoreBreakers, Protocol};
use aquatic_net::proxy::{Client, ForwardedHeaders, NoClient};
use aquatic_swarm::{Announce, Announced, Families, FamilySet, PeerBuffers, SwarmCounts};
use aquatic_tracker::requests::{self, Requests};
use aquatic_tracker::{AdmissionRequest, NotAdmitted, OwnerResponse, Reason, RouteError, Tracker};
use aquatic_web::Denied;
use rand::RngExt;

use crate::config::HttpConfig;
use crate::counters::{Action, Counters};

/// Shortest and longest time after which clients of an overloaded tracker are asked to come back. Randomised
/// so that clients refused together do not retry together.
const RETRY_MINUTES: (u32, u32) = (5, 15);

/// A request and what is known about its client.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Request line and header fields.
    pub head: &'a Head<'a>,
    /// Framing of the reply.
    pub framing: Framing,
    /// The other end of the connection; `None` for a unix socket.
    pub peer: Option<IpAddr>,
    /// Time of the request.
    pub now: Seconds,
}

/// What a request comes to.
#[derive(Debug)]
pub enum Handled {
    /// A reply of this many bytes has been written.
    Reply(usize),
    /// Another core owns the torrent.
    Announce(ForwardedAnnounce),
    /// Other cores own torrents.
    Scrape(ForwardedScrape),
}

/// An announce for a torrent of another core.
#[derive(Clone, Copy, Debug)]
pub struct ForwardedAnnounce {
    /// The announce.
    pub announce: Announce,
    /// Framing of the reply.
    pub framing: Framing,
}

/// A scrape of torrents that are not all this core's.
#[derive(Clone, Debug)]
pub struct ForwardedScrape {
    /// Info hashes, in the order of the request.
    pub info_hashes: Vec<InfoHash>,
    /// Address of the client.
    pub client: IpAddr,
    /// Framing of the reply.
    pub framing: Framing,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// It makes no sense to a tracker, or to an HTTP server.
    Bad(Refusal),
    /// The tracker does not admit it.
    NotAdmitted(NotAdmitted),
    /// A trusted proxy has not named the client.
    NoClient(NoClient),
    /// The client, or the network around it, asks for more than the rate limit allows.
    RateLimit,
    /// The breaker for the family of the client is open.
    Breaker,
    /// The client is behind a proxy and on the block list.
    Blocked,
    /// The owner of the torrent did not respond.
    Route(RouteError),
}

impl From<Denied> for Unserved {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Blocked => Self::Blocked,
            Denied::RateLimit => Self::RateLimit,
        }
    }
}

impl Unserved {
    /// Whether the request has been counted as an announce or scrape.
    fn is_counted(self) -> bool {
        matches!(self, Self::NotAdmitted(_) | Self::Route(_))
    }

    fn reason(self) -> Reason {
        match self {
            Self::Bad(refusal) => crate::counters::reason_of(refusal),
            Self::NotAdmitted(not_admitted) => not_admitted.into(),
            Self::NoClient(NoClient::Missing) => Reason::ClientMissing,
            Self::NoClient(NoClient::Malformed) => Reason::ClientMalformed,
            Self::NoClient(NoClient::Unusable) => Reason::ClientUnusable,
            Self::RateLimit => Reason::RateLimit,
            Self::Breaker => Reason::Breaker,
            Self::Blocked => Reason::Blocked,
            Self::Route(error) => error.into(),
        }
    }
}

/// Who may ask for how much.
#[derive(Debug)]
pub struct Sources {
    /// Limits of requests, by the address of the client, also of one behind a trusted proxy.
    pub limit: SourceLimit,
    /// Whether HTTP is served at all.
    pub breakers: CoreBreakers,
    /// Time since the epoch.
    pub now: Duration,
}

impl Default for Sources {
    /// Serves everybody.
    fn default() -> Self {
        let limit = SourceLimit::new(SourceRules::default(), [0; 16]);
        Self { limit, breakers: CoreBreakers::default(), now: Duration::ZERO }
    }
}

/// The handler of one core. Replies go into buffers of at least [`longest_reply`](Self::longest_reply) bytes.
#[derive(Debug)]
pub struct Handler {
    config: HttpConfig,
    forwarded: ForwardedHeaders,
    sources: Sources,
    counters: Counters,
    /// Peers on their way from the store to a reply.
    v4: Box<[u8]>,
    v6: Box<[u8]>,
    info_hashes: Box<[InfoHash]>,
    files: Vec<ScrapeFile>,
}

impl Handler {
    /// A handler for one core.
    #[must_use]
    pub fn new(config: &HttpConfig, forwarded: ForwardedHeaders, counters: Counters) -> Self {
        Self {
            config: config.clone(),
            forwarded,
            sources: Sources::default(),
            counters,
            v4: vec![0; 6 * config.max_response_peers].into_boxed_slice(),
            v6: vec![0; 18 * config.max_response_peers].into_boxed_slice(),
            info_hashes: vec![InfoHash([0; 20]); config.max_scrape_torrents].into_boxed_slice(),
            files: Vec::with_capacity(config.max_scrape_torrents),
        }
    }

    /// Replaces the settings. Afterwards replies may be longer than before.
    pub fn reconfigure(&mut self, config: &HttpConfig, forwarded: ForwardedHeaders) {
        self.config = config.clone();
        self.forwarded.reconfigure(forwarded);
        self.v4 = vec![0; 6 * config.max_response_peers].into_boxed_slice();
        self.v6 = vec![0; 18 * config.max_response_peers].into_boxed_slice();
        self.info_hashes = vec![InfoHash([0; 20]); config.max_scrape_torrents].into_boxed_slice();
    }

    /// The same with these limits of sources.
    #[must_use]
    pub fn with_sources(self, sources: Sources) -> Self {
        Self { sources, ..self }
    }

    /// Who may ask for how much.
    pub fn sources(&mut self) -> &mut Sources {
        &mut self.sources
    }

    /// What has to be told about rate limits now. To be asked about every second.
    pub fn rate_event(&mut self, now: Duration) -> Option<RateEvent> {
        let event = self.sources.limit.event(now);
        self.counters.rate_limiting.set(self.sources.limit.is_limiting().into());
        event
    }

    /// Size of the largest reply in bytes.
    #[must_use]
    pub fn longest_reply(&self) -> usize {
        self.config.longest_reply()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Serves a request.
    pub fn handle(&mut self, incoming: Incoming<'_>, tracker: &mut Tracker, reply: &mut [u8]) -> Handled {
        let framing = self.framing(incoming);
        let incoming = Incoming { framing, ..incoming };
        let handled = match decode(incoming.head) {
            Ok(Request::Announce(request)) => self
                .admit(incoming, &request, tracker)
                .map(|announce| self.route(announce, framing, (tracker, incoming.now), reply)),
            Ok(Request::Scrape(request)) => self.scrape(incoming, &request, tracker, reply),
            // The front replies to these before it comes to the tracker.
            Ok(Request::Health) => Ok(Handled::Reply(0)),
            Err(refusal) => Err(self.refuse_bad(incoming, refusal)),
        };
        if tracker.requests().are_wanted() {
            self.note(incoming, handled.as_ref().err().copied(), tracker.requests());
        }
        handled.unwrap_or_else(|unserved| {
            Handled::Reply(self.fail(unserved, (self.source(incoming), framing), tracker, reply))
        })
    }

    /// Who a request comes from, as far as that is known.
    fn named(&self, incoming: Incoming<'_>) -> Client {
        let headers = incoming.head.headers.iter();
        let headers = headers.map(|(name, value)| (str::from_utf8(name).unwrap_or_default(), value));
        self.forwarded.client(incoming.peer, headers)
    }

    /// Address of the client that a request comes from, or of the proxy that does not name it.
    fn source(&self, incoming: Incoming<'_>) -> Option<IpAddr> {
        match self.named(incoming) {
            Client::Known(ip) | Client::Proxy(ip, _) | Client::Blocked(ip) => Some(ip),
            Client::Refused(_) => incoming.peer,
        }
    }

    /// Notes a request for the samples of this core.
    #[cold]
    fn note(&self, incoming: Incoming<'_>, unserved: Option<Unserved>, requests: &Requests) {
        let source = match self.named(incoming) {
            Client::Known(ip) | Client::Proxy(ip, _) | Client::Blocked(ip) => ip,
            Client::Refused(_) => return,
        };
        let (action, announce) = match decode(incoming.head) {
            Ok(Request::Announce(request)) => ("announce", Some((request.info_hash, request.peer_id))),
            Ok(Request::Scrape(_)) => ("scrape", None),
            Ok(Request::Health) => ("health", None),
            Err(_) => ("unknown", None),
        };
        requests.note(requests::Request {
            protocol: "http",
            action,
            source,
            info_hash: announce.as_ref().map(|(info_hash, _)| info_hash),
            peer_id: announce.as_ref().and_then(|(_, peer_id)| peer_id.as_ref()),
            outcome: unserved.map_or("served", |unserved| unserved.reason().name()),
        });
    }

    /// Framing of the reply: what goes through a proxy must not be stored by a cache, which would answer the
    /// next announce with it.
    fn framing(&self, incoming: Incoming<'_>) -> Framing {
        let Incoming { peer, framing, .. } = incoming;
        let is_proxy = peer.is_none_or(|peer| self.forwarded.trusted.contains(peer));
        if is_proxy { framing.no_store() } else { framing }
    }

    /// Decides whether an announce is served, and for which client.
    fn admit(
        &mut self,
        incoming: Incoming<'_>,
        request: &AnnounceRequest,
        tracker: &Tracker,
    ) -> Result<Announce, Unserved> {
        let ip = self.client(incoming)?;
        self.counters.request(Family::of(ip), Action::Announce);
        if let Some(peer_id) = &request.peer_id {
            self.counters.client(peer_id);
        }
        tracker.admit(AdmissionRequest::of(&request.info_hash)).map_err(Unserved::NotAdmitted)?;
        let most = self.config.max_response_peers;
        let announce = Announce {
            info_hash: request.info_hash,
            address: SocketAddr::new(ip, request.port.get()),
            seeder: request.is_seeder,
            event: request.event,
            numwant: request.numwant.map_or(most, |numwant| most.min(numwant as usize)),
            families: Families::Both,
        };
        log::trace!("http: announce: {announce}");
        Ok(announce)
    }

    /// Address of the client that a request comes from, if that may ask for something now.
    fn client(&mut self, incoming: Incoming<'_>) -> Result<IpAddr, Unserved> {
        match self.named(incoming) {
            Client::Known(ip) => self.check_source(ip).map(|()| ip),
            Client::Blocked(_) => Err(Unserved::Blocked),
            Client::Proxy(ip, missing) => {
                self.counters.no_client(missing);
                self.check_breaker(ip).map(|()| ip)
            }
            Client::Refused(missing) => {
                self.counters.no_client(missing);
                Err(Unserved::NoClient(missing))
            }
        }
    }

    /// Charges an announce or scrape that cannot be served to its source. Others have been charged by
    /// [`admit_other`](Self::admit_other).
    #[cold]
    fn refuse_bad(&mut self, incoming: Incoming<'_>, refusal: Refusal) -> Unserved {
        let bad = Unserved::Bad(refusal);
        match TrackerRoute::classify(incoming.head.path, incoming.head.query) {
            TrackerRoute::Announce | TrackerRoute::Scrape | TrackerRoute::WrongAnnounceUrl => {
                self.charge(incoming).map_or(bad, Unserved::from)
            }
            TrackerRoute::Health | TrackerRoute::Other => bad,
        }
    }

    /// Charges a request that is neither an announce nor a scrape to its source.
    ///
    /// # Errors
    /// It may not be answered, and has been counted.
    pub fn admit_other(&mut self, incoming: Incoming<'_>) -> Result<(), Denied> {
        let Some(denied) = self.charge(incoming) else { return Ok(()) };
        let reason = Unserved::from(denied).reason();
        self.counters.refuse(self.source(incoming).map(Family::of), reason, false);
        Err(denied)
    }

    /// Charges a request to its source, if that is known and can be limited. Returns why the request is not
    /// served, if that has asked for too much or is blocked.
    fn charge(&mut self, incoming: Incoming<'_>) -> Option<Denied> {
        match self.named(incoming) {
            Client::Known(ip) => self.check_rate(ip).err(),
            Client::Blocked(_) => Some(Denied::Blocked),
            Client::Proxy(..) | Client::Refused(_) => None,
        }
    }

    fn check_source(&mut self, client: IpAddr) -> Result<(), Unserved> {
        self.check_breaker(client)?;
        self.check_rate(client).map_err(Unserved::from)
    }

    fn check_rate(&mut self, client: IpAddr) -> Result<(), Denied> {
        match self.sources.limit.check(client, self.sources.now) {
            RateVerdict::Within => Ok(()),
            RateVerdict::Above => Err(Denied::RateLimit),
            RateVerdict::AboveInDryRun => {
                self.counters.above_in_dry_run.add(1);
                Ok(())
            }
        }
    }

    fn check_breaker(&self, client: IpAddr) -> Result<(), Unserved> {
        if self.sources.breakers.refuses(Protocol::Http, client) { Err(Unserved::Breaker) } else { Ok(()) }
    }

    /// Applies an announce if this core owns its torrent; otherwise the owner has to.
    fn route(
        &mut self,
        announce: Announce,
        framing: Framing,
        (tracker, now): (&mut Tracker, Seconds),
        reply: &mut [u8],
    ) -> Handled {
        if tracker.owns(&announce.info_hash) {
            Handled::Reply(self.apply(&announce, framing, (tracker, now), reply))
        } else {
            self.counters.forwarded.add(1);
            Handled::Announce(ForwardedAnnounce { announce, framing })
        }
    }

    /// Applies an announce with its owner's tracker and writes the reply.
    pub fn apply_forwarded(
        &mut self,
        forwarded: &ForwardedAnnounce,
        (tracker, now): (&mut Tracker, Seconds),
        reply: &mut [u8],
    ) -> usize {
        self.apply(&forwarded.announce, forwarded.framing, (tracker, now), reply)
    }

    /// Applies an announce to a torrent of this core and writes the reply.
    fn apply(
        &mut self,
        announce: &Announce,
        framing: Framing,
        (tracker, now): (&mut Tracker, Seconds),
        reply: &mut [u8],
    ) -> usize {
        let (mut v4, mut v6) = (std::mem::take(&mut self.v4), std::mem::take(&mut self.v6));
        let out = PeerBuffers { v4: &mut v4, v6: &mut v6 };
        let announced = tracker.announce(announce, now, out);
        let v4_peers = v4.get(..announced.v4_len).unwrap_or_default();
        let v6_peers = v6.get(..announced.v6_len).unwrap_or_default();
        let response = OwnerResponse { announced, v4: v4_peers, v6: v6_peers };
        let written = self.encode(announce.address.ip(), framing, response, tracker, reply);
        (self.v4, self.v6) = (v4, v6);
        written
    }

    /// Writes the reply to an announce and returns its length.
    fn encode(
        &self,
        ip: IpAddr,
        framing: Framing,
        response: OwnerResponse<'_>,
        tracker: &mut Tracker,
        reply: &mut [u8],
    ) -> usize {
        let OwnerResponse { announced, v4, v6 } = response;
        self.counters.response(Family::of(ip), Action::Announce);
        let Announced { complete, incomplete, downloaded, .. } = announced;
        length_of(
            AnnounceReply {
                complete,
                downloaded,
                incomplete,
                interval: tracker.next_interval(&announced),
                min_interval: self.config.min_announce_interval,
                external_ip: Some(ip),
                peers: v4,
                peers6: v6,
            }
            .encode(framing, reply),
        )
    }

    /// Counts the torrents of a scrape if all are this core's; otherwise their owners have to be asked.
    fn scrape(
        &mut self,
        incoming: Incoming<'_>,
        request: &ScrapeRequest<'_>,
        tracker: &Tracker,
        reply: &mut [u8],
    ) -> Result<Handled, Unserved> {
        let ip = self.client(incoming)?;
        let family = Family::of(ip);
        let framing = incoming.framing;
        self.counters.request(family, Action::Scrape);
        let asked = request.fill(&mut self.info_hashes);
        log::trace!("http: scrape of {ip}: torrents {asked:?}");
        if !asked.iter().all(|info_hash| tracker.owns(info_hash)) {
            self.counters.forwarded.add(1);
            let info_hashes = asked.to_vec();
            return Ok(Handled::Scrape(ForwardedScrape { info_hashes, client: ip, framing }));
        }
        self.files.clear();
        self.files.extend(
            asked.iter().map(|&info_hash| file(info_hash, tracker.scrape(&info_hash, FamilySet::Both))),
        );
        Ok(Handled::Reply(self.encode_scrape(family, framing, reply)))
    }

    fn encode_scrape(&mut self, family: Family, framing: Framing, reply: &mut [u8]) -> usize {
        self.counters.response(family, Action::Scrape);
        length_of(ScrapeReply { files: &mut self.files, min_request_interval: None }.encode(framing, reply))
    }

    /// Writes the reply to an announce that another core has applied, and returns its length.
    pub fn finish_announce(
        &self,
        forwarded: &ForwardedAnnounce,
        response: Result<OwnerResponse<'_>, RouteError>,
        tracker: &mut Tracker,
        reply: &mut [u8],
    ) -> usize {
        match response {
            Ok(response) => {
                self.encode(forwarded.announce.address.ip(), forwarded.framing, response, tracker, reply)
            }
            Err(error) => {
                let source = (Some(forwarded.announce.address.ip()), forwarded.framing);
                self.fail(Unserved::Route(error), source, tracker, reply)
            }
        }
    }

    /// Writes the reply to a scrape whose counts have come from other cores, and returns its length.
    pub fn finish_scrape(
        &mut self,
        forwarded: &ForwardedScrape,
        counts: Result<&[SwarmCounts], RouteError>,
        tracker: &mut Tracker,
        reply: &mut [u8],
    ) -> usize {
        match counts {
            Ok(counts) => {
                self.files.clear();
                let torrents = forwarded.info_hashes.iter().zip(counts);
                self.files.extend(torrents.map(|(&info_hash, &counts)| file(info_hash, counts)));
                self.encode_scrape(Family::of(forwarded.client), forwarded.framing, reply)
            }
            Err(error) => {
                let source = (Some(forwarded.client), forwarded.framing);
                self.fail(Unserved::Route(error), source, tracker, reply)
            }
        }
    }

    /// Writes the reply to what is not a request of HTTP that can be served, and returns its length.
    pub fn refuse(
        &self,
        refusal: Refusal,
        framing: Framing,
        tracker: &mut Tracker,
        reply: &mut [u8],
    ) -> usize {
        self.fail(Unserved::Bad(refusal), (None, framing), tracker, reply)
    }

    /// Writes what a client is told whose request is not served, and returns the length. `source` is the
    /// client, or the proxy that does not name it, if that is known.
    fn fail(
        &self,
        unserved: Unserved,
        (source, framing): (Option<IpAddr>, Framing),
        tracker: &mut Tracker,
        reply: &mut [u8],
    ) -> usize {
        let reason = unserved.reason();
        match source {
            Some(source) => log::trace!("http: request from {source} refused: {}", reason.name()),
            None => log::trace!("http: request refused: {}", reason.name()),
        }
        self.counters.refuse(source.map(Family::of), reason, unserved.is_counted());
        // Some clients wait as long as the interval says after a failure, too; others look for "retry in".
        let encode = |reason: &str, seconds: u32, reply: &mut [u8]| {
            let retry = Some(Retry::Minutes(seconds.div_ceil(60)));
            FailureReply { reason, interval: Some(seconds), min_interval: None, retry }.encode(framing, reply)
        };
        let usual = tracker.interval().interval;
        length_of(match unserved {
            Unserved::Bad(Refusal::Http(fault)) => fault.reply().encode(framing, reply),
            Unserved::Bad(Refusal::Tracker(fault)) => encode(fault.reason().as_str(), usual, reply),
            Unserved::NotAdmitted(not_admitted) => encode(not_admitted.text(), usual, reply),
            Unserved::NoClient(NoClient::Unusable) => encode(
                "the proxy in front of this tracker names an address that no peer can have",
                usual,
                reply,
            ),
            Unserved::NoClient(NoClient::Missing | NoClient::Malformed) => {
                encode("the proxy in front of this tracker does not name the client", usual, reply)
            }
            // Fast, and with the time to wait: clients repeat what gets no reply, and other statuses.
            Unserved::Blocked => encode("this tracker does not serve clients of your network", usual, reply),
            Unserved::RateLimit => encode("too many requests from your address or network", usual, reply),
            Unserved::Breaker => {
                let text = "this tracker does not serve HTTP over this address family at present";
                encode(text, usual, reply)
            }
            Unserved::Route(error) => {
                let minutes = tracker.rng().random_range(RETRY_MINUTES.0..=RETRY_MINUTES.1);
                encode(error.text(), 60 * minutes, reply)
            }
        })
    }
}

type Encoded = Result<usize, BufferTooSmall>;

/// Decodes what a head asks for.
fn decode<'a>(head: &Head<'a>) -> Result<Request<'a>, Refusal> {
    Request::from_head(head)
}

/// Buffers are at least as large as the largest configurable reply, so none is too small.
fn length_of(encoded: Encoded) -> usize {
    debug_assert!(encoded.is_ok(), "reply buffers fit every reply: {encoded:?}");
    encoded.unwrap_or(0)
}

fn file(info_hash: InfoHash, counts: SwarmCounts) -> ScrapeFile {
    let SwarmCounts { complete, incomplete, downloaded } = counts;
    ScrapeFile { info_hash, complete, downloaded, incomplete }
}
