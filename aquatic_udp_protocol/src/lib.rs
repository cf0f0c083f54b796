//! Codec of the UDP tracker protocol (BEP 15, with the options of BEP 41 and the paused event of BEP 21), for
//! trackers (request decoding, reply encoding) and for clients such as the load test (request encoding, reply
//! decoding). Messages are views into the received packet and are written into buffers of the caller; nothing
//! here allocates.
//!
//! Out of scope: which requests are served, how connection ids are made and checked, swarms, sockets and
//! clocks.
//!
//! A tracker distinguishes three kinds of packets:
//!
//! ```
//! use aquatic_udp_protocol::{ErrorReply, ParseError, Request};
//!
//! # fn accepts(_: aquatic_udp_protocol::ConnectionId) -> bool { true }
//! fn respond<'a>(packet: &[u8], reply: &'a mut [u8]) -> Option<&'a [u8]> {
//!     let length = match Request::parse(packet) {
//!         Ok(Request::Connect(_connect)) => return None, // hand out a connection id
//!         Ok(Request::Announce(announce)) if accepts(announce.connection_id()) => return None,
//!         Ok(Request::Scrape(scrape)) if accepts(scrape.connection_id()) => return None,
//!         // Malformed, but the sender owns its address: reply with the fault.
//!         Err(ParseError::Malformed { connection_id, transaction_id, fault }) if accepts(connection_id) => {
//!             ErrorReply { transaction_id, text: fault.text() }.encode(reply).ok()?
//!         }
//!         // The source address may be forged: no reply.
//!         Ok(_) | Err(_) => return None,
//!     };
//!     reply.get(..length)
//! }
//! # let _ = respond(&[0; 16], &mut [0; 100]);
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod request;
mod response;
mod wire;

pub use aquatic_common::BufferTooSmall;
pub use request::{
    AnnounceFields, AnnounceRequest, ConnectRequest, Fault, ParseError, Request, ScrapeRequest, Unanswerable,
    encode_scrape_request,
};
pub use response::{
    ANNOUNCE_HEAD_LENGTH, AnnounceHead, AnnounceReply, ConnectReply, ErrorReply, ErrorView, Peers, Response,
    ResponseError, SCRAPE_HEAD_LENGTH, ScrapeReply, ScrapeView,
};
pub use wire::{Action, ConnectionId, PeerV4, PeerV6, RequestHead, TorrentCounts, TransactionId};
