//! Measures what waiting and messages cost: `cargo run --release -p aquatic_runtime --example wakeups`. Prints one line
//! per figure; run it several times and look at the medians.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aquatic_common::InfoHash;
use aquatic_common::config::{
    AccessListConfig, CleaningConfig, LimitsConfig, MetricsConfig, PrivilegesConfig, StatisticsConfig,
};
use aquatic_common::processors::Processors;
use aquatic_runtime::clock::Epoch;
use aquatic_runtime::readiness::Mode;
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig};
use aquatic_swarm::FamilySet;
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: u32 = 20_000;
const IDLE: Duration = Duration::from_secs(3);

fn main() {
    let config = EngineConfig {
        workers: 0,
        cpus: Processors::default(),
        privileges: PrivilegesConfig::default(),
        access_list: AccessListConfig::default(),
        metrics: MetricsConfig::default(),
        statistics: StatisticsConfig::default(),
        cleaning: CleaningConfig::default(),
        limits: LimitsConfig::default(),
    };
    let result = Engine::prepare(config).and_then(|engine| {
        let services = (0..engine.cores()).map(|_| Measure).collect();
        engine.run(services)
    });
    if let Err(error) = result {
        eprintln!("{error}");
        process::exit(1);
    }
}

struct Measure;

impl CoreService for Measure {
    type Message = ();

    async fn run(self, core: Rc<Core<()>>) -> anyhow::Result<()> {
        if core.index() == 0 {
            // Lets start-up and the first timers pass.
            core.sleep(Duration::from_millis(500)).await;
            idle(&core).await;
            yields(&core).await;
            for mode in [Mode::OneShot, Mode::Edge] {
                ping_pong(&core, mode).await?;
            }
            if core.count() > 1 {
                questions(&core).await;
            }
            process::exit(0);
        }
        core.stopping().await;
        Ok(())
    }
}

/// Processor time of this core's thread.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[allow(clippy::print_stdout, reason = "this program's output")]
fn show(what: &str, value: Duration, per: u32) {
    println!("{what:<60} {:>10.3} µs", value.as_secs_f64() * 1e6 / f64::from(per));
}

async fn idle(core: &Core<()>) {
    let before = used();
    core.sleep(IDLE).await;
    show("idle: processor time per second", used() - before, 3);
}

async fn yields(core: &Core<()>) {
    let begin = core.tick();
    for _ in 0..ROUNDS * 10 {
        core.yield_now().await;
    }
    show("yield with nothing else to do", core.tick() - begin, ROUNDS * 10);
}

/// A client on a thread of its own sends a packet and waits for the answer, over and over.
async fn ping_pong(core: &Rc<Core<()>>, mode: Mode) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let socket = core.readiness().register(socket, mode)?;
    let client = std::thread::spawn(move || ask(address));
    let before = used();
    let mut buffer = [0; 64];
    let mut answered = 0;
    while answered < ROUNDS {
        match socket.try_read(|socket| socket.recv_from(&mut buffer)) {
            Ok((len, from)) => {
                socket.get_ref().send_to(&buffer[..len], from)?;
                answered += 1;
            }
            Err(_) => socket.readable().await?,
        }
    }
    show(&format!("ping-pong {mode:?}: processor time of the core"), used() - before, ROUNDS);
    let mut times = client.join().map_err(|_| anyhow::anyhow!("the client has panicked"))??;
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 1000).copied().unwrap_or_default();
    show(&format!("ping-pong {mode:?}: round trip, median"), at(500), 1);
    show(&format!("ping-pong {mode:?}: round trip, 99 %"), at(990), 1);
    Ok(())
}

fn ask(address: SocketAddr) -> std::io::Result<Vec<Duration>> {
    // Unpinned from the core it inherited, so that the two do not share a processor.
    let last = core_affinity::get_core_ids().and_then(|cores| cores.last().copied());
    last.map(core_affinity::set_for_current);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(address)?;
    let epoch = Epoch::start();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begin = epoch.elapsed();
        socket.send(&[0; 16])?;
        socket.recv(&mut [0; 64])?;
        times.push(epoch.elapsed() - begin);
    }
    Ok(times)
}

/// Questions to the other core, by a core that is otherwise idle and by one that never waits.
async fn questions(core: &Rc<Core<()>>) {
    let Some(info_hash) = (0..=255).map(|n| InfoHash([n; 20])).find(|hash| core.owner(hash) == 1) else {
        return;
    };
    for (busy, at_a_time, rounds) in [(false, 1, ROUNDS), (false, 256, 80), (true, 1, 500), (true, 256, 80)] {
        let begin = core.tick();
        let before = used();
        for _ in 0..rounds {
            let asked = Rc::new(Asked { missing: Cell::new(at_a_time), asker: RefCell::new(None) });
            for _ in 0..at_a_time {
                let asked = Rc::clone(&asked);
                core.scrape(&[info_hash], FamilySet::Both, move |counts| asked.answered(counts.is_ok()));
            }
            while asked.missing.get() > 0 {
                if busy {
                    core.yield_now().await;
                } else {
                    poll_fn(|context| asked.poll(context)).await;
                }
            }
        }
        let what = format!("question, {} core, {at_a_time} at a time", if busy { "busy" } else { "idle" });
        show(&format!("{what}: time"), core.tick() - begin, rounds * at_a_time);
        show(&format!("{what}: processor time"), used() - before, rounds * at_a_time);
    }
}

struct Asked {
    missing: Cell<u32>,
    asker: RefCell<Option<Waker>>,
}

impl Asked {
    fn answered(&self, well: bool) {
        assert!(well, "a question was not answered");
        self.missing.set(self.missing.get() - 1);
        if self.missing.get() == 0
            && let Some(asker) = self.asker.take()
        {
            asker.wake();
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.missing.get() == 0 {
            return Poll::Ready(());
        }
        self.asker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}
