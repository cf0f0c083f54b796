//! How the memory budget of the process is divided.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aquatic_common::access_list::AccessListMode;
use aquatic_common::config::{ConnectionsConfig, LimitsConfig};
use aquatic_net::xdp;
use aquatic_runtime::memory;
use aquatic_tracker::{CoreBudget, Degradation};

use crate::config::{Protocols, TrackerConfig};

const MIB: u64 = 1 << 20;

/// What the process takes before it serves anything: program, threads, buffers of the log.
const PROCESS: u64 = 16 * MIB;

/// What each core takes besides what it stores: executor, buffers for packets, channels.
const CORE: u64 = 4 * MIB;

/// What a connection takes, on average: buffers of the process and of the kernel, TLS session, and what a
/// WebTorrent client has not received yet. Idle ones take between 2 and 12 KiB.
const CONNECTION: u64 = 16 << 10;

/// What an access list takes for each byte of its file, which has a line of 41 bytes for each torrent: 20
/// bytes for that, twice while it is read again.
const ACCESS_LIST: u64 = 1;

/// The same for a block list: a line of 10 to 18 bytes for each network, which takes 8 bytes.
const BLOCK_LIST: u64 = 2;

/// Share of that for what WebTorrent clients have not received yet, in percent.
const UNSENT_SHARE: u64 = 50;

/// Share that connections may take of what is left, in percent.
const CONNECTIONS_SHARE: u64 = 25;

/// What the allocator takes for a hundred bytes of torrents and peers.
const STORE_OVERHEAD: u64 = 130;

/// Bytes of a peer over IPv4 and its share of a torrent, where torrents have 2.5 peers on average and most of
/// them one; see docs/benchmarks.md.
const PEER: u64 = 27;

/// The least that is left for torrents and peers of a core, whatever the budget.
const LEAST_STORE: u64 = 2 * MIB;

/// The least number of connections that is left, whatever the budget.
const LEAST_CONNECTIONS: u64 = 64;

/// A budget, divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPlan {
    /// Bytes that the process may take.
    pub(crate) total: u64,
    /// Bytes that torrents and peers of each core may take.
    pub(crate) store: u64,
    /// Maximum number of connections.
    pub(crate) connections: usize,
    /// Bytes that are needed for the least store and the least connections.
    pub(crate) least: u64,
    purpose: Purpose,
}

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Purpose {
    cores: u64,
    /// UDP receive buffers of each core, in bytes.
    buffers: u64,
    /// Bytes that access list and block list take.
    lists: u64,
    /// Bytes that the sockets of AF_XDP take.
    xdp: u64,
    protocols: Protocols,
}

/// What the lists of a configuration take, by their files as they are now. A file that cannot be read has
/// been reported elsewhere.
fn lists(config: &TrackerConfig) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let listed = config.access_list.mode != AccessListMode::Off;
    let access = if listed { length(&config.access_list.path) } else { 0 };
    let blocked = &config.rate_limits.block_list_path;
    let blocked = if blocked.as_os_str().is_empty() { 0 } else { length(blocked) };
    access.saturating_mul(ACCESS_LIST).saturating_add(blocked.saturating_mul(BLOCK_LIST))
}

impl MemoryPlan {
    /// Divides a budget of bytes, with at most so many connections.
    fn new(total: u64, purpose: Purpose, connections: usize) -> Self {
        let Purpose { cores, buffers, lists, xdp, protocols } = purpose;
        let fixed = PROCESS + lists + xdp + cores * (CORE + buffers);
        let left = total.saturating_sub(fixed);
        let wanted = if protocols.http || protocols.ws { connections as u64 } else { 0 };
        let affordable = (left / 100 * CONNECTIONS_SHARE / CONNECTION).max(LEAST_CONNECTIONS);
        let connections = wanted.min(affordable);
        let store = left.saturating_sub(connections * CONNECTION) / STORE_OVERHEAD * 100 / cores.max(1);
        Self {
            total,
            store: store.max(LEAST_STORE),
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            least: fixed + cores * LEAST_STORE / 100 * STORE_OVERHEAD + LEAST_CONNECTIONS * CONNECTION,
            purpose,
        }
    }

