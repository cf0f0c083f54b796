//! Load test for HTTP trackers of any make, plain and over TLS: simulates a population of peers on connections of its
//! own, kept or made for each request, in closed or open loop, checks the replies and reports throughput and latency.
//! What other load tests need too is in `aquatic_load_engine`; what HTTP trackers need too is in
//! `aquatic_http_protocol`.

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
