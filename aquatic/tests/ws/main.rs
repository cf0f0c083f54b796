//! End-to-end tests of `aquatic ws` on two cores.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed, and waits for timers of another process"
)]

mod claims;
mod client;
mod connections;
mod floods;
mod limits;
mod proxies;
mod relays;
#[path = "../support/mod.rs"]
mod support;
mod tls;
