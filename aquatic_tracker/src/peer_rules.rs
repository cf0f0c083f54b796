//! Which peers are stored, by their address and port. One rule for all protocols that have them.

use std::net::SocketAddr;

use aquatic_common::config::{LimitsConfig, LocalAddresses};
use aquatic_common::ports::Ports;
use aquatic_common::{AddressKind, is_loopback};

/// Why a peer is not stored, whatever else is stored. Its client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFault {
    /// No host has the address, or it is for documentation.
    UnusableAddress,
    /// The address is local to a host, link or site, and such addresses are refused.
    LocalAddress,
    /// The port is among `limits.refused_ports`.
    Port,
}

impl PeerFault {
    /// All faults, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::UnusableAddress, Self::LocalAddress, Self::Port];

    /// Returns the value of the label `reason` in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnusableAddress => "unusable_address",
            Self::LocalAddress => "local_address",
            Self::Port => "refused_port",
        }
    }
}

/// Which addresses and ports peers may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRules {
    refuse_local: bool,
    refuse_loopback: bool,
    refused_ports: Ports,
}

impl PeerRules {
    /// Returns the rules of a configuration, for a tracker that listens at these addresses.
    /// `has_proxy_on_host` is whether a proxy on the tracker's host is trusted to name clients: a client with
    /// a loopback address is then the proxy or beside it, and nobody behind the proxy can reach it.
    #[must_use]
    pub fn new(
        limits: &LimitsConfig,
        listening: impl IntoIterator<Item = SocketAddr>,
        has_proxy_on_host: bool,
    ) -> Self {
        let mut listening = listening.into_iter().peekable();
        let (refuse_local, refuse_loopback) = match limits.local_addresses {
            LocalAddresses::Accept => (false, false),
            LocalAddresses::Refuse => (true, true),
            LocalAddresses::Auto => {
                let only_public = listening.peek().is_some()
                    && listening.all(|address| AddressKind::of(address.ip()) == AddressKind::Public);
                (only_public, only_public || has_proxy_on_host)
            }
        };
        Self { refuse_local, refuse_loopback, refused_ports: limits.refused_ports.clone() }
    }

    /// Checks the address and port of a peer.
    ///
    /// # Errors
    /// Why the peer is not stored.
    #[inline]
    pub fn check(&self, address: SocketAddr) -> Result<(), PeerFault> {
        match AddressKind::of(address.ip()) {
            AddressKind::NoHost | AddressKind::Documentation => Err(PeerFault::UnusableAddress),
            AddressKind::Local
                if self.refuse_local || (self.refuse_loopback && is_loopback(address.ip())) =>
            {
                Err(PeerFault::LocalAddress)
            }
            AddressKind::Local | AddressKind::Public if self.refused_ports.contains(address.port()) => {
                Err(PeerFault::Port)
            }
            AddressKind::Local | AddressKind::Public => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(rules: &PeerRules, address: &str) -> Option<PeerFault> {
        rules.check(address.parse().unwrap()).err()
    }

    fn rules(local_addresses: LocalAddresses, listening: &[&str]) -> PeerRules {
        let refused_ports = "1-1023,6000".parse().unwrap();
        let limits = LimitsConfig { local_addresses, refused_ports, ..LimitsConfig::default() };
        PeerRules::new(&limits, listening.iter().map(|address| address.parse().unwrap()), false)
    }

    #[test]
    fn each_fault_is_found() {
        let rules = rules(LocalAddresses::Refuse, &[]);
        for address in ["0.0.0.0:9999", "224.0.0.1:25", "255.255.255.255:9999", "[ff02::1]:9999", "[::]:9999"]
            .into_iter()
            .chain(["192.0.2.1:9999", "[2001:db8::1]:9999", "[::ffff:203.0.113.1]:9999"])
        {
            assert_eq!(fault(&rules, address), Some(PeerFault::UnusableAddress), "{address}");
        }
        for address in
            ["127.0.0.1:9999", "10.1.2.3:25", "169.254.0.1:1", "[::1]:9999", "[fe80::1]:2", "[fd00::1]:3"]
        {
            assert_eq!(fault(&rules, address), Some(PeerFault::LocalAddress), "{address}");
        }
        for address in ["1.1.1.1:25", "[2606:4700::1]:6000", "1.1.1.1:1023"] {
            assert_eq!(fault(&rules, address), Some(PeerFault::Port), "{address}");
        }
        for address in ["1.1.1.1:1024", "[2606:4700::1]:6001"] {
            assert_eq!(fault(&rules, address), None, "{address}");
        }
        assert!(PeerFault::ALL.iter().enumerate().all(|(number, fault)| *fault as usize == number));
    }

    #[test]
    fn local_addresses_are_refused_where_the_tracker_has_public_ones_only() {
        use LocalAddresses::{Accept, Auto, Refuse};
        for (setting, listening, refused) in [
            (Auto, &["1.1.1.1:6969", "[2606:4700::1]:6969"][..], true),
            (Auto, &["1.1.1.1:6969", "10.0.0.1:6969"], false),
            (Auto, &["0.0.0.0:6969"], false),
            (Auto, &["1.1.1.1:6969", "[::]:6969"], false),
            (Auto, &["127.0.0.1:6969"], false),
            (Auto, &[], false),
            (Accept, &["1.1.1.1:6969"], false),
            (Refuse, &["127.0.0.1:6969"], true),
        ] {
            let fault = fault(&rules(setting, listening), "192.168.0.1:9999");
            assert_eq!(fault.is_some(), refused, "{setting:?} {listening:?}");
        }
    }

    #[test]
    fn loopback_addresses_are_refused_where_a_proxy_on_the_host_is_trusted() {
        use LocalAddresses::{Accept, Auto, Refuse};
        for (local_addresses, listening, has_proxy, refused) in [
            (Auto, "0.0.0.0:6969", true, true),
            (Auto, "127.0.0.1:6969", true, true),
            (Auto, "127.0.0.1:6969", false, false),
            (Accept, "127.0.0.1:6969", true, false),
            (Refuse, "127.0.0.1:6969", true, true),
        ] {
            let limits = LimitsConfig { local_addresses, ..LimitsConfig::default() };
            let rules = PeerRules::new(&limits, [listening.parse().unwrap()], has_proxy);
            for address in ["127.0.0.1:9999", "127.0.0.5:9999", "[::1]:9999", "[::ffff:127.0.0.1]:9999"] {
                let expected = refused.then_some(PeerFault::LocalAddress);
                assert_eq!(fault(&rules, address), expected, "{local_addresses:?} {listening} {address}");
            }
            let is_refused = fault(&rules, "192.168.0.1:9999").is_some();
            assert_eq!(is_refused, local_addresses == Refuse, "clients of a local network");
        }
    }
}
