//! Starting, supervising and stopping.

use std::fmt;
use std::future::Future;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use aquatic_swarm::{HashKey, ShardConfig};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::access_list::{AccessListError, SharedAccessList};
use crate::clock::Epoch;
use crate::config::EngineConfig;
use crate::core::Core;
use crate::cores::{self, CorePlan, CorePlanError};
use crate::executor::{self, Seat};
use crate::large_pages::LargePages;
use crate::mesh;
use crate::metrics::server::{self, Exhibits};
use crate::metrics::{ProcessFigures, Registry};
use crate::net::BindError;
use crate::privileges::{self, PrivilegesError};
use crate::spare_memory::SpareMemory;
use crate::startup::{self, Refusal};
use crate::steering::Steering;
use crate::supervise::{Event, Supervisor};
use crate::vigil::Vigil;
use crate::watchdog::Heartbeats;

/// Longest time a core may take to come up.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Longest time the cores have to finish what they have begun when the process stops. With what comes before and after
/// it the process ends within five seconds.
pub const STOP_DEADLINE: Duration = Duration::from_secs(4);

/// How often the main thread looks after the cores.
const VIGIL_INTERVAL: Duration = Duration::from_secs(1);

/// What runs on each core. The value is made in the main thread, one per core, with the sockets of that core; then it
/// moves to the core's thread and runs until the process stops.
pub trait CoreService: Send + 'static {
    /// What the cores of this process say to each other besides the questions of the router.
    type Message: Send + 'static;

    /// Runs the service. To return before [`Core::stopping`] completes, or to return an error, ends the process with a
    /// message.
    fn run(self, core: Rc<Core<Self::Message>>) -> impl Future<Output = anyhow::Result<()>> + 'static;
}

/// Something else the main thread keeps up to date, such as a certificate. It must not take long.
pub trait Watch: fmt::Debug + Send {
    /// Called about once a second with the time since the start.
    fn look(&mut self, now: Duration);

    /// Called when the process is told to read its files again (SIGUSR1).
    fn reload(&mut self);
}

/// Why the engine did not start, or stopped by itself: what happened and what to do about it.
#[derive(Debug)]
pub enum EngineError {
    /// Not as many cores as asked for.
    Cores(CorePlanError),
    /// The machine does not allow something that is needed.
    Machine(Refusal),
    /// The access list cannot be used.
    AccessList(AccessListError),
    /// The metrics endpoint cannot be opened.
    Metrics(BindError),
    /// The tracker would have to run with more rights than configured.
    Privileges(PrivilegesError),
    /// A core could not be started; which, and why.
    Core(usize, String),
    /// A thread could not be started, or the signals not be caught.
    Thread(std::io::Error),
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
            Self::Cores(error) => error.fmt(f),
            Self::Machine(error) => error.fmt(f),
            Self::AccessList(error) => error.fmt(f),
            Self::Metrics(error) => write!(f, "metrics endpoint: {error}"),
            Self::Privileges(error) => error.fmt(f),
            Self::Core(index, why) => write!(f, "core {index} could not be started: {why}"),
            Self::Thread(error) => write!(
                f,
                "a thread could not be started: {error}. Raise the limit of tasks or memory (TasksMax=, \
                 MemoryMax= in a systemd unit)"
            ),
            Self::Ended { who, why } => write!(f, "{who} has stopped working, so the tracker ends: {why}"),
            Self::Services(services, cores) => write!(f, "{services} services for {cores} cores"),
        }
    }
}

impl std::error::Error for EngineError {}

