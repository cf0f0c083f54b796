//! What the load tests of all protocols share: a population of torrents and peers that costs no memory, pacing in
//! closed and open loop, latency histograms, progress on a terminal, and the final report. What does not belong here:
//! sockets that talk to trackers, messages, and anything only one protocol needs.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
pub mod conduct;
pub mod draw;
pub mod endpoints;
pub mod latency;
pub mod pacing;
pub mod population;
pub mod progress;
pub mod report;
pub mod settings;
pub mod sources;
pub mod tally;
