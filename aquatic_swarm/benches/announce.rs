//! Cost of one announce in swarms of different sizes: `cargo bench -p aquatic_swarm --bench announce`.
//!
//! The announcing peer is known and asks for 50 peers. Divide by the number of peers in the reply to compare
//! sizes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::{AnnounceEvent, InfoHash, Seconds};
use aquatic_swarm::{Announce, Announced, Families, HashKey, PeerBuffers, Shard, ShardLimits};
use divan::Bencher;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

const SIZES: [u32; 5] = [1, 10, 1000, 100_000, 1_000_000];
const NUMWANT: usize = 50;

fn main() {
    divan::main();
}

struct Fixture {
    shard: Shard,
    rng: Xoshiro256PlusPlus,
    v4: [u8; 6 * NUMWANT],
    v6: [u8; 18 * NUMWANT],
}

impl Fixture {
    /// A third of the peers are seeders.
    fn with_swarm(size: u32, address: fn(u32) -> SocketAddr) -> Self {
        let mut fixture = Self {
            shard: Shard::new(ShardLimits::default(), HashKey([9; 16])),
            rng: Xoshiro256PlusPlus::seed_from_u64(9),
            v4: [0; 6 * NUMWANT],
            v6: [0; 18 * NUMWANT],
        };
        for number in 0..size {
            fixture.announce(address(number), number % 3 == 0, AnnounceEvent::None, 0);
        }
        fixture
    }

    fn announce(
        &mut self,
        address: SocketAddr,
        seeder: bool,
        event: AnnounceEvent,
        numwant: usize,
    ) -> Announced {
        let info_hash = InfoHash([5; 20]);
        let announce = Announce { info_hash, address, seeder, event, numwant, families: Families::Own };
        let out = PeerBuffers { v4: &mut self.v4, v6: &mut self.v6 };
        self.shard.announce(&announce, Seconds(1000), &mut self.rng, out)
    }
}

fn v4(number: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(number), 6881))
}

fn v6(number: u32) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number)), 6881))
}

#[divan::bench(args = SIZES)]
fn leecher_of_ipv4(bencher: Bencher<'_, '_>, size: u32) {
    known(bencher, size, v4, NUMWANT);
}

#[divan::bench(args = SIZES)]
fn leecher_of_ipv6(bencher: Bencher<'_, '_>, size: u32) {
    known(bencher, size, v6, NUMWANT);
}

#[divan::bench(args = SIZES)]
fn no_peers_wanted(bencher: Bencher<'_, '_>, size: u32) {
    known(bencher, size, v4, 0);
}

fn known(bencher: Bencher<'_, '_>, size: u32, address: fn(u32) -> SocketAddr, numwant: usize) {
    let mut fixture = Fixture::with_swarm(size, address);
    bencher.bench_local(|| {
        let number = fixture.rng.random_range(0..size);
        fixture.announce(address(number), number % 3 == 0, AnnounceEvent::None, numwant)
    });
}

/// A peer starts and stops: two announces.
#[divan::bench(args = SIZES)]
fn start_and_stop(bencher: Bencher<'_, '_>, size: u32) {
    let mut fixture = Fixture::with_swarm(size, v4);
    let mut number = size;
    bencher.bench_local(|| {
        number = number.wrapping_add(1).max(size);
        let seeder = number.is_multiple_of(3);
        fixture.announce(v4(number), seeder, AnnounceEvent::Started, NUMWANT);
        fixture.announce(v4(number), seeder, AnnounceEvent::Stopped, NUMWANT)
    });
}

/// An address with 3,000 ports is in the swarm as well.
#[divan::bench(args = [20, 1000, 100_000])]
fn leecher_of_crowded(bencher: Bencher<'_, '_>, size: u32) {
    let mut fixture = Fixture::with_swarm(size.min(1000), v4);
    for port in 1024..4024 {
        let address = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 7), port));
        fixture.announce(address, false, AnnounceEvent::None, 0);
    }
    for number in 1000..size {
        fixture.announce(v4(number), number % 3 == 0, AnnounceEvent::None, 0);
    }
    bencher.bench_local(|| {
        let number = fixture.rng.random_range(0..size);
        fixture.announce(v4(number), number % 3 == 0, AnnounceEvent::None, NUMWANT)
    });
}
