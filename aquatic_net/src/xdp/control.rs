//! What the main thread does for the program: endpoints, blocked networks and the size of packets are kept up
//! to date.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aquatic_common::PrefixSet;
use aquatic_runtime::Periodic;

use super::endpoints::{Endpoint, LocalAddress, endpoints, network_key, tags_of};
use super::program::{NETWORK_KEY, SWITCH_BLOCKS};
use super::queue::Shared;
use super::setup::{MAX_BLOCKED, Maps};
use super::sys::interface::{self, Asker};
use crate::block_list::BlockList;

/// Time between two looks at the addresses of the interfaces.
const REFRESH: Duration = Duration::from_secs(5);

/// Keeps the program attached and its maps up to date.
pub struct XdpControl {
    interface: String,
    asker: Asker,
    maps: Maps,
    shared: Shared,
    endpoints: BTreeSet<Endpoint>,
    block_list: Arc<BlockList>,
    /// The list that the map was last brought up to.
    blocked: Arc<PrefixSet>,
    /// The networks in the map.
    networks: BTreeSet<[u8; NETWORK_KEY]>,
    /// Whether the map lacks some of them, or has others.
    is_behind: bool,
    next_refresh: Duration,
    /// A map could not be changed, which has been told.
    has_failed: bool,
    /// The addresses could not be read, which has been told.
    is_blind: bool,
    /// The program is attached while both are open.
    _attached: (OwnedFd, OwnedFd),
}

impl fmt::Debug for XdpControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpControl").field("interface", &self.interface).finish_non_exhaustive()
    }
}

impl XdpControl {
    pub(super) fn new(
        (interface, asker): (&str, Asker),
        (maps, program, link): (Maps, OwnedFd, OwnedFd),
        shared: Shared,
        block_list: Arc<BlockList>,
    ) -> Self {
        let mut control = Self {
            interface: interface.to_owned(),
            asker,
            maps,
            shared,
            endpoints: BTreeSet::new(),
            block_list,
            blocked: Arc::default(),
            networks: BTreeSet::new(),
            is_behind: false,
            next_refresh: Duration::ZERO,
            has_failed: false,
            is_blind: false,
            _attached: (program, link),
        };
        control.refresh();
        control.follow_block_list();
        if control.endpoints.is_empty() {
            log::warn!(
                "AF_XDP: no address that UDP listens on is an address of {interface}, of its VLANs, or of the \
                 loopback interface, so the sockets serve everything until there is one"
            );
        }
        control
    }

