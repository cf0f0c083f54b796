//! From a configuration to running cores and back to a clean exit.

use std::fmt;
use std::io;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use aquatic_common::ConfigurationError;
use aquatic_metrics::{ProcessFigures, Registry, names};

use crate::channel::Channels;
use crate::clock::{Epoch, Moment, calendar_seconds};
use crate::config::EngineConfig;
use crate::core::CoreService;
use crate::cores::{self, CorePlan, CorePlanError};
use crate::drain::{Drain, DrainStep};
use crate::executor::{self, Control, CoreSetup};
use crate::health::Health;
use crate::housekeeping::{Housekeeper, Periodic, StatisticsInterval};
use crate::kept::{self, Kept};
use crate::large_pages::LargePages;
use crate::listeners::{ListenSocket, ListenSockets};
use crate::mailbox::{self, MailboxSender};
use crate::notify::Notifier;
use crate::privileges;
use crate::seccomp::{self, Phase, SyscallFilter};
use crate::secrets::Secrets;
use crate::spare_memory::SpareMemory;
use crate::startup::{self, Unsupported};
use crate::state_directory::{StateDirectory, StateDirectoryError};
use crate::supervise::{DrainTrigger, Event, ReloadTrigger, StopHold, Supervisor};
use crate::sys;

/// Longest time a core may take to come up.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Longest time the cores have to finish what they have begun when the process stops. With what comes before
/// and after it the process ends within five seconds.
pub const STOP_DEADLINE: Duration = Duration::from_secs(4);

/// Longest time that work before the stop may take, see [`Engine::before_stop`].
pub const BEFORE_STOP_DEADLINE: Duration = Duration::from_secs(60);

/// Period of the main thread's housekeeping.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// Commands for a core that have not been received yet.
const CONTROL_CAPACITY: usize = 16;

/// Why the engine did not start, or stopped by itself: what happened and what to do about it.
#[derive(Debug)]
pub enum EngineError {
    /// What the configuration asks for cannot be had: the number of cores, or the user to run as.
    Configuration(ConfigurationError),
    /// The processors that may be used are unknown.
    Cores(CorePlanError),
    /// The machine does not allow something that is needed.
    Machine(Unsupported),
    /// The state directory is in use.
    State(StateDirectoryError),
    /// A core could not be started; which, and why.
    Core(usize, String),
    /// A thread could not be started.
    Thread(io::Error),
    /// The system refused something else that is needed; what, and why.
    System(&'static str, io::Error),
    /// Something ended that must not end.
    Ended {
        /// Which thread or service.
        who: String,
        /// Why.
        why: String,
    },
    /// Not one service for each core was handed over: a bug in the caller. Holds both numbers.
    Services(usize, usize),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(_) => f.write_str("invalid configuration"),
            Self::Cores(error) => error.fmt(f),
            Self::Machine(error) => error.fmt(f),
            Self::State(error) => error.fmt(f),
            Self::Core(index, why) => write!(f, "core {index} could not be started: {why}"),
            Self::Thread(error) => write!(
                f,
                "a thread could not be started: {error}. Raise the limit of tasks or memory (TasksMax=, \
                 MemoryMax= in a systemd unit)"
            ),
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Ended { who, why } => write!(f, "{who} has stopped working, so the tracker ends: {why}"),
            Self::Services(services, cores) => write!(f, "{services} services for {cores} cores"),
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Configuration(error) => Some(error),
            Self::Cores(_)
            | Self::Machine(_)
            | Self::State(_)
            | Self::Core(..)
            | Self::Thread(_)
            | Self::System(..)
            | Self::Ended { .. }
            | Self::Services(..) => None,
        }
    }
}

