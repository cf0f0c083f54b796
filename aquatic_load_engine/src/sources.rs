//! The addresses that peers announce from: consecutive ones, so that the number of an address and the address follow
//! from each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use aquatic_common::settings::Problem;

use crate::endpoints::{Endpoints, PORTS_PER_ADDRESS, TooManyPeers};

/// Source addresses used on loopback unless told otherwise, if the population does not need more.
const USUAL_SOURCE_ADDRESSES: u64 = 16;

/// What was asked for in the settings.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The tracker.
    pub server: SocketAddr,
    /// First source address as text; empty to leave it open.
    pub address: &'a str,
    /// Number of source addresses; 0 to leave it open.
    pub addresses: u32,
    /// Peers that need a port each.
    pub peers: u64,
    /// Threads that need an address each.
    pub threads: u32,
}

impl Wanted<'_> {
    /// The first source address, unless the system is to choose it.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        let usual = || self.on_loopback().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.address.parse().ok().or_else(usual)
    }

    /// How many source addresses there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        match u64::from(self.addresses) {
            0 if self.on_loopback() => {
                let needed = self.peers.div_ceil(PORTS_PER_ADDRESS);
                needed.max(USUAL_SOURCE_ADDRESSES).max(u64::from(self.threads))
            }
            0 => 1,
            given => given,
        }
    }

    /// The peers spread over the addresses.
    ///
    /// # Errors
    /// When the addresses have too few ports.
    pub fn endpoints(&self) -> Result<Endpoints, TooManyPeers> {
        Endpoints::new(self.peers, self.count())
    }

    /// Reports what cannot be. Keys are those of the sections `network` and `population`.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        match self.address.parse::<IpAddr>() {
            Ok(ip) if ip.is_ipv4() != self.server.is_ipv4() => problems.push(Problem::new(
                "network.source_address",
                format!("{ip} is of another address family than the tracker's {}", self.server.ip()),
            )),
            Err(_) if !self.address.is_empty() => problems.push(Problem::new(
                "network.source_address",
                format!("{:?} is not an address; write \"192.0.2.1\" or \"2001:db8::1\"", self.address),
            )),
            Ok(_) | Err(_) => {}
        }
        let addresses = self.count();
        if addresses > 1 && self.first().is_none() {
            problems.push(Problem::new("network.source_address", "must be given if there are to be several"));
        }
        if let Err(error) = self.endpoints() {
            problems.push(Problem::new(
                "population.peers",
                format!(
                    "{} peers need {} source addresses ({PORTS_PER_ADDRESS} ports each), not {addresses}: see \
                     network.source_addresses",
                    self.peers, error.addresses_needed
                ),
            ));
        }
        if addresses < u64::from(self.threads) {
            problems.push(Problem::new(
                "threads",
                format!("{} threads need at least as many source addresses, not {addresses}", self.threads),
            ));
        }
    }

    fn on_loopback(&self) -> bool {
        let ip = self.server.ip();
        ip.is_ipv4() && ip.is_loopback()
    }
}

/// The source addresses in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    first: u128,
    is_ipv4: bool,
}

impl Sources {
    /// Addresses from this one on, as the tracker sees them.
    #[must_use]
    pub fn from(first: IpAddr) -> Self {
        let first = first.to_canonical();
        Self { first: number(first), is_ipv4: first.is_ipv4() }
    }

    /// An address by its number; `None` where the addresses of the family end.
    #[must_use]
    pub fn ip(&self, address: u64) -> Option<IpAddr> {
        let number = self.first.checked_add(u128::from(address))?;
        if self.is_ipv4 {
            u32::try_from(number).ok().map(|bits| IpAddr::V4(bits.into()))
        } else {
            Some(IpAddr::V6(number.into()))
        }
    }

    /// The number of an address, which has no end.
    #[must_use]
    pub fn address_of(&self, ip: IpAddr) -> Option<u64> {
        if ip.is_ipv4() != self.is_ipv4 {
            return None;
        }
        u64::try_from(number(ip).checked_sub(self.first)?).ok()
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address the system sends to a server from. Nothing is sent to find it out.
///
/// # Errors
/// When there is no way to the server.
pub fn system_choice(server: SocketAddr) -> std::io::Result<IpAddr> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<'static> = Wanted {
        server: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3000),
        address: "",
        addresses: 0,
        peers: 1000,
        threads: 1,
    };

    fn keys(wanted: Wanted<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        wanted.check(&mut problems);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn loopback_has_as_many_addresses_as_needed() {
        assert_eq!((WANTED.first().unwrap().to_string().as_str(), WANTED.count()), ("127.0.0.1", 16));
        assert_eq!(Wanted { threads: 20, ..WANTED }.count(), 20);
        assert_eq!(Wanted { peers: 25_000_000, ..WANTED }.count(), 388);
        let far = Wanted { server: "192.0.2.1:80".parse().unwrap(), ..WANTED };
        assert_eq!((far.first(), far.count()), (None, 1));
    }

    #[test]
    fn impossible_wishes_are_named() {
        assert_eq!(keys(WANTED), Vec::<String>::new());
        assert_eq!(keys(Wanted { address: "::1", ..WANTED }), ["network.source_address"]);
        assert_eq!(keys(Wanted { address: "x", ..WANTED }), ["network.source_address"]);
        assert_eq!(keys(Wanted { addresses: 1, threads: 2, ..WANTED }), ["threads"]);
        assert_eq!(keys(Wanted { addresses: 1, peers: 100_000, ..WANTED }), ["population.peers"]);
        let far = Wanted { server: "192.0.2.1:80".parse().unwrap(), addresses: 2, ..WANTED };
        assert_eq!(keys(far), ["network.source_address"]);
    }

    #[test]
    fn numbers_and_addresses_follow_from_each_other() {
        for (first, ninth) in [("127.0.0.250", "127.0.1.3"), ("2001:db8::fffc", "2001:db8::1:5")] {
            let sources = Sources::from(first.parse().unwrap());
            let ip = sources.ip(9).unwrap();
            assert_eq!(ip, ninth.parse::<IpAddr>().unwrap());
            assert_eq!(sources.address_of(ip), Some(9));
            assert_eq!(sources.address_of("0.0.0.0".parse().unwrap()), None);
            assert_eq!(sources.address_of("::".parse().unwrap()), None);
        }
        assert_eq!(Sources::from("255.255.255.255".parse().unwrap()).ip(1), None);
    }
}
