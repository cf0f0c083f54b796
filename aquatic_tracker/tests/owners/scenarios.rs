//! Services that ask owners of torrents, for the tests to observe.

use std::cell::{Cell, RefCell};
use std::process;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aquatic_common::config::{AccessListConfig, CleaningConfig, LimitsConfig};
use aquatic_common::{AccessListMode, AnnounceEvent, InfoHash, Seconds};
use aquatic_metrics::names;
use aquatic_runtime::clock::thread_cpu_time;
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig};
use aquatic_swarm::{Announce, Families, FamilySet, PeerBuffers, SwarmCounts};
use aquatic_tracker::gather::MAX_PENDING;
use aquatic_tracker::{
    AdmissionRequest, IntervalPolicy, LocalTracker, OwnerResponse, PeerRules, Respond, RouteError, Stretch,
    TrackerSeed, TrackerSettings, Waiter,
};

use crate::blocked::{block, release, until_blocked};

/// Runs a scenario and ends the process.
pub(crate) fn run(name: &str) {
    env_logger::builder().filter_level(log::LevelFilter::Info).init();
    match start(name) {
        Ok(()) => process::exit(0),
        Err(error) => {
            eprintln!("error: {error:#}");
            process::exit(3);
        }
    }
}

fn start(name: &str) -> anyhow::Result<()> {
    let config = EngineConfig { workers: 2, ..EngineConfig::default() };
    let mut engine = Engine::prepare(config)?;
    let mut settings = TrackerSettings {
        access_list: AccessListConfig::default(),
        cleaning: CleaningConfig::default(),
        limits: LimitsConfig::default(),
        rules: PeerRules::default(),
        interval: IntervalPolicy { interval: 1800, jitter: 10 },
        stretch: Stretch::default(),
    };
    if let Ok(path) = std::env::var("ACCESS_LIST") {
        settings.access_list =
            AccessListConfig { mode: AccessListMode::Allow, path: path.into(), allow_empty: false };
    }
    if name == "load" {
        settings.stretch = Stretch { max_interval: 3600, large_swarm: 1 };
        settings.interval.jitter = 0;
        settings.cleaning.interval = 1;
    }
    let seed = TrackerSeed::prepare(&settings, &mut engine)?;
    let service = |_| Scenario { name: name.to_owned(), seed: seed.clone() };
    let services = (0..engine.cores()).map(service).collect();
    engine.run(services)?;
    Ok(())
}

struct Scenario {
    name: String,
    seed: TrackerSeed,
}

impl CoreService for Scenario {
    async fn run(self, core: Rc<Core>) -> anyhow::Result<()> {
        let tracker = LocalTracker::start(&core, &self.seed).await;
        match self.name.as_str() {
            "ask" => ask(&core, &tracker).await,
            "overflow" => overflow(&core, &tracker).await,
            "timeout" => timeout(&core, &tracker).await,
            "access" => access(&core, &tracker).await,
            "load" => load(&core, &tracker).await,
            other => panic!("no scenario {other}"),
        }
        core.stopping().await;
        Ok(())
    }
}

fn say(text: &str) {
    // Written as a whole, so that the lines of two cores do not mix.
    eprintln!("{text}");
}

/// Requests that have failed.
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Says what the outcome of a request was.
struct Say(String);

impl Say {
    fn waiter(what: &str) -> Waiter {
        Waiter { respond: Rc::new(Self(what.to_owned())), token: 0 }
    }
}

impl Respond for Say {
    fn announced(&self, _token: u32, response: OwnerResponse<'_>) {
        let OwnerResponse { announced, v4, v6 } = response;
        assert!(v6.is_empty());
        say(&format!("{}: {} leechers there, {} peers of IPv4", self.0, announced.incomplete, v4.len() / 6));
    }

    fn scraped(&self, _token: u32, counts: &[SwarmCounts]) {
        let peers: Vec<_> = counts.iter().map(|counts| counts.incomplete).collect();
        say(&format!("{}: {peers:?}", self.0));
    }

