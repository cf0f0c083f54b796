//! Keys of earlier configurations and their successors.

use aquatic_common::settings::FormerKey;

/// Keys of aquatic 0.9 and of the first configurations of this tracker.
pub(super) const KEYS: &[FormerKey] = &[
    former("network.address", &["network.address_ipv4", "network.address_ipv6"]),
    former("protocol.max_response_peers", &["udp.max_response_peers", "http.max_response_peers"]),
];

const fn former(name: &'static str, successors: &'static [&'static str]) -> FormerKey {
    FormerKey { name, successors }
}
