//! What all threads know: the configuration and what follows from it.

use std::net::IpAddr;

use anyhow::{Context, anyhow};
use aquatic_common::Family;
use aquatic_load_engine::clock::{Clock, MILLISECOND, Nanos, seconds};
use aquatic_load_engine::endpoints::Endpoints;
use aquatic_load_engine::population::Population;
use aquatic_load_engine::sources::Sources;
use aquatic_udp_protocol::Peers;

use crate::config::Config;

/// Shared by all threads, never changed.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) family: Family,
    pub(crate) population: Population,
    pub(crate) endpoints: Endpoints,
    sources: Sources,
}

impl Plan {
    /// The plan for a configuration. `chosen_source` is the address the system would send from.
    pub(crate) fn new(config: Config, chosen_source: IpAddr) -> anyhow::Result<Self> {
        let endpoints = config
            .sources()
            .endpoints()
            .map_err(|error| anyhow!("the population needs {} source addresses", error.addresses_needed))?;
        let first = config.sources().first().unwrap_or(chosen_source);
        Ok(Self {
            clock: Clock::start(),
            family: Family::of(config.server_address.ip()),
            population: Population::new(config.population.shape()),
            endpoints,
            sources: Sources::from(first),
            config,
        })
    }

    /// A source address by its number.
    pub(crate) fn source_ip(&self, address: u64) -> anyhow::Result<IpAddr> {
        self.sources.ip(address).context("the source addresses run out of the IPv4 range")
    }

    /// The peers of the population that a tracker returned, in order; `None` stands for one of elsewhere.
    pub(crate) fn returned_peers(&self, peers: Peers<'_>, mut each: impl FnMut(Option<u64>)) {
        match peers {
            Peers::V4(peers) => peers.iter().for_each(|peer| {
                let address = peer.address();
                each(self.peer_at(IpAddr::V4(*address.ip()), address.port()));
            }),
            Peers::V6(peers) => peers.iter().for_each(|peer| {
                let address = peer.address();
                each(self.peer_at(IpAddr::V6(*address.ip()), address.port()));
            }),
        }
    }

    fn peer_at(&self, ip: IpAddr, port: u16) -> Option<u64> {
        self.endpoints.peer_at(self.sources.address_of(ip)?, port)
    }

    pub(crate) fn timeout(&self) -> Nanos {
        Nanos::from(self.config.requests.timeout) * MILLISECOND
    }

    pub(crate) fn connection_age(&self) -> Nanos {
        seconds(self.config.requests.connection_age)
    }
}