    /// The same budget with at most so many connections.
    pub(crate) fn with_connections(&self, connections: usize) -> Self {
        Self::new(self.total, self.purpose, connections)
    }

    /// The plan for a configuration, if it bounds memory and this machine's memory is known. Written to the
    /// log.
    pub(crate) fn of(config: &TrackerConfig, cores: usize, protocols: Protocols) -> Option<Self> {
        let limit = config.limits.max_memory;
        let Some(available) = memory::available() else {
            if limit.of(0).is_some() {
                log::warn!(
                    "the memory of this machine is unknown (/proc/meminfo cannot be read), so {} has no effect",
                    LimitsConfig::max_memory
                );
            }
            return None;
        };
        let plan = Self::divide(config, cores, protocols, available)?;
        let total = plan.total;
        if total > available {
            log::warn!(
                "{} = \"{limit}\" is more than the {} MiB that this process may use; the system may end it before \
                 the limit is reached. Lower it, or raise the limit of the control group (MemoryMax=, --memory)",
                LimitsConfig::max_memory,
                available / MIB
            );
        }
        plan.announce(config.connections.max_connections);
        Some(plan)
    }

    /// The plan for a configuration where so many bytes are available, if it bounds memory.
    pub(crate) fn divide(
        config: &TrackerConfig,
        cores: usize,
        protocols: Protocols,
        available: u64,
    ) -> Option<Self> {
        let total = config.limits.max_memory.of(available)?;
        let sockets = if protocols.udp { config.network.addresses().count() as u64 } else { 0 };
        let buffers = config.udp.socket_recv_buffer_size as u64 * sockets;
        let interface = &config.network.xdp_interface;
        let xdp = if protocols.udp && !interface.is_empty() { xdp::memory_of(interface) } else { 0 };
        let purpose = Purpose { cores: cores as u64, buffers, lists: lists(config), xdp, protocols };
        Some(Self::new(total, purpose, config.connections.max_connections))
    }

    /// What the stores of each core may take.
    pub(crate) fn budgets(&self) -> Arc<[CoreBudget]> {
        (0..self.purpose.cores).map(|_| CoreBudget::new(self.store)).collect()
    }

