//! Load test against test trackers in the same process: correct ones, faulty ones, and none.
#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

#[path = "../../aquatic_load_engine/tests/support/reports.rs"]
mod reports;
#[path = "../../aquatic_load_engine/tests/support/running.rs"]
mod running;

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aquatic_common::InfoHash;
use aquatic_http_load_test::config::Config;
use aquatic_http_load_test::{print_targets, run};
use aquatic_http_protocol::{
    AnnounceReply, AnnounceRequest, DEFAULT_MAX_HEAD_LENGTH, FailureReply, Framing, Parsed, Request,
    ScrapeFile, ScrapeReply,
};
use aquatic_load_engine::interrupt::Interrupt;
use aquatic_load_engine::report::{Failure, Outcome, Report};
use aquatic_load_engine::settings::Mode;
use reports::{note, violated};
use running::{Running, data};

/// Behaviour of a test tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Honest,
    /// Closes the connection instead of answering one in five announces.
    Rude,
    /// Returns peers of whatever torrent was announced to last.
    Mixed,
    /// Returns the requester.
    Echoing,
    /// Returns each peer twice.
    Repeating,
    /// Says the body is a byte shorter than it is.
    Short,
    /// Says the body is a byte longer than it is.
    Long,
    /// Sends keys in another order.
    Unsorted,
    /// Sends another status.
    NotFound,
    /// Answers scrapes with another torrent.
    Lying,
    Refusing,
    Silent,
}

type Tracker = Running<Mutex<Swarms>>;

#[derive(Default)]
struct Swarms {
    peers: HashMap<InfoHash, BTreeSet<SocketAddr>>,
    last: Option<InfoHash>,
    announces: u64,
    connections: u64,
    addresses: BTreeSet<IpAddr>,
    /// Most requests that were there at once on a connection.
    most_at_once: u64,
}

fn start(behaviour: Behaviour, tls: bool) -> Tracker {
    Running::start(tls, Duration::from_secs(5), move |stream, from, swarms: Arc<Mutex<Swarms>>| {
        {
            let mut swarms = swarms.lock().unwrap();
            swarms.connections += 1;
            swarms.addresses.insert(from.ip());
        }
        serve(stream, from, behaviour, &swarms);
    })
}

fn serve(mut stream: impl Read + Write, from: SocketAddr, behaviour: Behaviour, swarms: &Mutex<Swarms>) {
    let (mut received, mut chunk, mut reply) = (Vec::new(), [0; 65536], vec![0; 65536]);
    let mut at_once = 0;
    loop {
        match Request::parse(&received, DEFAULT_MAX_HEAD_LENGTH) {
            Parsed::NeedMore => match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    received.extend_from_slice(&chunk[..length]);
                    at_once = 0;
                }
            },
            Parsed::Complete((head, request)) => {
                at_once += 1;
                {
                    let mut swarms = swarms.lock().unwrap();
                    swarms.most_at_once = swarms.most_at_once.max(at_once);
                }
                let Some(length) = answer(&request, head.framing, from, behaviour, swarms, &mut reply) else {
                    if behaviour == Behaviour::Silent {
                        // Until the client has had enough.
                        let _ = stream.read(&mut chunk);
                    }
                    return;
                };
                if stream.write_all(&reply[..length]).is_err() || head.framing.closes() {
                    return;
                }
                received.drain(..head.length);
            }
            Parsed::Refused(refused) => panic!("{refused:?}"),
        }
    }
}

fn answer(
    request: &Request<'_>,
    framing: Framing,
    from: SocketAddr,
    behaviour: Behaviour,
    swarms: &Mutex<Swarms>,
    reply: &mut [u8],
) -> Option<usize> {
    match request {
        _ if behaviour == Behaviour::Silent => None,
        _ if behaviour == Behaviour::Refusing => {
            Some(FailureReply::new("go away").encode(framing, reply).unwrap())
        }
        Request::Announce(announce) => {
            let mut swarms = swarms.lock().unwrap();
            swarms.announces += 1;
            if behaviour == Behaviour::Rude && swarms.announces.is_multiple_of(5) {
                return None;
            }
            let peers = swarms.announce(announce, from.ip(), behaviour);
            let said = AnnounceReply {
                complete: 1,
                downloaded: 0,
                incomplete: 1,
                interval: 1800,
                min_interval: 900,
                external_ip: Some(from.ip()),
                peers: &peers,
                peers6: &[],
            };
            let length = said.encode(framing, reply).unwrap();
            Some(distort(behaviour, reply, length))
        }
        Request::Scrape(scrape) => {
            let file = |info_hash| ScrapeFile { info_hash, complete: 1, downloaded: 2, incomplete: 3 };
            let mut files: Vec<_> = scrape.info_hashes().map(file).collect();
            if behaviour == Behaviour::Lying {
                files[0].info_hash = InfoHash([7; 20]);
            }
            let mut said = ScrapeReply { files: &mut files, min_request_interval: None };
            Some(said.encode(framing, reply).unwrap())
        }
        Request::Health => panic!("not for the load test"),
    }
}

