//! Simulation of several cores in one thread. Messages between cores are delivered by [`Cores::settle`].

#[path = "../../tests/link/mod.rs"]
mod link;

use std::rc::Rc;

use aquatic_common::config::{AccessListConfig, Limit};
use aquatic_common::load_table::Allowance;
use aquatic_metrics::names::{self, Metric};
use aquatic_metrics::{Registry, Sample};
use aquatic_tracker::gather::RESPONSE_DEADLINE;
use aquatic_tracker::{SharedAccessList, Store};
use aquatic_ws_protocol::{Answer, Description, TrackerMessage};
use rand::{RngExt, SeedableRng};

use super::*;
use link::{Link, Network};

const CORES: usize = 3;

struct Cores {
    trackers: Vec<Tracker<Link<ForwardedBatch>>>,
    registry: Registry,
    network: Network<ForwardedBatch>,
    admission: Admission,
    rng: SmallRng,
    now: Seconds,
    time: Duration,
}

impl Cores {
    fn new() -> Self {
        let rng = SmallRng::seed_from_u64(1);
        let steering = Steering::new(CORES, [6; 8]);
        let registry = Registry::default();
        let keys = Keys { swarms: [1; 16], offers: [2; 16], sources: [3; 16] };
        let network = Network::<ForwardedBatch>::default();
        let tracker = |core| {
            let (metrics, link) = (registry.core(core), Link { core, network: Rc::clone(&network) });
            let degradation = StoreDegradation::new(core, Store::WebTorrent, &metrics);
            let counted = (Counters::new(&metrics), degradation);
            Tracker::new(&WsConfig::default(), (core, steering), keys, counted, link)
        };
        Self {
            trackers: (0..CORES).map(tracker).collect(),
            registry,
            network,
            admission: Admission::new(SharedAccessList::load(&AccessListConfig::default()).unwrap()),
            rng,
            now: Seconds(0),
            time: Duration::ZERO,
        }
    }

    fn open(&mut self, core: usize) -> ConnectionId {
        self.trackers[core].open(Family::V4)
    }

    fn text(&mut self, from: ConnectionId, text: &str) {
        let (admission, now, time) = (&self.admission, self.now, self.time);
        let mut context = RequestContext { admission, now, time, rng: &mut self.rng };
        self.trackers[usize::from(from.core)].receive(from, text, &mut context);
    }

