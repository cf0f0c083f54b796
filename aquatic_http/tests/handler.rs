//! The handler without sockets: what becomes of bytes, and of answers of other cores that do not come.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

use std::net::IpAddr;

use aquatic_common::{Family, InfoHash, Seconds};
use aquatic_http::{Action, Counters, Handler, ProtocolConfig, Step, Then, Turn, Why};
use aquatic_http_protocol::{FailureView, Parsed, Reply, Response, Retry};
use aquatic_runtime::metrics::Registry;
use aquatic_runtime::proxy::{ForwardedHeaders, NoClient, OnBadHeader, TrustedProxies};
use aquatic_runtime::router::{AnnounceAnswer, RouteError};
use aquatic_runtime::steering::Steering;
use aquatic_swarm::{Families, FamilySet, HashKey, PeerBuffers, Shard, ShardConfig, SwarmCounts};
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// One core with its shard.
struct Rig {
    handler: Handler,
    steering: Steering,
    shard: Shard,
    peer: Option<IpAddr>,
    denied: Option<InfoHash>,
    stopping: bool,
    reply: Vec<u8>,
}

impl Rig {
    fn new(cores: usize) -> Self {
        let protocol = ProtocolConfig { announce_interval_jitter: 0, ..ProtocolConfig::default() };
        let steering = Steering::new(cores, &mut SmallRng::seed_from_u64(1));
        let forwarded = ForwardedHeaders {
            names: vec!["X-Forwarded-For".to_owned()],
            trusted: TrustedProxies::parse(&["10.0.0.1"]).unwrap(),
            on_bad: OnBadHeader::Refuse,
        };
        let counters = Counters::new(&Registry::default().core(0));
        let handler = Handler::new(&protocol, forwarded, (0, steering), counters, 7);
        Self {
            reply: vec![0; handler.longest_reply()],
            handler,
            steering,
            shard: Shard::new(ShardConfig::default(), HashKey([3; 16])),
            peer: Some("192.0.2.1".parse().unwrap()),
            denied: None,
            stopping: false,
        }
    }

    fn step(&mut self, received: &str) -> Step {
        let denied = self.denied;
        let mut turn = Turn {
            shard: &mut self.shard,
            allows: &|info_hash| Some(*info_hash) != denied,
            now: Seconds(5),
            peer: self.peer,
            stopping: self.stopping,
        };
        self.handler.step(received.as_bytes(), &mut turn, &mut self.reply)
    }

    /// The reply to a request that is answered at once.
    fn ask(&mut self, target: &str) -> Replied {
        let received = request(target);
        match self.step(&received) {
            Step::Reply { taken, written, then } => {
                assert_eq!(taken, received.len());
                Replied { bytes: self.reply[..written].to_vec(), then }
            }
            other => panic!("not answered: {other:?}"),
        }
    }

    fn of_core(&self, core: usize) -> impl Iterator<Item = InfoHash> + use<> {
        let steering = self.steering;
        (0..=255).map(|byte| InfoHash([byte; 20])).filter(move |hash| steering.owner(hash) == core)
    }
}

struct Replied {
    bytes: Vec<u8>,
    then: Then,
}

impl Replied {
    fn reply(&self) -> Reply<'_> {
        let Parsed::Complete(answer) = Response::parse(&self.bytes, false) else {
            panic!("{:?}", self.bytes)
        };
        assert_eq!(answer.length, self.bytes.len());
        Reply::parse(answer.body).unwrap()
    }

    fn failure(&self) -> FailureView<'_> {
        let Reply::Failure(failure) = self.reply() else { panic!("{:?}", self.reply()) };
        failure
    }

    fn incomplete(&self) -> Option<u32> {
        let Reply::Announce(announce) = self.reply() else { panic!("{:?}", self.reply()) };
        announce.incomplete
    }
}

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n\r\n")
}

fn coded(info_hash: &InfoHash) -> String {
    info_hash.0.iter().map(|byte| format!("%{byte:02x}")).collect()
}

fn announce(info_hash: &InfoHash) -> String {
    format!("/announce?info_hash={}&port=1000&left=1", coded(info_hash))
}

fn scrape(info_hashes: &[InfoHash]) -> String {
    let hashes: Vec<_> = info_hashes.iter().map(|hash| format!("info_hash={}", coded(hash))).collect();
    format!("/scrape?{}", hashes.join("&"))
}