/// Makes an announce reply wrong.
fn distort(behaviour: Behaviour, reply: &mut [u8], length: usize) -> usize {
    let find = |text: &str| reply[..length].windows(text.len()).position(|bytes| bytes == text.as_bytes());
    let body = length - (find("\r\n\r\n").unwrap() + 4);
    let changes = [
        (Behaviour::Short, format!("Length: {body}"), format!("Length: {}", body - 1)),
        (Behaviour::Long, format!("Length: {body}"), format!("Length: {}", body + 1)),
        (Behaviour::NotFound, "200 OK".to_owned(), "404 No".to_owned()),
        (Behaviour::Unsorted, "8:complete".to_owned(), "8:zomplete".to_owned()),
    ];
    let Some((_, from, to)) = changes.iter().find(|change| change.0 == behaviour) else { return length };
    assert_eq!(from.len(), to.len(), "the number of digits must not change");
    let place = find(from).unwrap();
    reply[place..place + to.len()].copy_from_slice(to.as_bytes());
    length
}

impl Swarms {
    fn announce(&mut self, announce: &AnnounceRequest, ip: IpAddr, behaviour: Behaviour) -> Vec<u8> {
        let requester = SocketAddr::new(ip, announce.port.get());
        let own = announce.info_hash;
        let torrent = if behaviour == Behaviour::Mixed { self.last.unwrap_or(own) } else { own };
        self.last = Some(own);
        let wanted = announce.numwant.unwrap() as usize;
        let swarm = self.peers.get(&torrent).into_iter().flatten().copied();
        let mut peers: Vec<SocketAddr> = swarm.filter(|&peer| peer != requester).take(wanted).collect();
        if behaviour == Behaviour::Echoing {
            peers = vec![requester];
        } else if behaviour == Behaviour::Repeating {
            peers = peers.iter().take(wanted / 2).flat_map(|&peer| [peer, peer]).collect();
        }
        self.peers.entry(own).or_default().insert(requester);
        let v4 = peers.iter().map(|peer| match peer {
            SocketAddr::V4(peer) => *peer,
            SocketAddr::V6(_) => panic!("over IPv4"),
        });
        v4.flat_map(|peer: SocketAddrV4| peer.ip().octets().into_iter().chain(peer.port().to_be_bytes()))
            .collect()
    }
}

fn config(address: SocketAddr) -> Config {
    let mut config = Config { server_address: address, warm_up: 0, duration: 1, ..Config::default() };
    config.population.torrents = 50;
    config.population.peers = 400;
    config.requests.check_one_in = 1;
    config.requests.weight_announce = 10;
    config.connections.count = 8;
    config
}

fn test_with(tls: bool, behaviour: Behaviour, change: impl FnOnce(&mut Config)) -> (Outcome, Tracker) {
    let tracker = start(behaviour, tls);
    let mut config = config(tracker.address);
    config.tls.enable = tls;
    change(&mut config);
    (run(config, &Interrupt::default()).unwrap(), tracker)
}

fn test(behaviour: Behaviour, change: impl FnOnce(&mut Config)) -> (Outcome, Tracker) {
    test_with(false, behaviour, change)
}

fn answered(report: &Report) -> u64 {
    report.kinds.iter().map(|kind| kind.answered).sum()
}

#[test]
fn honest_tracker_passes() {
    let (outcome, tracker) = test(Behaviour::Honest, |_| {});
    outcome.verdict().unwrap();
    let report = &outcome.phases[0];
    let kinds: Vec<_> = report.kinds.iter().map(|kind| kind.kind).collect();
    assert_eq!(kinds, ["announce", "scrape"]);
    assert!(note(report, "peers in announce replies") > 50, "{outcome}");
    assert!(note(report, "announce replies with peers checked") > 20, "{outcome}");
    assert!(
        report.kinds.iter().all(|kind| kind.sent == kind.answered && kind.latency.count == kind.answered)
    );
    assert!(report.latency.p50_us > 0.0 && report.latency.p50_us <= report.latency.max_us);
    assert_eq!(note(report, "connections opened"), 8);
    let swarms = tracker.state.lock().unwrap();
    assert_eq!((swarms.connections, swarms.addresses.len(), swarms.most_at_once), (8, 8, 1));
}