macro_rules! from {
    ($($variant:ident($error:ty)),*) => {$(
        impl From<$error> for EngineError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

from!(Cores(CorePlanError), Machine(Refusal), AccessList(AccessListError), Privileges(PrivilegesError));

/// An engine whose machine has been checked, ready for sockets to be bound.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    epoch: Epoch,
    plan: CorePlan,
    steering: Steering,
    registry: Registry,
    access: Arc<SharedAccessList>,
    metrics: Option<TcpListener>,
    process: ProcessFigures,
    supervisor: Supervisor,
    watches: Vec<Box<dyn Watch>>,
}

impl Engine {
    /// Begins to listen to signals and makes panics fatal, plans the cores, checks what the machine allows, reads the
    /// access list and opens the metrics endpoint. Starts no core and drops no privilege yet.
    ///
    /// # Errors
    /// Anything that would keep the tracker from running, with its remedy.
    pub fn prepare(config: EngineConfig) -> Result<Self, EngineError> {
        let epoch = Epoch::start();
        let supervisor = Supervisor::new();
        supervisor.listen_to_signals(epoch).map_err(EngineError::Thread)?;
        let plan = cores::plan_for_this_process(config.workers)?;
        let count = plan.cpus.len();
        if let Some(quota) = plan.throttled_to {
            log::warn!(
                "workers = {count}, but the control group of this process may use the time of {quota} processor(s) \
                 only: the kernel will stop all cores for part of the time. Set workers to {quota} or raise the quota"
            );
        }
        startup::check_io_uring()?;
        startup::ensure_locked_memory(count)?;
        let open_files = startup::Limit(startup::raise_open_files());
        let access = SharedAccessList::load(&config.access_list)?;
        let metrics = config.metrics.enable.then(|| server::bind(config.metrics.address)).transpose();
        let metrics = metrics.map_err(EngineError::Metrics)?;
        log::info!("using {count} core(s), processors {:?}; up to {open_files} open files", plan.cpus);
        Ok(Self {
            steering: Steering::new(count, &mut rand::make_rng::<StdRng>()),
            registry: Registry::default(),
            process: ProcessFigures::new(epoch, count),
            config,
            epoch,
            plan,
            access,
            metrics,
            supervisor,
            watches: vec![Box::new(LargePages::new())],
        })
    }

    /// How many cores the tracker uses.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.plan.cpus.len()
    }

    /// Which core owns which torrent; listeners bind their sockets by it.
    #[must_use]
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Where services register their counters, for each core.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Has the main thread look after something while the cores run.
    pub fn watch(&mut self, watch: impl Watch + 'static) {
        self.watches.push(Box::new(watch));
    }

    /// Drops privileges, starts the cores and runs until the process is told to stop. `services` has one element per
    /// core, in core order. Returns `Ok` after a stop that was asked for.
    ///
    /// The threads of the cores still exist when this returns, so the caller ends the process with
    /// `std::process::exit`. A panic in any thread ends the process with exit code
    /// [`PANIC_EXIT_CODE`](crate::supervise::PANIC_EXIT_CODE) without returning here.
    ///
    /// # Errors
    /// A core that could not be started, or any thread that ended by itself.
    pub fn run<S: CoreService>(self, services: Vec<S>) -> Result<(), EngineError> {
        if services.len() != self.cores() {
            return Err(EngineError::Services(services.len(), self.cores()));
        }
        privileges::drop_privileges(&self.config.privileges)?;
        if self.config.privileges.drop_privileges {
            // What was allowed to root may be forbidden to the user it has become.
            startup::check_io_uring()?;
        }
        let heartbeats = Heartbeats::new(self.cores());
        let stop = Arc::new(AtomicBool::new(false));
        let early = start_cores(&self, services, &heartbeats, &stop)?;
        let Self { config, epoch, plan, registry, access, metrics, process, supervisor, mut watches, .. } =
            self;
        watches.push(Box::new(SpareMemory::new(&registry)));
        if let Some(listener) = metrics {
            if let Ok(address) = listener.local_addr() {
                log::info!("metrics: http://{address}/metrics");
            }
            let process = process.try_clone();
            let exhibits =
                Exhibits { registry: registry.clone(), process, heartbeats: heartbeats.clone(), epoch };
            supervisor
                .spawn("aquatic-metrics", move || server::serve(&listener, exhibits))
                .map_err(EngineError::Thread)?;
        }
        let vigil = Vigil::new(epoch, config.statistics.interval, &registry, process, heartbeats, access)
            .with_watches(watches);
        supervise(vigil, &supervisor, early, plan.cpus.len(), &stop)
    }
}

/// Starts one core after the other, so that the first that cannot be started is the one reported. Returns what was
/// heard meanwhile and is to be seen to once all of them run.
fn start_cores<S: CoreService>(
    engine: &Engine,
    services: Vec<S>,
    heartbeats: &Heartbeats,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<Event>, EngineError> {
    let mut early = Vec::new();
    let Engine { config, supervisor, .. } = engine;
    let cores = engine.cores();
    let shard = ShardConfig::share_of(&config.limits, &config.cleaning, cores);
    let hash_key = HashKey(rand::make_rng::<StdRng>().random());
    let ends = mesh::full_mesh(cores);
    for (index, ((service, &cpu), ends)) in services.into_iter().zip(&engine.plan.cpus).zip(ends).enumerate()
    {
        let seat = Seat {
            index,
            cpu,
            service,
            ends,
            steering: engine.steering,
            epoch: engine.epoch,
            shard,
            hash_key: HashKey(hash_key.0),
            expiry_interval: Duration::from_secs(config.cleaning.interval.into()),
            access: Arc::clone(&engine.access),
            metrics: engine.registry.core(index),
            heartbeats: heartbeats.clone(),
            stop: Arc::clone(stop),
            events: supervisor.sender(),
        };
        supervisor
            .spawn(&format!("aquatic-core-{index}"), move || executor::run(seat))
            .map_err(EngineError::Thread)?;
        until_started(index, supervisor, &mut early)?;
    }
    Ok(early)
}

fn until_started(index: usize, supervisor: &Supervisor, early: &mut Vec<Event>) -> Result<(), EngineError> {
    loop {
        match supervisor.events.recv_timeout(START_DEADLINE) {
            Ok(Event::CoreStarted(Ok(()))) => return Ok(()),
            Ok(Event::CoreStarted(Err(why))) => return Err(EngineError::Core(index, why)),
            Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
            Ok(event @ (Event::Stop | Event::Reload | Event::CoreStopped(_))) => early.push(event),
            Err(_) => {
                let why = format!("no sign of life within {} s", START_DEADLINE.as_secs());
                return Err(EngineError::Core(index, why));
            }
        }
    }
}

/// The main thread's work once everything runs.
fn supervise(
    mut vigil: Vigil,
    supervisor: &Supervisor,
    early: Vec<Event>,
    cores: usize,
    stop: &AtomicBool,
) -> Result<(), EngineError> {
    let mut early = early.into_iter();
    loop {
        let next =
            early.next().map_or_else(|| supervisor.events.recv_timeout(vigil.until_next(VIGIL_INTERVAL)), Ok);
        match next {
            Ok(Event::Stop) => break,
            Ok(Event::Reload) => vigil.reload(),
            Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
            Ok(Event::CoreStarted(_) | Event::CoreStopped(_)) => {}
            Err(RecvTimeoutError::Timeout) => vigil.look(),
            // The supervisor itself holds a sender, so the channel stays open.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    log::info!("stopping");
    stop.store(true, Ordering::Relaxed);
    let deadline = vigil.now() + STOP_DEADLINE;
    let mut running: Vec<usize> = (0..cores).collect();
    while !running.is_empty() {
        match supervisor.events.recv_timeout(deadline.saturating_sub(vigil.now())) {
            Ok(Event::CoreStopped(index)) => running.retain(|&core| core != index),
            Ok(Event::Ended { who, why }) => return Err(EngineError::Ended { who, why }),
            Ok(Event::Stop | Event::Reload | Event::CoreStarted(_)) => {}
            Err(_) => {
                log::warn!("core(s) {running:?} did not finish within {} s", STOP_DEADLINE.as_secs());
                break;
            }
        }
    }
    log::info!("stopped");
    Ok(())
}
