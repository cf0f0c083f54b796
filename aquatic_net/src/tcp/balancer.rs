//! What the cores share about connections: how many each has, how many come from one address, and the
//! mailboxes by which connections are handed to another core.
//!
//! The kernel chooses among the cores' listening sockets by a hash of addresses and ports, and cannot be told
//! how many connections each core has. So a core that has accepted one compares itself with one other core
//! drawn at random, and hands the connection off if that one has clearly fewer. Two random choices keep all
//! cores close together, at the cost of reading one number.
//!
//! Invariants: a [`ConnectionPermit`] is one connection on one core and, unless it is exempt, one of its
//! address; it releases both when it is dropped. No lock is held while anything else is done.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aquatic_runtime::mailbox::MailboxFull;
use aquatic_runtime::{MailboxReceiver, MailboxSender, mailbox};

use super::bind::ListenerKind;
use super::connection::Peer;
use super::reserve::Reserve;

/// Maximum number of connections handed to a core that has not taken them yet. Each holds a descriptor.
const MAX_HANDOFFS: usize = 1024;

/// Parts of the address table, so that cores rarely meet at one lock.
const PARTS: usize = 64;

/// A connection on its way to another core.
#[derive(Debug)]
pub(super) struct Handoff {
    pub(super) socket: OwnedFd,
    pub(super) peer: Peer,
    pub(super) kind: ListenerKind,
    pub(super) permit: ConnectionPermit,
    /// The connection's address is at its limit, and none of its connections could be evicted on the core
    /// that accepted this one.
    pub(super) needs_eviction: bool,
}

/// What is shared about one core.
#[repr(align(128))]
struct CoreSlot {
    open: AtomicUsize,
    handoffs: MailboxSender<Handoff>,
}

/// What all cores share.
pub(super) struct ConnectionBalancer {
    cores: Box<[CoreSlot]>,
    max_per_core: AtomicUsize,
    addresses: Addresses,
    reserve: Reserve,
}

impl fmt::Debug for ConnectionBalancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionBalancer").field("cores", &self.cores.len()).finish_non_exhaustive()
    }
}

impl ConnectionBalancer {
    /// A balancer, and each core's receiver of connections, in core order. It is never freed, as permits
    /// refer to it until the process ends: to count references would have all cores write to one number at
    /// each connection.
    pub(super) fn new(cores: usize) -> io::Result<(&'static Self, Vec<MailboxReceiver<Handoff>>)> {
        let mut receivers = Vec::new();
        let slot = |_| {
            let (handoffs, receiver) = mailbox(MAX_HANDOFFS)?;
            receivers.push(receiver);
            Ok(CoreSlot { open: AtomicUsize::new(0), handoffs })
        };
        let slots = (0..cores.max(1)).map(slot).collect::<io::Result<_>>()?;
        let balancer = Self {
            max_per_core: AtomicUsize::new(usize::MAX),
            addresses: Addresses::new(),
            reserve: Reserve::new(cores.max(1)),
            cores: slots,
        };
        Ok((Box::leak(Box::new(balancer)), receivers))
    }

    /// Sets the limits. Every core sets the same.
    pub(super) fn limit(&self, connections: usize, per_address: u32) {
        let share = connections.div_ceil(self.cores.len()).max(1);
        self.max_per_core.store(share, Ordering::Relaxed);
        self.addresses.max.store(per_address as usize, Ordering::Relaxed);
    }

    /// The descriptors kept for when there are none.
    pub(super) fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// Number of connections of a core.
    pub(super) fn open(&self, core: usize) -> usize {
        self.cores[core].open.load(Ordering::Relaxed)
    }

    /// The core that should have the next connection accepted by `here`, compared with one other core, which
    /// the random number names.
    pub(super) fn choose(&self, here: usize, random: usize) -> usize {
        let Some(other) = self.another(here, random) else { return here };
        let (own, others) = (self.open(here), self.open(other));
        if own > others + 1 + others / 16 { other } else { here }
    }

    /// Another core than `here`, which the random number names; `None` if there is only one.
    pub(super) fn another(&self, here: usize, random: usize) -> Option<usize> {
        let others = self.cores.len().checked_sub(1).filter(|&others| others > 0)?;
        Some((here + 1 + random % others) % self.cores.len())
    }

    /// A permit for a connection on a core, if that core has not reached its limit.
    pub(super) fn acquire(&'static self, core: usize) -> Option<ConnectionPermit> {
        let open = &self.cores[core].open;
        let permit = ConnectionPermit { balancer: self, core, address: None };
        // The permit is released by its drop, also here if there is none left.
        let before = open.fetch_add(1, Ordering::Relaxed);
        (before < self.max_per_core.load(Ordering::Relaxed)).then_some(permit)
    }

