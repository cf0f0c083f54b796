//! What an operator can set.

use aquatic_common::config::{
    AccessListConfig, CleaningConfig, LimitsConfig, LogLevel, MetricsConfig, PrivilegesConfig,
    StatisticsConfig, check_peer_age,
};
use aquatic_common::settings::{Configuration, Problem};
use aquatic_common::time::shorten;
use aquatic_http_protocol::ANNOUNCE_REPLY_OVERHEAD;
use aquatic_net::tcp::config::{ConnectionsConfig, ProxiesConfig, TcpConfig, TcpNetworkConfig};

/// Bytes a peer takes at most in a reply.
const LONGEST_PEER: usize = 18;

/// Bytes a torrent takes at most in a scrape reply, and everything else in it.
const SCRAPE_FILE: usize = 100;
const SCRAPE_OVERHEAD: usize = 256;

aquatic_common::settings! {
    /// An HTTP or HTTPS tracker.
    pub struct HttpConfig {
        /// Number of worker threads, each pinned to a core of its own; 0 for one per available core.
        pub workers: usize = 0, unit "threads", in 0..=1024;
        /// How much to log. Addresses of clients appear at debug and below.
        pub log_level: LogLevel = LogLevel::Info;

        // Sections without words of their own here say what they are for where they are declared.
        pub network: TcpNetworkConfig;
        pub connections: ConnectionsConfig;
        pub proxies: ProxiesConfig;
        pub protocol: ProtocolConfig;
        pub cleaning: CleaningConfig;
        pub limits: LimitsConfig;
        pub access_list: AccessListConfig;
        pub privileges: PrivilegesConfig;
        pub metrics: MetricsConfig;
        pub statistics: StatisticsConfig;
    }
}

aquatic_common::settings! {
    /// What to answer.
    pub struct ProtocolConfig {
        /// Most peers in a reply, of both families together.
        pub max_response_peers: usize = 50, unit "peers", in 0..=1000;
        /// Most torrents answered for in a scrape; further ones are left out.
        pub max_scrape_torrents: usize = 100, unit "torrents", in 1..=500;
        /// Time clients are asked to wait between two announces.
        pub peer_announce_interval: u32 = 1800, unit "seconds", in 60..=86_400;
        /// Share by which the time is shortened at random, so that clients that came together do not come back
        /// together.
        pub announce_interval_jitter: u32 = 10, unit "percent", in 0..=50;
        /// Time clients are asked to wait even if their users want to announce at once.
        pub min_announce_interval: u32 = 300, unit "seconds", in 1..=86_400;
        /// Longest request, up to the end of its headers; longer ones are refused. Scrapes are the longest: 8192
        /// bytes are enough for some 100 torrents.
        pub max_request_size: usize = 8192, unit "bytes", in 1024..=32_768;
    }
}

impl ProtocolConfig {
    /// How long a reply can become.
    pub(crate) fn longest_reply(&self) -> usize {
        let announce = ANNOUNCE_REPLY_OVERHEAD + LONGEST_PEER * self.max_response_peers;
        announce.max(SCRAPE_OVERHEAD + SCRAPE_FILE * self.max_scrape_torrents)
    }
}

impl HttpConfig {
    /// The blocks about connections.
    #[must_use]
    pub fn tcp(&self) -> TcpConfig<'_> {
        TcpConfig { network: &self.network, connections: &self.connections, proxies: &self.proxies }
    }
}

impl Configuration for HttpConfig {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        self.tcp().check(problems);
        self.tcp().listen().check_metrics(&self.metrics, problems);
        self.privileges.check(problems);
        let protocol = &self.protocol;
        check_peer_age(&self.cleaning, protocol.peer_announce_interval, problems);
        let shortest = shorten(protocol.peer_announce_interval, protocol.announce_interval_jitter, u32::MAX);
        if protocol.min_announce_interval > shortest {
            let text = format!(
                "{} s is more than the shortest interval between announces, {shortest} s; see \
                 protocol.peer_announce_interval and announce_interval_jitter",
                protocol.min_announce_interval
            );
            problems.push(Problem::new("protocol.min_announce_interval", text));
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
        let config: HttpConfig = toml::from_str(text).unwrap();
        config.problems().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn defaults_are_sound() {
        assert_eq!(HttpConfig::default().problems(), []);
    }

    #[test]
    fn impossible_combinations_are_named() {
        assert_eq!(problems("network.enable_tls = true").len(), 2);
        assert_eq!(problems("proxies.proxy_protocol = true"), ["proxies.proxy_protocol"]);
        assert_eq!(problems("protocol.peer_announce_interval = 3600"), ["cleaning.max_peer_age"]);
        assert_eq!(problems("protocol.min_announce_interval = 1621"), ["protocol.min_announce_interval"]);
        assert_eq!(problems("protocol.min_announce_interval = 1620"), [""; 0]);
    }
}
