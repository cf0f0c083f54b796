//! What the cores know of each other's connections: how many there are, how many come from one address, and the way
//! to hand one over.
//!
//! The kernel chooses among the cores' listening sockets by a hash of addresses and ports, and cannot be told how many
//! connections each core has. So a core that has accepted one compares itself with one other core drawn at random, and
//! hands the connection over if that one has clearly fewer. Two random choices keep all cores close together, at the
//! cost of reading one number.
//!
//! Invariants: a [`Place`] is one connection on one core and, unless it is exempt, one of its address; it gives both
//! back when it is dropped. No lock is held while anything else is done.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::connection::Peer;
use super::reserve::Reserve;

/// Connections handed to a core that has not looked yet. Each holds a descriptor.
const MAX_IN_MAIL: usize = 1024;

/// Parts of the address table, so that cores rarely meet at one lock.
const PARTS: usize = 64;

/// A connection on its way to another core.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) socket: OwnedFd,
    pub(super) peer: Peer,
    pub(super) place: Place,
}

/// One core's side.
#[repr(align(128))]
struct Seat {
    open: AtomicUsize,
    mail: Mutex<Vec<Parcel>>,
    bell: OwnedFd,
}

/// What all cores share.
pub(super) struct Balance {
    seats: Box<[Seat]>,
    most_per_core: AtomicUsize,
    addresses: Addresses,
    reserve: Reserve,
}

impl fmt::Debug for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance").field("cores", &self.seats.len()).finish_non_exhaustive()
    }
}

impl Balance {
    pub(super) fn new(cores: usize) -> io::Result<Self> {
        let seat = |_| {
            let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            Ok(Seat { open: AtomicUsize::new(0), mail: Mutex::default(), bell })
        };
        let seats = (0..cores.max(1)).map(seat).collect::<io::Result<_>>()?;
        Ok(Self {
            most_per_core: AtomicUsize::new(usize::MAX),
            addresses: Addresses::new(),
            reserve: Reserve::new(cores.max(1)),
            seats,
        })
    }

    /// Sets the limits. Every core sets the same.
    pub(super) fn limit(&self, connections: usize, per_address: u32) {
        let share = connections.div_ceil(self.seats.len()).max(1);
        self.most_per_core.store(share, Ordering::Relaxed);
        self.addresses.most.store(per_address as usize, Ordering::Relaxed);
    }

    /// The descriptors kept for when there are none.
    pub(super) fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// How many connections a core has.
    pub(super) fn open(&self, core: usize) -> usize {
        self.seats[core].open.load(Ordering::Relaxed)
    }

    /// The core that should have the next connection accepted by `here`, compared with one other core, which the
    /// random number names.
    pub(super) fn choose(&self, here: usize, random: usize) -> usize {
        let cores = self.seats.len();
        if cores == 1 {
            return here;
        }
        let other = (here + 1 + random % (cores - 1)) % cores;
        let (own, others) = (self.open(here), self.open(other));
        if own > others + 1 + others / 16 { other } else { here }
    }

    /// Takes a place on a core, if it has one left.
    pub(super) fn enter(self: &Arc<Self>, core: usize) -> Option<Place> {
        let open = &self.seats[core].open;
        let place = Place { balance: Arc::clone(self), core, address: None };
        // The place is given back by its drop, also here if there is none left.
        let before = open.fetch_add(1, Ordering::Relaxed);
        (before < self.most_per_core.load(Ordering::Relaxed)).then_some(place)
    }

    /// Takes a place on whichever core has one left, on this one if it has.
    pub(super) fn enter_any(self: &Arc<Self>, here: usize) -> Option<Place> {
        let cores = self.seats.len();
        (0..cores).find_map(|step| self.enter((here + step) % cores))
    }

    /// Takes a place on a core beyond its share: another connection there makes room.
    pub(super) fn enter_beyond(self: &Arc<Self>, core: usize) -> Place {
        self.seats[core].open.fetch_add(1, Ordering::Relaxed);
        Place { balance: Arc::clone(self), core, address: None }
    }

    /// Hands a connection to the core its place is on; gives it back if too many are waiting there.
    pub(super) fn hand_over(&self, parcel: Parcel) -> Result<(), Parcel> {
        let seat = &self.seats[parcel.place.core];
        let mut mail = lock(&seat.mail);
        if mail.len() >= MAX_IN_MAIL {
            return Err(parcel);
        }
        mail.push(parcel);
        let first = mail.len() == 1;
        drop(mail);
        if first {
            // Fails only if the counter is full, and then the bell has long been rung.
            let _ = rustix::io::write(&seat.bell, &1_u64.to_ne_bytes());
        }
        Ok(())
    }

