//! Blocks of settings that several services share. Their names and keys are part of the interface to operators: a
//! configuration file of one service keeps its meaning in another.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::access_list::AccessListMode;
use crate::addr::Family;
use crate::settings::{Addresses, Problem};

/// The port of a tracker unless configured otherwise.
pub const DEFAULT_PORT: u16 = 6969;

crate::choice! {
    /// How much the tracker says about itself on standard error.
    #[derive(Default)]
    pub enum LogLevel {
        /// Nothing.
        Off = "off",
        /// What stops the tracker or part of it.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// Where the tracker listens and what it was told to do.
        #[default]
        Info = "info",
        /// More, including addresses of clients.
        Debug = "debug",
        /// Everything, including each packet.
        Trace = "trace",
    }
}

crate::settings! {
    /// Which torrents are served. Send SIGUSR1 to read the list again.
    pub struct AccessListConfig {
        /// "off" serves every torrent, "allow" only those on the list, "deny" all but those on the list.
        /// Applies to announces and scrapes.
        pub mode: AccessListMode = AccessListMode::Off;
        /// File with one info hash per line: 40 hexadecimal digits. Lines that start with # are comments.
        /// Read before privileges are dropped; to reload, it must be readable afterwards too.
        pub path: PathBuf = PathBuf::from("./access-list.txt");
    }
}

crate::settings! {
    /// What the tracker gives up once its sockets are open. Needs to be started as root.
    pub struct PrivilegesConfig {
        /// Become another user after binding the sockets.
        pub drop_privileges: bool = false;
        /// Name of the user to become.
        pub user: String = "nobody".to_owned();
        /// Name of the group to become.
        pub group: String = "nogroup".to_owned();
        /// Directory to lock the process into; empty for none. Paths in this file are then looked up
        /// inside it when they are read again.
        pub chroot_path: PathBuf = PathBuf::new();
    }
}

crate::settings! {
    /// Prometheus endpoint: metrics at http://ADDRESS/metrics, and /health for load balancers.
    pub struct MetricsConfig {
        /// Serve metrics.
        pub enable: bool = false;
        /// Address and port to serve them on. Anyone who can reach it can read them.
        pub address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9000));
    }
}

crate::settings! {
    /// Statistics in the log.
    pub struct StatisticsConfig {
        /// Time between two reports; 0 for none.
        pub interval: u32 = 0, unit "seconds", in 0..=86_400;
    }
}

crate::settings! {
    /// How long peers are remembered, and how they are forgotten.
    pub struct CleaningConfig {
        /// A peer that has not announced for this long is forgotten.
        /// Must be at least twice the announce interval.
        pub max_peer_age: u32 = 3600, unit "seconds", in 60..=172_800;
        /// One pass over all torrents takes this long. The work is spread evenly over it.
        pub interval: u32 = 120, unit "seconds", in 1..=3600;
    }
}

crate::settings! {
    /// Upper bounds on what the tracker remembers. At a limit it still answers, but does not store.
    /// Worst-case memory: 48 bytes per torrent plus 14 per IPv4 peer or 34 per IPv6 peer (25 and 45 in torrents with
    /// more than 80 peers), plus 100 MB per worker. Usual: 35, plus 9 or 22. Room is divided evenly among the workers.
    pub struct LimitsConfig {
        /// Torrents with at least one peer. One with peers of both address families counts twice.
        pub max_torrents: u64 = 100_000_000, unit "torrents", in 1..=1_000_000_000;
        /// Peers of all torrents together.
        pub max_peers: u64 = 100_000_000, unit "peers", in 1..=1_000_000_000;
        /// Peers of one torrent and address family.
        pub max_peers_per_torrent: u32 = 1_000_000, unit "peers", in 1..=10_000_000;
        /// Share of max_peers kept free for torrents with fewer than three peers.
        pub reserved_for_small_torrents: u32 = 10, unit "percent", in 0..=90;
    }
}

