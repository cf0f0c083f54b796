//! Cluster of trackers in which every node answers for all swarms.
//!
//! Nodes publish the changes of the peers that they hear in sealed batches with sequence numbers; a receiver that
//! sees a gap, or has just started, pulls what it lacks from one node. The modules listed first are pure: bytes,
//! time and randomness are arguments, actions are results (`machine`). What carries the actions out, over NATS and
//! through mailboxes of the cores, is below them. Peers and swarms themselves belong to `aquatic_tracker`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

pub mod counters;
pub mod hello;
pub mod machine;
pub mod nodes;
pub mod parts;
pub mod pull;
pub mod seal;
pub mod streams;
pub mod wire;
