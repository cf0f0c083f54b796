//! The UDP service of the tracker (BEP 15). Here belong its configuration, its connection ids, its pure request handler
//! and the thin layer that connects the handler to `aquatic_runtime`. Sockets, system calls, timers and cores belong to
//! `aquatic_runtime`, swarms to `aquatic_swarm`, bytes on the wire to `aquatic_udp_protocol`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod connection_id;
mod counters;
mod handler;
mod message;
mod report;
mod service;

pub use config::{NetworkConfig, ProtocolConfig, UdpConfig};
pub use connection_id::ConnectionIds;
pub use counters::{Action, Counters, Refusal};
pub use handler::{Handler, Listener, Packets, Turn};
pub use message::{Away, ForwardedAnnounce, ForwardedScrape};
pub use service::{UdpService, run};
