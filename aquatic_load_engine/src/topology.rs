//! Assignment of the population to source addresses.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, anyhow};

use crate::clock::{Clock, Nanos};
use crate::endpoints::Endpoints;
use crate::population::{Population, PopulationShape};
use crate::sources::{SourceAddresses, SourceSettings, default_source};

/// Population and source addresses of a test. All threads share it; it never changes.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Started with the test.
    pub clock: Clock,
    /// Simulated torrents and peers.
    pub population: Population,
    /// Source address and port of each peer.
    pub endpoints: Endpoints,
    sources: SourceAddresses,
    /// Whether sockets are bound to source addresses; otherwise the system chooses one.
    bind: bool,
}

impl Topology {
    /// Creates the topology for the configured source addresses.
    ///
    /// # Errors
    /// When the addresses have too few ports, or there is no route to the tracker.
    pub fn new(settings: &SourceSettings<'_>, shape: PopulationShape) -> anyhow::Result<Self> {
        let given = settings.first();
        let first = match given {
            Some(first) => first,
            None => {
                default_source(settings.server).with_context(|| format!("no route to {}", settings.server))?
            }
        };
        let endpoints = settings
            .endpoints()
            .map_err(|error| anyhow!("the population needs {} source addresses", error.addresses_needed))?;
        let sources = SourceAddresses::from(first);
        let last = endpoints.addresses() - 1;
        sources.ip(last).with_context(|| format!("fewer than {last} addresses follow {first}"))?;
        Ok(Self {
            clock: Clock::start(),
            population: Population::new(shape),
            endpoints,
            sources,
            bind: given.is_some(),
        })
    }

    /// Time since the start of the test.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// Source address with this index; `None` if the system chooses it.
    #[must_use]
    pub fn source_ip(&self, address: u64) -> Option<IpAddr> {
        if self.bind { self.sources.ip(address) } else { None }
    }

    /// Finds out whether the source addresses are this machine's.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check_sources(&self) -> anyhow::Result<()> {
        for ip in (0..self.endpoints.addresses()).filter_map(|address| self.source_ip(address)) {
            UdpSocket::bind((ip, 0))
                .with_context(|| format!("cannot send from {ip}: is it an address of this machine?"))?;
        }
        Ok(())
    }

    /// Peer of the population at an address and port.
    #[must_use]
    pub fn peer_at(&self, ip: IpAddr, port: u16) -> Option<u64> {
        self.endpoints.peer_at(self.sources.address_of(ip)?, port)
    }
}

/// Share of one thread when `all` items are divided evenly among `threads`.
#[must_use]
pub fn share(all: u32, threads: u32, thread: u32) -> u32 {
    all / threads + u32::from(thread < all % threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PopulationConfig;

    #[test]
    fn peers_are_found_at_their_source_addresses() {
        let server = "127.0.0.1:80".parse().unwrap();
        let settings = SourceSettings { server, address: "", addresses: 3, peers: 10, threads: 1 };
        let topology = Topology::new(&settings, PopulationConfig::default().shape()).unwrap();
        let third = topology.source_ip(2).unwrap();
        assert_eq!(third.to_string(), "127.0.0.3");
        assert_eq!(topology.peer_at(third, topology.endpoints.port_of(9)), Some(9));
        assert_eq!(topology.peer_at("127.0.0.4".parse().unwrap(), 1024), None);
    }

    #[test]
    fn source_addresses_must_exist() {
        let server = "127.0.0.1:80".parse().unwrap();
        let settings =
            SourceSettings { server, address: "255.255.255.254", addresses: 3, peers: 10, threads: 1 };
        assert!(Topology::new(&settings, PopulationConfig::default().shape()).is_err());
    }

    #[test]
    fn threads_get_even_shares() {
        assert_eq!([0, 1, 2].map(|thread| share(11, 3, thread)), [4, 4, 3]);
    }
}
