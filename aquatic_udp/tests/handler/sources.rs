//! Sources that ask for too much, or are blocked.

use std::time::Duration;

use aquatic_common::config::{RateLimitMode, RateLimitsConfig};
use aquatic_net::block_list::BlockList;

use super::*;

/// A configuration with these limits for UDP, without exemptions.
fn rates(udp_requests: u32, udp_burst: u32, udp_connects: u32) -> RateLimitsConfig {
    RateLimitsConfig {
        udp_requests,
        udp_burst,
        udp_connects,
        exempt: Vec::new(),
        ..RateLimitsConfig::default()
    }
}

/// The value of a metric.
fn value(core: &Core, metric: &str) -> u64 {
    let samples = core.registry.samples();
    samples.iter().find(|sample| sample.metric.name == metric).unwrap().value
}

#[test]
fn a_source_above_its_rate_gets_no_reply_and_others_do() {
    let mut core = Core::new();
    core.handler.sources().configure(&rates(10, 20, 0), 1);
    let (heavy, other) = (address("198.51.100.1:1"), address("203.0.113.1:1"));
    let announce = announce_packet(core.connect(heavy), |_| ());
    let replies = core.serve(vec![(announce.clone(), heavy); 64]);
    assert_eq!(replies.iter().flatten().count(), 21);
    let another_port = address("198.51.100.1:2");
    assert_eq!(core.serve_one(announce.clone(), another_port), None, "ports share the limit");
    let scrape = scrape_packet(core.connect(heavy), &[HASH]);
    assert_eq!(core.serve_one(scrape, heavy), None);
    assert!(core.announce(other, |_| ()).is_some());
    assert_eq!(core.handler.counters().unserved(Family::V4, Reason::RateLimit), 45);
    let [event, none] = core.handler.rate_events(Duration::from_secs(1));
    assert_eq!(none, None, "connects are not limited");
    let event = event.unwrap().to_string();
    assert!(event.starts_with("198.51.100.0/24, and maybe others, sends more than 10/s; 45"), "{event}");
    // A second later there is room for a few.
    core.handler.sources().now = Duration::from_secs(1);
    let replies = core.serve(vec![(announce.clone(), heavy); 64]);
    assert!((8..=11).contains(&replies.iter().flatten().count()));
    // The limit is tried out only.
    let dry_run = RateLimitsConfig { mode: RateLimitMode::DryRun, ..rates(10, 20, 0) };
    core.handler.sources().configure(&dry_run, 1);
    assert!(core.serve(vec![(announce, heavy); 64]).iter().all(Option::is_some));
    assert_eq!(value(&core, "aquatic_rate_limit_dry_run"), 64);
}

#[test]
fn forged_sources_cannot_have_their_owner_limited() {
    let mut core = Core::new();
    core.handler.sources().configure(&rates(10, 20, 0), 1);
    let victim = address("198.51.100.1:1");
    let forged = announce_packet(ConnectionId([9; 8]), |_| ());
    for _ in 0..10 {
        assert!(core.serve(vec![(forged.clone(), victim); 64]).iter().all(Option::is_none));
        core.connect(victim);
    }
    assert!(core.announce(victim, |_| ()).is_some());
    assert_eq!(core.handler.counters().unserved(Family::V4, Reason::RateLimit), 0);
}

#[test]
fn malformed_requests_count_for_the_rate() {
    let mut core = Core::new();
    core.handler.sources().configure(&rates(10, 20, 0), 1);
    let source = address("198.51.100.1:1");
    let id = core.connect(source);
    // Too short for an announce, a scrape without a torrent, and an action that does not exist.
    let announce = announce_packet(id, |_| ())[..97].to_vec();
    let scrape = scrape_packet(id, &[HASH])[..16].to_vec();
    let mut unknown = scrape_packet(id, &[HASH]);
    unknown[11] = 9;
    let packets = [announce, scrape, unknown].into_iter().cycle().take(60);
    let replies = core.serve(packets.map(|packet| (packet, source)).collect());
    assert_eq!(replies.iter().flatten().count(), 21);
    assert_eq!(core.handler.counters().unserved(Family::V4, Reason::RateLimit), 39);
}

