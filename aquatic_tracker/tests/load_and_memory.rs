//! Longer intervals under load and in large swarms, and degradation as memory fills up, from announces to
//! replies, expiry and metrics.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

use std::net::SocketAddr;

use aquatic_common::config::{AccessListConfig, CleaningConfig, LimitsConfig};
use aquatic_common::expiry::Expire;
use aquatic_common::{AnnounceEvent, InfoHash, Seconds};
use aquatic_metrics::{CoreMetrics, Metric, Registry, names};
use aquatic_runtime::Secrets;
use aquatic_swarm::{Announce, Announced, Families, PeerBuffers, ShardLimits, Stored};
use aquatic_tracker::{
    CoreBudget, Degradation, IntervalPolicy, PeerRules, SharedAccessList, Stretch, Tracker, TrackerSeed,
    TrackerSettings,
};

/// Configured age at which peers are removed, in seconds.
const MAX_PEER_AGE: u32 = 3600;

/// Configured interval in seconds.
const INTERVAL: u32 = 1800;

/// A budget of bytes that some 180,000 torrents fill, far more than an empty store takes, and so much that
/// each step of degradation is one of its own.
const BUDGET: u64 = 12 << 20;

struct Fixture {
    tracker: Tracker,
    metrics: CoreMetrics,
    now: u32,
}

impl Fixture {
    fn new(stretch: Stretch, store_budget: Option<u64>) -> Self {
        let settings = TrackerSettings {
            access_list: AccessListConfig::default(),
            cleaning: CleaningConfig { max_peer_age: MAX_PEER_AGE, ..CleaningConfig::default() },
            limits: LimitsConfig::default(),
            rules: PeerRules::default(),
            interval: IntervalPolicy { interval: INTERVAL, jitter: 0 },
            stretch,
        };
        let access_list = SharedAccessList::load(&settings.access_list).unwrap();
        let seed = TrackerSeed::new(&settings, &Secrets::from_bytes([7; 32]), 1, access_list)
            .with_budgets(store_budget.map(|bytes| [CoreBudget::new(bytes)].into()));
        let metrics = Registry::default().core(0);
        Self { tracker: seed.tracker(0, 1, &metrics), metrics, now: 1000 }
    }

    fn announce(&mut self, torrent: u32, peer: u32) -> Announced {
        let announce = Announce {
            info_hash: info_hash(torrent),
            address: address(peer),
            seeder: false,
            event: AnnounceEvent::None,
            numwant: 0,
            families: Families::Own,
        };
        self.tracker.announce(&announce, Seconds(self.now), PeerBuffers::default())
    }

    /// The interval in the reply to an announce.
    fn interval(&mut self, torrent: u32, peer: u32) -> u32 {
        let announced = self.announce(torrent, peer);
        self.tracker.next_interval(&announced)
    }

    /// The age at which peers are removed at present, as the cores ask for it.
    fn max_peer_age(&mut self) -> u32 {
        let age = self.tracker.peer_age(Seconds(self.now), MAX_PEER_AGE);
        self.tracker.max_peer_age(age)
    }

    /// Removes all peers that are older than that, in as many passes.
    fn expire(&mut self, passes: u32) {
        let age = self.max_peer_age();
        let mut ended = 0;
        while ended < passes {
            ended += u32::from(self.tracker.expire(Seconds(self.now), age, 256).pass_ended);
        }
    }

    fn has(&self, torrent: u32) -> bool {
        self.tracker.counts(&info_hash(torrent)).iter().any(|counts| counts.incomplete > 0)
    }

    /// Sum of the series of a metric that have a label with this value.
    fn metric(&self, metric: &Metric, label: &str) -> u64 {
        let mut samples = self.metrics.registry().samples();
        samples.retain(|sample| sample.metric.name == metric.name);
        samples.retain(|sample| label.is_empty() || sample.labels.iter().any(|(_, value)| *value == label));
        samples.iter().map(|sample| sample.value).sum()
    }

    /// The gauges of the steps of degradation.
    fn steps(&self) -> [u64; 3] {
        ["large_torrents", "old_peers", "new_peers"].map(|step| self.metric(&names::DEGRADATION, step))
    }

    fn refused_for_memory(&self) -> u64 {
        self.metric(&names::NOT_STORED, "max_memory")
    }

