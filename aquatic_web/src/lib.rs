//! The HTTP/1 front of the tracker: one loop from received bytes to sent replies for everything that is
//! served over HTTP, and the hand-over of connections that become WebSockets.
//!
//! - [`Site`]: what answers requests: the tracker, status pages. [`Upgrade`]: what takes connections over.
//! - [`Front`]: the sites and buffers of one core. `session`: one connection, from its first byte to its end.
//! - [`Transport`]: what a session needs of a connection; tests script one.
//! - [`Pages`]: replies whose bodies many clients share, and streams of events.
//! - [`metrics_endpoint`]: metrics and health on an address of their own, on a thread beside the cores;
//!   [`side_listener`]: its connections.
//! - [`HttpChallenges`]: replies to the challenges of a certificate authority.
//!
//! What belongs here: heads, pipelining, order of replies, plain replies, routing. What does not: sockets,
//! TLS and deadlines (`aquatic_net`), the meaning of a request (the sites).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod front;
mod http_challenges;
pub mod metrics_endpoint;
mod pages;
mod session;
pub mod side_listener;
mod site;
mod transport;

pub use front::{Front, FrontSettings, reply_to_plain};
pub use http_challenges::HttpChallenges;
pub use pages::{Body, Events, PageReply, PageRequest, Pages};
pub use site::{
    AfterReply, Denied, NoUpgrade, Outcome, Site, Upgrade, UpgradeOutcome, Upgraded, Waiting, WebRequest,
};
pub use transport::{Runtime, Transport};
