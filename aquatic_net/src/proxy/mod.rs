//! The client of a connection or request through a proxy: pure parsers for the PROXY protocol and for request
//! headers, and the proxies that are trusted to send them.
//!
//! Invariants: nothing an untrusted client sends changes its address; no bytes panic; nothing is allocated; a
//! header that is received in pieces means the same as one that is received at once.

mod cidr;
mod forwarded;
mod protocol;

pub use cidr::{BadNetwork, TrustedProxies};
pub use forwarded::{Client, ForwardedHeaders, NoClient};
pub use protocol::{Header, LONGEST_V1, LONGEST_V2, Source, parse};

/// What happens when a trusted proxy does not name its client, or in a form that cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadHeader {
    /// The connection or request is refused.
    Refuse,
    /// The proxy's own address is used; a unix socket has none, so its requests are refused.
    UseSocketAddress,
}
