//! From packets to replies, without sockets: a batch of requests and the core's shard in, replies and messages to other
//! cores out. Any transport that can present itself as [`Packets`] is served.

use std::net::SocketAddr;

use aquatic_common::time::shorten;
use aquatic_common::{AccessList, Family, InfoHash, Seconds, canonical};
use aquatic_runtime::steering::Steering;
use aquatic_runtime::udp::{BATCH, ReturnPath};
use aquatic_swarm::{Announce, Families, FamilySet, PeerBuffers, Shard, SwarmCounts};
use aquatic_udp_protocol::{
    ANNOUNCE_HEAD_LENGTH, AnnounceHead, AnnounceRequest, BufferTooSmall, ConnectReply, ConnectRequest,
    ConnectionId, ErrorReply, Fault, ParseError, Request, ScrapeReply, ScrapeRequest, TorrentCounts,
    TransactionId, Unanswerable,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::config::{ProtocolConfig, UdpConfig};
use crate::connection_id::ConnectionIds;
use crate::counters::{Action, Counters, Refusal};
use crate::message::{Away, ForwardedAnnounce, ForwardedScrape};

/// A batch of at most [`BATCH`] received packets with room for a reply to each.
pub trait Packets {
    /// How many there are.
    fn count(&self) -> usize;
    /// The bytes of a packet.
    fn request(&self, at: usize) -> &[u8];
    /// Whether the packet was longer than what is presented of it.
    fn is_truncated(&self, at: usize) -> bool;
    /// Who sent it; `None` if that is no IP address.
    fn source(&self, at: usize) -> Option<SocketAddr>;
    /// How another core can answer it.
    fn return_path(&self, at: usize) -> ReturnPath;
    /// Room for the reply.
    fn reply_buffer(&mut self, at: usize) -> &mut [u8];
    /// How long the reply is; 0 for none.
    fn set_reply_len(&mut self, at: usize, len: usize);
}

/// What the core lends the handler for one batch.
pub struct Turn<'a> {
    /// The torrents the core owns.
    pub shard: &'a mut Shard,
    /// Which torrents are served.
    pub access_list: &'a AccessList,
    /// When the batch was received.
    pub now: Seconds,
}

/// The handler of one core.
pub struct Handler {
    core: usize,
    steering: Steering,
    ids: ConnectionIds,
    protocol: ProtocolConfig,
    max_reply_size: usize,
    rng: SmallRng,
    steps: Box<[Step; BATCH]>,
    counters: Counters,
}

/// What is left to do for a packet once its batch has been admitted.
#[derive(Clone, Copy)]
enum Step {
    Nothing,
    Announce(TransactionId, Announce),
    Scrape,
}

