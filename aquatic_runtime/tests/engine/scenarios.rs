//! Services that do one thing each, for the tests to look at.

use std::cell::Cell;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process;
use std::rc::Rc;
use std::time::Duration;

use aquatic_common::config::{
    AccessListConfig, CleaningConfig, LimitsConfig, MetricsConfig, PrivilegesConfig, StatisticsConfig,
};
use aquatic_common::processors::Processors;
use aquatic_common::{AccessListMode, AnnounceEvent, InfoHash};
use aquatic_runtime::metrics::names;
use aquatic_runtime::readiness::{Mode, Source};
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig};
use aquatic_swarm::{Announce, Families, FamilySet};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use rustix::process::{Resource, Rlimit, setrlimit};

type TestCore = Rc<Core<u64>>;

const CORES: usize = 2;

/// Runs a scenario and ends the process.
pub(crate) fn run(name: &str) {
    env_logger::builder().filter_level(log::LevelFilter::Info).init();
    let config = config(name);
    if name.starts_with("memlock") {
        let limit = Some(64 * 1024);
        setrlimit(Resource::Memlock, Rlimit { current: limit, maximum: limit }).unwrap();
        if name == "memlock" && rustix::process::geteuid().is_root() {
            privdrop::PrivDrop::default().user("nobody").group("nogroup").apply().unwrap();
        }
    }
    let scenario = name.to_owned();
    let result = Engine::prepare(config).and_then(|engine| {
        if scenario == "stopped-early" {
            say("sockets are bound");
            keep_busy(Duration::from_millis(300));
        }
        let services = (0..engine.cores()).map(|_| Scenario { name: scenario.clone() }).collect();
        engine.run(services)
    });
    match result {
        Ok(()) => process::exit(0),
        Err(error) => {
            eprintln!("error: {error}");
            process::exit(3);
        }
    }
}

fn config(name: &str) -> EngineConfig {
    let mut config = EngineConfig {
        workers: CORES,
        cpus: Processors::default(),
        privileges: PrivilegesConfig::default(),
        access_list: AccessListConfig::default(),
        metrics: MetricsConfig::default(),
        statistics: StatisticsConfig::default(),
        cleaning: CleaningConfig::default(),
        limits: LimitsConfig::default(),
    };
    if let Ok(path) = std::env::var("ACCESS_LIST") {
        config.access_list = AccessListConfig { mode: AccessListMode::Allow, path: path.into() };
    }
    if name == "metrics" {
        config.metrics.enable = true;
        config.metrics.address.set_port(0);
        config.statistics.interval = 2;
    }
    if name == "privileges" {
        config.privileges.drop_privileges = true;
        config.privileges.user = std::env::var("NEW_USER").unwrap_or_else(|_| "nobody".to_owned());
        config.privileges.chroot_path = std::env::var("NEW_ROOT").unwrap_or_default().into();
    }
    config
}

struct Scenario {
    name: String,
}

impl CoreService for Scenario {
    type Message = u64;

    async fn run(self, core: TestCore) -> anyhow::Result<()> {
        match self.name.as_str() {
            "idle" | "stopped-early" | "memlock" | "memlock-privileged" => idle(core).await,
            "stubborn" => stubborn(core).await,
            "panic" | "panic-in-task" | "panic-in-handler" => panics(core, &self.name).await,
            "return" | "error" => ends(&core, &self.name).await?,
            "ask" => ask(core).await,
            "overflow" => overflow(core).await,
            "timeout" => timeout(core).await,
            "stall" => stall(core).await,
            "access" => access(core).await,
            "privileges" => privileges(core).await,
            "fairness" => fairness(core).await,
            "descriptors" => descriptors(core).await,
            "leaving" => leaving(core).await,
            "echo" => echo(core).await,
            "metrics" => metrics(core).await,
            other => panic!("no scenario {other}"),
        }
        Ok(())
    }
}

fn say(text: &str) {
    // Written as a whole, so that the lines of two cores do not mix.
    eprintln!("{text}");
}

async fn idle(core: TestCore) {
    say(&format!("core {} serves", core.index()));
    core.stopping().await;
    say(&format!("core {} was told", core.index()));
}

async fn stubborn(core: TestCore) {
    say(&format!("core {} serves", core.index()));
    core.stopping().await;
    if core.index() == 1 {
        std::future::pending::<()>().await;
    }
}