    fn failed(&self, _token: u32, error: RouteError) {
        FAILED.fetch_add(1, Ordering::SeqCst);
        say(&format!("{}: {error:?}", self.0));
    }
}

/// An info hash for each number, spread over all values.
fn numbered(n: u64) -> InfoHash {
    let mut hash = [0; 20];
    hash[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    InfoHash(hash)
}

/// An info hash that the given core owns.
fn hash_of(tracker: &LocalTracker, owner: usize, nth: usize) -> InfoHash {
    (0..).map(numbered).filter(|hash| tracker.state().owner(hash) == owner).nth(nth).unwrap()
}

fn announce(info_hash: InfoHash, port: u16) -> Announce {
    Announce {
        info_hash,
        address: ([198, 18, 2, 1], port).into(),
        seeder: false,
        event: AnnounceEvent::None,
        numwant: 10,
        families: Families::Own,
    }
}

/// Stores a leecher of a torrent of this core.
fn store(core: &Core, tracker: &LocalTracker, info_hash: InfoHash, port: u16) {
    let out = PeerBuffers { v4: &mut [], v6: &mut [] };
    tracker.state().announce(&announce(info_hash, port), core.now(), out);
}

/// Cores that have stored their peers.
static STORED: AtomicUsize = AtomicUsize::new(0);

async fn ask(core: &Rc<Core>, tracker: &LocalTracker) {
    // Both cores choose the same torrents: two of each core with a peer, one of each without.
    let index = core.index();
    for nth in [0, 2] {
        store(core, tracker, hash_of(tracker, index, nth), 1000);
    }
    for port in 1..=12 {
        store(core, tracker, hash_of(tracker, index, 7), port);
    }
    STORED.fetch_add(1, Ordering::SeqCst);
    while STORED.load(Ordering::SeqCst) < 2 {
        core.sleep(Duration::from_millis(5)).await;
    }
    let hashes =
        [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (1, 2)].map(|(owner, nth)| hash_of(tracker, owner, nth));
    if index == 0 {
        let announce = announce(hash_of(tracker, 1, 7), 1000);
        tracker.announce(&announce, (60, 0), Say::waiter("announce from core 0"));
        let own = [0, 1, 2].map(|nth| hash_of(tracker, 0, nth));
        tracker.scrape(&own, FamilySet::Both, Say::waiter("scrape of own torrents, at once"));
    }
    tracker.scrape(&hashes, FamilySet::Both, Say::waiter(&format!("scrape from core {index}")));
}

/// Counts outcomes.
#[derive(Default)]
struct Outcomes {
    ended: RefCell<Vec<u8>>,
    overflows: Cell<usize>,
}

impl Outcomes {
    fn end(&self, token: u32) {
        self.ended.borrow_mut()[token as usize] += 1;
    }
}

impl Respond for Outcomes {
    fn announced(&self, token: u32, _response: OwnerResponse<'_>) {
        self.end(token);
    }

    fn scraped(&self, token: u32, counts: &[SwarmCounts]) {
        assert_eq!(counts.len(), 1);
        self.end(token);
    }

    fn failed(&self, token: u32, error: RouteError) {
        if error == RouteError::Overflow {
            self.overflows.set(self.overflows.get() + 1);
        }
        self.end(token);
    }
}

async fn overflow(core: &Rc<Core>, tracker: &LocalTracker) {
    if core.index() == 1 {
        return block();
    }
    // Core 1 is kept from receiving until too many requests are pending.
    until_blocked(core).await;
    let requests = MAX_PENDING + 100;
    let outcomes = Rc::new(Outcomes { ended: RefCell::new(vec![0; requests]), ..Outcomes::default() });
    let info_hash = hash_of(tracker, 1, 0);
    for token in 0..requests {
        let waiter = Waiter { respond: Rc::clone(&outcomes) as _, token: token as u32 };
        if token % 2 == 0 {
            tracker.scrape(&[info_hash], FamilySet::Both, waiter);
        } else {
            tracker.announce(&announce(info_hash, 1000), (0, 0), waiter);
        }
    }
    say(&format!("overflowed at once: {}", outcomes.overflows.get()));
    release();
    while outcomes.ended.borrow().contains(&0) {
        core.sleep(Duration::from_millis(20)).await;
    }
    // Late responses must not end a request once more.
    core.sleep(Duration::from_millis(500)).await;
    let ended = outcomes.ended.borrow();
    assert!(ended.iter().all(|&times| times == 1), "each request ends once");
    let responded = ended.len() - outcomes.overflows.get();
    say(&format!("ended: {}, of them responded or late: {responded}", ended.len()));
}

async fn timeout(core: &Rc<Core>, tracker: &LocalTracker) {
    if core.index() == 1 {
        store(core, tracker, hash_of(tracker, 1, 0), 1000);
        return block();
    }
    until_blocked(core).await;
    let info_hash = hash_of(tracker, 1, 0);
    tracker.scrape(&[info_hash], FamilySet::Both, Say::waiter("scrape of a busy core"));
    tracker.announce(&announce(info_hash, 1000), (6, 18), Say::waiter("announce to a busy core"));
    while FAILED.load(Ordering::SeqCst) < 2 {
        core.sleep(Duration::from_millis(20)).await;
    }
    release();
    // The late announce is applied first, for the same peer.
    tracker.scrape(&[info_hash], FamilySet::Both, Say::waiter("scrape of the core when it is free"));
}

async fn access(core: &Rc<Core>, tracker: &LocalTracker) {
    let admits = |last| {
        let mut hash = [0; 20];
        hash[19] = last;
        tracker.state().admit(AdmissionRequest::of(&InfoHash(hash))).is_ok()
    };
    let index = core.index();
    let mut last = String::new();
    let mut rounds = 0;
    while !core.is_stopping() {
        let now = match (admits(0xaa), admits(0xbb)) {
            (true, false) => "admits aa, not bb",
            (false, true) => "admits bb, not aa",
            _ => "is undecided",
        };
        if now != last {
            say(&format!("core {index} {now}"));
            last = now.to_owned();
        }
        rounds += 1;
        if rounds % 10 == 0 {
            say(&format!("core {index} still {now}"));
        }
        core.sleep(Duration::from_millis(30)).await;
    }
}

/// Times of announces are kept modulo this number of seconds, so this much later is now.
const TIME_WRAPS_AT: u32 = 131_072;

async fn load(core: &Rc<Core>, tracker: &LocalTracker) {
    if core.index() == 1 {
        return;
    }
    let begin = thread_cpu_time();
    while thread_cpu_time() - begin < Duration::from_millis(500) {}
    let thousandths = || {
        let samples = core.metrics().registry().samples();
        let loads = samples.iter().filter(|sample| sample.metric.name == names::CORE_BUSY.name);
        loads.map(|sample| sample.value).sum::<u64>()
    };
    // Half a second of a minute are eight, and it takes a while until they are taken in.
    while thousandths() < 4 {
        core.sleep(Duration::from_millis(20)).await;
    }
    say("the load is averaged");

    let info_hash = hash_of(tracker, 0, 0);
    let announce_ago = |port, seconds: u32| {
        let then = Seconds(core.now().0 + TIME_WRAPS_AT - seconds);
        tracker.state().announce(&announce(info_hash, port), then, PeerBuffers::default())
    };
    let announced = announce_ago(1000, 0);
    let interval = tracker.state().next_interval(&announced);
    while tracker.max_peer_age() == 3600 {
        core.sleep(Duration::from_millis(20)).await;
    }
    say(&format!("interval {interval}, maximum age {}", tracker.max_peer_age()));
    announce_ago(1001, 5000);
    announce_ago(1002, 8000);
    let peers = || tracker.state().scrape(&info_hash, FamilySet::Both).incomplete;
    while peers() == 3 {
        core.sleep(Duration::from_millis(20)).await;
    }
    // Both were visited by the same pass.
    say(&format!("{} of 3 peers are remembered", peers()));
}
