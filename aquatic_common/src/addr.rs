//! Addresses in the one form the tracker reasons about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address family of a packet or a listener. Replies are laid out by it, and peers are kept apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4, also when the kernel shows it mapped into IPv6.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which the tracker reports them.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address in canonical form.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Position in arrays that hold one element per family.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }

    /// The label used in metrics and log lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// What an address says about who can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// Reachable from the internet, as far as the address shows.
    Public,
    /// Reachable from the same host, link or site only: loopback, link-local, private, shared with a
    /// carrier's customers (RFC 6598), unique local (RFC 4193).
    Local,
    /// Reserved for documentation (RFC 5737, RFC 3849, RFC 9637): nobody has it.
    Documentation,
    /// No host's address: unspecified, multicast, broadcast, reserved.
    NoHost,
}

impl AddressKind {
    /// Returns the kind of an address. That of an IPv6 address which stands for an IPv4 address (IPv4-mapped,
    /// IPv4-compatible, 6to4, NAT64) is that of the IPv4 address.
    #[inline]
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [0, ..] | [224..=255, ..] => Self::NoHost,
            [10 | 127, ..] | [100, 64..=127, ..] | [169, 254, ..] | [172, 16..=31, ..] | [192, 168, ..] => {
                Self::Local
            }
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Documentation,
            _ => Self::Public,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            // The second are thrown away by routers (RFC 6666).
            [0, 0, 0, 0, 0, 0, 0, 0] | [0x0100, 0, 0, 0, ..] | [0xff00..=0xffff, ..] => Self::NoHost,
            [0, 0, 0, 0, 0, 0, 0, 1] | [0xfc00..=0xfdff, ..] | [0xfe80..=0xfeff, ..] => Self::Local,
            // NAT64 within a site (RFC 8215).
            [0x0064, 0xff9b, 1, ..] => Self::Local,
            [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Self::Documentation,
            _ => embedded_v4(ip).map_or(Self::Public, Self::of_v4),
        }
    }
}

/// Whether an address is of the loopback interface, also as an IPv6 address that stands for an IPv4 address.
#[must_use]
pub fn is_loopback(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || embedded_v4(v6).is_some_and(|v4| v4.is_loopback()),
    }
}

/// The IPv4 address that an IPv6 address stands for: IPv4-compatible (RFC 4291, 2.5.5.1), NAT64 (RFC 6052) or
/// 6to4 (RFC 3056), whose first one is of the router.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match ip.segments() {
        [0, 0, 0, 0, 0, 0, high, low] | [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

/// The same address with an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) turned into plain IPv4.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.1:80".parse().unwrap());
        assert_eq!(Family::of(mapped.ip()), Family::V4);
        assert_eq!(Family::of("::1".parse().unwrap()), Family::V6);
    }

    #[test]
    fn addresses_are_of_the_right_kind() {
        use AddressKind::{Documentation, Local, NoHost, Public};
        let kinds: [(AddressKind, &[&str]); 4] = [
            (NoHost, &["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"]),
            (NoHost, &["::", "ff02::1", "ff0e::1", "::ffff:0.0.0.0", "::ffff:224.0.0.1"]),
            (
                Local,
                &["10.0.0.1", "127.0.0.1", "127.255.0.9", "100.64.0.1", "100.127.255.255", "169.254.1.1"],
            ),
            (Documentation, &["192.0.2.9", "198.51.100.1", "203.0.113.255", "2001:db8::1", "3fff:fff::1"]),
        ];
        let more: [(AddressKind, &[&str]); 3] = [
            (Local, &["172.16.0.1", "172.31.255.255", "192.168.1.1", "::1", "fc00::1", "fdff::1", "fe80::1"]),
            (Public, &["1.1.1.1", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "192.0.3.1"]),
            (Public, &["198.51.101.0", "223.255.255.255", "2001:db9::1", "2606:4700::1", "4000::1"]),
        ];
        let embedded: [(AddressKind, &[&str]); 4] = [
            (NoHost, &["::2", "::224.0.0.1", "64:ff9b::", "2002::1", "2002:e000:1::1", "100::", "100::1"]),
            (
                Local,
                &["::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::", "64:ff9b:1::101:101"],
            ),
            (Documentation, &["64:ff9b::192.0.2.1", "2002:c000:201::1"]),
            (Public, &["64:ff9b::1.1.1.1", "2002:101:101::1", "64:ff9b:2::1", "100:0:0:1::1", "101::1"]),
        ];
        for (kind, addresses) in kinds.into_iter().chain(more).chain(embedded) {
            for address in addresses {
                assert_eq!(AddressKind::of(address.parse().unwrap()), kind, "{address}");
            }
        }
    }

    #[test]
    fn loopback_addresses_are_known_in_all_forms() {
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "2002:7f00:1::"] {
            assert!(is_loopback(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["10.0.0.1", "::2", "64:ff9b::a00:1", "2002:a00:1::", "2606:4700::7f00:1"] {
            assert!(!is_loopback(ip.parse().unwrap()), "{ip}");
        }
    }
}