#[test]
fn each_request_can_have_a_connection() {
    let (outcome, tracker) = test(Behaviour::Honest, |config| config.connections.requests = 1);
    outcome.verdict().unwrap();
    let report = &outcome.phases[0];
    assert!(answered(report) > 8, "{outcome}");
    assert_eq!(note(report, "connections opened"), answered(report), "{outcome}");
    assert_eq!(note(report, "connections closed by the tracker between requests"), 0);
    assert_eq!(tracker.state.lock().unwrap().connections, answered(report));
}

#[test]
fn requests_can_be_sent_before_responses() {
    let (outcome, tracker) = test(Behaviour::Honest, |config| {
        config.connections.count = 2;
        config.connections.pipelining = 8;
        config.connections.requests = 20;
    });
    outcome.verdict().unwrap();
    assert_eq!(tracker.state.lock().unwrap().most_at_once, 8);
    let report = &outcome.phases[0];
    assert!(report.kinds.iter().all(|kind| kind.sent == kind.answered), "{outcome}");
    let (opened, answered) = (note(report, "connections opened"), answered(report));
    assert!(opened >= answered / 20 && opened <= answered / 20 + 2, "{outcome}");
}

#[test]
fn tls_handshakes_are_full_unless_sessions_are_resumed() {
    for resumption in [false, true] {
        let (outcome, _tracker) = test_with(true, Behaviour::Honest, |config| {
            config.connections.requests = 1;
            config.connections.count = 2;
            config.tls.resumption = resumption;
            config.tls.verify_certificate = true;
            config.tls.ca_path = data("ca.pem").into();
        });
        outcome.verdict().unwrap();
        let report = &outcome.phases[0];
        let full = note(report, "full TLS handshakes");
        let resumed = note(report, "resumed TLS handshakes");
        assert_eq!(full + resumed, answered(report), "{outcome}");
        assert_eq!(resumed > 0, resumption, "{outcome}");
    }
}

#[test]
fn certificates_are_verified_if_configured() {
    let (outcome, _tracker) = test_with(true, Behaviour::Honest, |config| {
        config.tls.verify_certificate = true;
        config.tls.ca_path = data("ca.pem").into();
        config.tls.server_name = "elsewhere.example".to_owned();
    });
    assert!(note(&outcome.phases[0], "connections with a TLS error") > 0, "{outcome}");
    assert_eq!(outcome.verdict(), Err(Failure::NothingServed));
    let (outcome, _tracker) =
        test_with(true, Behaviour::Honest, |config| config.tls.server_name = "elsewhere.example".to_owned());
    outcome.verdict().unwrap();
}

#[test]
fn prefill_announces_each_peer_even_if_connections_break() {
    let (outcome, tracker) = test(Behaviour::Rude, |config| {
        config.prefill.enable = true;
        config.duration = 0;
        config.threads = 2;
        config.connections.count = 3;
        config.prefill.attempts = 100;
    });
    outcome.verdict().unwrap();
    let report = &outcome.phases[0];
    assert_eq!(note(report, "peers announced"), 400);
    assert_eq!(note(report, "peers not announced after all attempts"), 0);
    assert!(note(report, "connections closed by the tracker before a response") > 0, "{outcome}");
    let swarms = tracker.state.lock().unwrap();
    assert_eq!(swarms.peers.len(), 50);
    assert_eq!(swarms.peers.values().map(BTreeSet::len).sum::<usize>(), 400);
}

#[test]
fn prefill_stops_after_all_attempts() {
    let (outcome, _tracker) = test(Behaviour::Refusing, |config| {
        config.prefill.enable = true;
        config.prefill.attempts = 2;
        config.duration = 0;
    });
    assert_eq!(note(&outcome.phases[0], "peers not announced after all attempts"), 400);
    assert_eq!(outcome.phases[0].error_texts, ["go away"]);
    assert_eq!(outcome.phases[0].kinds[0].errors, 800, "{outcome}");
    assert_eq!(outcome.verdict(), Err(Failure::Refused { kind: "announce", refused: 800, responses: 800 }));
}

#[test]
fn open_loop_keeps_the_rate() {
    for requests in [0, 1] {
        let (outcome, _tracker) = test(Behaviour::Honest, |config| {
            config.mode = Mode::Open;
            config.open.rate = 50;
            config.duration = 2;
            config.connections.requests = requests;
        });
        outcome.verdict().unwrap();
        let report = &outcome.phases[0];
        assert!((30.0..70.0).contains(&report.requests_per_second), "{outcome}");
    }
}

