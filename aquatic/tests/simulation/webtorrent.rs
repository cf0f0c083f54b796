//! WebTorrent clients of the simulated cores: their connections, requests, answers and checks.

use std::collections::{BTreeMap, BTreeSet};

use aquatic_common::{Family, InfoHash, PeerId};
use aquatic_ws::frames::Reader;
use aquatic_ws::swarm::{ConnectionId, Counts};
use aquatic_ws::{End, RequestContext};
use aquatic_ws_protocol::{ClientMessage, Scrape, TrackerMessage};
use rand::RngExt;

use crate::ws_client::{announce_message, answer_message, frame, next_frame, pong, reply_of};
use crate::ws_model::{WsAnnounce, WsAnswer, offer_id};
use crate::{CORES, MAX_AGE, Simulation};

/// Connections that are open at a time, about.
const CONNECTIONS: usize = 9;

/// A client with one connection, which uses one peer id for all torrents.
pub(crate) struct WsClient {
    core: usize,
    id: ConnectionId,
    peer_id: PeerId,
    reader: Reader,
    /// Whether it does not respond to pings.
    silent: bool,
    open: bool,
    torrents: BTreeSet<InfoHash>,
    /// Offers that it has not answered.
    offers: Vec<(InfoHash, PeerId, String)>,
    /// Number of the scrape it waits for.
    scrape: Option<usize>,
    /// Announces that were refused, until the client is told.
    refusals: u32,
    /// Received bytes of an incomplete frame.
    inbound: Vec<u8>,
}

/// A request, or the end of a connection, of which other cores are told.
pub(crate) enum WsOperation {
    Announce(WsAnnounce),
    Answer(WsAnswer),
    Scrape { torrents: Vec<InfoHash>, expected: BTreeMap<InfoHash, Counts>, served: BTreeSet<InfoHash> },
    Leave { client: usize, peer_id: PeerId, torrents: BTreeSet<InfoHash> },
}

impl WsOperation {
    /// The torrents that it is about.
    fn torrents(&self) -> BTreeSet<InfoHash> {
        match self {
            Self::Announce(announce) => [announce.info_hash].into(),
            Self::Answer(answer) => [answer.info_hash].into(),
            Self::Scrape { served, .. } => served.clone(),
            Self::Leave { torrents, .. } => torrents.clone(),
        }
    }
}

impl Simulation {
    pub(crate) fn ws_step(&mut self) {
        let open: Vec<usize> =
            (0..self.ws_clients.len()).filter(|&client| self.ws_clients[client].open).collect();
        if open.is_empty() || open.len() < CONNECTIONS && self.rng.random_range(0..8) == 0 {
            return self.ws_open();
        }
        let client = open[self.rng.random_range(0..open.len())];
        match self.rng.random_range(0..100) {
            0..55 => self.ws_announce(client),
            55..85 => self.ws_answer(client),
            85..96 => self.ws_scrape(client),
            _ => self.ws_close(client, End::Client),
        }
    }

    fn ws_open(&mut self) {
        let core = self.rng.random_range(0..CORES);
        let id = self.cores[core].ws.open(Family::V4);
        // Few peer ids, so that connections contend for them.
        let peer_id = PeerId([self.rng.random_range(1..=7); 20]);
        let silent = self.rng.random_range(0..4) == 0;
        let (torrents, offers, inbound) = Default::default();
        let reader = Reader::default();
        let (scrape, refusals) = (None, 0);
        self.ws_clients.push(WsClient {
            core,
            id,
            peer_id,
            reader,
            silent,
            open: true,
            torrents,
            offers,
            scrape,
            refusals,
            inbound,
        });
    }

    fn ws_announce(&mut self, client: usize) {
        let info_hash = self.torrent();
        let WsClient { core, peer_id, .. } = self.ws_clients[client];
        let number = self.ws_operations.len();
        let stopped = self.rng.random_range(0..6) == 0;
        let seeder = self.rng.random_range(0..3) == 0;
        let offers = (0..self.rng.random_range(0..=4)).map(|at| offer_id(number, at)).collect();
        let announce = WsAnnounce { client, info_hash, peer_id, seeder, stopped, offers };
        let message = announce.clone();
        if self.denied.contains(&info_hash) {
            self.ws_clients[client].refusals += 1;
            self.ws_operations.push(WsOperation::Announce(announce));
        } else {
            let torrents = &mut self.ws_clients[client].torrents;
            if stopped {
                torrents.remove(&info_hash)
            } else {
                torrents.insert(info_hash)
            };
            self.begin_ws(core, WsOperation::Announce(announce));
        }
        self.ws_send(client, &announce_message(&message));
    }

