//! Load test for WebTorrent trackers of any make, plain and over TLS: simulates browsers that announce with
//! offers, answer the offers relayed to them, connect and leave, or stay idle; verifies that each relay is
//! delivered unmodified, once, to the right peer; and reports throughput and latency. What other load tests
//! share is in `aquatic_load_engine`. The crate does not use the codec of the tracker: JSON is decoded by
//! `simd-json`, and `async-tungstenite` is available as an independent WebSocket client.

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
