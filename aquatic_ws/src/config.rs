//! Configuration of the WebTorrent service.

use aquatic_common::config::check_peer_age;
use aquatic_common::settings::Problem;
use aquatic_tracker::{IntervalPolicy, Stretch};

use crate::swarm::SwarmLimits;

aquatic_common::settings! {
    /// WebTorrent over WebSocket. Browsers require TLS (wss://) on pages that were loaded over https://.
    pub struct WsConfig, section "ws" {
        /// Serve WebTorrent. Read by "aquatic all" only.
        pub enable: bool = true;
        /// Time that clients are asked to wait between two announces.
        pub peer_announce_interval: u32 = 120, unit "seconds", in 10..=86_400;
        /// Maximum share by which the interval is shortened at random, so that clients that started together
        /// do not announce together.
        pub announce_interval_jitter: u32 = 10, unit "percent", in 0..=50;
        /// Longest time that clients are asked to wait: the interval grows smoothly as a worker is busy for
        /// more than 70 % of its time, averaged over a minute, and reaches it at 95 %. It is never more than
        /// half of ws.cleaning.max_peer_age and of ws.client.max_announce_idle, so that clients are not
        /// forgotten while they wait. At or below ws.peer_announce_interval, the interval does not grow.
        pub max_announce_interval: u32 = 240, unit "seconds", in 10..=86_400;
        /// Number of peers of a torrent from which on its clients get the longest interval; it grows in
        /// proportion below. 0 if the size does not matter.
        pub max_interval_swarm_size: u32 = 0, unit "peers", in 0..=10_000_000;
        /// Maximum number of offers of an announce that are relayed. The offers after these are dropped.
        pub max_offers: usize = 10, unit "offers", in 0..=50;
        /// Time for which an offer can be answered. Browsers give up after 50 s.
        pub max_offer_age: u32 = 120, unit "seconds", in 10..=3600;
        /// Maximum number of torrents in a scrape reply. The torrents after these are not answered.
        pub max_scrape_torrents: usize = 64, unit "torrents", in 1..=500;

        /// Origins of the web pages that may use the tracker, such as "https://page.example", or "null" for
        /// pages without one. An empty list allows all. Browsers name the origin of a page in the handshake;
        /// clients that are no browsers name none, and are always served.
        pub allowed_origins: Vec<String> = Vec::new();

        pub client: WsClientConfig;
        pub limits: WsLimitsConfig;
        pub cleaning: WsCleaningConfig;
    }
}

aquatic_common::settings! {
    /// Limits and timeouts of one WebSocket connection.
    pub struct WsClientConfig, section "ws.client" {
        /// Maximum size of a message. A message with ten offers has 10 to 30 KB. A larger one closes the
        /// connection.
        pub max_message_size: usize = 65_536, unit "bytes", in 4096..=1_048_576;
        /// Maximum number of messages per second, averaged; 0 for no limit. A connection that sends more is
        /// read more slowly.
        pub max_message_rate: u32 = 100, unit "messages", in 0..=1_000_000;
        /// Maximum number of messages that are read at once.
        pub max_message_burst: u32 = 1000, unit "messages", in 1..=1_000_000;
        /// Maximum number of announced pairs of torrent and peer id, about 60 bytes each. Further ones are
        /// rejected.
        pub max_peers: usize = 1000, unit "peers", in 1..=1_000_000;
        /// Maximum number of peer ids in one torrent. Further ones are rejected. Clients have one, and a page
        /// with several players of the same video may have one for each.
        pub max_peers_per_torrent: usize = 4, unit "peers", in 1..=1_000_000;
        /// Maximum number of different peer ids. Further ones are rejected. Some clients use a peer id per
        /// torrent, so the default is that of max_peers.
        pub max_peer_ids: usize = 1000, unit "peer ids", in 1..=1_000_000;
        /// Maximum number of bytes queued to be sent. A client that does not drain its queue is disconnected.
        pub max_unsent_bytes: usize = 262_144, unit "bytes", in 65_536..=16_777_216;
        /// Maximum number of messages queued to be sent.
        pub max_unsent_messages: usize = 1024, unit "messages", in 16..=65_536;
        /// Time without an announce, answer or scrape after which a connection is closed. Must be at least
        /// twice ws.peer_announce_interval. A lower one, after a reload, also applies to clients that were
        /// told a longer interval.
        pub max_announce_idle: u32 = 600, unit "seconds", in 10..=86_400;
        /// Time without any data of the client after which a connection is closed. After half of it, the
        /// tracker sends a ping, which browsers answer by themselves.
        pub idle_timeout: u32 = 75, unit "seconds", in 2..=86_400;
        /// Maximum time from the first byte of a message to its last.
        pub message_timeout: u32 = 10, unit "seconds", in 1..=600;
        /// Maximum time without progress in sending while messages are queued.
        pub send_timeout: u32 = 30, unit "seconds", in 3..=600;
    }
}

