//! What holds for the sessions of several clients, whatever bytes they and other nodes send, however slowly
//! they receive, and whenever they end. For the tests and the fuzz target `ws_sessions`.

#[path = "../link/mod.rs"]
mod link;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aquatic_common::config::AccessListConfig;
use aquatic_common::{Family, InfoHash, PeerId, Seconds, Steering};
use aquatic_metrics::Registry;
use aquatic_net::proxy::{ForwardedHeaders, OnBadHeader, TrustedProxies};
use aquatic_runtime::Secrets;
use aquatic_tracker::{Admission, SharedAccessList};
use aquatic_ws::frames::Reader;
use aquatic_ws::nodes::changes::{self, read_record, write_record};
use aquatic_ws::nodes::messages::{Exchange, NodeMessage, Receiver, split};
use aquatic_ws::swarm::{Change, ChangeKind, ConnectionId, NodeConnection, NodeNumber};
use aquatic_ws::{End, ForwardedBatch, RequestContext, Tracker, WsConfig, WsSeed};
use aquatic_ws_protocol::{Description, OfferId};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use link::{Link, Network};

const CORES: usize = 2;

/// Clients, each on the core of its number modulo [`CORES`].
const CLIENTS: usize = 4;

#[derive(Default)]
struct Client {
    id: Option<ConnectionId>,
    reader: Reader,
    /// Sent by the tracker, from the last whole frame on.
    received: Vec<u8>,
}

struct Cores {
    config: WsConfig,
    trackers: Vec<Tracker<Link<ForwardedBatch>>>,
    network: Network<ForwardedBatch>,
    admission: Admission,
    rng: SmallRng,
    time: Duration,
    clients: [Client; CLIENTS],
}

/// Runs a script of operations. The lowest three bits of the first byte of each say what is done, the next
/// two by which client.
pub(crate) fn check_bytes(mut script: &[u8]) {
    let mut cores = Cores::new();
    while let Some((&operation, rest)) = script.split_first() {
        script = rest;
        let client = usize::from(operation >> 3) % CLIENTS;
        match operation & 7 {
            0 => {
                let bytes = take(&mut script);
                cores.send(client, bytes.to_vec());
            }
            1 | 2 => {
                let payload = take(&mut script);
                cores.send(client, frame(0x80 | (operation & 7), payload));
            }
            3 | 4 => {
                let numbers = take(&mut script);
                let message = message(numbers);
                cores.send(client, frame(0x81, message.as_bytes()));
            }
            5 => {
                let most = usize::from(next(&mut script));
                cores.receive(client, most);
            }
            6 => cores.close(client, End::Broken),
            _ if operation & 0x80 != 0 => {
                let kind = next(&mut script);
                let bytes = take(&mut script);
                cores.receive_from_node(client as u8, kind, bytes);
            }
            _ => cores.pass_time(next(&mut script)),
        }
        if operation & 0x20 == 0 {
            cores.settle();
        }
    }
    cores.end();
}