    /// What rings when something has been handed to a core.
    pub(super) fn bell(&self, core: usize) -> BorrowedFd<'_> {
        self.seats[core].bell.as_fd()
    }

    /// Takes what has been handed to a core.
    pub(super) fn take(&self, core: usize) -> Vec<Parcel> {
        std::mem::take(&mut *lock(&self.seats[core].mail))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection's share of the limits.
#[derive(Debug)]
pub(super) struct Place {
    balance: Arc<Balance>,
    core: usize,
    address: Option<u64>,
}

impl Place {
    /// The core the connection is on, or on its way to.
    pub(super) fn core(&self) -> usize {
        self.core
    }

    /// Has the connection count on another core, even beyond that one's share.
    pub(super) fn move_to(&mut self, core: usize) {
        self.balance.seats[core].open.fetch_add(1, Ordering::Relaxed);
        self.balance.seats[self.core].open.fetch_sub(1, Ordering::Relaxed);
        self.core = core;
    }

    /// Counts the connection to its address; false if that has too many.
    pub(super) fn claim(&mut self, ip: IpAddr) -> bool {
        let key = key(ip);
        if self.address == Some(key) {
            return true;
        }
        let taken = self.balance.addresses.take(key);
        if taken && let Some(old) = self.address.replace(key) {
            self.balance.addresses.give_back(old);
        }
        taken
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.balance.seats[self.core].open.fetch_sub(1, Ordering::Relaxed);
        if let Some(key) = self.address {
            self.balance.addresses.give_back(key);
        }
    }
}

/// How many connections come from each address.
struct Addresses {
    most: AtomicUsize,
    hasher: RandomState,
    parts: Box<[Mutex<HashMap<u64, u32>>]>,
}

impl Addresses {
    fn new() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { most: AtomicUsize::new(0), hasher: RandomState::new(), parts }
    }

    fn part(&self, key: u64) -> MutexGuard<'_, HashMap<u64, u32>> {
        let at = self.hasher.hash_one(key) as usize % PARTS;
        lock(&self.parts[at])
    }

    fn take(&self, key: u64) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let mut part = self.part(key);
        let count = part.entry(key).or_insert(0);
        if most != 0 && *count as usize >= most {
            return false;
        }
        *count = count.saturating_add(1);
        true
    }

    fn give_back(&self, key: u64) {
        let mut part = self.part(key);
        if let Some(count) = part.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                part.remove(&key);
            }
        }
    }
}

/// An IPv4 address, or the network of an IPv6 address: a home or server usually has a /64 for itself. IPv4 addresses
/// take the place of networks that are reserved.
fn key(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(v4) => 1 << 32 | u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn balance(cores: usize, connections: usize, per_address: u32) -> Arc<Balance> {
        let balance = Arc::new(Balance::new(cores).unwrap());
        balance.limit(connections, per_address);
        balance
    }

    fn parcel(place: Place) -> Parcel {
        let socket = eventfd(0, EventfdFlags::empty()).unwrap();
        Parcel { socket, peer: Peer::Address(SocketAddr::from(([192, 0, 2, 1], 1))), place }
    }

    #[test]
    fn each_core_has_its_share_and_places_come_back() {
        let balance = balance(2, 5, 0);
        let places: Vec<_> = (0..3).map(|_| balance.enter(0).unwrap()).collect();
        assert!(balance.enter(0).is_none());
        assert_eq!(balance.open(0), 3);
        let other = balance.enter_any(0).unwrap();
        assert_eq!(other.core(), 1);
        drop(places);
        assert_eq!((balance.open(0), balance.open(1)), (0, 1));
        drop(other);
        assert_eq!(balance.open(1), 0);
        let beyond: Vec<_> = (0..9).map(|_| balance.enter_beyond(1)).collect();
        assert_eq!(balance.open(1), 9);
        drop(beyond);
        assert_eq!(balance.open(1), 0);
    }

    #[test]
    fn connections_go_to_cores_that_have_clearly_fewer() {
        let balance = balance(4, 100_000, 0);
        let mut places = Vec::new();
        // All arrive at one core.
        for random in 0..4000 {
            places.push(balance.enter(balance.choose(0, random * 7)).unwrap());
        }
        let open: Vec<_> = (0..4).map(|core| balance.open(core)).collect();
        assert!(open.iter().all(|open| (900..=1100).contains(open)), "{open:?}");
        assert_eq!(Balance::new(1).unwrap().choose(0, 5), 0);
    }

    #[test]
    fn addresses_are_limited_and_given_back() {
        let balance = balance(2, 100, 2);
        let claim = |ip: &str| {
            let mut place = balance.enter(1).unwrap();
            place.claim(ip.parse().unwrap()).then_some(place)
        };
        for (address, same) in [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::ffff:0:0:1")] {
            let first = claim(address).unwrap();
            let mut second = claim(same).unwrap();
            assert!(claim(address).is_none(), "{address}");
            assert!(second.claim(same.parse().unwrap()), "what it has it keeps");
            assert!(second.claim("198.51.100.1".parse().unwrap()));
            let third = claim(address).unwrap();
            drop((first, second, third));
        }
        assert!(claim("2001:db8:0:1::1").is_some() && claim("192.0.2.2").is_some());
        assert!(balance.addresses.parts.iter().all(|part| lock(part).is_empty()), "nothing is left behind");
        assert_eq!(balance.open(1), 0);
    }

    #[test]
    fn what_is_handed_over_rings_once_and_arrives() {
        let balance = balance(2, 10_000, 0);
        for _ in 0..3 {
            balance.hand_over(parcel(balance.enter(1).unwrap())).unwrap();
        }
        let mut rings = [0; 8];
        rustix::io::read(balance.bell(1), &mut rings).unwrap();
        assert_eq!(u64::from_ne_bytes(rings), 1);
        assert_eq!(balance.take(1).len(), 3);
        for _ in 0..MAX_IN_MAIL {
            balance.hand_over(parcel(balance.enter(1).unwrap())).unwrap();
        }
        let mut returned = balance.hand_over(parcel(balance.enter(1).unwrap())).unwrap_err();
        returned.place.move_to(0);
        assert_eq!((balance.open(0), balance.open(1)), (1, MAX_IN_MAIL));
    }

    #[test]
    fn ipv4_and_ipv6_do_not_share_keys() {
        assert_ne!(key("0.0.0.1".parse().unwrap()), key("::1".parse().unwrap()));
        assert_ne!(key("192.0.2.1".parse().unwrap()), key("192.0.2.2".parse().unwrap()));
    }
}
