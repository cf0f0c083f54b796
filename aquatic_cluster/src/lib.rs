//! Cluster of trackers in which every node answers for all swarms.
//!
//! Nodes publish the changes of the peers that they hear in sealed batches with sequence numbers; a receiver
//! that sees a gap, or has just started, pulls what it lacks from one node. The modules listed first are
//! pure: bytes, time and randomness are arguments, actions are results (`machine`). What carries the actions
//! out, over NATS and through mailboxes of the cores, is below them. Peers and swarms themselves belong to
//! `aquatic_tracker`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

pub mod access;
pub mod cores;
pub mod counters;
pub mod dividing;
pub mod donor;
mod figures;
pub mod hello;
pub mod machine;
mod nats;
pub mod nodes;
pub mod parts;
pub mod pull;
pub mod puller;
pub mod report;
pub mod seal;
pub mod streams;
pub mod thread;
pub mod trial;
pub mod wire;

pub use machine::{Action, Cluster, Notice, Settings, Status, Subject};

/// Milliseconds of a clock that only moves forward.
pub type Millis = u64;

/// Name of the host.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