/// Connect requests of fifty sources.
fn connects() -> Vec<(Vec<u8>, SocketAddr)> {
    let mut connect = [0; 16];
    ConnectRequest::new(TransactionId::from_number(5)).encode(&mut connect).unwrap();
    (0..50).map(|number| (connect.to_vec(), address(&format!("198.51.100.{number}:1")))).collect()
}

#[test]
fn connects_above_their_budget_are_answered_now_and_then() {
    let mut core = Core::new();
    core.handler.sources().configure(&rates(0, 1, 10), 1);
    core.handler.sources().now = Duration::from_secs(10);
    let answered = core.serve(connects()).iter().flatten().count();
    assert_eq!(answered, 10 + 40 / 4);
    assert_eq!(core.handler.counters().unserved(Family::V4, Reason::RateLimit), 30);
    let [none, event] = core.handler.rate_events(Duration::from_secs(11));
    assert_eq!(none, None, "no source is limited");
    let event = event.unwrap().to_string();
    assert_eq!(event, "all sources together send more than 10/s; 40 requests above it in 1.0 s");
    assert_eq!(value(&core, "aquatic_rate_limiting"), 1);
    assert_eq!(core.handler.rate_events(Duration::from_secs(15)), [None, None]);
    let [_, ended] = core.handler.rate_events(Duration::from_secs(20));
    assert_eq!(ended.unwrap().to_string(), "not exceeded any more; 40 requests were above it, in 0.0 s");
    assert_eq!(value(&core, "aquatic_rate_limiting"), 0);
}

#[test]
fn connects_above_a_budget_that_is_tried_out_are_answered() {
    let mut core = Core::new();
    let dry_run = RateLimitsConfig { mode: RateLimitMode::DryRun, ..rates(0, 1, 10) };
    core.handler.sources().configure(&dry_run, 1);
    core.handler.sources().now = Duration::from_secs(10);
    assert!(core.serve(connects()).iter().all(Option::is_some));
    assert_eq!(core.handler.counters().unserved(Family::V4, Reason::RateLimit), 0);
    assert_eq!(value(&core, "aquatic_rate_limit_dry_run"), 40);
}

#[test]
fn blocked_networks_get_no_reply() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blocked");
    fs::write(&path, "198.51.100.0/24\n2001:db8:5::/48\n").unwrap();
    let mut core = Core::new();
    let config = RateLimitsConfig { block_list_path: path, ..RateLimitsConfig::default() };
    core.handler.sources().blocked = BlockList::load(&config).unwrap();
    let mut connect = [0; 16];
    ConnectRequest::new(TransactionId::from_number(5)).encode(&mut connect).unwrap();
    for (source, is_served) in [
        ("198.51.100.7:1", false),
        ("[::ffff:198.51.100.7]:1", false),
        ("[2001:db8:5::1]:1", false),
        ("198.51.101.7:1", true),
        ("[2001:db8:6::1]:1", true),
    ] {
        assert_eq!(core.serve_one(connect.to_vec(), address(source)).is_some(), is_served, "{source}");
    }
    assert_eq!(core.handler.counters().unserved(Family::V4, Reason::Blocked), 2);
    assert_eq!(core.handler.counters().unserved(Family::V6, Reason::Blocked), 1);
}

#[test]
fn datagrams_can_be_dropped_unread() {
    let mut core = Core::new();
    let source = address("198.51.100.1:1");
    let announce = announce_packet(core.connect(source), |_| ());
    core.handler.drop_unread(0b101, Reason::Overload);
    let replies = core.serve(vec![(announce.clone(), source); 4]);
    assert_eq!(replies.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!(core.handler.counters().unserved(Family::V4, Reason::Overload), 2);
    assert!(core.serve(vec![(announce, source); 4]).iter().all(Option::is_some), "of one batch only");
}
