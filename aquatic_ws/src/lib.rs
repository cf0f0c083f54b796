//! WebTorrent service of the tracker: configuration, swarms, WebSocket framing, a pure request handler, and a
//! layer that connects the handler to the runtime. Timers and cores belong to `aquatic_runtime`, sockets and
//! TLS to `aquatic_net`, HTTP before the upgrade to `aquatic_web`, and the JSON messages to
//! `aquatic_ws_protocol`.
//!
//! # Modules
//!
//! Pure: [`swarm`] (peers of each torrent and pending offers), [`frames`] (WebSocket framing), `upgrade`
//! (opening handshake), `send_queue` and `memberships` (state of one connection), `connections` (those of one
//! core), `forwarding` (messages between cores), [`nodes`] (those between nodes of a cluster), and `tracker`,
//! which combines them.
//!
//! With I/O: `session` (one connection), `exchange` (with other nodes) and `service` (all else).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod connections;
mod counters;
mod counts;
mod exchange;
mod forwarding;
pub mod frames;
mod labels;
mod memberships;
pub mod nodes;
mod send_queue;
mod service;
mod session;
pub mod swarm;
mod tracker;
mod upgrade;

pub use config::{WsCleaningConfig, WsClientConfig, WsConfig, WsLimitsConfig};
pub use connections::End;
pub use counts::WsCounts;
pub use exchange::{NodeLink, WsNodes};
pub use forwarding::ForwardedBatch;
pub use service::{UpgradedClient, WsOverview, WsSeed, WsTracker};
pub use tracker::{Ended, RequestContext, Tracker};
