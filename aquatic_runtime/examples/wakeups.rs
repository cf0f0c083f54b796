//! Measures what waiting and messages cost: `cargo run --release -p aquatic_runtime --example wakeups`.
//! Prints one line per figure; run it several times and look at the medians.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aquatic_runtime::clock::Epoch;
use aquatic_runtime::readiness::Mode;
use aquatic_runtime::{Channel, Core, CoreService, Engine, EngineConfig, Outbox};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: u32 = 20_000;
const IDLE: Duration = Duration::from_secs(3);

fn main() {
    let config = EngineConfig::default();
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
    async fn run(self, core: Rc<Core>) -> anyhow::Result<()> {
        let channel = core.open_channel::<Vec<u64>>("round trips").await;
        let outbox = Outbox::new(channel.clone());
        if core.index() == 0 {
            // Lets start-up and the first timers pass.
            core.sleep(Duration::from_millis(500)).await;
            idle(&core).await;
            yields(&core).await;
            for mode in [Mode::Level, Mode::Edge] {
                ping_pong(&core, mode).await?;
            }
            if core.count() > 1 {
                round_trips(&core, &channel, &outbox).await;
            }
            process::exit(0);
        }
        let replies = outbox.clone();
        channel.receive(move |from, batch| {
            for message in batch.drain(..) {
                // A sender that waits for its messages never has more under way than an outbox takes.
                let _ = replies.add(from, |batch| batch.push(message));
            }
            replies.flush();
        });
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

async fn idle(core: &Core) {
    let before = used();
    core.sleep(IDLE).await;
    show("idle: processor time per second", used() - before, 3);
}

async fn yields(core: &Core) {
    let begin = core.tick();
    for _ in 0..ROUNDS * 10 {
        core.yield_now().await;
    }
    show("yield with nothing else to do", core.tick() - begin, ROUNDS * 10);
}

/// A client on a thread of its own sends a packet and waits for the answer, over and over.
async fn ping_pong(core: &Rc<Core>, mode: Mode) -> anyhow::Result<()> {
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

/// Messages to the other core and back, by a core that is otherwise idle and by one that never waits.
async fn round_trips(core: &Rc<Core>, channel: &Channel<Vec<u64>>, outbox: &Outbox<Vec<u64>>) {
    let pending = Rc::new(Pending::default());
    let receiving = Rc::clone(&pending);
    channel.receive(move |_, batch| receiving.received(batch.len()));
    for (busy, at_a_time, rounds) in [(false, 1, ROUNDS), (false, 256, 80), (true, 1, 500), (true, 256, 80)] {
        let begin = core.tick();
        let before = used();
        for _ in 0..rounds {
            pending.missing.set(at_a_time as usize);
            for message in 0..at_a_time {
                assert!(outbox.add(1, |batch| batch.push(message.into())).is_ok(), "the outbox is full");
            }
            outbox.flush();
            while pending.missing.get() > 0 {
                if busy {
                    core.yield_now().await;
                } else {
                    poll_fn(|context| pending.poll(context)).await;
                }
            }
        }
        let what = format!("round trip, {} core, {at_a_time} at a time", if busy { "busy" } else { "idle" });
        show(&format!("{what}: time"), core.tick() - begin, rounds * at_a_time);
        show(&format!("{what}: processor time"), used() - before, rounds * at_a_time);
    }
}

/// Messages that have not come back.
#[derive(Default)]
struct Pending {
    missing: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Pending {
    fn received(&self, messages: usize) {
        self.missing.set(self.missing.get() - messages);
        if self.missing.get() == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.missing.get() == 0 {
            return Poll::Ready(());
        }
        self.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}
