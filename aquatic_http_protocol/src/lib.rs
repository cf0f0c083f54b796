//! Requests and responses of the HTTP tracker protocol (BEP 3, 7, 23, 24, 31, 48) as bytes: what a tracker needs to
//! read requests and write responses, and what a client, such as the load test, needs to write requests and read
//! responses. Requests are read where they were received and responses are written into buffers of the caller, head and
//! body in one piece; nothing here allocates.
//!
//! What does not belong here: which requests are served, what a swarm contains, whose address a proxy speaks for, and
//! anything that touches a socket or a clock.
//!
//! A tracker tells three kinds of bytes apart:
//!
//! ```
//! use aquatic_http_protocol::{BufferTooSmall, DEFAULT_MAX_HEAD_LENGTH, Framing, PlainReply, Request, Parsed};
//!
//! # fn serve(_: &Request<'_>, framing: Framing, reply: &mut [u8]) -> Result<usize, BufferTooSmall> {
//! #     PlainReply::HEALTHY.encode(framing, reply)
//! # }
//! /// Returns how much of both buffers was used and whether the connection goes on; nothing when it is to go on reading.
//! fn answer(received: &[u8], reply: &mut [u8]) -> Result<Option<(usize, usize, bool)>, BufferTooSmall> {
//!     match Request::parse(received, DEFAULT_MAX_HEAD_LENGTH) {
//!         Parsed::NeedMore => Ok(None),
//!         Parsed::Complete((head, request)) => {
//!             let written = serve(&request, head.framing, reply)?;
//!             Ok(Some((head.length, written, !head.framing.closes())))
//!         }
//!         Parsed::Refused(refused) => {
//!             let written = refused.encode(reply)?;
//!             Ok(Some((refused.length, written, !refused.framing.closes())))
//!         }
//!     }
//! }
//! # let used = answer(b"GET /health HTTP/1.1\r\n\r\n", &mut [0; 200]).unwrap().unwrap();
//! # assert_eq!((used.0, used.2), (24, true));
//! ```

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
mod wire;

pub use aquatic_common::BufferTooSmall;
pub use bencode::{BencodeError, is_canonical};
pub use client_request::{AnnounceFields, ClientHeaders, encode_scrape_request};
pub use client_response::{
    AnnounceView, FailureView, Reply, ReplyError, Response, ResponseError, ScrapeView,
};
pub use framing::{Framing, Method, Persistence};
pub use head::{DEFAULT_MAX_HEAD_LENGTH, Head, Headers, MAX_HEADERS, Path};
pub use refusal::{FailureReason, Fault, HttpFault, Refusal, Refused};
pub use request::{AnnounceRequest, Request, ScrapeRequest};
pub use response::{
    ANNOUNCE_REPLY_OVERHEAD, AnnounceReply, FailureReply, PlainReply, Retry, ScrapeFile, ScrapeReply, Status,
};
pub use wire::Parsed;
