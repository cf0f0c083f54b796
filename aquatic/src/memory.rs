//! How the memory budget of the process is divided.

use std::sync::Arc;

use aquatic_common::config::{ConnectionsConfig, LimitsConfig};
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
}

impl MemoryPlan {
    /// Divides a budget of bytes among so many cores, of which each has UDP receive buffers of `buffers`
    /// bytes.
    fn new(total: u64, cores: u64, buffers: u64, connections: usize) -> Self {
        let fixed = PROCESS + cores * (CORE + buffers);
        let left = total.saturating_sub(fixed);
        let wanted = connections as u64;
        let affordable = (left / 100 * CONNECTIONS_SHARE / CONNECTION).max(LEAST_CONNECTIONS);
        let connections = wanted.min(affordable);
        let store = left.saturating_sub(connections * CONNECTION) / STORE_OVERHEAD * 100 / cores.max(1);
        Self {
            total,
            store: store.max(LEAST_STORE),
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            least: fixed + cores * LEAST_STORE / 100 * STORE_OVERHEAD + LEAST_CONNECTIONS * CONNECTION,
        }
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
        let plan = Self::divide(config, cores, protocols.udp, available)?;
        let total = plan.total;
        if total > available {
            log::warn!(
                "{} = \"{limit}\" is more than the {} MiB that this process may use; the system may end it before \
                 the limit is reached. Lower it, or raise the limit of the control group (MemoryMax=, --memory)",
                LimitsConfig::max_memory,
                available / MIB
            );
        }
        plan.announce(config.connections.max_connections, cores, protocols);
        Some(plan)
    }

    /// The plan for a configuration where so many bytes are available, if it bounds memory.
    pub(crate) fn divide(config: &TrackerConfig, cores: usize, udp: bool, available: u64) -> Option<Self> {
        let total = config.limits.max_memory.of(available)?;
        let families = u64::from(config.network.use_ipv4) + u64::from(config.network.use_ipv6);
        let buffers = if udp { config.udp.socket_recv_buffer_size as u64 * families } else { 0 };
        Some(Self::new(total, cores as u64, buffers, config.connections.max_connections))
    }

    /// What the stores of each of so many cores may take.
    pub(crate) fn budgets(&self, cores: usize) -> Arc<[CoreBudget]> {
        (0..cores).map(|_| CoreBudget::new(self.store)).collect()
    }

    /// Bytes that the WebTorrent clients of each of so many cores may have together that they have not
    /// received yet.
    pub(crate) fn unsent(&self, cores: usize) -> usize {
        let bytes = self.connections as u64 * CONNECTION / 100 * UNSENT_SHARE / cores.max(1) as u64;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// About how many peers over IPv4 there is room for before anything is refused.
    fn peers(&self, cores: usize) -> u64 {
        self.store * cores as u64 / 100 * Degradation::BEGINS / PEER
    }

    fn announce(&self, wanted: usize, cores: usize, protocols: Protocols) {
        let peers = if protocols.udp || protocols.http {
            format!(" ({}, if they are on IPv4)", rounded(self.peers(cores)))
        } else {
            String::new()
        };
        log::info!(
            "memory: up to {} MiB ({}), of which {} MiB for torrents and peers{peers} and the rest for {} connections",
            self.total / MIB,
            LimitsConfig::max_memory,
            self.store * cores as u64 / MIB,
            self.connections
        );
        if self.connections < wanted {
            log::warn!(
                "{} = {wanted} could take more memory than there is, so there will be at most {}. Raise {}, or lower \
                 the setting",
                ConnectionsConfig::max_connections,
                self.connections,
                LimitsConfig::max_memory
            );
        }
        if self.total < self.least {
            log::warn!(
                "the tracker may take {} MiB, more than {} allows. Raise it, or lower workers or \
                 udp.socket_recv_buffer_size",
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

    #[test]
    fn peers_are_estimated() {
        let peers = |total| rounded(MemoryPlan::new(total, 2, 4 * MIB, 1000).peers(2));
        assert_eq!(peers(19_000 * MIB), "some 452 million peers");
        assert_eq!(peers(512 * MIB), "some 11 million peers");
        assert_eq!(peers(64 * MIB), "some 573 thousand peers");
    }

    #[test]
    fn a_budget_is_spent_and_not_exceeded() {
        for (total, cores, buffers, connections) in
            [(512, 1, 16, 100_000), (4096, 8, 16, 1000), (96, 2, 4, 100_000), (1 << 20, 64, 16, 10_000_000)]
        {
            let plan = MemoryPlan::new(total * MIB, cores, buffers * MIB, connections);
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
        let plan = MemoryPlan::new(MIB, 4, 0, 1000);
        assert_eq!((plan.store, plan.connections), (LEAST_STORE, LEAST_CONNECTIONS as usize));
        assert!(plan.total < plan.least, "{plan:?}");
    }
}
