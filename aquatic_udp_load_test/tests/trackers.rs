//! Load test against test trackers in the same process: correct ones, faulty ones, and none.
#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

#[path = "../../aquatic_load_engine/tests/support/reports.rs"]
mod reports;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aquatic_common::InfoHash;
use aquatic_load_engine::interrupt::Interrupt;
use aquatic_load_engine::report::{Failure, Outcome};
use aquatic_load_engine::settings::Mode;
use aquatic_udp_load_test::config::Config;
use aquatic_udp_load_test::run;
use aquatic_udp_protocol::{
    AnnounceHead, AnnounceRequest, ConnectReply, ConnectionId, ErrorReply, PeerV4, PeerV6, Request,
    ScrapeReply, TorrentCounts,
};
use reports::{note, violated};
use zerocopy::IntoBytes;

/// Behaviour of a test tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Honest,
    /// Does not answer one in three announces.
    Forgetful,
    /// Returns peers of whatever torrent was announced to last.
    Mixed,
    /// Returns the requester.
    Echoing,
    /// Returns each peer twice.
    Repeating,
    /// Appends a byte to its announce replies.
    Untidy,
    /// Leaves the last torrent out of scrape replies.
    Lazy,
    Refusing,
    /// Returns no peers.
    Empty,
    /// Stops to answer after 100 announces.
    Failing,
    /// Answers connect requests only.
    Dozing,
    /// Appends a byte to its first reply to a connect request of each socket.
    Clumsy,
    /// Refuses connect requests.
    Closed,
    Silent,
}

struct Tracker {
    behaviour: Behaviour,
    swarms: HashMap<InfoHash, BTreeSet<SocketAddr>>,
    last: InfoHash,
    announces: u64,
}

/// A tracker that runs until it is dropped.
struct Running {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Tracker>>,
}

