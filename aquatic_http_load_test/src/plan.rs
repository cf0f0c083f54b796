//! What all threads know: the configuration and what follows from it.

use aquatic_load_engine::clock::{Nanos, milliseconds};
use aquatic_load_engine::stage::Stage;
use aquatic_load_engine::tls::Tls;
use aquatic_load_engine::wire::Route;

use crate::config::Config;

/// Shared by all threads, never changed.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) stage: Stage,
    /// The tracker as requests name it.
    pub(crate) host: String,
    tls: Option<Tls>,
}

impl Plan {
    pub(crate) fn new(config: Config) -> anyhow::Result<Self> {
        Ok(Self {
            stage: Stage::new(&config.sources(), config.population.shape())?,
            host: config.tls.host(config.server_address),
            tls: Tls::wanted(&config.tls)?,
            config,
        })
    }

    /// How to make a connection from a source address.
    pub(crate) fn route(&self, address: u64) -> Route<'_> {
        Route {
            server: self.config.server_address,
            source: self.stage.source_ip(address),
            may_delay: self.config.connections.requests == 1,
            tls: self.tls.as_ref(),
        }
    }

    pub(crate) fn timeout(&self) -> Nanos {
        milliseconds(self.config.requests.timeout)
    }
}