    /// Bytes that the WebTorrent clients of each core may have together that they have not received yet.
    pub(crate) fn unsent(&self) -> usize {
        let bytes = self.connections as u64 * CONNECTION / 100 * UNSENT_SHARE / self.purpose.cores.max(1);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// About how many peers over IPv4 there is room for before anything is refused.
    fn peers(&self) -> u64 {
        self.store * self.purpose.cores / 100 * Degradation::BEGINS / PEER
    }

    /// Warns if there will be fewer connections than are wanted.
    pub(crate) fn warn_of_connections(&self, wanted: usize) {
        if self.connections < wanted {
            log::warn!(
                "{} = {wanted} could take more memory than there is, so there will be at most {}. Raise {}, or lower \
                 the setting",
                ConnectionsConfig::max_connections,
                self.connections,
                LimitsConfig::max_memory
            );
        }
    }

    fn announce(&self, wanted: usize) {
        let Protocols { udp, http, ws } = self.purpose.protocols;
        let peers = if udp || http {
            format!(" ({}, if they are on IPv4)", rounded(self.peers()))
        } else {
            String::new()
        };
        let connections = match self.connections {
            0 => String::new(),
            connections => format!(" and the rest for {connections} connections"),
        };
        log::info!(
            "memory: up to {} MiB ({}), of which {} MiB for torrents and peers{peers}{connections}",
            self.total / MIB,
            LimitsConfig::max_memory,
            self.store * self.purpose.cores / MIB,
        );
        if http || ws {
            self.warn_of_connections(wanted);
        }
        if self.purpose.lists > MIB {
            log::info!(
                "memory: access list and block list take up to {} MiB of it, while they are read again",
                self.purpose.lists / MIB
            );
        }
        if self.total < self.least {
            log::warn!(
                "the tracker may take {} MiB, more than {} allows. Raise it, or lower workers or \
                 udp.socket_recv_buffer_size, or shorten access list and block list",
                self.least.div_ceil(MIB),
                LimitsConfig::max_memory
            );
        }
    }
}

/// An estimate of a number of peers, in words.
fn rounded(peers: u64) -> String {
    match peers {
        2_000_000.. => format!("some {} million peers", peers / 1_000_000),
        _ => format!("some {} thousand peers", peers / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    fn purpose(cores: u64, buffers: u64) -> Purpose {
        Purpose { cores, buffers, lists: 0, xdp: 0, protocols: TrackerConfig::default().protocols(Mode::All) }
    }

    #[test]
    fn connections_may_be_changed() {
        let plan = MemoryPlan::new(512 * MIB, purpose(1, 16 * MIB), 50);
        let more = plan.with_connections(5000);
        assert_eq!((plan.connections, more.connections), (50, 5000));
        assert!(more.store < plan.store && more.total == plan.total);
        assert_eq!(more.with_connections(50), plan);
        let most = plan.with_connections(1_000_000);
        assert!((5000..1_000_000).contains(&most.connections), "{most:?}");
        let udp = Purpose { protocols: TrackerConfig::default().protocols(Mode::Udp), ..plan.purpose };
        assert_eq!(MemoryPlan::new(512 * MIB, udp, 5000).connections, 0, "there are none");
    }

    #[test]
    fn lists_and_every_socket_take_their_part() {
        let directory = tempfile::tempdir().unwrap();
        let (access, block) = (directory.path().join("access"), directory.path().join("block"));
        fs::write(&access, vec![b'a'; 30 << 20]).unwrap();
        fs::write(&block, vec![b'1'; 1 << 20]).unwrap();
        let mut config = TrackerConfig::default();
        config.limits.max_memory = "128MiB".parse().unwrap();
        let protocols = config.protocols(Mode::Udp);
        let store = |config: &_| MemoryPlan::divide(config, 1, protocols, 1 << 40).unwrap().store;
        let without = store(&config);
        config.access_list.path = access;
        assert_eq!(store(&config), without, "the list is not used");
        config.access_list.mode = AccessListMode::Allow;
        config.rate_limits.block_list_path = block;
        let with = store(&config);
        assert_eq!((without - with).div_ceil(MIB), (32 * MIB / STORE_OVERHEAD * 100).div_ceil(MIB));
        config.network.address_ipv4.0.push("127.0.0.2:6969".parse().unwrap());
        let with = store(&config);
        assert!(with < without);
        // It has one queue, or none that can be asked for.
        config.network.xdp_interface = "lo".to_owned();
        assert!(store(&config) < with);
        config.network.xdp_interface = "no such one".to_owned();
        assert_eq!(store(&config), with);
    }

    #[test]
    fn peers_are_estimated() {
        let peers = |total| rounded(MemoryPlan::new(total, purpose(2, 4 * MIB), 1000).peers());
        assert_eq!(peers(19_000 * MIB), "some 452 million peers");
        assert_eq!(peers(512 * MIB), "some 11 million peers");
        assert_eq!(peers(64 * MIB), "some 573 thousand peers");
    }

    #[test]
    fn a_budget_is_spent_and_not_exceeded() {
        for (total, cores, buffers, connections) in
            [(512, 1, 16, 100_000), (4096, 8, 16, 1000), (96, 2, 4, 100_000), (1 << 20, 64, 16, 10_000_000)]
        {
            let plan = MemoryPlan::new(total * MIB, purpose(cores, buffers * MIB), connections);
            let taken = PROCESS
                + cores * (CORE + buffers * MIB + plan.store * STORE_OVERHEAD / 100)
                + plan.connections as u64 * CONNECTION;
            assert!(plan.total >= plan.least, "{plan:?}");
            assert!(taken <= plan.total, "{plan:?} takes {taken}");
            assert!(taken > plan.total / 10 * 9, "{plan:?} takes {taken} only");
            assert!(plan.connections <= connections, "{plan:?}");
        }
    }

    #[test]
    fn too_small_a_budget_leaves_the_least() {
        let plan = MemoryPlan::new(MIB, purpose(4, 0), 1000);
        assert_eq!((plan.store, plan.connections), (LEAST_STORE, LEAST_CONNECTIONS as usize));
        assert!(plan.total < plan.least, "{plan:?}");
    }
}
