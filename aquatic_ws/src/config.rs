//! What an operator can set.

use aquatic_common::config::{
    AccessListConfig, CleaningConfig, LogLevel, MetricsConfig, PrivilegesConfig, StatisticsConfig,
    check_peer_age,
};
use aquatic_common::settings::{Configuration, Problem};
use aquatic_net::tcp::config::{ConnectionsConfig, ProxiesConfig, TcpConfig, TcpNetworkConfig};

use crate::swarm::SwarmLimits;

aquatic_common::settings! {
    /// A WebTorrent tracker.
    pub struct WsConfig {
        /// Number of worker threads, each pinned to a core of its own; 0 for one per available core.
        pub workers: usize = 0, unit "threads", in 0..=1024;
        /// How much to log. Addresses of clients appear at debug and below.
        pub log_level: LogLevel = LogLevel::Info;

        // Sections without words of their own here say what they are for where they are declared.

        /// Where to listen, and whether connections are encrypted. Browsers connect to wss:// from pages of https://.
        pub network: TcpNetworkConfig;
        /// How many connections there may be, and how long each may take for what. A connection that is silent for
        /// half of max_connection_idle is sent a ping, which browsers answer by themselves.
        pub connections: ConnectionsConfig;
        pub client: ClientConfig;
        pub proxies: ProxiesConfig;
        pub protocol: ProtocolConfig;
        /// How long peers are remembered that stay connected without announcing. All others are forgotten with
        /// their connection.
        pub cleaning: WsCleaningConfig;
        pub limits: WsLimitsConfig;
        pub access_list: AccessListConfig;
        pub privileges: PrivilegesConfig;
        pub metrics: MetricsConfig;
        pub statistics: StatisticsConfig;
    }
}

aquatic_common::settings! {
    /// What one connection may do.
    pub struct ClientConfig {
        /// Longest message. One with ten offers takes 10 to 30 KB. Longer ones end the connection.
        pub max_message_size: usize = 65_536, unit "bytes", in 4096..=1_048_576;
        /// Messages a second in the long run; 0 for no limit. A connection with more is read from more slowly.
        pub max_message_rate: u32 = 100, unit "messages", in 0..=1_000_000;
        /// Messages that may come at once.
        pub max_message_burst: u32 = 1000, unit "messages", in 1..=1_000_000;
        /// Torrents, or peers in the same torrent, announced over one connection, of some 60 bytes each. Further
        /// ones are refused.
        pub max_peers: usize = 1000, unit "peers", in 1..=1_000_000;
        /// Different peer ids over one connection. Further ones are refused.
        pub max_peer_ids: usize = 20, unit "peer ids", in 1..=100_000;
        /// Most bytes that wait to be sent to a client. Who does not receive them is disconnected.
        pub max_unsent_bytes: usize = 262_144, unit "bytes", in 65_536..=16_777_216;
        /// Most messages that wait to be sent to a client.
        pub max_unsent_messages: usize = 1024, unit "messages", in 16..=65_536;
        /// A connection without announce, answer or scrape for this long is closed. Must be at least twice the
        /// announce interval.
        pub max_announce_idle: u32 = 600, unit "seconds", in 10..=86_400;
    }
}

aquatic_common::settings! {
    /// What to answer.
    pub struct ProtocolConfig {
        /// Most offers of an announce that are passed on; further ones are left out.
        pub max_offers: usize = 10, unit "offers", in 0..=50;
        /// Most torrents answered for in a scrape; further ones are left out.
        pub max_scrape_torrents: usize = 64, unit "torrents", in 1..=500;
        /// Time clients are asked to wait between two announces.
        pub peer_announce_interval: u32 = 120, unit "seconds", in 10..=86_400;
        /// Share by which the time is shortened at random, so that clients that came together do not come back
        /// together.
        pub announce_interval_jitter: u32 = 10, unit "percent", in 0..=50;
        /// Time within which an offer can be answered. Browsers give up after 50.
        pub max_offer_age: u32 = 120, unit "seconds", in 10..=3600;
    }
}

aquatic_common::settings! {
    /// How long peers are remembered, and how they are forgotten.
    pub struct WsCleaningConfig {
        /// A peer that has not announced for this long is forgotten, even if it is still connected.
        /// Must be at least twice the announce interval.
        pub max_peer_age: u32 = 600, unit "seconds", in 20..=172_800;
        /// One pass over all torrents takes this long. The work is spread evenly over it.
        pub interval: u32 = 60, unit "seconds", in 1..=3600;
    }
}

