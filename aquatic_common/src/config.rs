//! Sections of settings that several services read. Their names and keys are part of the interface to
//! operators: a section has the same meaning for every service.

mod acme;
mod cluster;
mod connections;
mod exports;
mod network;
mod rate_limits;
mod secret_file;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use acme::{AcmeChallenges, AcmeConfig, ChallengeKind, LETS_ENCRYPT, normal_name};
pub use cluster::{ClusterConfig, ClusterMode, NATS_PORT, NatsServer};
pub use connections::{ConnectionsConfig, OnMissingClient, ProxiesConfig};
pub use exports::{ExportCompression, ExportFormat, ExportsConfig};
pub use network::{ListenerKind, MAX_UNIX_PATH, NetworkConfig, Transports, XdpMode, overlap};
pub use rate_limits::{RateLimitMode, RateLimitsConfig};
pub use secret_file::{Unusable, read_secret_file};

use crate::access_list::AccessListMode;
use crate::memory_limit::MemoryLimit;
use crate::ports::Ports;
use crate::settings::Problem;

/// Default port of the tracker.
pub const DEFAULT_PORT: u16 = 6969;

crate::choice! {
    /// Level of the log on standard error.
    #[derive(Default)]
    pub enum LogLevel {
        /// No messages.
        Off = "off",
        /// Failures that stop the tracker or a part of it.
        Error = "error",
        /// Conditions that an operator should correct.
        Warn = "warn",
        /// Listening addresses, reloads and statistics.
        #[default]
        Info = "info",
        /// Details, including addresses of clients.
        Debug = "debug",
        /// Every request.
        Trace = "trace",
    }
}

crate::choice! {
    /// Format of the log on standard error.
    #[derive(Default)]
    pub enum LogFormat {
        /// As the journal wants it if standard error is connected to it, otherwise as text.
        #[default]
        Auto = "auto",
        /// Time, level and message.
        Text = "text",
        /// A JSON object per line.
        Json = "json",
        /// A priority and the message, for the journal of systemd, which adds the time.
        Journal = "journal",
    }
}

crate::settings! {
    /// Torrents that are served. SIGHUP reloads the list.
    pub struct AccessListConfig, section "access_list" {
        /// "off" serves every torrent, "allow" only those on the list, "deny" all except those on the list.
        /// Applies to announces and scrapes.
        pub mode: AccessListMode = AccessListMode::Off;
        /// File with one info hash of 40 hexadecimal digits per line, optionally followed by a space or comma
        /// and any text. Blank lines and lines that start with #, ; or // are ignored. A file with any other
        /// line is rejected as a whole; on a reload the previous list then stays in use. The file is read
        /// before privileges are dropped. To be reloaded it must be readable afterwards as well.
        pub path: PathBuf = PathBuf::from("./access-list.txt");
        /// Accept a list without any info hash. Off by default: an empty file usually is the result of a
        /// failed download. With mode "deny" it would serve every torrent, with "allow" none.
        pub allow_empty: bool = false;
    }
}

crate::settings! {
    /// Privileges that are dropped after the sockets are opened. All but filter_system_calls require a start
    /// as root.
    pub struct PrivilegesConfig, section "privileges" {
        /// Switch to another user and group after the sockets are bound.
        pub drop_privileges: bool = false;
        /// Name of the user to switch to.
        pub user: String = "nobody".to_owned();
        /// Name of the group to switch to.
        pub group: String = "nogroup".to_owned();
        /// Directory that becomes the root directory of the process (chroot); empty for none. Files that are
        /// reloaded are then looked up inside it.
        pub chroot_path: PathBuf = PathBuf::new();
        /// Restrict the system calls of all threads that handle what clients send: they cannot start
        /// programs, change users, mount file systems, trace processes or map executable memory. Needs no
        /// root.
        pub filter_system_calls: bool = true;
    }
}

crate::settings! {
    /// Prometheus endpoint: metrics at http://ADDRESS/metrics, and /health for load balancers.
    pub struct MetricsConfig, section "metrics" {
        /// Serve metrics.
        pub enable: bool = false;
        /// Address and port of the endpoint. It has no access control.
        pub address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9000));
    }
}

