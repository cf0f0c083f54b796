//! Cost of charging one source at all prefix lengths: `cargo bench -p aquatic_common`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aquatic_common::load_table::{Allowance, LoadTable, SourceKey};
use divan::Bencher;

/// Binary logarithms of the number of lines: 256 KiB and 4 MiB.
const SIZES: [u32; 2] = [12, 16];

/// Requests whose keys are made together: as many as the UDP tracker receives.
const BATCH: usize = 64;

const ALLOWANCE: Allowance = Allowance { rate: 2000.0, burst: 20_000.0, multiples: [1, 16, 64] };

fn main() {
    divan::main();
}

/// Addresses in an order without locality.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn v4(number: u64) -> IpAddr {
    Ipv4Addr::from_bits((scattered(number) >> 32) as u32).into()
}

fn v6(number: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(scattered(number)) << 64).into()
}

#[divan::bench(args = SIZES)]
fn million_sources_of_ipv4(bencher: Bencher<'_, '_>, lines_log2: u32) {
    charge(bencher, lines_log2, |number| v4(number % 1_000_000));
}

#[divan::bench(args = SIZES)]
fn million_sources_of_ipv6(bencher: Bencher<'_, '_>, lines_log2: u32) {
    charge(bencher, lines_log2, |number| v6(number % 1_000_000));
}

#[divan::bench(args = SIZES)]
fn thousand_sources_of_ipv4(bencher: Bencher<'_, '_>, lines_log2: u32) {
    charge(bencher, lines_log2, |number| v4(number % 1000));
}

#[divan::bench(args = SIZES)]
fn million_sources_of_ipv4_in_batches(bencher: Bencher<'_, '_>, lines_log2: u32) {
    charge_batches(bencher, lines_log2, |number| v4(number % 1_000_000));
}

#[divan::bench(args = SIZES)]
fn million_sources_of_ipv6_in_batches(bencher: Bencher<'_, '_>, lines_log2: u32) {
    charge_batches(bencher, lines_log2, |number| v6(number % 1_000_000));
}

#[divan::bench(args = SIZES)]
fn thousand_sources_of_ipv4_in_batches(bencher: Bencher<'_, '_>, lines_log2: u32) {
    charge_batches(bencher, lines_log2, |number| v4(number % 1000));
}

/// As [`charge`], with the keys of each batch made first.
fn charge_batches(bencher: Bencher<'_, '_>, lines_log2: u32, source: fn(u64) -> IpAddr) {
    let mut table = LoadTable::new(lines_log2, [7; 16], ALLOWANCE.decay_per_second());
    let (prices, mut number, mut keys) = (ALLOWANCE.prices(), 0, [SourceKey::default(); BATCH]);
    bencher.counter(16 * BATCH).bench_local(|| {
        let mut within = 0;
        for _ in 0..16 {
            for (key, number) in keys.iter_mut().zip(number..) {
                *key = table.key(source(number));
            }
            number += BATCH as u64;
            within +=
                keys.iter().filter(|&&key| table.try_add_by_key(key, number / 500, prices).is_ok()).count();
        }
        within
    });
}

/// 500 requests in each millisecond.
fn charge(bencher: Bencher<'_, '_>, lines_log2: u32, source: fn(u64) -> IpAddr) {
    let mut table = LoadTable::new(lines_log2, [7; 16], ALLOWANCE.decay_per_second());
    let (prices, mut number) = (ALLOWANCE.prices(), 0);
    bencher.counter(1000_u32).bench_local(|| {
        (0..1000)
            .filter(|_| {
                number += 1;
                table.try_add(source(number), number / 500, prices).is_ok()
            })
            .count()
    });
}
