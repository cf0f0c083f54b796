//! The handler, fed with packets from memory: what clients see, case by case.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

mod sources;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use aquatic_common::config::{AccessListConfig, CleaningConfig, Limit, LimitsConfig};
use aquatic_common::{AccessListMode, AnnounceEvent, Family, InfoHash, PeerId, Seconds};
use aquatic_metrics::{Registry, names};
use aquatic_net::udp::{Datagrams, ReturnPath};
use aquatic_runtime::Secrets;
use aquatic_swarm::{FamilySet, SwarmCounts};
use aquatic_tracker::{
    IntervalPolicy, PeerRules, Reason, SharedAccessList, Stretch, TrackerSeed, TrackerSettings,
};
use aquatic_udp::{Action, ConnectionIds, Counters, Forwarded, Handler, Listener, ReplyLimits, Sources};
use aquatic_udp_protocol::{
    AnnounceFields, AnnounceRequest, ConnectRequest, ConnectionId, Peers, Response, TransactionId,
    encode_scrape_request,
};

const NOW: Seconds = Seconds(1000);
const HASH: InfoHash = InfoHash([7; 20]);

/// One core of a tracker, without sockets.
struct Core {
    handler: Handler,
    tracker: aquatic_tracker::Tracker,
    registry: Registry,
    forwarded: Forwarded,
    now: Seconds,
}

struct Packet {
    bytes: Vec<u8>,
    source: SocketAddr,
    truncated: bool,
    reply: [u8; 2048],
    reply_len: usize,
}

struct Memory(Vec<Packet>);

impl Datagrams for Memory {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn request(&self, at: usize) -> &[u8] {
        &self.0[at].bytes
    }

    fn is_truncated(&self, at: usize) -> bool {
        self.0[at].truncated
    }

    fn source(&self, at: usize) -> Option<SocketAddr> {
        Some(self.0[at].source)
    }

    fn return_path(&self, at: usize) -> ReturnPath {
        ReturnPath::to(self.0[at].source)
    }

    fn reply_buffer(&mut self, at: usize) -> &mut [u8] {
        &mut self.0[at].reply
    }

    fn set_reply_len(&mut self, at: usize, len: usize) {
        self.0[at].reply_len = len;
    }
}

const LIMITS: ReplyLimits =
    ReplyLimits { max_response_peers: 50, max_scrape_torrents: 74, max_reply_size: 2048 };

/// Settings under which every torrent is served and nothing is limited.
fn settings() -> TrackerSettings {
    TrackerSettings {
        access_list: AccessListConfig::default(),
        cleaning: CleaningConfig::default(),
        limits: LimitsConfig { reserved_for_small_torrents: 0, ..LimitsConfig::default() },
        rules: PeerRules::default(),
        interval: IntervalPolicy { interval: 1800, jitter: 10 },
        stretch: Stretch::default(),
    }
}

fn seed(settings: &TrackerSettings, access_list: Arc<SharedAccessList>, cores: usize) -> TrackerSeed {
    TrackerSeed::new(settings, &Secrets::from_bytes([1; 32]), cores, access_list)
}

impl Core {
    fn with(seed: &TrackerSeed, limits: ReplyLimits, index: usize) -> Self {
        let registry = Registry::default();
        let metrics = registry.core(index);
        Self {
            handler: Handler::new(
                limits,
                ConnectionIds::new(120, [2; 16]),
                Sources::unlimited([3; 16]),
                Counters::new(&metrics),
            ),
            tracker: seed.tracker(index, 3, &metrics),
            registry,
            forwarded: Forwarded::default(),
            now: NOW,
        }
    }

    fn new() -> Self {
        Self::with_settings(&settings(), LIMITS)
    }

    fn with_settings(settings: &TrackerSettings, limits: ReplyLimits) -> Self {
        let access_list = SharedAccessList::load(&settings.access_list).unwrap();
        Self::with(&seed(settings, access_list, 1), limits, 0)
    }

