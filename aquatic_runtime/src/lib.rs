//! The engine under every service of the tracker: one thread per core, one glommio executor on each, the same
//! program on each. A service is written against [`Core`] and started by [`Engine`]; glommio is used nowhere
//! else.
//!
//! What belongs here: cores, messages between them, waiting for descriptors, time, signals, supervision,
//! dropping privileges. What does not: sockets and connections (`aquatic_net`), torrents and peers
//! (`aquatic_tracker`), how configuration is read (`aquatic_cli_helpers`).
//!
//! # Modules
//!
//! In the main thread, before any core starts:
//! - [`engine`]: from a configuration to running cores and back to a clean exit.
//! - [`cores`]: which processors to use. [`startup`]: what the machine must allow. [`privileges`]: what is
//!   given up once sockets are bound. All of them explain themselves with a remedy. [`secrets`]: the source
//!   of all keys. [`state_directory`]: what is kept for the next process; `kept`: secret and epoch.
//!   [`listeners`]: sockets that the service manager has passed, and those to pass on.
//!
//! In the main thread, afterwards:
//! - `main_loop`: what the main thread does. [`handover`]: how another process takes over; [`serving`]: which
//!   of the two serves.
//! - [`supervise`]: threads, panics and signals. `drain`: getting rid of clients before a stop. `notify`:
//!   messages to the service manager. `housekeeping`: statistics, losses, and what services have registered
//!   as [`Periodic`]. [`health`]: stalled cores. [`LargePages`]: fewer misses of the TLB. `spare_memory`:
//!   memory that connections leave behind.
//!
//! On each core:
//! - [`core`]: the per-core context. `executor`: how it is started. `event_loop`: how it waits, with
//!   `timers` for deadlines and `notifier` for what comes from other cores. [`intake`]: whether anything is
//!   taken in.
//! - [`readiness`]: waiting for descriptors. [`channel`]: typed channels between cores. [`mod@mailbox`]: from
//!   any thread to one core. [`Turns`]: tasks that share something. [`clock`]: the time.
//!
//! # Rules for code on a core
//!
//! Each comes from a known fault of glommio 0.9.
//! - Never await a send to another core; an overflow is answered or counted, never silent.
//! - Never spawn per request or message: it takes a lock that all cores share. One task per connection; its
//!   reader and writer are joined inside it, because a task that spawns children and races them is never
//!   freed.
//! - One timer for many things: a sweep per core, not a sleep per connection.
//! - A loop that may never wait calls [`Core::yield_now`] between units of bounded work.
//! - Nothing waits for what glommio's reactor would have to notice: its timers, sockets and files, or a waker
//!   that is used on another thread. The reactor is not polled, see `event_loop`.
//! - No borrow of anything shared is held over an `.await`.
//! - No input of a client may reach a panic: it ends the process.
//! - Executors are made once per process and never taken down; the process exits around them. Tests that
//!   start an engine do so in a process of their own.

#![warn(missing_docs)]

pub mod channel;
pub mod clock;
pub mod config;
pub mod core;
mod core_state;
pub mod cores;
mod drain;
pub mod engine;
mod event_loop;
mod executor;
pub mod handover;
pub mod health;
mod housekeeping;
mod inline_tasks;
pub mod intake;
mod kept;
mod large_pages;
pub mod listeners;
pub mod mailbox;
mod main_loop;
pub mod memory;
mod notifier;
mod notify;
pub mod privileges;
pub mod readiness;
mod seccomp;
pub mod secrets;
pub mod serving;
mod spare_memory;
pub mod startup;
pub mod state_directory;
mod stop;
pub mod supervise;
mod sys;
mod timers;
mod turns;

pub use channel::{Batch, Channel, Outbox};
pub use config::EngineConfig;
pub use core::{Core, CoreService};
pub use core_state::{CoreState, CoreStates};
pub use engine::{Engine, EngineError};
pub use health::Health;
pub use housekeeping::{Periodic, StatisticsInterval};
pub use large_pages::LargePages;
pub use listeners::{ListenAddress, ListenSockets, PassedSockets};
pub use mailbox::{Broadcast, MailboxReceiver, MailboxSender, broadcast, mailbox, mailboxes};
pub use secrets::Secrets;
pub use serving::Serving;
pub use state_directory::{StateDirectory, StateDirectoryError};
pub use supervise::{DrainPlan, DrainTrigger, ReloadTrigger, SIGNAL_THREAD, StopHold};
pub use sys::ignore_file_size_signal;
pub use turns::{Turn, Turns};
