//! The handler without connections: what becomes of requests, and of responses of other cores that do not
//! come.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aquatic_common::config::AccessListConfig;
use aquatic_common::load_table::Allowance;
use aquatic_common::{AccessListMode, Family, InfoHash, Seconds, SourceLimit, SourceRules, Steering};
use aquatic_http::{Action, Counters, Handled, Handler, HttpConfig, Incoming};
use aquatic_http_protocol::{FailureView, Framing, Head, HttpFault, Parsed, Refusal, Reply, Response, Retry};
use aquatic_metrics::Registry;
use aquatic_net::breaker::{OpenBreakers, Protocol};
use aquatic_net::proxy::{ForwardedHeaders, OnBadHeader, TrustedProxies};
use aquatic_swarm::{Families, FamilySet, HashKey, PeerBuffers, Shard, ShardLimits, SwarmCounts};
use aquatic_tracker::{
    Admission, IntervalPolicy, OwnerResponse, PeerRules, Reason, RouteError, SharedAccessList, Tracker,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;

const NOW: Seconds = Seconds(5);

/// A list of torrents that are not served.
struct DenyList {
    path: PathBuf,
    shared: Arc<SharedAccessList>,
}

impl DenyList {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("aquatic-http-{}-{name}", std::process::id()));
        fs::write(&path, "").unwrap();
        let config = AccessListConfig { mode: AccessListMode::Deny, path: path.clone(), allow_empty: true };
        Self { path, shared: SharedAccessList::load(&config).unwrap() }
    }

    fn deny(&self, info_hash: &InfoHash) {
        fs::write(&self.path, info_hash.to_string()).unwrap();
        self.shared.reload().unwrap();
    }
}

impl Drop for DenyList {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn tracker(index: usize, cores: usize, access_list: &Arc<SharedAccessList>) -> Tracker {
    Tracker::new(
        (index, Steering::new(cores, [1; 8])),
        Shard::new(ShardLimits::default(), HashKey([3; 16])),
        (Admission::new(Arc::clone(access_list)), PeerRules::default()),
        IntervalPolicy { interval: 1800, jitter: 0 },
        SmallRng::seed_from_u64(7),
        &Registry::default().core(index),
    )
}

/// One core.
struct Rig {
    handler: Handler,
    tracker: Tracker,
    peer: Option<IpAddr>,
    reply: Vec<u8>,
}

impl Rig {
    fn new(cores: usize) -> Self {
        Self::with(cores, &SharedAccessList::load(&AccessListConfig::default()).unwrap())
    }

    fn with(cores: usize, access_list: &Arc<SharedAccessList>) -> Self {
        let forwarded = ForwardedHeaders {
            names: vec!["X-Forwarded-For".to_owned()],
            trusted: TrustedProxies::parse(&["10.0.0.1"]).unwrap(),
            on_bad: OnBadHeader::Refuse,
            blocked: Arc::default(),
        };
        let counters = Counters::new(&Registry::default().core(0));
        let handler = Handler::new(&HttpConfig::default(), forwarded, counters);
        Self {
            reply: vec![0; handler.longest_reply()],
            handler,
            tracker: tracker(0, cores, access_list),
            peer: Some("198.18.2.1".parse().unwrap()),
        }
    }

    fn handle(&mut self, request: &str) -> Handled {
        self.handle_framed(request, |framing| framing)
    }

    fn handle_framed(&mut self, request: &str, framing: impl FnOnce(Framing) -> Framing) -> Handled {
        let Parsed::Complete(head) = Head::parse(request.as_bytes(), 8192) else {
            panic!("no head: {request}")
        };
        let framing = framing(head.framing);
        let incoming = Incoming { head: &head, framing, peer: self.peer, now: NOW };
        self.handler.handle(incoming, &mut self.tracker, &mut self.reply)
    }

    /// The reply to a request that is answered at once.
    fn ask(&mut self, target: &str) -> Replied {
        match self.handle(&request(target)) {
            Handled::Reply(written) => self.replied(written),
            other => panic!("not answered: {other:?}"),
        }
    }

    fn replied(&self, written: usize) -> Replied {
        Replied { bytes: self.reply[..written].to_vec() }
    }