    fn serve(&mut self, packets: Vec<(Vec<u8>, SocketAddr)>) -> Vec<Option<Vec<u8>>> {
        let family = packets.first().map_or(Family::V4, |(_, source)| Family::of(source.ip()));
        let packet =
            |(bytes, source)| Packet { bytes, source, truncated: false, reply: [0; 2048], reply_len: 0 };
        let mut memory = Memory(packets.into_iter().map(packet).collect());
        self.serve_memory(&mut memory, family);
        let reply =
            |packet: Packet| (packet.reply_len > 0).then(|| packet.reply[..packet.reply_len].to_vec());
        memory.0.into_iter().map(reply).collect()
    }

    fn serve_memory(&mut self, memory: &mut Memory, family: Family) {
        let tracker = (&mut self.tracker, self.now);
        self.handler.handle(memory, Listener { index: 0, family }, tracker, &mut self.forwarded);
    }

    fn serve_one(&mut self, bytes: Vec<u8>, source: SocketAddr) -> Option<Vec<u8>> {
        self.serve(vec![(bytes, source)]).remove(0)
    }

    fn connect(&mut self, source: SocketAddr) -> ConnectionId {
        let mut buffer = [0; 16];
        ConnectRequest::new(TransactionId::from_number(5)).encode(&mut buffer).unwrap();
        let reply = self.serve_one(buffer.to_vec(), source).expect("a connect reply");
        assert_eq!(reply.len(), 16, "some clients accept no other length");
        match Response::parse(&reply, Family::of(source.ip())).unwrap() {
            Response::Connect(connect) => {
                assert_eq!(connect.transaction_id(), TransactionId::from_number(5));
                connect.connection_id()
            }
            other => panic!("not a connect reply: {other:?}"),
        }
    }

    fn announce(&mut self, source: SocketAddr, change: impl FnOnce(&mut AnnounceFields)) -> Option<Reply> {
        let packet = announce_packet(self.connect(source), change);
        let reply = self.serve_one(packet, source)?;
        Some(Reply::parse(&reply, Family::of(source.ip())))
    }