    /// Brings endpoints and the size of packets up to date.
    fn refresh(&mut self) {
        if let Ok(size) = self.asker.max_packet(&self.interface) {
            self.shared.max_packet.store(size, Ordering::Relaxed);
        }
        let addresses = match self.local_addresses() {
            Ok(addresses) => addresses,
            Err(error) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    log::warn!(
                        "AF_XDP: the addresses of the interfaces cannot be read ({error}), so what was known stays. A \
                         systemd unit has to allow it: RestrictAddressFamilies=AF_NETLINK"
                    );
                }
                return;
            }
        };
        let wanted = endpoints(&self.shared.listeners, &addresses);
        if wanted == self.endpoints {
            return;
        }
        let map = &self.maps.endpoints;
        let set = |endpoint: &Endpoint| map.set(&endpoint.key(), &[0; 4]);
        let result = follow(&mut self.endpoints, &wanted, set, |endpoint| map.remove(&endpoint.key()));
        self.note(result);
    }

    /// The addresses that frames of the interface are for.
    fn local_addresses(&self) -> io::Result<Vec<LocalAddress>> {
        let mut found = Vec::new();
        for address in interface::addresses()? {
            let tags = if address.is_loopback {
                // Service addresses, such as those of anycast.
                (!address.ip.is_loopback()).then(Default::default)
            } else {
                tags_of(&self.interface, &address.interface, |name| self.asker.vlan(name))
            };
            found.extend(tags.map(|tags| LocalAddress { ip: address.ip, tags }));
        }
        Ok(found)
    }

    /// Brings the blocked networks up to date.
    fn follow_block_list(&mut self) {
        let list = self.block_list.current();
        if Arc::ptr_eq(&list, &self.blocked) {
            return;
        }
        self.apply_block_list(list);
    }

    fn apply_block_list(&mut self, list: Arc<PrefixSet>) {
        let mut wanted: BTreeSet<_> = list.prefixes().take(MAX_BLOCKED + 1).map(network_key).collect();
        if wanted.len() > MAX_BLOCKED {
            log::info!(
                "AF_XDP: more than {MAX_BLOCKED} networks are blocked; their requests are dropped by the cores"
            );
            wanted.clear();
        }
        self.blocked = list;
        // Nothing is dropped by a list that is half of one and half of the other.
        self.switch_blocks(false);
        let map = &self.maps.blocked;
        let result = follow(&mut self.networks, &wanted, |key| map.set(key, &[0; 4]), |key| map.remove(key));
        self.is_behind = result.is_err();
        self.note(result);
        self.switch_blocks(!self.is_behind && !self.networks.is_empty());
    }

    fn switch_blocks(&self, is_on: bool) {
        for queue in 0..self.maps.queues {
            self.shared.switches.set(queue, SWITCH_BLOCKS, is_on);
        }
    }

    /// Tells once that a map could not be changed.
    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.has_failed, true)
        {
            log::warn!(
                "AF_XDP: an eBPF map cannot be changed ({error}): new addresses of the interface are served by \
                 sockets, and blocked networks are dropped by the cores. Before Linux 5.19, this needs sysctl \
                 kernel.unprivileged_bpf_disabled=0, or CAP_BPF; a restart applies what has changed"
            );
        }
    }
}

impl Periodic for XdpControl {
    fn tick(&mut self, now: Duration) {
        self.follow_block_list();
        if now >= self.next_refresh {
            self.next_refresh = now + REFRESH;
            self.refresh();
            if self.is_behind {
                self.apply_block_list(Arc::clone(&self.blocked));
            }
        }
    }
}

/// Has a map hold what is wanted. `known` is what it holds, also if some of it cannot be changed.
fn follow<T: Ord + Clone>(
    known: &mut BTreeSet<T>,
    wanted: &BTreeSet<T>,
    set: impl Fn(&T) -> io::Result<()>,
    remove: impl Fn(&T) -> io::Result<()>,
) -> io::Result<()> {
    let mut result = Ok(());
    for key in known.difference(wanted).cloned().collect::<Vec<_>>() {
        match remove(&key) {
            Ok(()) => drop(known.remove(&key)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => drop(known.remove(&key)),
            Err(error) => result = Err(error),
        }
    }
    for key in wanted.difference(known).cloned().collect::<Vec<_>>() {
        match set(&key) {
            Ok(()) => drop(known.insert(key)),
            Err(error) => result = Err(error),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn what_cannot_be_changed_is_tried_again() {
        let map = RefCell::new(BTreeSet::new());
        let mut known = BTreeSet::new();
        let mut change = |wanted: &[u32], refused: &[u32]| {
            let allow = |key: &u32| {
                let is_refused = refused.contains(key);
                if is_refused { Err(io::Error::from_raw_os_error(libc::EPERM)) } else { Ok(()) }
            };
            let set = |key: &u32| allow(key).map(|()| _ = map.borrow_mut().insert(*key));
            let remove = |key: &u32| allow(key).map(|()| _ = map.borrow_mut().remove(key));
            let result = follow(&mut known, &wanted.iter().copied().collect(), set, remove);
            assert_eq!(known, *map.borrow());
            (result.is_ok(), known.iter().copied().collect::<Vec<_>>())
        };
        assert_eq!(change(&[1, 2, 3], &[]), (true, vec![1, 2, 3]));
        assert_eq!(change(&[2, 3, 4, 5], &[1, 4]), (false, vec![1, 2, 3, 5]));
        assert_eq!(change(&[2, 3, 4, 5], &[1]), (false, vec![1, 2, 3, 4, 5]));
        assert_eq!(change(&[2, 3, 4, 5], &[]), (true, vec![2, 3, 4, 5]));
    }
}
