//! Source addresses. They are consecutive, so that an address can be computed from its number and vice versa.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use aquatic_common::settings::Problem;

use crate::endpoints::{Endpoints, PORTS_PER_ADDRESS, TooManyPeers};

/// Default number of source addresses on loopback, unless the population needs more.
const USUAL_SOURCE_ADDRESSES: u64 = 16;

/// Settings that determine the source addresses.
#[derive(Clone, Copy, Debug)]
pub struct SourceSettings<'a> {
    /// Address of the tracker.
    pub server: SocketAddr,
    /// First source address as text; empty for the default.
    pub address: &'a str,
    /// Number of source addresses; 0 for the default.
    pub addresses: u32,
    /// Number of peers; each needs a port.
    pub peers: u64,
    /// Number of threads; each needs an address.
    pub threads: u32,
}

impl SourceSettings<'_> {
    /// First source address; `None` if the system chooses it.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        let usual = || self.on_loopback().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.address.parse().ok().or_else(usual)
    }

    /// Number of source addresses.
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

    /// Distributes the peers over the addresses.
    ///
    /// # Errors
    /// When the addresses have too few ports.
    pub fn endpoints(&self) -> Result<Endpoints, TooManyPeers> {
        Endpoints::new(self.peers, self.count())
    }

    /// Reports invalid combinations. Keys are those of the sections `network` and `population`.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        match self.address.parse::<IpAddr>() {
            Ok(ip) if ip.is_ipv4() != self.server.is_ipv4() => problems.push(Problem::new(
                "network.source_address",
                format!(
                    "{ip} has a different address family than the tracker's address {}",
                    self.server.ip()
                ),
            )),
            Err(_) if !self.address.is_empty() => problems.push(Problem::new(
                "network.source_address",
                format!("{:?} is not an IP address such as \"192.0.2.1\" or \"2001:db8::1\"", self.address),
            )),
            Ok(_) | Err(_) => {}
        }
        let addresses = self.count();
        if addresses > 1 && self.first().is_none() {
            problems.push(Problem::new(
                "network.source_address",
                "required if there are several source addresses",
            ));
        }
        if let Err(error) = self.endpoints() {
            problems.push(Problem::new(
                "population.peers",
                format!(
                    "{} peers need {} source addresses ({PORTS_PER_ADDRESS} ports each), but there are {addresses}: \
                     increase network.source_addresses",
                    self.peers, error.addresses_needed
                ),
            ));
        }
        if addresses < u64::from(self.threads) {
            problems.push(Problem::new(
                "threads",
                format!(
                    "{} threads need at least as many source addresses, but there are {addresses}",
                    self.threads
                ),
            ));
        }
    }

    /// Reports threads that would have no peers, where each address belongs to one thread. Such a thread
    /// would not send its share of the requests.
    pub fn check_threads(&self, problems: &mut Vec<Problem>) {
        let (addresses, threads) = (self.count(), u64::from(self.threads));
        let Ok(endpoints) = self.endpoints() else { return };
        let used = endpoints.addresses_with_peers();
        if used < threads && threads <= addresses {
            problems.push(Problem::new(
                "threads",
                format!(
                    "{threads} threads need at least as many source addresses with peers, but {} peers are at {used} \
                     of {addresses} addresses: decrease threads or increase population.peers",
                    self.peers
                ),
            ));
        }
    }

    fn on_loopback(&self) -> bool {
        let ip = self.server.ip();
        ip.is_ipv4() && ip.is_loopback()
    }
}

/// Consecutive source addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceAddresses {
    first: u128,
    is_ipv4: bool,
}

impl SourceAddresses {
    /// Addresses starting at this one, in the form that the tracker sees.
    #[must_use]
    pub fn from(first: IpAddr) -> Self {
        let first = first.to_canonical();
        Self { first: number(first), is_ipv4: first.is_ipv4() }
    }

    /// Address with this number; `None` beyond the last address of the family.
    #[must_use]
    pub fn ip(&self, address: u64) -> Option<IpAddr> {
        let number = self.first.checked_add(u128::from(address))?;
        if self.is_ipv4 {
            u32::try_from(number).ok().map(|bits| IpAddr::V4(bits.into()))
        } else {
            Some(IpAddr::V6(number.into()))
        }
    }

    /// Number of an address; it may be beyond the configured count.
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

/// Source address that the system chooses for a server. Sends nothing.
///
/// # Errors
/// When there is no route to the server.
pub fn default_source(server: SocketAddr) -> std::io::Result<IpAddr> {
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

    const SETTINGS: SourceSettings<'static> = SourceSettings {
        server: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3000),
        address: "",
        addresses: 0,
        peers: 1000,
        threads: 1,
    };

    fn keys(settings: SourceSettings<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        settings.check(&mut problems);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn loopback_has_as_many_addresses_as_needed() {
        assert_eq!((SETTINGS.first().unwrap().to_string().as_str(), SETTINGS.count()), ("127.0.0.1", 16));
        assert_eq!(SourceSettings { threads: 20, ..SETTINGS }.count(), 20);
        assert_eq!(SourceSettings { peers: 25_000_000, ..SETTINGS }.count(), 388);
        let far = SourceSettings { server: "192.0.2.1:80".parse().unwrap(), ..SETTINGS };
        assert_eq!((far.first(), far.count()), (None, 1));
    }

    #[test]
    fn invalid_combinations_are_reported() {
        assert_eq!(keys(SETTINGS), Vec::<String>::new());
        assert_eq!(keys(SourceSettings { address: "::1", ..SETTINGS }), ["network.source_address"]);
        assert_eq!(keys(SourceSettings { address: "x", ..SETTINGS }), ["network.source_address"]);
        assert_eq!(keys(SourceSettings { addresses: 1, threads: 2, ..SETTINGS }), ["threads"]);
        assert_eq!(keys(SourceSettings { addresses: 1, peers: 100_000, ..SETTINGS }), ["population.peers"]);
        let far = SourceSettings { server: "192.0.2.1:80".parse().unwrap(), addresses: 2, ..SETTINGS };
        assert_eq!(keys(far), ["network.source_address"]);
    }

    #[test]
    fn threads_without_peers_are_reported() {
        let problems = |peers, threads| {
            let mut problems = Vec::new();
            SourceSettings { peers, threads, ..SETTINGS }.check_threads(&mut problems);
            problems
        };
        assert_eq!((problems(1000, 16), problems(17, 9)), (Vec::new(), Vec::new()));
        let text = problems(17, 10)[0].to_string();
        assert!(text.contains("threads") && text.contains("17 peers are at 9 of 16 addresses"), "{text}");
    }

    #[test]
    fn numbers_and_addresses_convert_both_ways() {
        for (first, ninth) in [("127.0.0.250", "127.0.1.3"), ("2001:db8::fffc", "2001:db8::1:5")] {
            let sources = SourceAddresses::from(first.parse().unwrap());
            let ip = sources.ip(9).unwrap();
            assert_eq!(ip, ninth.parse::<IpAddr>().unwrap());
            assert_eq!(sources.address_of(ip), Some(9));
            assert_eq!(sources.address_of("0.0.0.0".parse().unwrap()), None);
            assert_eq!(sources.address_of("::".parse().unwrap()), None);
        }
        assert_eq!(SourceAddresses::from("255.255.255.255".parse().unwrap()).ip(1), None);
    }
}