    /// Answers an offer, sometimes wrongly: one that is not this client's, or for the second time.
    fn ws_answer(&mut self, client: usize) {
        let wrong = self.rng.random_range(0..8) == 0;
        let from = if wrong { self.rng.random_range(0..self.ws_clients.len()) } else { client };
        let offers = &mut self.ws_clients[from].offers;
        if offers.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..offers.len());
        let keep = wrong || self.rng.random_range(0..8) == 0;
        let (info_hash, to, offer) = if keep { offers[at].clone() } else { offers.swap_remove(at) };
        let WsClient { core, peer_id, .. } = self.ws_clients[client];
        let answer = WsAnswer { client, info_hash, peer_id, to, offer };
        if !self.denied.contains(&info_hash) {
            self.begin_ws(core, WsOperation::Answer(answer.clone()));
        }
        self.ws_send(client, &answer_message(&answer));
    }

    fn ws_scrape(&mut self, client: usize) {
        if self.ws_clients[client].scrape.is_some() {
            return;
        }
        let count = self.rng.random_range(1..=4);
        let torrents: BTreeSet<InfoHash> = (0..count).map(|_| self.torrent()).collect();
        let torrents: Vec<InfoHash> = torrents.into_iter().collect();
        let message = ClientMessage::Scrape(Scrape { info_hashes: torrents.clone() });
        self.ws_clients[client].scrape = Some(self.ws_operations.len());
        let served = torrents.iter().filter(|torrent| !self.denied.contains(torrent)).copied().collect();
        let expected = torrents.iter().map(|torrent| (*torrent, Counts::default())).collect();
        self.begin_ws(self.ws_clients[client].core, WsOperation::Scrape { torrents, expected, served });
        self.ws_send(client, &message);
    }

    fn ws_close(&mut self, client: usize, end: End) {
        let WsClient { core, id, peer_id, .. } = self.ws_clients[client];
        self.ws_clients[client].open = false;
        self.ws_model.close(client);
        let torrents = std::mem::take(&mut self.ws_clients[client].torrents);
        self.begin_ws(core, WsOperation::Leave { client, peer_id, torrents });
        assert!(self.cores[core].ws.close(id, end).is_some());
        self.network.end_ws();
    }

    /// Notes an operation, and applies to the model what the client's core applies at once.
    fn begin_ws(&mut self, core: usize, operation: WsOperation) {
        let number = self.ws_operations.len();
        self.ws_due.insert(number, operation.torrents());
        self.ws_operations.push(operation);
        self.apply_ws(number, core);
        self.network.begin_ws(number);
    }

    /// Applies an operation to the model, as far as the core owns what it is about.
    pub(crate) fn apply_ws(&mut self, number: usize, core: usize) {
        let state = self.cores[core].owners.state();
        let owns = |info_hash: &InfoHash| state.owns(info_hash);
        self.ws_due.entry(number).or_default().retain(|torrent| !owns(torrent));
        match &mut self.ws_operations[number] {
            WsOperation::Announce(announce) => {
                if owns(&announce.info_hash) {
                    self.ws_model.announce(number, announce, self.now.0);
                }
            }
            WsOperation::Answer(answer) => {
                if owns(&answer.info_hash) {
                    self.ws_model.answer(answer, self.now.0);
                }
            }
            WsOperation::Scrape { torrents, expected, served } => {
                for torrent in torrents.iter().filter(|torrent| owns(torrent) && served.contains(torrent)) {
                    expected.insert(*torrent, self.ws_model.counts(torrent));
                }
            }
            WsOperation::Leave { client, peer_id, torrents } => {
                for torrent in torrents.iter().filter(|torrent| owns(torrent)) {
                    self.ws_model.leave(*client, torrent, peer_id);
                }
            }
        }
    }

    fn ws_send(&mut self, client: usize, message: &ClientMessage<'_>) {
        let mut text = String::new();
        message.encode(&mut text);
        let mut bytes = Vec::new();
        let cut = self.rng.random_range(0..=text.len());
        let (first, second) = text.as_bytes().split_at(cut);
        if self.rng.random_range(0..4) == 0 {
            frame(0x01, first, &mut bytes);
            frame(0x80, second, &mut bytes);
        } else {
            frame(0x81, text.as_bytes(), &mut bytes);
        }
        // In two pieces, the first of which may be empty.
        let cut = self.rng.random_range(0..bytes.len());
        let (first, second) = bytes.split_at_mut(cut);
        self.ws_bytes(client, first);
        self.ws_bytes(client, second);
        self.network.end_ws();
        self.ws_receive();
    }

    fn ws_bytes(&mut self, client: usize, bytes: &mut [u8]) {
        let WsClient { core, id, reader, .. } = &mut self.ws_clients[client];
        let (admission, now, time) = (&self.admission, self.now, self.clock);
        let mut context = RequestContext { admission, now, time, rng: &mut self.rng };
        let ended = self.cores[*core].ws.receive_bytes(*id, reader, bytes, &mut context);
        assert_eq!(ended, None, "the client has done nothing wrong");
    }

    /// Has all clients receive what is queued for them, and checks it.
    pub(crate) fn ws_receive(&mut self) {
        for client in 0..self.ws_clients.len() {
            let WsClient { core, id, open, silent, .. } = self.ws_clients[client];
            if !open {
                continue;
            }
            if let Some(end) = self.cores[core].ws.end(id) {
                assert!(silent && end == End::ProbeFailed, "{client} ends because of {end:?}");
                self.ws_close(client, end);
                continue;
            }
            let tracker = &mut self.cores[core].ws;
            let unsent = tracker.unsent(id);
            let length = unsent.len().min(self.rng.random_range(0..=4096));
            let WsClient { inbound, .. } = &mut self.ws_clients[client];
            inbound.extend_from_slice(&unsent[..length]);
            tracker.sent(id, length);
            while let Some((opcode, payload)) = next_frame(&mut self.ws_clients[client].inbound) {
                match opcode {
                    0x81 => self.ws_message(client, str::from_utf8(&payload).unwrap()),
                    0x89 if silent => {}
                    0x89 => {
                        self.ws_bytes(client, &mut pong(&payload));
                    }
                    other => panic!("frame {other:x}"),
                }
            }
        }
    }

    fn ws_message(&mut self, client: usize, text: &str) {
        match TrackerMessage::parse(text).unwrap() {
            TrackerMessage::Announce(reply) => {
                self.ws_model.receive_reply(client, reply.info_hash, reply_of(&reply));
                self.replies += 1;
            }
            TrackerMessage::Offer(offer) => {
                let id: String = offer.offer_id.characters().collect();
                self.ws_model.receive_offer(client, offer.info_hash, offer.peer_id, &id);
                self.ws_clients[client].offers.push((offer.info_hash, offer.peer_id, id));
            }
            TrackerMessage::Answer(answer) => {
                let id: String = answer.offer_id.characters().collect();
                self.ws_model.receive_answer(client, answer.info_hash, answer.peer_id, &id);
            }
            TrackerMessage::Scrape(reply) => {
                let number = self.ws_clients[client].scrape.take().unwrap();
                let WsOperation::Scrape { expected, .. } = &self.ws_operations[number] else {
                    panic!("a scrape")
                };
                let counts = reply.files.iter().map(|file| {
                    let (complete, incomplete) = (file.complete, file.incomplete);
                    (file.info_hash, Counts { complete, incomplete, downloaded: file.downloaded })
                });
                assert_eq!(counts.collect::<BTreeMap<_, _>>(), *expected);
                self.replies += 1;
            }
            TrackerMessage::Failure(failure) if failure.reason.contains("overloaded") => {
                assert!(self.ws_clients[client].scrape.take().is_some(), "a scrape has timed out");
                self.timeouts += 1;
            }
            TrackerMessage::Failure(failure) => {
                assert!(failure.reason.contains("does not serve this torrent"), "{}", failure.reason);
                let refusals = self.ws_clients[client].refusals.checked_sub(1);
                self.ws_clients[client].refusals = refusals.unwrap();
            }
        }
    }

    /// Compares what the cores own with the model.
    pub(crate) fn ws_settle(&mut self) {
        // Each receives at most 4 KiB at once.
        while self
            .ws_clients
            .iter()
            .any(|client| client.open && !self.cores[client.core].ws.unsent(client.id).is_empty())
        {
            self.ws_receive();
        }
        self.ws_model.check_complete();
        for (number, torrents) in &self.ws_due {
            assert!(torrents.is_empty(), "operation {number} has not reached the owners of {torrents:?}");
        }
        for client in self.ws_clients.iter().filter(|client| client.open) {
            assert_eq!((client.refusals, client.scrape), (0, None));
        }
        for torrent in Self::torrents() {
            let owner = self.cores[0].owners.state().owner(&torrent);
            assert_eq!(self.cores[owner].ws.swarms().scrape(&torrent), self.ws_model.counts(&torrent));
        }
        let peers =
            self.cores.iter().map(|core| core.ws.swarms().stats().peers.iter().flatten().sum::<usize>());
        assert_eq!(peers.sum::<usize>(), self.ws_model.peers());
    }

    /// Runs a whole pass of expiry.
    pub(crate) fn ws_expire(&mut self, core: usize) {
        use aquatic_common::expiry::Expire;
        let tracker = &mut self.cores[core].ws;
        // The first may have begun before.
        for _ in 0..2 {
            while !tracker.expire(self.now, MAX_AGE, 20).pass_ended {}
        }
        let state = self.cores[core].owners.state();
        self.ws_model.expire(core, (self.now.0, MAX_AGE), |torrent| state.owns(torrent));
    }
}
