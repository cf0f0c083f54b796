//! Address and port of each peer. Peers are numbered consecutively address by address, so both directions are
//! computed.

/// Lowest port in use: trackers may treat privileged ports differently.
pub const FIRST_PORT: u16 = 1024;
/// Number of peers per address.
pub const PORTS_PER_ADDRESS: u64 = 65_535 - FIRST_PORT as u64 + 1;

/// Even distribution of a population over a number of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    peers: u64,
    addresses: u64,
    per_address: u64,
}

/// Error: the addresses have fewer ports than there are peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPeers {
    /// Number of addresses that would suffice.
    pub addresses_needed: u64,
}

impl Endpoints {
    /// Distributes the peers.
    ///
    /// # Errors
    /// When the addresses have too few ports.
    pub fn new(peers: u64, addresses: u64) -> Result<Self, TooManyPeers> {
        let per_address = peers.div_ceil(addresses.max(1)).max(1);
        if per_address > PORTS_PER_ADDRESS {
            return Err(TooManyPeers { addresses_needed: peers.div_ceil(PORTS_PER_ADDRESS) });
        }
        Ok(Self { peers, addresses: addresses.max(1), per_address })
    }

    /// Number of addresses.
    #[must_use]
    pub fn addresses(&self) -> u64 {
        self.addresses
    }

    /// Number of addresses that have peers, the first ones.
    #[must_use]
    pub fn addresses_with_peers(&self) -> u64 {
        self.peers.div_ceil(self.per_address)
    }

    /// Numbers of the peers at an address. The last addresses may have fewer peers, or none.
    #[must_use]
    pub fn peers_at(&self, address: u64) -> std::ops::Range<u64> {
        let start = address.saturating_mul(self.per_address).min(self.peers);
        start..start.saturating_add(self.per_address).min(self.peers)
    }

    /// Port of a peer.
    #[must_use]
    pub fn port_of(&self, peer: u64) -> u16 {
        // Below PORTS_PER_ADDRESS, as checked by `new`, so the sum fits.
        FIRST_PORT + (peer % self.per_address) as u16
    }

    /// Peer at an address and port.
    #[must_use]
    pub fn peer_at(&self, address: u64, port: u16) -> Option<u64> {
        let offset = u64::from(port.checked_sub(FIRST_PORT)?);
        let peers = self.peers_at(address);
        let peer = peers.start.checked_add(offset)?;
        (address < self.addresses && offset < self.per_address && peers.contains(&peer)).then_some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_is_found_at_its_endpoint() {
        for (peers, addresses) in [(1, 1), (1, 4), (100, 7), (64_512, 1), (200_000, 4)] {
            let endpoints = Endpoints::new(peers, addresses).unwrap();
            let mut seen = 0;
            for address in 0..addresses {
                for peer in endpoints.peers_at(address) {
                    assert_eq!(endpoints.peer_at(address, endpoints.port_of(peer)), Some(peer));
                    assert_eq!(peer, seen);
                    seen += 1;
                }
            }
            assert_eq!(seen, peers);
        }
    }

    #[test]
    fn last_addresses_may_have_no_peers() {
        for (peers, addresses, used) in [(1, 4, 1), (17, 16, 9), (100, 7, 7), (4, 4, 4)] {
            let endpoints = Endpoints::new(peers, addresses).unwrap();
            assert_eq!(endpoints.addresses_with_peers(), used);
            let with_peers = (0..addresses).filter(|&address| !endpoints.peers_at(address).is_empty());
            assert_eq!(with_peers.count() as u64, used);
        }
    }

    #[test]
    fn other_endpoints_have_no_peer() {
        let endpoints = Endpoints::new(10, 3).unwrap();
        assert_eq!(endpoints.peer_at(0, FIRST_PORT - 1), None);
        assert_eq!(endpoints.peer_at(0, FIRST_PORT + 4), None);
        assert_eq!(endpoints.peer_at(2, FIRST_PORT + 2), None);
        assert_eq!(endpoints.peer_at(3, FIRST_PORT), None);
        assert_eq!(endpoints.peer_at(u64::MAX, FIRST_PORT), None);
    }

    #[test]
    fn too_many_peers_for_the_ports() {
        assert_eq!(Endpoints::new(64_513, 1), Err(TooManyPeers { addresses_needed: 2 }));
        assert!(Endpoints::new(25_000_000, 388).is_ok());
    }
}
