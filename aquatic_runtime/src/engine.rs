//! From a configuration to running cores and back to a clean exit.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use aquatic_common::ConfigurationError;
use aquatic_metrics::{ProcessFigures, Registry, names};

use crate::channel::Channels;
use crate::clock::{Epoch, Moment, calendar_seconds};
use crate::config::EngineConfig;
use crate::core::CoreService;
use crate::cores::{self, CorePlan, CorePlanError};
use crate::executor::{self, Control, CoreSetup};
use crate::handover::{
    self, DecidedByHand, Offer, Place, StateHook, StateReceived, StateReceiver, StateSender, Takeover,
};
use crate::health::Health;
use crate::housekeeping::{Housekeeper, Periodic, StatisticsInterval};
use crate::kept::{self, Kept};
use crate::large_pages::LargePages;
use crate::listeners::{ListenSocket, ListenSockets};
use crate::mailbox::{self, MailboxSender};
use crate::main_loop::{MainLoop, Upgrades};
use crate::notify::Notifier;
use crate::privileges;
use crate::seccomp::{self, Phase, SyscallFilter};
use crate::secrets::Secrets;
use crate::serving::Serving;
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
    /// This process was started to take over from another one, and cannot.
    HandOver(String),
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
            Self::HandOver(why) => write!(f, "cannot take over from the tracker that runs: {why}"),
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
            | Self::HandOver(_)
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
            StateDirectoryError::Unusable(..)
            | StateDirectoryError::NotWritable { .. }
            | StateDirectoryError::Unreadable { .. } => Self::Configuration(ConfigurationError::new(error)),
            // The other tracker may be about to end.
            StateDirectoryError::InUse(_) => Self::State(error),
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;
pub(crate) type StopHook = Box<dyn FnOnce(StopHold) + Send>;

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
    when_started: Option<Box<dyn FnOnce() + Send>>,
    notifier: Notifier,
    listeners: ListenSockets,
    serving: Serving,
    program: io::Result<PathBuf>,
    state_hook: Option<StateHook>,
    by_hand: Option<Arc<dyn DecidedByHand>>,
    /// The process that this one takes over from.
    predecessor: Option<Predecessor>,
}

/// The process that this one takes over from.
struct Predecessor {
    offer: Offer,
    /// What becomes of its state.
    state: Option<Receiver<StateReceived>>,
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
        let mut offer = Offer::receive().map_err(EngineError::HandOver)?;
        if let Some(offer) = &mut offer {
            log::info!("taking over from process {}", offer.pid);
            listeners.add_passed(std::mem::take(&mut offer.sockets));
        }
        // Before the root directory changes.
        let program = std::env::current_exe();
        sys::map_large_allocations();
        let supervisor = Supervisor::new();
        let state = open_state_directory(&config, offer.as_mut())?;
        let registry = Registry::default();
        let (secrets, epoch) = keys(state.as_ref(), &registry, offer.as_ref())?;
        supervisor
            .listen_to_signals(epoch)
            .map_err(|error| EngineError::System("signals cannot be caught", error))?;
        let plan = cores::plan_for_this_process(config.workers, &config.cpus)?;
        let count = plan.cpus.len();
        listeners.set_cores(count);
        if let Some(offer) = offer.as_ref().filter(|offer| offer.cores != count) {
            return Err(EngineError::HandOver(format!(
                "it has {} worker(s), and this configuration {count}; restart the tracker to change the number",
                offer.cores
            )));
        }
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
            periodic: vec![Box::new(LargePages::of_this_process())],
            side_threads: Vec::new(),
            before_stop: Vec::new(),
            when_started: None,
            notifier: Notifier::from_environment(),
            listeners,
            serving: Serving::new(offer.is_some())
                .map_err(|error| EngineError::System("an eventfd could not be made", error))?,
            program,
            state_hook: None,
            by_hand: None,
            predecessor: offer.map(|offer| Predecessor { offer, state: None }),
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

    /// Begin and end of serving, for side threads with sockets of their own.
    #[must_use]
    pub fn serving(&self) -> Serving {
        self.serving.clone()
    }

    /// Sets what hands the state of a service over to a successor. `begin` is called for each hand-over and
    /// must not take long; the work is done by a side thread.
    pub fn on_hand_over(&mut self, begin: impl Fn(StateSender) + Send + Sync + 'static) {
        self.state_hook = Some(Arc::new(begin));
    }

    /// Sets what the operator decides while the process runs, which a successor takes over.
    pub fn hand_over_by_hand(&mut self, by_hand: Arc<dyn DecidedByHand>) {
        self.by_hand = Some(by_hand);
    }