impl Running {
    fn start(ip: &str, behaviour: Behaviour) -> Self {
        let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (address, stop) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut tracker =
                Tracker { behaviour, swarms: HashMap::new(), last: InfoHash([0; 20]), announces: 0 };
            let (mut packet, mut reply) = ([0; 2048], [0; 2048]);
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
                if let Some(length) = tracker.answer(&packet[..length], from, &mut reply) {
                    socket.send_to(&reply[..length], from).unwrap();
                }
            }
            tracker
        });
        Self { address, stop, thread: Some(thread) }
    }

    fn stop(mut self) -> Tracker {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Tracker {
    fn answer(&mut self, packet: &[u8], from: SocketAddr, reply: &mut [u8]) -> Option<usize> {
        let connection_id = ConnectionId(u64::from(from.port()).to_be_bytes());
        match Request::parse(packet).unwrap() {
            _ if self.behaviour == Behaviour::Silent => None,
            Request::Connect(connect) if self.behaviour == Behaviour::Closed => {
                self.announces += 1;
                let transaction_id = connect.transaction_id();
                Some(ErrorReply { transaction_id, text: "not now" }.encode(reply).unwrap())
            }
            Request::Connect(connect) if self.behaviour == Behaviour::Clumsy => {
                let length =
                    ConnectReply::new(connect.transaction_id(), connection_id).encode(reply).unwrap();
                let is_first = self.swarms.entry(InfoHash([0; 20])).or_default().insert(from);
                Some(length + usize::from(is_first))
            }
            Request::Connect(connect) => {
                Some(ConnectReply::new(connect.transaction_id(), connection_id).encode(reply).unwrap())
            }
            _ if self.behaviour == Behaviour::Dozing => None,
            Request::Announce(announce) => {
                assert_eq!(announce.connection_id(), connection_id);
                self.announces += 1;
                if self.behaviour == Behaviour::Forgetful && self.announces.is_multiple_of(3)
                    || self.behaviour == Behaviour::Failing && self.announces > 100
                {
                    None
                } else if self.behaviour == Behaviour::Refusing {
                    let transaction_id = announce.transaction_id();
                    Some(ErrorReply { transaction_id, text: "go away" }.encode(reply).unwrap())
                } else {
                    Some(self.announce(announce, from.ip(), reply))
                }
            }
            Request::Scrape(scrape) => {
                assert_eq!(scrape.connection_id(), connection_id);
                let counts = vec![TorrentCounts::new(1, 2, 3); scrape.info_hashes().len()];
                let left_out = usize::from(self.behaviour == Behaviour::Lazy);
                Some(ScrapeReply::encode(scrape.transaction_id(), &counts[left_out..], reply).unwrap())
            }
        }
    }

    fn announce(&mut self, announce: &AnnounceRequest, ip: IpAddr, reply: &mut [u8]) -> usize {
        let requester = SocketAddr::new(ip, announce.port());
        let torrent = if self.behaviour == Behaviour::Mixed { self.last } else { *announce.info_hash() };
        self.last = *announce.info_hash();
        let empty = self.behaviour == Behaviour::Empty;
        let wanted = if empty { 0 } else { announce.numwant().unwrap() as usize };
        let swarm = self.swarms.get(&torrent).into_iter().flatten().copied();
        let mut peers: Vec<SocketAddr> = swarm.filter(|&peer| peer != requester).take(wanted).collect();
        if self.behaviour == Behaviour::Echoing {
            peers = vec![requester];
        } else if self.behaviour == Behaviour::Repeating {
            peers = peers.iter().take(wanted / 2).flat_map(|&peer| [peer, peer]).collect();
        }
        self.swarms.entry(*announce.info_hash()).or_default().insert(requester);
        let area = AnnounceHead::peer_area(reply).unwrap();
        let mut used = 0;
        for peer in peers {
            let bytes = match peer {
                SocketAddr::V4(peer) => PeerV4::new(peer).as_bytes().to_vec(),
                SocketAddr::V6(peer) => PeerV6::new(peer).as_bytes().to_vec(),
            };
            area[used..used + bytes.len()].copy_from_slice(&bytes);
            used += bytes.len();
        }
        used += usize::from(self.behaviour == Behaviour::Untidy);
        AnnounceHead::new(announce.transaction_id(), 1800, 0, 0).encode(used, reply).unwrap()
    }
}

fn config(address: SocketAddr) -> Config {
    let mut config = Config { server_address: address, warm_up: 0, duration: 1, ..Config::default() };
    config.population.torrents = 50;
    config.population.peers = 400;
    config.requests.check_one_in = 1;
    config.requests.timeout = 2000;
    // What the trackers' receive buffers hold, however slow they are.
    config.closed.window = 32;
    config.prefill.window = 32;
    config
}

fn test(behaviour: Behaviour, change: impl FnOnce(&mut Config)) -> (Outcome, Tracker) {
    let tracker = Running::start("127.0.0.1", behaviour);
    let mut config = config(tracker.address);
    change(&mut config);
    let outcome = run(config, &Interrupt::default()).unwrap();
    (outcome, tracker.stop())
}

#[test]
fn honest_tracker_passes() {
    let (outcome, tracker) = test(Behaviour::Honest, |_| {});
    outcome.verdict().unwrap();
    let sources: BTreeSet<_> = tracker.swarms.values().flatten().map(SocketAddr::ip).collect();
    assert_eq!(sources.len(), 16);
    let report = &outcome.phases[0];
    let kinds: Vec<_> = report.kinds.iter().map(|kind| kind.kind).collect();
    assert_eq!(kinds, ["connect", "announce", "scrape"]);
    assert!(note(report, "peers in announce replies") > 1000, "{outcome}");
    assert!(
        report.kinds.iter().all(|kind| kind.sent == kind.answered && kind.latency.count == kind.answered)
    );
    assert!(report.latency.p50_us > 0.0 && report.latency.p50_us <= report.latency.max_us);
    assert!(report.responses_per_second > 1000.0, "{outcome}");
}

#[test]
fn prefill_announces_each_peer_even_if_packets_are_lost() {
    let (outcome, tracker) = test(Behaviour::Forgetful, |config| {
        config.prefill.enable = true;
        config.duration = 0;
        config.threads = 2;
        config.network.sockets_per_address = 2;
        config.requests.timeout = 50;
        config.prefill.attempts = 100;
    });
    outcome.verdict().unwrap();
    let report = &outcome.phases[0];
    assert_eq!(note(report, "peers announced"), 400);
    assert_eq!(note(report, "peers not announced after all attempts"), 0);
    assert!(report.kinds.iter().any(|kind| kind.lost > 0), "{outcome}");
    assert_eq!(tracker.swarms.len(), 50);
    assert_eq!(tracker.swarms.values().map(BTreeSet::len).sum::<usize>(), 400);
}

#[test]
fn prefill_stops_after_all_attempts() {
    let (outcome, tracker) = test(Behaviour::Refusing, |config| {
        config.prefill.enable = true;
        config.prefill.attempts = 2;
        config.duration = 0;
    });
    assert_eq!(note(&outcome.phases[0], "peers not announced after all attempts"), 400);
    assert_eq!(tracker.announces, 800, "{outcome}");
    assert_eq!(outcome.phases[0].error_texts, ["go away"]);
    assert_eq!(outcome.verdict(), Err(Failure::Refused { kind: "announce", refused: 800, responses: 800 }));
}

#[test]
fn what_goes_wrong_with_connects_is_told() {
    let (outcome, _tracker) = test(Behaviour::Clumsy, |config| config.requests.timeout = 100);
    assert_eq!(violated(&outcome), ["reply is malformed"]);
    assert_eq!(outcome.verdict(), Err(Failure::Violations(16)), "{outcome}");
    let (outcome, tracker) = test(Behaviour::Closed, |config| config.requests.timeout = 100);
    assert_eq!(outcome.phases[0].error_texts, ["not now"]);
    let refused = tracker.announces;
    assert!(refused <= 16 * 12, "a refusal is no reason to ask again at once: {refused}");
    assert!(matches!(outcome.verdict(), Err(Failure::Refused { kind: "connect", .. })), "{outcome}");
}

#[test]
fn prefill_ends_if_the_tracker_goes_silent() {
    #[allow(clippy::disallowed_methods, reason = "the time is what is tested")]
    let begin = std::time::Instant::now();
    let (outcome, _tracker) = test(Behaviour::Failing, |config| {
        config.prefill.enable = true;
        config.prefill.attempts = 200;
        config.requests.timeout = 200;
        config.duration = 0;
        config.verdict.max_lost_share = 1.0;
    });
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(outcome.verdict(), Err(Failure::NotAnnounced(300)), "{outcome}");
}

#[test]
fn prefill_fails_if_peers_are_not_announced() {
    let (outcome, _tracker) = test(Behaviour::Failing, |config| {
        config.prefill.enable = true;
        config.requests.timeout = 50;
        config.duration = 0;
        config.verdict.max_lost_share = 1.0;
    });
    assert_eq!(outcome.verdict(), Err(Failure::NotAnnounced(300)), "{outcome}");
}

#[test]
fn replies_without_peers_fail_if_content_is_required() {
    let required = |config: &mut Config| config.verdict.min_replies_checked = 100;
    let (outcome, _tracker) = test(Behaviour::Honest, required);
    assert_eq!(outcome.verdict(), Ok(()));
    let (outcome, _tracker) = test(Behaviour::Empty, required);
    assert_eq!(outcome.verdict(), Err(Failure::NotChecked { checked: 0, min: 100 }), "{outcome}");
}

#[test]
fn lost_announces_fail_above_the_allowed_share() {
    let lossy = |config: &mut Config| config.requests.timeout = 50;
    let (outcome, _tracker) = test(Behaviour::Forgetful, lossy);
    assert_eq!(outcome.verdict(), Ok(()), "{outcome}");
    let (outcome, _tracker) = test(Behaviour::Forgetful, |config| {
        lossy(config);
        config.verdict.max_lost_share = 0.2;
    });
    assert!(matches!(outcome.verdict(), Err(Failure::Lost { kind: "announce", .. })), "{outcome}");
}

#[test]
fn a_tracker_that_stops_to_answer_fails() {
    let (outcome, _tracker) = test(Behaviour::Failing, |config| {
        (config.requests.weight_connect, config.requests.weight_scrape) = (0, 0);
        config.requests.timeout = 200;
        config.mode = Mode::Open;
        config.open.rate = 200;
        config.duration = 6;
    });
    assert!(matches!(outcome.verdict(), Err(Failure::Stopped { seconds: 2..=5 })), "{outcome}");
}

#[test]
fn an_interrupted_test_reports_what_was_measured() {
    let tracker = Running::start("127.0.0.1", Behaviour::Honest);
    let interrupt = Interrupt::default();
    let outcome = std::thread::scope(|scope| {
        let config = Config { duration: 60, ..config(tracker.address) };
        let test = scope.spawn(|| run(config, &interrupt).unwrap());
        #[allow(clippy::disallowed_methods, reason = "the interrupt comes while the test runs")]
        std::thread::sleep(Duration::from_millis(500));
        interrupt.set();
        test.join().unwrap()
    });
    assert_eq!(outcome.verdict(), Err(Failure::Interrupted));
    let report = &outcome.phases[0];
    assert!(report.seconds < 30.0, "{outcome}");
    assert!(report.kinds.iter().all(|kind| kind.sent == kind.answered && kind.sent > 0), "{outcome}");
}

#[test]
fn refused_announces_fail_the_test_unless_allowed() {
    let (outcome, _tracker) = test(Behaviour::Refusing, |_| {});
    assert!(outcome.phases[0].kinds.iter().any(|kind| kind.answered > 10), "{outcome}");
    assert!(matches!(outcome.verdict(), Err(Failure::Refused { kind: "announce", .. })), "{outcome}");
    let (outcome, _tracker) = test(Behaviour::Refusing, |config| config.verdict.max_refused_share = 1.0);
    assert_eq!(outcome.verdict(), Ok(()));
}

#[test]
fn open_loop_keeps_the_rate() {
    let (outcome, _) = test(Behaviour::Honest, |config| {
        config.mode = Mode::Open;
        config.open.rate = 2000;
        config.duration = 2;
    });
    outcome.verdict().unwrap();
    let report = &outcome.phases[0];
    assert!((1800.0..2200.0).contains(&report.requests_per_second), "{outcome}");
}

#[test]
fn open_loop_sends_further_requests() {
    let (outcome, _) = test(Behaviour::Honest, |config| {
        config.mode = Mode::Open;
        config.open.rate = 2000;
        config.open.further_request_probability = 0.5;
        config.duration = 2;
    });
    // Each response is followed by half a request: twice the rate in the end.
    let report = &outcome.phases[0];
    assert!((3500.0..4500.0).contains(&report.requests_per_second), "{outcome}");
}

#[test]
fn ipv6_without_segmentation() {
    let tracker = Running::start("::1", Behaviour::Honest);
    let mut config = config(tracker.address);
    config.network.sockets_per_address = 4;
    config.network.segmentation_offload = false;
    let outcome = run(config, &Interrupt::default()).unwrap();
    outcome.verdict().unwrap();
    assert!(note(&outcome.phases[0], "peers in announce replies") > 1000, "{outcome}");
}

#[test]
fn requests_in_flight_are_bounded_by_the_window() {
    let (outcome, _) = test(Behaviour::Dozing, |config| config.requests.weight_connect = 0);
    let sent: u64 = outcome.phases[0].kinds.iter().map(|kind| kind.sent).sum();
    assert_eq!(sent, 32, "the test is over before the first are given up: {outcome}");
}

#[test]
fn connection_ids_are_renewed_when_they_get_old() {
    let (outcome, _) = test(Behaviour::Honest, |config| {
        config.requests.weight_connect = 0;
        config.requests.connection_age = 1;
        config.duration = 3;
    });
    outcome.verdict().unwrap();
    let connects = &outcome.phases[0].kinds[0];
    assert_eq!(connects.kind, "connect");
    assert!((16..=48).contains(&connects.answered), "of 16 sockets: {outcome}");
}

#[test]
fn violations_are_reported() {
    for (behaviour, found) in [
        (Behaviour::Mixed, "peer is not in the torrent"),
        (Behaviour::Echoing, "reply contains the requesting peer"),
        (Behaviour::Repeating, "peer occurs twice in a reply"),
        (Behaviour::Untidy, "reply is malformed"),
        (Behaviour::Lazy, "scrape reply has a wrong number of torrents"),
    ] {
        let (outcome, _) = test(behaviour, |_| {});
        assert!(violated(&outcome).contains(&found), "{behaviour:?}: {outcome}");
        assert!(matches!(outcome.verdict(), Err(Failure::Violations(1..))), "{behaviour:?}");
    }
}

#[test]
fn silence_fails() {
    let (outcome, tracker) = test(Behaviour::Silent, |config| config.requests.timeout = 100);
    assert_eq!(outcome.verdict(), Err(Failure::NothingServed));
    assert_eq!(tracker.announces, 0);
    assert_eq!(note(&outcome.phases[0], "sockets without a connection id"), 16);
}
