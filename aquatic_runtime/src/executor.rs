//! One core's thread: the executor and the engine's own tasks on it.

use std::future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use aquatic_swarm::{HashKey, Shard, ShardConfig};
use glommio::{GlommioError, LocalExecutorBuilder, Placement};

use crate::access_list::{AccessReader, SharedAccessList};
use crate::clock::{Clock, Epoch};
use crate::core::{Core, Parcel, Parts};
use crate::cores;
use crate::engine::CoreService;
use crate::expiry::{self, ExpiryCounters};
use crate::mesh::{self, Ends};
use crate::metrics::{CoreMetrics, names};
use crate::readiness::Readiness;
use crate::steering::Steering;
use crate::supervise::Event;
use crate::watchdog::Heartbeats;

/// Memory each executor registers with the kernel for file I/O, which the tracker does not do: the least it takes.
const IO_MEMORY: usize = 64 * 1024;

/// When the executor interrupts running tasks by itself: never. If that moment comes before the first task has run, as
/// happens on a busy machine, its main loop takes it that there was nothing to do, and sleeps although tasks want to
/// run. Tasks interrupt themselves instead, see [`look`](crate::look).
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// How often each core does its housekeeping and notices that the process is stopping.
const TICK: Duration = Duration::from_millis(250);

/// Everything a core starts with.
pub(crate) struct Seat<S: CoreService> {
    pub(crate) index: usize,
    pub(crate) cpu: usize,
    pub(crate) service: S,
    pub(crate) ends: Ends<Parcel<S::Message>>,
    pub(crate) steering: Steering,
    pub(crate) epoch: Epoch,
    pub(crate) shard: ShardConfig,
    pub(crate) hash_key: HashKey,
    pub(crate) expiry_interval: Duration,
    pub(crate) access: Arc<SharedAccessList>,
    pub(crate) metrics: CoreMetrics,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) events: Sender<Event>,
}

/// The whole life of a core's thread. Returns only if the executor could not be made.
pub(crate) fn run<S: CoreService>(seat: Seat<S>) {
    // The executor's own way to pin reads /sys, which is out of reach after a chroot.
    if !cores::pin_this_thread(seat.cpu) {
        log::warn!("core {}: cannot pin the thread to processor {}; it may move", seat.index, seat.cpu);
    }
    let made = LocalExecutorBuilder::new(Placement::Unbound)
        .name(&format!("aquatic-core-{}", seat.index))
        .io_memory(IO_MEMORY)
        .preempt_timer(NEVER)
        .make();
    // The main thread goes away only together with the process, so nobody is left to miss these reports.
    match made {
        Ok(executor) => {
            let _ = seat.events.send(Event::CoreStarted(Ok(())));
            executor.run(serve(seat));
        }
        Err(error) => {
            let _ = seat.events.send(Event::CoreStarted(Err(explain(&error))));
        }
    }
}

/// The checks at start find what is usually wrong; what is left is told with the kernel's words for it.
fn explain(error: &GlommioError<()>) -> String {
    let cause = match error {
        GlommioError::IoError(error) => error.to_string(),
        GlommioError::EnhancedIoError { source, .. } => source.to_string(),
        GlommioError::ReactorError(_) => "too little memory may be locked (ulimit -l)".to_owned(),
        GlommioError::ExecutorError(_)
        | GlommioError::BuilderError(_)
        | GlommioError::Closed(_)
        | GlommioError::CanNotBeClosed(..)
        | GlommioError::WouldBlock(_)
        | GlommioError::TimedOut(_) => "unknown".to_owned(),
    };
    format!(
        "io_uring could not be set up, cause: {cause}. Look at the limits of locked memory (ulimit -l), open files \
         (ulimit -n) and memory of the control group"
    )
}

async fn serve<S: CoreService>(seat: Seat<S>) {
    let Seat { index, service, ends, steering, epoch, metrics, heartbeats, events, .. } = seat;
    let who = format!("core {index}");
    let readiness = match Readiness::new() {
        Ok(readiness) => readiness,
        Err(error) => {
            let why = format!(
                "cannot make an epoll set: {error}. Look at the limit of open files (LimitNOFILE= in a systemd unit, \
                 ulimit -n)"
            );
            let _ = events.send(Event::Ended { who, why });
            return future::pending().await;
        }
    };
    let (mesh, inbox) = mesh::connect(ends, metrics.counter(&names::MESH_OVERFLOW, &[])).await;
    let expiry_counters = ExpiryCounters::new(&metrics);
    let tick_lag = metrics.gauge(&names::TICK_LAG, &[]);
    let core = Rc::new(Core::new(Parts {
        index,
        steering,
        clock: Clock::new(epoch),
        shard: Shard::new(seat.shard, seat.hash_key),
        access: AccessReader::new(seat.access),
        readiness: readiness.clone(),
        metrics,
        mesh,
    }));

    // The service is polled first, so that its message handlers are there before the first message is received.
    let service = glommio::spawn_local(service.run(Rc::clone(&core)));
    inbox.receive(&core);
    glommio::spawn_local(readiness.drain(Rc::clone(&core))).detach();
    let pulsing = Rc::clone(&core);
    glommio::spawn_local(async move { pulsing.pulse().await }).detach();
    glommio::spawn_local(expiry::run(Rc::clone(&core), seat.expiry_interval, expiry_counters)).detach();
    let housekeeper = Rc::clone(&core);
    glommio::spawn_local(async move {
        loop {
            let begin = housekeeper.tick();
            heartbeats.beat(index, begin);
            housekeeper.housekeeping();
            housekeeper.flush();
            if seat.stop.load(Ordering::Relaxed) && !housekeeper.is_stopping() {
                housekeeper.stop();
            }
            housekeeper.sleep(TICK).await;
            let late = housekeeper.tick().saturating_sub(begin + TICK);
            tick_lag.set(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
        }
    })
    .detach();

    let ended = service.await;
    let _ = events.send(match ended {
        Ok(()) if core.is_stopping() => Event::CoreStopped(index),
        Ok(()) => {
            Event::Ended { who, why: "its service has returned without having been told to".to_owned() }
        }
        Err(error) => Event::Ended { who, why: format!("{error:#}") },
    });
    // The executor is never taken down: that may wait for other cores or panic. The process ends around it.
    future::pending().await
}