async fn panics(core: TestCore, name: &str) {
    match name {
        "panic-in-handler" => {
            core.on_message(|_, _: u64| panic!("on purpose"));
            if core.index() == 0 {
                core.try_send(1, 1).unwrap();
            }
        }
        "panic-in-task" if core.index() == 1 => core.spawn(async { panic!("on purpose") }),
        _ if core.index() == 1 => {
            core.sleep(Duration::from_millis(20)).await;
            panic!("on purpose");
        }
        _ => {}
    }
    core.stopping().await;
}

async fn ends(core: &TestCore, name: &str) -> anyhow::Result<()> {
    if core.index() == 0 {
        core.stopping().await;
    }
    if name == "error" { Err(anyhow::anyhow!("root cause").context("on purpose")) } else { Ok(()) }
}

/// An info hash that the given core owns.
fn hash_of(core: &TestCore, owner: usize, nth: usize) -> InfoHash {
    (0..).map(numbered).filter(|hash| core.owner(hash) == owner).nth(nth).unwrap()
}

/// An info hash for each number, spread over all values.
fn numbered(n: u64) -> InfoHash {
    let mut hash = [0; 20];
    hash[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    InfoHash(hash)
}

async fn ask(core: TestCore) {
    // Both cores choose the same torrents: two of each core with a peer, one of each without.
    let own = |nth| hash_of(&core, core.index(), nth);
    for nth in [0, 2] {
        let mut shard = core.shard();
        let out = aquatic_swarm::PeerBuffers { v4: &mut [], v6: &mut [] };
        shard.announce(&announce(own(nth)), core.now(), &mut *core.rng(), out);
    }
    // The other core has done the same by then.
    core.sleep(Duration::from_millis(100)).await;
    let hashes =
        [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (1, 2)].map(|(owner, nth)| hash_of(&core, owner, nth));
    let index = core.index();
    if index == 0 {
        let announce = announce(hash_of(&core, 1, 7));
        core.announce(announce, (60, 0), |answer| {
            say(&format!("announce from core 0: {} leechers there", answer.unwrap().announced.incomplete));
        });
    }
    core.scrape(&hashes, FamilySet::Both, move |counts| {
        let peers: Vec<_> = counts.unwrap().iter().map(|counts| counts.incomplete).collect();
        say(&format!("scrape from core {index}: {peers:?}"));
    });
    core.stopping().await;
}

fn announce(info_hash: InfoHash) -> Announce {
    Announce {
        info_hash,
        address: "192.0.2.1:1000".parse().unwrap(),
        seeder: false,
        event: AnnounceEvent::None,
        wanted: 10,
        families: Families::Own,
    }
}

async fn overflow(core: TestCore) {
    let received = Rc::new(Cell::new(0));
    let count = Rc::clone(&received);
    core.on_message(move |from, number: u64| {
        assert_eq!((from, number), (0, count.get()), "messages keep their order");
        count.set(number + 1);
        if number == 4095 {
            say(&format!("core 1 received {} in order", number + 1));
        }
    });
    if core.index() == 0 {
        // Core 1 is kept from receiving until the channel is full.
        core.sleep(Duration::from_millis(200)).await;
        let before = counted(&core);
        let refused = (0..5000).filter(|&number| core.try_send(1, number).is_err()).count();
        say(&format!("handed back {refused}, counted {}", counted(&core) - before));
        core.scrape(&[hash_of(&core, 1, 0)], FamilySet::Both, |counts| {
            say(&format!("scrape while full: {:?}", counts.map(drop)));
        });
    } else {
        core.sleep(Duration::from_millis(20)).await;
        keep_busy(Duration::from_millis(700));
    }
    core.stopping().await;
}

fn counted(core: &TestCore) -> u64 {
    let samples = core.metrics().registry().samples();
    samples.iter().find(|sample| *sample.metric == names::MESH_OVERFLOW).map_or(0, |sample| sample.value)
}

/// Blocks the core, as a bug would.
#[allow(clippy::disallowed_methods, reason = "blocking is what is tested")]
fn keep_busy(time: Duration) {
    std::thread::sleep(time);
}

async fn timeout(core: TestCore) {
    if core.index() == 0 {
        core.sleep(Duration::from_millis(300)).await;
        core.scrape(&[hash_of(&core, 1, 0)], FamilySet::Both, |counts| {
            say(&format!("scrape of a busy core: {:?}", counts.map(drop)));
        });
    } else {
        core.sleep(Duration::from_millis(5)).await;
        keep_busy(Duration::from_millis(3200));
    }
    core.stopping().await;
}

async fn stall(core: TestCore) {
    if core.index() == 1 {
        core.sleep(Duration::from_millis(400)).await;
        keep_busy(Duration::from_millis(4500));
    }
    core.stopping().await;
}

async fn access(core: TestCore) {
    let hash = |last| {
        let mut hash = [0; 20];
        hash[19] = last;
        InfoHash(hash)
    };
    let index = core.index();
    let mut last = String::new();
    let mut rounds = 0;
    while !core.is_stopping() {
        let now = match (core.allows(&hash(0xaa)), core.access_list().allows(&hash(0xbb))) {
            (true, false) => "allows aa, not bb",
            (false, true) => "allows bb, not aa",
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

async fn privileges(core: TestCore) {
    let files = std::fs::read_dir("/").unwrap().count();
    let user = rustix::process::geteuid().as_raw();
    say(&format!("core {} runs as user {user}, sees {files} files in /", core.index()));
    core.stopping().await;
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Drains a socket for ever, as a service does.
async fn drain(core: TestCore, socket: Source<UdpSocket>, received: Rc<Cell<u64>>, answer: bool) {
    let mut buffer = [0; 64];
    loop {
        for _ in 0..64 {
            match socket.try_read(|socket| socket.recv_from(&mut buffer)) {
                Ok((len, from)) => {
                    received.set(received.get() + 1);
                    if answer {
                        socket.get_ref().send_to(&buffer[..len], from).unwrap();
                    }
                }
                Err(_) => socket.readable().await.unwrap(),
            }
        }
        core.yield_now().await;
    }
}

/// Most time a thing may take beside a busy socket, apart from the time that this thread wanted to run and the machine
/// ran something else.
const IN_TIME: Duration = Duration::from_millis(150);

/// How long this thread has waited for a processor so far.
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_ascii_whitespace().nth(1).unwrap().parse().unwrap())
}

/// Measures times on this thread, without what it waited for a processor.
struct Stopwatch {
    begin: Duration,
    waited: Duration,
}

impl Stopwatch {
    fn start(core: &TestCore) -> Self {
        Self { begin: core.tick(), waited: waited() }
    }

    fn time(&self, core: &TestCore) -> Duration {
        (core.tick() - self.begin).saturating_sub(waited() - self.waited)
    }
}

async fn fairness(core: TestCore) {
    let slowest_message = Rc::new(Cell::new(Duration::ZERO));
    let slowest = Rc::clone(&slowest_message);
    let clock = Rc::clone(&core);
    let mut since_last = Stopwatch::start(&core);
    core.on_message(move |_, _: u64| {
        slowest.set(slowest.get().max(since_last.time(&clock)));
        since_last = Stopwatch::start(&clock);
    });
    if core.index() == 1 {
        while !core.is_stopping() {
            core.try_send(0, 0).unwrap();
            core.sleep(Duration::from_millis(5)).await;
        }
        return;
    }
    let (busy, quiet) = (udp(), udp());
    let (busy_address, quiet_address) = (busy.local_addr().unwrap(), quiet.local_addr().unwrap());
    let (flooded, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let busy = core.readiness().register(busy, Mode::OneShot).unwrap();
    core.spawn(drain(Rc::clone(&core), busy, Rc::clone(&flooded), false));
    let quiet = core.readiness().register(quiet, Mode::Edge).unwrap();
    core.spawn(drain(Rc::clone(&core), quiet, Rc::clone(&answered), true));

    // The flood comes from this core, so that the socket is never empty when its task runs.
    let flood = udp();
    let flooding = Rc::clone(&core);
    core.spawn(async move {
        loop {
            for _ in 0..64 {
                // A full buffer is what is wanted.
                let _ = flood.send_to(&[0; 32], busy_address);
            }
            flooding.yield_now().await;
        }
    });
    let (mut slowest_answer, mut slowest_timer) = (Duration::ZERO, Duration::ZERO);
    let client = core.readiness().register(udp(), Mode::OneShot).unwrap();
    for _ in 0..50 {
        let watch = Stopwatch::start(&core);
        core.sleep(Duration::from_millis(5)).await;
        slowest_timer = slowest_timer.max(watch.time(&core));
        let watch = Stopwatch::start(&core);
        client.get_ref().send_to(b"ping", quiet_address).unwrap();
        client.readable().await.unwrap();
        client.try_read(|client| client.recv_from(&mut [0; 64])).unwrap();
        slowest_answer = slowest_answer.max(watch.time(&core));
    }
    assert_eq!(answered.get(), 50);
    assert!(flooded.get() > 5_000, "only {} packets flooded", flooded.get());
    let judge = |what, slowest, limit| {
        let verdict = if slowest < limit { "in time" } else { "too late" };
        say(&format!("{what} {verdict}: {slowest:?}"));
    };
    judge("quiet socket answered", slowest_answer, IN_TIME);
    judge("timers", slowest_timer, IN_TIME);
    // The core that sends them waits for a processor, too, which is not seen from here.
    judge("messages", slowest_message.get(), Duration::from_secs(1));
    core.stopping().await;
}

async fn descriptors(core: TestCore) {
    if core.index() == 1 {
        return core.stopping().await;
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (client, server) = (udp(), udp());
    let address = server.local_addr().unwrap();
    let server = core.readiness().register(server, Mode::OneShot).unwrap();
    let mut before = 0;
    for round in 0..2100 {
        if round == 100 {
            before = open();
        }
        client.send_to(&[0; 8], address).unwrap();
        server.readable().await.unwrap();
        server.try_read(|server| server.recv(&mut [0; 8])).unwrap();
    }
    say(&format!("descriptors used up by 2000 waits: {}", open() as i64 - before as i64));
    core.stopping().await;
}

async fn leaving(core: TestCore) {
    if core.index() == 1 {
        return core.stopping().await;
    }
    let (client, server) = (udp(), udp());
    let address = server.local_addr().unwrap();
    let server = Rc::new(core.readiness().register(server, Mode::OneShot).unwrap());
    let received = Rc::new(Cell::new(0));
    let (socket, count) = (Rc::clone(&server), Rc::clone(&received));
    core.spawn(async move {
        loop {
            // Half of the packets come while the socket is in the set again, the others before.
            socket.leave();
            socket.leave();
            match socket.try_read(|socket| socket.recv(&mut [0; 8])) {
                Ok(_) => count.set(count.get() + 1),
                Err(_) => socket.readable().await.unwrap(),
            }
        }
    });
    for round in 0..200 {
        client.send_to(&[0; 8], address).unwrap();
        if round % 2 == 0 {
            core.sleep(Duration::from_millis(1)).await;
            // Somebody waits: this must not take the socket out.
            server.leave();
        }
    }
    let begin = core.tick();
    while received.get() < 200 && core.tick() - begin < Duration::from_secs(5) {
        core.sleep(Duration::from_millis(5)).await;
    }
    say(&format!("received after leaving: {}", received.get()));
    core.stopping().await;
}

async fn echo(core: TestCore) {
    if core.index() == 1 {
        return core.stopping().await;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    say(&format!("echo on {}", listener.local_addr().unwrap()));
    let listener = core.readiness().register(listener, Mode::Edge).unwrap();
    let accepting = Rc::clone(&core);
    core.spawn(async move {
        loop {
            match listener.try_read(TcpListener::accept) {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true).unwrap();
                    let mut stream = accepting.readiness().register(stream, Mode::Edge).unwrap();
                    accepting.spawn(async move {
                        let mut buffer = [0; 4096];
                        while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                            stream.write_all(&buffer[..len]).await.unwrap();
                        }
                    });
                }
                Err(_) => listener.readable().await.unwrap(),
            }
        }
    });
    core.stopping().await;
}

async fn metrics(core: TestCore) {
    let labels = [("protocol", "udp"), ("family", "ipv4"), ("action", "announce")];
    let requests = core.metrics().counter(&names::REQUESTS, &labels);
    requests.add(10 * (core.index() as u64 + 1));
    let dropped = core.metrics().counter(&names::DROPPED, &[("protocol", "udp"), ("reason", "because")]);
    dropped.add(core.index() as u64 * 5);
    core.sleep(Duration::from_millis(300)).await;
    say(&format!("core {} has counted", core.index()));
    // Statistics are about what happens between two reports, and cores start before the first.
    let labels = [("protocol", "udp"), ("family", "ipv4"), ("action", "scrape")];
    let going_on = core.metrics().counter(&names::REQUESTS, &labels);
    while !core.is_stopping() {
        going_on.add(1);
        core.sleep(Duration::from_millis(100)).await;
    }
}
