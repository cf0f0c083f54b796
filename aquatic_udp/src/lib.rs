//! The UDP service of the tracker (BEP 15). Here belong its configuration, its connection ids, its pure
//! request handler and the thin layer that connects the handler to sockets and to the other cores. Sockets
//! belong to `aquatic_net`, timers and cores to `aquatic_runtime`, torrents to `aquatic_tracker`, bytes on
//! the wire to `aquatic_udp_protocol`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod connection_id;
mod counters;
mod fast_path;
mod forwarded;
mod handler;
mod noted;
mod overload;
mod service;
mod socket_counters;

pub use config::UdpConfig;
pub use connection_id::ConnectionIds;
pub use counters::{Action, Counters};
pub use forwarded::{Forwarded, ForwardedAnnounce, ForwardedScrape, MAX_SCRAPE};
pub use handler::{Handler, Listener, ReplyLimits, Sources};
pub use service::{UdpService, UdpSettings};