/// A limit of the section `[limits]` that keeps a peer from being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// There are as many torrents as there may be.
    Torrents,
    /// There are as many peers as there may be.
    Peers,
    /// The torrent has as many peers as it may have.
    PeersPerTorrent,
}

impl Limit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Torrents, Self::Peers, Self::PeersPerTorrent];

    /// The key of the setting, which is also the label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Torrents => "max_torrents",
            Self::Peers => "max_peers",
            Self::PeersPerTorrent => "max_peers_per_torrent",
        }
    }
}

/// Reports a peer age that would forget peers between two of their announces.
pub fn check_peer_age(cleaning: &CleaningConfig, announce_interval: u32, problems: &mut Vec<Problem>) {
    let shortest = announce_interval.saturating_mul(2);
    if cleaning.max_peer_age < shortest {
        problems.push(Problem::new(
            "cleaning.max_peer_age",
            format!(
                "{} s is less than twice protocol.peer_announce_interval ({announce_interval} s): peers would be \
                 forgotten between two announces. Set it to {shortest} or more, or shorten the interval",
                cleaning.max_peer_age
            ),
        ));
    }
}

impl PrivilegesConfig {
    /// Reports settings without an effect: a tracker that stays root by mistake is worse than one that does not start.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let without_effect = Self { drop_privileges: self.drop_privileges, ..Self::default() };
        if !self.drop_privileges && *self != without_effect {
            let text = "is false, so the other keys of the section have no effect; set it to true, or leave them out";
            problems.push(Problem::new("privileges.drop_privileges", text));
        }
    }
}

/// The four keys of a section `[network]` that say where to listen.
#[derive(Clone, Copy, Debug)]
pub struct Listen<'a> {
    /// Whether IPv4 is served.
    pub use_ipv4: bool,
    /// Whether IPv6 is served.
    pub use_ipv6: bool,
    /// Where, over IPv4.
    pub address_ipv4: &'a Addresses,
    /// Where, over IPv6.
    pub address_ipv6: &'a Addresses,
}

impl Listen<'_> {
    /// The addresses to listen on, with their families, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = (Family, SocketAddr)> {
        let of = |family, on: bool, addresses: &Addresses| {
            let addresses = if on { addresses.0.clone() } else { Vec::new() };
            addresses.into_iter().map(move |address| (family, address))
        };
        of(Family::V4, self.use_ipv4, self.address_ipv4).chain(of(
            Family::V6,
            self.use_ipv6,
            self.address_ipv6,
        ))
    }

    /// Whether the tracker may start without an address that this machine has no family for. Machines without IPv6
    /// are common, and serving both families is the default.
    #[must_use]
    pub fn may_do_without(&self, family: Family, address: SocketAddr) -> bool {
        family == Family::V6 && address.ip().is_unspecified() && self.use_ipv4
    }

    /// Reports addresses of the wrong family, lists without any, and addresses that are in each other's way.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        for (family, key, addresses) in [
            (Family::V4, "network.address_ipv4", self.address_ipv4),
            (Family::V6, "network.address_ipv6", self.address_ipv6),
        ] {
            if addresses.0.is_empty() {
                problems
                    .push(Problem::new(key, "the list is empty; to not listen, set the use_ key to false"));
            }
            for address in &addresses.0 {
                let own = if address.is_ipv4() { Family::V4 } else { Family::V6 };
                if own != family {
                    problems.push(Problem::new(key, format!("{address} is of the other family")));
                }
            }
            if let Some((one, other)) = overlapping(&addresses.0) {
                let text = format!("{one} and {other} are in each other's way; leave one of them out");
                problems.push(Problem::new(key, text));
            }
        }
    }

    /// Reports a metrics endpoint at an address that a service takes for itself, for services that listen over TCP as
    /// it does.
    pub fn check_metrics(&self, metrics: &MetricsConfig, problems: &mut Vec<Problem>) {
        let taken = |address: &SocketAddr| overlap(*address, metrics.address);
        if let Some((_, address)) = self.addresses().find(|(_, address)| metrics.enable && taken(address)) {
            let text = format!(
                "{} and {address}, where the tracker listens, are in each other's way",
                metrics.address
            );
            problems.push(Problem::new("metrics.address", text));
        }
    }
}