aquatic_common::settings! {
    /// Upper bounds on what the tracker remembers. At a limit it still answers, but does not store.
    /// Worst-case memory: 150 bytes per torrent plus 160 per peer and 24 per offer. Room is divided evenly among the
    /// workers.
    pub struct WsLimitsConfig {
        /// Torrents with at least one peer.
        pub max_torrents: u64 = 10_000_000, unit "torrents", in 1..=1_000_000_000;
        /// Peers of all torrents together.
        pub max_peers: u64 = 10_000_000, unit "peers", in 1..=1_000_000_000;
        /// Peers of one torrent.
        pub max_peers_per_torrent: usize = 1_000_000, unit "peers", in 1..=10_000_000;
        /// Offers that wait for an answer. Beyond it those of peers are forgotten that have offered least recently:
        /// they can no longer be answered.
        pub max_waiting_offers: u64 = 4_000_000, unit "offers", in 1..=1_000_000_000;
        /// Offers of one peer that wait for an answer. Beyond it the oldest of them are forgotten.
        pub max_waiting_offers_per_peer: usize = 100, unit "offers", in 50..=10_000;
    }
}

impl WsConfig {
    /// The blocks that all services with connections have.
    #[must_use]
    pub fn tcp(&self) -> TcpConfig<'_> {
        TcpConfig { network: &self.network, connections: &self.connections, proxies: &self.proxies }
    }

    /// Each core's part of what may be remembered.
    #[must_use]
    pub fn swarm_limits(&self, cores: usize) -> SwarmLimits {
        let cores = cores.max(1) as u64;
        let share =
            |total: u64| usize::try_from(total.div_ceil(cores)).unwrap_or(usize::MAX).min(u32::MAX as usize);
        SwarmLimits {
            max_torrents: share(self.limits.max_torrents),
            max_peers: share(self.limits.max_peers),
            max_peers_per_torrent: self.limits.max_peers_per_torrent,
            max_offers: share(self.limits.max_waiting_offers),
            max_offers_per_peer: self.limits.max_waiting_offers_per_peer,
            max_peer_age: self.cleaning.max_peer_age,
            max_offer_age: self.protocol.max_offer_age,
        }
    }
}

impl Configuration for WsConfig {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        self.tcp().check(problems);
        self.tcp().listen().check_metrics(&self.metrics, problems);
        self.privileges.check(problems);
        let interval = self.protocol.peer_announce_interval;
        let WsCleaningConfig { max_peer_age, interval: pass } = self.cleaning;
        check_peer_age(&CleaningConfig { max_peer_age, interval: pass }, interval, problems);
        if self.client.max_announce_idle < interval.saturating_mul(2) {
            let text = format!(
                "{} s is less than twice protocol.peer_announce_interval ({interval} s): clients that keep to it \
                 would be disconnected",
                self.client.max_announce_idle
            );
            problems.push(Problem::new("client.max_announce_idle", text));
        }
        if self.client.max_message_burst < self.client.max_message_rate {
            let text = "is less than client.max_message_rate, which can then not be reached";
            problems.push(Problem::new("client.max_message_burst", text));
        }
    }

    fn log_level(&self) -> LogLevel {
        self.log_level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let config: WsConfig = toml::from_str(text).unwrap();
        config.problems().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn defaults_are_sound() {
        assert_eq!(WsConfig::default().problems(), []);
    }

    #[test]
    fn impossible_combinations_are_named() {
        assert_eq!(
            problems("protocol.peer_announce_interval = 301"),
            ["cleaning.max_peer_age", "client.max_announce_idle"]
        );
        assert_eq!(problems("client.max_message_rate = 2000"), ["client.max_message_burst"]);
        assert_eq!(problems("network.use_ipv4 = false\nnetwork.use_ipv6 = false"), ["network.use_ipv4"]);
    }

    #[test]
    fn every_core_has_its_share() {
        let limits = WsConfig::default().swarm_limits(3);
        assert_eq!((limits.max_torrents, limits.max_peers_per_torrent), (3_333_334, 1_000_000));
    }
}
