//! What all threads know: the configuration and what follows from it.

use std::net::IpAddr;

use anyhow::{Context, anyhow};
use aquatic_load_engine::clock::{Clock, MILLISECOND, Nanos};
use aquatic_load_engine::endpoints::Endpoints;
use aquatic_load_engine::population::Population;
use aquatic_load_engine::sources::{Sources, system_choice};

use crate::config::Config;
use crate::tls::Tls;

/// Shared by all threads, never changed.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) population: Population,
    pub(crate) endpoints: Endpoints,
    pub(crate) tls: Option<Tls>,
    /// The tracker as requests name it.
    pub(crate) host: String,
    sources: Sources,
    /// Whether connections are made from given addresses or from one that the system chooses.
    bind: bool,
}

impl Plan {
    pub(crate) fn new(config: Config) -> anyhow::Result<Self> {
        let server = config.server_address;
        let given = config.sources().first();
        let first = match given {
            Some(first) => first,
            None => system_choice(server).with_context(|| format!("there is no way to {server}"))?,
        };
        let endpoints = config
            .sources()
            .endpoints()
            .map_err(|error| anyhow!("the population needs {} source addresses", error.addresses_needed))?;
        Ok(Self {
            clock: Clock::start(),
            population: Population::new(config.population.shape()),
            endpoints,
            tls: if config.tls.enable { Some(Tls::new(&config.tls)?) } else { None },
            host: match config.tls.enable {
                true => format!("{}:{}", config.tls.server_name, server.port()),
                false => server.to_string(),
            },
            sources: Sources::from(first),
            bind: given.is_some(),
            config,
        })
    }

    /// The address to make a connection from; `None` leaves it to the system.
    pub(crate) fn source_ip(&self, address: u64) -> Option<IpAddr> {
        if self.bind { self.sources.ip(address) } else { None }
    }

    /// The peer that listens at an address and port, if it is one of the population.
    pub(crate) fn peer_at(&self, ip: IpAddr, port: u16) -> Option<u64> {
        self.endpoints.peer_at(self.sources.address_of(ip)?, port)
    }

    pub(crate) fn timeout(&self) -> Nanos {
        Nanos::from(self.config.requests.timeout) * MILLISECOND
    }

    /// The share of a thread in a number of things.
    pub(crate) fn share(&self, all: u32, thread: u32) -> u32 {
        let threads = self.config.threads;
        all / threads + u32::from(thread < all % threads)
    }
}
