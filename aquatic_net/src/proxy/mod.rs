//! Whom a connection or request through a proxy comes from: pure parsers for the PROXY protocol and for request
//! headers, and the policy whom to believe.
//!
//! Invariants: nothing a stranger sends changes whom it is taken for; no bytes panic; nothing is allocated; a header
//! that comes in pieces means the same as one that comes at once.

mod cidr;
mod forwarded;
mod protocol;

pub use cidr::{BadNetwork, TrustedProxies};
pub use forwarded::{Client, ForwardedHeaders, NoClient};
pub use protocol::{Header, LONGEST_V1, LONGEST_V2, Source, parse};

/// What happens when a trusted proxy does not say, or not understandably, whom it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadHeader {
    /// The connection or request is refused.
    Refuse,
    /// The proxy's own address is used; a unix socket has none, so its requests are refused.
    UseSocketAddress,
}