crate::settings! {
    /// Socket for `aquatic ctl`, which asks the running tracker and commands it.
    pub struct ControlConfig, section "control" {
        /// Path of the unix socket. A relative one is in state_directory; without that, the default means
        /// that there is no socket. If empty, there is none. Only the user that the tracker runs as, and
        /// root, can use it.
        pub socket_path: PathBuf = PathBuf::from(ControlConfig::DEFAULT_NAME);
    }
}

impl ControlConfig {
    /// Name of the socket in the state directory.
    pub const DEFAULT_NAME: &str = "control.sock";
}

crate::settings! {
    /// Upgrade while clients are served (`aquatic upgrade`, SIGUSR2): the program is started anew, and takes
    /// over from the running process.
    pub struct UpgradeConfig, section "upgrade" {
        /// Maximum time until the new process has received the state. After that it is ended, and the running
        /// one goes on. 25 million peers take 10 to 20 seconds.
        pub timeout: u32 = 600, unit "seconds", in 1..=86_400;
        /// Time over which the replaced process ends its connections, so that their clients do not all
        /// reconnect at once.
        pub drain_time: u32 = 30, unit "seconds", in 0..=3600;
    }
}

crate::settings! {
    /// Statistics in the log, and those for the metrics that cost something.
    pub struct StatisticsConfig, section "statistics" {
        /// Time between two reports; 0 for no reports.
        pub interval: u32 = 0, unit "seconds", in 0..=86_400;
        /// Time between two counts of the torrents by their number of peers (aquatic_torrents_by_peers); 0
        /// for none. A count takes about 0.15 s of the cores together for a million torrents, in steps of 0.2
        /// ms between requests.
        pub torrent_sizes_interval: u32 = 0, unit "seconds", in 0..=86_400;
        /// Count announces by the program of the client, as its peer id tells
        /// (aquatic_announces_by_client_total). Takes some 10 ns of each announce.
        pub clients: bool = false;
    }
}

crate::settings! {
    /// Announce interval of UDP and HTTP clients. Both share the swarms and therefore the interval.
    /// WebTorrent clients have their own one in [ws].
    pub struct ProtocolConfig, section "protocol" {
        /// Time that clients are asked to wait between two announces.
        pub peer_announce_interval: u32 = 1800, unit "seconds", in 60..=43_200;
        /// Maximum share by which the interval is shortened at random, so that clients that started together
        /// do not announce together.
        pub announce_interval_jitter: u32 = 10, unit "percent", in 0..=50;
        /// Longest time that clients are asked to wait. The interval grows towards it while a worker is busy
        /// for more than 70 % of its time, averaged over a minute, and reaches it at 95 %. Peers are then
        /// remembered for twice as long as they were asked to wait, if that is longer than
        /// cleaning.max_peer_age. At or below protocol.peer_announce_interval, the interval does not grow.
        pub max_announce_interval: u32 = 3600, unit "seconds", in 60..=43_200;
        /// Number of peers of a torrent from which on its clients get the longest interval; it grows in
        /// proportion below. 0 if the size does not matter.
        pub max_interval_swarm_size: u32 = 0, unit "peers", in 0..=10_000_000;
    }
}

crate::settings! {
    /// Expiry of UDP and HTTP peers.
    pub struct CleaningConfig, section "cleaning" {
        /// Time after its last announce at which a peer is removed. Must be at least twice
        /// protocol.peer_announce_interval.
        pub max_peer_age: u32 = 3600, unit "seconds", in 60..=86_400;
        /// Time between two checks of the same torrent. The checks are spread evenly over it.
        pub interval: u32 = 120, unit "seconds", in 1..=3600;
    }
}

