//! Load test for WebTorrent trackers of any make, plain and over TLS: simulates browsers that announce with offers,
//! answer the offers relayed to them, come and go, or just stay connected; checks that each relay reaches the right
//! peer, whole and once; and reports throughput and latency. What other load tests need too is in
//! `aquatic_load_engine`. It shares no code with the trackers of this repository: WebSocket is `async-tungstenite`'s, JSON
//! is `simd-json`'s.

#![forbid(unsafe_code)]

pub mod config;
mod counters;
mod decode;
mod description;
mod ids;
mod messages;
mod plan;
mod registry;
mod run;
mod slot;
mod socket;
mod worker;

pub use run::run;
