//! The engine under every service of the tracker: one thread per core, one glommio executor on each, the same program
//! on each. A service is written against [`Core`] and started by [`Engine`]; glommio is not used anywhere else.
//!
//! What belongs here: cores, messages between them, waiting for sockets, time, signals, supervision, dropping
//! privileges, metrics. What does not: what a packet means (the services and protocol crates), what is stored about
//! peers (`aquatic_swarm`), how configuration is read (`aquatic_cli_helpers`).
//!
//! # The rooms
//!
//! In the main thread, before any core starts:
//! - [`engine`]: the way from a configuration to running cores and back to a clean exit.
//! - [`cores`]: which processors to use. [`startup`]: what the machine must allow. [`net`]: why a listener cannot be
//!   bound. [`privileges`]: what is given up afterwards. All of them explain themselves with a remedy.
//!
//! In the main thread, afterwards:
//! - [`supervise`]: threads, panics and signals. `vigil`: statistics, losses, the access list; `watchdog`: cores that
//!   no longer move; `large_pages`: fewer detours on the way to memory; `spare_memory`: what connections leave behind.
//!
//! On each core:
//! - [`core`]: what a service finds there. `executor`: how it came to be. `look`: how it hears of the world.
//! - [`readiness`]: waiting for sockets. [`udp`]: sockets read and written in batches. [`tcp`]: connections, plain or
//!   encrypted. [`proxy`]: whom they come from.
//! - [`mesh`]: messages between cores. [`router`]: questions to the owner of a torrent. [`steering`]: who that is.
//! - [`clock`]: the time. `expiry`: forgetting peers. [`access_list`]: which torrents are served.
//! - [`metrics`] is for counting.
//!
//! # Rules for code on a core
//!
//! Each comes from a known fault of glommio 0.9.
//! - Never await a send to another core; an overflow is answered or counted, never silent.
//! - Never spawn per request or message: it takes a lock that all cores share. One task per connection; its reader and
//!   writer are joined inside it, because a task that spawns children and races them is never freed.
//! - One timer for many things: a sweep per core, not a sleep per connection.
//! - A loop that may never wait calls [`Core::yield_now`] between turns of bounded work. Other ways to yield do not
//!   let the executor look after messages and timers, see `look`.
//! - No borrow of the shard, or of anything shared, is held over an `.await`.
//! - No input of a client may reach a panic: it ends the process.
//! - Executors are made once per process and never taken down; the process exits around them. Tests that start an
//!   engine do so in a process of their own.

#![warn(missing_docs)]

pub mod access_list;
pub mod clock;
pub mod config;
pub mod core;
pub mod cores;
pub mod engine;
mod executor;
mod expiry;
mod large_pages;
mod look;
pub mod mesh;
pub mod metrics;
pub mod net;
pub mod privileges;
pub mod proxy;
pub mod readiness;
pub mod router;
mod spare_memory;
pub mod startup;
pub mod steering;
mod stop;
pub mod supervise;
mod sys;
pub mod tcp;
pub mod udp;
mod vigil;
mod watchdog;

pub use config::EngineConfig;
pub use core::Core;
pub use engine::{CoreService, Engine, EngineError, Watch};
