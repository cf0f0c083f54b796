//! The messages of the UDP tracker protocol (BEP 15, with the options of BEP 41 and the paused event of BEP 21) as
//! bytes: what a tracker needs to read requests and write replies, and what a client, such as the load test, needs to
//! write requests and read replies. Messages are views into the packet that brought them and are written into buffers
//! of the caller; nothing here allocates.
//!
//! What does not belong here: which requests are answered, how connection ids are made and checked, what a swarm
//! contains, and anything that touches a socket or a clock.
//!
//! A tracker tells three kinds of packets apart:
//!
//! ```
//! use aquatic_udp_protocol::{ErrorReply, ParseError, Request};
//!
//! # fn accepts(_: aquatic_udp_protocol::ConnectionId) -> bool { true }
//! fn answer<'a>(packet: &[u8], reply: &'a mut [u8]) -> Option<&'a [u8]> {
//!     let length = match Request::parse(packet) {
//!         Ok(Request::Connect(_connect)) => return None, // hand out a connection id
//!         Ok(Request::Announce(announce)) if accepts(announce.connection_id()) => return None,
//!         Ok(Request::Scrape(scrape)) if accepts(scrape.connection_id()) => return None,
//!         // Too broken to serve, but whoever sent it owns the address: say what is wrong.
//!         Err(ParseError::Malformed { connection_id, transaction_id, fault }) if accepts(connection_id) => {
//!             ErrorReply { transaction_id, text: fault.text() }.encode(reply).ok()?
//!         }
//!         // Anyone may have sent this in the name of someone else: silence.
//!         Ok(_) | Err(_) => return None,
//!     };
//!     reply.get(..length)
//! }
//! # let _ = answer(&[0; 16], &mut [0; 100]);
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
