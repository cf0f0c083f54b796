//! Load test for HTTP trackers of any make, plain and over TLS: simulates a population of peers on
//! connections of its own, kept alive or opened for each request, in closed or open loop, verifies the
//! replies and reports throughput and latency. What other load tests share is in `aquatic_load_engine`, and
//! the codec in `aquatic_http_protocol`.

#![forbid(unsafe_code)]

pub mod config;
mod counters;
mod plan;
mod reply_check;
mod run;
mod slot;
mod traffic;
mod worker;

pub use run::{print_targets, run};