aquatic_common::settings! {
    /// Expiry of WebTorrent peers that stay connected. The peers of a closed connection are removed at once.
    pub struct WsCleaningConfig, section "ws.cleaning" {
        /// Time after its last announce at which a peer is removed. Must be at least twice
        /// ws.peer_announce_interval.
        pub max_peer_age: u32 = 600, unit "seconds", in 20..=172_800;
        /// Time between two checks of the same torrent. The checks are spread evenly over it.
        pub interval: u32 = 60, unit "seconds", in 1..=3600;
    }
}

aquatic_common::settings! {
    /// Limits of the store of WebTorrent peers. At a limit, announces are answered but new peers are not
    /// stored. Worst-case memory: 150 bytes per torrent plus 160 per peer, 24 per offer, and 160 per peer
    /// whose id a second connection claims. The limits are divided evenly among the workers. Less is stored
    /// where limits.max_memory does not allow it.
    pub struct WsLimitsConfig, section "ws.limits" {
        /// Maximum number of torrents with at least one peer.
        pub max_torrents: u64 = 10_000_000, unit "torrents", in 1..=1_000_000_000;
        /// Maximum number of peers of all torrents.
        pub max_peers: u64 = 10_000_000, unit "peers", in 1..=1_000_000_000;
        /// Maximum number of peers per torrent.
        pub max_peers_per_torrent: usize = 1_000_000, unit "peers", in 1..=10_000_000;
        /// Maximum number of peers per torrent and IPv4 address, or IPv6 /64 network. The default suffices
        /// for a NAT with hundreds of clients in the same torrent. Further clients of the address are
        /// answered but not found by others. In torrents of more than 32 peers, addresses are counted by
        /// their hashes, so one in as many others may be refused together with one that has reached the
        /// limit. Independently of this limit, where a few addresses have many of a torrent's peers, offers
        /// go to as many addresses as possible. Clients of a proxy that does not name them are not limited.
        pub max_peers_per_address: usize = 512, unit "peers", in 8..=60_000;
        /// Maximum number of offers that wait for an answer. Above it, offers of the least recently offering
        /// peers are dropped first; they can no longer be answered.
        pub max_waiting_offers: u64 = 4_000_000, unit "offers", in 1..=1_000_000_000;
        /// Maximum number of offers of one peer that wait for an answer. Above it its oldest are dropped.
        pub max_waiting_offers_per_peer: usize = 100, unit "offers", in 50..=10_000;
    }
}

impl WsConfig {
    /// Limits of the part of the store that each of `cores` cores owns.
    #[must_use]
    pub fn swarm_limits(&self, cores: usize) -> SwarmLimits {
        let cores = cores.max(1) as u64;
        let share =
            |total: u64| usize::try_from(total.div_ceil(cores)).unwrap_or(usize::MAX).min(u32::MAX as usize);
        SwarmLimits {
            max_torrents: share(self.limits.max_torrents),
            max_peers: share(self.limits.max_peers),
            max_peers_per_torrent: self.limits.max_peers_per_torrent,
            max_peers_per_address: self.limits.max_peers_per_address,
            max_offers: share(self.limits.max_waiting_offers),
            max_offers_per_peer: self.limits.max_waiting_offers_per_peer,
            max_offer_age: self.max_offer_age,
        }
    }

