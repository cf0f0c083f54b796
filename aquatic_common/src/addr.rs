//! Addresses in the one form the tracker reasons about.

use std::net::{IpAddr, SocketAddr};

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
}