#[test]
fn whatever_ends_early_needs_more() {
    let mut rig = Rig::new(1);
    let whole = request(&announce(&InfoHash([1; 20])));
    for cut in 0..whole.len() {
        assert!(matches!(rig.step(&whole[..cut]), Step::NeedMore), "cut at {cut}");
    }
    let two = whole.repeat(2);
    let Step::Reply { taken, then, .. } = rig.step(&two) else { panic!("not answered") };
    assert_eq!((taken, then), (whole.len(), Then::GoOn));
    assert_eq!(rig.handler.counters().requests(Family::V4, Action::Announce), 1);
    assert_eq!(rig.handler.counters().responses(Family::V4, Action::Announce), 1);
}

#[test]
fn a_torrent_of_another_core_is_asked_for_and_answered_as_it_says() {
    let mut rig = Rig::new(2);
    let info_hash = rig.of_core(1).next().unwrap();
    let Step::Announce { away, .. } = rig.step(&request(&announce(&info_hash))) else { panic!("kept") };
    assert_eq!(away.announce.info_hash, info_hash);
    assert_eq!(away.announce.address, "192.0.2.1:1000".parse().unwrap());
    assert_eq!((away.announce.wanted, away.announce.families), (50, Families::Both));
    assert_eq!(rig.shard.scrape(&info_hash, FamilySet::Both), SwarmCounts::default());

    let mut owner = Shard::new(ShardConfig::default(), HashKey([4; 16]));
    let out = PeerBuffers { v4: &mut [], v6: &mut [] };
    let announced = owner.announce(&away.announce, Seconds(5), &mut SmallRng::seed_from_u64(1), out);
    let answer = AnnounceAnswer { announced, v4: vec![192, 0, 2, 9, 0, 80], v6: Vec::new() };
    let written = rig.handler.finish_announce(&away, Ok(&answer), &mut rig.reply);
    let replied = Replied { bytes: rig.reply[..written].to_vec(), then: Then::GoOn };
    let Reply::Announce(announce) = replied.reply() else { panic!("{:?}", replied.reply()) };
    assert_eq!((announce.incomplete, announce.peers), (Some(1), Some(&[192, 0, 2, 9, 0, 80][..])));
    assert_eq!(announce.external_ip, rig.peer);
}

#[test]
fn a_core_that_does_not_answer_is_told_to_the_client_with_when_to_come_back() {
    let mut rig = Rig::new(2);
    let info_hash = rig.of_core(1).next().unwrap();
    for (error, why) in [(RouteError::Overflow, Why::Overflow), (RouteError::Timeout, Why::Timeout)] {
        let Step::Announce { away, .. } = rig.step(&request(&announce(&info_hash))) else { panic!("kept") };
        let mut minutes = Vec::new();
        for _ in 0..100 {
            let written = rig.handler.finish_announce(&away, Err(&error), &mut rig.reply);
            let replied = Replied { bytes: rig.reply[..written].to_vec(), then: Then::GoOn };
            let failure = replied.failure();
            assert_eq!(failure.reason, b"the tracker is overloaded, try again later");
            let Some(Retry::Minutes(retry)) = failure.retry else { panic!("{failure:?}") };
            assert_eq!(failure.interval, Some(60 * retry));
            minutes.push(retry);
        }
        minutes.sort_unstable();
        minutes.dedup();
        assert_eq!(minutes, (5..=15).collect::<Vec<_>>(), "they do not come back together");
        assert_eq!(rig.handler.counters().refused(why), 100);
    }
    let Step::Scrape { away, .. } = rig.step(&request(&scrape(&[info_hash]))) else { panic!("kept") };
    let written = rig.handler.finish_scrape(&away, Err(&RouteError::Timeout), &mut rig.reply);
    let replied = Replied { bytes: rig.reply[..written].to_vec(), then: Then::GoOn };
    assert!(replied.failure().retry.is_some());
}

