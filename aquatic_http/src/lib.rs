//! The HTTP and HTTPS service of the tracker (BEP 3, 7, 23, 24, 31, 48). Here belong its configuration, its pure request
//! handler and the thin layer that connects the handler to `aquatic_runtime`. Sockets, TLS, timers and cores belong to
//! `aquatic_runtime`, swarms to `aquatic_swarm`, bytes on the wire to `aquatic_http_protocol`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod connection;
mod counters;
mod handler;
mod service;

pub use config::{HttpConfig, ProtocolConfig};
pub use counters::{Action, Counters, Why};
pub use handler::{AwayAnnounce, AwayScrape, Handler, Step, Then, Turn};
pub use service::{HttpService, run};