#[test]
fn open_loop_latency_includes_the_wait() {
    let (outcome, _tracker) = test(Behaviour::Silent, |config| {
        config.mode = Mode::Open;
        config.open.rate = 1000;
        config.requests.timeout = 300;
    });
    assert_eq!(outcome.verdict(), Err(Failure::NothingServed));
    assert!(note(&outcome.phases[0], "connections closed after a response timeout") > 0, "{outcome}");
    assert!(note(&outcome.phases[0], "overdue requests never sent") > 500, "{outcome}");
}

#[test]
fn idle_connections_are_opened_used_once_and_held() {
    let (outcome, tracker) = test(Behaviour::Honest, |config| {
        config.idle.connections = 300;
        config.idle.hold = 0;
        config.connections.opening = 20;
    });
    outcome.verdict().unwrap();
    let report = &outcome.phases[0];
    assert_eq!((report.phase, answered(report)), ("idle", 300));
    assert_eq!(note(report, "connections open at the end"), 300);
    assert_eq!(tracker.state.lock().unwrap().connections, 300);
}

#[test]
fn violations_are_reported() {
    for (behaviour, violations) in [
        (Behaviour::Mixed, &["peer is not in the torrent"][..]),
        (Behaviour::Echoing, &["reply contains the requesting peer"]),
        (Behaviour::Repeating, &["peer occurs twice in a reply"]),
        (Behaviour::NotFound, &["status is not 200"]),
        (Behaviour::Unsorted, &["bencode is not canonical"]),
        (Behaviour::Lying, &["scrape reply contains a torrent not requested"]),
        (Behaviour::Short, &["bytes after the end of a response", "body is not a tracker reply"]),
    ] {
        let (outcome, _tracker) = test(behaviour, |_| {});
        assert_eq!(violated(&outcome), violations, "{behaviour:?}: {outcome}");
        assert!(matches!(outcome.verdict(), Err(Failure::Violations(_))));
    }
}

#[test]
fn an_endless_body_is_a_violation() {
    let (outcome, _tracker) = test(Behaviour::Long, |config| {
        config.requests.timeout = 100;
        config.requests.weight_scrape = 0;
    });
    assert!(note(&outcome.phases[0], "connections closed after a response timeout") > 0, "{outcome}");
    assert_eq!(outcome.verdict(), Err(Failure::NothingServed));
    let (outcome, _tracker) = test(Behaviour::Long, |config| config.connections.requests = 1);
    assert_eq!(violated(&outcome), ["response is shorter than its Content-Length"]);
}

#[test]
fn targets_are_those_of_announces() {
    let mut config = config("127.0.0.1:1".parse().unwrap());
    config.population.torrents = 3;
    let mut out = Vec::new();
    print_targets(config, 200, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let announced: BTreeSet<InfoHash> = text
        .lines()
        .map(|target| {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let taken = Request::parse(head.as_bytes(), DEFAULT_MAX_HEAD_LENGTH);
            let Parsed::Complete((_, Request::Announce(announce))) = taken else { panic!("{target}") };
            announce.info_hash
        })
        .collect();
    assert_eq!((text.lines().count(), announced.len()), (200, 3));
}

#[test]
fn refused_connections_are_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outcome = run(config(address), &Interrupt::default()).unwrap();
    assert!(note(&outcome.phases[0], "connections refused") > 0, "{outcome}");
    assert_eq!(outcome.verdict(), Err(Failure::NothingServed));
}

#[test]
fn prefill_without_a_tracker_ends_and_foreign_addresses_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut prefill = config(address);
    (prefill.prefill.enable, prefill.duration, prefill.requests.timeout) = (true, 0, 200);
    let outcome = run(prefill.clone(), &Interrupt::default()).unwrap();
    assert_eq!(outcome.phases[0].peers_not_announced, 400, "{outcome}");
    assert!(outcome.verdict().is_err());
    prefill.network.source_address = "203.0.113.5".to_owned();
    let error = format!("{:#}", run(prefill, &Interrupt::default()).unwrap_err());
    assert!(error.contains("is it an address of this machine?"), "{error}");
}

#[test]
fn requests_that_are_never_sent_fail_if_losses_do() {
    let (outcome, _tracker) = test(Behaviour::Honest, |config| {
        config.mode = Mode::Open;
        config.open.rate = 10_000_000;
        config.verdict.max_lost_share = 0.1;
    });
    assert!(matches!(outcome.verdict(), Err(Failure::Overdue { .. })), "{outcome}");
    assert!(outcome.phases[0].overdue > 0);
}