    fn announce(&mut self, from: ConnectionId, torrent: InfoHash, peer: u8, offers: &[&str]) {
        let offer = |id: &&str| format!(r#"{{"offer":{{"sdp":"v=0 {id}"}},"offer_id":"{id}"}}"#);
        let offers: Vec<String> = offers.iter().map(offer).collect();
        let text = format!(
            r#"{{"action":"announce","info_hash":"{}","peer_id":"{}","left":1,"offers":[{}]}}"#,
            latin(&torrent.0),
            latin(&PeerId([peer; 20]).0),
            offers.join(",")
        );
        self.text(from, &text);
    }

    fn answer(&mut self, from: ConnectionId, torrent: InfoHash, peer: u8, to: u8, offer: &str) {
        let answer = ClientMessage::Answer(Answer {
            info_hash: torrent,
            peer_id: PeerId([peer; 20]),
            to_peer_id: PeerId([to; 20]),
            offer_id: OfferId::new(offer).unwrap(),
            answer: Description::parse(r#"{"sdp":"yes"}"#).unwrap(),
        });
        let mut text = String::new();
        answer.encode(&mut text);
        self.text(from, &text);
    }

    /// Delivers messages between cores until there are none.
    fn settle(&mut self) {
        loop {
            let mut batches = std::mem::take(&mut *self.network.borrow_mut());
            if batches.is_empty() {
                return;
            }
            for ((from, to), batch) in &mut batches {
                assert_ne!(from, to, "no core sends to itself");
                let mut context = RequestContext {
                    admission: &self.admission,
                    now: self.now,
                    time: self.time,
                    rng: &mut self.rng,
                };
                self.trackers[*to].receive_batch(*from, batch, &mut context);
            }
        }
    }

    /// Removes the frames from a send queue. Returns the messages, and whether there was a ping.
    fn received(&mut self, to: ConnectionId) -> (Vec<String>, bool) {
        let connections = &mut self.trackers[usize::from(to.core)].connections;
        let bytes = connections.get(to).unwrap().send_queue.unsent().to_vec();
        connections.data_sent(to, bytes.len());
        let (mut texts, mut pinged, mut rest) = (Vec::new(), false, bytes.as_slice());
        while let [first, length, more @ ..] = rest {
            let (length, payload) = match length {
                126 => (usize::from(u16::from_be_bytes([more[0], more[1]])), &more[2..]),
                short => (usize::from(*short), more),
            };
            match first {
                0x81 => texts.push(String::from_utf8(payload[..length].to_vec()).unwrap()),
                0x89 => pinged = true,
                other => panic!("unexpected frame {other}"),
            }
            rest = &payload[length..];
        }
        (texts, pinged)
    }

    fn close(&mut self, connection: ConnectionId) {
        self.trackers[usize::from(connection.core)].close(connection, End::Client);
    }

    fn peers(&self) -> usize {
        self.trackers.iter().map(|tracker| tracker.swarms.stats().peers.iter().flatten().sum::<usize>()).sum()
    }

    fn offers(&self) -> usize {
        self.trackers.iter().map(|tracker| tracker.swarms.stats().offers).sum()
    }

    /// Returns the sum of a metric over its series, or over those with one of these actions.
    fn sum(&self, metric: &Metric, actions: &[&str]) -> u64 {
        let samples = self.registry.samples().into_iter().filter(|sample| sample.metric == metric);
        let action = |sample: &Sample| sample.label("action").is_none_or(|action| actions.contains(&action));
        samples.filter(action).map(|sample| sample.value).sum()
    }

    /// Returns a torrent owned by a core.
    fn torrent(&self, core: usize) -> InfoHash {
        let mut torrents = (1..=255).map(|byte| InfoHash([byte; 20]));
        torrents.find(|torrent| self.trackers[core].router.owner(torrent) == Owner::Here).unwrap()
    }
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\u{byte:04x}")).collect()
}

/// Returns a summary of a message.
fn kind(text: &str) -> String {
    match TrackerMessage::parse(text).unwrap() {
        TrackerMessage::Announce(reply) => format!("reply {}", reply.incomplete),
        TrackerMessage::Offer(offer) => {
            format!("offer of {} {}", offer.peer_id.0[0], offer.offer_id.characters().collect::<String>())
        }
        TrackerMessage::Answer(answer) => {
            format!("answer of {} {}", answer.peer_id.0[0], answer.offer_id.characters().collect::<String>())
        }
        TrackerMessage::Scrape(reply) => format!("scrape {}", reply.files.len()),
        TrackerMessage::Failure(failure) => format!("failure {}", failure.reason),
    }
}

fn kinds((texts, _): (Vec<String>, bool)) -> Vec<String> {
    texts.iter().map(|text| kind(text)).collect()
}

#[test]
fn offers_and_answers_are_relayed_between_any_cores() {
    for owner in 0..CORES {
        for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 2), (2, 2)] {
            let mut cores = Cores::new();
            let torrent = cores.torrent(owner);
            let (one, two) = (cores.open(first), cores.open(second));
            cores.announce(one, torrent, 1, &["early"]);
            cores.settle();
            cores.announce(two, torrent, 2, &["a", "b"]);
            cores.settle();
            let context = format!("owner {owner}, connections on {first} and {second}");
            assert_eq!(kinds(cores.received(one)), ["reply 1", "offer of 2 a"], "{context}");
            assert_eq!(kinds(cores.received(two)), ["reply 2"], "{context}");
            cores.answer(one, torrent, 1, 2, "b");
            cores.answer(one, torrent, 1, 2, "a");
            cores.answer(one, torrent, 1, 2, "a");
            cores.settle();
            assert_eq!(kinds(cores.received(two)), ["answer of 1 a"], "{context}");
            assert!(kinds(cores.received(one)).is_empty(), "{context}");
            cores.close(one);
            cores.close(two);
            cores.settle();
            assert_eq!(cores.peers(), 0, "{context}");
        }
    }
}

