//! The HTTP and HTTPS tracker (BEP 3, 7, 23, 24, 31, 48). Here belong its configuration, its pure request
//! handler and the site that connects the handler to the front. Connections belong to `aquatic_net`, heads
//! and replies in order to `aquatic_web`, torrents to `aquatic_tracker`, bytes on the wire to
//! `aquatic_http_protocol`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod counters;
mod handler;
mod site;
mod waiting;

pub use config::HttpConfig;
pub use counters::{Action, Counters};
pub use handler::{ForwardedAnnounce, ForwardedScrape, Handled, Handler, Incoming, Sources};
pub use site::HttpTracker;
pub use waiting::{ResponseSlot, WaitingReply};