/// The first two addresses that cannot both be listened on.
fn overlapping(addresses: &[SocketAddr]) -> Option<(SocketAddr, SocketAddr)> {
    addresses.iter().enumerate().find_map(|(at, &one)| {
        let other = addresses.iter().skip(at + 1).find(|&&other| overlap(one, other))?;
        Some((one, *other))
    })
}

/// Whether two addresses of one family cannot both be listened on. For port 0 the kernel finds a free one.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.is_ipv4() == other.is_ipv4() && same_ip && one.port() == other.port() && one.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn privileges_that_are_meant_to_be_dropped_are_dropped() {
        let keys = |privileges: PrivilegesConfig| {
            let mut problems = Vec::new();
            privileges.check(&mut problems);
            problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
        };
        let default = PrivilegesConfig::default();
        let user = PrivilegesConfig { user: "tracker".to_owned(), ..default.clone() };
        assert_eq!(keys(default), [""; 0]);
        assert_eq!(keys(user.clone()), ["privileges.drop_privileges"]);
        assert_eq!(keys(PrivilegesConfig { drop_privileges: true, ..user }), [""; 0]);
    }

    /// The keys that are complained about when a tracker listens on these addresses of IPv4.
    fn keys(addresses: &[&str], metrics: Option<&str>) -> Vec<String> {
        let address_ipv4 = Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect());
        let address_ipv6 = Addresses(vec!["[::]:6969".parse().unwrap()]);
        let listen = Listen {
            use_ipv4: true,
            use_ipv6: true,
            address_ipv4: &address_ipv4,
            address_ipv6: &address_ipv6,
        };
        let address = metrics.unwrap_or("127.0.0.1:9000").parse().unwrap();
        let mut problems = Vec::new();
        listen.check(&mut problems);
        listen.check_metrics(&MetricsConfig { enable: metrics.is_some(), address }, &mut problems);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn addresses_in_each_others_way_are_a_problem() {
        assert_eq!(keys(&["0.0.0.0:1", "0.0.0.0:2", "127.0.0.1:3", "127.0.0.2:3"], None), [""; 0]);
        assert_eq!(keys(&["0.0.0.0:0", "127.0.0.1:0", "127.0.0.1:0"], None), [""; 0], "the kernel chooses");
        assert_eq!(keys(&["0.0.0.0:1", "127.0.0.1:1"], None), ["network.address_ipv4"]);
        assert_eq!(keys(&["127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:2"], None), ["network.address_ipv4"]);
        assert_eq!(keys(&["127.0.0.1:9000"], None), [""; 0], "no metrics are served");
        assert_eq!(keys(&["127.0.0.2:9000"], Some("127.0.0.1:9000")), [""; 0]);
        assert_eq!(keys(&["127.0.0.1:9000"], Some("127.0.0.1:9000")), ["metrics.address"]);
        assert_eq!(keys(&["127.0.0.1:9000"], Some("[::1]:6969")), ["metrics.address"]);
    }

    #[test]
    fn limits_are_called_as_their_settings() {
        let keys: Vec<_> = LimitsConfig::entries().iter().map(|entry| entry.meta().key).collect();
        assert!(Limit::ALL.iter().all(|limit| keys.contains(&limit.name())), "{keys:?}");
        assert!(Limit::ALL.iter().enumerate().all(|(number, limit)| *limit as usize == number));
    }

    #[test]
    fn peer_age_below_twice_the_interval_is_a_problem() {
        let mut problems = Vec::new();
        check_peer_age(&CleaningConfig::default(), 1800, &mut problems);
        assert_eq!(problems, []);
        check_peer_age(&CleaningConfig::default(), 1801, &mut problems);
        assert_eq!(problems[0].key, "cleaning.max_peer_age");
        assert!(problems[0].text.contains("3602"), "{}", problems[0].text);
    }
}
