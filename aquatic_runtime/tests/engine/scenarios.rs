//! Services that do one thing each, for the tests to look at.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process;
use std::rc::Rc;
use std::time::Duration;

use aquatic_metrics::{Metric, names};
use aquatic_runtime::readiness::{Mode, Source};
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig, Outbox, Periodic, mailbox};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::blocked::{block, release, until_blocked};
use crate::inline;

pub(crate) type TestCore = Rc<Core>;

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
    let result = Engine::prepare(config).and_then(|mut engine| {
        match scenario.as_str() {
            "stopped-early" => {
                say("sockets are bound");
                keep_busy(Duration::from_millis(300));
            }
            "panic-in-side-thread" => engine.add_side_thread("aquatic-test", || panic!("on purpose")),
            "return-of-side-thread" => engine.add_side_thread("aquatic-test", || ()),
            "panic-in-periodic" => engine.add_periodic(PanickingPeriodic),
            "panic-before-stop" => engine.before_stop(|_| panic!("on purpose")),
            _ => {}
        }
        let services = (0..engine.cores()).map(|_| Scenario { name: scenario.clone() }).collect();
        engine.run(services)
    });
    match result {
        Ok(()) => process::exit(0),
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            process::exit(3);
        }
    }
}

fn config(name: &str) -> EngineConfig {
    let mut config = EngineConfig { workers: CORES, ..EngineConfig::default() };
    if name == "losses" {
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

#[derive(Debug)]
struct PanickingPeriodic;

impl Periodic for PanickingPeriodic {
    fn tick(&mut self, _: Duration) {
        panic!("on purpose");
    }
}

impl CoreService for Scenario {
    async fn run(self, core: TestCore) -> anyhow::Result<()> {
        match self.name.as_str() {
            "idle" | "stopped-early" | "memlock" | "memlock-privileged" => idle(core).await,
            "panic-in-side-thread" | "return-of-side-thread" | "panic-in-periodic" | "panic-before-stop" => {
                idle(core).await;
            }
            "stubborn" => stubborn(core).await,
            "panic" | "panic-in-task" | "panic-in-handler" | "panic-in-mailbox" | "panic-in-connection" => {
                panics(core, &self.name).await;
            }
            "return" | "error" => ends(&core, &self.name).await?,
            "overflow" => overflow(core).await,
            "outbox" => outbox(core).await,
            "batches" => batches(core).await,
            "inline" => inline::wakes(core).await,
            "deadline" => inline::deadline(core).await,
            "mailbox-full" => mailbox_full(core).await,
            "stall" => stall(core).await,
            "privileges" => privileges(core).await,
            "fairness" => fairness(core).await,
            "descriptors" => descriptors(core).await,
            "leaving" => leaving(core).await,
            "echo" => echo(core).await,
            "losses" => losses(core).await,
            other => panic!("no scenario {other}"),
        }
        Ok(())
    }
}

pub(crate) fn say(text: &str) {
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
            let channel = core.open_channel::<Vec<u64>>("test").await;
            channel.receive(|_, _| panic!("on purpose"));
            if core.index() == 0 {
                channel.try_send(1, vec![1]).unwrap();
            }
        }
        "panic-in-task" if core.index() == 1 => core.spawn(async { panic!("on purpose") }),
        "panic-in-mailbox" if core.index() == 1 => {
            let (sender, receiver) = mailbox(1).unwrap();
            receiver.attach(&core, |()| panic!("on purpose")).unwrap();
            sender.try_send(()).unwrap();
        }
        "panic-in-connection" if core.index() == 1 => {
            // A task that begins to wait for a socket and goes on when something is received.
            let (client, server) = (udp(), udp());
            client.send_to(&[0; 8], server.local_addr().unwrap()).unwrap();
            let server = core.readiness().register(server, Mode::Level).unwrap();
            core.spawn(async move {
                server.readable().await.unwrap();
                panic!("on purpose");
            });
        }
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

/// Says when this core has received so many numbers, counted from 0, in their order.
fn expect_numbers(numbers: u64) -> impl FnMut(usize, &mut Vec<u64>) {
    let mut received = 0;
    move |from, batch| {
        for &number in batch.iter() {
            assert_eq!((from, number), (0, received), "messages keep their order");
            received += 1;
            if received == numbers {
                say(&format!("core 1 received {received} in order"));
            }
        }
    }
}

async fn overflow(core: TestCore) {
    let channel = core.open_channel::<Vec<u64>>("test").await;
    channel.receive(expect_numbers(1024));
    if core.index() == 0 {
        // Core 1 is kept from receiving until the queue is full.
        until_blocked(&core).await;
        let refused = (0..1100).filter(|&number| channel.try_send(1, vec![number]).is_err()).count();
        say(&format!("handed back {refused}, counted {}", counted(&core, &names::CHANNEL_OVERFLOWS)));
        assert!(channel.try_send(0, vec![1]).is_err(), "no core has a queue to itself");
        assert!(channel.try_send(2, vec![1]).is_err(), "there are two cores");
        release();
    } else {
        block();
    }
    core.stopping().await;
}

async fn outbox(core: TestCore) {
    // 1024 batches of 64 messages in the queue, and 4096 in the outbox.
    const TAKEN: u64 = 1024 * 64 + 4096;
    let channel = core.open_channel::<Vec<u64>>("test").await;
    let outbox = Outbox::new(channel.clone());
    channel.receive(expect_numbers(TAKEN));
    if core.index() == 0 {
        // Core 1 is kept from receiving until the outbox is full.
        until_blocked(&core).await;
        let rejected = (0..70_000).filter(|&number| outbox.add(1, |batch| batch.push(number)).is_err());
        let rejected = rejected.count();
        say(&format!("rejected {rejected}, counted {}", counted(&core, &names::CHANNEL_REJECTED)));
        assert!(outbox.add(2, |_| panic!("there is no such core")).is_err());
        release();
    } else {
        block();
    }
    core.stopping().await;
}

async fn mailbox_full(core: TestCore) {
    let (sender, receiver) = mailbox(4).unwrap();
    let received = Rc::new(RefCell::new(Vec::new()));
    let messages = Rc::clone(&received);
    receiver.attach(&core, move |number: u32| messages.borrow_mut().push(number)).unwrap();
    for round in 0..3 {
        let refused: Vec<u32> =
            (0..6).filter_map(|nth| sender.try_send(round * 10 + nth).err()).map(|full| full.0).collect();
        assert_eq!(refused, [round * 10 + 4, round * 10 + 5], "given back");
        while received.borrow().len() < 4 * (round as usize + 1) {
            core.sleep(Duration::from_millis(5)).await;
        }
    }
    say(&format!("core {} received {:?}", core.index(), received.borrow()));
    core.stopping().await;
}

async fn batches(core: TestCore) {
    let channel = core.open_channel::<Vec<u64>>("test").await;
    let outbox = Outbox::new(channel.clone());
    let received = Rc::new(Cell::new(0));
    let count = Rc::clone(&received);
    let index = core.index();
    channel.receive(move |from, batch| {
        count.set(count.get() + batch.len());
        say(&format!("core {index} received {batch:?} from core {from}"));
    });
    if index == 0 {
        // They are sent once the other tasks have run, without being flushed.
        (1..=3).for_each(|number| outbox.add(1, |batch| batch.push(number)).unwrap());
    } else {
        while received.get() < 3 {
            core.sleep(Duration::from_millis(5)).await;
        }
        let spare = channel.spare();
        say(&format!("memory is kept: {}, messages are not: {}", spare.capacity() >= 3, spare.is_empty()));
        outbox.add(0, |batch| batch.push(4)).unwrap();
        assert!(outbox.flush());
    }
    core.stopping().await;
}

fn counted(core: &TestCore, metric: &Metric) -> u64 {
    let samples = core.metrics().registry().samples();
    samples.iter().filter(|sample| sample.metric == metric).map(|sample| sample.value).sum()
}

/// Blocks the core, as a bug would.
#[allow(clippy::disallowed_methods, reason = "blocking is what is tested")]
pub(crate) fn keep_busy(time: Duration) {
    std::thread::sleep(time);
}

async fn stall(core: TestCore) {
    if core.index() == 1 {
        core.sleep(Duration::from_millis(400)).await;
        keep_busy(Duration::from_millis(4500));
    }
    core.stopping().await;
}

async fn privileges(core: TestCore) {
    let files = std::fs::read_dir("/").unwrap().count();
    let user = rustix::process::geteuid().as_raw();
    say(&format!("core {} runs as user {user}, sees {files} files in /", core.index()));
    core.stopping().await;
}

pub(crate) fn udp() -> UdpSocket {
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

/// Most time a thing may take beside a busy socket, apart from the time that this thread wanted to run and
/// the machine ran something else.
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
    let channel = core.open_channel::<Vec<u64>>("test").await;
    channel.receive(move |_, _| {
        slowest.set(slowest.get().max(since_last.time(&clock)));
        since_last = Stopwatch::start(&clock);
    });
    if core.index() == 1 {
        while !core.is_stopping() {
            channel.try_send(0, vec![0]).unwrap();
            core.sleep(Duration::from_millis(5)).await;
        }
        return;
    }
    let (busy, quiet) = (udp(), udp());
    let (busy_address, quiet_address) = (busy.local_addr().unwrap(), quiet.local_addr().unwrap());
    let (flooded, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let busy = core.readiness().register(busy, Mode::Level).unwrap();
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
    let client = core.readiness().register(udp(), Mode::Level).unwrap();
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
    // Once all cores have opened it, none of them is still starting.
    core.open_channel::<Vec<u64>>("test").await;
    if core.index() == 1 {
        return core.stopping().await;
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (client, server) = (udp(), udp());
    let address = server.local_addr().unwrap();
    let server = core.readiness().register(server, Mode::Level).unwrap();
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
    let server = Rc::new(core.readiness().register(server, Mode::Level).unwrap());
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

async fn losses(core: TestCore) {
    let dropped = core.metrics().counter(&names::DROPPED, &[("protocol", "udp"), ("reason", "because")]);
    dropped.add(core.index() as u64 * 5);
    // Statistics are about what happens between two reports, and cores start before the first.
    let labels = [("protocol", "udp"), ("family", "ipv4"), ("action", "scrape")];
    let going_on = core.metrics().counter(&names::REQUESTS, &labels);
    while !core.is_stopping() {
        going_on.add(1);
        core.sleep(Duration::from_millis(100)).await;
    }
}
