//! Load test for UDP trackers of any make: simulates a population of peers on sockets of its own, in closed
//! or open loop, verifies the replies and reports throughput and latency. What other load tests share is in
//! `aquatic_load_engine`, and the codec in `aquatic_udp_protocol`.

#![deny(unsafe_code)]

mod burst;
pub mod config;
mod counters;
mod fast_path;
mod in_flight;
mod plan;
mod reply_check;
mod run;
mod source;
mod sys;
mod traffic;
mod worker;

pub use run::run;