macro_rules! from {
    ($($variant:ident($error:ty)),*) => {$(
        impl From<$error> for EngineError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

from!(Configuration(ConfigurationError), Machine(Unsupported));

impl From<CorePlanError> for EngineError {
    fn from(error: CorePlanError) -> Self {
        match error {
            CorePlanError::TooMany { .. }
            | CorePlanError::TooManyForList { .. }
            | CorePlanError::NotAllowed { .. } => Self::Configuration(ConfigurationError::new(error)),
            CorePlanError::Unknown => Self::Cores(error),
        }
    }
}

impl From<StateDirectoryError> for EngineError {
    fn from(error: StateDirectoryError) -> Self {
        match error {
            StateDirectoryError::Unusable(..) | StateDirectoryError::NotWritable { .. } => {
                Self::Configuration(ConfigurationError::new(error))
            }
            // The other tracker may be about to end.
            StateDirectoryError::InUse(_) => Self::State(error),
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;
type StopHook = Box<dyn FnOnce(StopHold) + Send>;

/// An engine whose machine has been checked, ready for sockets to be bound.
pub struct Engine {
    config: EngineConfig,
    epoch: Epoch,
    secrets: Secrets,
    state: Option<StateDirectory>,
    plan: CorePlan,
    registry: Registry,
    health: Health,
    process: ProcessFigures,
    supervisor: Supervisor,
    statistics: StatisticsInterval,
    periodic: Vec<Box<dyn Periodic>>,
    side_threads: Vec<(String, Work)>,
    before_stop: Vec<StopHook>,
    notifier: Notifier,
    listeners: ListenSockets,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins to listen to signals and makes panics fatal, plans the cores and checks what the machine
    /// allows. Starts no core and drops no privilege yet.
    ///
    /// # Errors
    /// Anything that would keep the tracker from running, with its remedy.
    pub fn prepare(config: EngineConfig) -> Result<Self, EngineError> {
        // First, while no descriptor of this process can be taken for a passed one.
        let mut listeners = ListenSockets::from_service_manager();
        sys::map_large_allocations();
        let supervisor = Supervisor::new();
        let state = match &config.state_directory {
            none if none.as_os_str().is_empty() => None,
            path => Some(StateDirectory::open(path, &config.privileges)?),
        };
        let registry = Registry::default();
        let (secrets, epoch) = keys(state.as_ref(), &registry)
            .map_err(|error| EngineError::System("the system's random numbers cannot be read", error))?;
        supervisor
            .listen_to_signals(epoch)
            .map_err(|error| EngineError::System("signals cannot be caught", error))?;
        let plan = cores::plan_for_this_process(config.workers, &config.cpus)?;
        let count = plan.cpus.len();
        listeners.set_cores(count);
        if let Some(quota) = plan.throttled_to {
            log::warn!(
                "workers = {count}, but the control group of this process may use the time of {quota} processor(s) \
                 only: the kernel will stop all cores for part of the time. Set workers to {quota} or raise the quota"
            );
        }
        startup::check_machine(count)?;
        let open_files = startup::Limit(startup::raise_open_files());
        log::info!("using {count} core(s), processors {:?}; up to {open_files} open files", plan.cpus);
        Ok(Self {
            registry,
            health: Health::new(count, epoch),
            process: ProcessFigures::new(count, u64::try_from(calendar_seconds()).unwrap_or_default()),
            statistics: StatisticsInterval::new(config.statistics.interval),
            config,
            epoch,
            secrets,
            state,
            plan,
            supervisor,
            periodic: vec![Box::new(LargePages::new())],
            side_threads: Vec::new(),
            before_stop: Vec::new(),
            notifier: Notifier::from_environment(),
            listeners,
        })
    }

    /// Number of cores the tracker uses.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.plan.cpus.len()
    }

    /// The moment that the tracker's times are counted from.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The secret that all keys are derived from.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The state directory, if there is one.
    #[must_use]
    pub fn state_directory(&self) -> Option<&StateDirectory> {
        self.state.as_ref()
    }

    /// Listening sockets that were passed to this process. Those in use are to be
    /// [kept](ListenSockets::keep).
    pub fn listeners(&mut self) -> &mut ListenSockets {
        &mut self.listeners
    }

    /// Where counters are registered, for each core.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Whether the cores respond.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Figures of the process. Taken before privileges are dropped, readable afterwards.
    #[must_use]
    pub fn process_figures(&self) -> ProcessFigures {
        self.process.try_clone()
    }

    /// The interval of the statistics in the log, to change it later.
    #[must_use]
    pub fn statistics_interval(&self) -> StatisticsInterval {
        self.statistics.clone()
    }

    /// Requests reloads as a signal does.
    #[must_use]
    pub fn reload_trigger(&self) -> ReloadTrigger {
        self.supervisor.reload_trigger()
    }

    /// Has the process drain and stop.
    #[must_use]
    pub fn drain_trigger(&self) -> DrainTrigger {
        self.supervisor.drain_trigger()
    }

    /// Adds to what the main thread does about once a second, and on a reload.
    pub fn add_periodic(&mut self, periodic: impl Periodic + 'static) {
        self.periodic.push(Box::new(periodic));
    }

    /// Adds a thread beside the cores, started once privileges have been dropped. Its end, like a core's,
    /// ends the process with a message. It reaches cores through mailboxes only.
    pub fn add_side_thread(&mut self, name: &str, work: impl FnOnce() + Send + 'static) {
        self.side_threads.push((name.to_owned(), Box::new(work)));
    }

    /// Adds what is to be done when the process is told to stop, while the cores go on. They are stopped once
    /// all holds have been dropped, or [`BEFORE_STOP_DEADLINE`] has passed. The main thread calls `begin`,
    /// which must not take long: the work is done by a side thread.
    pub fn before_stop(&mut self, begin: impl FnOnce(StopHold) + Send + 'static) {
        self.before_stop.push(Box::new(begin));
    }

    /// Drops privileges, starts the cores and runs until the process is told to stop. `services` has one
    /// element per core, in core order. Returns `Ok` after a stop that was asked for.
    ///
    /// The threads of the cores still exist when this returns, so the caller ends the process with
    /// `std::process::exit`. A panic in any thread ends the process with exit code
    /// [`PANIC_EXIT_CODE`](crate::supervise::PANIC_EXIT_CODE) without returning here.
    ///
    /// # Errors
    /// A core that could not be started, or any thread that ended by itself.
    pub fn run<S: CoreService>(mut self, services: Vec<S>) -> Result<(), EngineError> {
        if services.len() != self.cores() {
            return Err(EngineError::Services(services.len(), self.cores()));
        }
        let listeners = std::mem::take(&mut self.listeners).finish();
        privileges::drop_privileges(&self.config.privileges).map_err(ConfigurationError::new)?;
        if self.config.privileges.drop_privileges {
            // What was allowed to root may be forbidden to the user it has become.
            startup::check_io_uring()?;
        }
        let filter = system_call_filter(self.config.privileges.filter_system_calls);
        for (name, work) in std::mem::take(&mut self.side_threads) {
            let filter = filter.clone();
            let work = move || {
                seccomp::apply(filter.as_ref(), Phase::Serving);
                work();
            };
            self.supervisor.spawn(&name, work).map_err(EngineError::Thread)?;
        }
        let (control, early) = start_cores(&self, services, filter.as_ref())?;
        let Self {
            statistics,
            epoch,
            registry,
            health,
            process,
            supervisor,
            mut periodic,
            before_stop,
            notifier,
            ..
        } = self;
        periodic.push(Box::new(SpareMemory::new(&registry)));
        let housekeeper = Housekeeper::new(epoch, statistics, &registry, process, health)
            .with_periodic(periodic)
            .with_notifier(notifier);
        supervise(housekeeper, &supervisor, early, (&control, before_stop), listeners)
    }
}

/// The filter of system calls, if it is wanted and this machine can have it.
fn system_call_filter(wanted: bool) -> Option<SyscallFilter> {
    if !wanted {
        return None;
    }
    SyscallFilter::new().inspect_err(|error| log::warn!("{}", error.advice())).ok()
}

/// Secret and epoch: those of the previous process, if a directory has kept them.
fn keys(state: Option<&StateDirectory>, registry: &Registry) -> io::Result<(Secrets, Epoch)> {
    let Some(directory) = state else { return Ok((Secrets::generate()?, Epoch::start())) };
    let failures = registry.main_thread().counter(&names::STATE_WRITE_FAILURES, &[("file", "keys")]);
    let Kept { secrets, elapsed, written } = kept::resume(directory, Moment::now())?;
    failures.add((!written).into());
    Ok((secrets, Epoch::resume_at(elapsed)))
}

/// Starts one core after the other, so that the first that cannot be started is the one reported. Returns the
/// way to command them, and what has happened meanwhile and is to be seen to once all of them run.
fn start_cores<S: CoreService>(
    engine: &Engine,
    services: Vec<S>,
    filter: Option<&SyscallFilter>,
) -> Result<(Vec<MailboxSender<Control>>, Vec<Event>), EngineError> {
    let mut early = Vec::new();
    let count = engine.cores();
    let no_eventfd = |error| EngineError::System("an eventfd could not be made", error);
    let channels = Channels::new(count).map_err(no_eventfd)?;
    let (senders, receivers) = mailbox::mailboxes(count, CONTROL_CAPACITY).map_err(no_eventfd)?;
    let cores = services.into_iter().zip(&engine.plan.cpus).zip(receivers).enumerate();
    for (index, ((service, &cpu), control)) in cores {
        let setup = CoreSetup {
            index,
            count,
            cpu,
            service,
            channels: channels.clone(),
            epoch: engine.epoch,
            metrics: engine.registry.core(index),
            heartbeats: engine.health.heartbeats.clone(),
            control,
            events: engine.supervisor.sender(),
            filter: filter.cloned(),
        };
        engine
            .supervisor
            .spawn(&format!("aquatic-core-{index}"), move || executor::run(setup))
            .map_err(EngineError::Thread)?;
        until_started(index, &engine.supervisor, &mut early)?;
    }
    Ok((senders, early))
}

fn until_started(index: usize, supervisor: &Supervisor, early: &mut Vec<Event>) -> Result<(), EngineError> {
    loop {
        match supervisor.events.recv_timeout(START_DEADLINE) {
            Ok(Event::CoreStarted(Ok(()))) => return Ok(()),
            Ok(Event::CoreStarted(Err(why))) => return Err(EngineError::Core(index, why)),
            Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
            Ok(
                event @ (Event::Stop
                | Event::Reload
                | Event::Drain(_)
                | Event::CoreStopped(_)
                | Event::StopReleased),
            ) => {
                early.push(event);
            }
            Err(_) => {
                let why = format!("no sign of life within {} s", START_DEADLINE.as_secs());
                return Err(EngineError::Core(index, why));
            }
        }
    }
}

/// The main thread's work once everything runs.
fn supervise(
    mut housekeeper: Housekeeper,
    supervisor: &Supervisor,
    early: Vec<Event>,
    (control, before_stop): (&[MailboxSender<Control>], Vec<StopHook>),
    mut listeners: Vec<ListenSocket>,
) -> Result<(), EngineError> {
    let mut early = early.into_iter();
    let mut drain = None;
    housekeeper.notifier().store(&listeners);
    housekeeper.notifier().ready();
    loop {
        let next = early.next().map_or_else(
            || supervisor.events.recv_timeout(housekeeper.until_next(HOUSEKEEPING_INTERVAL)),
            Ok,
        );
        match next {
            Ok(Event::Stop) => break,
            Ok(Event::Reload) => housekeeper.reload(),
            Ok(Event::Drain(plan)) => drain = Some(housekeeper.begin_to_drain(plan)),
            Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
            Ok(Event::CoreStarted(_) | Event::CoreStopped(_) | Event::StopReleased) => {}
            Err(RecvTimeoutError::Timeout) => {
                housekeeper.tick();
                if let Some(drain) = &mut drain
                    && has_drained(&mut housekeeper, drain, control, &mut listeners)
                {
                    break;
                }
            }
            // The supervisor itself holds a sender, so the channel stays open.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    log::info!("stopping");
    housekeeper.notifier().stopping();
    run_before_stop(&mut housekeeper, supervisor, before_stop)?;
    // From now on nobody but the cores has them open, and perhaps the service manager.
    drop(listeners);
    stop_cores(&housekeeper, supervisor, control)?;
    log::info!("stopped");
    Ok(())
}

/// Goes on with a drain. Returns whether it is time to stop.
fn has_drained(
    housekeeper: &mut Housekeeper,
    drain: &mut Drain,
    control: &[MailboxSender<Control>],
    listeners: &mut Vec<ListenSocket>,
) -> bool {
    match drain.step(housekeeper.now(), housekeeper.connections()) {
        DrainStep::Wait => return false,
        DrainStep::Close => {
            log::info!("draining: no new connections are accepted");
            for core in control {
                // Without room, the core has stalled, and accepts nothing either.
                let _ = core.try_send(Control::Drain);
            }
            // Nobody else may keep them open either: clients would connect and wait.
            let names: Vec<String> =
                listeners.extract_if(.., |socket| socket.is_stream()).map(|socket| socket.name()).collect();
            housekeeper.notifier().forget(names.iter().map(String::as_str));
            return false;
        }
        DrainStep::Drained => log::info!("drained: no connection is left"),
        DrainStep::TimedOut(left) => log::warn!("{left} connections are left after the time to drain"),
    }
    true
}

/// Does what is to be done before the cores stop.
fn run_before_stop(
    housekeeper: &mut Housekeeper,
    supervisor: &Supervisor,
    before_stop: Vec<StopHook>,
) -> Result<(), EngineError> {
    let mut holds = before_stop.len();
    for begin in before_stop {
        begin(StopHold::new(supervisor.sender()));
    }
    let deadline = housekeeper.now() + BEFORE_STOP_DEADLINE;
    while holds > 0 {
        if housekeeper.now() >= deadline {
            log::error!(
                "what is saved before a stop is not finished after {} s, so it is abandoned",
                BEFORE_STOP_DEADLINE.as_secs()
            );
            break;
        }
        match supervisor.events.recv_timeout(housekeeper.until_next(HOUSEKEEPING_INTERVAL)) {
            Ok(Event::StopReleased) => holds -= 1,
            Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
            Ok(
                Event::Stop | Event::Reload | Event::Drain(_) | Event::CoreStarted(_) | Event::CoreStopped(_),
            ) => {}
            Err(RecvTimeoutError::Timeout) => {
                housekeeper.notifier().still_stopping();
                housekeeper.tick();
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

/// Has the cores finish what they have begun.
fn stop_cores(
    housekeeper: &Housekeeper,
    supervisor: &Supervisor,
    control: &[MailboxSender<Control>],
) -> Result<(), EngineError> {
    for core in control {
        // A core that has not received its last commands would not hear of this one either; the deadline ends
        // it.
        let _ = core.try_send(Control::Stop);
    }
    let deadline = housekeeper.now() + STOP_DEADLINE;
    let mut running: Vec<usize> = (0..control.len()).collect();
    while !running.is_empty() {
        match supervisor.events.recv_timeout(deadline.saturating_sub(housekeeper.now())) {
            Ok(Event::CoreStopped(index)) => running.retain(|&core| core != index),
            Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
            Ok(
                Event::Stop | Event::Reload | Event::Drain(_) | Event::CoreStarted(_) | Event::StopReleased,
            ) => {}
            Err(_) => {
                log::warn!("core(s) {running:?} did not finish within {} s", STOP_DEADLINE.as_secs());
                break;
            }
        }
    }
    Ok(())
}