    /// Adds torrents with one peer each, whose numbers begin with `first`, until a step of degradation is
    /// reached. Returns the number after the last one.
    fn fill(&mut self, first: u32, step: Degradation) -> u32 {
        for torrent in first..first + 400_000 {
            if torrent % 64 == 0 {
                self.tracker.check_memory();
            }
            if self.tracker.degradation() >= step {
                return torrent;
            }
            assert_eq!(self.announce(torrent, 1).stored, Stored::Added, "torrent {torrent}");
        }
        panic!("the budget is not noticed")
    }
}

fn info_hash(number: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    InfoHash(bytes)
}

fn address(peer: u32) -> SocketAddr {
    ((0xc612_0000_u32 + peer).to_be_bytes(), 1000).into()
}

#[test]
fn a_busy_core_asks_clients_to_wait_longer_and_remembers_them_longer() {
    let mut fixture = Fixture::new(Stretch { max_interval: 3600, large_swarm: 0 }, None);
    assert_eq!((fixture.interval(1, 1), fixture.max_peer_age()), (INTERVAL, MAX_PEER_AGE));
    // Five minutes of full load: the average is above 0.95.
    (0..1200).for_each(|_| fixture.tracker.add_load(1.0, 0.25));
    assert!((990..=1000).contains(&fixture.metric(&names::CORE_BUSY, "")));
    assert_eq!((fixture.interval(2, 1), fixture.max_peer_age()), (3600, 7200));

    // The second client is still waiting when the first one would have expired.
    fixture.now += 7100;
    fixture.expire(2);
    assert!(fixture.has(2), "it was asked to wait for an hour");
    fixture.now += 200;
    fixture.expire(2);
    assert!(!fixture.has(2), "and has not come back");
}

#[test]
fn intervals_and_ages_return_to_what_is_configured_when_the_load_has_passed() {
    let mut fixture = Fixture::new(Stretch { max_interval: 3600, large_swarm: 0 }, None);
    (0..1200).for_each(|_| fixture.tracker.add_load(1.0, 0.25));
    assert_eq!((fixture.interval(1, 1), fixture.max_peer_age()), (3600, 7200));
    (0..1200).for_each(|_| fixture.tracker.add_load(0.0, 0.25));
    assert_eq!((fixture.interval(1, 1), fixture.metric(&names::CORE_BUSY, "")), (INTERVAL, 6));
    // As long as someone may still wait for an hour, twice that is remembered.
    for _ in 0..72 {
        fixture.now += 100;
        assert_eq!((fixture.interval(1, 1), fixture.max_peer_age()), (INTERVAL, 7200));
    }
    fixture.now += 7200;
    fixture.max_peer_age();
    fixture.now += 7200;
    fixture.max_peer_age();
    assert_eq!((fixture.interval(1, 1), fixture.max_peer_age()), (INTERVAL, MAX_PEER_AGE));
}

#[test]
fn intervals_grow_with_the_swarm_of_the_torrent() {
    let stretch = Stretch { max_interval: 3600, large_swarm: 10 };
    let mut fixture = Fixture::new(stretch, None);
    let intervals: Vec<u32> = (1..=12).map(|peer| fixture.interval(1, peer)).collect();
    let expected: Vec<u32> = (1..=12).map(|peers: u32| INTERVAL + 180 * peers.min(10)).collect();
    assert_eq!(intervals, expected);
    assert_eq!(fixture.interval(2, 1), INTERVAL + 180, "each torrent by itself");
    assert_eq!(fixture.max_peer_age(), 7200);
    fixture.tracker.set_stretch(Stretch { large_swarm: 0, ..stretch });
    assert_eq!(fixture.interval(1, 1), INTERVAL);
}

#[test]
fn jitter_shortens_stretched_intervals_as_well() {
    let mut fixture = Fixture::new(Stretch { max_interval: 3600, large_swarm: 1 }, None);
    let policy = IntervalPolicy { interval: INTERVAL, jitter: 10 };
    fixture.tracker.reconfigure(ShardLimits::default(), policy, PeerRules::default());
    let intervals: Vec<u32> = (0..200).map(|_| fixture.interval(1, 1)).collect();
    assert!(intervals.iter().all(|interval| (3240..=3600).contains(interval)), "{intervals:?}");
    assert!(intervals.iter().any(|interval| *interval < 3300));
    assert_eq!(fixture.max_peer_age(), 7200, "twice the longest that may have been given out");
}

