//! What every part of the tracker agrees on: info hashes and peer ids, peer addresses, announce events, coarse time,
//! buffers that are too small, the access list, and the way settings are declared, with the blocks of settings that several protocols share. A rule
//! that two protocols need belongs here the first time it is written. What does not: sockets, clocks, randomness,
//! executors, log lines, and anything only one protocol needs.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod access_list;
pub mod addr;
mod buffer;
pub mod config;
mod event;
mod identity;
pub mod settings;
pub mod steering;
pub mod time;

pub use access_list::{AccessList, AccessListMode};
pub use addr::{Family, canonical};
pub use buffer::BufferTooSmall;
pub use event::AnnounceEvent;
pub use identity::{InfoHash, ParseHexError, PeerId};
pub use steering::Steering;
pub use time::Seconds;
