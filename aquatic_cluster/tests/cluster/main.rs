//! The pure part of the cluster: wire format, streams, pulls, parts and nodes of the state machine.

#![allow(clippy::unwrap_used, clippy::unwrap_in_result, reason = "a failed helper is a failed test")]

mod codec;
mod nodes;
mod parts;
mod properties;
mod sessions;
mod streams;