    /// A permit for a connection on whichever core has one left, on this one if it has.
    pub(super) fn acquire_any(&'static self, here: usize) -> Option<ConnectionPermit> {
        let cores = self.cores.len();
        (0..cores).find_map(|step| self.acquire((here + step) % cores))
    }

    /// A permit beyond a core's limit: another connection there is evicted.
    pub(super) fn acquire_over_limit(&'static self, core: usize) -> ConnectionPermit {
        self.cores[core].open.fetch_add(1, Ordering::Relaxed);
        ConnectionPermit { balancer: self, core, address: None }
    }

    /// Hands a connection to the core its permit is for; gives it back if too many are waiting there.
    pub(super) fn hand_off(&self, handoff: Handoff) -> Result<(), Handoff> {
        let core = &self.cores[handoff.permit.core];
        core.handoffs.try_send(handoff).map_err(|MailboxFull(handoff)| handoff)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection's share of the limits.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    balancer: &'static ConnectionBalancer,
    core: usize,
    address: Option<AddressKey>,
}

impl ConnectionPermit {
    /// The core the connection is on, or on its way to.
    pub(super) fn core(&self) -> usize {
        self.core
    }

    /// The address the connection counts for, unless it is exempt.
    pub(super) fn address(&self) -> Option<AddressKey> {
        self.address
    }

    /// Has the connection count on another core, even beyond that one's limit.
    pub(super) fn move_to(&mut self, core: usize) {
        self.balancer.cores[core].open.fetch_add(1, Ordering::Relaxed);
        self.balancer.cores[self.core].open.fetch_sub(1, Ordering::Relaxed);
        self.core = core;
    }

    /// Counts the connection to its address; false if that has too many.
    pub(super) fn charge_address(&mut self, ip: IpAddr) -> bool {
        let key = AddressKey::of(ip);
        if self.address == Some(key) {
            return true;
        }
        let taken = self.balancer.addresses.take(key);
        if taken {
            self.replace_address(key);
        }
        taken
    }

    /// Counts the connection to its address beyond that one's limit: another connection of it is evicted.
    pub(super) fn charge_address_over_limit(&mut self, ip: IpAddr) {
        let key = AddressKey::of(ip);
        if self.address != Some(key) {
            self.balancer.addresses.take_over_limit(key);
            self.replace_address(key);
        }
    }

    fn replace_address(&mut self, key: AddressKey) {
        if let Some(old) = self.address.replace(key) {
            self.balancer.addresses.give_back(old);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.balancer.cores[self.core].open.fetch_sub(1, Ordering::Relaxed);
        if let Some(key) = self.address {
            self.balancer.addresses.give_back(key);
        }
    }
}

/// Number of connections of each address.
struct Addresses {
    max: AtomicUsize,
    hasher: RandomState,
    parts: Box<[Mutex<HashMap<AddressKey, u32>>]>,
}

impl Addresses {
    fn new() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { max: AtomicUsize::new(0), hasher: RandomState::new(), parts }
    }

    fn part(&self, key: AddressKey) -> MutexGuard<'_, HashMap<AddressKey, u32>> {
        let at = self.hasher.hash_one(key) as usize % PARTS;
        lock(&self.parts[at])
    }

    fn take(&self, key: AddressKey) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let mut part = self.part(key);
        let count = part.entry(key).or_insert(0);
        if max != 0 && *count as usize >= max {
            return false;
        }
        *count = count.saturating_add(1);
        true
    }

    fn take_over_limit(&self, key: AddressKey) {
        let mut part = self.part(key);
        let count = part.entry(key).or_insert(0);
        *count = count.saturating_add(1);
    }

    fn give_back(&self, key: AddressKey) {
        let mut part = self.part(key);
        if let Some(count) = part.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                part.remove(&key);
            }
        }
    }
}

/// An IPv4 address, or the /64 network of an IPv6 address: a home or server usually has one for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AddressKey(u64);

impl AddressKey {
    /// IPv4 addresses use numbers of networks that are reserved.
    pub(super) fn of(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(v4) => 1 << 32 | u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn balancer(cores: usize, connections: usize, per_address: u32) -> &'static ConnectionBalancer {
        let (balancer, _) = ConnectionBalancer::new(cores).unwrap();
        balancer.limit(connections, per_address);
        balancer
    }