#[test]
fn a_store_does_without_more_and_more_as_its_memory_fills_up() {
    let mut fixture = Fixture::new(Stretch::default(), Some(BUDGET));
    // The torrent with most peers.
    for peer in 1..=3 {
        assert_eq!(fixture.announce(0, peer).stored, Stored::Added);
    }
    let next = fixture.fill(1, Degradation::LargeTorrents);
    assert_eq!((fixture.tracker.degradation(), fixture.steps()), (Degradation::LargeTorrents, [1, 0, 0]));
    assert_eq!(fixture.announce(0, 4).stored, Stored::RefusedMemory, "the fourth peer of a torrent");
    assert_eq!(fixture.announce(1, 2).stored, Stored::Added, "the second one of another torrent");
    assert_eq!(fixture.announce(1, 3).stored, Stored::RefusedMemory, "its third one");
    assert_eq!(fixture.refused_for_memory(), 2);
    assert_eq!(fixture.max_peer_age(), MAX_PEER_AGE);

    let next = fixture.fill(next, Degradation::OldPeers);
    assert_eq!((fixture.tracker.degradation(), fixture.steps()), (Degradation::OldPeers, [1, 1, 0]));
    assert_eq!(fixture.announce(2, 2).stored, Stored::Added, "torrents still get their second peer");
    assert_eq!(fixture.announce(2, 3).stored, Stored::RefusedMemory);
    assert_eq!(fixture.max_peer_age(), 2250, "an interval and a quarter");

    let next = fixture.fill(next, Degradation::NewPeers);
    assert_eq!((fixture.tracker.degradation(), fixture.steps()), (Degradation::NewPeers, [1, 1, 1]));
    assert_eq!(fixture.announce(next, 1).stored, Stored::RefusedMemory, "a new torrent");
    assert_eq!(fixture.announce(3, 2).stored, Stored::RefusedMemory);
    let known = fixture.announce(0, 1);
    assert_eq!((known.stored, known.incomplete), (Stored::Updated, 3), "who is known is served");
    assert_eq!(fixture.refused_for_memory(), 5);
    assert_eq!(fixture.metric(&names::NOT_STORED, ""), 5, "nothing else was refused");
}

#[test]
fn a_full_store_forgets_who_is_late_and_takes_new_peers_again() {
    let mut fixture = Fixture::new(Stretch::default(), Some(BUDGET));
    let torrents = fixture.fill(0, Degradation::NewPeers);
    fixture.now += 2200;
    (0..10).for_each(|torrent| assert_eq!(fixture.announce(torrent, 1).stored, Stored::Updated));
    fixture.now += 100;
    // By the configured age, none of them would expire. Memory is given back in the passes that follow.
    fixture.expire(8);
    assert!((0..10).all(|torrent| fixture.has(torrent)), "they have announced in time");
    assert!((10..torrents).all(|torrent| !fixture.has(torrent)), "an interval and a quarter has passed");
    fixture.tracker.check_memory();
    assert_eq!((fixture.tracker.degradation(), fixture.steps()), (Degradation::None, [0, 0, 0]));
    assert_eq!(fixture.announce(torrents, 1).stored, Stored::Added);
    assert_eq!(fixture.max_peer_age(), MAX_PEER_AGE);
}

#[test]
fn a_shortened_age_leaves_time_for_stretched_intervals() {
    let mut fixture = Fixture::new(Stretch { max_interval: 2400, large_swarm: 1 }, Some(BUDGET));
    fixture.fill(0, Degradation::OldPeers);
    assert_eq!(fixture.max_peer_age(), 2250);
    assert_eq!(fixture.interval(0, 1), 2400);
    assert_eq!(fixture.max_peer_age(), 3000, "an interval and a quarter of those that were given out");
}

#[test]
fn a_wave_of_new_peers_does_not_wait_for_the_next_check_of_memory() {
    let mut fixture = Fixture::new(Stretch::default(), Some(256 << 10));
    let added = (0..100_000).take_while(|torrent| fixture.announce(*torrent, 1).stored == Stored::Added);
    let added = added.count();
    assert!((8_000..20_000).contains(&added), "{added} peers were added");
    assert_eq!(fixture.tracker.degradation(), Degradation::NewPeers);
    assert_eq!(fixture.refused_for_memory(), 1);
}

#[test]
fn a_store_without_a_budget_never_degrades() {
    let mut fixture = Fixture::new(Stretch::default(), None);
    for torrent in 0..20_000 {
        assert_eq!(fixture.announce(torrent, 1).stored, Stored::Added);
    }
    fixture.tracker.check_memory();
    assert_eq!((fixture.tracker.degradation(), fixture.steps()), (Degradation::None, [0, 0, 0]));
}
