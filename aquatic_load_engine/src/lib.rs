//! Shared parts of the load tests: a computed population of torrents and peers, source addresses,
//! non-blocking connections over TCP and TLS, scheduling in closed and open loop, latency histograms, a
//! progress bar and the report. Messages, and whatever only one protocol needs, do not belong here.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
pub mod command;
pub mod connection;
pub mod connection_slot;
pub mod endpoints;
pub mod event_loop;
pub mod events;
pub mod interrupt;
pub mod latency;
pub mod pacing;
pub mod peer_check;
pub mod phase;
pub mod population;
pub mod prefill;
pub mod progress;
pub mod queue;
pub mod ramp;
pub mod report;
pub mod rng;
pub mod run_phase;
pub mod settings;
pub mod sources;
mod sys;
pub mod tally;
pub mod tls;
pub mod topology;
