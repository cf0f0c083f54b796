//! The engine under every service of the tracker: one thread per core, the same program on each.

pub mod access_list;
pub mod clock;
pub mod config;
pub mod core;
pub mod engine;
pub mod mesh;
pub mod metrics;
pub mod net;
pub mod readiness;
pub mod router;
pub mod steering;
pub mod swarm_placeholder;
pub mod udp;

pub use config::EngineConfig;
pub use core::Core;
pub use engine::{CoreService, Engine, EngineError};
