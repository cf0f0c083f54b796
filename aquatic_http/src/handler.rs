//! From received bytes to replies, without sockets: bytes and the core's shard in, replies and questions to other cores
//! out.

use std::net::{IpAddr, SocketAddr};

use aquatic_common::time::shorten;
use aquatic_common::{Family, InfoHash, Seconds};
use aquatic_http_protocol::{
    AnnounceReply, AnnounceRequest, BufferTooSmall, FailureReply, Framing, Head, PlainReply, Refusal,
    Refused, Request, Retry, ScrapeFile, ScrapeReply, ScrapeRequest, Taken,
};
use aquatic_runtime::proxy::{Client, ForwardedHeaders};
use aquatic_runtime::router::{AnnounceAnswer, RouteError};
use aquatic_runtime::steering::Steering;
use aquatic_swarm::{Announce, Announced, Families, FamilySet, PeerBuffers, Shard, SwarmCounts};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::config::ProtocolConfig;
use crate::counters::{Action, Counters, Why};

/// What clients of an overloaded tracker are asked to wait at least, and at most: as they came together, they had better
/// not come back together.
const RETRY_MINUTES: (u32, u32) = (5, 15);

/// What the core lends the handler for the requests that have come by one connection.
pub struct Turn<'a> {
    /// The torrents the core owns.
    pub shard: &'a mut Shard,
    /// Whether a torrent is served.
    pub allows: &'a dyn Fn(&InfoHash) -> bool,
    /// The present.
    pub now: Seconds,
    /// The other end of the connection; `None` for a unix socket.
    pub peer: Option<IpAddr>,
    /// Whether the process is stopping, so that replies are the last of their connections.
    pub stopping: bool,
}

/// What the front of the received bytes comes to. `taken` is how many of them are done with.
#[derive(Debug)]
pub enum Step {
    /// No complete request yet.
    NeedMore,
    /// A reply has been written.
    Reply {
        /// Bytes of the request.
        taken: usize,
        /// Bytes of the reply.
        written: usize,
        /// What becomes of the connection.
        then: Then,
    },
    /// Another core is to be asked.
    Announce {
        /// Bytes of the request.
        taken: usize,
        /// The question.
        away: AwayAnnounce,
    },
    /// Other cores are to be asked.
    Scrape {
        /// Bytes of the request.
        taken: usize,
        /// The question.
        away: AwayScrape,
    },
}

/// What becomes of a connection after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It goes on.
    GoOn,
    /// It closes.
    Close,
    /// It closes, although the client may still be sending.
    CloseLingering,
}

impl Then {
    pub(crate) fn after(framing: Framing) -> Self {
        if framing.closes() { Self::Close } else { Self::GoOn }
    }
}

/// An announce for a torrent of another core.
#[derive(Clone, Copy, Debug)]
pub struct AwayAnnounce {
    /// What to ask.
    pub announce: Announce,
    /// How to reply.
    pub framing: Framing,
}

/// A scrape of torrents that are not all this core's.
#[derive(Clone, Debug)]
pub struct AwayScrape {
    /// What to ask.
    pub info_hashes: Vec<InfoHash>,
    /// Torrents the access list does not let in; they look like unknown ones.
    pub unserved: Vec<InfoHash>,
    /// The client's family.
    pub family: Family,
    /// How to reply.
    pub framing: Framing,
}

/// The handler of one core. Replies go into buffers of at least [`longest_reply`](Self::longest_reply) bytes.
#[derive(Debug)]
pub struct Handler {
    core: usize,
    steering: Steering,
    protocol: ProtocolConfig,
    forwarded: ForwardedHeaders,
    rng: SmallRng,
    counters: Counters,
    /// Peers on their way from the store to a reply.
    v4: Box<[u8]>,
    v6: Box<[u8]>,
    info_hashes: Box<[InfoHash]>,
    files: Vec<ScrapeFile>,
}

impl Handler {
    /// A handler for one of the cores that share `steering`.
    #[must_use]
    pub fn new(
        protocol: &ProtocolConfig,
        forwarded: ForwardedHeaders,
        (core, steering): (usize, Steering),
        counters: Counters,
        seed: u64,
    ) -> Self {
        Self {
            core,
            steering,
            protocol: protocol.clone(),
            forwarded,
            rng: SmallRng::seed_from_u64(seed),
            counters,
            v4: vec![0; 6 * protocol.max_response_peers].into_boxed_slice(),
            v6: vec![0; 18 * protocol.max_response_peers].into_boxed_slice(),
            info_hashes: vec![InfoHash([0; 20]); protocol.max_scrape_torrents].into_boxed_slice(),
            files: Vec::with_capacity(protocol.max_scrape_torrents),
        }
    }

    /// How long a reply can become.
    #[must_use]
    pub fn longest_reply(&self) -> usize {
        self.protocol.longest_reply()
    }