    /// How long clients are asked to wait.
    #[must_use]
    pub(crate) fn interval(&self) -> IntervalPolicy {
        IntervalPolicy { interval: self.peer_announce_interval, jitter: self.announce_interval_jitter }
    }

    /// How far that is stretched.
    #[must_use]
    pub(crate) fn stretch(&self) -> Stretch {
        let longest = self.cleaning.max_peer_age.min(self.client.max_announce_idle) / 2;
        Stretch {
            max_interval: self.max_announce_interval.min(longest),
            large_swarm: self.max_interval_swarm_size,
        }
    }

    /// Reports impossible combinations of the settings that only WebTorrent uses.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let interval = self.peer_announce_interval;
        check_peer_age(
            (WsCleaningConfig::max_peer_age, self.cleaning.max_peer_age),
            (Self::peer_announce_interval, interval),
            problems,
        );
        for origin in self.allowed_origins.iter().filter(|origin| !is_origin(origin)) {
            let text = format!(
                "{origin:?} is no origin: scheme and host, with a port unless it is the scheme's, and nothing behind \
                 it, such as \"https://page.example\""
            );
            problems.push(Problem::new(Self::allowed_origins, text));
        }
        let client = &self.client;
        if client.max_announce_idle < interval.saturating_mul(2) {
            let text = format!(
                "{} s is less than twice {} ({interval} s): clients that respect the interval would be disconnected",
                client.max_announce_idle,
                Self::peer_announce_interval
            );
            problems.push(Problem::new(WsClientConfig::max_announce_idle, text));
        }
        if client.max_message_burst < client.max_message_rate {
            let text =
                format!("is less than {}, which can then not be reached", WsClientConfig::max_message_rate);
            problems.push(Problem::new(WsClientConfig::max_message_burst, text));
        }
    }
}

/// Whether a browser may name this origin (RFC 6454, section 6.2).
fn is_origin(text: &str) -> bool {
    let host = |(scheme, host): (&str, &str)| {
        let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let is_host = host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@*".contains(&byte));
        !scheme.is_empty() && is_scheme && !host.is_empty() && is_host
    };
    text == "null" || text.split_once("://").is_some_and(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut WsConfig)) -> Vec<String> {
        let mut config = WsConfig::default();
        change(&mut config);
        let mut problems = Vec::new();
        config.check(&mut problems);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(problems(|_| ()), [""; 0]);
    }

    #[test]
    fn impossible_combinations_are_named() {
        assert_eq!(
            problems(|ws| ws.peer_announce_interval = 301),
            ["ws.cleaning.max_peer_age", "ws.client.max_announce_idle"]
        );
        assert_eq!(problems(|ws| ws.client.max_message_rate = 2000), ["ws.client.max_message_burst"]);
        let origins = |origins: &[&str]| {
            let origins = origins.iter().map(|&origin| origin.to_owned()).collect();
            problems(|ws| ws.allowed_origins = origins)
        };
        assert_eq!(
            origins(&["https://page.example", "http://[::1]:8000", "moz-extension://a-b", "null"]),
            [""; 0]
        );
        for bad in ["page.example", "https://page.example/", "https://*.example", "", "https://"] {
            assert_eq!(origins(&[bad]), ["ws.allowed_origins"], "{bad}");
        }
    }

    #[test]
    fn a_connection_may_use_a_peer_id_per_torrent() {
        let client = WsClientConfig::default();
        assert_eq!(client.max_peer_ids, client.max_peers);
    }

    #[test]
    fn every_core_has_its_share() {
        let limits = WsConfig::default().swarm_limits(3);
        assert_eq!((limits.max_torrents, limits.max_peers_per_torrent), (3_333_334, 1_000_000));
    }
}