impl Handler {
    /// A handler for one of the cores that share `steering` and `ids`.
    #[must_use]
    pub fn new(config: &UdpConfig, core: usize, steering: Steering, ids: ConnectionIds, seed: u64) -> Self {
        Self {
            core,
            steering,
            ids,
            protocol: config.protocol.clone(),
            max_reply_size: config.network.max_reply_size,
            rng: SmallRng::seed_from_u64(seed),
            steps: Box::new([Step::Nothing; BATCH]),
            counters: Counters::default(),
        }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Serves a batch: decides what each packet is and may do, then loads what the announces will touch all at once,
    /// then applies them in order. What other cores own is added to `away`.
    pub fn handle(
        &mut self,
        packets: &mut impl Packets,
        listener: Listener,
        turn: &mut Turn<'_>,
        away: &mut Away,
    ) {
        let count = packets.count().min(BATCH);
        for at in 0..count {
            let step = match self.admit(packets, at, listener, turn, away) {
                Ok(step) => step,
                Err(refused) => {
                    self.refuse(packets, at, listener.family, refused);
                    Step::Nothing
                }
            };
            self.steps[at] = step;
        }
        let announced = self.steps[..count].iter().filter_map(|step| match step {
            Step::Announce(_, announce) => Some(announce),
            Step::Nothing | Step::Scrape => None,
        });
        turn.shard.prefetch(listener.family, announced);
        for at in 0..count {
            match self.steps[at] {
                Step::Nothing => {}
                Step::Announce(transaction_id, announce) => {
                    let reply = self.announce(transaction_id, &announce, turn, packets.reply_buffer(at));
                    self.finish(packets, at, listener.family, Action::Announce, reply);
                }
                Step::Scrape => self.scrape(packets, at, listener, turn),
            }
        }
    }

    /// Answers an announce that another core received. Returns the length of the reply.
    pub fn handle_forwarded_announce(
        &mut self,
        forwarded: &ForwardedAnnounce,
        turn: &mut Turn<'_>,
        buffer: &mut [u8],
    ) -> usize {
        let reply = self.announce(forwarded.transaction_id, &forwarded.announce, turn, buffer);
        let family = Family::of(forwarded.announce.address.ip());
        self.sent(family, Action::Announce, reply)
    }

    /// Answers a scrape whose counts have come from other cores. Returns the length of the reply.
    pub fn finish_scrape(
        &mut self,
        scrape: &ForwardedScrape,
        counts: &[SwarmCounts],
        access_list: &AccessList,
        buffer: &mut [u8],
    ) -> usize {
        let torrents = scrape.info_hashes.iter().zip(counts);
        let counts = torrents.map(|(info_hash, &counts)| visible(info_hash, access_list, || counts));
        let reply = encode_scrape(scrape.transaction_id, counts, buffer);
        self.sent(scrape.family, Action::Scrape, reply)
    }

    /// Counts a request that was given back because another core could not take it or did not answer.
    pub fn give_up(&mut self, family: Family) {
        self.counters.refuse(family, Refusal::MeshFull);
    }

    /// Decodes a packet and decides whether and by whom it is served.
    fn admit(
        &mut self,
        packets: &mut impl Packets,
        at: usize,
        listener: Listener,
        turn: &Turn<'_>,
        away: &mut Away,
    ) -> Result<Step, Refused> {
        self.counters.bytes[listener.family.index()][0] += packets.request(at).len() as u64;
        if packets.is_truncated(at) {
            return Err(Refused::silent(Refusal::TooLong));
        }
        let source = packets.source(at).map(canonical).filter(|source| source.port() != 0);
        let Some(source) = source else {
            return Err(Refused::silent(Refusal::SourcePortZero));
        };
        let client = Client { source, now: turn.now };
        match Request::parse(packets.request(at)) {
            Ok(Request::Connect(request)) => {
                let reply = self.connect(&request, client, packets.reply_buffer(at));
                self.finish(packets, at, listener.family, Action::Connect, reply);
                Ok(Step::Nothing)
            }
            Ok(Request::Announce(request)) => {
                let announce = self.admit_announce(request, client, listener, turn.access_list)?;
                let path = || packets.return_path(at);
                Ok(self.route_announce(request.transaction_id(), announce, listener, path, away))
            }
            Ok(Request::Scrape(request)) => {
                self.check_id(request.connection_id(), client)?;
                self.counters.request(listener.family, Action::Scrape);
                Ok(self.route_scrape(&request, listener, packets.return_path(at), away))
            }
            Err(error) => Err(self.explain(error, client)),
        }
    }

    fn connect(&mut self, request: &ConnectRequest, client: Client, buffer: &mut [u8]) -> Encoded {
        let id = self.ids.make(client.source.ip(), client.now);
        ConnectReply::new(request.transaction_id(), id).encode(buffer)
    }

    fn check_id(&self, id: ConnectionId, client: Client) -> Result<(), Refused> {
        if self.ids.is_valid(id, client.source.ip(), client.now) {
            Ok(())
        } else {
            Err(Refused::silent(Refusal::BadConnectionId))
        }
    }

    /// A malformed request is answered only if its connection id shows that the sender owns its address.
    fn explain(&self, error: ParseError, client: Client) -> Refused {
        match error {
            ParseError::Unanswerable(Unanswerable::TooShort) => Refused::silent(Refusal::TooShort),
            ParseError::Unanswerable(Unanswerable::WrongMagic) => Refused::silent(Refusal::WrongMagic),
            ParseError::Malformed { connection_id, transaction_id, fault } => {
                let refusal = match fault {
                    Fault::UnknownAction => Refusal::UnknownAction,
                    Fault::AnnounceTooShort => Refusal::ShortAnnounce,
                    Fault::ScrapeOfAll => Refusal::FullScrape,
                    Fault::ScrapeTooShort => Refusal::ShortScrape,
                };
                self.check_id(connection_id, client)
                    .err()
                    .unwrap_or(Refused { refusal, answer: Some(transaction_id) })
            }
        }
    }

    fn admit_announce(
        &mut self,
        request: &AnnounceRequest,
        client: Client,
        listener: Listener,
        access_list: &AccessList,
    ) -> Result<Announce, Refused> {
        self.check_id(request.connection_id(), client)?;
        self.counters.request(listener.family, Action::Announce);
        let refuse = |refusal| Refused { refusal, answer: Some(request.transaction_id()) };
        if request.port() == 0 {
            return Err(refuse(Refusal::PortZero));
        }
        if !access_list.allows(request.info_hash()) {
            return Err(refuse(Refusal::AccessList));
        }
        let most = self.protocol.max_response_peers;
        let wanted = request.numwant().map_or(most, |wanted| most.min(wanted as usize));
        Ok(Announce {
            info_hash: *request.info_hash(),
            address: SocketAddr::new(client.source.ip(), request.port()),
            seeder: request.is_seeder(),
            event: request.event(),
            wanted,
            families: Families::Own,
        })
    }

    fn route_announce(
        &mut self,
        transaction_id: TransactionId,
        announce: Announce,
        listener: Listener,
        path: impl FnOnce() -> ReturnPath,
        away: &mut Away,
    ) -> Step {
        let owner = self.steering.owner(&announce.info_hash);
        if owner == self.core {
            return Step::Announce(transaction_id, announce);
        }
        let path = path();
        self.counters.forwarded += 1;
        away.announces
            .push((owner, ForwardedAnnounce { listener: listener.index, path, transaction_id, announce }));
        Step::Nothing
    }

    fn route_scrape(
        &mut self,
        request: &ScrapeRequest<'_>,
        listener: Listener,
        path: ReturnPath,
        away: &mut Away,
    ) -> Step {
        let info_hashes = request.first(self.protocol.max_scrape_torrents);
        if info_hashes.iter().all(|info_hash| self.steering.owner(info_hash) == self.core) {
            return Step::Scrape;
        }
        self.counters.forwarded += 1;
        away.scrapes.push(ForwardedScrape {
            listener: listener.index,
            family: listener.family,
            path,
            transaction_id: request.transaction_id(),
            info_hashes: info_hashes.to_vec(),
        });
        Step::Nothing
    }

    fn announce(
        &mut self,
        transaction_id: TransactionId,
        announce: &Announce,
        turn: &mut Turn<'_>,
        buffer: &mut [u8],
    ) -> Encoded {
        let len = self.max_reply_size.min(buffer.len());
        let buffer = buffer.get_mut(..len).unwrap_or_default();
        let area = AnnounceHead::peer_area(buffer)?;
        let out = match Family::of(announce.address.ip()) {
            Family::V4 => PeerBuffers { v4: area, v6: &mut [] },
            Family::V6 => PeerBuffers { v4: &mut [], v6: area },
        };
        let announced = turn.shard.announce(announce, turn.now, &mut self.rng, out);
        if let Some(limit) = announced.stored.limit() {
            self.counters.not_stored[limit as usize] += 1;
        }
        let interval = self.interval();
        let head = AnnounceHead::new(transaction_id, interval, announced.incomplete, announced.complete);
        head.encode(announced.v4_len + announced.v6_len, buffer)
    }

    /// The configured interval, shortened by a random part of the configured share.
    fn interval(&mut self) -> u32 {
        let ProtocolConfig { peer_announce_interval, announce_interval_jitter, .. } = self.protocol;
        shorten(peer_announce_interval, announce_interval_jitter, self.rng.random())
    }

    /// Answers a scrape whose torrents are all this core's.
    fn scrape(&mut self, packets: &mut impl Packets, at: usize, listener: Listener, turn: &Turn<'_>) {
        let mut info_hashes = [InfoHash([0; 20]); MAX_SCRAPE];
        let Ok(Request::Scrape(request)) = Request::parse(packets.request(at)) else { return };
        let asked = request.first(self.protocol.max_scrape_torrents.min(MAX_SCRAPE));
        let info_hashes = &mut info_hashes[..asked.len()];
        info_hashes.copy_from_slice(asked);
        let transaction_id = request.transaction_id();
        turn.shard.prefetch_scrape(listener.family, info_hashes);
        let counts = info_hashes.iter().map(|info_hash| {
            let counts = || turn.shard.scrape(info_hash, FamilySet::One(listener.family));
            visible(info_hash, turn.access_list, counts)
        });
        let reply = encode_scrape(transaction_id, counts, packets.reply_buffer(at));
        self.finish(packets, at, listener.family, Action::Scrape, reply);
    }

    fn finish(
        &mut self,
        packets: &mut impl Packets,
        at: usize,
        family: Family,
        action: Action,
        reply: Encoded,
    ) {
        if action == Action::Connect {
            self.counters.request(family, action);
        }
        let len = self.sent(family, action, reply);
        packets.set_reply_len(at, len);
    }

    /// Counts a reply. Buffers are at least as large as the largest configurable reply, so none is too small.
    fn sent(&mut self, family: Family, action: Action, reply: Encoded) -> usize {
        debug_assert!(reply.is_ok(), "reply buffers fit every reply");
        let len = reply.unwrap_or(0);
        self.counters.response(family, action);
        self.counters.bytes[family.index()][1] += len as u64;
        len
    }

    fn refuse(&mut self, packets: &mut impl Packets, at: usize, family: Family, refused: Refused) {
        self.counters.refuse(family, refused.refusal);
        let (Some(transaction_id), Some(text)) = (refused.answer, refused.refusal.text()) else { return };
        let reply = ErrorReply { transaction_id, text }.encode(packets.reply_buffer(at));
        let len = reply.unwrap_or(0);
        self.counters.errors_sent[family.index()] += 1;
        self.counters.bytes[family.index()][1] += len as u64;
        packets.set_reply_len(at, len);
    }
}

/// Most torrents a scrape is answered for, whatever is configured (BEP 15: "up to about 74").
const MAX_SCRAPE: usize = 74;

const _: () = assert!(ANNOUNCE_HEAD_LENGTH == 20, "the reply sizes of the configuration count on it");

type Encoded = Result<usize, BufferTooSmall>;

/// The listener a batch came in by.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// Its position among the listeners, the same on every core.
    pub index: usize,
    /// The family of its clients.
    pub family: Family,
}

#[derive(Clone, Copy)]
struct Client {
    source: SocketAddr,
    now: Seconds,
}

/// A request that is not served, and the transaction to answer if it may be answered.
struct Refused {
    refusal: Refusal,
    answer: Option<TransactionId>,
}

impl Refused {
    fn silent(refusal: Refusal) -> Self {
        Self { refusal, answer: None }
    }
}

/// The counts of a torrent as a client may see them: torrents that are not served look like unknown ones.
fn visible(info_hash: &InfoHash, list: &AccessList, counts: impl FnOnce() -> SwarmCounts) -> TorrentCounts {
    if !list.allows(info_hash) {
        return TorrentCounts::default();
    }
    let counts = counts();
    TorrentCounts::new(counts.complete, counts.downloaded, counts.incomplete)
}

fn encode_scrape(
    transaction_id: TransactionId,
    counts: impl ExactSizeIterator<Item = TorrentCounts>,
    buffer: &mut [u8],
) -> Encoded {
    let torrents = counts.len();
    let places = ScrapeReply::start(transaction_id, torrents, buffer)?;
    places.iter_mut().zip(counts).for_each(|(place, counts)| *place = counts);
    Ok(ScrapeReply::length(torrents))
}
