//! Which proxies are trusted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use aquatic_common::{AddressKind, canonical_network, is_loopback};
use ipnet::IpNet;

/// Networks whose word about their clients is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads a list of networks ("10.0.0.0/8", "2001:db8::/32") and addresses.
    ///
    /// # Errors
    /// The first entry that is neither.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, BadNetwork> {
        let network = |entry: &S| {
            let text = entry.as_ref().trim();
            let parsed = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
            let canonical = |network: IpNet| {
                let (ip, length) = canonical_network(network.addr(), network.prefix_len());
                IpNet::new(ip, length).unwrap_or(network)
            };
            parsed.map(canonical).map_err(|_| BadNetwork(text.to_owned()))
        };
        entries.iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an address, in canonical form, belongs to a trusted proxy.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Whether a client that a trusted proxy names, in canonical form, could be a client at all: not with an
    /// address that no host has, and not with a loopback address unless that is a trusted proxy's own, whose
    /// clients may be on its host. Whether it is stored as a peer is for the tracker to decide.
    #[must_use]
    pub fn may_name(&self, ip: IpAddr) -> bool {
        AddressKind::of(ip) != AddressKind::NoHost && (!is_loopback(ip) || self.contains(ip))
    }

    /// Whether proxies on this host are trusted, by loopback addresses.
    #[must_use]
    pub fn has_loopback(&self) -> bool {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        self.0
            .iter()
            .any(|network| is_loopback(network.addr()) || loopback.iter().any(|ip| network.contains(ip)))
    }

    /// The first network that is too large for proxies of one operator: one that has more than 10.0.0.0/8 or
    /// fc00::/7, the largest private ones.
    #[must_use]
    pub fn too_large(&self) -> Option<IpNet> {
        let is_too_large = |network: &&IpNet| match network {
            IpNet::V4(v4) => v4.prefix_len() < 8,
            IpNet::V6(v6) => v6.prefix_len() < 7,
        };
        self.0.iter().find(is_too_large).copied()
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Not a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadNetwork(String);

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is neither an address nor a network; write 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32",
            self.0
        )
    }
}

impl std::error::Error for BadNetwork {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_understood() {
        let trusted = TrustedProxies::parse(&["10.0.0.0/8", " 192.0.2.1 ", "2001:db8::/32", "::1"]).unwrap();
        for ip in ["10.255.0.1", "192.0.2.1", "2001:db8:ffff::1", "::1"] {
            assert!(trusted.contains(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["11.0.0.1", "192.0.2.2", "2001:db9::1", "::2"] {
            assert!(!trusted.contains(ip.parse().unwrap()), "{ip}");
        }
        let mapped = TrustedProxies::parse(&["::ffff:192.0.2.1", "::ffff:10.0.0.0/104", "::/0"]).unwrap();
        let is_trusted = |ip: &str| mapped.contains(ip.parse().unwrap());
        assert!(is_trusted("192.0.2.1") && is_trusted("10.1.2.3") && is_trusted("2001:db8::1"));
        assert!(!is_trusted("192.0.2.2") && !is_trusted("11.0.0.1"));
        assert!(TrustedProxies::parse::<&str>(&[]).unwrap().is_empty());
    }

    #[test]
    fn proxies_on_this_host_are_recognised() {
        for (network, has_loopback) in [
            ("127.0.0.1", true),
            ("127.9.0.0/16", true),
            ("0.0.0.0/0", true),
            ("::1", true),
            ("::/64", true),
            ("10.0.0.0/8", false),
            ("fd00::/8", false),
        ] {
            let trusted = TrustedProxies::parse(&["192.0.2.1", network]).unwrap();
            assert_eq!(trusted.has_loopback(), has_loopback, "{network}");
        }
    }

    #[test]
    fn networks_of_many_operators_are_too_large() {
        for (network, is_too_large) in [
            ("0.0.0.0/0", true),
            ("128.0.0.0/1", true),
            ("10.0.0.0/8", false),
            ("::/0", true),
            ("2000::/3", true),
            ("fc00::/7", false),
        ] {
            let trusted = TrustedProxies::parse(&["127.0.0.1", network]).unwrap();
            let found = trusted.too_large().map(|network| network.to_string());
            assert_eq!(found.as_deref(), is_too_large.then_some(network));
        }
    }

    #[test]
    fn anything_else_is_named() {
        for bad in ["10.0.0.0/33", "10.0.0/8", "proxy.example", "", "10.0.0.1:80"] {
            let error = TrustedProxies::parse(&["::1", bad]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("\"{bad}\" is neither")), "{error}");
        }
    }
}