    /// Removes what the state of the predecessor is received with, if there is one.
    pub fn take_state_receiver(&mut self) -> Option<StateReceiver> {
        let predecessor = self.predecessor.as_mut()?;
        let stream = predecessor.offer.stream.take()?;
        let (reports, received) = channel();
        predecessor.state = Some(received);
        Some(StateReceiver { stream, reports })
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

    /// Sets what is to be done once all cores serve, before anything else happens.
    pub fn when_started(&mut self, act: impl FnOnce() + Send + 'static) {
        self.when_started = Some(Box::new(act));
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
        let listeners = Arc::new(std::mem::take(&mut self.listeners).finish());
        let predecessor = self.predecessor.take();
        if predecessor.as_ref().is_some_and(|predecessor| predecessor.offer.stream.is_some()) {
            let why = "it hands over peers, and this configuration serves no protocol that has them";
            return Err(EngineError::HandOver(why.to_owned()));
        }
        // A predecessor has done so, and this process is the same user's.
        if predecessor.is_none() || rustix::process::geteuid().is_root() {
            privileges::drop_privileges(&self.config.privileges).map_err(ConfigurationError::new)?;
        }
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
        let (control, early) = start_cores(&self, services, filter.as_ref(), predecessor.is_none())?;
        if let Some(act) = self.when_started.take() {
            act();
        }
        let has_predecessor = predecessor.is_some();
        let place = Arc::<Place>::default();
        if let Some(predecessor) = predecessor {
            self.begin_takeover(predecessor, (&control, &place), filter)?;
        }
        self.into_main_loop(listeners, control, (has_predecessor, place)).run(early)
    }

    /// Has a thread lead the rest of the hand-over.
    fn begin_takeover(
        &self,
        Predecessor { offer, state }: Predecessor,
        (control, place): (&[MailboxSender<Control>], &Arc<Place>),
        filter: Option<SyscallFilter>,
    ) -> Result<(), EngineError> {
        let takeover = Takeover {
            pid: offer.pid,
            connection: offer.into_connection(),
            state,
            by_hand: self.by_hand.clone(),
            control: control.to_vec(),
            place: Arc::clone(place),
            events: self.supervisor.sender(),
        };
        let work = move || {
            seccomp::apply(filter.as_ref(), Phase::Serving);
            takeover.run();
        };
        handover::leave_keeper();
        self.supervisor.spawn("aquatic-predecessor", work).map_err(EngineError::Thread)
    }

    fn into_main_loop(
        self,
        listeners: Arc<Vec<ListenSocket>>,
        control: Vec<MailboxSender<Control>>,
        (has_predecessor, place): (bool, Arc<Place>),
    ) -> MainLoop {
        let Self { statistics, epoch, registry, health, process, supervisor, before_stop, .. } = self;
        let (mut periodic, mut notifier) = (self.periodic, self.notifier);
        periodic.push(Box::new(SpareMemory::new(&registry)));
        if has_predecessor {
            notifier.mute();
        }
        let seconds = |number: u32| Duration::from_secs(number.into());
        let upgrades = Upgrades {
            program: self.program,
            arguments: std::env::args_os().skip(1).collect(),
            secrets: self.secrets,
            epoch,
            state: self.state_hook,
            by_hand: self.by_hand,
            timeout: seconds(self.config.upgrade.timeout),
            drain_time: seconds(self.config.upgrade.drain_time),
            failures: registry.main_thread().counter(&names::UPGRADE_FAILURES, &[]),
            has_new_root: !self.config.privileges.chroot_path.as_os_str().is_empty()
                && self.config.privileges.drop_privileges,
        };
        MainLoop {
            housekeeper: Housekeeper::new(epoch, statistics, &registry, process, health)
                .with_periodic(periodic)
                .with_notifier(notifier),
            supervisor,
            control,
            before_stop,
            listeners,
            directory: self.state,
            upgrades,
            serving: self.serving,
            cancel: None,
            drain: None,
            has_predecessor,
            draining: None,
            place,
        }
    }
}

/// The filter of system calls, if it is wanted and this machine can have it.
fn system_call_filter(wanted: bool) -> Option<SyscallFilter> {
    if !wanted {
        return None;
    }
    SyscallFilter::new().inspect_err(|error| log::warn!("{}", error.advice())).ok()
}

/// The state directory of the configuration: that of the predecessor, which is locked, if it is the same.
fn open_state_directory(
    config: &EngineConfig,
    offer: Option<&mut Offer>,
) -> Result<Option<StateDirectory>, EngineError> {
    let path = &config.state_directory;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    match offer.and_then(|offer| offer.directory.take()) {
        Some((same, fd)) if same == *path => Ok(Some(StateDirectory::adopt(fd, same, &config.privileges))),
        _ => Ok(Some(StateDirectory::open(path, &config.privileges)?)),
    }
}

/// Secret and epoch: those of the predecessor, or of the previous process, if a directory has kept them.
fn keys(
    state: Option<&StateDirectory>,
    registry: &Registry,
    offer: Option<&Offer>,
) -> Result<(Secrets, Epoch), EngineError> {
    let no_random = |error| EngineError::System("the system's random numbers cannot be read", error);
    let kept = match (offer, state) {
        (Some(offer), state) => {
            kept::take_over(&offer.keys, state, Moment::now()).map_err(EngineError::HandOver)?
        }
        (None, Some(directory)) => kept::resume(directory, Moment::now()).map_err(no_random)?,
        (None, None) => return Ok((Secrets::generate().map_err(no_random)?, Epoch::start())),
    };
    let Kept { secrets, elapsed, written } = kept;
    let failures = registry.main_thread().counter(&names::STATE_WRITE_FAILURES, &[("file", "keys")]);
    failures.add((!written).into());
    Ok((secrets, Epoch::resume_at(elapsed)))
}

/// Starts one core after the other, so that the first that cannot be started is the one reported. Returns the
/// way to command them, and what has happened meanwhile and is to be seen to once all of them run.
fn start_cores<S: CoreService>(
    engine: &Engine,
    services: Vec<S>,
    filter: Option<&SyscallFilter>,
    takes_in: bool,
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
            takes_in,
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
            Ok(event) => early.push(event),
            Err(_) => {
                let why = format!("no sign of life within {} s", START_DEADLINE.as_secs());
                return Err(EngineError::Core(index, why));
            }
        }
    }
}
