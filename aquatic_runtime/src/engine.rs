//! Starting, supervising and stopping.

use std::fmt;
use std::future::Future;
use std::rc::Rc;

use crate::config::EngineConfig;
use crate::core::Core;
use crate::metrics::Registry;
use crate::steering::Steering;

/// What runs on each core. The value is made in the main thread, one per core, with the sockets of that core; then it
/// moves to the core's thread and runs until the process stops.
pub trait CoreService: Send + 'static {
    /// What the cores of this process say to each other besides the questions of the router.
    type Message: Send + 'static;

    /// Runs the service. To return before [`Core::stopping`] completes, or to return an error, ends the process with a
    /// message.
    fn run(self, core: Rc<Core<Self::Message>>) -> impl Future<Output = anyhow::Result<()>> + 'static;
}

/// Why the engine did not start, or stopped by itself: what happened and what to do about it.
#[derive(Debug)]
pub struct EngineError(String);

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}

/// An engine whose machine has been checked, ready for sockets to be bound.
#[derive(Debug)]
pub struct Engine {
    steering: Steering,
    registry: Registry,
}

impl Engine {
    /// Plans the cores, checks what the machine allows, reads the access list and opens the metrics endpoint.
    /// Starts no thread and drops no privilege yet.
    ///
    /// # Errors
    /// Anything that would keep the tracker from running, with its remedy.
    pub fn prepare(config: EngineConfig) -> Result<Self, EngineError> {
        let _ = config;
        Err(EngineError("not written yet".to_owned()))
    }

    /// How many cores the tracker uses.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.steering.cores()
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

    /// Drops privileges, starts the cores and runs until the process is told to stop. `services` has one element per
    /// core, in core order. Returns `Ok` after a clean stop.
    ///
    /// The threads of the cores still exist when this returns, so the caller ends the process with
    /// `std::process::exit`. A panic in any thread has then already ended it.
    ///
    /// # Errors
    /// A core that could not be started, or any thread that ended by itself.
    pub fn run<S: CoreService>(self, services: Vec<S>) -> Result<(), EngineError> {
        let _ = services;
        Err(EngineError("not written yet".to_owned()))
    }
}
