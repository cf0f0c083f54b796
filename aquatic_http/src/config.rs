//! Configuration of the HTTP service.

use aquatic_common::config::ProtocolConfig;
use aquatic_common::settings::Problem;
use aquatic_common::time::shorten;
use aquatic_http_protocol::ANNOUNCE_REPLY_OVERHEAD;

/// Maximum size of a peer in an announce reply.
const LONGEST_PEER: usize = 18;

/// Maximum size of a torrent in a scrape reply, and of everything else in it.
const SCRAPE_FILE: usize = 100;
const SCRAPE_OVERHEAD: usize = 256;

aquatic_common::settings! {
    /// HTTP and HTTPS (BEP 3, 7, 23, 24, 31, 48).
    pub struct HttpConfig, section "http" {
        /// Serve HTTP. Read by "aquatic all" only.
        pub enable: bool = true;
        /// Maximum number of peers in an announce reply, IPv4 and IPv6 together.
        pub max_response_peers: usize = 50, unit "peers", in 0..=1000;
        /// Maximum number of torrents in a scrape reply. The torrents after these are not answered.
        pub max_scrape_torrents: usize = 100, unit "torrents", in 1..=500;
        /// Minimum time between two announces, even those that users request.
        pub min_announce_interval: u32 = 300, unit "seconds", in 1..=86_400;
        /// Maximum size of a request, including its headers; larger ones are rejected. Scrapes are the
        /// largest: 8192 bytes suffice for about 100 torrents.
        pub max_request_size: usize = 8192, unit "bytes", in 1024..=32_768;
    }
}

impl HttpConfig {
    /// Maximum size of a reply in bytes.
    pub(crate) fn longest_reply(&self) -> usize {
        let announce = ANNOUNCE_REPLY_OVERHEAD + LONGEST_PEER * self.max_response_peers;
        announce.max(SCRAPE_OVERHEAD + SCRAPE_FILE * self.max_scrape_torrents)
    }

    /// Reports impossible combinations of the settings that only HTTP uses.
    pub fn check(&self, protocol: &ProtocolConfig, problems: &mut Vec<Problem>) {
        let shortest = shorten(protocol.peer_announce_interval, protocol.announce_interval_jitter, u32::MAX);
        if self.min_announce_interval > shortest {
            let text = format!(
                "{} s is more than the shortest announce interval, {shortest} s, that follows from {} and {}",
                self.min_announce_interval,
                ProtocolConfig::peer_announce_interval,
                ProtocolConfig::announce_interval_jitter
            );
            problems.push(Problem::new(Self::min_announce_interval, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_interval_does_not_exceed_the_interval() {
        let problems = |min_announce_interval| {
            let mut problems = Vec::new();
            let http = HttpConfig { min_announce_interval, ..HttpConfig::default() };
            http.check(&ProtocolConfig::default(), &mut problems);
            problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
        };
        assert_eq!(problems(HttpConfig::default().min_announce_interval), [""; 0]);
        assert_eq!(problems(1620), [""; 0]);
        assert_eq!(problems(1621), ["http.min_announce_interval"]);
    }
}
