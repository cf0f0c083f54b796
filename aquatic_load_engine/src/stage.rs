//! Who acts in a test, and where from: the population at its addresses.

use std::net::IpAddr;

use anyhow::{Context, anyhow};

use crate::clock::{Clock, Nanos};
use crate::endpoints::Endpoints;
use crate::population::{Population, PopulationShape};
use crate::sources::{Sources, Wanted, system_choice};

/// The same for all threads, never changed.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Started when the test was.
    pub clock: Clock,
    /// Torrents and peers.
    pub population: Population,
    /// Which peers are at which address.
    pub endpoints: Endpoints,
    sources: Sources,
    /// Whether packets are sent from given addresses or from one that the system chooses.
    bind: bool,
}

impl Stage {
    /// The stage for a population that sends from the addresses that were asked for.
    ///
    /// # Errors
    /// When the addresses have too few ports, or there is no way to the tracker.
    pub fn new(wanted: &Wanted<'_>, shape: PopulationShape) -> anyhow::Result<Self> {
        let given = wanted.first();
        let first = match given {
            Some(first) => first,
            None => system_choice(wanted.server)
                .with_context(|| format!("there is no way to {}", wanted.server))?,
        };
        let endpoints = wanted
            .endpoints()
            .map_err(|error| anyhow!("the population needs {} source addresses", error.addresses_needed))?;
        let sources = Sources::from(first);
        let last = endpoints.addresses() - 1;
        sources.ip(last).with_context(|| format!("{first} is followed by less than {last} addresses"))?;
        Ok(Self {
            clock: Clock::start(),
            population: Population::new(shape),
            endpoints,
            sources,
            bind: given.is_some(),
        })
    }

    /// Time since the test was started.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// The address to send from, by its number; `None` leaves it to the system.
    #[must_use]
    pub fn source_ip(&self, address: u64) -> Option<IpAddr> {
        if self.bind { self.sources.ip(address) } else { None }
    }

    /// The peer that listens at an address and port, if it is one of the population.
    #[must_use]
    pub fn peer_at(&self, ip: IpAddr, port: u16) -> Option<u64> {
        self.endpoints.peer_at(self.sources.address_of(ip)?, port)
    }
}

/// The share of one of several threads in a number of things.
#[must_use]
pub fn share(all: u32, threads: u32, thread: u32) -> u32 {
    all / threads + u32::from(thread < all % threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PopulationConfig;

    #[test]
    fn peers_are_found_where_they_send_from() {
        let server = "127.0.0.1:80".parse().unwrap();
        let wanted = Wanted { server, address: "", addresses: 3, peers: 10, threads: 1 };
        let stage = Stage::new(&wanted, PopulationConfig::default().shape()).unwrap();
        let third = stage.source_ip(2).unwrap();
        assert_eq!(third.to_string(), "127.0.0.3");
        assert_eq!(stage.peer_at(third, stage.endpoints.port_of(9)), Some(9));
        assert_eq!(stage.peer_at("127.0.0.4".parse().unwrap(), 1024), None);
    }

    #[test]
    fn addresses_have_to_exist() {
        let server = "127.0.0.1:80".parse().unwrap();
        let wanted = Wanted { server, address: "255.255.255.254", addresses: 3, peers: 10, threads: 1 };
        assert!(Stage::new(&wanted, PopulationConfig::default().shape()).is_err());
    }

    #[test]
    fn threads_share_everything() {
        assert_eq!([0, 1, 2].map(|thread| share(11, 3, thread)), [4, 4, 3]);
    }
}
