//! Whom a connection or request through a proxy comes from: pure parsers, and the policy whom to believe.

mod cidr;
mod forwarded;

pub use cidr::{BadNetwork, TrustedProxies};
pub use forwarded::{Client, ForwardedHeaders, NoClient};

/// What happens when a trusted proxy does not say, or not understandably, whom it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadHeader {
    /// The connection or request is refused.
    Refuse,
    /// The proxy's own address is used; a unix socket has none, so its connections and requests are refused.
    UseSocketAddress,
}

/// The PROXY protocol in front of connections.
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// Who uses it, besides whoever connects to a unix socket.
    pub trusted: TrustedProxies,
    /// What happens when they do not.
    pub on_bad: OnBadHeader,
}
