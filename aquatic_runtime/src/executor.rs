//! One core's thread: the executor and the engine's own tasks on it.

use std::future;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use aquatic_metrics::{CoreMetrics, names};
use glommio::{GlommioError, LocalExecutorBuilder, Placement};

use crate::channel::Channels;
use crate::clock::{Clock, Epoch};
use crate::core::{Core, CoreService, Parts, TICK};
use crate::cores;
use crate::event_loop::EventLoop;
use crate::health::Heartbeats;
use crate::intake::Intake;
use crate::mailbox::MailboxReceiver;
use crate::readiness::Readiness;
use crate::seccomp::{self, Phase, SyscallFilter};
use crate::supervise::Event;

/// Memory each executor registers with the kernel for file I/O, which the tracker does not do: the least it
/// takes.
const IO_MEMORY: usize = 64 * 1024;

/// When the executor interrupts running tasks by itself: never. If that moment comes before the first task
/// has run, as happens on a busy machine, its main loop concludes that there was nothing to do, and sleeps
/// although tasks are runnable. Tasks yield by themselves instead, see [`event_loop`](crate::event_loop).
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// What the main thread tells a core.
#[derive(Clone, Debug)]
pub(crate) enum Control {
    /// No new connections are taken on.
    Drain,
    /// The process stops.
    Stop,
    /// Another process serves: connections are ended over this time.
    Leave(Duration),
    /// Take nothing in, and send the index of the core once that is so.
    Pause(Sender<usize>),
    /// Take something in.
    Resume,
}

/// Everything a core starts with.
pub(crate) struct CoreSetup<S: CoreService> {
    pub(crate) index: usize,
    pub(crate) count: usize,
    pub(crate) cpu: usize,
    pub(crate) service: S,
    pub(crate) channels: Channels,
    pub(crate) epoch: Epoch,
    pub(crate) metrics: CoreMetrics,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) control: MailboxReceiver<Control>,
    pub(crate) events: Sender<Event>,
    pub(crate) filter: Option<SyscallFilter>,
    /// Whether anything is taken in from the start.
    pub(crate) takes_in: bool,
}

/// The whole life of a core's thread. Returns only if the executor could not be made.
pub(crate) fn run<S: CoreService>(setup: CoreSetup<S>) {
    // The executor's own way to pin reads /sys, which is out of reach after a chroot.
    if !cores::pin_this_thread(setup.cpu) {
        log::warn!("core {}: cannot pin the thread to processor {}; it may move", setup.index, setup.cpu);
    }
    // Before, because the executor starts a thread of its own.
    seccomp::apply(setup.filter.as_ref(), Phase::Start);
    let made = LocalExecutorBuilder::new(Placement::Unbound)
        .name(&format!("aquatic-core-{}", setup.index))
        .io_memory(IO_MEMORY)
        .preempt_timer(NEVER)
        .make();
    // The main thread goes away only together with the process, so nobody is left to miss these reports.
    match made {
        Ok(executor) => {
            seccomp::apply(setup.filter.as_ref(), Phase::Serving);
            let _ = setup.events.send(Event::CoreStarted(Ok(())));
            executor.run(serve(setup));
        }
        Err(error) => {
            let _ = setup.events.send(Event::CoreStarted(Err(explain(&error))));
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

async fn serve<S: CoreService>(setup: CoreSetup<S>) {
    let CoreSetup {
        index,
        count,
        service,
        channels,
        epoch,
        metrics,
        heartbeats,
        control,
        events,
        takes_in,
        ..
    } = setup;
    let who = format!("core {index}");
    let readiness = match Readiness::new() {
        Ok(readiness) => readiness,
        Err(error) => return fail(&events, who, "cannot make an epoll set", &error).await,
    };
    let tick_lag = metrics.gauge(&names::TICK_LAG, &[]);
    let clock = Clock::new(epoch);
    let parts = Parts { index, count, clock, readiness, metrics, channels, intake: Intake::new(takes_in) };
    let core = Rc::new(Core::new(parts));
    let stopping = Rc::clone(&core);
    let attached = control.attach(&core, move |command| match command {
        Control::Drain => stopping.drain(),
        Control::Stop => stopping.stop(None),
        Control::Leave(time) => stopping.stop(Some(time)),
        Control::Pause(paused) => stopping.intake().close(move || {
            // Without a receiver it has taken too long.
            let _ = paused.send(index);
        }),
        Control::Resume => stopping.intake().open(),
    });
    if let Err(error) = attached {
        return fail(&events, who, "cannot wait for the main thread's commands", &error).await;
    }
    let event_loop = match EventLoop::new(Rc::clone(&core)) {
        Ok(event_loop) => event_loop,
        Err(error) => return fail(&events, who, "cannot make a timer", &error).await,
    };
    let service = glommio::spawn_local(core.counted(service.run(Rc::clone(&core))));
    // Not counted: it counts the polls of the others.
    glommio::spawn_local(event_loop.run()).detach();
    let housekeeper = Rc::clone(&core);
    core.spawn(async move {
        loop {
            heartbeats.beat(index, housekeeper.tick());
            housekeeper.housekeeping();
            let due = housekeeper.tick_near(TICK);
            housekeeper.timers().sleep_until(due).await;
            let late = housekeeper.tick().saturating_sub(due);
            tick_lag.set(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
        }
    });

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

/// Ends the process for want of a descriptor.
async fn fail(events: &Sender<Event>, who: String, what: &str, error: &std::io::Error) {
    let why =
        format!("{what}: {error}. Raise the limit of open files (LimitNOFILE= in a systemd unit, ulimit -n)");
    let _ = events.send(Event::Ended { who, why });
    future::pending().await
}
