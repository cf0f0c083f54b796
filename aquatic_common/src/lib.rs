//! Types and rules that several parts of the tracker share: info hashes and peer ids, peer addresses,
//! announce events, coarse time, reading files that settings name, background expiry, the access list, the
//! format of lists in files, loads of sources, episodes above a limit, breakers, the declaration of settings,
//! and the sections of settings that several protocols read. A rule that two protocols need belongs here the
//! first time it is written. Sockets, clocks, randomness, executors, log lines, and anything that only one
//! protocol needs do not.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod access_list;
pub mod addr;
pub mod breaker;
mod buffer;
pub mod config;
mod configuration_error;
pub mod episodes;
mod event;
pub mod expiry;
pub mod files;
mod identity;
mod info_hash_set;
pub mod list;
pub mod load_table;
mod memory_limit;
pub mod ports;
pub mod prefix;
pub mod processors;
pub mod settings;
pub mod source_limit;
pub mod steering;
pub mod time;

pub use access_list::{AccessList, AccessListMode};
pub use addr::{AddressKind, Family, canonical, is_loopback};
pub use breaker::{Breaker, BreakerEvent, BreakerMode, BreakerRules, BreakerState};
pub use buffer::BufferTooSmall;
pub use configuration_error::ConfigurationError;
pub use event::AnnounceEvent;
pub use identity::{InfoHash, ParseHexError, PeerId};
pub use info_hash_set::{InfoHashSet, SetChange};
pub use memory_limit::{MemoryLimit, ParseMemoryLimitError};
pub use prefix::{Prefix, PrefixSet, canonical_network};
pub use source_limit::{Budget, BudgetRules, RateEvent, RateVerdict, SourceLimit, SourceRules};
pub use steering::Steering;
pub use time::Seconds;
