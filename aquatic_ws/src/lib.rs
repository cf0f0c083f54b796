//! The WebTorrent over WebSocket service of the tracker. Here belong its configuration, its swarms of browsers, its frames,
//! its pure request handler and the thin layer that connects the handler to `aquatic_runtime`. Sockets, TLS, timers and
//! cores belong to `aquatic_runtime`, JSON on the wire to `aquatic_ws_protocol`.
//!
//! # The rooms
//!
//! Pure: [`swarm`] (who is in which torrent, and which offers wait for answers), [`frames`] (WebSocket), `upgrade` (the
//! request before it), `outbound` and `joined` (what one connection has waiting, and what it has brought),
//! `connections` (all of a core, and whether they live), `scrapes`, `message` (what cores say to each other), and
//! `tracker`, which puts them together.
//!
//! Not pure: `session` (one connection) and `service` (the rest).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod connections;
mod counters;
pub mod frames;
mod joined;
mod message;
mod outbound;
mod scrapes;
mod service;
mod session;
pub mod swarm;
mod tracker;
mod upgrade;

pub use config::{WsCleaningConfig, WsClientConfig, WsConfig, WsLimitsConfig};
pub use message::Batch;
pub use service::{WsSeed, WsTracker};
