//! Codec of the WebTorrent tracker protocol (JSON in WebSocket messages), for trackers and for clients such
//! as the load test. Messages are parsed in the receive buffer; offers and answers are borrowed from it and
//! relayed byte for byte.
//!
//! In this crate an *offer* and an *answer* are those of WebRTC, and a *reply* is what a tracker says to a
//! request.
//!
//! Out of scope: WebSocket frames, which requests are served, swarms, sockets and clocks.
//!
//! The message that relays an offer does not depend on the peer that receives it:
//!
//! ```
//! use aquatic_ws_protocol::{ClientMessage, Limits, OfferRelays};
//!
//! /// Returns the messages that relay the offers of an announce, or the failure reply for its sender.
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