crate::settings! {
    /// Limits of the store of UDP and HTTP peers. At a limit, announces are answered but new peers are not
    /// stored. Worst-case memory: 48 bytes per torrent plus 14 per IPv4 peer or 34 per IPv6 peer (25 and 45
    /// in torrents with more than 80 peers), plus 100 MB per worker. Typical: 35 bytes, plus 9 or 22. The
    /// limits are divided evenly among the workers.
    pub struct LimitsConfig, section "limits" {
        /// Maximum number of torrents with at least one peer. A torrent with peers of both address families
        /// counts twice.
        pub max_torrents: u64 = 100_000_000, unit "torrents", in 1..=1_000_000_000;
        /// Maximum number of peers of all torrents.
        pub max_peers: u64 = 100_000_000, unit "peers", in 1..=1_000_000_000;
        /// Maximum number of peers per torrent and address family.
        pub max_peers_per_torrent: u32 = 1_000_000, unit "peers", in 1..=10_000_000;
        /// Maximum number of peers per torrent and IPv4 address, or IPv6 /64 network. The default suffices
        /// for a NAT with hundreds of clients in the same torrent: 300 lose 2 % to the division by ports on
        /// which the limit is based. Further clients of the address are answered but not found by others.
        /// Independently of this limit, where one address has more than about a quarter of a torrent's peers,
        /// replies to clients of other addresses have few of them.
        pub max_peers_per_address: u32 = 512, unit "peers", in 1..=1_000_000;
        /// Maximum memory of the process: a size such as "512MiB" or "2GiB", or a share such as "80%" of the
        /// memory that the machine has, or that the control group of the process (container, MemoryMax= of a
        /// systemd unit) may use if that is less; "" for no maximum. What is left of it for peers, those of
        /// WebTorrent included, is printed at start. As it fills up, first only the first two peers of a
        /// torrent are stored, then peers expire sooner, and in the end no new ones are stored; announces are
        /// answered all the time. What WebTorrent clients have not received yet is bounded by it as well, and
        /// so are messages of theirs that have come in part.
        pub max_memory: MemoryLimit = MemoryLimit::Share(80);
        /// Whether peers with a loopback, link-local, private or shared (100.64.0.0/10) address are stored:
        /// "accept", "refuse", or "auto", which refuses them if all addresses that the tracker listens at are
        /// public ones. It accepts them if it listens at 0.0.0.0 or [::], as by default, because it then may
        /// serve a local network, but no loopback addresses if proxies.trusted_proxies has one: nobody behind
        /// that proxy could reach the peer. Peers with an address that no host has, or one for documentation,
        /// are never stored. An IPv6 address that contains an IPv4 address (6to4, NAT64) is treated like
        /// that.
        pub local_addresses: LocalAddresses = LocalAddresses::Auto;
        /// Ports of peers that are not stored, as numbers and ranges: "0-1023,6881". Their clients are
        /// answered. Keeps clients from being sent to services such as mail or web servers.
        pub refused_ports: Ports = Ports::default();
        /// Share of max_peers that is reserved for torrents with fewer than three peers.
        pub reserved_for_small_torrents: u32 = 10, unit "percent", in 0..=90;
    }
}

crate::choice! {
    /// Whether peers with local addresses are stored.
    pub enum LocalAddresses {
        /// Not if the tracker listens at public addresses only.
        Auto = "auto",
        /// Always.
        Accept = "accept",
        /// Never.
        Refuse = "refuse",
    }
}

/// A limit of the section `[limits]` that keeps a peer from being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The number of torrents is at its maximum.
    Torrents,
    /// The number of peers is at its maximum.
    Peers,
    /// The number of peers of the torrent is at its maximum.
    PeersPerTorrent,
    /// The number of peers of the torrent and address is at its maximum.
    PeersPerAddress,
    /// The memory of the process is nearly at its maximum.
    Memory,
}

impl Limit {
    /// All limits, in the order of their discriminants.
    pub const ALL: [Self; 5] =
        [Self::Torrents, Self::Peers, Self::PeersPerTorrent, Self::PeersPerAddress, Self::Memory];

    /// The key of the setting, which is also the label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Torrents => "max_torrents",
            Self::Peers => "max_peers",
            Self::PeersPerTorrent => "max_peers_per_torrent",
            Self::PeersPerAddress => "max_peers_per_address",
            Self::Memory => "max_memory",
        }
    }
}

