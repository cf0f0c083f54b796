//! Configuration, and what is derived from it for all threads.

use std::net::IpAddr;

use aquatic_common::Family;
use aquatic_load_engine::clock::{Nanos, milliseconds, seconds};
use aquatic_load_engine::topology::Topology;
use aquatic_udp_protocol::Peers;

use crate::config::Config;

/// Shared by all threads; never changes.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) topology: Topology,
    pub(crate) family: Family,
}

impl Plan {
    pub(crate) fn new(config: Config) -> anyhow::Result<Self> {
        Ok(Self {
            topology: Topology::new(&config.sources(), config.population.shape())?,
            family: Family::of(config.server_address.ip()),
            config,
        })
    }

    /// Passes the returned peers to `each`, in order; `None` for peers outside the population.
    pub(crate) fn returned_peers(&self, peers: Peers<'_>, each: &mut dyn FnMut(Option<u64>)) {
        match peers {
            Peers::V4(peers) => peers.iter().for_each(|peer| {
                let address = peer.address();
                each(self.topology.peer_at(IpAddr::V4(*address.ip()), address.port()));
            }),
            Peers::V6(peers) => peers.iter().for_each(|peer| {
                let address = peer.address();
                each(self.topology.peer_at(IpAddr::V6(*address.ip()), address.port()));
            }),
        }
    }

    pub(crate) fn timeout(&self) -> Nanos {
        milliseconds(self.config.requests.timeout)
    }

    pub(crate) fn connection_age(&self) -> Nanos {
        seconds(self.config.requests.connection_age)
    }
}
