//! Configuration of the UDP service.

use aquatic_common::settings::Problem;
use aquatic_net::udp::REPLY_CAPACITY;

/// Bytes before the first peer of an announce reply (BEP 15).
const ANNOUNCE_HEAD: usize = 20;

/// Bytes before the first torrent of a scrape reply, and bytes per torrent (BEP 15).
const SCRAPE_HEAD: usize = 8;
const SCRAPE_TORRENT: usize = 12;

/// Largest reply that can be configured: with its headers it fills an Ethernet frame.
pub(crate) const MAX_REPLY_SIZE: usize = 1472;

aquatic_common::settings! {
    /// UDP (BEP 15).
    pub struct UdpConfig, section "udp" {
        /// Serve UDP. Read by "aquatic all" only.
        pub enable: bool = true;
        /// Size of the receive buffer that each socket requests from the kernel; 0 for the default of the
        /// system. The kernel drops packets that do not fit; they are counted. The sysctl net.core.rmem_max
        /// limits the size; a smaller buffer is logged. The default holds some 5000 requests, the work of 10
        /// to 50 ms: in a larger one requests wait longer when more arrive than can be served.
        pub socket_recv_buffer_size: usize = 2_000_000, unit "bytes", in 0..=2_000_000_000;
        /// Maximum size of a reply. 1232 bytes fit every IPv6 path. Larger replies are not fragmented and may
        /// be lost.
        pub max_reply_size: usize = 1232, unit "bytes of payload", in 512..=MAX_REPLY_SIZE as u64;
        /// Let the kernel deliver each announce to the worker that owns the torrent. If false, workers
        /// forward announces to each other, which is slower. Meant for tests and for kernels on which
        /// steering fails.
        pub steering: bool = true;
        /// Maximum number of peers in an announce reply. udp.max_reply_size limits it further: 202 IPv4 or 67
        /// IPv6 peers fit in 1232 bytes.
        pub max_response_peers: usize = 50, unit "peers", in 0..=242;
        /// Maximum number of torrents in a scrape reply. The torrents after these are not answered.
        pub max_scrape_torrents: usize = 74, unit "torrents", in 1..=74;
        /// Time for which a connection id is valid. BEP 15 requires 120 s. Some old clients reuse an id for
        /// an hour.
        pub max_connection_age: u32 = 120, unit "seconds", in 60..=3600;
    }
}

impl UdpConfig {
    /// Reports impossible combinations of the settings that only UDP uses.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let scrape = SCRAPE_HEAD + SCRAPE_TORRENT * self.max_scrape_torrents;
        let announce = ANNOUNCE_HEAD + 6 * self.max_response_peers;
        for (key, size) in [(Self::max_scrape_torrents, scrape), (Self::max_response_peers, announce)] {
            if size > self.max_reply_size {
                let text =
                    format!("requires replies of {size} bytes, more than {} allows", Self::max_reply_size);
                problems.push(Problem::new(key, text));
            }
        }
    }
}

const _: () =
    assert!(ANNOUNCE_HEAD + 6 * 242 <= REPLY_CAPACITY, "the bound of max_response_peers fits a reply buffer");

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut UdpConfig)) -> Vec<String> {
        let mut udp = UdpConfig::default();
        change(&mut udp);
        let mut problems = Vec::new();
        udp.check(&mut problems);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(problems(|_| ()), [""; 0]);
    }

    #[test]
    fn impossible_combinations_are_named() {
        assert_eq!(problems(|udp| udp.max_reply_size = 512), ["udp.max_scrape_torrents"]);
        assert_eq!(problems(|udp| udp.max_response_peers = 203), ["udp.max_response_peers"]);
        assert_eq!(problems(|udp| udp.max_response_peers = 202), [""; 0]);
    }
}