/// A message in which few values differ, so that clients meet in torrents and answer each other's offers.
fn message(numbers: &[u8]) -> String {
    let at = |index: usize| numbers.get(index).copied().unwrap_or_default();
    let id = |number: u8| char::from(b'a' + number % 3).to_string().repeat(20);
    let (torrent, peer) = (id(at(0)), id(at(0) >> 2));
    let common = format!(r#""info_hash":"{torrent}","peer_id":"{peer}""#);
    match at(0) >> 4 & 3 {
        0 => format!(r#"{{"action":"scrape","info_hash":["{torrent}","{peer}"]}}"#),
        1 => {
            let (to, offer) = (id(at(1)), at(1) >> 2 & 7);
            format!(
                r#"{{"action":"announce",{common},"to_peer_id":"{to}","offer_id":"{offer}","answer":{{"sdp":"x"}}}}"#
            )
        }
        _ => {
            let offer = |number: u8| format!(r#"{{"offer":{{"sdp":"x"}},"offer_id":"{number}"}}"#);
            let offers: Vec<String> = (0..at(1) % 8).map(offer).collect();
            let (offers, left) = (offers.join(","), at(1) >> 3 & 1);
            let event = ["started", "stopped", "completed", "update"][usize::from(at(1) >> 4 & 3)];
            format!(r#"{{"action":"announce",{common},"left":{left},"event":"{event}","offers":[{offers}]}}"#)
        }
    }
}

/// Records and messages of other nodes in which few values differ, so that they are about the peers and
/// connections of the clients, and of other nodes.
fn of_node(kind: u8, numbers: &[u8]) -> Vec<u8> {
    let at = |index: usize| numbers.get(index).copied().unwrap_or_default();
    let id = |number: u8| [b'a' + number % 3; 20];
    let connection =
        NodeConnection { core: at(1) % 3, slot: (at(1) >> 2 & 3).into(), generation: (at(1) >> 4).into() };
    let (info_hash, peer_id) = (InfoHash(id(at(0))), PeerId(id(at(0) >> 2)));
    let mut out = Vec::new();
    if kind & 2 == 0 {
        let kind = match at(2) & 3 {
            0 => ChangeKind::Left,
            some => ChangeKind::Present { seeder: some == 1, completed: at(2) & 4 == 0 },
        };
        let (family, age) = (Family::ALL[usize::from(at(2) >> 3 & 1)], at(3).into());
        let network = aquatic_ws::swarm::Network::from_bits(u32::from(at(4) & 3) << 30);
        write_record(&Change { info_hash, peer_id, connection, network, family, kind, age }, &mut out);
        return out;
    }
    let exchange = Exchange {
        receiver: Receiver { connection, info_hash, peer_id },
        maker: PeerId(id(at(2))),
        offer_id: OfferId::new(&(at(2) >> 2 & 7).to_string()).expect("it is short"),
        description: Description::parse(r#"{"sdp":"x"}"#).expect("it is an object"),
    };
    let message = match kind >> 2 & 3 {
        0 => NodeMessage::Offer(exchange),
        1 => NodeMessage::Answer(exchange),
        _ => NodeMessage::NoSuchPeer(exchange.receiver),
    };
    message.write(&mut out).expect("it is short");
    out
}

/// Takes as many bytes as the first one says, or what is left.
fn take<'a>(script: &mut &'a [u8]) -> &'a [u8] {
    let len = usize::from(next(script)).min(script.len());
    let (taken, rest) = script.split_at(len);
    *script = rest;
    taken
}

fn next(script: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = script.split_first() else { return 0 };
    *script = rest;
    first
}

/// A frame of a client, with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ ..126) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend((payload.len() as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

impl Cores {
    fn new() -> Self {
        let config = WsConfig::default();
        let no_proxies = ForwardedHeaders {
            names: Vec::new(),
            trusted: TrustedProxies::parse::<&str>(&[]).expect("there are none"),
            on_bad: OnBadHeader::Refuse,
            blocked: Arc::default(),
        };
        let access_list = SharedAccessList::load(&AccessListConfig::default()).expect("there is none");
        let secrets = Secrets::from_bytes([7; 32]);
        let steering = Steering::new(CORES, [6; 8]);
        let seed = WsSeed::new(&config, &no_proxies, steering, &access_list, &secrets);
        let (registry, network) = (Registry::default(), Network::<ForwardedBatch>::default());
        let tracker =
            |core| seed.tracker(core, &registry.core(core), Link { core, network: Rc::clone(&network) });
        Self {
            config,
            trackers: (0..CORES).map(tracker).collect(),
            network,
            admission: Admission::new(access_list),
            rng: SmallRng::seed_from_u64(1),
            time: Duration::ZERO,
            clients: Default::default(),
        }
    }

    fn with<R>(
        &mut self,
        core: usize,
        act: impl FnOnce(&mut Tracker<Link<ForwardedBatch>>, &mut RequestContext<'_>) -> R,
    ) -> R {
        let (admission, time) = (&self.admission, self.time);
        let mut context =
            RequestContext { admission, now: Seconds(time.as_secs() as u32), time, rng: &mut self.rng };
        act(&mut self.trackers[core], &mut context)
    }

    fn send(&mut self, client: usize, mut bytes: Vec<u8>) {
        let core = client % CORES;
        let id = match self.clients[client].id {
            Some(id) => id,
            None => self.trackers[core].open(Family::ALL[client / CORES % 2]),
        };
        self.clients[client].id = Some(id);
        let mut reader = std::mem::take(&mut self.clients[client].reader);
        let ended =
            self.with(core, |tracker, context| tracker.receive_bytes(id, &mut reader, &mut bytes, context));
        self.clients[client].reader = reader;
        if let Some(ended) = ended {
            self.close(client, ended.end);
        }
        self.close_ended();
    }

    /// Has a client receive so many bytes.
    fn receive(&mut self, client: usize, most: usize) {
        let Some(id) = self.clients[client].id else { return };
        let tracker = &mut self.trackers[client % CORES];
        let unsent = tracker.unsent(id);
        let length = unsent.len();
        assert!(length <= 2 * self.config.client.max_unsent_bytes, "{length} bytes are queued");
        let sent = unsent[..length.min(most)].to_vec();
        tracker.sent(id, sent.len());
        self.clients[client].received.extend(sent);
        self.clients[client].check_frames();
    }

    fn close(&mut self, client: usize, end: End) {
        let Some(id) = self.clients[client].id.take() else { return };
        let unsent = self.trackers[client % CORES].close(id, end).expect("it was open");
        let closed = &mut self.clients[client];
        closed.received.extend(unsent);
        closed.check_frames();
        assert!(closed.received.is_empty(), "what is queued ends with a whole frame");
        *closed = Client::default();
    }

    /// Closes the connections that the tracker has ended.
    fn close_ended(&mut self) {
        for client in 0..CLIENTS {
            let Some(id) = self.clients[client].id else { continue };
            if let Some(end) = self.trackers[client % CORES].end(id) {
                self.close(client, end);
            }
        }
    }

    fn pass_time(&mut self, seconds: u8) {
        self.time += Duration::from_secs(seconds.into());
        let time = self.time;
        self.trackers.iter_mut().for_each(|tracker| tracker.tick(time));
        self.close_ended();
    }

    /// Delivers messages between cores until there are none.
    fn settle(&mut self) {
        loop {
            let batches = std::mem::take(&mut *self.network.borrow_mut());
            if batches.is_empty() {
                return self.close_ended();
            }
            for ((from, to), mut batch) in batches {
                self.with(to, |tracker, context| tracker.receive_batch(from, &mut batch, context));
            }
        }
    }

    /// Has the cores receive what a node sends: these bytes, or what they stand for.
    fn receive_from_node(&mut self, node: u8, kind: u8, bytes: &[u8]) {
        self.trackers.iter_mut().for_each(Tracker::join_cluster);
        let made = of_node(kind, bytes);
        let bytes = if kind & 1 == 0 { bytes } else { &made };
        let node = NodeNumber::new(node).expect("there are few");
        let mut parts: [Vec<u8>; CORES] = Default::default();
        let steering = Steering::new(CORES, [6; 8]);
        match kind & 2 {
            0 => changes::split(bytes, &steering, |core, record| parts[core].extend_from_slice(record)),
            _ => {
                split(bytes, &steering, |core, message| parts[core].extend_from_slice(message));
            }
        }
        for (core, part) in parts.iter().enumerate() {
            self.with(core, |tracker, context| match kind & 2 {
                0 => tracker.apply_changes(node, part, u32::from(kind) >> 4, context),
                _ => tracker.receive_node_messages(node, part, context),
            });
        }
        self.send_to_nodes();
    }

    /// Takes what the cores have for other nodes, and checks that these can read it.
    fn send_to_nodes(&mut self) {
        for core in 0..CORES {
            let mut records = Vec::new();
            self.with(core, |tracker, context| {
                tracker.advance_cluster(context.now);
                while tracker.publish(context.now, &mut records) > 0 {}
            });
            let (records, rest) = records.as_chunks();
            assert!(rest.is_empty() && records.iter().all(|record| read_record(record).is_ok()));
            while let Some((_, messages)) = self.trackers[core].take_node_messages() {
                let mut rest = messages.as_slice();
                while !rest.is_empty() {
                    NodeMessage::take(&mut rest).expect("nodes send what nodes can read");
                }
            }
        }
    }

    /// Ends all connections, after which nothing is left of them.
    fn end(mut self) {
        self.settle();
        // Other nodes end, too.
        for tracker in &mut self.trackers {
            (0..CLIENTS as u8).filter_map(NodeNumber::new).for_each(|node| tracker.forget_node(node));
            (0..6).for_each(|_| tracker.advance_cluster(Seconds(0)));
        }
        for client in 0..CLIENTS {
            self.receive(client, usize::MAX);
            self.close(client, End::Client);
        }
        self.settle();
        for tracker in &self.trackers {
            assert_eq!(tracker.swarms().stats().peers, [[0; 2]; 2]);
        }
    }
}

impl Client {
    /// Takes whole frames off what was received: unmasked, and text of JSON unless they are control frames.
    fn check_frames(&mut self) {
        loop {
            let [first, length, rest @ ..] = &self.received[..] else { return };
            assert!(first & 0x70 == 0 && length & 0x80 == 0, "{first:x} {length:x}");
            let (length, payload) = match (length, rest) {
                (126, [high, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
                (127, [_, _, _, _, bytes @ ..]) if bytes.len() >= 4 => {
                    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    (length as usize, &bytes[4..])
                }
                (126 | 127, _) => return,
                (length, rest) => (usize::from(*length), rest),
            };
            let Some(payload) = payload.get(..length) else { return };
            match first {
                0x81 => {
                    let text = str::from_utf8(payload).expect("texts are UTF-8");
                    let message: Result<serde_json::Value, _> = serde_json::from_str(text);
                    assert!(message.is_ok_and(|message| message.is_object()), "{text}");
                }
                0x88..=0x8a => assert!(length <= 125),
                _ => panic!("unexpected frame {first:x}"),
            }
            let end = payload.as_ptr() as usize + length - self.received.as_ptr() as usize;
            self.received.drain(..end);
        }
    }
}
