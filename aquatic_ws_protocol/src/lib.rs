//! Messages of the WebTorrent tracker protocol, which are JSON in WebSocket messages: what a tracker needs to read what
//! clients send and to write what they get, and what a client, such as the load test, needs for the opposite. Messages
//! are read where they were received; what peers tell each other is borrowed from there and goes on as it came.
//!
//! What does not belong here: frames of WebSocket, which requests are served, who is in a swarm, and anything that touches
//! a socket or a clock.
//!
//! An offer becomes a message for another peer as soon as it was read, whoever that peer will be:
//!
//! ```
//! use aquatic_ws_protocol::{ClientMessage, Limits, OfferRelays};
//!
//! /// Returns the messages for other peers that an announce contains, or what its sender gets to read instead.
//! fn relays(received: &str) -> Result<Vec<String>, String> {
//!     let mut relays = Vec::new();
//!     match ClientMessage::parse(received, &Limits::default()) {
//!         Ok(ClientMessage::Announce(announce)) => {
//!             let from = OfferRelays::new(announce.info_hash, announce.peer_id);
//!             for offer in &announce.offers {
//!                 let mut text = String::new();
//!                 from.encode(offer, &mut text);
//!                 relays.push(text);
//!             }
//!         }
//!         Ok(ClientMessage::Answer(_) | ClientMessage::Scrape(_)) => {}
//!         Err(refused) => {
//!             let mut text = String::new();
//!             refused.encode(&mut text);
//!             return Err(text);
//!         }
//!     }
//!     Ok(relays)
//! }
//! # assert_eq!(
//! #     relays(r#"{"action":"scrape"}"#).unwrap_err(),
//! #     r#"{"action":"scrape","failure reason":"full scrapes are not supported"}"#
//! # );
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod client;
mod description;
mod fault;
mod limits;
mod member;
mod offer_id;
mod output;
mod owned;
mod scan;
mod text;
mod tracker;

pub use client::{Announce, Answer, ClientMessage, Offer, Scrape};
pub use description::Description;
pub use fault::{Action, Fault, Field, Refused};
pub use limits::{Limits, MAX_DEPTH, MAX_OFFER_ID_LENGTH};
pub use offer_id::OfferId;
pub use output::Output;
pub use owned::OwnedOffers;
pub use tracker::{
    AnnounceReply, AnswerRelay, FailureReply, OfferRelay, OfferRelays, ScrapeFile, ScrapeReply,
    TrackerMessage,
};
