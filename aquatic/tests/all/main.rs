//! `aquatic all`: one process and one configuration for UDP, HTTP and WebTorrent, from outside.

#![allow(clippy::print_stdout, reason = "tables and figures for whoever runs it with --nocapture")]
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed, and measures and waits for another process"
)]

mod breakers;
mod busy_core;
mod configuration;
mod connections;
mod cores;
mod exports;
#[allow(dead_code, reason = "shared with the tests of aquatic http")]
#[path = "../http/client.rs"]
mod http;
mod idle;
mod log;
mod matrix;
mod metrics;
mod peers;
#[path = "../support/mod.rs"]
mod support;
mod tracker;
mod udp;
#[allow(dead_code, reason = "shared with the tests of aquatic ws")]
#[path = "../ws/client.rs"]
mod ws;
