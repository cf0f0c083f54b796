//! What all threads know: the configuration and what follows from it.

use aquatic_load_engine::clock::{MILLISECOND, Nanos};
use aquatic_load_engine::stage::{self, Stage};
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
        let server = config.server_address;
        Ok(Self {
            stage: Stage::new(&config.sources(), config.population.shape())?,
            host: match config.tls.enable {
                true => format!("{}:{}", config.tls.server_name, server.port()),
                false => server.to_string(),
            },
            tls: if config.tls.enable { Some(Tls::new(&config.tls)?) } else { None },
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

    pub(crate) fn now(&self) -> Nanos {
        self.stage.clock.now()
    }

    pub(crate) fn timeout(&self) -> Nanos {
        Nanos::from(self.config.requests.timeout) * MILLISECOND
    }

    /// The share of a thread in a number of things.
    pub(crate) fn share(&self, all: u32, thread: u32) -> u32 {
        stage::share(all, self.config.threads, thread)
    }
}