#[test]
fn scrapes_over_several_cores_hide_what_is_not_served() {
    let mut rig = Rig::new(2);
    let (own, other, denied) =
        (rig.of_core(0).next().unwrap(), rig.of_core(1).next().unwrap(), InfoHash([0xff; 20]));
    rig.denied = Some(denied);
    let Step::Scrape { away, .. } = rig.step(&request(&scrape(&[other, denied, own]))) else {
        panic!("kept")
    };
    assert_eq!((away.info_hashes.as_slice(), away.unserved.as_slice()), (&[other, own][..], &[denied][..]));
    let counts = |complete| SwarmCounts { complete, ..SwarmCounts::default() };
    let written = rig.handler.finish_scrape(&away, Ok(&[counts(1), counts(2)]), &mut rig.reply);
    let replied = Replied { bytes: rig.reply[..written].to_vec(), then: Then::GoOn };
    let Reply::Scrape(reply) = replied.reply() else { panic!("{:?}", replied.reply()) };
    let mut got: Vec<_> = reply.files().map(|file| (file.info_hash, file.complete)).collect();
    got.sort_unstable();
    let mut expected = vec![(other, 1), (own, 2), (denied, 0)];
    expected.sort_unstable();
    assert_eq!(got, expected);
}

#[test]
fn torrents_that_are_not_served_are_refused_and_look_unknown() {
    let mut rig = Rig::new(1);
    let info_hash = InfoHash([9; 20]);
    assert_eq!(rig.ask(&announce(&info_hash)).incomplete(), Some(1));
    rig.denied = Some(info_hash);
    assert_eq!(rig.ask(&announce(&info_hash)).failure().reason, b"this tracker does not serve this torrent");
    assert_eq!(rig.handler.counters().refused(Why::AccessList), 1);
    let replied = rig.ask(&scrape(&[info_hash]));
    let Reply::Scrape(reply) = replied.reply() else { panic!("{:?}", replied.reply()) };
    assert_eq!(reply.files().map(|file| file.incomplete).collect::<Vec<_>>(), [0]);
}

#[test]
fn clients_of_proxies_are_those_the_proxies_name() {
    let mut rig = Rig::new(1);
    rig.peer = Some("10.0.0.1".parse().unwrap());
    let target = announce(&InfoHash([9; 20]));
    assert!(rig.ask(&target).failure().reason.starts_with(b"the proxy in front of this tracker"));
    assert_eq!(rig.handler.counters().refused(Why::NoClient(NoClient::Missing)), 1);
    let named = format!("GET {target} HTTP/1.1\r\nx-forwarded-for: 2001:db8::1\r\n\r\n");
    assert!(matches!(rig.step(&named), Step::Reply { .. }));
    assert_eq!(rig.handler.counters().responses(Family::V6, Action::Announce), 1);
    assert_eq!(rig.handler.counters().responses(Family::V4, Action::Announce), 0);
}

#[test]
fn a_stopping_tracker_closes_after_the_reply() {
    let mut rig = Rig::new(1);
    rig.stopping = true;
    for target in
        [announce(&InfoHash([9; 20])), scrape(&[InfoHash([9; 20])]), "/health".to_owned(), "/x".to_owned()]
    {
        let replied = rig.ask(&target);
        assert_eq!(replied.then, Then::Close, "{target}");
        assert!(String::from_utf8_lossy(&replied.bytes).contains("\r\nConnection: close\r\n"), "{target}");
    }
}

#[test]
fn after_something_that_is_no_request_nothing_is_believed() {
    let mut rig = Rig::new(1);
    let garbage = "GET / HTTP/9.9\r\n\r\n".to_owned() + &request("/health");
    let Step::Reply { then, .. } = rig.step(&garbage) else { panic!("not answered") };
    assert_eq!(then, Then::CloseLingering);
}

#[test]
fn the_longest_replies_find_room() {
    let mut rig = Rig::new(1);
    let torrents: Vec<_> = (0..=255).map(|byte| InfoHash([byte; 20])).take(100).collect();
    let target = scrape(&torrents);
    assert!(target.len() < 8000);
    let replied = rig.ask(&target);
    let Reply::Scrape(reply) = replied.reply() else { panic!("{:?}", replied.reply()) };
    assert_eq!(reply.files().count(), 100);
    for port in 1..200 {
        let target = announce(&torrents[0]).replace("port=1000", &format!("port={port}"));
        rig.ask(&target);
    }
    let replied = rig.ask(&announce(&torrents[0]));
    let Reply::Announce(announce) = replied.reply() else { panic!("{:?}", replied.reply()) };
    assert_eq!(announce.peers_v4().len(), 50);
}
