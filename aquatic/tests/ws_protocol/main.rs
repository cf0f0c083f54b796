//! The real program over real WebSockets, written and read without the tracker's own codec: what other
//! WebTorrent trackers are known to get wrong, one test each.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

mod browser;
mod messages;
mod relays;
#[path = "../support/mod.rs"]
mod support;
mod swarms;