    /// Has as many peers announce themselves as leechers.
    fn populate(&mut self, peers: u8) {
        for peer in 1..=peers {
            self.announce(address(&format!("10.0.0.{peer}:1000")), |_| ()).unwrap();
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Peers { interval: i32, leechers: i32, seeders: i32, peers: Vec<SocketAddr> },
    Error(String),
}

impl Reply {
    fn parse(bytes: &[u8], family: Family) -> Self {
        match Response::parse(bytes, family).unwrap() {
            Response::Announce(announce) => Self::Peers {
                interval: announce.head.interval(),
                leechers: announce.head.leechers(),
                seeders: announce.head.seeders(),
                peers: match announce.peers {
                    Peers::V4(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
                    Peers::V6(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
                },
            },
            Response::Error(error) => Self::Error(String::from_utf8(error.text.to_vec()).unwrap()),
            other => panic!("unexpected reply: {other:?}"),
        }
    }

    fn peers(self) -> Vec<SocketAddr> {
        match self {
            Self::Peers { peers, .. } => peers,
            Self::Error(text) => panic!("error instead of peers: {text}"),
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn announce_packet(connection_id: ConnectionId, change: impl FnOnce(&mut AnnounceFields)) -> Vec<u8> {
    let mut fields = AnnounceFields {
        connection_id,
        transaction_id: TransactionId::from_number(9),
        info_hash: HASH,
        peer_id: PeerId([1; 20]),
        uploaded: 0,
        downloaded: 0,
        left: 100,
        event: AnnounceEvent::Started,
        key: 0,
        numwant: None,
        port: 1000,
    };
    change(&mut fields);
    let mut buffer = [0; 98];
    AnnounceRequest::new(&fields).encode(&mut buffer).unwrap();
    buffer.to_vec()
}

fn scrape_packet(id: ConnectionId, info_hashes: &[InfoHash]) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let len = encode_scrape_request(id, TransactionId::from_number(9), info_hashes, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn scrape_counts(reply: &[u8]) -> Vec<(i32, i32, i32)> {
    match Response::parse(reply, Family::V4).unwrap() {
        Response::Scrape(scrape) => scrape
            .counts
            .iter()
            .map(|torrent| (torrent.seeders(), torrent.completed(), torrent.leechers()))
            .collect(),
        other => panic!("not a scrape reply: {other:?}"),
    }
}

#[test]
fn peers_of_a_torrent_find_each_other() {
    for (one, other) in [("10.0.0.1:5", "10.0.0.2:5"), ("[2001:2::1]:5", "[2001:2::2]:5")] {
        let mut core = Core::new();
        let (one, other) = (address(one), address(other));
        let first = core.announce(one, |fields| fields.left = 0).unwrap();
        assert!(
            matches!(&first, Reply::Peers { leechers: 0, seeders: 1, peers, .. } if peers.is_empty()),
            "{first:?}"
        );
        let second = core.announce(other, |_| ()).unwrap();
        let expected = SocketAddr::new(one.ip(), 1000);
        assert!(
            matches!(&second, Reply::Peers { leechers: 1, seeders: 1, peers, .. } if *peers == [expected]),
            "{second:?}"
        );
    }
}

#[test]
fn claimed_addresses_count_for_nothing() {
    let mut core = Core::new();
    let source = address("10.0.0.1:5");
    let mut packet = announce_packet(core.connect(source), |_| ());
    packet[84..88].copy_from_slice(&[192, 0, 2, 1]);
    assert!(core.serve_one(packet, source).is_some());
    let peers = core.announce(address("10.0.0.2:5"), |_| ()).unwrap().peers();
    assert_eq!(peers, [address("10.0.0.1:1000")]);
}

#[test]
fn mapped_addresses_get_ipv4_peers() {
    let mut core = Core::new();
    core.populate(1);
    let peers = core.announce(address("[::ffff:10.0.0.9]:5"), |_| ()).unwrap().peers();
    assert_eq!(peers, [address("10.0.0.1:1000")]);
}

#[test]
fn intervals_are_jittered_downwards_within_bounds() {
    let mut core = Core::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let Some(Reply::Peers { interval, .. }) = core.announce(address("10.0.0.1:5"), |_| ()) else {
            panic!()
        };
        assert!((1620..=1800).contains(&interval), "{interval}");
        seen.insert(interval);
    }
    assert!(seen.len() > 50, "intervals vary");
}

#[test]
fn numwant_is_exact() {
    let mut core = Core::new();
    core.populate(120);
    let own = address("10.1.0.1:5");
    for (numwant, expected) in [
        (Some(1), 1),
        (Some(2), 2),
        (Some(7), 7),
        (Some(49), 49),
        (Some(0), 0),
        (Some(u32::MAX), 50),
        (None, 50),
    ] {
        let mut peers = core.announce(own, |fields| fields.numwant = numwant).unwrap().peers();
        assert!(!peers.contains(&address("10.1.0.1:1000")), "the requester is not a peer of itself");
        peers.sort_unstable();
        peers.dedup();
        assert_eq!(peers.len(), expected, "numwant {numwant:?}");
    }
}

#[test]
fn left_of_zero_and_nothing_else_makes_a_seeder() {
    for (left, seeders) in [(0, 1), (1, 0), (-1, 0), (i64::MAX, 0), (i64::MIN, 0), (1 << 32, 0)] {
        let reply = Core::new().announce(address("10.0.0.1:5"), |fields| fields.left = left);
        assert!(
            matches!(reply, Some(Reply::Peers { seeders: s, .. }) if s == seeders),
            "left {left}: {reply:?}"
        );
    }
}

#[test]
fn paused_and_unknown_events_are_plain_announces() {
    for event in [4_u32, 5, 77, u32::MAX] {
        let mut core = Core::new();
        let source = address("10.0.0.1:5");
        let mut packet = announce_packet(core.connect(source), |_| ());
        packet[80..84].copy_from_slice(&event.to_be_bytes());
        let reply = Reply::parse(&core.serve_one(packet, source).unwrap(), Family::V4);
        assert!(matches!(reply, Reply::Peers { leechers: 1, seeders: 0, .. }), "event {event}: {reply:?}");
    }
}

#[test]
fn stopped_leaves_without_peers() {
    let mut core = Core::new();
    core.populate(3);
    let reply = core.announce(address("10.0.0.1:5"), |fields| fields.event = AnnounceEvent::Stopped);
    let Some(Reply::Peers { leechers, peers, .. }) = reply else { panic!("{reply:?}") };
    assert_eq!((leechers, peers), (2, vec![]));
}

#[test]
fn extensions_behind_the_announce_are_accepted() {
    let mut core = Core::new();
    let source = address("10.0.0.1:5");
    let mut packet = announce_packet(core.connect(source), |_| ());
    packet.extend_from_slice(b"\x02\x09/announce\x00");
    assert!(core.serve_one(packet, source).is_some());
}

#[test]
fn port_zero_is_refused_with_words() {
    let reply = Core::new().announce(address("10.0.0.1:5"), |fields| fields.port = 0);
    assert_eq!(reply, Some(Reply::Error("port must not be 0".to_owned())));
}

#[test]
fn what_cannot_be_answered_is_counted_in_silence() {
    let mut core = Core::new();
    let id = core.connect(address("10.0.0.1:5"));
    let announce = announce_packet(id, |_| ());
    let cases = [
        (vec![0; 15], "10.0.0.1:5", Reason::TooShort),
        (vec![0; 16], "10.0.0.1:5", Reason::WrongMagic),
        (announce.clone(), "10.0.0.1:0", Reason::SourcePortZero),
        (announce.clone(), "10.0.0.2:5", Reason::BadConnectionId),
        (announce[..97].to_vec(), "10.0.0.2:5", Reason::BadConnectionId),
    ];
    for (packet, source, reason) in cases {
        assert_eq!(core.serve_one(packet, address(source)), None, "{reason:?}");
    }
    let counted = |core: &Core, reason| core.handler.counters().unserved(Family::V4, reason);
    for (reason, count) in [
        (Reason::TooShort, 1),
        (Reason::WrongMagic, 1),
        (Reason::SourcePortZero, 1),
        (Reason::BadConnectionId, 2),
    ] {
        assert_eq!(counted(&core, reason), count, "{reason:?}");
    }
    let packet = Packet {
        bytes: announce,
        source: address("10.0.0.1:5"),
        truncated: true,
        reply: [0; 2048],
        reply_len: 0,
    };
    let mut memory = Memory(vec![packet]);
    core.serve_memory(&mut memory, Family::V4);
    assert_eq!((memory.0[0].reply_len, counted(&core, Reason::TooLong)), (0, 1));
    assert_eq!(core.tracker.scrape(&HASH, FamilySet::Both), SwarmCounts::default(), "nothing was stored");
}

#[test]
fn malformed_requests_of_known_senders_get_words() {
    let mut core = Core::new();
    let source = address("10.0.0.1:5");
    let id = core.connect(source);
    let with_action = |action: u32, len: usize| {
        let mut packet = announce_packet(id, |_| ());
        packet[8..12].copy_from_slice(&action.to_be_bytes());
        packet.truncate(len);
        packet
    };
    for (packet, words) in [
        (with_action(1, 97), "announce is shorter than 98 bytes"),
        (with_action(7, 98), "unknown action"),
        (with_action(2, 16), "full scrapes are not supported"),
        (with_action(2, 35), "info hash is shorter than 20 bytes"),
    ] {
        let reply = Reply::parse(&core.serve_one(packet, source).unwrap(), Family::V4);
        assert_eq!(reply, Reply::Error(words.to_owned()));
    }
}

#[test]
fn connection_ids_grow_old_and_work_from_any_port() {
    let mut core = Core::new();
    let packet = announce_packet(core.connect(address("10.0.0.1:5")), |_| ());
    core.now = NOW + 120;
    assert!(core.serve_one(packet.clone(), address("10.0.0.1:6")).is_some());
    core.now = NOW + 121;
    assert_eq!(core.serve_one(packet, address("10.0.0.1:5")), None);
}

#[test]
fn scrape_answers_in_the_order_asked() {
    let mut core = Core::new();
    core.populate(2);
    core.announce(address("10.0.0.3:5"), |fields| fields.left = 0);
    core.announce(address("10.0.0.1:5"), |fields| {
        (fields.left, fields.event) = (0, AnnounceEvent::Completed);
    });
    let other = InfoHash([8; 20]);
    core.announce(address("10.0.0.1:5"), |fields| fields.info_hash = other);
    let unknown = InfoHash([9; 20]);
    let source = address("10.0.0.9:5");
    let packet = scrape_packet(core.connect(source), &[unknown, HASH, other, HASH]);
    let reply = core.serve_one(packet, source).unwrap();
    assert_eq!(scrape_counts(&reply), [(0, 0, 0), (2, 1, 1), (0, 0, 1), (2, 1, 1)]);
}

#[test]
fn long_scrapes_are_answered_for_the_first_torrents() {
    let mut core = Core::new();
    core.populate(1);
    let source = address("10.0.0.9:5");
    let packet = scrape_packet(core.connect(source), &[HASH; 80]);
    let reply = core.serve_one(packet, source).unwrap();
    assert_eq!(scrape_counts(&reply), [(0, 0, 1); 74]);
}

#[test]
fn access_list_covers_announce_and_scrape() {
    let path = std::env::temp_dir().join(format!("aquatic-udp-handler-{}", std::process::id()));
    fs::write(&path, "").unwrap();
    let access_list = AccessListConfig { mode: AccessListMode::Deny, path: path.clone(), allow_empty: true };
    let settings = TrackerSettings { access_list, ..settings() };
    let shared = SharedAccessList::load(&settings.access_list).unwrap();
    let mut core = Core::with(&seed(&settings, Arc::clone(&shared), 1), LIMITS, 0);
    core.populate(1);

    fs::write(&path, HASH.to_string()).unwrap();
    shared.reload().unwrap();
    fs::remove_file(path).unwrap();
    let source = address("10.0.0.9:5");
    let reply = core.announce(source, |_| ());
    assert_eq!(reply, Some(Reply::Error("this tracker does not serve this torrent".to_owned())));
    assert_eq!(core.handler.counters().unserved(Family::V4, Reason::AccessList), 1);
    let packet = scrape_packet(core.connect(source), &[HASH]);
    assert_eq!(scrape_counts(&core.serve_one(packet, source).unwrap()), [(0, 0, 0)]);
}

/// Two cores of one tracker, and a torrent of each.
fn two_cores() -> ([Core; 2], [InfoHash; 2]) {
    let settings = settings();
    let access_list = SharedAccessList::load(&settings.access_list).unwrap();
    let seed = seed(&settings, access_list, 2);
    let owned_by =
        |core| (0..=255).map(|n| InfoHash([n; 20])).find(|hash| seed.steering().owner(hash) == core).unwrap();
    ([0, 1].map(|index| Core::with(&seed, LIMITS, index)), [0, 1].map(owned_by))
}

#[test]
fn announces_are_forwarded_to_the_owner_and_answered_there() {
    let ([mut here, mut there], [own, foreign]) = two_cores();
    let source = address("10.0.0.1:5");
    assert!(here.announce(source, |fields| fields.info_hash = own).is_some());
    assert!(here.announce(source, |fields| fields.info_hash = foreign).is_none());
    let (to, forwarded) = here.forwarded.announces.pop().unwrap();
    assert_eq!((to, forwarded.listener, here.handler.counters().forwarded()), (1, 0, 1));
    assert!(here.forwarded.announces.is_empty());
    assert_eq!(here.tracker.scrape(&foreign, FamilySet::Both), SwarmCounts::default());

    let mut buffer = [0; 2048];
    let len = there.handler.handle_forwarded_announce(&forwarded, (&mut there.tracker, NOW), &mut buffer);
    let reply = Reply::parse(&buffer[..len], Family::V4);
    assert!(matches!(reply, Reply::Peers { leechers: 1, .. }), "{reply:?}");
    // The core that receives a request counts it, the core that replies counts the reply.
    let counted = |core: &Core| {
        let counters = core.handler.counters();
        [counters.requests(Family::V4, Action::Announce), counters.responses(Family::V4, Action::Announce)]
    };
    assert_eq!((counted(&here), counted(&there)), ([2, 1], [0, 1]));
}

#[test]
fn scrapes_with_torrents_of_other_cores_are_left_to_be_gathered() {
    let ([mut here, _], [own, foreign]) = two_cores();
    let source = address("10.0.0.1:5");
    let packet = scrape_packet(here.connect(source), &[foreign, own]);
    assert_eq!(here.serve_one(packet, source), None);
    let scrape = here.forwarded.scrapes.pop().unwrap();
    assert_eq!(scrape.info_hashes(), [foreign, own]);
    let one = SwarmCounts { complete: 0, incomplete: 1, downloaded: 0 };
    let counts = [SwarmCounts { complete: 3, incomplete: 2, downloaded: 1 }, one];
    let mut buffer = [0; 2048];
    let len = here.handler.finish_scrape(&scrape, &counts, &mut buffer);
    assert_eq!(scrape_counts(&buffer[..len]), [(3, 1, 2), (0, 0, 1)]);

    here.handler.give_up(Family::V4, Reason::Timeout);
    assert_eq!(here.handler.counters().unserved(Family::V4, Reason::Timeout), 1);
}

#[test]
fn batches_keep_their_order_and_each_packet_its_reply() {
    let mut core = Core::new();
    let sources: Vec<SocketAddr> = (1..=40).map(|n| address(&format!("10.0.0.{n}:5"))).collect();
    let ids: Vec<ConnectionId> = sources.iter().map(|&source| core.connect(source)).collect();
    let packets = sources.iter().zip(&ids).enumerate().map(|(at, (&source, &id))| match at % 4 {
        3 => (vec![0; 7], source),
        _ => (announce_packet(id, |fields| fields.numwant = Some(0)), source),
    });
    let replies = core.serve(packets.collect());
    let mut announced = 0;
    for (at, reply) in replies.into_iter().enumerate() {
        if at % 4 == 3 {
            assert_eq!(reply, None, "packet {at}");
            continue;
        }
        announced += 1;
        let reply = Reply::parse(&reply.unwrap(), Family::V4);
        assert!(matches!(reply, Reply::Peers { leechers, .. } if leechers == announced), "{at}: {reply:?}");
    }
}

#[test]
fn replies_keep_within_their_size() {
    let limits = ReplyLimits { max_response_peers: 202, max_reply_size: 512, ..LIMITS };
    let mut core = Core::with_settings(&settings(), limits);
    for peer in 1..=100_u16 {
        for ip in ["10.0.0.1", "2001:2::1"] {
            core.announce(SocketAddr::new(ip.parse().unwrap(), 5), |fields| fields.port = peer).unwrap();
        }
    }
    for (source, peers) in [("10.0.0.2:5", 82), ("[2001:2::2]:5", 27)] {
        assert_eq!(core.announce(address(source), |_| ()).unwrap().peers().len(), peers, "{source}");
    }
}

#[test]
fn at_a_limit_announces_are_answered_and_counted_by_the_limit() {
    let limits = |change: fn(&mut LimitsConfig)| {
        let mut settings = settings();
        change(&mut settings.limits);
        let mut core = Core::with_settings(&settings, LIMITS);
        core.populate(2);
        let reply = core.announce(address("10.0.0.3:5"), |_| ()).unwrap();
        assert!(
            matches!(reply, Reply::Peers { leechers: 2, ref peers, .. } if peers.len() == 2),
            "{reply:?}"
        );
        let other = InfoHash([8; 20]);
        core.announce(address("10.0.0.3:5"), |fields| fields.info_hash = other).unwrap();
        let samples = core.registry.samples();
        let not_stored = |reason| {
            let of = |family| {
                let is = |sample: &&aquatic_metrics::Sample| {
                    *sample.metric == names::NOT_STORED
                        && sample.label("reason") == Some(reason)
                        && sample.label("family") == Some(family)
                };
                samples.iter().find(is).unwrap().value
            };
            assert_eq!(of("ipv6"), 0);
            of("ipv4")
        };
        let counts = Limit::ALL.map(|limit| (limit, not_stored(limit.name())));
        counts.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>()
    };
    assert_eq!(limits(|limits| limits.max_peers_per_torrent = 2), [(Limit::PeersPerTorrent, 1)]);
    assert_eq!(limits(|limits| limits.max_peers = 2), [(Limit::Peers, 2)]);
    let both = limits(|limits| (limits.max_peers_per_torrent, limits.max_torrents) = (2, 1));
    assert_eq!(both, [(Limit::Torrents, 1), (Limit::PeersPerTorrent, 1)]);
}

#[test]
fn counters_tell_what_happened() {
    let mut core = Core::new();
    core.populate(3);
    let counters = core.handler.counters();
    assert_eq!(counters.requests(Family::V4, Action::Connect), 3);
    assert_eq!(counters.responses(Family::V4, Action::Announce), 3);
    assert_eq!(counters.requests(Family::V6, Action::Announce), 0);
    assert_eq!(counters.bytes(Family::V4), (3 * (16 + 98), 3 * 16 + 20 + 26 + 32));
}
