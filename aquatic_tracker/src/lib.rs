//! What each core of the tracker knows about torrents, for every protocol: the shard of the torrents it owns,
//! which torrents are served, the announce interval, and how to ask the core that owns a torrent.
//!
//! - [`Tracker`]: the state of one core, pure: admission, apply point of announces, counts, intervals,
//!   expiry.
//! - [`Owners`]: the same with requests to the owners of other torrents ([`Waiter`], [`Respond`]), pure as
//!   well.
//! - [`LocalTracker`]: the same, connected to the channels and the clock of a core.
//! - [`TrackerSeed`]: what the main thread prepares for each core.
//! - [`gather`]: collecting the parts of a response from several cores. [`messages`]: what travels between
//!   cores.
//! - [`access_list`]: which torrents are served. [`interval`], [`stretch`]: when clients come back.
//!   [`expiry`]: background removal of silent peers. [`snapshot`]: what the next process goes on
//!   from. [`replication`]: what nodes tell each other.
//!
//! It knows neither sockets nor protocols.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod access_list;
pub mod admission;
mod clients;
pub mod expiry;
pub mod export;
pub mod forward;
pub mod gather;
pub mod interval;
mod local;
pub mod memory;
pub mod messages;
mod owners;
pub mod partition;
mod peer_rules;
pub mod reason;
pub mod replication;
pub mod requests;
mod seed;
pub mod snapshot;
pub mod stretch;
mod tracker;

pub use access_list::{AccessListError, MAX_DECISIONS, SharedAccessList, TooManyDecisions};
pub use admission::{Admission, AdmissionRequest, NotAdmitted};
pub use aquatic_swarm::{
    Completions, Origin, RankBy, RankCursor, SaveFilter, SavePass, SwarmCounts, TopTorrents,
};
pub use clients::ClientCounters;
pub use expiry::ExpirySettings;
pub use forward::{Forward, OwnerParts};
pub use gather::{Gather, RequestId, RouteError};
pub use interval::{IntervalPolicy, Intervals};
pub use local::LocalTracker;
pub use memory::{CoreBudget, Degradation, Intake, Store, StoreDegradation};
pub use owners::{OwnerResponse, Owners, Respond, Trackers, Waiter};
pub use peer_rules::{PeerFault, PeerRules};
pub use reason::{OTHER, Reason, ReasonCounters, RefusalCounters};
pub use seed::{TrackerSeed, TrackerSettings};
pub use stretch::Stretch;
pub use tracker::Tracker;