    /// How long a request may be.
    #[must_use]
    pub fn longest_request(&self) -> usize {
        self.protocol.max_request_size
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Serves the request at the front of the received bytes, if it is complete.
    pub fn step(&mut self, received: &[u8], turn: &mut Turn<'_>, reply: &mut [u8]) -> Step {
        let (head, request) = match Request::take(received, self.protocol.max_request_size) {
            Taken::NeedMore => return Step::NeedMore,
            Taken::Refused(refused) => return self.refuse(refused, turn.stopping, reply),
            Taken::Whole(whole) => whole,
        };
        let taken = head.length;
        let framing = if turn.stopping { head.framing.closing() } else { head.framing };
        let served = match request {
            Request::Announce(request) => self.announce(&head, &request, framing, turn, reply),
            Request::Scrape(request) => self.scrape(&head, &request, framing, turn, reply),
            Request::Health => {
                self.counters.health.add(1);
                Ok(PlainReply::HEALTHY.encode(framing, reply))
            }
        };
        match served {
            Ok(encoded) => Step::Reply { taken, written: length_of(encoded), then: Then::after(framing) },
            Err(Unserved::Refused(why)) => {
                let written = self.fail(why, framing, reply);
                Step::Reply { taken, written, then: Then::after(framing) }
            }
            Err(Unserved::Announce(away)) => Step::Announce { taken, away },
            Err(Unserved::Scrape(away)) => Step::Scrape { taken, away },
        }
    }

    /// Writes the reply to an announce that another core has applied, and returns its length.
    pub fn finish_announce(
        &mut self,
        away: &AwayAnnounce,
        answer: Result<&AnnounceAnswer, &RouteError>,
        reply: &mut [u8],
    ) -> usize {
        match answer {
            Ok(AnnounceAnswer { announced, v4, v6 }) => {
                let ip = away.announce.address.ip();
                length_of(self.announce_reply(ip, announced, v4, v6).encode(away.framing, reply))
            }
            Err(error) => self.fail(unanswered(error), away.framing, reply),
        }
    }

    /// Writes the reply to a scrape whose counts have come from other cores, and returns its length.
    pub fn finish_scrape(
        &mut self,
        away: &AwayScrape,
        counts: Result<&[SwarmCounts], &RouteError>,
        reply: &mut [u8],
    ) -> usize {
        match counts {
            Ok(counts) => {
                self.files.clear();
                let torrents = away.info_hashes.iter().zip(counts);
                self.files.extend(torrents.map(|(&info_hash, &counts)| file(info_hash, counts)));
                let unserved = away.unserved.iter().map(|&info_hash| file(info_hash, SwarmCounts::default()));
                self.files.extend(unserved);
                length_of(self.scrape_reply(away.family, away.framing, reply))
            }
            Err(error) => self.fail(unanswered(error), away.framing, reply),
        }
    }

    fn refuse(&mut self, refused: Refused, stopping: bool, reply: &mut [u8]) -> Step {
        let framing = if stopping { refused.framing.closing() } else { refused.framing };
        let written = self.fail(Why::Bad(refused.refusal), framing, reply);
        let then = if refused.length == 0 { Then::CloseLingering } else { Then::after(framing) };
        Step::Reply { taken: refused.length, written, then }
    }

    /// Whom a request comes from.
    fn client(&self, head: &Head<'_>, peer: Option<IpAddr>) -> Result<IpAddr, Unserved> {
        let headers =
            head.headers.iter().map(|(name, value)| (str::from_utf8(name).unwrap_or_default(), value));
        match self.forwarded.client(peer, headers) {
            Client::Known(ip) => Ok(ip),
            Client::Proxy(ip, why) => {
                self.counters.no_client(why);
                Ok(ip)
            }
            Client::Refused(why) => {
                self.counters.no_client(why);
                Err(Unserved::Refused(Why::NoClient(why)))
            }
        }
    }

    fn announce(
        &mut self,
        head: &Head<'_>,
        request: &AnnounceRequest,
        framing: Framing,
        turn: &mut Turn<'_>,
        reply: &mut [u8],
    ) -> Result<Encoded, Unserved> {
        let ip = self.client(head, turn.peer)?;
        self.counters.request(Family::of(ip), Action::Announce);
        if !(turn.allows)(&request.info_hash) {
            return Err(Unserved::Refused(Why::AccessList));
        }
        let most = self.protocol.max_response_peers;
        let announce = Announce {
            info_hash: request.info_hash,
            address: SocketAddr::new(ip, request.port.get()),
            seeder: request.is_seeder,
            event: request.event,
            wanted: request.numwant.map_or(most, |wanted| most.min(wanted as usize)),
            families: Families::Both,
        };
        if self.steering.owner(&announce.info_hash) != self.core {
            self.counters.forwarded.add(1);
            return Err(Unserved::Announce(AwayAnnounce { announce, framing }));
        }
        let (mut v4, mut v6) = (std::mem::take(&mut self.v4), std::mem::take(&mut self.v6));
        let out = PeerBuffers { v4: &mut v4, v6: &mut v6 };
        let announced = turn.shard.announce(&announce, turn.now, &mut self.rng, out);
        let peers = v4.get(..announced.v4_len).unwrap_or_default();
        let peers6 = v6.get(..announced.v6_len).unwrap_or_default();
        let encoded = self.announce_reply(ip, &announced, peers, peers6).encode(framing, reply);
        (self.v4, self.v6) = (v4, v6);
        Ok(encoded)
    }

    fn announce_reply<'a>(
        &mut self,
        ip: IpAddr,
        announced: &Announced,
        peers: &'a [u8],
        peers6: &'a [u8],
    ) -> AnnounceReply<'a> {
        self.counters.response(Family::of(ip), Action::Announce);
        if let Some(limit) = announced.stored.limit() {
            self.counters.not_stored(limit);
        }
        let ProtocolConfig { peer_announce_interval, announce_interval_jitter, .. } = self.protocol;
        AnnounceReply {
            complete: announced.complete,
            downloaded: announced.downloaded,
            incomplete: announced.incomplete,
            interval: shorten(peer_announce_interval, announce_interval_jitter, self.rng.random()),
            min_interval: self.protocol.min_announce_interval,
            external_ip: Some(ip),
            peers,
            peers6,
        }
    }

    fn scrape(
        &mut self,
        head: &Head<'_>,
        request: &ScrapeRequest<'_>,
        framing: Framing,
        turn: &Turn<'_>,
        reply: &mut [u8],
    ) -> Result<Encoded, Unserved> {
        let family = Family::of(self.client(head, turn.peer)?);
        self.counters.request(family, Action::Scrape);
        let asked = request.fill(&mut self.info_hashes);
        if asked.iter().any(|info_hash| self.steering.owner(info_hash) != self.core) {
            self.counters.forwarded.add(1);
            let (info_hashes, unserved) = asked.iter().partition(|info_hash| (turn.allows)(info_hash));
            return Err(Unserved::Scrape(AwayScrape { info_hashes, unserved, family, framing }));
        }
        self.files.clear();
        self.files.extend(asked.iter().map(|&info_hash| {
            let is_served = (turn.allows)(&info_hash);
            let counts = is_served.then(|| turn.shard.scrape(&info_hash, FamilySet::Both));
            file(info_hash, counts.unwrap_or_default())
        }));
        Ok(self.scrape_reply(family, framing, reply))
    }

    fn scrape_reply(&mut self, family: Family, framing: Framing, reply: &mut [u8]) -> Encoded {
        self.counters.response(family, Action::Scrape);
        ScrapeReply { files: &mut self.files, min_request_interval: None }.encode(framing, reply)
    }

    /// Writes what a client is told that is not served, and returns the length.
    fn fail(&mut self, why: Why, framing: Framing, reply: &mut [u8]) -> usize {
        self.counters.refuse(why);
        // Some clients wait as long as the interval says after a failure, too; others look for "retry in".
        let encode = |reason: &str, seconds: u32, reply: &mut [u8]| {
            let retry = Some(Retry::Minutes(seconds.div_ceil(60)));
            FailureReply { reason, interval: Some(seconds), min_interval: None, retry }.encode(framing, reply)
        };
        let usual = self.protocol.peer_announce_interval;
        length_of(match why {
            Why::Bad(Refusal::Http(fault)) => fault.reply().encode(framing, reply),
            Why::Bad(Refusal::Tracker(fault)) => encode(fault.reason().as_str(), usual, reply),
            Why::AccessList => encode("this tracker does not serve this torrent", usual, reply),
            Why::NoClient(_) => {
                let reason = "the proxy in front of this tracker does not say whom the request comes from";
                encode(reason, usual, reply)
            }
            Why::Overflow | Why::Timeout => {
                let minutes = self.rng.random_range(RETRY_MINUTES.0..=RETRY_MINUTES.1);
                encode("the tracker is overloaded, try again later", 60 * minutes, reply)
            }
        })
    }
}

type Encoded = Result<usize, BufferTooSmall>;

/// Why a request has no reply yet.
enum Unserved {
    Refused(Why),
    Announce(AwayAnnounce),
    Scrape(AwayScrape),
}

/// Buffers are at least as large as the largest configurable reply, so none is too small.
fn length_of(encoded: Encoded) -> usize {
    debug_assert!(encoded.is_ok(), "reply buffers fit every reply: {encoded:?}");
    encoded.unwrap_or(0)
}

fn unanswered(error: &RouteError) -> Why {
    match error {
        RouteError::Overflow => Why::Overflow,
        RouteError::Timeout => Why::Timeout,
    }
}

fn file(info_hash: InfoHash, counts: SwarmCounts) -> ScrapeFile {
    let SwarmCounts { complete, incomplete, downloaded } = counts;
    ScrapeFile { info_hash, complete, downloaded, incomplete }
}
