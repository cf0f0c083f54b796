//! What the load tests of all protocols share: a population of torrents and peers that costs no memory, where peers send
//! from, connections over TCP and TLS that never block, pacing in closed and open loop, latency histograms, progress on a
//! terminal, and the final report. What does not belong here: messages, and anything only one protocol needs.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
pub mod command;
pub mod conduct;
pub mod draw;
pub mod endpoints;
pub mod events;
pub mod latency;
pub mod link;
pub mod pacing;
pub mod phase;
pub mod population;
pub mod prefill;
pub mod progress;
pub mod queues;
pub mod ramp;
pub mod report;
pub mod returned;
pub mod settings;
pub mod sources;
pub mod stage;
mod sys;
pub mod tally;
pub mod tls;
pub mod turns;
pub mod wire;