    fn handoff(permit: ConnectionPermit) -> Handoff {
        let socket = eventfd(0, EventfdFlags::empty()).unwrap();
        Handoff {
            socket,
            peer: Peer::Address(SocketAddr::from(([192, 0, 2, 1], 1))),
            kind: ListenerKind::Plain,
            permit,
            needs_eviction: false,
        }
    }

    #[test]
    fn each_core_has_its_share_and_permits_come_back() {
        let balancer = balancer(2, 5, 0);
        let permits: Vec<_> = (0..3).map(|_| balancer.acquire(0).unwrap()).collect();
        assert!(balancer.acquire(0).is_none());
        assert_eq!(balancer.open(0), 3);
        let other = balancer.acquire_any(0).unwrap();
        assert_eq!(other.core(), 1);
        drop(permits);
        assert_eq!((balancer.open(0), balancer.open(1)), (0, 1));
        drop(other);
        assert_eq!(balancer.open(1), 0);
        let beyond: Vec<_> = (0..9).map(|_| balancer.acquire_over_limit(1)).collect();
        assert_eq!(balancer.open(1), 9);
        drop(beyond);
        assert_eq!(balancer.open(1), 0);
    }

    #[test]
    fn connections_go_to_cores_that_have_clearly_fewer() {
        let balancer = balancer(4, 100_000, 0);
        let mut permits = Vec::new();
        // All arrive at one core.
        for random in 0..4000 {
            permits.push(balancer.acquire(balancer.choose(0, random * 7)).unwrap());
        }
        let open: Vec<_> = (0..4).map(|core| balancer.open(core)).collect();
        assert!(open.iter().all(|open| (900..=1100).contains(open)), "{open:?}");
        let others: Vec<_> = (0..6).map(|random| balancer.another(3, random).unwrap()).collect();
        assert_eq!(others, [0, 1, 2, 0, 1, 2]);
        let single = ConnectionBalancer::new(1).unwrap().0;
        assert_eq!((single.choose(0, 5), single.another(0, 5)), (0, None));
    }

    #[test]
    fn addresses_are_limited_and_given_back() {
        let balancer = balancer(2, 100, 2);
        let charge_address = |ip: &str| {
            let mut permit = balancer.acquire(1).unwrap();
            permit.charge_address(ip.parse().unwrap()).then_some(permit)
        };
        for (address, same) in [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::ffff:0:0:1")] {
            let first = charge_address(address).unwrap();
            let mut second = charge_address(same).unwrap();
            assert!(charge_address(address).is_none(), "{address}");
            assert!(second.charge_address(same.parse().unwrap()), "what it has it keeps");
            assert!(second.charge_address("198.51.100.1".parse().unwrap()));
            let third = charge_address(address).unwrap();
            drop((first, second, third));
        }
        assert!(charge_address("2001:db8:0:1::1").is_some() && charge_address("192.0.2.2").is_some());
        assert!(balancer.addresses.parts.iter().all(|part| lock(part).is_empty()), "nothing is left behind");
        assert_eq!(balancer.open(1), 0);
    }

    #[test]
    fn a_core_takes_a_bounded_number_of_handoffs() {
        let balancer = balancer(2, 10_000, 0);
        for _ in 0..MAX_HANDOFFS {
            balancer.hand_off(handoff(balancer.acquire(1).unwrap())).unwrap();
        }
        let mut returned = balancer.hand_off(handoff(balancer.acquire(1).unwrap())).unwrap_err();
        returned.permit.move_to(0);
        assert_eq!((balancer.open(0), balancer.open(1)), (1, MAX_HANDOFFS));
    }

    #[test]
    fn an_address_over_its_limit_counts_until_it_is_released() {
        let balancer = balancer(1, 100, 1);
        let (ip, mut first, mut second) =
            ("192.0.2.1".parse().unwrap(), balancer.acquire(0).unwrap(), balancer.acquire(0).unwrap());
        assert!(first.charge_address(ip) && !second.charge_address(ip));
        second.charge_address_over_limit(ip);
        drop(first);
        assert!(!balancer.acquire(0).unwrap().charge_address(ip), "the second one is left");
        drop(second);
        assert!(balancer.acquire(0).unwrap().charge_address(ip));
    }

    #[test]
    fn ipv4_and_ipv6_do_not_share_keys() {
        assert_ne!(AddressKey::of("0.0.0.1".parse().unwrap()), AddressKey::of("::1".parse().unwrap()));
        assert_ne!(
            AddressKey::of("192.0.2.1".parse().unwrap()),
            AddressKey::of("192.0.2.2".parse().unwrap())
        );
    }
}
