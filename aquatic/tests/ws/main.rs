//! `aquatic ws` from outside: what browsers and other clients of a WebTorrent tracker see, on two cores.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed, and waits for timers of another process"
)]

mod client;
mod connections;
mod limits;
mod meeting;
mod places;
mod proxies;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod tls;
