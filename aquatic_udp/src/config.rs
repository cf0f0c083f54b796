//! What an operator can set.

use std::net::SocketAddr;

use aquatic_common::config::{
    AccessListConfig, CleaningConfig, DEFAULT_PORT, LimitsConfig, Listen, LogLevel, MetricsConfig,
    PrivilegesConfig, StatisticsConfig, check_peer_age,
};
use aquatic_common::settings::{Addresses, Configuration, Problem};
use aquatic_net::udp::REPLY_CAPACITY;

/// Bytes before the first peer of a reply (BEP 15).
const REPLY_HEAD: usize = 20;

aquatic_common::settings! {
    /// A UDP tracker.
    pub struct UdpConfig {
        /// Number of worker threads, each pinned to a core of its own; 0 for one per available core.
        pub workers: usize = 0, unit "threads", in 0..=1024;
        /// How much to log. Addresses of clients appear at debug and below.
        pub log_level: LogLevel = LogLevel::Info;

        // Sections without words of their own here say what they are for where they are declared.
        pub network: NetworkConfig;
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
    /// Where to listen.
    pub struct NetworkConfig {
        /// Serve clients over IPv4.
        pub use_ipv4: bool = true;
        /// Serve clients over IPv6.
        pub use_ipv6: bool = true;
        /// Address and port for IPv4, or a list of them: ["192.0.2.1:6969", "192.0.2.2:6969"].
        pub address_ipv4: Addresses = Addresses(vec![SocketAddr::from(([0; 4], DEFAULT_PORT))]);
        /// Address and port for IPv6, or a list of them.
        pub address_ipv6: Addresses = Addresses(vec![SocketAddr::from(([0_u16; 8], DEFAULT_PORT))]);
        /// Receive buffer to ask the kernel for, for each socket; 0 keeps the system's default. What does not fit
        /// is dropped by the kernel (and counted). net.core.rmem_max limits it: the log tells if it does.
        pub socket_recv_buffer_size: usize = 8_000_000, unit "bytes", in 0..=2_000_000_000;
        /// Longest reply. 1232 passes every path; longer ones may be lost on the way, since they are not cut up.
        pub max_reply_size: usize = 1232, unit "bytes of payload", in 512..=1472;
        /// Let the kernel hand each announce to the core that owns its torrent. Switched off, announces change
        /// cores inside the process: slower, meant for tests and for kernels with a faulty steering.
        pub steering: bool = true;
    }
}

aquatic_common::settings! {
    /// What to answer.
    pub struct ProtocolConfig {
        /// Most peers in a reply. Replies are also limited by network.max_reply_size: 202 IPv4 or 67 IPv6
        /// peers fit into 1232 bytes.
        pub max_response_peers: usize = 50, unit "peers", in 0..=242;
        /// Most torrents answered for in a scrape; further ones are left out.
        pub max_scrape_torrents: usize = 74, unit "torrents", in 1..=74;
        /// Time clients are asked to wait between two announces.
        pub peer_announce_interval: u32 = 1800, unit "seconds", in 60..=86_400;
        /// Share by which the time is shortened at random, so that clients that came together do not come back
        /// together.
        pub announce_interval_jitter: u32 = 10, unit "percent", in 0..=50;
        /// How long a connection id is valid. The protocol says 120; some old clients use one for up to an hour.
        pub max_connection_age: u32 = 120, unit "seconds", in 60..=3600;
    }
}

impl UdpConfig {
    /// Where to listen.
    #[must_use]
    pub fn listen(&self) -> Listen<'_> {
        let NetworkConfig { use_ipv4, use_ipv6, address_ipv4, address_ipv6, .. } = &self.network;
        Listen { use_ipv4: *use_ipv4, use_ipv6: *use_ipv6, address_ipv4, address_ipv6 }
    }
}

impl Configuration for UdpConfig {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        if !self.network.use_ipv4 && !self.network.use_ipv6 {
            let text = "both families are switched off, so there is nothing to listen on; switch one on";
            problems.push(Problem::new("network.use_ipv4", text));
        }
        self.listen().check(problems);
        self.privileges.check(problems);
        check_peer_age(&self.cleaning, self.protocol.peer_announce_interval, problems);
        let scrape = 8 + 12 * self.protocol.max_scrape_torrents;
        if scrape > self.network.max_reply_size {
            let text = format!(
                "{scrape} bytes are needed to answer for that many torrents; see network.max_reply_size"
            );
            problems.push(Problem::new("protocol.max_scrape_torrents", text));
        }
        let announce = REPLY_HEAD + 6 * self.protocol.max_response_peers;
        if announce > self.network.max_reply_size {
            let text = format!("{announce} bytes are needed for that many peers; see network.max_reply_size");
            problems.push(Problem::new("protocol.max_response_peers", text));
        }
    }

    fn log_level(&self) -> LogLevel {
        self.log_level
    }
}

const _: () =
    assert!(REPLY_HEAD + 6 * 242 <= REPLY_CAPACITY, "the bound of max_response_peers fits a reply buffer");

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let config: UdpConfig = toml::from_str(text).unwrap();
        config.problems().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn defaults_are_sound() {
        assert_eq!(UdpConfig::default().problems(), []);
        assert_eq!(UdpConfig::default().listen().addresses().count(), 2);
    }

    #[test]
    fn impossible_combinations_are_named() {
        assert_eq!(problems("network.use_ipv4 = false\nnetwork.use_ipv6 = false"), ["network.use_ipv4"]);
        assert_eq!(problems("network.address_ipv6 = '0.0.0.0:1'"), ["network.address_ipv6"]);
        assert_eq!(problems("network.address_ipv4 = []"), ["network.address_ipv4"]);
        assert_eq!(problems("protocol.peer_announce_interval = 3600"), ["cleaning.max_peer_age"]);
        assert_eq!(problems("network.max_reply_size = 512"), ["protocol.max_scrape_torrents"]);
        assert_eq!(problems("protocol.max_response_peers = 203"), ["protocol.max_response_peers"]);
    }
}