/// Reports a maximum peer age at which peers would expire between two of their announces. Both settings are
/// given as full name of the key and value in seconds.
pub fn check_peer_age(max_age: (&str, u32), interval: (&str, u32), problems: &mut Vec<Problem>) {
    let ((key, max_age), (interval_key, interval)) = (max_age, interval);
    let shortest = interval.saturating_mul(2);
    if max_age < shortest {
        let text = format!(
            "{max_age} s is less than twice {interval_key} ({interval} s): peers would expire between two announces. \
             Set it to {shortest} or more, or shorten the interval"
        );
        problems.push(Problem::new(key, text));
    }
}

impl ProtocolConfig {
    /// Reports a maximum peer age that is too short for the interval.
    pub fn check(&self, cleaning: &CleaningConfig, problems: &mut Vec<Problem>) {
        check_peer_age(
            (CleaningConfig::max_peer_age, cleaning.max_peer_age),
            (Self::peer_announce_interval, self.peer_announce_interval),
            problems,
        );
    }
}

impl LimitsConfig {
    /// Reports refused ports that leave none for peers.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        if self.refused_ports.has_all() {
            let text = format!(
                "\"{}\" has all ports, so no peer would be stored; leave out those that clients use",
                self.refused_ports
            );
            problems.push(Problem::new(Self::refused_ports, text));
        }
    }
}

impl PrivilegesConfig {
    /// Reports settings without effect: a tracker that keeps running as root by mistake is worse than one
    /// that does not start.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let Self { drop_privileges, filter_system_calls, .. } = *self;
        let without_effect = Self { drop_privileges, filter_system_calls, ..Self::default() };
        if !self.drop_privileges && *self != without_effect {
            let text = "is false, so the other keys of the section have no effect; set it to true, or leave them out";
            problems.push(Problem::new(Self::drop_privileges, text));
        }
        if self.drop_privileges && self.user == "root" {
            let text = "\"root\" keeps all privileges; name another user, such as \"nobody\"";
            problems.push(Problem::new(Self::user, text));
        }
    }
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
        let dropped = PrivilegesConfig { drop_privileges: true, ..user };
        assert_eq!(keys(dropped.clone()), [""; 0]);
        assert_eq!(keys(PrivilegesConfig { user: "root".to_owned(), ..dropped }), ["privileges.user"]);
    }

    #[test]
    fn a_port_is_left_for_peers() {
        for (ports, expected) in [("0-65535", 1), ("1-65535", 1), ("2-65535", 0), ("0-1023", 0), ("", 0)] {
            let limits = LimitsConfig { refused_ports: ports.parse().unwrap(), ..LimitsConfig::default() };
            let mut problems = Vec::new();
            limits.check(&mut problems);
            assert_eq!(problems.len(), expected, "{ports}");
            assert!(problems.iter().all(|problem| problem.key == "limits.refused_ports"));
        }
    }

    #[test]
    fn limits_are_called_as_their_settings() {
        let keys: Vec<_> = LimitsConfig::entries().iter().map(|entry| entry.meta().key).collect();
        assert!(Limit::ALL.iter().all(|limit| keys.contains(&limit.name())), "{keys:?}");
        assert!(Limit::ALL.iter().enumerate().all(|(number, limit)| *limit as usize == number));
    }

    #[test]
    fn peer_age_below_twice_the_interval_is_a_problem() {
        let problems = |peer_announce_interval| {
            let mut problems = Vec::new();
            let protocol = ProtocolConfig { peer_announce_interval, ..ProtocolConfig::default() };
            protocol.check(&CleaningConfig::default(), &mut problems);
            problems
        };
        assert_eq!(problems(1800), []);
        let found = problems(1801);
        assert_eq!(found[0].key, "cleaning.max_peer_age");
        assert!(
            found[0].text.contains("twice protocol.peer_announce_interval (1801 s)"),
            "{}",
            found[0].text
        );
        assert!(found[0].text.contains("3602"), "{}", found[0].text);
    }
}
