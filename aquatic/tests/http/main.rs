//! The real program over real connections: what clients of an HTTP tracker see. Trackers run on two cores
//! where the machine has them, so that about half of all requests are for torrents of the other core.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

mod client;
mod connections;
mod frames;
mod proxies;
mod requests;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod tls;
