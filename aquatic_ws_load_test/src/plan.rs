//! Configuration, and what is derived from it for all threads.

use aquatic_common::{InfoHash, PeerId};
use aquatic_load_engine::clock::{Nanos, milliseconds};
use aquatic_load_engine::connection::ConnectOptions;
use aquatic_load_engine::population::Population;
use aquatic_load_engine::tls::TlsClient;
use aquatic_load_engine::topology::Topology;

use crate::config::Config;
use crate::description::Template;
use crate::ids;
use crate::registry::Registry;
use crate::socket::Upgrade;

/// Shared by all threads. Only the registry changes.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) topology: Topology,
    /// Torrents of each connection, without repetition.
    memberships: Box<[u32]>,
    pub(crate) registry: Registry,
    pub(crate) offers: Template,
    pub(crate) answers: Template,
    /// Request of the upgrade.
    pub(crate) upgrade: Upgrade,
    tls: Option<TlsClient>,
}

impl Plan {
    pub(crate) fn new(config: Config) -> anyhow::Result<Self> {
        let host = config.tls.host(config.server_address);
        let topology = Topology::new(&config.sources(), config.shape())?;
        Ok(Self {
            memberships: memberships(&topology.population, config.connections.torrents),
            topology,
            registry: Registry::new(config.connections.count, config.population.torrents),
            offers: Template::new("offer", config.requests.sdp_length),
            answers: Template::new("answer", config.requests.sdp_length),
            upgrade: Upgrade::new(config.tls.enable, &host, &config.connections.path)?,
            tls: TlsClient::new(&config.tls)?,
            config,
        })
    }

    /// Options of a connection.
    pub(crate) fn connect_options(&self, connection: u32) -> ConnectOptions<'_> {
        ConnectOptions {
            server: self.config.server_address,
            source: self.topology.source_ip(u64::from(connection) % self.topology.endpoints.addresses()),
            nagle: false,
            tls: self.tls.as_ref(),
        }
    }

    /// Peer of the population, for one torrent of a connection.
    fn peer(&self, connection: u32, membership: u8) -> u64 {
        u64::from(connection) * u64::from(self.config.connections.torrents) + u64::from(membership)
    }

    /// Torrent of a connection.
    pub(crate) fn torrent(&self, connection: u32, membership: u8) -> u64 {
        let entry = usize::try_from(self.peer(connection, membership)).ok();
        entry.and_then(|entry| self.memberships.get(entry)).copied().map_or(0, u64::from)
    }

    pub(crate) fn info_hash(&self, connection: u32, membership: u8) -> InfoHash {
        self.topology.population.info_hash(self.torrent(connection, membership))
    }

    /// Membership of a connection in a torrent.
    pub(crate) fn membership(&self, connection: u32, info_hash: &InfoHash) -> Option<u8> {
        let torrents = self.config.connections.torrents;
        (0..torrents).find(|&membership| self.info_hash(connection, membership) == *info_hash)
    }

    pub(crate) fn is_seeder(&self, connection: u32, membership: u8) -> bool {
        self.topology.population.is_seeder(self.peer(connection, membership))
    }

    pub(crate) fn peer_id(&self, connection: u32, generation: u32) -> PeerId {
        ids::peer_id(self.seed(), connection, generation)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.config.population.seed
    }

    pub(crate) fn timeout(&self) -> Nanos {
        milliseconds(self.config.requests.timeout)
    }
}

/// Torrents of all connections, `torrents` of each. A tracker has one peer per connection and torrent, so a
/// torrent that was drawn twice is replaced by the next one, which is about as popular.
fn memberships(population: &Population, torrents: u8) -> Box<[u32]> {
    let shape = population.shape();
    let mut drawn: Vec<u32> = Vec::new();
    let mut first = 0;
    for peer in 0..shape.peers {
        if peer % u64::from(torrents) == 0 {
            first = drawn.len();
        }
        let mut torrent = population.torrent_of(peer);
        // Ends: there are at least as many torrents as a connection joins.
        while drawn.iter().skip(first).any(|&earlier| u64::from(earlier) == torrent) {
            torrent = (torrent + 1) % shape.torrents;
        }
        // Below the maximum of population.torrents.
        drawn.push(torrent as u32);
    }
    drawn.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torrents_of_a_connection_are_distinct() {
        let mut config = Config::default();
        config.connections.count = 50;
        config.connections.torrents = 3;
        config.population.torrents = 4;
        let plan = Plan::new(config).unwrap();
        for connection in 0..50 {
            let [a, b, c] = [0, 1, 2].map(|membership| plan.torrent(connection, membership));
            assert!(a != b && b != c && a != c && a.max(b).max(c) < 4, "{a} {b} {c}");
            assert_eq!(plan.membership(connection, &plan.info_hash(connection, 2)), Some(2));
        }
    }
}
