//! Codec of the HTTP tracker protocol (BEP 3, 7, 23, 24, 31, 48), for trackers (request decoding, response
//! encoding) and for clients such as the load test (request encoding, response decoding). Requests are parsed
//! in the receive buffer and responses are written into buffers of the caller, head and body in one piece;
//! nothing here allocates.
//!
//! In this crate a *response* is a message of HTTP, and a *reply* is what a tracker says in its body.
//!
//! Out of scope: which requests are served, swarms, the client addresses that proxies state, sockets and
//! clocks.
//!
//! A tracker distinguishes three results of parsing:
//!
//! ```
//! use aquatic_http_protocol::{BufferTooSmall, DEFAULT_MAX_HEAD_LENGTH, Framing, Parsed, PlainReply, Request};
//!
//! # fn serve(_: &Request<'_>, framing: Framing, reply: &mut [u8]) -> Result<usize, BufferTooSmall> {
//! #     PlainReply::HEALTHY.encode(framing, reply)
//! # }
//! /// Returns how much of both buffers was used and whether the connection persists; `None` if more is needed.
//! fn respond(received: &[u8], reply: &mut [u8]) -> Result<Option<(usize, usize, bool)>, BufferTooSmall> {
//!     match Request::parse(received, DEFAULT_MAX_HEAD_LENGTH) {
//!         Parsed::NeedMore => Ok(None),
//!         Parsed::Complete((head, request)) => {
//!             let written = serve(&request, head.framing, reply)?;
//!             Ok(Some((head.length, written, head.keep_alive())))
//!         }
//!         Parsed::Refused(refused) => {
//!             let written = refused.encode(reply)?;
//!             Ok(Some((refused.length, written, !refused.framing.closes())))
//!         }
//!     }
//! }
//! # let used = respond(b"GET /health HTTP/1.1\r\n\r\n", &mut [0; 200]).unwrap().unwrap();
//! # assert_eq!((used.0, used.2), (24, true));
//! ```
//!
//! A server of further resources parses a [`Head`] and routes its path before or after
//! [`TrackerRoute::classify`].

#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod bencode;
mod client_request;
mod client_response;
mod framing;
mod head;
mod query;
mod refusal;
mod request;
mod response;
mod route;
mod wire;

pub use aquatic_common::BufferTooSmall;
pub use bencode::{BencodeError, is_canonical};
pub use client_request::{AnnounceFields, ClientHeaders, encode_scrape_request};
pub use client_response::{
    AnnounceView, FailureView, ListedPeers, Reply, ReplyError, Response, ResponseError, ScrapeView,
};
pub use framing::{Framing, Method, Persistence, Version};
pub use head::{DEFAULT_MAX_HEAD_LENGTH, Head, Headers, MAX_HEADERS};
pub use refusal::{FailureReason, Fault, HttpFault, Refusal, Refused};
pub use request::{AnnounceRequest, Request, ScrapeRequest};
pub use response::{
    ANNOUNCE_REPLY_OVERHEAD, AnnounceReply, FailureReply, HeaderField, PlainReply, ResponseHead, Retry,
    ScrapeFile, ScrapeReply, Status,
};
pub use route::TrackerRoute;
pub use wire::Parsed;
