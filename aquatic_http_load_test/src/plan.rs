//! Configuration, and what is derived from it for all threads.

use aquatic_load_engine::clock::{Nanos, milliseconds};
use aquatic_load_engine::connection::ConnectOptions;
use aquatic_load_engine::tls::TlsClient;
use aquatic_load_engine::topology::Topology;

use crate::config::Config;

/// Shared by all threads; never changes.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) topology: Topology,
    /// Host of requests.
    pub(crate) host: String,
    tls: Option<TlsClient>,
}

impl Plan {
    pub(crate) fn new(config: Config) -> anyhow::Result<Self> {
        Ok(Self {
            topology: Topology::new(&config.sources(), config.population.shape())?,
            host: config.tls.host(config.server_address),
            tls: TlsClient::new(&config.tls)?,
            config,
        })
    }

    /// Options of a connection from a source address.
    pub(crate) fn connect_options(&self, address: u64) -> ConnectOptions<'_> {
        ConnectOptions {
            server: self.config.server_address,
            source: self.topology.source_ip(address),
            nagle: self.config.connections.requests == 1,
            tls: self.tls.as_ref(),
        }
    }

    pub(crate) fn timeout(&self) -> Nanos {
        milliseconds(self.config.requests.timeout)
    }
}
