//! Configuration, and what is derived from it for all threads.

use aquatic_common::{InfoHash, PeerId};
use aquatic_load_engine::clock::{Nanos, milliseconds};
use aquatic_load_engine::connection::ConnectOptions;
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
        Ok(Self {
            topology: Topology::new(&config.sources(), config.shape())?,
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
        self.topology.population.torrent_of(self.peer(connection, membership))
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
