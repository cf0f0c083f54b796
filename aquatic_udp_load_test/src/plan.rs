//! What all threads know: the configuration and what follows from it.

use std::net::IpAddr;

use anyhow::{Context, anyhow};
use aquatic_common::Family;
use aquatic_load_engine::clock::{Clock, MILLISECOND, Nanos, seconds};
use aquatic_load_engine::endpoints::Endpoints;
use aquatic_load_engine::population::Population;
use aquatic_udp_protocol::Peers;

use crate::config::Config;

/// Shared by all threads, never changed.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) family: Family,
    pub(crate) population: Population,
    pub(crate) endpoints: Endpoints,
    /// The address the tracker sees on packets of the first source address, as a number.
    first_source: u128,
}

impl Plan {
    /// The plan for a configuration. `chosen_source` is the address the system would send from.
    pub(crate) fn new(config: Config, chosen_source: IpAddr) -> anyhow::Result<Self> {
        let endpoints = Endpoints::new(config.population.peers, config.source_count())
            .map_err(|error| anyhow!("the population needs {} source addresses", error.addresses_needed))?;
        let first_source = config.first_source().unwrap_or(chosen_source);
        Ok(Self {
            clock: Clock::start(),
            family: Family::of(config.server_address.ip()),
            population: Population::new(config.shape()),
            endpoints,
            first_source: ip_number(first_source),
            config,
        })
    }

    /// A source address by its number.
    pub(crate) fn source_ip(&self, address: u64) -> anyhow::Result<IpAddr> {
        let number = self.first_source + u128::from(address);
        match self.family {
            Family::V4 => {
                let bits = u32::try_from(number).context("the source addresses run out of the IPv4 range")?;
                Ok(IpAddr::V4(bits.into()))
            }
            Family::V6 => Ok(IpAddr::V6(number.into())),
        }
    }

    /// The peers of the population that a tracker returned, in order; `None` stands for one of elsewhere.
    pub(crate) fn returned_peers(&self, peers: Peers<'_>, mut each: impl FnMut(Option<u64>)) {
        match peers {
            Peers::V4(peers) => peers.iter().for_each(|peer| {
                let address = peer.address();
                each(self.peer_at(u128::from(u32::from(*address.ip())), address.port()));
            }),
            Peers::V6(peers) => peers.iter().for_each(|peer| {
                let address = peer.address();
                each(self.peer_at(u128::from(*address.ip()), address.port()));
            }),
        }
    }

    fn peer_at(&self, ip: u128, port: u16) -> Option<u64> {
        let address = u64::try_from(ip.checked_sub(self.first_source)?).ok()?;
        self.endpoints.peer_at(address, port)
    }

    pub(crate) fn timeout(&self) -> Nanos {
        Nanos::from(self.config.requests.timeout) * MILLISECOND
    }

    pub(crate) fn connection_age(&self) -> Nanos {
        seconds(self.config.requests.connection_age)
    }
}

fn ip_number(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}