    fn of_core(&self, core: usize) -> InfoHash {
        let all = (0..=255).map(|byte| InfoHash([byte; 20]));
        all.filter(|hash| self.tracker.owner(hash) == core).nth(1).unwrap()
    }
}

struct Replied {
    bytes: Vec<u8>,
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
fn requests_are_counted_and_answered() {
    let mut rig = Rig::new(1);
    assert_eq!(rig.ask(&announce(&InfoHash([1; 20]))).incomplete(), Some(1));
    assert_eq!(rig.handler.counters().requests(Family::V4, Action::Announce), 1);
    assert_eq!(rig.handler.counters().responses(Family::V4, Action::Announce), 1);
    rig.ask(&scrape(&[InfoHash([1; 20])]));
    assert_eq!(rig.handler.counters().requests(Family::V4, Action::Scrape), 1);
    assert_eq!(rig.handler.counters().responses(Family::V4, Action::Scrape), 1);
}

#[test]
fn an_announce_of_another_core_is_forwarded_and_answered_as_the_owner_says() {
    let mut rig = Rig::new(2);
    let info_hash = rig.of_core(1);
    let Handled::Announce(forwarded) = rig.handle(&request(&announce(&info_hash))) else { panic!("kept") };
    assert_eq!(forwarded.announce.info_hash, info_hash);
    assert_eq!(forwarded.announce.address, "198.18.2.1:1000".parse().unwrap());
    assert_eq!((forwarded.announce.numwant, forwarded.announce.families), (50, Families::Both));
    assert_eq!(rig.tracker.scrape(&info_hash, FamilySet::Both), SwarmCounts::default());

    let mut owner = Rig::new(2).tracker;
    let out = PeerBuffers { v4: &mut [], v6: &mut [] };
    let announced = owner.announce(&forwarded.announce, NOW, out);
    let response = OwnerResponse { announced, v4: &[192, 0, 2, 9, 0, 80], v6: &[] };
    let written = rig.handler.finish_announce(&forwarded, Ok(response), &mut rig.tracker, &mut rig.reply);
    let replied = rig.replied(written);
    let Reply::Announce(announce) = replied.reply() else { panic!("{:?}", replied.reply()) };
    assert_eq!((announce.incomplete, announce.peers), (Some(1), Some(&[192, 0, 2, 9, 0, 80][..])));
    assert_eq!(announce.external_ip, rig.peer);
}

#[test]
fn clients_of_an_owner_that_does_not_respond_are_asked_to_come_back_later() {
    let mut rig = Rig::new(2);
    let info_hash = rig.of_core(1);
    for (error, reason) in [(RouteError::Overflow, Reason::Overflow), (RouteError::Timeout, Reason::Timeout)]
    {
        let Handled::Announce(forwarded) = rig.handle(&request(&announce(&info_hash))) else {
            panic!("kept")
        };
        let mut minutes = Vec::new();
        for _ in 0..100 {
            let written =
                rig.handler.finish_announce(&forwarded, Err(error), &mut rig.tracker, &mut rig.reply);
            let replied = rig.replied(written);
            let failure = replied.failure();
            assert_eq!(failure.reason, b"the tracker is overloaded, try again later");
            let Some(Retry::Minutes(retry)) = failure.retry else { panic!("{failure:?}") };
            assert_eq!(failure.interval, Some(60 * retry));
            minutes.push(retry);
        }
        minutes.sort_unstable();
        minutes.dedup();
        assert_eq!(minutes, (5..=15).collect::<Vec<_>>(), "they do not come back together");
        assert_eq!(rig.handler.counters().refused(reason), 100);
    }
    let Handled::Scrape(forwarded) = rig.handle(&request(&scrape(&[info_hash]))) else { panic!("kept") };
    let late = Err(RouteError::Timeout);
    let written = rig.handler.finish_scrape(&forwarded, late, &mut rig.tracker, &mut rig.reply);
    assert!(rig.replied(written).failure().retry.is_some());
}

#[test]
fn a_scrape_over_several_cores_is_answered_in_the_order_asked() {
    let mut rig = Rig::new(2);
    let (own, other) = (rig.of_core(0), rig.of_core(1));
    let Handled::Scrape(forwarded) = rig.handle(&request(&scrape(&[other, own]))) else { panic!("kept") };
    assert_eq!(forwarded.info_hashes, [other, own]);
    let counts = |complete| SwarmCounts { complete, ..SwarmCounts::default() };
    let counts = [counts(1), counts(2)];
    let written = rig.handler.finish_scrape(&forwarded, Ok(&counts), &mut rig.tracker, &mut rig.reply);
    let replied = rig.replied(written);
    let Reply::Scrape(reply) = replied.reply() else { panic!("{:?}", replied.reply()) };
    let mut got: Vec<_> = reply.files().map(|file| (file.info_hash, file.complete)).collect();
    got.sort_unstable();
    let mut expected = vec![(other, 1), (own, 2)];
    expected.sort_unstable();
    assert_eq!(got, expected);
}

#[test]
fn torrents_that_are_not_served_are_refused_and_look_unknown() {
    let list = DenyList::new("denied");
    let mut rig = Rig::with(1, &list.shared);
    let info_hash = InfoHash([9; 20]);
    assert_eq!(rig.ask(&announce(&info_hash)).incomplete(), Some(1));
    list.deny(&info_hash);
    assert_eq!(rig.ask(&announce(&info_hash)).failure().reason, b"this tracker does not serve this torrent");
    assert_eq!(rig.handler.counters().refused(Reason::AccessList), 1);
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
    assert_eq!(rig.handler.counters().refused(Reason::ClientMissing), 1);
    let named = format!("GET {target} HTTP/1.1\r\nx-forwarded-for: 2001:2::1\r\n\r\n");
    assert!(matches!(rig.handle(&named), Handled::Reply(_)));
    assert_eq!(rig.handler.counters().responses(Family::V6, Action::Announce), 1);
    assert_eq!(rig.handler.counters().responses(Family::V4, Action::Announce), 0);
}

#[test]
fn replies_are_framed_as_the_front_says() {
    let mut rig = Rig::new(1);
    for target in [announce(&InfoHash([9; 20])), scrape(&[InfoHash([9; 20])]), "/x".to_owned()] {
        for (framing, closes) in [(Framing::closing as fn(Framing) -> Framing, true), (|kept| kept, false)] {
            let Handled::Reply(written) = rig.handle_framed(&request(&target), framing) else {
                panic!("not answered")
            };
            let text = String::from_utf8_lossy(&rig.reply[..written]).into_owned();
            assert_eq!(text.contains("\r\nConnection: close\r\n"), closes, "{target}: {text}");
        }
    }
}

#[test]
fn what_is_not_http_is_refused_and_counted() {
    let mut rig = Rig::new(1);
    let Parsed::Refused(refused) = Head::parse(b"GET / HTTP/9.9\r\n\r\n", 8192) else { panic!("accepted") };
    assert_eq!(refused.refusal, Refusal::Http(HttpFault::Version));
    let written = rig.handler.refuse(refused.refusal, refused.framing, &mut rig.tracker, &mut rig.reply);
    assert!(rig.reply[..written].starts_with(b"HTTP/1.1 505 "));
    assert_eq!(rig.handler.counters().refused(Reason::Version), 1);
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

/// A rig whose clients may send so many requests at once.
fn limited(burst: f64, is_dry_run: bool) -> Rig {
    let mut rig = Rig::new(1);
    let allowance = Some(Allowance { rate: 1.0, burst, multiples: [1, 16, 64] });
    let rules = SourceRules { allowance, is_dry_run, ..SourceRules::default() };
    rig.handler.sources().limit = SourceLimit::new(rules, [1; 16]);
    rig
}

fn from_client(client: &str) -> String {
    format!("GET {} HTTP/1.1\r\nX-Forwarded-For: {client}\r\n\r\n", announce(&InfoHash([1; 20])))
}

#[test]
fn refusals_are_of_the_family_of_the_client_and_not_of_its_proxy() {
    let mut rig = limited(1.0, false);
    rig.peer = Some("10.0.0.1".parse().unwrap());
    let request = from_client("2620:0:2d0:200::7");
    for _ in 0..9 {
        assert!(matches!(rig.handle(&request), Handled::Reply(_)));
    }
    let counters = rig.handler.counters();
    let requests = |family| counters.requests(family, Action::Announce);
    let refused = |family| counters.refused_of(Some(family), Reason::RateLimit);
    let responses = counters.responses(Family::V6, Action::Announce);
    assert!(responses > 0 && refused(Family::V6) > 0);
    // Requests above their rate are not looked at, so that their kind is unknown.
    assert_eq!((requests(Family::V6), responses + refused(Family::V6)), (responses, 9));
    assert_eq!((requests(Family::V4), refused(Family::V4)), (0, 0));
    rig.peer = None;
    assert!(matches!(rig.handle(&request), Handled::Reply(_)));
}

#[test]
fn sources_above_their_rate_are_told_when_to_come_back() {
    let mut rig = limited(3.0, false);
    // One more than the burst fits.
    for _ in 0..4 {
        assert_eq!(rig.ask(&announce(&InfoHash([1; 20]))).incomplete(), Some(1));
    }
    let refused = rig.ask(&scrape(&[InfoHash([1; 20])]));
    assert_eq!(refused.failure().reason, b"too many requests from your address or network");
    assert_eq!(refused.failure().interval, Some(1800));
    assert_eq!(rig.handler.counters().refused(Reason::RateLimit), 1);
    rig.peer = Some("198.18.7.1".parse().unwrap());
    assert_eq!(rig.ask(&announce(&InfoHash([1; 20]))).incomplete(), Some(2), "another source");
    assert!(rig.handler.rate_event(std::time::Duration::from_secs(1)).is_some());
}

#[test]
fn requests_that_fail_count_for_the_rate() {
    let mut rig = limited(3.0, false);
    let hash = InfoHash([1; 20]);
    let failing = [
        announce(&hash).replace("port=", "prt="),
        "/scrape".to_owned(),
        format!("/anounce?{}", announce(&hash).split_once('?').unwrap().1),
        announce(&hash) + "&compact=0",
    ];
    for target in &failing {
        let reason = rig.ask(target).failure().reason.to_vec();
        assert_ne!(reason, b"too many requests from your address or network", "{target}");
    }
    for target in failing {
        let refused = rig.ask(&target);
        assert_eq!(refused.failure().reason, b"too many requests from your address or network", "{target}");
    }
    assert_eq!(rig.handler.counters().refused(Reason::RateLimit), 4);
}

#[test]
fn clients_behind_a_trusted_proxy_are_limited_by_their_own_address() {
    let mut rig = limited(3.0, false);
    rig.peer = Some("10.0.0.1".parse().unwrap());
    for client in ["198.18.3.1", "198.18.4.1"] {
        for nth in 0..6 {
            let Handled::Reply(written) = rig.handle(&from_client(client)) else { panic!("not answered") };
            let replied = rig.replied(written);
            assert_eq!(matches!(replied.reply(), Reply::Failure(_)), nth >= 4, "{client} {nth}");
        }
    }
}

#[test]
fn a_dry_run_of_the_limit_serves_everybody() {
    let mut rig = limited(1.0, true);
    (0..9).for_each(|_| assert_eq!(rig.ask(&announce(&InfoHash([1; 20]))).incomplete(), Some(1)));
    assert!(rig.handler.rate_event(std::time::Duration::from_secs(1)).is_some());
}

#[test]
fn an_open_breaker_refuses_its_family_only() {
    let mut rig = Rig::new(1);
    rig.handler.sources().breakers.set(OpenBreakers::default().with(Protocol::Http, Family::V4));
    let refused = rig.ask(&announce(&InfoHash([1; 20])));
    let text = str::from_utf8(refused.failure().reason).unwrap();
    assert!(text.contains("does not serve HTTP"), "{text}");
    assert_eq!(rig.handler.counters().refused(Reason::Breaker), 1);
    rig.peer = Some("2620:0:2d0:200::7".parse().unwrap());
    assert_eq!(rig.ask(&announce(&InfoHash([1; 20]))).incomplete(), Some(1));
}