#[test]
fn an_announce_with_bad_offers_is_served_without_them() {
    for (core, owner) in [(0, 0), (0, 1)] {
        let mut cores = Cores::new();
        let torrent = cores.torrent(owner);
        let (one, two) = (cores.open(core), cores.open(core));
        cores.announce(one, torrent, 1, &[]);
        let offers = r#"[null,{"offer_id":"bad"},{"offer":{},"offer_id":"good"},{"offer":{}}]"#;
        let (hash, peer) = (latin(&torrent.0), latin(&[2; 20]));
        let members = format!(r#""info_hash":"{hash}","peer_id":"{peer}","left":1,"offers":{offers}"#);
        cores.text(two, &format!(r#"{{"action":"announce",{members}}}"#));
        cores.settle();
        assert_eq!(kinds(cores.received(one)), ["reply 1", "offer of 2 good"]);
        assert_eq!(kinds(cores.received(two)), ["reply 2"]);
        assert_eq!(cores.peers(), 2);
        assert_eq!(cores.trackers[core].counters.relays_dropped[RelayDrop::BadOffer as usize].get(), 3);
    }
}

/// Over a mixed run, in which clients go before they are replied to, have full queues, and send bad messages.
#[test]
fn every_request_is_answered_refused_or_dropped() {
    let mut cores = Cores::new();
    let torrents: Vec<InfoHash> = (0..CORES).map(|core| cores.torrent(core)).collect();
    let hashes: Vec<String> = torrents.iter().map(|torrent| format!("\"{}\"", latin(&torrent.0))).collect();
    let scrape = format!(r#"{{"action":"scrape","info_hash":[{}]}}"#, hashes.join(","));
    let mut rng = SmallRng::seed_from_u64(7);
    let mut open: Vec<ConnectionId> = Vec::new();
    for step in 0..6000 {
        if open.len() < 6 {
            open.push(cores.open(step % CORES));
        }
        let client = open[rng.random_range(0..open.len())];
        let (torrent, peer) = (torrents[rng.random_range(0..CORES)], client.slot as u8);
        match rng.random_range(0..20) {
            0..8 => cores.announce(client, torrent, peer, &["a", "b"][..rng.random_range(0..=2)]),
            8 => {
                let (hash, peer) = (latin(&torrent.0), latin(&[peer; 20]));
                let offers = r#"[1,{},{"offer":{},"offer_id":"x"}]"#;
                let members = format!(r#""info_hash":"{hash}","peer_id":"{peer}","offers":{offers}"#);
                cores.text(client, &format!(r#"{{"action":"announce",{members}}}"#));
            }
            9..12 => cores.answer(client, torrent, peer, rng.random_range(0..6), "a"),
            12..14 => cores.text(client, &scrape),
            14 => cores.text(client, "{}"),
            15 => {
                let index = open.iter().position(|other| *other == client).unwrap();
                cores.close(open.swap_remove(index));
            }
            // Of the others, nobody receives anything.
            16..18 => drop(cores.received(client)),
            _ => cores.settle(),
        }
    }
    cores.settle();
    for tracker in &mut cores.trackers {
        tracker.tick(RESPONSE_DEADLINE);
    }
    let asked = cores.sum(&names::REQUESTS, &["announce", "scrape", "other"]);
    let answered = cores.sum(&names::RESPONSES, &["announce", "scrape"]);
    let (refused, dropped) = (cores.sum(&names::REFUSED, &[]), cores.sum(&names::DROPPED, &[]));
    let lost = cores.sum(&names::SEND_ERRORS, &[]);
    assert_eq!(asked, answered + refused + dropped, "{answered}, {refused} and {dropped}");
    assert_eq!(cores.sum(&names::RESPONSES, &["error"]) + lost, refused);
    assert!(cores.sum(&names::RELAYS_DROPPED, &[]) > 100);
    assert!(dropped > 50 && refused > 100 && answered > 1000, "{answered}, {refused} and {dropped}");
}

/// One address with many connections, each with a few peer ids.
#[test]
fn peers_are_limited_by_the_address_of_their_connections() {
    let mut cores = Cores::new();
    let torrent = cores.torrent(1);
    let config = WsConfig::default();
    let max = config.limits.max_peers_per_address;
    let open = |cores: &mut Cores, ip: &str, numbers: &[u16]| {
        let connection = cores.open(0);
        cores.trackers[0].limit_source(connection, ip.parse().unwrap());
        for number in numbers {
            let [a, b] = number.to_be_bytes();
            let peer = latin(&[[a, b].as_slice(), &[ip.len() as u8; 18]].concat());
            let hash = latin(&torrent.0);
            let members = format!(r#""info_hash":"{hash}","peer_id":"{peer}","left":1,"offers":[]"#);
            cores.text(connection, &format!(r#"{{"action":"announce",{members}}}"#));
        }
        cores.settle();
        assert!(kinds(cores.received(connection)).iter().all(|kind| kind.starts_with("reply")));
    };
    let numbers: Vec<u16> = (0..4 * max as u16).collect();
    for (at, numbers) in numbers.chunks(4).enumerate() {
        open(&mut cores, if at % 2 == 0 { "2001:db8::1" } else { "2001:db8::2" }, numbers);
    }
    assert_eq!(cores.peers(), max);
    let limit = Limit::PeersPerAddress;
    let refused =
        cores.registry.samples().into_iter().filter(|sample| {
            sample.metric == &names::NOT_STORED && sample.label("reason") == Some(limit.name())
        });
    assert_eq!(refused.map(|sample| sample.value).sum::<u64>(), 3 * max as u64);
    open(&mut cores, "2001:db8:0:1::1", &[7]);
    assert_eq!(cores.peers(), max + 1);
}

#[test]
fn a_peer_whose_connection_ends_before_its_announce_arrives_is_removed() {
    let mut cores = Cores::new();
    let torrent = cores.torrent(1);
    let one = cores.open(0);
    cores.announce(one, torrent, 1, &[]);
    cores.close(one);
    cores.settle();
    assert_eq!(cores.peers(), 0);
    assert_eq!(cores.trackers[0].connections.get(one).map(|_| ()), None, "the connection has ended");
}

#[test]
fn pending_offers_are_removed_with_the_connection_on_any_core() {
    for owner in 0..CORES {
        let mut cores = Cores::new();
        let torrent = cores.torrent(owner);
        let (stays, goes) = (cores.open(0), cores.open(1));
        cores.announce(stays, torrent, 1, &[]);
        cores.settle();
        cores.announce(goes, torrent, 2, &["a"]);
        cores.settle();
        cores.announce(stays, torrent, 1, &["b"]);
        cores.settle();
        assert_eq!(cores.offers(), 2, "owner {owner}");
        cores.close(goes);
        cores.settle();
        assert_eq!(cores.offers(), 1, "owner {owner}");
        cores.answer(stays, torrent, 1, 2, "a");
        cores.settle();
        cores.close(stays);
        cores.settle();
        assert_eq!((cores.offers(), cores.peers()), (0, 0), "owner {owner}");
    }
}

#[test]
fn a_claim_probes_the_connection_of_the_peer_on_another_core() {
    let mut cores = Cores::new();
    let torrent = cores.torrent(0);
    let (holder, claimant) = (cores.open(1), cores.open(2));
    cores.announce(holder, torrent, 1, &[]);
    cores.settle();
    assert!(!cores.received(holder).1);
    cores.announce(claimant, torrent, 1, &["x"]);
    cores.settle();
    assert_eq!(cores.received(holder), (vec![], true), "a ping and no offer");
    assert_eq!(kinds(cores.received(claimant)), ["reply 1"]);
    cores.close(holder);
    cores.settle();
    assert_eq!(cores.peers(), 1);
    let other = cores.open(1);
    cores.announce(other, torrent, 2, &["y"]);
    cores.settle();
    assert_eq!(kinds(cores.received(claimant)), ["offer of 2 y"]);
}

#[test]
fn announces_are_refused_while_an_outbox_is_full() {
    let mut cores = Cores::new();
    let torrent = cores.torrent(1);
    let one = cores.open(0);
    let long = "x".repeat(60_000);
    let mut announces = 0;
    loop {
        let text = format!(
            r#"{{"action":"announce","info_hash":"{}","peer_id":"{}","offers":[{{"offer":{{"sdp":"{long}"}},"offer_id":"i"}}]}}"#,
            latin(&torrent.0),
            latin(&[1; 20])
        );
        cores.text(one, &text);
        let received = kinds(cores.received(one));
        if !received.is_empty() {
            assert_eq!(received, ["failure the tracker is overloaded, try again later"]);
            break;
        }
        announces += 1;
    }
    assert!((200..400).contains(&announces), "{announces} of 60 KB are 16 MiB");
    cores.close(one);
    cores.settle();
    assert_eq!(cores.peers(), 0, "the removal of the peer was not refused");
    let again = cores.open(0);
    cores.announce(again, torrent, 1, &[]);
    cores.settle();
    assert_eq!(kinds(cores.received(again)), ["reply 1"]);
}

#[test]
fn a_scrape_without_response_from_its_core_fails() {
    let mut cores = Cores::new();
    let hashes: Vec<String> =
        (0..CORES).map(|core| format!("\"{}\"", latin(&cores.torrent(core).0))).collect();
    let one = cores.open(0);
    let text = format!(r#"{{"action":"scrape","info_hash":[{}]}}"#, hashes.join(","));
    cores.text(one, &text);
    cores.settle();
    assert_eq!(kinds(cores.received(one)), ["scrape 3"]);
    cores.text(one, &text);
    cores.trackers[0].tick(RESPONSE_DEADLINE);
    assert_eq!(kinds(cores.received(one)), ["failure the tracker is overloaded, try again later"]);
    cores.settle();
    assert!(kinds(cores.received(one)).is_empty(), "a late response is ignored");
}

#[test]
fn messages_of_a_source_are_limited_over_all_its_connections() {
    let mut cores = Cores::new();
    let ids: Vec<ConnectionId> = (0..3).map(|_| cores.open(0)).collect();
    let tracker = &mut cores.trackers[0];
    let allowance = Some(Allowance { rate: 10.0, burst: 20.0, multiples: [1, 16, 64] });
    tracker.set_source_rules(SourceRules { allowance, ..SourceRules::default() });
    let addresses = ["192.0.2.1", "192.0.2.1", "198.51.100.1"].map(|ip| ip.parse().unwrap());
    ids.iter().zip(addresses).for_each(|(&id, ip)| tracker.limit_source(id, ip));
    let admitted = |tracker: &mut Tracker<Link<ForwardedBatch>>, id, seconds| {
        (0..100).filter(|_| tracker.admit_source(id, Duration::from_secs(seconds))).count()
    };
    assert!((20..=21).contains(&admitted(tracker, ids[0], 5)));
    assert_eq!(admitted(tracker, ids[1], 5), 0, "another connection of the same source");
    let may_read = |tracker: &mut Tracker<Link<ForwardedBatch>>| {
        ids.iter().map(|&id| tracker.connections.get(id).unwrap().may_read()).collect::<Vec<_>>()
    };
    assert_eq!(may_read(tracker), [false, false, true]);
    assert!(admitted(tracker, ids[2], 5) >= 20);
    tracker.tick(Duration::from_secs(6));
    assert_eq!(may_read(tracker), [true; 3]);
    assert!((5..=10).contains(&admitted(tracker, ids[1], 6)));
    assert!(matches!(tracker.rate_event(Duration::from_secs(6)), Some(RateEvent::Began { .. })));
    assert_eq!(tracker.counters.rate_limiting.get(), 1);
}

mod intervals;
mod memory;
mod nodes;
